/* SPDX-License-Identifier: Apache-2.0
 *
 * The life of a job as a table: state x event -> next state and what to do. Pure; knows nothing of nodes,
 * messages or time. Who raises the events: lifecycle.c; who does the actions: lifecycle.c too.
 *
 *   queued -> loading -> opening -> running <-> recovering -> finishing -> done
 *   and from every state before finishing: failed, cancelled.
 *
 * People see loading and opening as one state, "starting".
 */
#ifndef CO_JOB_STATE_H
#define CO_JOB_STATE_H

#include "base/status.h"

#include <stdbool.h>

typedef enum co_job_state {
  CO_JOB_INVALID = 0,
  CO_JOB_QUEUED,  /* waits for slots, workers, or server memory */
  CO_JOB_LOADING, /* ranks have slots, shards are chosen; tasks read their data and report on it */
  CO_JOB_OPENING, /* the data agrees; shards open the job, tasks get the complete plan */
  CO_JOB_RUNNING,
  CO_JOB_RECOVERING, /* a rank was lost and is being replaced; the others go on as far as they can */
  CO_JOB_FINISHING,  /* every rank has delivered its result; shards and tasks let go */
  CO_JOB_DONE,
  CO_JOB_FAILED,
  CO_JOB_CANCELLED,
  CO_JOB_STATE_COUNT
} co_job_state;

typedef enum co_job_event {
  CO_EV_NONE = 0,
  CO_EV_PLACED,      /* slots and shards are assigned */
  CO_EV_DATA_AGREED, /* every rank has reported the same data */
  CO_EV_READY,       /* every shard is open and every task ready, in the present view */
  CO_EV_RANK_LOST,   /* one or more ranks need a new incarnation */
  CO_EV_SERVER_LOST, /* a shard of the job is gone with its state */
  CO_EV_FATAL,       /* a mistake in the job, differing data, too many crashes: no use in trying again */
  CO_EV_CANCEL,
  CO_EV_ALL_DONE, /* every rank's result is stored */
  CO_EV_CLOSED,   /* no node holds anything of the job any more */
  CO_EV_COUNT
} co_job_event;

typedef enum co_job_action {
  CO_ACT_NONE = 0,
  CO_ACT_START, /* tell workers to load */
  CO_ACT_OPEN,  /* fix the number of clocks, make a view, open shards */
  CO_ACT_RUN,
  CO_ACT_REPLACE, /* new incarnations in a new view */
  CO_ACT_REQUEUE, /* nothing is trained yet: give all back, wait again */
  CO_ACT_FINISH,
  CO_ACT_END, /* terminal: stamp the time, keep the history */
  CO_ACT_COUNT
} co_job_action;

typedef struct co_job_step {
  co_job_state next; /* CO_JOB_INVALID: the event does not apply in this state */
  co_job_action action;
} co_job_step;

co_job_step co_job_state_step(co_job_state state, co_job_event event);

bool co_job_state_is_terminal(co_job_state state);
/* Holds slots and server memory. */
bool co_job_state_is_active(co_job_state state);
/* For people: "starting" for loading and opening. */
const char *co_job_state_name(co_job_state state);
/* One name per state, as the store keeps it; CO_JOB_INVALID for unknown names. */
const char *co_job_phase_name(co_job_state state);
co_job_state co_job_phase_by_name(const char *name);
const char *co_job_event_name(co_job_event event);

#endif
