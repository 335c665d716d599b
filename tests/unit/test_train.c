/* SPDX-License-Identifier: Apache-2.0
 *
 * Trainers, sessions and shards in one process over queues instead of sockets: the same weights as plain SGD,
 * the same bits for any number of shards and after the loss of a rank.
 */
#include "base/alloc.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/rng.h"
#include "client/session.h"
#include "codec/spec.h"
#include "coordinator/ledger.h"
#include "data/shuffle.h"
#include "job/plan.h"
#include "kernel/kernel.h"
#include "model_folder.h"
#include "predict.h"
#include "server/shard.h"
#include "tests/support/support.h"
#include "train/local_steps.h"
#include "train/trainer.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SHARDS_MAX 3
#define RANKS_MAX 8
#define QUEUE_MAX 4096
#define ROWS 60
#define TEST_ROWS 25
#define TENSORS_MAX 8
#define WEIGHTS_MAX 8192
#define EPOCHS_MAX 8

/* ---- a cluster without sockets ------------------------------------------------------------------------ */

typedef struct cluster cluster;

typedef struct end {
  bl_transport transport; /* first */
  cluster *c;
  uint32_t rank, shard;
  bool of_shard;
} end;

typedef struct packet {
  bl_msg msg;
  uint32_t rank, incarnation, shard;
  bool to_shard;
} packet;

typedef struct rank_state {
  cluster *c;
  uint32_t rank, incarnation;
  wk_model *model;
  float **held;
  bl_session *session;
  wk_trainer *trainer;
  end ends[SHARDS_MAX];
  bl_transport *transports[SHARDS_MAX];
  uint64_t tick_ns;
  wk_turn turn;
  wk_epoch_result epochs[EPOCHS_MAX];
  size_t n_epochs;
  bool wants_lease, clips_locally;
  uint64_t moments_lost_at; /* 0: never */
} rank_state;

struct cluster {
  uint64_t now;
  uint32_t n_ranks, n_shards;
  uint64_t view;
  bl_job_spec *spec;
  bl_tensor_table *table;
  wk_preprocess *pre;
  wk_dataset *train, *test;
  wk_dataset *own[RANKS_MAX];       /* training sets of ranks from 1, where: local */
  uint64_t rank_samples[RANKS_MAX]; /* the same: counts of all */
  uint32_t *shard_of_chunk;
  srv_shard *shards[SHARDS_MAX];
  end shard_ends[SHARDS_MAX];
  rank_state ranks[RANKS_MAX];
  packet *queue;
  size_t first, n;
  uint64_t loss_key, n_delivered, n_lost; /* key 0: nothing is lost */
  co_ledger *ledger;
};

static bl_status end_send(bl_transport *t, const bl_peer *to, bl_msg *msg) {
  end *e = (end *)t;
  cluster *c = e->c;
  ck_assert_uint_lt(c->n, QUEUE_MAX);
  packet *p = &c->queue[(c->first + c->n++) % QUEUE_MAX];
  *p = (packet){.msg = BL_MSG_INIT, .rank = e->rank, .shard = e->shard, .to_shard = !e->of_shard};
  p->incarnation = e->of_shard ? 0 : c->ranks[e->rank].incarnation;
  if (e->of_shard) {
    ck_assert_uint_eq(to->id_size, 2);
    p->rank = to->id[0];
    p->incarnation = to->id[1];
  }
  bl_msg_move(&p->msg, msg);
  return BL_OK;
}

static void tick_shards(cluster *c) {
  for (uint32_t i = 0; i < c->n_shards; i++) {
    while (srv_shard_tick(c->shards[i], c->now) <= c->now)
      continue;
  }
}

static bool deliver_one(cluster *c) {
  if (c->n == 0)
    return false;
  packet p = c->queue[c->first];
  c->first = (c->first + 1) % QUEUE_MAX;
  c->n--;
  if (c->loss_key != 0 && bl_rng_below(c->loss_key, 0, c->n_delivered++, 10) == 0) {
    c->n_lost++;
    bl_msg_fini(&p.msg);
    return true;
  }
  if (p.to_shard) {
    bl_peer from = {.id = {(uint8_t)p.rank, (uint8_t)p.incarnation}, .id_size = 2};
    srv_shard_on_msg(c->shards[p.shard], &from, &p.msg, c->now);
    tick_shards(c);
  } else if (c->ranks[p.rank].session != NULL && c->ranks[p.rank].incarnation == p.incarnation) {
    bl_session_on_msg(c->ranks[p.rank].session, p.shard, &p.msg, c->now);
  }
  bl_msg_fini(&p.msg);
  return true;
}

static uint64_t now_of(void *arg) { return ((rank_state *)arg)->c->now; }
static void poll_of(void *arg) { deliver_one(((rank_state *)arg)->c); }

static void on_epoch(const wk_epoch_result *r, void *arg) {
  rank_state *s = arg;
  ck_assert_uint_lt(s->n_epochs, EPOCHS_MAX);
  s->epochs[s->n_epochs++] = *r;
}

static void on_lease_wanted(uint64_t clock, double samples_per_second, void *arg) {
  rank_state *s = arg;
  cluster *c = s->c;
  co_ledger_entry e;
  co_ledger_plan(c->ledger, s->rank, clock, samples_per_second, &e);
  ck_assert_ok(co_ledger_apply(c->ledger, s->rank, &e));
  s->wants_lease = true; /* the answer comes later, as it does */
}

static void on_moments_lost(uint64_t clock, void *arg) {
  rank_state *s = arg;
  s->moments_lost_at = clock;
}

static void give_leases(rank_state *s) {
  const co_lease *leases;
  wk_lease given[CO_LEASES_MAX];
  uint32_t n = co_ledger_leases(s->c->ledger, s->rank, &leases);
  for (uint32_t i = 0; i < n; i++)
    given[i] = (wk_lease){leases[i].first_clock, leases[i].per_clock, leases[i].epoch, leases[i].first, leases[i].end};
  s->wants_lease = false;
  wk_trainer_take_leases(s->trainer, given, n, co_ledger_is_exhausted(s->c->ledger));
}

/* ---- job ---------------------------------------------------------------------------------------------- */

static void write_rows(const char *path, uint64_t seed, unsigned rows, bool classes) {
  bl_buf text = BL_BUF_INIT;
  bl_buf_add_str(&text, "a,b,c,d,y\n");
  uint64_t key = bl_rng_key(seed, BL_RNG_DATA);
  for (unsigned i = 0; i < rows; i++) {
    double v[4], sum = 0;
    for (unsigned k = 0; k < 4; k++) {
      v[k] = (double)bl_rng_normal(key, i, k);
      sum += v[k] * (k + 1);
      bl_buf_printf(&text, "%.6f,", v[k]);
    }
    if (classes)
      bl_buf_printf(&text, "%d\n", sum > 1 ? 2 : sum > -1 ? 1 : 0);
    else
      bl_buf_printf(&text, "%.6f\n", 3 * sum + 10);
  }
  bl_error err = BL_ERROR_INIT;
  ck_assert_ok_err(bl_file_write_atomic(path, text.data, text.size, 0644, &err), err);
  bl_buf_fini(&text);
}

typedef struct job_options {
  uint32_t ranks, shards;
  const char *optimizer, *extra;
  bool values;
  const char *sync; /* NULL: bsp */
  bool local; /* rank r has LOCAL_ROWS(r) rows of its own, 10 % of them for validation */
} job_options;

#define LOCAL_ROWS(rank) ((rank) == 0 ? (unsigned)ROWS : 20 + 11 * (rank)) /* 31, 42: fewer clocks than rank 0 */

/* As --set, for the jobs that are made from now on. */
static const char *const *overrides;
static size_t n_overrides;

static bl_job_spec *parse_job(const char *dir, const job_options *o) {
  static char text[4096];
  static bl_conf_errors errors;
  char train[256], test[256];
  snprintf(train, sizeof train, "%s/train.csv", dir);
  snprintf(test, sizeof test, "%s/test.csv", dir);
  write_rows(train, 1, ROWS, !o->values);
  write_rows(test, 2, TEST_ROWS, !o->values);
  snprintf(text, sizeof text,
           "name: small\nseed: 5\ndata:\n  where: %s\n  normalize: %s\n  train: {csv: {path: %s, header: true, target: y}}\n"
           "  test: {csv: {path: %s, header: true, target: y}}\n  validation: 10 %%\n"
           "model:\n  input: [4]\n  layers: [dense 300 tanh, dense %d]\n"
           "loss: %s\noptimizer: %s\nbatch: 16\nepochs: 3\nranks: %u\nsync: %s\nchunk: 4 KiB\n%s\n",
           o->local ? "local" : "shared", o->local ? "none" : "standard", train, test, o->values ? 1 : 3, o->values ? "squared" : "softmax_cross_entropy", o->optimizer, o->ranks,
           o->sync != NULL ? o->sync : "bsp", o->extra);
  bl_job_spec *spec = NULL;
  bl_status status = bl_job_spec_parse(text, strlen(text), "job.yaml", dir, overrides, n_overrides, &spec, &errors);
  ck_assert_msg(status == BL_OK, "%s", errors.n > 0 ? errors.at[0].text : bl_status_name(status));
  return spec;
}

