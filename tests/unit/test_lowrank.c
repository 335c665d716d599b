/* SPDX-License-Identifier: Apache-2.0
 *
 * The low-rank codec: what its factors hold, what stays in the residual, which frames it refuses; and its kernels, each
 * table bit for bit against the definition.
 */
#include "base/checksum.h"
#include "base/le.h"
#include "base/num.h"
#include "base/rng.h"
#include "codec/lowrank.h"
#include "codec/spec.h"
#include "kernel/kernel.h"
#include "kernel/lowrank.h"
#include "tests/support/support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define N_MAX 70000

static const struct {
  uint32_t n, columns, rank;
} shapes[] = {
    {4096, 64, 1},  {4096, 64, 4},   {4096, 0, 4},    {4000, 64, 4},   {4001, 64, 3},  {4095, 64, 2},  {2560, 10, 4},
    {2551, 10, 4},  {5120, 512, 2},  {5000, 512, 3},  {65536, 256, 8}, {65537, 0, 32}, {69999, 17, 5}, {69999, 4000, 4},
    {70000, 70000, 4}, {70000, 90000, 4}, {6000, 100, 32}, {6000, 2999, 2}, {30, 6, 1},
};

static bl_codec_spec spec_of(uint32_t rank) {
  return (bl_codec_spec){.codec = bl_codec_by_id(BL_CODEC_LOWRANK), .rank = (uint16_t)rank};
}

/* Everything of a chunk, of sizes that sanitizers watch. */
typedef struct chunk {
  bl_codec_spec spec;
  uint32_t n, columns;
  float *x, *residual, *y, *factor;
  uint8_t *frame;
  size_t size;
} chunk;

static chunk chunk_new(uint32_t n, uint32_t columns, uint32_t rank) {
  chunk c = {.spec = spec_of(rank), .n = n, .columns = columns};
  size_t bytes = (size_t)n * sizeof(float) + 1, width = columns != 0 ? columns : bl_lowrank_columns(n);
  c.x = calloc(1, bytes);
  c.residual = calloc(1, bytes);
  c.y = calloc(1, bytes);
  c.factor = calloc(width * rank + 1, sizeof(float));
  c.frame = malloc(bl_codec_bound_bytes(&c.spec, n));
  return c;
}

static void chunk_free(chunk *c) {
  free(c->x);
  free(c->residual);
  free(c->y);
  free(c->factor);
  free(c->frame);
}

/* Encodes x and decodes into y. */
static void pass(chunk *c, uint64_t key, float *residual, float *factor) {
  bl_encode e = {.spec = &c->spec, .key = key, .columns = c->columns, .factor = factor};
  c->size = bl_codec_encode(&e, c->x, residual, c->n, BL_CODEC_REPLACE, c->frame);
  ck_assert_uint_le(c->size, bl_codec_bound_bytes(&c->spec, c->n));
  bl_error err = BL_ERROR_INIT;
  ck_assert_ok_err(bl_codec_apply(c->frame, c->size, c->n, c->y, &err), err);
}

static void fill_normal(float *x, uint32_t n, uint64_t stream) {
  for (uint32_t i = 0; i < n; i++)
    x[i] = bl_rng_normal(5, stream, i);
}

/* A matrix of this rank, its parts falling in size. */
static void fill_rank(chunk *c, uint32_t rank, uint64_t stream) {
  uint32_t columns = c->columns != 0 ? c->columns : bl_lowrank_columns(c->n);
  memset(c->x, 0, c->n * sizeof(float));
  for (uint32_t k = 0; k < rank; k++)
    for (uint32_t i = 0; i < c->n; i++)
      c->x[i] += bl_rng_normal(stream, 2 * k, i / columns) * bl_rng_normal(stream, 2 * k + 1, i % columns) / (float)(k + 1);
}

static double norm(const float *x, uint32_t n) { return sqrt(bl_kernels_at(0)->sum_squares(x, n)); }

static double distance(const float *a, const float *b, uint32_t n) {
  double s = 0;
  for (uint32_t i = 0; i < n; i++)
    s += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
  return sqrt(s);
}

static bool is_plain(const chunk *c) { return bl_le_get16(c->frame + 2) == 0; }

