/* SPDX-License-Identifier: Apache-2.0
 *
 * The loops of the wide quant tables, written once in steps of 32 numbers. The file of an instruction set defines the
 * types wide, words, shorts and bytes (32 numbers of 32, 32, 16 and 8 bits) and the operations on them that are used
 * here, QUANT_TABLE and QUANT_TABLE_NAME, and includes this header once.
 *
 * Whole blocks are done here, what is left by quant_scalar.c. So is, from the start, a block with numbers that are not
 * finite; that is noticed by what a block's first pass computes anyway.
 */
#ifndef QUANT_TABLE
#error "included by the file of an instruction set"
#endif

#define INLINE static inline __attribute__((always_inline))

enum { STEP = 32, PAIR = 64 };

static inline bytes b_load(const uint8_t *p) { return _mm256_loadu_si256((const __m256i *)(const void *)p); }
static inline void b_store(uint8_t *p, bytes x) { _mm256_storeu_si256((__m256i *)(void *)p, x); }
static inline bytes b_low4(bytes x) { return _mm256_and_si256(x, _mm256_set1_epi8(15)); }
static inline bytes b_high4(bytes x) { return b_low4(_mm256_srli_epi16(x, 4)); }
static inline bytes b_add(bytes x, bytes y) { return _mm256_add_epi8(x, y); }
/* Bit k of each byte. */
static inline uint32_t b_plane(bytes x, uint32_t k) {
  return (uint32_t)_mm256_movemask_epi8(_mm256_sll_epi16(x, _mm_cvtsi32_si128((int)(7 - k))));
}

/* Codes are put and taken in pairs of steps: pair p of a block has the numbers from first_of(p) and second_of(p). */
INLINE size_t first_of(bl_quant_form form, size_t p) { return form == BL_QUANT_NIBBLES ? p * STEP : p * PAIR; }
INLINE size_t second_of(bl_quant_form form, size_t p) {
  return form == BL_QUANT_NIBBLES ? p * STEP + BL_QUANT_NIBBLE_BLOCK / 2 : p * PAIR + STEP;
}

INLINE void put_planes(uint8_t *codes, uint32_t bits, bytes a, bytes b) {
  for (uint32_t k = 0; k < bits; k++)
    bl_le_put64(codes + 8 * k, b_plane(a, k) | (uint64_t)b_plane(b, k) << 32);
}

INLINE void put_pair(bl_quant_form form, uint32_t bits, uint8_t *codes, size_t p, bytes a, bytes b) {
  if (form == BL_QUANT_BYTES) {
    b_store(codes + p * PAIR, a);
    b_store(codes + p * PAIR + STEP, b);
  } else if (form == BL_QUANT_NIBBLES) {
    const bytes bias = _mm256_set1_epi8(8);
    b_store(codes + p * STEP, _mm256_or_si256(b_add(a, bias), _mm256_slli_epi16(b_add(b, bias), 4)));
  } else {
    put_planes(codes + p * 8 * bits, bits, a, b);
  }
}

/* The highest plane is the sign: it fills all bits above. */
INLINE bytes get_planes(const uint8_t *codes, uint32_t bits) {
  bytes v = b_where(bl_le_get32(codes + 8 * (bits - 1)), (char)(0xffu << (bits - 1)));
  for (uint32_t k = 0; k + 1 < bits; k++)
    v = _mm256_or_si256(v, b_where(bl_le_get32(codes + 8 * k), (char)(1u << k)));
  return v;
}

INLINE void get_pair(bl_quant_form form, uint32_t bits, const uint8_t *codes, size_t p, bytes *a, bytes *b) {
  if (form == BL_QUANT_BYTES) {
    *a = b_load(codes + p * PAIR);
    *b = b_load(codes + p * PAIR + STEP);
  } else if (form == BL_QUANT_NIBBLES) {
    const bytes bias = _mm256_set1_epi8(-8), v = b_load(codes + p * STEP);
    *a = b_add(b_low4(v), bias);
    *b = b_add(b_high4(v), bias);
  } else {
    *a = get_planes(codes + p * 8 * bits, bits);
    *b = get_planes(codes + p * 8 * bits + 4, bits);
  }
}

INLINE words magnitude_bits(wide x) { return i_and(i_of(x), i_set(0x7fffffffu)); }

/* First pass: the bits of the largest magnitude; with a residual the sums go there. */
INLINE uint32_t first_pass(const float *x, float *residual, size_t n) {
  words peak = i_set(0);
  for (size_t i = 0; i < n; i += STEP) {
    wide v = w_load(x + i);
    if (residual != NULL) {
      v = w_add(v, w_load(residual + i));
      w_store(residual + i, v);
    }
    peak = i_max(peak, magnitude_bits(v));
  }
  return i_largest(peak);
}