/* The coordinator's part: a plan with chunk c on shard c mod n. */
static void open_view(cluster *c) {
  static Ballast__Control__Tensor tensors[TENSORS_MAX], *tensor_list[TENSORS_MAX];
  static Ballast__Control__ShardRef refs[SHARDS_MAX], *ref_list[SHARDS_MAX];
  static Ballast__Control__KeyValue params[16], *param_list[16];
  static char names[SHARDS_MAX][16];
  uint32_t incarnations[RANKS_MAX];
  Ballast__Control__JobPlan plan = BALLAST__CONTROL__JOB_PLAN__INIT;
  Ballast__Control__Rule optimizer = BALLAST__CONTROL__RULE__INIT, schedule = BALLAST__CONTROL__RULE__INIT;
  for (uint32_t i = 0; i < c->table->n_tensors; i++) {
    ballast__control__tensor__init(&tensors[i]);
    tensors[i].name = (char *)c->table->tensors[i].name;
    tensors[i].n_dims = c->table->tensors[i].n_dims;
    tensors[i].dims = c->table->tensors[i].dims;
    tensors[i].init = c->table->tensors[i].init;
    tensors[i].init_scale = c->table->tensors[i].init_scale;
    tensors[i].no_decay = c->table->tensors[i].no_decay;
    bl_update_group group = bl_job_server_group(c->spec, c->table->tensors[i].group);
    tensors[i].grouped = group.set;
    tensors[i].lr_scale = group.lr_scale;
    tensors[i].weight_decay = group.weight_decay;
    tensors[i].frozen = group.frozen;
    tensor_list[i] = &tensors[i];
  }
  for (uint32_t i = 0; i < c->n_shards; i++) {
    ballast__control__shard_ref__init(&refs[i]);
    snprintf(names[i], sizeof names[i], "s%u", i);
    refs[i].server = names[i];
    refs[i].endpoint = (char *)"inproc";
    ref_list[i] = &refs[i];
  }
  bl_job_rule rule = bl_job_server_rule(c->spec);
  for (size_t i = 0; i < rule.n_params; i++) {
    ballast__control__key_value__init(&params[i]);
    params[i].key = (char *)rule.params[i].key;
    params[i].value = rule.params[i].value;
    param_list[i] = &params[i];
  }
  for (uint32_t i = 0; i < c->n_ranks; i++)
    incarnations[i] = c->ranks[i].incarnation;
  optimizer.name = (char *)rule.name;
  optimizer.n_params = rule.n_params;
  optimizer.params = param_list;
  schedule.name = (char *)bl_job_server_schedule(c->spec).name;
  plan.job = 7;
  plan.name = (char *)"small";
  plan.seed = c->spec->seed;
  plan.world = c->n_ranks;
  plan.view = c->view;
  plan.n_incarnations = c->n_ranks;
  plan.incarnations = incarnations;
  plan.n_tensors = c->table->n_tensors;
  plan.tensors = tensor_list;
  plan.chunk_elems = c->table->chunk_elems;
  plan.n_shards = c->n_shards;
  plan.shards = ref_list;
  plan.n_chunk_shards = c->table->n_chunks;
  plan.chunk_shards = c->shard_of_chunk;
  plan.optimizer = &optimizer;
  plan.schedule = &schedule;
  bool steps_there = c->spec->local_steps == 0;
  plan.clip_norm = steps_there ? c->spec->clip_norm : 0;
  plan.clip_global_norm = c->spec->clip_global_norm;
  plan.average_ema = c->spec->average_ema;
  plan.clip_value = steps_there ? c->spec->clip_value : 0;
  plan.sync = (char *)c->spec->sync;
  plan.staleness = c->spec->staleness;
  plan.clock_samples = bl_job_clock_samples(c->spec);
  char push[BL_CODEC_TEXT_MAX], pull[BL_CODEC_TEXT_MAX];
  static char codecs[2 * TENSORS_MAX][BL_CODEC_TEXT_MAX];
  for (uint32_t i = 0; i < c->table->n_tensors; i++) {
    const bl_tensor_policy *p = &c->table->tensors[i].policy;
    tensors[i].codec_push = (char *)(uintptr_t)bl_codec_spec_write(&p->push, codecs[2 * i]);
    tensors[i].codec_pull = (char *)(uintptr_t)bl_codec_spec_write(&p->pull, codecs[2 * i + 1]);
  }
  plan.codec_push = (char *)(uintptr_t)bl_codec_spec_write(&c->spec->compression.push, push);
  plan.codec_pull = (char *)(uintptr_t)bl_codec_spec_write(&c->spec->compression.pull, pull);
  plan.feedback = c->spec->compression.feedback;
  plan.momentum_correction = c->spec->compression.momentum_correction;
  plan.not_finite = (uint32_t)c->spec->not_finite;
  plan.clocks = bl_job_clocks(wk_train_part(ROWS, c->spec->data.validation), bl_job_clock_samples(c->spec), c->spec->epochs);
  if (c->spec->data.where == BL_DATA_LOCAL) {
    plan.clocks = bl_job_clocks_local(c->rank_samples, c->n_ranks, bl_job_clock_samples(c->spec), c->spec->epochs);
    plan.rank_samples = c->rank_samples;
    plan.n_rank_samples = c->n_ranks;
  }
  plan.streams = c->spec->local_steps > 0 && c->spec->outer.streams > 1 ? c->spec->outer.streams : 0;
  bl_tensor_table_set_streams(c->table, plan.streams, plan.clocks);
  bl_error err = BL_ERROR_INIT;
  for (uint32_t i = 0; i < c->n_shards; i++)
    ck_assert_ok_err(srv_shard_open_job(c->shards[i], &plan, &err), err);
  tick_shards(c);
}

static void start_rank(cluster *c, uint32_t rank, uint32_t incarnation) {
  rank_state *r = &c->ranks[rank];
  bl_error err = BL_ERROR_INIT;
  r->c = c;
  r->rank = rank;
  r->incarnation = incarnation;
  r->turn = WK_TURN_WORKED;
  ck_assert_ok_err(wk_model_new(&c->spec->model, c->spec->loss, c->table, wk_trainer_batch_max(c->spec, c->n_ranks),
                                true, &r->model, &err),
                   err);
  r->held = bl_job_holds_weights(c->spec) ? wk_held_weights_new(c->table) : NULL;
  for (uint32_t i = 0; i < c->n_shards; i++) {
    r->ends[i] = (end){.transport = {end_send}, .c = c, .rank = rank, .shard = i};
    r->transports[i] = &r->ends[i].transport;
  }
  bl_session_config session = {.job = 7,
                               .rank = rank,
                               .world = c->n_ranks,
                               .incarnation = incarnation,
                               .view = c->view,
                               .table = c->table,
                               .clip_global_norm = c->spec->clip_global_norm,
                               .shard_of_chunk = c->shard_of_chunk,
                               .n_shards = c->n_shards,
                               .shards = r->transports,
                               .skips = c->spec->not_finite == BL_NOT_FINITE_SKIP,
                               .free_running = !bl_sync_in_step(c->spec->sync),
                               .retry_ns = BL_NS_PER_S,
                               .weights = r->held != NULL ? r->held : wk_model_params(r->model)};
  ck_assert_ok_err(bl_session_new(&session, &r->session, &err), err);
  wk_trainer_config trainer = {.spec = c->spec,
                               .rank = rank,
                               .world = c->n_ranks,
                               .in_step = bl_sync_in_step(c->spec->sync),
                               .rank_samples = c->spec->data.where == BL_DATA_LOCAL ? c->rank_samples : NULL,
                               .table = c->table,
                               .held = r->held,
                               .model = r->model,
                               .train = c->own[rank] != NULL ? c->own[rank] : c->train,
                               .test = c->test,
                               .squared_error_factor = wk_preprocess_target_variance(c->pre),
                               .session = r->session,
                               .clips_locally = r->clips_locally,
                               .waits_for_verdict = c->spec->stop.metric != NULL,
                               .env = {now_of, poll_of, on_epoch, on_lease_wanted, on_moments_lost, r}};
  ck_assert_ok_err(wk_trainer_new(&trainer, &r->trainer, &err), err);
}

static void stop_rank(cluster *c, uint32_t rank) {
  rank_state *r = &c->ranks[rank];
  wk_trainer_free(r->trainer);
  bl_session_free(r->session);
  wk_model_free(r->model);
  wk_held_weights_free(r->held, c->table);
  *r = (rank_state){0};
}

/* Training sets of the ranks from 1, as if each lay at the same path on a worker of its own. */
static void open_own(cluster *c, const job_options *o) {
  bl_error err = BL_ERROR_INIT;
  for (uint32_t r = 0; r < o->ranks; r++) {
    c->rank_samples[r] = wk_train_part(LOCAL_ROWS(r), c->spec->data.validation);
    if (r == 0)
      continue;
    wk_preprocess *pre;
    write_rows(c->spec->data.train.paths[0], 100 + r, LOCAL_ROWS(r), !o->values);
    ck_assert_ok_err(wk_dataset_open_train(c->spec, 4, o->values ? 1 : 3, &c->own[r], &pre, &err), err);
    wk_preprocess_free(pre);
  }
}

static cluster *cluster_new(const job_options *o) {
  cluster *c = calloc(1, sizeof *c);
  bl_error err = BL_ERROR_INIT;
  c->now = 100 * BL_NS_PER_S;
  c->queue = calloc(QUEUE_MAX, sizeof *c->queue);
  c->n_ranks = o->ranks;
  c->n_shards = o->shards;
  c->view = 1;
  c->spec = parse_job(test_temp_dir(), o);
  ck_assert_ok_err(bl_tensor_table_of_job(c->spec, &c->table, &err), err);
  ck_assert_uint_gt(c->table->n_chunks, c->table->n_tensors);
  c->shard_of_chunk = calloc(c->table->n_chunks, sizeof *c->shard_of_chunk);
  for (uint32_t i = 0; i < c->table->n_chunks; i++)
    c->shard_of_chunk[i] = i % o->shards;
  ck_assert_ok_err(wk_dataset_open_train(c->spec, 4, o->values ? 1 : 3, &c->train, &c->pre, &err), err);
  ck_assert_ok_err(wk_dataset_open(&c->spec->data.test, c->pre, true, &c->test, &err), err);
  if (o->local)
    open_own(c, o);
  for (uint32_t i = 0; i < o->shards; i++) {
    static char names[SHARDS_MAX][16];
    snprintf(names[i], sizeof names[i], "s%u", i);
    c->shard_ends[i] = (end){.transport = {end_send}, .c = c, .shard = i, .of_shard = true};
    srv_shard_config config = {.server = names[i],
                               .window_bytes = 1 << 20,
                               .hold_bytes_max = 64 << 20,
                               .log_bytes_max = 64 << 20,
                               .transport = &c->shard_ends[i].transport};
    ck_assert_ok_err(srv_shard_new(&config, &c->shards[i], &err), err);
  }
  co_ledger_config ledger = {.n_train = wk_train_part(ROWS, c->spec->data.validation),
                             .clock_samples = bl_job_clock_samples(c->spec),
                             .epochs = c->spec->epochs,
                             .world = o->ranks,
                             .adapts = strcmp(c->spec->sync, "ssp") == 0};
  c->ledger = co_ledger_new(&ledger);
  ck_assert_ptr_nonnull(c->ledger);
  for (uint32_t i = 0; i < o->ranks; i++)
    c->ranks[i].incarnation = 1;
  open_view(c);
  for (uint32_t i = 0; i < o->ranks; i++)
    start_rank(c, i, 1);
  return c;
}

static void cluster_free(cluster *c) {
  for (uint32_t i = 0; i < c->n_ranks; i++)
    stop_rank(c, i);
  for (; c->n > 0; c->n--, c->first = (c->first + 1) % QUEUE_MAX)
    bl_msg_fini(&c->queue[c->first].msg);
  for (uint32_t i = 0; i < c->n_shards; i++)
    srv_shard_free(c->shards[i]);
  for (uint32_t i = 0; i < RANKS_MAX; i++)
    wk_dataset_free(c->own[i]);
  wk_dataset_free(c->train);
  wk_dataset_free(c->test);
  wk_preprocess_free(c->pre);
  co_ledger_free(c->ledger);
  bl_tensor_table_free(c->table);
  bl_job_spec_free(c->spec);
  free(c->shard_of_chunk);
  free(c->queue);
  free(c);
}

/* One turn of every rank, what was sent is delivered, and time goes on when nothing happens. True while some
 * rank has work. */
static bool round_of(cluster *c) {
  bool busy = false, worked = false;
  for (uint32_t i = 0; i < c->n_ranks; i++) {
    rank_state *r = &c->ranks[i];
    if (r->trainer == NULL || r->turn == WK_TURN_DONE || r->turn == WK_TURN_FAILED)
      continue;
    busy = true;
    if (r->wants_lease)
      give_leases(r);
    r->turn = wk_trainer_turn(r->trainer);
    worked |= r->turn == WK_TURN_WORKED;
    if (c->now >= r->tick_ns)
      r->tick_ns = bl_session_tick(r->session, c->now);
  }
  tick_shards(c);
  bool delivered = false;
  while (deliver_one(c))
    delivered = true;
  if (!worked && !delivered)
    c->now += 100 * BL_NS_PER_MS;
  return busy;
}

static void run(cluster *c) {
  uint64_t end_ns = c->now + 1000 * BL_NS_PER_S; /* of its own time */
  while (round_of(c))
    ck_assert_uint_lt(c->now, end_ns);
}

static void assert_done(const cluster *c) {
  for (uint32_t i = 0; i < c->n_ranks; i++) {
    bl_error err = BL_ERROR_INIT;
    ck_assert_msg(c->ranks[i].turn == WK_TURN_DONE, "rank %u: %s %s", i,
                  bl_status_name(wk_trainer_status(c->ranks[i].trainer, &err)), err.text);
  }
}

static size_t weights_of(const cluster *c, uint32_t rank, float *out) {
  size_t n = 0;
  for (uint32_t i = 0; i < c->table->n_tensors; i++) {
    memcpy(out + n, wk_model_params(c->ranks[rank].model)[i], c->table->tensors[i].n_elems * sizeof(float));
    n += c->table->tensors[i].n_elems;
  }
  ck_assert_uint_le(n, WEIGHTS_MAX);
  return n;
}

/* ---- the definition: one process, one model, w -= lr * g ------------------------------------------------- */

/* sum of decay^(t - i) w_i, and of the factors: their quotient is the average. */
typedef struct plain_average {
  double sum[WEIGHTS_MAX], factors;
} plain_average;

