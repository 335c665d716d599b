/* SPDX-License-Identifier: Apache-2.0
 *
 * A run of the simulated cluster: the command, the faults, and what must hold at the end.
 */
#include "cluster.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/num.h"
#include "base/str.h"
#include "coordinator/grants.h"
#include "parts.h"
#include "residuals.h"
#include "support.h"
#include "tests/support/memory_store.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define LIMIT_NS (300 * BL_NS_PER_S)
#define ASK_NS (400 * BL_NS_PER_MS)
/* A crash that was to come with a write comes without one after this. */
#define DYING_MAX_NS (500 * BL_NS_PER_MS)

void cluster_break(cluster *c, const char *fmt, ...) {
  if (c->broken[0] != '\0')
    return;
  int n = snprintf(c->broken, sizeof c->broken, "seed %" PRIu64 ", %.3f s: ", c->o->seed,
                   (double)sim_now(c->sim) / 1e9);
  va_list args;
  va_start(args, fmt);
  vsnprintf(c->broken + n, sizeof c->broken - (size_t)n, fmt, args);
  va_end(args);
}

sim_job *cluster_job_by_id(cluster *c, uint64_t id) {
  const co_job_record *r = memory_store_job(c->co.store, id); /* the command may not have its answer yet */
  for (uint32_t i = 0; r != NULL && i < c->o->n_jobs; i++)
    if (strcmp(c->jobs[i].token, r->token) == 0)
      return &c->jobs[i];
  return NULL;
}

/* ---- the command ---- */

static void send_command(cluster *c, bl_msg_type type, const ProtobufCMessage *m) {
  bl_msg msg = BL_MSG_INIT;
  ck_assert_ok(bl_control_pack(type, m, &msg));
  (void)!bl_transport_send(sim_transport(c->command_dealer), NULL, &msg);
  bl_msg_fini(&msg);
}

static void send_submit(cluster *c, uint32_t i) {
  Ballast__Control__Submit m = BALLAST__CONTROL__SUBMIT__INIT;
  m.request = 4 * i + 1;
  m.token = c->jobs[i].token;
  m.job_text = (char *)(uintptr_t)c->o->jobs[i].text;
  m.file = (char *)"sim.yaml";
  m.submitter = (char *)"sim";
  send_command(c, BL_MSG_SUBMIT, &m.base);
}

static void send_cancel(cluster *c, uint32_t i) {
  Ballast__Control__Cancel m = BALLAST__CONTROL__CANCEL__INIT;
  m.request = 4 * i + 2;
  m.job = c->jobs[i].id;
  send_command(c, BL_MSG_CANCEL, &m.base);
}

static void send_query(cluster *c, uint32_t i) {
  Ballast__Control__Query m = BALLAST__CONTROL__QUERY__INIT;
  m.request = 4 * i + 3;
  m.what = (char *)"job";
  m.job = c->jobs[i].id;
  send_command(c, BL_MSG_QUERY, &m.base);
}

static bool is_terminal(const sim_job *j) {
  return co_job_state_is_terminal(co_job_phase_by_name(j->state));
}

static void on_submitted(cluster *c, sim_job *j, const Ballast__Control__Answer *m) {
  if (m->status == (uint32_t)-BL_EIO)
    return; /* the store fails now: again */
  if (m->status != 0)
    cluster_break(c, "a job is refused: %s", m->text);
  else if (j->id != 0 && j->id != m->job)
    cluster_break(c, "one token is two jobs: %" PRIu64 " and %" PRIu64, j->id, m->job);
  j->id = m->job;
}

static void on_cancelled(cluster *c, sim_job *j, const Ballast__Control__Answer *m) {
  (void)c;
  /* BL_ESTATE: it is over, or its result is being handed in. */
  j->cancel_answered = m->status == 0 || m->status == (uint32_t)-BL_ESTATE;
}

static void on_state(cluster *c, sim_job *j, const Ballast__Control__Answer *m) {
  json_t *root = m->status == 0 ? json_loads(m->json, 0, NULL) : NULL;
  const char *state = root != NULL ? json_string_value(json_object_get(root, "state")) : NULL;
  if (state == NULL)
    cluster_break(c, "the state of job %" PRIu64 " cannot be read: %s %.80s", j->id, m->text, m->json);
  else if (is_terminal(j) && strcmp(j->state, state) != 0)
    cluster_break(c, "job %" PRIu64 " was %s and is %s", j->id, j->state, state);
  else
    bl_str_copy(j->state, sizeof j->state, state);
  json_decref(root);
}

