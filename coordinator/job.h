/* SPDX-License-Identifier: Apache-2.0
 *
 * One job: its spec, plan, ranks, data, metrics, log lines and times. Data and arithmetic on it; the rules of
 * its life are in lifecycle.c, who decides when it may start in queue.c.
 *
 * Invariant: a field that a message to a node depends on changes together with `dirty`; while a job is dirty
 * nothing about it is sent (reconcile.c), and only a successful store clears it. So a view is always durable
 * before it is announced.
 */
#ifndef CO_JOB_H
#define CO_JOB_H

#include "coordinator/job_state.h"
#include "coordinator/ledger.h"
#include "coordinator/metrics.h"
#include "coordinator/stopping.h"
#include "coordinator/store.h"
#include "job/tensors.h"
#include "wire/control.h"

#define CO_TOKEN_BYTES_MAX 128u
#define CO_BLAS_CORE_BYTES_MAX 32u

typedef struct co_rank {
  uint32_t incarnation;                     /* 0 before the first slot */
  /* Where it has its slot. "" while it has none; with data.where: local, where ranks are bound to the worker that
   * holds their data, the name stays and node_incarnation is 0: it waits for a slot there. */
  char node[BL_CONTROL_NAME_BYTES_MAX + 1];
  uint64_t node_incarnation; /* of the agent that it was given to */
  uint32_t crashes;                         /* over all incarnations; a lost node is not the task's fault */
  uint64_t sequence;                        /* last stored report of this incarnation */
  uint32_t last_epoch;                      /* highest epoch reported by any incarnation */
  /* Early stopping: its epoch report that waits for the verdict; 0: none. Only a short way: the agent asks again. */
  uint32_t verdict_epoch;
  uint64_t verdict_sequence;
  bool seen;                                /* this incarnation stood in a heartbeat */
  Ballast__Control__Report *data, *done;    /* owned; of this incarnation, NULL before */
  Ballast__Control__TaskStatus *traffic;    /* the last that told of tensors; owned, of its own incarnation, NULL before */
  /* reconcile: what was last sent, when */
  bl_msg_type sent_type;
  uint64_t sent_view, sent_ns;
} co_rank;

typedef struct co_server_use {
  char name[BL_CONTROL_NAME_BYTES_MAX + 1];
  uint64_t incarnation; /* of the process that holds the shards */
  uint64_t sent_view, sent_ns;
} co_server_use;

typedef struct co_rank_epoch {
  bool reported;
  co_metrics train, validation, test;
  double seconds;
  uint64_t clock;
} co_rank_epoch;

typedef struct co_epoch {
  co_rank_epoch *ranks;               /* owned [n_ranks]; NULL before a report, and once the sums stand */
  bool closed;                        /* every rank has reported this epoch or a later one */
  co_metrics train, validation, test; /* sums in rank order */
  double seconds;                     /* of the slowest rank */
  uint64_t clock;
} co_epoch;

typedef struct co_log_line {
  uint64_t number, wall_ns;
  uint32_t level, rank;
  char *text; /* owned */
} co_log_line;

typedef struct co_job {
  uint64_t id;
  char *token, *file, *submitter, *text; /* owned */
  bl_job_spec *spec;                     /* owned */
  bl_tensor_table *table;                /* owned */
  uint32_t protocol;                     /* that its nodes must speak at least: job/protocol.h */
  char protocol_for[64];                 /* because of this; "" for version 1 */
  co_job_state state;
  co_job_state stored_state; /* what people are told: a restart must not take it back */
  bl_status status;    /* why it ended; BL_OK for done */
  char reason[512];    /* the same as a sentence */
  char waits_for[512]; /* present tense; "" when it does not wait */
  bool dirty;          /* differs from the store */
  int32_t priority;    /* in the queue; the job file's, unless it was changed since */
  uint32_t place;      /* in the queue, from 1; 0: it does not wait for others to end */
  bool told_end;       /* the nodes that held it have been told once that it is over */

  uint64_t view;                   /* 0 before the first; never goes back */
  Ballast__Control__OpenJob *open; /* owned; the plan; NULL before placement. Complete from `opening` on */
  char blas_core[CO_BLAS_CORE_BYTES_MAX];
  co_rank *ranks; /* owned [n_ranks] */
  uint32_t n_ranks;
  co_server_use *servers; /* owned [n_servers] */
  uint32_t n_servers;

  uint64_t clocks_skipped; /* whose gradient was not finite, as the servers have said; not stored before the end */
  bool data_agreed;
  uint64_t train_samples, validation_samples, test_samples, fingerprint;

  co_ledger *ledger; /* owned; of ranks that run free; NULL before the first request */

  co_epoch *epochs; /* owned */
  uint32_t n_epochs, epochs_capacity;
  co_stopping stopping; /* over the closed epochs */

  co_log_line *log; /* owned ring of up to CO_LOG_LINES_MAX */
  uint32_t n_log, log_first;
  uint64_t log_number; /* of the newest line */

  uint64_t submitted_wall_ns, started_wall_ns, running_wall_ns, finished_wall_ns;
} co_job;

