/* SPDX-License-Identifier: Apache-2.0
 *
 * A data set in memory: samples that can be fetched by index in any order, from any of the readers, with
 * the normalisation that was computed on the training samples.
 *
 * Reading is strict: a wrong magic, a truncated file, a label out of range, a ragged row, NaN: an error
 * that names file, line or record, value and limit. Threads: read-only after opening, any thread may fetch.
 */
#ifndef WK_DATA_DATASET_H
#define WK_DATA_DATASET_H

#include "job/spec.h"

typedef enum wk_target_kind { WK_TARGET_CLASS = 1, WK_TARGET_VALUE } wk_target_kind;

/* What prediction needs to read other files the same way; saved beside the model as preprocess.json. */
typedef struct wk_preprocess wk_preprocess;

typedef struct wk_dataset wk_dataset;

typedef struct wk_dataset_info {
  uint64_t n_samples;
  uint64_t n_inputs; /* after one-hot expansion; product of the model's input dims */
  bool sparse;       /* for a model whose first layer is sparse: fetched by wk_dataset_fetch_sparse */
  wk_target_kind target;
  uint32_t n_classes; /* class targets: labels are below it. The model's outputs; 2 for one sigmoid output */
} wk_dataset_info;

/* Opens the training source of a job and fits the preprocessing on the samples that are trained on (without
 * the validation part, see wk_train_part); then others with the same preprocessing. n_inputs, n_outputs: of
 * the model. with_targets false: the file need not hold targets. */
BL_MUST_CHECK bl_status wk_dataset_open_train(const bl_job_spec *spec, uint64_t n_inputs, uint32_t n_outputs,
                                              wk_dataset **ret_ds, wk_preprocess **ret_pre, bl_error *err);
BL_MUST_CHECK bl_status wk_dataset_open(const bl_source_spec *source, const wk_preprocess *pre,
                                        bool with_targets, wk_dataset **ret_ds, bl_error *err);
void wk_dataset_free(wk_dataset *ds);
wk_dataset_info wk_dataset_get_info(const wk_dataset *ds);
/* XXH3 over everything read: shape, inputs, targets, in file order. */
uint64_t wk_dataset_fingerprint(const wk_dataset *ds);

/* Fetches n samples: x [n, n_inputs] float32 normalised; class targets into labels [n], value targets into
 * values [n] (standardised when the job says so); the one that does not apply may be NULL. */
void wk_dataset_fetch(const wk_dataset *ds, const uint64_t *indices, size_t n, float *x, uint32_t *labels,
                      float *values);

/* Samples that stay sparse, as compressed rows. Grown by fetch to the largest batch and kept. All zero: ready for use. */
typedef struct wk_sparse_batch {
  uint32_t *row_start; /* [n + 1] into keys and vals; owned, as all here */
  uint64_t *keys;      /* inputs that are not 0, below n_inputs, in the order of the file; may repeat within a sample */
  float *vals;         /* [row_start[n]] */
  bool ones;           /* all values are 1, and vals holds nothing */
  uint32_t row_capacity, key_capacity;
} wk_sparse_batch;

void wk_sparse_batch_fini(wk_sparse_batch *b);

/* The same for sets that are sparse. BL_ENOMEM; BL_ELIMIT: 2^32 inputs or more in one batch. */
BL_MUST_CHECK bl_status wk_dataset_fetch_sparse(const wk_dataset *ds, const uint64_t *indices, size_t n,
                                                wk_sparse_batch *b, uint32_t *labels, float *values);

/* preprocess.json: pure data, versioned. read: refuses what it does not understand. */
BL_MUST_CHECK bl_status wk_preprocess_write(const wk_preprocess *pre, const char *path, bl_error *err);
BL_MUST_CHECK bl_status wk_preprocess_read(const char *path, wk_preprocess **ret_pre, bl_error *err);
void wk_preprocess_free(wk_preprocess *pre);
wk_target_kind wk_preprocess_target_kind(const wk_preprocess *pre);
/* Value target: back to the file's units. */
double wk_preprocess_target_to_units(const wk_preprocess *pre, double y);
/* Name of a class: the CSV's text, or its number written into out. */
const char *wk_preprocess_class_name(const wk_preprocess *pre, uint32_t class_index, char *out, size_t size);
/* Factor from squared error in standardised units to the file's units squared (1 when not standardised). */
double wk_preprocess_target_variance(const wk_preprocess *pre);

#endif
