/* SPDX-License-Identifier: Apache-2.0
 *
 * Heavy-ball momentum: m = momentum * m + g + weight_decay * w; w -= lr * m. The gradient enters m whole (not
 * times 1 - momentum), so a change of the rate acts at once on all that m holds.
 *
 * Source: Polyak, "Some methods of speeding up the convergence of iteration methods", 1964, in the form of
 * Sutskever et al., ICML 2013, with the rate outside the accumulator.
 */
#include "kernel/kernel.h"
#include "optim/rules.h"

enum { LR, MOMENTUM, WEIGHT_DECAY };

static const bl_param_info params[] = {
    [LR] = BL_PARAM_LR(0.01),
    [MOMENTUM] = {"momentum", 0.9, 0, 0.999999, false, "what is kept of the last update"},
    [WEIGHT_DECAY] = BL_PARAM_WEIGHT_DECAY,
};

static void step(float *w, const float *g, float *const *slots, size_t n, const bl_optim_step_args *a) {
  bl_kernels_get()->momentum(w, slots[0], g, (float)a->lr, (float)a->params[MOMENTUM], (float)a->weight_decay, n);
}

const bl_optim_rule bl_optim_momentum = {
    .name = "momentum",
    .doc = "gradient descent with heavy-ball momentum",
    .params = params,
    .n_params = BL_COUNT_OF(params),
    .n_slots = 1,
    .step = step,
};
