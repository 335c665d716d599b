/* SPDX-License-Identifier: Apache-2.0
 *
 * Sparse samples from file to layer: hashing, distinct keys, readers, the layer, tables in files, the generator of
 * click logs.
 */
#include "base/alloc.h"
#include "base/buf.h"
#include "base/file.h"
#include "base/rng.h"
#include "ckpt/safetensors.h"
#include "data/dataset.h"
#include "data/distinct.h"
#include "data/gen/clicks.h"
#include "data/hash.h"
#include "job/estimate.h"
#include "job/tensors.h"
#include "nn/model.h"
#include "tests/support/support.h"
#include "train/sparse_input.h"
#include "train/table_dump.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- distinct keys ---- */

static int by_key(const void *a, const void *b) {
  const uint64_t *x = a, *y = b;
  return *x < *y ? -1 : *x > *y;
}

static void check_distinct(wk_distinct *d, const uint64_t *keys, size_t n) {
  static uint64_t *rows;
  static uint32_t rows_capacity;
  uint32_t *at = calloc(n + 1, sizeof *at), n_rows = 0;
  uint64_t *sorted = calloc(n + 1, sizeof *sorted);
  ck_assert_ok(wk_distinct_find(d, keys, n, at, &rows, &rows_capacity, &n_rows));
  for (size_t i = 0; i < n; i++) {
    ck_assert_uint_lt(at[i], n_rows);
    ck_assert_uint_eq(rows[at[i]], keys[i]);
    sorted[i] = keys[i];
  }
  if (n > 0)
    qsort(sorted, n, sizeof *sorted, by_key);
  uint32_t expected = 0;
  for (size_t i = 0; i < n; i++) {
    if (i > 0 && sorted[i] == sorted[i - 1])
      continue;
    ck_assert_uint_eq(rows[expected++], sorted[i]);
  }
  ck_assert_uint_eq(n_rows, expected);
  free(at);
  free(sorted);
}

START_TEST(distinct_keys_come_ascending_and_name_every_key) {
  static const uint64_t spans[] = {1, 2, 100, 5000, UINT64_C(1) << 24, UINT64_C(1) << 40, WK_DISTINCT_KEY_MAX};
  enum { N = 20000 };
  wk_distinct d = {0};
  uint64_t *keys = calloc(N, sizeof *keys);
  for (size_t s = 0; s < sizeof spans / sizeof *spans; s++)
    for (size_t n = 0; n <= N; n = n < 3 ? n + 1 : n * 7) {
      for (size_t i = 0; i < n; i++)
        keys[i] = bl_rng_below(3, s, i, spans[s]);
      check_distinct(&d, keys, n);
    }
  /* Keys that differ in one digit of the sort only, and extremes. */
  for (size_t i = 0; i < 1000; i++)
    keys[i] = (uint64_t)(999 - i) << 33 | 5;
  check_distinct(&d, keys, 1000);
  keys[0] = WK_DISTINCT_KEY_MAX;
  keys[1] = 0;
  check_distinct(&d, keys, 2);
  wk_distinct_fini(&d);
  free(keys);
}
END_TEST

START_TEST(distinct_keys_without_memory_leak_nothing_and_work_again) {
  uint64_t keys[3000], before = bl_alloc_get_stats().live_blocks;
  uint32_t at[3000];
  for (size_t i = 0; i < 3000; i++)
    keys[i] = bl_rng_u64(1, 2, i) >> 30;
  bl_status status = BL_ENOMEM;
  for (uint64_t n = 1; status != BL_OK; n++) {
    wk_distinct d = {0};
    uint64_t *rows = NULL;
    uint32_t capacity = 0, n_rows = 0;
    bl_alloc_fail_after(n);
    status = wk_distinct_find(&d, keys, 3000, at, &rows, &capacity, &n_rows);
    bl_alloc_fail_after(0);
    ck_assert(status == BL_OK || status == BL_ENOMEM);
    ck_assert_ok(wk_distinct_find(&d, keys, 3000, at, &rows, &capacity, &n_rows));
    ck_assert_uint_eq(rows[at[2999]], keys[2999]);
    wk_distinct_fini(&d);
    bl_free(rows);
    ck_assert_uint_eq(bl_alloc_get_stats().live_blocks, before);
  }
}
END_TEST

/* ---- hashing and the generator ---- */

START_TEST(slots_are_pinned_and_depend_on_column_and_seed) {
  uint64_t city = wk_hash_column(0, "city"), other = wk_hash_column(0, "town"), seeded = wk_hash_column(1, "city");
  /* Golden: model folders and click logs depend on them. */
  ck_assert_uint_eq(wk_hash_slot(city, "Rome", 4, 24), UINT64_C(9352770));
  ck_assert_uint_eq(wk_hash_slot(city, "Rome", 4, 40) >> 16, wk_hash_slot(city, "Rome", 4, 24));
  ck_assert_uint_ne(wk_hash_slot(other, "Rome", 4, 40), wk_hash_slot(city, "Rome", 4, 40));
  ck_assert_uint_ne(wk_hash_slot(seeded, "Rome", 4, 40), wk_hash_slot(city, "Rome", 4, 40));
  ck_assert_uint_lt(wk_hash_slot(city, "Rome", 4, 1), 2);
}
END_TEST

START_TEST(click_logs_repeat_keys_as_real_ones_do) {
  static const struct {
    uint32_t rows;
    double share;
  } cases[] = {{256, 0.29}, {1024, 0.205}, {4096, 0.15}};
  wk_clicks *c;
  wk_distinct d = {0};
  bl_error err = BL_ERROR_INIT;
  ck_assert_ok_err(wk_clicks_new(1, 24, &c, &err), err);
  for (size_t k = 0; k < 3; k++) {
    size_t n = (size_t)cases[k].rows * WK_CLICKS_FIELDS;
    uint64_t *keys = calloc(n, sizeof *keys), *rows = NULL;
    uint32_t *at = calloc(n, sizeof *at), capacity = 0, n_rows;
    wk_click row;
    for (uint32_t i = 0; i < cases[k].rows; i++) {
      wk_clicks_row(c, 0, 100000 + i, &row);
      for (unsigned f = 0; f < WK_CLICKS_FIELDS; f++)
        keys[i * WK_CLICKS_FIELDS + f] = row.slots[f];
    }
    ck_assert_ok(wk_distinct_find(&d, keys, n, at, &rows, &capacity, &n_rows));
    ck_assert_double_eq_tol((double)n_rows / (double)n, cases[k].share, 0.015);
    free(keys);
    free(at);
    bl_free(rows);
  }
  wk_distinct_fini(&d);
  wk_clicks_free(c);
}
END_TEST

