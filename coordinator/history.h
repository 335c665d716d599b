/* SPDX-License-Identifier: Apache-2.0
 *
 * Jobs beyond the present ones: reading them from the store at the start, and again one by one when somebody asks;
 * searching; forgetting. In memory are all jobs that have not ended and the CO_ENDED_IN_MEMORY newest that have;
 * the store has up to `history_jobs_max` ended ones. So neither the time of a tick nor the coordinator's memory
 * depends on how many jobs there have ever been.
 */
#ifndef CO_HISTORY_H
#define CO_HISTORY_H

#include "base/buf.h"
#include "coordinator/state.h"

#define CO_ENDED_IN_MEMORY 100u
#define CO_LIST_JOBS_DEFAULT 1000u /* of one list */
#define CO_LIST_JOBS_MAX 5000u

/* Fills st->jobs and st->next_job. The text of a failure names the job or file. */
BL_MUST_CHECK bl_status co_history_load(co_state *st, bl_error *err);

/* After a job has ended: forgets what is beyond jobs_max, a part at a time, and keeps in memory what belongs there. */
void co_history_sweep(co_state *st, uint64_t jobs_max);

/* The job, from memory or from the store; NULL: there is none, or it cannot be read. *ret_owned: to be given to
 * co_job_free by the caller, NULL when the job is in memory. */
const co_job *co_history_job(const co_state *st, uint64_t id, co_job **ret_owned);

/* The job that was submitted with this token; 0: none. */
BL_MUST_CHECK bl_status co_history_token(const co_state *st, const char *token, uint64_t *ret_job, bl_error *err);

typedef struct co_query {
  const char *state; /* states with commas between, `active`, `ended`; "": any */
  const char *name;  /* pattern with * and ?; "": any */
  const char *submitter;
  uint64_t submitted_ns; /* then or later */
  uint64_t before;       /* job numbers below; 0: all */
  uint32_t limit;        /* 0: CO_LIST_JOBS_DEFAULT */
} co_query;

/* Appends {"jobs": [...], "more": bool}: the newest that fit, by number; `more` when older ones fit too. BL_EINVAL:
 * no such state. */
BL_MUST_CHECK bl_status co_history_find(const co_state *st, const co_query *q, bl_buf *out, bl_error *err);

#endif
