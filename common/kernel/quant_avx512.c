/* SPDX-License-Identifier: Apache-2.0
 *
 * The quant table for AVX-512 (F, BW, VL, DQ): a step of 32 numbers is two vectors.
 */
#include "kernel/quant_tables.h"

#include <immintrin.h>

#define QUANT_TABLE bl_quant_avx512
#define QUANT_TABLE_NAME "avx512"

typedef struct wide { __m512 a, b; } wide;     /* 32 floats */
typedef struct words { __m512i a, b; } words;  /* 32 of 32 bits */
typedef __m512i shorts;                        /* 32 of 16 bits */
typedef __m256i bytes;                         /* 32 of 8 bits */

static inline wide w_load(const float *p) { return (wide){_mm512_loadu_ps(p), _mm512_loadu_ps(p + 16)}; }
static inline void w_store(float *p, wide x) {
  _mm512_storeu_ps(p, x.a);
  _mm512_storeu_ps(p + 16, x.b);
}
/* Past the caches; p at a multiple of 64 bytes. */
static inline void w_stream(float *p, wide x) {
  _mm512_stream_ps(p, x.a);
  _mm512_stream_ps(p + 16, x.b);
}
static inline wide w_set(float x) { return (wide){_mm512_set1_ps(x), _mm512_set1_ps(x)}; }
static inline wide w_add(wide x, wide y) { return (wide){_mm512_add_ps(x.a, y.a), _mm512_add_ps(x.b, y.b)}; }
static inline wide w_sub(wide x, wide y) { return (wide){_mm512_sub_ps(x.a, y.a), _mm512_sub_ps(x.b, y.b)}; }
static inline wide w_mul(wide x, wide y) { return (wide){_mm512_mul_ps(x.a, y.a), _mm512_mul_ps(x.b, y.b)}; }
static inline wide w_min(wide x, wide y) { return (wide){_mm512_min_ps(x.a, y.a), _mm512_min_ps(x.b, y.b)}; }
static inline wide w_max(wide x, wide y) { return (wide){_mm512_max_ps(x.a, y.a), _mm512_max_ps(x.b, y.b)}; }
static inline wide w_magnitude(wide x) { return (wide){_mm512_abs_ps(x.a), _mm512_abs_ps(x.b)}; }

/* Lanes 16, 8, 4, 2, 1 apart. */
static inline float w_total(wide x) {
  __m512 s = _mm512_add_ps(x.a, x.b);
  __m256 t = _mm256_add_ps(_mm512_castps512_ps256(s), _mm512_extractf32x8_ps(s, 1));
  __m128 u = _mm_add_ps(_mm256_castps256_ps128(t), _mm256_extractf128_ps(t, 1));
  u = _mm_add_ps(u, _mm_movehl_ps(u, u));
  return _mm_cvtss_f32(_mm_add_ss(u, _mm_movehdup_ps(u)));
}

static inline uint32_t w_negative(wide x) {
  return (uint32_t)_mm512_movepi32_mask(_mm512_castps_si512(x.a)) |
         (uint32_t)_mm512_movepi32_mask(_mm512_castps_si512(x.b)) << 16;
}
/* x, negated where a bit is set. */
static inline wide w_negate(wide x, uint32_t bits) {
  const __m512 sign = _mm512_set1_ps(-0.0f);
  return (wide){_mm512_mask_xor_ps(x.a, (__mmask16)bits, x.a, sign),
                _mm512_mask_xor_ps(x.b, (__mmask16)(bits >> 16), x.b, sign)};
}

