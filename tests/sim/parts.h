/* SPDX-License-Identifier: Apache-2.0
 *
 * Inside of the simulated cluster: what its parts know of each other.
 */
#ifndef TESTS_PARTS_H
#define TESTS_PARTS_H

#include "cluster.h"

#include "client/initial.h"
#include "client/session.h"
#include "coordinator/core.h"
#include "server/node.h"
#include "server/shard.h"
#include "toy.h"
#include "worker/agent.h"
#include "worker/train/shares.h"

#define SIM_ORDERS_MAX 64
#define SIM_TASKS_MAX 160
#define SIM_TENSORS_MAX 16
#define SIM_TRAIN_SAMPLES 100
#define SIM_FREE_CLOCKS_MAX 512 /* of a free running rank */
#define SIM_WALL_NS UINT64_C(1700000000000000000) /* wall time at simulated time 0 */

typedef struct cluster cluster;

/* ---- servers ---- */

typedef struct sim_order { /* from the main thread to a shard's */
  uint64_t at_ns;
  Ballast__Control__JobPlan *plan; /* owned; NULL: close */
  uint64_t job;
} sim_order;

typedef struct sim_server sim_server;

typedef struct sim_shard {
  sim_server *server;
  uint32_t index;
  sim_node *node;
  sim_socket *router;
  srv_shard *shard; /* NULL: the process is not there */
  sim_order orders[SIM_ORDERS_MAX];
  uint32_t n_orders;
  uint64_t last_clock[CLUSTER_JOBS_MAX + 1], last_view[CLUSTER_JOBS_MAX + 1]; /* by job id */
} sim_shard;

struct sim_server {
  cluster *c;
  char name[8], endpoints[CLUSTER_SHARDS_MAX][24];
  const char *endpoint_list[CLUSTER_SHARDS_MAX];
  sim_node *node;
  sim_socket *dealer;
  srv_node *ctl; /* NULL: the process is not there */
  uint64_t incarnation, report_at_ns;
  sim_shard shards[CLUSTER_SHARDS_MAX];
  bool was_taken; /* by a fault */
};

void sim_server_init(cluster *c, uint32_t index);
void sim_server_start(void *server); /* for sim_after */
void sim_server_crash(sim_server *s);
bool sim_server_holds_nothing(const sim_server *s);

/* ---- workers ---- */

typedef struct sim_worker sim_worker;

typedef enum sim_task_state {
  SIM_TASK_WAITING = 0,
  SIM_TASK_LOADING,
  SIM_TASK_READY,
  SIM_TASK_INITIAL, /* rank 0 brings the initial values */
  SIM_TASK_HELLO,
  SIM_TASK_PULLING,
  SIM_TASK_PUSHING,
  SIM_TASK_COMMITTED,
  SIM_TASK_FINISHED, /* free running: waits for the final weights */
  SIM_TASK_AVERAGING, /* waits for the average of the weights */
  SIM_TASK_VERDICT,  /* early stopping: its epoch is reported; waits to hear whether to go on */
  SIM_TASK_REPORTED, /* its result; waits for the acknowledgement */
  SIM_TASK_ENDED
} sim_task_state;

typedef struct sim_task sim_task;

struct sim_task {
  cluster *c;
  sim_worker *worker;
  uint64_t worker_incarnation, process;
  sim_node *node;
  sim_socket *to_agent, *of_agent; /* two ends of a pipe */
  sim_task_state state;
  Ballast__Control__StartTask *start;
  Ballast__Control__JobPlan *plan;
  uint64_t run_view, session_view, acknowledged, sequence;
  bool stop, done;
  bool old; /* its worker was of version 1 when it started it */
  uint64_t next_ns, status_at_ns; /* next_ns: of the present state */
  bl_job_spec *spec;
  bl_tensor_table *table;
  uint32_t *shard_of_chunk;
  bl_session *session;
  bl_initial *initial; /* while it brings them */
  bl_transport *transports[CLUSTER_SERVERS_MAX * CLUSTER_SHARDS_MAX];
  struct sim_link {
    sim_task *task;
    uint32_t shard;
  } links[CLUSTER_SERVERS_MAX * CLUSTER_SHARDS_MAX];
  float *weights[SIM_TENSORS_MAX], *grads[SIM_TENSORS_MAX];
  uint32_t next_tensor;
  uint64_t clock;
  uint32_t verdict_epoch; /* early stopping: the last one heard */
  bool verdict_stop;
  /* free running */
  wk_shares shares;
  bool asked;
  uint64_t lease_report, epochs_done;
};