static void add_to_average(plain_average *a, double decay, const bl_tensor_table *t, float *const *w) {
  size_t n = 0;
  a->factors = a->factors * decay + 1;
  for (uint32_t i = 0; i < t->n_tensors; i++)
    for (uint64_t k = 0; k < t->tensors[i].n_elems; k++, n++)
      a->sum[n] = a->sum[n] * decay + (double)w[i][k];
}

static uint64_t skipped_clock = UINT64_MAX; /* in which plain_sgd does nothing */

static size_t plain_sgd(const job_options *o, double lr, float *out) {
  static plain_average average;
  average = (plain_average){.factors = 0};
  uint64_t n_clocks = 0;
  cluster *c = cluster_new(&(job_options){1, 1, o->optimizer, o->extra, o->values, NULL, false});
  const bl_job_spec *spec = c->spec;
  wk_model *model;
  bl_error err = BL_ERROR_INIT;
  ck_assert_ok_err(wk_model_new(&spec->model, spec->loss, c->table, 64, true, &model, &err), err);
  float *const *w = wk_model_params(model), *const *g = wk_model_grads(model);
  for (uint32_t i = 0; i < c->table->n_tensors; i++)
    bl_tensor_init_values(&c->table->tensors[i], spec->seed, 0, c->table->tensors[i].n_elems, w[i]);
  uint64_t n_train = wk_train_part(ROWS, spec->data.validation), batch = bl_job_clock_samples(spec);
  for (uint64_t epoch = 0; epoch < spec->epochs; epoch++) {
    wk_permutation order;
    wk_permutation_init(&order, n_train, spec->seed, epoch, true);
    for (uint64_t first = 0; first < n_train; first += batch) {
      uint64_t indices[64];
      float x[64 * 4], values[64];
      uint32_t labels[64], n = (uint32_t)(n_train - first < batch ? n_train - first : batch);
      for (uint32_t i = 0; i < n; i++)
        indices[i] = wk_permutation_at(&order, first + i);
      wk_dataset_fetch(c->train, indices, n, x, labels, values);
      wk_step_id step = {spec->seed, 0, 0};
      wk_model_forward(model, x, n, &step);
      wk_model_backward(model, labels, values, n, n, NULL, NULL);
      if (n_clocks++ == skipped_clock)
        continue;
      double squares = 0;
      for (uint32_t i = 0; i < c->table->n_tensors; i++)
        squares += bl_kernels_get()->sum_squares(g[i], c->table->tensors[i].n_elems);
      float scale = spec->clip_norm > 0 && sqrt(squares) > spec->clip_norm ? (float)(spec->clip_norm / sqrt(squares)) : 1;
      for (uint32_t i = 0; i < c->table->n_tensors; i++) {
        for (uint64_t k = 0; k < c->table->tensors[i].n_elems; k++)
          w[i][k] -= (float)lr * scale * g[i][k];
      }
      add_to_average(&average, spec->average_ema, c->table, w);
    }
  }
  size_t n = 0;
  for (uint32_t i = 0; i < c->table->n_tensors; i++) {
    memcpy(out + n, w[i], c->table->tensors[i].n_elems * sizeof(float));
    n += c->table->tensors[i].n_elems;
  }
  for (size_t i = 0; i < n && spec->average_ema > 0; i++)
    out[i] = (float)(average.sum[i] / average.factors);
  wk_model_free(model);
  cluster_free(c);
  return n;
}

static void assert_near(const float *a, const float *b, size_t n) {
  for (size_t i = 0; i < n; i++)
    ck_assert_msg(fabsf(a[i] - b[i]) < 2e-5f, "weight %zu: %.9g and %.9g", i, (double)a[i], (double)b[i]);
}

/* ---- tests -------------------------------------------------------------------------------------------- */

static float expected[WEIGHTS_MAX], got[WEIGHTS_MAX], first_bits[WEIGHTS_MAX];

static const uint32_t rank_counts[] = {1, 2, 3, 8}; /* 8 ranks: some have no sample in the last clock of 6 */

START_TEST(any_number_of_ranks_and_shards_does_plain_sgd) {
  job_options o = {rank_counts[_i], 1, "{sgd: {lr: 0.1}}", "", false};
  size_t n = plain_sgd(&o, 0.1, expected);
  for (o.shards = 1; o.shards <= SHARDS_MAX; o.shards++) {
    cluster *c = cluster_new(&o);
    run(c);
    assert_done(c);
    weights_of(c, 0, got);
    assert_near(got, expected, n);
    if (o.shards == 1)
      memcpy(first_bits, got, n * sizeof(float));
    ck_assert_mem_eq(got, first_bits, n * sizeof(float));
    for (uint32_t i = 1; i < o.ranks; i++) {
      weights_of(c, i, got);
      ck_assert_mem_eq(got, first_bits, n * sizeof(float));
    }
    cluster_free(c);
  }
}
END_TEST

/* ---- ranks that run free --------------------------------------------------------------------------------- */

static const job_options free_jobs[] = {
    {3, 2, "{sgd: {lr: 0.05}}", "", false, "asp", false},
    {3, 2, "{sgd: {lr: 0.05}}", "", false, "{ssp: {staleness: 2}}", false},
    {1, 1, "{adam: {lr: 0.01}}", "", false, "{ssp: {staleness: 0}}", false},
    {8, 3, "{adam: {lr: 0.01}}", "", true, "asp", false},
    {4, 2, "{sgd: {lr: 0.05}}", "", false, "asp", true},
    {2, 2, "{sgd: {lr: 0.05}}", "accumulate: 2\n", false, "{ssp: {staleness: 1}}", false},
};

static void assert_trained(cluster *c) {
  uint64_t n = 0, in_epoch = 0, validated = 0;
  assert_done(c);
  size_t n_weights = weights_of(c, 0, expected);
  for (uint32_t i = 0; i < c->n_ranks; i++) {
    const rank_state *r = &c->ranks[i];
    weights_of(c, i, got);
    ck_assert_mem_eq(got, expected, n_weights * sizeof(float));
    ck_assert_uint_ge(r->n_epochs, 1);
    ck_assert_uint_eq(r->epochs[r->n_epochs - 1].epoch, c->spec->epochs);
    validated += r->epochs[r->n_epochs - 1].validation.n;
    for (size_t e = 0; e < r->n_epochs; e++)
      n += r->epochs[e].train.n;
    in_epoch += c->spec->data.where == BL_DATA_LOCAL ? c->rank_samples[i] : 0;
  }
  uint64_t all = wk_train_part(ROWS, c->spec->data.validation);
  ck_assert_uint_eq(n, (in_epoch > 0 ? in_epoch : all) * c->spec->epochs);
  if (in_epoch == 0)
    ck_assert_uint_eq(validated, ROWS - all);
}

START_TEST(free_ranks_share_every_epoch_and_end_with_the_same_weights) {
  job_options o = free_jobs[_i];
  cluster *c = cluster_new(&o);
  c->loss_key = _i % 2 == 1 ? 5 : 0;
  run(c);
  assert_trained(c);
  cluster_free(c);
}
END_TEST

START_TEST(a_replaced_free_rank_goes_on_in_its_lease) {
  job_options o = free_jobs[_i];
  cluster *c = cluster_new(&o);
  for (int i = 0; i < 12; i++)
    round_of(c);
  uint64_t before = bl_session_clock(c->ranks[1].session);
  ck_assert_uint_gt(before, 0);
  stop_rank(c, 1);
  c->view++;
  c->ranks[1].incarnation = 2;
  open_view(c);
  start_rank(c, 1, 2);
  for (uint32_t i = 0; i < c->n_ranks; i++)
    if (i != 1)
      bl_session_set_view(c->ranks[i].session, c->view, c->now);
  run(c);
  assert_done(c);
  size_t n = weights_of(c, 0, expected);
  weights_of(c, 1, got);
  ck_assert_mem_eq(got, expected, n * sizeof(float));
  cluster_free(c);
}
END_TEST

/* ---- clipping by the norm of all ranks ------------------------------------------------------------------- */

/* With any number of ranks it is what one process does that sees the whole batch. */
START_TEST(ranks_clip_by_the_norm_of_the_whole_batch) {
  job_options o = {rank_counts[_i], 1, "{sgd: {lr: 0.1}}", "clip: {global_norm: 0.2}", false};
  job_options whole = {1, 1, o.optimizer, "clip: {norm: 0.2}", false}, unclipped = {1, 1, o.optimizer, "", false};
  size_t n = plain_sgd(&unclipped, 0.1, got);
  ck_assert_uint_eq(plain_sgd(&whole, 0.1, expected), n);
  ck_assert(memcmp(got, expected, n * sizeof(float)) != 0); /* the limit is met */
  for (o.shards = 1; o.shards <= SHARDS_MAX; o.shards++) {
    cluster *c = cluster_new(&o);
    run(c);
    assert_done(c);
    weights_of(c, 0, got);
    assert_near(got, expected, n);
    if (o.shards == 1)
      memcpy(first_bits, got, n * sizeof(float));
    ck_assert_mem_eq(got, first_bits, n * sizeof(float));
    cluster_free(c);
  }
}
END_TEST

/* ---- gradients that are not finite ------------------------------------------------------------------------- */

/* Rank 1 gets a NaN, or what becomes infinite, among its weights of a clock: the next pull writes over it. */
static void run_with(cluster *c, uint64_t bad_clock, float bad) {
  bool done = false;
  uint64_t end_ns = c->now + 1000 * BL_NS_PER_S;
  do {
    ck_assert_uint_lt(c->now, end_ns);
    if (!done && bl_session_weights_version(c->ranks[1].session) == bad_clock) {
      done = true;
      wk_model_params(c->ranks[1].model)[0][5] = bad;
    }
  } while (round_of(c));
}

START_TEST(a_clock_with_a_nan_is_as_if_it_had_not_been) {
  static const char *const extras[] = {
      "not_finite: skip_clock", "not_finite: skip_clock\ncompression: {push: float16}",
      "not_finite: skip_clock\naccumulate: 2", "not_finite: skip_clock\nclip: {norm: 100}\ncompression: {push: float16}",
      "not_finite: skip_clock\nclip: {global_norm: 100}"};
  job_options o = {2, 2, "{sgd: {lr: 0.1}}", extras[_i], false};
  skipped_clock = 2;
  size_t n = plain_sgd(&o, 0.1, expected);
  cluster *c = cluster_new(&o);
  run_with(c, skipped_clock, NAN);
  assert_done(c);
  for (uint32_t i = 0; i < 2; i++) {
    srv_shard_job_info info;
    ck_assert_ok(srv_shard_job_status(c->shards[i], 7, &info));
    ck_assert_uint_eq(info.clocks_skipped, 1);
    ck_assert_uint_eq(wk_trainer_progress(c->ranks[i].trainer).clocks_not_finite, i);
    ck_assert_msg(isfinite(c->ranks[i].epochs[0].train.loss_sum), "the NaN is in the metrics");
    weights_of(c, i, got);
    for (size_t k = 0; k < n; k++)
      ck_assert_float_eq_tol(got[k], expected[k], strstr(extras[_i], "float16") != NULL ? 2e-3f : 2e-5f);
  }
  cluster_free(c);
}
END_TEST

/* A weight that is NaN spoils each step of the round and its difference: the round of all ranks is given up. */
START_TEST(a_round_of_local_steps_with_a_nan_is_given_up) {
  job_options o = {2, 2, "{momentum: {lr: 0.05}}", _i == 0 ? "not_finite: skip_clock" : "not_finite: clip", false,
                   "{local: {steps: 2}}", false};
  cluster *c = cluster_new(&o);
  run_with(c, 1, NAN);
  assert_done(c);
  srv_shard_job_info info;
  ck_assert_ok(srv_shard_job_status(c->shards[0], 7, &info));
  ck_assert_uint_eq(info.clocks_skipped, _i == 0);
  ck_assert_uint_eq(wk_trainer_progress(c->ranks[0].trainer).clocks_not_finite, 0);
  ck_assert_uint_eq(wk_trainer_progress(c->ranks[1].trainer).clocks_not_finite, 3);
  for (uint32_t i = 0; i < 2; i++) {
    size_t n = weights_of(c, i, got);
    for (size_t k = 0; k < n; k++)
      ck_assert(isfinite(got[k]));
  }
  cluster_free(c);
}
END_TEST

