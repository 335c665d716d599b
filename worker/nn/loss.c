/* SPDX-License-Identifier: Apache-2.0 */
#include "nn/loss.h"

#include "nn/math.h"

static size_t argmax(const float *z, size_t n) {
  size_t best = 0;
  for (size_t j = 1; j < n; j++)
    if (z[j] > z[best])
      best = j;
  return best;
}

static wk_loss_sums softmax_sums(const wk_vec *vec, const float *z, wk_targets t, size_t n, size_t cols) {
  wk_loss_sums sums = {0};
  for (size_t i = 0; i < n; i++, z += cols) {
    uint32_t label = t.labels[i];
    BL_ASSERT(label < cols);
    float max = vec->max(z, cols);
    sums.loss_sum += (double)wk_logf(vec->exp_sum(z, max, NULL, cols)) + ((double)max - (double)z[label]);
    sums.correct += argmax(z, cols) == label;
  }
  return sums;
}

static void softmax_rows(const wk_vec *vec, const float *z, size_t n, size_t cols, float scale, float *out) {
  for (size_t i = 0; i < n; i++, z += cols, out += cols) {
    float factor = scale / vec->exp_sum(z, vec->max(z, cols), out, cols);
    for (size_t j = 0; j < cols; j++)
      out[j] *= factor;
  }
}

static void softmax_grad(const wk_vec *vec, const float *z, wk_targets t, size_t n, size_t cols, float scale,
                         float *dz) {
  softmax_rows(vec, z, n, cols, scale, dz);
  for (size_t i = 0; i < n; i++) {
    BL_ASSERT(t.labels[i] < cols);
    dz[i * cols + t.labels[i]] -= scale;
  }
}

static void softmax_predict(const wk_vec *vec, const float *z, size_t n, size_t cols, float *out) {
  softmax_rows(vec, z, n, cols, 1.0f, out);
}

static wk_loss_sums sigmoid_sums(const wk_vec *vec, const float *z, wk_targets t, size_t n, size_t cols) {
  wk_loss_sums sums = {0};
  for (size_t i = 0; i < n; i++) {
    BL_ASSERT(t.labels[i] <= 1);
    /* log(1 + exp z) - label z = log(1 + exp -|z|) + max(-z, 0) or max(z, 0): no overflow, no cancellation. */
    float wrong = t.labels[i] == 1 ? -z[i] : z[i];
    float magnitude = z[i] < 0.0f ? -z[i] : z[i];
    sums.loss_sum += (double)wk_log1pf(wk_expf(-magnitude)) + (wrong > 0.0f || wrong != wrong ? (double)wrong : 0.0);
    sums.correct += (z[i] >= 0.0f) == (t.labels[i] == 1);
  }
  return sums;
}

static void sigmoid_predict(const wk_vec *vec, const float *z, size_t n, size_t cols, float *out) {
  vec->act_forward[BL_ACT_SIGMOID](z, NULL, out, NULL, n, cols);
}

static void sigmoid_grad(const wk_vec *vec, const float *z, wk_targets t, size_t n, size_t cols, float scale,
                         float *dz) {
  sigmoid_predict(vec, z, n, cols, dz);
  for (size_t i = 0; i < n; i++)
    dz[i] = scale * (dz[i] - (float)t.labels[i]);
}

static wk_loss_sums squared_sums(const wk_vec *vec, const float *z, wk_targets t, size_t n, size_t cols) {
  wk_loss_sums sums = {0};
  for (size_t i = 0; i < n; i++) {
    double d = (double)z[i] - (double)t.values[i];
    sums.squared_error_sum += d * d;
  }
  sums.loss_sum = sums.squared_error_sum;
  return sums;
}

static void squared_grad(const wk_vec *vec, const float *z, wk_targets t, size_t n, size_t cols, float scale,
                         float *dz) {
  for (size_t i = 0; i < n; i++)
    dz[i] = 2.0f * scale * (z[i] - t.values[i]);
}

static void squared_predict(const wk_vec *vec, const float *z, size_t n, size_t cols, float *out) {
  vec->act_forward[BL_ACT_NONE](z, NULL, out, NULL, n, cols);
}

static const wk_loss_ops losses[BL_LOSS_COUNT] = {
    [BL_LOSS_SOFTMAX_CROSS_ENTROPY] = {"softmax_cross_entropy", false, BL_ACT_SOFTMAX, softmax_sums, softmax_grad,
                                       softmax_predict},
    [BL_LOSS_SIGMOID_CROSS_ENTROPY] = {"sigmoid_cross_entropy", true, BL_ACT_SIGMOID, sigmoid_sums, sigmoid_grad,
                                       sigmoid_predict},
    [BL_LOSS_SQUARED] = {"squared", true, BL_ACT_NONE, squared_sums, squared_grad, squared_predict},
};

const wk_loss_ops *wk_loss_ops_of(bl_loss_kind kind) {
  return (unsigned)kind < BL_LOSS_COUNT && losses[kind].name != NULL ? &losses[kind] : NULL;
}