/* A block whose sums already stand in the residual, for scalar code that adds them once more: -0 changes nothing. */
static const float *taken_back(const float *x, float *residual, float *copy, size_t n) {
  if (residual == NULL)
    return x;
  memcpy(copy, residual, n * sizeof *copy);
  for (size_t i = 0; i < n; i += STEP)
    w_store(residual + i, w_set(-0.0f));
  return copy;
}

typedef struct rounding {
  wide inverse, limit, step;
} rounding;

enum { SHARING = 128 }; /* elements that share 32 random words */

/* The words of elements i to i + 127, i a multiple of 128. */
INLINE words random_words(uint64_t key, size_t i) {
  words h = i_add(i_lanes(), i_set((uint32_t)(i / 4) + (uint32_t)key));
  h = i_mul(i_xor(h, i_right(h, 16)), i_set(0x7feb352du));
  h = i_add(i_xor(h, i_right(h, 15)), i_set((uint32_t)(key >> 32)));
  h = i_mul(h, i_set(0x846ca68bu));
  return i_xor(h, i_right(h, 16));
}

/* The step that starts at x. noise: its random numbers; NULL: to nearest. */
INLINE words code_step(const rounding *r, const float *x, float *residual, bool clips, const words *noise) {
  wide v = w_load(x), t = w_mul(v, r->inverse);
  if (clips)
    t = w_min(w_max(t, w_negate(r->limit, 0xffffffffu)), r->limit);
  words code = i_nearest(t);
  if (noise != NULL)
    code = i_right_signed(i_add(code, *noise), 16);
  if (residual != NULL)
    w_store(residual, w_sub(v, w_mul(w_from_words(code), r->step)));
  return code;
}

INLINE float *moved(float *residual, size_t i) { return residual != NULL ? residual + i : NULL; }

/* Pair p of 128 elements at x. */
INLINE void code_pair(bl_quant_form form, uint32_t bits, bool clips, const rounding *r, const float *x, float *residual,
                      const words *random, size_t p, uint8_t *codes) {
  const size_t i = first_of(form, p), j = second_of(form, p);
  words one, two;
  if (random != NULL) {
    one = i_window(*random, (int)(i / STEP));
    two = i_window(*random, (int)(j / STEP));
  }
  words c = code_step(r, x + i, moved(residual, i), clips, random != NULL ? &one : NULL);
  words d = code_step(r, x + j, moved(residual, j), clips, random != NULL ? &two : NULL);
  bytes a, b;
  b_pack_pair(c, d, &a, &b);
  put_pair(form, bits, codes, p, a, b);
}

INLINE void second_pass(const bl_quant *q, bl_quant_form form, bool stochastic, bool clips, const rounding *r,
                        const float *x, float *residual, size_t index, uint8_t *codes) {
  for (size_t i = 0; i < bl_quant_block(form); i += SHARING, codes += bl_quant_codes_size(q, SHARING)) {
    words random;
    if (stochastic)
      random = random_words(q->key, index + i);
    const words *noise = stochastic ? &random : NULL;
    code_pair(form, q->bits, clips, r, x + i, moved(residual, i), noise, 0, codes);
    code_pair(form, q->bits, clips, r, x + i, moved(residual, i), noise, 1, codes);
  }
}

static __attribute__((noinline)) void block_in_scalar(const bl_quant *q, size_t first, const float *x, float *residual,
                                                      size_t n, uint8_t *step, uint8_t *codes) {
  float copy[BL_QUANT_BLOCK];
  bl_quant part = *q;
  part.first = first;
  bl_quant_scalar.encode(&part, taken_back(x, residual, copy, n), residual, n, step, codes);
}

/* A few blocks go through each pass together: a block's divisions and the reduction before them are a chain of some
 * seventy cycles, which those of other blocks fill. All of them stay in the first cache. */
enum { TOGETHER = 8 };

typedef struct block_plan {
  float max, step, inverse;
} block_plan;

INLINE void plan_blocks(const bl_quant *q, bl_quant_form form, const float *x, float *residual, size_t n_blocks,
                        size_t first_block, block_plan *plan) {
  const size_t block = bl_quant_block(form);
  for (size_t k = 0; k < n_blocks; k++)
    plan[k].max = bl_quant_float_of(first_pass(x + k * block, moved(residual, k * block), block));
  for (size_t k = 0; k < n_blocks; k++) {
    plan[k].step = bl_quant_step_for(q, plan[k].max, first_block + k);
    plan[k].inverse = bl_quant_inverse(q, plan[k].step);
  }
}