/* Up to the float16 of the factors. Where the last row is cut short, the zeros that it lacks make one rank more. A single
 * row (columns of at least n) is cut otherwise, so that its rank is another. */
START_TEST(a_matrix_of_that_rank_is_carried_whole) {
  chunk c = chunk_new(shapes[_i].n, shapes[_i].columns, shapes[_i].rank);
  if (c.columns >= c.n)
    c.columns = 0;
  uint32_t columns = c.columns != 0 ? c.columns : bl_lowrank_columns(c.n);
  fill_rank(&c, shapes[_i].rank - (c.n % columns != 0), 50 + (uint64_t)_i);
  pass(&c, 1, NULL, NULL);
  ck_assert_double_lt(distance(c.x, c.y, c.n), 1e-3 * norm(c.x, c.n));
  pass(&c, 1, c.residual, c.factor);
  double left = norm(c.residual, c.n);
  ck_assert_double_lt(left, 1e-3 * norm(c.x, c.n));
  memset(c.x, 0, c.n * sizeof(float));
  pass(&c, 1, c.residual, c.factor); /* what rounding left is sent as any other matrix */
  ck_assert(left == 0 || norm(c.residual, c.n) < left);
  chunk_free(&c);
}
END_TEST

START_TEST(a_frame_is_as_small_as_its_factors) {
  chunk c = chunk_new(65536, 256, 4);
  fill_normal(c.x, c.n, 1);
  pass(&c, 1, NULL, NULL);
  ck_assert_uint_eq(c.size, 16 + 4 + 4 + 4 * (256 + 256) * 2);
  chunk_free(&c);
}
END_TEST

/* The same matrix over and over: the vectors turn towards its largest parts, down to the best that this rank can do. */
START_TEST(a_warm_start_comes_closer_each_time) {
  chunk c = chunk_new(4096, 64, 2);
  fill_rank(&c, 20, 9);
  double first = 0, last = 0, before = 1e30;
  for (int round = 0; round < 30; round++) {
    pass(&c, 1, NULL, c.factor);
    last = distance(c.x, c.y, c.n);
    ck_assert_double_le(last, before * 1.001);
    before = last;
    first = round == 0 ? last : first;
  }
  ck_assert_double_lt(last, 0.9 * first);
  double cold = 0;
  for (uint64_t key = 1; key <= 8; key++) {
    pass(&c, key, NULL, NULL);
    cold += distance(c.x, c.y, c.n) / 8;
  }
  ck_assert_double_gt(cold, 1.05 * last);
  chunk_free(&c);
}
END_TEST

START_TEST(the_key_alone_draws_a_cold_start) {
  chunk a = chunk_new(4096, 64, 4), b = chunk_new(4096, 64, 4);
  fill_normal(a.x, a.n, 1);
  memcpy(b.x, a.x, a.n * sizeof(float));
  pass(&a, 1, NULL, NULL);
  pass(&b, 1, NULL, b.factor); /* a start of zeros is none */
  ck_assert_uint_eq(a.size, b.size);
  ck_assert_mem_eq(a.frame, b.frame, a.size);
  pass(&b, 2, NULL, NULL);
  ck_assert_mem_ne(a.frame, b.frame, a.size);
  chunk_free(&a);
  chunk_free(&b);
}
END_TEST

/* Sum of what went in = sum of what came out + residual. */
START_TEST(what_is_not_carried_stays_in_the_residual) {
  chunk c = chunk_new(shapes[_i].n, shapes[_i].columns, shapes[_i].rank);
  double *in = calloc(c.n, sizeof *in), *out = calloc(c.n, sizeof *out), error = 0, size = 0;
  for (uint64_t round = 0; round < 10; round++) {
    fill_normal(c.x, c.n, 100 + round);
    pass(&c, round, c.residual, c.factor);
    for (uint32_t i = 0; i < c.n; i++) {
      in[i] += (double)c.x[i];
      out[i] += (double)c.y[i];
    }
  }
  for (uint32_t i = 0; i < c.n; i++) {
    error += fabs(in[i] - out[i] - (double)c.residual[i]);
    size += fabs(in[i]);
    ck_assert_double_lt(fabs(in[i] - out[i] - (double)c.residual[i]), 1e-4);
  }
  ck_assert_double_lt(error, 1e-6 * size);
  free(in);
  free(out);
  chunk_free(&c);
}
END_TEST

