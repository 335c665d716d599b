/* SPDX-License-Identifier: Apache-2.0
 *
 * Kernels of the dense codecs: every table against the scalar one bit for bit, and the scalar one against what the
 * codecs promise: bounds, no bias, what is encoded and what stays in the residual are the whole.
 */
#include "base/num.h"
#include "base/rng.h"
#include "codec/spec.h"
#include "kernel/quant.h"
#include "tests/support/support.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define N_MAX 5000
#define GUARD 64
#define VIEWS 17

static float float_of(uint32_t b) {
  float x;
  memcpy(&x, &b, sizeof x);
  return x;
}

/* What numbers look like. */
typedef enum fill { FILL_ORDINARY, FILL_ZERO, FILL_TINY, FILL_HUGE_ONE, FILL_WHOLE, FILL_EXTREME, FILL_ANY_BITS, FILL_COUNT } fill;

static const uint32_t extremes[] = {0x00000000, 0x80000000, 0x00000001, 0x80000001, 0x007fffff, 0x00800000, 0x0d800000,
                                    0x7f7fffff, 0xff7fffff, 0x7f7f8000, 0x7f7f7fff, 0x7f000000, 0x3f800000, 0xbf800000,
                                    0x7f800000, 0xff800000, 0x7fc00000, 0xffc12345, 0x7f800001};

static float value_of(fill kind, uint64_t stream, uint64_t i) {
  uint64_t r = bl_rng_u64(31, stream, i);
  float normal = bl_rng_normal(31, stream, i);
  switch (kind) {
  case FILL_ZERO:
    return r % 2 == 0 ? 0.0f : -0.0f;
  case FILL_TINY:
    return r % 3 == 0 ? float_of((uint32_t)(r >> 32) & 0x807fffffu) : normal * 0x1p-103f;
  case FILL_HUGE_ONE:
    return i % 700 == 5 ? FLT_MAX : normal;
  case FILL_WHOLE:
    return (float)((int)(r % 255) - 127);
  case FILL_EXTREME: /* blocks without and with what is not finite */
    return i / 512 % 2 == 0 || r % 5 != 0 ? normal : float_of(extremes[(r >> 8) % BL_COUNT_OF(extremes)]);
  case FILL_ANY_BITS:
    return float_of((uint32_t)r);
  default:
    return normal;
  }
}

static void fill_array(float *x, fill kind, uint64_t stream, size_t n) {
  for (size_t i = 0; i < n; i++) {
    float v = value_of(kind, stream, i);
    memcpy((uint8_t *)x + 4 * i, &v, 4);
  }
}

/* What is compared: all that a call may write. */
typedef struct outputs {
  uint8_t steps[4 * (N_MAX / 128 + 2)], codes[2 * N_MAX + GUARD];
  uint8_t residual[4 * N_MAX + GUARD], y[4 * N_MAX + GUARD];
} outputs;

typedef struct input {
  const float *x;
  bool feedback;
  size_t n, shift;
  fill kind;
} input;

typedef void (*run_fn)(const bl_quant_kernels *k, const input *in, outputs *out, int variant);