struct sim_worker {
  wk_launcher launcher; /* first: a launcher is its worker */
  cluster *c;
  char name[8];
  sim_node *node;
  sim_socket *dealer;
  wk_agent *agent; /* NULL: the process is not there */
  uint64_t incarnation;
};

void sim_worker_init(cluster *c, uint32_t index);
void sim_worker_start(void *worker); /* for sim_after */
void sim_worker_crash(sim_worker *w);
void sim_worker_pause(sim_worker *w, uint64_t for_ns);
bl_status sim_task_start(sim_worker *w, const wk_launch *what);
bool sim_task_is_live(const sim_task *t);
/* The process ends; the agent is told behind everything that it had sent. */
void sim_task_end(sim_task *t, uint8_t code, uint8_t signum);
void sim_task_free(sim_task *t);

/* ---- the coordinator and what is known of jobs ---- */

typedef struct sim_coordinator {
  bl_transport checked; /* first: the core's transport */
  cluster *c;
  sim_node *node;
  sim_socket *router;
  co_store *store;
  co_core *core;                       /* NULL: the process is not there */
  uint64_t die_at_puts, back_after_ns; /* die_at_puts: 0 = not going to */
  bool dying;
} sim_coordinator;

typedef struct sim_job {
  char token[24];
  uint64_t id;    /* 0: not submitted yet */
  char state[16]; /* as the command sees it */
  bool cancel_wanted, cancel_answered;
  uint64_t max_view;
  uint64_t rank_clocks[TOY_RANKS_MAX];
  bool lost_residuals; /* some are counted as lost, or never kept: the weights are not those of the straight line */
#define SIM_NOT_IN_CLOCK 0xff /* with streams: a chunk that a clock is not about */
  uint8_t *applied; /* [clocks][world][n_chunks]: how often; of free ranks by which incarnation last, modulo 256 */
  uint64_t clocks;
  uint32_t world, n_chunks;
  /* Free running ranks: which samples their clocks have, whoever works on them. */
  bool is_free;
  struct {
    uint64_t epoch, first, end;
  } shares[TOY_RANKS_MAX][SIM_FREE_CLOCKS_MAX];
  uint64_t n_clocks[TOY_RANKS_MAX];
} sim_job;

struct cluster {
  const cluster_options *o;
  sim *sim;
  sim_coordinator co;
  sim_server servers[CLUSTER_SERVERS_MAX];
  sim_worker workers[CLUSTER_WORKERS_MAX];
  sim_task *tasks[SIM_TASKS_MAX]; /* all that ever were */
  uint32_t n_tasks;
  sim_job jobs[CLUSTER_JOBS_MAX];
  sim_node *command;
  sim_socket *command_dealer;
  uint64_t ask_at_ns, faults_end_ns;
  uint32_t old_servers, old_workers;
  bool old_coordinator;
  bl_buf schema; /* of version 1; empty when nobody needs it */
  unsigned deaths_in[CO_JOB_STATE_COUNT];
  char broken[256];
};

void sim_coordinator_init(cluster *c);
void sim_coordinator_start(void *coordinator);
void sim_coordinator_crash(sim_coordinator *k);

/* part_old.c: makes a node one of version 1, or of today's. */
void sim_set_old(cluster *c, sim_node *node, bool old);
/* For the configurations of parts: 1 for an old one, 0 for today's. */
static inline uint32_t sim_protocol(bool old) { return old ? 1 : 0; }
bool sim_server_is_old(const sim_server *s);
bool sim_worker_is_old(const sim_worker *w);

/* The first one stands. */
void cluster_break(cluster *c, const char *fmt, ...) BL_PRINTF(2, 3);
/* NULL: not of this run. */
sim_job *cluster_job_by_id(cluster *c, uint64_t id);

#endif
