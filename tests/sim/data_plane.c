/* SPDX-License-Identifier: Apache-2.0
 *
 * Harness of the data-plane scenarios: shards that record their log, ranks that push one tensor after the
 * other with pauses in between, a little coordinator that makes new views.
 */
#include "data_plane.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/num.h"
#include "client/session.h"
#include "residuals.h"
#include "support.h"
#include "toy.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define LIMIT_NS (600 * BL_NS_PER_S)
#define RETRY_NS (20 * BL_NS_PER_MS)
#define TENSORS_MAX 16
#define DISTANCE_MAX 1e-3 /* of weights, by rounding and float16; one lost gradient is 0.01 and more */

typedef enum rank_state {
  RANK_HELLO = 1,
  RANK_WEIGHTS,
  RANK_PUSHING,
  RANK_WAITING,
  RANK_READING, /* its tables, at the end */
  RANK_AVERAGING,
  RANK_DONE
} rank_state;

typedef struct cluster cluster;

typedef struct life { /* one incarnation of a rank */
  cluster *c;
  uint32_t rank, incarnation;
  sim_node *node;
  bl_session *session;
  bl_transport *transports[DP_SHARDS_MAX];
  struct link {
    struct life *life;
    uint32_t shard;
  } links[DP_SHARDS_MAX];
  float *weights[TENSORS_MAX], *grads[TENSORS_MAX]; /* of a table: of its rows of the clock */
  uint64_t *rows[TENSORS_MAX], n_elems[TENSORS_MAX];
  uint32_t n_rows[TENSORS_MAX];
  uint32_t reading; /* table that is being read */
  rank_state state;
  bool is_ghost; /* another incarnation has its place */
  uint32_t next_tensor; /* pushed are those from here on */
  uint64_t push_at_ns, want; /* want: version to wait for */
} life;

typedef struct recorded {
  srv_entry entry;
  struct recorded *next;
} recorded;

typedef struct shard_node {
  cluster *c;
  sim_node *node;
  sim_socket *socket;
  srv_shard *shard;
  recorded *first, **last;
  uint32_t index;
  uint32_t incarnations[DP_RANKS_MAX]; /* of the view that the shard is in */
  /* Of every rank: the clock that is open here (UINT64_MAX: finished), and what is there of it. */
  uint64_t open[DP_RANKS_MAX];
  uint32_t n_pushed[DP_RANKS_MAX], n_needed[DP_RANKS_MAX];
  bool has_commit[DP_RANKS_MAX];
} shard_node;

struct cluster {
  const dp_options *o;
  sim *sim;
  bl_tensor_table *table;
  Ballast__Control__JobPlan *plan; /* of the present view */
  shard_node shards[DP_SHARDS_MAX];
  life *ranks[DP_RANKS_MAX];
  life *all[64];
  uint32_t n_all, n_crashes;
  uint8_t *applied; /* [clocks][world][n_chunks] */
  dp_result *result;
  uint64_t started_ns;
};

static bool in_step(const cluster *c) { return bl_plan_in_step(c->plan); }

/* ---- the toy ---- */

static float *floats(uint64_t n) {
  float *p = bl_calloc(n, sizeof *p);
  ck_assert_ptr_nonnull(p);
  return p;
}

uint64_t dp_reference(const dp_options *o) {
  Ballast__Control__JobPlan *plan = test_plan_new(&o->plan);
  uint64_t sum = toy_reference(plan, plan->clocks);
  bl_control_free(&plan->base);
  return sum;
}

/* ---- shards ---- */

/* No rank may push a clock that it was not to begin yet. */
static void check_lead(shard_node *n, const srv_entry *e) {
  cluster *c = n->c;
  uint64_t slowest = UINT64_MAX;
  for (uint32_t r = 0; r < c->plan->world; r++)
    slowest = BL_MIN(slowest, n->open[r]);
  uint64_t lead = e->clock > slowest ? e->clock - slowest : 0;
  c->result->lead_max = BL_MAX(c->result->lead_max, lead);
  if (strcmp(c->plan->sync, "ssp") == 0)
    ck_assert_msg(lead <= c->plan->staleness, "seed %" PRIu64 ": rank %u pushes clock %" PRIu64 ", the slowest is at %" PRIu64,
                  c->o->seed, e->rank, e->clock, slowest);
}

