/* SPDX-License-Identifier: Apache-2.0
 *
 * Radix sort of (row, place), 11 bits at a time, then one pass that gathers the values.
 */
#include "train/table_dump.h"

#include "base/alloc.h"
#include "base/num.h"

#include <string.h>

#define CAPACITY_MIN 4096
#define DIGIT_BITS 11
#define DIGITS (1u << DIGIT_BITS)

void wk_table_dump_init(wk_table_dump *d, uint32_t width) {
  *d = (wk_table_dump){.width = width};
}

void wk_table_dump_fini(wk_table_dump *d) {
  bl_free(d->rows);
  bl_free(d->values);
  wk_table_dump_init(d, d->width);
}

static bool grow(wk_table_dump *d, uint64_t n) {
  if (n <= d->capacity)
    return true;
  uint64_t capacity = BL_MAX(CAPACITY_MIN, d->capacity * 2), bytes;
  capacity = BL_MAX(capacity, n);
  if (!bl_mul_u64(d->width, sizeof(float), &bytes))
    return false;
  uint64_t *rows = bl_realloc_array(d->rows, capacity, sizeof *rows);
  if (rows == NULL)
    return false;
  d->rows = rows;
  float *values = bl_realloc_array(d->values, capacity, bytes);
  if (values == NULL)
    return false;
  d->values = values;
  d->capacity = capacity;
  return true;
}

void wk_table_dump_on_rows(const uint64_t *rows, uint32_t n, const float *values, void *arg) {
  wk_table_dump *d = arg;
  d->failed = d->failed || !grow(d, d->n + n);
  if (d->failed || n == 0)
    return;
  memcpy(d->rows + d->n, rows, n * sizeof *rows);
  memcpy(d->values + d->n * d->width, values, (size_t)n * d->width * sizeof *values);
  d->n += n;
}

typedef struct place {
  uint64_t row, at;
} place;

/* Returns the array that holds the order: one of the two. */
static place *sort(place *from, place *to, uint64_t n) {
  uint64_t differ = 0;
  for (uint64_t i = 1; i < n; i++)
    differ |= from[i].row ^ from[0].row;
  for (unsigned shift = 0; shift < 64 && differ >> shift != 0; shift += DIGIT_BITS) {
    uint64_t starts[DIGITS] = {0}, sum = 0;
    for (uint64_t i = 0; i < n; i++)
      starts[from[i].row >> shift & (DIGITS - 1)]++;
    for (unsigned k = 0; k < DIGITS; k++) {
      uint64_t count = starts[k];
      starts[k] = sum;
      sum += count;
    }
    for (uint64_t i = 0; i < n; i++)
      to[starts[from[i].row >> shift & (DIGITS - 1)]++] = from[i];
    place *swap = from;
    from = to;
    to = swap;
  }
  return from;
}

bl_status wk_table_dump_finish(wk_table_dump *d, bl_saved_rows *ret_rows) {
  uint64_t n = d->n, width = d->width;
  bl_saved_rows out = {n, bl_malloc((n + 1) * sizeof *out.rows), NULL};
  place *places = bl_calloc(n + 1, sizeof *places), *other = bl_calloc(n + 1, sizeof *other);
  float *values = bl_calloc(n + 1, width * sizeof *values);
  bl_status status =
      d->failed || out.rows == NULL || places == NULL || other == NULL || values == NULL ? BL_ENOMEM : BL_OK;
  if (status == BL_OK) {
    for (uint64_t i = 0; i < n; i++)
      places[i] = (place){d->rows[i], i};
    const place *ordered = sort(places, other, n);
    for (uint64_t i = 0; i < n; i++) {
      out.rows[i] = ordered[i].row;
      memcpy(values + i * width, d->values + ordered[i].at * width, width * sizeof *values);
    }
    out.values = values;
    *ret_rows = out;
    wk_table_dump_fini(d);
  } else {
    bl_free(out.rows);
    bl_free(values);
  }
  bl_free(places);
  bl_free(other);
  return status;
}
