/* SPDX-License-Identifier: Apache-2.0
 *
 * States and what leads from one to the next:
 *
 *   HELLO -ready-> PULL -weights of the clock-> COMPUTE -commit-> WEIGHTS -version clock+1-> COMPUTE
 *                                                     `- end of an epoch -> AVERAGE -> EVALUATE -> COMPUTE | DONE
 *
 * A rank that starts exactly at the end of an epoch evaluates it again: its predecessor may have died doing so.
 */
#include "train/trainer.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/num.h"
#include "data/shuffle.h"
#include "train/average.h"
#include "train/exchange.h"
#include "train/gradient_sum.h"
#include "train/local_steps.h"
#include "train/rows.h"
#include "train/shares.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define EVALUATION_BATCH 256
#define EVALUATION_BATCH_SPARSE 4096 /* each waits for its rows */
#define RATE_WINDOW_NS BL_NS_PER_S

typedef enum trainer_state {
  STATE_HELLO = 1,
  STATE_PULL,
  STATE_BEGIN,   /* the weights are there: what comes next */
  STATE_COMPUTE,
  STATE_WEIGHTS,
  STATE_FINAL,   /* free running: the other ranks' last updates */
  STATE_AVERAGE, /* evaluated is the average of the weights, which comes */
  STATE_EVALUATE,
  STATE_VERDICT, /* early stopping: the epoch is reported */
  STATE_DONE,
  STATE_FAILED,
  STATE_COUNT
} trainer_state;

/* A part of a data set that is evaluated at the end of an epoch. */
typedef struct evaluation {
  const wk_dataset *data; /* NULL: not in this epoch */
  uint64_t next, end;     /* sample indices */
  wk_metrics *into;
} evaluation;

struct wk_trainer {
  wk_trainer_config config;
  trainer_state state;
  bl_error error;
  wk_exchange exchange;
  wk_average average;
  wk_gradient_sum sum; /* of the parts of a clock (accumulate) */
  /* local steps, of the open round */
  wk_local_steps local;
  uint32_t step;          /* the next one */
  bool under_way;         /* the exchange of the round before is, while this one's steps go on (overlap) */
  bool waited;            /* for it, in the turn before */
  wk_metrics round;       /* what its steps have measured */
  uint64_t n_inputs;
  uint32_t batch_max;
  uint64_t n_train, n_validation, n_test;
  wk_shares shares;
  uint64_t clock;
  wk_share share;         /* of clock */
  uint64_t epochs_done;   /* evaluated, or somebody else's */
  bool asked;             /* the ledger, for more than is there */
  uint64_t rated_samples, rated_ns; /* done when the ledger was last told how fast */
  /* the batch that lies in x */
  uint64_t fetched_clock; /* UINT64_MAX: none */
  uint32_t fetched_part;
  uint32_t n_fetched;
  float *x;               /* [batch_max, n_inputs]; owned, as those below */
  uint32_t *labels;       /* [batch_max] */
  float *values;          /* [batch_max] */
  uint64_t *indices;      /* [batch_max] */
  wk_permutation order;
  uint64_t order_epoch;   /* UINT64_MAX: none */
  wk_rows *rows;          /* models whose first layer is sparse; else NULL */
  wk_sparse_input *input; /* of them: the batch that is computed, instead of x, labels and values */
  bool evaluation_pulled; /* of them: the next batch of an evaluation is under way */
  evaluation evaluations[2];
  wk_measures measures[2]; /* of the evaluations, where more than loss and accuracy is asked for */
  wk_epoch_result epoch, last_epoch;
  uint64_t epoch_started_ns, rate_since_ns, rate_samples;
  uint64_t phase_since_ns;
  wk_progress progress;
  uint32_t not_finite_row; /* clocks until now */
};

uint32_t wk_trainer_batch_max(const bl_job_spec *spec, uint32_t world) {
  if (!bl_model_is_sparse(&spec->model))
    return (uint32_t)BL_MAX(bl_div_up_u64(spec->batch, world), EVALUATION_BATCH);
  /* A clock in one piece: in ssp that of a fast rank may be twice its part of a batch. */
  uint64_t most = bl_div_up_u64(spec->batch, world) * (strcmp(spec->sync, "ssp") == 0 ? 2 : 1);
  return (uint32_t)BL_MAX(most, EVALUATION_BATCH_SPARSE);
}

static wk_turn fail(wk_trainer *t) {
  t->state = STATE_FAILED;
  return WK_TURN_FAILED;
}

static uint64_t now(const wk_trainer *t) { return t->config.env.now_ns(t->config.env.arg); }

static void add_metrics(const wk_trainer *t, wk_metrics *to, wk_loss_sums s, uint32_t n) {
  to->n += n;
  to->loss_sum += s.loss_sum;
  to->correct += s.correct;
  to->squared_error_sum += s.squared_error_sum * t->config.squared_error_factor;
}

static void add_sums(wk_metrics *to, const wk_metrics *m) {
  to->n += m->n;
  to->loss_sum += m->loss_sum;
  to->correct += m->correct;
  to->squared_error_sum += m->squared_error_sum;
}

static const char *const phase_names[WK_PHASE_COUNT] = {"fetch", "forward", "backward", "push", "poll", "wait"};

const char *wk_phase_name(wk_phase p) { return phase_names[p]; }

/* The time since the last call, or since phase_since_ns was set, belongs to this phase. */
static void end_phase(wk_trainer *t, wk_phase p) {
  uint64_t now_ns = now(t);
  t->progress.phase_ns[p] += now_ns - t->phase_since_ns;
  t->phase_since_ns = now_ns;
}

/* Labels or values, whichever the data has, into the trainer's arrays. */
static void fetch_samples(wk_trainer *t, const wk_dataset *data, uint32_t n) {
  if (n > 0)
    wk_dataset_fetch(data, t->indices, n, t->x, t->labels, t->values);
  t->n_fetched = n;
}

