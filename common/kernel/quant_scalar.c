/* SPDX-License-Identifier: Apache-2.0
 *
 * The scalar table of quant.h: the definition. Blocks may be cut short here; the wide tables do whole ones and leave
 * the last to this file.
 */
#include "kernel/quant_tables.h"

#include <math.h>
#include <string.h>

static inline void put_into(bl_loose_float *y, bl_quant_into into, float a, float v) {
  *y = into == BL_QUANT_STORE ? v : into == BL_QUANT_ADD ? *y + v : *y + a * v;
}

/* residual = x + residual, for all that is finite; what then is encoded. */
static void add_to_residual(const bl_loose_float *x, bl_loose_float *residual, size_t n) {
  for (size_t i = 0; i < n; i++)
    residual[i] = x[i] + residual[i];
}

static uint32_t max_bits(const bl_loose_float *x, size_t n) {
  uint32_t max = 0;
  for (size_t i = 0; i < n; i++) {
    uint32_t magnitude = bl_quant_bits_of(x[i]) & 0x7fffffffu;
    max = magnitude > max ? magnitude : max;
  }
  return max;
}

/* The numbers of a block as they are to be encoded: x itself, or the sums, in residual, or a clean copy. */
static const bl_loose_float *block_of(const bl_loose_float *x, bl_loose_float *residual, float *copy, size_t n) {
  if (residual != NULL) {
    add_to_residual(x, residual, n);
    x = residual;
  }
  if (max_bits(x, n) < BL_QUANT_INF_BITS)
    return x;
  float *to = residual != NULL ? (float *)residual : copy;
  bl_quant_clean(to, (const float *)x, n);
  return to;
}

static int32_t code_of(const bl_quant *q, float x, float inverse, float limit, size_t i) {
  float t = x * inverse;
  t = t < -limit ? -limit : t > limit ? limit : t;
  int32_t nearest = (int32_t)lrintf(t);
  return q->stochastic ? (nearest + (int32_t)bl_quant_random(q->key, i)) >> 16 : nearest;
}

/* Where in a block's codes that of its number j is; m: numbers of this block. */
static int32_t code_get(const bl_quant *q, const uint8_t *codes, size_t m, size_t j) {
  if (q->form == BL_QUANT_BYTES)
    return (int8_t)codes[j];
  if (q->form == BL_QUANT_NIBBLES) {
    size_t half = (m + 1) / 2;
    return (j < half ? codes[j] & 15 : codes[j - half] >> 4) - 8;
  }
  size_t group = j / BL_QUANT_GROUP, at = j % BL_QUANT_GROUP;
  size_t stride = (BL_MIN(m - group * BL_QUANT_GROUP, (size_t)BL_QUANT_GROUP) + 7) / 8;
  const uint8_t *planes = codes + group * (BL_QUANT_GROUP / 8) * q->bits;
  uint32_t v = 0;
  for (uint32_t b = 0; b < q->bits; b++)
    v |= (uint32_t)(planes[b * stride + at / 8] >> at % 8 & 1) << b;
  return (int32_t)(v << (32 - q->bits)) >> (32 - q->bits);
}

/* Codes come in order and the bytes are zero before. */
static void code_put(const bl_quant *q, uint8_t *codes, size_t m, size_t j, int32_t code) {
  if (q->form == BL_QUANT_BYTES) {
    codes[j] = (uint8_t)code;
  } else if (q->form == BL_QUANT_NIBBLES) {
    size_t half = (m + 1) / 2;
    codes[j < half ? j : j - half] |= (uint8_t)((uint32_t)(code + 8) << (j < half ? 0 : 4));
  } else {
    size_t group = j / BL_QUANT_GROUP, at = j % BL_QUANT_GROUP;
    size_t stride = (BL_MIN(m - group * BL_QUANT_GROUP, (size_t)BL_QUANT_GROUP) + 7) / 8;
    uint8_t *planes = codes + group * (BL_QUANT_GROUP / 8) * q->bits;
    for (uint32_t b = 0; b < q->bits; b++)
      planes[b * stride + at / 8] |= (uint8_t)(((uint32_t)code >> b & 1) << at % 8);
  }
}

static void encode(const bl_quant *q, const float *x0, float *residual0, size_t n, uint8_t *steps, uint8_t *codes) {
  const bl_loose_float *x = x0;
  bl_loose_float *residual = residual0;
  const size_t block = bl_quant_block(q->form), block_bytes = bl_quant_codes_size(q, block);
  const float limit = bl_quant_limit(q);
  float copy[BL_QUANT_BLOCK];
  memset(codes, 0, bl_quant_codes_size(q, n));
  for (size_t b = 0, i = 0; i < n; b++, i += block) {
    size_t m = BL_MIN(block, n - i);
    bl_loose_float *rest = residual != NULL ? residual + i : NULL;
    const bl_loose_float *v = block_of(x + i, rest, copy, m);
    float step = bl_quant_step_for(q, bl_quant_float_of(max_bits(v, m)), q->first / block + b);
    float inverse = bl_quant_inverse(q, step);
    bl_quant_step_put(q->step, steps, b, step);
    for (size_t j = 0; j < m; j++) {
      int32_t code = code_of(q, v[j], inverse, limit, q->first + i + j);
      code_put(q, codes + b * block_bytes, m, j, code);
      if (rest != NULL)
        rest[j] = v[j] - (float)code * step;
    }
  }
}

