/* SPDX-License-Identifier: Apache-2.0
 *
 * Bytes and sparse rows are kept as they were read and turned into numbers at fetch; CSV cells are turned
 * once, when the set is opened. Fetch is on the hot path of training.
 */
#include "data/dataset.h"

#include "data/preprocess.h"
#include "data/samples.h"
#include "data/shuffle.h"

#include "base/alloc.h"
#include "base/checksum.h"
#include "base/num.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

struct wk_dataset {
  wk_dataset_info info;
  uint64_t fingerprint;
  wk_samples s;          /* cells, floats and values are gone after opening */
  float *dense;          /* CELLS, FLOATS: [n, n_inputs], ready */
  float *values;         /* value targets: [n], ready */
  float scale;           /* without mean: x = raw * scale */
  float *mean, *inverse; /* standard: [n_inputs], x = (raw - mean) * inverse; else NULL */
  float *zero;           /* SPARSE: [n_inputs], what a zero becomes */
};

static const wk_reader readers[] = {
    {BL_SOURCE_IDX, "idx", wk_idx_read},
    {BL_SOURCE_CSV, "csv", wk_csv_read},
    {BL_SOURCE_LIBSVM, "libsvm", wk_libsvm_read},
    {BL_SOURCE_NPY, "npy", wk_npy_samples_read},
};

const wk_reader *wk_reader_find(bl_source_kind kind) {
  for (size_t i = 0; i < BL_COUNT_OF(readers); i++)
    if (readers[i].kind == kind)
      return &readers[i];
  return NULL;
}

const wk_reader *wk_reader_find_name(const char *name) {
  for (size_t i = 0; i < BL_COUNT_OF(readers); i++)
    if (strcmp(readers[i].name, name) == 0)
      return &readers[i];
  return NULL;
}

void wk_samples_fini(wk_samples *s) {
  for (uint32_t c = 0; s->columns != NULL && c < s->n_columns; c++) {
    bl_free(s->columns[c].name);
    wk_words_fini(&s->columns[c].words);
  }
  for (uint32_t k = 0; s->class_names != NULL && k < s->n_class_names; k++)
    bl_free(s->class_names[k]);
  bl_free(s->class_names);
  bl_free(s->columns);
  bl_free(s->bytes);
  bl_free(s->cells);
  bl_free(s->row_start);
  bl_free(s->cols);
  bl_free(s->wide_cols);
  bl_free(s->vals);
  bl_free(s->floats);
  bl_free(s->labels);
  bl_free(s->values);
  *s = (wk_samples){0};
}

void wk_dataset_free(wk_dataset *ds) {
  if (ds == NULL)
    return;
  wk_samples_fini(&ds->s);
  bl_free(ds->dense);
  bl_free(ds->values);
  bl_free(ds->mean);
  bl_free(ds->inverse);
  bl_free(ds->zero);
  bl_free(ds);
}

wk_dataset_info wk_dataset_get_info(const wk_dataset *ds) {
  return ds->info;
}

uint64_t wk_dataset_fingerprint(const wk_dataset *ds) {
  return ds->fingerprint;
}

static void add_text(bl_checksum_stream *sum, const char *text) {
  bl_checksum_stream_add(sum, text, strlen(text) + 1);
}

/* Over what was read, before any preprocessing. */
static bl_status take_fingerprint(const wk_samples *s, uint64_t *ret_fingerprint) {
  bl_checksum_stream *sum = bl_checksum_stream_new();
  if (sum == NULL)
    return BL_ENOMEM;
  uint64_t shape[3] = {(uint64_t)s->storage, s->n, s->n_cols + s->row_width}, n = s->n;
  bl_checksum_stream_add(sum, shape, sizeof shape);
  if (s->bytes != NULL)
    bl_checksum_stream_add(sum, s->bytes, n * s->n_cols);
  if (s->cells != NULL)
    bl_checksum_stream_add(sum, s->cells, n * s->n_cols * sizeof *s->cells);
  for (uint32_t c = 0; s->columns != NULL && c < s->n_columns; c++) {
    add_text(sum, s->columns[c].name);
    for (uint32_t k = 0; k < s->columns[c].words.n; k++)
      add_text(sum, s->columns[c].words.at[k]->text);
  }
  if (s->row_start != NULL) {
    bl_checksum_stream_add(sum, s->row_start, (n + 1) * sizeof *s->row_start);
  }
  if (s->storage == WK_STORAGE_SPARSE) {
    uint64_t entries = wk_samples_row_first(s, n);
    if (s->cols != NULL)
      bl_checksum_stream_add(sum, s->cols, entries * sizeof *s->cols);
    if (s->wide_cols != NULL)
      bl_checksum_stream_add(sum, s->wide_cols, entries * sizeof *s->wide_cols);
    if (s->vals != NULL)
      bl_checksum_stream_add(sum, s->vals, entries * sizeof *s->vals);
  }
  if (s->floats != NULL)
    bl_checksum_stream_add(sum, s->floats, n * s->n_cols * sizeof *s->floats);
  if (s->labels != NULL)
    bl_checksum_stream_add(sum, s->labels, n * sizeof *s->labels);
  if (s->values != NULL)
    bl_checksum_stream_add(sum, s->values, n * sizeof *s->values);
  for (uint32_t k = 0; k < s->n_class_names; k++)
    add_text(sum, s->class_names[k]);
  *ret_fingerprint = bl_checksum_stream_value(sum);
  bl_checksum_stream_free(sum);
  return BL_OK;
}