/* Of a free running rank that is replaced the open clock begins anew. */
static void forget_open_clocks(shard_node *n, const Ballast__Control__JobPlan *plan) {
  cluster *c = n->c;
  for (uint32_t r = 0; r < plan->world; r++) {
    if (plan->incarnations[r] == n->incarnations[r] || n->open[r] >= c->plan->clocks)
      continue;
    for (uint32_t chunk = 0; chunk < c->table->n_chunks; chunk++)
      if (c->plan->chunk_shards[chunk] == n->index)
        c->applied[(n->open[r] * c->plan->world + r) * c->table->n_chunks + chunk] = 0;
    n->n_pushed[r] = 0;
    n->has_commit[r] = false;
  }
}

/* A rank's clock is complete with its commit and all chunks that it counts. */
static void follow_clock(shard_node *n, const srv_entry *e) {
  uint32_t r = e->rank;
  if (e->kind == SRV_ENTRY_COMMIT)
    n->n_needed[r] = e->n_chunks;
  n->n_pushed[r] += e->kind == SRV_ENTRY_PUSH;
  n->has_commit[r] |= e->kind == SRV_ENTRY_COMMIT;
  if (e->kind == SRV_ENTRY_COMMIT && e->finished) {
    n->open[r] = UINT64_MAX;
  } else if (n->has_commit[r] && n->n_pushed[r] == n->n_needed[r]) {
    n->open[r]++;
    n->n_pushed[r] = 0;
    n->has_commit[r] = false;
  }
}

static void record(const srv_entry *e, void *arg) {
  shard_node *n = arg;
  recorded *r = bl_calloc(1, sizeof *r);
  ck_assert_ptr_nonnull(r);
  r->entry = *e;
  if (e->plan != NULL)
    r->entry.plan = (const Ballast__Control__JobPlan *)bl_control_copy(&e->plan->base);
  if (e->frame != NULL)
    bl_frame_ref(e->frame);
  if (e->keys != NULL)
    bl_frame_ref(e->keys);
  *n->last = r;
  n->last = &r->next;
  cluster *c = n->c;
  if (e->kind == SRV_ENTRY_VIEW && !in_step(c))
    forget_open_clocks(n, e->plan);
  if (e->plan != NULL)
    memcpy(n->incarnations, e->plan->incarnations, e->plan->n_incarnations * sizeof n->incarnations[0]);
  if (e->kind == SRV_ENTRY_PUSH || e->kind == SRV_ENTRY_COMMIT)
    ck_assert_msg(e->incarnation == n->incarnations[e->rank],
                  "seed %" PRIu64 ": clock %" PRIu64 " rank %u: incarnation %u counts beside %u", c->o->seed, e->clock,
                  e->rank, e->incarnation, n->incarnations[e->rank]);
  if (e->kind == SRV_ENTRY_PUSH)
    check_lead(n, e);
  if (e->kind == SRV_ENTRY_PUSH || e->kind == SRV_ENTRY_COMMIT)
    follow_clock(n, e);
  if (e->kind != SRV_ENTRY_PUSH)
    return;
  ck_assert_uint_lt(e->clock, c->plan->clocks);
  size_t at = ((size_t)e->clock * c->plan->world + e->rank) * c->table->n_chunks + e->chunk;
  ck_assert_msg(c->applied[at]++ == 0, "seed %" PRIu64 ": clock %" PRIu64 " rank %u chunk %u is applied twice",
                c->o->seed, e->clock, e->rank, e->chunk);
}

static srv_shard_config shard_config(const shard_node *n, char *name, size_t size) {
  const dp_options *o = n->c->o;
  snprintf(name, size, "s%u", n->index);
  return (srv_shard_config){.server = name,
                            .index = 0,
                            .window_bytes = o->window_bytes > 0 ? o->window_bytes : 4096,
                            .hold_bytes_max = o->hold_bytes_max > 0 ? o->hold_bytes_max : 65536,
                            .log_bytes_max = 1 << 20};
}

static void shard_on_msg(const bl_peer *from, bl_msg *msg, void *arg) {
  shard_node *n = arg;
  srv_shard_on_msg(n->shard, from, msg, sim_now(n->c->sim));
}

