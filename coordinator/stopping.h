/* SPDX-License-Identifier: Apache-2.0
 *
 * Early stopping: which epoch is the best so far, and whether to stop after one. A function of the epochs that are
 * complete over all ranks, in their order, and of nothing else: so a restarted coordinator comes to the same verdicts
 * from what is stored, and may be asked again at any time. Pure; one thread.
 *
 * Rule: an epoch is better when its metric beats the best one's by more than min_delta; after `patience` epochs without
 * a better one the job stops. A value that is not known, or NaN, is never better.
 */
#ifndef CO_STOPPING_H
#define CO_STOPPING_H

#include "coordinator/metrics.h"

typedef struct co_stopping {
  uint32_t n_seen;     /* epochs judged so far */
  uint32_t best_epoch; /* 0: none was better than nothing */
  double best_value;
  uint32_t stop_epoch; /* 0: goes on */
} co_stopping;

bool co_stopping_is_asked(const bl_job_spec *spec);

/* Judges the next epoch. first_epoch: epochs before it were another job's, and count for nothing. */
void co_stopping_judge(co_stopping *s, const bl_job_spec *spec, uint32_t epoch, uint32_t first_epoch,
                       const co_metrics *train, const co_metrics *validation);

#endif
