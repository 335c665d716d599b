/* SPDX-License-Identifier: Apache-2.0 */
#include "nn/layer.h"

static const wk_layer_ops *const kinds[BL_LAYER_COUNT] = {
    [BL_LAYER_DENSE] = &wk_layer_dense,
    [BL_LAYER_ACTIVATION] = &wk_layer_activation,
    [BL_LAYER_DROPOUT] = &wk_layer_dropout,
    [BL_LAYER_FLATTEN] = &wk_layer_flatten,
    [BL_LAYER_SPARSE] = &wk_layer_sparse,
};

const wk_layer_ops *wk_layer_ops_of(bl_layer_kind kind) {
  return (unsigned)kind < BL_LAYER_COUNT ? kinds[kind] : NULL;
}

void wk_layer_report(const wk_layer *l, unsigned param, uint64_t n_ready, const wk_grad_sink *sink) {
  if (sink->fn != NULL)
    sink->fn(l->tensors[param], l->grads[param], n_ready, sink->arg);
}
