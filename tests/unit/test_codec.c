/* SPDX-License-Identifier: Apache-2.0
 *
 * Frames of every registered codec, by specs: what they carry, what they refuse, and that a refused frame changes nothing.
 */
#include "base/checksum.h"
#include "base/le.h"
#include "base/rng.h"
#include "codec/spec.h"
#include "kernel/kernel.h"
#include "tests/support/support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define N 257
#define FRAME_BYTES_MAX (4096 + 16 * N) /* of N elements, whatever the codec */

/* Every spec that the tests below run with, and how far a decoded number may be from the encoded one:
 * of_self * |x| + of_max * the largest magnitude of the frame + absolute. A codec that is registered has a row at least. */
static const struct {
  const char *text;
  float of_self, of_max, absolute;
} specs[] = {
    {"float32", 0, 0, 0},
    {"float16", 0x1p-11f, 0, 0x1p-25f},
    {"bfloat16", 0x1p-8f, 0, 0x1p-134f},
    {"int8", 0, 0.5001f / 127, 0x1p-100f},
    {"int8(stochastic)", 0, 1.0001f / 127, 0x1p-100f},
    {"int8(shared)", 0, 1.0001f / 127, 0x1p-100f},
    {"int8(stochastic, shared)", 0, 2.0001f / 127, 0x1p-100f},
    {"int4", 0, 1.01f / 7, 0x1p-100f},
    {"int4(shared)", 0, 2.0001f / 7, 0x1p-100f},
    {"sign", 1, 1, 0x1p-100f},
    {"ternary", 0, 1, 0x1p-100f},
    {"qsgd(1)", 0, 1, 0x1p-100f},
    {"qsgd(4)", 0, 1.0001f / 4, 0x1p-100f},
    {"qsgd(127)", 0, 1.0001f / 127, 0x1p-100f},
    {"natural", 1, 0, 0x1p-120f},
    {"topk(1)", 0, 0, 0x1p-149f}, /* of -0 becomes 0 */
    {"topk(10%)", 0, 1, 0},
    {"topk(1%, float16)", 0, 1, 0},
    {"topk(30%, int8)", 0, 1, 0},
    {"topk(1%, 2bit)", 0, 1, 0},
    {"topk(5%, ternary)", 0, 1, 0},
    {"threshold(0.5)", 0, 0, 0.5f},
    {"threshold(1e-3, int8)", 0, 0x1p-7f, 1e-3f},
    {"threshold(1, ternary)", 0, 1, 0},
    {"randomk(25%)", 3, 0, 0x1p-149f},
    {"randomk(2%, ternary)", 1, 50, 0},
    {"float32+zstd", 0, 0, 0},
    {"int8+zstd", 0, 0.5001f / 127, 0x1p-100f},
    {"topk(10%)+zstd", 0, 1, 0},
    {"lowrank(1)", 0, 17, 0}, /* of_max: what is left out is no longer than the frame, the root of N times its largest */
    {"lowrank(4)", 0, 17, 0},
};

#define N_SPECS ((int)BL_COUNT_OF(specs))

static bl_codec_spec spec_of_loop(int i) {
  bl_codec_spec spec;
  bl_error err = BL_ERROR_INIT;
  ck_assert_ok_err(bl_codec_spec_read(specs[i].text, &spec, &err), err);
  return spec;
}

static size_t test_encode(const bl_codec_spec *spec, const float *x, float *residual, uint32_t n, uint32_t flags,
                          uint8_t *out) {
  return bl_codec_encode(&(bl_encode){.spec = spec, .key = 77}, x, residual, n, flags, out);
}

static void fill(float *x, uint64_t stream) {
  for (uint64_t i = 0; i < N; i++)
    x[i] = bl_rng_normal(5, stream, i) * (i % 7 == 0 ? 1e-6f : 1.0f);
}

static float max_magnitude(const float *x, size_t n) {
  float max = 0;
  for (size_t i = 0; i < n; i++)
    max = fmaxf(max, fabsf(x[i]));
  return max;
}

/* What a codec may make of x. */
static bool near_enough(int row, float x, float got, float max) {
  float bound = fabsf(x) * specs[row].of_self + max * specs[row].of_max + specs[row].absolute;
  return bound == 0 ? memcmp(&x, &got, sizeof x) == 0 : fabsf(x - got) <= bound;
}