static bool is_local(const wk_trainer *t) { return t->config.rank_samples != NULL; }
static bool takes_steps(const wk_trainer *t) { return t->config.spec->local_steps > 0; }

static void order_epoch(wk_trainer *t, uint64_t epoch) {
  const bl_job_spec *spec = t->config.spec;
  if (t->order_epoch == epoch)
    return;
  if (is_local(t))
    wk_permutation_init_local(&t->order, t->n_train, spec->seed, epoch, t->config.rank, spec->data.shuffle);
  else
    wk_permutation_init(&t->order, t->n_train, spec->seed, epoch, spec->data.shuffle);
  t->order_epoch = epoch;
}

/* A rank's samples of a clock are computed in parts of at most its share of one batch: with accumulate: k that is
 * the memory of one batch, and at most k parts. */
static uint64_t part_samples(const wk_trainer *t) { return bl_div_up_u64(t->config.spec->batch, t->config.world); }

static uint32_t parts_of(const wk_trainer *t, const wk_share *share) {
  if (t->rows != NULL)
    return 1;
  return (uint32_t)BL_MAX(bl_div_up_u64(share->end - share->first, part_samples(t)), 1);
}

/* Positions [first, end) of the share's epoch as samples in t->indices. */
static uint32_t choose_samples(wk_trainer *t, const wk_share *share, uint64_t first, uint64_t end) {
  uint32_t n = (uint32_t)(end - first);
  BL_ASSERT(n <= t->batch_max);
  order_epoch(t, share->epoch);
  for (uint32_t i = 0; i < n; i++)
    t->indices[i] = wk_permutation_at(&t->order, first + i);
  return n;
}

/* Positions of a part of a clock; with local steps that is a step. */
static wk_range part_range(const wk_trainer *t, uint64_t clock, const wk_share *share, uint32_t index) {
  if (takes_steps(t)) {
    wk_step_share step = wk_shares_step(&t->shares, clock, index);
    return (wk_range){step.first, step.end};
  }
  uint64_t first = BL_MIN(share->first + index * part_samples(t), share->end);
  return (wk_range){first, BL_MIN(first + part_samples(t), share->end)};
}

static void fetch_part(wk_trainer *t, uint64_t clock, const wk_share *share, uint32_t index) {
  if (t->rows != NULL || (t->fetched_clock == clock && t->fetched_part == index))
    return; /* rows: t->input */
  wk_range part = part_range(t, clock, share, index);
  fetch_samples(t, t->config.train, choose_samples(t, share, part.first, part.end));
  t->fetched_clock = clock;
  t->fetched_part = index;
}

/* While something is under way: the next clock's samples. */
static void fetch_ahead(wk_trainer *t, uint64_t clock) {
  wk_share share;
  if (wk_shares_at(&t->shares, clock, &share) == WK_SHARE_THERE)
    fetch_part(t, clock, &share, 0);
}

/* ---- models with a table: the rows that a batch touches come with it ---- */

/* False: no memory, the sentence is in t->error. */
static bool fetch_rows(wk_trainer *t, uint64_t clock, const wk_share *share) {
  if (wk_rows_is_fetched(t->rows, clock))
    return true;
  uint32_t n = choose_samples(t, share, share->first, share->end);
  return wk_rows_fetch(t->rows, clock, t->config.train, t->indices, n, &t->error) == BL_OK;
}

/* The samples of t->clock with their rows. WK_TURN_WORKED: t->input is there. */
static wk_turn bring_rows(wk_trainer *t) {
  if (!fetch_rows(t, t->clock, &t->share))
    return fail(t);
  wk_rows_pull(t->rows, t->clock, t->clock, now(t));
  t->input = wk_rows_input(t->rows, t->clock);
  if (t->input == NULL)
    return WK_TURN_WAITS;
  t->n_fetched = t->input->n;
  t->fetched_part = 0;
  return WK_TURN_WORKED;
}

/* After a commit: asks for the rows of the next clock and fetches the samples of the one behind it, while the shards
 * work. Where an epoch ends the evaluation comes first, and asks for rows of its own. */
static void fetch_rows_ahead(wk_trainer *t, uint64_t next) {
  wk_share share;
  if (wk_shares_at(&t->shares, next, &share) != WK_SHARE_THERE || !fetch_rows(t, next, &share))
    return;
  if (share.epoch == t->epochs_done)
    wk_rows_pull(t->rows, next, next, now(t));
  if (wk_shares_at(&t->shares, next + 1, &share) == WK_SHARE_THERE)
    (void)fetch_rows(t, next + 1, &share);
}

static const float *forward(wk_trainer *t, uint32_t n, const wk_step_id *step) {
  return t->input != NULL ? wk_model_forward_sparse(t->config.model, &t->input->x, n, step)
                          : wk_model_forward(t->config.model, t->x, n, step);
}

static const uint32_t *labels(const wk_trainer *t) { return t->input != NULL ? t->input->labels : t->labels; }
static const float *values(const wk_trainer *t) { return t->input != NULL ? t->input->values : t->values; }

/* ---- the ledger ---- */

/* Samples per second of this rank's own work since it was last asked for; 0: it has done nothing. */
static double work_rate(wk_trainer *t) {
  uint64_t ns = 0;
  for (int p = 0; p < WK_PHASE_WAIT; p++)
    ns += t->progress.phase_ns[p];
  uint64_t n = t->progress.samples - t->rated_samples, elapsed_ns = ns - t->rated_ns;
  t->rated_samples = t->progress.samples;
  t->rated_ns = ns;
  return elapsed_ns > 0 ? (double)n * 1e9 / (double)elapsed_ns : 0;
}

