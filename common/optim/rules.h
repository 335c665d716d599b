/* SPDX-License-Identifier: Apache-2.0
 *
 * Inside common/optim only: the rows of the registries, and parameters that several rules share.
 */
#ifndef BL_OPTIM_RULES_H
#define BL_OPTIM_RULES_H

#include "optim/optim.h"

extern const bl_optim_rule bl_optim_sgd;
extern const bl_optim_rule bl_optim_momentum;
extern const bl_optim_rule bl_optim_nesterov;
extern const bl_optim_rule bl_optim_adagrad;
extern const bl_optim_rule bl_optim_rmsprop;
extern const bl_optim_rule bl_optim_adam;
extern const bl_optim_rule bl_optim_adamw;
extern const bl_optim_rule bl_optim_amsgrad;
extern const bl_optim_rule bl_optim_ftrl;
extern const bl_optim_rule bl_optim_lamb;
extern const bl_optim_rule bl_optim_yogi;

#define BL_PARAM_LR(default_lr) {"lr", default_lr, 0, 1e6, true, "learning rate, before the schedule"}
#define BL_PARAM_WEIGHT_DECAY {"weight_decay", 0, 0, 1, false, "L2: this times the weight is added to the gradient"}
#define BL_PARAM_DECOUPLED_DECAY(default_decay)                                                                      \
  {"weight_decay", default_decay, 0, 1, false, "decoupled: the weight loses this part of itself times the rate"}

/* base^n by repeated squaring, n >= 0: only multiplications in a fixed order, so the same bits with every libm. */
double bl_optim_power(double base, uint64_t n);

#endif
