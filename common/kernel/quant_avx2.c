/* SPDX-License-Identifier: Apache-2.0
 *
 * The quant table for AVX2 and F16C: a step of 32 numbers is four vectors.
 */
#include "kernel/quant_tables.h"

#include <immintrin.h>

#define QUANT_TABLE bl_quant_avx2
#define QUANT_TABLE_NAME "avx2"

typedef struct wide { __m256 a, b, c, d; } wide;     /* 32 floats */
typedef struct words { __m256i a, b, c, d; } words;  /* 32 of 32 bits */
typedef struct shorts { __m256i a, b; } shorts;      /* 32 of 16 bits */
typedef __m256i bytes;                               /* 32 of 8 bits */

#define EACH(type, f, x, y) ((type){f((x).a, (y).a), f((x).b, (y).b), f((x).c, (y).c), f((x).d, (y).d)})
#define EACH_WITH(f, x, n) ((words){f((x).a, n), f((x).b, n), f((x).c, n), f((x).d, n)})
#define EACH_ONE(type, f, x) ((type){f((x).a), f((x).b), f((x).c), f((x).d)})

static inline wide w_load(const float *p) {
  return (wide){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8), _mm256_loadu_ps(p + 16), _mm256_loadu_ps(p + 24)};
}
static inline void w_store(float *p, wide x) {
  _mm256_storeu_ps(p, x.a);
  _mm256_storeu_ps(p + 8, x.b);
  _mm256_storeu_ps(p + 16, x.c);
  _mm256_storeu_ps(p + 24, x.d);
}
/* Past the caches; p at a multiple of 32 bytes. */
static inline void w_stream(float *p, wide x) {
  _mm256_stream_ps(p, x.a);
  _mm256_stream_ps(p + 8, x.b);
  _mm256_stream_ps(p + 16, x.c);
  _mm256_stream_ps(p + 24, x.d);
}
static inline wide w_set(float x) {
  __m256 v = _mm256_set1_ps(x);
  return (wide){v, v, v, v};
}
static inline wide w_add(wide x, wide y) { return EACH(wide, _mm256_add_ps, x, y); }
static inline wide w_sub(wide x, wide y) { return EACH(wide, _mm256_sub_ps, x, y); }
static inline wide w_mul(wide x, wide y) { return EACH(wide, _mm256_mul_ps, x, y); }
static inline wide w_min(wide x, wide y) { return EACH(wide, _mm256_min_ps, x, y); }
static inline wide w_max(wide x, wide y) { return EACH(wide, _mm256_max_ps, x, y); }
static inline wide w_magnitude(wide x) {
  wide mask = w_set(bl_quant_float_of(0x7fffffffu));
  return EACH(wide, _mm256_and_ps, x, mask);
}

/* Lanes 16, 8, 4, 2, 1 apart. */
static inline float w_total(wide x) {
  __m256 t = _mm256_add_ps(_mm256_add_ps(x.a, x.c), _mm256_add_ps(x.b, x.d));
  __m128 u = _mm_add_ps(_mm256_castps256_ps128(t), _mm256_extractf128_ps(t, 1));
  u = _mm_add_ps(u, _mm_movehl_ps(u, u));
  return _mm_cvtss_f32(_mm_add_ss(u, _mm_movehdup_ps(u)));
}

static inline uint32_t w_negative(wide x) {
  return (uint32_t)_mm256_movemask_ps(x.a) | (uint32_t)_mm256_movemask_ps(x.b) << 8 |
         (uint32_t)_mm256_movemask_ps(x.c) << 16 | (uint32_t)_mm256_movemask_ps(x.d) << 24;
}
/* x, negated where a bit is set: each bit is brought to the sign of its lane. */
static inline wide w_negate(wide x, uint32_t bits) {
  const __m256i up = _mm256_setr_epi32(31, 30, 29, 28, 27, 26, 25, 24);
  const __m256 sign = _mm256_set1_ps(-0.0f);
  const wide flip = {
      _mm256_and_ps(sign, _mm256_castsi256_ps(_mm256_sllv_epi32(_mm256_set1_epi32((int)bits), up))),
      _mm256_and_ps(sign, _mm256_castsi256_ps(_mm256_sllv_epi32(_mm256_set1_epi32((int)(bits >> 8)), up))),
      _mm256_and_ps(sign, _mm256_castsi256_ps(_mm256_sllv_epi32(_mm256_set1_epi32((int)(bits >> 16)), up))),
      _mm256_and_ps(sign, _mm256_castsi256_ps(_mm256_sllv_epi32(_mm256_set1_epi32((int)(bits >> 24)), up))),
  };
  return EACH(wide, _mm256_xor_ps, x, flip);
}

