/* SPDX-License-Identifier: Apache-2.0
 *
 * Dense layer: y = f(x W + b), the bias and the activation in one pass behind the product.
 * Shapes: x [n, in], W [in, out] row-major, b [out], y [n, out].
 */
#include "base/num.h"
#include "nn/gemm.h"
#include "nn/layer.h"

static bl_status dense_plan(const wk_layer *l, const bl_layer_spec *spec, bool for_training, wk_layer_plan *ret_plan,
                            bl_error *err) {
  if (spec->units == 0)
    return bl_fail(err, BL_EINVAL, "layer %s: units is 0, at least 1 is needed", spec->name);
  *ret_plan = (wk_layer_plan){
      .out = spec->units,
      .params = {[WK_WEIGHT] = {l->in, spec->units}, [WK_BIAS] = {spec->bias ? spec->units : 0, 0}},
      .state_bytes_per_sample = for_training && wk_act_needs_slope[l->activation] ? spec->units * sizeof(float) : 0,
      .needs_dx_buffer = true,
  };
  return BL_OK;
}

static void dense_forward(wk_layer *l, uint32_t n, const wk_step_id *step) {
  wk_gemm_nn(n, l->out, l->in, l->x, l->params[WK_WEIGHT], l->y);
  const float *bias = l->params[WK_BIAS];
  if (bias != NULL || l->activation != BL_ACT_NONE)
    l->vec->act_forward[l->activation](l->y, bias, l->y, l->state, n, l->out);
}

#define REPORT_ELEMS (1u << 17)

/* dW = x^T dy, a block of rows at a time: the first ones travel while the others are computed. */
static void weight_gradient(wk_layer *l, const float *dy, uint32_t n, const wk_grad_sink *sink) {
  size_t block = (size_t)bl_div_up_u64(REPORT_ELEMS, l->out), rows;
  for (size_t first = 0; first < l->in; first += rows) {
    rows = l->in - first;
    if (rows >= 2 * block)
      rows = block;
    wk_gemm_tn_part(rows, l->out, n, n > 0 ? l->x + first : NULL, l->in, dy, l->grads[WK_WEIGHT] + first * l->out);
    wk_layer_report(l, WK_WEIGHT, (first + rows) * l->out, sink);
  }
}

static void dense_backward(wk_layer *l, float *dy, float *dx, uint32_t n, const wk_grad_sink *sink) {
  const float *saved = wk_act_needs_slope[l->activation] ? l->state : l->y;
  l->vec->act_backward[l->activation](dy, saved, l->grads[WK_BIAS], n, l->out);
  if (l->grads[WK_BIAS] != NULL)
    wk_layer_report(l, WK_BIAS, l->out, sink);
  weight_gradient(l, dy, n, sink);
  if (dx != NULL)
    wk_gemm_nt(n, l->in, l->out, dy, l->params[WK_WEIGHT], dx);
}

const wk_layer_ops wk_layer_dense = {"dense", dense_plan, dense_forward, dense_backward};
