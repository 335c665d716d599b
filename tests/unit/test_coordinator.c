/* SPDX-License-Identifier: Apache-2.0
 *
 * The coordinator's core over a fake transport and a store in memory. Fake nodes do what a server or an agent
 * does with commands and report it in heartbeats. The transport checks on every message the rule on which all
 * rests: whatever view and incarnation it names stands in the store already.
 */
#include "base/alloc.h"
#include "base/file.h"
#include "base/num.h"
#include "base/rng.h"
#include "codec/spec.h"
#include "coordinator/core.h"
#include "coordinator/history.h"
#include "coordinator/lifecycle.h"
#include "coordinator/queue.h"
#include "coordinator/status.h"
#include "job/plan.h"
#include "tests/support/memory_store.h"
#include "tests/support/support.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#define S UINT64_C(1000000000)
#define MS UINT64_C(1000000)
#define NODES_MAX 6
#define HELD_MAX 16

typedef struct held_task {
  uint64_t job, view;
  uint32_t rank, incarnation;
  Ballast__Control__TaskState state;
  uint64_t sequence; /* of reports sent */
  bool retryable;
  const char *text;
  const char *pushes_as; /* tells of its tensors; NULL: not this time */
} held_task;

typedef struct held_job {
  uint64_t job, view, memory_bytes;
} held_job;

typedef struct fake_node {
  char name[16];
  bl_role role;
  uint64_t incarnation, heartbeats, memory_bytes;
  uint32_t slots, n_shards;
  uint32_t protocol; /* 0: today's */
  const char *blas_core;
  bl_peer peer;
  bool up;   /* sends heartbeats and hears */
  bool deaf; /* sends heartbeats, hears nothing */
  bool keeps_loading;
  held_task tasks[HELD_MAX];
  size_t n_tasks;
  held_job jobs[HELD_MAX];
  size_t n_jobs;
} fake_node;

static co_core *core;
static co_store *store;
static fake_node nodes[NODES_MAX];
static size_t n_nodes;
static uint64_t now_ns;
static unsigned sent[BL_MSG_TYPE_END];
static bl_peer command_peer;
/* Faults: percent of messages lost each way; 0 outside the test that sets them. */
static struct {
  uint64_t seed, count;
  unsigned lost_percent, doubled_percent;
} faults;

static bool happens(unsigned percent) {
  return percent > 0 && bl_rng_below(faults.seed, 1, faults.count++, 100) < percent;
}
/* Last answer, ack or rejection. */
static struct {
  uint32_t status, protocol;
  uint64_t job, ack;
  size_t n_leases;
  bool exhausted;
  Ballast__Control__Lease lease; /* the last one */
  char text[2048];
  char *json;
  /* of the last acknowledgement that brought metrics */
  char csv[4096], first_file[64], first_text[1024];
  size_t files;
  uint32_t verdict_epoch, best_epoch, n_verdicts[8];
  bool stop;
} last;

/* ---- nodes ------------------------------------------------------------------------------------------ */

static held_task *task_of(fake_node *n, uint64_t job, uint32_t rank, uint32_t incarnation) {
  for (size_t i = 0; i < n->n_tasks; i++)
    if (n->tasks[i].job == job && n->tasks[i].rank == rank && n->tasks[i].incarnation == incarnation)
      return &n->tasks[i];
  return NULL;
}

static void check_stored(uint64_t job, uint64_t view, uint32_t rank, uint32_t incarnation) {
  const co_job_record *r = memory_store_job(store, job);
  ck_assert_msg(r != NULL, "job %" PRIu64 " is announced and not stored", job);
  ck_assert_msg(r->view >= view, "view %" PRIu64 " is announced, stored is %" PRIu64, view, r->view);
  if (rank != UINT32_MAX)
    ck_assert_uint_eq(r->ranks[rank].incarnation, incarnation);
}

static void node_starts(fake_node *n, const Ballast__Control__StartTask *m) {
  check_stored(m->plan->job, m->plan->view, m->rank, m->incarnation);
  if (task_of(n, m->plan->job, m->rank, m->incarnation) != NULL)
    return;
  ck_assert_uint_lt(n->n_tasks, HELD_MAX);
  n->tasks[n->n_tasks++] = (held_task){.job = m->plan->job,
                                       .view = m->plan->view,
                                       .rank = m->rank,
                                       .incarnation = m->incarnation,
                                       .state = n->keeps_loading ? BALLAST__CONTROL__TASK_STATE__TASK_LOADING
                                                                 : BALLAST__CONTROL__TASK_STATE__TASK_READY};
}

static void node_stops(fake_node *n, const Ballast__Control__StopTask *m) {
  held_task *t = task_of(n, m->job, m->rank, m->incarnation);
  if (t != NULL)
    *t = n->tasks[--n->n_tasks];
}

static void node_opens(fake_node *n, const Ballast__Control__OpenJob *m) {
  check_stored(m->plan->job, m->plan->view, UINT32_MAX, 0);
  ck_assert_uint_gt(m->plan->clocks, 0);
  for (size_t i = 0; i < n->n_jobs; i++)
    if (n->jobs[i].job == m->plan->job) {
      n->jobs[i].view = BL_MAX(n->jobs[i].view, m->plan->view);
      return;
    }
  n->jobs[n->n_jobs++] = (held_job){m->plan->job, m->plan->view, 1176}; /* 49 weights at 24 bytes */
}

static void node_closes(fake_node *n, uint64_t job) {
  for (size_t i = 0; i < n->n_jobs; i++)
    if (n->jobs[i].job == job)
      n->jobs[i] = n->jobs[--n->n_jobs];
}

static void node_hears(fake_node *n, bl_msg_type type, const ProtobufCMessage *base) {
  held_task *t;
  if (type == BL_MSG_START_TASK)
    node_starts(n, (const Ballast__Control__StartTask *)base);
  if (type == BL_MSG_STOP_TASK)
    node_stops(n, (const Ballast__Control__StopTask *)base);
  if (type == BL_MSG_OPEN_JOB)
    node_opens(n, (const Ballast__Control__OpenJob *)base);
  if (type == BL_MSG_CLOSE_JOB)
    node_closes(n, ((const Ballast__Control__CloseJob *)base)->job);
  if (type == BL_MSG_UPDATE_TASK) {
    const Ballast__Control__UpdateTask *m = (const Ballast__Control__UpdateTask *)base;
    check_stored(m->plan->job, m->plan->view, m->rank, m->incarnation);
    ck_assert_uint_gt(m->plan->clocks, 0);
    if ((t = task_of(n, m->plan->job, m->rank, m->incarnation)) != NULL)
      t->view = BL_MAX(t->view, m->plan->view);
  }
  if (type == BL_MSG_RUN_TASK) {
    const Ballast__Control__RunTask *m = (const Ballast__Control__RunTask *)base;
    check_stored(m->job, m->view, m->rank, m->incarnation);
    if ((t = task_of(n, m->job, m->rank, m->incarnation)) != NULL &&
        t->state == BALLAST__CONTROL__TASK_STATE__TASK_READY)
      t->state = BALLAST__CONTROL__TASK_STATE__TASK_RUNNING;
  }
}

static void command_hears(bl_msg_type type, const ProtobufCMessage *base) {
  if (type == BL_MSG_ANSWER) {
    const Ballast__Control__Answer *m = (const Ballast__Control__Answer *)base;
    last.status = m->status;
    last.job = m->job;
    snprintf(last.text, sizeof last.text, "%s", m->text);
    bl_free(last.json);
    last.json = bl_strdup(m->json);
  }
  if (type == BL_MSG_REJECTED) {
    const Ballast__Control__Rejected *m = (const Ballast__Control__Rejected *)base;
    last.status = m->status;
    snprintf(last.text, sizeof last.text, "%s", m->text);
  }
  if (type == BL_MSG_REGISTERED)
    last.protocol = ((const Ballast__Control__Registered *)base)->protocol;
  if (type == BL_MSG_REPORT_ACK) {
    const Ballast__Control__ReportAck *m = (const Ballast__Control__ReportAck *)base;
    last.n_leases = m->n_leases;
    last.exhausted = m->exhausted;
    if (m->n_leases > 0)
      last.lease = *m->leases[m->n_leases - 1];
    last.ack = m->sequence > 0 ? m->sequence : last.ack;
    if (m->verdict != NULL) {
      last.verdict_epoch = m->verdict->epoch;
      last.best_epoch = m->verdict->best_epoch;
      last.stop = m->verdict->stop;
      last.n_verdicts[m->verdict->epoch % 8]++;
    }
    if (m->metrics_csv[0] != '\0') {
      snprintf(last.csv, sizeof last.csv, "%s", m->metrics_csv);
      last.files = m->n_files;
      snprintf(last.first_file, sizeof last.first_file, "%s", m->n_files > 0 ? m->files[0]->name : "");
      snprintf(last.first_text, sizeof last.first_text, "%s", m->n_files > 0 ? m->files[0]->text : "");
    }
  }
}

/* A coordinator that dies with the put that is the last to reach the disk: what it says behind it is not heard
 * any more, or (says_more) only what it says behind the first put that is lost. */
static struct {
  bool armed, says_more, dying;
  uint64_t last_put, refused;
  unsigned in_state[CO_JOB_STATE_COUNT]; /* of the first job, as stored when it died */
} death;

static bool dies_now(void) {
  if (death.armed && !death.dying)
    death.dying = death.says_more ? memory_store_refused(store) > death.refused
                                  : memory_store_puts(store) >= death.last_put;
  return death.dying;
}

static bl_status fake_send(bl_transport *t, const bl_peer *to, bl_msg *msg) {
  (void)t;
  if (dies_now()) {
    bl_msg_fini(msg);
    return BL_OK;
  }
  bl_msg_type type;
  ProtobufCMessage *m;
  bl_error err = BL_ERROR_INIT;
  ck_assert_ok_err(bl_control_unpack(msg, &type, &m, &err), err);
  sent[type]++;
  command_hears(type, m);
  bool lost = happens(faults.lost_percent);
  for (size_t i = 0; i < n_nodes; i++)
    if (nodes[i].up && !nodes[i].deaf && !lost && nodes[i].peer.id_size == to->id_size &&
        memcmp(nodes[i].peer.id, to->id, to->id_size) == 0)
      node_hears(&nodes[i], type, m);
  bl_control_free(m);
  bl_msg_fini(msg);
  return BL_OK;
}

static bl_transport transport = {fake_send};

static void rises_again(void);

/* ---- talking to the core ------------------------------------------------------------------------------ */

static void deliver(const bl_peer *from, bl_msg_type type, const ProtobufCMessage *m) {
  bl_msg msg = BL_MSG_INIT;
  ck_assert_ok(bl_control_pack(type, m, &msg));
  if (!happens(faults.lost_percent))
    co_core_on_msg(core, from, &msg, now_ns);
  if (happens(faults.doubled_percent))
    co_core_on_msg(core, from, &msg, now_ns);
  bl_msg_fini(&msg);
  rises_again();
}

static void tick(uint64_t after_ns) {
  now_ns += after_ns;
  co_core_set_wall(core, UINT64_C(1700000000) * S + now_ns);
  co_core_tick(core, now_ns);
  rises_again();
}

static uint64_t history_jobs_max = 50;

static void core_starts(void) {
  co_core_config config = {.incarnation = now_ns,
                           .heartbeat_ns = 500 * MS,
                           .lease_ns = 3 * S,
                           .history_jobs_max = history_jobs_max,
                           .queue_pass_ns = UINT64_C(300000000000),
                           .transport = &transport,
                           .store = store};
  bl_error err = BL_ERROR_INIT;
  ck_assert_ok_err(co_core_new(&config, now_ns, UINT64_C(1700000000) * S + now_ns, &core, &err), err);
}

static void registers(fake_node *n) {
  Ballast__Control__Register m = BALLAST__CONTROL__REGISTER__INIT;
  char *endpoints[4] = {(char *)"tcp://h:1", (char *)"tcp://h:2", (char *)"tcp://h:3", (char *)"tcp://h:4"};
  m.protocol_min = BL_PROTOCOL_MIN;
  m.protocol_max = bl_protocol_max(n->protocol);
  m.role = (Ballast__Control__Role)n->role;
  m.name = n->name;
  m.incarnation = n->incarnation;
  m.shard_endpoints = endpoints;
  m.n_shard_endpoints = n->n_shards;
  m.memory_bytes = n->memory_bytes;
  m.slots = n->slots;
  m.blas_core = (char *)n->blas_core;
  m.host = (char *)"host";
  deliver(&n->peer, BL_MSG_REGISTER, &m.base);
}

/* One tensor by its name, and three others together. */
static void fill_traffic(const held_task *t, Ballast__Control__TensorTraffic at[2], Ballast__Control__TensorTraffic *list[2]) {
  for (int i = 0; i < 2; i++) {
    ballast__control__tensor_traffic__init(&at[i]);
    at[i].name = (char *)(i == 0 ? "dense1.weight" : "");
    at[i].n_tensors = i == 0 ? 0 : 3;
    at[i].codec_push = (char *)t->pushes_as;
    at[i].codec_pull = (char *)"float16";
    at[i].reason = (char *)(t->rank == 1 && i == 0 ? "because" : "");
    at[i].bytes_pushed = 100;
    at[i].bytes_pushed_dense = 400;
    at[i].residual_norm = 3;
    at[i].gradient_norm = 6;
    at[i].residuals_lost = t->rank;
    at[i].lost_squared = 4.0 * t->rank;
    list[i] = &at[i];
  }
}

static void beat_with(fake_node *n, uint64_t sequence) {
  Ballast__Control__Heartbeat hb = BALLAST__CONTROL__HEARTBEAT__INIT;
  Ballast__Control__TaskStatus tasks[HELD_MAX], *task_list[HELD_MAX];
  Ballast__Control__ServerJobStatus jobs[HELD_MAX], *job_list[HELD_MAX];
  Ballast__Control__TensorTraffic traffic[HELD_MAX][2], *traffic_list[HELD_MAX][2];
  for (size_t i = 0; i < n->n_tasks; i++) {
    ballast__control__task_status__init(&tasks[i]);
    const held_task *t = &n->tasks[i];
    tasks[i].job = t->job;
    tasks[i].rank = t->rank;
    tasks[i].incarnation = t->incarnation;
    tasks[i].view = t->view;
    tasks[i].state = t->state;
    tasks[i].retryable = t->retryable;
    if (t->state == BALLAST__CONTROL__TASK_STATE__TASK_FAILED) {
      tasks[i].status = -BL_EIO;
      tasks[i].text = (char *)t->text;
    }
    task_list[i] = &tasks[i];
    if (t->pushes_as != NULL) {
      fill_traffic(t, traffic[i], traffic_list[i]);
      tasks[i].traffic = traffic_list[i];
      tasks[i].n_traffic = 2;
    }
  }
  for (size_t i = 0; i < n->n_jobs; i++) {
    ballast__control__server_job_status__init(&jobs[i]);
    jobs[i].job = n->jobs[i].job;
    jobs[i].view = n->jobs[i].view;
    jobs[i].memory_bytes = n->jobs[i].memory_bytes;
    jobs[i].state = BALLAST__CONTROL__SHARD_JOB_STATE__SHARD_JOB_OPEN;
    job_list[i] = &jobs[i];
  }
  hb.name = n->name;
  hb.incarnation = n->incarnation;
  hb.sequence = sequence;
  hb.tasks = task_list;
  hb.n_tasks = n->n_tasks;
  hb.jobs = job_list;
  hb.n_jobs = n->n_jobs;
  deliver(&n->peer, BL_MSG_HEARTBEAT, &hb.base);
}

static void beat(fake_node *n) {
  beat_with(n, ++n->heartbeats);
}

