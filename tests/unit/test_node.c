/* SPDX-License-Identifier: Apache-2.0
 *
 * The server as the coordinator sees it.
 */
#include "base/alloc.h"
#include "base/clock.h"
#include "server/node.h"
#include "tests/support/plan.h"
#include "tests/support/support.h"

#include <inttypes.h>
#include <string.h>

#define MS BL_NS_PER_MS
#define OPENING BALLAST__CONTROL__SHARD_JOB_STATE__SHARD_JOB_OPENING
#define OPEN BALLAST__CONTROL__SHARD_JOB_STATE__SHARD_JOB_OPEN
#define FAILED BALLAST__CONTROL__SHARD_JOB_STATE__SHARD_JOB_FAILED

typedef struct bench {
  bl_transport transport; /* first */
  srv_node *node;
  bl_msg_type last; /* what the node sent, and how often */
  uint32_t n_sent;
  Ballast__Control__ServerJobStatus job; /* the first of the last heartbeat */
  size_t n_jobs;
  char endpoint[64], text[256];
  uint64_t views[2]; /* opened on each shard */
  uint32_t n_closed;
  bl_status open_status;
} bench;

static bl_status catch_msg(bl_transport *t, const bl_peer *to, bl_msg *msg) {
  bench *b = (bench *)t;
  ProtobufCMessage *m;
  bl_error err = BL_ERROR_INIT;
  ck_assert_ptr_null(to);
  ck_assert_ok_err(bl_control_unpack(msg, &b->last, &m, &err), err);
  b->n_sent++;
  if (b->last == BL_MSG_REGISTER) {
    const Ballast__Control__Register *r = (const Ballast__Control__Register *)m;
    ck_assert_uint_eq(r->n_shard_endpoints, 2);
    ck_assert_int_eq(r->role, BALLAST__CONTROL__ROLE__ROLE_SERVER);
    strcpy(b->endpoint, r->shard_endpoints[1]);
  } else if (b->last == BL_MSG_HEARTBEAT) {
    const Ballast__Control__Heartbeat *h = (const Ballast__Control__Heartbeat *)m;
    b->n_jobs = h->n_jobs;
    if (h->n_jobs > 0) {
      b->job = *h->jobs[0];
      strncpy(b->text, h->jobs[0]->text, sizeof b->text - 1);
    }
  }
  bl_control_free(m);
  bl_msg_fini(msg);
  return BL_OK;
}

static bl_status on_open(void *arg, uint32_t shard, Ballast__Control__JobPlan *plan) {
  bench *b = arg;
  b->views[shard] = plan->view;
  bl_control_free(&plan->base);
  return b->open_status;
}

static void on_close(void *arg, uint32_t shard, uint64_t job) {
  (void)shard;
  ck_assert_uint_eq(job, 7);
  ((bench *)arg)->n_closed++;
}

static void bench_init(bench *b) {
  static const char *const endpoints[] = {"tcp://10.0.0.1:7100", "tcp://10.0.0.1:7101"};
  memset(b, 0, sizeof *b);
  b->transport.send = catch_msg;
  srv_node_config config = {.name = "s0",
                            .address = "tcp://10.0.0.9:7070",
                            .incarnation = 5,
                            .endpoints = endpoints,
                            .n_shards = 2,
                            .memory_bytes = 1000,
                            .heartbeat_ns = 500 * MS,
                            .lease_ns = 3000 * MS,
                            .coordinator = &b->transport,
                            .open_job = on_open,
                            .close_job = on_close,
                            .arg = b};
  ck_assert_ok(srv_node_new(&config, &b->node, NULL));
}

static void hear(bench *b, bl_msg_type type, const ProtobufCMessage *m, uint64_t now_ns) {
  bl_msg msg = BL_MSG_INIT;
  ck_assert_ok(bl_control_pack(type, m, &msg));
  srv_node_on_msg(b->node, &msg, now_ns);
  bl_msg_fini(&msg);
}

static void welcome(bench *b, uint64_t incarnation, uint64_t now_ns) {
  Ballast__Control__Registered m;
  ballast__control__registered__init(&m);
  m.name = bl_control_text("s0");
  m.incarnation = incarnation;
  m.heartbeat_ms = 200;
  m.lease_ms = 1000;
  m.protocol = 1;
  hear(b, BL_MSG_REGISTERED, &m.base, now_ns);
}

static Ballast__Control__JobPlan *plan_of(uint64_t view) {
  Ballast__Control__JobPlan *p = test_plan_new(&(test_plan_options){.job = 7, .world = 1, .n_shards = 2});
  p->view = view;
  bl_free(p->shards[1]->server); /* both are shards of this server */
  p->shards[1]->server = bl_strdup("s0");
  p->shards[1]->index = 1;
  return p;
}

static void open_job(bench *b, uint64_t view, uint64_t now_ns) {
  Ballast__Control__JobPlan *p = plan_of(view);
  Ballast__Control__OpenJob m;
  ballast__control__open_job__init(&m);
  m.plan = p;
  hear(b, BL_MSG_OPEN_JOB, &m.base, now_ns);
  bl_control_free(&p->base);
}

