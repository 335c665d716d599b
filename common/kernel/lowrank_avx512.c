/* SPDX-License-Identifier: Apache-2.0
 *
 * Low-rank products with AVX-512: 16 floats at a time, sums of 16 to a tile.
 */
#include <immintrin.h>
#include <stdbool.h>
#include <stddef.h>

#define LANES 16
#define TABLE bl_lowrank_avx512
#define PROJECT_ROWS 4
#define PROJECT_RANK 4
#define WIDE 4

typedef __m512 vec;

static inline vec v_load(const float *p) { return _mm512_loadu_ps(p); }
static inline void v_store(float *p, vec x) { _mm512_storeu_ps(p, x); }
static inline vec v_set(float x) { return _mm512_set1_ps(x); }
static inline vec v_add(vec a, vec b) { return _mm512_add_ps(a, b); }
static inline vec v_sub(vec a, vec b) { return _mm512_sub_ps(a, b); }
static inline vec v_mul(vec a, vec b) { return _mm512_mul_ps(a, b); }

static inline __mmask16 first_lanes(size_t n) { return (__mmask16)((1u << n) - 1); }
static inline vec v_load_part(const float *p, size_t n) { return _mm512_maskz_loadu_ps(first_lanes(n), p); }
static inline void v_store_part(float *p, size_t n, vec x) { _mm512_mask_storeu_ps(p, first_lanes(n), x); }

static inline float sum_halves(const vec acc[1]) {
  __m256 s8 = _mm256_add_ps(_mm512_castps512_ps256(acc[0]), _mm512_extractf32x8_ps(acc[0], 1));
  __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
  __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
  return _mm_cvtss_f32(_mm_add_ss(s2, _mm_movehdup_ps(s2)));
}

#include "kernel/lowrank_lanes.h"