static void ask_for_more(wk_trainer *t) {
  if (t->asked || !wk_shares_wants_more(&t->shares, t->clock))
    return;
  t->asked = true;
  t->config.env.on_lease_wanted(t->clock, work_rate(t), t->config.env.arg);
}

void wk_trainer_take_leases(wk_trainer *t, const wk_lease *leases, uint32_t n, bool exhausted) {
  bl_error err = BL_ERROR_INIT;
  if (!wk_shares_has_ledger(&t->shares))
    return;
  if (wk_shares_take(&t->shares, leases, n, exhausted, &err) != BL_OK) {
    bl_fail(&t->error, err.status, "the coordinator's ledger: %s", err.text); /* the next turn fails */
    return;
  }
  t->asked = false;
  wk_share share;
  if (wk_shares_at(&t->shares, t->clock, &share) == WK_SHARE_UNKNOWN)
    bl_fail(&t->error, BL_ESTATE, "the coordinator's ledger has nothing for clock %" PRIu64 " of rank %u", t->clock,
            t->config.rank);
}

/* ---- turns ---- */

/* The final weights are asked for, at once or behind the last clock. */
static wk_turn wait_for_final(wk_trainer *t) {
  if (bl_session_clock(t->config.session) == BL_CLOCK_FINISHED)
    bl_session_pull(t->config.session, BL_CLOCK_FINISHED, now(t));
  else
    bl_session_finish(t->config.session, now(t));
  t->state = STATE_FINAL;
  return WK_TURN_WORKED;
}

static wk_turn turn_hello(wk_trainer *t) {
  bl_session *s = t->config.session;
  if (!bl_session_is_ready(s))
    return WK_TURN_WAITS;
  t->epoch_started_ns = t->rate_since_ns = now(t);
  if (bl_session_clock(s) == BL_CLOCK_FINISHED)
    return wait_for_final(t);
  t->clock = bl_session_clock(s);
  if (t->config.in_step && t->clock > t->shares.clocks) {
    bl_fail(&t->error, BL_ESTATE,
            "the shards are at clock %" PRIu64 ", but the job has %" PRIu64 ": another job's state or another data set",
            t->clock, t->shares.clocks);
    return fail(t);
  }
  t->progress.clock = t->clock;
  if (takes_steps(t) && wk_local_steps_has_state(&t->local) && t->clock > t->config.start_clock &&
      t->config.env.on_moments_lost != NULL)
    t->config.env.on_moments_lost(t->clock, t->config.env.arg);
  bl_session_pull(s, t->clock, now(t));
  ask_for_more(t);
  if (t->rows == NULL)
    fetch_ahead(t, t->clock);
  t->state = STATE_PULL;
  return WK_TURN_WORKED;
}

static bool measures_more(const bl_job_spec *spec) {
  return spec->measure.top_k > 0 || spec->measure.auc || spec->measure.confusion;
}

/* What is evaluated at the end of `epoch`. */
static void begin_evaluation(wk_trainer *t, uint64_t epoch) {
  const wk_trainer_config *c = &t->config;
  bool with_test = c->test != NULL && (t->n_validation == 0 || epoch == c->spec->epochs || c->waits_for_verdict);
  uint32_t part = is_local(t) ? 0 : c->rank, parts = is_local(t) ? 1 : c->world;
  wk_range v = wk_eval_range(t->n_validation, part, parts), e = wk_eval_range(t->n_test, part, parts);
  t->evaluations[0] = (evaluation){t->n_validation > 0 ? c->train : NULL, t->n_train + v.first, t->n_train + v.end,
                                   &t->epoch.validation};
  t->evaluations[1] = (evaluation){with_test ? c->test : NULL, e.first, e.end, &t->epoch.test};
  for (size_t i = 0; i < BL_COUNT_OF(t->measures) && measures_more(c->spec); i++) {
    if (i == 0 && c->spec->data.progressive)
      continue; /* counted while training */
    wk_measures_clear(&t->measures[i]);
    t->evaluations[i].into->more = t->evaluations[i].data != NULL ? &t->measures[i] : NULL;
  }
  t->epochs_done = epoch;
  t->fetched_clock = UINT64_MAX; /* the evaluation needs the arrays */
  wk_local_steps_show_held(&t->local, true);
  wk_average_bring_in(&t->average, now(t));
  t->state = STATE_AVERAGE;
}

/* Epochs that lie behind a rank when it begins its first clock. The last of them is evaluated again where nobody
 * knows whether it was: what has been reported before stands. */
static void find_epochs_done(wk_trainer *t, uint64_t epoch) {
  if (t->epochs_done != UINT64_MAX)
    return;
  bool resumed = t->config.start_clock > 0 && t->clock == t->config.start_clock; /* what lies before was another job's */
  bool again = !resumed && (!t->config.in_step || wk_shares_begins_epoch(&t->shares, t->clock));
  t->epochs_done = epoch > 0 && again ? epoch - 1 : epoch;
}

/* The weights of t->clock are there. Epochs are evaluated one by one, also those that a free running rank had nothing
 * to do in. */
static wk_turn turn_begin(wk_trainer *t) {
  wk_local_steps_show_held(&t->local, false);
  wk_average_take_out(&t->average); /* not before: it is what a model that is saved at the end of an epoch holds */
  ask_for_more(t);
  wk_share_state state = wk_shares_at(&t->shares, t->clock, &t->share);
  if (state == WK_SHARE_UNKNOWN)
    return WK_TURN_WAITS;
  uint64_t epochs = t->config.spec->epochs, epoch = state == WK_SHARE_END ? epochs : t->share.epoch;
  find_epochs_done(t, epoch);
  bool is_final = state == WK_SHARE_END && !t->config.in_step; /* the last one is evaluated with the final weights */
  if (t->epochs_done + is_final < epoch)
    begin_evaluation(t, t->epochs_done + 1);
  else if (is_final)
    return wait_for_final(t);
  else
    t->state = STATE_COMPUTE;
  return WK_TURN_WORKED;
}

