/* SPDX-License-Identifier: Apache-2.0
 *
 * One job on one shard: its chunks with weights, sums and optimizer state, who pushed what, what is asked
 * for. It changes only through srv_job_apply (an entry of the log) and through srv_job_work, which does the
 * arithmetic that the entries applied so far call for, a slice at a time: entries decide, work follows, and
 * how the work is cut never shows in a result. It sends nothing: shard.c asks for what is ready.
 *
 * Threads: the shard's. Memory: everything is freed by srv_job_free.
 */
#ifndef SRV_JOB_H
#define SRV_JOB_H

#include "job/plan.h"
#include "server/log.h"
#include "server/norms.h"
#include "server/rows.h"
#include "server/rule.h"
#include "server/versions.h"
#include "wire/data.h"
#include "wire/transport.h"

#define SRV_NO_CHUNK UINT32_MAX
#define SRV_NO_RANK UINT32_MAX

typedef enum srv_job_state {
  SRV_JOB_OPENING = 1, /* initial values are being made */
  SRV_JOB_AWAITS,      /* initial values come from rank 0, and are not all there */
  SRV_JOB_OPEN,
  SRV_JOB_FAILED,
  SRV_JOB_STATE_COUNT
} srv_job_state;

/* One (rank, chunk). */
typedef struct srv_cell {
  bl_frame *held;   /* pushed, not in the sum yet */
  struct {          /* by parity of the rank's clock */
    uint32_t clock; /* its lowest 32 bits */
    uint32_t by;    /* incarnation + 1 whose bytes stand under the name; 0: nobody's */
  } seen[2];
  /* Asked for and not yet sent, + 1; 0: nothing. A version in bsp; of free running ranks the clock that they want to
   * begin, for which the newest version will do. */
  uint64_t want;
  uint64_t have;    /* version + 1 that the asker holds, as far as is known; 0: nothing */
  bool ready;       /* stands in the rank's ready queue */
} srv_cell;

typedef struct srv_chunk {
  uint32_t id;       /* in the job's table */
  uint32_t tensor;
  uint32_t n_elems;
  uint32_t n_inited; /* elements that have their initial values */
  uint32_t n_added;  /* ranks in the sum of clock `version` */
  bool queued;       /* in the work queue */
  uint64_t version;  /* updates applied: clocks, or with free running ranks one rank's clocks */
  uint64_t lsn;      /* entry that the newest version depends on */
  float *weights;    /* into the job's block */
  float *slots[BL_OPTIM_SLOTS_MAX];
  float *average;    /* NULL: the job has none */
  float *sum;        /* owned; made at the first push; NULL in a `direct` job */
  srv_versions versions;
  srv_rows *rows;    /* owned; a bucket of a table: it has this, and none of the arrays above */
} srv_chunk;

typedef struct srv_rank {
  uint32_t incarnation;
  uint64_t clock;        /* the one that is open for it; in bsp the job's; BL_CLOCK_FINISHED: none any more */
  uint64_t n_needed;     /* free running: version that has its last update in it */
  uint32_t committed[2]; /* by parity of the clock: incarnation + 1; 0: not */
  float scale[2];
  bool not_finite[2];    /* what it pushed is not to be applied */
  uint64_t n_samples;    /* free running: that the commit of the open clock counts */
  uint32_t n_seen;       /* chunks pushed in the present clock */
  uint32_t n_buckets_seen; /* of them buckets of tables */
  uint32_t n_pushed[2];  /* by parity of the clock: how many chunks they are, by the commit: all dense ones and
                            some buckets */
  uint64_t gate;         /* asks to be told when it may begin clock gate - 1; 0: does not */
  /* The connection, not part of the logged state: */
  bl_peer peer;
  bool has_peer;
  bool blocked;          /* the transport would not take more */
  uint64_t request;      /* the newest one */
  uint64_t norms_want;   /* clock + 1 whose norms it asked for; 0: none */
  uint32_t norms_first;  /* chunks from this id on */
  uint32_t *ready;       /* ring of local chunks whose wanted version is there, [n_chunks] */
  uint32_t ready_first, n_ready;
} srv_rank;

