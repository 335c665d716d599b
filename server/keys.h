/* SPDX-License-Identifier: Apache-2.0
 *
 * Lists of keys that ranks have sent: kept by their checksum, so that the same list need not be sent twice,
 * with the slots of its rows, so that the pull and the push of a batch look its rows up once.
 *
 * Lists are counted references: a push that is held and a pull that waits keep theirs when the cache has let it
 * go. The cache is per job, bounded in bytes, and lets the list go that was longest out of use. It is no part
 * of the logged state: entries carry their keys.
 *
 * Threads: the shard's.
 */
#ifndef SRV_KEYS_H
#define SRV_KEYS_H

#include "base/map.h"
#include "wire/pools.h"
#include "wire/rows.h"

typedef struct srv_keys {
  bl_rows_id id;
  uint32_t rank, chunk; /* chunk: local */
  uint32_t n_unknown;   /* rows that had no slot when last looked for */
  bl_frame *frame;      /* owned: a row frame of the keys alone, as an entry carries it */
  const uint8_t *keys;  /* into frame */
  uint32_t *slots;      /* [id.n_rows] SRV_NO_ROW: not made yet */
  /* The rest is keys.c's. */
  bl_frame *memory;
  struct srv_keys *older, *newer;
  uint32_t refs;
  size_t bytes;
  uint64_t *bytes_live;
} srv_keys;

typedef struct srv_key_cache {
  bl_map map;
  srv_keys *oldest, *newest;
  uint64_t bytes, bytes_max;
  uint64_t bytes_live; /* of all lists, those that only a push or pull holds included */
  uint64_t n_hits, n_misses;
} srv_key_cache;

void srv_key_cache_init(srv_key_cache *c, uint64_t bytes_max); /* 0: keeps nothing */
void srv_key_cache_fini(srv_key_cache *c);

/* The list of these keys, from the cache or new and, if there is room at all, put into it; the view has been
 * opened. The reference is the caller's. NULL: no memory. */
srv_keys *srv_keys_take(srv_key_cache *c, bl_frame_pools *pools, uint32_t rank, uint32_t chunk,
                        const bl_rows_view *view);
/* The list that a checksum stands for, with a reference for the caller; NULL: not known (any more). */
srv_keys *srv_keys_find(srv_key_cache *c, uint32_t rank, uint32_t chunk, const bl_rows_id *id);
void srv_keys_unref(srv_keys *k); /* accepts NULL */

#endif