static const bl_quant quants[] = {
    {.form = BL_QUANT_BYTES, .step = BL_QUANT_FLOAT32, .levels = 127, .bits = 8, .step_max = FLT_MAX / 128},
    {.form = BL_QUANT_BYTES, .step = BL_QUANT_FLOAT32, .levels = 127, .bits = 8, .step_max = FLT_MAX / 128, .stochastic = true},
    {.form = BL_QUANT_BYTES, .step = BL_QUANT_EXPONENT, .levels = 127, .bits = 8, .step_max = 0x1p120f},
    {.form = BL_QUANT_BYTES, .step = BL_QUANT_EXPONENT, .levels = 127, .bits = 8, .step_max = 0x1p120f, .stochastic = true},
    {.form = BL_QUANT_NIBBLES, .step = BL_QUANT_BFLOAT16, .levels = 7, .bits = 4, .step_max = 0x1.fep124f, .stochastic = true},
    {.form = BL_QUANT_NIBBLES, .step = BL_QUANT_EXPONENT, .levels = 7, .bits = 4, .step_max = 0x1p120f, .stochastic = true},
    {.form = BL_QUANT_NIBBLES, .step = BL_QUANT_EXPONENT, .levels = 7, .bits = 4, .step_max = 0x1p120f},
    {.form = BL_QUANT_PLANES, .step = BL_QUANT_FLOAT32, .levels = 1, .bits = 2, .step_max = FLT_MAX / 2, .stochastic = true},
    {.form = BL_QUANT_PLANES, .step = BL_QUANT_FLOAT32, .levels = 3, .bits = 3, .step_max = FLT_MAX / 4, .stochastic = true},
    {.form = BL_QUANT_PLANES, .step = BL_QUANT_FLOAT32, .levels = 20, .bits = 6, .step_max = FLT_MAX / 32, .stochastic = true},
    {.form = BL_QUANT_PLANES, .step = BL_QUANT_FLOAT32, .levels = 127, .bits = 8, .step_max = FLT_MAX / 128, .stochastic = true},
};

#define N_QUANTS ((int)BL_COUNT_OF(quants))

static float *floats_at(uint8_t *memory, size_t shift) { return (float *)(void *)(memory + shift); }

/* Two prescriptions: exponents that fit, and ones that clip; variants behind N_QUANTS have them. */
static bl_quant quant_of_variant(int variant, uint8_t *exponents, size_t n) {
  bl_quant q = quants[variant % N_QUANTS];
  q.key = UINT64_C(0x9e3779b97f4a7c15) * (uint64_t)(variant + 1);
  for (size_t i = 0; i < n; i++)
    exponents[i] = (uint8_t)(i % 5 == 0 ? 250 * (i % 2) : 118 + i % 9);
  q.exponents = variant >= N_QUANTS && q.step == BL_QUANT_EXPONENT ? exponents : NULL;
  return q;
}

static float *residual_of(const input *in, outputs *out) {
  float *residual = floats_at(out->residual, in->shift);
  fill_array(residual, in->kind, 2, in->n);
  return in->feedback ? residual : NULL;
}

static void run_quant(const bl_quant_kernels *k, const input *in, outputs *out, int variant) {
  uint8_t exponents[N_MAX / 128 + 2];
  bl_quant q = quant_of_variant(variant, exponents, sizeof exponents);
  uint8_t *codes = out->codes + in->shift, *steps = out->steps + in->shift % 4;
  k->encode(&q, in->x, residual_of(in, out), in->n, steps, codes);
  fill_array(floats_at(out->y, in->shift), FILL_ORDINARY, 3, in->n);
  bl_quant_view v = {steps, codes};
  k->decode(&q, v, BL_QUANT_ADD, 1, floats_at(out->y, in->shift), in->n);
  k->decode(&q, v, BL_QUANT_AXPY, 0.3f, floats_at(out->y, in->shift), in->n);
  float *y = malloc(4 * in->n + 4);
  k->decode(&q, v, BL_QUANT_STORE, 1, y, in->n);
  for (size_t i = 0; i < in->n; i++)
    if (!isfinite(y[i]))
      ck_abort_msg("variant %d: number %zu is decoded as %g", variant, i, (double)y[i]);
  k->sum(&q, (bl_quant_view[]){v, v, v}, 3, variant % 2 == 0, floats_at(out->y, in->shift), in->n);
  free(y);
}

static void run_bf16(const bl_quant_kernels *k, const input *in, outputs *out, int variant) {
  uint16_t *half = (uint16_t *)(void *)(out->codes + in->shift);
  float *residual = residual_of(in, out), *y = floats_at(out->y, in->shift);
  if (residual == NULL)
    k->f32_to_bf16(half, in->x, in->n);
  else
    k->bf16_feedback(half, in->x, residual, in->n);
  k->bf16_decode(half, BL_QUANT_STORE, 1, y, in->n);
  if (in->kind == FILL_ORDINARY) {
    k->bf16_decode(half, BL_QUANT_ADD, 1, y, in->n);
    k->bf16_decode(half, BL_QUANT_AXPY, 0.3f, y, in->n);
  }
}

