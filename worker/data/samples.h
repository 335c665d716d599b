/* SPDX-License-Identifier: Apache-2.0
 *
 * Samples as a reader found them, before any preprocessing, and the table of readers. A reader knows its
 * format and nothing of normalisation; the preprocessing knows columns and nothing of formats.
 */
#ifndef WK_DATA_SAMPLES_H
#define WK_DATA_SAMPLES_H

#include "data/dataset.h"
#include "data/words.h"

#define WK_INPUTS_MAX (UINT32_C(1) << 24) /* columns of a sample, after one-hot expansion */
#define WK_CLASSES_MAX (UINT32_C(1) << 20)
#define WK_RECORD_BYTES_MAX ((size_t)16 << 20) /* one line or CSV record */

typedef enum wk_storage {
  WK_STORAGE_BYTES = 1, /* idx, npy: stays bytes in memory */
  WK_STORAGE_CELLS,     /* csv: numbers and category numbers */
  WK_STORAGE_SPARSE,    /* libsvm: only what is not zero */
  WK_STORAGE_FLOATS,    /* npy: all but bytes */
} wk_storage;

/* One input column of a CSV file. */
typedef struct wk_column {
  char *name; /* owned; header name, or position as text */
  bool categorical;
  wk_words words; /* categorical: the texts seen; a cell holds the word's number */
} wk_column;

typedef struct wk_samples {
  wk_storage storage;
  uint64_t n;
  uint32_t n_cols;
  uint8_t *bytes;      /* BYTES: [n, n_cols] */
  double *cells;       /* CELLS: [n, n_cols]; NaN where the file has no value */
  wk_column *columns;  /* CELLS: [n_cols] */
  uint32_t n_fields;   /* CELLS: fields of a record in the file */
  uint64_t *row_start; /* SPARSE: [n + 1] into cols and vals */
  uint32_t *cols;
  float *vals;
  float *floats;       /* FLOATS: [n, n_cols], finite */
  uint32_t *labels;   /* class targets: [n] */
  double *values;     /* value targets: [n] */
  char **class_names; /* csv with text classes: [n_class_names], sorted; else NULL */
  uint32_t n_class_names;
} wk_samples;

/* Everything owned is freed; the struct is all zero after. */
void wk_samples_fini(wk_samples *s);

/* What a reader is asked for. */
typedef struct wk_read_request {
  const bl_source_spec *source;
  const wk_preprocess *pre; /* of the training set; NULL while reading it */
  bool with_targets;
  wk_target_kind target;
  uint32_t n_inputs;  /* of the model */
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
