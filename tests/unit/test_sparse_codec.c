/* SPDX-License-Identifier: Apache-2.0
 *
 * Sparse codecs: which elements are kept, what they and their indices cost, that nothing is lost between rounds, and
 * what frames may not say.
 */
#include "base/alloc.h"
#include "base/checksum.h"
#include "base/le.h"
#include "base/num.h"
#include "base/rng.h"
#include "codec/select.h"
#include "codec/spec.h"
#include "kernel/kernel.h"
#include "kernel/sparse.h"
#include "tests/support/support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK BL_CODEC_ELEMS_MAX
#define HEADER BL_CODEC_HEADER_BYTES

static const char *const specs[] = {
    "topk(1%)",           "topk(1%, float16)", "topk(2%, int8)",       "topk(1%, 2bit)",        "topk(1%, ternary)",
    "topk(50%, int8)",    "topk(1, ternary)",  "topk(0.1%, ternary)",  "threshold(2)",          "threshold(2.5, ternary)",
    "threshold(1, int8)", "threshold(2,2bit)", "randomk(1%, float16)", "randomk(10%, ternary)", "randomk(2%)",
};
#define N_SPECS ((int)BL_COUNT_OF(specs))

static bl_codec_spec spec_of(const char *text) {
  bl_codec_spec spec;
  bl_error err = BL_ERROR_INIT;
  ck_assert_ok_err(bl_codec_spec_read(text, &spec, &err), err);
  return spec;
}

static float *numbers(size_t n, uint64_t stream) {
  float *x = malloc((n + 1) * sizeof *x);
  for (size_t i = 0; i < n; i++)
    x[i] = bl_rng_normal(31, stream, i);
  return x;
}

static uint8_t *frame_for(const bl_codec_spec *spec, uint32_t n) {
  size_t bound = bl_codec_bound_bytes(spec, n);
  uint8_t *frame = malloc(bound + 8);
  memset(frame + bound, 0xab, 8);
  return frame;
}

static void assert_within_bound(const bl_codec_spec *spec, uint32_t n, const uint8_t *frame, size_t size) {
  size_t bound = bl_codec_bound_bytes(spec, n);
  ck_assert_uint_le(size, bound);
  for (int i = 0; i < 8; i++)
    ck_assert_uint_eq(frame[bound + (size_t)i], 0xab);
}

static uint32_t nonzeros(const float *y, uint32_t n) {
  uint32_t count = 0;
  for (uint32_t i = 0; i < n; i++)
    count += y[i] != 0;
  return count;
}

static uint32_t kept_of(const uint8_t *frame) {
  uint32_t n = bl_le_get32(frame + 4), k = 0;
  memcpy(&k, frame + HEADER, n < 256 ? 1 : n < 65536 ? 2 : 3);
  return k;
}

static int by_size(const void *a, const void *b) {
  float x = fabsf(*(const float *)a), y = fabsf(*(const float *)b);
  return (x < y) - (x > y);
}

/* What topk means, by sorting: larger ones first, then lower indices; no zeros. */
static void largest(const float *x, uint32_t n, uint32_t k, float *y) {
  float *sorted = malloc(n * sizeof *x);
  uint32_t equals = k;
  memcpy(sorted, x, n * sizeof *x);
  qsort(sorted, n, sizeof *sorted, by_size);
  float last = fabsf(sorted[k - 1]);
  for (uint32_t i = 0; i < n; i++)
    equals -= fabsf(x[i]) > last;
  for (uint32_t i = 0; i < n; i++) {
    bool equal = fabsf(x[i]) == last && equals > 0;
    equals -= equal;
    y[i] = fabsf(x[i]) > last || equal ? x[i] : 0;
  }
  free(sorted);
}

/* Where two arrays differ first, n if nowhere: one assertion for many numbers, since each writes to a pipe. */
static uint32_t first_other(const float *a, const float *b, uint32_t n) {
  uint32_t i = 0;
  while (i < n && a[i] == b[i])
    i++;
  return i;
}

/* Shapes of data that have fooled selections: the ith number of n. */
static float shaped(int shape, uint32_t i, uint32_t n) {
  float normal = bl_rng_normal(8, 1, i);
  switch (shape) {
  case 0: return normal;
  case 1: return (float)i;
  case 2: return (float)(n - i);
  case 3: return i % 3 == 0 ? -2.5f : 2.5f;
  case 4: return 0;
  case 5: return i % 997 == 5 ? normal : 0;
  case 6: return i < n / 50 ? normal * 1000 : normal * 1e-3f;
  case 7: return normal * 1e-42f;
  case 8: return i == n / 2 ? 1e38f : normal;
  default: return (float)(i % 7);
  }
}
#define N_SHAPES 10

START_TEST(topk_keeps_exactly_the_largest_of_any_data) {
  static const uint32_t lengths[] = {1, 2, 10, 256, 4096, 5000, 70001};
  static const char *const densities[] = {"topk(1)", "topk(10%)", "topk(1%)", "topk(0.1%)"};
  for (size_t l = 0; l < BL_COUNT_OF(lengths); l++) {
    uint32_t n = lengths[l];
    float *x = numbers(n, 1), *y = numbers(n, 2), *want = numbers(n, 3);
    for (uint32_t i = 0; i < n; i++)
      x[i] = shaped(_i, i, n);
    for (size_t d = 0; d < BL_COUNT_OF(densities); d++) {
      bl_codec_spec spec = spec_of(densities[d]);
      uint8_t *frame = frame_for(&spec, n);
      size_t size = bl_codec_encode(&(bl_encode){.spec = &spec}, x, NULL, n, BL_CODEC_REPLACE, frame);
      assert_within_bound(&spec, n, frame, size);
      ck_assert_ok(bl_codec_apply(frame, size, n, y, NULL));
      largest(x, n, (uint32_t)bl_select_wanted(spec.density, n), want);
      ck_assert_msg(first_other(y, want, n) == n, "shape %d, %s of %u, element %u", _i, densities[d], n,
                    first_other(y, want, n));
      free(frame);
    }
    free(x), free(y), free(want);
  }
}
END_TEST