static wk_turn turn_final(wk_trainer *t) {
  if (bl_session_weights_version(t->config.session) != BL_CLOCK_FINISHED)
    return WK_TURN_WAITS;
  begin_evaluation(t, t->config.spec->epochs);
  return WK_TURN_WORKED;
}

static wk_turn turn_pull(wk_trainer *t) {
  if (bl_session_weights_version(t->config.session) != t->clock)
    return WK_TURN_WAITS;
  if (takes_steps(t))
    wk_local_steps_start(&t->local);
  t->epoch_started_ns = t->rate_since_ns = now(t);
  t->state = STATE_BEGIN;
  return WK_TURN_WORKED;
}

/* Of a part that is not the last of its clock. */
static void on_part_grad(uint32_t tensor, const float *grad, uint64_t n_ready, void *arg) {
  wk_trainer *t = arg;
  wk_gradient_sum_add(&t->sum, tensor, grad, n_ready);
  end_phase(t, WK_PHASE_BACKWARD);
  t->config.env.poll(t->config.env.arg);
  end_phase(t, WK_PHASE_POLL);
}

static void on_grad(uint32_t tensor, const float *grad, uint64_t n_ready, void *arg) {
  wk_trainer *t = arg;
  (void)grad; /* what is not finite may be written over */
  wk_gradient_sum_into(&t->sum, tensor, wk_model_grads(t->config.model)[tensor], n_ready);
  end_phase(t, WK_PHASE_BACKWARD);
  if (t->input != NULL && t->config.table->tensors[tensor].table)
    wk_exchange_push_rows(&t->exchange, tensor, t->input->rows, t->input->x.n_rows, t->input->x.grads, t->phase_since_ns);
  else
    wk_exchange_push(&t->exchange, tensor, wk_model_grads(t->config.model)[tensor], n_ready, t->phase_since_ns);
  end_phase(t, WK_PHASE_PUSH);
  t->config.env.poll(t->config.env.arg);
  end_phase(t, WK_PHASE_POLL);
}

static void measure_rate(wk_trainer *t, uint32_t n) {
  t->progress.samples += n;
  t->rate_samples += n;
  uint64_t now_ns = now(t), elapsed_ns = now_ns - t->rate_since_ns;
  if (elapsed_ns < RATE_WINDOW_NS)
    return;
  t->progress.samples_per_second = (double)t->rate_samples * 1e9 / (double)elapsed_ns;
  t->rate_since_ns = now_ns;
  t->rate_samples = 0;
}

/* After a clock or local step whose gradient, loss or difference was not finite: the commit tells the shards. With `fail`,
 * and with the other policies when it does not end, it is named and the training ends. */
static wk_turn meet_not_finite(wk_trainer *t, double loss_sum) {
  bl_not_finite policy = t->config.spec->not_finite;
  t->progress.clocks_not_finite++;
  const char *tensor = wk_local_steps_not_finite(&t->local);
  if (tensor == NULL)
    tensor = wk_exchange_not_finite(&t->exchange);
  char what[160];
  if (!isfinite(loss_sum))
    snprintf(what, sizeof what, "the loss is %s", isnan(loss_sum) ? "NaN" : "infinite");
  else
    snprintf(what, sizeof what, "the gradient of %.100s holds a NaN or infinity", tensor != NULL ? tensor : "?");
  if (t->not_finite_row++ == 0 && policy != BL_NOT_FINITE_FAIL)
    bl_log_warning("gradient_not_finite", "rank=%u clock=%" PRIu64 " policy=%s reason=%s", t->config.rank, t->clock,
                   policy == BL_NOT_FINITE_SKIP ? "skip_clock" : "clip", BL_LOGQ(what));
  if (policy != BL_NOT_FINITE_FAIL && t->not_finite_row < BL_JOB_NOT_FINITE_ROW_MAX)
    return WK_TURN_WORKED;
  bl_fail(&t->error, BL_ENOTFINITE,
          "%s in epoch %" PRIu64 ", clock %" PRIu64 ", on rank %u: the learning rate may be too high, or the data wrong",
          what, t->share.epoch + 1, t->clock, t->config.rank);
  return fail(t);
}

static bool has_dropout(const bl_model_spec *model) {
  for (size_t i = 0; i < model->n_layers; i++)
    if (model->layers[i].kind == BL_LAYER_DROPOUT)
      return true;
  return false;
}

/* Progressive validation: what the model, not yet trained on these samples, makes of them. sums, z: of its outputs. */
static void count_ahead(wk_trainer *t, const float *z, wk_loss_sums sums) {
  wk_metrics *m = &t->epoch.validation;
  if (measures_more(t->config.spec) && m->more == NULL) { /* the first of the epoch */
    m->more = &t->measures[0];
    wk_measures_clear(m->more);
  }
  add_metrics(t, m, sums, t->n_fetched);
  if (m->more != NULL)
    wk_measures_add(m->more, z, labels(t), t->n_fetched);
}

/* Forward and backward of the part that is fetched. step: of its dropout, another for each part of the job. */
static wk_loss_sums pass_through(wk_trainer *t, uint64_t step_number, double denominator, wk_on_grad_fn *on_part) {
  const wk_trainer_config *c = &t->config;
  uint32_t n = t->n_fetched;
  wk_step_id step = {c->spec->seed, step_number, c->rank};
  bool ahead = c->spec->data.progressive && n > 0, apart = ahead && has_dropout(&c->spec->model);
  if (apart) {
    const float *z = forward(t, n, NULL);
    count_ahead(t, z, wk_model_loss(c->model, labels(t), values(t), n));
  }
  const float *z = forward(t, n, &step);
  wk_loss_sums sums = {0, 0, 0};
  if (n > 0)
    sums = wk_model_loss(c->model, labels(t), values(t), n);
  if (ahead && !apart)
    count_ahead(t, z, sums);
  end_phase(t, WK_PHASE_FORWARD);
  wk_model_backward(c->model, labels(t), values(t), n, denominator, on_part, t);
  end_phase(t, WK_PHASE_BACKWARD);
  return sums;
}

