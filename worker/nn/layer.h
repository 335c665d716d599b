/* SPDX-License-Identifier: Apache-2.0
 *
 * What a kind of layer is: a table of four functions over planned memory. One file per kind; nn/model.c
 * knows none of them by name. A layer allocates nothing: `plan` says what it needs, the model places it.
 */
#ifndef WK_NN_LAYER_H
#define WK_NN_LAYER_H

#include "nn/model.h"
#include "nn/vec.h"

/* The parameters of a layer, in the order of its tensors in the job's table. */
enum { WK_WEIGHT = 0, WK_BIAS = 1, WK_LAYER_PARAMS_MAX = 2 };

typedef struct wk_layer_plan {
  uint64_t out;                 /* elements of a sample behind the layer */
  uint64_t params[WK_LAYER_PARAMS_MAX][2]; /* dims; a bias is {n, 0}, an absent one {0, 0} */
  uint64_t state_bytes_per_sample;         /* kept from forward to backward */
  bool table;                   /* the weight is no array of the model: the caller gives the rows that it needs */
  bool in_place;                /* forward: y is x; no memory for the output */
  bool needs_dx_buffer;         /* backward: dx is not written over dy */
} wk_layer_plan;

typedef struct wk_layer_ops wk_layer_ops;

typedef struct wk_layer {
  const wk_layer_ops *ops;
  const wk_vec *vec;
  uint32_t index;               /* in the model */
  uint64_t in, out;             /* elements of a sample */
  bl_activation activation;
  double rate;
  wk_layer_plan plan;
  float *params[WK_LAYER_PARAMS_MAX], *grads[WK_LAYER_PARAMS_MAX];
  uint32_t tensors[WK_LAYER_PARAMS_MAX]; /* index into the table */
  const float *x;               /* [n, in], of the last forward */
  const wk_sparse_x *sparse;    /* instead of x, where the plan says table */
  float *y;                     /* [n, out]; the model's memory, or x */
  void *state;                  /* NULL in evaluation models */
} wk_layer;

/* Where a finished gradient goes. fn may be NULL. */
typedef struct wk_grad_sink {
  wk_on_grad_fn *fn;
  void *arg;
} wk_grad_sink;

struct wk_layer_ops {
  const char *name;
  /* in, activation and rate of the layer are set. BL_EINVAL names the layer and the value. */
  bl_status (*plan)(const wk_layer *l, const bl_layer_spec *spec, bool for_training, wk_layer_plan *ret_plan,
                    bl_error *err);
  /* x: [n, in] -> y: [n, out]. step NULL: evaluation. */
  void (*forward)(wk_layer *l, uint32_t n, const wk_step_id *step);
  /* dy: [n, out], may be changed. dx: [n, in], NULL when nobody needs it; the same memory as dy unless
   * needs_dx_buffer. Stores parameter gradients and reports each as soon as it, or a large part, is complete. */
  void (*backward)(wk_layer *l, float *dy, float *dx, uint32_t n, const wk_grad_sink *sink);
};

extern const wk_layer_ops wk_layer_dense, wk_layer_activation, wk_layer_dropout, wk_layer_flatten, wk_layer_sparse;

/* NULL for kinds that are none of ours. */
const wk_layer_ops *wk_layer_ops_of(bl_layer_kind kind);

/* The first n_ready elements of a parameter's gradient are complete. */
void wk_layer_report(const wk_layer *l, unsigned param, uint64_t n_ready, const wk_grad_sink *sink);

#endif
