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
#include "base/num.h"
#include "data/shuffle.h"
#include "train/average.h"
#include "train/exchange.h"
#include "train/gradient_sum.h"
#include "train/shares.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define EVALUATION_BATCH 256
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
  uint32_t n_inputs, batch_max;
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
  evaluation evaluations[2];
  wk_epoch_result epoch, last_epoch;
  uint64_t epoch_started_ns, rate_since_ns, rate_samples;
  uint64_t phase_since_ns;
  wk_progress progress;
};

uint32_t wk_trainer_batch_max(const bl_job_spec *spec, uint32_t world) {
  return (uint32_t)BL_MAX(bl_div_up_u64(spec->batch, world), EVALUATION_BATCH);
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
  return (uint32_t)BL_MAX(bl_div_up_u64(share->end - share->first, part_samples(t)), 1);
}

static void fetch_part(wk_trainer *t, uint64_t clock, const wk_share *share, uint32_t index) {
  if (t->fetched_clock == clock && t->fetched_part == index)
    return;
  order_epoch(t, share->epoch);
  uint64_t first = BL_MIN(share->first + index * part_samples(t), share->end);
  uint32_t n = (uint32_t)(BL_MIN(first + part_samples(t), share->end) - first);
  BL_ASSERT(n <= t->batch_max);
  for (uint32_t i = 0; i < n; i++)
    t->indices[i] = wk_permutation_at(&t->order, first + i);
  fetch_samples(t, t->config.train, n);
  t->fetched_clock = clock;
  t->fetched_part = index;
}

/* While something is under way: the next clock's samples. */
static void fetch_ahead(wk_trainer *t, uint64_t clock) {
  wk_share share;
  if (wk_shares_at(&t->shares, clock, &share) == WK_SHARE_THERE)
    fetch_part(t, clock, &share, 0);
}

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
  bl_session_pull(s, t->clock, now(t));
  ask_for_more(t);
  fetch_ahead(t, t->clock);
  t->state = STATE_PULL;
  return WK_TURN_WORKED;
}

/* What is evaluated at the end of `epoch`. */
static void begin_evaluation(wk_trainer *t, uint64_t epoch) {
  const wk_trainer_config *c = &t->config;
  bool with_test = c->test != NULL && (t->n_validation == 0 || epoch == c->spec->epochs);
  uint32_t part = is_local(t) ? 0 : c->rank, parts = is_local(t) ? 1 : c->world;
  wk_range v = wk_eval_range(t->n_validation, part, parts), e = wk_eval_range(t->n_test, part, parts);
  t->evaluations[0] = (evaluation){t->n_validation > 0 ? c->train : NULL, t->n_train + v.first, t->n_train + v.end,
                                   &t->epoch.validation};
  t->evaluations[1] = (evaluation){with_test ? c->test : NULL, e.first, e.end, &t->epoch.test};
  t->epochs_done = epoch;
  t->fetched_clock = UINT64_MAX; /* the evaluation needs the arrays */
  wk_average_bring_in(&t->average, now(t));
  t->state = STATE_AVERAGE;
}

/* Epochs that lie behind a rank when it begins its first clock. The last of them is evaluated again where nobody
 * knows whether it was: what has been reported before stands. */
static void find_epochs_done(wk_trainer *t, uint64_t epoch) {
  if (t->epochs_done != UINT64_MAX)
    return;
  bool again = !t->config.in_step || wk_shares_begins_epoch(&t->shares, t->clock);
  t->epochs_done = epoch > 0 && again ? epoch - 1 : epoch;
}

/* The weights of t->clock are there. Epochs are evaluated one by one, also those that a free running rank had nothing
 * to do in. */