/* The last part of the clock pushes the sum of all. */
static wk_loss_sums compute_part(wk_trainer *t, bool last) {
  const wk_trainer_config *c = &t->config;
  /* A clock of ssp has up to twice as many, and one that is not full. */
  uint64_t parts_max = BL_MAX(c->spec->accumulate, 1) * (c->in_step ? 1 : 2) + (c->in_step ? 0 : 1);
  wk_loss_sums sums =
      pass_through(t, t->clock * parts_max + t->fetched_part, t->share.denominator, last ? on_grad : on_part_grad);
  if (!last)
    wk_gradient_sum_end_part(&t->sum);
  return sums;
}

static wk_loss_sums compute_parts(wk_trainer *t, uint32_t *ret_n) {
  wk_loss_sums all = {0, 0, 0};
  *ret_n = 0;
  wk_gradient_sum_begin(&t->sum);
  for (uint32_t p = 0, parts = parts_of(t, &t->share); p < parts; p++) {
    fetch_part(t, t->clock, &t->share, p);
    end_phase(t, WK_PHASE_FETCH);
    wk_loss_sums sums = compute_part(t, p + 1 == parts);
    all.loss_sum += sums.loss_sum;
    all.correct += sums.correct;
    all.squared_error_sum += sums.squared_error_sum;
    *ret_n += t->n_fetched;
  }
  return all;
}

/* The clock's commit is on its way: the next samples are fetched while the weights are. */
static wk_turn end_clock(wk_trainer *t) {
  if (t->rows != NULL)
    fetch_rows_ahead(t, t->clock + 1);
  else
    fetch_ahead(t, t->clock + 1);
  end_phase(t, WK_PHASE_FETCH);
  t->state = STATE_WEIGHTS;
  return WK_TURN_WORKED;
}

/* ---- local steps ---- */

static void on_step_grad(uint32_t tensor, const float *grad, uint64_t n_ready, void *arg) {
  wk_trainer *t = arg;
  end_phase(t, WK_PHASE_BACKWARD);
  t->config.env.poll(t->config.env.arg);
  end_phase(t, WK_PHASE_POLL);
}

/* The rank's part of the samples that a tensor's difference is made of: of all rounds since it was exchanged. */
static double part_of_rounds(const wk_trainer *t, uint32_t tensor) {
  double own = 0, all = 0;
  uint64_t first = bl_tensor_exchanged(t->config.table, tensor, t->clock);
  for (uint64_t clock = BL_MAX(first, t->config.start_clock); clock <= t->clock; clock++) {
    wk_share share;
    if (wk_shares_at(&t->shares, clock, &share) != WK_SHARE_THERE)
      continue;
    own += (double)wk_shares_own(&t->shares, clock);
    all += share.denominator;
  }
  return own / all;
}

/* Pushes what the steps have made of the weights, the last layer first, as backward does. */
static void push_differences(wk_trainer *t, bool finite) {
  const bl_tensor_table *table = t->config.table;
  wk_exchange_begin(&t->exchange);
  for (uint32_t i = table->n_tensors; i-- > 0;) {
    if (!bl_tensor_in_clock(table, i, t->clock))
      continue;
    wk_local_steps_end_round(&t->local, i, part_of_rounds(t, i));
    wk_exchange_push(&t->exchange, i, wk_local_steps_difference(&t->local, i), table->tensors[i].n_elems, now(t));
    end_phase(t, WK_PHASE_PUSH);
    t->config.env.poll(t->config.env.arg);
    end_phase(t, WK_PHASE_POLL);
  }
  wk_exchange_commit(&t->exchange, finite, t->round.n, now(t));
  end_phase(t, WK_PHASE_PUSH);
}

/* The exchange of a clock is over, and its weights are here. */
static bool is_exchanged(const wk_trainer *t, uint64_t clock) {
  return bl_session_weights_version(t->config.session) == clock + 1 && bl_session_gradients_free(t->config.session);
}

static void merge(wk_trainer *t, uint64_t clock) {
  for (uint32_t i = 0; i < t->config.table->n_tensors; i++)
    if (bl_tensor_in_clock(t->config.table, i, clock))
      wk_local_steps_merge(&t->local, i);
}

/* What is under way is merged behind so many steps of this round, however early it came: bits must not depend on that. False: it
 * is not there. */
static bool bring_in(wk_trainer *t, uint32_t n_steps) {
  if (!t->under_way || t->step < BL_MIN(t->config.spec->outer.overlap, n_steps))
    return true;
  t->waited = !is_exchanged(t, t->clock - 1);
  if (t->waited)
    return false;
  merge(t, t->clock - 1);
  t->under_way = false;
  return true;
}

/* Steps of the next round may begin before this one's exchange is over, within an epoch. */
static bool goes_on(const wk_trainer *t) {
  wk_share next;
  return t->config.spec->outer.overlap > 0 && wk_shares_at(&t->shares, t->clock + 1, &next) == WK_SHARE_THERE &&
         next.epoch == t->share.epoch;
}

/* The rank's part of one batch, and a step of its own by the mean of it. True: all was finite. */
static bool take_step(wk_trainer *t, wk_loss_sums *ret_sums) {
  wk_step_share step = wk_shares_step(&t->shares, t->clock, t->step);
  fetch_part(t, t->clock, &t->share, t->step);
  end_phase(t, WK_PHASE_FETCH);
  uint32_t n = t->n_fetched;
  *ret_sums = (wk_loss_sums){0, 0, 0};
  if (n == 0)
    return true;
  *ret_sums = pass_through(t, step.place, n, on_step_grad);
  bool may_step = isfinite(ret_sums->loss_sum) || t->config.spec->not_finite == BL_NOT_FINITE_CLIP;
  bool stepped = may_step && wk_local_steps_step(&t->local, step.place);
  end_phase(t, WK_PHASE_BACKWARD);
  return stepped && isfinite(ret_sums->loss_sum) && wk_local_steps_not_finite(&t->local) == NULL;
}