static uint64_t shard_tick(void *arg, uint64_t now_ns) { return srv_shard_tick(((shard_node *)arg)->shard, now_ns); }

static void shard_start(cluster *c, uint32_t i) {
  static char names[DP_SHARDS_MAX][8];
  shard_node *n = &c->shards[i];
  n->c = c;
  n->index = i;
  n->last = &n->first;
  srv_shard_config config = shard_config(n, names[i], sizeof names[i]);
  n->node = sim_node_new(c->sim, names[i], shard_tick, n);
  n->socket = sim_router(n->node, shard_on_msg, n);
  config.transport = sim_transport(n->socket);
  config.tap = record;
  config.tap_arg = n;
  ck_assert_ok(srv_shard_new(&config, &n->shard, NULL));
  ck_assert_ok(srv_shard_open_job(n->shard, c->plan, NULL));
}

/* A fresh shard fed with the recorded log has the same state. */
static uint64_t replay(shard_node *n) {
  char name[8];
  srv_shard_config config = shard_config(n, name, sizeof name);
  srv_shard *fresh;
  bl_error err = BL_ERROR_INIT;
  ck_assert_ok(srv_shard_new(&config, &fresh, NULL));
  for (recorded *r = n->first; r != NULL; r = r->next)
    ck_assert_ok_err(srv_shard_replay(fresh, &r->entry, &err), err);
  uint64_t sum = srv_shard_state_checksum(fresh);
  ck_assert_msg(sum == srv_shard_state_checksum(n->shard), "seed %" PRIu64 ": the replay of shard %u differs",
                n->c->o->seed, n->index);
  srv_shard_free(fresh);
  return sum;
}

static void shard_stop(shard_node *n) {
  srv_shard_free(n->shard);
  for (recorded *r = n->first, *next; r != NULL; r = next) {
    next = r->next;
    bl_frame_unref(r->entry.frame);
    bl_frame_unref(r->entry.keys);
    if (r->entry.plan != NULL)
      bl_control_free((ProtobufCMessage *)(uintptr_t)&r->entry.plan->base);
    bl_free(r);
  }
}

/* ---- ranks ---- */

static uint64_t pause_ns(const life *l) {
  uint64_t factor = l->rank == 0 && l->c->o->slow_factor > 0 ? l->c->o->slow_factor : 1;
  return factor * sim_random_below(l->c->sim, 2 * BL_NS_PER_MS);
}

static const bl_tensor *tensor_of(const life *l, uint32_t i) { return &l->c->table->tensors[i]; }

/* The rows that this rank will need for a clock. */
static void pull_rows(life *l, uint64_t clock, uint64_t now_ns) {
  cluster *c = l->c;
  for (uint32_t i = 0; i < c->table->n_tensors && clock < c->plan->clocks; i++) {
    if (!tensor_of(l, i)->table)
      continue;
    l->n_rows[i] = toy_rows(c->plan, i, tensor_of(l, i), l->rank, clock, l->rows[i]);
    for (uint64_t k = 0; k < tensor_of(l, i)->n_elems; k++)
      l->weights[i][k] = NAN;
    bl_session_pull_rows(l->session, i, clock, l->rows[i], l->n_rows[i], l->weights[i], now_ns);
  }
}

static bool has_rows(const life *l) {
  for (uint32_t i = 0; i < l->c->table->n_tensors; i++)
    if (tensor_of(l, i)->table && !bl_session_rows_ready(l->session, i))
      return false;
  return true;
}

static void on_rows(const uint64_t *rows, uint32_t n, const float *values, void *arg) {
  life *l = arg;
  uint64_t width = bl_table_width(tensor_of(l, l->reading));
  for (uint32_t i = 0; i < n; i++)
    memcpy(l->weights[l->reading] + rows[i] * width, values + i * width, width * sizeof(float));
}