START_TEST(labels_of_click_logs_follow_the_truth) {
  enum { N = 20000 };
  wk_clicks *c, *again;
  bl_error err = BL_ERROR_INIT;
  wk_click a, b;
  wk_click_truth t = {0};
  double expected = 0;
  ck_assert_ok_err(wk_clicks_new(5, 16, &c, &err), err);
  ck_assert_ok_err(wk_clicks_new(5, 16, &again, &err), err);
  for (uint64_t i = 0; i < N; i++) {
    wk_clicks_row(c, 1, i, &a);
    wk_clicks_row(again, 1, i, &b);
    ck_assert_mem_eq(a.slots, b.slots, sizeof a.slots);
    ck_assert_uint_eq(a.label, b.label);
    for (unsigned f = 0; f < WK_CLICKS_FIELDS; f++)
      ck_assert_uint_lt(a.slots[f], 1u << 16);
    wk_click_truth_add(&t, &a);
    expected += 1 / (1 + exp(-a.z));
  }
  ck_assert_double_eq_tol((double)t.positives / N, expected / N, 0.015);
  ck_assert_double_eq_tol(t.log_loss / N, t.entropy / N, 0.01);
  ck_assert_double_lt(t.entropy / N, 0.62); /* there is something to learn */
  ck_assert_double_gt((double)t.correct / N, 0.68);
  wk_clicks_free(c);
  wk_clicks_free(again);
  ck_assert_status(wk_clicks_new(1, 0, &c, &err), BL_EINVAL);
  ck_assert_status(wk_clicks_new(1, 29, &c, &err), BL_EINVAL);
}
END_TEST

/* ---- readers ---- */

static bl_layer_spec sparse_layer = {.kind = BL_LAYER_SPARSE, .name = "sparse1", .units = 1, .bias = true};

static bl_job_spec job_of(bl_source_kind kind, const char *const *paths, size_t n_paths, uint64_t inputs) {
  bl_job_spec spec = {.loss = BL_LOSS_SIGMOID_CROSS_ENTROPY, .seed = 1, .ranks = 1, .batch = 4, .epochs = 1};
  spec.model = (bl_model_spec){.input = {inputs}, .n_input_dims = 1, .layers = &sparse_layer, .n_layers = 1};
  spec.data.normalize = BL_NORMALIZE_NONE;
  spec.data.train = (bl_source_spec){.kind = kind, .paths = paths, .n_paths = n_paths, .delimiter = ','};
  return spec;
}

static const char *write_text(const char *name, const char *text, size_t size) {
  static char paths[8][300];
  static unsigned next;
  char *path = paths[next++ % 8];
  snprintf(path, sizeof paths[0], "%s/%s", test_temp_dir(), name);
  bl_error err = BL_ERROR_INIT;
  ck_assert_ok_err(bl_file_write_atomic(path, text, size, 0644, &err), err);
  return path;
}

/* Opens a training set, and all its samples as one batch. */
static wk_dataset *open_all(const bl_job_spec *spec, wk_preprocess **ret_pre, wk_sparse_batch *b, uint32_t *labels) {
  wk_dataset *ds;
  bl_error err = BL_ERROR_INIT;
  uint64_t indices[16];
  ck_assert_ok_err(wk_dataset_open_train(spec, spec->model.input[0], 1, &ds, ret_pre, &err), err);
  wk_dataset_info info = wk_dataset_get_info(ds);
  ck_assert(info.sparse);
  ck_assert_uint_eq(info.n_inputs, spec->model.input[0]);
  ck_assert_uint_le(info.n_samples, 16);
  for (uint64_t i = 0; i < info.n_samples; i++)
    indices[i] = i;
  ck_assert_ok(wk_dataset_fetch_sparse(ds, indices, info.n_samples, b, labels, NULL));
  return ds;
}

static void check_row(const wk_sparse_batch *b, uint32_t i, size_t n, const uint64_t *keys, const float *vals) {
  ck_assert_uint_eq(b->row_start[i + 1] - b->row_start[i], n);
  for (size_t k = 0; k < n; k++) {
    ck_assert_uint_eq(b->keys[b->row_start[i] + k], keys[k]);
    ck_assert(vals == NULL ? b->ones : b->vals[b->row_start[i] + k] == vals[k]);
  }
}

START_TEST(libsvm_stays_sparse_up_to_2_to_the_40) {
  static const char text[] = "+1 1:0.5 1099511627776:2\n-1\n-1 7:1\n";
  const char *path = write_text("wide.libsvm", text, sizeof text - 1);
  bl_job_spec spec = job_of(BL_SOURCE_LIBSVM, &path, 1, UINT64_C(1) << 40);
  wk_preprocess *pre;
  wk_sparse_batch b = {0};
  uint32_t labels[16];
  wk_dataset *ds = open_all(&spec, &pre, &b, labels);
  check_row(&b, 0, 2, (uint64_t[]){0, (UINT64_C(1) << 40) - 1}, (float[]){0.5f, 2});
  check_row(&b, 1, 0, NULL, NULL);
  check_row(&b, 2, 1, (uint64_t[]){6}, (float[]){1});
  ck_assert(labels[0] == 1 && labels[1] == 0 && labels[2] == 0);
  wk_dataset_free(ds);
  wk_preprocess_free(pre);
  bl_error err = BL_ERROR_INIT;
  spec.model.input[0] = 1 << 20;
  ck_assert_status(wk_dataset_open_train(&spec, 1 << 20, 1, &ds, &pre, &err), BL_EINVAL);
  ck_assert_ptr_nonnull(strstr(err.text, "feature 1099511627776 is beyond the 1048576 features"));
  wk_sparse_batch_fini(&b);
}
END_TEST