static void run_sign(const bl_quant_kernels *k, const input *in, outputs *out, int variant) {
  uint8_t *codes = out->codes + in->shift, *scales = out->steps + in->shift % 4;
  float *y = floats_at(out->y, in->shift);
  k->sign_encode(in->x, residual_of(in, out), in->n, scales, codes);
  fill_array(y, FILL_ORDINARY, 3, in->n);
  bl_quant_view v = {scales, codes};
  k->sign_decode(v, variant == 0 ? BL_QUANT_STORE : BL_QUANT_ADD, 1, y, in->n);
  k->sign_decode(v, BL_QUANT_AXPY, 0.3f, y, in->n);
  if (in->kind == FILL_ORDINARY)
    k->sign_sum((bl_quant_view[]){v, v, v}, 3, variant == 0, y, in->n);
}

static void run_natural(const bl_quant_kernels *k, const input *in, outputs *out, int variant) {
  uint8_t *codes = out->codes + in->shift, *tops = out->steps + in->shift % 4;
  float *y = floats_at(out->y, in->shift);
  k->natural_encode(99 + (uint64_t)variant, 0, in->x, residual_of(in, out), in->n, tops, codes);
  fill_array(y, FILL_ORDINARY, 3, in->n);
  bl_quant_view v = {tops, codes};
  k->natural_decode(v, variant == 0 ? BL_QUANT_STORE : BL_QUANT_ADD, 1, y, in->n);
  k->natural_decode(v, BL_QUANT_AXPY, 0.3f, y, in->n);
}

static const struct {
  const char *name;
  run_fn run;
  int n_variants;
} calls[] = {
    {"quant", run_quant, 2 * (int)BL_COUNT_OF(quants)},
    {"bf16", run_bf16, 1},
    {"sign", run_sign, 2},
    {"natural", run_natural, 2},
};

static void assert_same(const void *want, const void *got, size_t size, const char *what, const input *in, int variant,
                        const char *table) {
  for (size_t i = 0; i < size; i++) {
    if (((const uint8_t *)want)[i] != ((const uint8_t *)got)[i])
      ck_abort_msg("%s variant %d: %s: byte %zu differs, fill %d n %zu shift %zu feedback %d", what, variant, table, i,
                   (int)in->kind, in->n, in->shift, in->feedback);
  }
}

static void compare(int call, int variant, const bl_kernels *table, const input *in) {
  static outputs want, got;
  memset(&want, 0xa5, sizeof want);
  memset(&got, 0xa5, sizeof got);
  calls[call].run(bl_kernels_at(0)->quant, in, &want, variant);
  calls[call].run(table->quant, in, &got, variant);
  assert_same(want.steps, got.steps, sizeof want.steps, "steps", in, variant, table->name);
  assert_same(want.codes, got.codes, sizeof want.codes, "codes", in, variant, table->name);
  assert_same(want.residual, got.residual, sizeof want.residual, "residual", in, variant, table->name);
  assert_same(want.y, got.y, sizeof want.y, "y", in, variant, table->name);
}

START_TEST(every_table_gives_the_bits_of_the_scalar_one) {
  static uint8_t memory[4 * N_MAX + GUARD];
  static const size_t lengths[] = {0,   1,   2,   7,   8,   31,  32,  33,   63,   64,   65,   127,  128,  129,  191,
                                   200, 255, 256, 257, 320, 383, 511, 1000, 1023, 1024, 1025, 1300, 2048, 2047, 4999};
  for (size_t t = 1; bl_kernels_at(t) != NULL; t++) {
    for (int kind = 0; kind < FILL_COUNT; kind++) {
      for (size_t l = 0; l < BL_COUNT_OF(lengths); l++) {
        input in = {.n = lengths[l], .shift = (l * 7 + 1) % 33, .kind = (fill)kind};
        float *x = floats_at(memory, in.shift);
        fill_array(x, in.kind, 1, in.n);
        in.x = x;
        for (int variant = 0; variant < calls[_i].n_variants; variant++) {
          for (int feedback = 0; feedback < 2; feedback++) {
            in.feedback = feedback == 1;
            compare(_i, variant, bl_kernels_at(t), &in);
          }
        }
      }
    }
  }
}
END_TEST