INLINE void encode_block(const bl_quant *q, bl_quant_form form, bool stochastic, const block_plan *plan, const float *x,
                         float *residual, size_t b, uint8_t *steps, uint8_t *codes) {
  const size_t first = q->first + b * bl_quant_block(form);
  if (__builtin_expect(!(plan->max < __builtin_inff()), 0)) {
    block_in_scalar(q, first, x, residual, bl_quant_block(form), steps + b * bl_quant_step_bytes(q->step), codes);
    return;
  }
  const float limit = bl_quant_limit(q), *from = residual != NULL ? residual : x;
  const rounding r = {w_set(plan->inverse), w_set(limit), w_set(plan->step)};
  bl_quant_step_put(q->step, steps, b, plan->step);
  if (__builtin_expect(plan->max * plan->inverse <= limit, 1))
    second_pass(q, form, stochastic, false, &r, from, residual, first, codes);
  else
    second_pass(q, form, stochastic, true, &r, from, residual, first, codes);
}

INLINE void encode_blocks(const bl_quant *q, bl_quant_form form, bool stochastic, const float *x, float *residual,
                          size_t n_blocks, uint8_t *steps, uint8_t *codes) {
  const size_t block = bl_quant_block(form), block_bytes = bl_quant_codes_size(q, block);
  block_plan plan[TOGETHER];
  for (size_t b = 0; b < n_blocks; b += TOGETHER) {
    size_t n = BL_MIN(n_blocks - b, (size_t)TOGETHER);
    plan_blocks(q, form, x + b * block, moved(residual, b * block), n, q->first / block + b, plan);
    for (size_t k = b; k < b + n; k++)
      encode_block(q, form, stochastic, &plan[k - b], x + k * block, moved(residual, k * block), k, steps,
                   codes + k * block_bytes);
  }
}

INLINE void encode_form(const bl_quant *q, bl_quant_form form, bool stochastic, const float *x, float *residual,
                        size_t n_blocks, uint8_t *steps, uint8_t *codes) {
  if (residual == NULL)
    encode_blocks(q, form, stochastic, x, NULL, n_blocks, steps, codes);
  else
    encode_blocks(q, form, stochastic, x, residual, n_blocks, steps, codes);
}

static void encode(const bl_quant *q, const float *x, float *residual, size_t n, uint8_t *steps, uint8_t *codes) {
  const size_t block = bl_quant_block(q->form), n_blocks = n / block, whole = n_blocks * block;
  if (q->form == BL_QUANT_NIBBLES && q->stochastic)
    encode_form(q, BL_QUANT_NIBBLES, true, x, residual, n_blocks, steps, codes);
  else if (q->form == BL_QUANT_NIBBLES)
    encode_form(q, BL_QUANT_NIBBLES, false, x, residual, n_blocks, steps, codes);
  else if (q->form == BL_QUANT_PLANES)
    encode_form(q, BL_QUANT_PLANES, true, x, residual, n_blocks, steps, codes);
  else if (q->stochastic)
    encode_form(q, BL_QUANT_BYTES, true, x, residual, n_blocks, steps, codes);
  else
    encode_form(q, BL_QUANT_BYTES, false, x, residual, n_blocks, steps, codes);
  bl_quant rest = *q;
  rest.first += whole;
  bl_quant_scalar.encode(&rest, x + whole, residual != NULL ? residual + whole : NULL, n - whole,
                         steps + n_blocks * bl_quant_step_bytes(q->step), codes + bl_quant_codes_size(q, whole));
}

INLINE void put_into(float *y, bl_quant_into into, wide a, wide v) {
  if (into == BL_QUANT_AXPY)
    v = w_mul(a, v);
  w_store(y, into == BL_QUANT_STORE ? v : w_add(w_load(y), v));
}

INLINE wide w_from_bytes(bytes x) { return w_from_words(i_from_bytes(x)); }

INLINE void decode_blocks(const bl_quant *q, bl_quant_form form, uint32_t bits, bl_quant_into into, bl_quant_view v, float a,
                          float *y, size_t n_blocks) {
  const size_t block = bl_quant_block(form), block_bytes = bl_quant_codes_size(q, block);
  const wide va = w_set(a);
  for (size_t b = 0; b < n_blocks; b++, y += block, v.codes += block_bytes) {
    const wide step = w_set(bl_quant_step_get(q->step, v.steps, b));
    for (size_t p = 0; p < block / PAIR; p++) {
      bytes one, two;
      get_pair(form, bits, v.codes, p, &one, &two);
      put_into(y + first_of(form, p), into, va, w_mul(w_from_bytes(one), step));
      put_into(y + second_of(form, p), into, va, w_mul(w_from_bytes(two), step));
    }
  }
}