START_TEST(a_free_rank_skips_its_own_clock_only) {
  job_options o = {3, 2, "{sgd: {lr: 0.05}}", "not_finite: skip_clock\ncompression: {push: float16}", false, "asp", false};
  cluster *c = cluster_new(&o);
  run_with(c, 1, NAN);
  assert_done(c);
  srv_shard_job_info info;
  ck_assert_ok(srv_shard_job_status(c->shards[0], 7, &info));
  ck_assert_uint_eq(info.clocks_skipped, 1);
  size_t n = weights_of(c, 0, got);
  for (size_t k = 0; k < n; k++)
    ck_assert(isfinite(got[k]));
  cluster_free(c);
}
END_TEST

/* A weight that is infinite makes outputs that are: with clip the job goes on, and what is applied is finite. */
START_TEST(clipped_gradients_are_finite_and_applied) {
  job_options o = {2, 2, "{sgd: {lr: 1e-6}}", _i == 0 ? "not_finite: clip" : "not_finite: clip\nclip: {norm: 1}", false};
  cluster *c = cluster_new(&o);
  run_with(c, 2, NAN);
  assert_done(c);
  srv_shard_job_info info;
  ck_assert_ok(srv_shard_job_status(c->shards[0], 7, &info));
  ck_assert_uint_eq(info.clocks_skipped, 0);
  ck_assert_uint_eq(wk_trainer_progress(c->ranks[1].trainer).clocks_not_finite, 1);
  size_t n = weights_of(c, 0, got);
  for (size_t k = 0; k < n; k++)
    ck_assert(isfinite(got[k]));
  cluster_free(c);
}
END_TEST

/* Weights that have become NaN for good do not train for ever. */
START_TEST(a_rank_that_meets_nothing_else_fails) {
  job_options o = {1, 1, "{sgd: {lr: 0.1}}", "not_finite: skip_clock\nepochs: 50", false};
  static const char *const set[] = {"epochs=50"};
  o.extra = "not_finite: skip_clock";
  overrides = set;
  n_overrides = 1;
  cluster *c = cluster_new(&o);
  n_overrides = 0;
  uint64_t end_ns = c->now + 1000 * BL_NS_PER_S;
  do {
    ck_assert_uint_lt(c->now, end_ns);
    c->ranks[0].n_epochs = 0;
    wk_model_params(c->ranks[0].model)[0][5] = NAN;
  } while (round_of(c));
  bl_error err = BL_ERROR_INIT;
  ck_assert_int_eq(c->ranks[0].turn, WK_TURN_FAILED);
  ck_assert_status(wk_trainer_status(c->ranks[0].trainer, &err), BL_ENOTFINITE);
  ck_assert_uint_eq(wk_trainer_progress(c->ranks[0].trainer).clocks_not_finite, BL_JOB_NOT_FINITE_ROW_MAX);
  cluster_free(c);
}
END_TEST

/* With error feedback a gradient is clipped before anything of it is kept back. */
START_TEST(a_worker_that_clips_does_what_the_shards_would) {
  job_options o = {2, 2, "{sgd: {lr: 0.1}}", "clip: {norm: 0.2}", false};
  cluster *c = cluster_new(&o);
  run(c);
  assert_done(c);
  size_t n = weights_of(c, 0, expected);
  cluster_free(c);
  c = cluster_new(&o);
  for (uint32_t i = 0; i < 2; i++) {
    stop_rank(c, i);
    c->ranks[i].clips_locally = true;
    start_rank(c, i, 1);
  }
  run(c);
  assert_done(c);
  weights_of(c, 0, got);
  assert_near(got, expected, n);
  cluster_free(c);
}
END_TEST

/* ---- averages of weights ---------------------------------------------------------------------------------- */

/* Training goes on with the weights, through three evaluations of their average; what is left is the average. */
START_TEST(the_average_of_the_weights_is_the_result) {
  static const char *const extras[] = {"average: {ema: 0.8}", "average: {ema: 0.8}\ncompression: {push: none, pull: float16}"};
  job_options o = {2, 2, "{sgd: {lr: 0.1}}", extras[_i], false}, raw = {1, 1, o.optimizer, "", false};
  size_t n = plain_sgd(&raw, 0.1, got);
  plain_sgd(&o, 0.1, expected);
  ck_assert(memcmp(got, expected, n * sizeof(float)) != 0);
  cluster *c = cluster_new(&o);
  run(c);
  assert_done(c);
  weights_of(c, 0, got);
  weights_of(c, 1, first_bits);
  ck_assert_mem_eq(got, first_bits, n * sizeof(float));
  if (_i == 0)
    assert_near(got, expected, n);
  for (size_t i = 0; i < n; i++)
    ck_assert_float_eq_tol(got[i], expected[i], 1e-3f);
  cluster_free(c);
}
END_TEST

/* ---- metrics ------------------------------------------------------------------------------------------- */

START_TEST(every_rank_measures_what_the_job_asks_for) {
  job_options o = {3, 1, "{sgd: {lr: 0.1}}", "metrics: [top2, confusion]", false};
  cluster *c = cluster_new(&o);
  run(c);
  assert_done(c);
  uint64_t n = 0, cells = 0;
  for (uint32_t r = 0; r < o.ranks; r++) {
    const wk_metrics *m = &c->ranks[r].epochs[2].test;
    uint64_t right = 0, own = 0;
    ck_assert_ptr_nonnull(m->more);
    for (int i = 0; i < 9; i++) {
      own += m->more->confusion[i];
      right += i % 4 == 0 ? m->more->confusion[i] : 0;
    }
    ck_assert_uint_eq(own, m->n);
    ck_assert_uint_eq(right, m->correct);
    ck_assert_uint_ge(m->more->n_top, m->correct);
    ck_assert_uint_le(m->more->n_top, m->n);
    ck_assert_ptr_null(c->ranks[r].epochs[2].train.more);
    n += m->n;
    cells += own;
  }
  ck_assert(n == TEST_ROWS && cells == TEST_ROWS);
  cluster_free(c);
}
END_TEST

/* Early stopping: a rank asks after every epoch, does nothing meanwhile, and ends where it is told. */
START_TEST(a_rank_waits_for_the_verdict_on_every_epoch) {
  job_options o = {2, 1, "{sgd: {lr: 0.1}}", "early_stopping: {metric: validation_loss}", false};
  cluster *c = cluster_new(&o);
  for (uint32_t epoch = 1; epoch <= 2; epoch++) {
    for (int i = 0; i < 200; i++)
      round_of(c);
    for (uint32_t r = 0; r < 2; r++) {
      ck_assert_uint_eq(c->ranks[r].n_epochs, epoch);
      ck_assert_uint_gt(c->ranks[r].epochs[epoch - 1].test.n, 0);
      ck_assert_int_eq(c->ranks[r].turn, WK_TURN_WAITS);
      ck_assert(!wk_trainer_take_verdict(c->ranks[r].trainer, epoch + 1, true));
      ck_assert(wk_trainer_take_verdict(c->ranks[r].trainer, epoch, epoch == 2));
      ck_assert(!wk_trainer_take_verdict(c->ranks[r].trainer, epoch, true)); /* no longer asked */
    }
  }
  run(c);
  assert_done(c);
  ck_assert_uint_eq(bl_session_clock(c->ranks[0].session), 8);
  cluster_free(c);
}
END_TEST

/* ---- streams ------------------------------------------------------------------------------------------- */

/* Plain SGD in the order of the file, which predicts every batch before it takes it. With dropout (_i 1), which is
 * different for every rank, only that it is not in the predictions. */
START_TEST(progressive_validation_predicts_before_it_trains) {
  job_options o = {2, 2, "{sgd: {lr: 0.1}}", "metrics: [confusion]", false};
  static const char *const set[] = {"data.validation=0", "data.shuffle=false", "data.progressive=true",
                                    "model.layers=[dense 300 tanh, dropout 0.5, dense 3]"};
  overrides = set;
  n_overrides = _i == 1 ? 4 : 3;
  cluster *c = cluster_new(&o);
  run(c);
  assert_done(c);
  const bl_job_spec *spec = c->spec;
  wk_model *model;
  bl_error err = BL_ERROR_INIT;
  ck_assert_ok_err(wk_model_new(&spec->model, spec->loss, c->table, 64, true, &model, &err), err);
  float *const *w = wk_model_params(model), *const *g = wk_model_grads(model);
  for (uint32_t i = 0; i < c->table->n_tensors; i++)
    bl_tensor_init_values(&c->table->tensors[i], spec->seed, 0, c->table->tensors[i].n_elems, w[i]);
  double loss = 0, seen = 0;
  uint64_t correct = 0;
  for (uint64_t first = 0; first < ROWS; first += spec->batch) {
    uint64_t indices[64];
    float x[64 * 4];
    uint32_t labels[64], n = (uint32_t)(ROWS - first < spec->batch ? ROWS - first : spec->batch);
    for (uint32_t i = 0; i < n; i++)
      indices[i] = first + i; /* the order of the file */
    wk_dataset_fetch(c->train, indices, n, x, labels, NULL);
    wk_model_forward(model, x, n, NULL);
    wk_loss_sums sums = wk_model_loss(model, labels, NULL, n);
    loss += sums.loss_sum;
    correct += sums.correct;
    wk_step_id step = {spec->seed, 0, 0};
    wk_model_forward(model, x, n, &step);
    wk_model_backward(model, labels, NULL, n, n, NULL, NULL);
    for (uint32_t i = 0; i < c->table->n_tensors; i++)
      for (uint64_t k = 0; k < c->table->tensors[i].n_elems; k++)
        w[i][k] -= 0.1f * g[i][k];
  }
  wk_model_free(model);
  double got_loss = 0;
  uint64_t got_n = 0, got_correct = 0, diagonal = 0, cells = 0;
  for (uint32_t r = 0; r < 2; r++) {
    const wk_metrics *m = &c->ranks[r].epochs[0].validation, *train = &c->ranks[r].epochs[0].train;
    got_loss += m->loss_sum;
    got_n += m->n;
    got_correct += m->correct;
    seen += train->loss_sum;
    const wk_metrics *last = &c->ranks[r].epochs[2].validation;
    for (int i = 0; i < 9; i++) {
      cells += last->more->confusion[i];
      diagonal += i % 4 == 0 ? last->more->confusion[i] : 0;
    }
    diagonal -= last->correct;
  }
  ck_assert_uint_eq(got_n, ROWS);
  ck_assert(cells == ROWS && diagonal == 0);
  if (_i == 0) {
    ck_assert_double_eq_tol(got_loss, loss, 1e-3);
    ck_assert_uint_eq(got_correct, correct);
    ck_assert_double_eq(got_loss, seen);
  } else {
    ck_assert_double_ne(got_loss, seen); /* one without dropout, the other with */
  }
  cluster_free(c);
}
END_TEST

/* ---- accumulation -------------------------------------------------------------------------------------- */

/* The definition is plain SGD on batches of 48: 54 training samples make a full clock and one of 6, in which some of the
 * parts and, with 8 ranks, some of the ranks are empty. A part never has more samples than a rank's share of 16. */
START_TEST(accumulated_batches_do_plain_sgd_on_their_union) {
  job_options o = {rank_counts[_i], 1, "{sgd: {lr: 0.1}}", "accumulate: 3\nclip: {norm: 0.2}", false};
  job_options norm_of_all = {1, 1, o.optimizer, o.extra, false};
  size_t n = plain_sgd(&norm_of_all, 0.1, expected);
  for (o.shards = 1; o.shards <= SHARDS_MAX; o.shards++) {
    if (o.ranks > 1) { /* clipping is by each rank's norm */
      o.extra = "accumulate: 3";
      n = plain_sgd(&o, 0.1, expected);
    }
    cluster *c = cluster_new(&o);
    run(c);
    assert_done(c);
    ck_assert_uint_eq(c->ranks[0].n_epochs, 3);
    ck_assert_uint_eq(c->ranks[0].epochs[2].clock, 6);
    weights_of(c, 0, got);
    assert_near(got, expected, n);
    if (o.shards == 1)
      memcpy(first_bits, got, n * sizeof(float));
    ck_assert_mem_eq(got, first_bits, n * sizeof(float));
    uint64_t samples = 0;
    for (uint32_t i = 0; i < o.ranks; i++)
      samples += c->ranks[i].epochs[0].train.n;
    ck_assert_uint_eq(samples, 54);
    cluster_free(c);
  }
}
END_TEST