/* The random numbers: every one of 16 bits as often as chance has it, neighbours and keys unrelated. Limits are 5
 * standard deviations. */
START_TEST(random_numbers_are_uniform_and_unrelated) {
  enum { CELLS = 256, DRAWS = 1 << 20 };
  static uint32_t low[CELLS], high[CELLS], pair[CELLS], keys[CELLS];
  uint64_t key = bl_codec_key(1, 2, 3, 4), other = bl_codec_key(1, 2, 4, 4);
  for (uint32_t i = 0; i < DRAWS; i++) {
    uint32_t r = bl_quant_random(key, i), next = bl_quant_random(key, i + 1), same = bl_quant_random(other, i);
    if (r > 65535)
      ck_abort_msg("%u has more than 16 bits", r);
    low[r & 255]++;
    high[r >> 8]++;
    pair[(r >> 12) << 4 | next >> 12]++;
    keys[(r >> 12) << 4 | same >> 12]++;
  }
  const uint32_t *const counts[] = {low, high, pair, keys};
  for (size_t c = 0; c < BL_COUNT_OF(counts); c++) {
    double chi = 0, expected = (double)DRAWS / CELLS;
    for (size_t i = 0; i < CELLS; i++)
      chi += (counts[c][i] - expected) * (counts[c][i] - expected) / expected;
    ck_assert_msg(chi > 255 - 5 * 22.6 && chi < 255 + 5 * 22.6, "count %zu: chi squared %g of 255 degrees", c, chi);
  }
}
END_TEST

/* Of numbers that a job has, of one that is hit by 16 bits, beside one that makes a step large. */
static const float biased[] = {1, -0.37f, 0.01f, 0.5f, -0.7501f, 1e-4f, -3e-6f, 0.9999f, 0.25f, -1e-9f};

/* The mean over keys is the number: within 5 standard deviations of the mean of so many draws (false alarm below 1e-5
 * for all numbers and specs together), and 2^-17 of a step, which 16 bits of chance cannot resolve. */
START_TEST(stochastic_codecs_are_without_bias) {
  static const struct {
    const char *text;
    double step; /* of a block whose largest is 1; natural: of each number */
  } rows[] = {{"int8(stochastic)", 1.0 / 127}, {"int8(stochastic, shared)", 1.0 / 64}, {"int4", 1.01 / 7},
              {"int4(shared)", 0.25},          {"ternary", 1},                         {"qsgd(4)", 0.25},
              {"natural", 0}};
  enum { DRAWS = 20000, N = 10 };
  bl_codec_spec spec;
  uint8_t frame[256];
  float y[N];
  double sum[N] = {0};
  ck_assert_ok(bl_codec_spec_read(rows[_i].text, &spec, NULL));
  ck_assert(spec.codec->unbiased);
  for (uint32_t k = 0; k < DRAWS; k++) {
    bl_encode e = {.spec = &spec, .key = bl_codec_key(9, 1, k, 0)};
    size_t size = bl_codec_encode(&e, biased, NULL, N, BL_CODEC_REPLACE, frame);
    ck_assert_ok(bl_codec_apply(frame, size, N, y, NULL));
    for (size_t i = 0; i < N; i++)
      sum[i] += (double)y[i];
  }
  for (size_t i = 0; i < N; i++) {
    double x = (double)biased[i], step = rows[_i].step > 0 ? rows[_i].step : fabs(x), part = fmod(fabs(x), step) / step;
    double deviation = step * sqrt(rows[_i].step > 0 ? part * (1 - part) : 0.25) / sqrt(DRAWS);
    ck_assert_msg(fabs(sum[i] / DRAWS - x) <= 5 * deviation + step * 0x1p-15, "%s: %g is %g on average", rows[_i].text, x,
                  sum[i] / DRAWS);
  }
}
END_TEST

