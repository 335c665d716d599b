/* SPDX-License-Identifier: Apache-2.0
 *
 * LAMB: the direction of AdamW, its length set by the weights' own. At step t = 1, 2, ...:
 *
 *   m = beta1 * m + (1 - beta1) * g
 *   v = beta2 * v + (1 - beta2) * g^2
 *   u = (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps) + weight_decay * w
 *   w -= lr * (||w|| / ||u||) * u         the ratio is 1 where one of the norms is 0
 *
 * The norms are over what is passed together: a chunk. The paper's are over a layer; but whatever a server computes
 * is per chunk, so that no result depends on how many servers there are. Tensors up to the job's `chunk` (1 MiB)
 * are one chunk, and there the two are the same.
 *
 * Order of the sums: blocks of BLOCK elements, each by the kernel sum_squares, added in double in the order of the
 * blocks. The ratio and lr times it are made in double and rounded to float32 once.
 *
 * Source: You et al., "Large batch optimization for deep learning: training BERT in 76 minutes", ICLR 2020,
 * Algorithm 2 with phi(x) = x.
 */
#include "base/num.h"
#include "optim/adam_family.h"

#include <math.h>

#define BLOCK 1024u /* a multiple of the lanes of sum_squares; fits the stack */

static const bl_param_info params[] = {
    BL_ADAM_PARAMS(1e-6),
    [BL_ADAM_WEIGHT_DECAY] = BL_PARAM_DECOUPLED_DECAY(0.01),
};

static double trust_ratio(const float *w, const float *m, const float *v, size_t n, const bl_adam_args *args) {
  const bl_kernels *k = bl_kernels_get();
  float u[BLOCK];
  double weights = 0, direction = 0;
  for (size_t at = 0; at < n; at += BLOCK) {
    size_t len = BL_MIN(n - at, BLOCK);
    k->adam_direction(u, w + at, m + at, v + at, args, len);
    weights += k->sum_squares(w + at, len);
    direction += k->sum_squares(u, len);
  }
  return weights > 0 && direction > 0 ? sqrt(weights) / sqrt(direction) : 1.0;
}

static void step(float *w, const float *g, float *const *slots, size_t n, const bl_optim_step_args *a) {
  const bl_kernels *k = bl_kernels_get();
  const bl_adam_args args = bl_adam_args_of(a);
  float u[BLOCK], *m = slots[0], *v = slots[1];
  k->adam_moments(m, v, g, &args, n);
  const float rate = (float)(a->lr * trust_ratio(w, m, v, n, &args));
  for (size_t at = 0; at < n; at += BLOCK) {
    size_t len = BL_MIN(n - at, BLOCK);
    k->adam_direction(u, w + at, m + at, v + at, &args, len);
    k->axpy(w + at, u, -rate, len);
  }
}

const bl_optim_rule bl_optim_lamb = {
    .name = "lamb",
    .doc = "adamw's direction as long as the weights of the chunk say; for large batches",
    .params = params,
    .n_params = BL_COUNT_OF(params),
    .n_slots = 2,
    .needs_chunk = true,
    .step = step,
};
