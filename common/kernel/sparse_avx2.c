/* SPDX-License-Identifier: Apache-2.0
 *
 * The sparse codecs' kernels for AVX2: 8 floats at a time. Picked lanes are few, so they are listed one by one.
 */
#include "kernel/sparse.h"

#include "kernel/tables.h"

#include <immintrin.h>

#define LANES 8
#define TABLE bl_sparse_kernels_avx2

typedef __m256 vec;
typedef struct vec_range {
  __m256i below, infinity;
} vec_range;

static inline vec v_load(const float *p) { return _mm256_loadu_ps(p); }
static inline void v_store(float *p, vec x) { _mm256_storeu_ps(p, x); }
static inline vec v_set(float x) { return _mm256_set1_ps(x); }
static inline vec v_add(vec a, vec b) { return _mm256_add_ps(a, b); }
static inline vec v_mul(vec a, vec b) { return _mm256_mul_ps(a, b); }
static inline vec v_abs(vec x) { return _mm256_andnot_ps(v_set(-0.0f), x); }

static inline vec v_zero_unless_finite(vec x) {
  return _mm256_and_ps(x, _mm256_cmp_ps(v_abs(x), v_set(__builtin_inff()), _CMP_LT_OQ));
}

static inline void v_store_size(uint32_t *out, vec x) {
  _mm256_storeu_si256((__m256i *)(void *)out, _mm256_castps_si256(v_abs(x)));
}

/* Patterns without a sign are not negative as integers. */
static inline vec_range v_range(uint32_t least) {
  least = least < BL_SPARSE_NONE ? least : BL_SPARSE_NONE;
  return (vec_range){_mm256_set1_epi32((int)least - 1), _mm256_set1_epi32((int)BL_SPARSE_NONE)};
}

static inline unsigned v_in_range(vec x, vec_range r) {
  __m256i size = _mm256_castps_si256(v_abs(x));
  __m256i is = _mm256_and_si256(_mm256_cmpgt_epi32(size, r.below), _mm256_cmpgt_epi32(r.infinity, size));
  return (unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(is));
}

static inline void v_list(const bl_sparse_list *list, uint32_t at, uint32_t first, vec x, unsigned mask) {
  if (mask == 0)
    return;
  float lanes[LANES];
  v_store(lanes, x);
  for (; mask != 0; mask &= mask - 1, at++) {
    unsigned lane = (unsigned)__builtin_ctz(mask);
    list->index[at] = first + lane;
    ((bl_loose_float *)list->value)[at] = lanes[lane];
  }
}

static inline unsigned v_signs(vec x) { return (unsigned)_mm256_movemask_ps(x); }
static inline unsigned v_reaching(vec x, vec limit) {
  return (unsigned)_mm256_movemask_ps(_mm256_cmp_ps(v_abs(x), limit, _CMP_GE_OQ));
}
/* All ones in the lanes of which the bit is set. */
static inline vec v_mask(unsigned bits) {
  const __m256i lane_bits = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  return _mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32((int)bits), lane_bits), lane_bits));
}
static inline vec v_with_signs(vec magnitude, unsigned bits) {
  return _mm256_xor_ps(magnitude, _mm256_and_ps(v_mask(bits), v_set(-0.0f)));
}
static inline vec v_choose(vec low, vec high, unsigned bits) { return _mm256_blendv_ps(low, high, v_mask(bits)); }

static inline void put_bits(uint8_t *out, unsigned bits) { *out = (uint8_t)bits; }
static inline unsigned get_bits(const uint8_t *in) { return *in; }

typedef struct wide_sums {
  __m256d p[4];
} wide_sums;

static inline wide_sums no_sums(void) {
  return (wide_sums){{_mm256_setzero_pd(), _mm256_setzero_pd(), _mm256_setzero_pd(), _mm256_setzero_pd()}};
}

/* x: lanes 8 * half to 8 * half + 7. */
static inline void add_positive(wide_sums *s, size_t half, vec x) {
  s->p[2 * half] = _mm256_add_pd(s->p[2 * half], _mm256_cvtps_pd(_mm256_castps256_ps128(x)));
  s->p[2 * half + 1] = _mm256_add_pd(s->p[2 * half + 1], _mm256_cvtps_pd(_mm256_extractf128_ps(x, 1)));
}

static inline void add_magnitudes(wide_sums *s, const float *x) {
  add_positive(s, 0, v_abs(v_load(x)));
  add_positive(s, 1, v_abs(v_load(x + LANES)));
}

static inline void add_split(wide_sums *low, wide_sums *high, const float *x, float limit) {
  for (size_t half = 0; half < 2; half++) {
    vec size = v_abs(v_load(x + half * LANES)), reaches = _mm256_cmp_ps(size, v_set(limit), _CMP_GE_OQ);
    add_positive(low, half, _mm256_andnot_ps(reaches, size));
    add_positive(high, half, _mm256_and_ps(reaches, size));
  }
}

static inline void store_sums(double p[BL_SUM_LANES], const wide_sums *s) {
  for (size_t k = 0; k < 4; k++)
    _mm256_storeu_pd(p + 4 * k, s->p[k]);
}

#include "kernel/sparse_lanes.h"