static fake_node *add(const char *name, bl_role role, uint32_t slots_or_shards) {
  fake_node *n = &nodes[n_nodes++];
  *n = (fake_node){.role = role, .incarnation = 1000 + n_nodes, .up = true, .blas_core = "Zen"};
  snprintf(n->name, sizeof n->name, "%s", name);
  n->slots = role == BL_ROLE_WORKER ? slots_or_shards : 0;
  n->n_shards = role == BL_ROLE_SERVER ? slots_or_shards : 0;
  n->memory_bytes = role == BL_ROLE_SERVER ? UINT64_C(1) << 30 : 0;
  n->peer.id_size = (uint8_t)strlen(name);
  memcpy(n->peer.id, name, strlen(name));
  registers(n);
  beat(n);
  return n;
}

static fake_node *named(const char *name) {
  for (size_t i = 0; i < n_nodes; i++)
    if (strcmp(nodes[i].name, name) == 0)
      return &nodes[i];
  ck_abort_msg("no node %s", name);
  return NULL;
}

/* Half a second of a cluster's life: everybody reports, the core draws its conclusions. */
static void round_of_life(void) {
  tick(490 * MS);
  for (size_t i = 0; i < n_nodes; i++)
    if (nodes[i].up)
      beat(&nodes[i]);
  tick(10 * MS);
}

static void rounds(unsigned n) {
  while (n-- > 0)
    round_of_life();
}

static char *job_text(const char *more) {
  static char text[1024];
  snprintf(text, sizeof text,
           "name: test\nseed: 1\ndata:\n  train: {libsvm: /d/train}\n  test: {libsvm: /d/test}\n"
           "model:\n  input: [10]\n  layers: [dense 4 relu, dense 1]\nloss: sigmoid_cross_entropy\n"
           "optimizer: {adam: {lr: 0.001}}\nbatch: 10\nepochs: 2\n%s",
           more);
  return text;
}

static uint64_t submit_as(const bl_peer *from, const char *token, const char *text) {
  Ballast__Control__Submit m = BALLAST__CONTROL__SUBMIT__INIT;
  m.request = 1;
  m.token = (char *)token;
  m.job_text = (char *)text;
  m.file = (char *)"test.yaml";
  m.submitter = (char *)"me";
  last.job = 0;
  deliver(from, BL_MSG_SUBMIT, &m.base);
  return last.job;
}

static uint64_t submit(const char *token, const char *more) {
  uint64_t id = submit_as(&command_peer, token, job_text(more));
  ck_assert_msg(last.status == 0, "%s", last.text);
  tick(10 * MS);
  return id;
}

static void cancel(const bl_peer *from, uint64_t job) {
  Ballast__Control__Cancel m = BALLAST__CONTROL__CANCEL__INIT;
  m.job = job;
  deliver(from, BL_MSG_CANCEL, &m.base);
  tick(10 * MS);
}

static const co_job *job_of(uint64_t id) {
  const co_job *job = co_state_job(co_core_state(core), id);
  ck_assert_ptr_nonnull(job);
  return job;
}

static void assert_state(uint64_t id, co_job_state state) {
  const co_job *job = job_of(id);
  ck_assert_msg(job->state == state, "job %" PRIu64 " is %s, expected %s: %s%s", id,
                co_job_phase_name(job->state), co_job_phase_name(state), job->reason, job->waits_for);
}

#define ck_assert_text(got, part) ck_assert_msg(strstr(got, part) != NULL, "'%s' lacks '%s'", got, part)

/* ---- reports ---------------------------------------------------------------------------------------- */

static Ballast__Control__Report report_of(const held_task *t, uint64_t sequence) {
  Ballast__Control__Report r = BALLAST__CONTROL__REPORT__INIT;
  r.job = t->job;
  r.rank = t->rank;
  r.incarnation = t->incarnation;
  r.sequence = sequence;
  return r;
}

static void reports_data(fake_node *n, held_task *t, uint64_t samples) {
  Ballast__Control__DataReport d = BALLAST__CONTROL__DATA_REPORT__INIT;
  d.train_samples = samples;
  d.validation_samples = 5;
  d.test_samples = 7;
  d.fingerprint = samples * 3;
  Ballast__Control__Report r = report_of(t, ++t->sequence);
  r.data = &d;
  deliver(&n->peer, BL_MSG_REPORT, &r.base);
}

/* Metrics of a rank in an epoch; sums that differ per rank. */
static Ballast__Control__Metrics metrics(uint32_t rank) {
  Ballast__Control__Metrics m = BALLAST__CONTROL__METRICS__INIT;
  m.n = 50;
  m.loss_sum = 10.0 * (rank + 1);
  m.correct = 40 + rank;
  return m;
}

static void reports_epoch(fake_node *n, held_task *t, uint32_t epoch) {
  Ballast__Control__Metrics train = metrics(t->rank);
  Ballast__Control__EpochReport e = BALLAST__CONTROL__EPOCH_REPORT__INIT;
  e.epoch = epoch;
  e.clock = epoch * 10;
  e.train = &train;
  Ballast__Control__Report r = report_of(t, ++t->sequence);
  r.epoch = &e;
  deliver(&n->peer, BL_MSG_REPORT, &r.base);
}

/* sequence: how far the task's count goes on; 0: the same report again. */
static void wants_samples(fake_node *n, held_task *t, uint64_t clock, uint64_t step) {
  Ballast__Control__LeaseRequest lease = BALLAST__CONTROL__LEASE_REQUEST__INIT;
  lease.clock = clock;
  t->sequence += step;
  Ballast__Control__Report r = report_of(t, t->sequence);
  r.lease = &lease;
  last.n_leases = 0;
  deliver(&n->peer, BL_MSG_REPORT, &r.base);
}

static void reports_done(fake_node *n, held_task *t, uint64_t weights) {
  Ballast__Control__Metrics test = metrics(t->rank);
  Ballast__Control__DoneReport d = BALLAST__CONTROL__DONE_REPORT__INIT;
  d.clocks = 20;
  d.samples = 100;
  d.seconds = 2.0;
  d.weights_xxh3 = weights;
  d.test = &test;
  d.bytes_pushed = 1000;
  d.bytes_pushed_dense = 2000;
  Ballast__Control__Report r = report_of(t, ++t->sequence);
  r.done = &d;
  deliver(&n->peer, BL_MSG_REPORT, &r.base);
  t->state = BALLAST__CONTROL__TASK_STATE__TASK_DONE;
}

typedef void each_task_fn(fake_node *n, held_task *t, uint64_t arg);
static void each_task(uint64_t job, each_task_fn *fn, uint64_t arg) {
  for (size_t i = 0; i < n_nodes; i++)
    for (size_t k = 0; nodes[i].up && k < nodes[i].n_tasks; k++)
      if (nodes[i].tasks[k].job == job)
        fn(&nodes[i], &nodes[i].tasks[k], arg);
}

static void loaded(fake_node *n, held_task *t, uint64_t samples) {
  if (t->sequence == 0)
    reports_data(n, t, samples);
  if (t->state == BALLAST__CONTROL__TASK_STATE__TASK_LOADING)
    t->state = BALLAST__CONTROL__TASK_STATE__TASK_READY;
}
static void one_epoch(fake_node *n, held_task *t, uint64_t epoch) {
  reports_epoch(n, t, (uint32_t)epoch);
}
static void finished(fake_node *n, held_task *t, uint64_t weights) {
  if (t->state != BALLAST__CONTROL__TASK_STATE__TASK_DONE)
    reports_done(n, t, weights);
}

static void drive_to(uint64_t job, co_job_state state) {
  if (state >= CO_JOB_LOADING)
    rounds(1);
  if (state >= CO_JOB_OPENING) {
    each_task(job, loaded, 100);
    tick(10 * MS);
  }
  if (state >= CO_JOB_RUNNING)
    rounds(3);
  if (state >= CO_JOB_FINISHING) {
    each_task(job, one_epoch, 1);
    each_task(job, one_epoch, 2);
    each_task(job, finished, 0xabc);
    tick(10 * MS);
  }
  if (state >= CO_JOB_DONE)
    rounds(4);
}

static void set_up(void) {
  memset(sent, 0, sizeof sent);
  n_nodes = 0;
  now_ns = 1000 * S;
  command_peer = (bl_peer){.id = "cli", .id_size = 3};
  store = memory_store_new();
  core_starts();
}

static void set_up_cluster(void) {
  set_up();
  add("s1", BL_ROLE_SERVER, 1);
  add("s2", BL_ROLE_SERVER, 2);
  add("w1", BL_ROLE_WORKER, 2);
  add("w2", BL_ROLE_WORKER, 2);
}

static void tear_down(void) {
  co_core_free(core);
  store->close(store);
  bl_free(last.json);
  last.json = NULL;
}

static void core_restarts(void) {
  co_core_free(core);
  now_ns += 200 * MS;
  core_starts();
}

static void rises_again(void) {
  if (!death.armed || !(dies_now() || memory_store_refused(store) > death.refused))
    return;
  const co_job_record *r = memory_store_job(store, 1);
  death.in_state[r != NULL ? co_job_phase_by_name(r->phase) : CO_JOB_INVALID]++;
  death.armed = death.dying = false;
  memory_store_set_puts_max(store, 0);
  core_restarts();
}

/* ---- state table ------------------------------------------------------------------------------------ */

/* One row per state, one word per event in the order of co_job_event behind CO_EV_NONE; "-": refused. */
static const char *const product[CO_JOB_STATE_COUNT] = {
    [CO_JOB_QUEUED] = "loading - - - - failed cancelled - -",
    [CO_JOB_LOADING] = "- opening - loading queued failed cancelled - -",
    [CO_JOB_OPENING] = "- - running opening queued failed cancelled - -",
    [CO_JOB_RUNNING] = "- - - recovering failed failed cancelled finishing -",
    [CO_JOB_RECOVERING] = "- - running recovering failed failed cancelled finishing -",
    [CO_JOB_FINISHING] = "- - - - - - - - done",
    [CO_JOB_DONE] = "- - - - - - - - -",
    [CO_JOB_FAILED] = "- - - - - - - - -",
    [CO_JOB_CANCELLED] = "- - - - - - - - -",
};

START_TEST(every_state_meets_every_event_as_the_table_says) {
  for (co_job_state s = CO_JOB_QUEUED; s < CO_JOB_STATE_COUNT; s++) {
    char row[128], *rest = NULL;
    snprintf(row, sizeof row, "%s", product[s]);
    char *word = strtok_r(row, " ", &rest);
    for (co_job_event e = CO_EV_PLACED; e < CO_EV_COUNT; e++, word = strtok_r(NULL, " ", &rest)) {
      co_job_step step = co_job_state_step(s, e);
      co_job_state want = strcmp(word, "-") == 0 ? CO_JOB_INVALID : co_job_phase_by_name(word);
      ck_assert_msg(step.next == want, "%s on %s gives %s, expected %s", co_job_phase_name(s),
                    co_job_event_name(e), co_job_phase_name(step.next), word);
      ck_assert_int_eq(step.action == CO_ACT_NONE, want == CO_JOB_INVALID);
      ck_assert_int_eq(step.action == CO_ACT_END, co_job_state_is_terminal(step.next));
    }
    ck_assert_ptr_null(word);
    ck_assert_int_eq(co_job_phase_by_name(co_job_phase_name(s)), s);
  }
}
END_TEST

/* ---- life ------------------------------------------------------------------------------------------- */

START_TEST(the_plan_says_what_groups_say) {
  uint64_t id = submit("t1", "groups: [{match: \"*.bias\", lr_scale: 0.5, weight_decay: 0.25}, {match: dense1.*, frozen: true}]\n");
  each_task(id, loaded, 100);
  tick(10 * MS);
  const Ballast__Control__JobPlan *plan = job_of(id)->open->plan;
  ck_assert_uint_ge(plan->n_tensors, 2);
  const Ballast__Control__Tensor *weight = plan->tensors[0], *bias = plan->tensors[1];
  ck_assert(weight->grouped && weight->frozen && bias->grouped && !bias->frozen);
  ck_assert_double_eq(bias->lr_scale, 0.5);
  ck_assert_double_eq(bias->weight_decay, 0.25);
  ck_assert_double_lt(weight->weight_decay, 0);
}
END_TEST

START_TEST(the_plan_says_how_tensors_travel) {
  char text[1024];
  snprintf(text, sizeof text, "%s", job_text("not_finite: clip\ncompression: {push: \"topk(2%, ternary)\", exact_below: 0, momentum_correction: 0.5, rules: "
                                             "[{kind: bias, push: none, pull: float16}]}\n"));
  memcpy(strstr(text, "adam: {lr: 0.001}"), "sgd:  {lr: 0.001}", 17);
  uint64_t exact = submit("t0", ""), id = submit_as(&command_peer, "t1", text);
  ck_assert_msg(last.status == 0, "%s", last.text);
  tick(10 * MS);
  each_task(id, loaded, 100);
  tick(10 * MS);
  const Ballast__Control__JobPlan *plan = job_of(id)->open->plan;
  ck_assert(plan->feedback && plan->momentum_correction == 0.5 && plan->warmup_epochs == 0 && !plan->adapts);
  ck_assert_uint_eq(plan->not_finite, BL_NOT_FINITE_CLIP);
  ck_assert_str_eq(plan->codec_push, "topk(0.02, ternary)");
  ck_assert_str_eq(plan->codec_pull, "float32");
  const Ballast__Control__Tensor *weight = plan->tensors[0], *bias = plan->tensors[1];
  ck_assert_str_eq(weight->codec_push, ""); /* as the job's */
  ck_assert_str_eq(weight->codec_pull, "");
  ck_assert_str_eq(bias->codec_push, "float32");
  ck_assert_str_eq(bias->codec_pull, "float16");
  bl_tensor_table *t;
  ck_assert_ok(bl_plan_table(plan, &t, NULL));
  for (uint32_t i = 0; i < t->n_tensors; i++) { /* what nodes make of it is what the job file says */
    const bl_tensor_policy *a = &t->tensors[i].policy, *b = &job_of(id)->table->tensors[i].policy;
    ck_assert(bl_codec_spec_equal(&a->push, &b->push) && bl_codec_spec_equal(&a->pull, &b->pull));
    ck_assert(a->feedback == b->feedback && a->momentum == b->momentum && a->warmup_epochs == b->warmup_epochs);
  }
  bl_tensor_table_free(t);
  ck_assert_uint_gt(memory_store_job(store, id)->plan_bytes, 0); /* the messages have room for such codecs */
  plan = job_of(exact)->open->plan;
  ck_assert(!plan->feedback && plan->momentum_correction == 0); /* nothing that version 1 did not send */
}
END_TEST

START_TEST(an_average_takes_memory_of_the_servers_and_stands_in_the_plan) {
  uint64_t plain = submit("t1", ""), averaged = submit("t2", "average: {ema: 0.75}\nclip: {global_norm: 3}\n");
  ck_assert_uint_eq(co_job_server_bytes(job_of(averaged)) - co_job_server_bytes(job_of(plain)),
                    job_of(plain)->table->n_elems * sizeof(float));
  each_task(averaged, loaded, 100);
  tick(10 * MS);
  const Ballast__Control__JobPlan *plan = job_of(averaged)->open->plan;
  ck_assert_double_eq(plan->average_ema, 0.75);
  ck_assert_double_eq(plan->clip_global_norm, 3);
}
END_TEST