START_TEST(a_threshold_of_the_tensor_never_keeps_more_than_the_limit) {
  const uint32_t n = 20000;
  bl_codec_spec spec = spec_of("topk(1%)");
  float *x = numbers(n, 1), *residual = calloc(n, sizeof *x), *y = numbers(n, 2), *want = numbers(n, 3);
  uint8_t *frame = frame_for(&spec, n);
  for (uint32_t i = 0; i < n; i++)
    x[i] = shaped(_i, i, n);
  largest(x, n, 2 * 200 + 64, want);
  bl_encode e = {.spec = &spec, .threshold = 1e-45f};
  size_t size = bl_codec_encode(&e, x, residual, n, 0, frame);
  assert_within_bound(&spec, n, frame, size);
  ck_assert_uint_le(kept_of(frame), 2 * 200 + 64);
  bl_codec_view v;
  ck_assert_ok(bl_codec_open(frame, size, n, &v, NULL));
  v.codec->decode(&v, y);
  ck_assert_uint_eq(first_other(y, want, n), n);
  for (uint32_t i = 0; i < n; i++)
    y[i] += residual[i];
  ck_assert_uint_eq(first_other(y, x, n), n);
  free(x), free(residual), free(y), free(want), free(frame);
}
END_TEST

START_TEST(threshold_keeps_what_reaches_it) {
  const uint32_t n = 3000;
  bl_codec_spec spec = spec_of("threshold(1.25)");
  float *x = numbers(n, 1), *y = numbers(n, 2);
  uint8_t *frame = frame_for(&spec, n);
  x[7] = 1.25f, x[8] = -1.25f, x[9] = nextafterf(1.25f, 0), x[10] = NAN, x[11] = -INFINITY;
  size_t size = bl_codec_encode(&(bl_encode){.spec = &spec}, x, NULL, n, BL_CODEC_REPLACE, frame);
  ck_assert_ok(bl_codec_apply(frame, size, n, y, NULL));
  for (uint32_t i = 0; i < n; i++)
    ck_assert(y[i] == (fabsf(x[i]) >= 1.25f && isfinite(x[i]) ? x[i] : 0));
  free(x), free(y), free(frame);
}
END_TEST

START_TEST(what_is_not_finite_is_not_sent_and_not_kept_back) {
  const uint32_t n = 700;
  bl_codec_spec spec = spec_of(specs[_i]);
  float *x = numbers(n, 1), *residual = numbers(n, 2), *velocity = numbers(n, 3), *y = numbers(n, 4);
  uint8_t *frame = frame_for(&spec, n);
  for (uint32_t i = 0; i < n; i += 13)
    x[i] = i % 3 == 0 ? NAN : i % 3 == 1 ? INFINITY : -INFINITY;
  x[1] = 3e38f, residual[1] = 3e38f;
  bl_encode e = {.spec = &spec, .velocity = velocity, .momentum = 0.9f, .key = 4};
  for (int round = 0; round < 3; round++) {
    size_t size = bl_codec_encode(&e, x, round == 0 ? NULL : residual, n, BL_CODEC_REPLACE, frame);
    ck_assert_ok(bl_codec_apply(frame, size, n, y, NULL));
    bool finite = true;
    for (uint32_t i = 0; i < n; i++)
      finite &= isfinite(y[i]) && (round == 0 || (isfinite(residual[i]) && isfinite(velocity[i])));
    ck_assert(finite);
  }
  free(x), free(residual), free(velocity), free(y), free(frame);
}
END_TEST

/* Element by element: the sum of what went in is the sum of what was sent plus the residual, but for rounding. */
static void assert_conserved(const bl_codec_spec *spec, bool momentum, bool whole) {
  const uint32_t n = 3000, rounds = 60;
  const float m = 0.75f;
  float *residual = calloc(n, sizeof *residual), *velocity = calloc(n, sizeof *velocity), *y = calloc(n, sizeof *y);
  double *in = calloc(n, sizeof *in), *sent = calloc(n, sizeof *sent), *moved = calloc(n, sizeof *moved);
  uint8_t *frame = frame_for(spec, n);
  for (uint32_t round = 0; round < rounds; round++) {
    float *x = numbers(n, 50 + round);
    bl_encode e = {.spec = spec, .key = round, .velocity = momentum ? velocity : NULL, .momentum = m};
    bl_select_source source = {x, residual, e.velocity, m, n};
    bool masked = true;
    e.threshold = whole && spec->density > 0 ? bl_select_sampled(&source, spec->density, round) : 0;
    for (uint32_t i = 0; i < n; i++)
      in[i] += momentum ? (double)(m * velocity[i] + x[i]) : (double)x[i];
    size_t size = bl_codec_encode(&e, x, residual, n, BL_CODEC_REPLACE, frame);
    assert_within_bound(spec, n, frame, size);
    ck_assert_ok(bl_codec_apply(frame, size, n, y, NULL));
    for (uint32_t i = 0; i < n; i++) {
      sent[i] += (double)y[i];
      moved[i] += fabs((double)y[i]) + fabs((double)residual[i]) + fabs((double)x[i]);
      masked &= y[i] == 0 || !momentum || velocity[i] == 0;
    }
    ck_assert_msg(masked, "what is sent loses its momentum");
    free(x);
  }
  uint32_t lost = 0;
  for (uint32_t i = 0; i < n; i++)
    lost += !(fabs(sent[i] + (double)residual[i] - in[i]) <= 1e-6 * moved[i]);
  ck_assert_uint_eq(lost, 0);
  free(residual), free(velocity), free(y), free(in), free(sent), free(moved), free(frame);
}