/* ---- data of its own for every rank --------------------------------------------------------------------- */

/* The definition: w -= lr * sum over the samples that the ranks take in this clock / their number. */
static size_t plain_local_sgd(const job_options *o, double lr, float *out) {
  cluster *c = cluster_new(o);
  const bl_job_spec *spec = c->spec;
  wk_model *model;
  bl_error err = BL_ERROR_INIT;
  ck_assert_ok_err(wk_model_new(&spec->model, spec->loss, c->table, 64, true, &model, &err), err);
  float *const *w = wk_model_params(model), *const *g = wk_model_grads(model);
  for (uint32_t i = 0; i < c->table->n_tensors; i++)
    bl_tensor_init_values(&c->table->tensors[i], spec->seed, 0, c->table->tensors[i].n_elems, w[i]);
  uint64_t share = bl_job_clock_samples(spec) / o->ranks, most = c->rank_samples[0];
  for (uint64_t epoch = 0; epoch < spec->epochs; epoch++) {
    for (uint64_t first = 0; first < most; first += share) {
      float x[64 * 4], values[64];
      uint32_t labels[64], n = 0;
      for (uint32_t r = 0; r < o->ranks; r++) {
        uint64_t indices[64];
        uint32_t own = 0;
        wk_permutation order;
        wk_permutation_init_local(&order, c->rank_samples[r], spec->seed, epoch, r, true);
        for (uint64_t at = first; at < first + share && at < c->rank_samples[r]; at++)
          indices[own++] = wk_permutation_at(&order, at);
        if (own > 0)
          wk_dataset_fetch(r == 0 ? c->train : c->own[r], indices, own, x + 4 * n, labels + n, values + n);
        n += own;
      }
      wk_step_id step = {spec->seed, 0, 0};
      wk_model_forward(model, x, n, &step);
      wk_model_backward(model, labels, values, n, n, NULL, NULL);
      for (uint32_t i = 0; i < c->table->n_tensors; i++)
        for (uint64_t k = 0; k < c->table->tensors[i].n_elems; k++)
          w[i][k] -= (float)lr * g[i][k];
    }
  }
  size_t n = 0;
  for (uint32_t i = 0; i < c->table->n_tensors; i++) {
    memcpy(out + n, w[i], c->table->tensors[i].n_elems * sizeof(float));
    n += c->table->tensors[i].n_elems;
  }
  wk_model_free(model);
  cluster_free(c);
  return n;
}

START_TEST(accumulation_over_data_of_its_own_does_plain_sgd) {
  job_options o = {.ranks = 4, .shards = 2, .optimizer = "{sgd: {lr: 0.1}}", .extra = "accumulate: 2", .local = true};
  size_t n = plain_local_sgd(&o, 0.1, expected);
  cluster *c = cluster_new(&o);
  run(c);
  assert_done(c);
  weights_of(c, 3, got);
  assert_near(got, expected, n);
  cluster_free(c);
}
END_TEST

static const uint32_t local_rank_counts[] = {1, 2, 4}; /* divide the batch of 16 */

START_TEST(ranks_with_data_of_their_own_do_plain_sgd_over_all_of_it) {
  job_options o = {.ranks = local_rank_counts[_i], .shards = 1, .optimizer = "{sgd: {lr: 0.1}}", .extra = "", .local = true};
  size_t n = plain_local_sgd(&o, 0.1, expected);
  for (o.shards = 1; o.shards <= SHARDS_MAX; o.shards++) {
    cluster *c = cluster_new(&o);
    run(c);
    assert_done(c);
    weights_of(c, 0, got);
    assert_near(got, expected, n);
    if (o.shards == 1)
      memcpy(first_bits, got, n * sizeof(float));
    for (uint32_t i = 0; i < o.ranks; i++) {
      weights_of(c, i, got);
      ck_assert_mem_eq(got, first_bits, n * sizeof(float));
      for (size_t e = 0; e < 3; e++) {
        const wk_epoch_result *r = &c->ranks[i].epochs[e];
        ck_assert_uint_eq(r->train.n, c->rank_samples[i]);
        ck_assert_uint_eq(r->validation.n, LOCAL_ROWS(i) - c->rank_samples[i]);
        ck_assert_uint_eq(r->test.n, e == 2 ? TEST_ROWS : 0);
      }
    }
    cluster_free(c);
  }
}
END_TEST

START_TEST(a_replaced_rank_with_data_of_its_own_changes_no_bit) {
  job_options o = {.ranks = 2, .shards = 2, .optimizer = "{adam: {lr: 0.01}}", .extra = "", .local = true};
  cluster *c = cluster_new(&o);
  run(c);
  assert_done(c);
  size_t n = weights_of(c, 0, expected);
  cluster_free(c);
  c = cluster_new(&o);
  for (int i = 0; i < 4 + 5 * _i; i++)
    ck_assert(round_of(c));
  stop_rank(c, 1);
  c->view = 2;
  c->ranks[1].incarnation = 2;
  open_view(c);
  bl_session_set_view(c->ranks[0].session, 2, c->now);
  start_rank(c, 1, 2);
  run(c);
  assert_done(c);
  for (uint32_t i = 0; i < 2; i++) {
    weights_of(c, i, got);
    ck_assert_mem_eq(got, expected, n * sizeof(float));
  }
  cluster_free(c);
}
END_TEST

START_TEST(clipping_by_norm_scales_the_whole_gradient) {
  job_options o = {1, 2, "{sgd: {lr: 0.1}}", "clip: {norm: 0.2}", false};
  size_t n = plain_sgd(&o, 0.1, expected);
  cluster *c = cluster_new(&o);
  ck_assert_double_eq(c->spec->clip_norm, 0.2);
  run(c);
  assert_done(c);
  weights_of(c, 0, got);
  assert_near(got, expected, n);
  cluster_free(c);
}
END_TEST

/* Rank 1 dies in the middle of an epoch, at any moment of a clock, and comes back as another incarnation. */
START_TEST(a_rank_that_is_replaced_changes_no_bit) {
  job_options o = {2, 2, "{adam: {lr: 0.01}}", "", false};
  cluster *c = cluster_new(&o);
  run(c);
  assert_done(c);
  size_t n = weights_of(c, 0, expected);
  cluster_free(c);
  c = cluster_new(&o);
  for (int i = 0; i < 12 + _i; i++)
    ck_assert(round_of(c));
  /* Some of what it sends in its last turn arrives, and some does not. */
  c->ranks[1].turn = wk_trainer_turn(c->ranks[1].trainer);
  for (int i = 0; i < _i; i++)
    deliver_one(c);
  stop_rank(c, 1);
  c->view = 2;
  c->ranks[1].incarnation = 2;
  open_view(c);
  bl_session_set_view(c->ranks[0].session, 2, c->now);
  start_rank(c, 1, 2);
  run(c);
  assert_done(c);
  for (uint32_t i = 0; i < 2; i++) {
    weights_of(c, i, got);
    ck_assert_mem_eq(got, expected, n * sizeof(float));
  }
  cluster_free(c);
}
END_TEST

START_TEST(every_sample_is_trained_on_and_evaluated_once) {
  job_options o = {3, 1, "{sgd: {lr: 0.1}}", "", false};
  cluster *c = cluster_new(&o);
  run(c);
  assert_done(c);
  for (size_t e = 0; e < 3; e++) {
    uint64_t train = 0, validation = 0, test = 0, correct = 0;
    double loss = 0;
    for (uint32_t i = 0; i < 3; i++) {
      ck_assert_uint_eq(c->ranks[i].n_epochs, 3);
      const wk_epoch_result *r = &c->ranks[i].epochs[e];
      ck_assert_uint_eq(r->epoch, e + 1);
      ck_assert_uint_eq(r->clock, 4 * (e + 1));
      train += r->train.n;
      validation += r->validation.n;
      test += r->test.n;
      correct += r->test.correct;
      loss += r->train.loss_sum;
    }
    ck_assert_uint_eq(train, 54);
    ck_assert_uint_eq(validation, 6);
    ck_assert_uint_eq(test, e == 2 ? TEST_ROWS : 0);
    ck_assert_double_gt(loss, 0);
    if (e == 2)
      ck_assert_uint_gt(correct, TEST_ROWS / 2);
  }
  cluster_free(c);
}
END_TEST

START_TEST(without_a_validation_part_the_test_set_is_evaluated_each_epoch) {
  job_options o = {2, 1, "{sgd: {lr: 0.01}}", "clip: {value: 5}", true};
  cluster *c = cluster_new(&o);
  c->spec->data.validation = 0;
  for (uint32_t i = 0; i < 2; i++) {
    stop_rank(c, i);
    start_rank(c, i, 1);
  }
  run(c);
  assert_done(c);
  for (size_t e = 0; e < 3; e++) {
    ck_assert_uint_eq(c->ranks[0].epochs[e].test.n + c->ranks[1].epochs[e].test.n, TEST_ROWS);
    ck_assert_double_gt(c->ranks[0].epochs[e].test.squared_error_sum, 0);
  }
  cluster_free(c);
}
END_TEST

START_TEST(a_loss_that_is_not_a_number_fails_with_epoch_clock_and_rank) {
  job_options o = {2, 1, "{sgd: {lr: 9}}", "", true};
  cluster *c = cluster_new(&o);
  run(c);
  bl_error err = BL_ERROR_INIT;
  int named = 0;
  for (uint32_t i = 0; i < 2; i++) {
    ck_assert_int_eq(c->ranks[i].turn, WK_TURN_FAILED);
    ck_assert_status(wk_trainer_status(c->ranks[i].trainer, &err), BL_ENOTFINITE);
    fprintf(stderr, "%s\n", err.text);
    named += strstr(err.text, " in epoch ") != NULL && strstr(err.text, ", clock ") != NULL && strstr(err.text, "on rank") != NULL;
  }
  ck_assert_int_ge(named, 1);
  cluster_free(c);
}
END_TEST

START_TEST(a_trainer_that_finds_no_memory_says_so_and_leaks_nothing) {
  job_options o = {1, 1, "{sgd: {lr: 0.1}}", "", false};
  cluster *c = cluster_new(&o);
  uint64_t live = bl_alloc_get_stats().live_blocks;
  wk_trainer_config config = {.spec = c->spec,
                              .world = 1,
                              .table = c->table,
                              .model = c->ranks[0].model,
                              .train = c->train,
                              .session = c->ranks[0].session,
                              .env = {now_of, poll_of, on_epoch, NULL, NULL, &c->ranks[0]}};
  wk_trainer *t = NULL;
  uint64_t n = 0;
  for (bl_status status = BL_ENOMEM; status != BL_OK;) {
    ck_assert_uint_lt(++n, 50);
    bl_error err = BL_ERROR_INIT;
    bl_alloc_fail_after(n);
    status = wk_trainer_new(&config, &t, &err);
    bl_alloc_fail_after(0);
    ck_assert(status == BL_OK || (status == BL_ENOMEM && t == NULL && err.text[0] != '\0'));
    if (status != BL_OK)
      ck_assert_uint_eq(bl_alloc_get_stats().live_blocks, live);
  }
  ck_assert_uint_ge(n, 6);
  wk_trainer_free(t);
  cluster_free(c);
}
END_TEST

