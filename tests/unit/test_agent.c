/* SPDX-License-Identifier: Apache-2.0
 *
 * The agent's core against a fake coordinator, launcher and clock; the task pipe under truncation and garbage;
 * report outbox and last words.
 */
#include "agent.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/le.h"
#include "base/rng.h"
#include "launcher.h"
#include "outbox.h"
#include "pipe.h"
#include "task_output.h"
#include "traffic.h"
#include "tests/support/support.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define SENT_MAX 512
#define S BL_NS_PER_S

/* ---- fakes -------------------------------------------------------------------------------------------- */

typedef struct sent {
  bl_msg_type type;
  ProtobufCMessage *m; /* owned */
  uint64_t process;    /* 0: to the coordinator */
} sent;

typedef struct kill_call {
  uint64_t process;
  int signum;
} kill_call;

typedef struct fixture {
  bl_transport transport; /* first */
  wk_launcher launcher;
  wk_agent *agent;
  uint64_t now;
  sent sent[SENT_MAX];
  size_t n_sent;
  wk_launch started[32];
  size_t n_started;
  kill_call kills[32];
  size_t n_kills;
  bool start_fails;
} fixture;

static fixture f;

static void keep(uint64_t process, bl_msg *msg) {
  bl_error err = BL_ERROR_INIT;
  ck_assert_uint_lt(f.n_sent, SENT_MAX);
  sent *s = &f.sent[f.n_sent++];
  s->process = process;
  ck_assert_ok_err(bl_control_unpack(msg, &s->type, &s->m, &err), err);
  bl_msg_fini(msg);
}

static bl_status fake_send(bl_transport *t, const bl_peer *to, bl_msg *msg) {
  ck_assert_ptr_null(to);
  keep(0, msg);
  return BL_OK;
}

static bl_status fake_start(wk_launcher *l, const wk_launch *what, bl_error *err) {
  if (f.start_fails)
    return bl_fail(err, BL_EIO, "fork: no more processes");
  f.started[f.n_started++] = *what;
  return BL_OK;
}

static bl_status fake_task_send(wk_launcher *l, uint64_t process, bl_msg *msg) {
  keep(process, msg);
  return BL_OK;
}

static void fake_kill(wk_launcher *l, uint64_t process, int signum) { f.kills[f.n_kills++] = (kill_call){process, signum}; }

static void forget_sent(void) {
  for (size_t i = 0; i < f.n_sent; i++)
    bl_control_free(f.sent[i].m);
  f.n_sent = 0;
}

static size_t count(bl_msg_type type, uint64_t process) {
  size_t n = 0;
  for (size_t i = 0; i < f.n_sent; i++)
    n += f.sent[i].type == type && f.sent[i].process == process;
  return n;
}

static const void *last(bl_msg_type type, uint64_t process) {
  for (size_t i = f.n_sent; i > 0; i--) {
    if (f.sent[i - 1].type == type && f.sent[i - 1].process == process)
      return f.sent[i - 1].m;
  }
  ck_abort_msg("no %s was sent to %" PRIu64, bl_msg_type_name(type), process);
  return NULL;
}

static void tick(uint64_t ns) {
  f.now += ns;
  uint64_t next = wk_agent_tick(f.agent, f.now);
  ck_assert_uint_gt(next, 0);
}

static void hear(bl_msg_type type, const ProtobufCMessage *m) {
  bl_msg msg = BL_MSG_INIT;
  ck_assert_ok(bl_control_pack(type, m, &msg));
  wk_agent_on_msg(f.agent, &msg, f.now);
  bl_msg_fini(&msg);
}

static void hear_registered(uint64_t coordinator) {
  Ballast__Control__Registered m = BALLAST__CONTROL__REGISTERED__INIT;
  m.name = (char *)"w1";
  m.incarnation = 77;
  m.coordinator_incarnation = coordinator;
  m.heartbeat_ms = 500;
  m.lease_ms = 3000;
  m.protocol = BL_PROTOCOL_VERSION;
  hear(BL_MSG_REGISTERED, &m.base);
}

static void hear_heartbeat_ack(uint64_t coordinator) {
  Ballast__Control__HeartbeatAck m = BALLAST__CONTROL__HEARTBEAT_ACK__INIT;
  m.coordinator_incarnation = coordinator;
  hear(BL_MSG_HEARTBEAT_ACK, &m.base);
}

static void hear_start(uint64_t job, uint32_t rank, uint32_t incarnation, uint64_t view) {
  Ballast__Control__Tensor tensor = BALLAST__CONTROL__TENSOR__INIT;
  Ballast__Control__ShardRef shard = BALLAST__CONTROL__SHARD_REF__INIT;
  Ballast__Control__Rule rule = BALLAST__CONTROL__RULE__INIT;
  Ballast__Control__JobPlan plan = BALLAST__CONTROL__JOB_PLAN__INIT;
  Ballast__Control__StartTask m = BALLAST__CONTROL__START_TASK__INIT;
  uint64_t dims[] = {4};
  uint32_t incarnations[4] = {0, 0, 0, 0}, chunk_shards[] = {0};
  Ballast__Control__Tensor *tensors[] = {&tensor};
  Ballast__Control__ShardRef *shards[] = {&shard};
  tensor.name = (char *)"w";
  tensor.n_dims = 1;
  tensor.dims = dims;
  tensor.init = BL_CONTROL_INIT_MAX;
  shard.server = (char *)"s1";
  shard.endpoint = (char *)"tcp://127.0.0.1:1";
  rule.name = (char *)"sgd";
  incarnations[rank] = incarnation;
  plan.job = job;
  plan.name = (char *)"test";
  plan.world = 4;
  plan.view = view;
  plan.n_incarnations = 4;
  plan.incarnations = incarnations;
  plan.n_tensors = 1;
  plan.tensors = tensors;
  plan.chunk_elems = 1024;
  plan.n_shards = 1;
  plan.shards = shards;
  plan.n_chunk_shards = 1;
  plan.chunk_shards = chunk_shards;
  plan.optimizer = &rule;
  plan.sync = (char *)"bsp";
  plan.codec_push = plan.codec_pull = (char *)"float32";
  m.plan = &plan;
  m.rank = rank;
  m.incarnation = incarnation;
  m.job_text = (char *)"name: test";
  m.blas_core = (char *)"Haswell";
  m.blas_threads = 2;
  hear(BL_MSG_START_TASK, &m.base);
}

static void hear_stop(uint64_t job, uint32_t rank, uint32_t incarnation) {
  Ballast__Control__StopTask m = BALLAST__CONTROL__STOP_TASK__INIT;
  m.job = job;
  m.rank = rank;
  m.incarnation = incarnation;
  m.reason = (char *)"cancelled";
  hear(BL_MSG_STOP_TASK, &m.base);
}