static bl_status read_samples(const wk_read_request *req, wk_samples *s, bl_error *err) {
  const wk_reader *reader = wk_reader_find(req->source->kind);
  if (reader == NULL)
    return bl_fail(err, BL_EUNSUPPORTED, "no reader for data sources of kind %d", (int)req->source->kind);
  if (req->source->n_paths == 0)
    return bl_fail(err, BL_EINVAL, "the %s source names no file", reader->name);
  bl_status status = reader->read(req, s, err);
  if (status == BL_OK && s->n == 0)
    status = bl_fail(err, BL_EINVAL, "%s has no samples", req->source->paths[0]);
  return status;
}

static float finish(const wk_preprocess *pre, uint64_t j, double v) {
  if (pre->normalize == BL_NORMALIZE_STANDARD)
    return (float)((v - pre->mean[j]) / pre->deviation[j]);
  return (float)(pre->normalize == BL_NORMALIZE_UNIT ? v / 255 : v);
}

static bl_status finish_cells(wk_dataset *ds, const wk_preprocess *pre) {
  uint64_t n_inputs = pre->n_inputs, total;
  double *row = bl_calloc(n_inputs, sizeof *row);
  if (row == NULL || !bl_mul_u64(ds->s.n, n_inputs, &total)) {
    bl_free(row);
    return BL_ENOMEM;
  }
  ds->dense = bl_calloc(total, sizeof *ds->dense);
  for (uint64_t i = 0; ds->dense != NULL && i < ds->s.n; i++) {
    wk_preprocess_expand(pre, &ds->s, i, row);
    for (uint64_t j = 0; j < n_inputs; j++)
      ds->dense[i * n_inputs + j] = finish(pre, j, row[j]);
  }
  bl_free(row);
  bl_free(ds->s.cells);
  ds->s.cells = NULL;
  return ds->dense != NULL ? BL_OK : BL_ENOMEM;
}

/* In place: what was read and what training sees have the same size. */
static bl_status finish_floats(wk_dataset *ds, const wk_preprocess *pre) {
  uint64_t total = ds->s.n * ds->s.n_cols;
  ds->dense = ds->s.floats;
  ds->s.floats = NULL;
  for (uint64_t i = 0; pre->normalize != BL_NORMALIZE_NONE && i < total; i++)
    ds->dense[i] = finish(pre, i % pre->n_inputs, (double)ds->dense[i]);
  return BL_OK;
}

/* What fetch needs to normalise bytes and sparse values. */
static bl_status prepare_scaling(wk_dataset *ds, const wk_preprocess *pre) {
  uint64_t n = pre->n_inputs;
  ds->scale = pre->normalize == BL_NORMALIZE_UNIT ? 1.0f / 255 : 1.0f;
  if (pre->sparse)
    return BL_OK;
  if (ds->s.storage == WK_STORAGE_SPARSE) {
    ds->zero = bl_calloc(n, sizeof *ds->zero);
    if (ds->zero == NULL)
      return BL_ENOMEM;
  }
  if (pre->normalize != BL_NORMALIZE_STANDARD)
    return BL_OK;
  ds->mean = bl_calloc(n, sizeof *ds->mean);
  ds->inverse = bl_calloc(n, sizeof *ds->inverse);
  if (ds->mean == NULL || ds->inverse == NULL)
    return BL_ENOMEM;
  for (uint64_t j = 0; j < n; j++) {
    ds->mean[j] = (float)pre->mean[j];
    ds->inverse[j] = (float)(1 / pre->deviation[j]);
    if (ds->zero != NULL)
      ds->zero[j] = (0 - ds->mean[j]) * ds->inverse[j];
  }
  return BL_OK;
}

