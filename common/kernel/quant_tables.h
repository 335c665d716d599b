/* SPDX-License-Identifier: Apache-2.0
 *
 * Inside common/kernel only: what the tables of quant.h share. What happens once per block is scalar on every table and
 * stands here.
 */
#ifndef BL_KERNEL_QUANT_TABLES_H
#define BL_KERNEL_QUANT_TABLES_H

#include "base/le.h"
#include "base/num.h"
#include "kernel/quant.h"
#include "kernel/tables.h"

extern const bl_quant_kernels bl_quant_scalar;
extern const bl_quant_kernels bl_quant_avx2;
extern const bl_quant_kernels bl_quant_avx512;

#define BL_QUANT_INF_BITS 0x7f800000u
#define BL_QUANT_SIGN_LANES 32
#define BL_QUANT_BF16_OVER_BITS 0x7f7f8000u /* from here on finite numbers would round to infinity */

static inline uint32_t bl_quant_bits_of(float x) {
  uint32_t b;
  memcpy(&b, &x, sizeof b);
  return b;
}

static inline float bl_quant_float_of(uint32_t b) {
  float x;
  memcpy(&x, &b, sizeof x);
  return x;
}

static inline float bl_quant_step_get(bl_quant_step kind, const uint8_t *steps, size_t block) {
  if (kind == BL_QUANT_FLOAT32)
    return bl_quant_float_of(bl_le_get32(steps + 4 * block));
  if (kind == BL_QUANT_BFLOAT16)
    return bl_quant_float_of((uint32_t)bl_le_get16(steps + 2 * block) << 16);
  return bl_quant_float_of((uint32_t)(steps[block] - 1) << 23); /* bias 127 for 128 */
}

static inline void bl_quant_step_put(bl_quant_step kind, uint8_t *steps, size_t block, float step) {
  uint32_t bits = bl_quant_bits_of(step);
  if (kind == BL_QUANT_FLOAT32)
    bl_le_put32(steps + 4 * block, bits);
  else if (kind == BL_QUANT_BFLOAT16)
    bl_le_put16(steps + 2 * block, (uint16_t)(bits >> 16));
  else
    steps[block] = (uint8_t)((bits >> 23) + 1);
}

static inline float bl_quant_exponent_step(uint32_t b) {
  b = b < BL_QUANT_EXPONENT_MIN ? BL_QUANT_EXPONENT_MIN : b > BL_QUANT_EXPONENT_MAX ? BL_QUANT_EXPONENT_MAX : b;
  return bl_quant_float_of((b - 1) << 23);
}

/* The step of a block whose largest magnitude is max (finite). The upper bound of an exponent is in step_max. */
static inline float bl_quant_step_for(const bl_quant *q, float max, size_t block) {
  if (q->step == BL_QUANT_EXPONENT && q->exponents != NULL)
    return bl_quant_exponent_step(q->exponents[block]);
  if (max < 0x1p-100f)
    return q->step == BL_QUANT_EXPONENT ? 0x1p-100f : 0;
  uint32_t bits = bl_quant_bits_of(max / (float)q->levels);
  if (q->step == BL_QUANT_BFLOAT16)
    bits = (bits + 0xffffu) & 0xffff0000u;
  if (q->step == BL_QUANT_EXPONENT)
    bits = (bits + 0x7fffffu) & BL_QUANT_INF_BITS;
  float step = bl_quant_float_of(bits);
  step = step > q->step_max ? q->step_max : step;
  return q->step == BL_QUANT_EXPONENT && step < 0x1p-100f ? 0x1p-100f : step;
}

/* What numbers are multiplied by: 1 / step, in units of 2^-16 for stochastic rounding. A little less than that, by four
 * last places, so that levels is not passed by rounding alone; powers of two are exact. */
static inline float bl_quant_inverse(const bl_quant *q, float step) {
  if (step == 0)
    return 0;
  float inverse = 1 / step;
  if (q->step != BL_QUANT_EXPONENT)
    inverse = inverse * (1 - 0x1p-22f);
  return q->stochastic ? inverse * 65536 : inverse;
}

/* The largest code, in the unit of the product. */
static inline float bl_quant_limit(const bl_quant *q) {
  return q->stochastic ? (float)q->levels * 65536 : (float)q->levels;
}

/* The mean of a block's magnitudes where the sum in float32 is not finite. */
static inline float bl_quant_mean_in_double(const float *x0, size_t n) {
  const bl_loose_float *x = x0;
  double sum = 0;
  for (size_t i = 0; i < n; i++)
    sum += (double)(bl_quant_float_of(bl_quant_bits_of(x[i]) & 0x7fffffffu));
  return (float)(sum / (double)n);
}

/* Numbers that are not finite become 0. from and to may be the same; any alignment. */
static inline void bl_quant_clean(float *to, const float *from, size_t n) {
  const bl_loose_float *in = from;
  bl_loose_float *out = to;
  for (size_t i = 0; i < n; i++) {
    float v = in[i];
    out[i] = (bl_quant_bits_of(v) & BL_QUANT_INF_BITS) == BL_QUANT_INF_BITS ? 0 : v;
  }
}

static inline float bl_quant_sign_scale(float sum, size_t n) {
  float mean = sum / (float)n;
  return mean < 0x1p-100f ? 0 : mean;
}

/* natural.c: the exponent field that code 0 stands for, from the block's byte. */
static inline uint32_t bl_quant_natural_base(uint32_t top) { return top > 127 ? top - 127 : 0; }
/* A block's byte from the bits of its largest magnitude. */
static inline uint32_t bl_quant_natural_top(uint32_t max_bits) {
  uint32_t field = max_bits >> 23;
  return field == 0 ? 0 : field >= 254 ? 254 : field + 1;
}

#endif
