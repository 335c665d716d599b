/* SPDX-License-Identifier: Apache-2.0
 *
 * AMSGrad. At step t = 1, 2, ...:
 *
 *   m = beta1 * m + (1 - beta1) * d
 *   v = beta2 * v + (1 - beta2) * d^2
 *   top = max(top, v)
 *   w -= lr * (m / (1 - beta1^t)) / (sqrt(top / (1 - beta2^t)) + eps)         d = g + weight_decay * w
 *
 * A coordinate's rate never rises again after a large gradient, which is what Adam's proof of convergence lacked.
 *
 * Source: Reddi, Kale, Kumar, "On the convergence of Adam and beyond", ICLR 2018, Algorithm 2. The paper leaves the
 * bias correction out for simplicity; here both moments are corrected as in Adam, the maximum being taken before,
 * so that the rates of adam and amsgrad can be compared.
 */
#include "optim/adam_family.h"

static const bl_param_info params[] = {
    BL_ADAM_PARAMS(1e-8),
    [BL_ADAM_WEIGHT_DECAY] = BL_PARAM_WEIGHT_DECAY,
};

static void step(float *w, const float *g, float *const *slots, size_t n, const bl_optim_step_args *a) {
  bl_adam_args args = bl_adam_args_of(a);
  bl_kernels_get()->amsgrad(w, slots[0], slots[1], slots[2], g, &args, n);
}

const bl_optim_rule bl_optim_amsgrad = {
    .name = "amsgrad",
    .doc = "adam with the largest second moment so far",
    .params = params,
    .n_params = BL_COUNT_OF(params),
    .n_slots = 3,
    .step = step,
};