START_TEST(feedback_brings_everything_in_the_end) {
  chunk c = chunk_new(4096, 64, 4);
  fill_normal(c.x, c.n, 3);
  double whole = norm(c.x, c.n);
  for (int round = 0; round < 40; round++) {
    pass(&c, (uint64_t)round, c.residual, c.factor);
    memset(c.x, 0, c.n * sizeof(float)); /* only the first has something */
  }
  ck_assert_double_lt(norm(c.residual, c.n), 0.02 * whole);
  chunk_free(&c);
}
END_TEST

START_TEST(chunks_that_are_not_worth_two_factors_travel_as_they_are) {
  static const struct {
    uint32_t n, columns, rank;
    bool plain;
  } cases[] = {{0, 0, 4, true},  {1, 0, 4, true},   {10, 0, 4, true},   {10, 10, 1, false},  {10, 3, 32, true}, {256, 16, 32, true},
               {100, 10, 4, false}, {100, 10, 5, true}, {2560, 10, 32, true}, {2560, 10, 9, false}, {512, 512, 4, false}};
  for (size_t i = 0; i < BL_COUNT_OF(cases); i++) {
    chunk c = chunk_new(cases[i].n, cases[i].columns, cases[i].rank);
    fill_normal(c.x, c.n, 1);
    fill_normal(c.residual, c.n, 2);
    float *want = calloc(c.n + 1, sizeof *want);
    for (uint32_t k = 0; k < c.n; k++)
      want[k] = c.x[k] + c.residual[k];
    pass(&c, 1, c.residual, c.factor);
    ck_assert_msg(is_plain(&c) == cases[i].plain, "case %zu", i);
    if (cases[i].plain) {
      ck_assert_uint_eq(c.size, 16 + 4 * c.n);
      ck_assert(c.n == 0 || memcmp(want, c.y, c.n * sizeof *want) == 0);
      for (uint32_t k = 0; k < c.n; k++)
        ck_assert(c.residual[k] == 0);
    } else {
      ck_assert_uint_lt(c.size, 16 + 4 * c.n);
    }
    free(want);
    chunk_free(&c);
  }
}
END_TEST

START_TEST(zeros_give_zeros_and_the_next_matrix_is_carried_all_the_same) {
  chunk c = chunk_new(4096, 64, 4);
  memset(c.y, 0x7f, c.n * sizeof(float));
  pass(&c, 1, c.residual, c.factor);
  ck_assert(norm(c.y, c.n) == 0 && norm(c.residual, c.n) == 0);
  fill_rank(&c, 1, 7); /* one vector is all there is: the others of the start are zero after it */
  pass(&c, 2, c.residual, c.factor);
  ck_assert_double_lt(distance(c.x, c.y, c.n), 1e-3 * norm(c.x, c.n));
  memset(c.residual, 0, c.n * sizeof(float));
  fill_rank(&c, 4, 8);
  pass(&c, 3, c.residual, c.factor);
  ck_assert_double_lt(distance(c.x, c.y, c.n), 1e-3 * norm(c.x, c.n));
  chunk_free(&c);
}
END_TEST

START_TEST(tiny_and_huge_numbers_are_carried_too) {
  static const float sizes[] = {1e-42f, 1e-38f, 1e-30f, 1e30f, 1e33f};
  for (size_t i = 0; i < BL_COUNT_OF(sizes); i++) {
    chunk c = chunk_new(4096, 64, 2);
    fill_rank(&c, 1, 3);
    for (uint32_t k = 0; k < c.n; k++)
      c.x[k] *= sizes[i];
    for (int round = 0; round < 3; round++) {
      memset(c.residual, 0, c.n * sizeof(float));
      pass(&c, 1, c.residual, c.factor);
      double tolerance = sizes[i] < 1e-40f ? 0.2 : 1e-3;
      ck_assert_msg(distance(c.x, c.y, c.n) < tolerance * norm(c.x, c.n), "size %g: %g of %g", (double)sizes[i],
                    distance(c.x, c.y, c.n), norm(c.x, c.n));
    }
    chunk_free(&c);
  }
}
END_TEST