static void command_on_msg(const bl_peer *from, bl_msg *msg, void *arg) {
  (void)from;
  cluster *c = arg;
  bl_msg_type type;
  ProtobufCMessage *m;
  ck_assert_ok(bl_control_unpack(msg, &type, &m, NULL));
  if (type == BL_MSG_ANSWER) {
    static void (*const handlers[4])(cluster * c, sim_job * j, const Ballast__Control__Answer *m) = {
        NULL, on_submitted, on_cancelled, on_state};
    const Ballast__Control__Answer *a = (const Ballast__Control__Answer *)m;
    sim_job *j = &c->jobs[a->request / 4 % CLUSTER_JOBS_MAX];
    /* With reordering an old answer may come behind a newer one: ends are final, the rest does not matter. */
    if (handlers[a->request % 4] != NULL && !(a->request % 4 == 3 && is_terminal(j)))
      handlers[a->request % 4](c, j, a);
  }
  bl_control_free(m);
}

static uint64_t command_tick(void *arg, uint64_t now_ns) {
  cluster *c = arg;
  if (now_ns < c->ask_at_ns)
    return c->ask_at_ns;
  for (uint32_t i = 0; i < c->o->n_jobs; i++) {
    sim_job *j = &c->jobs[i];
    if (now_ns < c->o->jobs[i].submit_ns)
      continue;
    if (j->id == 0)
      send_submit(c, i);
    else if (j->cancel_wanted && !j->cancel_answered)
      send_cancel(c, i);
    if (j->id != 0 && !is_terminal(j))
      send_query(c, i);
  }
  c->ask_at_ns = now_ns + ASK_NS;
  return c->ask_at_ns;
}

/* ---- faults ---- */

typedef struct planned {
  cluster *c;
  cluster_fault f;
  const sim_node *a, *b; /* of a cut */
} planned;

static sim_task *some_task(cluster *c) {
  uint32_t n = 0, at = 0;
  for (uint32_t i = 0; i < c->n_tasks; i++)
    n += sim_task_is_live(c->tasks[i]);
  if (n == 0)
    return NULL;
  uint32_t pick = (uint32_t)sim_random_below(c->sim, n);
  while (!sim_task_is_live(c->tasks[at]) || pick-- > 0)
    at++;
  return c->tasks[at];
}

static void coordinator_overdue(void *arg) {
  sim_coordinator *k = arg;
  if (k->core != NULL && k->die_at_puts > 0)
    sim_coordinator_crash(k);
}

static void crash_coordinator(planned *p) {
  sim_coordinator *k = &p->c->co;
  if (k->core == NULL)
    return;
  k->back_after_ns = p->f.for_ns;
  k->die_at_puts = memory_store_puts(k->store) + 1 + sim_random_below(p->c->sim, 4);
  sim_after(p->c->sim, DYING_MAX_NS, coordinator_overdue, k);
}

static void crash_task(planned *p) {
  sim_task *t = some_task(p->c);
  if (t != NULL)
    sim_task_end(t, 0, 11);
}

static void crash_worker(planned *p) {
  sim_worker *w = &p->c->workers[p->f.which % p->c->o->n_workers];
  sim_worker_crash(w);
  sim_after(p->c->sim, p->f.for_ns, sim_worker_start, w);
}

static void pause_worker(planned *p) {
  sim_worker_pause(&p->c->workers[p->f.which % p->c->o->n_workers], p->f.for_ns);
}

static void crash_server(planned *p) {
  sim_server *s = &p->c->servers[p->f.which % p->c->o->n_servers];
  s->was_taken = true;
  sim_server_crash(s);
  sim_after(p->c->sim, p->f.for_ns, sim_server_start, s);
}

static void mend(void *arg) {
  planned *p = arg;
  sim_cut(p->c->sim, p->a, p->b, false);
}

static void cut(planned *p, const sim_node *a, const sim_node *b) {
  bool back = sim_random_below(p->c->sim, 2) == 1;
  p->a = back ? b : a;
  p->b = back ? a : b;
  sim_cut(p->c->sim, p->a, p->b, true);
  sim_after(p->c->sim, p->f.for_ns, mend, p);
}

static void cut_control(planned *p) {
  cut(p, p->c->co.node, p->c->workers[p->f.which % p->c->o->n_workers].node);
}