static const char *write_npy(const char *name, const char *descr, uint64_t rows, uint64_t cols, const void *data, size_t size) {
  char file[1024];
  memset(file, ' ', 128);
  memcpy(file, "\x93NUMPY\x01\x00\x76\x00", 10);
  int n = cols > 0 ? snprintf(file + 10, 118, "{'descr': '%s', 'fortran_order': False, 'shape': (%u, %u), }", descr,
                              (unsigned)rows, (unsigned)cols)
                   : snprintf(file + 10, 118, "{'descr': '%s', 'fortran_order': False, 'shape': (%u,), }", descr, (unsigned)rows);
  file[10 + n] = ' ';
  file[127] = '\n';
  memcpy(file + 128, data, size);
  return write_text(name, file, 128 + size);
}

START_TEST(npy_of_whole_numbers_is_slots_for_a_sparse_layer) {
  const uint32_t slots[6] = {5, 5, 99, 0, 7, 1};
  const int64_t wide[6] = {5, 5, 99, 0, 7, 1};
  const uint8_t labels[2] = {1, 0}, bytes[6] = {5, 5, 99, 0, 7, 1};
  const float floats[6] = {5, 5, 99, 0, 7, 1};
  const char *y = write_npy("y.npy", "|u1", 2, 0, labels, 2);
  const struct {
    const char *descr;
    const void *data;
    size_t size;
    uint64_t inputs;
  } cases[] = {{"<u4", slots, sizeof slots, 100},
               {"<i8", wide, sizeof wide, 100},
               {"|u1", bytes, sizeof bytes, 100},
               {"<u4", slots, sizeof slots, UINT64_C(1) << 33}};
  for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
    const char *paths[] = {write_npy("x.npy", cases[c].descr, 2, 3, cases[c].data, cases[c].size), y};
    bl_job_spec spec = job_of(BL_SOURCE_NPY, paths, 2, cases[c].inputs);
    wk_preprocess *pre;
    wk_sparse_batch b = {0};
    uint32_t seen[16];
    wk_dataset *ds = open_all(&spec, &pre, &b, seen);
    check_row(&b, 0, 3, (uint64_t[]){5, 5, 99}, NULL);
    check_row(&b, 1, 3, (uint64_t[]){0, 7, 1}, NULL);
    ck_assert(seen[0] == 1 && seen[1] == 0);
    wk_dataset_free(ds);
    wk_preprocess_free(pre);
    wk_sparse_batch_fini(&b);
  }
  const char *paths[] = {write_npy("x.npy", "<u4", 2, 3, slots, sizeof slots), y};
  bl_job_spec spec = job_of(BL_SOURCE_NPY, paths, 2, 99);
  wk_dataset *ds;
  wk_preprocess *pre;
  bl_error err = BL_ERROR_INIT;
  ck_assert_status(wk_dataset_open_train(&spec, 99, 1, &ds, &pre, &err), BL_EINVAL);
  ck_assert_ptr_nonnull(strstr(err.text, "record 0, field 2 (counted from 0): slot 99 is out of range"));
  const int64_t negative[6] = {0, 0, 0, 0, -1, 0};
  paths[0] = write_npy("x.npy", "<i8", 2, 3, negative, sizeof negative);
  ck_assert_status(wk_dataset_open_train(&spec, 99, 1, &ds, &pre, &err), BL_EINVAL);
  ck_assert_ptr_nonnull(strstr(err.text, "record 1, field 1 (counted from 0): slot -1"));
  paths[0] = write_npy("x.npy", "<f4", 2, 3, floats, sizeof floats);
  ck_assert_status(wk_dataset_open_train(&spec, 99, 1, &ds, &pre, &err), BL_EINVAL);
  ck_assert_ptr_nonnull(strstr(err.text, "a sparse layer takes slots, which are whole numbers"));
}
END_TEST

START_TEST(hashed_columns_become_slots_and_other_files_the_same_ones) {
  static const char text[] = "city,age,click\nRome,20,yes\nOslo,0.5,no\n,3,no\n", more[] = "click,age,city\nyes,1,never seen\n";
  static const char *const categorical[] = {"city"};
  const char *path = write_text("a.csv", text, sizeof text - 1);
  bl_job_spec spec = job_of(BL_SOURCE_CSV, &path, 1, 1 << 20);
  spec.data.train.header = true;
  spec.data.train.target = "click";
  spec.data.train.categorical = categorical;
  spec.data.train.n_categorical = 1;
  spec.data.train.missing = BL_MISSING_ZERO;
  spec.data.train.hash_bits = 20;
  spec.data.train.hash_seed = UINT64_MAX;
  wk_preprocess *pre, *read;
  wk_sparse_batch b = {0};
  uint32_t labels[16];
  wk_dataset *ds = open_all(&spec, &pre, &b, labels);
  uint64_t city = wk_hash_column(UINT64_MAX, "city"), age = wk_hash_slot(wk_hash_column(UINT64_MAX, "age"), "", 0, 20);
  check_row(&b, 0, 2, (uint64_t[]){wk_hash_slot(city, "Rome", 4, 20), age}, (float[]){1, 20});
  check_row(&b, 1, 2, (uint64_t[]){wk_hash_slot(city, "Oslo", 4, 20), age}, (float[]){1, 0.5f});
  check_row(&b, 2, 1, (uint64_t[]){age}, (float[]){3});
  ck_assert(labels[0] == 1 && labels[1] == 0 && labels[2] == 0); /* "no" before "yes" */
  wk_dataset_free(ds);
  /* As prediction does it: through the file, from columns in another order, with a category that training never saw. */
  char json[300];
  bl_error err = BL_ERROR_INIT;
  snprintf(json, sizeof json, "%s/preprocess.json", test_temp_dir());
  ck_assert_ok_err(wk_preprocess_write(pre, json, &err), err);
  ck_assert_ok_err(wk_preprocess_read(json, &read, &err), err);
  path = write_text("b.csv", more, sizeof more - 1);
  bl_source_spec source = spec.data.train;
  source.hash_bits = 0; /* the preprocessing says it */
  ck_assert_ok_err(wk_dataset_open(&source, read, true, &ds, &err), err);
  ck_assert_ok(wk_dataset_fetch_sparse(ds, (uint64_t[]){0}, 1, &b, labels, NULL));
  check_row(&b, 0, 2, (uint64_t[]){wk_hash_slot(city, "never seen", 10, 20), age}, (float[]){1, 1});
  ck_assert_uint_eq(labels[0], 1);
  wk_dataset_free(ds);
  wk_preprocess_free(read);
  wk_preprocess_free(pre);
  wk_sparse_batch_fini(&b);
  path = write_text("a.csv", text, sizeof text - 1);
  spec.data.train.missing = BL_MISSING_ERROR;
  ck_assert_status(wk_dataset_open_train(&spec, 1 << 20, 1, &ds, &pre, &err), BL_EINVAL);
  ck_assert_ptr_nonnull(strstr(err.text, "a.csv:4: column 0 'city': '' is missing"));
}
END_TEST