INLINE void decode_form(const bl_quant *q, bl_quant_into into, bl_quant_view v, float a, float *y, size_t n_blocks) {
  if (q->form == BL_QUANT_BYTES)
    decode_blocks(q, BL_QUANT_BYTES, 8, into, v, a, y, n_blocks);
  else if (q->form == BL_QUANT_NIBBLES)
    decode_blocks(q, BL_QUANT_NIBBLES, 4, into, v, a, y, n_blocks);
  else if (q->bits == 2)
    decode_blocks(q, BL_QUANT_PLANES, 2, into, v, a, y, n_blocks);
  else
    decode_blocks(q, BL_QUANT_PLANES, q->bits, into, v, a, y, n_blocks);
}

static bl_quant_view view_behind(const bl_quant *q, bl_quant_view v, size_t n_blocks, size_t block) {
  return (bl_quant_view){.steps = v.steps + n_blocks * bl_quant_step_bytes(q->step),
                         .codes = v.codes + bl_quant_codes_size(q, n_blocks * block)};
}

static void decode(const bl_quant *q, bl_quant_view v, bl_quant_into into, float a, float *y, size_t n) {
  const size_t block = bl_quant_block(q->form), n_blocks = n / block, whole = n_blocks * block;
  if (into == BL_QUANT_STORE)
    decode_form(q, BL_QUANT_STORE, v, a, y, n_blocks);
  else if (into == BL_QUANT_ADD)
    decode_form(q, BL_QUANT_ADD, v, a, y, n_blocks);
  else
    decode_form(q, BL_QUANT_AXPY, v, a, y, n_blocks);
  bl_quant_scalar.decode(q, view_behind(q, v, n_blocks, block), into, a, y + whole, n - whole);
}

/* Sums of integers are so little work that a large one is bound by memory: written past the caches it need not be read
 * before. It is not read soon either, as a clock sums all chunks of a shard before the optimizer comes. */
enum { PAST_CACHE_MIN = 1 << 16 };

INLINE void w_put(float *y, wide x, bool past) {
  if (past)
    w_stream(y, x);
  else
    w_store(y, x);
}

/* One block of several payloads with equal exponents: the sums of codes are exact, and so is their product with the
 * step; that makes them the bits of one after the other. */
INLINE void sum_bytes(const bl_quant_view *v, uint32_t n_views, wide step, size_t at, bool past, float *y) {
  for (size_t i = 0; i < BL_QUANT_BLOCK; i += PAIR) {
    shorts a = s_zero(), b = s_zero();
    for (uint32_t k = 0; k < n_views; k++) {
      a = s_add_bytes(a, b_load(v[k].codes + at + i));
      b = s_add_bytes(b, b_load(v[k].codes + at + i + STEP));
    }
    w_put(y + i, w_mul(w_from_words(i_from_shorts(a)), step), past);
    w_put(y + i + STEP, w_mul(w_from_words(i_from_shorts(b)), step), past);
  }
}

/* Codes stand there as q + 8; sixteen of them are at most 240. */
INLINE void sum_nibbles(const bl_quant_view *v, uint32_t n_views, wide step, size_t at, bool past, float *y) {
  const words bias = i_set(8 * n_views);
  for (size_t i = 0; i < BL_QUANT_NIBBLE_BLOCK / 2; i += STEP) {
    bytes a = _mm256_setzero_si256(), b = a;
    for (uint32_t k = 0; k < n_views; k++) {
      bytes codes = b_load(v[k].codes + at + i);
      a = b_add(a, b_low4(codes));
      b = b_add(b, b_high4(codes));
    }
    w_put(y + i, w_mul(w_from_words(i_sub(i_from_unsigned(a), bias)), step), past);
    w_put(y + i + BL_QUANT_NIBBLE_BLOCK / 2, w_mul(w_from_words(i_sub(i_from_unsigned(b), bias)), step), past);
  }
}

