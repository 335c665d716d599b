/* SPDX-License-Identifier: Apache-2.0
 *
 * Several jobs on one shard: none takes more than its part of the arithmetic, of the sending, or of the room for
 * early frames.
 */
#include "base/alloc.h"
#include "base/num.h"
#include "codec/codec.h"
#include "server/shard.h"
#include "tests/support/plan.h"
#include "tests/support/frames.h"
#include "tests/support/support.h"

#include <string.h>

#define NOW 5
#define JOBS_MAX 16

/* A transport that counts what is sent of which job, and forgets it. */
typedef struct counter {
  bl_transport transport;
  uint64_t bytes[JOBS_MAX];      /* of frames, by job */
  uint64_t bytes_first[JOBS_MAX]; /* of all jobs, when this job's first frames went out */
  uint64_t bytes_all;
  bl_status refused;
} counter;

static bl_status count(bl_transport *t, const bl_peer *to, bl_msg *msg) {
  counter *c = (counter *)t;
  (void)to;
  bl_data_msg d;
  ck_assert_ok(bl_data_unpack(msg, &d, NULL));
  if (d.type == BL_MSG_REFUSE)
    c->refused = d.refuse.status;
  if (d.type == BL_MSG_FRAMES) {
    if (c->bytes[d.frames.job] == 0)
      c->bytes_first[d.frames.job] = c->bytes_all;
    c->bytes[d.frames.job] += bl_msg_bytes(msg);
    c->bytes_all += bl_msg_bytes(msg);
  }
  bl_msg_fini(msg);
  return BL_OK;
}

static counter net;
static srv_shard *shard;

static void set_up_with(uint64_t hold_bytes_max) {
  memset(&net, 0, sizeof net);
  net.transport.send = count;
  srv_shard_config config = {.server = "s0",
                             .window_bytes = 1 << 20,
                             .hold_bytes_max = hold_bytes_max,
                             .log_bytes_max = 1 << 20,
                             .transport = &net.transport};
  ck_assert_ok(srv_shard_new(&config, &shard, NULL));
}

static void set_up(void) { set_up_with(1 << 20); }
static void tear_down(void) { srv_shard_free(shard); }

static void open_job(uint64_t job, uint32_t world, uint64_t elems, uint64_t chunk_elems) {
  const uint64_t tensor[] = {elems};
  test_plan_options o = {.job = job, .world = world, .n_shards = 1, .tensor_elems = tensor, .n_tensors = 1,
                         .chunk_elems = chunk_elems};
  Ballast__Control__JobPlan *plan = test_plan_new(&o);
  ck_assert_ok(srv_shard_open_job(shard, plan, NULL));
  bl_control_free(&plan->base);
}

static bool is_open(uint64_t job) {
  srv_shard_job_info info;
  ck_assert_ok(srv_shard_job_status(shard, job, &info));
  return info.state == BALLAST__CONTROL__SHARD_JOB_STATE__SHARD_JOB_OPEN;
}

static unsigned ticks_until_open(uint64_t job) {
  unsigned n = 0;
  for (; !is_open(job); n++) {
    ck_assert_uint_lt(n, 1000000);
    srv_shard_tick(shard, NOW);
  }
  return n;
}

static void work_off(void) {
  while (srv_shard_tick(shard, NOW) == NOW)
    ;
}

/* Initial values are arithmetic like any other. The jobs between have none, and must not give theirs to a
 * neighbour: the small job got every tenth slice beside the large one when each turn began one job further on. */
START_TEST(a_job_with_huge_chunks_takes_no_more_of_the_arithmetic_than_another) {
  open_job(1, 1, 1 << 20, 1 << 10);
  unsigned alone = ticks_until_open(1);
  ck_assert_uint_gt(alone, 50);
  ck_assert_ok(srv_shard_close_job(shard, 1));
  for (uint64_t idle = 4; idle < 12; idle++)
    open_job(idle, 1, 16, 16);
  work_off();
  for (int order = 0; order < 2; order++) { /* whichever stands before the other */
    uint64_t large = order == 0 ? 1 : 2, small = 3 - large;
    for (uint64_t job = 1; job <= 2; job++)
      open_job(job, 1, job == large ? 16 << 20 : 1 << 20, job == large ? 1 << 18 : 1 << 10);
    unsigned together = ticks_until_open(small);
    ck_assert_msg(together <= 2 * alone + 2, "%u ticks beside a large job, %u alone", together, alone);
    ck_assert(!is_open(large));
    for (uint64_t job = 1; job <= 2; job++)
      ck_assert_ok(srv_shard_close_job(shard, job));
  }
}
END_TEST