static bl_status finish_values(wk_dataset *ds, const wk_preprocess *pre) {
  if (ds->s.values == NULL)
    return BL_OK;
  ds->values = bl_calloc(ds->s.n, sizeof *ds->values);
  if (ds->values == NULL)
    return BL_ENOMEM;
  for (uint64_t i = 0; i < ds->s.n; i++)
    ds->values[i] = (float)((ds->s.values[i] - pre->target_mean) / pre->target_deviation);
  bl_free(ds->s.values);
  ds->s.values = NULL;
  return BL_OK;
}

/* Takes what is in *s, on failure too. */
static bl_status finish_dataset(const wk_read_request *req, const wk_preprocess *pre, wk_samples *s,
                                wk_dataset **ret_ds, bl_error *err) {
  wk_dataset *ds = bl_calloc(1, sizeof *ds);
  if (ds == NULL) {
    wk_samples_fini(s);
    return bl_fail(err, BL_ENOMEM, "%s: no memory", req->source->paths[0]);
  }
  ds->s = *s;
  *s = (wk_samples){0};
  ds->info = (wk_dataset_info){
      .n_samples = ds->s.n,
      .n_inputs = pre->n_inputs,
      .sparse = pre->sparse,
      .target = pre->target,
      .n_classes = pre->n_classes};
  bl_status status = take_fingerprint(&ds->s, &ds->fingerprint);
  if (status == BL_OK)
    status = ds->s.storage == WK_STORAGE_CELLS    ? finish_cells(ds, pre)
             : ds->s.storage == WK_STORAGE_FLOATS ? finish_floats(ds, pre)
                                                  : prepare_scaling(ds, pre);
  if (status == BL_OK)
    status = finish_values(ds, pre);
  if (status == BL_OK) {
    *ret_ds = ds;
    return BL_OK;
  }
  wk_dataset_free(ds);
  return bl_fail(err, status, "%s: no memory for its samples", req->source->paths[0]);
}

static bl_status check_n_inputs(const char *path, uint64_t found, uint64_t expected, bl_error *err) {
  if (found == expected)
    return BL_OK;
  return bl_fail(err, BL_EMISMATCH, "%s gives %" PRIu64 " inputs for each sample, the model takes %" PRIu64, path, found,
                 expected);
}

bl_status wk_dataset_open_train(const bl_job_spec *spec, uint64_t n_inputs, uint32_t n_outputs,
                                wk_dataset **ret_ds, wk_preprocess **ret_pre, bl_error *err) {
  bool classes = spec->loss != BL_LOSS_SQUARED;
  wk_read_request req = {
      .source = &spec->data.train,
      .with_targets = true,
      .target = classes ? WK_TARGET_CLASS : WK_TARGET_VALUE,
      .sparse = bl_model_is_sparse(&spec->model),
      .n_inputs = n_inputs,
      /* one sigmoid output tells two classes apart */
      .n_classes = spec->loss == BL_LOSS_SIGMOID_CROSS_ENTROPY && n_outputs == 1 ? 2 : n_outputs,
  };
  wk_samples s = {0};
  wk_preprocess *pre = NULL;
  wk_dataset *ds = NULL;
  bl_status status = read_samples(&req, &s, err);
  if (status != BL_OK)
    goto out;
  uint64_t n_train = wk_train_part(s.n, spec->data.validation);
  if (n_train == 0) {
    status = bl_fail(err, BL_EINVAL, "%s: no sample of %llu is left to train on beside the validation part",
                     req.source->paths[0], (unsigned long long)s.n);
    goto out;
  }
  status = wk_preprocess_fit(spec, &req, &s, n_train, &pre, err);
  if (status != BL_OK)
    goto out;
  status = check_n_inputs(req.source->paths[0], pre->n_inputs, n_inputs, err);
  if (status == BL_OK)
    status = finish_dataset(&req, pre, &s, &ds, err);
out:
  wk_samples_fini(&s);
  if (status == BL_OK) {
    *ret_ds = ds;
    *ret_pre = pre;
  } else {
    wk_preprocess_free(pre);
  }
  return status;
}

bl_status wk_dataset_open(const bl_source_spec *source, const wk_preprocess *pre, bool with_targets,
                          wk_dataset **ret_ds, bl_error *err) {
  wk_read_request req = {
      .source = source,
      .pre = pre,
      .with_targets = with_targets,
      .target = pre->target,
      .sparse = pre->sparse,
      .n_inputs = pre->n_inputs,
      .n_classes = pre->n_classes,
  };
  if (source->kind != pre->kind)
    return bl_fail(err, BL_EMISMATCH, "the training set and this data source are of different kinds");
  wk_samples s = {0};
  bl_status status = read_samples(&req, &s, err);
  /* CSV columns were matched by the reader. */
  if (status == BL_OK && s.storage != WK_STORAGE_CELLS)
    status = check_n_inputs(source->paths[0], s.n_cols, pre->n_inputs, err);
  if (status == BL_OK)
    status = finish_dataset(&req, pre, &s, ret_ds, err);
  wk_samples_fini(&s);
  return status;
}