/* text: the normalised job file. BL_EINVAL: all mistakes, one per line, in *mistakes. */
BL_MUST_CHECK bl_status co_job_new(uint64_t id, const char *text, size_t text_bytes, const char *file,
                                   const char *token, const char *submitter, co_job **ret_job,
                                   bl_buf *mistakes);
void co_job_free(co_job *job); /* accepts NULL */

/* Server memory: per weight, and in all. */
uint64_t co_job_bytes_per_elem(const co_job *job);
uint64_t co_job_server_bytes(const co_job *job);

/* A shard that can be placed on. */
typedef struct co_shard {
  const char *server;
  uint64_t server_incarnation;
  uint32_t index;
  const char *endpoint, *public_key;
  uint64_t load_bytes, capacity_bytes; /* capacity 0: no limit known */
} co_shard;

/* Makes the plan over the given shards (those that get no chunk are left out). The job keeps its old plan on
 * failure: BL_ELIMIT when the memory does not suffice. */
BL_MUST_CHECK bl_status co_job_place(co_job *job, co_shard *shards, size_t n_shards, bl_error *err);
/* Forgets plan and servers. */
void co_job_unplace(co_job *job);
bool co_job_plan_is_complete(const co_job *job);
/* Starts the next view; the number of clocks must stand in the plan. */
void co_job_next_view(co_job *job);
/* Incarnations and view of the job into its plan (view 0 while the plan is incomplete). */
void co_job_sync_plan(co_job *job);
/* Bytes that the job takes on shard `index` of a server. */
uint64_t co_job_shard_load(const co_job *job, const char *server, uint32_t index);

bool co_rank_has_slot(const co_rank *rank);
/* Without a slot, and only one worker will do. */
bool co_rank_is_bound(const co_rank *rank);
bool co_job_is_local(const co_job *job); /* data.where */
uint32_t co_job_classes(const co_job *job); /* 0: none */

/* A rank starts over: next incarnation, no slot, nothing reported. Stays bound where data is local. */
void co_job_reset_rank(co_job *job, uint32_t rank);
/* Forgets the worker that it is bound to. */
void co_job_unbind_rank(co_job *job, uint32_t rank);

/* Data is local and every rank has reported it: how many samples each has, into the plan. */
BL_MUST_CHECK bl_status co_job_plan_rank_samples(co_job *job);

/* Takes a report of the rank's present incarnation into the job (data, epoch or done). Reports that make no
 * sense are ignored with BL_EINVAL. report: taken on success for data and done, copied from for epochs;
 * *ret_taken says which. */
BL_MUST_CHECK bl_status co_job_take_report(co_job *job, Ballast__Control__Report *report, bool *ret_taken);
co_report_kind co_report_kind_of(const Ballast__Control__Report *report); /* 0 for a log line */

/* Epochs that every rank has reported or passed. */
uint32_t co_job_closed_epochs(const co_job *job);
/* Early stopping; false before the epoch is complete. */
bool co_job_verdict(const co_job *job, uint32_t epoch, bool *ret_stop, uint32_t *ret_best);
/* Epochs of the whole job: those of its file, fewer once it is known that it stops early. */
uint32_t co_job_epochs(const co_job *job);
/* Epochs that the initial weights have behind them (init_from, resume); known once the plan is complete. */
uint32_t co_job_first_epochs(const co_job *job);

/* Adds a line to the ring; the oldest goes when it is full. */
BL_MUST_CHECK bl_status co_job_add_log(co_job *job, uint64_t number, uint64_t wall_ns, uint32_t level,
                                       uint32_t rank, const char *text);
/* i from 0 = oldest. */
const co_log_line *co_job_log_at(const co_job *job, uint32_t i);

/* Record for the store. *scratch is cleared first and owns what the record points to besides the job. */
typedef struct co_job_scratch {
  co_rank_record *ranks;
  co_server_record *servers;
  bl_msg plan;
} co_job_scratch;
BL_MUST_CHECK bl_status co_job_to_record(const co_job *job, co_job_scratch *scratch, co_job_record *ret_record);
void co_job_scratch_fini(co_job_scratch *scratch);
BL_MUST_CHECK bl_status co_job_from_record(const co_job_record *r, co_job **ret_job, bl_error *err);
BL_MUST_CHECK bl_status co_job_restore_report(co_job *job, const co_report_record *r);

/* Sums over the ranks, in rank order; what `ballast run --json` prints. The lists of the metrics are borrowed from the job's
 * last epoch, whose counts they are. */
typedef struct co_result {
  uint64_t clocks, epochs, samples;
  double seconds, samples_per_second;
  co_metrics train, validation, test;
  uint64_t bytes_pushed, bytes_pulled, bytes_pushed_dense, bytes_pulled_dense;
  uint64_t weights_xxh3;
  const char *output;
  uint32_t best_epoch; /* early stopping: the epoch whose model is kept and whose metrics these are; 0: none */
  bool stopped_early;
} co_result;
/* False before every rank has delivered. */
bool co_job_result(const co_job *job, co_result *ret_result);

#endif
