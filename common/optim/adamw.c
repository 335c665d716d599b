/* SPDX-License-Identifier: Apache-2.0
 *
 * AdamW: Adam with decoupled weight decay. At step t = 1, 2, ...:
 *
 *   m = beta1 * m + (1 - beta1) * g
 *   v = beta2 * v + (1 - beta2) * g^2
 *   w -= lr * ((m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps) + weight_decay * w)
 *
 * The decay does not pass through the moments, so every weight shrinks by the same part, however large its
 * gradients are.
 *
 * Source: Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019, Algorithm 2, line 12. There
 * the schedule's factor is on both terms and the rate on the first only; here, as in most implementations, lr is
 * the product of both, so the paper's lambda is lr * weight_decay.
 */
#include "optim/adam_family.h"

static const bl_param_info params[] = {
    BL_ADAM_PARAMS(1e-8),
    [BL_ADAM_WEIGHT_DECAY] = BL_PARAM_DECOUPLED_DECAY(0.01),
};

static void step(float *w, const float *g, float *const *slots, size_t n, const bl_optim_step_args *a) {
  bl_adam_args args = bl_adam_args_of(a);
  bl_kernels_get()->adamw(w, slots[0], slots[1], g, &args, n);
}

const bl_optim_rule bl_optim_adamw = {
    .name = "adamw",
    .doc = "adaptive moments, weight decay apart from the gradient",
    .params = params,
    .n_params = BL_COUNT_OF(params),
    .n_slots = 2,
    .step = step,
};
