/* SPDX-License-Identifier: Apache-2.0
 *
 * Sums of squares by chunk.
 */
#include "client/norms.h"

#include "base/alloc.h"

#include <math.h>
#include <string.h>

bl_status bl_norm_sum_init(bl_norm_sum *s, uint32_t n_chunks) {
  s->n_chunks = n_chunks;
  s->squares = bl_calloc(n_chunks, sizeof *s->squares);
  s->there = bl_calloc(n_chunks, sizeof *s->there);
  return s->squares != NULL && s->there != NULL ? BL_OK : BL_ENOMEM;
}

void bl_norm_sum_fini(bl_norm_sum *s) {
  bl_free(s->squares);
  bl_free(s->there);
}

void bl_norm_sum_begin(bl_norm_sum *s) {
  memset(s->there, 0, s->n_chunks * sizeof *s->there);
  s->n_missing = s->n_chunks;
}

void bl_norm_sum_take(bl_norm_sum *s, uint32_t chunk, double squares) {
  if (s->there[chunk])
    return;
  s->there[chunk] = true;
  s->squares[chunk] = squares;
  s->n_missing--;
}

float bl_norm_sum_scale(const bl_norm_sum *s, double limit) {
  double sum = 0;
  for (uint32_t i = 0; i < s->n_chunks; i++)
    sum += s->squares[i];
  double norm = sqrt(sum);
  return isfinite(norm) && norm > limit ? (float)(limit / norm) : 1.0f;
}