START_TEST(a_residual_conserves_what_is_not_sent) {
  bl_codec_spec spec = spec_of(specs[_i]);
  assert_conserved(&spec, false, false);
  assert_conserved(&spec, false, true);
}
END_TEST

START_TEST(momentum_correction_conserves_what_is_not_sent) {
  bl_codec_spec spec = spec_of(specs[_i]);
  assert_conserved(&spec, true, false);
  assert_conserved(&spec, true, true);
}
END_TEST

/* Deep gradient compression written plainly, float32 values so that nothing is left of what is kept. */
START_TEST(momentum_correction_follows_the_paper) {
  const uint32_t n = 500;
  bl_codec_spec spec = spec_of("topk(2%)");
  float *u = calloc(n, sizeof *u), *v = calloc(n, sizeof *v), *ours_u = calloc(n, sizeof *u), *ours_v = calloc(n, sizeof *v);
  float *want = calloc(n, sizeof *u), *y = calloc(n, sizeof *y);
  uint8_t *frame = frame_for(&spec, n);
  for (uint32_t round = 0; round < 30; round++) {
    float *x = numbers(n, 80 + round);
    for (uint32_t i = 0; i < n; i++) {
      u[i] = 0.9f * u[i] + x[i];
      v[i] = v[i] + u[i];
    }
    largest(v, n, 10, want);
    for (uint32_t i = 0; i < n; i++) {
      if (want[i] != 0)
        u[i] = v[i] = 0;
    }
    bl_encode e = {.spec = &spec, .velocity = ours_u, .momentum = 0.9f};
    size_t size = bl_codec_encode(&e, x, ours_v, n, BL_CODEC_REPLACE, frame);
    ck_assert_ok(bl_codec_apply(frame, size, n, y, NULL));
    for (uint32_t i = 0; i < n; i++)
      ck_assert(y[i] == want[i] && ours_u[i] == u[i] && ours_v[i] == v[i]);
    free(x);
  }
  free(u), free(v), free(ours_u), free(ours_v), free(want), free(y), free(frame);
}
END_TEST

START_TEST(decoded_values_are_as_near_as_their_kind_says) {
  static const struct {
    const char *text;
    float of_self, of_max;
  } kinds[] = {{"topk(5%)", 0, 0}, {"topk(5%, float16)", 0x1p-11f, 0}, {"topk(5%, int8)", 0, 0.5f / 127},
               {"topk(5%, 2bit)", 0, 0.5f}, {"topk(5%, ternary)", 0, 0.8f}};
  static const uint32_t lengths[] = {1, 20, 255, 256, 257, 65535, 65536, 65537};
  bl_codec_spec spec = spec_of(kinds[_i].text);
  for (size_t l = 0; l < BL_COUNT_OF(lengths); l++) {
    uint32_t n = lengths[l];
    float *x = numbers(n, 1), *y = numbers(n, 2), max = 0;
    uint8_t *frame = frame_for(&spec, n);
    size_t size = bl_codec_encode(&(bl_encode){.spec = &spec}, x, NULL, n, BL_CODEC_REPLACE, frame);
    ck_assert_ok(bl_codec_apply(frame, size, n, y, NULL));
    ck_assert_uint_eq(nonzeros(y, n), bl_select_wanted(0.05f, n));
    for (uint32_t i = 0; i < n; i++)
      max = fmaxf(max, fabsf(x[i]));
    bool near = true;
    for (uint32_t i = 0; i < n; i++)
      near &= y[i] == 0 || fabsf(x[i] - y[i]) <= fabsf(x[i]) * kinds[_i].of_self + max * kinds[_i].of_max * 1.0001f;
    ck_assert(near);
    free(x), free(y), free(frame);
  }
}
END_TEST

/* log2 of the binomial coefficient. */
static double floor_bits(double n, double k) { return (lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)) / log(2); }

/* Value bytes of ternary: a magnitude and signs. */
static double index_bits(const uint8_t *frame, size_t size) {
  return 8 * (double)(size - HEADER - 3 - 4 - (kept_of(frame) + 7) / 8);
}

START_TEST(indices_cost_at_most_a_fiftieth_more_than_the_floor) {
  for (double density = 0.1; density > 0.00099; density *= 0.94) {
    bl_codec_spec spec = spec_of("topk(1%, ternary)");
    spec.density = (float)density;
    double bits = 0, least = 0;
    for (uint64_t chunk = 0; chunk < 4; chunk++) {
      float *x = numbers(CHUNK, chunk);
      uint8_t *frame = frame_for(&spec, CHUNK);
      size_t size = bl_codec_encode(&(bl_encode){.spec = &spec}, x, NULL, CHUNK, 0, frame);
      bits += index_bits(frame, size);
      least += floor_bits(CHUNK, kept_of(frame));
      free(x), free(frame);
    }
    ck_assert_msg(bits <= 1.02 * least, "density %g: %.4f of the floor", density, bits / least);
    density = density > 0.03 ? density : density * 0.6; /* fewer where codes differ less */
  }
}
END_TEST

START_TEST(a_ternary_frame_costs_at_most_a_fiftieth_more_than_the_floor_and_signs) {
  static const char *const texts[] = {"topk(10%, ternary)", "topk(3%, ternary)", "topk(1%, ternary)"};
  for (size_t t = 0; t < BL_COUNT_OF(texts); t++) {
    bl_codec_spec spec = spec_of(texts[t]);
    double bits = 0;
    size_t kept = 0;
    for (uint64_t chunk = 0; chunk < 4; chunk++) { /* a million elements */
      float *x = numbers(CHUNK, chunk);
      uint8_t *frame = frame_for(&spec, CHUNK);
      bits += 8 * (double)bl_codec_encode(&(bl_encode){.spec = &spec}, x, NULL, CHUNK, 0, frame);
      kept += kept_of(frame);
      free(x), free(frame);
    }
    double least = floor_bits(4 * CHUNK, (double)kept) + (double)kept;
    ck_assert_msg(bits <= 1.02 * least, "%s: %.4f of the floor", texts[t], bits / least);
  }
}
END_TEST

