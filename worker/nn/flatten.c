/* SPDX-License-Identifier: Apache-2.0
 *
 * Flatten: [n, a, b, ...] to [n, a b ...]. Row-major memory is flat already, so nothing moves.
 */
#include "nn/layer.h"

static bl_status flatten_plan(const wk_layer *l, const bl_layer_spec *spec, bool for_training,
                              wk_layer_plan *ret_plan, bl_error *err) {
  *ret_plan = (wk_layer_plan){.out = l->in, .in_place = true};
  return BL_OK;
}

static void flatten_forward(wk_layer *l, uint32_t n, const wk_step_id *step) {}

static void flatten_backward(wk_layer *l, float *dy, float *dx, uint32_t n, const wk_grad_sink *sink) {}

const wk_layer_ops wk_layer_flatten = {"flatten", flatten_plan, flatten_forward, flatten_backward};
