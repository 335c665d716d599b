/* SPDX-License-Identifier: Apache-2.0
 *
 * Adagrad, the diagonal form:
 *
 *   s += d^2
 *   w -= lr * d / (sqrt(initial + s) + eps)         d = g + weight_decay * w
 *
 * The sum never forgets, so a coordinate's rate only falls: right for sparse inputs, where rare ones keep large steps.
 *
 * Source: Duchi, Hazan, Singer, "Adaptive subgradient methods for online learning and stochastic optimization",
 * JMLR 12, 2011, Figure 1 with diag(G) and no constraint set; their delta in H = delta I + diag(s)^(1/2) is eps,
 * and `initial` is what s begins with.
 */
#include "kernel/kernel.h"
#include "optim/rules.h"

enum { LR, INITIAL, EPS, WEIGHT_DECAY };

static const bl_param_info params[] = {
    [LR] = BL_PARAM_LR(0.01),
    [INITIAL] = {"initial", 0, 0, 1e6, false, "what the sum of squares begins with: large first steps become smaller"},
    [EPS] = {"eps", 1e-10, 1e-30, 1, false, "added to the root, so that a zero gradient divides by something"},
    [WEIGHT_DECAY] = BL_PARAM_WEIGHT_DECAY,
};

static void step(float *w, const float *g, float *const *slots, size_t n, const bl_optim_step_args *a) {
  bl_kernels_get()->adagrad(w, slots[0], g, (float)a->lr, (float)a->params[INITIAL], (float)a->params[EPS],
                            (float)a->weight_decay, n);
}

const bl_optim_rule bl_optim_adagrad = {
    .name = "adagrad",
    .doc = "rates divided by the root of all squared gradients so far",
    .params = params,
    .n_params = BL_COUNT_OF(params),
    .n_slots = 1,
    .step = step,
};
