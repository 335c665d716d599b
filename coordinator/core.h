/* SPDX-License-Identifier: Apache-2.0
 *
 * The coordinator without its sockets: messages and time in, messages out through one transport (ROUTER),
 * memory in a store. Composed of membership, schedule, queue, lifecycle, reconcile, history and status; the rules are
 * there.
 * The simulator runs this very code.
 *
 * How a job starts:
 *   1. Slots for all ranks and a placement of all chunks are found; stored; state `loading`. StartTask goes to
 *      the workers with an incomplete plan: clocks = 0, view = 0. Tasks read their data and send a DataReport;
 *      they connect to no shard.
 *   2. All DataReports are equal: the number of clocks is known, view 1 is stored; state `opening`. OpenJob
 * goes to the servers and UpdateTask to the tasks, both with the complete plan.
 *   3. Every server reports SHARD_JOB_OPEN and every task TASK_READY, both in the present view: state
 * `running`, RunTask to all. Later StartTasks (a rank that is replaced) carry the complete plan at once.
 *
 * Threads: one. Time never goes back between calls.
 */
#ifndef CO_CORE_H
#define CO_CORE_H

#include "coordinator/state.h"

typedef struct co_core co_core;

typedef struct co_core_config {
  uint64_t incarnation;            /* wall-clock nanoseconds at the start of the process */
  uint32_t protocol_max;           /* 0: all that this program speaks; see bl_protocol_max */
  uint64_t heartbeat_ns, lease_ns; /* told to nodes */
  uint64_t history_jobs_max;       /* ended jobs that are kept; at least 1 */
  uint64_t queue_pass_ns;          /* schedule.h */
  bl_transport *transport;         /* borrowed */
  co_store *store;                 /* borrowed */
} co_core_config;

/* Loads what the store holds; running jobs go on. The text of a failure names the job or file. */
BL_MUST_CHECK bl_status co_core_new(const co_core_config *config, uint64_t now_ns, uint64_t wall_ns,
                                    co_core **ret_core, bl_error *err);
void co_core_free(co_core *core); /* accepts NULL */

/* Wall time for history and log lines of the calls that follow. */
void co_core_set_wall(co_core *core, uint64_t wall_ns);
/* Messages that the socket dropped unread since its start: they count as malformed. */
void co_core_set_dropped(co_core *core, uint64_t n);
/* A message from a peer; msg is not kept. Answers and acknowledgements go out at once, everything else with
 * the next tick: call it after each message. */
void co_core_on_msg(co_core *core, const bl_peer *from, const bl_msg *msg, uint64_t now_ns);
/* Draws the conclusions from what has come in and from time passing, at most once per CO_SETTLE_NS. Returns
 * when to call it next. */
uint64_t co_core_tick(co_core *core, uint64_t now_ns);
#define CO_SETTLE_NS UINT64_C(10000000)

/* For pages: read only, until the next call. */
const co_state *co_core_state(const co_core *core);

typedef struct co_core_stats {
  uint64_t messages, malformed, refused; /* refused: by role or name */
} co_core_stats;
co_core_stats co_core_get_stats(const co_core *core);

#endif