START_TEST(one_huge_number_among_ordinary_ones_is_carried) {
  chunk c = chunk_new(4096, 64, 1);
  fill_normal(c.x, c.n, 3);
  c.x[777] = 1e20f;
  pass(&c, 1, c.residual, c.factor);
  ck_assert_float_eq_tol(c.y[777], 1e20f, 1e17f);
  chunk_free(&c);
}
END_TEST

START_TEST(what_is_too_large_waits_and_what_is_no_number_is_dropped) {
  chunk c = chunk_new(4096, 64, 4);
  fill_normal(c.x, c.n, 3);
  c.x[5] = 3e38f;
  pass(&c, 1, c.residual, c.factor);
  ck_assert(norm(c.y, c.n) == 0);
  ck_assert_mem_eq(c.x, c.residual, c.n * sizeof(float));
  c.x[5] = NAN;
  c.x[6] = INFINITY;
  memset(c.residual, 0, c.n * sizeof(float));
  pass(&c, 1, c.residual, c.factor);
  ck_assert(norm(c.y, c.n) == 0);
  ck_assert(c.residual[5] == 0 && c.residual[6] == 0 && c.residual[7] == c.x[7]);
  fill_rank(&c, 4, 8); /* and the start is as good as new */
  memset(c.residual, 0, c.n * sizeof(float));
  pass(&c, 3, c.residual, c.factor);
  ck_assert_double_lt(distance(c.x, c.y, c.n), 1e-3 * norm(c.x, c.n));
  chunk_free(&c);
}
END_TEST

/* As stated in lowrank.c. */
START_TEST(the_layout_is_the_documented_one) {
  chunk c = chunk_new(16, 4, 1);
  for (uint32_t i = 0; i < 16; i++)
    c.x[i] = (float)i;
  pass(&c, 0, NULL, NULL);
  static const uint8_t want[] = {0x0d, 0x01, 0x01, 0x00, 0x10, 0x00, 0x00, 0x00, 0x8b, 0x6f, 0xd1, 0x6b, 0x61, 0x46, 0xd9, 0x0f,
                                   0x04, 0x00, 0x00, 0x00, 0x84, 0xa5, 0x2e, 0x31, 0x35, 0x5d, 0x38, 0x21, 0x3a, 0x6d, 0x37, 0x26,
                                   0x38, 0x95, 0x38, 0x04, 0x39};
  ck_assert_uint_eq(c.size, sizeof want);
  ck_assert_mem_eq(c.frame, want, sizeof want);
  float p = 0x1.0p0f; /* by hand: y[0][1] = P[0] * Q[1] * 2^(exponent - 127) */
  uint16_t halves[8];
  memcpy(halves, c.frame + 21, sizeof halves);
  float unpacked[8];
  bl_kernels_at(0)->f16_to_f32(unpacked, halves, 8);
  p = unpacked[0] * ldexpf(1, c.frame[20] - 127);
  ck_assert_float_eq(c.y[1], p * unpacked[4 + 1]);
  chunk_free(&c);
}
END_TEST

START_TEST(every_table_makes_the_same_frame_and_sum) {
  chunk c = chunk_new(shapes[_i].n, shapes[_i].columns, shapes[_i].rank), d = chunk_new(c.n, c.columns, shapes[_i].rank);
  for (size_t t = 0; bl_kernels_at(t) != NULL; t++) {
    chunk *now = t == 0 ? &c : &d;
    ck_assert_ok(bl_kernels_force(bl_kernels_at(t)->name, NULL));
    memset(now->residual, 0, c.n * sizeof(float));
    memset(now->factor, 0, (c.columns != 0 ? c.columns : bl_lowrank_columns(c.n)) * shapes[_i].rank * sizeof(float));
    for (uint64_t round = 0; round < 2; round++) {
      fill_normal(now->x, c.n, 60 + round);
      pass(now, round, now->residual, now->factor);
    }
    ck_assert_ok(bl_codec_accumulate(now->frame, now->size, c.n, 0.3f, now->y, NULL));
    if (t == 0)
      continue;
    ck_assert_uint_eq(c.size, d.size);
    ck_assert_mem_eq(c.frame, d.frame, c.size);
    ck_assert_mem_eq(c.residual, d.residual, c.n * sizeof(float));
    ck_assert_mem_eq(c.y, d.y, c.n * sizeof(float));
    ck_assert_mem_eq(c.factor, d.factor, (c.columns != 0 ? c.columns : bl_lowrank_columns(c.n)) * shapes[_i].rank * sizeof(float));
  }
  chunk_free(&c);
  chunk_free(&d);
}
END_TEST