/* Rows are walked in blocks with a constant count and without a sum of two indices: the form that gcc's -O2
 * makes vector code of. */
#define FETCH_BLOCK 64

static void fetch_bytes(const uint8_t *restrict from, float scale, uint32_t n, float *restrict x) {
  for (; n >= FETCH_BLOCK; n -= FETCH_BLOCK, from += FETCH_BLOCK, x += FETCH_BLOCK)
    for (int k = 0; k < FETCH_BLOCK; k++)
      x[k] = (float)from[k] * scale;
  for (uint32_t k = 0; k < n; k++)
    x[k] = (float)from[k] * scale;
}

static void fetch_bytes_standard(const uint8_t *restrict from, const float *restrict mean,
                                 const float *restrict inverse, uint32_t n, float *restrict x) {
  uint32_t j = 0;
  for (; j + FETCH_BLOCK <= n; j += FETCH_BLOCK) {
    const uint8_t *f = from + j;
    const float *m = mean + j, *v = inverse + j;
    float *o = x + j;
    for (int k = 0; k < FETCH_BLOCK; k++)
      o[k] = ((float)f[k] - m[k]) * v[k];
  }
  for (; j < n; j++)
    x[j] = ((float)from[j] - mean[j]) * inverse[j];
}

static void fetch_sparse(const wk_dataset *ds, uint64_t i, float *x) {
  const wk_samples *s = &ds->s;
  memcpy(x, ds->zero, ds->info.n_inputs * sizeof *x);
  for (uint64_t k = wk_samples_row_first(s, i); k < wk_samples_row_first(s, i + 1); k++) {
    uint64_t j = wk_samples_col(s, k);
    float v = wk_samples_val(s, k);
    if (s->columns != NULL) /* hashed: two columns may meet in a slot */
      x[j] += v;
    else
      x[j] = ds->mean != NULL ? (v - ds->mean[j]) * ds->inverse[j] : v * ds->scale;
  }
}

static void fetch_row(const wk_dataset *ds, uint64_t i, float *x) {
  uint32_t n = (uint32_t)ds->info.n_inputs; /* at most WK_INPUTS_MAX */
  if (ds->dense != NULL)
    memcpy(x, ds->dense + i * n, n * sizeof *x);
  else if (ds->s.storage == WK_STORAGE_SPARSE)
    fetch_sparse(ds, i, x);
  else if (ds->mean != NULL)
    fetch_bytes_standard(ds->s.bytes + i * n, ds->mean, ds->inverse, n, x);
  else
    fetch_bytes(ds->s.bytes + i * n, ds->scale, n, x);
}

static void fetch_targets(const wk_dataset *ds, const uint64_t *indices, size_t n, uint32_t *labels, float *values) {
  for (size_t k = 0; labels != NULL && ds->s.labels != NULL && k < n; k++)
    labels[k] = ds->s.labels[indices[k]];
  for (size_t k = 0; values != NULL && ds->values != NULL && k < n; k++)
    values[k] = ds->values[indices[k]];
}

void wk_dataset_fetch(const wk_dataset *ds, const uint64_t *indices, size_t n, float *x, uint32_t *labels,
                      float *values) {
  BL_ASSERT(!ds->info.sparse);
  for (size_t k = 0; k < n; k++) {
    BL_ASSERT(indices[k] < ds->info.n_samples);
    fetch_row(ds, indices[k], x + k * ds->info.n_inputs);
  }
  fetch_targets(ds, indices, n, labels, values);
}

/* ---- sparse ---- */

bl_status wk_samples_add_entry(wk_samples *s, uint64_t *capacity, uint64_t at, uint64_t col, float val) {
  bool wide = s->n_cols > UINT32_MAX;
  if (at >= *capacity) {
    uint64_t wanted = BL_MAX(1024, *capacity * 2);
    void *cols = wide ? bl_realloc_array(s->wide_cols, wanted, sizeof *s->wide_cols)
                      : bl_realloc_array(s->cols, wanted, sizeof *s->cols);
    if (cols == NULL)
      return BL_ENOMEM;
    if (wide)
      s->wide_cols = cols;
    else
      s->cols = cols;
    void *vals = s->ones ? NULL : bl_realloc_array(s->vals, wanted, sizeof *s->vals);
    if (!s->ones && vals == NULL)
      return BL_ENOMEM;
    s->vals = vals;
    *capacity = wanted;
  }
  if (wide)
    s->wide_cols[at] = col;
  else
    s->cols[at] = (uint32_t)col;
  if (!s->ones)
    s->vals[at] = val;
  return BL_OK;
}

