/* SPDX-License-Identifier: Apache-2.0
 *
 * A simulated task process: the life of worker/task.c, driven by messages and time, around a real session, with
 * the toy in place of a model. Rank r says in every epoch that it saw 16^r samples, so that a sum shows which
 * ranks are in it and how often.
 */
#include "parts.h"
#include "residuals.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/num.h"
#include "support.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define STATUS_NS (500 * BL_NS_PER_MS)
#define RETRY_NS (200 * BL_NS_PER_MS)
#define LOADING_NS (300 * BL_NS_PER_MS)
#define COMPUTING_NS (60 * BL_NS_PER_MS)

bool sim_task_is_live(const sim_task *t) {
  return t->state != SIM_TASK_ENDED;
}

/* ---- speaking ---- */

static void say(sim_task *t, bl_msg_type type, const ProtobufCMessage *m) {
  bl_msg msg = BL_MSG_INIT;
  ck_assert_ok(bl_control_pack(type, m, &msg));
  ck_assert_ok(bl_transport_send(sim_transport(t->to_agent), NULL, &msg));
}

static void say_status(sim_task *t, Ballast__Control__TaskState state, const bl_error *err) {
  static const Ballast__Control__TaskState states[] = {
      [SIM_TASK_LOADING] = BALLAST__CONTROL__TASK_STATE__TASK_LOADING,
      [SIM_TASK_READY] = BALLAST__CONTROL__TASK_STATE__TASK_READY,
      [SIM_TASK_INITIAL] = BALLAST__CONTROL__TASK_STATE__TASK_READY,
      [SIM_TASK_HELLO] = BALLAST__CONTROL__TASK_STATE__TASK_RUNNING,
      [SIM_TASK_PULLING] = BALLAST__CONTROL__TASK_STATE__TASK_RUNNING,
      [SIM_TASK_PUSHING] = BALLAST__CONTROL__TASK_STATE__TASK_RUNNING,
      [SIM_TASK_COMMITTED] = BALLAST__CONTROL__TASK_STATE__TASK_RUNNING,
      [SIM_TASK_FINISHED] = BALLAST__CONTROL__TASK_STATE__TASK_RUNNING,
      [SIM_TASK_AVERAGING] = BALLAST__CONTROL__TASK_STATE__TASK_RUNNING,
      [SIM_TASK_VERDICT] = BALLAST__CONTROL__TASK_STATE__TASK_RUNNING,
      [SIM_TASK_REPORTED] = BALLAST__CONTROL__TASK_STATE__TASK_RUNNING,
  };
  if (t->start == NULL)
    return;
  Ballast__Control__TaskStatus m = BALLAST__CONTROL__TASK_STATUS__INIT;
  m.job = t->plan->job;
  m.rank = t->start->rank;
  m.incarnation = t->start->incarnation;
  m.view = t->plan->view;
  m.clock = t->clock;
  m.state = state != BALLAST__CONTROL__TASK_STATE__TASK_INVALID ? state : states[t->state];
  if (err != NULL && err->status != BL_OK) {
    m.status = (uint32_t)-err->status;
    m.text = (char *)(uintptr_t)err->text;
    m.retryable =
        err->status == BL_EUNREACHABLE || err->status == BL_ETIMEOUT || err->status == BL_EINCARNATION;
  }
  say(t, BL_MSG_TASK_STATUS, &m.base);
}

static void set_state(sim_task *t, sim_task_state state) {
  t->state = state;
  say_status(t, BALLAST__CONTROL__TASK_STATE__TASK_INVALID, NULL);
}

static void report(sim_task *t, Ballast__Control__Report *m) {
  m->job = t->plan->job;
  m->rank = t->start->rank;
  m->incarnation = t->start->incarnation;
  m->sequence = ++t->sequence;
  say(t, BL_MSG_REPORT, &m->base);
}