static void hear_report_ack(uint64_t job, uint32_t rank, uint32_t incarnation, uint64_t sequence) {
  Ballast__Control__ReportAck m = BALLAST__CONTROL__REPORT_ACK__INIT;
  m.job = job;
  m.rank = rank;
  m.incarnation = incarnation;
  m.sequence = sequence;
  hear(BL_MSG_REPORT_ACK, &m.base);
}

static void task_says(uint64_t process, bl_msg_type type, const ProtobufCMessage *m) {
  bl_msg msg = BL_MSG_INIT;
  ck_assert_ok(bl_control_pack(type, m, &msg));
  wk_agent_on_task_msg(f.agent, process, &msg, f.now);
  bl_msg_fini(&msg);
}

static void task_says_state(uint64_t process, Ballast__Control__TaskState state, const char *text) {
  Ballast__Control__TaskStatus m = BALLAST__CONTROL__TASK_STATUS__INIT;
  m.state = state;
  m.clock = 12;
  m.text = (char *)text;
  task_says(process, BL_MSG_TASK_STATUS, &m.base);
}

static void task_reports_epoch(uint64_t process, uint64_t sequence, uint32_t epoch) {
  Ballast__Control__EpochReport e = BALLAST__CONTROL__EPOCH_REPORT__INIT;
  Ballast__Control__Report m = BALLAST__CONTROL__REPORT__INIT;
  e.epoch = epoch;
  m.sequence = sequence;
  m.epoch = &e;
  task_says(process, BL_MSG_REPORT, &m.base);
}

static void task_reports_done(uint64_t process, uint64_t sequence) {
  Ballast__Control__DoneReport d = BALLAST__CONTROL__DONE_REPORT__INIT;
  Ballast__Control__Report m = BALLAST__CONTROL__REPORT__INIT;
  m.sequence = sequence;
  m.done = &d;
  task_says(process, BL_MSG_REPORT, &m.base);
}

static void setup(void) {
  memset(&f, 0, sizeof f);
  f.transport.send = fake_send;
  f.launcher = (wk_launcher){fake_start, fake_task_send, fake_kill};
  f.now = 1000 * S;
  wk_agent_config config = {.name = "w1",
                            .host = "h",
                            .rack = "",
                            .incarnation = 77,
                            .build = "test",
                            .blas_core = "Haswell",
                            .kernel_table = "scalar",
                            .status_url = "",
                            .public_key = "",
                            .slots = 2,
                            .cores = 2,
                            .coordinator = "tcp://127.0.0.1:7070",
                            .transport = &f.transport,
                            .launcher = &f.launcher};
  bl_error err = BL_ERROR_INIT;
  ck_assert_ok_err(wk_agent_new(&config, &f.agent, &err), err);
}

static void setup_registered(void) {
  setup();
  tick(0);
  hear_registered(5);
  tick(0);
  forget_sent();
}

static void teardown(void) {
  forget_sent();
  wk_agent_free(f.agent);
  ck_assert_uint_eq(bl_alloc_get_stats().live_blocks, 0);
}

/* ---- the agent ---------------------------------------------------------------------------------------- */

START_TEST(it_registers_with_backoff_and_then_sends_heartbeats) {
  tick(0);
  ck_assert_uint_eq(count(BL_MSG_REGISTER, 0), 1);
  tick(400 * BL_NS_PER_MS);
  ck_assert_uint_eq(count(BL_MSG_REGISTER, 0), 1);
  tick(100 * BL_NS_PER_MS);
  ck_assert_uint_eq(count(BL_MSG_REGISTER, 0), 2);
  const Ballast__Control__Register *r = last(BL_MSG_REGISTER, 0);
  ck_assert_str_eq(r->name, "w1");
  ck_assert_uint_eq(r->slots, 2);
  ck_assert_int_eq(r->role, BALLAST__CONTROL__ROLE__ROLE_WORKER);
  for (int i = 0; i < 100; i++)
    tick(100 * BL_NS_PER_MS); /* 10 s more: at 1.5 s, 3.5 s, 7.5 s, then every 5 s */
  ck_assert_uint_le(count(BL_MSG_REGISTER, 0), 6);
  ck_assert(!wk_agent_is_registered(f.agent));
  ck_assert_uint_gt(wk_agent_silence_ns(f.agent, f.now), 10 * S);
  hear_registered(5);
  forget_sent();
  tick(0);
  tick(500 * BL_NS_PER_MS);
  tick(500 * BL_NS_PER_MS);
  ck_assert_uint_eq(count(BL_MSG_HEARTBEAT, 0), 3);
  ck_assert_uint_eq(count(BL_MSG_REGISTER, 0), 0);
}
END_TEST

START_TEST(a_registration_of_another_incarnation_is_not_ours) {
  tick(0);
  Ballast__Control__Registered m = BALLAST__CONTROL__REGISTERED__INIT;
  m.name = (char *)"w1";
  m.incarnation = 76;
  m.heartbeat_ms = 500;
  m.lease_ms = 3000;
  hear(BL_MSG_REGISTERED, &m.base);
  ck_assert(!wk_agent_is_registered(f.agent));
}
END_TEST

START_TEST(a_start_said_many_times_starts_one_process) {
  for (int i = 0; i < 5; i++)
    hear_start(7, 1, 1, 1);
  ck_assert_uint_eq(f.n_started, 1);
  ck_assert_str_eq(f.started[0].blas_core, "Haswell");
  ck_assert_uint_eq(f.started[0].blas_threads, 2);
  ck_assert_uint_eq(count(BL_MSG_START_TASK, 1), 1);
  tick(20 * BL_NS_PER_MS);
  const Ballast__Control__Heartbeat *h = last(BL_MSG_HEARTBEAT, 0);
  ck_assert_uint_eq(h->n_tasks, 1);
  ck_assert_uint_eq(h->tasks[0]->job, 7);
  ck_assert_uint_eq(h->tasks[0]->rank, 1);
  ck_assert_int_eq(h->tasks[0]->state, BALLAST__CONTROL__TASK_STATE__TASK_STARTING);
}
END_TEST

