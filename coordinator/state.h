/* SPDX-License-Identifier: Apache-2.0
 *
 * What the coordinator knows: nodes and jobs, and the time of the present call. Shared by the parts of the
 * core (queue, lifecycle, reconcile, status), owned by core.c.
 */
#ifndef CO_STATE_H
#define CO_STATE_H

#include "coordinator/job.h"
#include "coordinator/membership.h"

#define CO_JOBS_MAX 100000u

typedef struct co_state {
  co_membership members;
  co_job **jobs; /* owned, by id: all that have not ended, and the newest that have (history.h) */
  size_t n_jobs, jobs_capacity;
  uint64_t next_job;
  uint64_t incarnation;
  uint32_t protocol_max; /* this coordinator speaks BL_PROTOCOL_MIN to this */
  uint64_t heartbeat_ns, lease_ns;
  uint64_t queue_pass_ns; /* schedule.h */
  uint64_t started_ns, now_ns, wall_ns, started_wall_ns;
  co_store *store;       /* borrowed */
  char store_error[512]; /* last failure; "" since the last success */
  bool history_grew;     /* a job has ended since the history was last trimmed */
} co_state;

co_job *co_state_job(const co_state *st, uint64_t id); /* NULL: no such job */

/* Takes the job on success; ids only grow. BL_ENOMEM. */
BL_MUST_CHECK bl_status co_state_add(co_state *st, co_job *job);

/* Live node of that name in the given incarnation, or NULL. */
co_node *co_state_live(const co_state *st, const char *name, uint64_t incarnation);
/* True when what was given to this incarnation of the node is gone for good: lease over, or restarted. A node
 * that has not yet come back after a restart of the coordinator gets CO_RESTART_GRACE_LEASES leases. */
bool co_state_node_is_lost(const co_state *st, const char *name, uint64_t incarnation);
#define CO_RESTART_GRACE_LEASES 2u

/* A live node that reports tasks or shards of the job; NULL: none does. */
co_node *co_state_holder(const co_state *st, uint64_t job);

/* Appends a line to the job's log, in memory and in the store (a failing store only costs the line). */
void co_state_log(co_state *st, co_job *job, uint32_t level, const char *fmt, ...) BL_PRINTF(4, 5);
/* What came of a use of the store: kept for the status page, said in the log once. */
void co_state_note_store(co_state *st, bl_status status, const bl_error *err);
/* Writes the job to the store when it is dirty. True when it is clean after. */
bool co_state_save(co_state *st, co_job *job);

#endif