static void report_data(sim_task *t) {
  Ballast__Control__DataReport data = BALLAST__CONTROL__DATA_REPORT__INIT;
  data.train_samples = SIM_TRAIN_SAMPLES;
  data.fingerprint = 7;
  Ballast__Control__Report m = BALLAST__CONTROL__REPORT__INIT;
  m.data = &data;
  report(t, &m);
}

static void report_epoch(sim_task *t, uint32_t epoch) {
  Ballast__Control__Metrics train = BALLAST__CONTROL__METRICS__INIT;
  Ballast__Control__EpochReport e = BALLAST__CONTROL__EPOCH_REPORT__INIT;
  train.n = UINT64_C(1) << (4 * t->start->rank);
  e.epoch = epoch;
  e.clock = t->clock;
  e.train = &train;
  /* Early stopping: the first epoch is the best one. */
  Ballast__Control__Metrics validation = BALLAST__CONTROL__METRICS__INIT;
  validation.n = 1;
  validation.loss_sum = epoch;
  e.validation = t->spec->stop.metric != NULL ? &validation : NULL;
  Ballast__Control__Report m = BALLAST__CONTROL__REPORT__INIT;
  m.epoch = &e;
  report(t, &m);
  static const char line[] = "an epoch is over\n";
  uint64_t now_ns = sim_now(t->c->sim);
  if (t->worker->agent != NULL && t->worker->incarnation == t->worker_incarnation)
    wk_agent_on_task_output(t->worker->agent, t->process, line, sizeof line - 1, now_ns, SIM_WALL_NS + now_ns);
}

static void report_done(sim_task *t) {
  Ballast__Control__DoneReport done = BALLAST__CONTROL__DONE_REPORT__INIT;
  done.clocks = t->clock;
  done.weights_xxh3 = toy_checksum(t->table, t->weights);
  Ballast__Control__Report m = BALLAST__CONTROL__REPORT__INIT;
  m.done = &done;
  t->done = true;
  report(t, &m);
}

/* ---- ending ---- */

/* A rank whose life before lived on when its file was handed on has less than that one had: what is missing is counted. And
 * workers of version 1 leave nothing for later. */
static void note_lost(const sim_task *t) {
  sim_job *job = t->session != NULL ? cluster_job_by_id(t->c, t->plan->job) : NULL;
  for (uint32_t i = 0; job != NULL && i < t->table->n_tensors; i++)
    job->lost_residuals |= bl_session_get_tensor_stats(t->session, i).residuals_lost > 0 ||
                           !(t->table->tensors[i].policy.push.codec->exact || t->table->tensors[i].policy.feedback);
}

static void drop(sim_task *t) {
  note_lost(t);
  bl_session_free(t->session);
  t->session = NULL;
  bl_initial_free(t->initial);
  t->initial = NULL;
  for (uint32_t i = 0; i < SIM_TENSORS_MAX; i++) {
    bl_free(t->weights[i]);
    bl_free(t->grads[i]);
    t->weights[i] = t->grads[i] = NULL;
  }
  bl_free(t->shard_of_chunk);
  t->shard_of_chunk = NULL;
  bl_tensor_table_free(t->table);
  t->table = NULL;
  bl_job_spec_free(t->spec);
  t->spec = NULL;
  bl_control_free(t->plan != NULL ? &t->plan->base : NULL);
  bl_control_free(t->start != NULL ? &t->start->base : NULL);
  t->plan = NULL;
  t->start = NULL;
}

void sim_task_end(sim_task *t, uint8_t code, uint8_t signum) {
  uint8_t how[2] = {code, signum};
  bl_msg msg = BL_MSG_INIT;
  msg.head = bl_frame_copy(how, sizeof how);
  ck_assert_ptr_nonnull(msg.head);
  ck_assert_ok(bl_transport_send(sim_transport(t->to_agent), NULL, &msg));
  t->state = SIM_TASK_ENDED;
  sim_node_crash(t->node);
  drop(t);
}

static void fail_task(sim_task *t, const bl_error *err) {
  say_status(t, BALLAST__CONTROL__TASK_STATE__TASK_FAILED, err);
  sim_task_end(t, 1, 0);
}

