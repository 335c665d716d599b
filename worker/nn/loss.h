/* SPDX-License-Identifier: Apache-2.0
 *
 * Losses: value, gradient and prediction from the outputs z: [n, cols] of the last layer. Sums over the
 * samples run in sample order in double precision. Overflow-free for any finite z.
 *
 *   softmax_cross_entropy  log sum_j exp z_j - z_label
 *   sigmoid_cross_entropy  log(1 + exp z) - label z; one output, labels 0 and 1
 *   squared                (z - value)^2; one output
 */
#ifndef WK_NN_LOSS_H
#define WK_NN_LOSS_H

#include "nn/model.h"
#include "nn/vec.h"

typedef struct wk_targets {
  const uint32_t *labels; /* [n], below the number of classes */
  const float *values;    /* [n] */
} wk_targets;

typedef struct wk_loss_ops {
  const char *name;
  bool single_output;
  bl_activation own_activation; /* in the last layer it is left to the loss, which has it built in */
  wk_loss_sums (*sums)(const wk_vec *vec, const float *z, wk_targets t, size_t n, size_t cols);
  /* dz = scale * d loss / d z. dz: [n, cols] */
  void (*grad)(const wk_vec *vec, const float *z, wk_targets t, size_t n, size_t cols, float scale, float *dz);
  /* out: [n, cols], probabilities or values */
  void (*predict)(const wk_vec *vec, const float *z, size_t n, size_t cols, float *out);
} wk_loss_ops;

/* NULL for kinds that are none of ours. */
const wk_loss_ops *wk_loss_ops_of(bl_loss_kind kind);

#endif