/* Frames of one shape, of several, and plain ones between them. */
START_TEST(a_sum_of_frames_has_the_bits_of_one_after_the_other) {
  static const uint32_t mixes[][4] = {{64, 64, 64, 64}, {64, 64, 50, 64}, {64, 1, 64, 64}};
  static const uint32_t ranks[] = {4, 1, 32, 3};
  for (size_t mix = 0; mix < BL_COUNT_OF(mixes); mix++) {
    chunk c[4];
    bl_codec_view views[4];
    float want[6000], y[6000];
    for (uint32_t k = 0; k < 4; k++) {
      c[k] = chunk_new(6000, mixes[mix][k], mixes[mix][k] == 1 ? 1 : ranks[k]);
      fill_normal(c[k].x, 6000, k);
      pass(&c[k], k, NULL, NULL);
      ck_assert(is_plain(&c[k]) == (mixes[mix][k] == 1));
      views[k] = bl_codec_trusted(c[k].frame, c[k].size);
    }
    for (int store = 0; store < 2; store++) {
      fill_normal(want, 6000, 9);
      memcpy(y, want, sizeof y);
      for (uint32_t k = 0; k < 4; k++)
        if (k == 0 && store == 1)
          views[k].codec->decode(&views[k], want);
        else
          views[k].codec->accumulate(&views[k], 1, want);
      bl_codec_sum(views, 4, store == 1, y);
      ck_assert_mem_eq(y, want, sizeof y);
    }
    for (uint32_t k = 0; k < 4; k++)
      chunk_free(&c[k]);
  }
}
END_TEST

static void reseal(uint8_t *frame, size_t size) {
  bl_le_put64(frame + 8, bl_checksum_seeded(frame + 16, size - 16, bl_le_get64(frame)));
}

/* The checksum is right, so only the codec can refuse. */
static void assert_refused(const uint8_t *frame, size_t size, uint32_t n, const char *word) {
  uint8_t *copy = malloc(size);
  memcpy(copy, frame, size);
  if (size >= 16)
    reseal(copy, size);
  bl_error err = BL_ERROR_INIT;
  bl_codec_view v;
  ck_assert_int_ne(bl_codec_open(copy, size, n, &v, &err), BL_OK);
  ck_assert_msg(strstr(err.text, word) != NULL, "\"%s\" does not say \"%s\"", err.text, word);
  free(copy);
}

START_TEST(well_sealed_frames_cut_anywhere_are_refused) {
  chunk c = chunk_new(1000, 40, 3);
  fill_normal(c.x, c.n, 1);
  pass(&c, 1, NULL, NULL);
  for (size_t cut = 1; cut < c.size; cut++)
    assert_refused(c.frame, cut, c.n, "");
  uint8_t *longer = calloc(1, c.size + 1);
  memcpy(longer, c.frame, c.size);
  assert_refused(longer, c.size + 1, c.n, "payload");
  free(longer);
  chunk_free(&c);
}
END_TEST

START_TEST(lies_about_shape_and_numbers_that_are_none_are_refused) {
  chunk c = chunk_new(1000, 40, 3);
  fill_normal(c.x, c.n, 1);
  pass(&c, 1, NULL, NULL);
  static const struct {
    size_t offset;
    uint8_t bytes[4];
    size_t n_bytes;
    const char *word;
  } cases[] = {
      {2, {33, 0}, 2, "parameter 33"},          {2, {0, 1}, 2, "parameter 256"},      {2, {2, 0}, 2, "payload"},
      {2, {0, 0}, 2, "payload"},                {16, {0, 0, 0, 0}, 4, "0 columns"},   {16, {41, 0, 0, 0}, 4, "payload"},
      {16, {2, 0, 0, 0}, 4, "2 columns"},       {16, {0xff, 0xff, 0xff, 0xff}, 4, "4294967295 columns"},
      {16, {0xe9, 3, 0, 0}, 4, "1001 columns"}, {16, {0xe8, 3, 0, 0}, 4, "1000 columns"},
      {20, {0}, 1, "exponent 0"},               {22, {247}, 1, "exponent 247"},       {21, {255}, 1, "exponent 255"},
      {23, {0x01, 0x3c}, 2, "0x3c01"},          {23, {0x00, 0x7c}, 2, "0x7c00"},      {23, {0xff, 0xff}, 2, "0x7fff"},
      {23 + 3 * 25 * 2, {0x01, 0xc0}, 2, "0x4001"}, {23 + 3 * 65 * 2 - 2, {0x00, 0xfe}, 2, "0x7e00"},
  };
  for (size_t i = 0; i < BL_COUNT_OF(cases); i++) {
    uint8_t *frame = malloc(c.size);
    memcpy(frame, c.frame, c.size);
    memcpy(frame + cases[i].offset, cases[i].bytes, cases[i].n_bytes);
    assert_refused(frame, c.size, c.n, cases[i].word);
    free(frame);
  }
  assert_refused(c.frame, c.size, 999, "999 are expected");
  chunk_free(&c);
}
END_TEST