static size_t encode_text(const char *text, const float *x, float *residual, uint32_t n, uint64_t key, uint8_t *out) {
  bl_codec_spec spec;
  ck_assert_ok(bl_codec_spec_read(text, &spec, NULL));
  return bl_codec_encode(&(bl_encode){.spec = &spec, .key = key}, x, residual, n, BL_CODEC_REPLACE, out);
}

static const char *const dense_texts[] = {"float16",      "bfloat16", "int8", "int8(stochastic)", "int8(shared)", "int4",
                                          "int4(shared)", "sign",     "ternary", "qsgd(4)",       "natural"};

/* A million steps of training cannot make a scale NaN: a gradient that becomes zero, residuals that shrink. */
START_TEST(a_shrinking_residual_stays_a_number) {
  enum { N = 300 };
  float x[N] = {0}, residual[N], y[N];
  uint8_t frame[4 * N];
  for (size_t i = 0; i < N; i++)
    residual[i] = bl_rng_normal(3, 1, i) * (i < 256 ? 1 : 1e-30f);
  for (uint32_t round = 0; round < 3000; round++) {
    size_t size = encode_text(dense_texts[_i], x, residual, N, round, frame);
    bl_error err = BL_ERROR_INIT;
    ck_assert_ok_err(bl_codec_apply(frame, size, N, y, &err), err);
    for (size_t i = 0; i < N; i++)
      if (!isfinite(residual[i]) || !isfinite(y[i]))
        ck_abort_msg("%s round %u: %g, residual %g", dense_texts[_i], round, (double)y[i], (double)residual[i]);
  }
}
END_TEST

/* Numbers that are not finite do not reach a scale, and leave no trace in the residual. */
START_TEST(what_is_not_finite_spoils_nothing_else) {
  enum { N = 1100 };
  float x[N], residual[N] = {0}, y[N];
  uint8_t frame[4 * N];
  for (size_t i = 0; i < N; i++)
    x[i] = i % 100 == 7 ? float_of(extremes[14 + i / 100 % 5]) : 0.5f;
  size_t size = encode_text(dense_texts[_i], x, residual, N, 5, frame);
  bl_error err = BL_ERROR_INIT;
  ck_assert_ok_err(bl_codec_apply(frame, size, N, y, &err), err);
  bool halves = strstr(dense_texts[_i], "float16") != NULL; /* NaN is a value there */
  for (size_t i = 0; i < N; i++) {
    ck_assert(isfinite(residual[i]));
    ck_assert_msg(isfinite(y[i]) || (halves && i % 100 == 7), "%s: %zu is %g", dense_texts[_i], i, (double)y[i]);
    if (i % 100 != 7)
      ck_assert_float_le(fabsf(y[i] - 0.5f), 0.51f);
  }
}
END_TEST

/* With steps that are powers of two and numbers on a grid, nothing rounds: the sum is exact. */
START_TEST(shared_steps_conserve_sums_exactly) {
  enum { N = 400, ROUNDS = 200 };
  static const char *const texts[] = {"int8(shared)", "int8(stochastic, shared)", "int4(shared)"};
  float x[N], residual[N] = {0}, y[N];
  double total[N] = {0}, sent[N] = {0};
  uint8_t frame[4 * N];
  for (uint32_t round = 0; round < ROUNDS; round++) {
    for (size_t i = 0; i < N; i++) {
      x[i] = (float)((int)bl_rng_below(7, round, i, 4001) - 2000) * 0x1p-12f;
      total[i] += (double)x[i];
    }
    size_t size = encode_text(texts[_i], x, residual, N, round, frame);
    ck_assert_ok(bl_codec_apply(frame, size, N, y, NULL));
    for (size_t i = 0; i < N; i++)
      sent[i] += (double)y[i];
  }
  for (size_t i = 0; i < N; i++)
    ck_assert_double_eq(sent[i] + (double)residual[i], total[i]);
}
END_TEST

