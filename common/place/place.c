/* SPDX-License-Identifier: Apache-2.0 */
#include "place/place.h"

#include "base/alloc.h"
#include "base/num.h"
#include "base/str.h"

#include <stdlib.h>

typedef struct ordered_chunk {
  uint32_t n_elems;
  uint32_t chunk;
} ordered_chunk;

/* Largest first; equal ones by number, so that qsort's choice never shows. */
static int compare_chunks(const void *a, const void *b) {
  const ordered_chunk *x = a, *y = b;
  if (x->n_elems != y->n_elems)
    return x->n_elems > y->n_elems ? -1 : 1;
  return x->chunk < y->chunk ? -1 : x->chunk > y->chunk;
}

static bool fits(uint64_t load, uint64_t bytes, uint64_t capacity) {
  uint64_t sum;
  return bl_add_u64(load, bytes, &sum) && (capacity == 0 || sum <= capacity);
}

/* n_shards when it fits nowhere. */
static size_t least_loaded(const uint64_t *load, const uint64_t *capacity, size_t n_shards, uint64_t bytes) {
  size_t best = n_shards;
  for (size_t i = 0; i < n_shards; i++)
    if (fits(load[i], bytes, capacity[i]) && (best == n_shards || load[i] < load[best]))
      best = i;
  return best;
}

static bl_status fail_no_room(const uint64_t *load, const uint64_t *capacity, size_t n_shards, uint64_t bytes,
                              uint32_t chunk, bl_error *err) {
  uint64_t room = 0;
  for (size_t i = 0; i < n_shards; i++)
    if (capacity[i] > load[i])
      room = BL_MAX(room, capacity[i] - load[i]);
  char need_text[32], room_text[32];
  return bl_fail(err, BL_ELIMIT,
                 "chunk %u needs %s of server memory, the most that one of %zu shards has free is %s", chunk,
                 bl_str_bytes(bytes, need_text, sizeof need_text), n_shards,
                 bl_str_bytes(room, room_text, sizeof room_text));
}

bl_status bl_place_chunks(const bl_tensor_table *table, uint64_t bytes_per_elem, uint64_t *load_bytes,
                          const uint64_t *capacity_bytes, size_t n_shards, uint32_t *ret_shard_of_chunk,
                          bl_error *err) {
  if (n_shards == 0)
    return bl_fail(err, BL_ELIMIT, "there is no shard to place %u chunks on", table->n_chunks);
  bl_status status = BL_OK;
  /* Work on copies: the outputs change only when everything fits. */
  uint64_t *load = bl_malloc(n_shards * sizeof *load);
  ordered_chunk *order = bl_calloc(BL_MAX(table->n_chunks, 1), sizeof *order);
  uint32_t *shard_of_chunk = bl_calloc(BL_MAX(table->n_chunks, 1), sizeof *shard_of_chunk);
  if (load == NULL || order == NULL || shard_of_chunk == NULL) {
    status = bl_fail(err, BL_ENOMEM, "no memory to place %u chunks", table->n_chunks);
    goto out;
  }
  for (size_t i = 0; i < n_shards; i++)
    load[i] = load_bytes[i];
  for (uint32_t i = 0; i < table->n_chunks; i++)
    order[i] = (ordered_chunk){table->chunks[i].n_elems, i};
  qsort(order, table->n_chunks, sizeof *order, compare_chunks);
  for (uint32_t i = 0; i < table->n_chunks; i++) {
    uint64_t bytes;
    if (!bl_mul_u64(order[i].n_elems, bytes_per_elem, &bytes)) {
      status = bl_fail(err, BL_ELIMIT, "chunk %u has no countable size", order[i].chunk);
      goto out;
    }
    size_t shard = least_loaded(load, capacity_bytes, n_shards, bytes);
    if (shard == n_shards) {
      status = fail_no_room(load, capacity_bytes, n_shards, bytes, order[i].chunk, err);
      goto out;
    }
    load[shard] += bytes;
    shard_of_chunk[order[i].chunk] = (uint32_t)shard;
  }
  for (size_t i = 0; i < n_shards; i++)
    load_bytes[i] = load[i];
  for (uint32_t i = 0; i < table->n_chunks; i++)
    ret_shard_of_chunk[i] = shard_of_chunk[i];
out:
  bl_free(load);
  bl_free(order);
  bl_free(shard_of_chunk);
  return status;
}

uint64_t bl_place_bytes_per_elem(uint32_t n_optimizer_slots, bool exact_pull_codec) {
  const uint64_t weight = 4, accumulator = 4, slot = 4;
  /* Exact codecs keep whole float32 frames of two versions; lossy ones what the workers hold, a frame of that, and
   * differences of at most two bytes per element and version. */
  const uint64_t frames = exact_pull_codec ? 2 * 4 : 4 + 4 + 2 * 2;
  return weight + accumulator + n_optimizer_slots * slot + frames;
}
