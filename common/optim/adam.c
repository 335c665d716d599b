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
 *
 * The betas are rounded to float32 before anything is derived from them, so that 1 - beta in the kernel and
 * 1 - beta^t here belong to the same number and a constant gradient gives v / (1 - beta2^t) = g^2.
 */
#include "kernel/kernel.h"
#include "optim/rules.h"

enum { LR, BETA1, BETA2, EPS, WEIGHT_DECAY };

static const bl_param_info params[] = {
    [LR] = BL_PARAM_LR(1e-3),
    [BETA1] = {"beta1", 0.9, 0, 0.999999, false, "decay of the mean of gradients"},
    [BETA2] = {"beta2", 0.999, 0, 0.999999, false, "decay of the mean of squared gradients"},
    [EPS] = {"eps", 1e-8, 1e-30, 1, false, "added to the root, so that a zero gradient divides by something"},
    [WEIGHT_DECAY] = BL_PARAM_WEIGHT_DECAY,
};

static float correction(float beta, uint64_t step) { return (float)(1.0 / (1.0 - bl_optim_power(beta, step))); }

static void step(float *w, const float *g, float *const *slots, size_t n, const bl_optim_step_args *a) {
  bl_adam_args args = {
      .lr = (float)a->lr,
      .beta1 = (float)a->params[BETA1],
      .beta2 = (float)a->params[BETA2],
      .eps = (float)a->params[EPS],
      .weight_decay = (float)a->weight_decay,
  };
  args.correction1 = correction(args.beta1, a->step);
  args.correction2 = correction(args.beta2, a->step);
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
