/* SPDX-License-Identifier: Apache-2.0
 *
 * A batch of sparse samples on its way into a model: the distinct rows of the table that it touches, ascending,
 * room for their weights and gradients, and which row each input takes. Who fills the weights is none of its
 * business: a session in training, a file's table in prediction. Grows to the largest batch and keeps its
 * memory. Threads: one.
 */
#ifndef WK_TRAIN_SPARSE_INPUT_H
#define WK_TRAIN_SPARSE_INPUT_H

#include "ckpt/safetensors.h"
#include "data/dataset.h"
#include "data/distinct.h"
#include "nn/model.h"

typedef struct wk_sparse_input {
  wk_sparse_x x;    /* for wk_model_forward_sparse; weights and grads are the arrays below */
  uint32_t n;       /* samples */
  uint64_t *rows;   /* [x.n_rows] of the table, ascending */
  float *weights;   /* [x.n_rows, units] */
  float *grads;     /* [x.n_rows, units]; NULL: not for training */
  uint32_t *labels; /* [n]; of class targets */
  float *values;    /* [n]; of value targets */
  /* inside */
  uint32_t units;
  bool for_training;
  wk_sparse_batch batch;
  uint32_t *at;
  uint32_t at_capacity, rows_capacity, weights_capacity, n_capacity;
} wk_sparse_input;

void wk_sparse_input_init(wk_sparse_input *in, uint32_t units, bool for_training);
void wk_sparse_input_fini(wk_sparse_input *in);

/* Fetches samples; the weights are not there yet. scratch: shared by all inputs of a thread. BL_ENOMEM,
 * BL_ELIMIT. */
BL_MUST_CHECK bl_status wk_sparse_input_fetch(wk_sparse_input *in, wk_distinct *scratch, const wk_dataset *data,
                                              const uint64_t *indices, uint32_t n, bl_error *err);
/* Weights from a table in memory; rows that it does not hold have the initial values of their tensor. */
void wk_sparse_input_fill(wk_sparse_input *in, const bl_saved_rows *table, const bl_tensor *tensor,
                          uint64_t seed);

/* The table tensor of a model with a sparse first layer, or UINT32_MAX. */
uint32_t wk_sparse_tensor(const bl_tensor_table *table);

#endif
