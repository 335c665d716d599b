/* SPDX-License-Identifier: Apache-2.0
 *
 * The sparse codecs' kernels for AVX-512 (F, BW, VL, DQ): 16 floats at a time. Picked lanes are compressed in a register
 * and stored whole: storing with a mask is many times slower on some CPUs, and without a branch the density costs
 * nothing.
 */
#include "kernel/sparse.h"

#include "kernel/tables.h"

#include <immintrin.h>
#include <string.h>

#define LANES 16
#define TABLE bl_sparse_kernels_avx512

typedef __m512 vec;
typedef struct vec_range {
  __m512i least, width;
} vec_range;

static inline vec v_load(const float *p) { return _mm512_loadu_ps(p); }
static inline void v_store(float *p, vec x) { _mm512_storeu_ps(p, x); }
static inline vec v_set(float x) { return _mm512_set1_ps(x); }
static inline vec v_add(vec a, vec b) { return _mm512_add_ps(a, b); }
static inline vec v_mul(vec a, vec b) { return _mm512_mul_ps(a, b); }

static inline vec v_zero_unless_finite(vec x) {
  __mmask16 finite = _mm512_cmp_ps_mask(_mm512_abs_ps(x), v_set(__builtin_inff()), _CMP_LT_OQ);
  return _mm512_maskz_mov_ps(finite, x);
}

static inline void v_store_size(uint32_t *out, vec x) { _mm512_storeu_si512(out, _mm512_castps_si512(_mm512_abs_ps(x))); }

/* least <= size < infinity, as one unsigned comparison. */
static inline vec_range v_range(uint32_t least) {
  least = least < BL_SPARSE_NONE ? least : BL_SPARSE_NONE;
  return (vec_range){_mm512_set1_epi32((int)least), _mm512_set1_epi32((int)(BL_SPARSE_NONE - least))};
}

/* GCC 12 with sanitizers stores the 16 bits of a mask on the stack and counts the ones of 32 there; through a general
 * register it does not. */
static inline unsigned v_in_range(vec x, vec_range r) {
  __m512i size = _mm512_castps_si512(_mm512_abs_ps(x));
  unsigned mask = _mm512_cmplt_epu32_mask(_mm512_sub_epi32(size, r.least), r.width);
  __asm__("" : "+r"(mask));
  return mask;
}

static inline void v_list(const bl_sparse_list *list, uint32_t at, uint32_t first, vec x, unsigned mask) {
  const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  __m512i index = _mm512_add_epi32(lanes, _mm512_set1_epi32((int)first));
  _mm512_storeu_si512(list->index + at, _mm512_maskz_compress_epi32((__mmask16)mask, index));
  _mm512_storeu_ps(list->value + at, _mm512_maskz_compress_ps((__mmask16)mask, x));
}

static inline unsigned v_signs(vec x) { return _mm512_movepi32_mask(_mm512_castps_si512(x)); }
static inline unsigned v_reaching(vec x, vec limit) { return _mm512_cmp_ps_mask(_mm512_abs_ps(x), limit, _CMP_GE_OQ); }
static inline vec v_with_signs(vec magnitude, unsigned bits) {
  return _mm512_mask_xor_ps(magnitude, (__mmask16)bits, magnitude, v_set(-0.0f));
}

static inline void put_bits(uint8_t *out, unsigned bits) {
  uint16_t b = (uint16_t)bits;
  memcpy(out, &b, sizeof b);
}

static inline unsigned get_bits(const uint8_t *in) {
  uint16_t b;
  memcpy(&b, in, sizeof b);
  return b;
}

static inline vec v_choose(vec low, vec high, unsigned bits) { return _mm512_mask_mov_ps(low, (__mmask16)bits, high); }

typedef struct wide_sums {
  __m512d p0, p8;
} wide_sums;

static inline wide_sums no_sums(void) { return (wide_sums){_mm512_setzero_pd(), _mm512_setzero_pd()}; }

static inline void add_positive(wide_sums *s, vec x) {
  s->p0 = _mm512_add_pd(s->p0, _mm512_cvtps_pd(_mm512_castps512_ps256(x)));
  s->p8 = _mm512_add_pd(s->p8, _mm512_cvtps_pd(_mm512_extractf32x8_ps(x, 1)));
}

static inline void add_magnitudes(wide_sums *s, const float *x) { add_positive(s, _mm512_abs_ps(v_load(x))); }

static inline void add_split(wide_sums *low, wide_sums *high, const float *x, float limit) {
  vec size = _mm512_abs_ps(v_load(x));
  __mmask16 reaches = _mm512_cmp_ps_mask(size, v_set(limit), _CMP_GE_OQ);
  add_positive(low, _mm512_maskz_mov_ps((__mmask16)~reaches, size));
  add_positive(high, _mm512_maskz_mov_ps(reaches, size));
}

static inline void store_sums(double p[BL_SUM_LANES], const wide_sums *s) {
  _mm512_storeu_pd(p, s->p0);
  _mm512_storeu_pd(p + 8, s->p8);
}

#include "kernel/sparse_lanes.h"