START_TEST(every_codec_has_an_id_a_name_and_a_tested_spec) {
  for (size_t i = 0; bl_codec_at(i) != NULL; i++) {
    const bl_codec *c = bl_codec_at(i);
    bool tested = c->id == BL_CODEC_ZSTD; /* a stage behind others: a spec that ends in +zstd */
    ck_assert_ptr_eq(bl_codec_by_id(c->id), c);
    ck_assert_ptr_eq(bl_codec_by_name(c->name), c);
    for (int k = 0; k < N_SPECS; k++)
      tested |= spec_of_loop(k).codec == c;
    ck_assert_msg(tested, "no spec of %s is tested", c->name);
  }
  ck_assert_ptr_eq(bl_codec_by_name("none"), bl_codec_by_id(BL_CODEC_FLOAT32));
  ck_assert_ptr_null(bl_codec_by_name("float8"));
  ck_assert_ptr_null(bl_codec_by_id(BL_CODEC_INVALID));
  ck_assert_ptr_null(bl_codec_by_id((bl_codec_id)200));
}
END_TEST

START_TEST(frames_of_every_length_and_alignment_come_back) {
  bl_codec_spec spec = spec_of_loop(_i);
  float x[N], y[N + 1];
  fill(x, 1);
  uint8_t memory[FRAME_BYTES_MAX + 8];
  for (uint32_t n = 0; n <= N; n++) {
    uint8_t *frame = memory + n % 8;
    float max = max_magnitude(x, n);
    memset(memory, 0xee, sizeof memory);
    size_t size = test_encode(&spec, x, NULL, n, BL_CODEC_REPLACE, frame), bound = bl_codec_bound_bytes(&spec, n);
    ck_assert_uint_le(size, bound);
    ck_assert_uint_le(bound, FRAME_BYTES_MAX);
    ck_assert_uint_eq(frame[bound], 0xee);
    y[n] = 42;
    bl_error err = BL_ERROR_INIT;
    ck_assert_ok_err(bl_codec_apply(frame, size, n, y, &err), err);
    for (uint32_t i = 0; i < n; i++)
      ck_assert_msg(near_enough(_i, x[i], y[i], max), "%s n %u: %a became %a", specs[_i].text, n, x[i], y[i]);
    ck_assert(y[n] == 42);
  }
}
END_TEST

START_TEST(a_difference_is_added_and_a_replacement_stored) {
  bl_codec_spec spec = spec_of_loop(_i);
  float x[N], sum[N], y[N], scaled[N], decoded[N];
  uint8_t frame[FRAME_BYTES_MAX];
  fill(x, 2);
  for (size_t i = 0; i < N; i++)
    y[i] = sum[i] = scaled[i] = 1000;
  size_t size = test_encode(&spec, x, NULL, N, 0, frame);
  bl_codec_view v;
  ck_assert_ok(bl_codec_open(frame, size, N, &v, NULL));
  ck_assert_uint_eq(v.flags, 0);
  v.codec->decode(&v, decoded);
  ck_assert_ok(bl_codec_apply(frame, size, N, sum, NULL));
  ck_assert_ok(bl_codec_accumulate(frame, size, N, -0.5f, scaled, NULL));
  size = test_encode(&spec, x, NULL, N, BL_CODEC_REPLACE, frame);
  ck_assert_ok(bl_codec_apply(frame, size, N, y, NULL));
  for (size_t i = 0; i < N; i++) {
    ck_assert_float_eq(sum[i], 1000 + decoded[i]);
    ck_assert_float_eq(scaled[i], 1000 - 0.5f * decoded[i]);
    ck_assert_float_eq(y[i], decoded[i]);
  }
}
END_TEST

/* The sum of several frames in one pass, stored and added, has the bits of one after the other. */
START_TEST(a_sum_of_frames_has_the_bits_of_one_after_the_other) {
  enum { VIEWS = 19 };
  bl_codec_spec spec = spec_of_loop(_i);
  float x[N], y[N], want[N];
  static uint8_t frames[VIEWS][FRAME_BYTES_MAX];
  bl_codec_view views[VIEWS];
  for (uint32_t k = 0; k < VIEWS; k++) {
    fill(x, 40 + k % 3); /* the same scales in some blocks, others in others */
    size_t size = bl_codec_encode(&(bl_encode){.spec = &spec, .key = k}, x, NULL, N, 0, frames[k]);
    ck_assert_ok(bl_codec_open(frames[k], size, N, &views[k], NULL));
  }
  for (size_t t = 0; bl_kernels_at(t) != NULL; t++) {
    ck_assert_ok(bl_kernels_force(bl_kernels_at(t)->name, NULL));
    for (uint32_t n_views = 1; n_views <= VIEWS; n_views++) {
      for (int store = 0; store < 2; store++) {
        fill(y, 39);
        fill(want, 39);
        for (uint32_t k = 0; k < n_views; k++) {
          if (k == 0 && store == 1)
            views[k].codec->decode(&views[k], want);
          else
            views[k].codec->accumulate(&views[k], 1, want);
        }
        bl_codec_sum(views, n_views, store == 1, y);
        ck_assert_msg(memcmp(y, want, sizeof y) == 0, "%s: %u frames, store %d, table %zu", specs[_i].text, n_views,
                      store, t);
      }
    }
  }
}
END_TEST