START_TEST(small_tensors_have_small_frames) {
  bl_codec_spec spec = spec_of("topk(10%, ternary)");
  uint8_t frame[4096];
  float *x = numbers(256, 1);
  ck_assert_uint_le(bl_codec_encode(&(bl_encode){.spec = &spec}, x, NULL, 10, 0, frame), HEADER + 7);
  ck_assert_uint_le(bl_codec_encode(&(bl_encode){.spec = &spec}, x, NULL, 256, 0, frame), HEADER + 27);
  free(x);
}
END_TEST

START_TEST(a_sampled_threshold_gives_about_the_density) {
  static const float densities[] = {0.1f, 0.01f, 0.001f};
  const size_t n = 500000;
  float *x = numbers(n, 1), *residual = numbers(n, 2), *velocity = numbers(n, 3);
  for (size_t d = 0; d < BL_COUNT_OF(densities); d++) {
    for (int feedback = 0; feedback < 3; feedback++) {
      bl_select_source s = {x, feedback > 0 ? residual : NULL, feedback > 1 ? velocity : NULL, 0.5f, n};
      float t = bl_select_sampled(&s, densities[d], 9), exact = bl_select_exact(&s, densities[d]);
      double reach = 0, reach_exact = 0;
      for (size_t i = 0; i < n; i++) {
        float v = x[i];
        if (feedback == 1)
          v = v + residual[i];
        if (feedback == 2)
          v = residual[i] + (0.5f * velocity[i] + v);
        reach += fabsf(v) >= t;
        reach_exact += fabsf(v) >= exact;
      }
      double wanted = (double)bl_select_wanted(densities[d], n);
      ck_assert_double_eq(reach_exact, wanted);
      ck_assert_double_eq_tol(reach / wanted, 1, 4 / sqrt(densities[d] * BL_SELECT_SAMPLES));
      ck_assert(t == bl_select_sampled(&s, densities[d], 9));
    }
  }
  free(x), free(residual), free(velocity);
}
END_TEST

START_TEST(thresholds_of_odd_data_are_above_zero) {
  const uint32_t n = 40000;
  float *x = numbers(n, 1);
  for (uint32_t i = 0; i < n; i++)
    x[i] = shaped(_i, i, n);
  bl_select_source s = {.x = x, .n = n};
  float sampled = bl_select_sampled(&s, 0.01f, 1), exact = bl_select_exact(&s, 0.01f);
  ck_assert(sampled > 0 && exact > 0 && isfinite(sampled) && isfinite(exact));
  ck_assert(bl_select_exact(&(bl_select_source){.x = x}, 0.01f) > 0);
  x[0] = NAN, x[1] = INFINITY;
  ck_assert(isfinite(bl_select_exact(&s, 1e-6f)));
  free(x);
}
END_TEST

START_TEST(randomk_is_unbiased_and_carries_no_index) {
  enum { N = 103, ROUNDS = 10000 };
  bl_codec_spec spec = spec_of("randomk(10%)");
  float *x = numbers(N, 5), y[N];
  double sum[N] = {0};
  uint8_t *frame = frame_for(&spec, N);
  for (uint64_t round = 0; round < ROUNDS; round++) {
    bl_encode e = {.spec = &spec, .key = bl_codec_key(1, 2, round, 3)};
    size_t size = bl_codec_encode(&e, x, NULL, N, BL_CODEC_REPLACE, frame);
    ck_assert_uint_eq(size, HEADER + 8 + 1 + 11 * 4);
    ck_assert_ok(bl_codec_apply(frame, size, N, y, NULL));
    for (size_t i = 0; i < N; i++)
      sum[i] += (double)y[i];
  }
  for (size_t i = 0; i < N; i++) /* kept one round in 10 with ten times its value: five standard deviations */
    ck_assert_double_eq_tol(sum[i] / ROUNDS, (double)x[i], 5 * fabs((double)x[i]) * sqrt(9.0 / ROUNDS));
  free(x), free(frame);
}
END_TEST

START_TEST(the_layout_is_the_documented_one) {
  static const uint8_t want[] = {0x0a, 0, 4, 3, 20, 0, 0, 0};
  static const uint8_t payload[] = {2, 0, 0, 0, 0x40, 2, 0x0a};
  bl_codec_spec spec = spec_of("topk(10%, ternary)");
  float x[20] = {[3] = 1, [4] = -3};
  uint8_t *frame = frame_for(&spec, 20);
  ck_assert_uint_eq(bl_codec_encode(&(bl_encode){.spec = &spec}, x, NULL, 20, 0, frame), HEADER + sizeof payload);
  ck_assert_mem_eq(frame, want, sizeof want);
  ck_assert_mem_eq(frame + HEADER, payload, sizeof payload);
  free(frame);
}
END_TEST

static void reseal(uint8_t *frame, size_t size) {
  bl_le_put64(frame + 8, bl_checksum_seeded(frame + 16, size - 16, bl_le_get64(frame)));
}

