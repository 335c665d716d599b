/* SPDX-License-Identifier: Apache-2.0
 *
 * Between a model's gradients and the session: starts their push, checks that they are finite and measures their
 * norm while they are warm in the cache, ends the clock. Knows nothing of data or epochs. Threads: one.
 *
 * A gradient goes on its way while the next one is computed, and the shards scale by the norm, which is known last. Where
 * the worker clips (error feedback, momentum correction: what is accumulated must be clipped), nothing goes before the
 * whole gradient is there.
 */
#ifndef WK_TRAIN_EXCHANGE_H
#define WK_TRAIN_EXCHANGE_H

#include "client/session.h"
#include "kernel/kernel.h"

typedef struct wk_exchange_config {
  bl_session *session;          /* borrowed */
  const bl_tensor_table *table; /* borrowed */
  double clip_norm;             /* 0: off */
  bool clips_locally;           /* with clip_norm */
  bl_not_finite not_finite;
} wk_exchange_config;

struct wk_held;
typedef struct wk_exchange {
  wk_exchange_config config;
  const bl_kernels *kernels;
  double *squares;              /* [n_tensors], owned */
  struct wk_held *held;         /* [n_tensors], owned: gradients that wait for the commit; NULL: none ever does */
  uint32_t n_held;
  uint64_t n_checked;           /* elements of the tensor that is being pushed */
  uint32_t not_finite_tensor;   /* n_tensors: all finite so far in this clock */
} wk_exchange;

BL_MUST_CHECK bl_status wk_exchange_init(wk_exchange *x, const wk_exchange_config *config, bl_error *err);
void wk_exchange_fini(wk_exchange *x);

void wk_exchange_begin(wk_exchange *x); /* a new clock */
/* The first n_ready elements of a gradient are there; one tensor after the other, each with growing n_ready up to all.
 * Numbers that are not finite are written over where the policy is not to fail: 0 for all that was brought with them
 * (skip_clock), or as bl_not_finite says (clip). grad: borrowed until bl_session_gradients_free. */
void wk_exchange_push(wk_exchange *x, uint32_t tensor, float *grad, uint64_t n_ready, uint64_t now_ns);
/* The gradient of the rows of a table that the batch touched: all of it at once. */
void wk_exchange_push_rows(wk_exchange *x, uint32_t tensor, const uint64_t *rows, uint32_t n_rows, float *grad,
                           uint64_t now_ns);
/* All tensors pushed. The rank's gradient is scaled to a norm of at most clip_norm: here where the worker clips,
 * elsewhere by the shards, by the scale in the commit. */
void wk_exchange_commit(wk_exchange *x, bool loss_finite, uint64_t n_samples, uint64_t now_ns);
/* Name of a tensor whose gradient of this clock held a NaN or infinity; NULL: all are finite. */
const char *wk_exchange_not_finite(const wk_exchange *x);

#endif