static void say(bench *b, uint32_t shard, uint64_t view, Ballast__Control__ShardJobState state, uint64_t clock) {
  srv_shard_job_info info = {.job = 7, .view = view, .state = state, .clock = clock, .memory_bytes = 10, .n_chunks = 3};
  if (state == FAILED) {
    info.status = BL_ENOTFINITE;
    strcpy(info.text, "not a number");
  }
  srv_node_on_report(b->node, shard, &info, 1, 0);
}

static void registered(bench *b) {
  bench_init(b);
  srv_node_tick(b->node, MS);
  welcome(b, 5, 2 * MS);
  srv_node_tick(b->node, 2 * MS);
}

START_TEST(it_registers_until_it_is_welcome_then_beats) {
  bench b;
  bench_init(&b);
  uint64_t now = MS, gap = 0;
  for (int i = 0; i < 8; i++) {
    uint64_t next = srv_node_tick(b.node, now);
    ck_assert_uint_eq(b.n_sent, i + 1);
    ck_assert_int_eq(b.last, BL_MSG_REGISTER);
    ck_assert_uint_ge(next - now, gap);
    gap = next - now;
    now = next;
  }
  ck_assert_uint_eq(gap, 5000 * MS);
  ck_assert_str_eq(b.endpoint, "tcp://10.0.0.1:7101");
  welcome(&b, 4, now); /* of the process before */
  ck_assert(!srv_node_is_registered(b.node));
  welcome(&b, 5, now);
  ck_assert(srv_node_is_registered(b.node));
  ck_assert_uint_eq(srv_node_tick(b.node, now), now + 200 * MS);
  ck_assert_int_eq(b.last, BL_MSG_HEARTBEAT);
  srv_node_free(b.node);
}
END_TEST

START_TEST(an_unknown_node_registers_again_at_once) {
  bench b;
  registered(&b);
  Ballast__Control__Reregister m;
  ballast__control__reregister__init(&m);
  m.reason = bl_control_text("restarted");
  hear(&b, BL_MSG_REREGISTER, &m.base, 3 * MS);
  srv_node_tick(b.node, 3 * MS);
  ck_assert_int_eq(b.last, BL_MSG_REGISTER);
  srv_node_free(b.node);
}
END_TEST

START_TEST(a_job_is_open_when_all_its_shards_are) {
  bench b;
  registered(&b);
  open_job(&b, 1, 3 * MS);
  open_job(&b, 1, 3 * MS);
  ck_assert_uint_eq(b.views[0], 1);
  ck_assert_uint_eq(b.views[1], 1);
  say(&b, 0, 1, OPEN, 4);
  srv_node_tick(b.node, 3 * MS); /* before the next beat: something changed */
  ck_assert_uint_eq(b.n_jobs, 1);
  ck_assert_int_eq(b.job.state, OPENING);
  say(&b, 1, 1, OPEN, 5);
  srv_node_tick(b.node, 3 * MS);
  ck_assert_int_eq(b.job.state, OPEN);
  ck_assert_uint_eq(b.job.clock_min, 4);
  ck_assert_uint_eq(b.job.clock_max, 5);
  ck_assert_uint_eq(b.job.memory_bytes, 20);
  open_job(&b, 2, 4 * MS);
  srv_node_tick(b.node, 4 * MS);
  ck_assert_uint_eq(b.views[1], 2);
  ck_assert_uint_eq(b.job.view, 2);
  ck_assert_int_eq(b.job.state, OPENING);
  say(&b, 0, 2, OPEN, 4);
  say(&b, 1, 2, OPEN, 5);
  srv_node_tick(b.node, 4 * MS);
  ck_assert_int_eq(b.job.state, OPEN);
  srv_node_free(b.node);
}
END_TEST

START_TEST(one_failed_shard_fails_the_job_with_its_reason) {
  bench b;
  registered(&b);
  open_job(&b, 1, 3 * MS);
  say(&b, 0, 1, OPEN, 4);
  say(&b, 1, 1, FAILED, 4);
  srv_node_tick(b.node, 3 * MS);
  ck_assert_int_eq(b.job.state, FAILED);
  ck_assert_uint_eq(b.job.status, (uint32_t)-BL_ENOTFINITE);
  ck_assert_str_eq(b.text, "not a number");
  srv_node_free(b.node);
}
END_TEST

START_TEST(a_shard_that_cannot_be_told_fails_the_job) {
  bench b;
  registered(&b);
  b.open_status = BL_ENOMEM;
  open_job(&b, 1, 3 * MS);
  srv_node_tick(b.node, 3 * MS);
  ck_assert_int_eq(b.job.state, FAILED);
  ck_assert_uint_eq(b.job.status, (uint32_t)-BL_ENOMEM);
  srv_node_free(b.node);
}
END_TEST