void sim_task_free(sim_task *t) {
  drop(t);
  bl_free(t);
}

/* ---- listening ---- */

static void take_plan(sim_task *t, const Ballast__Control__JobPlan *plan) {
  if (t->plan != NULL && (plan->job != t->plan->job || plan->view < t->plan->view))
    return;
  bl_control_free(t->plan != NULL ? &t->plan->base : NULL);
  t->plan = (Ballast__Control__JobPlan *)bl_control_copy(&plan->base);
  ck_assert_ptr_nonnull(t->plan);
}

static bool is_free(const sim_task *t) { return !bl_plan_in_step(t->plan); }

static void take_leases(sim_task *t, const Ballast__Control__ReportAck *ack) {
  wk_lease leases[WK_LEASES_MAX];
  if (t->session == NULL || !is_free(t) || ack->sequence < t->lease_report || (ack->n_leases == 0 && !ack->exhausted))
    return;
  ck_assert_uint_le(ack->n_leases, WK_LEASES_MAX);
  for (size_t i = 0; i < ack->n_leases; i++) {
    const Ballast__Control__Lease *l = ack->leases[i];
    leases[i] = (wk_lease){l->first_clock, l->per_clock, l->epoch, l->first, l->end};
  }
  bl_error err = BL_ERROR_INIT;
  ck_assert_ok_err(wk_shares_take(&t->shares, leases, (uint32_t)ack->n_leases, ack->exhausted, &err), err);
  t->asked = false;
}

static void take_verdict(sim_task *t, const Ballast__Control__EpochVerdict *v) {
  if (v == NULL)
    return;
  if (v->epoch > 0 && (v->best_epoch != 1 || v->stop != (v->epoch >= 2)))
    cluster_break(t->c, "the verdict on epoch %u of job %" PRIu64 " is wrong: stop %d, best %u", v->epoch, t->plan->job,
                  v->stop, v->best_epoch);
  t->verdict_epoch = v->epoch;
  t->verdict_stop = v->stop;
}

static void task_on_msg(const bl_peer *from, bl_msg *msg, void *arg) {
  (void)from;
  sim_task *t = arg;
  bl_msg_type type;
  ProtobufCMessage *m;
  ck_assert_ok(bl_control_unpack(msg, &type, &m, NULL));
  if (type == BL_MSG_START_TASK && t->start == NULL) {
    take_plan(t, ((Ballast__Control__StartTask *)m)->plan);
    t->start = (Ballast__Control__StartTask *)m;
    return;
  }
  if (type == BL_MSG_RUN_TASK)
    t->run_view = BL_MAX(t->run_view, ((Ballast__Control__RunTask *)m)->view);
  if (type == BL_MSG_UPDATE_TASK)
    take_plan(t, ((Ballast__Control__UpdateTask *)m)->plan);
  if (type == BL_MSG_STOP_TASK)
    t->stop = true;
  if (type == BL_MSG_REPORT_ACK) {
    t->acknowledged = BL_MAX(t->acknowledged, ((Ballast__Control__ReportAck *)m)->sequence);
    take_leases(t, (const Ballast__Control__ReportAck *)m);
    take_verdict(t, ((const Ballast__Control__ReportAck *)m)->verdict);
  }
  bl_control_free(m);
}

static void shard_on_msg(const bl_peer *from, bl_msg *msg, void *arg) {
  (void)from;
  struct sim_link *link = arg;
  if (link->task->initial != NULL)
    bl_initial_on_msg(link->task->initial, link->shard, msg, sim_now(link->task->c->sim));
  else if (link->task->session != NULL)
    bl_session_on_msg(link->task->session, link->shard, msg, sim_now(link->task->c->sim));
}

/* ---- working ---- */