/* A step that is not finite ends the job. The shards are told by the commit, unless one is under way. */
static wk_turn fail_step(wk_trainer *t, wk_loss_sums sums) {
  if (!t->under_way)
    push_differences(t, false);
  return meet_not_finite(t, sums.loss_sum);
}

static wk_turn step_once(wk_trainer *t) {
  wk_loss_sums sums;
  if (t->step == 0) {
    wk_local_steps_begin_round(&t->local);
    t->round = (wk_metrics){0};
  }
  bool finite = take_step(t, &sums), fails = t->config.spec->not_finite == BL_NOT_FINITE_FAIL;
  uint32_t n = t->n_fetched;
  if (!finite && fails)
    return fail_step(t, sums);
  if (!finite && meet_not_finite(t, sums.loss_sum) == WK_TURN_FAILED)
    return WK_TURN_FAILED;
  t->not_finite_row = finite ? 0 : t->not_finite_row;
  if (isfinite(sums.loss_sum)) /* else the step was left out */
    add_metrics(t, &t->round, sums, n);
  if (n > 0)
    t->progress.loss = sums.loss_sum / n;
  measure_rate(t, n);
  t->step++;
  return WK_TURN_WORKED;
}

static wk_turn end_round(wk_trainer *t) {
  push_differences(t, true);
  if (wk_exchange_not_finite(&t->exchange) != NULL && meet_not_finite(t, t->round.loss_sum) == WK_TURN_FAILED)
    return WK_TURN_FAILED;
  add_sums(&t->epoch.train, &t->round);
  t->step = 0;
  if (!goes_on(t))
    return end_clock(t);
  t->under_way = true;
  t->progress.clock = ++t->clock;
  (void)wk_shares_at(&t->shares, t->clock, &t->share);
  return WK_TURN_WORKED;
}

/* One step per turn, then one for the push. */
static wk_turn turn_step(wk_trainer *t) {
  uint32_t n_steps = wk_shares_steps(&t->shares, t->clock);
  if (!t->waited)
    t->phase_since_ns = now(t);
  if (!bring_in(t, n_steps))
    return WK_TURN_WAITS;
  end_phase(t, WK_PHASE_WAIT);
  return t->step < n_steps ? step_once(t) : end_round(t);
}

static wk_turn turn_compute(wk_trainer *t) {
  if (takes_steps(t))
    return turn_step(t);
  wk_turn rows = t->rows != NULL ? bring_rows(t) : WK_TURN_WORKED;
  if (rows != WK_TURN_WORKED)
    return rows;
  t->phase_since_ns = now(t);
  uint32_t n;
  wk_exchange_begin(&t->exchange);
  wk_loss_sums sums = compute_parts(t, &n);
  wk_exchange_commit(&t->exchange, isfinite(sums.loss_sum), n, t->phase_since_ns);
  end_phase(t, WK_PHASE_PUSH);
  bool is_finite = isfinite(sums.loss_sum) && wk_exchange_not_finite(&t->exchange) == NULL;
  if (!is_finite && meet_not_finite(t, sums.loss_sum) == WK_TURN_FAILED)
    return WK_TURN_FAILED;
  t->not_finite_row = is_finite ? 0 : t->not_finite_row;
  if (isfinite(sums.loss_sum))
    add_metrics(t, &t->epoch.train, sums, n);
  if (n > 0)
    t->progress.loss = sums.loss_sum / n;
  measure_rate(t, n);
  return end_clock(t);
}

static wk_turn turn_weights(wk_trainer *t) {
  if (!is_exchanged(t, t->clock) || (t->rows != NULL && !wk_rows_are_idle(t->rows)))
    return WK_TURN_WAITS;
  end_phase(t, WK_PHASE_WAIT);
  if (takes_steps(t))
    merge(t, t->clock);
  t->clock++;
  t->progress.clock = t->clock;
  t->state = STATE_BEGIN;
  return turn_begin(t) == WK_TURN_WAITS ? WK_TURN_WAITS : WK_TURN_WORKED;
}

static wk_turn turn_average(wk_trainer *t) {
  if (!wk_average_is_there(&t->average))
    return WK_TURN_WAITS;
  t->state = STATE_EVALUATE;
  return WK_TURN_WORKED;
}

static wk_turn evaluate_sparse(wk_trainer *t, evaluation *e) {
  uint32_t n = (uint32_t)BL_MIN(e->end - e->next, t->batch_max);
  uint64_t version = bl_session_weights_version(t->config.session);
  for (uint32_t i = 0; !t->evaluation_pulled && i < n; i++)
    t->indices[i] = e->next + i;
  if (!t->evaluation_pulled &&
      wk_rows_fetch(t->rows, WK_ROWS_EVALUATION, e->data, t->indices, n, &t->error) != BL_OK)
    return fail(t);
  wk_rows_pull(t->rows, WK_ROWS_EVALUATION, version, now(t));
  t->evaluation_pulled = true;
  t->input = wk_rows_input(t->rows, WK_ROWS_EVALUATION);
  if (t->input == NULL)
    return WK_TURN_WAITS;
  t->evaluation_pulled = false;
  const float *z = forward(t, n, NULL);
  add_metrics(t, e->into, wk_model_loss(t->config.model, labels(t), values(t), n), n);
  if (e->into->more != NULL)
    wk_measures_add(e->into->more, z, labels(t), n);
  e->next += n;
  return WK_TURN_WORKED;
}