START_TEST(the_generators_slots_are_those_of_its_text) {
  wk_clicks *c;
  bl_error err = BL_ERROR_INIT;
  bl_buf text = BL_BUF_INIT;
  wk_click rows[5];
  ck_assert_ok_err(wk_clicks_new(3, 18, &c, &err), err);
  for (unsigned f = 0; f < WK_CLICKS_FIELDS; f++)
    bl_buf_printf(&text, "%s,", wk_clicks_column(f));
  bl_buf_add_str(&text, "click\n");
  for (uint64_t i = 0; i < 5; i++) {
    wk_clicks_row(c, 0, i, &rows[i]);
    for (unsigned f = 0; f < WK_CLICKS_FIELDS; f++) {
      char value[WK_CLICKS_TEXT_BYTES];
      wk_clicks_text(rows[i].values[f], value);
      bl_buf_printf(&text, "%s,", value);
    }
    bl_buf_printf(&text, "%u\n", rows[i].label);
  }
  const char *path = write_text("clicks.csv", bl_buf_str(&text), text.size);
  bl_job_spec spec = job_of(BL_SOURCE_CSV, &path, 1, 1 << 18);
  spec.data.train.header = true;
  spec.data.train.target = "click";
  spec.data.train.missing = BL_MISSING_ERROR;
  spec.data.train.hash_bits = 18;
  wk_preprocess *pre;
  wk_sparse_batch b = {0};
  uint32_t labels[16];
  wk_dataset *ds = open_all(&spec, &pre, &b, labels);
  for (uint32_t i = 0; i < 5; i++) {
    uint64_t keys[WK_CLICKS_FIELDS];
    for (unsigned f = 0; f < WK_CLICKS_FIELDS; f++)
      keys[f] = rows[i].slots[f];
    check_row(&b, i, WK_CLICKS_FIELDS, keys, NULL);
    ck_assert_uint_eq(labels[i], rows[i].label);
  }
  wk_dataset_free(ds);
  wk_preprocess_free(pre);
  wk_sparse_batch_fini(&b);
  wk_clicks_free(c);
  bl_buf_fini(&text);
}
END_TEST

/* ---- the layer ---- */

#define INPUTS 40
#define SAMPLES 6
#define UNITS_MAX 5

/* A model with a sparse first layer and one with a dense layer in its place, and the same samples for both. */
typedef struct pair {
  bl_layer_spec layers[2][2];
  bl_model_spec spec[2];
  bl_tensor_table *table[2];
  wk_model *model[2];
  float x[SAMPLES * INPUTS], weights[INPUTS * UNITS_MAX], grads[INPUTS * UNITS_MAX], vals[SAMPLES * 8];
  uint32_t row_start[SAMPLES + 1], at[SAMPLES * 8], labels[SAMPLES];
  uint64_t rows[INPUTS];
  wk_sparse_x sparse;
} pair;

static float noise(uint64_t stream, uint64_t i) { return 2 * bl_rng_unit(17, stream, i) - 1; }

static void pair_samples(pair *p, bool ones) {
  uint32_t n_rows = 0, place[INPUTS], k = 0;
  for (uint32_t j = 0; j < INPUTS; j++) /* two of three inputs occur */
    if (j % 3 != 1) {
      place[j] = n_rows;
      p->rows[n_rows++] = j;
    }
  for (uint32_t i = 0; i < SAMPLES; i++) {
    p->row_start[i] = k;
    for (uint32_t e = 0; e < 5 && i != 2; e++, k++) { /* sample 2 is empty */
      uint32_t j = (uint32_t)bl_rng_below(19, i, e, INPUTS / 3) * 3;
      p->vals[k] = ones ? 1 : noise(3, k);
      p->at[k] = place[j];
      p->x[i * INPUTS + j] += p->vals[k]; /* an input may come twice */
    }
    p->labels[i] = i % 2;
  }
  p->row_start[SAMPLES] = k;
  p->sparse = (wk_sparse_x){p->row_start, p->at, ones ? NULL : p->vals, n_rows, p->weights, p->grads};
}

static void pair_init(pair *p, uint32_t units, bl_activation act, bool two_layers, bool ones) {
  memset(p, 0, sizeof *p);
  bl_error err = BL_ERROR_INIT;
  for (int s = 0; s < 2; s++) {
    p->layers[s][0] = (bl_layer_spec){.kind = s == 0 ? BL_LAYER_SPARSE : BL_LAYER_DENSE, .name = "first", .units = units,
                                      .activation = act, .bias = true};
    p->layers[s][1] = (bl_layer_spec){.kind = BL_LAYER_DENSE, .name = "last", .units = 1, .bias = true};
    p->spec[s] = (bl_model_spec){
        .input = {INPUTS}, .n_input_dims = 1, .layers = p->layers[s], .n_layers = two_layers ? 2 : 1};
    ck_assert_ok_err(bl_tensor_table_of_model(&p->spec[s], 1 << 20, &p->table[s], &err), err);
    ck_assert_ok_err(wk_model_new(&p->spec[s], BL_LOSS_SIGMOID_CROSS_ENTROPY, p->table[s], SAMPLES, true, &p->model[s], &err),
                     err);
    ck_assert(p->table[s]->tensors[0].table == (s == 0));
    for (uint32_t t = 1; t < p->table[s]->n_tensors; t++)
      for (uint64_t e = 0; e < p->table[s]->tensors[t].n_elems; e++)
        wk_model_params(p->model[s])[t][e] = noise(50 + t, e);
  }
  ck_assert_ptr_null(wk_model_params(p->model[0])[0]);
  ck_assert_ptr_null(wk_model_grads(p->model[0])[0]);
  pair_samples(p, ones);
  float *dense = wk_model_params(p->model[1])[0];
  for (uint64_t e = 0; e < (uint64_t)INPUTS * units; e++)
    dense[e] = noise(9, e);
  for (uint32_t r = 0; r < p->sparse.n_rows; r++)
    memcpy(p->weights + r * units, dense + p->rows[r] * units, units * sizeof(float));
}