static inline words i_set(uint32_t v) {
  __m256i x = _mm256_set1_epi32((int)v);
  return (words){x, x, x, x};
}
static inline words i_of(wide x) { return EACH_ONE(words, _mm256_castps_si256, x); }
static inline wide w_of(words x) { return EACH_ONE(wide, _mm256_castsi256_ps, x); }
static inline words i_and(words x, words y) { return EACH(words, _mm256_and_si256, x, y); }
static inline words i_or(words x, words y) { return EACH(words, _mm256_or_si256, x, y); }
static inline words i_add(words x, words y) { return EACH(words, _mm256_add_epi32, x, y); }
static inline words i_sub(words x, words y) { return EACH(words, _mm256_sub_epi32, x, y); }
static inline words i_mul(words x, words y) { return EACH(words, _mm256_mullo_epi32, x, y); }
static inline words i_xor(words x, words y) { return EACH(words, _mm256_xor_si256, x, y); }
static inline words i_min(words x, words y) { return EACH(words, _mm256_min_epi32, x, y); }
static inline words i_max(words x, words y) { return EACH(words, _mm256_max_epi32, x, y); }
#define i_left(x, n) EACH_WITH(_mm256_slli_epi32, x, n)
#define i_right(x, n) EACH_WITH(_mm256_srli_epi32, x, n)
#define i_right_signed(x, n) EACH_WITH(_mm256_srai_epi32, x, n)
/* x where y > z, else 0. */
static inline words i_where_above(words x, words y, words z) {
  words above = EACH(words, _mm256_cmpgt_epi32, y, z);
  return i_and(x, above);
}
static inline bool i_any_from(words x, words limit) {
  words below = EACH(words, _mm256_cmpgt_epi32, limit, x);
  __m256i all = _mm256_and_si256(_mm256_and_si256(below.a, below.b), _mm256_and_si256(below.c, below.d));
  return _mm256_movemask_epi8(all) != -1;
}
static inline uint32_t i_largest(words x) {
  __m256i m = _mm256_max_epi32(_mm256_max_epi32(x.a, x.b), _mm256_max_epi32(x.c, x.d));
  __m128i v = _mm_max_epi32(_mm256_castsi256_si128(m), _mm256_extracti128_si256(m, 1));
  v = _mm_max_epi32(v, _mm_shuffle_epi32(v, 0x4e));
  v = _mm_max_epi32(v, _mm_shuffle_epi32(v, 0xb1));
  return (uint32_t)_mm_cvtsi128_si32(v);
}
static inline words i_nearest(wide x) { return EACH_ONE(words, _mm256_cvtps_epi32, x); }
static inline wide w_from_words(words x) { return EACH_ONE(wide, _mm256_cvtepi32_ps, x); }