START_TEST(a_job_lives_from_submission_to_its_result) {
  uint64_t id = submit("t1", "ranks: 2\n");
  ck_assert_uint_eq(id, 1);
  assert_state(id, CO_JOB_LOADING);
  ck_assert_str_eq(job_of(id)->ranks[0].node, "w1");
  ck_assert_str_eq(job_of(id)->ranks[1].node, "w2");
  ck_assert_uint_eq(sent[BL_MSG_OPEN_JOB], 0);
  ck_assert_uint_eq(job_of(id)->view, 0);
  rounds(1);
  ck_assert_text(job_of(id)->waits_for, "job 1 waits for rank 0 on w1 to load its data");
  each_task(id, loaded, 100);
  tick(10 * MS);
  assert_state(id, CO_JOB_OPENING);
  ck_assert_uint_eq(job_of(id)->view, 1);
  ck_assert_uint_eq(job_of(id)->open->plan->clocks, 20);
  ck_assert_uint_eq(sent[BL_MSG_RUN_TASK], 0);
  rounds(2);
  assert_state(id, CO_JOB_RUNNING);
  ck_assert_uint_eq(sent[BL_MSG_RUN_TASK], 2);
  rounds(4);
  ck_assert_uint_eq(sent[BL_MSG_START_TASK], 2); /* nothing is repeated once it shows */
  ck_assert_uint_eq(sent[BL_MSG_UPDATE_TASK], 2);
  drive_to(id, CO_JOB_FINISHING);
  assert_state(id, CO_JOB_FINISHING);
  rounds(3);
  assert_state(id, CO_JOB_DONE);
  for (size_t i = 0; i < n_nodes; i++)
    ck_assert_uint_eq(nodes[i].n_tasks + nodes[i].n_jobs, 0);
  co_result r;
  ck_assert(co_job_result(job_of(id), &r));
  ck_assert_uint_eq(r.clocks, 20);
  ck_assert_uint_eq(r.samples, 200);
  ck_assert_double_eq(r.seconds, 2.0);
  ck_assert_uint_eq(r.bytes_pushed, 2000);
  ck_assert_uint_eq(r.test.n, 100);
  ck_assert_double_eq(r.test.loss_sum, 30.0);
  ck_assert_uint_eq(r.weights_xxh3, 0xabc);
}
END_TEST

START_TEST(the_json_of_a_finished_job_has_the_fields_of_run) {
  uint64_t id = submit("t1", "ranks: 2\n");
  drive_to(id, CO_JOB_DONE);
  Ballast__Control__Query q = BALLAST__CONTROL__QUERY__INIT;
  static const char *const queries[] = {"status", "jobs", "logs", "job"};
  for (size_t i = 0; i < BL_COUNT_OF(queries); i++) {
    q.what = (char *)queries[i];
    q.job = id;
    deliver(&command_peer, BL_MSG_QUERY, &q.base);
    ck_assert_msg(last.status == 0, "%s: %s", queries[i], last.text);
    json_t *any = json_loads(last.json, 0, NULL);
    ck_assert_ptr_nonnull(any);
    json_decref(any);
  }
  json_t *job = json_loads(last.json, 0, NULL), *result = json_object_get(job, "result");
  static const char *const fields[] = {"job",
                                       "state",
                                       "reason",
                                       "clocks",
                                       "epochs",
                                       "samples",
                                       "seconds",
                                       "samples_per_second",
                                       "train_loss",
                                       "test_loss",
                                       "test_accuracy",
                                       "bytes_pushed",
                                       "bytes_pulled",
                                       "bytes_pushed_dense",
                                       "bytes_pulled_dense",
                                       "weights_xxh3"};
  for (size_t i = 0; i < BL_COUNT_OF(fields); i++)
    ck_assert_msg(json_object_get(result, fields[i]) != NULL, "%s is missing", fields[i]);
  ck_assert_str_eq(json_string_value(json_object_get(result, "weights_xxh3")), "0000000000000abc");
  ck_assert_str_eq(json_string_value(json_object_get(result, "state")), "done");
  ck_assert_double_eq(json_real_value(json_object_get(result, "test_loss")), 0.3);
  ck_assert_double_eq(json_real_value(json_object_get(result, "test_accuracy")), 0.81);
  ck_assert_uint_eq(json_array_size(json_object_get(job, "history")), 2);
  ck_assert_double_eq(json_real_value(json_object_get(job, "train_loss")), 0.3);
  json_decref(job);
  q.what = (char *)"nonsense";
  deliver(&command_peer, BL_MSG_QUERY, &q.base);
  ck_assert_int_eq(last.status, -BL_EUNSUPPORTED);
  q.what = (char *)"job";
  q.job = 99;
  deliver(&command_peer, BL_MSG_QUERY, &q.base);
  ck_assert_int_eq(last.status, -BL_ENOENT);
  ck_assert_text(last.text, "no job 99");
}
END_TEST

static void assert_documented(const json_t *value, const char *reference) {
  const char *key;
  json_t *child;
  size_t i;
  json_object_foreach((json_t *)value, key, child) {
    char name[80], doubled[80];
    snprintf(name, sizeof name, "`%s`", key);
    snprintf(doubled, sizeof doubled, "`%s_`", key); /* train_, validation_, test_ */
    ck_assert_msg(strstr(reference, name) != NULL || strstr(reference, doubled) != NULL,
                  "doc/status.md lacks the field %s", name);
    assert_documented(child, reference);
  }
  json_array_foreach(value, i, child) assert_documented(child, reference);
}

START_TEST(every_field_of_the_status_is_documented) {
  uint64_t id = submit("t1", "ranks: 2\n");
  drive_to(id, CO_JOB_DONE);
  bl_buf reference = BL_BUF_INIT, json = BL_BUF_INIT;
  bl_error err = BL_ERROR_INIT;
  ck_assert_ok_err(bl_file_read(test_source_path("doc/status.md"), 1 << 20, &reference, &err), err);
  for (int i = 0; i < 3; i++) {
    bl_buf_clear(&json);
    const co_state *st = co_core_state(core);
    ck_assert_ok(i == 0   ? co_status_cluster(st, &json)
                 : i == 1 ? co_status_job(st, job_of(id), &json)
                          : co_status_logs(job_of(id), 0, &json));
    json_t *o = json_loads(bl_buf_str(&json), 0, NULL);
    assert_documented(o, bl_buf_str(&reference));
    json_decref(o);
  }
  bl_buf_fini(&json);
  bl_buf_fini(&reference);
}
END_TEST

START_TEST(mistakes_in_the_job_file_come_back_all_at_once) {
  uint64_t id = submit_as(&command_peer, "t1", "name: x\nepochs: -1\nnonsense: 1\n");
  ck_assert_uint_eq(id, 0);
  ck_assert_int_eq(last.status, -BL_EINVAL);
  ck_assert_text(last.text, "test.yaml:2");
  ck_assert_text(last.text, "test.yaml:3");
  ck_assert_uint_eq(submit("t2", ""), 1);
}
END_TEST

START_TEST(a_token_is_one_job_also_after_a_restart) {
  uint64_t id = submit("same", "");
  ck_assert_uint_eq(submit("same", ""), id);
  core_restarts();
  ck_assert_uint_eq(submit("same", ""), id);
  ck_assert_uint_eq(submit("other", ""), id + 1);
}
END_TEST

START_TEST(a_job_that_cannot_be_stored_is_not_accepted) {
  memory_store_set_failing(store, true);
  ck_assert_uint_eq(submit_as(&command_peer, "t", job_text("")), 0);
  ck_assert_int_eq(last.status, -BL_EIO);
  memory_store_set_failing(store, false);
  ck_assert_uint_eq(submit("t", ""), 1);
}
END_TEST

START_TEST(differing_data_fails_the_job_and_names_the_nodes) {
  uint64_t id = submit("t", "ranks: 2\n");
  rounds(1);
  reports_data(named("w1"), &named("w1")->tasks[0], 100);
  reports_data(named("w2"), &named("w2")->tasks[0], 99);
  tick(10 * MS);
  assert_state(id, CO_JOB_FAILED);
  ck_assert_text(job_of(id)->reason, "rank 1 on w2 has 99 training");
  ck_assert_text(job_of(id)->reason, "w1 has 100 training");
  ck_assert_int_eq(job_of(id)->status, BL_EMISMATCH);
  ck_assert_uint_eq(sent[BL_MSG_OPEN_JOB], 0);
}
END_TEST

/* ---- metrics -------------------------------------------------------------------------------------------- */

/* Rank 0 has its positive samples above the others, rank 1 below. */
static void reports_counts(fake_node *n, held_task *t, uint64_t epoch) {
  uint32_t buckets[] = {100, 200 + t->rank}, cells[] = {0, 2 + t->rank};
  uint64_t low[] = {t->rank == 0 ? 0 : 5, t->rank == 0 ? 5 : 0}, high[] = {low[1], low[0]}, counts[] = {4, 6};
  Ballast__Control__Metrics m = metrics(t->rank);
  m.top = 45;
  m.auc_buckets = buckets;
  m.auc_positive = low;
  m.auc_negative = high;
  m.n_auc_buckets = m.n_auc_positive = m.n_auc_negative = 2;
  m.confusion_cells = cells;
  m.confusion_counts = counts;
  m.n_confusion_cells = m.n_confusion_counts = 2;
  Ballast__Control__EpochReport e = BALLAST__CONTROL__EPOCH_REPORT__INIT;
  e.epoch = (uint32_t)epoch;
  e.clock = epoch * 10;
  e.validation = e.test = &m;
  Ballast__Control__Report r = report_of(t, ++t->sequence);
  r.epoch = &e;
  deliver(&n->peer, BL_MSG_REPORT, &r.base);
}

static json_t *query_job(uint64_t id) {
  Ballast__Control__Query q = BALLAST__CONTROL__QUERY__INIT;
  q.what = (char *)"job";
  q.job = id;
  deliver(&command_peer, BL_MSG_QUERY, &q.base);
  ck_assert_msg(last.status == 0, "%s", last.text);
  json_t *job = json_loads(last.json, 0, NULL);
  ck_assert_ptr_nonnull(job);
  return job;
}

START_TEST(what_tensors_travel_as_is_added_over_the_ranks) {
  uint64_t id = submit("t", "ranks: 2\n");
  drive_to(id, CO_JOB_RUNNING);
  json_t *job = query_job(id);
  ck_assert_uint_eq(json_array_size(json_object_get(job, "tensors")), 0);
  json_decref(job);
  named("w1")->tasks[0].pushes_as = "int8(stochastic)";
  named("w2")->tasks[0].pushes_as = "int8";
  round_of_life();
  named("w1")->tasks[0].pushes_as = named("w2")->tasks[0].pushes_as = NULL;
  rounds(3); /* what was said stands */
  job = query_job(id);
  const json_t *tensors = json_object_get(job, "tensors"), *t = json_array_get(tensors, 0), *others = json_array_get(tensors, 1);
  ck_assert_uint_eq(json_array_size(tensors), 2);
  ck_assert_str_eq(json_string_value(json_object_get(t, "name")), "dense1.weight");
  ck_assert_ptr_null(json_object_get(t, "tensors"));
  ck_assert_int_eq(json_integer_value(json_object_get(t, "ranks")), 2);
  const char *push = json_string_value(json_object_get(t, "push"));
  ck_assert_msg(strcmp(push, "int8(stochastic); int8") == 0 || strcmp(push, "int8; int8(stochastic)") == 0, "%s", push);
  ck_assert_str_eq(json_string_value(json_object_get(t, "pull")), "float16");
  ck_assert_str_eq(json_string_value(json_object_get(t, "reason")), "because");
  ck_assert_int_eq(json_integer_value(json_object_get(t, "bytes_pushed")), 200);
  ck_assert_double_eq(json_real_value(json_object_get(t, "push_factor")), 4);
  ck_assert(json_is_null(json_object_get(t, "pull_factor")));
  ck_assert_double_eq(json_real_value(json_object_get(t, "residual_ratio")), 0.5);
  ck_assert_int_eq(json_integer_value(json_object_get(t, "residuals_lost")), 1);
  ck_assert_double_eq(json_real_value(json_object_get(t, "lost_norm")), 2);
  ck_assert_str_eq(json_string_value(json_object_get(others, "name")), "");
  ck_assert_int_eq(json_integer_value(json_object_get(others, "tensors")), 3);
  bl_buf reference = BL_BUF_INIT, metrics = BL_BUF_INIT;
  ck_assert_ok(bl_file_read(test_source_path("doc/status.md"), 1 << 20, &reference, NULL));
  assert_documented(job, bl_buf_str(&reference));
  co_status_metrics(co_core_state(core), &metrics);
  ck_assert_text(bl_buf_str(&metrics), "ballast_job_residuals_lost{job=\"1\",name=\"test\"} 2\n");
  bl_buf_fini(&reference);
  bl_buf_fini(&metrics);
  json_decref(job);
  drive_to(id, CO_JOB_DONE);
}
END_TEST

/* _i 1: the coordinator forgets all but its store before the last report. */
START_TEST(metrics_that_a_job_asks_for_are_added_over_the_ranks) {
  uint64_t id = submit("t", "ranks: 2\noutput: /o\nmetrics: [auc, log_loss, confusion]\n");
  drive_to(id, CO_JOB_RUNNING);
  each_task(id, reports_counts, 1);
  reports_counts(named("w1"), &named("w1")->tasks[0], 2);
  if (_i == 1) {
    core_restarts();
    for (size_t i = 0; i < n_nodes; i++) {
      registers(&nodes[i]);
      beat(&nodes[i]);
    }
  }
  last.files = 0;
  reports_counts(named("w2"), &named("w2")->tasks[0], 2);
  ck_assert_uint_eq(last.files, 0);
  ck_assert_text(last.csv, "test_rmse,validation_auc,validation_auc_error,validation_log_loss,test_auc,");
  ck_assert_text(last.csv, "\n2,20,"); /* both epochs, while the job runs */
  each_task(id, finished, 0xabc);
  tick(10 * MS);
  ck_assert_uint_eq(last.files, 2);
  ck_assert_str_eq(last.first_file, "confusion_validation.csv");
  ck_assert_str_eq(last.first_text, "true,0,1\n0,8,0\n1,6,6\n");
  json_t *job = query_job(id), *result = json_object_get(job, "result");
  ck_assert_uint_eq(json_array_size(json_object_get(job, "metrics")), 3);
  /* of 100 pairs 25 are right (200 above 100) and 25 tied at 100 */
  ck_assert_double_eq_tol(json_number_value(json_object_get(result, "test_auc")), 0.375, 1e-9);
  ck_assert_double_eq_tol(json_number_value(json_object_get(result, "test_auc_error")), 0.125, 1e-9);
  json_t *matrix = json_object_get(result, "test_confusion");
  ck_assert_uint_eq(json_array_size(matrix), 2);
  ck_assert_int_eq(json_integer_value(json_array_get(json_array_get(matrix, 1), 1)), 6);
  ck_assert_double_eq(json_number_value(json_object_get(result, "test_log_loss")),
                      json_number_value(json_object_get(result, "test_loss")));
  json_t *first = json_array_get(json_object_get(job, "history"), 0);
  ck_assert(json_is_number(json_object_get(first, "validation_auc")));
  json_decref(job);
}
END_TEST

/* Rank 0 has still to write what the coordinator adds up over all ranks, and is stopped only when it can have that. */
START_TEST(rank_0_is_not_stopped_before_its_result_is_acknowledged) {
  uint64_t id = submit("t", "ranks: 2\noutput: /o\n");
  drive_to(id, CO_JOB_RUNNING);
  each_task(id, one_epoch, 1);
  each_task(id, one_epoch, 2);
  fake_node *w1 = named("w1"), *w2 = named("w2");
  finished(w1, &w1->tasks[0], 0xabc);
  w1->tasks[0].state = BALLAST__CONTROL__TASK_STATE__TASK_RUNNING; /* it waits for the acknowledgement */
  rounds(6);
  ck_assert_uint_eq(w1->n_tasks, 1);
  last.csv[0] = '\0';
  finished(w2, &w2->tasks[0], 0xabc);
  ck_assert_text(last.csv, "\n2,20,");
  rounds(6);
  assert_state(id, CO_JOB_DONE);
}
END_TEST

/* ---- early stopping --------------------------------------------------------------------------------------- */

