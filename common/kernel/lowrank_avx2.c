/* SPDX-License-Identifier: Apache-2.0
 *
 * Low-rank products with AVX2: 8 floats at a time, sums of 8 to a tile.
 */
#include <immintrin.h>
#include <stdbool.h>
#include <stddef.h>

#define LANES 8
#define TABLE bl_lowrank_avx2
#define PROJECT_ROWS 3
#define PROJECT_RANK 2
#define WIDE 2

typedef __m256 vec;

static inline vec v_load(const float *p) { return _mm256_loadu_ps(p); }
static inline void v_store(float *p, vec x) { _mm256_storeu_ps(p, x); }
static inline vec v_set(float x) { return _mm256_set1_ps(x); }
static inline vec v_add(vec a, vec b) { return _mm256_add_ps(a, b); }
static inline vec v_sub(vec a, vec b) { return _mm256_sub_ps(a, b); }
static inline vec v_mul(vec a, vec b) { return _mm256_mul_ps(a, b); }

static inline __m256i first_lanes(size_t n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
static inline vec v_load_part(const float *p, size_t n) { return _mm256_maskload_ps(p, first_lanes(n)); }
static inline void v_store_part(float *p, size_t n, vec x) { _mm256_maskstore_ps(p, first_lanes(n), x); }

static inline float sum_halves(const vec acc[2]) {
  __m256 s8 = _mm256_add_ps(acc[0], acc[1]);
  __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
  __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
  return _mm_cvtss_f32(_mm_add_ss(s2, _mm_movehdup_ps(s2)));
}

#include "kernel/lowrank_lanes.h"