/* Whatever is lost on the way, sessions repeat, and no bit changes. */
START_TEST(lost_messages_change_no_bit) {
  job_options o = {2, 2, "{momentum: {lr: 0.05}}", "", false};
  cluster *c = cluster_new(&o);
  run(c);
  assert_done(c);
  size_t n = weights_of(c, 0, expected);
  cluster_free(c);
  c = cluster_new(&o);
  c->loss_key = bl_rng_key((uint64_t)_i, BL_RNG_DATA);
  uint64_t end_ns = c->now + 10000 * BL_NS_PER_S;
  while (round_of(c)) {
    ck_assert_uint_lt(c->now, end_ns);
    for (uint32_t r = 0; r < 2; r++) { /* as the task does while it waits */
      if (c->ranks[r].turn == WK_TURN_WAITS)
        c->ranks[r].tick_ns = bl_session_tick(c->ranks[r].session, c->now);
    }
  }
  ck_assert_uint_gt(c->n_lost, 20);
  assert_done(c);
  weights_of(c, 1, got);
  ck_assert_mem_eq(got, expected, n * sizeof(float));
  cluster_free(c);
}
END_TEST

static uint64_t file_lines(const char *path, bl_buf *text) {
  bl_error err = BL_ERROR_INIT;
  bl_buf_clear(text);
  ck_assert_ok_err(bl_file_read(path, 1 << 20, text, &err), err);
  uint64_t n = 0;
  for (size_t i = 0; i < text->size; i++)
    n += text->data[i] == '\n';
  return n;
}

START_TEST(a_written_model_predicts_what_the_trained_one_does) {
  job_options o = {1, 1, "{sgd: {lr: 0.1}}", "", false};
  cluster *c = cluster_new(&o);
  run(c);
  assert_done(c);
  char dir[300], other[320], out_path[320];
  snprintf(dir, sizeof dir, "%s/a/b/model", test_temp_dir());
  bl_error err = BL_ERROR_INIT;
  ck_assert_ok_err(wk_model_folder_check(dir, &err), err);
  wk_trained trained = {c->spec, c->pre, c->table, wk_model_params(c->ranks[0].model), NULL, 1, 12};
  ck_assert_ok_err(wk_model_folder_write(dir, &trained, &err), err);
  /* Again over the first: what else lies there stays. */
  snprintf(other, sizeof other, "%s/notes.txt", dir);
  ck_assert_ok_err(bl_file_write_atomic(other, "mine", 4, 0644, &err), err);
  ck_assert_ok_err(wk_model_folder_check(dir, &err), err);
  ck_assert_ok_err(wk_model_folder_write(dir, &trained, &err), err);
  ck_assert(bl_file_exists(other));
  wk_loaded loaded;
  ck_assert_ok_err(wk_model_folder_read(dir, 16, &loaded, &err), err);
  for (uint32_t i = 0; i < c->table->n_tensors; i++)
    ck_assert_mem_eq(wk_model_params(loaded.model)[i], wk_model_params(c->ranks[0].model)[i],
                     c->table->tensors[i].n_elems * sizeof(float));
  wk_loaded_fini(&loaded);
  bl_buf text = BL_BUF_INIT;
  for (wk_predict_format format = WK_PREDICT_CSV; format <= WK_PREDICT_JSON; format++) {
    snprintf(out_path, sizeof out_path, "%s/out", dir);
    FILE *out = fopen(out_path, "w");
    wk_predict_config config = {.model_dir = dir,
                                .files = c->spec->data.test.paths,
                                .n_files = 1,
                                .with_targets = true,
                                .format = format};
    ck_assert_ok_err(wk_predict(&config, out, &err), err);
    fclose(out);
    ck_assert_uint_eq(file_lines(out_path, &text), TEST_ROWS + (format == WK_PREDICT_CSV));
    ck_assert_ptr_nonnull(strstr(bl_buf_str(&text), format == WK_PREDICT_CSV ? "row,class,p(0),p(1),p(2),target\n0,"
                                                                            : "{\"row\":0,\"class\":\""));
  }
  bl_buf_fini(&text);
  cluster_free(c);
}
END_TEST

START_TEST(a_folder_that_cannot_be_written_is_known_before_the_work) {
  char file[300], below[320];
  bl_error err = BL_ERROR_INIT;
  snprintf(file, sizeof file, "%s/file", test_temp_dir());
  ck_assert_ok_err(bl_file_write_atomic(file, "x", 1, 0644, &err), err);
  ck_assert_status(wk_model_folder_check(file, &err), BL_EEXIST);
  ck_assert_ptr_nonnull(strstr(err.text, file));
  snprintf(below, sizeof below, "%s/model", file);
  ck_assert_int_ne(wk_model_folder_check(below, &err), BL_OK);
  wk_loaded loaded;
  ck_assert_int_ne(wk_model_folder_read("/nowhere/at/all", 1, &loaded, &err), BL_OK);
}
END_TEST

/* ---- local steps ------------------------------------------------------------------------------------------ */

/* The definition: every rank by itself from the same weights, then the average, weighted by samples; momentum above 0:
 * Nesterov's at rate lr over the average difference (the DiLoCo paper's equations 2 and 3). */
typedef struct plain_rounds {
  uint32_t ranks, steps;
  double inner_lr, lr, momentum;
} plain_rounds;

typedef struct plain_state {
  cluster *c;
  wk_model *model;
  size_t n;
  float w[WEIGHTS_MAX], own[WEIGHTS_MAX], moment[WEIGHTS_MAX];
  double difference[WEIGHTS_MAX];
} plain_state;

static void copy_model(const plain_state *s, float *flat, bool into_model) {
  size_t at = 0;
  for (uint32_t i = 0; i < s->c->table->n_tensors; i++) {
    float *p = wk_model_params(s->model)[i];
    size_t bytes = s->c->table->tensors[i].n_elems * sizeof *p;
    memcpy(into_model ? p : flat + at, into_model ? flat + at : p, bytes);
    at += s->c->table->tensors[i].n_elems;
  }
}

/* One step of the model on positions [first, behind). */
static void plain_step(plain_state *s, const wk_permutation *order, uint64_t first, uint64_t behind, double lr) {
  uint64_t indices[64];
  float x[64 * 4], values[64];
  uint32_t labels[64], n = (uint32_t)(behind - first);
  const bl_job_spec *spec = s->c->spec;
  for (uint32_t i = 0; i < n; i++)
    indices[i] = wk_permutation_at(order, first + i);
  if (n == 0)
    return;
  wk_dataset_fetch(s->c->train, indices, n, x, labels, values);
  wk_step_id step = {spec->seed, 0, 0};
  wk_model_forward(s->model, x, n, &step);
  wk_model_backward(s->model, labels, values, n, n, NULL, NULL);
  double squares = 0;
  for (uint32_t i = 0; i < s->c->table->n_tensors; i++)
    squares += bl_kernels_get()->sum_squares(wk_model_grads(s->model)[i], s->c->table->tensors[i].n_elems);
  float scale = spec->clip_norm > 0 && sqrt(squares) > spec->clip_norm ? (float)(spec->clip_norm / sqrt(squares)) : 1;
  for (uint32_t i = 0; i < s->c->table->n_tensors; i++)
    for (uint64_t k = 0; k < s->c->table->tensors[i].n_elems; k++)
      wk_model_params(s->model)[i][k] -= (float)lr * scale * wk_model_grads(s->model)[i][k];
}

static void plain_round(plain_state *s, const plain_rounds *p, const wk_permutation *order, uint64_t first, uint64_t n_train) {
  uint64_t batch = s->c->spec->batch, all = 0;
  memset(s->difference, 0, sizeof s->difference);
  for (uint32_t r = 0; r < p->ranks; r++) {
    uint64_t taken = 0;
    copy_model(s, s->w, true);
    for (uint64_t at = first, k = 0; k < p->steps && at < n_train; k++, at += batch) {
      uint64_t n = n_train - at < batch ? n_train - at : batch;
      plain_step(s, order, at + n * r / p->ranks, at + n * (r + 1) / p->ranks, p->inner_lr);
      taken += n * (r + 1) / p->ranks - n * r / p->ranks;
    }
    copy_model(s, s->own, false);
    for (size_t i = 0; i < s->n; i++)
      s->difference[i] += (double)taken * ((double)s->w[i] - (double)s->own[i]);
    all += taken;
  }
  for (size_t i = 0; i < s->n; i++) {
    double d = s->difference[i] / (double)all;
    s->moment[i] = (float)(p->momentum * (double)s->moment[i] + d);
    s->w[i] -= (float)(p->lr * (p->momentum > 0 ? d + p->momentum * (double)s->moment[i] : d));
  }
}

static size_t plain_local_steps(const plain_rounds *p, const char *extra, float *out) {
  static plain_state s;
  bl_error err = BL_ERROR_INIT;
  s = (plain_state){.c = cluster_new(&(job_options){1, 1, "sgd", extra, false, NULL, false})};
  const bl_job_spec *spec = s.c->spec;
  ck_assert_ok_err(wk_model_new(&spec->model, spec->loss, s.c->table, 64, true, &s.model, &err), err);
  for (uint32_t i = 0; i < s.c->table->n_tensors; i++) {
    bl_tensor_init_values(&s.c->table->tensors[i], spec->seed, 0, s.c->table->tensors[i].n_elems, wk_model_params(s.model)[i]);
    s.n += s.c->table->tensors[i].n_elems;
  }
  copy_model(&s, s.w, false);
  uint64_t n_train = wk_train_part(ROWS, spec->data.validation);
  for (uint64_t epoch = 0; epoch < spec->epochs; epoch++) {
    wk_permutation order;
    wk_permutation_init(&order, n_train, spec->seed, epoch, true);
    for (uint64_t first = 0; first < n_train; first += spec->batch * p->steps)
      plain_round(&s, p, &order, first, n_train);
  }
  memcpy(out, s.w, s.n * sizeof *out);
  wk_model_free(s.model);
  cluster_free(s.c);
  return s.n;
}

/* 54 samples in batches of 16: rounds of 3 steps end with one of 1; 8 ranks: some have nothing in the last batch of 6. */
static const struct {
  uint32_t ranks;
  const char *sync, *extra;
  plain_rounds plain;
} round_jobs[] = {
    {1, "{local: {steps: 1}}", "", {1, 1, 0.1, 1, 0}},
    {2, "{local: {steps: 1}}", "", {2, 1, 0.1, 1, 0}},
    {2, "{local: {steps: 3}}", "", {2, 3, 0.1, 1, 0}},
    {3, "{local: {steps: 3}}", "outer: average\n", {3, 3, 0.1, 1, 0}},
    {8, "{local: {steps: 2}}", "", {8, 2, 0.1, 1, 0}},
    {3, "{local: {steps: 100}}", "", {3, 100, 0.1, 1, 0}},
    {3, "{local: {steps: 2}}", "outer: {nesterov: {lr: 0.5, momentum: 0.8}}\n", {3, 2, 0.1, 0.5, 0.8}},
    {2, "{local: {steps: 2}}", "clip: {norm: 0.2}\n", {2, 2, 0.1, 1, 0}},
};

START_TEST(local_steps_do_what_every_rank_would_do_by_itself) {
  job_options o = {round_jobs[_i].ranks, 1, "{sgd: {lr: 0.1}}", round_jobs[_i].extra, false, round_jobs[_i].sync, false};
  const char *extra = strstr(o.extra, "clip") != NULL ? o.extra : "";
  size_t n = plain_local_steps(&round_jobs[_i].plain, extra, expected);
  for (o.shards = 1; o.shards <= SHARDS_MAX; o.shards++) {
    cluster *c = cluster_new(&o);
    run(c);
    assert_trained(c); /* overwrites expected with rank 0's weights */
    weights_of(c, 0, got);
    if (o.shards == 1)
      memcpy(first_bits, got, n * sizeof(float));
    ck_assert_mem_eq(got, first_bits, n * sizeof(float));
    cluster_free(c);
  }
  plain_local_steps(&round_jobs[_i].plain, extra, expected);
  assert_near(first_bits, expected, n);
}
END_TEST

