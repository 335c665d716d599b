/* SPDX-License-Identifier: Apache-2.0
 *
 * FTRL-proximal with a rate for every coordinate. For a gradient g taken at w:
 *
 *   sigma = (sqrt(n + g^2) - sqrt(n)) / lr
 *   z += g - sigma * w
 *   n += g^2
 *   w = 0                                                            where |z| <= l1
 *   w = (sign(z) * l1 - z) / ((beta + sqrt(n)) / lr + l2)            elsewhere
 *
 * so weights whose evidence stays below l1 are exactly 0. lr is the paper's alpha.
 *
 * Source: McMahan et al., "Ad click prediction: a view from the trenches", KDD 2013, Algorithm 1. The paper computes w
 * from (z, n) when a sample needs it; here that is done behind each update, which gives the same w.
 *
 * The algorithm begins with z = 0, that is w = 0. Weights that begin elsewhere are kept: at the first step z is set
 * to the value whose w they are, -(w * (beta / lr + l2) + sign(w) * l1).
 *
 * w is computed anew from z and n each time, so a rate that falls with a schedule would shrink what has been learnt:
 * the rule takes no schedule. Nor has it a weight decay beside l2.
 */
#include "kernel/kernel.h"
#include "optim/rules.h"

#include <math.h>

enum { LR, BETA, L1, L2 };

static const bl_param_info params[] = {
    [LR] = {"lr", 0.1, 0, 1e6, true, "alpha: the rate of a coordinate is lr / (beta + root of its squared gradients)"},
    [BETA] = {"beta", 1, 1e-30, 1e6, false, "added to the root: bounds the rate of the first steps"},
    [L1] = {"l1", 0, 0, 1e6, false, "evidence below this leaves a weight at 0"},
    [L2] = {"l2", 0, 0, 1e6, false, "pull towards 0"},
};

static void begin_at(const float *w, float *z, size_t n, const bl_ftrl_args *a) {
  const float factor = a->beta / a->lr + a->l2;
  for (size_t i = 0; i < n; i++)
    z[i] = w[i] == 0 ? 0 : -(w[i] * factor + copysignf(a->l1, w[i]));
}

static void step(float *w, const float *g, float *const *slots, size_t n, const bl_optim_step_args *a) {
  bl_ftrl_args args = {
      .lr = (float)a->lr,
      .beta = (float)a->params[BETA],
      .l1 = (float)a->params[L1],
      .l2 = (float)a->params[L2],
  };
  if (args.lr == 0) /* a group's rate of 0: nothing is learnt */
    return;
  if (a->step == 1)
    begin_at(w, slots[0], n, &args);
  bl_kernels_get()->ftrl(w, slots[0], slots[1], g, &args, n);
}

const bl_optim_rule bl_optim_ftrl = {
    .name = "ftrl",
    .doc = "follow the regularized leader, proximal; l1 makes weights exactly 0",
    .params = params,
    .n_params = BL_COUNT_OF(params),
    .n_slots = 2,
    .no_schedule = true,
    .step = step,
};
