/* SPDX-License-Identifier: Apache-2.0
 *
 * Kernels of the dense codecs: whole payloads, from float32 and back. Like those of kernel.h they give the same bits on
 * every table, quant_scalar.c is the definition, pointers may have any alignment, and n may be 0.
 *
 * Integer codes. Numbers come in blocks; a block has a step (its scale) and every number an integer code q in
 * [-levels, levels], which means q * step, rounded once. Where the codes stand is their form:
 *
 *   BYTES    blocks of 256; q as a signed byte, in order
 *   NIBBLES  blocks of 128; a block of m numbers takes h = ceil(m / 2) bytes, byte j has the code of number j in its
 *            low and that of number j + h in its high four bits, as q + 8; where m is odd the last high bits are 0
 *   PLANES   blocks of 256 in groups of 64; a group of m numbers takes `bits` planes of ceil(m / 8) bytes, from the
 *            lowest bit of the two's complement up; bit j of a plane belongs to number j; bits behind m are 0
 *
 * and the steps stand together, one per block:
 *
 *   FLOAT32   4 bytes: largest magnitude / levels
 *   BFLOAT16  2 bytes, the upper half of a float32: the same, rounded up
 *   EXPONENT  1 byte b, the step is 2^(b - 128): the least power of two that reaches, b from 28 to 248; sums of numbers
 *             with equal steps are sums of integers
 *
 * Blocks whose largest magnitude is below 2^-100 have step 0 and codes 0 (FLOAT32, BFLOAT16), so that levels / largest
 * cannot overflow. Where levels * step would not be finite the step is smaller and codes are clipped.
 *
 * Rounding is to nearest even, or stochastic: t = x / step is rounded to units of 2^-16 and the code is
 * floor(t + u / 65536) for u = bl_quant_random(key, i), so that its mean over keys is t within 2^-17.
 *
 * Residuals (error feedback): sum = x + residual is encoded in place of x, and residual = sum - q * step. A number (or
 * sum) that is not finite counts as 0.
 */
#ifndef BL_KERNEL_QUANT_H
#define BL_KERNEL_QUANT_H

#include "kernel/kernel.h"

typedef enum bl_quant_form { BL_QUANT_BYTES = 1, BL_QUANT_NIBBLES, BL_QUANT_PLANES } bl_quant_form;
typedef enum bl_quant_step { BL_QUANT_FLOAT32 = 1, BL_QUANT_BFLOAT16, BL_QUANT_EXPONENT } bl_quant_step;
typedef enum bl_quant_into { BL_QUANT_STORE = 1, BL_QUANT_ADD, BL_QUANT_AXPY } bl_quant_into;

#define BL_QUANT_BLOCK 256
#define BL_QUANT_NIBBLE_BLOCK 128
#define BL_QUANT_GROUP 64          /* of planes */
#define BL_QUANT_SIGN_BLOCK 1024
#define BL_QUANT_LEVELS_MAX 127
#define BL_QUANT_EXPONENT_MIN 28   /* 2^-100 */
#define BL_QUANT_EXPONENT_MAX 248  /* 2^120: 128 steps are finite */
#define BL_QUANT_SUM_MAX 16        /* views that one call sums */

/* How numbers become codes. */
typedef struct bl_quant {
  bl_quant_form form;
  bl_quant_step step;
  uint32_t levels;          /* 1 to 127; at most 7 for NIBBLES */
  uint32_t bits;            /* PLANES: 2 to 8, 2^(bits - 1) > levels */
  float step_max;           /* larger steps are cut down to this */
  bool stochastic;
  uint64_t key;             /* of the random numbers */
  const uint8_t *exponents; /* EXPONENT: steps that are prescribed, brought into their range; NULL: from the numbers */
  size_t first;             /* index of x[0] for the random numbers: a multiple of the block. Callers leave it 0 */
} bl_quant;

/* A payload's two parts. */
typedef struct bl_quant_view {
  const uint8_t *steps, *codes;
} bl_quant_view;

/* 16 random bits of element i under a key: two neighbouring bytes of a 32-bit word that serves four elements, 128 g + r
 * + 32 k (r below 32, k below 4) bytes k and k + 1 modulo 4 of word w = 32 g + r. Each is uniform; that a high byte of
 * one is the low byte of another makes a correlation of 1/256 between elements 32 apart.
 *
 *   h = w + low half of key;  h ^= h >> 16;  h *= 0x7feb352d;  h ^= h >> 15;
 *   h += high half of key;    h *= 0x846ca68b;  h ^= h >> 16
 *
 * Source of the multipliers and shifts: C. Wellons, "Prospecting for hash functions", 2018 (lowbias32). Keys must be
 * random numbers themselves (bl_codec_key). */