START_TEST(prescribed_exponents_are_used_and_what_does_not_fit_stays) {
  enum { N = 300 };
  static const char *const texts[] = {"int8(shared)", "int4(shared)"};
  bl_codec_spec spec;
  float x[N], residual[N] = {0}, y[N];
  uint8_t frame[4 * N], exponents[3] = {128 - 6, 128 - 7, 0};
  size_t block = _i == 0 ? 256 : 128;
  float limit = _i == 0 ? 127 : 7;
  for (size_t i = 0; i < N; i++)
    x[i] = i % 3 == 0 ? 100 : -0.125f;
  ck_assert_ok(bl_codec_spec_read(texts[_i], &spec, NULL));
  bl_encode e = {.spec = &spec, .key = 3, .exponents = exponents};
  size_t size = bl_codec_encode(&e, x, residual, N, BL_CODEC_REPLACE, frame);
  ck_assert_ok(bl_codec_apply(frame, size, N, y, NULL));
  ck_assert_uint_eq(frame[16], 128 - 6);
  ck_assert_uint_eq(frame[17], 128 - 7);
  for (size_t i = 0; i < block; i++) {
    ck_assert_float_eq(y[i], i % 3 == 0 ? limit * 0x1p-6f : fmaxf(-0.125f, -limit * 0x1p-6f));
    ck_assert_float_eq(y[i] + residual[i], x[i]);
  }
}
END_TEST

/* Frames under equal exponents add to the same bits in any order and any table, also where there are many. */
START_TEST(frames_of_equal_exponents_add_in_any_order) {
  enum { N = 1000 };
  static const char *const texts[] = {"int8(shared)", "int4(shared)"};
  static uint8_t frames[VIEWS][4 * N];
  float x[N], want[N], y[N];
  uint8_t exponents[8] = {120, 121, 122, 120, 119, 120, 121, 122};
  bl_codec_spec spec;
  bl_codec_view views[VIEWS], turned[VIEWS];
  ck_assert_ok(bl_codec_spec_read(texts[_i], &spec, NULL));
  for (uint32_t k = 0; k < VIEWS; k++) {
    fill_array(x, FILL_ORDINARY, 50 + k, N);
    bl_encode e = {.spec = &spec, .key = k, .exponents = exponents};
    size_t size = bl_codec_encode(&e, x, NULL, N, 0, frames[k]);
    ck_assert_ok(bl_codec_open(frames[k], size, N, &views[k], NULL));
    turned[VIEWS - 1 - k] = views[k];
  }
  for (size_t t = 0; bl_kernels_at(t) != NULL; t++) {
    ck_assert_ok(bl_kernels_force(bl_kernels_at(t)->name, NULL));
    bl_codec_sum(views, VIEWS, true, t == 0 ? want : y);
    if (t > 0)
      ck_assert_mem_eq(y, want, sizeof y);
    bl_codec_sum(turned, VIEWS, true, y);
    ck_assert_mem_eq(y, want, sizeof y);
  }
}
END_TEST

