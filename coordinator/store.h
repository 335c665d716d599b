/* SPDX-License-Identifier: Apache-2.0
 *
 * What the coordinator must not forget: jobs with their placement and views, what ranks have reported, log
 * lines. A vtable, so that the core runs over SQLite (store_sqlite.c) or over memory in tests.
 *
 * The history of ended jobs lives here, not in the coordinator's memory: what a list shows of them is stored as
 * the text that the list had when they ended, and found by a narrow table with an index, so that a search reads
 * neither job files nor plans.
 *
 * Every put is durable when it returns BL_OK, and leaves the store as it was otherwise. Records are borrowed
 * for the call. Reports are stored as the messages they came in (a packed message head, msg.h).
 */
#ifndef CO_STORE_H
#define CO_STORE_H

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

#define CO_LOG_LINES_MAX 1000u      /* kept per job */
#define CO_LOG_RANK_NONE UINT32_MAX /* a line of the coordinator itself */

typedef struct co_rank_record {
  uint32_t incarnation;
  const char *node; /* "" when it has no slot */
  uint64_t node_incarnation;
  uint32_t crashes;
  uint64_t sequence; /* of the last stored report of this incarnation */
} co_rank_record;

typedef struct co_server_record {
  const char *name;
  uint64_t incarnation;
} co_server_record;

typedef struct co_job_record {
  uint64_t id;
  const char *token, *file, *submitter, *text;
  const char *phase, *reason;
  int status;
  uint64_t view;
  const uint8_t *plan; /* packed OpenJob; NULL before placement */
  size_t plan_bytes;
  const char *blas_core;
  bool data_agreed;
  uint64_t train_samples, validation_samples, test_samples, fingerprint;
  uint64_t submitted_wall_ns, started_wall_ns, running_wall_ns, finished_wall_ns;
  const co_rank_record *ranks;
  uint32_t n_ranks;
  const co_server_record *servers;
  uint32_t n_servers;
  int32_t priority;
  const char *name, *state; /* to search by; state as people see it */
  const char *summary;      /* JSON that lists show once the job has ended; "" before */
} co_job_record;

typedef enum co_report_kind { CO_REPORT_DATA = 1, CO_REPORT_EPOCH, CO_REPORT_DONE, CO_REPORT_LEASE /* the newest of each rank */ } co_report_kind;

typedef struct co_report_record {
  uint64_t job;
  uint32_t rank, incarnation;
  uint64_t sequence;
  co_report_kind kind;
  uint32_t epoch; /* 0 for the other kinds */
  const uint8_t *message;
  size_t message_bytes;
} co_report_record;

typedef struct co_log_record {
  uint64_t job;
  uint64_t number; /* 1, 2, ... within the job; lines CO_LOG_LINES_MAX and more behind are dropped */
  uint64_t wall_ns;
  uint32_t level, rank;
  uint32_t incarnation; /* with sequence: the report it came in; 0 for the coordinator's own */
  uint64_t sequence;
  const char *text;
} co_log_record;

/* Any may return a failure, which ends the load. */
typedef struct co_store_visitor {
  bl_status (*on_job)(const co_job_record *r, void *arg);       /* by id */
  bl_status (*on_report)(const co_report_record *r, void *arg); /* after all jobs; by job, kind, epoch, rank */
  bl_status (*on_log)(const co_log_record *r, void *arg);       /* after all reports; by job, number */
} co_store_visitor;

/* What is looked for; every condition that is given must hold. */
typedef struct co_search {
  const char *states;    /* "done,failed"; "": any */
  const char *name;      /* GLOB pattern: * ? [abc]; "": any */
  const char *submitter; /* "": anybody */
  uint64_t submitted_ns; /* then or later */
  uint64_t before;       /* job numbers below; 0: all */
  uint32_t limit;        /* at least 1 */
} co_search;

/* A failure ends the search. summary: "" for a job that has not ended, or that a program before version 2 of the
 * schema stored. Must not use the store. */
typedef bl_status co_found_fn(uint64_t job, const char *summary, void *arg);

#define CO_STORE_TRIM_MAX 100u /* jobs that one call deletes: the rest waits for the next */

typedef struct co_store co_store;
struct co_store {
  /* Inserts or replaces a job with its ranks and servers, in one transaction. */
  bl_status (*put_job)(co_store *s, const co_job_record *r, bl_error *err);
  /* Also moves the rank's `sequence` on. An epoch report under a name that exists is not replaced. */
  bl_status (*put_report)(co_store *s, const co_report_record *r, bl_error *err);
  bl_status (*put_log)(co_store *s, const co_log_record *r, bl_error *err);
  bl_status (*delete_job)(co_store *s, uint64_t job, bl_error *err);
  /* Jobs that have not ended, and the ended_max newest of those that have. */
  bl_status (*load)(co_store *s, uint64_t ended_max, const co_store_visitor *v, void *arg, bl_error *err);
  /* One job, whatever its state. BL_ENOENT: there is none. */
  bl_status (*load_job)(co_store *s, uint64_t job, const co_store_visitor *v, void *arg, bl_error *err);
  /* The newest first. */
  bl_status (*find)(co_store *s, const co_search *what, co_found_fn *fn, void *arg, bl_error *err);
  /* The job that was submitted with this token; 0: none is. */
  bl_status (*find_token)(co_store *s, const char *token, uint64_t *ret_job, bl_error *err);
  /* Deletes the oldest ended jobs beyond `keep`, at most CO_STORE_TRIM_MAX of them. */
  bl_status (*trim)(co_store *s, uint64_t keep, uint32_t *ret_deleted, bl_error *err);
  /* Highest job id ever used, deleted ones included. */
  bl_status (*last_job)(co_store *s, uint64_t *ret_id, bl_error *err);
  void (*close)(co_store *s); /* frees it */
};

/* path: file; made when absent, its folder must exist. BL_ECORRUPT: not ours or damaged; BL_EUNSUPPORTED: made
 * by a newer version. A file of an older schema N is brought up to date; a copy of it as it was stays beside it as
 * PATH.vN.bak. The text names the path. */
BL_MUST_CHECK bl_status co_store_sqlite_open(const char *path, co_store **ret_store, bl_error *err);

#endif