START_TEST(exact_codecs_keep_every_bit_pattern) {
  bl_codec_spec spec = spec_of_loop(_i);
  if (!bl_codec_spec_is_exact(&spec))
    return;
  uint32_t bits[N], back[N];
  uint8_t frame[FRAME_BYTES_MAX];
  for (size_t i = 0; i < N; i++)
    bits[i] = i < 4 ? 0x7f800001u + (uint32_t)i : (uint32_t)bl_rng_u64(9, 0, i); /* signalling NaNs too */
  size_t size = test_encode(&spec, (const float *)(const void *)bits, NULL, N, BL_CODEC_REPLACE, frame);
  ck_assert_ok(bl_codec_apply(frame, size, N, (float *)(void *)back, NULL));
  ck_assert_mem_eq(bits, back, sizeof bits);
}
END_TEST

START_TEST(what_a_frame_does_not_carry_stays_in_the_residual) {
  bl_codec_spec spec = spec_of_loop(_i);
  float x[N], residual[N] = {0}, y[N];
  double total[N] = {0}, sent[N] = {0}, moved[N] = {0};
  uint8_t frame[FRAME_BYTES_MAX];
  for (uint64_t round = 0; round < 50; round++) {
    fill(x, 100 + round);
    bl_encode e = {.spec = &spec, .key = round};
    size_t size = bl_codec_encode(&e, x, residual, N, BL_CODEC_REPLACE, frame);
    ck_assert_ok(bl_codec_apply(frame, size, N, y, NULL));
    for (size_t i = 0; i < N; i++) {
      total[i] += (double)x[i];
      sent[i] += (double)y[i];
      moved[i] += fabs((double)x[i]) + fabs((double)y[i]) + fabs((double)residual[i]);
    }
  }
  for (size_t i = 0; i < N; i++) {
    if (bl_codec_spec_is_exact(&spec))
      ck_assert(residual[i] == 0);
    /* float32 rounding of 50 sums; without feedback float16 alone loses some 1e-3 */
    ck_assert_double_eq_tol(sent[i] + (double)residual[i], total[i], 1e-6 * moved[i]);
  }
}
END_TEST

START_TEST(a_residual_delivers_what_was_too_small_to_send) {
  bl_codec_spec spec = {.codec = bl_codec_by_id(BL_CODEC_FLOAT16)};
  float x = 0x1p-26f, residual = 0, y = 0; /* a quarter of the smallest half */
  uint8_t frame[32];
  for (int i = 0; i < 64; i++) {
    size_t size = test_encode(&spec, &x, &residual, 1, 0, frame);
    ck_assert_ok(bl_codec_apply(frame, size, 1, &y, NULL));
  }
  ck_assert_float_eq(y + residual, 64 * 0x1p-26f);
  ck_assert_float_gt(y, 0);
}
END_TEST