START_TEST(a_higher_incarnation_replaces_a_lower_one_and_a_lower_one_is_stale) {
  hear_start(7, 1, 2, 1);
  hear_start(7, 1, 1, 1);
  ck_assert_uint_eq(f.n_started, 1);
  hear_start(7, 1, 3, 2);
  ck_assert_uint_eq(f.n_kills, 1);
  ck_assert_uint_eq(f.kills[0].process, 1);
  ck_assert_int_eq(f.kills[0].signum, SIGKILL);
  ck_assert_uint_eq(f.n_started, 2); /* the second slot is free */
  /* What the replaced process still says is nobody's. */
  task_says_state(1, BALLAST__CONTROL__TASK_STATE__TASK_FAILED, "late");
  ck_assert_uint_eq(wk_agent_task_at(f.agent, 0)->incarnation, 3);
  ck_assert_int_eq(wk_agent_task_at(f.agent, 0)->state, BALLAST__CONTROL__TASK_STATE__TASK_STARTING);
  wk_agent_on_task_exit(f.agent, 1, 0, SIGKILL, f.now);
  ck_assert_int_eq(wk_agent_task_at(f.agent, 0)->state, BALLAST__CONTROL__TASK_STATE__TASK_STARTING);
  ck_assert_uint_eq(wk_agent_n_processes(f.agent), 1);
}
END_TEST

START_TEST(a_replacement_waits_until_the_old_process_has_left_its_slot) {
  hear_start(7, 0, 1, 1);
  hear_start(7, 1, 1, 1);
  hear_start(7, 1, 2, 2);
  ck_assert_uint_eq(f.n_started, 2);
  ck_assert_uint_gt(strlen(wk_agent_task_at(f.agent, 1)->waits_for), 0);
  wk_agent_on_task_exit(f.agent, 2, 0, SIGKILL, f.now);
  ck_assert_uint_eq(f.n_started, 3);
  ck_assert_uint_eq(f.started[2].incarnation, 2);
}
END_TEST

START_TEST(more_tasks_than_slots_are_refused_with_a_sentence) {
  hear_start(7, 0, 1, 1);
  hear_start(7, 1, 1, 1);
  hear_start(7, 2, 1, 1);
  ck_assert_uint_eq(f.n_started, 2);
  const Ballast__Control__TaskStatus *t = wk_agent_task_at(f.agent, 2);
  ck_assert_int_eq(t->state, BALLAST__CONTROL__TASK_STATE__TASK_FAILED);
  ck_assert(t->retryable);
  ck_assert_ptr_nonnull(strstr(t->text, "no free slot"));
}
END_TEST

START_TEST(a_process_that_cannot_be_made_is_a_failed_task) {
  f.start_fails = true;
  hear_start(7, 0, 1, 1);
  const Ballast__Control__TaskStatus *t = wk_agent_task_at(f.agent, 0);
  ck_assert_int_eq(t->state, BALLAST__CONTROL__TASK_STATE__TASK_FAILED);
  ck_assert_ptr_nonnull(strstr(t->text, "no more processes"));
}
END_TEST

START_TEST(a_crash_is_told_with_its_signal_and_last_words) {
  static const char words[] = "2026-01-02T03:04:05.678Z info ballast-task ev=x\nterrible \x80 thing happened\n";
  hear_start(7, 1, 1, 1);
  task_says_state(1, BALLAST__CONTROL__TASK_STATE__TASK_RUNNING, "");
  wk_agent_on_task_output(f.agent, 1, words, sizeof words - 1, f.now, 1);
  wk_agent_on_task_exit(f.agent, 1, 0, SIGSEGV, f.now);
  tick(20 * BL_NS_PER_MS);
  const Ballast__Control__Heartbeat *h = last(BL_MSG_HEARTBEAT, 0);
  ck_assert_int_eq(h->tasks[0]->state, BALLAST__CONTROL__TASK_STATE__TASK_FAILED);
  ck_assert(h->tasks[0]->retryable);
  ck_assert_msg(strstr(h->tasks[0]->text, "SIGSEGV") != NULL, "%s", h->tasks[0]->text);
  ck_assert_ptr_nonnull(strstr(h->tasks[0]->text, "terrible ? thing happened"));
  ck_assert_ptr_nonnull(strstr(h->tasks[0]->text, "clock 12"));
  /* The same start again changes nothing: it has ended. The stop makes the agent forget it. */
  hear_start(7, 1, 1, 1);
  ck_assert_uint_eq(f.n_started, 1);
  hear_stop(7, 1, 1);
  ck_assert_ptr_null(wk_agent_task_at(f.agent, 0));
}
END_TEST

static void task_tells_traffic(uint64_t process, uint64_t bytes) {
  Ballast__Control__TensorTraffic traffic = BALLAST__CONTROL__TENSOR_TRAFFIC__INIT, *list[] = {&traffic};
  Ballast__Control__TaskStatus m = BALLAST__CONTROL__TASK_STATUS__INIT;
  traffic.name = (char *)"w";
  traffic.bytes_pushed = bytes;
  m.state = BALLAST__CONTROL__TASK_STATE__TASK_RUNNING;
  m.traffic = list;
  m.n_traffic = 1;
  task_says(process, BL_MSG_TASK_STATUS, &m.base);
}

START_TEST(tensors_are_told_of_once_and_again_to_another_coordinator) {
  hear_start(7, 1, 1, 1);
  task_tells_traffic(1, 100);
  tick(500 * BL_NS_PER_MS);
  const Ballast__Control__Heartbeat *h = last(BL_MSG_HEARTBEAT, 0);
  ck_assert_uint_eq(h->tasks[0]->n_traffic, 1);
  ck_assert_uint_eq(h->tasks[0]->traffic[0]->bytes_pushed, 100);
  task_says_state(1, BALLAST__CONTROL__TASK_STATE__TASK_RUNNING, "");
  tick(500 * BL_NS_PER_MS);
  h = last(BL_MSG_HEARTBEAT, 0);
  ck_assert_uint_eq(h->tasks[0]->n_traffic, 0);
  ck_assert_uint_eq(wk_agent_task_at(f.agent, 0)->n_traffic, 1); /* our own page has it */
  hear_registered(6);
  tick(500 * BL_NS_PER_MS);
  h = last(BL_MSG_HEARTBEAT, 0);
  ck_assert_uint_eq(h->tasks[0]->n_traffic, 1);
  task_tells_traffic(1, 200);
  task_tells_traffic(1, 300);
  tick(500 * BL_NS_PER_MS);
  h = last(BL_MSG_HEARTBEAT, 0);
  ck_assert_uint_eq(h->tasks[0]->traffic[0]->bytes_pushed, 300);
}
END_TEST

static bl_status send_nothing(bl_transport *t, const bl_peer *to, bl_msg *msg) {
  (void)t;
  (void)to;
  (void)msg;
  return BL_EAGAIN;
}

