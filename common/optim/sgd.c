/* SPDX-License-Identifier: Apache-2.0
 *
 * Gradient descent: w -= lr * (g + weight_decay * w).
 */
#include "kernel/kernel.h"
#include "optim/rules.h"

enum { LR, WEIGHT_DECAY };

static const bl_param_info params[] = {
    [LR] = BL_PARAM_LR(0.01),
    [WEIGHT_DECAY] = BL_PARAM_WEIGHT_DECAY,
};

static void step(float *w, const float *g, float *const *slots, size_t n, const bl_optim_step_args *a) {
  bl_kernels_get()->sgd(w, g, (float)a->lr, (float)a->weight_decay, n);
}

const bl_optim_rule bl_optim_sgd = {
    .name = "sgd",
    .doc = "gradient descent",
    .params = params,
    .n_params = BL_COUNT_OF(params),
    .n_slots = 0,
    .step = step,
};