static void cut_server(planned *p) {
  sim_server *s = &p->c->servers[p->f.which % p->c->o->n_servers];
  s->was_taken = true; /* if it lasts */
  cut(p, p->c->co.node, s->node);
}

static void cut_data(planned *p) {
  sim_task *t = some_task(p->c);
  const sim_server *s = &p->c->servers[p->f.which % p->c->o->n_servers];
  if (t != NULL)
    cut(p, t->node, s->shards[sim_random_below(p->c->sim, p->c->o->n_shards)].node);
}

static void store_works(void *arg) {
  sim_coordinator *k = &((cluster *)arg)->co;
  if (!k->dying)
    memory_store_set_failing(k->store, false);
}

static void fail_store(planned *p) {
  memory_store_set_failing(p->c->co.store, true);
  sim_after(p->c->sim, p->f.for_ns, store_works, p->c);
}

static void cancel(planned *p) {
  p->c->jobs[p->f.which % p->c->o->n_jobs].cancel_wanted = true;
}

static void join_server(planned *p) {
  sim_server_start(&p->c->servers[p->f.which]);
}

static void happen(void *arg) {
  static void (*const faults[CLUSTER_FAULT_KINDS])(planned * p) = {
      [CLUSTER_COORDINATOR_CRASH] = crash_coordinator,
      [CLUSTER_TASK_CRASH] = crash_task,
      [CLUSTER_WORKER_CRASH] = crash_worker,
      [CLUSTER_WORKER_PAUSE] = pause_worker,
      [CLUSTER_SERVER_CRASH] = crash_server,
      [CLUSTER_CONTROL_CUT] = cut_control,
      [CLUSTER_SERVER_CUT] = cut_server,
      [CLUSTER_DATA_CUT] = cut_data,
      [CLUSTER_STORE_FAILS] = fail_store,
      [CLUSTER_CANCEL] = cancel,
      [CLUSTER_SERVER_JOINS] = join_server,
  };
  planned *p = arg;
  faults[p->f.kind](p);
}

static bool joins_later(const cluster_options *o, uint32_t server) {
  for (uint32_t i = 0; i < o->n_faults; i++)
    if (o->faults[i].kind == CLUSTER_SERVER_JOINS && o->faults[i].which == server)
      return true;
  return false;
}

/* ---- the end ---- */

static bool is_quiet(void *arg) {
  cluster *c = arg;
  if (c->broken[0] != '\0')
    return true;
  if (sim_now(c->sim) < c->faults_end_ns || c->co.core == NULL)
    return false;
  for (uint32_t i = 0; i < c->o->n_jobs; i++)
    if (!is_terminal(&c->jobs[i]))
      return false;
  for (uint32_t i = 0; i < c->n_tasks; i++)
    if (sim_task_is_live(c->tasks[i]))
      return false;
  for (uint32_t i = 0; i < c->o->n_servers; i++)
    if (!sim_server_holds_nothing(&c->servers[i]))
      return false;
  return true;
}

static void say_what_it_waits_for(cluster *c) {
  char what[160] = "the coordinator";
  for (uint32_t i = 0; i < c->o->n_jobs && c->co.core != NULL; i++) {
    const co_job *job = co_state_job(co_core_state(c->co.core), c->jobs[i].id);
    if (job != NULL && !is_terminal(&c->jobs[i])) {
      snprintf(what, sizeof what, "job %" PRIu64 ", %s: %.120s", job->id, co_job_phase_name(job->state),
               job->waits_for);
      cluster_break(c, "the cluster does not come to an end: %s", what);
    }
  }
  for (uint32_t i = 0; i < c->n_tasks; i++) {
    const sim_task *t = c->tasks[i];
    if (sim_task_is_live(t))
      cluster_break(c, "a task lives for ever: process %" PRIu64 " on %s in state %d", t->process,
                    t->worker->name, (int)t->state);
  }
  for (uint32_t i = 0; i < c->o->n_servers; i++)
    if (!sim_server_holds_nothing(&c->servers[i]))
      cluster_break(c, "server %s still holds something", c->servers[i].name);
  cluster_break(c, "the cluster does not come to an end");
}

/* With early stopping the toy's first epoch is the best, and its second the last (patience 1). */
static uint32_t epochs_of(const co_job *job) { return job->spec->stop.metric != NULL ? 2 : (uint32_t)job->spec->epochs; }