static void pair_fini(pair *p) {
  for (int s = 0; s < 2; s++) {
    wk_model_free(p->model[s]);
    bl_tensor_table_free(p->table[s]);
  }
}

typedef struct reported {
  const float *grad;
  uint64_t n_ready;
  int times;
} reported;

static void on_grad(uint32_t tensor, const float *grad, uint64_t n_ready, void *arg) {
  reported *r = arg;
  if (tensor != 0)
    return;
  r->grad = grad;
  r->n_ready = n_ready;
  r->times++;
}

static const struct {
  uint32_t units;
  bl_activation act;
  bool two_layers, ones;
} layer_cases[] = {{1, BL_ACT_NONE, false, true}, {1, BL_ACT_NONE, false, false}, {3, BL_ACT_TANH, true, false},
                   {5, BL_ACT_GELU, true, true},  {1, BL_ACT_TANH, true, false}};

START_TEST(a_sparse_layer_computes_what_a_dense_one_does) {
  pair p;
  pair_init(&p, layer_cases[_i].units, layer_cases[_i].act, layer_cases[_i].two_layers, layer_cases[_i].ones);
  uint32_t units = layer_cases[_i].units;
  wk_step_id step = {1, 2, 0};
  const float *y = wk_model_forward_sparse(p.model[0], &p.sparse, SAMPLES, &step);
  const float *dense_y = wk_model_forward(p.model[1], p.x, SAMPLES, &step);
  for (int i = 0; i < SAMPLES; i++)
    ck_assert_float_eq_tol(y[i], dense_y[i], 2e-6f);
  reported seen = {0}, ignored = {0};
  memset(p.grads, 0xff, sizeof p.grads);
  wk_model_backward(p.model[0], p.labels, NULL, SAMPLES, SAMPLES, on_grad, &seen);
  wk_model_backward(p.model[1], p.labels, NULL, SAMPLES, SAMPLES, on_grad, &ignored);
  ck_assert_int_eq(seen.times, 1);
  ck_assert_ptr_eq(seen.grad, p.grads);
  ck_assert_uint_eq(seen.n_ready, (uint64_t)p.sparse.n_rows * units);
  const float *dense = wk_model_grads(p.model[1])[0];
  for (uint32_t r = 0; r < p.sparse.n_rows; r++)
    for (uint32_t j = 0; j < units; j++)
      ck_assert_float_eq_tol(p.grads[r * units + j], dense[p.rows[r] * units + j], 1e-6f);
  for (uint32_t t = 1; t < p.table[0]->n_tensors; t++)
    for (uint64_t e = 0; e < p.table[0]->tensors[t].n_elems; e++)
      ck_assert_float_eq_tol(wk_model_grads(p.model[0])[t][e], wk_model_grads(p.model[1])[t][e], 1e-6f);
  pair_fini(&p);
}
END_TEST

static double loss_of(pair *p) {
  wk_model_forward_sparse(p->model[0], &p->sparse, SAMPLES, NULL);
  return wk_model_loss(p->model[0], p->labels, NULL, SAMPLES).loss_sum;
}

START_TEST(gradients_of_sparse_layers_match_differences) {
  pair p;
  pair_init(&p, layer_cases[_i].units, layer_cases[_i].act, layer_cases[_i].two_layers, layer_cases[_i].ones);
  wk_step_id step = {1, 2, 0};
  wk_model_forward_sparse(p.model[0], &p.sparse, SAMPLES, &step);
  wk_model_backward(p.model[0], p.labels, NULL, SAMPLES, 1, NULL, NULL);
  for (uint32_t e = 0; e < p.sparse.n_rows * layer_cases[_i].units; e++) {
    const float h = 1.0f / 128;
    float at = p.weights[e];
    p.weights[e] = at + h;
    double up = loss_of(&p);
    p.weights[e] = at - h;
    double down = loss_of(&p);
    p.weights[e] = at;
    double want = (up - down) / (2 * (double)h); /* the outputs have 24 bits: so much is lost in the difference */
    ck_assert_double_eq_tol((double)p.grads[e], want, 5e-4 + 1e-3 * fabs(want));
  }
  pair_fini(&p);
}
END_TEST

START_TEST(no_sparse_samples_give_empty_gradients_that_are_reported) {
  pair p;
  pair_init(&p, 3, BL_ACT_TANH, true, false);
  wk_sparse_x none = {.row_start = p.row_start};
  reported seen = {0};
  wk_step_id step = {1, 2, 0};
  p.row_start[0] = 0;
  wk_model_forward_sparse(p.model[0], &none, 0, &step);
  wk_model_backward(p.model[0], NULL, NULL, 0, 5, on_grad, &seen);
  ck_assert_int_eq(seen.times, 1);
  ck_assert_uint_eq(seen.n_ready, 0);
  for (int j = 0; j < 3; j++)
    ck_assert(wk_model_grads(p.model[0])[1][j] == 0);
  pair_fini(&p);
}
END_TEST