/* One table after the other into the weights. */
static void read_tables(life *l, uint64_t now_ns) {
  cluster *c = l->c;
  if (l->state == RANK_READING && !bl_session_dump_is_done(l->session))
    return;
  l->reading = l->state == RANK_READING ? l->reading + 1 : 0;
  l->state = RANK_READING;
  while (l->reading < c->table->n_tensors && !tensor_of(l, l->reading)->table)
    l->reading++;
  if (l->reading == c->table->n_tensors) {
    l->state = RANK_DONE;
    return;
  }
  bl_tensor_init_values(tensor_of(l, l->reading), c->plan->seed, 0, tensor_of(l, l->reading)->n_elems,
                        l->weights[l->reading]);
  ck_assert_ok(bl_session_dump_rows(l->session, l->reading, in_step(c) ? c->plan->clocks : BL_CLOCK_FINISHED,
                                    on_rows, l, now_ns));
}

static void push_next(life *l, uint64_t now_ns) {
  cluster *c = l->c;
  uint32_t i = --l->next_tensor; /* backward: the last layer first */
  uint64_t clock = bl_session_clock(l->session);
  if (tensor_of(l, i)->table)
    bl_session_push_rows(l->session, i, l->rows[i], l->n_rows[i], l->grads[i], now_ns);
  else if (!in_step(c) || bl_tensor_in_clock(c->table, i, clock))
    bl_session_push(l->session, i, l->grads[i], now_ns);
  l->push_at_ns = now_ns + pause_ns(l);
  if (i > 0)
    return;
  bl_session_commit(l->session, toy_scale(c->plan, c->table, l->grads, l->n_elems), true, 1, now_ns);
  pull_rows(l, clock + 1, now_ns);
  l->want = clock + 1;
  l->state = RANK_WAITING;
}

static void compute(life *l, uint64_t now_ns) {
  cluster *c = l->c;
  uint64_t clock = bl_session_clock(l->session);
  if (clock == c->plan->clocks && !in_step(c)) { /* from now on it only waits for the others */
    bl_session_finish(l->session, now_ns);
    l->want = BL_CLOCK_FINISHED;
    l->state = RANK_WAITING;
    if (l->rank > 0)
      c->result->others_ns = now_ns - c->started_ns;
    return;
  }
  if (clock == c->plan->clocks || clock == BL_CLOCK_FINISHED) {
    if (c->plan->average_ema > 0) {
      l->state = RANK_AVERAGING;
      bl_session_pull_average(l->session, l->weights, now_ns);
    } else {
      read_tables(l, now_ns);
    }
    return;
  }
  ck_assert(bl_session_gradients_free(l->session));
  for (uint32_t i = 0; i < c->table->n_tensors; i++) {
    const float *w = in_step(c) ? l->weights[i] : NULL;
    l->n_elems[i] = tensor_of(l, i)->n_elems;
    if (tensor_of(l, i)->table) {
      uint64_t width = bl_table_width(tensor_of(l, i));
      l->n_elems[i] = l->n_rows[i] * width;
      toy_row_gradient(c->plan, i, width, l->rows[i], l->n_rows[i], l->rank, clock, w, l->grads[i]);
    } else {
      toy_gradient(c->plan, i, l->n_elems[i], l->rank, clock, w, l->grads[i]);
    }
  }
  l->next_tensor = c->table->n_tensors;
  l->push_at_ns = now_ns + pause_ns(l);
  l->state = RANK_PUSHING;
}

static uint64_t rank_tick(void *arg, uint64_t now_ns) {
  life *l = arg;
  bl_error err = BL_ERROR_INIT;
  uint64_t next = bl_session_tick(l->session, now_ns);
  if (l->is_ghost && bl_session_status(l->session, NULL) == BL_EINCARNATION)
    return UINT64_MAX;
  ck_assert_msg(bl_session_status(l->session, &err) == BL_OK, "seed %" PRIu64 ": rank %u: %s", l->c->o->seed,
                l->rank, err.text);
  if (l->state == RANK_HELLO && bl_session_is_ready(l->session)) {
    l->state = RANK_WEIGHTS;
    l->want = bl_session_clock(l->session);
    bl_session_pull(l->session, l->want, now_ns);
    pull_rows(l, l->want, now_ns);
  }
  if ((l->state == RANK_WEIGHTS || l->state == RANK_WAITING) && bl_session_weights_version(l->session) == l->want &&
      has_rows(l))
    compute(l, now_ns);
  if (l->state == RANK_READING)
    read_tables(l, now_ns);
  if (l->state == RANK_AVERAGING && bl_session_average_is_there(l->session))
    l->state = RANK_DONE;
  if (l->state == RANK_PUSHING && now_ns >= l->push_at_ns)
    push_next(l, now_ns);
  if (l->state == RANK_PUSHING)
    next = BL_MIN(next, l->push_at_ns);
  return BL_MIN(next, bl_session_tick(l->session, now_ns));
}