static const char stopping_job[] =
    "name: stops\nseed: 1\ndata:\n  train: {libsvm: /d/train}\n  validation: 10 %\n"
    "model:\n  input: [10]\n  layers: [dense 4 relu, dense 1]\nloss: sigmoid_cross_entropy\n"
    "optimizer: {adam: {lr: 0.001}}\nbatch: 10\nepochs: 5\nranks: 2\noutput: /o\n"
    "early_stopping: {metric: validation_loss, patience: 1}\n";

static void reports_loss(fake_node *n, held_task *t, uint32_t epoch, double loss, uint64_t sequence) {
  Ballast__Control__Metrics m = metrics(t->rank);
  m.loss_sum = 50 * loss;
  Ballast__Control__EpochReport e = BALLAST__CONTROL__EPOCH_REPORT__INIT;
  e.epoch = epoch;
  e.clock = epoch * 10;
  e.validation = e.test = &m;
  Ballast__Control__Report r = report_of(t, sequence);
  r.epoch = &e;
  last.ack = 0;
  last.verdict_epoch = 0;
  deliver(&n->peer, BL_MSG_REPORT, &r.base);
}

/* The report of the first rank waits for the second one's; a line of its log in between does not release it. _i 1: the
 * coordinator forgets all but its store before every answer, and the agents ask again. */
START_TEST(an_epoch_is_acknowledged_with_its_verdict) {
  static const double losses[] = {3, 1, 2}; /* patience 1: epoch 2 is the best, epoch 3 the last of 5 */
  memset(last.n_verdicts, 0, sizeof last.n_verdicts);
  uint64_t id = submit_as(&command_peer, "t", stopping_job);
  ck_assert_msg(last.status == 0, "%s", last.text);
  drive_to(id, CO_JOB_RUNNING);
  held_task *t[2] = {&named("w1")->tasks[0], &named("w2")->tasks[0]};
  fake_node *w[2] = {named("w1"), named("w2")};
  for (uint32_t epoch = 1; epoch <= 3; epoch++) {
    t[0]->sequence++;
    t[1]->sequence++;
    reports_loss(w[0], t[0], epoch, losses[epoch - 1], t[0]->sequence);
    ck_assert_uint_eq(last.ack, 0);
    reports_loss(w[0], t[0], epoch, losses[epoch - 1], t[0]->sequence); /* repeated: nothing is known yet */
    ck_assert_uint_eq(last.ack, 0);
    if (epoch > 1) {
      reports_loss(w[0], t[0], epoch - 1, losses[epoch - 2], t[0]->sequence - 1); /* late: answered for itself alone */
      ck_assert_uint_eq(last.ack, t[0]->sequence - 1);
      ck_assert_uint_eq(last.verdict_epoch, epoch - 1);
    }
    reports_loss(w[1], t[1], epoch, losses[epoch - 1], t[1]->sequence);
    ck_assert_uint_eq(last.n_verdicts[epoch], 2); /* both ranks were told */
    if (_i == 1) {
      core_restarts();
      for (size_t i = 0; i < n_nodes; i++) {
        registers(&nodes[i]);
        beat(&nodes[i]);
      }
      reports_loss(w[0], t[0], epoch, losses[epoch - 1], t[0]->sequence);
      ck_assert_uint_eq(last.ack, t[0]->sequence);
    }
    ck_assert_uint_eq(last.verdict_epoch, epoch);
    ck_assert_uint_eq(last.best_epoch, epoch == 1 ? 1 : 2);
    ck_assert_int_eq(last.stop, epoch == 3);
  }
  each_task(id, finished, 0xabc);
  tick(10 * MS);
  co_result r;
  ck_assert(co_job_result(job_of(id), &r));
  ck_assert(r.epochs == 3 && r.best_epoch == 2 && r.stopped_early);
  ck_assert_double_eq(r.test.loss_sum / (double)r.test.n, 1); /* of the model that is kept */
  ck_assert_uint_eq(r.samples, 300);
}
END_TEST

/* ---- local data --------------------------------------------------------------------------------------- */

static const char local_job[] =
    "name: own\nseed: 1\ndata:\n  where: local\n  train: {libsvm: /d/train}\n"
    "model:\n  input: [10]\n  layers: [dense 4 relu, dense 1]\nloss: sigmoid_cross_entropy\n"
    "optimizer: {adam: {lr: 0.001}}\nbatch: 10\nepochs: 2\nranks: 2\n";

static uint64_t local_job_runs(void) {
  uint64_t id = submit_as(&command_peer, "own", local_job);
  ck_assert_msg(last.status == 0, "%s", last.text);
  rounds(1);
  reports_data(named("w1"), &named("w1")->tasks[0], 100);
  reports_data(named("w2"), &named("w2")->tasks[0], 31);
  rounds(3);
  assert_state(id, CO_JOB_RUNNING);
  return id;
}

START_TEST(local_data_may_differ_and_the_plan_says_how_much_each_rank_has) {
  uint64_t id = local_job_runs();
  const Ballast__Control__JobPlan *plan = job_of(id)->open->plan;
  ck_assert_uint_eq(plan->n_rank_samples, 2);
  ck_assert_uint_eq(plan->rank_samples[0], 100);
  ck_assert_uint_eq(plan->rank_samples[1], 31);
  ck_assert_uint_eq(plan->clocks, 40); /* 2 epochs of 100 / 5 */
  ck_assert_uint_eq(job_of(id)->train_samples, 131);
  ck_assert_uint_eq(job_of(id)->validation_samples, 10);
  each_task(id, finished, 0xabc);
  tick(10 * MS);
  co_result result;
  ck_assert(co_job_result(job_of(id), &result));
  ck_assert_uint_eq(result.samples, 262);
}
END_TEST

/* w3 is there and has room, but not the data. _i: whether the coordinator forgets all but its store meanwhile. */
START_TEST(a_rank_waits_for_the_worker_that_holds_its_data) {
  uint64_t id = local_job_runs();
  add("w3", BL_ROLE_WORKER, 4);
  fake_node *w2 = named("w2");
  w2->up = false;
  rounds(28);
  assert_state(id, CO_JOB_RECOVERING);
  ck_assert_str_eq(job_of(id)->waits_for, "job 1 waits for rank 1: its data is on w2, missing for 14 s");
  if (_i == 1) {
    core_restarts();
    for (size_t i = 0; i < n_nodes; i++)
      if (nodes[i].up)
        registers(&nodes[i]);
    rounds(2);
    ck_assert_text(job_of(id)->waits_for, "job 1 waits for rank 1: its data is on w2, ");
  }
  ck_assert_uint_eq(named("w3")->n_tasks, 0);
  w2->incarnation++;
  w2->heartbeats = 0;
  w2->n_tasks = w2->n_jobs = 0;
  w2->up = true;
  registers(w2);
  rounds(2);
  held_task *t = task_of(w2, id, 1, 2);
  ck_assert_ptr_nonnull(t);
  reports_data(w2, t, 31);
  rounds(3);
  assert_state(id, CO_JOB_RUNNING);
  ck_assert_uint_eq(job_of(id)->view, 2);
  ck_assert_uint_eq(job_of(id)->open->plan->rank_samples[1], 31);
}
END_TEST

START_TEST(a_crashed_rank_starts_again_where_its_data_is) {
  uint64_t id = local_job_runs();
  add("w3", BL_ROLE_WORKER, 4);
  held_task *t = &named("w1")->tasks[0];
  t->state = BALLAST__CONTROL__TASK_STATE__TASK_FAILED;
  t->retryable = true;
  t->text = "killed by signal 9";
  rounds(3);
  ck_assert_str_eq(job_of(id)->ranks[0].node, "w1");
  t = task_of(named("w1"), id, 0, 2);
  ck_assert_ptr_nonnull(t);
  /* Other data than the plan counts on. */
  reports_data(named("w1"), t, 99);
  rounds(1);
  assert_state(id, CO_JOB_FAILED);
  ck_assert_text(job_of(id)->reason,
                 "the data of rank 0 on w1 has changed: 99 training samples now, 100 at the start");
}
END_TEST

START_TEST(local_data_needs_a_worker_for_every_rank) {
  named("w2")->up = false;
  rounds(28);
  uint64_t id = submit_as(&command_peer, "own", local_job);
  tick(10 * MS);
  ck_assert_str_eq(job_of(id)->waits_for, "job 1 waits for 1 of 2 workers: w2 missing for 14 s");
  add("w3", BL_ROLE_WORKER, 1);
  rounds(1);
  assert_state(id, CO_JOB_LOADING);
  ck_assert_str_ne(job_of(id)->ranks[0].node, job_of(id)->ranks[1].node);
}
END_TEST

/* w1 has less room than w2, and still gets rank 0: which rank trains on which data decides the weights. */
START_TEST(ranks_with_local_data_are_placed_by_name) {
  submit("other", "ranks: 1\n");
  rounds(1);
  uint64_t id = submit_as(&command_peer, "own", local_job);
  rounds(1);
  ck_assert_str_eq(job_of(id)->ranks[0].node, "w1");
  ck_assert_str_eq(job_of(id)->ranks[1].node, "w2");
}
END_TEST

START_TEST(a_rank_without_samples_of_its_own_fails_the_job) {
  uint64_t id = submit_as(&command_peer, "own", local_job);
  rounds(1);
  reports_data(named("w1"), &named("w1")->tasks[0], 100);
  reports_data(named("w2"), &named("w2")->tasks[0], 0);
  rounds(1);
  assert_state(id, CO_JOB_FAILED);
  ck_assert_text(job_of(id)->reason, "the training set of rank 1 on w2 has no sample");
}
END_TEST

START_TEST(different_final_weights_fail_the_job) {
  uint64_t id = submit("t", "ranks: 2\n");
  drive_to(id, CO_JOB_RUNNING);
  reports_done(named("w1"), &named("w1")->tasks[0], 1);
  reports_done(named("w2"), &named("w2")->tasks[0], 2);
  tick(10 * MS);
  assert_state(id, CO_JOB_FAILED);
  ck_assert_text(job_of(id)->reason, "different weights");
}
END_TEST

/* ---- losses ----------------------------------------------------------------------------------------- */

START_TEST(a_lost_worker_is_replaced_in_a_new_view) {
  uint64_t id = submit("t", "ranks: 2\n");
  drive_to(id, CO_JOB_RUNNING);
  ck_assert_uint_eq(job_of(id)->view, 1);
  named("w2")->up = false;
  rounds(5);
  assert_state(id, CO_JOB_RUNNING);
  rounds(3);
  assert_state(id, CO_JOB_RECOVERING);
  ck_assert_uint_eq(job_of(id)->view, 2);
  ck_assert_uint_eq(job_of(id)->ranks[1].incarnation, 2);
  ck_assert_uint_eq(job_of(id)->ranks[0].incarnation, 1);
  ck_assert_str_eq(job_of(id)->ranks[1].node, "w1");
  ck_assert_uint_eq(job_of(id)->ranks[1].crashes, 0);
  rounds(2);
  /* The replacement has the complete plan from its start. */
  held_task *t = task_of(named("w1"), id, 1, 2);
  ck_assert_ptr_nonnull(t);
  ck_assert_uint_eq(t->view, 2);
  each_task(id, loaded, 100);
  rounds(2);
  assert_state(id, CO_JOB_RUNNING);
  ck_assert_int_eq(t->state, BALLAST__CONTROL__TASK_STATE__TASK_RUNNING);
  ck_assert_uint_eq(task_of(named("w1"), id, 0, 1)->view, 2);
  ck_assert_uint_eq(named("s2")->jobs[0].view, 2);
  /* The lost worker comes back with its old task: that one has to go. */
  named("w2")->up = true;
  rounds(3);
  ck_assert_uint_eq(named("w2")->n_tasks, 0);
  assert_state(id, CO_JOB_RUNNING);
}
END_TEST

START_TEST(while_the_store_fails_no_new_view_is_announced) {
  uint64_t id = submit("t", "ranks: 2\n");
  drive_to(id, CO_JOB_RUNNING);
  memory_store_set_failing(store, true);
  named("w2")->up = false;
  unsigned opens = sent[BL_MSG_OPEN_JOB], starts = sent[BL_MSG_START_TASK];
  rounds(10);
  assert_state(id, CO_JOB_RECOVERING);
  ck_assert_uint_eq(sent[BL_MSG_OPEN_JOB], opens);
  ck_assert_uint_eq(sent[BL_MSG_START_TASK], starts);
  ck_assert_text(co_core_state(core)->store_error, "told to fail");
  memory_store_set_failing(store, false);
  rounds(1);
  ck_assert_uint_gt(sent[BL_MSG_OPEN_JOB], opens);
  ck_assert_uint_gt(sent[BL_MSG_START_TASK], starts);
  ck_assert_str_eq(co_core_state(core)->store_error, "");
}
END_TEST

START_TEST(a_crashed_task_is_started_again_until_its_retries_are_used_up) {
  uint64_t id = submit("t", "ranks: 1\ntask_retries: 2\n");
  drive_to(id, CO_JOB_RUNNING);
  for (uint32_t crash = 1; crash <= 3; crash++) {
    held_task *t = NULL;
    for (size_t i = 0; i < n_nodes && t == NULL; i++)
      t = task_of(&nodes[i], id, 0, crash);
    ck_assert_ptr_nonnull(t);
    t->state = BALLAST__CONTROL__TASK_STATE__TASK_FAILED;
    t->retryable = true;
    t->text = "killed by signal 11: last words";
    rounds(3);
    ck_assert_uint_eq(job_of(id)->ranks[0].incarnation, BL_MIN(crash + 1, 3));
    if (crash <= 2) {
      each_task(id, loaded, 100);
      rounds(3);
      assert_state(id, CO_JOB_RUNNING);
    }
  }
  assert_state(id, CO_JOB_FAILED);
  ck_assert_text(job_of(id)->reason, "rank 0 crashed 3 times");
  ck_assert_text(job_of(id)->reason, "last words");
}
END_TEST

START_TEST(a_mistake_in_the_job_fails_it_at_once) {
  uint64_t id = submit("t", "ranks: 2\n");
  rounds(1);
  named("w2")->tasks[0].state = BALLAST__CONTROL__TASK_STATE__TASK_FAILED;
  named("w2")->tasks[0].text = "/d/train: line 3: nonsense";
  rounds(1);
  assert_state(id, CO_JOB_FAILED);
  ck_assert_str_eq(job_of(id)->reason, "rank 1 on w2: /d/train: line 3: nonsense");
  rounds(3);
  ck_assert_uint_eq(named("w1")->n_tasks + named("w2")->n_tasks, 0);
}
END_TEST

START_TEST(a_vanished_or_restarted_agent_costs_a_new_incarnation) {
  uint64_t id = submit("t", "ranks: 2\n");
  drive_to(id, CO_JOB_RUNNING);
  fake_node *w1 = named("w1");
  w1->n_tasks = 0;
  if (_i == 1) { /* a new process of the same name */
    w1->incarnation += 100;
    w1->heartbeats = 0;
    registers(w1);
  }
  rounds(2);
  ck_assert_uint_eq(job_of(id)->ranks[0].incarnation, 2);
  ck_assert_uint_eq(job_of(id)->ranks[0].crashes, _i == 0);
  ck_assert_uint_eq(job_of(id)->view, 2);
}
END_TEST