START_TEST(sparse_layers_elsewhere_and_wrong_tables_are_refused) {
  bl_layer_spec layers[] = {{.kind = BL_LAYER_DENSE, .name = "a", .units = 2},
                            {.kind = BL_LAYER_SPARSE, .name = "b", .units = 1}};
  bl_model_spec spec = {.input = {4}, .n_input_dims = 1, .layers = layers, .n_layers = 2};
  bl_tensor_table *table;
  wk_model *m = NULL;
  bl_error err = BL_ERROR_INIT;
  ck_assert_ok_err(bl_tensor_table_of_model(&spec, 1 << 20, &table, &err), err);
  ck_assert_status(wk_model_new(&spec, BL_LOSS_SQUARED, table, 1, true, &m, &err), BL_EINVAL);
  ck_assert_ptr_nonnull(strstr(err.text, "layer b: a sparse layer can only be the first one"));
  bl_tensor_table_free(table);
  spec = (bl_model_spec){.input = {4}, .n_input_dims = 1, .layers = layers + 1, .n_layers = 1};
  ck_assert_ok_err(bl_tensor_table_of_model(&spec, 1 << 20, &table, &err), err);
  table->tensors[0].table = false;
  ck_assert_status(wk_model_new(&spec, BL_LOSS_SQUARED, table, 1, true, &m, &err), BL_EINVAL);
  bl_tensor_table_free(table);
}
END_TEST

START_TEST(tables_begin_at_zero_in_linear_models_and_small_before_others) {
  bl_layer_spec layers[] = {{.kind = BL_LAYER_SPARSE, .name = "a", .units = 2},
                            {.kind = BL_LAYER_DENSE, .name = "b", .units = 1}};
  bl_model_spec spec = {.input = {UINT64_C(1) << 40}, .n_input_dims = 1, .layers = layers, .n_layers = 1};
  bl_tensor_table *table;
  bl_error err = BL_ERROR_INIT;
  ck_assert_ok_err(bl_tensor_table_of_model(&spec, 1 << 20, &table, &err), err);
  ck_assert(table->tensors[0].table && table->tensors[0].init == BL_INIT_ZERO);
  ck_assert_str_eq(table->tensors[0].name, "a.weight");
  bl_tensor_table_free(table);
  spec.n_layers = 2;
  ck_assert_ok_err(bl_tensor_table_of_model(&spec, 1 << 20, &table, &err), err);
  ck_assert(table->tensors[0].init == BL_INIT_UNIFORM && table->tensors[0].init_scale == 0.05f);
  bl_tensor_table_free(table);
}
END_TEST

/* ---- tables in files ---- */

static bl_tensor table_tensors[] = {
    {.name = "s.weight", .dims = {1000, 2}, .n_dims = 2, .n_elems = 2000, .table = true},
    {.name = "s.bias", .dims = {2}, .n_dims = 1, .n_elems = 2},
};

START_TEST(tables_come_back_from_files_and_hostile_rows_are_refused) {
  bl_tensor_table table = {.tensors = table_tensors, .n_tensors = 2};
  uint64_t rows[3] = {0, 7, 999};
  float values[6] = {1, 2, 3, 4, 5, 6}, bias[2] = {8, 9}, bias_back[2];
  bl_saved_rows saved[2] = {{3, rows, values}, {0, NULL, NULL}}, back[2];
  char path[300];
  bl_error err = BL_ERROR_INIT;
  snprintf(path, sizeof path, "%s/m.safetensors", test_temp_dir());
  ck_assert_ok_err(bl_safetensors_write_tables(path, &table, (float *[]){NULL, bias}, saved, NULL, 0, &err), err);
  ck_assert_ok_err(bl_safetensors_read_tables(path, &table, (float *[]){NULL, bias_back}, back, &err), err);
  ck_assert_uint_eq(back[0].n, 3);
  ck_assert_mem_eq(back[0].rows, rows, sizeof rows);
  ck_assert_mem_eq(back[0].values, values, sizeof values);
  ck_assert_mem_eq(bias_back, bias, sizeof bias);
  uint64_t a, b;
  ck_assert_ok(bl_weights_checksum_tables(&table, (float *[]){NULL, bias}, saved, &a));
  ck_assert_ok(bl_weights_checksum_tables(&table, (float *[]){NULL, bias_back}, back, &b));
  ck_assert_uint_eq(a, b);
  back[0].values[5] = 7;
  ck_assert_ok(bl_weights_checksum_tables(&table, (float *[]){NULL, bias_back}, back, &b));
  ck_assert_uint_ne(a, b);
  bl_saved_rows_fini(&back[0]);
  static const uint64_t bad[][3] = {{0, 7, 1000}, {0, 7, 7}, {7, 0, 999}, {0, 7, UINT64_MAX}};
  for (size_t i = 0; i < 4; i++) {
    memcpy(rows, bad[i], sizeof rows);
    ck_assert_ok_err(bl_safetensors_write_tables(path, &table, (float *[]){NULL, bias}, saved, NULL, 0, &err), err);
    ck_assert_status(bl_safetensors_read_tables(path, &table, (float *[]){NULL, bias_back}, back, &err), BL_ECORRUPT);
    ck_assert_ptr_null(back[0].rows);
  }
  saved[0].n = 0; /* no row was ever touched */
  ck_assert_ok_err(bl_safetensors_write_tables(path, &table, (float *[]){NULL, bias}, saved, NULL, 0, &err), err);
  ck_assert_ok_err(bl_safetensors_read_tables(path, &table, (float *[]){NULL, bias_back}, back, &err), err);
  ck_assert_uint_eq(back[0].n, 0);
  bl_saved_rows_fini(&back[0]);
  /* Another width, and a dense file in place of a table. */
  bl_tensor other[2] = {table_tensors[0], table_tensors[1]};
  bl_tensor_table wide = {.tensors = other, .n_tensors = 2};
  other[0].dims[1] = 3;
  ck_assert_status(bl_safetensors_read_tables(path, &wide, (float *[]){NULL, bias_back}, back, &err), BL_EMISMATCH);
  other[0].dims[1] = 2;
  other[0].name = "t.weight";
  ck_assert_status(bl_safetensors_read_tables(path, &wide, (float *[]){NULL, bias_back}, back, &err), BL_EMISMATCH);
  ck_assert_ptr_nonnull(strstr(err.text, "holds no t.weight.rows"));
}
END_TEST

