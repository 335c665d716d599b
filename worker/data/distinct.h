/* SPDX-License-Identifier: Apache-2.0
 *
 * The distinct keys of a batch, ascending, and which of them each key is. A hash table finds them, a radix sort
 * of the distinct ones alone puts them in order: keys of a batch repeat, six times or more in logs. The result
 * is a function of the keys, whatever the table's size. Memory grows with the largest batch seen and is kept.
 * One thread at a time.
 */
#ifndef WK_DATA_DISTINCT_H
#define WK_DATA_DISTINCT_H

#include "base/status.h"

#include <stdint.h>

#define WK_DISTINCT_KEY_MAX ((UINT64_C(1) << 62) - 1)

typedef struct wk_distinct_key {
  uint64_t key;
  uint32_t id; /* in order of appearance */
} wk_distinct_key;

typedef struct wk_distinct {
  uint64_t *slots;    /* [1 << slot_bits]: key + 1, 0: free; owned, as all here */
  uint32_t *slot_ids; /* [1 << slot_bits] */
  unsigned slot_bits;
  wk_distinct_key *found, *sorted; /* [capacity] */
  uint32_t *rank;                  /* [capacity]: place of an id in the order */
  uint32_t n, capacity;
} wk_distinct;

void wk_distinct_fini(wk_distinct *d); /* a struct of zeros is ready for use */

/* keys: [n], at most WK_DISTINCT_KEY_MAX each. at: [n], stored: keys[i] is the at[i]-th of the distinct ones.
 * rows: grown to hold them, *ret_n of them ascending; owned by the caller (bl_free), with its capacity.
 * BL_ENOMEM. */
BL_MUST_CHECK bl_status wk_distinct_find(wk_distinct *d, const uint64_t *keys, size_t n, uint32_t *at,
                                         uint64_t **rows, uint32_t *rows_capacity, uint32_t *ret_n);

#endif