static void rank_on_msg(const bl_peer *from, bl_msg *msg, void *arg) {
  (void)from;
  struct link *link = arg;
  bl_session_on_msg(link->life->session, link->shard, msg, sim_now(link->life->c->sim));
}

static void rank_start(cluster *c, uint32_t rank) {
  char identity[BL_PEER_ID_BYTES_MAX];
  life *l = bl_calloc(1, sizeof *l);
  ck_assert_ptr_nonnull(l);
  l->c = c;
  l->rank = rank;
  l->incarnation = c->plan->incarnations[rank];
  l->state = RANK_HELLO;
  snprintf(identity, sizeof identity, "j%" PRIu64 ".r%u.i%u", c->plan->job, rank, l->incarnation);
  l->node = sim_node_new(c->sim, identity, rank_tick, l);
  for (uint32_t i = 0; i < c->o->plan.n_shards; i++) {
    l->links[i] = (struct link){l, i};
    l->transports[i] = sim_transport(sim_dealer(l->node, identity, c->shards[i].socket, rank_on_msg, &l->links[i]));
  }
  for (uint32_t i = 0; i < c->table->n_tensors; i++) {
    l->weights[i] = floats(c->table->tensors[i].n_elems);
    l->grads[i] = floats(c->table->tensors[i].n_elems);
    l->rows[i] = bl_calloc(c->table->tensors[i].dims[0], sizeof(uint64_t));
    ck_assert_ptr_nonnull(l->rows[i]);
    for (uint64_t k = 0; k < c->table->tensors[i].n_elems; k++)
      l->weights[i][k] = NAN; /* whatever is not pulled spoils everything */
  }
  bl_session_config config = {.job = c->plan->job,
                              .rank = rank,
                              .world = c->plan->world,
                              .incarnation = l->incarnation,
                              .view = c->plan->view,
                              .table = c->table,
                              .clip_global_norm = c->plan->clip_global_norm,
                              .shard_of_chunk = c->plan->chunk_shards,
                              .n_shards = c->o->plan.n_shards,
                              .shards = l->transports,
                              .seed = c->plan->seed,
                              .same_again = in_step(c),
                              .adapts = c->plan->adapts,
                              .takes_sparse = true,
                              .residual_path = c->o->n_crashes + c->o->n_ghosts > 0
                                                   ? sim_residuals(c->plan->job, rank, l->incarnation)
                                                   : NULL,
                              .caches_keys = c->plan->key_cache_bytes > 0,
                              .free_running = !in_step(c),
                              .retry_ns = RETRY_NS,
                              .weights = l->weights};
  ck_assert_ok(bl_session_new(&config, &l->session, NULL));
  c->ranks[rank] = c->all[c->n_all++] = l;
  bl_session_start(l->session, sim_now(c->sim));
}

static void rank_free(life *l) {
  bl_session_free(l->session);
  for (uint32_t i = 0; i < TENSORS_MAX; i++) {
    bl_free(l->weights[i]);
    bl_free(l->grads[i]);
    bl_free(l->rows[i]);
  }
  bl_free(l);
}

/* ---- crashes and views ---- */

static void tell_shard(void *arg) {
  shard_node *n = arg;
  bl_error err = BL_ERROR_INIT;
  ck_assert_ok_err(srv_shard_open_job(n->shard, n->c->plan, &err), err);
  sim_node_wake(n->node);
}

static void tell_rank(void *arg) {
  life *l = arg;
  if (!sim_node_is_alive(l->node))
    return;
  bl_session_set_view(l->session, l->c->plan->view, sim_now(l->c->sim));
  sim_node_wake(l->node);
}