INLINE void sum_floats(bl_quant_form form, uint32_t bits, const bl_quant_view *v, const float *steps, uint32_t n_views,
                       bool store, size_t at, float *y) {
  for (size_t p = 0; p < bl_quant_block(form) / PAIR; p++) {
    float *one = y + first_of(form, p), *two = y + second_of(form, p);
    wide a = w_set(0), b = a;
    if (!store) {
      a = w_load(one);
      b = w_load(two);
    }
    for (uint32_t k = 0; k < n_views; k++) {
      const wide step = w_set(steps[k]);
      bytes c, d;
      get_pair(form, bits, v[k].codes + at, p, &c, &d);
      wide e = w_mul(w_from_bytes(c), step), f = w_mul(w_from_bytes(d), step);
      a = store && k == 0 ? e : w_add(a, e);
      b = store && k == 0 ? f : w_add(b, f);
    }
    w_store(one, a);
    w_store(two, b);
  }
}

/* Equal exponents of a block, small enough that no sum overflows. */
static inline bool adds_as_integers(const bl_quant *q, const bl_quant_view *v, uint32_t n_views, size_t b) {
  uint32_t differs = v[0].steps[b] > BL_QUANT_EXPONENT_MAX - 8;
  for (uint32_t k = 1; k < n_views; k++)
    differs |= (uint32_t)(v[k].steps[b] ^ v[0].steps[b]);
  return differs == 0;
}

INLINE void sum_integers(bl_quant_form form, const bl_quant_view *v, uint32_t n_views, float step, size_t at, bool past,
                         float *y) {
  if (form == BL_QUANT_BYTES)
    sum_bytes(v, n_views, w_set(step), at, past, y);
  else
    sum_nibbles(v, n_views, w_set(step), at, past, y);
}

INLINE void sum_blocks(const bl_quant *q, bl_quant_form form, uint32_t bits, const bl_quant_view *v, uint32_t n_views,
                       bool store, float *y, size_t n_blocks) {
  const size_t block = bl_quant_block(form), block_bytes = bl_quant_codes_size(q, block);
  const bool integers = store && q->step == BL_QUANT_EXPONENT && form != BL_QUANT_PLANES;
  const bool past = integers && n_blocks * block >= PAST_CACHE_MIN && (uintptr_t)y % 64 == 0;
  for (size_t b = 0; b < n_blocks; b++, y += block) {
    float steps[BL_QUANT_SUM_MAX];
    for (uint32_t k = 0; k < n_views; k++)
      steps[k] = bl_quant_step_get(q->step, v[k].steps, b);
    if (!integers || !adds_as_integers(q, v, n_views, b))
      sum_floats(form, bits, v, steps, n_views, store, b * block_bytes, y);
    else if (past)
      sum_integers(form, v, n_views, steps[0], b * block_bytes, true, y);
    else
      sum_integers(form, v, n_views, steps[0], b * block_bytes, false, y);
  }
  if (past)
    _mm_sfence();
}

static void sum(const bl_quant *q, const bl_quant_view *v, uint32_t n_views, bool store, float *y, size_t n) {
  const size_t block = bl_quant_block(q->form), n_blocks = n / block, whole = n_blocks * block;
  if (q->form == BL_QUANT_BYTES)
    sum_blocks(q, BL_QUANT_BYTES, 8, v, n_views, store, y, n_blocks);
  else if (q->form == BL_QUANT_NIBBLES)
    sum_blocks(q, BL_QUANT_NIBBLES, 4, v, n_views, store, y, n_blocks);
  else if (q->bits == 2)
    sum_blocks(q, BL_QUANT_PLANES, 2, v, n_views, store, y, n_blocks);
  else
    sum_blocks(q, BL_QUANT_PLANES, q->bits, v, n_views, store, y, n_blocks);
  bl_quant_view rest[BL_QUANT_SUM_MAX];
  for (uint32_t k = 0; k < n_views; k++)
    rest[k] = view_behind(q, v[k], n_blocks, block);
  bl_quant_scalar.sum(q, rest, n_views, store, y + whole, n - whole);
}

/* Adding the half of the last place, less one, and the last place's bit; exact but for what needs care: NaN, infinity
 * and what would become infinity, which scalar code does. */
INLINE words bf16_of(words b) {
  return i_right(i_add(i_add(b, i_set(0x7fffu)), i_and(i_right(b, 16), i_set(1))), 16);
}
INLINE bool needs_care(wide x) { return i_any_from(magnitude_bits(x), i_set(BL_QUANT_BF16_OVER_BITS)); }

static void f32_to_bf16(uint16_t *out, const float *x, size_t n) {
  size_t i = 0;
  for (; i + STEP <= n; i += STEP) {
    wide v = w_load(x + i);
    if (__builtin_expect(needs_care(v), 0))
      bl_quant_scalar.f32_to_bf16(out + i, x + i, STEP);
    else
      i_store_u16(out + i, bf16_of(i_of(v)));
  }
  bl_quant_scalar.f32_to_bf16(out + i, x + i, n - i);
}

