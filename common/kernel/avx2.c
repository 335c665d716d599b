/* SPDX-License-Identifier: Apache-2.0
 *
 * The table for AVX2 and F16C: 8 floats at a time.
 */
#include "kernel/quant_tables.h"
#include "kernel/lowrank.h"
#include "kernel/tables.h"

#include <immintrin.h>

#define LANES 8
#define TABLE bl_kernels_avx2
#define TABLE_NAME "avx2"
#define TABLE_SPARSE bl_sparse_kernels_avx2
#define QUANT bl_quant_avx2
#define LOWRANK_TABLE bl_lowrank_avx2

typedef __m256 vec;
typedef __m128i vec_half;

static inline vec v_load(const float *p) { return _mm256_loadu_ps(p); }
static inline void v_store(float *p, vec x) { _mm256_storeu_ps(p, x); }
static inline vec v_set(float x) { return _mm256_set1_ps(x); }
static inline vec v_add(vec a, vec b) { return _mm256_add_ps(a, b); }
static inline vec v_sub(vec a, vec b) { return _mm256_sub_ps(a, b); }
static inline vec v_mul(vec a, vec b) { return _mm256_mul_ps(a, b); }
static inline vec v_div(vec a, vec b) { return _mm256_div_ps(a, b); }
static inline vec v_sqrt(vec a) { return _mm256_sqrt_ps(a); }

/* The instruction gives its second operand when one is NaN, and when both are zeros. */
static inline vec v_clip(vec x, vec low, vec high) { return _mm256_min_ps(high, _mm256_max_ps(low, x)); }

static inline vec magnitude(vec x) { return _mm256_and_ps(x, _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff))); }

/* The instruction is a > b ? a : b, NaN and zeros included. */
static inline vec v_max(vec a, vec b) { return _mm256_max_ps(a, b); }
static inline vec v_copy_sign(vec size, vec sign) { return _mm256_or_ps(magnitude(size), _mm256_and_ps(sign, v_set(-0.0f))); }
static inline vec v_if_less(vec a, vec b, vec x, vec y) { return _mm256_blendv_ps(y, x, _mm256_cmp_ps(a, b, _CMP_LT_OQ)); }
static inline vec v_zero_within(vec x, vec judged, vec limit) {
  return _mm256_andnot_ps(_mm256_cmp_ps(magnitude(judged), limit, _CMP_LE_OQ), x);
}

static inline vec not_finite(vec x) { return _mm256_cmp_ps(magnitude(x), v_set(__builtin_inff()), _CMP_NLT_UQ); }
static inline bool v_all_finite(vec x) { return _mm256_movemask_ps(not_finite(x)) == 0; }
static inline vec v_zero_unless_finite(vec x, vec judged) { return _mm256_andnot_ps(not_finite(judged), x); }

static inline vec_half v_load_half(const uint16_t *p) { return _mm_loadu_si128((const __m128i *)(const void *)p); }
static inline void v_store_half(uint16_t *p, vec_half h) { _mm_storeu_si128((__m128i *)(void *)p, h); }
static inline vec v_from_half(vec_half h) { return _mm256_cvtph_ps(h); }

static inline bool v_all_within(vec x, float limit) {
  return _mm256_movemask_ps(_mm256_cmp_ps(magnitude(x), v_set(limit), _CMP_LE_OQ)) == 0xff;
}
static inline vec_half v_to_half_plain(vec x) {
  return _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

/* The conversion itself sends what is too large to infinity, so finite numbers are clipped before. */
static inline vec_half v_to_half(vec x) {
  vec infinite = _mm256_cmp_ps(magnitude(x), v_set(__builtin_inff()), _CMP_EQ_OQ);
  vec kept = _mm256_blendv_ps(v_clip(x, v_set(-65504.0f), v_set(65504.0f)), x, infinite);
  return _mm256_cvtps_ph(kept, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

static inline __m256d square(__m128 x) {
  __m256d d = _mm256_cvtps_pd(x);
  return _mm256_mul_pd(d, d);
}

static void wide_sum_squares(double p[BL_SUM_LANES], const float *x, size_t n) {
  __m256d p0 = _mm256_setzero_pd(), p4 = p0, p8 = p0, p12 = p0;
  for (size_t i = 0; i < n; i += BL_SUM_LANES) {
    p0 = _mm256_add_pd(p0, square(_mm_loadu_ps(x + i)));
    p4 = _mm256_add_pd(p4, square(_mm_loadu_ps(x + i + 4)));
    p8 = _mm256_add_pd(p8, square(_mm_loadu_ps(x + i + 8)));
    p12 = _mm256_add_pd(p12, square(_mm_loadu_ps(x + i + 12)));
  }
  _mm256_storeu_pd(p, p0);
  _mm256_storeu_pd(p + 4, p4);
  _mm256_storeu_pd(p + 8, p8);
  _mm256_storeu_pd(p + 12, p12);
}

#include "kernel/lanes.h"