static wk_turn turn_begin(wk_trainer *t) {
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
  wk_gradient_sum_into(&t->sum, tensor, wk_model_grads(t->config.model)[tensor], n_ready);
  end_phase(t, WK_PHASE_BACKWARD);
  wk_exchange_push(&t->exchange, tensor, grad, n_ready, t->phase_since_ns);
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

/* Names what was not finite. The commit has told the shards, which apply nothing of this clock. */
static wk_turn fail_not_finite(wk_trainer *t, double loss_sum) {
  const char *tensor = wk_exchange_not_finite(&t->exchange);
  char what[160];
  if (!isfinite(loss_sum))
    snprintf(what, sizeof what, "the loss is %s", isnan(loss_sum) ? "NaN" : "infinite");
  else
    snprintf(what, sizeof what, "the gradient of %.100s holds a NaN or infinity", tensor != NULL ? tensor : "?");
  bl_fail(&t->error, BL_ENOTFINITE,
          "%s in epoch %" PRIu64 ", clock %" PRIu64 ", on rank %u: the learning rate may be too high, or the data wrong",
          what, t->share.epoch + 1, t->clock, t->config.rank);
  return fail(t);
}

/* Forward and backward of the part that is fetched. The last one of the clock pushes the sum of all. */
static wk_loss_sums compute_part(wk_trainer *t, bool last) {
  const wk_trainer_config *c = &t->config;
  uint32_t n = t->n_fetched;
  /* Every part has dropout of its own; a clock of ssp has up to twice as many, and one that is not full. */
  uint64_t parts_max = BL_MAX(c->spec->accumulate, 1) * (c->in_step ? 1 : 2) + (c->in_step ? 0 : 1);
  wk_step_id step = {c->spec->seed, t->clock * parts_max + t->fetched_part, c->rank};
  wk_model_forward(c->model, t->x, n, &step);
  wk_loss_sums sums = {0, 0, 0};
  if (n > 0)
    sums = wk_model_loss(c->model, t->labels, t->values, n);
  end_phase(t, WK_PHASE_FORWARD);
  wk_model_backward(c->model, t->labels, t->values, n, t->share.denominator, last ? on_grad : on_part_grad, t);
  end_phase(t, WK_PHASE_BACKWARD);
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

static wk_turn turn_compute(wk_trainer *t) {
  t->phase_since_ns = now(t);
  uint32_t n;
  wk_exchange_begin(&t->exchange);
  wk_loss_sums sums = compute_parts(t, &n);
  wk_exchange_commit(&t->exchange, isfinite(sums.loss_sum), n, t->phase_since_ns);
  end_phase(t, WK_PHASE_PUSH);
  if (!isfinite(sums.loss_sum) || wk_exchange_not_finite(&t->exchange) != NULL)
    return fail_not_finite(t, sums.loss_sum);
  add_metrics(t, &t->epoch.train, sums, n);
  if (n > 0)
    t->progress.loss = sums.loss_sum / n;
  measure_rate(t, n);
  fetch_ahead(t, t->clock + 1); /* while the weights are under way */
  end_phase(t, WK_PHASE_FETCH);
  t->state = STATE_WEIGHTS;
  return WK_TURN_WORKED;
}

static wk_turn turn_weights(wk_trainer *t) {
  bl_session *s = t->config.session;
  if (bl_session_weights_version(s) != t->clock + 1 || !bl_session_gradients_free(s))
    return WK_TURN_WAITS;
  end_phase(t, WK_PHASE_WAIT);
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

static void evaluate_batch(wk_trainer *t, evaluation *e) {
  uint32_t n = (uint32_t)BL_MIN(e->end - e->next, EVALUATION_BATCH);
  for (uint32_t i = 0; i < n; i++)
    t->indices[i] = e->next + i;
  fetch_samples(t, e->data, n);
  wk_model_forward(t->config.model, t->x, n, NULL);
  add_metrics(t, e->into, wk_model_loss(t->config.model, t->labels, t->values, n), n);
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
  t->state = t->epochs_done == t->config.spec->epochs ? STATE_DONE : STATE_BEGIN;
  if (t->state != STATE_DONE)
    wk_average_take_out(&t->average); /* at the end it stays: it is the job's result */
  return t->state == STATE_DONE ? WK_TURN_DONE : WK_TURN_WORKED;
}

static wk_turn turn_evaluate(wk_trainer *t) {
  for (size_t i = 0; i < BL_COUNT_OF(t->evaluations); i++) {
    evaluation *e = &t->evaluations[i];
    if (e->data == NULL || e->next == e->end)
      continue;
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
    [STATE_FAILED] = turn_failed,
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
    return bl_fail(err, BL_EMISMATCH, "the test set has %u inputs, the training set %u",
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
                             .epochs = c->spec->epochs,
                             .clock_samples_max = clock_samples_max(t)};
  wk_shares_init(&t->shares, &shares);
  t->progress.clocks = t->shares.clocks;
  t->epochs_done = UINT64_MAX;
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
    status = wk_exchange_init(&t->exchange, config->session, config->table, spec->clip_norm, err);
  if (status == BL_OK)
    status = wk_average_init(&t->average, spec->average_ema > 0 ? config->session : NULL, config->table,
                             wk_model_params(config->model), err);
  if (status == BL_OK)
    status = wk_gradient_sum_init(&t->sum, config->table, spec->accumulate > 1 || adapts(t), err);
  if (status == BL_OK) {
    t->x = bl_calloc_aligned(t->batch_max, t->n_inputs * sizeof *t->x);
    t->labels = bl_calloc(t->batch_max, sizeof *t->labels);
    t->values = bl_calloc(t->batch_max, sizeof *t->values);
    t->indices = bl_calloc(t->batch_max, sizeof *t->indices);
    if (t->x == NULL || t->labels == NULL || t->values == NULL || t->indices == NULL)
      status = bl_fail(err, BL_ENOMEM, "no memory for a batch of %u samples of %u inputs", t->batch_max, t->n_inputs);
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
                 t->state == STATE_FINAL;
  if (!t->config.in_step && t->state == STATE_DONE)
    p.clock = t->shares.clocks; /* the job's: this rank's own count says little */
  p.epoch = (uint32_t)BL_MIN(between && t->epochs_done != UINT64_MAX ? t->epochs_done : t->share.epoch + 1,
                             t->config.spec->epochs);
  return p;
}

const char *wk_trainer_waits_for(const wk_trainer *t, char *out, size_t size) {
  if (t->state == STATE_HELLO || t->state == STATE_PULL || t->state == STATE_WEIGHTS || t->state == STATE_AVERAGE)
    return bl_session_waits_for(t->config.session, out, size);
  if (t->state == STATE_FINAL) {
    snprintf(out, size, "%s", "the other ranks to finish");
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