static void evaluate_batch(wk_trainer *t, evaluation *e) {
  uint32_t n = (uint32_t)BL_MIN(e->end - e->next, EVALUATION_BATCH);
  for (uint32_t i = 0; i < n; i++)
    t->indices[i] = e->next + i;
  fetch_samples(t, e->data, n);
  const float *z = wk_model_forward(t->config.model, t->x, n, NULL);
  add_metrics(t, e->into, wk_model_loss(t->config.model, t->labels, t->values, n), n);
  if (e->into->more != NULL)
    wk_measures_add(e->into->more, z, t->labels, n);
  e->next += n;
}

static wk_turn end_epoch(wk_trainer *t) {
  uint64_t now_ns = now(t);
  t->epoch.epoch = (uint32_t)t->epochs_done;
  t->epoch.clock = t->clock;
  t->epoch.seconds = (double)(now_ns - t->epoch_started_ns) / 1e9;
  t->last_epoch = t->epoch;
  t->epoch = (wk_epoch_result){0};
  t->epoch_started_ns = now_ns;
  t->config.env.on_epoch(&t->last_epoch, t->config.env.arg);
  bool last = t->epochs_done == t->config.spec->epochs;
  t->state = t->config.waits_for_verdict ? STATE_VERDICT : last ? STATE_DONE : STATE_BEGIN;
  return t->state == STATE_DONE ? WK_TURN_DONE : WK_TURN_WORKED;
}

static wk_turn turn_verdict(wk_trainer *t) {
  (void)t;
  return WK_TURN_WAITS;
}

bool wk_trainer_take_verdict(wk_trainer *t, uint32_t epoch, bool stop) {
  if (t->state != STATE_VERDICT || epoch != t->last_epoch.epoch)
    return false;
  t->state = stop || epoch == t->config.spec->epochs ? STATE_DONE : STATE_BEGIN;
  return true;
}

static wk_turn turn_evaluate(wk_trainer *t) {
  for (size_t i = 0; i < BL_COUNT_OF(t->evaluations); i++) {
    evaluation *e = &t->evaluations[i];
    if (e->data == NULL || e->next == e->end)
      continue;
    if (t->rows != NULL)
      return evaluate_sparse(t, e);
    evaluate_batch(t, e);
    return WK_TURN_WORKED;
  }
  return end_epoch(t);
}

static wk_turn turn_done(wk_trainer *t) {
  (void)t;
  return WK_TURN_DONE;
}

static wk_turn turn_failed(wk_trainer *t) {
  (void)t;
  return WK_TURN_FAILED;
}

static wk_turn (*const turns[STATE_COUNT])(wk_trainer *t) = {
    [STATE_HELLO] = turn_hello,       [STATE_PULL] = turn_pull,         [STATE_BEGIN] = turn_begin,
    [STATE_COMPUTE] = turn_compute,   [STATE_WEIGHTS] = turn_weights,   [STATE_FINAL] = turn_final,
    [STATE_AVERAGE] = turn_average,   [STATE_EVALUATE] = turn_evaluate, [STATE_DONE] = turn_done,
    [STATE_VERDICT] = turn_verdict,   [STATE_FAILED] = turn_failed,
};

wk_turn wk_trainer_turn(wk_trainer *t) {
  if (t->state < STATE_DONE && (t->error.status != BL_OK || bl_session_status(t->config.session, &t->error) != BL_OK))
    return fail(t);
  return turns[t->state](t);
}

static bl_status check_config(const wk_trainer *t, bl_error *err) {
  const wk_trainer_config *c = &t->config;
  if (t->n_train == 0)
    return bl_fail(err, BL_EINVAL, "no training samples are left beside the validation part");
  if (is_local(t) && c->spec->batch % c->world != 0)
    return bl_fail(err, BL_EINVAL, "a batch of %" PRIu64 " samples is no multiple of %u ranks", c->spec->batch, c->world);
  if (is_local(t) && t->n_train != c->rank_samples[c->rank])
    return bl_fail(err, BL_EMISMATCH, "this rank has %" PRIu64 " training samples, the plan counts on %" PRIu64,
                   t->n_train, c->rank_samples[c->rank]);
  if (c->test != NULL && wk_dataset_get_info(c->test).n_inputs != t->n_inputs)
    return bl_fail(err, BL_EMISMATCH, "the test set has %" PRIu64 " inputs, the training set %" PRIu64,
                   wk_dataset_get_info(c->test).n_inputs, t->n_inputs);
  return BL_OK;
}

/* In ssp the ledger gives fast ranks up to twice the even share. */
static bool adapts(const wk_trainer *t) { return strcmp(t->config.spec->sync, "ssp") == 0; }

static uint64_t clock_samples_max(const wk_trainer *t) {
  return bl_div_up_u64(bl_job_clock_samples(t->config.spec), t->config.world) * (adapts(t) ? 2 : 1);
}

static void init_shares(wk_trainer *t) {
  const wk_trainer_config *c = &t->config;
  wk_shares_config shares = {.in_step = c->in_step,
                             .rank = c->rank,
                             .world = c->world,
                             .n_train = t->n_train,
                             .rank_samples = c->rank_samples,
                             .clock_samples = bl_job_clock_samples(c->spec),
                             .local_steps = c->spec->local_steps,
                             .epochs = c->spec->epochs,
                             .clock_samples_max = clock_samples_max(t)};
  wk_shares_init(&t->shares, &shares);
  t->progress.clocks = t->shares.clocks;
  t->epochs_done = UINT64_MAX;
}

