/* SPDX-License-Identifier: Apache-2.0
 *
 * What a job's tensors travel as, and how well: what the ranks' tasks say of it now and then, added up. Not stored: a
 * coordinator that was started again hears it within seconds.
 */
#ifndef COORDINATOR_TRAFFIC_H
#define COORDINATOR_TRAFFIC_H

#include "coordinator/job.h"

#define CO_TRAFFIC_CODECS_MAX 160 /* bytes of the list of codecs that ranks differ in */

/* A tensor over the ranks that have told of it. Texts are borrowed until the job's next heartbeat. */
typedef struct co_traffic {
  const char *name;       /* "": all that are not named, n_tensors of them */
  uint32_t n_tensors, n_ranks;
  char push[CO_TRAFFIC_CODECS_MAX], pull[CO_TRAFFIC_CODECS_MAX]; /* of the first rank; other pushes behind "; " */
  const char *reason;     /* of the first rank that gives one */
  uint64_t bytes_pushed, bytes_pulled, bytes_pushed_dense, bytes_pulled_dense, residuals_lost;
  double residual_squared, gradient_squared, lost_squared;
} co_traffic;

/* A status from a heartbeat. Keeps a copy when it tells of tensors and is of the rank's present incarnation. job: NULL when
 * there is no such job. */
void co_traffic_keep(co_job *job, const Ballast__Control__TaskStatus *t);

/* The job's tensors; returns how many. */
size_t co_traffic_sum(const co_job *job, co_traffic out[BL_CONTROL_TRAFFIC_MAX]);

#endif