/* With its checksum made right, in memory of exactly its size; refused with a sentence, or decoded twice alike. */
static bl_status judge(const uint8_t *frame, size_t size, uint32_t n, bl_error *err) {
  uint8_t *copy = malloc(size);
  float *y = calloc(n, sizeof *y), *sum = calloc(n, sizeof *sum);
  memcpy(copy, frame, size);
  reseal(copy, size);
  bl_codec_view v;
  bl_status st = bl_codec_open(copy, size, n, &v, err);
  if (st == BL_OK) {
    v.codec->decode(&v, y);
    v.codec->accumulate(&v, 1, sum);
    bool fine = true; /* float32 behind zstd may carry anything */
    for (uint32_t i = 0; i < n; i++)
      fine &= frame[0] == BL_CODEC_ZSTD || (y[i] == sum[i] && isfinite(y[i]));
    ck_assert(fine);
  }
  free(copy), free(y), free(sum);
  return st;
}

START_TEST(frames_with_changed_bits_are_refused_or_decode_within_bounds) {
  const uint32_t n = 1500;
  bl_codec_spec spec = spec_of(specs[_i]);
  float *x = numbers(n, 1);
  uint8_t *frame = frame_for(&spec, n);
  size_t size = bl_codec_encode(&(bl_encode){.spec = &spec}, x, NULL, n, 0, frame);
  for (size_t bit = 8; bit < size * 8; bit++) {
    bl_error err = BL_ERROR_INIT;
    frame[bit / 8] ^= (uint8_t)(1u << bit % 8);
    if (judge(frame, size, n, &err) != BL_OK)
      ck_assert(err.text[0] != '\0');
    frame[bit / 8] ^= (uint8_t)(1u << bit % 8);
    bit += size > 600 ? 6 : 0;
  }
  free(x), free(frame);
}
END_TEST

/* The checksum is right again after the cut, so that the structure itself has to notice. */
START_TEST(frames_cut_anywhere_or_longer_are_refused_by_their_structure) {
  const uint32_t n = 1500;
  bl_codec_spec spec = spec_of(specs[_i]);
  float *x = numbers(n, 1);
  uint8_t *frame = frame_for(&spec, n);
  size_t size = bl_codec_encode(&(bl_encode){.spec = &spec}, x, NULL, n, 0, frame);
  ck_assert_ok(judge(frame, size, n, NULL));
  for (size_t cut = HEADER; cut < size; cut++)
    ck_assert_status(judge(frame, cut, n, NULL), BL_ECORRUPT);
  frame[size] = 0;
  ck_assert_status(judge(frame, size + 1, n, NULL), BL_ECORRUPT);
  frame[size] = 0xff;
  ck_assert_status(judge(frame, size + 1, n, NULL), BL_ECORRUPT);
  free(x), free(frame);
}
END_TEST

START_TEST(what_no_encoder_writes_is_refused_with_its_reason) {
  static const struct {
    const char *why, *word;
    uint8_t id, kind, code, n, size, payload[12];
  } cases[] = {
      {"an empty frame is fine", NULL, 10, 4, 1, 20, 1, {0}},
      {"no count", "no count", 10, 4, 1, 20, 0, {0}},
      {"more kept than there are", "keeps 21 of 20", 10, 4, 1, 20, 8, {21, 0, 0, 128, 63, 0, 0, 0}},
      {"values cut", "too short for 9 values", 10, 4, 1, 20, 5, {9, 0, 0, 128, 63}},
      {"a magnitude that is infinite", "magnitude 0 is inf", 10, 4, 3, 20, 7, {2, 0, 0, 0x80, 0x7f, 2, 10}},
      {"a magnitude that is NaN", "magnitude 0 is", 10, 4, 3, 20, 7, {2, 0, 0, 0xc0, 0x7f, 2, 10}},
      {"a negative magnitude", "magnitude 0 is -2", 10, 4, 3, 20, 7, {2, 0, 0, 0, 0xc0, 2, 10}},
      {"signs left over", "left over", 10, 4, 3, 20, 7, {2, 0, 0, 0, 0x40, 6, 10}},
      {"an index at n", "index 1 of 2", 10, 4, 3, 4, 7, {2, 0, 0, 0, 0x40, 2, 10}},
      {"a gap of zeros to the end", "index 0 of 2", 10, 4, 3, 20, 7, {2, 0, 0, 0, 0x40, 2, 0}},
      {"bits behind the last index", "end before", 10, 4, 3, 20, 7, {2, 0, 0, 0, 0x40, 2, 0x2a}},
      {"a byte behind the last index", "end before", 10, 4, 3, 20, 8, {2, 0, 0, 0, 0x40, 2, 10, 0}},
      {"lows cut", "too few", 10, 4, 32, 20, 7, {2, 0, 0, 0, 0x40, 2, 10}},
      {"a bitmap of another length", "bitmap of 20", 10, 4, 0, 20, 7, {2, 0, 0, 0, 0x40, 2, 10}},
      {"a bitmap with other ones", "has 1 ones", 10, 4, 0, 8, 7, {2, 0, 0, 0, 0x40, 2, 8}},
      {"a bitmap with a one behind n", "behind its end", 10, 4, 0, 7, 7, {2, 0, 0, 0, 0x40, 2, 129}},
      {"values of kind 5", "unknown kind", 10, 5, 2, 20, 7, {2, 0, 0, 0, 0x40, 2, 10}},
      {"index code 36", "unknown kind", 11, 4, 36, 20, 7, {2, 0, 0, 0, 0x40, 2, 10}},
      {"int8 of -128", "-128", 10, 2, 1, 20, 7, {1, 0, 0, 0, 0x40, 0x80, 1}},
      {"a scale that is infinite", "scale 0 is inf", 10, 2, 1, 20, 7, {1, 0, 0, 0x80, 0x7f, 1, 1}},
      {"a scale that makes infinity", "scale 0 is", 10, 2, 1, 20, 7, {1, 0, 0, 0x7f, 0x7f, 1, 1}},
      {"a float16 that is infinite", "not finite", 10, 1, 1, 20, 4, {1, 0, 0x7c, 1}},
      {"a float32 that is NaN", "not finite", 10, 0, 1, 20, 6, {1, 1, 0, 0x80, 0x7f, 1}},
      {"randomk without a key", "does not fit", 12, 4, 0, 20, 5, {1, 2, 3, 4, 5}},
      {"randomk of more than there are", "keeps 21", 12, 1, 0, 20, 11, {1, 2, 3, 4, 5, 6, 7, 8, 21, 0, 0}},
      {"randomk with bytes left over", "does not fit", 12, 1, 0, 20, 12, {1, 2, 3, 4, 5, 6, 7, 8, 1, 0, 0, 0}},
      {"randomk with an index code", "parameter 257", 12, 1, 1, 20, 11, {1, 2, 3, 4, 5, 6, 7, 8, 1, 0, 0}},
  };
  for (size_t i = 0; i < BL_COUNT_OF(cases); i++) {
    uint8_t frame[HEADER + 12] = {cases[i].id, 0, cases[i].kind, cases[i].code, cases[i].n};
    memcpy(frame + HEADER, cases[i].payload, cases[i].size);
    bl_error err = BL_ERROR_INIT;
    bl_status st = judge(frame, (size_t)HEADER + cases[i].size, cases[i].n, &err);
    ck_assert_msg(st == (cases[i].word == NULL ? BL_OK : BL_ECORRUPT), "%s: %s", cases[i].why, bl_status_name(st));
    ck_assert_msg(cases[i].word == NULL || strstr(err.text, cases[i].word) != NULL, "%s: %s", cases[i].why, err.text);
  }
}
END_TEST