static void decode(const bl_quant *q, bl_quant_view v, bl_quant_into into, float a, float *y0, size_t n) {
  bl_loose_float *y = y0;
  const size_t block = bl_quant_block(q->form), block_bytes = bl_quant_codes_size(q, block);
  for (size_t b = 0, i = 0; i < n; b++, i += block) {
    size_t m = BL_MIN(block, n - i);
    float step = bl_quant_step_get(q->step, v.steps, b);
    for (size_t j = 0; j < m; j++)
      put_into(y + i + j, into, a, (float)code_get(q, v.codes + b * block_bytes, m, j) * step);
  }
}

static void sum(const bl_quant *q, const bl_quant_view *v, uint32_t n_views, bool store, float *y, size_t n) {
  for (uint32_t k = 0; k < n_views; k++)
    decode(q, v[k], store && k == 0 ? BL_QUANT_STORE : BL_QUANT_ADD, 1, y, n);
}

static uint16_t bf16_of(float x) {
  uint32_t b = bl_quant_bits_of(x), magnitude = b & 0x7fffffffu;
  if (magnitude > BL_QUANT_INF_BITS)
    return (uint16_t)(b >> 16 | 0x40u);
  if (magnitude >= BL_QUANT_BF16_OVER_BITS && magnitude < BL_QUANT_INF_BITS)
    return (uint16_t)((b >> 16 & 0x8000u) | 0x7f7fu);
  return (uint16_t)((b + 0x7fffu + (b >> 16 & 1)) >> 16);
}

static float float_of_bf16(uint16_t h) { return bl_quant_float_of((uint32_t)h << 16); }

static void f32_to_bf16(uint16_t *out0, const float *x0, size_t n) {
  bl_loose_u16 *out = out0;
  const bl_loose_float *x = x0;
  for (size_t i = 0; i < n; i++)
    out[i] = bf16_of(x[i]);
}

static void bf16_decode(const uint16_t *x0, bl_quant_into into, float a, float *y0, size_t n) {
  bl_loose_float *y = y0;
  const bl_loose_u16 *x = x0;
  for (size_t i = 0; i < n; i++)
    put_into(y + i, into, a, float_of_bf16(x[i]));
}

static void bf16_feedback(uint16_t *out0, const float *x0, float *residual0, size_t n) {
  bl_loose_u16 *out = out0;
  bl_loose_float *residual = residual0;
  const bl_loose_float *x = x0;
  for (size_t i = 0; i < n; i++) {
    float sum = x[i] + residual[i];
    out[i] = bf16_of(sum);
    residual[i] = isfinite(sum) ? sum - float_of_bf16(out[i]) : 0;
  }
}

static float sum_of_magnitudes(const bl_loose_float *x, size_t n) {
  float p[BL_QUANT_SIGN_LANES] = {0};
  for (size_t i = 0; i < n; i++)
    p[i % BL_QUANT_SIGN_LANES] += fabsf(x[i]);
  for (size_t apart = BL_QUANT_SIGN_LANES / 2; apart > 0; apart /= 2) {
    for (size_t i = 0; i < apart; i++)
      p[i] += p[i + apart];
  }
  return p[0];
}

static void sign_encode(const float *x0, float *residual0, size_t n, uint8_t *scales, uint8_t *bits) {
  const bl_loose_float *x = x0;
  bl_loose_float *residual = residual0;
  float copy[BL_QUANT_SIGN_BLOCK];
  memset(bits, 0, (n + 7) / 8);
  for (size_t b = 0, i = 0; i < n; b++, i += BL_QUANT_SIGN_BLOCK) {
    size_t m = BL_MIN((size_t)BL_QUANT_SIGN_BLOCK, n - i);
    bl_loose_float *rest = residual != NULL ? residual + i : NULL;
    const bl_loose_float *v = block_of(x + i, rest, copy, m);
    float total = sum_of_magnitudes(v, m), scale = bl_quant_sign_scale(total, m);
    if (!isfinite(total))
      scale = bl_quant_sign_scale(bl_quant_mean_in_double((const float *)v, m), 1);
    bl_quant_step_put(BL_QUANT_FLOAT32, scales, b, scale);
    for (size_t j = 0; j < m; j++) {
      uint32_t negative = bl_quant_bits_of(v[j]) >> 31;
      bits[(i + j) / 8] |= (uint8_t)(negative << (i + j) % 8);
      if (rest != NULL)
        rest[j] = v[j] - (negative != 0 ? -scale : scale);
    }
  }
}

