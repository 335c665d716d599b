/* SPDX-License-Identifier: Apache-2.0
 *
 * Frames of every registered codec: what they carry, what they refuse, and that a refused frame changes nothing.
 */
#include "base/checksum.h"
#include "base/le.h"
#include "base/rng.h"
#include "codec/codec.h"
#include "kernel/kernel.h"
#include "tests/support/support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define N 257
#define FRAME_BYTES_MAX (BL_CODEC_HEADER_BYTES + 4 * N)

static const bl_codec *codec_of_loop(int i) {
  const bl_codec *c = bl_codec_at((size_t)i);
  ck_assert_ptr_nonnull(c);
  return c;
}

#define N_CODECS 2

static size_t test_encode(const bl_codec *c, const float *x, float *residual, uint32_t n, uint32_t flags, uint8_t *out) {
  bl_codec_spec spec = {.codec = c};
  return bl_codec_encode(&(bl_encode){.spec = &spec}, x, residual, n, flags, out);
}

static void fill(float *x, uint64_t stream) {
  for (uint64_t i = 0; i < N; i++)
    x[i] = bl_rng_normal(5, stream, i) * (i % 7 == 0 ? 1e-6f : 1.0f);
}

/* The value a codec may make of x: x itself, or the nearest half. */
static bool near_enough(const bl_codec *c, float x, float got) {
  return c->exact ? memcmp(&x, &got, sizeof x) == 0 : fabsf(x - got) <= fabsf(x) * 0x1p-11f + 0x1p-25f;
}

START_TEST(every_codec_has_an_id_and_a_name_of_its_own) {
  size_t n = 0;
  for (const bl_codec *c; (c = bl_codec_at(n)) != NULL; n++) {
    ck_assert_ptr_eq(bl_codec_by_id(c->id), c);
    ck_assert_ptr_eq(bl_codec_by_name(c->name), c);
  }
  ck_assert_uint_eq(n, N_CODECS);
  ck_assert_ptr_eq(bl_codec_by_name("none"), bl_codec_by_id(BL_CODEC_FLOAT32));
  ck_assert_ptr_null(bl_codec_by_name("float8"));
  ck_assert_ptr_null(bl_codec_by_id(BL_CODEC_INVALID));
  ck_assert_ptr_null(bl_codec_by_id((bl_codec_id)200));
}
END_TEST

START_TEST(frames_of_every_length_and_alignment_come_back) {
  const bl_codec *c = codec_of_loop(_i);
  float x[N], y[N + 1];
  fill(x, 1);
  uint8_t memory[FRAME_BYTES_MAX + 8];
  for (uint32_t n = 0; n <= N; n++) {
    uint8_t *frame = memory + n % 8;
    memset(memory, 0xee, sizeof memory);
    size_t size = test_encode(c, x, NULL, n, BL_CODEC_REPLACE, frame);
    ck_assert_uint_le(size, bl_codec_bound_bytes(&(bl_codec_spec){.codec = c}, n));
    ck_assert_uint_eq(frame[size], 0xee);
    y[n] = 42;
    bl_error err = BL_ERROR_INIT;
    ck_assert_ok_err(bl_codec_apply(frame, size, n, y, &err), err);
    for (uint32_t i = 0; i < n; i++)
      ck_assert_msg(near_enough(c, x[i], y[i]), "%s n %u: %a became %a", c->name, n, x[i], y[i]);
    ck_assert(y[n] == 42);
  }
}
END_TEST

START_TEST(a_difference_is_added_and_a_replacement_stored) {
  const bl_codec *c = codec_of_loop(_i);
  float x[N], sum[N], y[N], scaled[N];
  uint8_t frame[FRAME_BYTES_MAX];
  for (size_t i = 0; i < N; i++) {
    x[i] = (float)i * 0.25f; /* exact in float16 */
    y[i] = sum[i] = scaled[i] = 1000;
  }
  size_t size = test_encode(c, x, NULL, N, 0, frame);
  bl_codec_view v;
  ck_assert_ok(bl_codec_open(frame, size, N, &v, NULL));
  ck_assert_uint_eq(v.flags, 0);
  ck_assert_ok(bl_codec_apply(frame, size, N, sum, NULL));
  ck_assert_ok(bl_codec_accumulate(frame, size, N, -0.5f, scaled, NULL));
  size = test_encode(c, x, NULL, N, BL_CODEC_REPLACE, frame);
  ck_assert_ok(bl_codec_apply(frame, size, N, y, NULL));
  for (size_t i = 0; i < N; i++) {
    ck_assert_float_eq(sum[i], 1000 + x[i]);
    ck_assert_float_eq(scaled[i], 1000 - 0.5f * x[i]);
    ck_assert_float_eq(y[i], x[i]);
  }
}
END_TEST