START_TEST(a_task_tells_of_its_largest_tensors_and_of_the_others_together) {
  enum { MANY = 200 };
  bl_tensor tensors[MANY];
  char names[MANY][16];
  uint32_t n = _i == 0 ? MANY : 3;
  for (uint32_t i = 0; i < n; i++) {
    snprintf(names[i], sizeof names[i], "t%u", i);
    uint64_t elems = i % 3 == 0 ? 1000 + i : 10;
    tensors[i] = (bl_tensor){.name = names[i],
                             .dims = {elems},
                             .n_dims = 1,
                             .n_elems = elems,
                             .init = BL_INIT_ZERO,
                             .policy = {bl_codec_spec_exact, bl_codec_spec_exact}};
  }
  ck_assert_ok(bl_codec_spec_read("float16", &tensors[1].policy.push, NULL));
  bl_tensor_table *table;
  bl_error err = BL_ERROR_INIT;
  ck_assert_ok_err(bl_tensor_table_of_list(tensors, n, 1024, &table, &err), err);
  bl_transport nowhere = {.send = send_nothing}, *shards[] = {&nowhere};
  uint32_t *shard_of_chunk = calloc(table->n_chunks, sizeof *shard_of_chunk);
  float *weights[MANY] = {NULL};
  bl_session_config config = {.world = 1, .table = table, .shard_of_chunk = shard_of_chunk, .n_shards = 1,
                              .shards = shards, .weights = weights};
  bl_session *s;
  ck_assert_ok(bl_session_new(&config, &s, NULL));
  static wk_traffic w;
  Ballast__Control__TaskStatus m = BALLAST__CONTROL__TASK_STATUS__INIT;
  wk_traffic_take(&w, table, s, &m);
  if (_i == 0) { /* 67 large ones: the three smallest of them are among the others */
    ck_assert_uint_eq(m.n_traffic, 65);
    ck_assert_str_eq(m.traffic[0]->name, "t9");
    ck_assert_str_eq(m.traffic[63]->name, "t198");
    ck_assert_str_eq(m.traffic[64]->name, "");
    ck_assert_uint_eq(m.traffic[64]->n_tensors, MANY - 64);
    ck_assert_str_eq(m.traffic[64]->codec_push, ""); /* they differ */
    ck_assert_str_eq(m.traffic[64]->codec_pull, "float32");
  } else {
    ck_assert_uint_eq(m.n_traffic, 3);
    ck_assert_str_eq(m.traffic[1]->name, "t1");
    ck_assert_str_eq(m.traffic[1]->codec_push, "float16");
  }
  bl_msg msg = BL_MSG_INIT;
  m.state = BALLAST__CONTROL__TASK_STATE__TASK_RUNNING;
  ck_assert_ok(bl_control_pack(BL_MSG_TASK_STATUS, &m.base, &msg));
  bl_msg_fini(&msg);
  bl_session_free(s);
  bl_tensor_table_free(table);
  free(shard_of_chunk);
}
END_TEST

START_TEST(what_a_task_says_of_its_own_failure_stands) {
  hear_start(7, 1, 1, 1);
  task_says_state(1, BALLAST__CONTROL__TASK_STATE__TASK_FAILED, "train-images: wrong magic");
  wk_agent_on_task_exit(f.agent, 1, 1, 0, f.now);
  const Ballast__Control__TaskStatus *t = wk_agent_task_at(f.agent, 0);
  ck_assert_str_eq(t->text, "train-images: wrong magic");
  ck_assert(!t->retryable);
}
END_TEST

START_TEST(a_hung_task_is_killed_and_reported_but_one_that_loads_has_longer) {
  hear_start(7, 0, 1, 1);
  hear_start(7, 1, 1, 1);
  task_says_state(1, BALLAST__CONTROL__TASK_STATE__TASK_LOADING, "");
  task_says_state(2, BALLAST__CONTROL__TASK_STATE__TASK_RUNNING, "");
  for (int i = 0; i < 59; i++) {
    hear_heartbeat_ack(5);
    tick(S);
  }
  ck_assert_uint_eq(f.n_kills, 0);
  hear_heartbeat_ack(5);
  tick(2 * S);
  ck_assert_uint_eq(f.n_kills, 1);
  ck_assert_uint_eq(f.kills[0].process, 2);
  const Ballast__Control__TaskStatus *t = wk_agent_task_at(f.agent, 1);
  ck_assert_int_eq(t->state, BALLAST__CONTROL__TASK_STATE__TASK_FAILED);
  ck_assert(t->retryable);
  ck_assert_ptr_nonnull(strstr(t->text, "said nothing for"));
  wk_agent_on_task_exit(f.agent, 2, 0, SIGKILL, f.now);
  ck_assert_ptr_nonnull(strstr(wk_agent_task_at(f.agent, 1)->text, "said nothing for"));
}
END_TEST

START_TEST(a_stop_is_asked_then_forced) {
  hear_start(7, 0, 1, 1);
  task_says_state(1, BALLAST__CONTROL__TASK_STATE__TASK_RUNNING, "");
  hear_stop(7, 0, 1);
  hear_stop(7, 0, 1);
  ck_assert_uint_eq(count(BL_MSG_STOP_TASK, 1), 1);
  tick(S);
  ck_assert_uint_eq(f.n_kills, 0);
  hear_heartbeat_ack(5);
  tick(WK_AGENT_STOP_GRACE_NS);
  ck_assert_uint_eq(f.n_kills, 1);
  wk_agent_on_task_exit(f.agent, 1, 0, SIGKILL, f.now);
  ck_assert_int_eq(wk_agent_task_at(f.agent, 0)->state, BALLAST__CONTROL__TASK_STATE__TASK_STOPPED);
}
END_TEST

START_TEST(a_stop_of_an_older_incarnation_stops_nothing) {
  hear_start(7, 0, 3, 1);
  hear_stop(7, 0, 2);
  ck_assert_uint_eq(count(BL_MSG_STOP_TASK, 1), 0);
}
END_TEST

START_TEST(reports_are_repeated_in_order_until_acknowledged) {
  hear_start(7, 0, 1, 1);
  task_reports_epoch(1, 1, 1);
  task_reports_epoch(1, 2, 2);
  tick(0);
  ck_assert_uint_eq(count(BL_MSG_REPORT, 0), 1);
  const Ballast__Control__Report *r = last(BL_MSG_REPORT, 0);
  ck_assert_uint_eq(r->sequence, 1);
  ck_assert_uint_eq(r->job, 7);
  ck_assert_uint_eq(r->incarnation, 1);
  ck_assert_uint_eq(r->epoch->epoch, 1);
  tick(S);
  ck_assert_uint_eq(count(BL_MSG_REPORT, 0), 2);
  ck_assert_uint_eq(((const Ballast__Control__Report *)last(BL_MSG_REPORT, 0))->epoch->epoch, 1);
  hear_report_ack(7, 0, 1, 1);
  ck_assert_uint_eq(((const Ballast__Control__Report *)last(BL_MSG_REPORT, 0))->epoch->epoch, 2);
  ck_assert_uint_eq(((const Ballast__Control__ReportAck *)last(BL_MSG_REPORT_ACK, 1))->sequence, 1);
  hear_report_ack(7, 0, 1, 1); /* again: nothing */
  hear_report_ack(7, 0, 1, 2);
  ck_assert_uint_eq(((const Ballast__Control__ReportAck *)last(BL_MSG_REPORT_ACK, 1))->sequence, 2);
  forget_sent();
  hear_heartbeat_ack(5);
  tick(2 * S);
  ck_assert_uint_eq(count(BL_MSG_REPORT, 0), 0);
}
END_TEST

