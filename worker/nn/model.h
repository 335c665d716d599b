/* SPDX-License-Identifier: Apache-2.0
 *
 * A neural network: layers with forward and backward, on planned memory. Nothing is allocated after
 * wk_model_new. Parameters live in arrays in the order and shapes of the job's tensor table; gradients in
 * arrays beside them.
 *
 * Threads: one per model; BLAS threads as set by wk_gemm_set_threads.
 */
#ifndef WK_NN_MODEL_H
#define WK_NN_MODEL_H

#include "job/tensors.h"

typedef struct wk_model wk_model;

/* batch_max: most samples per forward call. for_training false: no gradients, less memory. spec and table are
 * read during the call only. An activation of the last layer that the loss has built in (softmax with
 * softmax_cross_entropy, sigmoid with sigmoid_cross_entropy) is left to the loss. BL_EINVAL: the table is not
 * this model's, or the output does not fit the loss (sigmoid_cross_entropy and squared take one output). */
BL_MUST_CHECK bl_status wk_model_new(const bl_model_spec *spec, bl_loss_kind loss, const bl_tensor_table *table,
                                     uint32_t batch_max, bool for_training, wk_model **ret_model, bl_error *err);
void wk_model_free(wk_model *m);
/* Bytes of parameters, activations and gradients that wk_model_new would take in its one block; for `ballast
 * check`. */
BL_MUST_CHECK bl_status wk_model_memory(const bl_model_spec *spec, uint32_t batch_max, bool for_training,
                                        uint64_t *ret_bytes, bl_error *err);

float *const *wk_model_params(wk_model *m); /* [n_tensors] arrays, owned by the model; NULL for tables */
float *const *wk_model_grads(wk_model *m);  /* [n_tensors]; NULL for tables */

/* Context of dropout: makes it a function of (seed, clock, rank). */
typedef struct wk_step_id {
  uint64_t seed, clock;
  uint32_t rank;
} wk_step_id;

/* x: [n, inputs] borrowed until backward is done. Returns the outputs [n, outputs] (before the loss's own
 * softmax or sigmoid). n <= batch_max. step NULL: evaluation (no dropout). A model that is not for training
 * takes no step. */
const float *wk_model_forward(wk_model *m, const float *x, uint32_t n, const wk_step_id *step);

/* Samples of a model whose first layer is sparse. */
typedef struct wk_sparse_x {
  const uint32_t *row_start; /* [n + 1] into at and vals */
  const uint32_t *at;        /* the weight row of each input that is not 0, below n_rows */
  const float *vals;         /* its value; NULL: all are 1 */
  uint32_t n_rows;
  const float *weights;      /* [n_rows, units] of the first layer's weight */
  float *grads;              /* [n_rows, units], stored by backward; NULL in evaluation */
} wk_sparse_x;

/* The same for such a model, which takes only this. x is borrowed until backward is done. Backward reports the first
 * layer's weight with x->grads and n_rows * units elements. */
const float *wk_model_forward_sparse(wk_model *m, const wk_sparse_x *x, uint32_t n, const wk_step_id *step);

typedef struct wk_loss_sums {
  double loss_sum;          /* over the n samples */
  uint64_t correct;         /* classification: argmax, or sigmoid >= 0.5 */
  double squared_error_sum; /* regression */
} wk_loss_sums;

/* Loss of the last forward. labels [n] for class losses, values [n] for squared loss, which is (y - value)^2.
 * Labels below the number of classes: the data set's reader has checked it. */
wk_loss_sums wk_model_loss(wk_model *m, const uint32_t *labels, const float *values, uint32_t n);

/* The first n_ready elements of a gradient are complete: they will not change before the next backward. Called
 * from the last layer to the first while backward goes on, within a layer for the bias before the weight, for
 * a tensor once, or with growing n_ready when it is large; the last time with all. */
typedef void wk_on_grad_fn(uint32_t tensor, const float *grad, uint64_t n_ready, void *arg);

/* Gradients of sum over samples of loss / denominator (denominator: samples of the clock over all ranks),
 * stored (not added) into grads. n: as in the last forward. n may be 0: gradients are zero and still reported. */
void wk_model_backward(wk_model *m, const uint32_t *labels, const float *values, uint32_t n, double denominator,
                       wk_on_grad_fn *on_grad, void *arg);

/* Probabilities (softmax, sigmoid) or plain values of the last forward, for prediction. out: [n, outputs]. */
void wk_model_predict(const wk_model *m, uint32_t n, float *out);

#endif
