/* SPDX-License-Identifier: Apache-2.0
 *
 * RMSprop:
 *
 *   v = rho * v + (1 - rho) * d^2
 *   w -= lr * d / (sqrt(v) + eps)         d = g + weight_decay * w
 *
 * v begins at 0 and is not corrected, so the first steps are up to 1 / sqrt(1 - rho) times as long as later ones.
 *
 * Source: Tieleman and Hinton, "Lecture 6.5 - rmsprop: divide the gradient by a running average of its recent
 * magnitude", COURSERA: Neural Networks for Machine Learning, 2012, slide 29. The slide has no eps; here it stands
 * outside the root, as in Adam. rho is rounded to float32 before 1 - rho is taken.
 */
#include "kernel/kernel.h"
#include "optim/rules.h"

enum { LR, RHO, EPS, WEIGHT_DECAY };

static const bl_param_info params[] = {
    [LR] = BL_PARAM_LR(1e-3),
    [RHO] = {"rho", 0.9, 0, 0.999999, false, "decay of the mean of squared gradients"},
    [EPS] = {"eps", 1e-8, 1e-30, 1, false, "added to the root, so that a zero gradient divides by something"},
    [WEIGHT_DECAY] = BL_PARAM_WEIGHT_DECAY,
};

static void step(float *w, const float *g, float *const *slots, size_t n, const bl_optim_step_args *a) {
  bl_kernels_get()->rmsprop(w, slots[0], g, (float)a->lr, (float)a->params[RHO], (float)a->params[EPS],
                            (float)a->weight_decay, n);
}

const bl_optim_rule bl_optim_rmsprop = {
    .name = "rmsprop",
    .doc = "rates divided by the root of the mean of recent squared gradients",
    .params = params,
    .n_params = BL_COUNT_OF(params),
    .n_slots = 1,
    .step = step,
};