/* A rank's clock that is complete: one update of a job with free running ranks. */
typedef struct srv_update {
  uint32_t rank;
  uint64_t clock;
  uint64_t place; /* in the schedule: samples of the updates before it, in clocks */
  bool skipped;   /* the gradient was not finite: it changes nothing */
} srv_update;

typedef struct srv_job_limits {
  uint64_t hold_bytes_max;   /* early frames held */
  uint64_t memory_bytes_max; /* of a job on the shard, beyond which tables get no more rows; 0: none */
} srv_job_limits;

typedef struct srv_job {
  uint64_t id, view, seed;
  uint64_t clock, start_clock; /* updates complete, and at the start: in bsp the clock that is open */
  uint64_t clock_lsn;     /* entry that completed the newest update */
  srv_job_state state;
  bl_status status;       /* why it failed */
  char text[256];
  Ballast__Control__JobPlan *plan; /* owned copy */
  bl_tensor_table *table;          /* owned */
  const srv_rule *rule;
  bl_optim optim;
  bool pulls_exactly;     /* every tensor, for ever */
  bool adapts;            /* rank 0 chooses codecs of pulls while the job runs, every rank those of its pushes */
  uint64_t *chosen_at;    /* [n_tensors], with adapts: updates complete at the last choice, + 1; 0: none yet */
  float clip_value;
  srv_norms norms;        /* clip_global_norm: the scale of the commits is one for all ranks, and applied to the sum */
  bool skips;             /* not_finite: skip_clock */
  uint64_t skipped[2];    /* in bsp, by parity: clock + 1 that changed nothing */
  uint64_t n_skipped;     /* clocks, or with free running ranks updates */
  bool scales;            /* clip_norm: sums need each rank's commit first */
  bool direct;            /* updates of one rank, exact frames, no clipping: its frame is the sum */
  uint32_t staleness;     /* ssp */
  uint64_t slowest;       /* free running: least clock of the ranks that have not finished */
  uint64_t slowest_lsn;   /* entry that made it so */
  uint64_t n_samples;     /* free running: of all updates that are complete */
  uint32_t favoured;      /* free running: rank that is never refused for lack of room; SRV_NO_RANK: none */
  srv_update *updates;    /* free running: ring [n_updates_max] by number: complete, not applied everywhere */
  uint32_t n_updates_max;
  srv_job_limits limits;
  uint32_t world, n_chunks;
  uint32_t n_dense;       /* chunks that are no buckets: pushed in every clock */
  uint32_t n_opened, n_ranks_complete;
  uint32_t *local_of;     /* [table->n_chunks]: index into chunks or SRV_NO_CHUNK */
  srv_chunk *chunks;      /* [n_chunks] */
  srv_cell *cells;        /* [n_chunks * world], by chunk */
  srv_rank *ranks;        /* [world] */
  float *weights, *base, *average, *slots[BL_OPTIM_SLOTS_MAX]; /* blocks of all chunks */
  uint32_t *work;         /* ring of local chunks with arithmetic to do, [n_chunks] */
  uint32_t work_first, n_work;
  uint64_t held_bytes, memory_bytes, n_sums;
  uint64_t key_bytes, key_bytes_saved; /* of tables: received; that a checksum stood for */
  bl_frame_pools pools;
  srv_versions_env env;
  srv_rows_env rows;      /* of a job with tables */
} srv_job;

/* server, index: this shard's name in plan->shards. A plan that cannot be opened gives an error and no job. */
BL_MUST_CHECK bl_status srv_job_new(const Ballast__Control__JobPlan *plan, const char *server, uint32_t index,
                                    const srv_job_limits *limits, srv_job **ret_job, bl_error *err);
void srv_job_free(srv_job *j);

static inline srv_cell *srv_job_cell(srv_job *j, uint32_t chunk, uint32_t rank) {
  return &j->cells[(size_t)chunk * j->world + rank];
}
uint32_t srv_job_local(const srv_job *j, uint32_t chunk_id); /* SRV_NO_CHUNK: not here */
uint64_t srv_job_oldest(const srv_job *j);
static inline const bl_tensor *srv_job_tensor(const srv_job *j, uint32_t local) {
  return &j->table->tensors[j->chunks[local].tensor];
}
/* Is it a difference in the codec that the tensor is pushed with? */
bool srv_job_takes(const srv_job *j, uint32_t local, const bl_codec_view *view);