static void connect_shards(sim_task *t) {
  char identity[BL_PEER_ID_BYTES_MAX];
  snprintf(identity, sizeof identity, "j%" PRIu64 ".r%u.i%u", t->plan->job, t->start->rank,
           t->start->incarnation);
  for (uint32_t i = 0; i < t->plan->n_shards; i++) {
    unsigned server, shard;
    ck_assert_int_eq(sscanf(t->plan->shards[i]->endpoint, "tcp://%u:%u", &server, &shard), 2);
    t->links[i] = (struct sim_link){t, i};
    sim_socket *router = t->c->servers[server].shards[shard].router;
    t->transports[i] = sim_transport(sim_dealer(t->node, identity, router, shard_on_msg, &t->links[i]));
  }
}

static float *floats(uint64_t n) {
  float *p = bl_calloc(n, sizeof *p);
  ck_assert_ptr_nonnull(p);
  for (uint64_t i = 0; i < n; i++)
    p[i] = NAN; /* whatever is not pulled spoils everything */
  return p;
}

static void begin_initial(sim_task *t) {
  toy_initial(t->plan, t->table, t->grads);
  bl_initial_config config = {.job = t->plan->job,
                              .incarnation = t->start->incarnation,
                              .view = t->plan->view,
                              .table = t->table,
                              .shard_of_chunk = t->shard_of_chunk,
                              .n_shards = (uint32_t)t->plan->n_shards,
                              .shards = t->transports,
                              .retry_ns = RETRY_NS,
                              .values = t->grads};
  ck_assert_ok(bl_initial_new(&config, &t->initial, NULL));
}

static void end_initial(sim_task *t, uint64_t now_ns) {
  bl_initial_free(t->initial);
  t->initial = NULL;
  bl_session_start(t->session, now_ns);
  set_state(t, SIM_TASK_HELLO);
}

static void build(sim_task *t, uint64_t now_ns) {
  ck_assert_ok(bl_plan_table(t->plan, &t->table, NULL));
  for (uint32_t i = 0; i < t->table->n_tensors; i++) {
    t->weights[i] = floats(t->table->tensors[i].n_elems);
    t->grads[i] = floats(t->table->tensors[i].n_elems);
  }
  t->shard_of_chunk = bl_calloc(t->plan->n_chunk_shards, sizeof *t->shard_of_chunk);
  ck_assert_ptr_nonnull(t->shard_of_chunk);
  memcpy(t->shard_of_chunk, t->plan->chunk_shards, t->plan->n_chunk_shards * sizeof *t->shard_of_chunk);
  connect_shards(t);
  bl_session_config config = {.job = t->plan->job,
                              .rank = t->start->rank,
                              .world = t->plan->world,
                              .incarnation = t->start->incarnation,
                              .protocol_max = sim_protocol(t->old),
                              .view = t->plan->view,
                              .table = t->table,
                              .clip_global_norm = t->plan->clip_global_norm,
                              .shard_of_chunk = t->shard_of_chunk,
                              .n_shards = (uint32_t)t->plan->n_shards,
                              .shards = t->transports,
                              .free_running = is_free(t),
                              .retry_ns = RETRY_NS,
                              .weights = t->weights};
  config.seed = t->plan->seed;
  config.same_again = !is_free(t);
  config.residual_path = sim_residuals(t->plan->job, t->start->rank, t->start->incarnation);
  ck_assert_ok(bl_session_new(&config, &t->session, NULL));
  t->session_view = t->plan->view;
  wk_shares_config shares = {.in_step = !is_free(t),
                             .rank = t->start->rank,
                             .world = t->plan->world,
                             .n_train = SIM_TRAIN_SAMPLES,
                             .clock_samples = t->spec->batch,
                             .epochs = t->spec->epochs,
                             .clock_samples_max = SIM_TRAIN_SAMPLES};
  wk_shares_init(&t->shares, &shares);
  if (t->plan->initial && t->start->rank == 0)
    begin_initial(t);
  else
    bl_session_start(t->session, now_ns);
}