/* The job goes on in its view; the coordinator sees that and says the new one again. */
START_TEST(a_view_that_could_not_be_passed_on_is_asked_for_again) {
  bench b;
  registered(&b);
  open_job(&b, 1, 3 * MS);
  say(&b, 0, 1, OPEN, 4);
  say(&b, 1, 1, OPEN, 4);
  b.open_status = BL_ENOMEM;
  open_job(&b, 2, 4 * MS);
  b.open_status = BL_OK;
  srv_node_tick(b.node, 4 * MS);
  ck_assert_int_eq(b.job.state, OPEN);
  ck_assert_uint_eq(b.job.view, 1);
  memset(b.views, 0, sizeof b.views);
  open_job(&b, 2, 5 * MS);
  ck_assert_uint_eq(b.views[0], 2);
  ck_assert_uint_eq(b.views[1], 2);
  srv_node_free(b.node);
}
END_TEST

START_TEST(a_closed_job_is_gone_from_the_next_heartbeat) {
  bench b;
  registered(&b);
  open_job(&b, 1, 3 * MS);
  Ballast__Control__CloseJob m;
  ballast__control__close_job__init(&m);
  m.job = 7;
  hear(&b, BL_MSG_CLOSE_JOB, &m.base, 4 * MS);
  hear(&b, BL_MSG_CLOSE_JOB, &m.base, 4 * MS);
  ck_assert_uint_eq(b.n_closed, 2); /* once per shard */
  say(&b, 0, 1, OPEN, 4);           /* a late report */
  srv_node_tick(b.node, 4 * MS);
  ck_assert_uint_eq(b.n_jobs, 0);
  srv_node_free(b.node);
}
END_TEST

START_TEST(a_silent_coordinator_is_named) {
  bench b;
  char text[256];
  registered(&b);
  ck_assert_str_eq(srv_node_waits_for(b.node, text, sizeof text, 3 * MS), "");
  srv_node_waits_for(b.node, text, sizeof text, 60000 * MS);
  ck_assert_ptr_nonnull(strstr(text, "tcp://10.0.0.9:7070"));
  srv_node_free(b.node);
}
END_TEST

START_TEST(a_rejected_node_stops_talking) {
  bench b;
  bench_init(&b);
  srv_node_tick(b.node, MS);
  Ballast__Control__Rejected m;
  ballast__control__rejected__init(&m);
  m.status = (uint32_t)-BL_EPROTO;
  m.text = bl_control_text("speaks protocol 9");
  hear(&b, BL_MSG_REJECTED, &m.base, 2 * MS);
  ck_assert_str_eq(srv_node_rejected(b.node), "speaks protocol 9");
  uint32_t n = b.n_sent;
  ck_assert_uint_eq(srv_node_tick(b.node, 60000 * MS), UINT64_MAX);
  ck_assert_uint_eq(b.n_sent, n);
  srv_node_free(b.node);
}
END_TEST

START_TEST(a_node_whose_name_is_taken_asks_again) {
  bench b;
  char why[256];
  bench_init(&b);
  srv_node_tick(b.node, MS);
  Ballast__Control__Rejected m;
  ballast__control__rejected__init(&m);
  m.status = (uint32_t)-BL_EEXIST;
  m.text = bl_control_text("the name s1 is taken");
  hear(&b, BL_MSG_REJECTED, &m.base, 2 * MS);
  ck_assert_ptr_null(srv_node_rejected(b.node));
  ck_assert_ptr_nonnull(strstr(srv_node_waits_for(b.node, why, sizeof why, 3 * MS), "s1 is taken"));
  uint32_t n = b.n_sent;
  srv_node_tick(b.node, 60000 * MS);
  ck_assert_uint_eq(b.n_sent, n + 1);
  srv_node_free(b.node);
}
END_TEST

START_TEST(random_bytes_change_nothing) {
  bench b;
  registered(&b);
  for (uint8_t i = 0; i < 64; i++) {
    uint8_t bytes[24] = {'B', 'L', 1, 0, (uint8_t)(32 + i), 0, 0, 0, i, (uint8_t)(i * 37), 200, i};
    bl_msg m = BL_MSG_INIT;
    m.head = bl_frame_copy(bytes, i % 24);
    srv_node_on_msg(b.node, &m, 3 * MS);
    bl_msg_fini(&m);
  }
  Ballast__Control__ServerJobStatus s;
  ck_assert(!srv_node_job_at(b.node, 0, &s));
  srv_node_free(b.node);
}
END_TEST

int main(void) {
  Suite *s = suite_create("node");
  TCase *t = tcase_create("node");
  tcase_add_test(t, it_registers_until_it_is_welcome_then_beats);
  tcase_add_test(t, an_unknown_node_registers_again_at_once);
  tcase_add_test(t, a_job_is_open_when_all_its_shards_are);
  tcase_add_test(t, one_failed_shard_fails_the_job_with_its_reason);
  tcase_add_test(t, a_shard_that_cannot_be_told_fails_the_job);
  tcase_add_test(t, a_view_that_could_not_be_passed_on_is_asked_for_again);
  tcase_add_test(t, a_closed_job_is_gone_from_the_next_heartbeat);
  tcase_add_test(t, a_silent_coordinator_is_named);
  tcase_add_test(t, a_rejected_node_stops_talking);
  tcase_add_test(t, a_node_whose_name_is_taken_asks_again);
  tcase_add_test(t, random_bytes_change_nothing);
  suite_add_tcase(s, t);
  return test_run(&s, 1);
}