static void check_epochs(cluster *c, const co_job *job) {
  if (job->n_epochs != epochs_of(job))
    cluster_break(c, "job %" PRIu64 " has %u of %u epochs", job->id, job->n_epochs, epochs_of(job));
  for (uint32_t e = 0; e < job->n_epochs; e++) {
    uint64_t n = job->epochs[e].train.n, left = n;
    bool right = job->epochs[e].closed;
    /* A rank that was replaced may have missed one, and a free running one may have had nothing to do in it. */
    for (uint32_t r = 0; r < job->n_ranks; r++, left >>= 4)
      right = right && ((left & 15) == 1 ||
                        ((left & 15) == 0 && (job->ranks[r].incarnation > 1 || co_job_has_ledger(job))));
    if (!right || left != 0)
      cluster_break(c, "epoch %u of job %" PRIu64 " adds up to %016" PRIx64, e + 1, job->id, n);
  }
}

/* Every sample of every epoch is in one clock of one rank, and all chunks of that clock were applied. */
static void check_free(cluster *c, const sim_job *j, const co_job *job) {
  uint8_t taken[64][SIM_TRAIN_SAMPLES] = {{0}};
  uint64_t epochs = job->spec->epochs, sum = 0;
  for (uint32_t r = 0; r < j->world; r++)
    for (uint64_t k = 0; k < j->n_clocks[r]; k++) {
      for (uint64_t i = j->shares[r][k].first; i < j->shares[r][k].end; i++)
        taken[j->shares[r][k].epoch % 64][i]++;
      for (uint32_t chunk = 0; chunk < j->n_chunks; chunk++)
        sum += j->applied[(k * j->world + r) * j->n_chunks + chunk] == 0;
    }
  for (uint64_t e = 0; e < epochs; e++)
    for (uint32_t i = 0; i < SIM_TRAIN_SAMPLES; i++)
      if (taken[e][i] != 1)
        cluster_break(c, "sample %u of epoch %" PRIu64 " of job %" PRIu64 " is taken %u times", i, e + 1, j->id,
                      taken[e][i]);
  if (sum != 0)
    cluster_break(c, "%" PRIu64 " pushes of job %" PRIu64 " are missing", sum, j->id);
}

/* All of the first clocks, and nothing behind them. */
static void check_applied(cluster *c, const sim_job *j, uint64_t clocks) {
  size_t n = (size_t)j->clocks * j->world * j->n_chunks, n_done = (size_t)clocks * j->world * j->n_chunks;
  if (j->applied == NULL)
    cluster_break(c, "job %" PRIu64 " is done and was never opened", j->id);
  for (size_t i = 0; j->applied != NULL && i < n; i++)
    if (j->applied[i] != SIM_NOT_IN_CLOCK && j->applied[i] != (i < n_done))
      cluster_break(c, "push %zu of job %" PRIu64 " is applied %u times", i, j->id, j->applied[i]);
}

static void check_done(cluster *c, const sim_job *j, const co_job *job, uint64_t *ret_weights) {
  co_result r;
  check_epochs(c, job);
  if (j->is_free) {
    check_free(c, j, job);
    return;
  }
  uint64_t clocks = j->clocks / job->spec->epochs * epochs_of(job);
  uint64_t expected = toy_reference(job->open->plan, clocks);
  check_applied(c, j, clocks);
  if (!co_job_result(job, &r))
    cluster_break(c, "job %" PRIu64 " is done without a result", job->id);
  else if (r.weights_xxh3 != expected && !j->lost_residuals)
    cluster_break(c, "job %" PRIu64 " ends with weights %016" PRIx64 ", the straight line with %016" PRIx64,
                  job->id, r.weights_xxh3, expected);
  *ret_weights = expected;
}

static void check_failed(cluster *c, const co_job *job) {
  for (uint32_t i = 0; i < job->n_servers; i++) {
    char phrase[BL_CONTROL_NAME_BYTES_MAX + 16];
    snprintf(phrase, sizeof phrase, "server %s", job->servers[i].name);
    for (uint32_t k = 0; k < c->o->n_servers; k++)
      if (strcmp(c->servers[k].name, job->servers[i].name) == 0 && c->servers[k].was_taken &&
          strstr(job->reason, phrase) != NULL)
        return;
  }
  cluster_break(c, "job %" PRIu64 " failed: %s", job->id, job->reason);
}

