/* SPDX-License-Identifier: Apache-2.0
 *
 * Inside common/optim only: parameters and constants that adam, adamw, amsgrad, lamb and yogi have in common. Their params
 * begin in the order of the enum.
 *
 * The betas are rounded to float32 before anything is derived from them, so that 1 - beta in the kernel and
 * 1 - beta^t here belong to the same number and a constant gradient gives v / (1 - beta2^t) = g^2.
 */
#ifndef BL_OPTIM_ADAM_FAMILY_H
#define BL_OPTIM_ADAM_FAMILY_H

#include "kernel/kernel.h"
#include "optim/rules.h"

enum { BL_ADAM_LR, BL_ADAM_BETA1, BL_ADAM_BETA2, BL_ADAM_EPS, BL_ADAM_WEIGHT_DECAY };

#define BL_ADAM_PARAMS(default_eps)                                                                                  \
  [BL_ADAM_LR] = BL_PARAM_LR(1e-3),                                                                                   \
  [BL_ADAM_BETA1] = {"beta1", 0.9, 0, 0.999999, false, "decay of the mean of gradients"},                            \
  [BL_ADAM_BETA2] = {"beta2", 0.999, 0, 0.999999, false, "decay of the mean of squared gradients"},                  \
  [BL_ADAM_EPS] = {"eps", default_eps, 1e-30, 1, false, "added to the root, so that a zero gradient divides by something"}

static inline float bl_adam_correction(float beta, uint64_t step) {
  return (float)(1.0 / (1.0 - bl_optim_power(beta, step)));
}

static inline bl_adam_args bl_adam_args_of(const bl_optim_step_args *a) {
  bl_adam_args args = {
      .lr = (float)a->lr,
      .beta1 = (float)a->params[BL_ADAM_BETA1],
      .beta2 = (float)a->params[BL_ADAM_BETA2],
      .eps = (float)a->params[BL_ADAM_EPS],
      .weight_decay = (float)a->weight_decay,
  };
  args.correction1 = bl_adam_correction(args.beta1, a->step);
  args.correction2 = bl_adam_correction(args.beta2, a->step);
  return args;
}

#endif