static void set_clock(sim_task *t) {
  t->clock = bl_session_clock(t->session);
  sim_job *job = cluster_job_by_id(t->c, t->plan->job);
  if (job == NULL)
    return;
  uint64_t *last = &job->rank_clocks[t->start->rank];
  /* An old incarnation that lives on beside a new one may be behind it; by itself nobody goes back. */
  if (t->clock < *last && t->plan->incarnations[t->start->rank] == t->start->incarnation &&
      t->plan->view == job->max_view)
    cluster_break(t->c, "rank %u of job %" PRIu64 " goes back from clock %" PRIu64 " to %" PRIu64,
                  t->start->rank, job->id, *last, t->clock);
  *last = BL_MAX(*last, t->clock);
}

/* A clock has the same samples whoever works on it. */
static void note_share(sim_task *t, const wk_share *share) {
  sim_job *job = cluster_job_by_id(t->c, t->plan->job);
  uint32_t rank = t->start->rank;
  if (job == NULL || t->clock >= SIM_FREE_CLOCKS_MAX)
    return;
  if (t->clock < job->n_clocks[rank] &&
      (job->shares[rank][t->clock].epoch != share->epoch || job->shares[rank][t->clock].first != share->first ||
       job->shares[rank][t->clock].end != share->end))
    cluster_break(t->c, "clock %" PRIu64 " of rank %u of job %" PRIu64 " has other samples now", t->clock, rank,
                  job->id);
  job->shares[rank][t->clock].epoch = share->epoch;
  job->shares[rank][t->clock].first = share->first;
  job->shares[rank][t->clock].end = share->end;
  job->n_clocks[rank] = BL_MAX(job->n_clocks[rank], t->clock + 1);
}

static void ask_for_more(sim_task *t) {
  if (t->asked || !wk_shares_wants_more(&t->shares, t->clock))
    return;
  Ballast__Control__LeaseRequest lease = BALLAST__CONTROL__LEASE_REQUEST__INIT;
  lease.clock = t->clock;
  Ballast__Control__Report m = BALLAST__CONTROL__REPORT__INIT;
  m.lease = &lease;
  t->asked = true;
  report(t, &m);
  t->lease_report = t->sequence;
}

/* Free running: false when the rank has to wait for samples, or has come to its end. */
static bool find_share(sim_task *t, uint64_t now_ns) {
  wk_share share;
  ask_for_more(t);
  wk_share_state state = wk_shares_at(&t->shares, t->clock, &share);
  if (state == WK_SHARE_END) {
    bl_session_finish(t->session, now_ns);
    t->state = SIM_TASK_FINISHED;
  }
  if (state != WK_SHARE_THERE)
    return false;
  note_share(t, &share);
  if (share.epoch > t->epochs_done)
    report_epoch(t, (uint32_t)share.epoch);
  t->epochs_done = share.epoch;
  return true;
}

static void end_free(sim_task *t) {
  sim_job *job = cluster_job_by_id(t->c, t->plan->job);
  if (job != NULL && strcmp(t->plan->optimizer->name, "sgd") == 0) {
    double far = toy_distance(t->plan, t->table, job->n_clocks, t->weights, NULL);
    if (!(far < 1e-3))
      cluster_break(t->c, "the weights of job %" PRIu64 " are %g off the sum of all gradients", job->id, far);
  }
  report_epoch(t, (uint32_t)t->spec->epochs);
  report_done(t);
  t->state = SIM_TASK_REPORTED;
}

static void compute(sim_task *t, uint64_t now_ns) {
  for (uint32_t i = 0; i < t->table->n_tensors; i++)
    toy_gradient(t->plan, i, t->table->tensors[i].n_elems, t->start->rank, t->clock,
                 is_free(t) ? NULL : t->weights[i], t->grads[i]);
  t->next_tensor = t->table->n_tensors;
  t->next_ns = now_ns + sim_random_below(t->c->sim, COMPUTING_NS);
  t->state = SIM_TASK_PUSHING;
}