START_TEST(a_lost_server_fails_a_running_job_and_requeues_a_starting_one) {
  static const co_job_state states[] = {CO_JOB_LOADING, CO_JOB_OPENING, CO_JOB_RUNNING};
  static const co_job_state after[] = {CO_JOB_LOADING, CO_JOB_LOADING, CO_JOB_FAILED};
  uint64_t id = submit("t", "ranks: 2\n");
  drive_to(id, states[_i]);
  assert_state(id, states[_i]);
  uint32_t before = job_of(id)->ranks[0].incarnation;
  named("s1")->deaf = true; /* so that opening does not go on to running meanwhile */
  named("s1")->up = false;
  rounds(12);
  assert_state(id, after[_i]);
  if (_i == 2) {
    ck_assert_text(job_of(id)->reason, "server s1 was lost");
    return;
  }
  ck_assert_uint_gt(job_of(id)->ranks[0].incarnation, before);
  for (uint32_t i = 0; i < job_of(id)->n_servers; i++)
    ck_assert_str_eq(job_of(id)->servers[i].name, "s2");
  each_task(id, loaded, 100);
  rounds(3);
  assert_state(id, CO_JOB_RUNNING);
}
END_TEST

START_TEST(a_server_that_restarts_or_forgets_takes_the_job_with_it) {
  uint64_t id = submit("t", "ranks: 2\n");
  drive_to(id, CO_JOB_RUNNING);
  fake_node *s1 = named("s1");
  s1->n_jobs = 0;
  if (_i == 1) {
    s1->incarnation += 100;
    s1->heartbeats = 0;
    registers(s1);
  }
  unsigned opens = sent[BL_MSG_OPEN_JOB];
  rounds(2);
  assert_state(id, CO_JOB_FAILED);
  ck_assert_text(job_of(id)->reason, _i == 1 ? "server s1 has restarted" : "server s1 no longer knows");
  ck_assert_uint_eq(sent[BL_MSG_OPEN_JOB], opens); /* weights are never quietly made anew */
}
END_TEST

/* ---- samples for ranks that run free --------------------------------------------------------------------- */

static fake_node *node_of_rank(uint64_t job, uint32_t rank, held_task **ret_task) {
  for (size_t i = 0; i < n_nodes; i++)
    for (size_t k = 0; k < nodes[i].n_tasks; k++)
      if (nodes[i].tasks[k].job == job && nodes[i].tasks[k].rank == rank) {
        *ret_task = &nodes[i].tasks[k];
        return &nodes[i];
      }
  ck_abort_msg("rank %u has no task", rank);
}

START_TEST(leases_are_stored_before_they_are_told_and_are_there_after_a_restart) {
  uint64_t id = submit("t", "ranks: 2\nsync: asp\n");
  drive_to(id, CO_JOB_RUNNING);
  held_task *t0, *t1;
  fake_node *n0 = node_of_rank(id, 0, &t0), *n1 = node_of_rank(id, 1, &t1);
  wants_samples(n0, t0, 0, 1);
  ck_assert_uint_eq(last.n_leases, 1);
  Ballast__Control__Lease first = last.lease;
  ck_assert_uint_eq(first.first, 0);
  memory_store_set_failing(store, true);
  wants_samples(n1, t1, 0, 1);
  ck_assert_uint_eq(last.n_leases, 0); /* not on the disk: not told */
  memory_store_set_failing(store, false);
  wants_samples(n1, t1, 0, 0);
  ck_assert_uint_eq(last.n_leases, 1);
  ck_assert_uint_eq(last.lease.first, first.end);
  Ballast__Control__Lease second = last.lease;
  core_restarts();
  for (size_t i = 0; i < n_nodes; i++)
    registers(&nodes[i]);
  rounds(2);
  assert_state(id, CO_JOB_RUNNING);
  wants_samples(n0, t0, 0, 0); /* repeated: the same answer */
  ck_assert_uint_eq(last.n_leases, 1);
  ck_assert_uint_eq(last.lease.end, first.end);
  wants_samples(n0, t0, first.first_clock + (first.end - first.first) / first.per_clock, 1);
  ck_assert_uint_eq(last.lease.first, second.end);
}
END_TEST

START_TEST(a_replaced_rank_has_the_leases_of_the_one_before) {
  uint64_t id = submit("t", "ranks: 2\nsync: {ssp: {staleness: 1}}\ntask_retries: 5\n");
  drive_to(id, CO_JOB_RUNNING);
  held_task *t;
  fake_node *n = node_of_rank(id, 0, &t);
  wants_samples(n, t, 0, 1);
  uint64_t end = last.lease.end;
  t->state = BALLAST__CONTROL__TASK_STATE__TASK_FAILED;
  t->retryable = true;
  rounds(3);
  n = node_of_rank(id, 0, &t);
  ck_assert_uint_eq(t->incarnation, 2);
  each_task(id, loaded, 100);
  rounds(3);
  wants_samples(n, t, 1, 1);
  ck_assert_uint_eq(last.n_leases, 1);
  ck_assert_uint_eq(last.lease.end, end);
}
END_TEST

START_TEST(who_does_not_run_free_or_not_yet_gets_no_samples) {
  uint64_t id = submit("t", _i == 0 ? "ranks: 2\nsync: asp\n" : "ranks: 2\n");
  drive_to(id, _i == 0 ? CO_JOB_OPENING : CO_JOB_RUNNING);
  held_task *t;
  fake_node *n = node_of_rank(id, 0, &t);
  uint64_t ack = last.ack;
  wants_samples(n, t, 0, 1);
  ck_assert_uint_eq(last.n_leases, 0);
  ck_assert_uint_eq(last.ack, ack);
  t->sequence--;
  if (_i == 0) { /* back into the queue, and on: nothing of it is left in the way */
    named("s1")->up = false;
    rounds(12);
    core_restarts();
    ck_assert_ptr_nonnull(job_of(id));
  }
}
END_TEST

/* ---- restart ---------------------------------------------------------------------------------------- */

START_TEST(the_coordinator_restarts_in_any_state_and_adopts_what_runs) {
  static const co_job_state states[] = {CO_JOB_QUEUED,  CO_JOB_LOADING,   CO_JOB_OPENING,
                                        CO_JOB_RUNNING, CO_JOB_FINISHING, CO_JOB_DONE};
  co_job_state state = states[_i];
  uint64_t id = submit("t", state == CO_JOB_QUEUED ? "ranks: 9\n" : "ranks: 2\n");
  if (state > CO_JOB_QUEUED)
    drive_to(id, state);
  assert_state(id, state);
  unsigned starts = sent[BL_MSG_START_TASK];
  core_restarts();
  assert_state(id, state);
  rounds(1);
  ck_assert_uint_eq(sent[BL_MSG_REREGISTER], n_nodes);
  for (size_t i = 0; i < n_nodes; i++) {
    registers(&nodes[i]);
    beat(&nodes[i]);
  }
  rounds(2);
  if (state == CO_JOB_QUEUED)
    return;
  for (uint32_t i = 0; i < 2; i++)
    ck_assert_uint_eq(job_of(id)->ranks[i].incarnation, 1);
  ck_assert_uint_eq(sent[BL_MSG_START_TASK], starts);
  each_task(id, loaded, 100);
  rounds(3);
  if (state < CO_JOB_FINISHING) {
    assert_state(id, CO_JOB_RUNNING);
    ck_assert_uint_eq(job_of(id)->view, 1);
    each_task(id, one_epoch, 1);
    each_task(id, one_epoch, 2);
    each_task(id, finished, 0xabc);
  }
  rounds(4);
  assert_state(id, CO_JOB_DONE);
  co_result r;
  ck_assert(co_job_result(job_of(id), &r));
  ck_assert_uint_eq(r.weights_xxh3, 0xabc);
  ck_assert_uint_eq(job_of(id)->n_epochs, 2);
  ck_assert(job_of(id)->epochs[1].closed);
}
END_TEST

START_TEST(after_a_restart_only_what_stays_missing_is_replaced) {
  uint64_t id = submit("t", "ranks: 2\n");
  drive_to(id, CO_JOB_RUNNING);
  core_restarts();
  named("w2")->up = false;
  for (size_t i = 0; i < n_nodes; i++)
    if (nodes[i].up) {
      registers(&nodes[i]);
      beat(&nodes[i]);
    }
  rounds(8);
  assert_state(id, CO_JOB_RUNNING);
  rounds(8);
  assert_state(id, CO_JOB_RECOVERING);
  ck_assert_uint_eq(job_of(id)->ranks[0].incarnation, 1);
  ck_assert_uint_eq(job_of(id)->ranks[1].incarnation, 2);
  ck_assert_uint_eq(job_of(id)->view, 2);
}
END_TEST

/* ---- duplicates and disorder ------------------------------------------------------------------------ */

START_TEST(reports_are_taken_once_and_in_order) {
  uint64_t id = submit("t", "ranks: 1\n");
  drive_to(id, CO_JOB_RUNNING);
  fake_node *w = named("w1");
  held_task *t = &w->tasks[0];
  ck_assert_uint_eq(t->sequence, 1);
  t->sequence = 2; /* epoch 1 gets lost on the way */
  reports_epoch(w, t, 2);
  ck_assert_uint_eq(last.ack, 1);
  ck_assert_uint_eq(job_of(id)->n_epochs, 0);
  for (int i = 0; i < 3; i++) {
    t->sequence = 1;
    reports_epoch(w, t, 1);
    ck_assert_uint_eq(last.ack, 2);
  }
  reports_epoch(w, t, 2);
  ck_assert_uint_eq(last.ack, 3);
  ck_assert_uint_eq(job_of(id)->n_epochs, 2);
  ck_assert_uint_eq(job_of(id)->epochs[0].train.n, 50);
  /* Unstored is unacknowledged. */
  memory_store_set_failing(store, true);
  last.ack = 77;
  reports_done(w, t, 1);
  ck_assert_uint_eq(last.ack, 77);
  ck_assert_ptr_null(job_of(id)->ranks[0].done);
  memory_store_set_failing(store, false);
  t->sequence--;
  reports_done(w, t, 1);
  ck_assert_uint_eq(last.ack, 4);
  tick(10 * MS);
  assert_state(id, CO_JOB_FINISHING);
  /* What nobody waits for any more is acknowledged too. */
  held_task gone = {.job = 99, .sequence = 41};
  reports_epoch(w, &gone, 1);
  ck_assert_uint_eq(last.ack, 42);
}
END_TEST

START_TEST(an_epoch_number_out_of_line_allocates_nothing) {
  uint64_t id = submit("t", "ranks: 1\n");
  drive_to(id, CO_JOB_RUNNING);
  static const uint32_t bad[] = {0, 3, UINT32_MAX}; /* the job has 2 epochs */
  for (size_t i = 0; i < BL_COUNT_OF(bad); i++)
    reports_epoch(named("w1"), &named("w1")->tasks[0], bad[i]);
  ck_assert_uint_eq(job_of(id)->n_epochs, 0);
}
END_TEST

START_TEST(late_heartbeats_change_nothing) {
  uint64_t id = submit("t", "ranks: 2\n");
  drive_to(id, CO_JOB_RUNNING);
  fake_node *w1 = named("w1");
  held_task kept = w1->tasks[0];
  w1->n_tasks = 0; /* as it was before the start */
  beat_with(w1, 1);
  w1->tasks[w1->n_tasks++] = kept;
  tick(10 * MS);
  rounds(1);
  assert_state(id, CO_JOB_RUNNING);
  ck_assert_uint_eq(job_of(id)->ranks[0].incarnation, 1);
}
END_TEST

START_TEST(commands_that_get_lost_are_sent_again) {
  uint64_t id = submit("t", "ranks: 2\n");
  rounds(1);
  each_task(id, loaded, 100);
  for (size_t i = 0; i < n_nodes; i++)
    nodes[i].deaf = true;
  rounds(6);
  assert_state(id, CO_JOB_OPENING);
  unsigned opens = sent[BL_MSG_OPEN_JOB];
  ck_assert_uint_ge(opens, 4);
  ck_assert_uint_le(opens, 8); /* two servers, one second apart, three seconds */
  for (size_t i = 0; i < n_nodes; i++)
    nodes[i].deaf = false;
  rounds(5);
  assert_state(id, CO_JOB_RUNNING);
}
END_TEST

START_TEST(random_bytes_are_refused_and_change_nothing) {
  uint64_t id = submit("t", "ranks: 2\n");
  drive_to(id, CO_JOB_RUNNING);
  for (uint32_t i = 0; i < 500; i++) {
    uint8_t bytes[64];
    for (uint32_t k = 0; k < sizeof bytes; k++)
      bytes[k] = (uint8_t)(i * 2654435761u >> (k % 24)) ^ (uint8_t)(k * 31);
    if (i % 2 == 0)
      memcpy(bytes, "BL\x01\0\x24\0\0\0", 8); /* a heartbeat, as far as the preamble goes */
    bl_msg msg = BL_MSG_INIT;
    msg.head = bl_frame_copy(bytes, i % sizeof bytes);
    ck_assert_ptr_nonnull(msg.head);
    co_core_on_msg(core, &command_peer, &msg, now_ns);
    bl_msg_fini(&msg);
  }
  rounds(2);
  assert_state(id, CO_JOB_RUNNING);
  ck_assert_uint_gt(co_core_get_stats(core).malformed, 400);
}
END_TEST

/* ---- queue ------------------------------------------------------------------------------------------ */

START_TEST(waiting_is_a_sentence) {
  uint64_t a = submit("a", "ranks: 2\n"), b = submit("b", "ranks: 2\n");
  uint64_t c = submit("c", "ranks: 2\n"), d = submit("d", "ranks: 1\n");
  assert_state(b, CO_JOB_LOADING);
  assert_state(c, CO_JOB_QUEUED);
  ck_assert_str_eq(job_of(c)->waits_for, "job 3 waits for 2 slots: w1 is full with jobs 1 and 2, w2 is full with jobs 1 and 2");
  ck_assert_str_eq(job_of(d)->waits_for, "job 4 is second in the queue behind job 3");
  cancel(&command_peer, a);
  rounds(3);
  assert_state(a, CO_JOB_CANCELLED);
  assert_state(c, CO_JOB_LOADING);
  ck_assert_str_eq(job_of(d)->waits_for, "job 4 waits for 1 slot: w1 is full with jobs 2 and 3, w2 is full with jobs 2 and 3");
}
END_TEST

START_TEST(more_slots_than_there_are_is_said_so) {
  uint64_t a = submit("a", "ranks: 6\n");
  ck_assert_str_eq(job_of(a)->waits_for, "job 1 waits for 2 slots: it needs 6, and the cluster has 4 in all, 0 in use");
  uint64_t b = submit("b", "ranks: 1\n");
  assert_state(b, CO_JOB_LOADING);
  rounds(1);
  ck_assert_str_eq(job_of(a)->waits_for,
                   "job 1 waits for 3 slots: it needs 6, and the cluster has 4 in all, 1 in use by job 2");
}
END_TEST

START_TEST(missing_workers_are_counted_and_named) {
  named("w2")->up = false;
  rounds(28);
  uint64_t id = submit("a", "ranks: 3\nworkers: {min: 3}\n");
  ck_assert_str_eq(job_of(id)->waits_for, "job 1 waits for 2 of 3 workers: w2 missing for 14 s");
  /* Who waits for workers that are not there holds up nobody. */
  uint64_t other = submit("b", "ranks: 1\n");
  assert_state(other, CO_JOB_LOADING);
  named("w2")->up = true;
  add("w3", BL_ROLE_WORKER, 1);
  rounds(2);
  assert_state(id, CO_JOB_LOADING);
}
END_TEST

