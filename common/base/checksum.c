/* SPDX-License-Identifier: Apache-2.0
 *
 * The door to xxHash. Where the library chooses an instruction set by CPU, its header gives the same names:
 * the plain ones use SSE2, and hashing would take most of the time of a codec.
 */
#include "config.h"

#include "base/checksum.h"

#include "base/alloc.h"

#ifdef BL_HAVE_XXHASH_DISPATCH
#include <xxh_x86dispatch.h>
#else
#include <xxhash.h>
#endif

struct bl_checksum_stream {
  XXH3_state_t *state;
};

uint64_t bl_checksum(const void *data, size_t size) { return XXH3_64bits(data, size); }

uint64_t bl_checksum_seeded(const void *data, size_t size, uint64_t seed) {
  return XXH3_64bits_withSeed(data, size, seed);
}

bl_checksum_stream *bl_checksum_stream_new(void) {
  bl_checksum_stream *s = bl_malloc(sizeof *s);
  if (s == NULL)
    return NULL;
  s->state = XXH3_createState();
  if (s->state == NULL || XXH3_64bits_reset(s->state) != XXH_OK) {
    bl_checksum_stream_free(s);
    return NULL;
  }
  return s;
}

void bl_checksum_stream_free(bl_checksum_stream *s) {
  if (s == NULL)
    return;
  XXH3_freeState(s->state);
  bl_free(s);
}

void bl_checksum_stream_add(bl_checksum_stream *s, const void *data, size_t size) {
  XXH3_64bits_update(s->state, data, size);
}

uint64_t bl_checksum_stream_value(const bl_checksum_stream *s) { return XXH3_64bits_digest(s->state); }