START_TEST(a_result_told_before_the_end_is_a_result) {
  hear_start(7, 0, 1, 1);
  task_reports_done(1, 1);
  wk_agent_on_task_exit(f.agent, 1, 0, SIGKILL, f.now);
  ck_assert_int_eq(wk_agent_task_at(f.agent, 0)->state, BALLAST__CONTROL__TASK_STATE__TASK_DONE);
  tick(S);
  ck_assert_ptr_nonnull(((const Ballast__Control__Report *)last(BL_MSG_REPORT, 0))->done);
}
END_TEST

START_TEST(a_coordinator_that_was_started_again_finds_the_tasks_running) {
  hear_start(7, 0, 1, 1);
  task_says_state(1, BALLAST__CONTROL__TASK_STATE__TASK_RUNNING, "");
  task_reports_epoch(1, 1, 1);
  tick(0);
  forget_sent();
  for (int i = 0; i < 40; i++)
    tick(100 * BL_NS_PER_MS); /* 4 s of silence: the lease is over */
  ck_assert(!wk_agent_is_registered(f.agent));
  ck_assert_uint_gt(count(BL_MSG_REGISTER, 0), 0);
  ck_assert_uint_eq(f.n_kills, 0);
  ck_assert_uint_gt(wk_agent_silence_ns(f.agent, f.now), 3 * S);
  forget_sent();
  hear_registered(6);
  tick(0);
  const Ballast__Control__Heartbeat *h = last(BL_MSG_HEARTBEAT, 0);
  ck_assert_uint_eq(h->n_tasks, 1);
  ck_assert_int_eq(h->tasks[0]->state, BALLAST__CONTROL__TASK_STATE__TASK_RUNNING);
  ck_assert_uint_eq(((const Ballast__Control__Report *)last(BL_MSG_REPORT, 0))->sequence, 1);
}
END_TEST

START_TEST(another_coordinator_incarnation_or_reregister_means_registering_again) {
  hear_heartbeat_ack(6);
  tick(0);
  ck_assert_uint_eq(count(BL_MSG_REGISTER, 0), 1);
  hear_registered(6);
  Ballast__Control__Reregister m = BALLAST__CONTROL__REREGISTER__INIT;
  m.reason = (char *)"I do not know you";
  hear(BL_MSG_REREGISTER, &m.base);
  tick(0);
  ck_assert_uint_eq(count(BL_MSG_REGISTER, 0), 2);
}
END_TEST

START_TEST(a_refusal_for_the_protocol_is_for_good_one_for_the_name_is_not) {
  bool for_good;
  Ballast__Control__Rejected m = BALLAST__CONTROL__REJECTED__INIT;
  m.status = (uint32_t)-BL_EEXIST;
  m.text = (char *)"the name w1 is taken";
  hear(BL_MSG_REJECTED, &m.base);
  ck_assert_str_eq(wk_agent_refusal(f.agent, &for_good), "the name w1 is taken");
  ck_assert(!for_good);
  tick(6 * S);
  ck_assert_uint_eq(count(BL_MSG_REGISTER, 0), 1);
  m.status = (uint32_t)-BL_EPROTO;
  m.text = (char *)"protocol 9 is spoken here";
  hear(BL_MSG_REJECTED, &m.base);
  wk_agent_refusal(f.agent, &for_good);
  ck_assert(for_good);
}
END_TEST

START_TEST(run_and_update_reach_the_task_that_is_meant) {
  hear_start(7, 0, 1, 1);
  Ballast__Control__RunTask m = BALLAST__CONTROL__RUN_TASK__INIT;
  m.job = 7;
  m.incarnation = 2;
  hear(BL_MSG_RUN_TASK, &m.base);
  ck_assert_uint_eq(count(BL_MSG_RUN_TASK, 1), 0);
  m.incarnation = 1;
  hear(BL_MSG_RUN_TASK, &m.base);
  ck_assert_uint_eq(count(BL_MSG_RUN_TASK, 1), 1);
}
END_TEST

START_TEST(a_stopping_worker_stops_its_tasks_and_takes_no_more) {
  hear_start(7, 0, 1, 1);
  ck_assert(!wk_agent_stop(f.agent, "shutdown", f.now));
  ck_assert_uint_eq(count(BL_MSG_STOP_TASK, 1), 1);
  hear_start(7, 1, 1, 1);
  ck_assert_uint_eq(f.n_started, 1);
  wk_agent_on_task_exit(f.agent, 1, 0, 0, f.now);
  ck_assert(wk_agent_stop(f.agent, "shutdown", f.now));
}
END_TEST

START_TEST(random_bytes_are_counted_and_dropped) {
  uint64_t key = bl_rng_key(3, BL_RNG_DATA);
  hear_start(7, 0, 1, 1);
  for (uint64_t i = 0; i < 500; i++) {
    uint8_t bytes[64];
    for (size_t k = 0; k < sizeof bytes; k++)
      bytes[k] = (uint8_t)bl_rng_u64(key, i, k);
    if (i % 2 == 0)
      memcpy(bytes, "BL\1\0", 4);
    bl_msg msg = BL_MSG_INIT;
    msg.head = bl_frame_copy(bytes, sizeof bytes);
    wk_agent_on_msg(f.agent, &msg, f.now);
    wk_agent_on_task_msg(f.agent, 1, &msg, f.now);
    bl_msg_fini(&msg);
  }
  ck_assert_uint_eq(wk_agent_get_stats(f.agent).malformed, 1000);
}
END_TEST

/* ---- outbox and last words ---------------------------------------------------------------------------- */

