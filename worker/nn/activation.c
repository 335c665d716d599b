/* SPDX-License-Identifier: Apache-2.0
 *
 * Activation as a layer of its own: y = f(x). What f can be: nn/vec.h.
 */
#include "nn/layer.h"

static bl_status activation_plan(const wk_layer *l, const bl_layer_spec *spec, bool for_training,
                                 wk_layer_plan *ret_plan, bl_error *err) {
  *ret_plan = (wk_layer_plan){
      .out = l->in,
      .state_bytes_per_sample = for_training && wk_act_needs_slope[l->activation] ? l->in * sizeof(float) : 0,
      .in_place = spec->activation == BL_ACT_NONE,
  };
  return BL_OK;
}

static void activation_forward(wk_layer *l, uint32_t n, const wk_step_id *step) {
  if (l->y != l->x)
    l->vec->act_forward[l->activation](l->x, NULL, l->y, l->state, n, l->out);
}

static void activation_backward(wk_layer *l, float *dy, float *dx, uint32_t n, const wk_grad_sink *sink) {
  const float *saved = wk_act_needs_slope[l->activation] ? l->state : l->y;
  l->vec->act_backward[l->activation](dy, saved, NULL, n, l->out);
}

const wk_layer_ops wk_layer_activation = {"activation", activation_plan, activation_forward, activation_backward};
