/* SPDX-License-Identifier: Apache-2.0
 *
 * The scalar table: the definition of what every kernel computes. Each line is one rounding or none; the
 * other tables repeat these operations in this order, several elements at a time.
 *
 * Built with -ffp-contract=off like everything else: a product and a sum stay two roundings.
 */
#include "kernel/quant_tables.h"
#include "kernel/lowrank.h"
#include "kernel/tables.h"

#include <math.h>
#include <string.h>

#define F16_MAX_BITS 0x7bffu  /* 65504 */
#define F16_INF_BITS 0x7c00u
#define F16_QUIET_BIT 0x0200u
#define F32_INF_BITS 0x7f800000u
/* Behind this magnitude float16 rounds to infinity: 65504 and half of its last place. */
#define F32_OVER_F16_BITS 0x477ff000u
#define F32_MIN_NORMAL_F16_BITS 0x38800000u /* 2^-14 */
#define F32_TIE_TO_ZERO_BITS 0x33000000u    /* 2^-25: this and less becomes zero */

static void add(float *y0, const float *x0, size_t n) {
  bl_loose_float *y = y0;
  const bl_loose_float *x = x0;
  for (size_t i = 0; i < n; i++)
    y[i] = y[i] + x[i];
}

static void axpy(float *y0, const float *x0, float a, size_t n) {
  bl_loose_float *y = y0;
  const bl_loose_float *x = x0;
  for (size_t i = 0; i < n; i++)
    y[i] = y[i] + a * x[i];
}

static void sub(float *y0, const float *a0, const float *b0, size_t n) {
  bl_loose_float *y = y0;
  const bl_loose_float *a = a0, *b = b0;
  for (size_t i = 0; i < n; i++)
    y[i] = a[i] - b[i];
}

static void scale(float *y0, float a, size_t n) {
  bl_loose_float *y = y0;
  for (size_t i = 0; i < n; i++)
    y[i] = y[i] * a;
}

static void clip(float *y0, float limit, size_t n) {
  bl_loose_float *y = y0;
  for (size_t i = 0; i < n; i++) {
    float v = y[i];
    v = v < -limit ? -limit : v;
    v = v > limit ? limit : v;
    y[i] = v;
  }
}

static uint32_t bits_of(float x) {
  uint32_t b;
  memcpy(&b, &x, sizeof b);
  return b;
}

static float float_of(uint32_t b) {
  float x;
  memcpy(&x, &b, sizeof x);
  return x;
}

/* Drops the low `shift` bits of v (shift 1 to 31), rounding to nearest, ties to even. */
static uint32_t round_shift(uint32_t v, unsigned shift) {
  uint32_t kept = v >> shift, rest = v & ((1u << shift) - 1), half = 1u << (shift - 1);
  return kept + (rest > half || (rest == half && (kept & 1) != 0));
}

static uint16_t half_of(float x) {
  uint32_t b = bits_of(x), sign = b >> 16 & 0x8000u, mag = b & 0x7fffffffu, h;
  if (mag > F32_INF_BITS)
    h = F16_INF_BITS | F16_QUIET_BIT | (mag >> 13 & 0x3ffu); /* quiet, with the payload's upper bits */
  else if (mag == F32_INF_BITS)
    h = F16_INF_BITS;
  else if (mag >= F32_OVER_F16_BITS)
    h = F16_MAX_BITS;
  else if (mag >= F32_MIN_NORMAL_F16_BITS)
    h = round_shift(mag - ((127u - 15u) << 23), 13); /* a carry moves into the exponent as it should */
  else if (mag <= F32_TIE_TO_ZERO_BITS)
    h = 0;
  else /* subnormal: units of 2^-24 */
    h = round_shift((mag & 0x7fffffu) | 0x800000u, 126u - (mag >> 23));
  return (uint16_t)(sign | h);
}

static float float_of_half(uint16_t v) {
  uint32_t sign = (uint32_t)(v & 0x8000u) << 16, mag = v & 0x7fffu;
  if (mag > F16_INF_BITS)
    return float_of(sign | F32_INF_BITS | (F16_QUIET_BIT | (mag & 0x3ffu)) << 13);
  if (mag == F16_INF_BITS)
    return float_of(sign | F32_INF_BITS);
  if (mag >= 0x400u)
    return float_of(sign | ((mag << 13) + ((127u - 15u) << 23)));
  float x = (float)mag * 0x1p-24f; /* zero and subnormals: exact */
  return float_of(sign | bits_of(x));
}

static void f32_to_f16(uint16_t *out0, const float *x0, size_t n) {
  bl_loose_u16 *out = out0;
  const bl_loose_float *x = x0;
  for (size_t i = 0; i < n; i++)
    out[i] = half_of(x[i]);
}

static void f16_to_f32(float *out0, const uint16_t *x0, size_t n) {
  bl_loose_float *out = out0;
  const bl_loose_u16 *x = x0;
  for (size_t i = 0; i < n; i++)
    out[i] = float_of_half(x[i]);
}

