/* SPDX-License-Identifier: Apache-2.0
 *
 * The folder of a trained model:
 *
 *   job.yaml            the job, every default written out
 *   preprocess.json     how inputs were normalised, names of classes
 *   model.safetensors   the weights, under the names of the layers
 *   metrics.csv         loss and accuracy per epoch over all ranks, which the coordinator sends at the end
 *
 * Rank 0 writes it at the end. The folder appears whole: it is made beside its place and renamed. Where a
 * folder stands already, the three files replace those of the same name and nothing else is touched.
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
  uint64_t weights_xxh3, clocks;
} wk_trained;

/* Before any work: can the folder be written? Makes the folders above it and tries. */
BL_MUST_CHECK bl_status wk_model_folder_check(const char *dir, bl_error *err);
BL_MUST_CHECK bl_status wk_model_folder_write(const char *dir, const wk_trained *trained, bl_error *err);

BL_MUST_CHECK bl_status wk_model_folder_write_metrics(const char *dir, const char *csv, bl_error *err);

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
