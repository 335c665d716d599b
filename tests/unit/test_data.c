/* SPDX-License-Identifier: Apache-2.0 */
#include "base/alloc.h"
#include "base/buf.h"
#include "base/file.h"
#include "data/dataset.h"
#include "data/shuffle.h"
#include "tests/support/support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

/* ---- shuffle ---- */

START_TEST(shuffle_is_a_permutation) {
  static const uint64_t sizes[] = {0, 1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 64, 97, 255, 256, 257, 1009, 4096, 60000};
  uint64_t n = sizes[_i];
  for (uint64_t epoch = 0; epoch < 3; epoch++) {
    wk_permutation p;
    wk_permutation_init(&p, n, 42, epoch, true);
    uint8_t *seen = calloc(n + 1, 1);
    for (uint64_t i = 0; i < n; i++) {
      uint64_t at = wk_permutation_at(&p, i);
      ck_assert_uint_lt(at, n);
      ck_assert_msg(!seen[at], "n %llu: %llu twice", (unsigned long long)n, (unsigned long long)at);
      seen[at] = 1;
    }
    free(seen);
  }
}
END_TEST

static uint64_t n_equal(uint64_t n, uint64_t seed_a, uint64_t epoch_a, uint64_t seed_b, uint64_t epoch_b) {
  wk_permutation a, b;
  wk_permutation_init(&a, n, seed_a, epoch_a, true);
  wk_permutation_init(&b, n, seed_b, epoch_b, true);
  uint64_t equal = 0;
  for (uint64_t i = 0; i < n; i++)
    equal += wk_permutation_at(&a, i) == wk_permutation_at(&b, i);
  return equal;
}

START_TEST(order_depends_on_epoch_and_seed_only) {
  ck_assert_uint_eq(n_equal(10000, 1, 3, 1, 3), 10000);
  /* Two random permutations agree in one place on average. */
  ck_assert_uint_lt(n_equal(10000, 1, 3, 1, 4), 20);
  ck_assert_uint_lt(n_equal(10000, 1, 3, 2, 3), 20);
  wk_permutation p;
  wk_permutation_init(&p, 10, 1, 1, false);
  for (uint64_t i = 0; i < 10; i++)
    ck_assert_uint_eq(wk_permutation_at(&p, i), i);
}
END_TEST

START_TEST(shuffled_places_are_spread_evenly) {
  /* Chi square of the place of the first quarter over 64 bins; 63 degrees of freedom: above 150 means broken. */
  enum { N = 60000, BINS = 64 };
  wk_permutation p;
  wk_permutation_init(&p, N, 7, 1, true);
  double count[BINS] = {0}, chi = 0;
  for (uint64_t i = 0; i < N / 4; i++)
    count[wk_permutation_at(&p, i) * BINS / N]++;
  for (int b = 0; b < BINS; b++) {
    double expected = N / 4.0 / BINS;
    chi += (count[b] - expected) * (count[b] - expected) / expected;
  }
  ck_assert_double_lt(chi, 150);
  ck_assert_double_gt(chi, 15);
}
END_TEST

START_TEST(ranges_cover_every_position_exactly_once) {
  static const struct {
    uint64_t n, batch;
    uint32_t world;
  } cases[] = {{0, 4, 2},    {1, 1, 1},     {1, 256, 3},   {10, 3, 4},       {100, 7, 3},
               {100, 100, 7}, {1000, 256, 2}, {997, 13, 5}, {60000, 256, 2}, {5, 2, 16}};
  uint64_t n = cases[_i].n, next = 0, next_eval = 0;
  uint64_t clocks = (n + cases[_i].batch - 1) / cases[_i].batch;
  for (uint64_t c = 0; c < clocks; c++) {
    uint64_t before = next;
    for (uint32_t r = 0; r < cases[_i].world; r++) {
      wk_range range = wk_batch_range(n, cases[_i].batch, c, r, cases[_i].world);
      ck_assert_uint_eq(range.first, next);
      ck_assert_uint_ge(range.end, range.first);
      next = range.end;
    }
    ck_assert_uint_eq(next - before, wk_batch_size(n, cases[_i].batch, c));
  }
  ck_assert_uint_eq(next, n);
  ck_assert_uint_eq(wk_batch_size(n, cases[_i].batch, clocks), 0);
  ck_assert_uint_eq(wk_batch_size(n, cases[_i].batch, UINT64_MAX), 0);
  for (uint32_t r = 0; r < cases[_i].world; r++) {
    wk_range range = wk_eval_range(n, r, cases[_i].world);
    ck_assert_uint_eq(range.first, next_eval);
    next_eval = range.end;
  }
  ck_assert_uint_eq(next_eval, n);
}
END_TEST

START_TEST(validation_takes_the_last_part) {
  ck_assert_uint_eq(wk_train_part(60000, 0.1), 54000);
  ck_assert_uint_eq(wk_train_part(1000, 0.1), 900);
  ck_assert_uint_eq(wk_train_part(5, 0), 5);
  ck_assert_uint_eq(wk_train_part(0, 0.1), 0);
  ck_assert_uint_eq(wk_train_part(3, 1), 0);
}
END_TEST