START_TEST(exact_codecs_keep_every_bit_pattern) {
  const bl_codec *c = codec_of_loop(_i);
  if (!c->exact)
    return;
  uint32_t bits[N], back[N];
  uint8_t frame[FRAME_BYTES_MAX];
  for (size_t i = 0; i < N; i++)
    bits[i] = i < 4 ? 0x7f800001u + (uint32_t)i : (uint32_t)bl_rng_u64(9, 0, i); /* signalling NaNs too */
  size_t size = test_encode(c, (const float *)(const void *)bits, NULL, N, BL_CODEC_REPLACE, frame);
  ck_assert_ok(bl_codec_apply(frame, size, N, (float *)(void *)back, NULL));
  ck_assert_mem_eq(bits, back, sizeof bits);
}
END_TEST

START_TEST(what_a_frame_does_not_carry_stays_in_the_residual) {
  const bl_codec *c = codec_of_loop(_i);
  float x[N], residual[N] = {0}, sent[N] = {0};
  double total[N] = {0};
  uint8_t frame[FRAME_BYTES_MAX];
  for (uint64_t round = 0; round < 50; round++) {
    fill(x, 100 + round);
    for (size_t i = 0; i < N; i++)
      total[i] += (double)x[i];
    size_t size = test_encode(c, x, residual, N, 0, frame);
    ck_assert_ok(bl_codec_apply(frame, size, N, sent, NULL));
  }
  for (size_t i = 0; i < N; i++) {
    if (c->exact)
      ck_assert(residual[i] == 0);
    /* float32 rounding of 50 sums; without feedback float16 alone loses some 1e-3 */
    ck_assert_double_eq_tol((double)sent[i] + (double)residual[i], total[i], 2e-5);
  }
}
END_TEST

START_TEST(a_residual_delivers_what_was_too_small_to_send) {
  const bl_codec *c = bl_codec_by_id(BL_CODEC_FLOAT16);
  float x = 0x1p-26f, residual = 0, y = 0; /* a quarter of the smallest half */
  uint8_t frame[32];
  for (int i = 0; i < 64; i++) {
    size_t size = test_encode(c, &x, &residual, 1, 0, frame);
    ck_assert_ok(bl_codec_apply(frame, size, 1, &y, NULL));
  }
  ck_assert_float_eq(y + residual, 64 * 0x1p-26f);
  ck_assert_float_gt(y, 0);
}
END_TEST

START_TEST(float16_saturates_and_keeps_the_rest_back) {
  const bl_codec *c = bl_codec_by_id(BL_CODEC_FLOAT16);
  float x[5] = {1e6f, -1e30f, INFINITY, -INFINITY, NAN}, residual[5] = {0, 0, 1, 1, 1}, y[5];
  uint8_t frame[64];
  size_t size = test_encode(c, x, residual, 5, BL_CODEC_REPLACE, frame);
  ck_assert_ok(bl_codec_apply(frame, size, 5, y, NULL));
  ck_assert_float_eq(y[0], 65504);
  ck_assert_float_eq(y[1], -65504);
  ck_assert_float_eq(residual[0], 1e6f - 65504);
  ck_assert(isinf(y[2]) && y[2] > 0 && isinf(y[3]) && y[3] < 0 && isnan(y[4]));
  for (size_t i = 2; i < 5; i++)
    ck_assert_msg(residual[i] == 0, "a residual is always finite");
}
END_TEST

START_TEST(every_table_makes_the_same_frame) {
  const bl_codec *c = codec_of_loop(_i);
  float x[N], first_residual[N], residual[N];
  uint8_t first[FRAME_BYTES_MAX], frame[FRAME_BYTES_MAX];
  size_t first_size = 0;
  fill(x, 3);
  for (size_t t = 0; bl_kernels_at(t) != NULL; t++) {
    ck_assert_ok(bl_kernels_force(bl_kernels_at(t)->name, NULL));
    fill(residual, 4);
    size_t size = test_encode(c, x, residual, N, 0, t == 0 ? first : frame);
    if (t == 0) {
      first_size = size;
      memcpy(first_residual, residual, sizeof residual);
    } else {
      ck_assert_uint_eq(size, first_size);
      ck_assert_mem_eq(frame, first, size);
      ck_assert_mem_eq(residual, first_residual, sizeof residual);
    }
  }
}
END_TEST