START_TEST(float16_saturates_and_keeps_the_rest_back) {
  bl_codec_spec spec = {.codec = bl_codec_by_id(BL_CODEC_FLOAT16)};
  float x[5] = {1e6f, -1e30f, INFINITY, -INFINITY, NAN}, residual[5] = {0, 0, 1, 1, 1}, y[5];
  uint8_t frame[64];
  size_t size = test_encode(&spec, x, residual, 5, BL_CODEC_REPLACE, frame);
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
  bl_codec_spec spec = spec_of_loop(_i);
  float x[N], first_residual[N], residual[N];
  uint8_t first[FRAME_BYTES_MAX], frame[FRAME_BYTES_MAX];
  size_t first_size = 0;
  fill(x, 3);
  for (size_t t = 0; bl_kernels_at(t) != NULL; t++) {
    ck_assert_ok(bl_kernels_force(bl_kernels_at(t)->name, NULL));
    fill(residual, 4);
    size_t size = test_encode(&spec, x, residual, N, 0, t == 0 ? first : frame);
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
  bl_codec_spec spec = {.codec = bl_codec_by_name("float16")};
  ck_assert_uint_eq(test_encode(&spec, x, NULL, 2, BL_CODEC_REPLACE, frame), 20);
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
  bl_codec_spec spec = spec_of_loop(_i);
  float x[N];
  uint8_t frame[FRAME_BYTES_MAX + 1] = {0};
  fill(x, 1);
  size_t size = test_encode(&spec, x, NULL, N, 0, frame);
  for (size_t cut = 0; cut < size; cut++)
    assert_refused(frame, cut, N, BL_ECORRUPT, cut < 16 ? "header" : "frame");
  assert_refused(frame, size + 1, N, BL_ECORRUPT, "frame");
}
END_TEST

START_TEST(any_flipped_bit_is_noticed) {
  bl_codec_spec spec = spec_of_loop(_i);
  float x[N];
  uint8_t frame[FRAME_BYTES_MAX];
  fill(x, 1);
  size_t size = test_encode(&spec, x, NULL, N, 0, frame);
  for (size_t bit = 0; bit < size * 8; bit++) {
    frame[bit / 8] ^= (uint8_t)(1u << bit % 8);
    assert_refused(frame, size, N, BL_OK, "");
    frame[bit / 8] ^= (uint8_t)(1u << bit % 8);
  }
}
END_TEST

START_TEST(well_sealed_nonsense_is_refused_with_its_reason) {
  bl_codec_spec spec = spec_of_loop(_i);
  float x[N];
  uint8_t good[FRAME_BYTES_MAX];
  fill(x, 1);
  size_t size = test_encode(&spec, x, NULL, N, 0, good);
  static const struct {
    size_t offset;
    uint8_t value;
    bl_status status;
    const char *word;
  } cases[] = {
      {0, 0, BL_EUNSUPPORTED, "codec 0"},     {0, 255, BL_EUNSUPPORTED, "codec 255"}, {1, 2, BL_ECORRUPT, "flags 0x02"},
      {1, 0x81, BL_ECORRUPT, "flags 0x81"},   {3, 0x7f, BL_ECORRUPT, "parameter 32"},
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
  bl_codec_spec spec = spec_of_loop(_i);
  uint32_t n = BL_CODEC_ELEMS_MAX;
  float *x = calloc(n + 1, sizeof *x);
  uint8_t *frame = malloc(bl_codec_bound_bytes(&spec, n) + sizeof *x);
  x[n - 1] = 3;
  size_t size = test_encode(&spec, x, NULL, n, BL_CODEC_REPLACE, frame);
  x[n - 1] = 0;
  ck_assert_ok(bl_codec_apply(frame, size, n, x, NULL));
  ck_assert(near_enough(_i, 3, x[n - 1], 3));
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
      bl_codec_spec spec = spec_of_loop((int)(round / 2 % BL_COUNT_OF(specs)));
      bytes[0] = (uint8_t)spec.codec->id;
      bytes[1] &= 1;
      bytes[2] &= 7;
      memset(bytes + 3, 0, 5);
      bytes[4] = (uint8_t)n;
      reseal(bytes, size);
    }
    uint8_t *copy = malloc(size + 1);
    memcpy(copy, bytes, size);
    bl_error err = BL_ERROR_INIT;
    if (bl_codec_apply(copy, size, n, y, &err) != BL_OK)
      ck_assert(err.text[0] != '\0');
    free(copy);
  }
}
END_TEST

int main(void) {
  Suite *s = suite_create("codec");
  TCase *t = tcase_create("codec");
  tcase_set_timeout(t, 60);
  tcase_add_test(t, every_codec_has_an_id_a_name_and_a_tested_spec);
  tcase_add_loop_test(t, frames_of_every_length_and_alignment_come_back, 0, N_SPECS);
  tcase_add_loop_test(t, a_difference_is_added_and_a_replacement_stored, 0, N_SPECS);
  tcase_add_loop_test(t, a_sum_of_frames_has_the_bits_of_one_after_the_other, 0, N_SPECS);
  tcase_add_loop_test(t, exact_codecs_keep_every_bit_pattern, 0, N_SPECS);
  tcase_add_loop_test(t, what_a_frame_does_not_carry_stays_in_the_residual, 0, N_SPECS);
  tcase_add_test(t, a_residual_delivers_what_was_too_small_to_send);
  tcase_add_test(t, float16_saturates_and_keeps_the_rest_back);
  tcase_add_loop_test(t, every_table_makes_the_same_frame, 0, N_SPECS);
  tcase_add_test(t, the_layout_is_the_documented_one);
  tcase_add_loop_test(t, frames_cut_anywhere_are_refused, 0, N_SPECS);
  tcase_add_loop_test(t, any_flipped_bit_is_noticed, 0, N_SPECS);
  tcase_add_loop_test(t, well_sealed_nonsense_is_refused_with_its_reason, 0, N_SPECS);
  tcase_add_loop_test(t, the_largest_chunk_fits_and_one_more_element_does_not, 0, N_SPECS);
  tcase_add_test(t, random_histories_of_bytes_never_decode_wrongly);
  suite_add_tcase(s, t);
  return test_run(&s, 1);
}