START_TEST(well_sealed_random_bytes_never_reach_outside) {
  uint8_t bytes[160];
  for (uint64_t round = 0; round < 20000; round++) {
    size_t size = HEADER + bl_rng_below(12, 1, round, sizeof bytes - HEADER);
    uint64_t r = bl_rng_u64(12, 2, round);
    for (size_t i = 0; i < size; i += 8) {
      uint64_t word = bl_rng_u64(12, 3, round * 128 + i) & (r >> 60 < 8 ? UINT64_MAX : bl_rng_u64(12, 4, round * 128 + i));
      memcpy(bytes + i, &word, BL_MIN(size - i, (size_t)8));
    }
    uint32_t n = (uint32_t)(r % 300);
    bytes[0] = (uint8_t)(BL_CODEC_TOPK + r / 512 % 3);
    bytes[1] = 0;
    bytes[2] %= 5;
    bytes[3] = bytes[0] == BL_CODEC_RANDOMK ? 0 : bytes[3] % 14;
    bl_le_put32(bytes + 4, n);
    bytes[HEADER] %= 24;
    bytes[HEADER + 1] = n > 255 ? 0 : bytes[HEADER + 1];
    judge(bytes, size, n, NULL);
  }
}
END_TEST

/* zstd behind a codec. */

static size_t encode_steps(const char *text, uint32_t n, uint8_t **ret_frame, float **ret_x) {
  bl_codec_spec spec = spec_of(text);
  float *x = numbers(n, 1);
  for (uint32_t i = 0; i < n; i++)
    x[i] = (float)(i / 64 % 5);
  *ret_frame = frame_for(&spec, n);
  *ret_x = x;
  size_t size = bl_codec_encode(&(bl_encode){.spec = &spec}, x, NULL, n, BL_CODEC_REPLACE, *ret_frame);
  assert_within_bound(&spec, n, *ret_frame, size);
  return size;
}

START_TEST(zstd_makes_frames_with_structure_smaller_and_leaves_others) {
  static const char *const texts[] = {"float32+zstd", "int8+zstd", "topk(20%, int8)+zstd", "threshold(2, float16)+zstd"};
  for (size_t t = 0; t < BL_COUNT_OF(texts); t++) {
    for (uint32_t n = 1; n <= CHUNK; n = n < 3000 ? n * 7 : n < CHUNK ? CHUNK : CHUNK + 1) {
      char plain_text[64];
      uint8_t *frame, *plain;
      float *x, *y = calloc(n, sizeof *y), *want = calloc(n, sizeof *y);
      snprintf(plain_text, sizeof plain_text, "%.*s", (int)strcspn(texts[t], "+"), texts[t]);
      size_t plain_size = encode_steps(plain_text, n, &plain, &x);
      ck_assert_ok(bl_codec_apply(plain, plain_size, n, want, NULL));
      free(x);
      size_t size = encode_steps(texts[t], n, &frame, &x);
      ck_assert_ok(bl_codec_apply(frame, size, n, y, NULL));
      ck_assert_mem_eq(y, want, n * sizeof *y);
      ck_assert(frame[0] == BL_CODEC_ZSTD ? size < plain_size : size == plain_size);
      ck_assert(n < 3000 || frame[0] == BL_CODEC_ZSTD);
      ck_assert(n > 1 || frame[0] != BL_CODEC_ZSTD);
      free(x), free(y), free(want), free(frame), free(plain);
    }
  }
}
END_TEST

