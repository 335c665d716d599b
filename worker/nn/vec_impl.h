/* SPDX-License-Identifier: Apache-2.0
 *
 * The loops behind nn/vec.h, included once per instruction set with VEC_NAME (text) and VEC_TABLE (symbol)
 * set. Columns are the vector dimension, so the order of every sum is the same whatever the vector width.
 */
#include "nn/math.h"

#define VEC_LANES 16

static inline float vec_none(float x) { return x; }
static inline float vec_relu(float x) { return x < 0.0f ? 0.0f : x; } /* keeps NaN */
static inline float vec_leaky_relu(float x) { return x < 0.0f ? x * 0.01f : x; }

/* Derivatives as functions of the output y (of the slope for gelu), times dy. */
static inline float vec_d_relu(float y, float dy) { return y > 0.0f ? dy : 0.0f; }
static inline float vec_d_leaky_relu(float y, float dy) { return y > 0.0f ? dy : dy * 0.01f; }
static inline float vec_d_tanh(float y, float dy) { return dy * (1.0f - y * y); }
static inline float vec_d_sigmoid(float y, float dy) { return dy * (y * (1.0f - y)); }
static inline float vec_d_gelu(float slope, float dy) { return dy * slope; }

/* In place and from one array to another are loops apart: each then holds its restrict, without which the
 * compilers would not vectorise, or only behind a check that being in place fails. */
#define VEC_FORWARD(act, f)                                                                                  \
  static void apply_##act(const float *restrict x, float *restrict y, size_t n) {                            \
    for (size_t i = 0; i < n; i++)                                                                           \
      y[i] = f(x[i]);                                                                                        \
  }                                                                                                          \
  static void bias_##act(const float *restrict x, const float *restrict bias, float *restrict y,             \
                         size_t cols) {                                                                      \
    for (size_t j = 0; j < cols; j++)                                                                        \
      y[j] = f(x[j] + bias[j]);                                                                              \
  }                                                                                                          \
  static void apply_in_place_##act(float *restrict y, size_t n) {                                            \
    for (size_t i = 0; i < n; i++)                                                                           \
      y[i] = f(y[i]);                                                                                        \
  }                                                                                                          \
  static void bias_in_place_##act(float *restrict y, const float *restrict bias, size_t cols) {              \
    for (size_t j = 0; j < cols; j++)                                                                        \
      y[j] = f(y[j] + bias[j]);                                                                              \
  }                                                                                                          \
  static void forward_##act(const float *x, const float *bias, float *y, float *slope, size_t rows,          \
                            size_t cols) {                                                                   \
    if (bias == NULL && x == y)                                                                              \
      apply_in_place_##act(y, rows * cols);                                                                  \
    else if (bias == NULL)                                                                                   \
      apply_##act(x, y, rows * cols);                                                                        \
    else if (x == y)                                                                                         \
      for (size_t r = 0; r < rows; r++)                                                                      \
        bias_in_place_##act(y + r * cols, bias, cols);                                                       \
    else                                                                                                     \
      for (size_t r = 0; r < rows; r++)                                                                      \
        bias_##act(x + r * cols, bias, y + r * cols, cols);                                                  \
  }

#define VEC_BACKWARD(act, f)                                                                                 \
  static void backward_##act(float *restrict dy, const float *restrict saved, float *restrict bias_grad,     \
                             size_t rows, size_t cols) {                                                     \
    if (bias_grad == NULL) {                                                                                 \
      for (size_t i = 0; i < rows * cols; i++)                                                               \
        dy[i] = f(saved[i], dy[i]);                                                                          \
      return;                                                                                                \
    }                                                                                                        \
    memset(bias_grad, 0, cols * sizeof *bias_grad);                                                          \
    for (size_t r = 0; r < rows; r++, dy += cols, saved += cols)                                             \
      for (size_t j = 0; j < cols; j++) {                                                                    \
        float d = f(saved[j], dy[j]);                                                                        \
        dy[j] = d;                                                                                           \
        bias_grad[j] += d;                                                                                   \
      }                                                                                                      \
  }