/* A plan with a higher view: BL_OK when the job can adopt it; BL_EMISMATCH when it is another job's. */
BL_MUST_CHECK bl_status srv_job_check_view(const srv_job *j, const Ballast__Control__JobPlan *plan, bl_error *err);

/* Before a push of the present clock is logged: memory, and the hold limit. BL_EAGAIN, BL_ENOMEM. */
BL_MUST_CHECK bl_status srv_job_admit_push(srv_job *j, uint32_t local, uint32_t rank, size_t frame_bytes);

/* The same for a bucket: keys are staged (server/rows.h), the reference is taken on success. frame_bytes 0: replayed,
 * whatever is held. BL_ELIMIT: the sentence says which limit. */
BL_MUST_CHECK bl_status srv_job_admit_rows(srv_job *j, uint32_t local, uint32_t rank, srv_keys *keys,
                                           size_t frame_bytes, bl_error *err);

/* The chunk has its initial values. */
bool srv_job_is_inited(const srv_job *j, uint32_t local);

/* Before a commit is logged. BL_ENOMEM: not now. */
BL_MUST_CHECK bl_status srv_job_admit_commit(srv_job *j);

/* Is the chunk exchanged in this clock? With streams only a part of the model is. */
bool srv_job_in_clock(const srv_job *j, uint32_t local, uint64_t clock);
/* How many chunks that are no buckets every rank pushes in this clock. */
uint32_t srv_job_n_dense(const srv_job *j, uint64_t clock);

/* True when the rank's bytes of this chunk and its open clock are not here yet. Behind srv_job_catch_up. */
bool srv_job_is_new(const srv_job *j, uint32_t local, uint32_t rank, uint64_t clock);
/* Brings a chunk to the newest version, so that it can take pushes. BL_ENOMEM, or the job's failure. */
BL_MUST_CHECK bl_status srv_job_catch_up(srv_job *j, uint32_t local);

/* The only way in which logged state changes. Entries of another clock, or of a failed job, change nothing. */
void srv_job_apply(srv_job *j, const srv_entry *e);

/* Arithmetic worth about budget_elems float32 elements; returns what was used; 0: nothing to do, or no memory
 * for it now. */
uint64_t srv_job_work(srv_job *j, uint64_t budget_elems);
bool srv_job_has_work(const srv_job *j);

/* Rank asks for a version of a chunk (at most clock + 1, not older than the oldest); of free running ranks: for the
 * newest weights, when it may begin clock `want` (at most its own + 1, or BL_CLOCK_FINISHED). have: version + 1 that
 * it holds, 0: nothing. */
void srv_job_want(srv_job *j, uint32_t local, uint32_t rank, uint64_t want, uint64_t have);
/* The same for the rows of a bucket; the reference is taken. */
void srv_job_want_rows(srv_job *j, uint32_t local, uint32_t rank, uint64_t want, srv_keys *keys, uint64_t request);
/* Rank asks to be told when it may begin a clock. */
bool srv_job_is_gate_open(const srv_job *j, uint32_t rank);
/* Could a rank be sent now what it would want of the chunk? */
bool srv_job_may_answer(const srv_job *j, uint32_t local, uint32_t rank, uint64_t want);
/* Can what the rank wants of the chunk be sent now? */
bool srv_job_is_answerable(const srv_job *j, uint32_t local, uint32_t rank);

/* In bsp: did the clock that leads to this version, one of the newest two, change nothing, since a gradient was not finite? */
bool srv_job_was_skipped(const srv_job *j, uint64_t version);
uint64_t srv_job_table_rows(const srv_job *j);
/* Average of a chunk's weights, when the rank may have it behind the weights that it asked for as `want`; NULL: not
 * yet. As long as there was no update it is the weights. */
const float *srv_job_average(const srv_job *j, uint32_t local, uint32_t rank, uint64_t want);

void srv_job_fail(srv_job *j, bl_status status, const char *fmt, ...) BL_PRINTF(3, 4);

/* Over everything that entries decide: names, views, weights, optimizer state, what workers hold, sums,
 * frames held, de-duplication. Does all work that is due first. */
uint64_t srv_job_checksum(srv_job *j);

#endif