/* Large sums of integers are written past the caches, from an aligned address on. */
START_TEST(large_sums_have_the_bits_of_one_after_the_other) {
  enum { N = 70001 };
  static const char *const texts[] = {"int8(shared)", "int4(shared)"};
  bl_codec_spec spec;
  ck_assert_ok(bl_codec_spec_read(texts[_i], &spec, NULL));
  uint8_t *exponents = malloc(N), *frames[3];
  float *x = malloc(N * sizeof *x), *memory = aligned_alloc(64, (N + 31) / 16 * 64), *want = malloc(N * sizeof *want);
  bl_codec_view views[3];
  memset(exponents, 121, N);
  for (uint32_t k = 0; k < 3; k++) {
    fill_array(x, FILL_ORDINARY, 60 + k, N);
    frames[k] = malloc(bl_codec_bound_bytes(&spec, N));
    bl_encode e = {.spec = &spec, .key = k, .exponents = exponents};
    size_t size = bl_codec_encode(&e, x, NULL, N, 0, frames[k]);
    ck_assert_ok(bl_codec_open(frames[k], size, N, &views[k], NULL));
  }
  for (size_t t = 0; bl_kernels_at(t) != NULL; t++) {
    ck_assert_ok(bl_kernels_force(bl_kernels_at(t)->name, NULL));
    for (size_t shift = 0; shift < 2; shift++) {
      views[0].codec->decode(&views[0], want);
      views[1].codec->accumulate(&views[1], 1, want);
      views[2].codec->accumulate(&views[2], 1, want);
      bl_codec_sum(views, 3, true, memory + shift);
      ck_assert_msg(memcmp(memory + shift, want, N * sizeof *want) == 0, "%s, table %zu", texts[_i], t);
    }
  }
  for (uint32_t k = 0; k < 3; k++)
    free(frames[k]);
  free(exponents);
  free(x);
  free(memory);
  free(want);
}
END_TEST

/* The bytes that the headers of the codecs give as examples: payload only. */
START_TEST(payloads_are_the_documented_ones) {
  static const struct {
    const char *text;
    float x[2];
    uint8_t want[8];
    size_t size;
  } rows[] = {
      {"bfloat16", {1, -2}, {0x80, 0x3f, 0x00, 0xc0}, 4},
      {"int8", {1, -2}, {0x04, 0x02, 0x81, 0x3c, 0x3f, 0x81}, 6},
      {"int8(shared)", {1, -2}, {0x7b, 0x20, 0xc0}, 3},
      {"int4(shared)", {6, -14}, {0x81, 0x1b}, 2},
      {"sign", {1, -3}, {0, 0, 0, 0x40, 0x02}, 5},
      {"ternary", {1, -1}, {0, 0, 0x80, 0x3f, 0x03, 0x02}, 6},
      {"qsgd(2)", {2, -1}, {0, 0, 0x80, 0x3f, 0x02, 0x03, 0x02}, 7},
      {"natural", {1, -2}, {0x81, 0x7d, 0xfe}, 3},
  };
  uint8_t frame[64];
  size_t size = encode_text(rows[_i].text, rows[_i].x, NULL, 2, 0, frame);
  ck_assert_uint_eq(size, BL_CODEC_HEADER_BYTES + rows[_i].size);
  ck_assert_mem_eq(frame + BL_CODEC_HEADER_BYTES, rows[_i].want, rows[_i].size);
}
END_TEST

int main(void) {
  Suite *s = suite_create("quant");
  TCase *t = tcase_create("quant");
  tcase_set_timeout(t, 120);
  tcase_add_loop_test(t, every_table_gives_the_bits_of_the_scalar_one, 0, (int)BL_COUNT_OF(calls));
  tcase_add_test(t, random_numbers_are_uniform_and_unrelated);
  tcase_add_loop_test(t, stochastic_codecs_are_without_bias, 0, 7);
  tcase_add_loop_test(t, a_shrinking_residual_stays_a_number, 0, (int)BL_COUNT_OF(dense_texts));
  tcase_add_loop_test(t, what_is_not_finite_spoils_nothing_else, 0, (int)BL_COUNT_OF(dense_texts));
  tcase_add_loop_test(t, shared_steps_conserve_sums_exactly, 0, 3);
  tcase_add_loop_test(t, prescribed_exponents_are_used_and_what_does_not_fit_stays, 0, 2);
  tcase_add_loop_test(t, frames_of_equal_exponents_add_in_any_order, 0, 2);
  tcase_add_loop_test(t, large_sums_have_the_bits_of_one_after_the_other, 0, 2);
  tcase_add_loop_test(t, payloads_are_the_documented_ones, 0, 8);
  suite_add_tcase(s, t);
  return test_run(&s, 1);
}