void wk_sparse_batch_fini(wk_sparse_batch *b) {
  bl_free(b->row_start);
  bl_free(b->keys);
  bl_free(b->vals);
  *b = (wk_sparse_batch){0};
}

static bl_status grow_batch(wk_sparse_batch *b, size_t n, uint64_t n_keys) {
  if (n >= UINT32_MAX / 2 || n_keys >= UINT32_MAX / 2)
    return BL_ELIMIT;
  if (n + 1 > b->row_capacity) {
    void *grown = bl_realloc_array(b->row_start, n + 1, sizeof *b->row_start);
    if (grown == NULL)
      return BL_ENOMEM;
    b->row_start = grown;
    b->row_capacity = (uint32_t)n + 1;
  }
  if (n_keys <= b->key_capacity && b->keys != NULL) /* a batch without an entry has arrays, too */
    return BL_OK;
  n_keys += n_keys / 4 + 1; /* batches are not all of one size */
  void *keys = bl_realloc_array(b->keys, n_keys, sizeof *b->keys);
  if (keys == NULL)
    return BL_ENOMEM;
  b->keys = keys;
  void *vals = bl_realloc_array(b->vals, n_keys, sizeof *b->vals);
  if (vals == NULL)
    return BL_ENOMEM;
  b->vals = vals;
  b->key_capacity = (uint32_t)n_keys;
  return BL_OK;
}

/* Samples lie anywhere in memory: what comes is asked for early. */
#define PREFETCH_SAMPLES 8
#define CACHE_LINE 64

static void prefetch_sample(const wk_samples *s, uint64_t i) {
  uint64_t first = wk_samples_row_first(s, i);
  size_t size = s->cols != NULL ? sizeof *s->cols : sizeof *s->wide_cols;
  const char *cols = s->cols != NULL ? (const char *)s->cols : (const char *)s->wide_cols;
  size_t bytes = BL_MIN((wk_samples_row_first(s, i + 1) - first) * size, 4 * CACHE_LINE);
  if (bytes == 0)
    return;
  for (size_t at = 0; at < bytes + CACHE_LINE; at += CACHE_LINE)
    __builtin_prefetch(cols + first * size + at);
}

static void fetch_sample(const wk_samples *s, uint64_t i, uint64_t *restrict keys, float *restrict vals) {
  uint64_t first = wk_samples_row_first(s, i), n = wk_samples_row_first(s, i + 1) - first;
  if (s->cols != NULL) {
    const uint32_t *restrict cols = s->cols + first;
    for (uint64_t k = 0; k < n; k++)
      keys[k] = cols[k];
  } else if (n > 0) {
    memcpy(keys, s->wide_cols + first, n * sizeof *keys);
  }
  if (s->vals != NULL && n > 0)
    memcpy(vals, s->vals + first, n * sizeof *vals);
}

bl_status wk_dataset_fetch_sparse(const wk_dataset *ds, const uint64_t *indices, size_t n, wk_sparse_batch *b,
                                  uint32_t *labels, float *values) {
  const wk_samples *s = &ds->s;
  uint64_t n_keys = 0;
  BL_ASSERT(ds->info.sparse);
  for (size_t k = 0; k < n; k++) {
    BL_ASSERT(indices[k] < ds->info.n_samples);
    n_keys += wk_samples_row_first(s, indices[k] + 1) - wk_samples_row_first(s, indices[k]);
  }
  bl_status status = grow_batch(b, n, n_keys);
  if (status != BL_OK)
    return status;
  b->ones = s->vals == NULL;
  uint32_t at = 0;
  for (size_t k = 0; k < n; k++) {
    if (k + PREFETCH_SAMPLES < n)
      prefetch_sample(s, indices[k + PREFETCH_SAMPLES]);
    b->row_start[k] = at;
    fetch_sample(s, indices[k], b->keys + at, b->vals + at);
    at += (uint32_t)(wk_samples_row_first(s, indices[k] + 1) - wk_samples_row_first(s, indices[k]));
  }
  b->row_start[n] = at;
  fetch_targets(ds, indices, n, labels, values);
  return BL_OK;
}
