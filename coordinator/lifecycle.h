/* SPDX-License-Identifier: Apache-2.0
 *
 * Looks at a job and the nodes, finds what has happened (an event of job_state.h), and does what the state
 * table says. Changes jobs only; what follows for nodes is reconcile's matter. Pure on co_state.
 */
#ifndef CO_LIFECYCLE_H
#define CO_LIFECYCLE_H

#include "coordinator/state.h"

/* Applies events until nothing more follows from what is known. */
void co_lifecycle_step(co_state *st, co_job *job);

/* Applies one event from outside. BL_ESTATE when it does not apply in this state. status and reason are kept
 * by events that end the job. */
BL_MUST_CHECK bl_status co_lifecycle_apply(co_state *st, co_job *job, co_job_event event, bl_status status,
                                           const char *reason);

/* Appends what a starting, recovering or finishing job waits for, as a sentence; nothing when it does not. */
void co_lifecycle_waits_for(const co_state *st, const co_job *job, bl_buf *out);

/* Status of a rank's task in its node's last heartbeat; NULL: none. */
const Ballast__Control__TaskStatus *co_rank_task(const co_state *st, const co_job *job, uint32_t rank);

#endif