static void bf16_feedback(uint16_t *out, const float *x, float *residual, size_t n) {
  size_t i = 0;
  for (; i + STEP <= n; i += STEP) {
    wide v = w_add(w_load(x + i), w_load(residual + i));
    if (__builtin_expect(needs_care(v), 0)) {
      bl_quant_scalar.bf16_feedback(out + i, x + i, residual + i, STEP);
      continue;
    }
    words h = bf16_of(i_of(v));
    i_store_u16(out + i, h);
    w_store(residual + i, w_sub(v, w_of(i_left(h, 16))));
  }
  bl_quant_scalar.bf16_feedback(out + i, x + i, residual + i, n - i);
}

INLINE wide w_load_bf16(const uint8_t *p) { return w_of(i_left(i_load_u16(p), 16)); }
INLINE wide w_load_f32(const uint8_t *p) { return w_load((const float *)(const void *)p); }

static void bf16_decode(const uint16_t *x, bl_quant_into into, float a, float *y, size_t n) {
  const uint8_t *from = (const uint8_t *)x;
  const wide va = w_set(a);
  size_t i = 0;
  if (into == BL_QUANT_STORE)
    for (; i + STEP <= n; i += STEP)
      put_into(y + i, BL_QUANT_STORE, va, w_load_bf16(from + 2 * i));
  else if (into == BL_QUANT_ADD)
    for (; i + STEP <= n; i += STEP)
      put_into(y + i, BL_QUANT_ADD, va, w_load_bf16(from + 2 * i));
  else
    for (; i + STEP <= n; i += STEP)
      put_into(y + i, BL_QUANT_AXPY, va, w_load_bf16(from + 2 * i));
  bl_quant_scalar.bf16_decode((const uint16_t *)(const void *)(from + 2 * i), into, a, y + i, n - i);
}

/* Sums of arrays whose elements take `size` bytes: a step of all of them before the next step. */
#define DEFINE_ARRAY_SUM(name, load, size)                                                                             \
  static void name(const uint8_t *const *x, uint32_t n_views, bool store, float *y, size_t n) {                        \
    const uint8_t *rest[BL_QUANT_SUM_MAX];                                                                             \
    size_t i = 0;                                                                                                      \
    for (; i + STEP <= n; i += STEP) {                                                                                 \
      wide sum = store ? load(x[0] + i * (size)) : w_load(y + i);                                                      \
      for (uint32_t k = store; k < n_views; k++)                                                                       \
        sum = w_add(sum, load(x[k] + i * (size)));                                                                     \
      w_store(y + i, sum);                                                                                             \
    }                                                                                                                  \
    for (uint32_t k = 0; k < n_views; k++)                                                                             \
      rest[k] = x[k] + i * (size);                                                                                     \
    bl_quant_scalar.name(rest, n_views, store, y + i, n - i);                                                          \
  }
DEFINE_ARRAY_SUM(f32_sum, w_load_f32, 4)
DEFINE_ARRAY_SUM(f16_sum, w_load_f16, 2)
DEFINE_ARRAY_SUM(bf16_sum, w_load_bf16, 2)

static __attribute__((noinline)) void sign_in_scalar(const float *x, float *residual, uint8_t *scale, uint8_t *bits) {
  float copy[BL_QUANT_SIGN_BLOCK];
  const float *from = taken_back(x, residual, copy, BL_QUANT_SIGN_BLOCK);
  bl_quant_scalar.sign_encode(from, residual, BL_QUANT_SIGN_BLOCK, scale, bits);
}

/* Sums, their bits and the sum of their magnitudes in one pass; the residual takes another, in cache. */
INLINE float sign_pass(const float *x, float *residual, bool feedback, uint8_t *bits) {
  wide total = w_set(0);
  for (size_t i = 0; i < BL_QUANT_SIGN_BLOCK; i += STEP) {
    wide v = w_load(x + i);
    if (feedback) {
      v = w_add(v, w_load(residual + i));
      w_store(residual + i, v);
    }
    bl_le_put32(bits + i / 8, w_negative(v));
    total = w_add(total, w_magnitude(v));
  }
  return w_total(total);
}

