/* SPDX-License-Identifier: Apache-2.0
 *
 * A whole cluster in one thread: the real coordinator core over a store in memory, real server nodes and
 * shards, real agents whose tasks train the toy over real sessions, and a command that submits, asks and
 * cancels. Faults come from a list, everything else from the seed.
 *
 * What holds in every run, and is checked in it:
 *   - what a message of the coordinator says (view, incarnations) stands in the store already;
 *   - views and clocks never go back;
 *   - every (rank, clock, chunk) of a job is applied exactly once, by whichever incarnation;
 *   - a job ends in time: done with the weights of the straight line, cancelled only if somebody asked, failed
 *     only with the name of a server that the faults took;
 *   - an epoch counts every rank once;
 *   - a part of version 1 is sent nothing that version 1 could not read, and no work that it does not understand;
 *   - afterwards no task lives and no server holds anything.
 * A failed check names the seed.
 */
#ifndef TESTS_CLUSTER_H
#define TESTS_CLUSTER_H

#include "sim.h"

#include "base/status.h"
#include "coordinator/job_state.h"

#define CLUSTER_SERVERS_MAX 4
#define CLUSTER_SHARDS_MAX 2 /* per server */
#define CLUSTER_WORKERS_MAX 6
#define CLUSTER_JOBS_MAX 3
#define CLUSTER_FAULTS_MAX 16

typedef enum cluster_fault_kind {
  CLUSTER_COORDINATOR_CRASH = 1, /* between a write and the message about it; back after for_ns */
  CLUSTER_TASK_CRASH,            /* some live one */
  CLUSTER_WORKER_CRASH,          /* its tasks go too; back after for_ns */
  CLUSTER_WORKER_PAUSE,          /* its tasks too, for for_ns */
  CLUSTER_SERVER_CRASH,          /* back, empty, after for_ns */
  CLUSTER_CONTROL_CUT,           /* one way between the coordinator and a worker, for for_ns */
  CLUSTER_SERVER_CUT,            /* one way between the coordinator and a server */
  CLUSTER_DATA_CUT,              /* one way between a task and a shard */
  CLUSTER_STORE_FAILS,           /* the disk refuses writes for for_ns */
  CLUSTER_CANCEL,                /* job `which` */
  CLUSTER_SERVER_JOINS,          /* server `which`, which must be the last one and was not there so far */
  CLUSTER_FAULT_KINDS
} cluster_fault_kind;

typedef struct cluster_fault {
  cluster_fault_kind kind;
  uint64_t at_ns, for_ns;
  uint32_t which; /* worker or server modulo how many there are, or job */
} cluster_fault;

typedef struct cluster_job {
  const char *text; /* a job file */
  uint64_t submit_ns;
} cluster_job;

typedef struct cluster_options {
  uint64_t seed;
  sim_config net;
  uint32_t n_servers, n_shards, n_workers, n_slots;
  cluster_job jobs[CLUSTER_JOBS_MAX];
  uint32_t n_jobs;
  cluster_fault faults[CLUSTER_FAULTS_MAX];
  uint32_t n_faults;
  /* Parts of version 1: they say so, and of what goes to and from them only what version 1 knew arrives. A part that
   * comes back after a crash is of today's version. */
  uint32_t old_servers, old_workers; /* a bit each */
  bool old_coordinator, old_command;
  bool store_forgets; /* a fault of the fake: it says yes and writes nothing */
} cluster_options;

typedef struct cluster_result {
  char state[CLUSTER_JOBS_MAX][16];
  char reason[CLUSTER_JOBS_MAX][512];
  uint64_t weights[CLUSTER_JOBS_MAX]; /* of jobs that are done */
  uint64_t n_views[CLUSTER_JOBS_MAX];
  uint64_t sim_ns;
  unsigned deaths_in[CO_JOB_STATE_COUNT]; /* jobs by their stored state, each time that the coordinator crashed */
  char broken[256]; /* what did not hold, with the seed; "" when all did */
} cluster_result;

/* Stops at the first broken rule. */
void cluster_run(const cluster_options *o, cluster_result *ret_result);

#endif