/* A round of one step by sgd, averaged, is a clock of bsp. */
START_TEST(one_local_step_is_a_clock_of_bsp) {
  job_options o = {rank_counts[_i], 2, "{sgd: {lr: 0.1}}", "", false, "{local: {steps: 1}}", false};
  size_t n = plain_sgd(&(job_options){1, 1, o.optimizer, "", false}, 0.1, expected);
  cluster *c = cluster_new(&o);
  run(c);
  assert_done(c);
  weights_of(c, 0, got);
  assert_near(got, expected, n);
  cluster_free(c);
}
END_TEST

static const struct {
  const char *optimizer, *extra;
} moment_jobs[] = {
    {"{adam: {lr: 0.01}}", "outer: nesterov\nschedule: {cosine: {warmup: 2}}\n"},
    {"{lamb: {lr: 0.01}}", "outer: yogi\naverage: {ema: 0.5}\n"},
    {"{momentum: {lr: 0.02}}", "outer: adam\nclip: {norm: 0.5, value: 0.05}\ngroups: [{match: dense1.bias, frozen: true}, {match: '*.weight', lr_scale: 0.5}]\n"},
    {"{momentum: {lr: 0.02}}", "compression: float16\n"},
};

/* Whatever carries the job: servers, kernels, lost messages. */
START_TEST(local_steps_have_the_same_bits_everywhere) {
  job_options o = {3, 1, moment_jobs[_i].optimizer, moment_jobs[_i].extra, false, "{local: {steps: 2}}", false};
  bool first = true;
  size_t n = 0;
  for (size_t table = 0; bl_kernels_at(table) != NULL; table++) {
    ck_assert_ok(bl_kernels_force(bl_kernels_at(table)->name, NULL));
    for (o.shards = 1; o.shards <= SHARDS_MAX; o.shards++) {
      cluster *c = cluster_new(&o);
      c->loss_key = o.shards == 2 ? 9 : 0;
      run(c);
      assert_trained(c);
      n = weights_of(c, 0, got);
      if (first)
        memcpy(first_bits, got, n * sizeof(float));
      first = false;
      ck_assert_mem_eq(got, first_bits, n * sizeof(float));
      cluster_free(c);
    }
  }
  ck_assert_uint_gt(n, 0);
}
END_TEST

/* Groups are the workers': what is frozen stays, and a rate is scaled once. */
START_TEST(groups_hold_for_local_steps) {
  job_options plain = {2, 1, "{sgd: {lr: 0.1}}", "", false, "{local: {steps: 1}}", false}, grouped = plain;
  plain.optimizer = "{sgd: {lr: 0.05}}";
  grouped.extra = "groups: [{match: '*', lr_scale: 0.5}]\n";
  size_t n = 0;
  const job_options *jobs[] = {&plain, &grouped};
  for (int i = 0; i < 2; i++) {
    cluster *c = cluster_new(jobs[i]);
    run(c);
    assert_done(c);
    n = weights_of(c, 0, i == 0 ? expected : got);
    cluster_free(c);
  }
  ck_assert_mem_eq(got, expected, n * sizeof(float));
}
END_TEST

/* Without moments the successor does the same steps again; with them it says that they are gone, and the job ends well. */
START_TEST(a_rank_that_dies_within_a_round_is_replaced) {
  bool moments = _i % 2 == 1;
  job_options o = {2, 2, moments ? "{adam: {lr: 0.01}}" : "{sgd: {lr: 0.1}}", "", false, "{local: {steps: 2}}", false};
  cluster *c = cluster_new(&o);
  run(c);
  assert_done(c);
  size_t n = weights_of(c, 0, expected);
  cluster_free(c);
  c = cluster_new(&o);
  for (int i = 0; i < 8 + _i / 2; i++)
    ck_assert(round_of(c));
  c->ranks[1].turn = wk_trainer_turn(c->ranks[1].trainer);
  for (int i = 0; i < _i; i++)
    deliver_one(c);
  ck_assert_uint_eq(c->ranks[1].moments_lost_at, 0);
  stop_rank(c, 1);
  c->view = 2;
  c->ranks[1].incarnation = 2;
  open_view(c);
  bl_session_set_view(c->ranks[0].session, 2, c->now);
  start_rank(c, 1, 2);
  run(c);
  assert_done(c);
  ck_assert((c->ranks[1].moments_lost_at > 0) == moments);
  ck_assert_uint_eq(c->ranks[0].moments_lost_at, 0);
  weights_of(c, 0, got);
  weights_of(c, 1, first_bits);
  ck_assert_mem_eq(got, first_bits, n * sizeof(float));
  if (!moments)
    ck_assert_mem_eq(got, expected, n * sizeof(float));
  cluster_free(c);
}
END_TEST

START_TEST(ranks_with_data_of_their_own_take_local_steps) {
  job_options o = {4, 1, "{adam: {lr: 0.01}}", "outer: nesterov\n", false, "{local: {steps: 3}}", true};
  for (o.shards = 1; o.shards <= 2; o.shards++) {
    cluster *c = cluster_new(&o);
    run(c);
    assert_done(c);
    size_t n = weights_of(c, 0, got);
    if (o.shards == 1)
      memcpy(first_bits, got, n * sizeof(float));
    for (uint32_t r = 0; r < o.ranks; r++) {
      weights_of(c, r, got);
      ck_assert_mem_eq(got, first_bits, n * sizeof(float));
      for (size_t e = 0; e < 3; e++)
        ck_assert_uint_eq(c->ranks[r].epochs[e].train.n, c->rank_samples[r]);
    }
    cluster_free(c);
  }
}
END_TEST

/* ---- streams ---- */

/* The definition again: every rank keeps weights of its own; in round c the tensors of part c mod P are exchanged, and merged
 * behind `overlap` steps of the next round, at the end of an epoch at once. */
typedef struct plain_streams {
  uint32_t ranks, steps, streams, overlap;
  double mix;
} plain_streams;

typedef struct streams_state {
  plain_state s;
  float own[RANKS_MAX][WEIGHTS_MAX];
  uint64_t taken[RANKS_MAX][TENSORS_MAX]; /* since the tensor was exchanged */
  uint64_t round;
  bool pending;
} streams_state;

/* Of the round before, or of this one at its end. */
static void merge_streams(streams_state *x, const plain_streams *p, uint32_t r, uint64_t clock) {
  size_t at = 0;
  double mix = p->overlap > 0 ? p->mix : 0;
  for (uint32_t i = 0; i < x->s.c->table->n_tensors; i++)
    for (uint64_t k = 0; k < x->s.c->table->tensors[i].n_elems; k++, at++)
      if (bl_tensor_in_clock(x->s.c->table, i, clock))
        x->own[r][at] = (float)(mix * (double)x->own[r][at] + (1 - mix) * (double)x->s.w[at]);
}

static void stream_steps(streams_state *x, const plain_streams *p, const wk_permutation *order, uint32_t r, uint64_t first,
                         uint64_t n_train) {
  uint64_t batch = x->s.c->spec->batch, left = (n_train - first + batch - 1) / batch;
  uint32_t n_steps = left < p->steps ? (uint32_t)left : p->steps;
  uint32_t merge_at = p->overlap < n_steps ? p->overlap : n_steps;
  for (uint32_t k = 0; k <= n_steps; k++) {
    if (x->pending && k == merge_at)
      merge_streams(x, p, r, x->round - 1);
    if (k == n_steps)
      break;
    uint64_t at = first + k * batch, n = n_train - at < batch ? n_train - at : batch;
    copy_model(&x->s, x->own[r], true);
    plain_step(&x->s, order, at + n * r / p->ranks, at + n * (r + 1) / p->ranks, 0.1);
    copy_model(&x->s, x->own[r], false);
    for (uint32_t i = 0; i < x->s.c->table->n_tensors; i++)
      x->taken[r][i] += n * (r + 1) / p->ranks - n * r / p->ranks;
  }
}

static void exchange_streams(streams_state *x, const plain_streams *p) {
  size_t at = 0;
  for (uint32_t i = 0; i < x->s.c->table->n_tensors; i++) {
    uint64_t all = 0, n = x->s.c->table->tensors[i].n_elems;
    bool in = bl_tensor_in_clock(x->s.c->table, i, x->round);
    for (uint32_t r = 0; r < p->ranks; r++)
      all += x->taken[r][i];
    for (uint64_t k = 0; in && k < n; k++) {
      double d = 0;
      for (uint32_t r = 0; r < p->ranks; r++)
        d += (double)x->taken[r][i] / (double)all * ((double)x->s.w[at + k] - (double)x->own[r][at + k]);
      x->s.w[at + k] -= (float)d;
    }
    for (uint32_t r = 0; in && r < p->ranks; r++)
      x->taken[r][i] = 0;
    at += n;
  }
}

static size_t plain_streaming(const plain_streams *p, float *out) {
  static streams_state x;
  bl_error err = BL_ERROR_INIT;
  x = (streams_state){.s = {.c = cluster_new(&(job_options){1, 1, "sgd", "", false, NULL, false})}};
  const bl_job_spec *spec = x.s.c->spec;
  bl_tensor_table *table = x.s.c->table;
  ck_assert_ok_err(wk_model_new(&spec->model, spec->loss, table, 64, true, &x.s.model, &err), err);
  for (uint32_t i = 0; i < table->n_tensors; i++) {
    bl_tensor_init_values(&table->tensors[i], spec->seed, 0, table->tensors[i].n_elems, wk_model_params(x.s.model)[i]);
    x.s.n += table->tensors[i].n_elems;
  }
  copy_model(&x.s, x.s.w, false);
  for (uint32_t r = 0; r < p->ranks; r++)
    memcpy(x.own[r], x.s.w, sizeof x.s.w);
  uint64_t n_train = wk_train_part(ROWS, spec->data.validation), of_round = spec->batch * p->steps;
  bl_tensor_table_set_streams(table, p->streams, bl_job_clocks(n_train, of_round, spec->epochs));
  for (uint64_t epoch = 0; epoch < spec->epochs; epoch++) {
    wk_permutation order;
    wk_permutation_init(&order, n_train, spec->seed, epoch, true);
    for (uint64_t first = 0; first < n_train; first += of_round, x.round++) {
      for (uint32_t r = 0; r < p->ranks; r++)
        stream_steps(&x, p, &order, r, first, n_train);
      exchange_streams(&x, p);
      x.pending = p->overlap > 0 && first + of_round < n_train;
      for (uint32_t r = 0; r < p->ranks && !x.pending; r++)
        merge_streams(&x, p, r, x.round);
    }
  }
  memcpy(out, x.s.w, x.s.n * sizeof *out);
  wk_model_free(x.s.model);
  cluster_free(x.s.c);
  return x.s.n;
}

static const struct {
  const char *sync, *extra;
  plain_streams plain;
} stream_jobs[] = {
    {"{local: {steps: 1}}", "outer: {streams: 2}\n", {1, 1, 2, 0, 0}},
    {"{local: {steps: 2}}", "outer: {average: null, streams: 3}\n", {3, 2, 3, 0, 0}},
    {"{local: {steps: 1}}", "outer: {streams: 4}\n", {2, 1, 4, 0, 0}},
    {"{local: {steps: 2}}", "outer: {streams: 1, overlap: 1}\n", {2, 2, 1, 1, 0.5}},
    {"{local: {steps: 1}}", "outer: {streams: 3, overlap: 1, mix: 0.25}\n", {3, 1, 3, 1, 0.25}},
    {"{local: {steps: 2}}", "outer: {streams: 2, overlap: 2, mix: 0}\n", {8, 2, 2, 2, 0}},
};