static inline words i_set(uint32_t v) {
  __m512i x = _mm512_set1_epi32((int)v);
  return (words){x, x};
}
static inline words i_of(wide x) { return (words){_mm512_castps_si512(x.a), _mm512_castps_si512(x.b)}; }
static inline wide w_of(words x) { return (wide){_mm512_castsi512_ps(x.a), _mm512_castsi512_ps(x.b)}; }
static inline words i_and(words x, words y) { return (words){_mm512_and_si512(x.a, y.a), _mm512_and_si512(x.b, y.b)}; }
static inline words i_or(words x, words y) { return (words){_mm512_or_si512(x.a, y.a), _mm512_or_si512(x.b, y.b)}; }
static inline words i_add(words x, words y) { return (words){_mm512_add_epi32(x.a, y.a), _mm512_add_epi32(x.b, y.b)}; }
static inline words i_sub(words x, words y) { return (words){_mm512_sub_epi32(x.a, y.a), _mm512_sub_epi32(x.b, y.b)}; }
static inline words i_mul(words x, words y) { return (words){_mm512_mullo_epi32(x.a, y.a), _mm512_mullo_epi32(x.b, y.b)}; }
static inline words i_xor(words x, words y) { return (words){_mm512_xor_si512(x.a, y.a), _mm512_xor_si512(x.b, y.b)}; }
static inline words i_min(words x, words y) { return (words){_mm512_min_epi32(x.a, y.a), _mm512_min_epi32(x.b, y.b)}; }
static inline words i_max(words x, words y) { return (words){_mm512_max_epi32(x.a, y.a), _mm512_max_epi32(x.b, y.b)}; }
#define i_left(x, n) ((words){_mm512_slli_epi32((x).a, n), _mm512_slli_epi32((x).b, n)})
#define i_right(x, n) ((words){_mm512_srli_epi32((x).a, n), _mm512_srli_epi32((x).b, n)})
#define i_right_signed(x, n) ((words){_mm512_srai_epi32((x).a, n), _mm512_srai_epi32((x).b, n)})
/* x where y > z, else 0. */
static inline words i_where_above(words x, words y, words z) {
  return (words){_mm512_maskz_mov_epi32(_mm512_cmpgt_epi32_mask(y.a, z.a), x.a),
                 _mm512_maskz_mov_epi32(_mm512_cmpgt_epi32_mask(y.b, z.b), x.b)};
}
static inline bool i_any_from(words x, words limit) {
  return (_mm512_cmpge_epi32_mask(x.a, limit.a) | _mm512_cmpge_epi32_mask(x.b, limit.b)) != 0;
}
static inline uint32_t i_largest(words x) { return (uint32_t)_mm512_reduce_max_epi32(_mm512_max_epi32(x.a, x.b)); }
static inline words i_nearest(wide x) { return (words){_mm512_cvtps_epi32(x.a), _mm512_cvtps_epi32(x.b)}; }
static inline wide w_from_words(words x) { return (wide){_mm512_cvtepi32_ps(x.a), _mm512_cvtepi32_ps(x.b)}; }

/* The low bytes, of words from -128 to 127. */
static inline bytes b_pack(words x) {
  return _mm256_set_m128i(_mm512_cvtepi32_epi8(x.b), _mm512_cvtepi32_epi8(x.a));
}
/* Of two at once; packing goes by quarters of registers, which the permutation mends. */
static inline void b_pack_pair(words x, words y, bytes *ret_x, bytes *ret_y) {
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  __m512i v = _mm512_packs_epi16(_mm512_packs_epi32(x.a, x.b), _mm512_packs_epi32(y.a, y.b));
  v = _mm512_permutexvar_epi32(order, v);
  *ret_x = _mm512_castsi512_si256(v);
  *ret_y = _mm512_extracti64x4_epi64(v, 1);
}
static inline words i_from_bytes(bytes x) {
  return (words){_mm512_cvtepi8_epi32(_mm256_castsi256_si128(x)), _mm512_cvtepi8_epi32(_mm256_extracti128_si256(x, 1))};
}
static inline words i_from_unsigned(bytes x) {
  return (words){_mm512_cvtepu8_epi32(_mm256_castsi256_si128(x)), _mm512_cvtepu8_epi32(_mm256_extracti128_si256(x, 1))};
}
/* value where a bit is set, else 0. */
static inline bytes b_where(uint32_t bits, char value) { return _mm256_maskz_set1_epi8(bits, value); }

static inline shorts s_zero(void) { return _mm512_setzero_si512(); }
static inline shorts s_add_bytes(shorts sum, bytes x) { return _mm512_add_epi16(sum, _mm512_cvtepi8_epi16(x)); }
static inline words i_from_shorts(shorts x) {
  return (words){_mm512_cvtepi16_epi32(_mm512_castsi512_si256(x)), _mm512_cvtepi16_epi32(_mm512_extracti64x4_epi64(x, 1))};
}

static inline wide w_load_f16(const uint8_t *p) {
  return (wide){_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p)),
                _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)(p + 32)))};
}
static inline words i_load_u16(const uint8_t *p) {
  return (words){_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)p)),
                 _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)(p + 32)))};
}
static inline void i_store_u16(uint16_t *p, words x) {
  _mm256_storeu_si256((__m256i *)(void *)p, _mm512_cvtepi32_epi16(x.a));
  _mm256_storeu_si256((__m256i *)(void *)(p + 16), _mm512_cvtepi32_epi16(x.b));
}

static inline words i_lanes(void) {
  const __m512i low = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  return (words){low, _mm512_add_epi32(low, _mm512_set1_epi32(16))};
}
/* Bytes k and k + 1 modulo 4 of each word. */
static inline words i_window(words x, int k) {
  const int of = (int)(0x80800000u | (uint32_t)((k + 1) % 4 << 8 | k));
  const __m512i pick = _mm512_broadcast_i32x4(_mm_setr_epi32(of, of + 0x0404, of + 0x0808, of + 0x0c0c));
  return (words){_mm512_shuffle_epi8(x.a, pick), _mm512_shuffle_epi8(x.b, pick)};
}

#include "kernel/quant_lanes.h"