START_TEST(the_layout_is_the_documented_one) {
  /* The example of codec.h: id 2, flag 1, no parameter, n = 2, checksum seeded with those 8 bytes. */
  static const float x[2] = {1, -2};
  static const uint8_t want[20] = {2,    1,    0,    0,    2,    0,    0,    0,    0xc6, 0xdc,
                                   0xbd, 0x63, 0xd9, 0x5b, 0x79, 0x87, 0x00, 0x3c, 0x00, 0xc0};
  uint8_t frame[20];
  ck_assert_uint_eq(test_encode(bl_codec_by_name("float16"), x, NULL, 2, BL_CODEC_REPLACE, frame), 20);
  ck_assert_mem_eq(frame, want, 20);
  ck_assert_uint_eq(bl_le_get64(frame + 8), bl_checksum_seeded(frame + 16, 4, UINT64_C(0x0000000200000102)));
}
END_TEST

/* Refused, with a sentence, and y as it was. */
static void assert_refused(const uint8_t *frame, size_t size, uint32_t n, bl_status expected, const char *word) {
  float y[N], before[N];
  fill(y, 8);
  memcpy(before, y, sizeof y);
  uint8_t *copy = malloc(size > 0 ? size : 1); /* of exactly this size: sanitizers see reads behind it */
  memcpy(copy, frame, size);
  bl_error err = BL_ERROR_INIT;
  bl_codec_view v = {0};
  bl_status status = bl_codec_open(copy, size, n, &v, &err);
  if (expected != BL_OK)
    ck_assert_msg(status == expected, "is %s, expected %s: %s", bl_status_name(status), bl_status_name(expected),
                  err.text);
  ck_assert_int_ne(status, BL_OK);
  ck_assert_msg(strstr(err.text, word) != NULL, "\"%s\" does not say \"%s\"", err.text, word);
  ck_assert_ptr_null(v.codec);
  ck_assert_status(bl_codec_apply(copy, size, n, y, NULL), status);
  ck_assert_status(bl_codec_accumulate(copy, size, n, 2, y, NULL), status);
  ck_assert_mem_eq(y, before, sizeof y);
  free(copy);
}

/* Makes the checksum right again, so that only the change itself can be noticed. */
static void reseal(uint8_t *frame, size_t size) {
  bl_le_put64(frame + 8, bl_checksum_seeded(frame + 16, size - 16, bl_le_get64(frame)));
}

START_TEST(frames_cut_anywhere_are_refused) {
  const bl_codec *c = codec_of_loop(_i);
  float x[N];
  uint8_t frame[FRAME_BYTES_MAX + 1] = {0};
  fill(x, 1);
  size_t size = test_encode(c, x, NULL, N, 0, frame);
  for (size_t cut = 0; cut < size; cut++)
    assert_refused(frame, cut, N, BL_ECORRUPT, cut < 16 ? "header" : "frame");
  assert_refused(frame, size + 1, N, BL_ECORRUPT, "frame");
}
END_TEST

START_TEST(any_flipped_bit_is_noticed) {
  const bl_codec *c = codec_of_loop(_i);
  float x[N];
  uint8_t frame[FRAME_BYTES_MAX];
  fill(x, 1);
  size_t size = test_encode(c, x, NULL, N, 0, frame);
  for (size_t bit = 0; bit < size * 8; bit++) {
    frame[bit / 8] ^= (uint8_t)(1u << bit % 8);
    assert_refused(frame, size, N, BL_OK, "");
    frame[bit / 8] ^= (uint8_t)(1u << bit % 8);
  }
}
END_TEST

START_TEST(well_sealed_nonsense_is_refused_with_its_reason) {
  const bl_codec *c = codec_of_loop(_i);
  float x[N];
  uint8_t good[FRAME_BYTES_MAX];
  fill(x, 1);
  size_t size = test_encode(c, x, NULL, N, 0, good);
  static const struct {
    size_t offset;
    uint8_t value;
    bl_status status;
    const char *word;
  } cases[] = {
      {0, 0, BL_EUNSUPPORTED, "codec 0"},     {0, 255, BL_EUNSUPPORTED, "codec 255"}, {1, 2, BL_ECORRUPT, "flags 0x02"},
      {1, 0x81, BL_ECORRUPT, "flags 0x81"},   {2, 7, BL_ECORRUPT, "parameter 7"},     {3, 1, BL_ECORRUPT, "parameter 256"},
      {4, 0, BL_EMISMATCH, "256 elements, 257"}, {7, 0x80, BL_ELIMIT, "at most 262144"},
  };
  for (size_t i = 0; i < BL_COUNT_OF(cases); i++) {
    uint8_t frame[FRAME_BYTES_MAX];
    memcpy(frame, good, size);
    frame[cases[i].offset] = cases[i].value;
    reseal(frame, size);
    assert_refused(frame, size, N, cases[i].status, cases[i].word);
  }
  assert_refused(good, size, N - 1, BL_EMISMATCH, "256 are expected");
}
END_TEST

