/* SPDX-License-Identifier: Apache-2.0
 *
 * Adam. At step t = 1, 2, ...:
 *
 *   m = beta1 * m + (1 - beta1) * g
 *   v = beta2 * v + (1 - beta2) * g^2
 *   w -= lr * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)
 *
 * Weight decay is L2: weight_decay * w is part of g.
 * Source: Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015, Algorithm 1 (eps outside
 * the root and behind the bias correction).
 */
#include "optim/adam_family.h"

static const bl_param_info params[] = {
    BL_ADAM_PARAMS(1e-8),
    [BL_ADAM_WEIGHT_DECAY] = BL_PARAM_WEIGHT_DECAY,
};

static void step(float *w, const float *g, float *const *slots, size_t n, const bl_optim_step_args *a) {
  bl_adam_args args = bl_adam_args_of(a);
  bl_kernels_get()->adam(w, slots[0], slots[1], g, &args, n);
}

const bl_optim_rule bl_optim_adam = {
    .name = "adam",
    .doc = "adaptive moments with bias correction",
    .params = params,
    .n_params = BL_COUNT_OF(params),
    .n_slots = 2,
    .step = step,
};
