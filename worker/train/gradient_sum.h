/* SPDX-License-Identifier: Apache-2.0
 *
 * Gradient accumulation: the sum of a clock's gradients that were computed before the last part of its samples, one
 * array per tensor. Parts are added in their order, element by element, so the bits depend on the job alone.
 * Threads: one.
 */
#ifndef WK_TRAIN_GRADIENT_SUM_H
#define WK_TRAIN_GRADIENT_SUM_H

#include "job/tensors.h"

typedef struct wk_gradient_sum {
  const bl_tensor_table *table; /* borrowed */
  float **sums;                 /* [n_tensors] of their n_elems, owned; NULL: not asked for */
  uint32_t n_parts;             /* added so far in this clock */
  uint64_t n_done;              /* elements of the tensor that is being added */
} wk_gradient_sum;

/* Memory as large as the model. */
BL_MUST_CHECK bl_status wk_gradient_sum_init(wk_gradient_sum *g, const bl_tensor_table *table, bool wanted, bl_error *err);
void wk_gradient_sum_fini(wk_gradient_sum *g);

void wk_gradient_sum_begin(wk_gradient_sum *g); /* a new clock */
/* A part's gradient, the first n_ready elements of it: as wk_on_grad_fn brings them. */
void wk_gradient_sum_add(wk_gradient_sum *g, uint32_t tensor, const float *grad, uint64_t n_ready);
void wk_gradient_sum_end_part(wk_gradient_sum *g);
/* The last part: its gradient becomes the sum of all, in place. Does nothing when no part was added. */
void wk_gradient_sum_into(wk_gradient_sum *g, uint32_t tensor, float *grad, uint64_t n_ready);

#endif