START_TEST(zstd_frames_that_are_changed_are_refused_or_decode_within_bounds) {
  const uint32_t n = 3000;
  uint8_t *frame;
  float *x;
  size_t size = encode_steps("float32+zstd", n, &frame, &x);
  ck_assert_uint_eq(frame[0], BL_CODEC_ZSTD);
  for (size_t cut = HEADER; cut < size; cut++)
    ck_assert_status(judge(frame, cut, n, NULL), BL_ECORRUPT);
  for (size_t bit = 8 * HEADER; bit < 8 * size; bit++) {
    frame[bit / 8] ^= (uint8_t)(1u << bit % 8);
    judge(frame, size, n, NULL);
    frame[bit / 8] ^= (uint8_t)(1u << bit % 8);
  }
  static const struct {
    size_t offset;
    uint8_t value;
    const char *word;
  } cases[] = {{2, 1, "parameter"},        {HEADER, 0, "inner codec 0"},        {HEADER, 14, "inner codec 14"},
               {HEADER, 77, "inner codec 77"}, {HEADER, 2, "in a zstd frame"},      {HEADER + 1, 9, "in a zstd frame"},
               {HEADER + 3, 1, "does not"},    {HEADER + 6, 255, "at most"},        {HEADER + 7, 0, "does not"}};
  for (size_t i = 0; i < BL_COUNT_OF(cases); i++) {
    uint8_t before = frame[cases[i].offset];
    bl_error err = BL_ERROR_INIT;
    frame[cases[i].offset] = cases[i].value;
    ck_assert_status(judge(frame, size, n, &err), BL_ECORRUPT);
    ck_assert_msg(strstr(err.text, cases[i].word) != NULL, "%s", err.text);
    frame[cases[i].offset] = before;
  }
  free(x), free(frame);
}
END_TEST

START_TEST(zstd_reads_in_the_workspace_of_the_process_where_memory_is_out) {
  const uint32_t n = 3000;
  uint8_t *frame, *plain;
  float *x, *y = calloc(n, sizeof *y);
  bl_codec_spec spec = spec_of("float32+zstd");
  bl_alloc_fail_after(1);
  size_t size = encode_steps("float32+zstd", n, &plain, &x);
  ck_assert_uint_eq(plain[0], BL_CODEC_FLOAT32);
  ck_assert_ok(bl_codec_apply(plain, size, n, y, NULL));
  bl_alloc_fail_after(0);
  frame = frame_for(&spec, n);
  size = bl_codec_encode(&(bl_encode){.spec = &spec}, x, NULL, n, BL_CODEC_REPLACE, frame);
  ck_assert_uint_eq(frame[0], BL_CODEC_ZSTD);
  memset(y, 0, n * sizeof *y);
  bl_alloc_fail_after(1);
  ck_assert_ok(bl_codec_apply(frame, size, n, y, NULL));
  ck_assert_ok(bl_codec_apply(frame, size, n, y, NULL));
  bl_alloc_fail_after(0);
  ck_assert_mem_eq(x, y, n * sizeof *y);
  free(x), free(y), free(frame), free(plain);
}
END_TEST

/* Kernels, bit for bit. */

static float any_float(uint64_t stream, uint64_t i, bool wild) {
  uint32_t bits = (uint32_t)bl_rng_u64(33, stream, i);
  float v;
  if (!wild)
    return bl_rng_normal(33, stream, i);
  bits = bits % 5 == 0 ? 0x7f800000u | (bits & 0x80000001u) : bits % 5 == 1 ? bits & 0x807fffffu : bits;
  memcpy(&v, &bits, 4);
  return v;
}

typedef struct arrays {
  float *x, *residual, *velocity, *value;
  uint32_t *index, *size;
  uint8_t *signs;
  double sum;
  uint32_t count;
} arrays;

static void arrays_init(arrays *a, uint32_t n, bool wild) {
  *a = (arrays){.x = malloc(n * 4 + 4), .residual = malloc(n * 4 + 4), .velocity = malloc(n * 4 + 4),
                .value = calloc(n + BL_SPARSE_SLACK, 4), .index = calloc(n + BL_SPARSE_SLACK, 4),
                .size = calloc(n + 1, 4), .signs = calloc(n / 8 + 2, 1)};
  for (uint32_t i = 0; i < n; i++) {
    a->x[i] = any_float(1, i, wild);
    a->residual[i] = any_float(2, i, wild);
    a->velocity[i] = any_float(3, i, wild);
  }
  a->signs[(n + 7) / 8] = 0xcd;
}

static void arrays_fini(arrays *a) {
  free(a->x), free(a->residual), free(a->velocity), free(a->value), free(a->index), free(a->size), free(a->signs);
}

static void run_kernel(const bl_sparse_kernels *k, int which, arrays *a, uint32_t n, uint32_t least, uint32_t max) {
  bl_sparse_list list = {a->index, a->value, max};
  double sums[2];
  switch (which) {
  case 0: a->count = k->select(a->x, n, least, &list); break;
  case 1: a->count = k->select_feedback(a->x, a->residual, n, least, &list); break;
  case 2: a->count = k->select_momentum(a->x, a->residual, a->velocity, 0.7f, n, least, &list); break;
  case 3: k->magnitudes(a->size, a->x, NULL, NULL, 0, n); break;
  case 4: k->magnitudes(a->size, a->x, a->residual, NULL, 0, n); break;
  case 5: k->magnitudes(a->size, a->x, a->residual, a->velocity, 0.7f, n); break;
  case 6: a->sum = k->sum_magnitudes(a->x, n); break;
  case 7: k->pack_signs(a->signs, a->x, n); break;
  case 8: k->pack_reaching(a->signs, a->x, 0.8f, n); break;
  case 9: k->pack_signs(a->signs, a->x, n), k->unpack_signs(a->residual, a->signs, 0.3f, n); break;
  case 10: k->sum_split(a->x, 0.8f, sums, n); a->sum = sums[0] - 3 * sums[1]; break;
  case 11:
    k->pack_signs(a->signs, a->x, n);
    k->pack_reaching((uint8_t *)a->size, a->x, 0.8f, n);
    k->unpack_pairs(a->residual, a->signs, (uint8_t *)a->size, 0.3f, 7, n);
    break;
  default: break;
  }
}
#define N_KERNEL_RUNS 12

static bool same_double(double a, double b) { return (isnan(a) && isnan(b)) || memcmp(&a, &b, sizeof a) == 0; }

