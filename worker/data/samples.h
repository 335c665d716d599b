/* SPDX-License-Identifier: Apache-2.0
 *
 * Samples as a reader found them, before any preprocessing, and the table of readers. A reader knows its
 * format and nothing of normalisation; the preprocessing knows columns and nothing of formats.
 */
#ifndef WK_DATA_SAMPLES_H
#define WK_DATA_SAMPLES_H

#include "data/dataset.h"
#include "data/words.h"

#define WK_INPUTS_MAX (UINT32_C(1) << 24) /* columns of a sample, after one-hot expansion; sparse samples: more */
#define WK_CLASSES_MAX (UINT32_C(1) << 20)
#define WK_RECORD_BYTES_MAX ((size_t)16 << 20) /* one line or CSV record */

typedef enum wk_storage {
  WK_STORAGE_BYTES = 1, /* idx, npy: stays bytes in memory */
  WK_STORAGE_CELLS,     /* csv: numbers and category numbers */
  WK_STORAGE_SPARSE,    /* libsvm, hashed csv, npy of slots: only what is not zero */
  WK_STORAGE_FLOATS,    /* npy: all but bytes */
} wk_storage;

/* One input column of a CSV file. */
typedef struct wk_column {
  char *name; /* owned; header name, or position as text */
  bool categorical; /* its words are kept here, or hashed */
  wk_words words; /* categorical: the texts seen; a cell holds the word's number */
} wk_column;

typedef struct wk_samples {
  wk_storage storage;
  uint64_t n;
  uint64_t n_cols;
  uint8_t *bytes;      /* BYTES: [n, n_cols] */
  double *cells;       /* CELLS: [n, n_cols]; NaN where the file has no value */
  wk_column *columns;  /* CELLS: [n_columns], as many as n_cols; hashed csv: the columns before hashing */
  uint32_t n_columns;
  uint32_t n_fields;   /* of a record in the csv file */
  uint64_t *row_start; /* SPARSE: [n + 1] into cols and vals; NULL: every sample has row_width of them */
  uint64_t row_width;
  uint32_t *cols;      /* one of the two: wide_cols where n_cols is beyond 32 bits */
  uint64_t *wide_cols;
  float *vals;         /* NULL, and ones is set: all are 1 */
  bool ones;
  float *floats;       /* FLOATS: [n, n_cols], finite */
  uint32_t *labels;   /* class targets: [n] */
  double *values;     /* value targets: [n] */
  char **class_names; /* csv with text classes: [n_class_names], sorted; else NULL */
  uint32_t n_class_names;
} wk_samples;

/* Everything owned is freed; the struct is all zero after. */
void wk_samples_fini(wk_samples *s);

/* Of SPARSE samples: room for one more entry at place `at`, the first one free, and the entry. *capacity: of the arrays,
 * 0 at first. The reader has set n_cols and ones. */
BL_MUST_CHECK bl_status wk_samples_add_entry(wk_samples *s, uint64_t *capacity, uint64_t at, uint64_t col, float val);

static inline uint64_t wk_samples_row_first(const wk_samples *s, uint64_t i) {
  return s->row_start != NULL ? s->row_start[i] : i * s->row_width;
}
static inline uint64_t wk_samples_col(const wk_samples *s, uint64_t k) {
  return s->cols != NULL ? s->cols[k] : s->wide_cols[k];
}
static inline float wk_samples_val(const wk_samples *s, uint64_t k) { return s->vals != NULL ? s->vals[k] : 1.0f; }

/* What a reader is asked for. */
typedef struct wk_read_request {
  const bl_source_spec *source;
  const wk_preprocess *pre; /* of the training set; NULL while reading it */
  bool with_targets;
  wk_target_kind target;
  bool sparse;        /* the model takes sparse samples */
  uint64_t n_inputs;  /* of the model */
  uint32_t n_classes; /* class targets */
} wk_read_request;

/* Fills *ret_samples, which is all zero; on failure what is in it is freed by the caller. */
typedef bl_status wk_read_fn(const wk_read_request *req, wk_samples *ret_samples, bl_error *err);

typedef struct wk_reader {
  bl_source_kind kind;
  const char *name; /* as in job files and preprocess.json */
  wk_read_fn *read;
} wk_reader;

/* NULL: no such reader. */
const wk_reader *wk_reader_find(bl_source_kind kind);
const wk_reader *wk_reader_find_name(const char *name);

wk_read_fn wk_idx_read;
wk_read_fn wk_csv_read;
wk_read_fn wk_libsvm_read;
wk_read_fn wk_npy_samples_read;

#endif
