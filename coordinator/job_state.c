/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/job_state.h"

#include <string.h>

#define TO(state, act)                                                                                         \
  { CO_JOB_##state, CO_ACT_##act }

/* A lost server before the first clock costs nothing: the job queues again. Later its part of the weights is
 * gone, and this version keeps no copy. In `finishing` the result is stored, so nothing can fail any more. */
static const co_job_step steps[CO_JOB_STATE_COUNT][CO_EV_COUNT] = {
    [CO_JOB_QUEUED] =
        {
            [CO_EV_PLACED] = TO(LOADING, START),
            [CO_EV_FATAL] = TO(FAILED, END),
            [CO_EV_CANCEL] = TO(CANCELLED, END),
        },
    [CO_JOB_LOADING] =
        {
            [CO_EV_DATA_AGREED] = TO(OPENING, OPEN),
            [CO_EV_RANK_LOST] = TO(LOADING, REPLACE),
            [CO_EV_SERVER_LOST] = TO(QUEUED, REQUEUE),
            [CO_EV_FATAL] = TO(FAILED, END),
            [CO_EV_CANCEL] = TO(CANCELLED, END),
        },
    [CO_JOB_OPENING] =
        {
            [CO_EV_READY] = TO(RUNNING, RUN),
            [CO_EV_RANK_LOST] = TO(OPENING, REPLACE),
            [CO_EV_SERVER_LOST] = TO(QUEUED, REQUEUE),
            [CO_EV_FATAL] = TO(FAILED, END),
            [CO_EV_CANCEL] = TO(CANCELLED, END),
        },
    [CO_JOB_RUNNING] =
        {
            [CO_EV_RANK_LOST] = TO(RECOVERING, REPLACE),
            [CO_EV_SERVER_LOST] = TO(FAILED, END),
            [CO_EV_FATAL] = TO(FAILED, END),
            [CO_EV_CANCEL] = TO(CANCELLED, END),
            [CO_EV_ALL_DONE] = TO(FINISHING, FINISH),
        },
    [CO_JOB_RECOVERING] =
        {
            [CO_EV_READY] = TO(RUNNING, RUN),
            [CO_EV_RANK_LOST] = TO(RECOVERING, REPLACE),
            [CO_EV_SERVER_LOST] = TO(FAILED, END),
            [CO_EV_FATAL] = TO(FAILED, END),
            [CO_EV_CANCEL] = TO(CANCELLED, END),
            [CO_EV_ALL_DONE] = TO(FINISHING, FINISH),
        },
    [CO_JOB_FINISHING] =
        {
            [CO_EV_CLOSED] = TO(DONE, END),
        },
};

static const struct {
  const char *name, *phase;
} state_names[CO_JOB_STATE_COUNT] = {
    [CO_JOB_INVALID] = {"?", "?"},
    [CO_JOB_QUEUED] = {"queued", "queued"},
    [CO_JOB_LOADING] = {"starting", "loading"},
    [CO_JOB_OPENING] = {"starting", "opening"},
    [CO_JOB_RUNNING] = {"running", "running"},
    [CO_JOB_RECOVERING] = {"recovering", "recovering"},
    [CO_JOB_FINISHING] = {"finishing", "finishing"},
    [CO_JOB_DONE] = {"done", "done"},
    [CO_JOB_FAILED] = {"failed", "failed"},
    [CO_JOB_CANCELLED] = {"cancelled", "cancelled"},
};

static const char *const event_names[CO_EV_COUNT] = {
    [CO_EV_NONE] = "none",     [CO_EV_PLACED] = "placed",       [CO_EV_DATA_AGREED] = "data_agreed",
    [CO_EV_READY] = "ready",   [CO_EV_RANK_LOST] = "rank_lost", [CO_EV_SERVER_LOST] = "server_lost",
    [CO_EV_FATAL] = "fatal",   [CO_EV_CANCEL] = "cancel",       [CO_EV_ALL_DONE] = "all_done",
    [CO_EV_CLOSED] = "closed",
};

co_job_step co_job_state_step(co_job_state state, co_job_event event) {
  BL_ASSERT(state < CO_JOB_STATE_COUNT && event < CO_EV_COUNT);
  return steps[state][event];
}

bool co_job_state_is_terminal(co_job_state state) {
  return state == CO_JOB_DONE || state == CO_JOB_FAILED || state == CO_JOB_CANCELLED;
}

bool co_job_state_is_active(co_job_state state) {
  return state >= CO_JOB_LOADING && state <= CO_JOB_FINISHING;
}

const char *co_job_state_name(co_job_state state) {
  return state < CO_JOB_STATE_COUNT ? state_names[state].name : "?";
}

const char *co_job_phase_name(co_job_state state) {
  return state < CO_JOB_STATE_COUNT ? state_names[state].phase : "?";
}

co_job_state co_job_phase_by_name(const char *name) {
  for (co_job_state s = CO_JOB_QUEUED; s < CO_JOB_STATE_COUNT; s++)
    if (strcmp(name, state_names[s].phase) == 0)
      return s;
  return CO_JOB_INVALID;
}

const char *co_job_event_name(co_job_event event) {
  return event < CO_EV_COUNT ? event_names[event] : "?";
}
