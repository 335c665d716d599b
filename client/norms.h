/* SPDX-License-Identifier: Apache-2.0
 *
 * The norm of a clock's gradient over all ranks, as a session gathers it from the shards: a sum of squares per chunk,
 * added in the order of the chunks when all are there, so that the result depends neither on the order of the answers
 * nor on how many shards there are.
 *
 * Threads: one.
 */
#ifndef BL_CLIENT_NORMS_H
#define BL_CLIENT_NORMS_H

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct bl_norm_sum {
  double *squares; /* [n_chunks]; NULL: not used */
  bool *there;     /* [n_chunks] */
  uint32_t n_chunks, n_missing;
} bl_norm_sum;

BL_MUST_CHECK bl_status bl_norm_sum_init(bl_norm_sum *s, uint32_t n_chunks);
void bl_norm_sum_fini(bl_norm_sum *s);

void bl_norm_sum_begin(bl_norm_sum *s);                                /* a new clock */
void bl_norm_sum_take(bl_norm_sum *s, uint32_t chunk, double squares); /* a repeat changes nothing */
/* All are there: the factor that brings the norm to `limit` where it is above; 1 elsewhere, also when it is not finite
 * (the shards then say which tensor's gradient is not). */
float bl_norm_sum_scale(const bl_norm_sum *s, double limit);

#endif