/* The weights of t->clock are there. */
static void begin_clock(sim_task *t, uint64_t now_ns) {
  if (is_free(t)) {
    if (find_share(t, now_ns))
      compute(t, now_ns);
    return;
  }
  uint64_t per_epoch = t->plan->clocks / t->spec->epochs;
  bool ended = t->clock > 0 && t->clock % per_epoch == 0;
  if (ended && t->state != SIM_TASK_VERDICT)
    report_epoch(t, (uint32_t)(t->clock / per_epoch));
  if (ended && t->spec->stop.metric != NULL && t->verdict_epoch != t->clock / per_epoch) {
    t->state = SIM_TASK_VERDICT;
    return;
  }
  if (t->clock == t->plan->clocks && t->plan->average_ema > 0) {
    bl_session_pull_average(t->session, t->weights, now_ns);
    t->state = SIM_TASK_AVERAGING;
    return;
  }
  if (t->clock == t->plan->clocks || (ended && t->verdict_stop)) {
    report_done(t);
    t->state = SIM_TASK_REPORTED;
    return;
  }
  compute(t, now_ns);
}

static void push_next(sim_task *t, uint64_t now_ns) {
  uint32_t i = --t->next_tensor;
  if (is_free(t) || bl_tensor_in_clock(t->table, i, t->clock))
    bl_session_push(t->session, i, t->grads[i], now_ns);
  t->next_ns = now_ns + sim_random_below(t->c->sim, COMPUTING_NS / 4);
  if (i > 0)
    return;
  uint64_t n_elems[SIM_TENSORS_MAX];
  for (uint32_t k = 0; k < t->table->n_tensors; k++)
    n_elems[k] = t->table->tensors[k].n_elems;
  bl_session_commit(t->session, toy_scale(t->plan, t->table, t->grads, n_elems), true, 1, now_ns);
  t->state = SIM_TASK_COMMITTED;
}

static void load(sim_task *t, uint64_t now_ns) {
  static bl_conf_errors errors;
  if (t->state == SIM_TASK_WAITING) {
    set_state(t, SIM_TASK_LOADING);
    t->next_ns = now_ns + sim_random_below(t->c->sim, LOADING_NS);
    return;
  }
  const char *text = t->start->job_text;
  ck_assert_ok(bl_job_spec_parse(text, strlen(text), "job.yaml", "/", NULL, 0, &t->spec, &errors));
  report_data(t);
  set_state(t, SIM_TASK_READY);
}

static void work(sim_task *t, uint64_t now_ns) {
  bool there = t->session != NULL &&
               bl_session_weights_version(t->session) == t->clock + (t->state == SIM_TASK_COMMITTED);
  if (t->state == SIM_TASK_WAITING && t->start != NULL)
    load(t, now_ns);
  else if (t->state == SIM_TASK_LOADING && now_ns >= t->next_ns)
    load(t, now_ns);
  if (t->state == SIM_TASK_READY && t->run_view > 0 && t->plan->view >= t->run_view) {
    build(t, now_ns);
    set_state(t, t->initial != NULL ? SIM_TASK_INITIAL : SIM_TASK_HELLO);
  } else if (t->state == SIM_TASK_INITIAL && bl_initial_is_done(t->initial)) {
    end_initial(t, now_ns);
  } else if (t->state == SIM_TASK_HELLO && bl_session_is_ready(t->session)) {
    set_clock(t);
    bl_session_pull(t->session, t->clock, now_ns);
    t->state = t->clock == BL_CLOCK_FINISHED ? SIM_TASK_FINISHED : SIM_TASK_PULLING;
  } else if (t->state == SIM_TASK_FINISHED && bl_session_weights_version(t->session) == BL_CLOCK_FINISHED) {
    end_free(t);
  } else if (t->state == SIM_TASK_AVERAGING && bl_session_average_is_there(t->session)) {
    report_done(t);
    t->state = SIM_TASK_REPORTED;
  } else if (t->state == SIM_TASK_PULLING && there) {
    begin_clock(t, now_ns);
  } else if (t->state == SIM_TASK_VERDICT && t->verdict_epoch == t->clock / (t->plan->clocks / t->spec->epochs)) {
    begin_clock(t, now_ns);
  } else if (t->state == SIM_TASK_PUSHING && now_ns >= t->next_ns) {
    push_next(t, now_ns);
  } else if (t->state == SIM_TASK_COMMITTED && there && bl_session_gradients_free(t->session)) {
    set_clock(t);
    t->state = SIM_TASK_PULLING;
    begin_clock(t, now_ns);
  }
}