static void replace_rank(void *arg) {
  life *dead = arg;
  cluster *c = dead->c;
  uint32_t *incarnations = c->plan->incarnations;
  c->plan->view++;
  incarnations[dead->rank]++;
  for (uint32_t i = 0; i < c->o->plan.n_shards; i++)
    sim_after(c->sim, sim_random_below(c->sim, 30 * BL_NS_PER_MS), tell_shard, &c->shards[i]);
  rank_start(c, dead->rank);
  for (uint32_t r = 0; r < c->plan->world; r++)
    if (r != dead->rank)
      sim_after(c->sim, sim_random_below(c->sim, 30 * BL_NS_PER_MS), tell_rank, c->ranks[r]);
}

static bool done(void *arg) {
  cluster *c = arg;
  for (uint32_t r = 0; r < c->plan->world; r++)
    if (c->ranks[r]->state != RANK_DONE || !sim_node_is_alive(c->ranks[r]->node))
      return false;
  return true;
}

/* A rank that may lose its place: NULL when none can now. */
static life *choose_victim(cluster *c) {
  life *victim = c->ranks[sim_random_below(c->sim, c->plan->world)];
  return done(c) || !sim_node_is_alive(victim->node) ? NULL : victim;
}

static void crash_one(void *arg) {
  cluster *c = arg;
  life *victim = choose_victim(c);
  if (victim == NULL)
    return;
  sim_node_crash(victim->node);
  sim_after(c->sim, sim_random_below(c->sim, 50 * BL_NS_PER_MS), replace_rank, victim);
}

/* Taken for dead while it only was silent: goes on, and hears of the new view late. */
static void make_ghost(void *arg) {
  cluster *c = arg;
  life *victim = choose_victim(c);
  if (victim == NULL)
    return;
  victim->is_ghost = true;
  replace_rank(victim);
  sim_after(c->sim, sim_random_below(c->sim, 60 * BL_NS_PER_MS), tell_rank, victim);
}

/* ---- a run ---- */

/* What all ranks still hold back: conservation says that it is all that is missing. */
static void sum_residuals(const cluster *c, double **left) {
  for (uint32_t i = 0; i < c->table->n_tensors; i++) {
    uint64_t n = c->table->tensors[i].n_elems;
    left[i] = bl_calloc(n, sizeof(double));
    ck_assert_ptr_nonnull(left[i]);
    for (uint32_t r = 0; r < c->plan->world; r++) {
      const float *residual = bl_session_residual(c->ranks[r]->session, i);
      for (uint64_t k = 0; k < n && residual != NULL; k++)
        left[i][k] += (double)residual[k];
    }
  }
}

/* Free running: all ranks hold the same, and every gradient is in it once. */
static uint64_t check_sum(cluster *c) {
  float *const *w = c->ranks[0]->weights;
  /* An average follows the weights at some distance; that it is the same for all is checked. */
  double *left[TENSORS_MAX] = {NULL};
  sum_residuals(c, left);
  double far = c->plan->average_ema > 0 ? 0 : toy_distance(c->plan, c->table, NULL, w, (const double *const *)left);
  for (uint32_t i = 0; i < c->table->n_tensors; i++)
    bl_free(left[i]);
  double far_max = c->plan->adapts ? 8 * DISTANCE_MAX : DISTANCE_MAX; /* pulls may be lossy at the end */
  ck_assert_msg(far < far_max, "seed %" PRIu64 ": the weights are %g off the sum of all gradients", c->o->seed, far);
  return toy_checksum(c->table, w);
}

/* Of tables, buckets that a rank did not touch in a clock are not in the log; they are counted here as if they were. */
static void expect_no_untouched_bucket(cluster *c) {
  for (uint32_t i = 0; i < c->table->n_tensors; i++) {
    const bl_tensor *t = &c->table->tensors[i];
    uint64_t *rows = t->table ? bl_calloc(bl_table_rows(t), sizeof *rows) : NULL;
    for (uint64_t at = 0; t->table && at < c->plan->clocks * c->plan->world; at++) {
      uint8_t *applied = c->applied + at * c->table->n_chunks + t->first_chunk;
      uint32_t n = toy_rows(c->plan, i, t, (uint32_t)(at % c->plan->world), at / c->plan->world, rows);
      for (uint32_t k = 0; k < n; k++)
        applied[bl_table_bucket(t, rows[k])] |= 2;
      for (uint32_t b = 0; b < t->n_chunks; b++) {
        ck_assert_msg(applied[b] == 0 || applied[b] == 3, "seed %" PRIu64 ": bucket %u of clock %" PRIu64 ": %u",
                      c->o->seed, b, at / c->plan->world, applied[b]);
        applied[b] = 1;
      }
    }
    bl_free(rows);
  }
}

