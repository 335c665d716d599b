/* SPDX-License-Identifier: Apache-2.0
 *
 * The table for AVX-512 (F, BW, VL, DQ): 16 floats at a time.
 */
#include "kernel/quant_tables.h"
#include "kernel/lowrank.h"
#include "kernel/tables.h"

#include <immintrin.h>

#define LANES 16
#define TABLE bl_kernels_avx512
#define TABLE_NAME "avx512"
#define TABLE_SPARSE bl_sparse_kernels_avx512
#define QUANT bl_quant_avx512
#define LOWRANK_TABLE bl_lowrank_avx512

typedef __m512 vec;
typedef __m256i vec_half;

static inline vec v_load(const float *p) { return _mm512_loadu_ps(p); }
static inline void v_store(float *p, vec x) { _mm512_storeu_ps(p, x); }
static inline vec v_set(float x) { return _mm512_set1_ps(x); }
static inline vec v_add(vec a, vec b) { return _mm512_add_ps(a, b); }
static inline vec v_sub(vec a, vec b) { return _mm512_sub_ps(a, b); }
static inline vec v_mul(vec a, vec b) { return _mm512_mul_ps(a, b); }
static inline vec v_div(vec a, vec b) { return _mm512_div_ps(a, b); }
static inline vec v_sqrt(vec a) { return _mm512_sqrt_ps(a); }

/* The instruction gives its second operand when one is NaN, and when both are zeros. */
static inline vec v_clip(vec x, vec low, vec high) { return _mm512_min_ps(high, _mm512_max_ps(low, x)); }

/* The instruction is a > b ? a : b, NaN and zeros included. */
static inline vec v_max(vec a, vec b) { return _mm512_max_ps(a, b); }
static inline vec v_copy_sign(vec size, vec sign) {
  return _mm512_or_ps(_mm512_abs_ps(size), _mm512_and_ps(sign, v_set(-0.0f)));
}
static inline vec v_if_less(vec a, vec b, vec x, vec y) {
  return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), y, x);
}
static inline vec v_zero_within(vec x, vec judged, vec limit) {
  return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(_mm512_abs_ps(judged), limit, _CMP_NLE_UQ), x);
}

static inline __mmask16 finite_lanes(vec x) {
  return _mm512_cmp_ps_mask(_mm512_abs_ps(x), v_set(__builtin_inff()), _CMP_LT_OQ);
}
static inline bool v_all_finite(vec x) { return finite_lanes(x) == 0xffff; }
static inline vec v_zero_unless_finite(vec x, vec judged) { return _mm512_maskz_mov_ps(finite_lanes(judged), x); }

static inline vec_half v_load_half(const uint16_t *p) { return _mm256_loadu_si256((const __m256i *)(const void *)p); }
static inline void v_store_half(uint16_t *p, vec_half h) { _mm256_storeu_si256((__m256i *)(void *)p, h); }
static inline vec v_from_half(vec_half h) { return _mm512_cvtph_ps(h); }

static inline bool v_all_within(vec x, float limit) {
  return _mm512_cmp_ps_mask(_mm512_abs_ps(x), v_set(limit), _CMP_LE_OQ) == 0xffff;
}
static inline vec_half v_to_half_plain(vec x) {
  return _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

/* The conversion itself sends what is too large to infinity, so finite numbers are clipped before. */
static inline vec_half v_to_half(vec x) {
  __mmask16 infinite = _mm512_cmp_ps_mask(_mm512_abs_ps(x), v_set(__builtin_inff()), _CMP_EQ_OQ);
  vec kept = _mm512_mask_mov_ps(v_clip(x, v_set(-65504.0f), v_set(65504.0f)), infinite, x);
  return _mm512_cvtps_ph(kept, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

static inline __m512d square(__m256 x) {
  __m512d d = _mm512_cvtps_pd(x);
  return _mm512_mul_pd(d, d);
}

static void wide_sum_squares(double p[BL_SUM_LANES], const float *x, size_t n) {
  __m512d p0 = _mm512_setzero_pd(), p8 = p0;
  for (size_t i = 0; i < n; i += BL_SUM_LANES) {
    p0 = _mm512_add_pd(p0, square(_mm256_loadu_ps(x + i)));
    p8 = _mm512_add_pd(p8, square(_mm256_loadu_ps(x + i + 8)));
  }
  _mm512_storeu_pd(p, p0);
  _mm512_storeu_pd(p + 8, p8);
}

#include "kernel/lanes.h"
