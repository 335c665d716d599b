/* SPDX-License-Identifier: Apache-2.0
 *
 * A session: one rank's side of the data plane. It names, sends, repeats and pulls; it decodes weights
 * straight into the caller's arrays. A deterministic state machine: no socket, no clock, no thread of its
 * own. The caller feeds it messages and time and gives it a transport per shard (real or simulated).
 *
 * One clock of a BSP rank:
 *   push(tensor, gradient) for every tensor, in the order in which backward finishes them;
 *   commit(scale, finite, samples);
 *   wait until weights_version() == clock + 1 (the replies carry the new weights).
 * Gradients are borrowed until gradients_free(); weights arrays are written only between commit() and the
 * moment the next version is complete.
 *
 * A free running rank (ssp, asp) goes the same way, but its clocks are its own, and "version c" means the newest
 * weights, as soon as the rank may begin its clock c. It ends with finish(): BL_CLOCK_FINISHED is then the version
 * that has the updates of all ranks in it, the same for all.
 *
 * Threads: one.
 */
#ifndef BL_CLIENT_SESSION_H
#define BL_CLIENT_SESSION_H

#include "client/auto.h"
#include "codec/codec.h"
#include "job/tensors.h"
#include "wire/data.h"
#include "wire/transport.h"

typedef struct bl_session bl_session;

/* How many clocks a free running rank was ahead of the slowest when it began one: 0, 1, 2, 3, 4, up to 8, up to 16,
 * up to 32, more. */
#define BL_LEAD_BUCKETS 9

typedef struct bl_session_stats {
  uint64_t bytes_pushed, bytes_pulled;             /* of all messages out and in: headers, control and repeats included */
  uint64_t bytes_pushed_dense, bytes_pulled_dense; /* float32 of the same chunks */
  uint64_t rows_pulled, rows_pushed;               /* of tables */
  uint64_t keys_sent_bytes, keys_saved_bytes;      /* their keys: sent, repeats included; that a checksum stood for */
  uint64_t repeats, refusals, drops;               /* drops: gradients lost to another incarnation */
  uint64_t lead[BL_LEAD_BUCKETS];                  /* clocks begun, by how far ahead of the slowest */
} bl_session_stats;

typedef struct bl_session_config {
  uint64_t job;
  uint32_t rank, world, incarnation;
  uint32_t protocol_max;              /* 0: all that this program speaks; see bl_protocol_max */
  uint64_t view;
  const bl_tensor_table *table;       /* borrowed for the session's life */
  const uint32_t *shard_of_chunk;     /* [table->n_chunks], borrowed */
  uint32_t n_shards;
  bl_transport *const *shards;        /* [n_shards], borrowed */
  uint64_t seed;                      /* of the job: names the random numbers of frames */
  uint64_t start_clock;               /* of the plan: before it nothing can have been left behind */
  uint64_t epoch_clocks;              /* of the plan: clocks of an epoch, for a warm-up; 0: none */
  bool adapts;                        /* of the plan: codecs are chosen while the job runs (client/adapt.h) */
  const bl_auto_tensor *adapting;     /* with adapts: [n_tensors], which are, borrowed for the call; NULL: all dense ones */
  bool takes_sparse;                  /* with adapts: pushes may be sparse, since the servers' rule has no moments */
  bl_auto_now_fn *now_ns;             /* with adapts: to time codecs by; NULL: they are not timed */
  void *now_arg;
  bool same_again;                    /* another incarnation computes the same gradient for a clock, bit for bit */
  const char *residual_path;          /* where residuals survive a crash of this process; NULL: nowhere */
  bool caches_keys;                   /* plan->key_cache_bytes > 0: a checksum may stand for keys that a shard has */
  bool skips;                         /* not_finite: skip_clock: a clock may change nothing */
  bool free_running;                  /* bl_plan_in_step is false */
  double clip_global_norm;            /* of the plan; above 0: commits carry the factor that follows from all ranks' norms */
  uint64_t retry_ns;                  /* repeat what is unanswered after this; doubles up to 8 times */
  float *const *weights;              /* [n_tensors] arrays that pulls fill; borrowed */
} bl_session_config;

BL_MUST_CHECK bl_status bl_session_new(const bl_session_config *config, bl_session **ret_session, bl_error *err);
void bl_session_free(bl_session *s);

/* Says hello to every shard; ready when all have welcomed it: then bl_session_clock() is the clock to work
 * on, the least over the shards (a shard already beyond acknowledges repeats). BL_CLOCK_FINISHED: an incarnation
 * before this one has finished; only the final weights are to be pulled. */
void bl_session_start(bl_session *s, uint64_t now_ns);
bool bl_session_is_ready(const bl_session *s);
uint64_t bl_session_clock(const bl_session *s);

/* Pulls all weights of a version into the arrays. Progress: bl_session_weights_version. */
void bl_session_pull(bl_session *s, uint64_t version, uint64_t now_ns);
/* Version held completely; UINT64_MAX: none yet. */
uint64_t bl_session_weights_version(const bl_session *s);

/* Between two clocks, with the weights of a version held: pulls the average of the weights as of that version into
 * arrays of the same shape (those of the weights themselves, if the caller puts their values back before the next clock).
 * It may be one update newer on shards where another incarnation of this rank has gone on. */
void bl_session_pull_average(bl_session *s, float *const *into, uint64_t now_ns);
bool bl_session_average_is_there(const bl_session *s);

/* Where the table has streams (job/tensors.h), only the tensors of the clock are pushed, and only their weights come back.
 *
 * Starts the push of a tensor's gradient (sum over this rank's samples divided by the clock's sample count
 * over all ranks) for the present clock; grad: [n_elems], borrowed until bl_session_gradients_free.
 * What does not fit the window waits inside and goes out as acknowledgements come. */