START_TEST(streams_do_what_every_rank_would_do_by_itself) {
  job_options o = {stream_jobs[_i].plain.ranks, 1, "{sgd: {lr: 0.1}}", stream_jobs[_i].extra, false, stream_jobs[_i].sync, false};
  size_t n = 0;
  for (o.shards = 1; o.shards <= SHARDS_MAX; o.shards++) {
    cluster *c = cluster_new(&o);
    c->loss_key = o.shards == 3 ? 4 : 0;
    run(c);
    assert_trained(c);
    n = weights_of(c, 0, got);
    if (o.shards == 1)
      memcpy(first_bits, got, n * sizeof(float));
    ck_assert_mem_eq(got, first_bits, n * sizeof(float));
    cluster_free(c);
  }
  ck_assert_uint_eq(plain_streaming(&stream_jobs[_i].plain, expected), n);
  assert_near(first_bits, expected, n);
}
END_TEST

/* The exchange of a round is under way while the next one's steps are taken. */
START_TEST(with_overlap_a_rank_takes_steps_while_it_waits) {
  job_options o = {2, 1, "{sgd: {lr: 0.1}}", "outer: {overlap: 2}\n", false, "{local: {steps: 2}}", false};
  cluster *c = cluster_new(&o);
  while (bl_session_weights_version(c->ranks[1].session) != 0)
    round_of(c);
  for (int i = 0; i < 3; i++) /* the whole first round, but for rank 0's commit */
    c->ranks[1].turn = wk_trainer_turn(c->ranks[1].trainer);
  uint64_t before = wk_trainer_progress(c->ranks[1].trainer).samples;
  while ((c->ranks[1].turn = wk_trainer_turn(c->ranks[1].trainer)) == WK_TURN_WORKED)
    ;
  ck_assert_int_eq(c->ranks[1].turn, WK_TURN_WAITS);
  ck_assert_uint_gt(wk_trainer_progress(c->ranks[1].trainer).samples, before);
  char why[200];
  ck_assert_str_ne(wk_trainer_waits_for(c->ranks[1].trainer, why, sizeof why), "");
  run(c);
  assert_trained(c);
  cluster_free(c);
}
END_TEST

static const char *const stream_extras[] = {
    "outer: {nesterov: {lr: 0.5, momentum: 0.5}, streams: 3, overlap: 1}\n",
    "outer: {streams: 2, overlap: 2, mix: 0.75}\ncompression: float16\n",
};

/* Whatever carries the job; and a rank that is replaced within a round leaves all with the same weights. */
START_TEST(streams_have_the_same_bits_everywhere_and_survive_a_rank) {
  job_options o = {3, 1, "{momentum: {lr: 0.02}}", stream_extras[_i % 2], false, "{local: {steps: 2}}", false};
  size_t n = 0;
  for (size_t table = 0; bl_kernels_at(table) != NULL; table++) {
    ck_assert_ok(bl_kernels_force(bl_kernels_at(table)->name, NULL));
    o.shards = 1 + (uint32_t)table % SHARDS_MAX;
    cluster *c = cluster_new(&o);
    run(c);
    assert_trained(c);
    n = weights_of(c, 0, got);
    if (table == 0)
      memcpy(first_bits, got, n * sizeof(float));
    ck_assert_mem_eq(got, first_bits, n * sizeof(float));
    cluster_free(c);
  }
  cluster *c = cluster_new(&o);
  for (int i = 0; i < 6 + _i; i++)
    ck_assert(round_of(c));
  c->ranks[1].turn = wk_trainer_turn(c->ranks[1].trainer);
  for (int i = 0; i < _i; i++)
    deliver_one(c);
  stop_rank(c, 1);
  c->view = 2;
  c->ranks[1].incarnation = 2;
  open_view(c);
  bl_session_set_view(c->ranks[0].session, 2, c->now);
  bl_session_set_view(c->ranks[2].session, 2, c->now);
  start_rank(c, 1, 2);
  run(c);
  assert_done(c);
  for (uint32_t r = 0; r < 3; r++) {
    weights_of(c, r, r == 0 ? expected : got);
    ck_assert(r == 0 || memcmp(got, expected, n * sizeof(float)) == 0);
  }
  cluster_free(c);
}
END_TEST

/* Positions of an epoch, batch and steps that do not divide it, ranks that do not divide the batch. */
START_TEST(rounds_take_every_position_once) {
  static const struct {
    uint64_t n, batch;
    uint32_t steps, world;
  } cases[] = {{54, 16, 3, 3}, {1, 7, 5, 7}, {100, 7, 4, 3}, {97, 5, 1, 4}, {64, 16, 2, 2}, {64, 16, 100, 5}, {33, 32, 2, 8}};
  for (size_t i = 0; i < BL_COUNT_OF(cases); i++) {
    uint8_t taken[2][100] = {{0}};
    uint64_t places = 0;
    for (uint32_t r = 0; r < cases[i].world; r++) {
      wk_shares s;
      wk_share share;
      wk_shares_init(&s, &(wk_shares_config){.in_step = true, .rank = r, .world = cases[i].world, .n_train = cases[i].n,
                                             .clock_samples = cases[i].batch * cases[i].steps, .local_steps = cases[i].steps,
                                             .epochs = 2});
      ck_assert_uint_eq(s.clocks, bl_job_clocks(cases[i].n, cases[i].batch * cases[i].steps, 2));
      double whole = 0;
      for (uint64_t clock = 0; wk_shares_at(&s, clock, &share) == WK_SHARE_THERE; clock++) {
        uint32_t steps = wk_shares_steps(&s, clock);
        uint64_t own = 0;
        ck_assert(steps >= 1 && steps <= cases[i].steps);
        for (uint32_t k = 0; k < steps; k++) {
          wk_step_share step = wk_shares_step(&s, clock, k);
          ck_assert_uint_le(step.end - step.first, (cases[i].batch + cases[i].world - 1) / cases[i].world);
          if (r == 0)
            ck_assert_uint_eq(step.place, places++); /* as clocks of bsp */
          own += step.end - step.first;
          for (uint64_t p = step.first; p < step.end; p++)
            taken[share.epoch][p]++;
        }
        ck_assert_uint_eq(own, wk_shares_own(&s, clock));
        whole += share.denominator;
      }
      ck_assert_double_eq(whole, 2.0 * (double)cases[i].n);
      ck_assert_uint_eq(places, 2 * s.steps_per_epoch);
    }
    for (size_t p = 0; p < cases[i].n; p++)
      ck_assert(taken[0][p] == 1 && taken[1][p] == 1);
  }
}
END_TEST

START_TEST(a_local_step_that_is_not_finite_fails_the_job_with_its_place) {
  job_options o = {2, 1, "{sgd: {lr: 1e6}}", "", true, "{local: {steps: 2}}", false};
  cluster *c = cluster_new(&o);
  run(c);
  bool named = false;
  for (uint32_t r = 0; r < 2; r++) {
    bl_error err = BL_ERROR_INIT;
    ck_assert_int_eq(c->ranks[r].turn, WK_TURN_FAILED);
    ck_assert_status(wk_trainer_status(c->ranks[r].trainer, &err), BL_ENOTFINITE);
    named |= strstr(err.text, "in epoch ") != NULL && strstr(err.text, "clock ") != NULL;
  }
  ck_assert(named);
  cluster_free(c);
}
END_TEST

START_TEST(local_steps_wait_for_the_verdict_on_an_epoch) {
  job_options o = {2, 1, "{sgd: {lr: 0.1}}", "early_stopping: {metric: validation_loss}", false, "{local: {steps: 2}}", false};
  cluster *c = cluster_new(&o);
  for (int i = 0; i < 200; i++)
    round_of(c);
  for (uint32_t r = 0; r < 2; r++)
    ck_assert(wk_trainer_take_verdict(c->ranks[r].trainer, 1, true));
  run(c);
  assert_done(c);
  ck_assert_uint_eq(bl_session_clock(c->ranks[0].session), 2); /* 54 samples in rounds of 32 */
  cluster_free(c);
}
END_TEST

int main(void) {
  Suite *s = suite_create("train");
  TCase *c = tcase_create("train");
  tcase_set_timeout(c, 60);
  tcase_add_loop_test(c, any_number_of_ranks_and_shards_does_plain_sgd, 0, (int)BL_COUNT_OF(rank_counts));
  tcase_add_loop_test(c, accumulated_batches_do_plain_sgd_on_their_union, 0, (int)BL_COUNT_OF(rank_counts));
  tcase_add_loop_test(c, ranks_clip_by_the_norm_of_the_whole_batch, 0, (int)BL_COUNT_OF(rank_counts));
  tcase_add_loop_test(c, a_clock_with_a_nan_is_as_if_it_had_not_been, 0, 5);
  tcase_add_loop_test(c, a_round_of_local_steps_with_a_nan_is_given_up, 0, 2);
  tcase_add_test(c, a_free_rank_skips_its_own_clock_only);
  tcase_add_loop_test(c, clipped_gradients_are_finite_and_applied, 0, 2);
  tcase_add_test(c, a_rank_that_meets_nothing_else_fails);
  tcase_add_test(c, a_worker_that_clips_does_what_the_shards_would);
  tcase_add_loop_test(c, the_average_of_the_weights_is_the_result, 0, 2);
  tcase_add_loop_test(c, progressive_validation_predicts_before_it_trains, 0, 2);
  tcase_add_test(c, a_rank_waits_for_the_verdict_on_every_epoch);
  tcase_add_test(c, every_rank_measures_what_the_job_asks_for);
  tcase_add_test(c, accumulation_over_data_of_its_own_does_plain_sgd);
  tcase_add_loop_test(c, free_ranks_share_every_epoch_and_end_with_the_same_weights, 0, (int)BL_COUNT_OF(free_jobs));
  tcase_add_loop_test(c, a_replaced_free_rank_goes_on_in_its_lease, 0, 2);
  tcase_add_loop_test(c, ranks_with_data_of_their_own_do_plain_sgd_over_all_of_it, 0,
                      (int)BL_COUNT_OF(local_rank_counts));
  tcase_add_loop_test(c, a_replaced_rank_with_data_of_its_own_changes_no_bit, 0, 6);
  tcase_add_test(c, clipping_by_norm_scales_the_whole_gradient);
  tcase_add_loop_test(c, a_rank_that_is_replaced_changes_no_bit, 0, 12);
  tcase_add_test(c, every_sample_is_trained_on_and_evaluated_once);
  tcase_add_test(c, without_a_validation_part_the_test_set_is_evaluated_each_epoch);
  tcase_add_test(c, a_loss_that_is_not_a_number_fails_with_epoch_clock_and_rank);
  tcase_add_test(c, a_trainer_that_finds_no_memory_says_so_and_leaks_nothing);
  tcase_add_loop_test(c, lost_messages_change_no_bit, 0, 5);
  tcase_add_test(c, a_written_model_predicts_what_the_trained_one_does);
  tcase_add_test(c, a_folder_that_cannot_be_written_is_known_before_the_work);
  tcase_add_loop_test(c, local_steps_do_what_every_rank_would_do_by_itself, 0, (int)BL_COUNT_OF(round_jobs));
  tcase_add_loop_test(c, one_local_step_is_a_clock_of_bsp, 0, (int)BL_COUNT_OF(rank_counts));
  tcase_add_loop_test(c, local_steps_have_the_same_bits_everywhere, 0, (int)BL_COUNT_OF(moment_jobs));
  tcase_add_test(c, groups_hold_for_local_steps);
  tcase_add_loop_test(c, a_rank_that_dies_within_a_round_is_replaced, 0, 16);
  tcase_add_test(c, ranks_with_data_of_their_own_take_local_steps);
  tcase_add_loop_test(c, streams_do_what_every_rank_would_do_by_itself, 0, (int)BL_COUNT_OF(stream_jobs));
  tcase_add_test(c, with_overlap_a_rank_takes_steps_while_it_waits);
  tcase_add_loop_test(c, streams_have_the_same_bits_everywhere_and_survive_a_rank, 0, 12);
  tcase_add_test(c, rounds_take_every_position_once);
  tcase_add_test(c, a_local_step_that_is_not_finite_fails_the_job_with_its_place);
  tcase_add_test(c, local_steps_wait_for_the_verdict_on_an_epoch);
  suite_add_tcase(s, c);
  Suite *suites[] = {s};
  return test_run(suites, 1);
}
