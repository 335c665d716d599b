/* SPDX-License-Identifier: Apache-2.0
 *
 * Nesterov momentum:
 *
 *   m = momentum * m + d
 *   w -= lr * (d + momentum * m)         d = g + weight_decay * w
 *
 * w are the weights that the next gradient is taken at, which is the point that momentum would carry the
 * classical iterate to; so the gradient comes from where the momentum leads, without a second set of weights.
 *
 * Source: Nesterov, "A method for solving the convex programming problem with convergence rate O(1/k^2)", 1983,
 * as momentum by Sutskever, Martens, Dahl, Hinton, "On the importance of initialization and momentum in deep
 * learning", ICML 2013, equations 3 and 4, written for the point ahead as by Bengio, Boulanger-Lewandowski,
 * Pascanu, "Advances in optimizing recurrent networks", ICASSP 2013, equation 7 (momentum constant).
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
  bl_kernels_get()->nesterov(w, slots[0], g, (float)a->lr, (float)a->params[MOMENTUM], (float)a->weight_decay, n);
}

const bl_optim_rule bl_optim_nesterov = {
    .name = "nesterov",
    .doc = "gradient descent with Nesterov's momentum",
    .params = params,
    .n_params = BL_COUNT_OF(params),
    .n_slots = 1,
    .step = step,
};