INLINE void sign_blocks(const float *x, float *residual, bool feedback, size_t n_blocks, uint8_t *scales, uint8_t *bits) {
  for (size_t b = 0; b < n_blocks; b++, x += BL_QUANT_SIGN_BLOCK, bits += BL_QUANT_SIGN_BLOCK / 8) {
    float total = sign_pass(x, residual, feedback, bits);
    if (__builtin_expect(!(total < __builtin_inff()), 0)) {
      sign_in_scalar(x, feedback ? residual : NULL, scales + 4 * b, bits);
    } else {
      float scale = bl_quant_sign_scale(total, BL_QUANT_SIGN_BLOCK);
      const wide size = w_set(scale);
      bl_quant_step_put(BL_QUANT_FLOAT32, scales, b, scale);
      for (size_t i = 0; feedback && i < BL_QUANT_SIGN_BLOCK; i += STEP)
        w_store(residual + i, w_sub(w_load(residual + i), w_negate(size, bl_le_get32(bits + i / 8))));
    }
    residual = feedback ? residual + BL_QUANT_SIGN_BLOCK : residual;
  }
}

static void sign_encode(const float *x, float *residual, size_t n, uint8_t *scales, uint8_t *bits) {
  size_t n_blocks = n / BL_QUANT_SIGN_BLOCK, whole = n_blocks * BL_QUANT_SIGN_BLOCK;
  if (residual == NULL)
    sign_blocks(x, NULL, false, n_blocks, scales, bits);
  else
    sign_blocks(x, residual, true, n_blocks, scales, bits);
  bl_quant_scalar.sign_encode(x + whole, residual != NULL ? residual + whole : NULL, n - whole, scales + 4 * n_blocks,
                              bits + whole / 8);
}

INLINE void sign_decode_blocks(bl_quant_view v, bl_quant_into into, float a, float *y, size_t n_blocks) {
  const wide va = w_set(a);
  for (size_t b = 0; b < n_blocks; b++, y += BL_QUANT_SIGN_BLOCK, v.codes += BL_QUANT_SIGN_BLOCK / 8) {
    const wide scale = w_set(bl_quant_step_get(BL_QUANT_FLOAT32, v.steps, b));
    for (size_t i = 0; i < BL_QUANT_SIGN_BLOCK; i += STEP)
      put_into(y + i, into, va, w_negate(scale, bl_le_get32(v.codes + i / 8)));
  }
}

static bl_quant_view sign_behind(bl_quant_view v, size_t n_blocks) {
  return (bl_quant_view){.steps = v.steps + 4 * n_blocks, .codes = v.codes + n_blocks * (BL_QUANT_SIGN_BLOCK / 8)};
}

static void sign_decode(bl_quant_view v, bl_quant_into into, float a, float *y, size_t n) {
  size_t n_blocks = n / BL_QUANT_SIGN_BLOCK, whole = n_blocks * BL_QUANT_SIGN_BLOCK;
  if (into == BL_QUANT_STORE)
    sign_decode_blocks(v, BL_QUANT_STORE, a, y, n_blocks);
  else if (into == BL_QUANT_ADD)
    sign_decode_blocks(v, BL_QUANT_ADD, a, y, n_blocks);
  else
    sign_decode_blocks(v, BL_QUANT_AXPY, a, y, n_blocks);
  bl_quant_scalar.sign_decode(sign_behind(v, n_blocks), into, a, y + whole, n - whole);
}

static void sign_sum(const bl_quant_view *v, uint32_t n_views, bool store, float *y, size_t n) {
  size_t n_blocks = n / BL_QUANT_SIGN_BLOCK, whole = n_blocks * BL_QUANT_SIGN_BLOCK;
  bl_quant_view rest[BL_QUANT_SUM_MAX];
  for (uint32_t k = 0; k < n_views; k++)
    rest[k] = sign_behind(v[k], n_blocks);
  for (size_t i = 0; i < whole; i += STEP) {
    size_t b = i / BL_QUANT_SIGN_BLOCK;
    wide sum = w_set(0);
    if (!store)
      sum = w_load(y + i);
    for (uint32_t k = 0; k < n_views; k++) {
      wide one = w_negate(w_set(bl_quant_step_get(BL_QUANT_FLOAT32, v[k].steps, b)), bl_le_get32(v[k].codes + i / 8));
      sum = store && k == 0 ? one : w_add(sum, one);
    }
    w_store(y + i, sum);
  }
  bl_quant_scalar.sign_sum(rest, n_views, store, y + whole, n - whole);
}