static void sign_decode(bl_quant_view v, bl_quant_into into, float a, float *y0, size_t n) {
  bl_loose_float *y = y0;
  for (size_t i = 0; i < n; i++) {
    float scale = bl_quant_step_get(BL_QUANT_FLOAT32, v.steps, i / BL_QUANT_SIGN_BLOCK);
    put_into(y + i, into, a, (v.codes[i / 8] >> i % 8 & 1) != 0 ? -scale : scale);
  }
}

static void sign_sum(const bl_quant_view *v, uint32_t n_views, bool store, float *y, size_t n) {
  for (uint32_t k = 0; k < n_views; k++)
    sign_decode(v[k], store && k == 0 ? BL_QUANT_STORE : BL_QUANT_ADD, 1, y, n);
}

/* The exponent goes up when the mantissa and 16 random bits carry; the half unit below them centres. */
static uint8_t natural_code(float x, uint32_t base, uint32_t random) {
  uint32_t b = bl_quant_bits_of(x), field = ((b & 0x7fffffffu) + (random << 7 | 64)) >> 23;
  field = field > 254 ? 254 : field;
  bool kept = field > base && (b & 0x7f800000u) != 0;
  return kept ? (uint8_t)((b >> 24 & 0x80u) | (field - base)) : 0;
}

static float natural_value(uint8_t code, uint32_t base) {
  uint32_t field = code & 0x7fu;
  return field == 0 ? 0 : bl_quant_float_of((uint32_t)(code & 0x80u) << 24 | (field + base) << 23);
}

static void natural_encode(uint64_t key, size_t first, const float *x0, float *residual0, size_t n, uint8_t *tops,
                           uint8_t *codes) {
  const bl_loose_float *x = x0;
  bl_loose_float *residual = residual0;
  float copy[BL_QUANT_BLOCK];
  for (size_t b = 0, i = 0; i < n; b++, i += BL_QUANT_BLOCK) {
    size_t m = BL_MIN((size_t)BL_QUANT_BLOCK, n - i);
    bl_loose_float *rest = residual != NULL ? residual + i : NULL;
    const bl_loose_float *v = block_of(x + i, rest, copy, m);
    uint32_t top = bl_quant_natural_top(max_bits(v, m)), base = bl_quant_natural_base(top);
    tops[b] = (uint8_t)top;
    for (size_t j = 0; j < m; j++) {
      codes[i + j] = natural_code(v[j], base, bl_quant_random(key, first + i + j));
      if (rest != NULL)
        rest[j] = v[j] - natural_value(codes[i + j], base);
    }
  }
}

static void natural_decode(bl_quant_view v, bl_quant_into into, float a, float *y0, size_t n) {
  bl_loose_float *y = y0;
  for (size_t i = 0; i < n; i++)
    put_into(y + i, into, a, natural_value(v.codes[i], bl_quant_natural_base(v.steps[i / BL_QUANT_BLOCK])));
}

/* Arrays one after the other through the kernels that take one. */
static void f32_sum(const uint8_t *const *x, uint32_t n_views, bool store, float *y, size_t n) {
  if (store)
    memcpy(y, x[0], n * sizeof *y);
  for (uint32_t k = store; k < n_views; k++)
    bl_kernels_scalar.add(y, (const float *)(const void *)x[k], n);
}

static void f16_sum(const uint8_t *const *x, uint32_t n_views, bool store, float *y, size_t n) {
  if (store)
    bl_kernels_scalar.f16_to_f32(y, (const uint16_t *)(const void *)x[0], n);
  for (uint32_t k = store; k < n_views; k++)
    bl_kernels_scalar.f16_add(y, (const uint16_t *)(const void *)x[k], n);
}

static void bf16_sum(const uint8_t *const *x, uint32_t n_views, bool store, float *y, size_t n) {
  for (uint32_t k = 0; k < n_views; k++)
    bf16_decode((const uint16_t *)(const void *)x[k], store && k == 0 ? BL_QUANT_STORE : BL_QUANT_ADD, 1, y, n);
}

const bl_quant_kernels bl_quant_scalar = {
    .name = "scalar",
    .encode = encode,
    .decode = decode,
    .sum = sum,
    .f32_to_bf16 = f32_to_bf16,
    .bf16_decode = bf16_decode,
    .bf16_feedback = bf16_feedback,
    .sign_encode = sign_encode,
    .sign_decode = sign_decode,
    .sign_sum = sign_sum,
    .natural_encode = natural_encode,
    .natural_decode = natural_decode,
    .f32_sum = f32_sum,
    .f16_sum = f16_sum,
    .bf16_sum = bf16_sum,
};