START_TEST(rows_of_a_batch_are_filled_from_a_saved_table) {
  static const char text[] = "1 1:1 5:2\n0 5:1 900:1\n1 3:1\n";
  const char *path = write_text("f.libsvm", text, sizeof text - 1);
  bl_job_spec spec = job_of(BL_SOURCE_LIBSVM, &path, 1, 1000);
  uint64_t rows[4] = {0, 2, 3, 899};
  float values[8] = {1, 2, 3, 4, 5, 6, 7, 8};
  bl_saved_rows saved = {4, rows, values};
  bl_tensor tensor = table_tensors[0];
  tensor.init = BL_INIT_CONSTANT;
  tensor.init_scale = 0.25f;
  wk_dataset *ds;
  wk_preprocess *pre;
  wk_sparse_input in;
  wk_distinct scratch = {0};
  bl_error err = BL_ERROR_INIT;
  ck_assert_ok_err(wk_dataset_open_train(&spec, 1000, 1, &ds, &pre, &err), err);
  wk_sparse_input_init(&in, 2, false);
  ck_assert_ok_err(wk_sparse_input_fetch(&in, &scratch, ds, (uint64_t[]){1, 0, 2}, 3, &err), err);
  wk_sparse_input_fill(&in, &saved, &tensor, 1);
  ck_assert_uint_eq(in.x.n_rows, 4);
  ck_assert_mem_eq(in.rows, ((uint64_t[]){0, 2, 4, 899}), 4 * sizeof *in.rows);
  ck_assert_mem_eq(in.weights, ((float[]){1, 2, 3, 4, 0.25f, 0.25f, 7, 8}), 8 * sizeof *in.weights);
  ck_assert(in.labels[0] == 0 && in.labels[1] == 1 && in.labels[2] == 1);
  ck_assert_mem_eq(in.x.at, ((uint32_t[]){2, 3, 0, 2, 1}), 5 * sizeof *in.x.at);
  ck_assert_ptr_null(in.x.grads);
  wk_sparse_input_fini(&in);
  wk_distinct_fini(&scratch);
  wk_dataset_free(ds);
  wk_preprocess_free(pre);
}
END_TEST

START_TEST(dumped_rows_come_in_order_with_their_values) {
  enum { N = 5000, BUCKETS = 7 };
  wk_table_dump d;
  wk_table_dump_init(&d, 3);
  for (uint32_t b = 0; b < BUCKETS; b++) { /* bucket by bucket, some of them in two calls */
    uint64_t rows[N];
    float values[3 * N];
    uint32_t n = 0;
    for (uint64_t row = 0; row < N; row++)
      if (bl_rng_below(4, 1, row, BUCKETS) == b) {
        rows[n] = row << 27 | row;
        for (int k = 0; k < 3; k++)
          values[3 * n + k] = (float)(row * 3) + (float)k;
        n++;
      }
    wk_table_dump_on_rows(rows, n / 2, values, &d);
    wk_table_dump_on_rows(rows + n / 2, n - n / 2, values + 3 * (n / 2), &d);
  }
  bl_saved_rows out;
  ck_assert_ok(wk_table_dump_finish(&d, &out));
  ck_assert_uint_eq(out.n, N);
  for (uint64_t i = 0; i < N; i++) {
    ck_assert_uint_eq(out.rows[i], i << 27 | i);
    for (int k = 0; k < 3; k++)
      ck_assert(out.values[3 * i + (uint64_t)k] == (float)(i * 3) + (float)k);
  }
  bl_saved_rows_fini(&out);
  ck_assert_ok(wk_table_dump_finish(&d, &out)); /* nothing came */
  ck_assert_uint_eq(out.n, 0);
  bl_saved_rows_fini(&out);
  wk_table_dump_fini(&d);
}
END_TEST

/* ---- job files ---- */

static bl_status parse(const char *model, const char *data, bl_job_spec **ret_spec, bl_conf_errors *errors) {
  char text[1000];
  int n = snprintf(text, sizeof text, "name: s\ndata:\n  train: %s\nmodel: %s\nloss: sigmoid_cross_entropy\noptimizer: sgd\n"
                   "batch: 4\nepochs: 1\n", data, model);
  return bl_job_spec_parse(text, (size_t)n, "s.yaml", "/", NULL, 0, ret_spec, errors);
}

static const struct {
  const char *model, *data, *what; /* what: NULL: it is fine */
} job_cases[] = {
    {"{input: 16777216, layers: [sparse 1]}", "{csv: {path: a, target: y, hash: {bits: 24, seed: 7}}}", NULL},
    {"{input: 1099511627776, layers: [sparse 8 relu, dense 1]}", "{libsvm: a}", NULL},
    {"{input: 100, layers: [{sparse: {units: 1, bias: false, init: zero}}]}", "{npy: [a, b]}", NULL},
    {"{input: 1048576, layers: [dense 1]}", "{csv: {path: a, target: y, hash: {bits: 20}}}", NULL},
    {"{input: 100, layers: [dense 2, sparse 1]}", "{libsvm: a}", "a sparse layer can only be the first one"},
    {"{input: 100, layers: [sparse 1]}", "{csv: {path: a, target: y}}", "csv with hash: {bits: ...}"},
    {"{input: 100, layers: [sparse 1]}", "{idx: [a, b]}", "a sparse layer takes libsvm"},
    {"{input: 100, layers: [sparse 1]}", "{csv: {path: a, target: y, hash: {bits: 24}}}", "hashed into 2^24 = 16777216 slots"},
    {"{input: 1099511627776, layers: [dense 1]}", "{libsvm: a}", "only before a sparse layer more"},
    {"{input: 1099511627777, layers: [sparse 1]}", "{libsvm: a}", "before a sparse layer to 1099511627776"},
    {"{input: 1048576, layers: [sparse 1]}", "{csv: {path: a, target: y, missing: mean, hash: {bits: 20}}}", "have no mean"},
    {"{input: 100, layers: [sparse 1]}", "{libsvm: a}\n  normalize: standard", "are not normalised"},
    {"{input: 1048576, layers: [sparse 1]}", "{csv: {path: a, target: y, hash: {bits: 20}}}\n  normalize: standard",
     "are not normalised"},
    {"{input: 100, layers: [sparse 5000]}", "{libsvm: a}", "5000"},
    {"{input: 100, layers: [sparse 1]}", "{libsvm: a}\naverage: {ema: 0.9}", "have no average"},
    {"{input: 100, layers: [sparse 1]}", "{libsvm: a}\naccumulate: 2", "takes a batch as a whole"},
    {"{input: 100, layers: [sparse 1]}", "{libsvm: a}\nclip: {global_norm: 1}", "use clip.norm"},
    {"{input: 100, layers: [sparse 1]}", "{libsvm: a}\ngroups: [{match: \"*.weight\", frozen: true}]", "cannot be frozen"},
};