static void assert_tables_agree(int which, uint32_t n, uint32_t least, uint32_t max, bool wild) {
  arrays want;
  arrays_init(&want, n, wild);
  run_kernel(bl_kernels_at(0)->sparse, which, &want, n, least, max);
  uint32_t listed = BL_MIN(want.count, max);
  for (size_t t = 1; bl_kernels_at(t) != NULL; t++) {
    arrays got;
    arrays_init(&got, n, wild);
    run_kernel(bl_kernels_at(t)->sparse, which, &got, n, least, max);
    ck_assert_msg(got.count == want.count && same_double(got.sum, want.sum) &&
                      memcmp(got.index, want.index, listed * 4) == 0 && memcmp(got.value, want.value, listed * 4) == 0 &&
                      memcmp(got.residual, want.residual, n * 4) == 0 &&
                      memcmp(got.velocity, want.velocity, n * 4) == 0 && memcmp(got.size, want.size, n * 4) == 0 &&
                      memcmp(got.signs, want.signs, n / 8 + 2) == 0,
                  "kernel %d, table %s, n %u, least %08x, max %u", which, bl_kernels_at(t)->name, n, least, max);
    arrays_fini(&got);
  }
  arrays_fini(&want);
}

START_TEST(every_table_gives_the_bits_of_the_scalar_one) {
  static const uint32_t leasts[] = {1, 0x3f000000, 0x3f800000, 0x40200000, BL_SPARSE_NONE};
  for (uint32_t n = 0; n < 100; n++)
    for (size_t l = n % 2; l < BL_COUNT_OF(leasts); l += 2)
      for (int wild = 0; wild < 2; wild++)
        for (uint32_t max = 0; max <= n; max += max < 4 ? 1 : 29)
          assert_tables_agree(_i, n, leasts[l], max, wild);
  for (size_t l = 0; l < BL_COUNT_OF(leasts); l++)
    assert_tables_agree(_i, 50021, leasts[l], 50021, l % 2 == 0);
}
END_TEST

START_TEST(every_table_makes_the_same_frames) {
  const uint32_t n = 30011;
  bl_codec_spec spec = spec_of(specs[_i]);
  uint8_t *first = frame_for(&spec, n), *frame = frame_for(&spec, n);
  float *kept = NULL;
  size_t first_size = 0;
  for (size_t t = 0; bl_kernels_at(t) != NULL; t++) {
    ck_assert_ok(bl_kernels_force(bl_kernels_at(t)->name, NULL));
    float *x = numbers(n, 1), *residual = numbers(n, 2), *velocity = numbers(n, 3);
    bl_encode e = {.spec = &spec, .key = 5, .velocity = velocity, .momentum = 0.9f};
    size_t size = bl_codec_encode(&e, x, residual, n, 0, t == 0 ? first : frame);
    first_size = t == 0 ? size : first_size;
    ck_assert(size == first_size && (t == 0 || memcmp(frame, first, size) == 0));
    ck_assert(kept == NULL || memcmp(kept, residual, n * 4) == 0);
    free(kept), free(x), free(velocity);
    kept = residual;
  }
  free(kept), free(first), free(frame);
}
END_TEST

int main(void) {
  Suite *s = suite_create("sparse_codec");
  TCase *t = tcase_create("sparse_codec");
  tcase_set_timeout(t, 120);
  tcase_add_loop_test(t, topk_keeps_exactly_the_largest_of_any_data, 0, N_SHAPES);
  tcase_add_loop_test(t, a_threshold_of_the_tensor_never_keeps_more_than_the_limit, 0, N_SHAPES);
  tcase_add_test(t, threshold_keeps_what_reaches_it);
  tcase_add_loop_test(t, what_is_not_finite_is_not_sent_and_not_kept_back, 0, N_SPECS);
  tcase_add_loop_test(t, a_residual_conserves_what_is_not_sent, 0, N_SPECS);
  tcase_add_loop_test(t, momentum_correction_conserves_what_is_not_sent, 0, N_SPECS);
  tcase_add_test(t, momentum_correction_follows_the_paper);
  tcase_add_loop_test(t, decoded_values_are_as_near_as_their_kind_says, 0, 5);
  tcase_add_test(t, indices_cost_at_most_a_fiftieth_more_than_the_floor);
  tcase_add_test(t, a_ternary_frame_costs_at_most_a_fiftieth_more_than_the_floor_and_signs);
  tcase_add_test(t, small_tensors_have_small_frames);
  tcase_add_test(t, a_sampled_threshold_gives_about_the_density);
  tcase_add_loop_test(t, thresholds_of_odd_data_are_above_zero, 0, N_SHAPES);
  tcase_add_test(t, randomk_is_unbiased_and_carries_no_index);
  tcase_add_test(t, the_layout_is_the_documented_one);
  tcase_add_loop_test(t, frames_with_changed_bits_are_refused_or_decode_within_bounds, 0, N_SPECS);
  tcase_add_loop_test(t, frames_cut_anywhere_or_longer_are_refused_by_their_structure, 0, N_SPECS);
  tcase_add_test(t, what_no_encoder_writes_is_refused_with_its_reason);
  tcase_add_test(t, well_sealed_random_bytes_never_reach_outside);
  tcase_add_test(t, zstd_makes_frames_with_structure_smaller_and_leaves_others);
  tcase_add_test(t, zstd_frames_that_are_changed_are_refused_or_decode_within_bounds);
  tcase_add_test(t, zstd_reads_in_the_workspace_of_the_process_where_memory_is_out);
  tcase_add_loop_test(t, every_table_gives_the_bits_of_the_scalar_one, 0, N_KERNEL_RUNS);
  tcase_add_loop_test(t, every_table_makes_the_same_frames, 0, N_SPECS);
  suite_add_tcase(s, t);
  return test_run(&s, 1);
}
