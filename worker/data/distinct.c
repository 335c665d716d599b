/* SPDX-License-Identifier: Apache-2.0
 *
 * Open addressing with linear probing, at most half full. The radix sort takes 11 bits at a time and passes
 * over digits that are equal in all keys, so that 2^24 slots cost three passes and small tables two.
 */
#include "data/distinct.h"

#include "base/alloc.h"
#include "base/num.h"

#include <string.h>

#define SLOT_BITS_MIN 10
#define CAPACITY_MIN 512u
#define DIGIT_BITS 11
#define PREFETCH_KEYS 16 /* slots lie anywhere: what comes is asked for early */
#define DIGITS (1u << DIGIT_BITS)

void wk_distinct_fini(wk_distinct *d) {
  bl_free(d->slots);
  bl_free(d->slot_ids);
  bl_free(d->found);
  bl_free(d->sorted);
  bl_free(d->rank);
  *d = (wk_distinct){0};
}

/* Fibonacci hashing: the high bits of the product depend on all bits of the key. */
static inline size_t home(const wk_distinct *d, uint64_t key) {
  return (size_t)((key * UINT64_C(0x9E3779B97F4A7C15)) >> (64 - d->slot_bits));
}

/* Puts an id that is known to be new. */
static void put(wk_distinct *d, uint64_t key, uint32_t id) {
  size_t mask = ((size_t)1 << d->slot_bits) - 1, s = home(d, key);
  while (d->slots[s] != 0)
    s = (s + 1) & mask;
  d->slots[s] = key + 1;
  d->slot_ids[s] = id;
}

static bl_status grow_found(wk_distinct *d) {
  uint32_t capacity = BL_MAX(CAPACITY_MIN, d->capacity * 2);
  void *grown;
  if (capacity < d->capacity)
    return BL_ENOMEM;
  if ((grown = bl_realloc_array(d->found, capacity, sizeof *d->found)) != NULL)
    d->found = grown;
  void *sorted = grown == NULL ? NULL : bl_realloc_array(d->sorted, capacity, sizeof *d->sorted);
  if (sorted != NULL)
    d->sorted = sorted;
  void *rank = sorted == NULL ? NULL : bl_realloc_array(d->rank, capacity, sizeof *d->rank);
  if (rank == NULL)
    return BL_ENOMEM;
  d->rank = rank;
  d->capacity = capacity;
  return BL_OK;
}

/* A table twice as large, with what was found so far. */
static bl_status grow_slots(wk_distinct *d) {
  unsigned bits = BL_MAX(SLOT_BITS_MIN, d->slot_bits + 1);
  if (bits > 32)
    return BL_ENOMEM;
  uint64_t *slots = bl_calloc((size_t)1 << bits, sizeof *slots);
  uint32_t *ids = bl_malloc(((size_t)1 << bits) * sizeof *ids);
  if (slots == NULL || ids == NULL) {
    bl_free(slots);
    bl_free(ids);
    return BL_ENOMEM;
  }
  bl_free(d->slots);
  bl_free(d->slot_ids);
  d->slots = slots;
  d->slot_ids = ids;
  d->slot_bits = bits;
  for (uint32_t i = 0; i < d->n; i++)
    put(d, d->found[i].key, i);
  return BL_OK;
}

/* Room for one more. */
static bl_status make_room(wk_distinct *d) {
  bl_status status = d->n < d->capacity ? BL_OK : grow_found(d);
  if (status == BL_OK && (d->slot_bits == 0 || d->n >= ((size_t)1 << d->slot_bits) / 2))
    status = grow_slots(d);
  return status;
}

/* found in order of appearance; at: the ids. */
static bl_status find(wk_distinct *d, const uint64_t *keys, size_t n, uint32_t *at) {
  d->n = 0;
  if (d->slot_bits > 0)
    memset(d->slots, 0, sizeof *d->slots << d->slot_bits);
  bl_status status = make_room(d);
  size_t mask = ((size_t)1 << d->slot_bits) - 1;
  for (size_t i = 0; status == BL_OK && i < n; i++) {
    uint64_t key = keys[i];
    if (i + PREFETCH_KEYS < n) {
      size_t ahead = home(d, keys[i + PREFETCH_KEYS]);
      __builtin_prefetch(&d->slots[ahead]);
      __builtin_prefetch(&d->slot_ids[ahead]);
    }
    size_t s = home(d, key);
    while (d->slots[s] != key + 1 && d->slots[s] != 0)
      s = (s + 1) & mask;
    if (d->slots[s] == 0) {
      d->slots[s] = key + 1;
      d->slot_ids[s] = at[i] = d->n;
      d->found[d->n] = (wk_distinct_key){key, d->n};
      d->n++;
      status = make_room(d);
      mask = ((size_t)1 << d->slot_bits) - 1;
    } else {
      at[i] = d->slot_ids[s];
    }
  }
  return status;
}

/* Least significant digit first; returns the array that holds the order. */
static const wk_distinct_key *sort(wk_distinct *d) {
  wk_distinct_key *from = d->found, *to = d->sorted;
  uint64_t differ = 0;
  for (uint32_t i = 1; i < d->n; i++)
    differ |= from[i].key ^ from[0].key;
  for (unsigned shift = 0; shift < 64 && differ >> shift != 0; shift += DIGIT_BITS) {
    if ((differ >> shift & (DIGITS - 1)) == 0)
      continue;
    uint32_t starts[DIGITS] = {0}, sum = 0;
    for (uint32_t i = 0; i < d->n; i++)
      starts[from[i].key >> shift & (DIGITS - 1)]++;
    for (unsigned k = 0; k < DIGITS; k++) {
      uint32_t count = starts[k];
      starts[k] = sum;
      sum += count;
    }
    for (uint32_t i = 0; i < d->n; i++)
      to[starts[from[i].key >> shift & (DIGITS - 1)]++] = from[i];
    wk_distinct_key *swap = from;
    from = to;
    to = swap;
  }
  return from;
}

bl_status wk_distinct_find(wk_distinct *d, const uint64_t *keys, size_t n, uint32_t *at, uint64_t **rows,
                           uint32_t *rows_capacity, uint32_t *ret_n) {
  bl_status status = n <= UINT32_MAX ? find(d, keys, n, at) : BL_ELIMIT;
  if (status != BL_OK)
    return status;
  if (d->n > *rows_capacity) {
    uint64_t *grown = bl_realloc_array(*rows, d->capacity, sizeof *grown);
    if (grown == NULL)
      return BL_ENOMEM;
    *rows = grown;
    *rows_capacity = d->capacity;
  }
  const wk_distinct_key *ordered = sort(d);
  for (uint32_t i = 0; i < d->n; i++) {
    (*rows)[i] = ordered[i].key;
    d->rank[ordered[i].id] = i;
  }
  for (size_t i = 0; i < n; i++)
    at[i] = d->rank[at[i]];
  *ret_n = d->n;
  return BL_OK;
}