START_TEST(the_largest_chunk_fits_and_one_more_element_does_not) {
  const bl_codec *c = codec_of_loop(_i);
  uint32_t n = BL_CODEC_ELEMS_MAX;
  float *x = calloc(n + 1, sizeof *x);
  uint8_t *frame = malloc(bl_codec_bound_bytes(&(bl_codec_spec){.codec = c}, n) + sizeof *x);
  x[n - 1] = 3;
  size_t size = test_encode(c, x, NULL, n, BL_CODEC_REPLACE, frame);
  x[n - 1] = 0;
  ck_assert_ok(bl_codec_apply(frame, size, n, x, NULL));
  ck_assert_float_eq(x[n - 1], 3);
  bl_le_put32(frame + 4, n + 1);
  bl_error err = BL_ERROR_INIT;
  ck_assert_status(bl_codec_apply(frame, size, n + 1, x, &err), BL_ELIMIT);
  free(x);
  free(frame);
}
END_TEST

START_TEST(random_histories_of_bytes_never_decode_wrongly) {
  uint8_t bytes[96];
  float y[64];
  for (uint64_t round = 0; round < 20000; round++) {
    size_t size = bl_rng_below(11, 1, round, sizeof bytes);
    for (size_t i = 0; i < size; i++)
      bytes[i] = (uint8_t)bl_rng_u64(11, 2, round * 128 + i);
    uint32_t n = (uint32_t)bl_rng_below(11, 3, round, 21);
    if (size >= 16 && round % 2 == 0) { /* get past the first checks */
      bytes[0] = (uint8_t)(1 + round / 2 % 2);
      bytes[1] &= 1;
      memset(bytes + 2, 0, 6);
      bytes[4] = (uint8_t)n;
      reseal(bytes, size);
    }
    uint8_t *copy = malloc(size + 1);
    memcpy(copy, bytes, size);
    bl_status status = bl_codec_apply(copy, size, n, y, NULL);
    if (status == BL_OK)
      ck_assert_uint_eq(size, bl_codec_bound_bytes(&(bl_codec_spec){.codec = bl_codec_by_id((bl_codec_id)bytes[0])}, n));
    free(copy);
  }
}
END_TEST

int main(void) {
  Suite *s = suite_create("codec");
  TCase *t = tcase_create("codec");
  tcase_set_timeout(t, 60);
  tcase_add_test(t, every_codec_has_an_id_and_a_name_of_its_own);
  tcase_add_loop_test(t, frames_of_every_length_and_alignment_come_back, 0, N_CODECS);
  tcase_add_loop_test(t, a_difference_is_added_and_a_replacement_stored, 0, N_CODECS);
  tcase_add_loop_test(t, exact_codecs_keep_every_bit_pattern, 0, N_CODECS);
  tcase_add_loop_test(t, what_a_frame_does_not_carry_stays_in_the_residual, 0, N_CODECS);
  tcase_add_test(t, a_residual_delivers_what_was_too_small_to_send);
  tcase_add_test(t, float16_saturates_and_keeps_the_rest_back);
  tcase_add_loop_test(t, every_table_makes_the_same_frame, 0, N_CODECS);
  tcase_add_test(t, the_layout_is_the_documented_one);
  tcase_add_loop_test(t, frames_cut_anywhere_are_refused, 0, N_CODECS);
  tcase_add_loop_test(t, any_flipped_bit_is_noticed, 0, N_CODECS);
  tcase_add_loop_test(t, well_sealed_nonsense_is_refused_with_its_reason, 0, N_CODECS);
  tcase_add_loop_test(t, the_largest_chunk_fits_and_one_more_element_does_not, 0, N_CODECS);
  tcase_add_test(t, random_histories_of_bytes_never_decode_wrongly);
  suite_add_tcase(s, t);
  return test_run(&s, 1);
}
