/* SPDX-License-Identifier: Apache-2.0
 *
 * Sparse layer: y = f(sum over the inputs that are not 0 of x_i W[i] + b). W is a table on the shards; here are
 * only the rows that the batch touches, dense and ascending, and each input says which one is its own. Its
 * gradient has a row for each of them. Sums run in the order of the samples and of the inputs in them, so the
 * bits do not depend on what else is in the table. Shapes: at [nnz], W rows [n_rows, out], b [out], y [n, out].
 */
#include "nn/layer.h"

#include <string.h>

static bl_status sparse_plan(const wk_layer *l, const bl_layer_spec *spec, bool for_training,
                             wk_layer_plan *ret_plan, bl_error *err) {
  if (spec->units == 0)
    return bl_fail(err, BL_EINVAL, "layer %s: units is 0, at least 1 is needed", spec->name);
  if (l->index != 0)
    return bl_fail(err, BL_EINVAL, "layer %s: a sparse layer can only be the first one", spec->name);
  *ret_plan = (wk_layer_plan){
      .out = spec->units,
      .params = {[WK_WEIGHT] = {l->in, spec->units}, [WK_BIAS] = {spec->bias ? spec->units : 0, 0}},
      .table = true,
      .state_bytes_per_sample =
          for_training && wk_act_needs_slope[l->activation] ? spec->units * sizeof(float) : 0,
      .needs_dx_buffer = true,
  };
  return BL_OK;
}

static void sum_one(const wk_sparse_x *x, uint32_t n, float *restrict y) {
  for (uint32_t i = 0; i < n; i++) {
    float sum = 0;
    for (uint32_t k = x->row_start[i]; k < x->row_start[i + 1]; k++)
      sum += x->vals != NULL ? x->vals[k] * x->weights[x->at[k]] : x->weights[x->at[k]];
    y[i] = sum;
  }
}

static void sum_rows(const wk_sparse_x *x, uint32_t n, size_t out, float *restrict y) {
  memset(y, 0, n * out * sizeof *y);
  for (uint32_t i = 0; i < n; i++, y += out)
    for (uint32_t k = x->row_start[i]; k < x->row_start[i + 1]; k++) {
      const float *restrict w = x->weights + x->at[k] * out;
      float v = x->vals != NULL ? x->vals[k] : 1;
      for (size_t j = 0; j < out; j++)
        y[j] += v * w[j];
    }
}

static void sparse_forward(wk_layer *l, uint32_t n, const wk_step_id *step) {
  if (l->out == 1)
    sum_one(l->sparse, n, l->y);
  else
    sum_rows(l->sparse, n, l->out, l->y);
  const float *bias = l->params[WK_BIAS];
  if (bias != NULL || l->activation != BL_ACT_NONE)
    l->vec->act_forward[l->activation](l->y, bias, l->y, l->state, n, l->out);
}

static void spread_one(const wk_sparse_x *x, const float *dy, uint32_t n) {
  float *restrict g = x->grads;
  for (uint32_t i = 0; i < n; i++)
    for (uint32_t k = x->row_start[i]; k < x->row_start[i + 1]; k++)
      g[x->at[k]] += x->vals != NULL ? x->vals[k] * dy[i] : dy[i];
}

static void spread_rows(const wk_sparse_x *x, const float *dy, uint32_t n, size_t out) {
  for (uint32_t i = 0; i < n; i++, dy += out)
    for (uint32_t k = x->row_start[i]; k < x->row_start[i + 1]; k++) {
      float *restrict g = x->grads + x->at[k] * out;
      float v = x->vals != NULL ? x->vals[k] : 1;
      for (size_t j = 0; j < out; j++)
        g[j] += v * dy[j];
    }
}

static void sparse_backward(wk_layer *l, float *dy, float *dx, uint32_t n, const wk_grad_sink *sink) {
  const float *saved = wk_act_needs_slope[l->activation] ? l->state : l->y;
  const wk_sparse_x *x = l->sparse;
  BL_ASSERT(dx == NULL);
  l->vec->act_backward[l->activation](dy, saved, l->grads[WK_BIAS], n, l->out);
  if (l->grads[WK_BIAS] != NULL)
    wk_layer_report(l, WK_BIAS, l->out, sink);
  if (x->n_rows > 0)
    memset(x->grads, 0, x->n_rows * l->out * sizeof *x->grads);
  if (l->out == 1)
    spread_one(x, dy, n);
  else
    spread_rows(x, dy, n, l->out);
  if (sink->fn != NULL)
    sink->fn(l->tensors[WK_WEIGHT], x->grads, x->n_rows * l->out, sink->arg);
}

const wk_layer_ops wk_layer_sparse = {"sparse", sparse_plan, sparse_forward, sparse_backward};
