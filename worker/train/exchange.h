/* SPDX-License-Identifier: Apache-2.0
 *
 * Between a model's gradients and the session: starts their push, checks that they are finite and measures their
 * norm while they are warm in the cache, ends the clock. Knows nothing of data or epochs. Threads: one.
 */
#ifndef WK_TRAIN_EXCHANGE_H
#define WK_TRAIN_EXCHANGE_H

#include "client/session.h"
#include "kernel/kernel.h"

typedef struct wk_exchange {
  bl_session *session;          /* borrowed */
  const bl_tensor_table *table; /* borrowed */
  const bl_kernels *kernels;
  double clip_norm;             /* 0: off */
  double *squares;              /* [n_tensors], owned */
  uint64_t n_checked;           /* elements of the tensor that is being pushed */
  uint32_t not_finite_tensor;   /* n_tensors: all finite so far in this clock */
} wk_exchange;

BL_MUST_CHECK bl_status wk_exchange_init(wk_exchange *x, bl_session *session, const bl_tensor_table *table,
                                         double clip_norm, bl_error *err);
void wk_exchange_fini(wk_exchange *x);

void wk_exchange_begin(wk_exchange *x); /* a new clock */
/* The first n_ready elements of a gradient are there; one tensor after the other, each with growing n_ready up to all. */
void wk_exchange_push(wk_exchange *x, uint32_t tensor, const float *grad, uint64_t n_ready, uint64_t now_ns);
/* The gradient of the rows of a table that the batch touched: all of it at once. */
void wk_exchange_push_rows(wk_exchange *x, uint32_t tensor, const uint64_t *rows, uint32_t n_rows, const float *grad,
                           uint64_t now_ns);
/* All tensors pushed. The rank's gradient is scaled to a norm of at most clip_norm by the shards, by the scale
 * in the commit: the norm is only known when the first tensors are long under way. */
void wk_exchange_commit(wk_exchange *x, bool loss_finite, uint64_t n_samples, uint64_t now_ns);
/* Name of a tensor whose gradient of this clock holds a NaN or infinity; NULL: all are finite. */
const char *wk_exchange_not_finite(const wk_exchange *x);

#endif
