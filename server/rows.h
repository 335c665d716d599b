/* SPDX-License-Identifier: Apache-2.0
 *
 * A chunk that is a bucket of a table: its rows, the sum of the present clock over the rows that were touched,
 * and which rows ranks push and ask for. What srv_chunk's arrays are to a slice of a dense tensor, this is to a
 * bucket; job.c says when a rank is added and when the step is due.
 *
 * Lazy: a row is made when the first push that names it is added, with its initial values; who pulls a row that
 * has not been made is sent those. A step changes the rows that some rank has pushed in that clock and no
 * other: weight decay and moments act when a row is touched, corrections of bias count the job's updates.
 *
 * Ranks are added in the order in which job.c calls, each row's numbers in that order. The numbers of the
 * version before are kept where they may be asked for.
 *
 * Nothing here fails between an entry and its effect: srv_rows_stage takes the memory before the entry is
 * logged.
 *
 * Threads: the shard's.
 */
#ifndef SRV_ROWS_H
#define SRV_ROWS_H

#include "codec/codec.h"
#include "job/tensors.h"
#include "optim/optim.h"
#include "server/keys.h"
#include "server/table.h"

/* Shared by the buckets of a job. */
typedef struct srv_rows_env {
  const bl_tensor_table *table;
  bl_frame_pools *pools; /* borrowed */
  uint64_t seed;
  uint32_t world;
  bool keeps_previous;
  uint64_t *memory_bytes;    /* the job's, where what is taken here is added */
  uint64_t memory_bytes_max; /* 0: no limit */
  srv_key_cache cache;
  float *values; /* [chunk_elems] owned; a frame's numbers */
  float
      *scratch[1 + BL_OPTIM_SLOTS_MAX]; /* [scratch_elems] each, owned: weights and slots of the touched rows */
  uint32_t n_scratch;
  uint64_t scratch_elems;
} srv_rows_env;

/* One rank's part. */
typedef struct srv_rows_cell {
  srv_keys *staged;        /* of the entry that is about to be logged */
  srv_keys *held;          /* keys of the cell's held frame */
  srv_keys *wanted;        /* what a pull waits for */
  uint64_t wanted_request; /* the newest one */
} srv_rows_cell;

typedef struct srv_rows {
  srv_table table;
  const bl_tensor *tensor;
  uint32_t bucket, rows_max;
  uint64_t n_runs;
  srv_rows_cell *cells; /* owned, [world] */
  uint64_t n_pending;   /* rows of frames that are staged or held: may be new, every one */
  /* Rows in the sum of the present clock, in the order in which they came, and those of the last step. */
  uint32_t *touched, *before; /* owned, [n_max]: slots */
  uint32_t n_touched, n_before;
  float *sum;            /* owned, [n_max * width] */
  float *before_weights; /* owned, [n_max * width], with keeps_previous: what `before` held before that step */
  uint32_t *before_at;   /* owned, [n_before_at]; made when somebody asks: where in `before` a slot stands */
  uint32_t n_before_at;  /* rows made since were not there before */
  uint64_t n_max;
  uint64_t n_worked; /* elements added and stepped so far: what work has cost */
} srv_rows;

BL_MUST_CHECK bl_status srv_rows_env_init(srv_rows_env *env, uint32_t n_slots); /* the plain fields are set */
void srv_rows_env_fini(srv_rows_env *env);
/* Bound of every frame and list of a job with tables, for its pools. */
size_t srv_rows_frame_bytes_max(const bl_tensor_table *table);

/* chunk: an id whose tensor is a table. NULL: no memory. */
srv_rows *srv_rows_new(srv_rows_env *env, uint32_t chunk, uint32_t n_slots) BL_MUST_CHECK;
void srv_rows_free(srv_rows *r, const srv_rows_env *env);

/* A received row frame: keys are opened against the bucket, numbers, which must be there with a push and not
 * with a pull, against the job's push codec. */
BL_MUST_CHECK bl_status srv_rows_open(const srv_rows *r, const srv_rows_env *env, const bl_frame *frame,
                                      bool push, bl_rows_view *ret_view, bl_error *err);

/* Before a push is logged: takes the memory that adding and stepping will need, and keeps the keys (the
 * reference is taken on success). BL_ENOMEM; BL_ELIMIT with a sentence. */
BL_MUST_CHECK bl_status srv_rows_stage(srv_rows *r, srv_rows_env *env, uint32_t rank, srv_keys *keys,
                                       bl_error *err);
/* The entry was logged and its frame is held; or it was not, or changed nothing. */
void srv_rows_hold(srv_rows *r, uint32_t rank);
void srv_rows_unstage(srv_rows *r, uint32_t rank);
void srv_rows_drop(srv_rows *r, uint32_t rank); /* what is held is not to be added */

/* Adds a rank's held frame to the sum. */
void srv_rows_add(srv_rows *r, srv_rows_env *env, uint32_t rank, const bl_frame *held, float scale);
bool srv_rows_is_finite(const srv_rows *r);
/* The update of the touched rows. clip_value: 0 is off. */
void srv_rows_step(srv_rows *r, srv_rows_env *env, const bl_optim *optim, const bl_optim_at *at,
                   float clip_value);
/* The same without a change: what was added to the sum is forgotten. */
void srv_rows_skip(srv_rows *r);

/* What a rank waits for: the newest request counts. The reference is taken. */
void srv_rows_want(srv_rows *r, uint32_t rank, srv_keys *keys, uint64_t request);
void srv_rows_answered(srv_rows *r, uint32_t rank);
void srv_rows_leave(srv_rows *r, uint32_t rank); /* the rank is another incarnation's now */
/* The wanted rows, at the present version or at the one before. The frame is the caller's. BL_ENOMEM. */
BL_MUST_CHECK bl_status srv_rows_answer(srv_rows *r, srv_rows_env *env, uint32_t rank, bool previous,
                                        bl_frame **ret_frame);

/* Rows with runs from `from` on, as many as a frame takes; *ret_frame is NULL when there are none. BL_ENOMEM.
 */
BL_MUST_CHECK bl_status srv_rows_dump(srv_rows *r, srv_rows_env *env, uint64_t from, uint64_t *ret_next,
                                      bool *ret_last, bl_frame **ret_frame);

/* Calls add(data, size, arg) over the state, rows by rising key. BL_ENOMEM. */
typedef void srv_rows_bytes_fn(const void *data, size_t size, void *arg);
BL_MUST_CHECK bl_status srv_rows_visit(const srv_rows *r, srv_rows_bytes_fn *add, void *arg);

#endif