static void f16_add(float *y0, const uint16_t *x0, size_t n) {
  bl_loose_float *y = y0;
  const bl_loose_u16 *x = x0;
  for (size_t i = 0; i < n; i++)
    y[i] = y[i] + float_of_half(x[i]);
}

static void f16_axpy(float *y0, const uint16_t *x0, float a, size_t n) {
  bl_loose_float *y = y0;
  const bl_loose_u16 *x = x0;
  for (size_t i = 0; i < n; i++)
    y[i] = y[i] + a * float_of_half(x[i]);
}

static void f16_feedback(uint16_t *out0, const float *x0, float *residual0, size_t n) {
  bl_loose_u16 *out = out0;
  bl_loose_float *residual = residual0;
  const bl_loose_float *x = x0;
  for (size_t i = 0; i < n; i++) {
    float sum = x[i] + residual[i];
    out[i] = half_of(sum);
    residual[i] = isfinite(sum) ? sum - float_of_half(out[i]) : 0;
  }
}

static bool all_finite(const float *x0, size_t n) {
  const bl_loose_float *x = x0;
  for (size_t i = 0; i < n; i++) {
    if ((bits_of(x[i]) & F32_INF_BITS) == F32_INF_BITS)
      return false;
  }
  return true;
}

static double sum_squares(const float *x0, size_t n) {
  const bl_loose_float *x = x0;
  double p[BL_SUM_LANES] = {0};
  for (size_t i = 0; i < n; i++)
    p[i % BL_SUM_LANES] += (double)x[i] * (double)x[i]; /* the product is exact */
  return bl_sum_lanes(p);
}

/* With decay 0 the weight is not touched by the decay term: 0 * infinity would make a NaN. */
static inline float decayed(float g, float w, float weight_decay) {
  return weight_decay != 0 ? g + weight_decay * w : g;
}

static void sgd(float *w0, const float *g0, float lr, float weight_decay, size_t n) {
  bl_loose_float *w = w0;
  const bl_loose_float *g = g0;
  for (size_t i = 0; i < n; i++)
    w[i] = w[i] - lr * decayed(g[i], w[i], weight_decay);
}

static void momentum(float *w0, float *m0, const float *g0, float lr, float mu, float weight_decay, size_t n) {
  bl_loose_float *w = w0, *m = m0;
  const bl_loose_float *g = g0;
  for (size_t i = 0; i < n; i++) {
    m[i] = mu * m[i] + decayed(g[i], w[i], weight_decay);
    w[i] = w[i] - lr * m[i];
  }
}

static void adam(float *w0, float *m0, float *v0, const float *g0, const bl_adam_args *a, size_t n) {
  bl_loose_float *w = w0, *m = m0, *v = v0;
  const bl_loose_float *g = g0;
  const float rest1 = 1.0f - a->beta1, rest2 = 1.0f - a->beta2;
  for (size_t i = 0; i < n; i++) {
    float d = decayed(g[i], w[i], a->weight_decay);
    m[i] = a->beta1 * m[i] + rest1 * d;
    v[i] = a->beta2 * v[i] + (rest2 * d) * d;
    float divisor = sqrtf(v[i] * a->correction2) + a->eps;
    w[i] = w[i] - (a->lr * (m[i] * a->correction1)) / divisor;
  }
}

static void nesterov(float *w0, float *m0, const float *g0, float lr, float mu, float weight_decay, size_t n) {
  bl_loose_float *w = w0, *m = m0;
  const bl_loose_float *g = g0;
  for (size_t i = 0; i < n; i++) {
    float d = decayed(g[i], w[i], weight_decay);
    m[i] = mu * m[i] + d;
    w[i] = w[i] - lr * (d + mu * m[i]);
  }
}

static void adagrad(float *w0, float *s0, const float *g0, float lr, float initial, float eps, float weight_decay,
                    size_t n) {
  bl_loose_float *w = w0, *s = s0;
  const bl_loose_float *g = g0;
  for (size_t i = 0; i < n; i++) {
    float d = decayed(g[i], w[i], weight_decay);
    s[i] = s[i] + d * d;
    w[i] = w[i] - (lr * d) / (sqrtf(s[i] + initial) + eps);
  }
}

static void rmsprop(float *w0, float *v0, const float *g0, float lr, float rho, float eps, float weight_decay,
                    size_t n) {
  bl_loose_float *w = w0, *v = v0;
  const bl_loose_float *g = g0;
  const float rest = 1.0f - rho;
  for (size_t i = 0; i < n; i++) {
    float d = decayed(g[i], w[i], weight_decay);
    v[i] = rho * v[i] + (rest * d) * d;
    w[i] = w[i] - (lr * d) / (sqrtf(v[i]) + eps);
  }
}