VEC_FORWARD(none, vec_none)
VEC_FORWARD(relu, vec_relu)
VEC_FORWARD(leaky_relu, vec_leaky_relu)
VEC_FORWARD(tanh, wk_tanhf)
VEC_FORWARD(sigmoid, wk_sigmoidf)
VEC_BACKWARD(relu, vec_d_relu)
VEC_BACKWARD(leaky_relu, vec_d_leaky_relu)
VEC_BACKWARD(tanh, vec_d_tanh)
VEC_BACKWARD(sigmoid, vec_d_sigmoid)
VEC_BACKWARD(gelu, vec_d_gelu)

static void backward_none(float *restrict dy, const float *restrict saved, float *restrict bias_grad, size_t rows,
                          size_t cols) {
  (void)saved;
  if (bias_grad == NULL)
    return;
  memset(bias_grad, 0, cols * sizeof *bias_grad);
  for (size_t r = 0; r < rows; r++, dy += cols)
    for (size_t j = 0; j < cols; j++)
      bias_grad[j] += dy[j];
}

static void forward_gelu(const float *x, const float *bias, float *y, float *slope, size_t rows, size_t cols) {
  for (size_t r = 0; r < rows; r++, x += cols, y += cols) {
    float *row_slope = slope == NULL ? NULL : slope + r * cols;
    for (size_t first = 0; first < cols; first += 64) {
      /* In blocks, so that the loop that vectorises has no branch on the optional pointers. */
      size_t n = cols - first < 64 ? cols - first : 64;
      float z[64], s[64];
      memcpy(z, x + first, n * sizeof *z);
      for (size_t j = 0; bias != NULL && j < n; j++)
        z[j] += bias[first + j];
      for (size_t j = 0; j < n; j++)
        z[j] = wk_geluf(z[j], &s[j]);
      memcpy(y + first, z, n * sizeof *z);
      if (row_slope != NULL)
        memcpy(row_slope + first, s, n * sizeof *s);
    }
  }
}

static float sum_lanes(const float *lanes) {
  float a[VEC_LANES];
  memcpy(a, lanes, sizeof a);
  for (size_t step = VEC_LANES / 2; step > 0; step /= 2)
    for (size_t l = 0; l < step; l++)
      a[l] += a[l + step];
  return a[0];
}

static float vec_max(const float *x, size_t n) {
  float best = x[0];
  for (size_t i = 1; i < n; i++)
    best = x[i] > best || best != best ? x[i] : best;
  return best;
}

static float exp_sum(const float *x, float shift, float *out, size_t n) {
  float lanes[VEC_LANES] = {0};
  for (size_t first = 0; first < n; first += VEC_LANES) {
    size_t len = n - first < VEC_LANES ? n - first : VEC_LANES;
    float e[VEC_LANES] = {0};
    memcpy(e, x + first, len * sizeof *e);
    for (size_t l = 0; l < VEC_LANES; l++)
      e[l] = wk_expf(e[l] - shift);
    for (size_t l = len; l < VEC_LANES; l++)
      e[l] = 0.0f;
    for (size_t l = 0; l < VEC_LANES; l++)
      lanes[l] += e[l];
    if (out != NULL)
      memcpy(out + first, e, len * sizeof *e);
  }
  return sum_lanes(lanes);
}

static void forward_softmax(const float *x, const float *bias, float *y, float *slope, size_t rows, size_t cols) {
  forward_none(x, bias, y, slope, rows, cols);
  for (size_t r = 0; r < rows; r++, y += cols) {
    float scale = 1.0f / exp_sum(y, vec_max(y, cols), y, cols);
    for (size_t j = 0; j < cols; j++)
      y[j] *= scale;
  }
}

static void backward_softmax(float *dy, const float *saved, float *bias_grad, size_t rows, size_t cols) {
  const float *y = saved;
  float *row = dy;
  for (size_t r = 0; r < rows; r++, row += cols, y += cols) {
    float lanes[VEC_LANES] = {0};
    for (size_t j = 0; j < cols; j++)
      lanes[j % VEC_LANES] += row[j] * y[j];
    float dot = sum_lanes(lanes);
    for (size_t j = 0; j < cols; j++)
      row[j] = y[j] * (row[j] - dot);
  }
  backward_none(dy, saved, bias_grad, rows, cols);
}