/* Whatever is accepted decodes to finite numbers. */
START_TEST(accepted_frames_of_any_bytes_are_finite) {
  chunk c = chunk_new(1000, 40, 3);
  fill_normal(c.x, c.n, 1);
  pass(&c, 1, NULL, NULL);
  int accepted = 0;
  for (uint64_t round = 0; round < 3000; round++) {
    uint8_t *frame = malloc(c.size);
    memcpy(frame, c.frame, c.size);
    for (uint32_t k = 0; k < 3; k++)
      frame[20 + k] = (uint8_t)(bl_rng_u64(3, 1, 4 * round + k) % 250);
    for (size_t at = 23; at < c.size; at += 2) {
      uint32_t limit = at < 23 + 3 * 25 * 2 ? 0x3c01 : 0x4001;
      bl_le_put16(frame + at, (uint16_t)(round % 2 == 0 ? limit - 1 : bl_rng_below(3, 2, 4096 * round + at, limit)));
    }
    reseal(frame, c.size);
    if (bl_codec_apply(frame, c.size, c.n, c.y, NULL) == BL_OK) {
      accepted++;
      ck_assert(bl_kernels_get()->all_finite(c.y, c.n));
    }
    free(frame);
  }
  ck_assert_int_gt(accepted, 1000);
  chunk_free(&c);
}
END_TEST

/* Each table against the scalar one over every width of a tile, behind odd addresses, strides wider than the rows. */
START_TEST(kernels_have_the_bits_of_the_definition) {
  enum { ROWS = 11, COLUMNS = 150, RANK = 9 };
  static uint8_t memory[4][(COLUMNS * (ROWS + RANK) + 64) * sizeof(float)];
  for (size_t t = 1; bl_kernels_at(t) != NULL; t++)
    for (uint32_t columns = 0; columns < COLUMNS; columns++)
      for (unsigned rank = 1; rank <= RANK; rank += 1 + (columns > 70)) {
        uint32_t rows = (columns + rank) % ROWS, odd = (columns * 5 + rank) % 16;
        float *m = (float *)(void *)(memory[0] + odd), *q = (float *)(void *)(memory[1] + (odd + 1) % 16);
        float *p[2], sums[2][ROWS * COLUMNS];
        for (int side = 0; side < 2; side++) {
          const bl_lowrank_kernels *k = bl_kernels_at(side == 0 ? 0 : t)->lowrank;
          p[side] = (float *)(void *)(memory[2 + side] + odd);
          for (uint32_t i = 0; i < COLUMNS * ROWS; i++) {
            float v = bl_rng_normal(1, 1, i);
            memcpy((uint8_t *)m + 4 * i, &v, 4);
            v = bl_rng_normal(1, 2, i);
            memcpy((uint8_t *)q + 4 * i, &v, 4);
          }
          memset(p[side], 0x11, ROWS * RANK * sizeof(float));
          k->project(p[side], ROWS, m, COLUMNS, rows, columns, q, COLUMNS, rank);
          k->gather(q, COLUMNS, m, COLUMNS, rows, columns, p[side], ROWS, rank);
          for (int op = BL_LOWRANK_STORE; op <= BL_LOWRANK_SUBTRACT; op++)
            k->expand(m, COLUMNS, rows, columns, p[side], ROWS, q, COLUMNS, rank, (bl_lowrank_op)op, 0.3f);
          memcpy(sums[side], m, sizeof sums[side]);
        }
        ck_assert_mem_eq(p[0], p[1], ROWS * RANK * sizeof(float));
        ck_assert_msg(memcmp(sums[0], sums[1], sizeof sums[0]) == 0, "table %zu: %u x %u, rank %u", t, rows, columns, rank);
      }
}
END_TEST