static bl_status make_measures(wk_trainer *t, bl_error *err) {
  const bl_job_spec *spec = t->config.spec;
  uint64_t n_outputs = 0;
  bl_status status = measures_more(spec) ? bl_model_output_size(&spec->model, &n_outputs, err) : BL_OK;
  for (size_t i = 0; i < BL_COUNT_OF(t->measures) && status == BL_OK && measures_more(spec); i++)
    status = wk_measures_init(&t->measures[i], &spec->measure, (uint32_t)n_outputs,
                              wk_dataset_get_info(t->config.train).n_classes, err);
  return status;
}

bl_status wk_trainer_new(const wk_trainer_config *config, wk_trainer **ret_trainer, bl_error *err) {
  wk_trainer *t = bl_calloc(1, sizeof *t);
  if (t == NULL)
    return bl_fail(err, BL_ENOMEM, "no memory for a trainer");
  const bl_job_spec *spec = config->spec;
  t->config = *config;
  t->state = STATE_HELLO;
  t->fetched_clock = t->order_epoch = UINT64_MAX;
  wk_dataset_info info = wk_dataset_get_info(config->train);
  t->n_inputs = info.n_inputs;
  t->n_train = wk_train_part(info.n_samples, spec->data.validation);
  t->n_validation = info.n_samples - t->n_train;
  t->n_test = config->test != NULL ? wk_dataset_get_info(config->test).n_samples : 0;
  t->batch_max = wk_trainer_batch_max(spec, config->world);
  bl_status status = check_config(t, err);
  if (status == BL_OK)
    init_shares(t);
  if (status == BL_OK)
    status = wk_exchange_init(&t->exchange,
                              &(wk_exchange_config){.session = config->session,
                                                    .table = config->table,
                                                    .clip_norm = takes_steps(t) ? 0 : spec->clip_norm,
                                                    .clips_locally = config->clips_locally,
                                                    .not_finite = spec->not_finite},
                              err);
  if (status == BL_OK && takes_steps(t))
    status = wk_local_steps_init(&t->local, spec, config->table, wk_model_params(config->model),
                                 wk_model_grads(config->model), config->held, t->shares.steps_per_epoch * spec->epochs, err);
  if (status == BL_OK)
    status = wk_average_init(&t->average, spec->average_ema > 0 ? config->session : NULL, config->table,
                             wk_model_params(config->model), err);
  if (status == BL_OK)
    status = wk_rows_new(config->session, config->table, &t->rows, err);
  if (status == BL_OK)
    status = wk_gradient_sum_init(&t->sum, config->table,
                                  t->rows == NULL && (spec->accumulate > 1 || adapts(t)), err);
  if (status == BL_OK)
    status = make_measures(t, err);
  if (status == BL_OK) {
    t->x = bl_calloc_aligned(t->batch_max, (t->rows != NULL ? 1 : t->n_inputs) * sizeof *t->x);
    t->labels = bl_calloc(t->batch_max, sizeof *t->labels);
    t->values = bl_calloc(t->batch_max, sizeof *t->values);
    t->indices = bl_calloc(t->batch_max, sizeof *t->indices);
    if (t->x == NULL || t->labels == NULL || t->values == NULL || t->indices == NULL)
      status = bl_fail(err, BL_ENOMEM, "no memory for a batch of %u samples of %" PRIu64 " inputs", t->batch_max, t->n_inputs);
  }
  if (status != BL_OK) {
    wk_trainer_free(t);
    return status;
  }
  bl_session_start(config->session, now(t));
  *ret_trainer = t;
  return BL_OK;
}

void wk_trainer_free(wk_trainer *t) {
  if (t == NULL)
    return;
  wk_exchange_fini(&t->exchange);
  wk_average_fini(&t->average);
  wk_gradient_sum_fini(&t->sum);
  wk_local_steps_fini(&t->local);
  for (size_t i = 0; i < BL_COUNT_OF(t->measures); i++)
    wk_measures_fini(&t->measures[i]);
  wk_rows_free(t->rows);
  bl_free_aligned(t->x);
  bl_free(t->labels);
  bl_free(t->values);
  bl_free(t->indices);
  bl_free(t);
}

bl_status wk_trainer_status(const wk_trainer *t, bl_error *err) {
  if (t->state != STATE_FAILED)
    return BL_OK;
  if (err != NULL)
    *err = t->error;
  return t->error.status;
}

wk_progress wk_trainer_progress(const wk_trainer *t) {
  wk_progress p = t->progress;
  bool between = t->state == STATE_AVERAGE || t->state == STATE_EVALUATE || t->state == STATE_DONE ||
                 t->state == STATE_FINAL || t->state == STATE_VERDICT;
  if (!t->config.in_step && t->state == STATE_DONE)
    p.clock = t->shares.clocks; /* the job's: this rank's own count says little */
  p.epoch = (uint32_t)BL_MIN(between && t->epochs_done != UINT64_MAX ? t->epochs_done : t->share.epoch + 1,
                             t->config.spec->epochs);
  return p;
}

const char *wk_trainer_waits_for(const wk_trainer *t, char *out, size_t size) {
  bool rows = t->waited || (t->rows != NULL && (t->state == STATE_COMPUTE || t->state == STATE_EVALUATE));
  if (t->state == STATE_HELLO || t->state == STATE_PULL || t->state == STATE_WEIGHTS || t->state == STATE_AVERAGE || rows)
    return bl_session_waits_for(t->config.session, out, size);
  if (t->state == STATE_FINAL) {
    snprintf(out, size, "%s", "the other ranks to finish");
    return out;
  }
  if (t->state == STATE_VERDICT) {
    snprintf(out, size, "%s", "the other ranks to end the epoch, and whether to go on");
    return out;
  }
  if (t->state == STATE_BEGIN && t->asked) {
    snprintf(out, size, "%s", "the coordinator to hand out samples");
    return out;
  }
  out[0] = '\0';
  return out;
}

const wk_epoch_result *wk_trainer_last_epoch(const wk_trainer *t) { return &t->last_epoch; }