START_TEST(memory_is_admitted_before_a_start) {
  /* 49 weights at 24 bytes. */
  named("s1")->memory_bytes = 200;
  named("s2")->memory_bytes = 400;
  for (size_t i = 0; i < 2; i++) {
    nodes[i].incarnation++;
    nodes[i].heartbeats = 0;
    registers(&nodes[i]);
  }
  rounds(1);
  uint64_t id = submit("a", "ranks: 1\n");
  assert_state(id, CO_JOB_QUEUED);
  ck_assert_text(job_of(id)->waits_for, "job 1 needs 1.1 KiB on servers, largest free is 400 B");
  uint64_t tiny = submit_as(&command_peer, "b", job_text(""));
  (void)tiny;
  named("s1")->memory_bytes = 2000;
  named("s1")->incarnation++;
  named("s1")->heartbeats = 0;
  registers(named("s1"));
  rounds(1);
  assert_state(id, CO_JOB_LOADING);
  /* The first one's promise counts although nothing is opened yet. */
  assert_state(tiny, CO_JOB_QUEUED);
  ck_assert_text(job_of(tiny)->waits_for, "job 2 needs 1.1 KiB on servers");
  named("s1")->up = named("s2")->up = false;
  cancel(&command_peer, id);
  rounds(8);
  ck_assert_text(job_of(tiny)->waits_for, "job 2 waits for a server: s1 missing for");
}
END_TEST

START_TEST(several_jobs_share_the_slots_and_a_cancel_frees_them) {
  uint64_t a = submit("a", "ranks: 2\n"), b = submit("b", "ranks: 2\n");
  rounds(1);
  each_task(a, loaded, 100);
  each_task(b, loaded, 200);
  rounds(3);
  assert_state(a, CO_JOB_RUNNING);
  assert_state(b, CO_JOB_RUNNING);
  ck_assert_uint_eq(named("w1")->n_tasks, 2);
  ck_assert_uint_eq(named("s2")->n_jobs, 2);
  cancel(&command_peer, a);
  ck_assert_int_eq(last.status, 0);
  assert_state(a, CO_JOB_CANCELLED);
  rounds(3);
  ck_assert_uint_eq(named("w1")->n_tasks, 1);
  ck_assert_uint_eq(named("s2")->n_jobs, 1);
  assert_state(b, CO_JOB_RUNNING);
  drive_to(b, CO_JOB_DONE);
  assert_state(b, CO_JOB_DONE);
  cancel(&command_peer, b);
  ck_assert_int_eq(last.status, -BL_ESTATE);
  ck_assert_text(last.text, "cannot be cancelled any more: it is done");
}
END_TEST

START_TEST(one_core_type_is_chosen_for_all_ranks) {
  uint64_t a = submit("a", "ranks: 1\n");
  ck_assert_str_eq(job_of(a)->blas_core, "Zen");
  nodes[n_nodes].blas_core = "SkylakeX";
  fake_node *w3 = add("w3", BL_ROLE_WORKER, 1);
  w3->blas_core = "SkylakeX";
  registers(w3);
  uint64_t b = submit("b", "ranks: 1\n");
  ck_assert_str_eq(job_of(b)->blas_core, CO_BLAS_CORE_COMMON);
  ck_assert_str_eq(memory_store_job(store, b)->blas_core, CO_BLAS_CORE_COMMON);
}
END_TEST

START_TEST(a_recovering_job_waits_for_its_least_number_of_workers) {
  uint64_t id = submit("a", "ranks: 2\nworkers: {min: 2}\n");
  drive_to(id, CO_JOB_RUNNING);
  named("w2")->up = false;
  rounds(10);
  assert_state(id, CO_JOB_RECOVERING);
  ck_assert_text(job_of(id)->waits_for, "job 1 waits for 1 of 2 workers: w2 missing for");
  add("w3", BL_ROLE_WORKER, 1);
  rounds(2);
  ck_assert_str_eq(job_of(id)->ranks[1].node, "w3");
}
END_TEST

static bl_peer keyed(const char *id, bl_role role, const char *name) {
  bl_peer p = {.authenticated = true, .role = role};
  p.id_size = (uint8_t)strlen(id);
  memcpy(p.id, id, strlen(id));
  snprintf(p.name, sizeof p.name, "%s", name);
  return p;
}

/* Tokens are drawn from the number of the job that is to come. */
static uint64_t submit_by(const char *user, const char *more) {
  bl_peer p = keyed(user, BL_ROLE_USER, user);
  char token[32];
  snprintf(token, sizeof token, "t%" PRIu64, co_core_state(core)->next_job);
  uint64_t id = submit_as(&p, token, job_text(more));
  ck_assert_msg(last.status == 0, "%s", last.text);
  tick(10 * MS);
  return id;
}

static void set_priority(const bl_peer *from, uint64_t job, int32_t priority) {
  Ballast__Control__SetPriority m = BALLAST__CONTROL__SET_PRIORITY__INIT;
  m.job = job;
  m.priority = priority;
  last.status = 0;
  last.text[0] = '\0';
  deliver(from, BL_MSG_SET_PRIORITY, &m.base);
  tick(10 * MS);
}

START_TEST(the_queue_goes_by_priority_then_share_then_age) {
  uint64_t a = submit_by("ann", "ranks: 4\n");
  uint64_t b = submit_by("ann", "ranks: 1\n"), c = submit_by("bob", "ranks: 1\n");
  uint64_t d = submit_by("ann", "ranks: 1\npriority: 10\n"), e = submit_by("ann", "ranks: 1\n");
  assert_state(a, CO_JOB_LOADING);
  ck_assert_str_eq(job_of(d)->waits_for, "job 4 waits for 1 slot: w1 is full with job 1, w2 is full with job 1");
  ck_assert_str_eq(job_of(c)->waits_for, "job 3 is second in the queue behind job 4 (priority 10)");
  ck_assert_str_eq(job_of(b)->waits_for, "job 2 is third in the queue behind job 3 (bob holds 0 slots, ann 4)");
  ck_assert_str_eq(job_of(e)->waits_for, "job 5 is fourth in the queue behind job 2");
  const uint64_t order[] = {d, c, b, e};
  for (uint32_t i = 0; i < 4; i++)
    ck_assert_uint_eq(job_of(order[i])->place, i + 1);
  ck_assert_uint_eq(job_of(a)->place, 0);
  cancel(&command_peer, a);
  rounds(2);
  for (uint32_t i = 0; i < 4; i++)
    assert_state(order[i], CO_JOB_LOADING);
}
END_TEST

START_TEST(who_has_just_got_slots_comes_after_the_others) {
  uint64_t first = submit_by("cyd", "ranks: 4\n");
  uint64_t a1 = submit_by("ann", "ranks: 2\n"), a2 = submit_by("ann", "ranks: 2\n");
  uint64_t b1 = submit_by("bob", "ranks: 2\n"), c1 = submit_by("cyd", "ranks: 1\n");
  cancel(&command_peer, first);
  rounds(2);
  assert_state(a1, CO_JOB_LOADING);
  assert_state(b1, CO_JOB_LOADING);
  assert_state(a2, CO_JOB_QUEUED);
  ck_assert_uint_eq(job_of(c1)->place, 1); /* cyd holds nothing now */
  ck_assert_uint_eq(job_of(a2)->place, 2);
}
END_TEST

/* _i: whether the coordinator forgets all but its store meanwhile. */
START_TEST(a_small_job_passes_a_large_one_only_for_a_time) {
  uint64_t running = submit_by("ann", "ranks: 3\n"), large = submit_by("ann", "ranks: 4\n");
  ck_assert_str_eq(job_of(large)->waits_for, "job 2 waits for 3 of 4 slots: w1 is full with job 1");
  uint64_t small = submit_by("ann", "ranks: 1\n");
  assert_state(small, CO_JOB_LOADING);
  rounds(598); /* a little less than 5 min since the large one came */
  cancel(&command_peer, small);
  rounds(1);
  uint64_t second = submit_by("ann", "ranks: 1\n");
  assert_state(second, CO_JOB_LOADING);
  cancel(&command_peer, second);
  rounds(2);
  if (_i == 1) {
    core_restarts();
    for (size_t i = 0; i < n_nodes; i++)
      registers(&nodes[i]);
    rounds(2);
  }
  uint64_t third = submit_by("bob", "ranks: 1\n"); /* has the better right by share, but came too late */
  assert_state(third, CO_JOB_QUEUED);
  ck_assert_str_eq(job_of(third)->waits_for,
                   "job 5 is second in the queue behind job 2; slots that come free are kept for job 2");
  uint64_t urgent = submit_by("bob", "ranks: 1\npriority: 1\n");
  assert_state(urgent, CO_JOB_LOADING);
  cancel(&command_peer, urgent);
  cancel(&command_peer, running);
  rounds(2);
  assert_state(large, CO_JOB_LOADING);
  assert_state(third, CO_JOB_QUEUED);
  ck_assert_uint_eq(job_of(third)->place, 1);
}
END_TEST

/* What will never fit holds up nobody, however long it waits. */
START_TEST(a_job_that_is_too_large_for_the_cluster_keeps_no_slots) {
  uint64_t huge = submit_by("ann", "ranks: 6\n");
  rounds(610);
  uint64_t small = submit_by("ann", "ranks: 1\n");
  assert_state(small, CO_JOB_LOADING);
  ck_assert_uint_eq(job_of(huge)->place, 0);
  ck_assert_text(job_of(huge)->waits_for, "it needs 6, and the cluster has 4 in all");
}
END_TEST

/* Nor does it drain the cluster again and again to find that the servers have not the memory. */
START_TEST(a_job_that_is_too_large_for_the_servers_keeps_no_slots) {
  submit_by("ann", "ranks: 3\n");
  static char text[1200];
  const char *small = job_text("ranks: 4\n"), *layers = strstr(small, "dense 4 relu");
  snprintf(text, sizeof text, "%.*sdense 9000000 relu%s", (int)(layers - small), small, layers + strlen("dense 4 relu"));
  uint64_t huge = submit_as(&command_peer, "huge", text); /* 2.6 GB beside 2 GiB */
  ck_assert_msg(last.status == 0, "%s", last.text);
  rounds(610);
  assert_state(huge, CO_JOB_QUEUED);
  assert_state(submit_by("ann", "ranks: 1\n"), CO_JOB_LOADING);
  ck_assert_uint_eq(job_of(huge)->place, 0);
}
END_TEST

START_TEST(the_priority_of_a_queued_job_can_be_changed) {
  bl_peer ann = keyed("ann", BL_ROLE_USER, "ann"), bob = keyed("bob", BL_ROLE_USER, "bob");
  uint64_t running = submit_by("ann", "ranks: 4\n");
  uint64_t b = submit_by("ann", "ranks: 1\n"), c = submit_by("ann", "ranks: 1\n");
  set_priority(&ann, c, 5);
  ck_assert_int_eq(last.status, 0);
  ck_assert_uint_eq(job_of(c)->place, 1);
  ck_assert_uint_eq(job_of(b)->place, 2);
  core_restarts();
  ck_assert_int_eq(job_of(c)->priority, 5);
  set_priority(&ann, c, -5);
  ck_assert_int_eq(job_of(c)->priority, -5);
  static const struct {
    uint64_t job;
    bool by_bob;
    int32_t priority;
    bl_status status;
    const char *text;
  } refused[] = {
      {1, false, 7, BL_ESTATE, "the priority of job 1 matters no more: it is starting"},
      {2, true, 7, BL_EACCES, "job 2 belongs to 'ann', and 'bob' is no admin"},
      {2, false, 101, BL_EINVAL, "from -100 to 100, not 101"},
      {2, false, -101, BL_EINVAL, "from -100 to 100, not -101"},
      {9, false, 1, BL_ENOENT, "there is no job 9"},
  };
  for (size_t i = 0; i < BL_COUNT_OF(refused); i++) {
    set_priority(refused[i].by_bob ? &bob : &ann, refused[i].job, refused[i].priority);
    ck_assert_int_eq(last.status, -refused[i].status);
    ck_assert_text(last.text, refused[i].text);
  }
  memory_store_set_failing(store, true);
  set_priority(&ann, b, 9);
  ck_assert_int_eq(last.status, -BL_EIO);
  ck_assert_int_eq(job_of(b)->priority, 0);
  memory_store_set_failing(store, false);
  rounds(1);
  ck_assert_int_eq(memory_store_job(store, b)->priority, 0);
  (void)running;
}
END_TEST

START_TEST(memory_that_a_server_has_not_let_go_of_is_not_given_away) {
  named("s2")->up = false;
  fake_node *s1 = named("s1");
  s1->memory_bytes = 2000;
  s1->incarnation++;
  s1->heartbeats = 0;
  registers(s1);
  rounds(8);
  uint64_t a = submit("a", "ranks: 1\n");
  drive_to(a, CO_JOB_RUNNING);
  assert_state(a, CO_JOB_RUNNING);
  uint64_t b = submit("b", "ranks: 1\n");
  ck_assert_text(job_of(b)->waits_for, "job 2 needs 1.1 KiB on servers, largest free is 824 B");
  ck_assert_uint_eq(job_of(b)->place, 1);
  s1->deaf = true;
  cancel(&command_peer, a);
  rounds(4);
  assert_state(b, CO_JOB_QUEUED);
  ck_assert_text(job_of(b)->waits_for, "largest free is 824 B");
  s1->deaf = false;
  rounds(4);
  assert_state(b, CO_JOB_LOADING);
}
END_TEST

/* Slots that were given for a moment, until the memory was found to be short, are free for the next in the queue. */
START_TEST(who_is_short_of_memory_takes_no_slots_from_those_behind) {
  named("s2")->up = false;
  fake_node *s1 = named("s1");
  s1->memory_bytes = 2000;
  s1->incarnation++;
  s1->heartbeats = 0;
  registers(s1);
  rounds(8);
  uint64_t first = submit_by("ann", "ranks: 1\n");
  uint64_t b = submit_by("ann", "ranks: 3\n"), c = submit_by("ann", "ranks: 3\n");
  assert_state(first, CO_JOB_LOADING);
  ck_assert_text(job_of(b)->waits_for, "job 2 needs 1.1 KiB on servers");
  ck_assert_text(job_of(c)->waits_for, "job 3 needs 1.1 KiB on servers");
  cancel(&command_peer, first);
  rounds(2);
  assert_state(b, CO_JOB_LOADING);
  ck_assert_text(job_of(c)->waits_for, "job 3 waits for 2 of 3 slots");
}
END_TEST

/* ---- cancel ----------------------------------------------------------------------------------------- */

static void drive_anywhere(uint64_t id, co_job_state state) {
  if (state == CO_JOB_QUEUED)
    return;
  drive_to(id, state == CO_JOB_RECOVERING || state == CO_JOB_FAILED ? CO_JOB_RUNNING : BL_MIN(state, CO_JOB_DONE));
  held_task *t = &named("w1")->tasks[0];
  if (state == CO_JOB_RECOVERING || state == CO_JOB_FAILED) {
    t->state = BALLAST__CONTROL__TASK_STATE__TASK_FAILED;
    t->retryable = state == CO_JOB_RECOVERING;
    t->text = "it broke";
    rounds(1);
  }
  if (state == CO_JOB_FAILED)
    rounds(3);
}

/* At once: between the command and the end of the test no node says anything. */
START_TEST(cancel_frees_what_the_job_holds_at_once_in_every_state) {
  co_job_state state = (co_job_state)_i;
  if (state == CO_JOB_CANCELLED)
    return;
  uint64_t id = submit("t", state == CO_JOB_QUEUED ? "ranks: 9\n" : "ranks: 2\n");
  drive_anywhere(id, state);
  assert_state(id, state);
  size_t held = 0;
  for (size_t i = 0; i < n_nodes; i++)
    held += nodes[i].n_tasks + nodes[i].n_jobs;
  ck_assert_int_eq(held > 0, co_job_state_is_active(state) && state != CO_JOB_FINISHING);
  bool possible = state < CO_JOB_FINISHING;
  cancel(&command_peer, id);
  ck_assert_int_eq(last.status, possible ? 0 : -BL_ESTATE);
  assert_state(id, possible ? CO_JOB_CANCELLED : state == CO_JOB_FINISHING ? job_of(id)->state : state);
  for (size_t i = 0; i < n_nodes; i++)
    ck_assert_uint_eq(nodes[i].n_tasks + nodes[i].n_jobs, 0);
  ck_assert_uint_eq(co_queue_reserved_bytes(co_core_state(core), co_core_state(core)->members.nodes[0]),
                    state == CO_JOB_FINISHING ? co_job_shard_load(job_of(id), "s1", 0) : 0);
  cancel(&command_peer, id); /* again */
  ck_assert_int_eq(last.status, possible ? 0 : -BL_ESTATE);
}
END_TEST