START_TEST(log_lines_are_dropped_first_and_leave_no_gap) {
  wk_outbox o;
  wk_outbox_init(&o);
  Ballast__Control__LogLine line = BALLAST__CONTROL__LOG_LINE__INIT;
  line.level = 2;
  line.text = (char *)"x";
  Ballast__Control__Report log = BALLAST__CONTROL__REPORT__INIT, epoch = BALLAST__CONTROL__REPORT__INIT;
  Ballast__Control__EpochReport e = BALLAST__CONTROL__EPOCH_REPORT__INIT;
  log.log = &line;
  epoch.epoch = &e;
  ck_assert_ok(wk_outbox_add(&o, &epoch, 1));
  for (int i = 0; i < 2 * WK_AGENT_LOGS_MAX; i++)
    ck_assert_ok(wk_outbox_add(&o, &log, 0));
  ck_assert_uint_eq(o.n_logs, WK_AGENT_LOGS_MAX);
  ck_assert_uint_eq(o.n_logs_dropped, WK_AGENT_LOGS_MAX);
  for (uint64_t i = 2; i < 2 * WK_AGENT_REPORTS_MAX; i++)
    ck_assert_ok(wk_outbox_add(&o, &epoch, i));
  ck_assert_uint_eq(o.n, WK_AGENT_REPORTS_MAX);
  ck_assert_uint_eq(o.n_logs, 0);
  uint64_t sequence = 0;
  const Ballast__Control__Report *r;
  while ((r = wk_outbox_due(&o, 1)) != NULL) {
    ck_assert_uint_eq(r->sequence, ++sequence);
    ck_assert(wk_outbox_ack(&o, sequence));
  }
  ck_assert_uint_eq(sequence, WK_AGENT_REPORTS_MAX);
  ck_assert_uint_eq(o.task_sequence, 2 * WK_AGENT_REPORTS_MAX - 1);
  wk_outbox_fini(&o);
}
END_TEST

typedef struct lines {
  size_t n;
  bl_log_level level;
  char text[WK_TASK_OUTPUT_LINE_BYTES_MAX];
} lines;

static void on_line(bl_log_level level, const char *text, void *arg) {
  lines *l = arg;
  l->n++;
  l->level = level;
  snprintf(l->text, sizeof l->text, "%s", text);
}

START_TEST(lines_are_limited_in_rate_and_lose_their_prefix) {
  static wk_task_output w;
  static lines l;
  wk_task_output_init(&w, S);
  const char *line = "2026-01-02T03:04:05.678Z warning ballast-task ev=slow disk=/dev/x\n";
  for (size_t i = 0; i < strlen(line); i++)
    wk_task_output_feed(&w, line + i, 1, S, on_line, &l);
  ck_assert_uint_eq(l.n, 1);
  ck_assert_int_eq(l.level, BL_LOG_WARNING);
  ck_assert_str_eq(l.text, "ev=slow disk=/dev/x");
  for (int i = 0; i < 1000; i++)
    wk_task_output_feed(&w, "plain\n", 6, S, on_line, &l);
  ck_assert_uint_eq(l.n, WK_AGENT_LOG_BURST);
  wk_task_output_feed(&w, "plain\n", 6, 2 * S, on_line, &l);
  ck_assert_uint_eq(l.n, WK_AGENT_LOG_BURST + 2); /* the line, and how many were left out before it */
  ck_assert_uint_eq(w.n_left_out_total, 1001 - WK_AGENT_LOG_BURST);
}
END_TEST

START_TEST(last_words_are_the_end_from_the_start_of_a_line) {
  static wk_task_output w;
  static lines l;
  char out[WK_TASK_OUTPUT_LAST_BYTES_MAX + 1], line[64];
  wk_task_output_init(&w, S);
  ck_assert_str_eq(wk_task_output_last(&w, out, sizeof out), "");
  for (int i = 0; i < 1000; i++) {
    snprintf(line, sizeof line, "line %d of many\n", i);
    wk_task_output_feed(&w, line, strlen(line), S, on_line, &l);
  }
  wk_task_output_last(&w, out, sizeof out);
  ck_assert_int_eq(strncmp(out, "line ", 5), 0);
  ck_assert_str_eq(out + strlen(out) - 16, "line 999 of many");
  ck_assert_str_eq(wk_task_output_last(&w, line, 30), "line 999 of many");
  /* One endless line keeps its end. */
  static char junk[5000];
  memset(junk, 'j', sizeof junk);
  wk_task_output_feed(&w, junk, sizeof junk, S, on_line, &l);
  ck_assert_uint_eq(strlen(wk_task_output_last(&w, out, sizeof out)), WK_TASK_OUTPUT_LAST_BYTES_MAX);
}
END_TEST

/* ---- pipe --------------------------------------------------------------------------------------------- */

static void hello_bytes(uint32_t rank, bl_buf *out) {
  Ballast__Control__TaskHello m = BALLAST__CONTROL__TASK_HELLO__INIT;
  m.job = 9;
  m.rank = rank;
  bl_msg msg = BL_MSG_INIT;
  ck_assert_ok(bl_control_pack(BL_MSG_TASK_HELLO, &m.base, &msg));
  ck_assert_ok(wk_pipe_encode(&msg, out));
  bl_msg_fini(&msg);
}

START_TEST(messages_come_out_whole_however_they_are_cut) {
  bl_buf bytes = BL_BUF_INIT;
  for (uint32_t i = 0; i < 5; i++)
    hello_bytes(i + 1, &bytes);
  for (size_t step = 1; step <= bytes.size; step++) {
    wk_pipe_reader r = WK_PIPE_READER_INIT;
    uint32_t n = 0;
    for (size_t at = 0; at < bytes.size; at += step) {
      size_t size = bytes.size - at < step ? bytes.size - at : step;
      const uint8_t *data = bytes.data + at;
      bool have = true;
      while (have) {
        bl_msg msg = BL_MSG_INIT;
        ck_assert_ok(wk_pipe_reader_feed(&r, data, size, &msg, &have, NULL));
        size = 0;
        if (have) {
          bl_msg_type type;
          ProtobufCMessage *m;
          ck_assert_ok(bl_control_unpack(&msg, &type, &m, NULL));
          ck_assert_uint_eq(((Ballast__Control__TaskHello *)m)->rank, ++n);
          bl_control_free(m);
        }
        bl_msg_fini(&msg);
      }
    }
    ck_assert_uint_eq(n, 5);
    wk_pipe_reader_fini(&r);
  }
  bl_buf_fini(&bytes);
}
END_TEST

