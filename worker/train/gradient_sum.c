/* SPDX-License-Identifier: Apache-2.0 */
#include "train/gradient_sum.h"

#include "base/alloc.h"
#include "kernel/kernel.h"

#include <string.h>

bl_status wk_gradient_sum_init(wk_gradient_sum *g, const bl_tensor_table *table, bool wanted, bl_error *err) {
  *g = (wk_gradient_sum){.table = table};
  if (!wanted)
    return BL_OK;
  g->sums = bl_calloc(table->n_tensors, sizeof *g->sums);
  bool failed = g->sums == NULL;
  for (uint32_t i = 0; !failed && i < table->n_tensors; i++) {
    g->sums[i] = bl_calloc_aligned(table->tensors[i].n_elems, sizeof(float));
    failed = g->sums[i] == NULL;
  }
  if (!failed)
    return BL_OK;
  wk_gradient_sum_fini(g);
  return bl_fail(err, BL_ENOMEM, "no memory for the sums of gradients (accumulate)");
}

void wk_gradient_sum_fini(wk_gradient_sum *g) {
  for (uint32_t i = 0; g->sums != NULL && i < g->table->n_tensors; i++)
    bl_free_aligned(g->sums[i]);
  bl_free(g->sums);
  g->sums = NULL;
}

void wk_gradient_sum_begin(wk_gradient_sum *g) { g->n_parts = 0; }

/* Where the new elements begin; the next tensor begins at 0 again. */
static uint64_t advance(wk_gradient_sum *g, uint32_t tensor, uint64_t n_ready) {
  uint64_t first = g->n_done;
  g->n_done = n_ready < g->table->tensors[tensor].n_elems ? n_ready : 0;
  return first;
}

void wk_gradient_sum_add(wk_gradient_sum *g, uint32_t tensor, const float *grad, uint64_t n_ready) {
  uint64_t first = advance(g, tensor, n_ready);
  float *sum = g->sums[tensor] + first;
  if (g->n_parts == 0)
    memcpy(sum, grad + first, (n_ready - first) * sizeof *sum);
  else
    bl_kernels_get()->add(sum, grad + first, n_ready - first);
}

void wk_gradient_sum_end_part(wk_gradient_sum *g) { g->n_parts++; }

void wk_gradient_sum_into(wk_gradient_sum *g, uint32_t tensor, float *grad, uint64_t n_ready) {
  if (g->n_parts == 0)
    return;
  uint64_t first = advance(g, tensor, n_ready);
  bl_kernels_get()->add(grad + first, g->sums[tensor] + first, n_ready - first);
}