/* And the large one is not held up by the small ones for longer than its part either. */
START_TEST(many_small_jobs_leave_a_large_one_its_part) {
  open_job(1, 1, 4 << 20, 1 << 18);
  unsigned alone = ticks_until_open(1);
  ck_assert_ok(srv_shard_close_job(shard, 1));
  open_job(1, 1, 4 << 20, 1 << 18);
  for (uint64_t job = 2; job < 5; job++)
    open_job(job, 1, 16 << 20, 1 << 10);
  unsigned together = ticks_until_open(1);
  /* A tick of the large job is one piece of initial values, worth four slices; three others have theirs between. */
  ck_assert_msg(together <= (1 + 3 * 4) * (alone + 1), "%u ticks, %u alone", together, alone);
}
END_TEST

static void pull_all(uint64_t job, uint32_t rank, uint32_t n_chunks) {
  bl_peer peer = {.id = "p", .id_size = 2};
  peer.id[1] = (char)('0' + rank);
  bl_data_msg d = {.type = BL_MSG_PULL};
  d.pull.job = job;
  d.pull.view = 1;
  d.pull.rank = rank;
  d.pull.incarnation = 1;
  d.pull.have_nothing = true;
  for (uint32_t c = 0; c < n_chunks;) {
    for (d.pull.n_chunks = 0; c < n_chunks && d.pull.n_chunks < BL_MSG_FRAMES_MAX; c++)
      d.pull.chunks[d.pull.n_chunks++] = c;
    bl_msg msg = BL_MSG_INIT;
    ck_assert_ok(bl_data_pack(&d, 0, &msg));
    srv_shard_on_msg(shard, &peer, &msg, NOW);
    bl_msg_fini(&msg);
  }
}

/* 16 ranks at once want 16 MiB each of one job, one rank wants 4 KiB of the other. */
START_TEST(a_job_with_many_ranks_does_not_hold_up_the_sends_of_another) {
  enum { RANKS = 16, CHUNKS = 16 };
  for (int order = 0; order < 2; order++) {
    uint64_t large = order == 0 ? 1 : 2, small = 3 - large;
    for (uint64_t job = 1; job <= 2; job++)
      open_job(job, job == large ? RANKS : 1, job == large ? CHUNKS << 18 : 1 << 10, 1 << 18);
    work_off();
    memset(net.bytes, 0, sizeof net.bytes);
    net.bytes_all = 0;
    for (uint32_t r = 0; r < RANKS; r++)
      pull_all(large, r, CHUNKS);
    pull_all(small, 0, 1);
    srv_shard_tick(shard, NOW);
    ck_assert_uint_gt(net.bytes[small], 4096);
    ck_assert_uint_le(net.bytes_first[small], 10u << 20);
    ck_assert_uint_le(net.bytes[large], 10u << 20);
    work_off(); /* and all of it goes out in the end, to every rank */
    ck_assert_uint_ge(net.bytes[large], (uint64_t)RANKS * CHUNKS << 20);
    for (uint64_t job = 1; job <= 2; job++)
      ck_assert_ok(srv_shard_close_job(shard, job));
  }
}
END_TEST

static bl_status push(uint64_t job, uint32_t rank, uint32_t chunk, uint32_t elems) {
  bl_peer peer = {.id = "p", .id_size = 1};
  const float x[64] = {1};
  bl_data_msg d = {.type = BL_MSG_PUSH};
  d.push.job = job;
  d.push.view = 1;
  d.push.rank = rank;
  d.push.incarnation = 1;
  d.push.n_chunks = 1;
  d.push.chunks[0] = chunk;
  bl_frame *f = test_frame("float32", x, elems, 0);
  bl_msg msg = BL_MSG_INIT;
  ck_assert_ok(bl_msg_add_frame(&msg, f));
  ck_assert_ok(bl_data_pack(&d, 1, &msg));
  net.refused = BL_OK;
  srv_shard_on_msg(shard, &peer, &msg, NOW);
  bl_msg_fini(&msg);
  return net.refused;
}

START_TEST(what_one_job_may_hold_is_not_used_up_by_another) {
  srv_shard_free(shard);
  set_up_with(500); /* two frames of 48 elements */
  for (uint64_t job = 1; job <= 2; job++)
    open_job(job, 2, 4 * 48, 48);
  work_off();
  for (uint64_t job = 1; job <= 2; job++) { /* rank 1 comes before rank 0 */
    ck_assert_ok(push(job, 1, 0, 48));
    ck_assert_ok(push(job, 1, 1, 48));
    ck_assert_int_eq(push(job, 1, 2, 48), BL_EAGAIN);
  }
}
END_TEST

int main(void) {
  Suite *s = suite_create("share");
  TCase *t = tcase_create("jobs");
  tcase_set_timeout(t, 60);
  tcase_add_checked_fixture(t, set_up, tear_down);
  tcase_add_test(t, a_job_with_huge_chunks_takes_no_more_of_the_arithmetic_than_another);
  tcase_add_test(t, many_small_jobs_leave_a_large_one_its_part);
  tcase_add_test(t, a_job_with_many_ranks_does_not_hold_up_the_sends_of_another);
  tcase_add_test(t, what_one_job_may_hold_is_not_used_up_by_another);
  suite_add_tcase(s, t);
  return test_run(&s, 1);
}
