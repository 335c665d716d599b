/* SPDX-License-Identifier: Apache-2.0
 *
 * Inside of wk_preprocess, for the readers (which columns, which categories) and the data set (which
 * numbers). Fitted once on the training samples; read-only after.
 */
#ifndef WK_DATA_PREPROCESS_H
#define WK_DATA_PREPROCESS_H

#include "data/samples.h"

typedef struct wk_pre_column {
  char *name;        /* header name, or position among the file's columns as text */
  double fill;       /* number columns: stands where the file has no value */
  char **categories; /* [n_categories], sorted; NULL: a number column, or hashed */
  uint32_t n_categories;
  bool hashed;       /* with hash_bits: a category; else the number is the value of the column's own slot */
} wk_pre_column;

struct wk_preprocess {
  bl_source_kind kind;
  wk_target_kind target;
  uint64_t n_inputs;
  bool sparse; /* samples stay sparse; no normalisation */
  uint32_t n_classes; /* class targets, else 0 */
  bl_normalize normalize;
  double *mean, *deviation; /* [n_inputs] when standard, else NULL; one-hot inputs have 0 and 1 */
  bool standardize_target;
  double target_mean, target_deviation; /* 0 and 1 unless standardize_target */
  char **class_names;                   /* [n_class_names]; NULL: classes are named by their numbers */
  uint32_t n_class_names;
  /* csv */
  uint32_t hash_bits; /* 0: not hashed */
  uint64_t hash_seed;
  wk_pre_column *columns; /* [n_columns], in the order of the inputs */
  uint32_t n_columns;
  uint32_t n_fields;   /* of a record of the training file */
  char *target_column; /* as in the job file */
};

/* Fits on the first n_train samples. */
BL_MUST_CHECK bl_status wk_preprocess_fit(const bl_job_spec *spec, const wk_read_request *req,
                                          const wk_samples *s, uint64_t n_train, wk_preprocess **ret_pre,
                                          bl_error *err);

/* Whether it can be saved: now is the time to say so, not after training. path: the data, for the message. */
BL_MUST_CHECK bl_status wk_preprocess_check(const wk_preprocess *pre, const char *path, bl_error *err);

/* Inputs of sample i before normalisation, missing values filled, categories expanded. row: [n_inputs]. */
void wk_preprocess_expand(const wk_preprocess *pre, const wk_samples *s, uint64_t i, double *row);

#endif