/* The low bytes, of words from -128 to 127; packing goes by halves of registers, which the permutation mends. */
static inline bytes b_pack(words x) {
  __m256i low = _mm256_packs_epi32(x.a, x.b), high = _mm256_packs_epi32(x.c, x.d);
  return _mm256_permutevar8x32_epi32(_mm256_packs_epi16(low, high), _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}
static inline void b_pack_pair(words x, words y, bytes *ret_x, bytes *ret_y) {
  *ret_x = b_pack(x);
  *ret_y = b_pack(y);
}
static inline words i_from_bytes(bytes x) {
  __m128i low = _mm256_castsi256_si128(x), high = _mm256_extracti128_si256(x, 1);
  return (words){_mm256_cvtepi8_epi32(low), _mm256_cvtepi8_epi32(_mm_srli_si128(low, 8)), _mm256_cvtepi8_epi32(high),
                 _mm256_cvtepi8_epi32(_mm_srli_si128(high, 8))};
}
static inline words i_from_unsigned(bytes x) {
  __m128i low = _mm256_castsi256_si128(x), high = _mm256_extracti128_si256(x, 1);
  return (words){_mm256_cvtepu8_epi32(low), _mm256_cvtepu8_epi32(_mm_srli_si128(low, 8)), _mm256_cvtepu8_epi32(high),
                 _mm256_cvtepu8_epi32(_mm_srli_si128(high, 8))};
}
/* value where a bit is set, else 0: every byte gets the byte of the mask that has its bit, and keeps that bit. */
static inline bytes b_where(uint32_t bits, char value) {
  const __m256i spread = _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3,
                                          3, 3, 3, 3, 3, 3);
  const __m256i own = _mm256_set1_epi64x((long long)0x8040201008040201u);
  __m256i v = _mm256_and_si256(_mm256_shuffle_epi8(_mm256_set1_epi32((int)bits), spread), own);
  return _mm256_and_si256(_mm256_cmpeq_epi8(v, own), _mm256_set1_epi8(value));
}

static inline shorts s_zero(void) { return (shorts){_mm256_setzero_si256(), _mm256_setzero_si256()}; }
static inline shorts s_add_bytes(shorts sum, bytes x) {
  return (shorts){_mm256_add_epi16(sum.a, _mm256_cvtepi8_epi16(_mm256_castsi256_si128(x))),
                  _mm256_add_epi16(sum.b, _mm256_cvtepi8_epi16(_mm256_extracti128_si256(x, 1)))};
}
static inline words i_from_shorts(shorts x) {
  return (words){_mm256_cvtepi16_epi32(_mm256_castsi256_si128(x.a)), _mm256_cvtepi16_epi32(_mm256_extracti128_si256(x.a, 1)),
                 _mm256_cvtepi16_epi32(_mm256_castsi256_si128(x.b)), _mm256_cvtepi16_epi32(_mm256_extracti128_si256(x.b, 1))};
}

static inline __m128i load_128(const uint8_t *p) { return _mm_loadu_si128((const __m128i *)(const void *)p); }
static inline wide w_load_f16(const uint8_t *p) {
  return (wide){_mm256_cvtph_ps(load_128(p)), _mm256_cvtph_ps(load_128(p + 16)), _mm256_cvtph_ps(load_128(p + 32)),
                _mm256_cvtph_ps(load_128(p + 48))};
}
static inline words i_load_u16(const uint8_t *p) {
  return (words){_mm256_cvtepu16_epi32(load_128(p)), _mm256_cvtepu16_epi32(load_128(p + 16)),
                 _mm256_cvtepu16_epi32(load_128(p + 32)), _mm256_cvtepu16_epi32(load_128(p + 48))};
}
/* Words below 65536. */
static inline void i_store_u16(uint16_t *p, words x) {
  _mm256_storeu_si256((__m256i *)(void *)p, _mm256_permute4x64_epi64(_mm256_packus_epi32(x.a, x.b), 0xd8));
  _mm256_storeu_si256((__m256i *)(void *)(p + 16), _mm256_permute4x64_epi64(_mm256_packus_epi32(x.c, x.d), 0xd8));
}

static inline words i_lanes(void) {
  const __m256i v = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return (words){v, _mm256_add_epi32(v, _mm256_set1_epi32(8)), _mm256_add_epi32(v, _mm256_set1_epi32(16)),
                 _mm256_add_epi32(v, _mm256_set1_epi32(24))};
}
/* Bytes k and k + 1 modulo 4 of each word. */
static inline words i_window(words x, int k) {
  const int of = (int)(0x80800000u | (uint32_t)((k + 1) % 4 << 8 | k));
  const __m256i pick = _mm256_broadcastsi128_si256(_mm_setr_epi32(of, of + 0x0404, of + 0x0808, of + 0x0c0c));
  return EACH_WITH(_mm256_shuffle_epi8, x, pick);
}

#include "kernel/quant_lanes.h"