/* ---- restart at every step ---------------------------------------------------------------------------- */

typedef enum life { LIFE_DONE, LIFE_FAILED, LIFE_CANCELLED, LIFE_COUNT } life;

static void live(uint64_t n_rounds);
static void node_restarts(fake_node *n);

/* One life of job 1: it waits, runs, loses a worker, recovers, and ends. What gets lost on the way is said again. */
static void one_life(life kind) {
  bool broken = false, answered = false;
  while (co_core_state(core)->n_jobs == 0 || last.job != 1)
    submit_as(&command_peer, "t", job_text("ranks: 2\ntask_retries: 9\n"));
  for (unsigned i = 0; i < 60; i++) {
    live(1);
    const co_job *job = co_state_job(co_core_state(core), 1);
    ck_assert_ptr_nonnull(job);
    if (job->state != CO_JOB_RUNNING && !broken)
      continue;
    if (!broken && kind == LIFE_FAILED) {
      held_task *t = task_of(named("w2"), 1, 1, job->ranks[1].incarnation);
      if (t != NULL && t->state == BALLAST__CONTROL__TASK_STATE__TASK_RUNNING) {
        t->state = BALLAST__CONTROL__TASK_STATE__TASK_FAILED;
        t->text = "line 3: nonsense";
        broken = true;
      }
    } else if (!broken) {
      broken = true;
      node_restarts(named("w2"));
    } else if (kind == LIFE_CANCELLED && !answered) {
      last.job = 0;
      cancel(&command_peer, 1);
      answered = last.job == 1 && last.status == 0;
    }
  }
}

/* Between any two things that the coordinator writes it is taken away, before or behind what it says in between. */
START_TEST(the_coordinator_restarts_at_every_single_step_of_a_job) {
  static const co_job_state ends[LIFE_COUNT] = {CO_JOB_DONE, CO_JOB_FAILED, CO_JOB_CANCELLED};
  unsigned n_deaths = 0;
  memset(&death, 0, sizeof death);
  for (life kind = LIFE_DONE; kind < LIFE_COUNT; kind++)
    for (int says_more = 0; says_more < 2; says_more++) {
      bool died = true;
      for (uint64_t put = 1; died; put++) {
        set_up_cluster();
        death.armed = true;
        death.says_more = says_more == 1;
        death.last_put = put;
        death.refused = 0;
        memory_store_set_puts_max(store, put);
        last.job = 0;
        one_life(kind);
        died = !death.armed;
        n_deaths += died;
        death.armed = false;
        const co_job *job = job_of(1);
        ck_assert_msg(job->state == ends[kind], "put %" PRIu64 ", says_more %d: job is %s, expected %s: %s%s", put,
                      says_more, co_job_phase_name(job->state), co_job_phase_name(ends[kind]), job->reason,
                      job->waits_for);
        co_result r;
        if (kind == LIFE_DONE) {
          ck_assert(co_job_result(job, &r));
          ck_assert_uint_eq(r.weights_xxh3, 0xabc);
          ck_assert_uint_eq(job->n_epochs, 2);
        }
        ck_assert_uint_eq(co_core_state(core)->n_jobs, 1);
        for (size_t i = 0; i < n_nodes; i++)
          ck_assert_uint_eq(nodes[i].n_tasks + nodes[i].n_jobs, 0);
        tear_down();
      }
    }
  for (co_job_state s = CO_JOB_QUEUED; s < CO_JOB_STATE_COUNT; s++)
    ck_assert_msg(death.in_state[s] > 0, "of %u deaths none was in state %s", n_deaths, co_job_phase_name(s));
  ck_assert_uint_gt(n_deaths, 100);
}
END_TEST

/* ---- history ---------------------------------------------------------------------------------------- */

static void find_jobs(Ballast__Control__Query *q) {
  q->what = (char *)"jobs";
  deliver(&command_peer, BL_MSG_QUERY, &q->base);
}

/* "3 4 7+": the numbers in the answer, and whether there are more. */
static const char *numbers_of_answer(void) {
  static char out[1024];
  size_t n = 0, i;
  json_t *answer = json_loads(last.json, 0, NULL), *job;
  ck_assert_ptr_nonnull(answer);
  out[0] = '\0';
  json_array_foreach(json_object_get(answer, "jobs"), i, job) {
    ck_assert_ptr_nonnull(json_object_get(job, "clocks"));
    n += (size_t)snprintf(out + n, sizeof out - n, "%s%lld", i > 0 ? " " : "",
                          json_integer_value(json_object_get(job, "job")));
  }
  snprintf(out + n, sizeof out - n, "%s", json_is_true(json_object_get(answer, "more")) ? "+" : "");
  json_decref(answer);
  return out;
}

#define FIND(want, ...)                                                                                        \
  do {                                                                                                         \
    Ballast__Control__Query q_ = BALLAST__CONTROL__QUERY__INIT;                                                \
    Ballast__Control__Query *q = &q_;                                                                          \
    __VA_ARGS__;                                                                                               \
    find_jobs(q);                                                                                              \
    ck_assert_msg(last.status == 0, "%s", last.text);                                                          \
    ck_assert_str_eq(numbers_of_answer(), want);                                                               \
  } while (0)

static void many_jobs(unsigned n) {
  for (unsigned i = 0; i < n; i++)
    cancel(&command_peer, submit_by(i % 2 == 0 ? "ann" : "bob", ""));
  rounds(3);
}

START_TEST(old_jobs_are_in_the_store_and_not_in_memory) {
  history_jobs_max = 1000;
  tear_down();
  set_up_cluster();
  drive_to(submit_by("ann", "ranks: 2\n"), CO_JOB_DONE);
  many_jobs(CO_ENDED_IN_MEMORY + 20);
  for (int restarted = 0; restarted < 2; restarted++) {
    ck_assert_uint_eq(co_core_state(core)->n_jobs, CO_ENDED_IN_MEMORY);
    ck_assert_ptr_null(co_state_job(co_core_state(core), 1));
    FIND("1 2 3 4 5", q->job = 6);
    FIND("3 4 5+", (q->job = 6, q->limit = 3));
    FIND("119 120 121+", q->limit = 3);
    FIND("1", q->state = (char *)"done");
    FIND("1 2 4", (q->submitter = (char *)"ann", q->job = 6));
    FIND("119 121+", (q->submitter = (char *)"bob", q->state = (char *)"ended", q->limit = 2));
    FIND("", q->state = (char *)"queued,active");
    FIND("1", (q->name = (char *)"te?*", q->state = (char *)"failed,done"));
    FIND("", q->name = (char *)"other*");
    FIND("", q->submitted_ns = UINT64_C(1700000000) * S + now_ns);
    Ballast__Control__Query q = BALLAST__CONTROL__QUERY__INIT;
    q.what = (char *)"job";
    q.job = 1;
    deliver(&command_peer, BL_MSG_QUERY, &q.base);
    ck_assert_int_eq(last.status, 0);
    json_t *job = json_loads(last.json, 0, NULL), *result = json_object_get(job, "result");
    ck_assert_str_eq(json_string_value(json_object_get(result, "weights_xxh3")), "0000000000000abc");
    ck_assert_uint_eq(json_array_size(json_object_get(job, "history")), 2);
    json_decref(job);
    q.what = (char *)"logs";
    deliver(&command_peer, BL_MSG_QUERY, &q.base);
    ck_assert_text(last.json, "every rank has delivered its result");
    cancel(&command_peer, 1);
    ck_assert_int_eq(last.status, -BL_ESTATE);
    ck_assert_str_eq(last.text, "job 1 cannot be cancelled any more: it is done");
    ck_assert_uint_eq(submit_as(&command_peer, "t1", job_text("")), 1);
    core_restarts();
  }
  Ballast__Control__Query q = BALLAST__CONTROL__QUERY__INIT;
  q.state = (char *)"done,sleeping";
  find_jobs(&q);
  ck_assert_int_eq(last.status, -BL_EINVAL);
  ck_assert_text(last.text, "no job is ever 'sleeping': states are queued, starting");
  history_jobs_max = 50;
}
END_TEST

/* What a list shows of an ended job is what it showed when it ended, although nothing of it is computed again. */
START_TEST(a_list_shows_the_same_of_a_job_in_memory_and_in_the_store) {
  history_jobs_max = 1000;
  tear_down();
  set_up_cluster();
  drive_to(submit_by("ann", "ranks: 2\npriority: -3\n"), CO_JOB_DONE);
  Ballast__Control__Query q = BALLAST__CONTROL__QUERY__INIT;
  q.job = 2;
  find_jobs(&q);
  char *before = bl_strdup(last.json);
  many_jobs(CO_ENDED_IN_MEMORY);
  ck_assert_ptr_null(co_state_job(co_core_state(core), 1));
  find_jobs(&q);
  ck_assert_str_eq(last.json, before);
  ck_assert_text(before, "\"priority\":-3");
  ck_assert_text(before, "\"test_loss\":0.3");
  bl_free(before);
  history_jobs_max = 50;
}
END_TEST

/* ---- names and roles -------------------------------------------------------------------------------- */

START_TEST(keys_decide_who_may_do_what) {
  static const struct {
    bl_role role;
    bool submits, queries;
  } cases[] = {{BL_ROLE_ADMIN, true, true},
               {BL_ROLE_USER, true, true},
               {BL_ROLE_VIEWER, false, true},
               {BL_ROLE_WORKER, false, false},
               {BL_ROLE_SERVER, false, false}};
  for (size_t i = 0; i < BL_COUNT_OF(cases); i++) {
    bl_peer p = keyed("x", cases[i].role, "ann");
    char token[8];
    snprintf(token, sizeof token, "t%zu", i);
    submit_as(&p, token, job_text(""));
    ck_assert_int_eq(last.status == 0, cases[i].submits);
    if (!cases[i].submits)
      ck_assert_text(last.text, "does not allow");
    Ballast__Control__Query q = BALLAST__CONTROL__QUERY__INIT;
    q.what = (char *)"jobs";
    deliver(&p, BL_MSG_QUERY, &q.base);
    ck_assert_int_eq(last.status == 0, cases[i].queries);
  }
  bl_peer ann = keyed("a", BL_ROLE_USER, "ann"), bob = keyed("b", BL_ROLE_USER, "bob");
  bl_peer admin = keyed("c", BL_ROLE_ADMIN, "root");
  uint64_t id = submit_as(&ann, "own", job_text(""));
  ck_assert_str_eq(job_of(id)->submitter, "ann");
  cancel(&bob, id);
  ck_assert_int_eq(last.status, -BL_EACCES);
  cancel(&admin, id);
  ck_assert_int_eq(last.status, 0);
}
END_TEST

START_TEST(nodes_register_only_under_the_name_of_their_key) {
  fake_node n = {.name = "w9", .role = BL_ROLE_WORKER, .slots = 1, .incarnation = 5, .blas_core = ""};
  static const struct {
    bl_role role;
    const char *name;
    bool allowed;
  } cases[] = {{BL_ROLE_WORKER, "w8", false},
               {BL_ROLE_SERVER, "w9", false},
               {BL_ROLE_ADMIN, "w9", false},
               {BL_ROLE_WORKER, "w9", true}};
  for (size_t i = 0; i < BL_COUNT_OF(cases); i++) {
    n.peer = keyed("n9", cases[i].role, cases[i].name);
    registers(&n);
    ck_assert_int_eq(co_membership_find(&co_core_state(core)->members, "w9") != NULL, cases[i].allowed);
  }
}
END_TEST

START_TEST(a_name_belongs_to_the_process_that_started_last) {
  fake_node *w1 = named("w1");
  fake_node older = *w1;
  older.incarnation -= 500;
  older.peer.id[0] = 'x';
  registers(&older);
  ck_assert_int_eq(last.status, -BL_EEXIST);
  fake_node newer = *w1;
  newer.incarnation += 500;
  newer.peer.id[0] = 'y';
  registers(&newer);
  ck_assert_uint_eq(co_membership_find(&co_core_state(core)->members, "w1")->reg->incarnation,
                    newer.incarnation);
  last.status = 0;
  beat(w1); /* the predecessor is told to go */
  ck_assert_int_eq(last.status, -BL_EEXIST);
}
END_TEST

START_TEST(another_protocol_version_is_rejected_with_both_ranges) {
  Ballast__Control__Register m = BALLAST__CONTROL__REGISTER__INIT;
  m.protocol_min = m.protocol_max = BL_PROTOCOL_VERSION + 1;
  m.role = BALLAST__CONTROL__ROLE__ROLE_WORKER;
  m.name = (char *)"w7";
  m.slots = 1;
  deliver(&command_peer, BL_MSG_REGISTER, &m.base);
  ck_assert_int_eq(last.status, -BL_EPROTO);
  ck_assert_text(last.text, "speaks protocol 3 to 3, this coordinator 1 to 2");
}
END_TEST

/* The program of a node is replaced by one of another version. */
static void becomes(fake_node *n, uint32_t protocol) {
  n->protocol = protocol;
  n->incarnation++;
  n->heartbeats = 0;
  n->n_tasks = n->n_jobs = 0;
  registers(n);
}

START_TEST(nodes_of_both_versions_are_told_the_one_that_both_speak) {
  last.protocol = 0;
  becomes(named("w1"), 1);
  ck_assert_uint_eq(last.protocol, 1);
  becomes(named("w1"), 0);
  ck_assert_uint_eq(last.protocol, BL_PROTOCOL_VERSION);
}
END_TEST

START_TEST(a_job_of_version_1_runs_on_nodes_of_both) {
  becomes(named("s1"), 1);
  becomes(named("w2"), 1);
  rounds(1);
  uint64_t id = submit("t", "ranks: 4\n");
  drive_to(id, CO_JOB_DONE);
  assert_state(id, CO_JOB_DONE);
  ck_assert_str_eq(job_of(id)->ranks[1].node, "w2");
}
END_TEST

START_TEST(a_job_goes_only_to_nodes_that_speak_what_it_needs) {
  becomes(named("s1"), 1);
  becomes(named("w1"), 1);
  rounds(1);
  uint64_t id = submit("t", "ranks: 2\naccumulate: 2\n");
  drive_to(id, CO_JOB_RUNNING);
  assert_state(id, CO_JOB_RUNNING);
  ck_assert_uint_eq(named("s1")->n_jobs + named("w1")->n_tasks, 0);
  ck_assert_uint_eq(named("w2")->n_tasks, 2);
  /* Nor does a rank move to an old one: it waits. */
  named("w2")->up = false;
  rounds(8);
  assert_state(id, CO_JOB_RECOVERING);
  ck_assert_text(job_of(id)->waits_for, "job 1 waits for 1 of 1 workers: w2 missing for");
  ck_assert_text(job_of(id)->waits_for, "; job 1 needs protocol 2 for accumulate: worker w1 speaks 1, upgrade it");
  becomes(named("w1"), 0);
  rounds(2);
  ck_assert_uint_eq(named("w1")->n_tasks, 2);
}
END_TEST

