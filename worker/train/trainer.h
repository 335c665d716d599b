/* SPDX-License-Identifier: Apache-2.0
 *
 * The training of one rank as a step state machine: which samples, forward, loss, backward with the push of
 * every finished gradient, commit, wait for the next version, and at the end of each epoch the evaluation of
 * this rank's part of the validation and test sets (of its own ones all, data.where: local). What a clock computes is a function of (job, seed, clock,
 * rank) and the weights, so a rank may be resumed at any clock. With local steps (train/local_steps.h) a clock is a round of
 * them, what is pushed is the difference that they make, and a rank that is resumed has lost its optimizer's moments.
 *
 * No socket, no clock of its own: the caller turns it, feeds the session, and gives it time. Between layers it
 * calls env.poll, in which the caller lets messages in. Threads: one.
 */
#ifndef WK_TRAIN_TRAINER_H
#define WK_TRAIN_TRAINER_H

#include "client/session.h"
#include "data/dataset.h"
#include "nn/model.h"
#include "train/measures.h"
#include "train/shares.h"

/* Sums over this rank's samples. */
typedef struct wk_metrics {
  uint64_t n;
  double loss_sum;
  uint64_t correct;
  double squared_error_sum; /* in the units of the data files */
  wk_measures *more;        /* NULL: no more was asked for. The trainer's, until the next evaluation */
} wk_metrics;

typedef struct wk_epoch_result {
  uint32_t epoch; /* 1 = after the first pass */
  uint64_t clock;
  wk_metrics train;      /* while training; of a rank resumed within the epoch, only what it did itself */
  wk_metrics validation, test; /* n = 0: not evaluated */
  double seconds;
} wk_epoch_result;

typedef struct wk_trainer_env {
  uint64_t (*now_ns)(void *arg);
  void (*poll)(void *arg); /* between layers; must not block; may feed the session, not turn the trainer */
  void (*on_epoch)(const wk_epoch_result *result, void *arg);
  /* ssp, asp: the rank works on `clock` and will need samples; wk_trainer_take_leases brings them. Asked once, until
   * there is an answer. samples_per_second: of its own work, without waiting; 0: not known yet. */
  void (*on_lease_wanted)(uint64_t clock, double samples_per_second, void *arg);
  /* Local steps: the rank goes on at `clock`, without the moments that its predecessor's optimizer had, and with streams
   * without what it had not exchanged yet. NULL: nobody asks. */
  void (*on_moments_lost)(uint64_t clock, void *arg);
  void *arg;
} wk_trainer_env;

typedef struct wk_trainer_config {
  const bl_job_spec *spec; /* all pointers are borrowed for the trainer's life */
  uint32_t rank, world;
  bool in_step;            /* bl_plan_in_step: all ranks work on one clock */
  const uint64_t *rank_samples; /* [world]: each rank trains on data of its own (data.where: local); NULL: shared */
  const bl_tensor_table *table;
  float *const *held;      /* local steps with streams or overlap: where the session writes, else NULL */
  wk_model *model;         /* for training, batch_max at least wk_trainer_batch_max */
  const wk_dataset *train; /* with the validation part at its end */
  const wk_dataset *test;  /* NULL: none */
  double squared_error_factor; /* wk_preprocess_target_variance */
  bl_session *session;     /* writes into held, or wk_model_params(model); started by the trainer */
  bool clips_locally;      /* bl_plan_clips_locally */
  uint64_t start_clock;   /* of the plan: the epoch before it, where there is one, was another job's */
  bool waits_for_verdict; /* early stopping: at the end of an epoch it asks whether to go on */
  wk_trainer_env env;
} wk_trainer_config;

typedef enum wk_turn {
  WK_TURN_WORKED = 1, /* turn again at once */
  WK_TURN_WAITS,      /* turn again after a message or a tick of the session */
  WK_TURN_DONE,
  WK_TURN_FAILED,     /* see wk_trainer_status */
} wk_turn;

/* Where the time of this rank's clocks went. */
typedef enum wk_phase {
  WK_PHASE_FETCH = 0,
  WK_PHASE_FORWARD,  /* and the loss */
  WK_PHASE_BACKWARD, /* without what is below */
  WK_PHASE_PUSH,     /* checks, encoding, sending, the commit */
  WK_PHASE_POLL,     /* between layers */
  WK_PHASE_WAIT,     /* from the commit, or the end of the fetch behind it, to the next version */
  WK_PHASE_COUNT
} wk_phase;
const char *wk_phase_name(wk_phase p);

typedef struct wk_progress {
  uint64_t clock, clocks; /* done, in all */
  uint32_t epoch;         /* the one that is worked on, from 1 */
  uint64_t samples;       /* by this rank since its start */
  double loss;            /* mean of the last clock */
  double samples_per_second;
  uint64_t clocks_not_finite; /* whose gradient or loss held a NaN or infinity */
  uint64_t phase_ns[WK_PHASE_COUNT]; /* sums since its start; evaluation is in none */
} wk_progress;

/* Most samples of one forward call: of the rank's part of a batch and of an evaluation. */
uint32_t wk_trainer_batch_max(const bl_job_spec *spec, uint32_t world);

typedef struct wk_trainer wk_trainer;
BL_MUST_CHECK bl_status wk_trainer_new(const wk_trainer_config *config, wk_trainer **ret_trainer, bl_error *err);
void wk_trainer_free(wk_trainer *t);

/* The ledger's answer: all leases that this rank has. What makes no sense ends the training with a reason. */
void wk_trainer_take_leases(wk_trainer *t, const wk_lease *leases, uint32_t n, bool exhausted);

/* Does at most one clock's computation, one local step or one batch of evaluation. */
wk_turn wk_trainer_turn(wk_trainer *t);
/* Why it failed: names epoch, clock and rank where they matter. BL_OK while it has not. */
bl_status wk_trainer_status(const wk_trainer *t, bl_error *err);
wk_progress wk_trainer_progress(const wk_trainer *t);
/* What it waits for, as a sentence, "" when it computes. */
const char *wk_trainer_waits_for(const wk_trainer *t, char *out, size_t size);
/* Early stopping: the epoch that the trainer has reported last is over for all ranks. False: it does not wait for this one. */
bool wk_trainer_take_verdict(wk_trainer *t, uint32_t epoch, bool stop);
/* The last finished epoch; epoch 0: none yet. */
const wk_epoch_result *wk_trainer_last_epoch(const wk_trainer *t);

#endif