/* ---- files that the tests write ---- */

static const char *put_file(const char *name, const void *data, size_t size) {
  static char paths[16][256];
  static unsigned next;
  static const char *dir;
  if (dir == NULL)
    dir = test_temp_dir();
  char *path = paths[next++ % 16];
  snprintf(path, sizeof paths[0], "%s/%s", dir, name);
  FILE *f = fopen(path, "wb");
  ck_assert_ptr_nonnull(f);
  ck_assert_uint_eq(fwrite(data, 1, size, f), size);
  ck_assert_int_eq(fclose(f), 0);
  return path;
}

/* gzip of data into out; returns the size. */
static size_t gzip(const void *data, size_t size, uint8_t *out, size_t capacity) {
  z_stream z = {0};
  ck_assert_int_eq(deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
  z.next_in = (uint8_t *)(uintptr_t)data;
  z.avail_in = (unsigned)size;
  z.next_out = out;
  z.avail_out = (unsigned)capacity;
  ck_assert_int_eq(deflate(&z, Z_FINISH), Z_STREAM_END);
  size_t n = capacity - z.avail_out;
  deflateEnd(&z);
  return n;
}

/* Three images of 2x2 and their labels. */
static const uint8_t images[] = {0, 0, 8, 3, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 2,
                                 0, 51, 102, 255, 1, 2, 3, 4, 5, 6, 7, 8};
static const uint8_t labels[] = {0, 0, 8, 1, 0, 0, 0, 3, 2, 0, 1};

typedef struct job {
  bl_job_spec spec;
  const char *paths[2];
  wk_dataset *ds;
  wk_preprocess *pre;
  bl_error err;
} job;

static job idx_job(const char *inputs, const char *targets) {
  job j = {.spec = {.loss = BL_LOSS_SOFTMAX_CROSS_ENTROPY,
                    .data = {.train = {.kind = BL_SOURCE_IDX, .n_paths = 2}, .normalize = BL_NORMALIZE_UNIT}},
           .paths = {inputs, targets}};
  return j;
}

static bl_status job_open(job *j, uint32_t n_inputs, uint32_t n_outputs) {
  j->spec.data.train.paths = j->paths;
  return wk_dataset_open_train(&j->spec, n_inputs, n_outputs, &j->ds, &j->pre, &j->err);
}

static void job_close(job *j) {
  wk_dataset_free(j->ds);
  wk_preprocess_free(j->pre);
  j->ds = NULL;
  j->pre = NULL;
}

static job csv_job(const char *path, const char *target) {
  job j = {.spec = {.loss = BL_LOSS_SQUARED,
                    .data = {.train = {.kind = BL_SOURCE_CSV,
                                       .n_paths = 1,
                                       .header = true,
                                       .delimiter = ',',
                                       .target = target,
                                       .missing = BL_MISSING_ERROR},
                             .normalize = BL_NORMALIZE_NONE}},
           .paths = {path}};
  return j;
}

static job libsvm_job(const char *path) {
  job j = {.spec = {.loss = BL_LOSS_SOFTMAX_CROSS_ENTROPY,
                    .data = {.train = {.kind = BL_SOURCE_LIBSVM, .n_paths = 1}, .normalize = BL_NORMALIZE_NONE}},
           .paths = {path}};
  return j;
}

/* ---- idx ---- */

START_TEST(idx_images_and_labels_are_read) {
  uint8_t packed[256];
  size_t n = gzip(images, sizeof images, packed, sizeof packed);
  uint8_t twice[512]; /* two gzip members: their contents follow each other */
  size_t m = gzip(images, 20, twice, sizeof twice);
  m += gzip(images + 20, sizeof images - 20, twice + m, sizeof twice - m);
  const char *files[] = {put_file("images", images, sizeof images), put_file("images.gz", packed, n),
                         put_file("members.gz", twice, m)};
  const char *targets = put_file("labels", labels, sizeof labels);
  uint64_t fingerprint = 0;
  for (size_t i = 0; i < BL_COUNT_OF(files); i++) {
    job j = idx_job(files[i], targets);
    ck_assert_ok_err(job_open(&j, 4, 3), j.err);
    wk_dataset_info info = wk_dataset_get_info(j.ds);
    ck_assert_uint_eq(info.n_samples, 3);
    ck_assert_uint_eq(info.n_inputs, 4);
    ck_assert_uint_eq(info.n_classes, 3);
    ck_assert_int_eq(info.target, WK_TARGET_CLASS);
    float x[8];
    uint32_t got[2];
    wk_dataset_fetch(j.ds, (const uint64_t[]){2, 0}, 2, x, got, NULL);
    ck_assert_float_eq_tol(x[0], 5 / 255.0f, 1e-7);
    ck_assert_float_eq_tol(x[5], 0.2f, 1e-7);
    ck_assert_float_eq_tol(x[7], 1.0f, 1e-7);
    ck_assert_uint_eq(got[0], 1);
    ck_assert_uint_eq(got[1], 2);
    if (i > 0)
      ck_assert_uint_eq(wk_dataset_fingerprint(j.ds), fingerprint);
    fingerprint = wk_dataset_fingerprint(j.ds);
    job_close(&j);
  }
}
END_TEST

/* ---- real data sets ---- */

START_TEST(a9a_has_its_known_counts) {
  const char *train = test_data_path("a9a/a9a"), *test = test_data_path("a9a/a9a.t");
  if (train == NULL || test == NULL)
    return;
  job j = libsvm_job(train);
  j.spec.loss = BL_LOSS_SIGMOID_CROSS_ENTROPY;
  ck_assert_ok_err(job_open(&j, 123, 1), j.err);
  ck_assert_uint_eq(wk_dataset_get_info(j.ds).n_samples, 32561);
  ck_assert_uint_eq(wk_dataset_get_info(j.ds).n_classes, 2);
  uint64_t ones = 0, features = 0;
  for (uint64_t i = 0; i < 32561; i++) {
    float x[123];
    uint32_t label;
    wk_dataset_fetch(j.ds, &i, 1, x, &label, NULL);
    ones += label;
    for (int k = 0; k < 123; k++)
      features += x[k] == 1.0f;
  }
  ck_assert_uint_eq(ones, 7841); /* grep -c '^+1' */
  ck_assert_uint_eq(features, 451592); /* grep -o ':1' | wc -l */
  wk_dataset *second;
  bl_source_spec source = {.kind = BL_SOURCE_LIBSVM, .paths = &test, .n_paths = 1};
  ck_assert_ok_err(wk_dataset_open(&source, j.pre, true, &second, &j.err), j.err);
  ck_assert_uint_eq(wk_dataset_get_info(second).n_samples, 16281);
  wk_dataset_free(second);
  job_close(&j);
}
END_TEST

START_TEST(housing_has_207_missing_values_and_five_categories) {
  const char *path = test_data_path("california-housing/housing.csv");
  if (path == NULL)
    return;
  static const char *const categorical[] = {"ocean_proximity"};
  job j = csv_job(path, "median_house_value");
  j.spec.data.train.categorical = categorical;
  j.spec.data.train.n_categorical = 1;
  ck_assert_status(job_open(&j, 13, 1), BL_EINVAL);
  ck_assert_msg(strstr(j.err.text, "housing.csv:292: column 4 'total_bedrooms'") != NULL, "%s", j.err.text);
  j.spec.data.train.missing = BL_MISSING_SKIP;
  ck_assert_ok_err(job_open(&j, 13, 1), j.err);
  ck_assert_uint_eq(wk_dataset_get_info(j.ds).n_samples, 20640 - 207);
  job_close(&j);
  j.spec.data.train.missing = BL_MISSING_MEAN;
  ck_assert_ok_err(job_open(&j, 13, 1), j.err);
  ck_assert_uint_eq(wk_dataset_get_info(j.ds).n_samples, 20640);
  ck_assert_uint_eq(wk_dataset_get_info(j.ds).n_inputs, 13);
  /* First row: NEAR BAY is the fourth of the sorted categories. */
  float x[13], y;
  wk_dataset_fetch(j.ds, (const uint64_t[]){0}, 1, x, NULL, &y);
  ck_assert_float_eq(x[0], -122.23f);
  ck_assert_float_eq(x[11], 1.0f);
  ck_assert_float_eq(x[8] + x[9] + x[10] + x[12], 0.0f);
  ck_assert_float_eq(y, 452600.0f);
  wk_dataset_fetch(j.ds, (const uint64_t[]){290}, 1, x, NULL, &y);
  ck_assert_float_eq_tol(x[4], 537.870553f, 1e-3); /* the known mean of the column */
  job_close(&j);
}
END_TEST

int main(void) {
  Suite *s = suite_create("data");
  TCase *shuffle = tcase_create("shuffle");
  tcase_add_loop_test(shuffle, shuffle_is_a_permutation, 0, 20);
  tcase_add_test(shuffle, order_depends_on_epoch_and_seed_only);
  tcase_add_test(shuffle, shuffled_places_are_spread_evenly);
  tcase_add_loop_test(shuffle, ranges_cover_every_position_exactly_once, 0, 10);
  tcase_add_test(shuffle, validation_takes_the_last_part);
  suite_add_tcase(s, shuffle);
  TCase *idx = tcase_create("idx");
  tcase_add_test(idx, idx_images_and_labels_are_read);
  suite_add_tcase(s, idx);
  TCase *real = tcase_create("real");
  tcase_set_timeout(real, 60);
  tcase_add_test(real, a9a_has_its_known_counts);
  tcase_add_test(real, housing_has_207_missing_values_and_five_categories);
  suite_add_tcase(s, real);
  return test_run(&s, 1);
}