START_TEST(a_job_that_needs_a_newer_version_names_who_is_too_old) {
  becomes(named("s1"), 1);
  becomes(named("s2"), 1);
  rounds(1);
  uint64_t id = submit("t", "ranks: 1\naccumulate: 2\n");
  rounds(1);
  assert_state(id, CO_JOB_QUEUED);
  ck_assert_str_eq(job_of(id)->waits_for, "job 1 waits for a server; job 1 needs protocol 2 for accumulate: "
                                          "server s1 speaks 1, server s2 speaks 1, upgrade them");
  core_restarts(); /* it follows from the job file, and stands nowhere else */
  for (size_t i = 0; i < n_nodes; i++)
    registers(&nodes[i]);
  rounds(2);
  ck_assert_text(job_of(id)->waits_for, "job 1 needs protocol 2 for accumulate");
  uint64_t old = submit("u", "ranks: 1\n"); /* nobody waits behind it */
  rounds(2);
  ck_assert_int_ne(job_of(old)->state, CO_JOB_QUEUED);
  becomes(named("s2"), 0);
  rounds(2);
  assert_state(id, CO_JOB_LOADING);
}
END_TEST

START_TEST(a_job_for_newer_nodes_does_not_stand_in_line_for_old_ones) {
  becomes(named("w1"), 1);
  rounds(1);
  submit("a", "ranks: 3\n");
  uint64_t b = submit("b", "ranks: 2\n"), c = submit("c", "ranks: 3\naccumulate: 2\n");
  rounds(1);
  assert_state(b, CO_JOB_QUEUED);
  assert_state(c, CO_JOB_QUEUED);
  ck_assert_text(job_of(c)->waits_for, "job 3 needs protocol 2 for accumulate: worker w1 speaks 1, upgrade it");
}
END_TEST

START_TEST(only_so_many_ended_jobs_are_kept) {
  for (unsigned i = 0; i < 60; i++) {
    char token[16];
    snprintf(token, sizeof token, "t%u", i);
    cancel(&command_peer, submit(token, ""));
    rounds(3);
  }
  rounds(3);
  ck_assert_uint_eq(co_core_state(core)->n_jobs, 50);
  ck_assert_ptr_null(co_state_job(co_core_state(core), 1));
  ck_assert_ptr_null(memory_store_job(store, 10));
  core_restarts();
  ck_assert_uint_eq(co_core_state(core)->n_jobs, 50);
  ck_assert_uint_eq(submit("next", ""), 61);
}
END_TEST

/* ---- faults ----------------------------------------------------------------------------------------- */

/* An agent's side of a task: reports in order, one under way until it is acknowledged. */
static void task_works(fake_node *n, held_task *t, const co_job *job) {
  const co_rank *r = &job->ranks[t->rank];
  if (r->incarnation != t->incarnation || t->state > BALLAST__CONTROL__TASK_STATE__TASK_DONE)
    return;
  t->sequence = r->sequence; /* what the coordinator has acknowledged */
  if (r->sequence == 0)
    reports_data(n, t, 100);
  else if (t->state == BALLAST__CONTROL__TASK_STATE__TASK_RUNNING && r->sequence < 3)
    reports_epoch(n, t, (uint32_t)r->sequence);
  else if (t->state >= BALLAST__CONTROL__TASK_STATE__TASK_RUNNING && r->done == NULL)
    reports_done(n, t, 0xabc);
}

static void node_restarts(fake_node *n) {
  n->incarnation++;
  n->heartbeats = 0;
  n->n_tasks = n->n_jobs = 0;
  registers(n);
}

static void something_breaks(unsigned kind) {
  fake_node *worker = named(kind % 2 == 0 ? "w1" : "w2");
  if (kind < 2)
    node_restarts(worker);
  else if (kind < 4)
    worker->up = !worker->up;
  else if (kind < 6 && worker->n_tasks > 0 &&
           worker->tasks[0].state == BALLAST__CONTROL__TASK_STATE__TASK_RUNNING) {
    worker->tasks[0].state = BALLAST__CONTROL__TASK_STATE__TASK_FAILED;
    worker->tasks[0].retryable = true;
    worker->tasks[0].text = "killed by signal 9";
  } else if (kind < 8)
    core_restarts();
  else if (kind < 10)
    memory_store_set_failing(store, kind == 8);
}

static void live(uint64_t n_rounds) {
  while (n_rounds-- > 0) {
    round_of_life();
    for (size_t i = 0; i < n_nodes; i++) {
      fake_node *n = &nodes[i];
      if (n->up && co_membership_find_peer(&co_core_state(core)->members, &n->peer) == NULL)
        registers(n);
      for (size_t k = 0; n->up && k < n->n_tasks; k++) {
        const co_job *job = co_state_job(co_core_state(core), n->tasks[k].job);
        if (job != NULL && n->tasks[k].rank < job->n_ranks)
          task_works(n, &n->tasks[k], job);
      }
    }
  }
}

START_TEST(whatever_breaks_jobs_end_with_the_right_result) {
  faults.seed = (uint64_t)_i + 1;
  faults.lost_percent = 20;
  faults.doubled_percent = 20;
  char token[8] = "t0";
  for (; token[1] < '3'; token[1]++)
    submit_as(&command_peer, token, job_text("ranks: 2\ntask_retries: 100\n"));
  uint64_t views[4] = {0}, wanted = co_core_state(core)->n_jobs;
  for (unsigned i = 0; i < 40; i++) {
    if (happens(40))
      something_breaks((unsigned)bl_rng_below(faults.seed, 2, i, 10));
    live(4);
    for (uint64_t id = 1; id <= wanted; id++) {
      ck_assert_uint_ge(job_of(id)->view, views[id]);
      views[id] = memory_store_job(store, id)->view;
    }
  }
  faults.lost_percent = faults.doubled_percent = 0;
  memory_store_set_failing(store, false);
  for (size_t i = 0; i < n_nodes; i++)
    nodes[i].up = true;
  live(60);
  for (uint64_t id = 1; id <= wanted; id++) {
    co_result r;
    const co_job *job = job_of(id);
    /* 20 % loss may starve a server of its lease: then the job fails, and says so. */
    if (job->state == CO_JOB_FAILED) {
      ck_assert_text(job->reason, "server s");
      continue;
    }
    ck_assert_msg(job->state == CO_JOB_DONE, "seed %d: job %" PRIu64 " is %s: %s", _i + 1, id,
                  co_job_phase_name(job->state), job->waits_for);
    ck_assert(co_job_result(job, &r));
    ck_assert_uint_eq(r.weights_xxh3, 0xabc);
  }
  for (size_t i = 0; i < n_nodes; i++)
    ck_assert_uint_eq(nodes[i].n_tasks + nodes[i].n_jobs, 0);
}
END_TEST

START_TEST(nothing_is_left_behind) {
  uint64_t before = bl_alloc_get_stats().live_blocks;
  set_up_cluster();
  uint64_t id = submit("t", "ranks: 2\n");
  drive_to(id, CO_JOB_DONE);
  tear_down();
  ck_assert_uint_eq(bl_alloc_get_stats().live_blocks, before);
}
END_TEST

START_TEST(a_lost_allocation_makes_no_half_job) {
  uint64_t before = bl_alloc_get_stats().live_blocks;
  const char *text = job_text("ranks: 2\n");
  co_job *job = NULL;
  for (uint64_t n = 1; job == NULL; n++) {
    bl_buf mistakes = BL_BUF_INIT;
    bl_alloc_fail_after(n);
    bl_status status = co_job_new(1, text, strlen(text), "f", "t", "me", &job, &mistakes);
    bl_alloc_fail_after(0);
    bl_buf_fini(&mistakes);
    ck_assert_int_eq(status == BL_OK, job != NULL);
    if (job == NULL)
      ck_assert_uint_eq(bl_alloc_get_stats().live_blocks, before);
  }
  co_shard shards[2] = {{.server = "s1", .endpoint = "tcp://a:1", .public_key = ""},
                        {.server = "s2", .endpoint = "tcp://b:1", .public_key = ""}};
  uint64_t with_job = bl_alloc_get_stats().live_blocks;
  for (uint64_t n = 1; job->open == NULL; n++) {
    bl_error err = BL_ERROR_INIT;
    bl_alloc_fail_after(n);
    bl_status status = co_job_place(job, shards, 2, &err);
    bl_alloc_fail_after(0);
    ck_assert_int_eq(status == BL_OK, job->open != NULL);
    if (status != BL_OK) {
      ck_assert_int_eq(status, BL_ENOMEM);
      ck_assert_uint_eq(bl_alloc_get_stats().live_blocks, with_job);
    }
  }
  co_job_free(job);
  ck_assert_uint_eq(bl_alloc_get_stats().live_blocks, before);
}
END_TEST

START_TEST(a_lost_allocation_at_the_start_says_so_and_leaves_nothing) {
  set_up_cluster();
  drive_to(submit("a", "ranks: 2\n"), CO_JOB_DONE);
  co_core_free(core);
  core = NULL;
  co_core_config config = {.heartbeat_ns = S, .lease_ns = S, .transport = &transport, .store = store};
  uint64_t before = bl_alloc_get_stats().live_blocks;
  for (uint64_t n = 1; core == NULL; n++) {
    bl_error err = BL_ERROR_INIT;
    bl_alloc_fail_after(n);
    bl_status status = co_core_new(&config, now_ns, 1, &core, &err);
    bl_alloc_fail_after(0);
    if (status != BL_OK) {
      ck_assert_ptr_null(core);
      ck_assert_uint_eq(bl_alloc_get_stats().live_blocks, before);
      ck_assert_msg(err.text[0] != '\0', "no sentence for the loss of allocation %" PRIu64, n);
    }
  }
  assert_state(1, CO_JOB_DONE);
  tear_down();
}
END_TEST

int main(void) {
  Suite *s = suite_create("coordinator");
  TCase *t = tcase_create("table");
  tcase_add_test(t, every_state_meets_every_event_as_the_table_says);
  tcase_add_test(t, the_coordinator_restarts_at_every_single_step_of_a_job);
  tcase_add_test(t, nothing_is_left_behind);
  tcase_add_test(t, a_lost_allocation_makes_no_half_job);
  tcase_add_test(t, a_lost_allocation_at_the_start_says_so_and_leaves_nothing);
  suite_add_tcase(s, t);

  t = tcase_create("cluster");
  tcase_add_checked_fixture(t, set_up_cluster, tear_down);
  tcase_add_test(t, the_plan_says_what_groups_say);
  tcase_add_test(t, the_plan_says_how_tensors_travel);
  tcase_add_test(t, an_average_takes_memory_of_the_servers_and_stands_in_the_plan);
  tcase_add_test(t, a_job_lives_from_submission_to_its_result);
  tcase_add_test(t, the_json_of_a_finished_job_has_the_fields_of_run);
  tcase_add_test(t, every_field_of_the_status_is_documented);
  tcase_add_test(t, mistakes_in_the_job_file_come_back_all_at_once);
  tcase_add_test(t, a_token_is_one_job_also_after_a_restart);
  tcase_add_test(t, a_job_that_cannot_be_stored_is_not_accepted);
  tcase_add_test(t, differing_data_fails_the_job_and_names_the_nodes);
  tcase_add_test(t, rank_0_is_not_stopped_before_its_result_is_acknowledged);
  tcase_add_loop_test(t, an_epoch_is_acknowledged_with_its_verdict, 0, 2);
  tcase_add_test(t, what_tensors_travel_as_is_added_over_the_ranks);
  tcase_add_loop_test(t, metrics_that_a_job_asks_for_are_added_over_the_ranks, 0, 2);
  tcase_add_test(t, local_data_may_differ_and_the_plan_says_how_much_each_rank_has);
  tcase_add_loop_test(t, a_rank_waits_for_the_worker_that_holds_its_data, 0, 2);
  tcase_add_test(t, a_crashed_rank_starts_again_where_its_data_is);
  tcase_add_test(t, local_data_needs_a_worker_for_every_rank);
  tcase_add_test(t, ranks_with_local_data_are_placed_by_name);
  tcase_add_test(t, a_rank_without_samples_of_its_own_fails_the_job);
  tcase_add_test(t, different_final_weights_fail_the_job);
  tcase_add_test(t, a_lost_worker_is_replaced_in_a_new_view);
  tcase_add_test(t, while_the_store_fails_no_new_view_is_announced);
  tcase_add_test(t, a_crashed_task_is_started_again_until_its_retries_are_used_up);
  tcase_add_test(t, a_mistake_in_the_job_fails_it_at_once);
  tcase_add_loop_test(t, a_vanished_or_restarted_agent_costs_a_new_incarnation, 0, 2);
  tcase_add_loop_test(t, a_lost_server_fails_a_running_job_and_requeues_a_starting_one, 0, 3);
  tcase_add_loop_test(t, a_server_that_restarts_or_forgets_takes_the_job_with_it, 0, 2);
  tcase_add_test(t, leases_are_stored_before_they_are_told_and_are_there_after_a_restart);
  tcase_add_test(t, a_replaced_rank_has_the_leases_of_the_one_before);
  tcase_add_loop_test(t, who_does_not_run_free_or_not_yet_gets_no_samples, 0, 2);
  tcase_add_loop_test(t, the_coordinator_restarts_in_any_state_and_adopts_what_runs, 0, 6);
  tcase_add_test(t, after_a_restart_only_what_stays_missing_is_replaced);
  tcase_add_test(t, reports_are_taken_once_and_in_order);
  tcase_add_test(t, an_epoch_number_out_of_line_allocates_nothing);
  tcase_add_test(t, late_heartbeats_change_nothing);
  tcase_add_test(t, commands_that_get_lost_are_sent_again);
  tcase_add_test(t, random_bytes_are_refused_and_change_nothing);
  tcase_add_test(t, waiting_is_a_sentence);
  tcase_add_test(t, more_slots_than_there_are_is_said_so);
  tcase_add_test(t, missing_workers_are_counted_and_named);
  tcase_add_test(t, memory_is_admitted_before_a_start);
  tcase_add_test(t, several_jobs_share_the_slots_and_a_cancel_frees_them);
  tcase_add_test(t, the_queue_goes_by_priority_then_share_then_age);
  tcase_add_test(t, who_has_just_got_slots_comes_after_the_others);
  tcase_add_loop_test(t, a_small_job_passes_a_large_one_only_for_a_time, 0, 2);
  tcase_add_test(t, a_job_that_is_too_large_for_the_cluster_keeps_no_slots);
  tcase_add_test(t, a_job_that_is_too_large_for_the_servers_keeps_no_slots);
  tcase_add_test(t, the_priority_of_a_queued_job_can_be_changed);
  tcase_add_test(t, memory_that_a_server_has_not_let_go_of_is_not_given_away);
  tcase_add_test(t, who_is_short_of_memory_takes_no_slots_from_those_behind);
  tcase_add_loop_test(t, cancel_frees_what_the_job_holds_at_once_in_every_state, CO_JOB_QUEUED, CO_JOB_STATE_COUNT);
  tcase_add_test(t, old_jobs_are_in_the_store_and_not_in_memory);
  tcase_add_test(t, a_list_shows_the_same_of_a_job_in_memory_and_in_the_store);
  tcase_add_test(t, one_core_type_is_chosen_for_all_ranks);
  tcase_add_test(t, a_recovering_job_waits_for_its_least_number_of_workers);
  tcase_add_test(t, keys_decide_who_may_do_what);
  tcase_add_test(t, nodes_register_only_under_the_name_of_their_key);
  tcase_add_test(t, a_name_belongs_to_the_process_that_started_last);
  tcase_add_test(t, another_protocol_version_is_rejected_with_both_ranges);
  tcase_add_test(t, nodes_of_both_versions_are_told_the_one_that_both_speak);
  tcase_add_test(t, a_job_of_version_1_runs_on_nodes_of_both);
  tcase_add_test(t, a_job_goes_only_to_nodes_that_speak_what_it_needs);
  tcase_add_test(t, a_job_that_needs_a_newer_version_names_who_is_too_old);
  tcase_add_test(t, a_job_for_newer_nodes_does_not_stand_in_line_for_old_ones);
  tcase_add_test(t, only_so_many_ended_jobs_are_kept);
  tcase_add_loop_test(t, whatever_breaks_jobs_end_with_the_right_result, 0, 40);
  suite_add_tcase(s, t);
  return test_run(&s, 1);
}