static uint64_t tick_session(sim_task *t, uint64_t now_ns, bl_error *err) {
  if (t->session == NULL)
    return UINT64_MAX;
  if (t->initial != NULL) {
    bl_initial_set_view(t->initial, t->plan->view, now_ns);
    uint64_t due = bl_initial_tick(t->initial, now_ns);
    (void)!bl_initial_status(t->initial, err);
    return due;
  }
  if (t->plan->view > t->session_view) {
    t->session_view = t->plan->view;
    bl_session_set_view(t->session, t->session_view, now_ns);
  }
  uint64_t next = bl_session_tick(t->session, now_ns);
  (void)!bl_session_status(t->session, err);
  return next;
}

static uint64_t task_tick(void *arg, uint64_t now_ns) {
  sim_task *t = arg;
  bl_error err = BL_ERROR_INIT;
  uint64_t next = tick_session(t, now_ns, &err);
  if (err.status != BL_OK && !t->done) {
    fail_task(t, &err);
    return UINT64_MAX;
  }
  if (t->stop || (t->done && t->acknowledged >= t->sequence)) {
    say_status(t,
               t->done ? BALLAST__CONTROL__TASK_STATE__TASK_DONE : BALLAST__CONTROL__TASK_STATE__TASK_STOPPED,
               NULL);
    sim_task_end(t, 0, 0);
    return UINT64_MAX;
  }
  work(t, now_ns);
  if (now_ns >= t->status_at_ns) {
    if (t->state != SIM_TASK_WAITING)
      say_status(t, BALLAST__CONTROL__TASK_STATE__TASK_INVALID, NULL);
    t->status_at_ns = now_ns + STATUS_NS;
  }
  if (t->session != NULL && t->initial == NULL)
    next = BL_MIN(next, bl_session_tick(t->session, now_ns));
  if (t->state == SIM_TASK_LOADING || t->state == SIM_TASK_PUSHING)
    next = BL_MIN(next, t->next_ns);
  return BL_MIN(next, t->status_at_ns);
}

/* ---- starting ---- */

static void agent_on_msg(const bl_peer *from, bl_msg *msg, void *arg) {
  (void)from;
  sim_task *t = arg;
  uint64_t now_ns = sim_now(t->c->sim);
  if (msg->head->size == 2)
    wk_agent_on_task_exit(t->worker->agent, t->process, msg->head->data[0], msg->head->data[1], now_ns);
  else
    wk_agent_on_task_msg(t->worker->agent, t->process, msg, now_ns);
}

bl_status sim_task_start(sim_worker *w, const wk_launch *what) {
  cluster *c = w->c;
  if (c->n_tasks == SIM_TASKS_MAX) {
    cluster_break(c, "more than %d tasks were started", SIM_TASKS_MAX);
    return BL_ELIMIT;
  }
  char name[32];
  sim_task *t = bl_calloc(1, sizeof *t);
  ck_assert_ptr_nonnull(t);
  t->c = c;
  t->worker = w;
  t->worker_incarnation = w->incarnation;
  t->process = what->process;
  snprintf(name, sizeof name, "j%" PRIu64 ".r%u.i%u", what->job, what->rank, what->incarnation);
  t->node = sim_node_new(c->sim, name, task_tick, t);
  t->old = sim_worker_is_old(w);
  sim_set_old(c, t->node, t->old);
  sim_pipe(&(sim_end){t->node, task_on_msg, t}, &(sim_end){w->node, agent_on_msg, t}, &t->to_agent,
           &t->of_agent);
  t->status_at_ns = sim_now(c->sim) + STATUS_NS;
  c->tasks[c->n_tasks++] = t;
  return BL_OK;
}