/* The definition against plain sums in double. */
START_TEST(the_definition_multiplies_matrices) {
  enum { ROWS = 5, COLUMNS = 37, RANK = 3 };
  float m[ROWS][COLUMNS], q[RANK][COLUMNS], p[RANK][ROWS], y[ROWS][COLUMNS], g[RANK][COLUMNS] = {{0}};
  fill_normal(m[0], ROWS * COLUMNS, 1);
  fill_normal(q[0], RANK * COLUMNS, 2);
  const bl_lowrank_kernels *k = bl_kernels_at(0)->lowrank;
  k->project(p[0], ROWS, m[0], COLUMNS, ROWS, COLUMNS, q[0], COLUMNS, RANK);
  k->gather(g[0], COLUMNS, m[0], COLUMNS, ROWS, COLUMNS, p[0], ROWS, RANK);
  k->expand(y[0], COLUMNS, ROWS, COLUMNS, p[0], ROWS, q[0], COLUMNS, RANK, BL_LOWRANK_STORE, 1);
  for (int r = 0; r < RANK; r++)
    for (int i = 0; i < ROWS; i++) {
      double s = 0;
      for (int j = 0; j < COLUMNS; j++)
        s += (double)m[i][j] * (double)q[r][j];
      ck_assert_double_eq_tol(s, (double)p[r][i], 1e-5);
    }
  for (int j = 0; j < COLUMNS; j++) {
    for (int r = 0; r < RANK; r++) {
      double s = 0;
      for (int i = 0; i < ROWS; i++)
        s += (double)m[i][j] * (double)p[r][i];
      ck_assert_double_eq_tol(s, (double)g[r][j], 1e-4);
    }
    for (int i = 0; i < ROWS; i++) {
      double s = 0;
      for (int r = 0; r < RANK; r++)
        s += (double)p[r][i] * (double)q[r][j];
      ck_assert_double_eq_tol(s, (double)y[i][j], 1e-4);
    }
  }
}
END_TEST

int main(void) {
  Suite *s = suite_create("lowrank");
  TCase *t = tcase_create("lowrank");
  int n = (int)BL_COUNT_OF(shapes);
  tcase_set_timeout(t, 60);
  tcase_add_loop_test(t, a_matrix_of_that_rank_is_carried_whole, 0, n);
  tcase_add_test(t, a_frame_is_as_small_as_its_factors);
  tcase_add_test(t, a_warm_start_comes_closer_each_time);
  tcase_add_test(t, the_key_alone_draws_a_cold_start);
  tcase_add_loop_test(t, what_is_not_carried_stays_in_the_residual, 0, n);
  tcase_add_test(t, feedback_brings_everything_in_the_end);
  tcase_add_test(t, chunks_that_are_not_worth_two_factors_travel_as_they_are);
  tcase_add_test(t, zeros_give_zeros_and_the_next_matrix_is_carried_all_the_same);
  tcase_add_test(t, tiny_and_huge_numbers_are_carried_too);
  tcase_add_test(t, one_huge_number_among_ordinary_ones_is_carried);
  tcase_add_test(t, what_is_too_large_waits_and_what_is_no_number_is_dropped);
  tcase_add_test(t, the_layout_is_the_documented_one);
  tcase_add_loop_test(t, every_table_makes_the_same_frame_and_sum, 0, n);
  tcase_add_test(t, a_sum_of_frames_has_the_bits_of_one_after_the_other);
  tcase_add_test(t, well_sealed_frames_cut_anywhere_are_refused);
  tcase_add_test(t, lies_about_shape_and_numbers_that_are_none_are_refused);
  tcase_add_test(t, accepted_frames_of_any_bytes_are_finite);
  tcase_add_test(t, kernels_have_the_bits_of_the_definition);
  tcase_add_test(t, the_definition_multiplies_matrices);
  suite_add_tcase(s, t);
  return test_run(&s, 1);
}