INLINE void natural_step(words random, uint32_t base, const float *x, float *residual, uint8_t *codes) {
  wide v = w_load(x);
  words b = i_of(v), noise = i_or(i_left(random, 7), i_set(64));
  words field = i_min(i_right(i_add(i_and(b, i_set(0x7fffffffu)), noise), 23), i_set(254));
  words code = i_sub(field, i_set(base)), sign = i_and(b, i_set(0x80000000u));
  code = i_where_above(i_where_above(code, field, i_set(base)), i_and(b, i_set(BL_QUANT_INF_BITS)), i_set(0));
  words kept = i_where_above(i_set(0xffffffffu), code, i_set(0));
  if (residual != NULL)
    w_store(residual, w_sub(v, w_of(i_and(kept, i_or(sign, i_left(field, 23))))));
  /* the sign as the upper bits of a word from -128 to 127 */
  b_store(codes, b_pack(i_and(kept, i_or(code, i_right_signed(sign, 24)))));
}

INLINE void natural_block(uint64_t key, size_t index, uint32_t base, const float *x, float *residual, uint8_t *codes) {
  for (size_t i = 0; i < BL_QUANT_BLOCK; i += SHARING) {
    words random = random_words(key, index + i);
    natural_step(i_window(random, 0), base, x + i, moved(residual, i), codes + i);
    natural_step(i_window(random, 1), base, x + i + STEP, moved(residual, i + STEP), codes + i + STEP);
    natural_step(i_window(random, 2), base, x + i + 2 * STEP, moved(residual, i + 2 * STEP), codes + i + 2 * STEP);
    natural_step(i_window(random, 3), base, x + i + 3 * STEP, moved(residual, i + 3 * STEP), codes + i + 3 * STEP);
  }
}

INLINE void natural_blocks(uint64_t key, size_t first, const float *x, float *residual, size_t n_blocks, uint8_t *tops,
                           uint8_t *codes) {
  for (size_t b = 0; b < n_blocks; b++) {
    size_t at = b * BL_QUANT_BLOCK;
    float *rest = moved(residual, at);
    uint32_t max = first_pass(x + at, rest, BL_QUANT_BLOCK);
    if (__builtin_expect(max >= BL_QUANT_INF_BITS, 0)) {
      float copy[BL_QUANT_BLOCK];
      bl_quant_scalar.natural_encode(key, first + at, taken_back(x + at, rest, copy, BL_QUANT_BLOCK), rest,
                                     BL_QUANT_BLOCK, tops + b, codes + at);
      continue;
    }
    uint32_t top = bl_quant_natural_top(max);
    tops[b] = (uint8_t)top;
    natural_block(key, first + at, bl_quant_natural_base(top), rest != NULL ? rest : x + at, rest, codes + at);
  }
}

static void natural_encode(uint64_t key, size_t first, const float *x, float *residual, size_t n, uint8_t *tops,
                           uint8_t *codes) {
  size_t n_blocks = n / BL_QUANT_BLOCK, whole = n_blocks * BL_QUANT_BLOCK;
  if (residual == NULL)
    natural_blocks(key, first, x, NULL, n_blocks, tops, codes);
  else
    natural_blocks(key, first, x, residual, n_blocks, tops, codes);
  bl_quant_scalar.natural_encode(key, first + whole, x + whole, residual != NULL ? residual + whole : NULL, n - whole,
                                 tops + n_blocks, codes + whole);
}

INLINE void natural_decode_blocks(bl_quant_view v, bl_quant_into into, float a, float *y, size_t n_blocks) {
  const wide va = w_set(a);
  for (size_t i = 0; i < n_blocks * BL_QUANT_BLOCK; i += STEP) {
    const words base = i_set(bl_quant_natural_base(v.steps[i / BL_QUANT_BLOCK]));
    words code = i_from_bytes(b_load(v.codes + i)), field = i_and(code, i_set(0x7f));
    words bits = i_or(i_left(i_add(field, base), 23), i_and(code, i_set(0x80000000u)));
    put_into(y + i, into, va, w_of(i_where_above(bits, field, i_set(0))));
  }
}

static void natural_decode(bl_quant_view v, bl_quant_into into, float a, float *y, size_t n) {
  size_t n_blocks = n / BL_QUANT_BLOCK, whole = n_blocks * BL_QUANT_BLOCK;
  if (into == BL_QUANT_STORE)
    natural_decode_blocks(v, BL_QUANT_STORE, a, y, n_blocks);
  else if (into == BL_QUANT_ADD)
    natural_decode_blocks(v, BL_QUANT_ADD, a, y, n_blocks);
  else
    natural_decode_blocks(v, BL_QUANT_AXPY, a, y, n_blocks);
  bl_quant_view rest = {.steps = v.steps + n_blocks, .codes = v.codes + whole};
  bl_quant_scalar.natural_decode(rest, into, a, y + whole, n - whole);
}

const bl_quant_kernels QUANT_TABLE = {
    .name = QUANT_TABLE_NAME,
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
