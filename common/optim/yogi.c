/* SPDX-License-Identifier: Apache-2.0
 *
 * Yogi. At step t = 1, 2, ...:
 *
 *   m = beta1 * m + (1 - beta1) * d
 *   v = v - (1 - beta2) * sign(v - d^2) * d^2
 *   w -= lr * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)         d = g + weight_decay * w
 *
 * Adam's v forgets a large gradient as fast as v is large; here it falls by no more than the gradient that is seen
 * now, so rates rise slowly behind rare large gradients, which is what differences of local steps look like.
 *
 * Source: Zaheer, Reddi, Sachan, Kale, Kumar, "Adaptive methods for nonconvex optimization", NeurIPS 2018, Algorithm 2;
 * as an outer rule (FedYogi) Reddi et al., "Adaptive federated optimization", ICLR 2021, Algorithm 2. Both leave the bias
 * corrections out and begin with a v above 0; here v begins at 0 and both moments are corrected as in Adam, so that
 * the first step of both rules is the same and their rates can be compared.
 */
#include "optim/adam_family.h"

static const bl_param_info params[] = {
    BL_ADAM_PARAMS(1e-3),
    [BL_ADAM_WEIGHT_DECAY] = BL_PARAM_WEIGHT_DECAY,
};

static void step(float *w, const float *g, float *const *slots, size_t n, const bl_optim_step_args *a) {
  bl_adam_args args = bl_adam_args_of(a);
  bl_kernels_get()->yogi(w, slots[0], slots[1], g, &args, n);
}

const bl_optim_rule bl_optim_yogi = {
    .name = "yogi",
    .doc = "adam whose second moment moves by no more than the new square",
    .params = params,
    .n_params = BL_COUNT_OF(params),
    .n_slots = 2,
    .step = step,
};
