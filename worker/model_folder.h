/* SPDX-License-Identifier: Apache-2.0
 *
 * The folder of a trained model:
 *
 *   job.yaml            the job, every default written out
 *   preprocess.json     how inputs were normalised, names of classes
 *   model.safetensors   the weights, under the names of the layers
 *   last.safetensors    with early stopping: the weights at the end; model.safetensors are those of the best epoch
 *   metrics.csv         loss and accuracy per epoch over all ranks, which the coordinator adds up and sends
 *   confusion_*.csv     where the job asks for it: rows are true classes, columns predicted ones
 *
 * Rank 0 writes metrics.csv after every epoch and the rest at the end, or as often as the job asks for (save_every). The three files are made beside the folder; where
 * it stands already, each replaces the one of the same name, the weights last, and nothing else is touched.
 */
#ifndef WK_MODEL_FOLDER_H
#define WK_MODEL_FOLDER_H

#include "ckpt/safetensors.h"
#include "data/dataset.h"
#include "nn/model.h"

typedef struct wk_trained {
  const bl_job_spec *spec;
  const wk_preprocess *pre;
  const bl_tensor_table *table;
  float *const *params;
  const bl_saved_rows *tables; /* [n_tensors] of table; NULL where it holds no tables */
  uint64_t weights_xxh3, clocks, epochs; /* done */
  uint64_t job;                          /* its number */
} wk_trained;

/* What a file of weights says of itself. */
typedef struct wk_saved {
  uint64_t job, epochs, clocks;
} wk_saved;

/* Before any work: can the folder be written? Makes the folders above it and tries. */
BL_MUST_CHECK bl_status wk_model_folder_check(const char *dir, bl_error *err);
BL_MUST_CHECK bl_status wk_model_folder_write(const char *dir, const wk_trained *trained, bl_error *err);
/* Only the weights, as last.safetensors. */
BL_MUST_CHECK bl_status wk_model_folder_write_last(const char *dir, const wk_trained *trained, bl_error *err);
/* Another job's last.safetensors must not pass for this one's. */
void wk_model_folder_drop_last(const char *dir);
/* name: of a file of weights in the folder. BL_ENOENT: not there; what the file does not say is 0. */
BL_MUST_CHECK bl_status wk_model_folder_saved(const char *dir, const char *name, wk_saved *ret_saved, bl_error *err);

/* A text file of the folder, which is made where it is not there yet. name: a plain one, without '/'. */
BL_MUST_CHECK bl_status wk_model_folder_write_text(const char *dir, const char *name, const char *text, bl_error *err);

/* metrics.csv of a job that goes on behind epoch `keep`: rows of earlier epochs that stand there already, in the same columns,
 * are kept. keep 0: none. */
BL_MUST_CHECK bl_status wk_model_folder_write_metrics(const char *dir, const char *csv, uint64_t keep, bl_error *err);

/* A model ready for prediction; all owned. */
typedef struct wk_loaded {
  bl_job_spec *spec;
  wk_preprocess *pre;
  bl_tensor_table *table;
  wk_model *model;
  bl_saved_rows *tables; /* [n_tensors]: the rows of tables */
  uint64_t n_inputs;
  uint32_t n_outputs;
} wk_loaded;

BL_MUST_CHECK bl_status wk_model_folder_read(const char *dir, uint32_t batch_max, wk_loaded *ret_loaded, bl_error *err);
void wk_loaded_fini(wk_loaded *l);

#endif