START_TEST(a_truncated_message_is_waited_for_and_garbage_is_refused) {
  bl_buf good = BL_BUF_INIT;
  hello_bytes(3, &good);
  bl_error err = BL_ERROR_INIT;
  bool have;
  bl_msg msg = BL_MSG_INIT;
  for (size_t n = 0; n < good.size; n++) {
    wk_pipe_reader r = WK_PIPE_READER_INIT;
    ck_assert_ok(wk_pipe_reader_feed(&r, good.data, n, &msg, &have, &err));
    ck_assert(!have);
    wk_pipe_reader_fini(&r);
  }
  /* Every bit of the sizes and of the preamble matters. */
  for (size_t bit = 0; bit < 8 * (WK_PIPE_PREFIX_BYTES + 4); bit++) {
    wk_pipe_reader r = WK_PIPE_READER_INIT;
    good.data[bit / 8] ^= (uint8_t)(1u << (bit % 8));
    ck_assert_status(wk_pipe_reader_feed(&r, good.data, good.size, &msg, &have, &err), BL_EPROTO);
    ck_assert_uint_gt(strlen(err.text), 0);
    good.data[bit / 8] ^= (uint8_t)(1u << (bit % 8));
    wk_pipe_reader_fini(&r);
  }
  /* A size beyond the limit is refused before anything of it is read. */
  uint8_t huge[8];
  bl_le_put32(huge, BL_MSG_HEADER_BYTES_MAX + 5);
  bl_le_put32(huge + 4, BL_MSG_HEADER_BYTES_MAX + 1);
  wk_pipe_reader r = WK_PIPE_READER_INIT;
  ck_assert_status(wk_pipe_reader_feed(&r, huge, sizeof huge, &msg, &have, &err), BL_EPROTO);
  wk_pipe_reader_fini(&r);
  bl_buf_fini(&good);
}
END_TEST

typedef struct pipe_end {
  size_t n_msgs, n_ends;
  bl_status why;
} pipe_end;

static void on_pipe_msg(bl_msg *msg, void *arg) { ((pipe_end *)arg)->n_msgs++; }
static void on_pipe_end(bl_status why, const char *text, void *arg) {
  ((pipe_end *)arg)->n_ends++;
  ((pipe_end *)arg)->why = why;
}

/* Turns the loop until the counter is there; a deadline, not a sleep. */
static void turn_until(bl_loop *l, const size_t *counter, size_t value) {
  uint64_t end = bl_clock_now_ns() + 10 * S;
  while (*counter < value && bl_clock_now_ns() < end)
    bl_loop_run_once(l, 100);
  ck_assert_uint_eq(*counter, value);
}

START_TEST(a_thousand_large_messages_pass_and_the_end_is_told_last) {
  int fds[2];
  ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
  bl_loop *l = bl_loop_new();
  pipe_end a = {0, 0, BL_EBUG}, b = {0, 0, BL_EBUG};
  wk_pipe *pa, *pb;
  bl_error err = BL_ERROR_INIT;
  ck_assert_ok_err(wk_pipe_open(l, fds[0], on_pipe_msg, on_pipe_end, &a, &pa, &err), err);
  ck_assert_ok_err(wk_pipe_open(l, fds[1], on_pipe_msg, on_pipe_end, &b, &pb, &err), err);
  static char text[4000];
  memset(text, 't', sizeof text - 1);
  Ballast__Control__StopTask m = BALLAST__CONTROL__STOP_TASK__INIT;
  m.reason = text;
  for (int i = 0; i < 1000; i++) {
    bl_msg msg = BL_MSG_INIT;
    ck_assert_ok(bl_control_pack(BL_MSG_STOP_TASK, &m.base, &msg));
    ck_assert_ok(wk_pipe_send(pa, &msg));
  }
  ck_assert_uint_gt(wk_pipe_unsent_bytes(pa), 0);
  turn_until(l, &b.n_msgs, 1000);
  ck_assert_uint_eq(wk_pipe_unsent_bytes(pa), 0);
  wk_pipe_close(pa);
  turn_until(l, &b.n_ends, 1);
  ck_assert_int_eq(b.why, BL_OK);
  wk_pipe_close(pb);
  bl_loop_free(l);
}
END_TEST

START_TEST(garbage_on_the_socket_ends_the_pipe_once) {
  int fds[2];
  ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
  bl_loop *l = bl_loop_new();
  pipe_end b = {0, 0, BL_OK};
  wk_pipe *pb;
  bl_error err = BL_ERROR_INIT;
  ck_assert_ok_err(wk_pipe_open(l, fds[1], on_pipe_msg, on_pipe_end, &b, &pb, &err), err);
  ck_assert_int_eq(write(fds[0], "GET / HTTP/1.1\r\n\r\n", 18), 18);
  turn_until(l, &b.n_ends, 1);
  ck_assert_int_eq(b.why, BL_EPROTO);
  ck_assert_int_eq(write(fds[0], "more of the same, and more", 26), 26);
  bl_loop_run_once(l, 0);
  bl_loop_run_once(l, 0);
  ck_assert_uint_eq(b.n_ends, 1);
  wk_pipe_close(pb);
  close(fds[0]);
  bl_loop_free(l);
}
END_TEST

/* ---- processes: this program is its own task, see main -------------------------------------------------- */

typedef struct watched {
  bl_buf output;
  size_t n_msgs, n_exits;
  int64_t code;
  int signum;
  size_t output_at_exit, msgs_at_exit;
} watched;

static void on_process_msg(uint64_t process, bl_msg *msg, void *arg) { ((watched *)arg)->n_msgs++; }

static void on_process_output(uint64_t process, const char *bytes, size_t size, void *arg) {
  bl_buf_add(&((watched *)arg)->output, bytes, size);
}

static void on_process_exit(uint64_t process, int64_t code, int signum, void *arg) {
  watched *w = arg;
  w->n_exits++;
  w->code = code;
  w->signum = signum;
  w->output_at_exit = w->output.size;
  w->msgs_at_exit = w->n_msgs;
}

static int be_a_task(const char *what) {
  if (strcmp(what, "crash") == 0) {
    for (int i = 0; i < 2000; i++)
      fprintf(stderr, "line %d before the end\n", i);
    signal(SIGSEGV, SIG_DFL);
    raise(SIGSEGV);
  }
  if (strcmp(what, "talk") == 0) {
    /* The example of pipe.h; Check's macros do not work in this process. */
    static const uint8_t hello[16] = {0x0c, 0, 0, 0, 0x08, 0, 0, 0, 0x42, 0x4c, 1, 0, 0x2e, 0, 0, 0};
    const char *threads = getenv("OPENBLAS_NUM_THREADS"), *core = getenv("OPENBLAS_CORETYPE");
    fprintf(stderr, "%s %s", threads, core);
    for (int i = 0; i < 100; i++) {
      if (write(3, hello, sizeof hello) != sizeof hello)
        return 4;
    }
    return 3;
  }
  if (strcmp(what, "garble") == 0 && write(3, "garbage, and more of it", 23) != 23)
    return 5;
  char byte;
  while (read(3, &byte, 1) > 0) /* until the agent goes or kills us */
    continue;
  return 6;
}

