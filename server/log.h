/* SPDX-License-Identifier: Apache-2.0
 *
 * The update log of a shard: every change of state is an entry, numbered 1, 2, 3, ... An entry is safe once
 * everything it must survive on has it; without a follower that is at once. Safe entries are dropped from
 * memory; unsafe ones are bounded by bytes_max, beyond which the shard admits nothing new. Replies carry the
 * number they depend on and leave when it is safe. A tap sees every entry (tests record with it).
 *
 * Threads: the shard's.
 */
#ifndef SRV_LOG_H
#define SRV_LOG_H

#include "wire/control.h"
#include "wire/frame.h"

#include <stdbool.h>

typedef enum srv_entry_kind {
  SRV_ENTRY_OPEN = 1, /* plan */
  SRV_ENTRY_VIEW,     /* plan: its view and incarnations */
  SRV_ENTRY_PUSH,     /* rank, incarnation, clock, chunk, frame; of a table's chunk keys */
  SRV_ENTRY_COMMIT,   /* rank, incarnation, clock, scale, not_finite, finished, n_samples, n_chunks; frame: choices, or NULL */
  SRV_ENTRY_CLOSE,
  SRV_ENTRY_INITIAL, /* chunk, frame: its initial values */
} srv_entry_kind;

typedef struct srv_entry {
  uint64_t lsn;
  srv_entry_kind kind;
  uint64_t job;
  const Ballast__Control__JobPlan *plan; /* borrowed while the entry is applied, owned by the log's copy */
  uint32_t rank, incarnation;
  uint64_t clock;
  uint32_t chunk;   /* id in the job */
  bl_frame *frame;  /* a reference is taken by whoever keeps the entry */
  bl_frame *keys;   /* a row frame of the keys alone, whether `frame` has them or names their checksum; as frame */
  float scale;
  bool not_finite, finished;
  uint64_t n_samples;
  uint32_t n_chunks; /* pushed by the rank in this clock */
} srv_entry;

typedef void srv_log_tap_fn(const srv_entry *entry, void *arg);

typedef struct srv_log srv_log;

/* has_follower: entries stay unsafe until srv_log_set_safe says otherwise. */
srv_log *srv_log_new(uint64_t bytes_max, bool has_follower) BL_MUST_CHECK;
void srv_log_free(srv_log *l);
void srv_log_set_tap(srv_log *l, srv_log_tap_fn *tap, void *arg);

/* Numbers the entry (entry->lsn) and keeps it while it is unsafe. BL_EAGAIN: unsafe entries reached
 * bytes_max; BL_ENOMEM. On failure nothing was logged. */
BL_MUST_CHECK bl_status srv_log_append(srv_log *l, srv_entry *entry);
uint64_t srv_log_last(const srv_log *l); /* 0: none yet */
uint64_t srv_log_safe(const srv_log *l);
void srv_log_set_safe(srv_log *l, uint64_t lsn);
uint64_t srv_log_bytes(const srv_log *l); /* held by unsafe entries */

#endif
