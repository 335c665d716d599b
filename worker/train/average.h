/* SPDX-License-Identifier: Apache-2.0
 *
 * The average of the weights in the model for the time of an evaluation, and the weights back again. With a lossy pull
 * codec what a worker holds cannot be pulled a second time, so the weights are kept here meanwhile.
 *
 * Without an average (the job has none) every call does nothing, and it is there at once. Threads: one.
 */
#ifndef WK_TRAIN_AVERAGE_H
#define WK_TRAIN_AVERAGE_H

#include "client/session.h"

typedef struct wk_average {
  bl_session *session;          /* borrowed; NULL: no average */
  const bl_tensor_table *table; /* borrowed */
  float *const *params;         /* [n_tensors], of the model */
  float *kept;                  /* [table->n_elems], owned */
  bool is_in;                   /* params hold the average, or will when it has come */
} wk_average;

/* session NULL: no average. */
BL_MUST_CHECK bl_status wk_average_init(wk_average *a, bl_session *session, const bl_tensor_table *table,
                                        float *const *params, bl_error *err);
void wk_average_fini(wk_average *a);

void wk_average_bring_in(wk_average *a, uint64_t now_ns);
bool wk_average_is_there(const wk_average *a);
void wk_average_take_out(wk_average *a);

#endif