void bl_session_push(bl_session *s, uint32_t tensor, const float *grad, uint64_t now_ns);
/* The same when only the first n_ready elements have their values; again with the same array when more have,
 * up to all of them before the commit. Chunks go out as they are filled. */
void bl_session_push_part(bl_session *s, uint32_t tensor, const float *grad, uint64_t n_ready, uint64_t now_ns);
/* All tensors pushed: ends the clock. The new weights are pulled by the same exchange. With clip_global_norm the scale
 * is the session's: it asks the shards for the norms first. */
void bl_session_commit(bl_session *s, float scale, bool finite, uint64_t n_samples, uint64_t now_ns);
bool bl_session_gradients_free(const bl_session *s);
/* A free running rank, between two clocks: it pushes no more. The final weights are pulled: weights_version() is
 * BL_CLOCK_FINISHED when every rank has come to its end. */
void bl_session_finish(bl_session *s, uint64_t now_ns);

/* ---- tables ----
 * A clock of a rank with a table:
 *   pull_rows(tensor, clock(), rows of the batch, values); wait until rows_ready(tensor);
 *   compute; push_rows(tensor, the same rows, gradient); push() of dense tensors; commit();
 *   pull_rows(tensor, clock + 1, rows of the next batch, values) may follow at once, and is answered in time;
 *   wait until weights_version() == clock + 1.
 * push(tensor) is never called for a table, and weights[tensor] is not used. A clock in which a table is not
 * pushed leaves it as it is; so does a clock of other ranks for rows that nobody pushes. */

/* Numbers of some rows at a version. rows: distinct, rising, below the table's number, used during the call
 * only; values: [n, width], written until rows_ready, in the order of rows. In step a version up to clock() + 1
 * that shards still serve (behind a commit clock() + 1; otherwise clock()); of free running ranks the clock
 * that the rank wants to begin, or BL_CLOCK_FINISHED: the newest numbers, when it may. One at a time per
 * tensor: a further one takes the place of the first, whose values are then as they happen to be. */
void bl_session_pull_rows(bl_session *s, uint32_t tensor, uint64_t version, const uint64_t *rows, uint32_t n,
                          float *values, uint64_t now_ns);
bool bl_session_rows_ready(const bl_session *s, uint32_t tensor);
/* The gradient of some rows in this clock, once per tensor and clock, before commit; grad: [n, width], borrowed
 * until bl_session_gradients_free. rows: as above; when they are those pulled last, their keys need not be sent
 * again. n may be 0. */
void bl_session_push_rows(bl_session *s, uint32_t tensor, const uint64_t *rows, uint32_t n, const float *grad,
                          uint64_t now_ns);

/* Rows with their numbers [n, width], rising within the call; borrowed for the call. */
typedef void bl_on_rows_fn(const uint64_t *rows, uint32_t n, const float *values, void *arg);
/* Reads all rows of a table that have ever been pushed, bucket by bucket, by calls of on_rows from within
 * bl_session_on_msg; all others have their initial values (bl_tensor_init_values, element row * width on).
 * version: in step clock(), and no commit may be under way; of free running ranks BL_CLOCK_FINISHED for the
 * final numbers, anything else for the newest. One dump at a time. BL_ENOMEM. */
BL_MUST_CHECK bl_status bl_session_dump_rows(bl_session *s, uint32_t tensor, uint64_t version,
                                             bl_on_rows_fn *on_rows, void *arg, uint64_t now_ns);
bool bl_session_dump_is_done(const bl_session *s);

/* A message from shard i. Malformed ones are counted and dropped. */
void bl_session_on_msg(bl_session *s, uint32_t shard, bl_msg *msg, uint64_t now_ns);
/* Repeats what is overdue; returns the time of the next repeat. */
uint64_t bl_session_tick(bl_session *s, uint64_t now_ns);
/* A new view with the same placement: what is unanswered is said again in it. An older one changes nothing. */
void bl_session_set_view(bl_session *s, uint64_t view, uint64_t now_ns);

/* BL_OK while all is well; otherwise the failure that ends the session (protocol version, unknown job, not
 * finite on the server, corrupt frames beyond repair). */
bl_status bl_session_status(const bl_session *s, bl_error *err);
bl_session_stats bl_session_get_stats(const bl_session *s);
/* How a tensor has travelled so far. bytes: frames, repeats included, message headers not. */
typedef struct bl_tensor_stats {
  uint64_t bytes_pushed, bytes_pulled;
  uint64_t bytes_pushed_dense, bytes_pulled_dense; /* float32 of the same chunks */
  double residual_norm, gradient_norm;             /* of the last clock; 0: not known, or nothing is left out */
  uint64_t residuals_lost;                         /* chunks whose residual was lost */
  double lost_squared;                             /* squared norm of what was lost with them */
  const bl_codec_spec *push, *pull;
  const char *reason;                              /* of `auto`; "": not its choice. Stands until the next call for this tensor */
} bl_tensor_stats;
/* Nobody goes on from what is left of this rank's pushes: its file goes. */
void bl_session_remove_residuals(bl_session *s);
/* Between two clocks: what is left of a tensor's pushes, [n_elems]; NULL: it is pushed exactly. */
const float *bl_session_residual(const bl_session *s, uint32_t tensor);
bl_tensor_stats bl_session_get_tensor_stats(const bl_session *s, uint32_t tensor);
/* What it waits for, as a sentence ("2 of 3 shards: welcome from shard 1"), "" when nothing. */
const char *bl_session_waits_for(const bl_session *s, char *out, size_t size);

#endif