static inline uint32_t bl_quant_random_word(uint64_t key, uint32_t w) {
  uint32_t h = w + (uint32_t)key;
  h = (h ^ h >> 16) * 0x7feb352du;
  h = ((h ^ h >> 15) + (uint32_t)(key >> 32)) * 0x846ca68bu;
  return h ^ h >> 16;
}
static inline uint32_t bl_quant_random(uint64_t key, size_t i) {
  uint64_t word = bl_quant_random_word(key, (uint32_t)(i / 128 * 32 + i % 32));
  return (uint32_t)((word << 32 | word) >> (i / 32 % 4 * 8)) & 0xffffu;
}

typedef struct bl_quant_kernels {
  const char *name;
  /* x: [n], residual: [n] or NULL -> steps, codes: the payload's parts. */
  void (*encode)(const bl_quant *q, const float *x, float *residual, size_t n, uint8_t *steps, uint8_t *codes);
  /* y = v, y += v, or y += a * v (two roundings) for v = q * step. Steps are finite, as are their multiples. */
  void (*decode)(const bl_quant *q, bl_quant_view v, bl_quant_into into, float a, float *y, size_t n);
  /* y = or += the sum of 1 to BL_QUANT_SUM_MAX payloads, with the bits of one after the other. */
  void (*sum)(const bl_quant *q, const bl_quant_view *v, uint32_t n_views, bool store, float *y, size_t n);

  /* bfloat16: the upper half of a float32, to nearest even; finite numbers saturate, NaN stays one and becomes quiet. */
  void (*f32_to_bf16)(uint16_t *out, const float *x, size_t n);
  void (*bf16_decode)(const uint16_t *x, bl_quant_into into, float a, float *y, size_t n);
  void (*bf16_feedback)(uint16_t *out, const float *x, float *residual, size_t n); /* as f16_feedback */

  /* One bit per number (1: negative) in ceil(n / 8) bytes, bits behind n are 0; float32 scale per block of 1024: the
   * mean magnitude, from 32 partial sums (lane i takes elements i mod 32), added pairwise 16, 8, 4, 2, 1 apart; where
   * that sum of the finite numbers overflows, it is made once more in doubles, in order. Scales below 2^-100 are 0.
   * Residual as above. */
  void (*sign_encode)(const float *x, float *residual, size_t n, uint8_t *scales, uint8_t *bits);
  void (*sign_decode)(bl_quant_view v, bl_quant_into into, float a, float *y, size_t n);
  void (*sign_sum)(const bl_quant_view *v, uint32_t n_views, bool store, float *y, size_t n);

  /* Powers of two: see codec/natural.c. tops: a byte per block of 256, codes: a byte per number. first: as above. */
  void (*natural_encode)(uint64_t key, size_t first, const float *x, float *residual, size_t n, uint8_t *tops,
                         uint8_t *codes);
  void (*natural_decode)(bl_quant_view v, bl_quant_into into, float a, float *y, size_t n);

  /* y = or += the sum of several arrays, one after the other. n_views: at most BL_QUANT_SUM_MAX. */
  void (*f32_sum)(const uint8_t *const *x, uint32_t n_views, bool store, float *y, size_t n);
  void (*f16_sum)(const uint8_t *const *x, uint32_t n_views, bool store, float *y, size_t n);
  void (*bf16_sum)(const uint8_t *const *x, uint32_t n_views, bool store, float *y, size_t n);
} bl_quant_kernels;

/* Sizes of the parts for n numbers. */
static inline size_t bl_quant_block(bl_quant_form form) {
  return form == BL_QUANT_NIBBLES ? BL_QUANT_NIBBLE_BLOCK : BL_QUANT_BLOCK;
}
static inline size_t bl_quant_step_bytes(bl_quant_step step) {
  return step == BL_QUANT_FLOAT32 ? 4 : step == BL_QUANT_BFLOAT16 ? 2 : 1;
}
static inline size_t bl_quant_steps_size(const bl_quant *q, size_t n) {
  size_t block = bl_quant_block(q->form);
  return (n + block - 1) / block * bl_quant_step_bytes(q->step);
}
static inline size_t bl_quant_codes_size(const bl_quant *q, size_t n) {
  if (q->form == BL_QUANT_BYTES)
    return n;
  if (q->form == BL_QUANT_NIBBLES) /* an odd number is in the last block alone */
    return (n + 1) / 2;
  return n / BL_QUANT_GROUP * (BL_QUANT_GROUP / 8) * q->bits + (n % BL_QUANT_GROUP + 7) / 8 * q->bits;
}

#endif