START_TEST(jobs_with_sparse_layers_are_checked) {
  bl_conf_errors *errors = calloc(1, sizeof *errors);
  bl_job_spec *spec = NULL, *again = NULL;
  bl_status status = parse(job_cases[_i].model, job_cases[_i].data, &spec, errors);
  if (job_cases[_i].what != NULL) {
    ck_assert_status(status, BL_EINVAL);
    bool found = false;
    for (size_t i = 0; i < errors->n; i++)
      found |= strstr(errors->at[i].text, job_cases[_i].what) != NULL;
    ck_assert_msg(found, "%s", errors->at[0].text);
    free(errors);
    return;
  }
  ck_assert_msg(status == BL_OK, "%s", errors->n > 0 ? errors->at[0].text : "?");
  bl_buf text = BL_BUF_INIT, second = BL_BUF_INIT;
  bl_job_spec_dump(spec, &text);
  ck_assert_ok(bl_job_spec_parse(bl_buf_str(&text), text.size, "again", "/", NULL, 0, &again, errors));
  bl_job_spec_dump(again, &second);
  ck_assert_str_eq(bl_buf_str(&text), bl_buf_str(&second));
  ck_assert_uint_eq(again->data.train.hash_bits, spec->data.train.hash_bits);
  ck_assert_uint_eq(again->data.train.hash_seed, spec->data.train.hash_seed);
  bl_buf_fini(&text);
  bl_buf_fini(&second);
  bl_job_spec_free(spec);
  bl_job_spec_free(again);
  free(errors);
}
END_TEST

START_TEST(a_table_is_no_part_of_what_workers_hold_and_exchange) {
  bl_conf_errors *errors = calloc(1, sizeof *errors);
  bl_job_spec *sparse = NULL, *dense = NULL;
  bl_job_estimate a, b;
  bl_error err = BL_ERROR_INIT;
  ck_assert_ok(parse("{input: 1099511627776, layers: [sparse 8 relu, dense 1]}", "{libsvm: a}", &sparse, errors));
  ck_assert_ok(parse("{input: 1000, layers: [dense 8 relu, dense 1]}", "{libsvm: a}", &dense, errors));
  ck_assert_ok_err(bl_job_estimate_make(sparse, &a, &err), err);
  ck_assert_ok_err(bl_job_estimate_make(dense, &b, &err), err);
  ck_assert_uint_eq(a.table_rows, UINT64_C(1) << 40);
  ck_assert_uint_eq(a.n_weights, (UINT64_C(1) << 40) * 8 + 8 + 8 + 1);
  ck_assert_uint_lt(a.worker_bytes_per_rank, b.worker_bytes_per_rank);
  ck_assert_uint_lt(a.server_bytes, 4096);
  ck_assert_uint_lt(a.push_bytes_per_clock, 4096);
  ck_assert_uint_ge(a.server_bytes_per_row, 2 * 8 * sizeof(float));
  ck_assert_uint_ge(a.push_bytes_per_row, 8 * sizeof(float));
  ck_assert_uint_eq(b.table_rows, 0);
  bl_job_spec_free(sparse);
  bl_job_spec_free(dense);
  free(errors);
}
END_TEST

int main(void) {
  Suite *s = suite_create("sparse");
  TCase *t = tcase_create("samples");
  suite_add_tcase(s, t);
  tcase_set_timeout(t, 120);
  tcase_add_test(t, distinct_keys_come_ascending_and_name_every_key);
  tcase_add_test(t, distinct_keys_without_memory_leak_nothing_and_work_again);
  tcase_add_test(t, slots_are_pinned_and_depend_on_column_and_seed);
  tcase_add_test(t, click_logs_repeat_keys_as_real_ones_do);
  tcase_add_test(t, labels_of_click_logs_follow_the_truth);
  tcase_add_test(t, libsvm_stays_sparse_up_to_2_to_the_40);
  tcase_add_test(t, npy_of_whole_numbers_is_slots_for_a_sparse_layer);
  tcase_add_test(t, hashed_columns_become_slots_and_other_files_the_same_ones);
  tcase_add_test(t, the_generators_slots_are_those_of_its_text);
  t = tcase_create("model");
  suite_add_tcase(s, t);
  int n = (int)(sizeof layer_cases / sizeof *layer_cases);
  tcase_add_loop_test(t, a_sparse_layer_computes_what_a_dense_one_does, 0, n);
  tcase_add_loop_test(t, gradients_of_sparse_layers_match_differences, 0, n);
  tcase_add_test(t, no_sparse_samples_give_empty_gradients_that_are_reported);
  tcase_add_test(t, sparse_layers_elsewhere_and_wrong_tables_are_refused);
  tcase_add_test(t, tables_begin_at_zero_in_linear_models_and_small_before_others);
  tcase_add_test(t, tables_come_back_from_files_and_hostile_rows_are_refused);
  tcase_add_test(t, rows_of_a_batch_are_filled_from_a_saved_table);
  tcase_add_test(t, dumped_rows_come_in_order_with_their_values);
  tcase_add_test(t, a_table_is_no_part_of_what_workers_hold_and_exchange);
  tcase_add_loop_test(t, jobs_with_sparse_layers_are_checked, 0, (int)(sizeof job_cases / sizeof *job_cases));
  return test_run(&s, 1);
}