/* The same of chunks that a clock is not about. */
static void expect_no_other_stream(cluster *c) {
  for (uint64_t at = 0; in_step(c) && at < c->plan->clocks * c->plan->world; at++)
    for (uint32_t id = 0; id < c->table->n_chunks; id++) {
      uint8_t *applied = c->applied + at * c->table->n_chunks + id;
      if (bl_tensor_in_clock(c->table, c->table->chunks[id].tensor, at / c->plan->world))
        continue;
      ck_assert_msg(*applied == 0, "seed %" PRIu64 ": chunk %u of another stream in clock %" PRIu64, c->o->seed, id,
                    at / c->plan->world);
      *applied = 1;
    }
}

static void check_end(cluster *c, dp_result *result) {
  uint64_t expected = in_step(c) ? dp_reference(c->o) : check_sum(c);
  for (uint32_t r = 0; r < c->plan->world; r++)
    ck_assert_msg(toy_checksum(c->table, c->ranks[r]->weights) == expected,
                  "seed %" PRIu64 ": the weights of rank %u differ from the reference", c->o->seed, r);
  size_t n = (size_t)c->plan->clocks * c->plan->world * c->table->n_chunks;
  expect_no_untouched_bucket(c);
  expect_no_other_stream(c);
  for (size_t i = 0; i < n; i++)
    ck_assert_msg(c->applied[i] == 1, "seed %" PRIu64 ": push %zu is missing in the log", c->o->seed, i);
  result->weights = expected;
  for (uint32_t i = 0; i < c->o->plan.n_shards; i++)
    result->shards += replay(&c->shards[i]);
}

dp_result dp_run(const dp_options *o) {
  dp_result result = {0};
  cluster c = {.o = o, .result = &result};
  sim_config net = o->net;
  net.seed = o->seed;
  sim_residuals_begin();
  c.sim = sim_new(&net);
  c.started_ns = sim_now(c.sim);
  c.plan = test_plan_new(&o->plan);
  ck_assert_ok(bl_plan_table(c.plan, &c.table, NULL));
  c.applied = bl_calloc((size_t)c.plan->clocks * c.plan->world, c.table->n_chunks);
  ck_assert_ptr_nonnull(c.applied);
  for (uint32_t i = 0; i < o->plan.n_shards; i++)
    shard_start(&c, i);
  for (uint32_t r = 0; r < c.plan->world; r++)
    rank_start(&c, r);
  for (uint32_t i = 0; i < o->n_crashes; i++)
    sim_after(c.sim, sim_random_below(c.sim, 100 * BL_NS_PER_MS), crash_one, &c);
  for (uint32_t i = 0; i < o->n_ghosts; i++)
    sim_after(c.sim, sim_random_below(c.sim, 100 * BL_NS_PER_MS), make_ghost, &c);
  bool ended = sim_run(c.sim, done, &c, LIMIT_NS);
  if (!ended)
    for (uint32_t r = 0; r < c.plan->world; r++) {
      char text[128];
      printf("rank %u at clock %" PRIu64 " waits for %s\n", r, bl_session_clock(c.ranks[r]->session),
             bl_session_waits_for(c.ranks[r]->session, text, sizeof text));
    }
  ck_assert_msg(ended, "seed %" PRIu64 ": the job did not end", o->seed);
  result.sim_ns = sim_now(c.sim);
  check_end(&c, &result);
  for (uint32_t i = 0; i < o->plan.n_shards; i++)
    shard_stop(&c.shards[i]);
  for (uint32_t i = 0; i < c.n_all; i++)
    rank_free(c.all[i]);
  sim_free(c.sim);
  bl_free(c.applied);
  bl_tensor_table_free(c.table);
  bl_control_free(&c.plan->base);
  return result;
}