static watched run_process(const char *what, int signum_to_send) {
  watched w = {.output = BL_BUF_INIT};
  bl_error err = BL_ERROR_INIT;
  bl_loop *l = bl_loop_new();
  wk_processes *p;
  const char *const args[] = {what, NULL};
  wk_launcher_events events = {on_process_msg, on_process_output, on_process_exit, &w};
  ck_assert_ok_err(wk_processes_new(l, args, &events, &p, &err), err);
  wk_launcher *launcher = wk_processes_launcher(p);
  wk_launch launch = {.process = 9, .blas_core = "Haswell", .blas_threads = 3};
  ck_assert_ok_err(launcher->start(launcher, &launch, &err), err);
  if (signum_to_send != 0)
    launcher->kill(launcher, 9, signum_to_send);
  turn_until(l, &w.n_exits, 1);
  bl_msg msg = BL_MSG_INIT;
  ck_assert_status(launcher->send(launcher, 9, &msg), BL_EUNREACHABLE);
  wk_processes_free(p);
  bl_loop_free(l);
  return w;
}

START_TEST(the_last_words_of_a_crashed_process_come_before_its_end) {
  watched w = run_process("crash", 0);
  ck_assert_int_eq(w.signum, SIGSEGV);
  ck_assert_ptr_nonnull(strstr(bl_buf_str(&w.output), "line 1999 before the end\n"));
  ck_assert_uint_eq(w.output_at_exit, w.output.size);
  bl_buf_fini(&w.output);
}
END_TEST

START_TEST(messages_of_a_process_come_before_its_end) {
  watched w = run_process("talk", 0);
  ck_assert_int_eq(w.signum, 0);
  ck_assert_int_eq(w.code, 3);
  ck_assert_uint_eq(w.msgs_at_exit, 100);
  ck_assert_str_eq(bl_buf_str(&w.output), "3 Haswell");
  bl_buf_fini(&w.output);
}
END_TEST

START_TEST(a_process_that_breaks_the_grammar_is_killed) {
  watched w = run_process("garble", 0);
  ck_assert_int_eq(w.signum, SIGKILL);
  bl_buf_fini(&w.output);
}
END_TEST

START_TEST(a_killed_process_ends) {
  watched w = run_process("wait", SIGTERM);
  ck_assert_int_eq(w.signum, SIGTERM);
  bl_buf_fini(&w.output);
}
END_TEST

START_TEST(a_start_that_finds_no_memory_leaks_nothing_and_succeeds_when_repeated) {
  bl_msg start = BL_MSG_INIT;
  hear_start(8, 0, 1, 1); /* keeps a copy of what goes to the task */
  const Ballast__Control__StartTask *sent_start = last(BL_MSG_START_TASK, 1);
  ck_assert_ok(bl_control_pack(BL_MSG_START_TASK, &sent_start->base, &start));
  wk_agent_on_task_exit(f.agent, 1, 0, SIGKILL, f.now);
  hear_stop(8, 0, 1);
  ck_assert_ptr_null(wk_agent_task_at(f.agent, 0));
  uint64_t n = 1;
  for (; wk_agent_task_at(f.agent, 0) == NULL; n++) {
    ck_assert_uint_lt(n, 200);
    bl_alloc_fail_after(n);
    wk_agent_on_msg(f.agent, &start, f.now);
    bl_alloc_fail_after(0);
  }
  ck_assert_uint_gt(n, 5);
  bl_msg_fini(&start);
}
END_TEST

int main(int argc, char **argv) {
  if (argc == 3 && strcmp(argv[1], "--task") == 0)
    return be_a_task(argv[2]);
  Suite *s = suite_create("agent");
  TCase *c = tcase_create("before registration");
  tcase_add_checked_fixture(c, setup, teardown);
  tcase_add_test(c, it_registers_with_backoff_and_then_sends_heartbeats);
  tcase_add_test(c, a_registration_of_another_incarnation_is_not_ours);
  suite_add_tcase(s, c);
  c = tcase_create("registered");
  tcase_add_checked_fixture(c, setup_registered, teardown);
  tcase_add_test(c, a_start_said_many_times_starts_one_process);
  tcase_add_test(c, a_higher_incarnation_replaces_a_lower_one_and_a_lower_one_is_stale);
  tcase_add_test(c, a_replacement_waits_until_the_old_process_has_left_its_slot);
  tcase_add_test(c, more_tasks_than_slots_are_refused_with_a_sentence);
  tcase_add_test(c, a_process_that_cannot_be_made_is_a_failed_task);
  tcase_add_test(c, a_crash_is_told_with_its_signal_and_last_words);
  tcase_add_test(c, tensors_are_told_of_once_and_again_to_another_coordinator);
  tcase_add_loop_test(c, a_task_tells_of_its_largest_tensors_and_of_the_others_together, 0, 2);
  tcase_add_test(c, what_a_task_says_of_its_own_failure_stands);
  tcase_add_test(c, a_hung_task_is_killed_and_reported_but_one_that_loads_has_longer);
  tcase_add_test(c, a_stop_is_asked_then_forced);
  tcase_add_test(c, a_stop_of_an_older_incarnation_stops_nothing);
  tcase_add_test(c, reports_are_repeated_in_order_until_acknowledged);
  tcase_add_test(c, a_result_told_before_the_end_is_a_result);
  tcase_add_test(c, a_coordinator_that_was_started_again_finds_the_tasks_running);
  tcase_add_test(c, another_coordinator_incarnation_or_reregister_means_registering_again);
  tcase_add_test(c, a_refusal_for_the_protocol_is_for_good_one_for_the_name_is_not);
  tcase_add_test(c, run_and_update_reach_the_task_that_is_meant);
  tcase_add_test(c, a_stopping_worker_stops_its_tasks_and_takes_no_more);
  tcase_add_test(c, random_bytes_are_counted_and_dropped);
  tcase_add_test(c, a_start_that_finds_no_memory_leaks_nothing_and_succeeds_when_repeated);
  suite_add_tcase(s, c);
  c = tcase_create("parts");
  tcase_set_timeout(c, 30);
  tcase_add_test(c, log_lines_are_dropped_first_and_leave_no_gap);
  tcase_add_test(c, lines_are_limited_in_rate_and_lose_their_prefix);
  tcase_add_test(c, last_words_are_the_end_from_the_start_of_a_line);
  tcase_add_test(c, messages_come_out_whole_however_they_are_cut);
  tcase_add_test(c, a_truncated_message_is_waited_for_and_garbage_is_refused);
  tcase_add_test(c, a_thousand_large_messages_pass_and_the_end_is_told_last);
  tcase_add_test(c, garbage_on_the_socket_ends_the_pipe_once);
  tcase_add_test(c, the_last_words_of_a_crashed_process_come_before_its_end);
  tcase_add_test(c, messages_of_a_process_come_before_its_end);
  tcase_add_test(c, a_process_that_breaks_the_grammar_is_killed);
  tcase_add_test(c, a_killed_process_ends);
  suite_add_tcase(s, c);
  Suite *suites[] = {s};
  return test_run(suites, 1);
}
