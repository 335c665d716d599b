/* SPDX-License-Identifier: Apache-2.0
 *
 * Inner loops of the layers over float32 rows: bias and activation in one pass, their backward with the
 * bias gradient in one pass, softmax pieces, dropout. The loops are plain C (nn/vec_impl.h), compiled once
 * per instruction set; every table gives the same bits, because nothing is reassociated or fused.
 *
 * The table follows the one that kernel/kernel.h picked, so BALLAST_KERNELS=scalar applies here too.
 */
#ifndef WK_NN_VEC_H
#define WK_NN_VEC_H

#include "job/spec.h"

#include <stddef.h>
#include <stdint.h>

/* y = f(x + bias) row by row. x, y: [rows, cols], may be the same; bias: [cols] or NULL (none).
 * slope: [rows, cols], filled by activations that have needs_slope; may be NULL for others and in evaluation. */
typedef void wk_act_forward_fn(const float *x, const float *bias, float *y, float *slope, size_t rows, size_t cols);

/* dy = dy * f'(.), and column sums of the result in row order: bias_grad[j] = sum_i dy[i][j].
 * saved: [rows, cols], what forward returned in y, or the slope for activations that have needs_slope.
 * bias_grad: [cols], stored, or NULL. */
typedef void wk_act_backward_fn(float *dy, const float *saved, float *bias_grad, size_t rows, size_t cols);

typedef struct wk_vec {
  const char *name;
  wk_act_forward_fn *act_forward[BL_ACT_COUNT];
  wk_act_backward_fn *act_backward[BL_ACT_COUNT];
  float (*max)(const float *x, size_t n); /* n > 0; NaN elements are passed over */
  /* sum of exp(x - shift) in 16 interleaved partial sums, then pairwise 8, 4, 2, 1 apart; out: [n] or NULL. */
  float (*exp_sum)(const float *x, float shift, float *out, size_t n);
  /* Random mask: keep[i] = 1 with probability 1 - threshold / 65536, else 0. Elements go in groups of 128, made
   * of the 16 blocks of base/rng.h's generator at (key, hi, lo + 16 group + b), b = 0..15: element 32 w + 16 h + b
   * of a group is kept when half h (0: low) of word w of block b is at least the threshold. */
  void (*random_keep)(uint64_t key, uint64_t hi, uint64_t lo, uint32_t threshold, uint8_t *keep, size_t n);
  /* y = keep ? x * scale : 0. x, y may be the same. */
  void (*mask)(const float *x, const uint8_t *keep, float scale, float *y, size_t n);
} wk_vec;

/* Activations whose backward needs the slope saved by forward (their output alone does not tell it). */
extern const bool wk_act_needs_slope[BL_ACT_COUNT];

const wk_vec *wk_vec_get(void);
/* Tables this CPU can run, for tests: the ith, NULL behind the last; 0 is scalar. */
const wk_vec *wk_vec_at(size_t i);

#endif