static void adam_moments(float *m0, float *v0, const float *g0, const bl_adam_args *a, size_t n) {
  bl_loose_float *m = m0, *v = v0;
  const bl_loose_float *g = g0;
  const float rest1 = 1.0f - a->beta1, rest2 = 1.0f - a->beta2;
  for (size_t i = 0; i < n; i++) {
    m[i] = a->beta1 * m[i] + rest1 * g[i];
    v[i] = a->beta2 * v[i] + (rest2 * g[i]) * g[i];
  }
}

static inline float direction(float w, float m, float v, const bl_adam_args *a) {
  return decayed((m * a->correction1) / (sqrtf(v * a->correction2) + a->eps), w, a->weight_decay);
}

static void adam_direction(float *u0, const float *w0, const float *m0, const float *v0, const bl_adam_args *a,
                           size_t n) {
  bl_loose_float *u = u0;
  const bl_loose_float *w = w0, *m = m0, *v = v0;
  for (size_t i = 0; i < n; i++)
    u[i] = direction(w[i], m[i], v[i], a);
}

static void adamw(float *w0, float *m0, float *v0, const float *g0, const bl_adam_args *a, size_t n) {
  bl_loose_float *w = w0, *m = m0, *v = v0;
  adam_moments(m0, v0, g0, a, n);
  for (size_t i = 0; i < n; i++)
    w[i] = w[i] - a->lr * direction(w[i], m[i], v[i], a);
}

static void amsgrad(float *w0, float *m0, float *v0, float *top0, const float *g0, const bl_adam_args *a, size_t n) {
  bl_loose_float *w = w0, *m = m0, *v = v0, *top = top0;
  const bl_loose_float *g = g0;
  const float rest1 = 1.0f - a->beta1, rest2 = 1.0f - a->beta2;
  for (size_t i = 0; i < n; i++) {
    float d = decayed(g[i], w[i], a->weight_decay);
    m[i] = a->beta1 * m[i] + rest1 * d;
    v[i] = a->beta2 * v[i] + (rest2 * d) * d;
    top[i] = v[i] > top[i] ? v[i] : top[i];
    float divisor = sqrtf(top[i] * a->correction2) + a->eps;
    w[i] = w[i] - (a->lr * (m[i] * a->correction1)) / divisor;
  }
}

static void yogi(float *w0, float *m0, float *v0, const float *g0, const bl_adam_args *a, size_t n) {
  bl_loose_float *w = w0, *m = m0, *v = v0;
  const bl_loose_float *g = g0;
  const float rest1 = 1.0f - a->beta1, rest2 = 1.0f - a->beta2;
  for (size_t i = 0; i < n; i++) {
    float d = decayed(g[i], w[i], a->weight_decay);
    float square = d * d, part = (rest2 * d) * d;
    m[i] = a->beta1 * m[i] + rest1 * d;
    v[i] = v[i] < square ? v[i] + part : square < v[i] ? v[i] - part : v[i];
    float divisor = sqrtf(v[i] * a->correction2) + a->eps;
    w[i] = w[i] - (a->lr * (m[i] * a->correction1)) / divisor;
  }
}

static void ftrl(float *w0, float *z0, float *s0, const float *g0, const bl_ftrl_args *a, size_t n) {
  bl_loose_float *w = w0, *z = z0, *s = s0;
  const bl_loose_float *g = g0;
  for (size_t i = 0; i < n; i++) {
    float sum = s[i] + g[i] * g[i], root = sqrtf(sum);
    float sigma = (root - sqrtf(s[i])) / a->lr;
    z[i] = z[i] + (g[i] - sigma * w[i]);
    s[i] = sum;
    float divisor = (a->beta + root) / a->lr + a->l2;
    w[i] = fabsf(z[i]) <= a->l1 ? 0.0f : (copysignf(a->l1, z[i]) - z[i]) / divisor;
  }
}

static void average(float *y0, const float *x0, float part, size_t n) {
  bl_loose_float *y = y0;
  const bl_loose_float *x = x0;
  for (size_t i = 0; i < n; i++)
    y[i] = y[i] + part * (x[i] - y[i]);
}

const bl_kernels bl_kernels_scalar = {
    .name = "scalar",
    .quant = &bl_quant_scalar,
    .sparse = &bl_sparse_kernels_scalar,
    .lowrank = &bl_lowrank_scalar,
    .add = add,
    .axpy = axpy,
    .sub = sub,
    .scale = scale,
    .clip = clip,
    .f32_to_f16 = f32_to_f16,
    .f16_to_f32 = f16_to_f32,
    .f16_add = f16_add,
    .f16_axpy = f16_axpy,
    .f16_feedback = f16_feedback,
    .all_finite = all_finite,
    .sum_squares = sum_squares,
    .sgd = sgd,
    .momentum = momentum,
    .adam = adam,
    .nesterov = nesterov,
    .adagrad = adagrad,
    .rmsprop = rmsprop,
    .adamw = adamw,
    .amsgrad = amsgrad,
    .yogi = yogi,
    .ftrl = ftrl,
    .adam_moments = adam_moments,
    .adam_direction = adam_direction,
    .average = average,
};
