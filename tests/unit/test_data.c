/* SPDX-License-Identifier: Apache-2.0 */
#include "base/alloc.h"
#include "base/buf.h"
#include "base/checksum.h"
#include "base/file.h"
#include "base/rng.h"
#include "data/dataset.h"
#include "data/gen/digits.h"
#include "data/gen/write.h"
#include "data/npy.h"
#include "data/shuffle.h"
#include "job/tensors.h"
#include "tests/support/support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

/* ---- shuffle ---- */

START_TEST(shuffle_is_a_permutation) {
  static const uint64_t sizes[] = {0,  1,  2,  3,  4,   5,   7,   8,    15,   16,
                                   17, 31, 64, 97, 255, 256, 257, 1009, 4096, 60000};
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

/* Goes through an epoch of ranks with data of their own as trainers do: every sample of every rank once, and the sizes
 * that all ranks compute from the plan are those that the ranks take together. */
START_TEST(every_local_sample_is_used_once_per_epoch) {
  uint64_t key = bl_rng_key((uint64_t)_i, BL_RNG_DATA);
  uint64_t samples[9], share = 1 + bl_rng_below(key, 1, 0, 20), epoch = (uint64_t)_i % 3, total = 0;
  uint32_t world = 1 + (uint32_t)bl_rng_below(key, 1, 1, BL_COUNT_OF(samples));
  uint8_t *seen[BL_COUNT_OF(samples)];
  for (uint32_t r = 0; r < world; r++) {
    samples[r] = 1 + bl_rng_below(key, 2, r, 300);
    seen[r] = calloc(samples[r], 1);
  }
  uint64_t clocks = bl_job_clocks_local(samples, world, share * world, 1);
  for (uint64_t c = 0; c < clocks; c++) {
    uint64_t size = 0;
    for (uint32_t r = 0; r < world; r++) {
      wk_permutation p;
      wk_permutation_init_local(&p, samples[r], 7, epoch, r, true);
      wk_range part = wk_local_range(samples[r], share, c);
      ck_assert_uint_le(part.end - part.first, share);
      for (uint64_t i = part.first; i < part.end; i++)
        ck_assert_uint_eq(seen[r][wk_permutation_at(&p, i)]++, 0);
      size += part.end - part.first;
    }
    ck_assert_uint_gt(size, 0);
    ck_assert_uint_eq(wk_local_size(samples, world, share, c), size);
    total += size;
  }
  ck_assert_uint_eq(wk_local_size(samples, world, share, clocks), 0);
  for (uint32_t r = 0; r < world; r++) {
    ck_assert_ptr_null(memchr(seen[r], 0, samples[r]));
    total -= samples[r];
    free(seen[r]);
  }
  ck_assert_uint_eq(total, 0);
}
END_TEST

START_TEST(ranks_with_data_of_their_own_do_not_shuffle_alike) {
  wk_permutation a, b, again, shared;
  wk_permutation_init_local(&a, 10000, 1, 3, 0, true);
  wk_permutation_init_local(&again, 10000, 1, 3, 0, true);
  wk_permutation_init_local(&b, 10000, 1, 3, 1, true);
  wk_permutation_init(&shared, 10000, 1, 3, true);
  uint64_t same = 0, as_other = 0, as_shared = 0;
  for (uint64_t i = 0; i < 10000; i++) {
    uint64_t at = wk_permutation_at(&a, i);
    same += at == wk_permutation_at(&again, i);
    as_other += at == wk_permutation_at(&b, i);
    as_shared += at == wk_permutation_at(&shared, i);
  }
  ck_assert_uint_eq(same, 10000);
  ck_assert_uint_lt(as_other, 20);
  ck_assert_uint_lt(as_shared, 20);
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
  /* Chi square of the place of the first quarter over 64 bins; 63 degrees of freedom: above 150 means broken.
   */
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
  } cases[] = {{0, 4, 2},     {1, 1, 1},      {1, 256, 3},  {10, 3, 4},      {100, 7, 3},
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
  static char paths[64][256];
  static unsigned next;
  static const char *dir;
  if (dir == NULL)
    dir = test_temp_dir();
  char *path = paths[next++ % 64];
  snprintf(path, sizeof paths[0], "%s/%s", dir, name);
  FILE *f = fopen(path, "wb");
  ck_assert_ptr_nonnull(f);
  ck_assert_uint_eq(fwrite(data, 1, size, f), size);
  ck_assert_int_eq(fclose(f), 0);
  return path;
}

static const char *put_text(const char *name, const char *text) {
  return put_file(name, text, strlen(text));
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
static const uint8_t images[] = {0, 0, 8, 3,  0,   0,   0, 3, 0, 0, 0, 2, 0, 0,
                                 0, 2, 0, 51, 102, 255, 1, 2, 3, 4, 5, 6, 7, 8};
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
  job j = {
      .spec = {.loss = BL_LOSS_SOFTMAX_CROSS_ENTROPY,
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

START_TEST(bad_idx_files_are_refused_with_a_sentence) {
  static const uint8_t not_idx[] = {'P', 'K', 3, 4, 5, 6};
  static const uint8_t floats[] = {0, 0, 0x0d, 1, 0, 0, 0, 1, 0, 0, 0, 0};
  static const uint8_t five_dims[] = {0, 0, 8, 5, 0, 0, 0, 1};
  static const uint8_t huge[] = {0, 0, 8, 3, 0xff, 0xff, 0xff, 0xff, 0, 0, 0x10, 0, 0, 0, 0x10, 0};
  static const uint8_t wide[] = {0, 0, 8, 3, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
  static const uint8_t four_labels[] = {0, 0, 8, 1, 0, 0, 0, 4, 2, 0, 1, 0};
  static const uint8_t big_label[] = {0, 0, 8, 1, 0, 0, 0, 3, 2, 0, 3};
  static const uint8_t none[] = {0, 0, 8, 3, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 2};
  uint8_t packed[256], longer[64];
  size_t n_packed = gzip(images, sizeof images, packed, sizeof packed);
  memcpy(longer, images, sizeof images);
  const char *good_images = put_file("good", images, sizeof images);
  const char *good_labels = put_file("good-labels", labels, sizeof labels);
  const char *torn = put_file("torn.gz", packed, n_packed - 9);
  packed[14] ^= 0x55;
  const struct {
    const char *inputs, *targets;
    uint32_t n_inputs;
    bl_status status;
    const char *says;
  } cases[] = {
      {"/nonexistent/images", good_labels, 4, BL_ENOENT, "cannot open /nonexistent/images"},
      {"/", good_labels, 4, BL_EINVAL, "/ is not a regular file"},
      {put_file("zip", not_idx, sizeof not_idx), good_labels, 4, BL_ECORRUPT, "starts with 50 4b 03 04"},
      {put_file("short", images, 3), good_labels, 4, BL_ECORRUPT, "only 3 bytes"},
      {put_file("header", images, 9), good_labels, 4, BL_ECORRUPT, "truncated inside its idx header"},
      {put_file("floats", floats, sizeof floats), good_labels, 4, BL_EUNSUPPORTED, "type 0x0d"},
      {put_file("five", five_dims, sizeof five_dims), good_labels, 4, BL_EUNSUPPORTED, "5 dimensions"},
      {put_file("huge", huge, sizeof huge), good_labels, 4, BL_ECORRUPT,
       "promises 4294967295 records of 16777216 bytes"},
      {put_file("wide", wide, sizeof wide), good_labels, 4, BL_ELIMIT, "more than 16777216 values"},
      {put_file("cut", images, sizeof images - 1), good_labels, 4, BL_ECORRUPT, "after it come only 11 bytes"},
      {put_file("long", longer, sizeof images + 1), good_labels, 4, BL_ECORRUPT, "more bytes follow"},
      {put_file("none", none, sizeof none), good_labels, 4, BL_EMISMATCH, "has 3 labels"},
      {torn, good_labels, 4, BL_ECORRUPT, "truncated gzip file"},
      {put_file("damaged.gz", packed, n_packed), good_labels, 4, BL_ECORRUPT, "damaged gzip data"},
      {good_images, put_file("four", four_labels, sizeof four_labels), 4, BL_EMISMATCH, "has 4 labels, but"},
      {good_images, good_images, 4, BL_EINVAL, "swapped"},
      {good_images, put_file("big", big_label, sizeof big_label), 4, BL_EINVAL,
       "big: record 2 (counted from 0): label 3 is out of range, the model has 3 classes"},
      {good_images, good_labels, 5, BL_EMISMATCH, "gives 4 inputs for each sample, the model takes 5"},
  };
  for (size_t i = 0; i < BL_COUNT_OF(cases); i++) {
    job j = idx_job(cases[i].inputs, cases[i].targets);
    bl_status status = job_open(&j, cases[i].n_inputs, 3);
    ck_assert_msg(status == cases[i].status && strstr(j.err.text, cases[i].says) != NULL, "case %zu: %s: %s", i,
                  bl_status_name(status), j.err.text);
    ck_assert_ptr_null(j.ds);
    ck_assert_ptr_null(j.pre);
  }
}
END_TEST

START_TEST(every_cut_of_a_gzip_file_is_noticed) {
  uint8_t packed[256];
  size_t n = gzip(images, sizeof images, packed, sizeof packed);
  const char *targets = put_file("labels", labels, sizeof labels);
  for (size_t cut = 0; cut < n; cut++) {
    job j = idx_job(put_file("cut.gz", packed, cut), targets);
    ck_assert_status(job_open(&j, 4, 3), BL_ECORRUPT);
  }
}
END_TEST

START_TEST(a_pipe_is_refused_and_does_not_hang) {
  char path[128];
  snprintf(path, sizeof path, "%s/pipe", test_temp_dir());
  ck_assert_int_eq(mkfifo(path, 0600), 0);
  job j = idx_job(path, path);
  ck_assert_status(job_open(&j, 4, 3), BL_EINVAL);
}
END_TEST

START_TEST(statistics_come_from_the_training_part_only) {
  job j = idx_job(put_file("images", images, sizeof images), put_file("labels", labels, sizeof labels));
  j.spec.data.normalize = BL_NORMALIZE_STANDARD;
  j.spec.data.validation = 0.34; /* the third image */
  ck_assert_ok_err(job_open(&j, 4, 3), j.err);
  float x[12];
  wk_dataset_fetch(j.ds, (const uint64_t[]){0, 1, 2}, 3, x, NULL, NULL);
  /* Columns of the first two: (0,1) (51,2) (102,3) (255,4): means 0.5 26.5 52.5 129.5, deviations half the
   * gaps. */
  for (int c = 0; c < 4; c++) {
    ck_assert_float_eq_tol(x[c], c == 0 ? -1 : 1, 1e-5);
    ck_assert_float_eq_tol(x[4 + c], c == 0 ? 1 : -1, 1e-5);
  }
  ck_assert_float_eq_tol(x[8], 9, 1e-5);
  ck_assert_float_eq_tol(x[11], (8 - 129.5f) / 125.5f, 1e-5);
  job_close(&j);
}
END_TEST

/* ---- csv ---- */

static const char houses[] = "rooms,\"kind, of\",price,extra\r\n"
                             "3,\"NEAR \"\"BAY\"\"\",452.5,0\r\n"
                             " 5 ,INLAND,-2e2,0\n"
                             "\n"
                             ",\"two\nlines\",100,7";

static const char *const kind[] = {"kind, of"};

START_TEST(csv_columns_categories_and_missing_values) {
  job j = csv_job(put_text("houses.csv", houses), "price");
  static const char *const columns[] = {"kind, of", "rooms"};
  j.spec.data.train.columns = columns;
  j.spec.data.train.n_columns = 2;
  j.spec.data.train.categorical = kind;
  j.spec.data.train.n_categorical = 1;
  j.spec.data.train.missing = BL_MISSING_MEAN;
  ck_assert_ok_err(job_open(&j, 4, 1), j.err);
  float x[12], y[3];
  wk_dataset_fetch(j.ds, (const uint64_t[]){0, 1, 2}, 3, x, NULL, y);
  /* sorted: INLAND, NEAR "BAY", two\nlines */
  static const float expected[12] = {0, 1, 0, 3, 1, 0, 0, 5, 0, 0, 1, 4};
  static const float prices[3] = {452.5f, -200, 100};
  for (int i = 0; i < 12; i++)
    ck_assert_float_eq(x[i], expected[i]);
  for (int i = 0; i < 3; i++)
    ck_assert_float_eq(y[i], prices[i]);
  job_close(&j);
  static const struct {
    bl_missing missing;
    uint64_t n_samples;
    uint32_t n_inputs; /* a row that is left out leaves no category behind */
    float last_rooms;
  } others[] = {{BL_MISSING_ZERO, 3, 4, 0}, {BL_MISSING_SKIP, 2, 3, 5}};
  for (size_t i = 0; i < BL_COUNT_OF(others); i++) {
    j.spec.data.train.missing = others[i].missing;
    ck_assert_ok_err(job_open(&j, others[i].n_inputs, 1), j.err);
    ck_assert_uint_eq(wk_dataset_get_info(j.ds).n_samples, others[i].n_samples);
    wk_dataset_fetch(j.ds, (const uint64_t[]){others[i].n_samples - 1}, 1, x, NULL, y);
    ck_assert_float_eq(x[others[i].n_inputs - 1], others[i].last_rooms);
    job_close(&j);
  }
}
END_TEST

START_TEST(bad_csv_files_are_refused_with_a_sentence) {
  static const struct {
    const char *text, *says;
    bl_status status;
  } cases[] = {
      {"a,b,price\n1,2,3\n4,5\n", ".csv:3: ragged row: 2 fields, the first row has 3", BL_EINVAL},
      {"a,b,price\n1,2,3,4\n", ".csv:2: ragged row: 4 fields", BL_EINVAL},
      {"a,b,price\n1,nan,3\n", ".csv:2: column 1 'b': 'nan' is not a finite number", BL_ENOTFINITE},
      {"a,b,price\n1,2,3\n-inf,2,3\n", ".csv:3: column 0 'a': '-inf' is not a finite number", BL_ENOTFINITE},
      {"a,b,price\n1,2,NaN\n", "column 2 'price': 'NaN' is not a finite", BL_ENOTFINITE},
      {"a,b,price\n1,two,3\n", "column 1 'b': 'two' is not a number", BL_EINVAL},
      {"a,b,price\n1,0x10,3\n", "'0x10' is not a number", BL_EINVAL},
      {"a,b,price\n1,1e39,3\n", "'1e39' is too large for a 32-bit number", BL_EINVAL},
      {"a,b,price\n1,,3\n", "column 1 'b': '' is missing", BL_EINVAL},
      {"a,b,price\n1,2,\n", "a target cannot be", BL_EINVAL},
      {"a,b,prize\n1,2,3\n", "target column 'price' is not in the header, did you mean 'prize'?", BL_ENOENT},
      {"a,a,price\n1,2,3\n", "two columns are named 'a'", BL_EINVAL},
      {"a,b,price\n1,\"2,3\n4,5,6\n", ".csv:2: the quote that opens here is never closed", BL_EINVAL},
      {"a,b,price\n1,\"2\"x,3\n", "text after a closing quote", BL_EINVAL},
      {"a,b,price\n1,2\"x,3\n", "a quote inside a field", BL_EINVAL},
      {"a,b,price\n1,2\r3,3\n", "a carriage return inside", BL_EINVAL},
      {"a,b,price\n", "has no samples", BL_EINVAL},
      {"", "has no samples", BL_EINVAL},
      {"price\n1\n", "no input column", BL_EINVAL},
      {"a,price\n1,2\n", "gives 1 inputs for each sample, the model takes 2", BL_EMISMATCH},
  };
  for (size_t i = 0; i < BL_COUNT_OF(cases); i++) {
    job j = csv_job(put_text("bad.csv", cases[i].text), "price");
    bl_status status = job_open(&j, 2, 1);
    ck_assert_msg(status == cases[i].status && strstr(j.err.text, cases[i].says) != NULL, "case %zu: %s: %s", i,
                  bl_status_name(status), j.err.text);
  }
  job j = csv_job(put_file("nul.csv", "a,b,price\n1,\0,2\n", 16), "price");
  ck_assert_status(job_open(&j, 2, 1), BL_EINVAL);
}
END_TEST

START_TEST(class_labels_are_numbers_or_sorted_names) {
  static const struct {
    const char *text, *says; /* says NULL: accepted */
    uint32_t first_label;
    const char *first_name;
  } cases[] = {
      {"x,class\n1,2\n2,0\n3,1\n", NULL, 2, "2"},
      {"x,class\n1,2.0\n2,0\n3,1\n", NULL, 2, "2"},
      {"x,class\n1,red\n2,blue\n3,green\n4,red\n", NULL, 2, "red"},
      {"x,class\n1,7\n2,red\n", NULL, 0, "7"},
      {"x,class\n1,2\n2,3\n", ".csv:3: label '3' is out of range, the model has 3 classes (0 to 2)", 0, NULL},
      {"x,class\n1,-1\n", "label '-1' is out of range", 0, NULL},
      {"x,class\n1,1.5\n", "label '1.5' is out of range", 0, NULL},
      {"x,class\n1,d\n2,c\n3,b\n4,a\n", ".csv:2: label 'd' is one of 4 classes, the model has 3", 0, NULL},
  };
  for (size_t i = 0; i < BL_COUNT_OF(cases); i++) {
    job j = csv_job(put_text("classes.csv", cases[i].text), "class");
    j.spec.loss = BL_LOSS_SOFTMAX_CROSS_ENTROPY;
    bl_status status = job_open(&j, 1, 3);
    if (cases[i].says != NULL) {
      ck_assert_msg(status == BL_EINVAL && strstr(j.err.text, cases[i].says) != NULL, "case %zu: %s", i,
                    j.err.text);
      continue;
    }
    ck_assert_ok_err(status, j.err);
    float x;
    uint32_t label;
    char name[16];
    wk_dataset_fetch(j.ds, (const uint64_t[]){0}, 1, &x, &label, NULL);
    ck_assert_uint_eq(label, cases[i].first_label);
    ck_assert_str_eq(wk_preprocess_class_name(j.pre, label, name, sizeof name), cases[i].first_name);
    job_close(&j);
  }
}
END_TEST

START_TEST(other_csv_files_are_matched_to_the_training_set) {
  job j = csv_job(put_text("train.csv", "x,kind,y,price\n1,a,2,10\n3,b,4,30\n"), "price");
  static const char *const categorical[] = {"kind"};
  j.spec.data.train.categorical = categorical;
  j.spec.data.train.n_categorical = 1;
  j.spec.data.standardize_target = true;
  ck_assert_ok_err(job_open(&j, 4, 1), j.err);
  ck_assert_double_eq(wk_preprocess_target_to_units(j.pre, -1), 10);
  ck_assert_double_eq(wk_preprocess_target_variance(j.pre), 100);
  bl_source_spec source = j.spec.data.train;
  const char *path = put_text("predict.csv", "kind,y,new,x\nb,7,0,8\n"); /* other order, no target */
  source.paths = &path;
  wk_dataset *ds;
  ck_assert_ok_err(wk_dataset_open(&source, j.pre, false, &ds, &j.err), j.err);
  float x[4];
  wk_dataset_fetch(ds, (const uint64_t[]){0}, 1, x, NULL, NULL);
  ck_assert(x[0] == 8 && x[1] == 0 && x[2] == 1 && x[3] == 7);
  wk_dataset_free(ds);
  ck_assert_status(wk_dataset_open(&source, j.pre, true, &ds, &j.err), BL_ENOENT);
  path = put_text("predict.csv", "x,kind,y\n1,c,2\n");
  ck_assert_status(wk_dataset_open(&source, j.pre, false, &ds, &j.err), BL_EINVAL);
  ck_assert_msg(strstr(j.err.text, ".csv:2: column 1 'kind': 'c' is not a category") != NULL, "%s", j.err.text);
  job_close(&j);
}
END_TEST

START_TEST(without_a_header_the_target_may_be_left_out) {
  job j = csv_job(put_text("train.csv", "1;10;2\n3;30;4\n"), "1");
  j.spec.data.train.header = false;
  j.spec.data.train.delimiter = ';';
  ck_assert_ok_err(job_open(&j, 2, 1), j.err);
  bl_source_spec source = j.spec.data.train;
  wk_dataset *ds;
  static const char *const texts[] = {"5;6\n", "5;99;6\n"};
  for (size_t i = 0; i < 2; i++) {
    const char *path = put_text("predict.csv", texts[i]);
    source.paths = &path;
    ck_assert_ok_err(wk_dataset_open(&source, j.pre, false, &ds, &j.err), j.err);
    float x[2];
    wk_dataset_fetch(ds, (const uint64_t[]){0}, 1, x, NULL, NULL);
    ck_assert(x[0] == 5 && x[1] == 6);
    wk_dataset_free(ds);
  }
  const char *path = put_text("predict.csv", "1;2;3;4\n");
  source.paths = &path;
  ck_assert_status(wk_dataset_open(&source, j.pre, false, &ds, &j.err), BL_EMISMATCH);
  job_close(&j);
}
END_TEST

START_TEST(several_files_are_read_as_one) {
  job j = csv_job(put_text("one.csv", "x,price\n1,10\n"), "price");
  j.paths[1] = put_text("two.csv", "price,x\n20,2\n"); /* by name, whatever the order */
  j.spec.data.train.n_paths = 2;
  ck_assert_ok_err(job_open(&j, 1, 1), j.err);
  float x[2], y[2];
  wk_dataset_fetch(j.ds, (const uint64_t[]){1, 0}, 2, x, NULL, y);
  ck_assert(x[0] == 2 && y[0] == 20 && x[1] == 1 && y[1] == 10);
  job_close(&j);
}
END_TEST

/* ---- libsvm ---- */

START_TEST(libsvm_rows_are_read_and_densified) {
  job j = libsvm_job(put_text("a", "-1 1:0.5 3:-2e1 # comment\r\n\n+1\n1 4:1"));
  ck_assert_ok_err(job_open(&j, 4, 2), j.err);
  float x[12];
  uint32_t got[3];
  wk_dataset_fetch(j.ds, (const uint64_t[]){0, 1, 2}, 3, x, got, NULL);
  static const float expected[12] = {0.5f, 0, -20, 0, 0, 0, 0, 0, 0, 0, 0, 1};
  for (int i = 0; i < 12; i++)
    ck_assert_float_eq(x[i], expected[i]);
  ck_assert(got[0] == 0 && got[1] == 1 && got[2] == 1);
  job_close(&j);
  j.spec.data.normalize = BL_NORMALIZE_STANDARD;
  ck_assert_ok_err(job_open(&j, 4, 2), j.err);
  wk_dataset_fetch(j.ds, (const uint64_t[]){0, 1, 2}, 3, x, NULL, NULL);
  for (int c = 0; c < 4; c++) { /* mean 0 and deviation 1; the second column is constant: 0 */
    float sum = x[c] + x[4 + c] + x[8 + c], squares = x[c] * x[c] + x[4 + c] * x[4 + c] + x[8 + c] * x[8 + c];
    ck_assert_float_eq_tol(sum, 0, 1e-5);
    ck_assert_float_eq_tol(squares, c == 1 ? 0 : 3, 1e-4);
  }
  job_close(&j);
}
END_TEST

START_TEST(bad_libsvm_files_are_refused_with_a_sentence) {
  static const struct {
    const char *text, *says;
    bl_status status;
  } cases[] = {
      {"1 0:1\n", "'0' is not a feature index", BL_EINVAL},
      {"1 1:1\n1 5:1\n", ":2: feature 5 is beyond the 4 features", BL_EINVAL},
      {"1 2:1 2:1\n", ":1: feature 2 after 2, indices must increase", BL_EINVAL},
      {"1 3:1 1:1\n", "feature 1 after 3", BL_EINVAL},
      {"1 1\n", "'1' is not index:value", BL_EINVAL},
      {"1 a:1\n", "'a' is not a feature index", BL_EINVAL},
      {"1 1:x\n", "'x' is not a 32-bit number", BL_EINVAL},
      {"1 1:nan\n", "'nan' is not a finite number", BL_ENOTFINITE},
      {"1 1:inf\n", "'inf' is not a finite number", BL_ENOTFINITE},
      {"2 1:1\n", "label '2' is out of range, the model has 2 classes (0 to 1, or -1 and +1)", BL_EINVAL},
      {"0 1:1\n-1 1:1\n", ":2: '-1' is a label, but", BL_EINVAL},
      {"1:1 2:1\n", "'1:1' is not a 32-bit number", BL_EINVAL},
      {"# nothing\n", "has no samples", BL_EINVAL},
  };
  for (size_t i = 0; i < BL_COUNT_OF(cases); i++) {
    job j = libsvm_job(put_text("bad", cases[i].text));
    bl_status status = job_open(&j, 4, 2);
    ck_assert_msg(status == cases[i].status && strstr(j.err.text, cases[i].says) != NULL, "case %zu: %s: %s", i,
                  bl_status_name(status), j.err.text);
  }
}
END_TEST

/* ---- npy ---- */

/* An npy file of the given format version; returns its path. */
static const char *put_npy(const char *name, unsigned version, const char *dictionary, const void *data, size_t size) {
  uint8_t file[4096];
  size_t n = strlen(dictionary) + 1, at = 0;
  ck_assert_uint_lt(n + size + 16, sizeof file);
  memcpy(file, "\x93NUMPY", 6);
  file[6] = (uint8_t)version;
  file[7] = 0;
  uint32_t length = (uint32_t)n;
  memcpy(file + 8, &length, version == 1 ? 2 : 4);
  at = version == 1 ? 10 : 12;
  memcpy(file + at, dictionary, n - 1);
  file[at + n - 1] = '\n';
  memcpy(file + at + n, data, size);
  return put_file(name, file, at + n + size);
}

/* Under a name of its own. */
static const char *put_bad_npy(const char *dictionary, const void *data, size_t size) {
  static unsigned n;
  char name[32];
  snprintf(name, sizeof name, "bad-%u.npy", n++);
  return put_npy(name, 1, dictionary, data, size);
}

#define NPY_HEAD(descr, shape) "{'descr': '" descr "', 'fortran_order': False, 'shape': " shape ", }"

static job npy_job(const char *inputs, const char *targets) {
  job j = {.spec = {.loss = BL_LOSS_SOFTMAX_CROSS_ENTROPY,
                    .data = {.train = {.kind = BL_SOURCE_NPY, .n_paths = 2}, .normalize = BL_NORMALIZE_NONE}},
           .paths = {inputs, targets}};
  return j;
}

/* The same six numbers in every type that can hold them. */
START_TEST(npy_arrays_of_every_type_are_read) {
  static const struct {
    const char *dictionary;
    unsigned version;
    size_t bytes;
    union {
      uint8_t u1[6];
      uint16_t u2[6];
      uint32_t u4[6];
      int64_t i8[6];
      float f4[6];
      double f8[6];
    } data;
  } cases[] = {
      {NPY_HEAD("|u1", "(2, 3)"), 1, 1, {.u1 = {1, 0, 1, 1, 0, 0}}},
      {NPY_HEAD("<u1", "(2, 3)"), 2, 1, {.u1 = {1, 0, 1, 1, 0, 0}}},
      {NPY_HEAD("|b1", "(2, 3)"), 1, 1, {.u1 = {1, 0, 255, 1, 0, 0}}},
      {NPY_HEAD("|i1", "(2, 3)"), 3, 1, {.u1 = {1, 0, 1, 1, 0, 0}}},
      {NPY_HEAD("<u2", "(2, 3)"), 1, 2, {.u2 = {1, 0, 1, 1, 0, 0}}},
      {NPY_HEAD("<i2", "(2L, 3L)"), 1, 2, {.u2 = {1, 0, 1, 1, 0, 0}}},
      {NPY_HEAD("<u4", "(2, 3)"), 1, 4, {.u4 = {1, 0, 1, 1, 0, 0}}},
      {"{\"shape\":(2,3,1),\"fortran_order\":False,\"descr\":\"<i4\"}", 1, 4, {.u4 = {1, 0, 1, 1, 0, 0}}},
      {NPY_HEAD("<i8", "(2, 3)"), 1, 8, {.i8 = {1, 0, 1, 1, 0, 0}}},
      {NPY_HEAD("<f2", "(2, 3)"), 1, 2, {.u2 = {0x3c00, 0, 0x3c00, 0x3c00, 0x8000, 0}}},
      {NPY_HEAD("<f4", "(2, 3)"), 1, 4, {.f4 = {1, 0, 1, 1, 0, 0}}},
      {NPY_HEAD("<f8", "(2, 3)"), 1, 8, {.f8 = {1, 0, 1, 1, 0, 0}}},
  };
  static const float expected[6] = {1, 0, 1, 1, 0, 0};
  const int64_t classes[] = {1, 0};
  job j = npy_job(put_npy("x.npy", cases[_i].version, cases[_i].dictionary, &cases[_i].data, 6 * cases[_i].bytes),
                  put_npy("y.npy", 1, NPY_HEAD("<i8", "(2,)"), classes, sizeof classes));
  ck_assert_ok_err(job_open(&j, 3, 2), j.err);
  float x[6];
  uint32_t got[2];
  wk_dataset_fetch(j.ds, (const uint64_t[]){0, 1}, 2, x, got, NULL);
  for (size_t i = 0; i < 6; i++)
    ck_assert_float_eq(x[i], expected[i]);
  ck_assert(got[0] == 1 && got[1] == 0);
  job_close(&j);
}
END_TEST

START_TEST(npy_whole_numbers_are_exact) {
  const int64_t big[] = {INT64_MAX, INT64_MIN, -1};
  wk_npy a;
  bl_error err = BL_ERROR_INIT;
  ck_assert_ok_err(wk_npy_read(put_npy("big", 1, NPY_HEAD("<i8", "(3,)"), big, sizeof big), &a, &err), err);
  ck_assert(wk_npy_is_integer(&a) && a.n_dims == 1 && a.n_elems == 3 && a.type == WK_NPY_I8);
  for (size_t i = 0; i < 3; i++)
    ck_assert_int_eq(wk_npy_integer(&a, i), big[i]);
  ck_assert_str_eq(wk_npy_type_name(a.type), "<i8");
  wk_npy_fini(&a);
}
END_TEST

START_TEST(npy_inputs_are_standardised_by_the_training_part) {
  const double x[] = {1, 10, 3, 10, 100, 10}, y[] = {2, 4, 6};
  job j = npy_job(put_npy("x.npy", 1, NPY_HEAD("<f8", "(3, 2)"), x, sizeof x),
                  put_npy("y.npy", 1, NPY_HEAD("<f8", "(3, 1)"), y, sizeof y));
  j.spec.loss = BL_LOSS_SQUARED;
  j.spec.data.normalize = BL_NORMALIZE_STANDARD;
  j.spec.data.validation = 0.34;
  ck_assert_ok_err(job_open(&j, 2, 1), j.err);
  float got[6], values[3];
  wk_dataset_fetch(j.ds, (const uint64_t[]){0, 1, 2}, 3, got, NULL, values);
  static const float expected[] = {-1, 0, 1, 0, 98, 0};
  for (size_t i = 0; i < 6; i++)
    ck_assert_float_eq(got[i], expected[i]);
  ck_assert(values[0] == 2 && values[2] == 6);
  job_close(&j);
}
END_TEST

START_TEST(bad_npy_files_are_refused_with_a_sentence) {
  static const uint8_t zero[64] = {0};
  static const float nan_at_4[6] = {0, 0, 0, 0, NAN, 0};
  static const double too_large[2] = {0, 1e39};
  static const int64_t labels3[] = {0, 1, 0}, label2[] = {0, 2};
  static const float half_class[] = {0, 0.5f};
  const char *x = put_npy("good-x", 1, NPY_HEAD("<f4", "(2, 3)"), zero, 24);
  const char *y = put_npy("good-y", 1, NPY_HEAD("<i8", "(2,)"), zero, 16);
#define BAD_X(dictionary, data, size) put_bad_npy(dictionary, data, size), y
  const struct {
    const char *inputs, *targets;
    bl_status status;
    const char *says;
  } cases[] = {
      {put_text("text", "hello, world"), y, BL_ECORRUPT, "starts with 68 65 6c 6c, expected 93 4e 55 4d"},
      {put_text("short", "\x93NUM"), y, BL_ECORRUPT, "truncated inside its npy header"},
      {put_npy("version", 4, NPY_HEAD("<f4", "(2, 3)"), zero, 24), y, BL_EUNSUPPORTED, "version 4.0, supported are"},
      {put_file("long", "\x93NUMPY\2\0\xff\xff\xff\xff{}", 14), y, BL_ELIMIT, "header of 4294967295 bytes, the limit is 65536"},
      {BAD_X("hello", zero, 24), BL_ECORRUPT, "is no dictionary, at 'hello"},
      {BAD_X("{'descr': '<f4', 'shape': (2, 3)}", zero, 24), BL_ECORRUPT, "lacks one of"},
      {BAD_X("{'descr': '<f4', 'descr': '<f4'}", zero, 24), BL_ECORRUPT, "a key twice"},
      {BAD_X("{'descr': '<f4', 'color': 1}", zero, 24), BL_ECORRUPT, "none of descr, fortran_order, shape"},
      {BAD_X("{'descr': '<f4', 'fortran_order': 1}", zero, 24), BL_ECORRUPT, "neither True nor False"},
      {BAD_X("{'descr': '<f4', 'fortran_order': False, 'shape': (2, -3)}", zero, 24), BL_ECORRUPT, "no whole number"},
      {BAD_X(NPY_HEAD("<f4", "(99999999999999999999,)"), zero, 24), BL_ECORRUPT, "no whole number"},
      {BAD_X(NPY_HEAD("<f4", "(4294967296, 4294967296)"), zero, 24), BL_ELIMIT, "more than 2^48 elements"},
      {BAD_X(NPY_HEAD("<f4", "(1, 2, 3, 4, 5, 6, 7, 8, 9)"), zero, 24), BL_EUNSUPPORTED, "more than 8 dimensions"},
      {BAD_X(NPY_HEAD("<f4", "()"), zero, 4), BL_EINVAL, "one number, not an array"},
      {BAD_X(NPY_HEAD("<f4", "(0, 3)"), zero, 0), BL_EINVAL, "is empty"},
      {BAD_X(NPY_HEAD(">f4", "(2, 3)"), zero, 24), BL_EUNSUPPORTED, "big-endian numbers ('>f4'); save it as"},
      {BAD_X(NPY_HEAD("|O", "(2, 3)"), zero, 24), BL_EUNSUPPORTED, "Python objects"},
      {BAD_X(NPY_HEAD("<c8", "(2, 3)"), zero, 48), BL_EUNSUPPORTED, "type '<c8'; supported are"},
      {BAD_X(NPY_HEAD("|f4", "(2, 3)"), zero, 24), BL_EUNSUPPORTED, "type '|f4'"},
      {BAD_X("{'descr': [('x', '<f4')], 'fortran_order': False, 'shape': (2,)}", zero, 8), BL_EUNSUPPORTED, "structured"},
      {BAD_X("{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3)}", zero, 24), BL_EUNSUPPORTED, "ascontiguousarray"},
      {BAD_X(NPY_HEAD("<f4", "(2, 3)"), zero, 23), BL_ECORRUPT, "promises 6 elements of 4 bytes, after it come only 23"},
      {BAD_X(NPY_HEAD("<f4", "(2, 3)"), zero, 25), BL_ECORRUPT, "more bytes follow"},
      {BAD_X(NPY_HEAD("<f4", "(2, 3)"), nan_at_4, 24), BL_ENOTFINITE, "record 1, value 1 (counted from 0): nan"},
      {BAD_X(NPY_HEAD("<f8", "(2, 1)"), too_large, 16), BL_ENOTFINITE, "1e+39 is no 32-bit number"},
      {BAD_X(NPY_HEAD("<f4", "(2, 4)"), zero, 32), BL_EMISMATCH, "gives 4 inputs for each sample, the model takes 3"},
      {x, put_npy("three", 1, NPY_HEAD("<i8", "(3,)"), labels3, 24), BL_EMISMATCH, "has 3 targets, but"},
      {x, x, BL_EINVAL, "swapped"},
      {x, put_npy("two", 1, NPY_HEAD("<i8", "(2,)"), label2, 16), BL_EINVAL, "record 1 (counted from 0): label 2 is out of range"},
      {x, put_npy("half", 1, NPY_HEAD("<f4", "(2,)"), half_class, 8), BL_EINVAL, "label 0.5 is out of range"},
  };
  for (size_t i = 0; i < BL_COUNT_OF(cases); i++) {
    job j = npy_job(cases[i].inputs, cases[i].targets);
    bl_status status = job_open(&j, 3, 2);
    ck_assert_msg(status == cases[i].status && strstr(j.err.text, cases[i].says) != NULL, "case %zu: %s: %s", i,
                  bl_status_name(status), j.err.text);
    ck_assert_ptr_null(j.ds);
  }
#undef BAD_X
}
END_TEST

/* A file that was written along the first axis of a Fortran array has one dimension: both orders are the same. */
START_TEST(npy_fortran_order_of_one_dimension_is_read) {
  const float y[] = {1, 0};
  wk_npy a;
  bl_error err = BL_ERROR_INIT;
  const char *path = put_npy("f", 1, "{'descr': '<f4', 'fortran_order': True, 'shape': (2, 1)}", y, sizeof y);
  ck_assert_ok_err(wk_npy_read(path, &a, &err), err);
  ck_assert(wk_npy_number(&a, 0) == 1 && wk_npy_number(&a, 1) == 0);
  wk_npy_fini(&a);
}
END_TEST

START_TEST(targets_may_be_values_in_every_format) {
  job jobs[] = {idx_job(put_file("images", images, sizeof images), put_file("labels", labels, sizeof labels)),
                csv_job(put_text("bom.csv", "\xef\xbb\xbfy,a,b,c,d\n2,0,0,0,0\n0,0,0,0,0\n1,0,0,0,0\n"), "y"),
                libsvm_job(put_text("svm", "2 1:1\n0\n1 4:1\n"))};
  for (size_t i = 0; i < BL_COUNT_OF(jobs); i++) {
    job *j = &jobs[i];
    j->spec.loss = BL_LOSS_SQUARED;
    ck_assert_ok_err(job_open(j, 4, 1), j->err);
    ck_assert_int_eq(wk_dataset_get_info(j->ds).target, WK_TARGET_VALUE);
    ck_assert_int_eq(wk_preprocess_target_kind(j->pre), WK_TARGET_VALUE);
    float x[12], y[3];
    wk_dataset_fetch(j->ds, (const uint64_t[]){0, 1, 2}, 3, x, NULL, y);
    ck_assert(y[0] == 2 && y[1] == 0 && y[2] == 1);
    job_close(j);
  }
}
END_TEST

START_TEST(inputs_can_be_read_without_targets) {
  job jobs[] = {idx_job(put_file("images", images, sizeof images), put_file("labels", labels, sizeof labels)),
                libsvm_job(put_text("svm", "2 1:1\n0\n1 4:1\n"))};
  const char *bare[] = {put_file("images", images, sizeof images), put_text("bare", "1:1\n2:1\n4:1\n")};
  for (size_t i = 0; i < BL_COUNT_OF(jobs); i++) {
    job *j = &jobs[i];
    ck_assert_ok_err(job_open(j, 4, 3), j->err);
    bl_source_spec source = j->spec.data.train;
    source.paths = &bare[i];
    source.n_paths = 1;
    wk_dataset *ds;
    ck_assert_ok_err(wk_dataset_open(&source, j->pre, false, &ds, &j->err), j->err);
    ck_assert_uint_eq(wk_dataset_get_info(ds).n_samples, 3);
    float x[12];
    wk_dataset_fetch(ds, (const uint64_t[]){0, 1, 2}, 3, x, NULL, NULL);
    wk_dataset_free(ds);
    ck_assert_status(wk_dataset_open(&source, j->pre, true, &ds, &j->err), BL_EINVAL);
    job_close(j);
  }
}
END_TEST

START_TEST(labels_of_other_files_must_be_those_of_the_training_set) {
  static const struct {
    const char *train, *test, *says;
  } cases[] = {
      {"x,class\n1,red\n2,blue\n", "x,class\n1,green\n", ".csv:2: column 1 'class': 'green' is not a class"},
      {"x,class\n1,0\n2,1\n", "x,class\n1,1\n3,2\n", ".csv:3: label '2' is out of range"}};
  for (size_t i = 0; i < BL_COUNT_OF(cases); i++) {
    job j = csv_job(put_text("train.csv", cases[i].train), "class");
    j.spec.loss = BL_LOSS_SOFTMAX_CROSS_ENTROPY;
    ck_assert_ok_err(job_open(&j, 1, 2), j.err);
    bl_source_spec source = j.spec.data.train;
    const char *path = put_text("test.csv", cases[i].test);
    source.paths = &path;
    source.target = NULL; /* the training set's */
    wk_dataset *ds;
    ck_assert_status(wk_dataset_open(&source, j.pre, true, &ds, &j.err), BL_EINVAL);
    ck_assert_msg(strstr(j.err.text, cases[i].says) != NULL, "%s", j.err.text);
    job_close(&j);
  }
}
END_TEST

START_TEST(columns_that_do_not_exist_are_named) {
  static const char *const wrong[] = {"romms"}, *const extra[] = {"extra"}, *const rooms[] = {"rooms"};
  job j = csv_job(put_text("houses.csv", houses), "price");
  j.spec.data.train.columns = wrong;
  j.spec.data.train.n_columns = 1;
  ck_assert_status(job_open(&j, 1, 1), BL_ENOENT);
  ck_assert_msg(strstr(j.err.text, "'romms' is not in the header, did you mean 'rooms'?") != NULL, "%s",
                j.err.text);
  j.spec.data.train.columns = rooms;
  j.spec.data.train.categorical = extra;
  j.spec.data.train.n_categorical = 1;
  ck_assert_status(job_open(&j, 1, 1), BL_EINVAL);
  ck_assert_msg(strstr(j.err.text, "'extra' is not one of the inputs") != NULL, "%s", j.err.text);
  job k = csv_job(put_text("numbers.csv", "1,2\n"), "2");
  k.spec.data.train.header = false;
  ck_assert_status(job_open(&k, 1, 1), BL_ENOENT);
  ck_assert_msg(strstr(k.err.text, "columns are numbered 0 to 1") != NULL, "%s", k.err.text);
}
END_TEST

START_TEST(the_fingerprint_sees_every_difference) {
  static const char *const texts[] = {"x,k,price\n1,a,10\n2,b,20\n", "x,k,price\n1,a,10\n2,b,21\n",
                                      "x,k,price\n1.5,a,10\n2,b,20\n", "x,k,price\n1,a,10\n2,c,20\n",
                                      "x,k,price\n2,b,20\n1,a,10\n"};
  static const char *const k[] = {"k"};
  uint64_t seen[BL_COUNT_OF(texts)];
  for (size_t i = 0; i < BL_COUNT_OF(texts); i++) {
    job j = csv_job(put_text("print.csv", texts[i]), "price");
    j.spec.data.train.categorical = k;
    j.spec.data.train.n_categorical = 1;
    ck_assert_ok_err(job_open(&j, 3, 1), j.err);
    seen[i] = wk_dataset_fingerprint(j.ds);
    for (size_t before = 0; before < i; before++)
      ck_assert_uint_ne(seen[before], seen[i]);
    job_close(&j);
  }
}
END_TEST

/* ---- preprocess.json ---- */

START_TEST(preprocessing_comes_back_bit_for_bit) {
  job j = csv_job(put_text("houses.csv", houses), "price");
  j.spec.data.train.categorical = kind;
  j.spec.data.train.n_categorical = 1;
  j.spec.data.train.missing = BL_MISSING_MEAN;
  j.spec.data.normalize = BL_NORMALIZE_STANDARD;
  j.spec.data.standardize_target = true;
  ck_assert_ok_err(job_open(&j, 5, 1), j.err);
  char path[128];
  snprintf(path, sizeof path, "%s/preprocess.json", test_temp_dir());
  ck_assert_ok_err(wk_preprocess_write(j.pre, path, &j.err), j.err);
  wk_preprocess *pre;
  wk_dataset *ds;
  ck_assert_ok_err(wk_preprocess_read(path, &pre, &j.err), j.err);
  ck_assert_double_eq(wk_preprocess_target_variance(pre), wk_preprocess_target_variance(j.pre));
  ck_assert_double_eq(wk_preprocess_target_to_units(pre, 0.3), wk_preprocess_target_to_units(j.pre, 0.3));
  ck_assert_ok_err(wk_dataset_open(&j.spec.data.train, pre, true, &ds, &j.err), j.err);
  float a[15], b[15], y[3], z[3];
  wk_dataset_fetch(j.ds, (const uint64_t[]){0, 1, 2}, 3, a, NULL, y);
  wk_dataset_fetch(ds, (const uint64_t[]){0, 1, 2}, 3, b, NULL, z);
  ck_assert_mem_eq(a, b, sizeof a);
  ck_assert_mem_eq(y, z, sizeof y);
  wk_dataset_free(ds);
  wk_preprocess_free(pre);
  job_close(&j);
}
END_TEST

START_TEST(strange_preprocess_files_are_refused) {
#define MOST                                                                                                   \
  "\"source\": \"idx\", \"target\": \"class\", \"inputs\": 2, \"classes\": 2, \"target_mean\": 0, "            \
  "\"target_deviation\": 1"
  static const struct {
    const char *text, *says;
  } cases[] = {
      {"", "preprocess.json:1:"},
      {"[]", "not a JSON object"},
      {"{\"version\": 2}", "has version 2, this program reads version 1"},
      {"{\"version\": 1, \"new\": 1}", "'new' is not known"},
      {"{\"version\": 1, \"source\": \"tar\"}", "'source' is not one of"},
      {"{\"version\": 1, " MOST ", \"normalize\": \"odd\"}", "'normalize' is not one of"},
      {"{\"version\": 1, " MOST ", \"normalize\": \"standard\", \"mean\": [1]}", "'mean' is not a list"},
      {"{\"version\": 1, " MOST ", \"normalize\": \"standard\", \"mean\": [1, 2], \"deviation\": [1, 0]}",
       "not above 0"},
      {"{\"version\": 1, " MOST ", \"normalize\": \"none\", \"class_names\": [\"b\", \"a\"]}", "not sorted"},
      {"{\"version\": 1, " MOST ", \"normalize\": \"none\", \"inputs\": 2}", "duplicate"},
  };
  for (size_t i = 0; i < BL_COUNT_OF(cases); i++) {
    wk_preprocess *pre = NULL;
    bl_error err = BL_ERROR_INIT;
    bl_status status = wk_preprocess_read(put_text("preprocess.json", cases[i].text), &pre, &err);
    ck_assert_msg(status != BL_OK && strstr(err.text, cases[i].says) != NULL, "case %zu: %s", i, err.text);
    ck_assert_ptr_null(pre);
  }
}
END_TEST

START_TEST(names_that_json_cannot_hold_are_refused_before_training) {
  job j = csv_job(put_text("latin1.csv", "x,class\n1,gr\xfcn\n2,rot\n"), "class");
  j.spec.loss = BL_LOSS_SOFTMAX_CROSS_ENTROPY;
  ck_assert_status(job_open(&j, 1, 2), BL_EINVAL);
  ck_assert_ptr_nonnull(strstr(j.err.text, "not UTF-8"));
}
END_TEST

/* ---- memory ---- */

static job sweep_job(int kind_of_source) {
  if (kind_of_source == 0) {
    uint8_t packed[256];
    size_t n = gzip(images, sizeof images, packed, sizeof packed);
    job j = idx_job(put_file("images.gz", packed, n), put_file("labels", labels, sizeof labels));
    j.spec.data.normalize = BL_NORMALIZE_STANDARD;
    return j;
  }
  if (kind_of_source == 1) {
    job j = csv_job(put_text("houses.csv", houses), "kind, of");
    j.spec.data.train.missing = BL_MISSING_MEAN;
    j.spec.loss = BL_LOSS_SOFTMAX_CROSS_ENTROPY;
    return j;
  }
  if (kind_of_source == 2) {
    job j = csv_job(put_text("houses.csv", houses), "price");
    j.spec.data.train.categorical = kind;
    j.spec.data.train.n_categorical = 1;
    j.spec.data.train.missing = BL_MISSING_MEAN;
    j.spec.data.standardize_target = true;
    return j;
  }
  job j = libsvm_job(put_text("svm", "0 1:1 2:2\n1 3:1\n2 1:4\n"));
  j.spec.data.normalize = BL_NORMALIZE_STANDARD;
  return j;
}

START_TEST(opening_survives_a_failure_of_every_allocation) {
  static const struct { uint32_t n_inputs, n_outputs; } models[] = {{4, 3}, {3, 3}, {5, 1}, {4, 3}};
  job j = sweep_job(_i);
  uint64_t live = bl_alloc_get_stats().live_blocks;
  for (uint64_t n = 1;; n++) {
    ck_assert_uint_lt(n, 1000);
    bl_alloc_fail_after(n);
    bl_status status = job_open(&j, models[_i].n_inputs, models[_i].n_outputs);
    wk_dataset *again = NULL;
    if (status == BL_OK)
      status = wk_dataset_open(&j.spec.data.train, j.pre, true, &again, &j.err);
    bl_alloc_fail_after(0);
    wk_dataset_free(again);
    job_close(&j);
    ck_assert_uint_eq(bl_alloc_get_stats().live_blocks, live);
    if (status == BL_OK)
      break;
    ck_assert_msg(status == BL_ENOMEM, "%s: %s", bl_status_name(status), j.err.text);
  }
}
END_TEST

/* ---- our own data ---- */

START_TEST(digits_are_the_same_on_every_machine) {
  uint8_t pixels[10][WK_DIGIT_PIXELS];
  for (uint8_t d = 0; d < 10; d++)
    wk_digit_draw(1, 0, d, d, pixels[d]);
  ck_assert_uint_eq(bl_checksum(pixels, sizeof pixels), UINT64_C(0x7b43c4bdca54565d));
  uint8_t other[WK_DIGIT_PIXELS];
  wk_digit_draw(2, 0, 0, 0, other);
  ck_assert_mem_ne(other, pixels[0], sizeof other);
  unsigned count[10] = {0};
  for (uint64_t i = 0; i < 10000; i++)
    count[wk_digit_label(1, 0, i)]++;
  for (int d = 0; d < 10; d++)
    ck_assert_uint_gt(count[d], 850);
}
END_TEST

START_TEST(written_digits_are_read_back) {
  uint8_t pixels[3][WK_DIGIT_PIXELS];
  const uint8_t digits[3] = {7, 0, 3};
  for (int i = 0; i < 3; i++)
    wk_digit_draw(1, 0, (uint64_t)i, digits[i], pixels[i]);
  const char *inputs = put_text("digits.gz", ""), *targets = put_text("digit-labels", "");
  job j = idx_job(inputs, targets);
  ck_assert_ok_err(wk_idx_write(inputs, (const uint32_t[]){3, 28, 28}, 3, pixels[0], true, &j.err), j.err);
  ck_assert_ok_err(wk_idx_write(targets, (const uint32_t[]){3}, 1, digits, false, &j.err), j.err);
  j.spec.data.normalize = BL_NORMALIZE_NONE;
  ck_assert_ok_err(job_open(&j, 784, 10), j.err);
  float x[784];
  uint32_t label;
  wk_dataset_fetch(j.ds, (const uint64_t[]){2}, 1, x, &label, NULL);
  ck_assert_uint_eq(label, 3);
  for (int i = 0; i < 784; i++)
    ck_assert_float_eq(x[i], pixels[2][i]);
  job_close(&j);
}
END_TEST

/* ---- real data sets ---- */

START_TEST(fashion_mnist_has_its_known_beginning) {
  const char *inputs = test_data_path("fashion-mnist/train-images-idx3-ubyte.gz");
  const char *targets = test_data_path("fashion-mnist/train-labels-idx1-ubyte.gz");
  if (inputs == NULL || targets == NULL)
    return;
  job j = idx_job(inputs, targets);
  j.spec.data.normalize = BL_NORMALIZE_NONE;
  ck_assert_ok_err(job_open(&j, 784, 10), j.err);
  ck_assert_uint_eq(wk_dataset_get_info(j.ds).n_samples, 60000);
  static const uint32_t first[10] = {9, 0, 0, 3, 0, 2, 7, 2, 5, 5};
  float x[784];
  double sum = 0;
  for (uint64_t i = 10; i-- > 0;) {
    uint32_t label;
    wk_dataset_fetch(j.ds, &i, 1, x, &label, NULL);
    ck_assert_uint_eq(label, first[i]);
  }
  for (int i = 0; i < 784; i++)
    sum += (double)x[i];
  ck_assert_double_eq(sum, 76247); /* of the first picture, by od and awk */
  job_close(&j);
}
END_TEST

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
  ck_assert_uint_eq(ones, 7841);       /* grep -c '^+1' */
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
  tcase_add_test(shuffle, ranks_with_data_of_their_own_do_not_shuffle_alike);
  tcase_add_loop_test(shuffle, every_local_sample_is_used_once_per_epoch, 0, 200);
  tcase_add_test(shuffle, shuffled_places_are_spread_evenly);
  tcase_add_loop_test(shuffle, ranges_cover_every_position_exactly_once, 0, 10);
  tcase_add_test(shuffle, validation_takes_the_last_part);
  suite_add_tcase(s, shuffle);
  TCase *idx = tcase_create("idx");
  tcase_add_test(idx, idx_images_and_labels_are_read);
  tcase_add_test(idx, bad_idx_files_are_refused_with_a_sentence);
  tcase_add_test(idx, every_cut_of_a_gzip_file_is_noticed);
  tcase_add_test(idx, a_pipe_is_refused_and_does_not_hang);
  tcase_add_test(idx, statistics_come_from_the_training_part_only);
  suite_add_tcase(s, idx);
  TCase *npy = tcase_create("npy");
  tcase_add_loop_test(npy, npy_arrays_of_every_type_are_read, 0, 12);
  tcase_add_test(npy, npy_whole_numbers_are_exact);
  tcase_add_test(npy, npy_inputs_are_standardised_by_the_training_part);
  tcase_add_test(npy, bad_npy_files_are_refused_with_a_sentence);
  tcase_add_test(npy, npy_fortran_order_of_one_dimension_is_read);
  suite_add_tcase(s, npy);
  TCase *text = tcase_create("text");
  tcase_add_test(text, csv_columns_categories_and_missing_values);
  tcase_add_test(text, bad_csv_files_are_refused_with_a_sentence);
  tcase_add_test(text, class_labels_are_numbers_or_sorted_names);
  tcase_add_test(text, other_csv_files_are_matched_to_the_training_set);
  tcase_add_test(text, without_a_header_the_target_may_be_left_out);
  tcase_add_test(text, several_files_are_read_as_one);
  tcase_add_test(text, libsvm_rows_are_read_and_densified);
  tcase_add_test(text, bad_libsvm_files_are_refused_with_a_sentence);
  tcase_add_test(text, targets_may_be_values_in_every_format);
  tcase_add_test(text, inputs_can_be_read_without_targets);
  tcase_add_test(text, labels_of_other_files_must_be_those_of_the_training_set);
  tcase_add_test(text, columns_that_do_not_exist_are_named);
  tcase_add_test(text, the_fingerprint_sees_every_difference);
  suite_add_tcase(s, text);
  TCase *pre = tcase_create("preprocess");
  tcase_add_test(pre, preprocessing_comes_back_bit_for_bit);
  tcase_add_test(pre, strange_preprocess_files_are_refused);
  tcase_add_test(pre, names_that_json_cannot_hold_are_refused_before_training);
  tcase_add_loop_test(pre, opening_survives_a_failure_of_every_allocation, 0, 4);
  suite_add_tcase(s, pre);
  TCase *own = tcase_create("own");
  tcase_add_test(own, digits_are_the_same_on_every_machine);
  tcase_add_test(own, written_digits_are_read_back);
  suite_add_tcase(s, own);
  TCase *real = tcase_create("real");
  tcase_set_timeout(real, 60);
  tcase_add_test(real, fashion_mnist_has_its_known_beginning);
  tcase_add_test(real, a9a_has_its_known_counts);
  tcase_add_test(real, housing_has_207_missing_values_and_five_categories);
  suite_add_tcase(s, real);
  return test_run(&s, 1);
}