/* Philox4x32-10 as bl_rng_philox, a block in each lane. */
static void philox_lanes(uint64_t key, uint64_t hi, uint64_t lo, uint32_t v[4][VEC_LANES]) {
  uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
  for (size_t b = 0; b < VEC_LANES; b++) {
    v[0][b] = (uint32_t)(lo + b);
    v[1][b] = (uint32_t)((lo + b) >> 32);
    v[2][b] = (uint32_t)hi;
    v[3][b] = (uint32_t)(hi >> 32);
  }
  for (int round = 0; round < 10; round++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u)
    for (size_t b = 0; b < VEC_LANES; b++) {
      uint64_t p0 = (uint64_t)0xD2511F53u * v[0][b], p1 = (uint64_t)0xCD9E8D57u * v[2][b];
      v[0][b] = (uint32_t)(p1 >> 32) ^ v[1][b] ^ k0;
      v[2][b] = (uint32_t)(p0 >> 32) ^ v[3][b] ^ k1;
      v[1][b] = (uint32_t)p1;
      v[3][b] = (uint32_t)p0;
    }
}

static void random_keep(uint64_t key, uint64_t hi, uint64_t lo, uint32_t threshold, uint8_t *keep, size_t n) {
  for (size_t first = 0; first < n; first += 8 * VEC_LANES, lo += VEC_LANES) {
    uint32_t v[4][VEC_LANES];
    uint8_t group[4][2][VEC_LANES];
    philox_lanes(key, hi, lo, v);
    for (size_t w = 0; w < 4; w++)
      for (size_t b = 0; b < VEC_LANES; b++) {
        group[w][0][b] = (v[w][b] & 0xffffu) >= threshold;
        group[w][1][b] = v[w][b] >> 16 >= threshold;
      }
    memcpy(keep + first, group, n - first < sizeof group ? n - first : sizeof group);
  }
}

static void mask_copy(const float *restrict x, const uint8_t *restrict keep, float scale, float *restrict y,
                      size_t n) {
  for (size_t i = 0; i < n; i++)
    y[i] = keep[i] ? x[i] * scale : 0.0f;
}

static void mask_in_place(float *restrict y, const uint8_t *restrict keep, float scale, size_t n) {
  for (size_t i = 0; i < n; i++)
    y[i] = keep[i] ? y[i] * scale : 0.0f;
}

static void mask(const float *x, const uint8_t *keep, float scale, float *y, size_t n) {
  if (x == y)
    mask_in_place(y, keep, scale, n);
  else
    mask_copy(x, keep, scale, y, n);
}

#define VEC_FORWARDS                                                                                         \
  {                                                                                                          \
    [BL_ACT_NONE] = forward_none, [BL_ACT_RELU] = forward_relu, [BL_ACT_LEAKY_RELU] = forward_leaky_relu,    \
    [BL_ACT_TANH] = forward_tanh, [BL_ACT_SIGMOID] = forward_sigmoid, [BL_ACT_GELU] = forward_gelu,          \
    [BL_ACT_SOFTMAX] = forward_softmax                                                                       \
  }
#define VEC_BACKWARDS                                                                                        \
  {                                                                                                          \
    [BL_ACT_NONE] = backward_none, [BL_ACT_RELU] = backward_relu, [BL_ACT_LEAKY_RELU] = backward_leaky_relu, \
    [BL_ACT_TANH] = backward_tanh, [BL_ACT_SIGMOID] = backward_sigmoid, [BL_ACT_GELU] = backward_gelu,       \
    [BL_ACT_SOFTMAX] = backward_softmax                                                                      \
  }
const wk_vec VEC_TABLE = {VEC_NAME, VEC_FORWARDS, VEC_BACKWARDS, vec_max, exp_sum, random_keep, mask};