static void check_end(cluster *c, cluster_result *result) {
  for (uint32_t i = 0; i < c->o->n_jobs; i++) {
    const sim_job *j = &c->jobs[i];
    const co_job *job = co_state_job(co_core_state(c->co.core), j->id);
    if (job == NULL || strcmp(co_job_state_name(job->state), j->state) != 0) {
      cluster_break(c, "job %" PRIu64 " is %s, the command was told %s", j->id,
                    job != NULL ? co_job_state_name(job->state) : "unknown", j->state);
      return;
    }
    bl_str_copy(result->state[i], sizeof result->state[i], j->state);
    bl_str_copy(result->reason[i], sizeof result->reason[i], job->reason);
    result->n_views[i] = job->view;
    if (job->state == CO_JOB_DONE)
      check_done(c, j, job, &result->weights[i]);
    if (job->state == CO_JOB_FAILED)
      check_failed(c, job);
    if (job->state == CO_JOB_CANCELLED && !j->cancel_wanted)
      cluster_break(c, "job %" PRIu64 " is cancelled and nobody asked for it", j->id);
  }
}

/* ---- a run ---- */

static void set_up(cluster *c, planned *plans) {
  const cluster_options *o = c->o;
  sim_config net = o->net;
  net.seed = o->seed;
  sim_residuals_begin();
  c->sim = sim_new(&net);
  c->old_servers = o->old_servers;
  c->old_workers = o->old_workers;
  c->old_coordinator = o->old_coordinator;
  sim_coordinator_init(c);
  for (uint32_t i = 0; i < o->n_servers; i++) {
    sim_server_init(c, i);
    if (!joins_later(o, i))
      sim_after(c->sim, sim_random_below(c->sim, BL_NS_PER_S), sim_server_start, &c->servers[i]);
  }
  for (uint32_t i = 0; i < o->n_workers; i++) {
    sim_worker_init(c, i);
    sim_after(c->sim, sim_random_below(c->sim, BL_NS_PER_S), sim_worker_start, &c->workers[i]);
  }
  for (uint32_t i = 0; i < o->n_jobs; i++)
    snprintf(c->jobs[i].token, sizeof c->jobs[i].token, "token-%u", i);
  c->command = sim_node_new(c->sim, "cli", command_tick, c);
  sim_set_old(c, c->command, o->old_command);
  c->command_dealer = sim_dealer(c->command, "cli", c->co.router, command_on_msg, c);
  for (uint32_t i = 0; i < o->n_faults; i++) {
    plans[i] = (planned){.c = c, .f = o->faults[i]};
    sim_after(c->sim, o->faults[i].at_ns, happen, &plans[i]);
    c->faults_end_ns =
        BL_MAX(c->faults_end_ns, sim_now(c->sim) + o->faults[i].at_ns + o->faults[i].for_ns + DYING_MAX_NS);
  }
}

static void tear_down(cluster *c) {
  for (uint32_t i = 0; i < c->n_tasks; i++)
    sim_task_free(c->tasks[i]);
  for (uint32_t i = 0; i < c->o->n_workers; i++)
    wk_agent_free(c->workers[i].agent);
  for (uint32_t i = 0; i < c->o->n_servers; i++)
    sim_server_crash(&c->servers[i]);
  co_core_free(c->co.core);
  c->co.store->close(c->co.store);
  sim_free(c->sim);
  bl_buf_fini(&c->schema);
  for (uint32_t i = 0; i < c->o->n_jobs; i++)
    bl_free(c->jobs[i].applied);
  bl_free(c);
}

void cluster_run(const cluster_options *o, cluster_result *ret_result) {
  planned plans[CLUSTER_FAULTS_MAX];
  cluster *c = bl_calloc(1, sizeof *c);
  ck_assert_ptr_nonnull(c);
  c->o = o;
  memset(ret_result, 0, sizeof *ret_result);
  set_up(c, plans);
  if (!sim_run(c->sim, is_quiet, c, LIMIT_NS))
    say_what_it_waits_for(c);
  ret_result->sim_ns = sim_now(c->sim);
  memcpy(ret_result->deaths_in, c->deaths_in, sizeof c->deaths_in);
  if (c->broken[0] == '\0')
    check_end(c, ret_result);
  bl_str_copy(ret_result->broken, sizeof ret_result->broken, c->broken);
  tear_down(c);
}
