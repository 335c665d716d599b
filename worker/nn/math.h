/* SPDX-License-Identifier: Apache-2.0
 *
 * exp, log, tanh, the logistic function and GELU in float32, from additions, multiplications and divisions
 * alone, so that every machine, compiler and libm gives the same bits. Branch-free, so that loops over
 * arrays vectorise (nn/vec.h).
 *
 * Errors against the exact value, tested by sweeps (tests/unit/test_nn.c): exp 1 ulp, log 1 ulp, log1p
 * 3 ulp, tanh 2 ulp, sigmoid 3 ulp where the result is a normal number. NaN gives NaN.
 * Source: the polynomials are those of S. Moshier's Cephes library (expf, logf, tanhf).
 */
#ifndef WK_NN_MATH_H
#define WK_NN_MATH_H

#include <stdint.h>
#include <string.h>

static inline uint32_t wk_bits_of_float(float x) {
  uint32_t u;
  memcpy(&u, &x, sizeof u);
  return u;
}

static inline float wk_float_of_bits(uint32_t u) {
  float x;
  memcpy(&x, &u, sizeof x);
  return x;
}

/* Overflows to infinity above 88.72, underflows gradually to 0 below -87.3. */
static inline float wk_expf(float x) {
  const float round_magic = 0x1.8p23f; /* adding it leaves the nearest integer in the low bits */
  float c = x < -104.0f ? -104.0f : x;
  c = c > 89.0f ? 89.0f : c;
  float shifted = c * 1.44269504088896341f + round_magic;
  float n = shifted - round_magic;
  float r = c - n * 0.693359375f; /* ln 2 in two parts: n times the first is exact */
  r = r + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  /* Two factors 2^n reach infinity and the subnormal numbers with one rounding. */
  int32_t i = (int32_t)(wk_bits_of_float(shifted) - wk_bits_of_float(round_magic));
  int32_t half = i >> 1;
  float s1 = wk_float_of_bits(((uint32_t)half + 127u) << 23);
  float s2 = wk_float_of_bits(((uint32_t)i - (uint32_t)half + 127u) << 23);
  return p * s1 * s2;
}

/* -infinity at 0, NaN below. */
static inline float wk_logf(float x) {
  float scaled = x < 0x1p-126f ? x * 0x1p23f : x;
  float bias = x < 0x1p-126f ? 23.0f : 0.0f;
  uint32_t u = wk_bits_of_float(scaled);
  uint32_t shifted = u - 0x3f3504f3u; /* bits of sqrt(1/2): the mantissa lands in [sqrt(1/2), sqrt(2)) */
  float e = (float)((int32_t)shifted >> 23) - bias;
  float m = wk_float_of_bits((shifted & 0x007fffffu) + 0x3f3504f3u) - 1.0f;
  float z = m * m;
  float p = 7.0376836292e-2f;
  p = p * m - 1.1514610310e-1f;
  p = p * m + 1.1676998740e-1f;
  p = p * m - 1.2420140846e-1f;
  p = p * m + 1.4249322787e-1f;
  p = p * m - 1.6668057665e-1f;
  p = p * m + 2.0000714765e-1f;
  p = p * m - 2.4999993993e-1f;
  p = p * m + 3.3333331174e-1f;
  float y = p * m * z - e * 2.12194440e-4f - 0.5f * z;
  float r = m + y + e * 0.693359375f;
  const float inf = wk_float_of_bits(0x7f800000u);
  r = x == 0.0f ? -inf : r;
  r = x == inf ? inf : r;
  return x >= 0.0f ? r : wk_float_of_bits(0x7fc00000u);
}

/* log(1 + e) for e in [0, 1], without losing small e. */
static inline float wk_log1pf(float e) {
  float u = 1.0f + e;
  float d = u - 1.0f;
  float safe = d > 0.0f ? d : 1.0f;
  return d > 0.0f ? wk_logf(u) * (e / safe) : e;
}

static inline float wk_tanhf(float x) {
  float a = x < 0.0f ? -x : x;
  float z = x * x;
  float p = -5.70498872745e-3f;
  p = p * z + 2.06390887954e-2f;
  p = p * z - 5.37397155531e-2f;
  p = p * z + 1.33314422036e-1f;
  p = p * z - 3.33332819422e-1f;
  float small = p * z * x + x;
  float large = 1.0f - 2.0f / (wk_expf(a + a) + 1.0f);
  large = x < 0.0f ? -large : large;
  return a < 0.625f ? small : large;
}

static inline float wk_sigmoidf(float x) { return 1.0f / (1.0f + wk_expf(-x)); }

/* x sigmoid(2u), u = sqrt(2/pi) (x + 0.044715 x^3): the tanh form of GELU, 0.5 x (1 + tanh u), without its
 * cancellation. *ret_slope: the derivative.
 * Source: Hendrycks and Gimpel, "Gaussian error linear units", arXiv:1606.08415, section 2. */
static inline float wk_geluf(float x, float *ret_slope) {
  float c = x < -20.0f ? -20.0f : x; /* beyond, sigmoid is 0 or 1 and the cube must not overflow */
  c = c > 20.0f ? 20.0f : c;
  float square = c * c;
  float s = wk_sigmoidf(1.5957691216057308f * (c + 0.044715f * (square * c)));
  float slope_u = 1.5957691216057308f * (1.0f + 0.134145f * square);
  *ret_slope = s + c * s * (1.0f - s) * slope_u;
  return x * s;
}

#endif
