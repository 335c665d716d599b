/* SPDX-License-Identifier: Apache-2.0
 *
 * The session: against scripted shards where the moment matters, and against real ones, over a queue without
 * a network, where the numbers do.
 */
#include "base/alloc.h"
#include "base/clock.h"
#include "base/rng.h"
#include "client/session.h"
#include "server/shard.h"
#include "tests/support/plan.h"
#include "tests/support/frames.h"
#include "tests/support/support.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MS BL_NS_PER_MS
#define QUEUE_MAX 256
#define SHARDS_MAX 3

/* A direction of a connection: messages wait here, nothing is allocated. */
typedef struct line {
  bl_transport transport;
  bl_msg queue[QUEUE_MAX];
  uint32_t first, n;
  bl_status answer;
} line;

static bl_status put(bl_transport *t, const bl_peer *to, bl_msg *msg) {
  line *l = (line *)t;
  (void)to;
  if (l->answer != BL_OK)
    return l->answer;
  ck_assert_uint_lt(l->n, QUEUE_MAX);
  bl_msg *slot = &l->queue[(l->first + l->n++) % QUEUE_MAX];
  *slot = (bl_msg)BL_MSG_INIT;
  bl_msg_move(slot, msg);
  return BL_OK;
}

static bool take(line *l, bl_msg *msg) {
  if (l->n == 0)
    return false;
  *msg = l->queue[l->first];
  l->first = (l->first + 1) % QUEUE_MAX;
  l->n--;
  return true;
}

static void drop_all(line *l) {
  bl_msg m;
  while (take(l, &m))
    bl_msg_fini(&m);
}

/* One rank and its shards. */
typedef struct bench {
  Ballast__Control__JobPlan *plan;
  bl_tensor_table *table;
  line up[SHARDS_MAX], down[SHARDS_MAX];
  bl_transport *transports[SHARDS_MAX];
  srv_shard *shards[SHARDS_MAX];
  uint32_t n_shards;
  bl_session *session;
  float *weights[4], *grads[4];
  bl_data_msg d; /* scratch */
} bench;

static const char *const server_names[SHARDS_MAX] = {"s0", "s1", "s2"};

static bench *bench_new(const test_plan_options *o, uint64_t window_bytes) {
  bench *b = calloc(1, sizeof *b);
  ck_assert_ptr_nonnull(b);
  test_plan_options options = *o;
  options.job = 7;
  b->plan = test_plan_new(&options);
  b->n_shards = o->n_shards;
  ck_assert_ok(bl_plan_table(b->plan, &b->table, NULL));
  for (uint32_t i = 0; i < b->n_shards; i++) {
    b->up[i].transport.send = b->down[i].transport.send = put;
    b->transports[i] = &b->up[i].transport;
    srv_shard_config sc = {.server = server_names[i],
                           .window_bytes = window_bytes,
                           .hold_bytes_max = 1 << 24,
                           .log_bytes_max = 1 << 20,
                           .transport = &b->down[i].transport};
    ck_assert_ok(srv_shard_new(&sc, &b->shards[i], NULL));
  }
  for (uint32_t i = 0; i < b->table->n_tensors; i++) {
    b->weights[i] = calloc(b->table->tensors[i].n_elems, sizeof(float));
    b->grads[i] = calloc(b->table->tensors[i].n_elems, sizeof(float));
    for (uint64_t k = 0; k < b->table->tensors[i].n_elems; k++)
      b->grads[i][k] = 0.01f;
  }
  bl_session_config config = {.job = 7,
                              .world = o->world,
                              .incarnation = 1,
                              .view = 1,
                              .table = b->table,
                              .shard_of_chunk = b->plan->chunk_shards,
                              .n_shards = b->n_shards,
                              .shards = b->transports,
                              .retry_ns = 100 * MS,
                              .weights = b->weights};
  ck_assert_ok(bl_session_new(&config, &b->session, NULL));
  return b;
}

static void bench_free(bench *b) {
  bl_session_free(b->session);
  for (uint32_t i = 0; i < b->n_shards; i++) {
    drop_all(&b->up[i]);
    drop_all(&b->down[i]);
    srv_shard_free(b->shards[i]);
  }
  for (uint32_t i = 0; i < b->table->n_tensors; i++) {
    free(b->weights[i]);
    free(b->grads[i]);
  }
  bl_tensor_table_free(b->table);
  bl_control_free(&b->plan->base);
  free(b);
}

static void open_all(bench *b) {
  for (uint32_t i = 0; i < b->n_shards; i++) {
    ck_assert_ok(srv_shard_open_job(b->shards[i], b->plan, NULL));
    while (srv_shard_tick(b->shards[i], 5) == 5)
      ;
  }
}

/* Carries messages in both directions until there are none. */
static void carry(bench *b, uint64_t now_ns) {
  bl_peer peer = {.id = {'r'}, .id_size = 1};
  for (bool any = true; any;) {
    any = false;
    for (uint32_t i = 0; i < b->n_shards; i++) {
      bl_msg m;
      while (take(&b->up[i], &m)) {
        any = true;
        srv_shard_on_msg(b->shards[i], &peer, &m, now_ns);
        bl_msg_fini(&m);
      }
      while (srv_shard_tick(b->shards[i], now_ns) == now_ns)
        ;
      while (take(&b->down[i], &m)) {
        any = true;
        bl_session_on_msg(b->session, i, &m, now_ns);
        bl_msg_fini(&m);
      }
    }
  }
}

static void begin(bench *b) {
  open_all(b);
  bl_session_start(b->session, MS);
  carry(b, MS);
  ck_assert(bl_session_is_ready(b->session));
  bl_session_pull(b->session, bl_session_clock(b->session), MS);
  carry(b, MS);
  ck_assert_uint_eq(bl_session_weights_version(b->session), bl_session_clock(b->session));
}

static void push_all(bench *b, uint64_t now_ns) {
  for (uint32_t i = b->table->n_tensors; i-- > 0;)
    bl_session_push(b->session, i, b->grads[i], now_ns);
}

static void run_clock(bench *b, uint64_t now_ns) {
  uint64_t clock = bl_session_clock(b->session);
  push_all(b, now_ns);
  bl_session_commit(b->session, 1.0f, true, 1, now_ns);
  carry(b, now_ns);
  ck_assert_uint_eq(bl_session_weights_version(b->session), clock + 1);
  ck_assert_uint_eq(bl_session_clock(b->session), clock + 1);
  ck_assert(bl_session_gradients_free(b->session));
}

/* The next message that the session sent to a shard, unpacked into b->d; false: none. */
static bool sent(bench *b, uint32_t shard) {
  bl_msg m;
  if (!take(&b->up[shard], &m))
    return false;
  ck_assert_ok(bl_data_unpack(&m, &b->d, NULL));
  bl_msg_fini(&m);
  return true;
}

static void reply(bench *b, uint32_t shard, const bl_data_msg *d, uint64_t now_ns) {
  bl_msg m = BL_MSG_INIT;
  ck_assert_ok(bl_data_pack(d, 0, &m));
  bl_session_on_msg(b->session, shard, &m, now_ns);
  bl_msg_fini(&m);
}

static void refuse(bench *b, bl_status status, uint64_t request, uint64_t view, uint64_t now_ns) {
  bl_data_msg d = {.type = BL_MSG_REFUSE};
  d.refuse = (bl_refuse){.job = 7, .request = request, .status = status, .view = view};
  snprintf(d.refuse.text, sizeof d.refuse.text, "because");
  reply(b, 0, &d, now_ns);
}

/* ---- tests ---- */

START_TEST(clocks_go_by_and_the_weights_follow) {
  bench *b = bench_new(&(test_plan_options){.world = 1, .n_shards = 3, .lr = 1}, 4096);
  begin(b);
  float first = b->weights[0][0];
  for (uint64_t i = 0; i < 4; i++)
    run_clock(b, (i + 2) * MS);
  float expected = first;
  for (int i = 0; i < 4; i++)
    expected -= 0.01f;
  ck_assert_float_eq(b->weights[0][0], expected);
  char text[128];
  ck_assert_str_eq(bl_session_waits_for(b->session, text, sizeof text), "");
  bench_free(b);
}
END_TEST

START_TEST(a_steady_state_allocates_nothing) {
  static const uint64_t large[] = {900000, 256, 5000, 10};
  bench *b = bench_new(&(test_plan_options){.world = 1,
                                            .n_shards = 2,
                                            .tensor_elems = large,
                                            .n_tensors = 4,
                                            .chunk_elems = 1 << 18,
                                            .optimizer = "adam",
                                            .codec_push = _i == 0 ? "float32" : "float16",
                                            .codec_pull = _i == 0 ? "float32" : "float16"},
                       _i == 0 ? 8u << 20 : 1u << 20);
  begin(b);
  for (uint64_t i = 0; i < 4; i++)
    run_clock(b, (i + 2) * MS);
  uint64_t before = bl_alloc_get_stats().total_calls;
  for (uint64_t i = 4; i < 10; i++)
    run_clock(b, (i + 2) * MS);
  ck_assert_uint_eq(bl_alloc_get_stats().total_calls - before, 0);
  bench_free(b);
}
END_TEST

START_TEST(a_tensor_knows_what_it_has_cost) {
  static const uint64_t sizes[] = {1000, 10};
  bench *b = bench_new(&(test_plan_options){.world = 1,
                                            .n_shards = 2,
                                            .tensor_elems = sizes,
                                            .n_tensors = 2,
                                            .chunk_elems = 256,
                                            .codec_push = "float16",
                                            .codec_pull = "float32"},
                       1 << 20);
  begin(b);
  for (uint64_t i = 0; i < 3; i++)
    run_clock(b, (i + 2) * MS);
  bl_session_stats all = bl_session_get_stats(b->session);
  bl_tensor_stats large = bl_session_get_tensor_stats(b->session, 0), small = bl_session_get_tensor_stats(b->session, 1);
  ck_assert_uint_eq(large.bytes_pushed, 3 * (4 * 16 + 2 * 1000)); /* 4 chunks */
  ck_assert_uint_eq(large.bytes_pushed_dense, 3 * 4 * 1000);
  ck_assert_uint_eq(large.bytes_pulled, 4 * (4 * 16 + 4 * 1000)); /* the weights to begin with, too */
  ck_assert_uint_eq(small.bytes_pushed, 3 * (16 + 2 * 10));
  ck_assert_uint_eq(large.bytes_pushed_dense + small.bytes_pushed_dense, all.bytes_pushed_dense);
  ck_assert_uint_eq(large.bytes_pulled_dense + small.bytes_pulled_dense, all.bytes_pulled_dense);
  ck_assert_uint_le(large.bytes_pushed + small.bytes_pushed, all.bytes_pushed);
  ck_assert_str_eq(large.push->codec->name, "float16");
  ck_assert_str_eq(large.pull->codec->name, "float32");
  ck_assert_str_eq(large.reason, "");
  bench_free(b);
}
END_TEST

START_TEST(small_chunks_share_a_message_and_large_ones_do_not) {
  static const uint64_t sizes[] = {600000, 10, 20, 30};
  bench *b = bench_new(
      &(test_plan_options){.world = 1, .n_shards = 1, .tensor_elems = sizes, .n_tensors = 4, .chunk_elems = 1 << 18},
      64u << 20);
  begin(b);
  push_all(b, 2 * MS);
  bl_session_commit(b->session, 1.0f, true, 1, 2 * MS);
  uint32_t n_messages = 0, n_chunks = 0;
  bool committed = false;
  for (line *l = &b->up[0]; l->n > 0;) {
    size_t bytes = bl_msg_bytes(&l->queue[l->first]);
    ck_assert(sent(b, 0));
    ck_assert(!committed);
    if (b->d.type == BL_MSG_PUSH) {
      ck_assert_uint_le(bytes, (1u << 20) + 4096);
      n_messages++;
      n_chunks += b->d.push.n_chunks;
    }
    committed = b->d.type == BL_MSG_COMMIT;
  }
  ck_assert(committed);
  ck_assert_uint_eq(n_chunks, 6);
  ck_assert_uint_le(n_messages, 4);
  bench_free(b);
}
END_TEST

START_TEST(chunks_of_a_part_go_out_when_they_are_filled) {
  static const uint64_t sizes[] = {600000};
  const uint64_t chunk = 1 << 18;
  bench *b = bench_new(
      &(test_plan_options){.world = 1, .n_shards = 1, .tensor_elems = sizes, .n_tensors = 1, .chunk_elems = chunk, .lr = 1},
      64u << 20);
  begin(b);
  float first = b->weights[0][0], last = b->weights[0][599999];
  const struct {
    uint64_t n_ready;
    uint32_t chunk;
    bool goes;
  } parts[] = {{chunk - 1, 0, false}, {chunk, 0, true}, {2 * chunk - 1, 0, false}, {2 * chunk + 1, 1, true}, {600000, 2, true}};
  for (size_t i = 0; i < BL_COUNT_OF(parts); i++) {
    bl_session_push_part(b->session, 0, b->grads[0], parts[i].n_ready, 2 * MS);
    ck_assert_uint_eq(b->up[0].n, parts[i].goes);
    if (parts[i].goes) {
      bl_error err = BL_ERROR_INIT;
      ck_assert_ok_err(bl_data_unpack(&b->up[0].queue[b->up[0].first], &b->d, &err), err);
      ck_assert_uint_eq(b->d.push.n_chunks, 1);
      ck_assert_uint_eq(b->d.push.chunks[0], parts[i].chunk);
      carry(b, 2 * MS);
    }
  }
  bl_session_commit(b->session, 1.0f, true, 1, 2 * MS);
  carry(b, 2 * MS);
  ck_assert_uint_eq(bl_session_weights_version(b->session), 1);
  ck_assert_float_eq(b->weights[0][0], first - b->grads[0][0]);
  ck_assert_float_eq(b->weights[0][599999], last - b->grads[0][599999]);
  bench_free(b);
}
END_TEST

START_TEST(the_window_bounds_what_is_on_its_way) {
  static const uint64_t sizes[] = {4800};
  bench *b = bench_new(&(test_plan_options){.world = 1, .n_shards = 1, .tensor_elems = sizes, .n_tensors = 1}, 1000);
  begin(b);
  push_all(b, 2 * MS);
  bl_session_commit(b->session, 1.0f, true, 1, 2 * MS);
  uint64_t elems = 0;
  while (sent(b, 0))
    for (uint32_t i = 0; b->d.type == BL_MSG_PUSH && i < b->d.push.n_chunks; i++)
      elems += 48;
  ck_assert_uint_gt(elems, 0);
  ck_assert_uint_le(elems * sizeof(float), 1000);
  bench_free(b);
}
END_TEST

START_TEST(what_is_lost_is_repeated_with_growing_pauses) {
  bench *b = bench_new(&(test_plan_options){.world = 1, .n_shards = 1}, 4096);
  bl_session_start(b->session, MS);
  uint64_t now = MS, gaps[8];
  for (int i = 0; i < 8; i++) {
    ck_assert(sent(b, 0));
    ck_assert_int_eq(b->d.type, BL_MSG_HELLO);
    uint64_t next = bl_session_tick(b->session, now);
    ck_assert(!sent(b, 0));
    gaps[i] = next - now;
    now = next;
    bl_session_tick(b->session, now);
  }
  ck_assert_uint_eq(gaps[0], 100 * MS);
  ck_assert_uint_eq(gaps[1], 200 * MS);
  ck_assert_uint_eq(gaps[3], 800 * MS);
  ck_assert_uint_eq(gaps[7], 800 * MS);
  bench_free(b);
}
END_TEST

START_TEST(a_lost_message_of_any_kind_delays_and_changes_nothing) {
  bench *b = bench_new(&(test_plan_options){.world = 1, .n_shards = 1, .lr = 1}, 512);
  begin(b);
  run_clock(b, 2 * MS);
  float before = b->weights[0][0];
  uint64_t now = 3 * MS;
  push_all(b, now);
  bl_session_commit(b->session, 1.0f, true, 1, now);
  for (int i = 0; i < 2000 && bl_session_weights_version(b->session) != 2; i++) {
    bl_msg m;
    if (bl_rng_below(1, (uint64_t)_i, (uint64_t)i, 3) == 0 && take(&b->up[0], &m))
      bl_msg_fini(&m);
    bl_peer peer = {.id = {'r'}, .id_size = 1};
    if (take(&b->up[0], &m)) {
      srv_shard_on_msg(b->shards[0], &peer, &m, now);
      bl_msg_fini(&m);
    }
    while (srv_shard_tick(b->shards[0], now) == now)
      ;
    if (bl_rng_below(2, (uint64_t)_i, (uint64_t)i, 4) == 0 && take(&b->down[0], &m))
      bl_msg_fini(&m);
    if (take(&b->down[0], &m)) {
      bl_session_on_msg(b->session, 0, &m, now);
      bl_msg_fini(&m);
    }
    now += 50 * MS;
    bl_session_tick(b->session, now);
  }
  ck_assert_uint_eq(bl_session_weights_version(b->session), 2);
  ck_assert_float_eq(b->weights[0][0], before - 0.01f);
  ck_assert_uint_gt(bl_session_get_stats(b->session).repeats, 0);
  bench_free(b);
}
END_TEST

START_TEST(a_full_transport_is_tried_again) {
  bench *b = bench_new(&(test_plan_options){.world = 1, .n_shards = 1}, 4096);
  begin(b);
  b->up[0].answer = BL_EAGAIN;
  push_all(b, 2 * MS);
  bl_session_commit(b->session, 1.0f, true, 1, 2 * MS);
  ck_assert_uint_eq(b->up[0].n, 0);
  uint64_t next = bl_session_tick(b->session, 2 * MS);
  ck_assert_uint_le(next, 10 * MS);
  b->up[0].answer = BL_OK;
  bl_session_tick(b->session, next);
  carry(b, next);
  ck_assert_uint_eq(bl_session_weights_version(b->session), 1);
  bench_free(b);
}
END_TEST

START_TEST(a_refused_view_waits_for_the_new_one_and_then_repeats) {
  bench *b = bench_new(&(test_plan_options){.world = 1, .n_shards = 1}, 4096);
  char text[128];
  begin(b);
  b->plan->view = 2;
  ck_assert_ok(srv_shard_open_job(b->shards[0], b->plan, NULL));
  push_all(b, 2 * MS);
  bl_session_commit(b->session, 1.0f, true, 1, 2 * MS);
  carry(b, 2 * MS);
  ck_assert_uint_eq(bl_session_tick(b->session, 60000 * MS), UINT64_MAX);
  ck_assert_uint_eq(b->up[0].n, 0);
  ck_assert_str_eq(bl_session_waits_for(b->session, text, sizeof text),
                   "1 of 1 shards: the new view of the job from shard 0");
  bl_session_set_view(b->session, 2, 60000 * MS);
  carry(b, 60000 * MS);
  ck_assert_uint_eq(bl_session_weights_version(b->session), 1);
  bench_free(b);
}
END_TEST

static const struct verdict_case {
  bl_status status;
  bool fatal;
} verdict_cases[] = {
    {BL_EAGAIN, false},     {BL_ENOMEM, false},    {BL_EVIEW, false},        {BL_ENOENT, false},
    {BL_ECLOCK, false},     {BL_ECORRUPT, false},  {BL_EINVAL, true},        {BL_EINCARNATION, true},
    {BL_EPROTO, true},      {BL_ENOTFINITE, true}, {BL_EMISMATCH, true},     {BL_EACCES, true},
};

START_TEST(a_refusal_ends_the_session_only_when_repeating_cannot_help) {
  bench *b = bench_new(&(test_plan_options){.world = 1, .n_shards = 1}, 4096);
  bl_error err = BL_ERROR_INIT;
  begin(b);
  refuse(b, verdict_cases[_i].status, 0, 2, 2 * MS);
  bl_status st = bl_session_status(b->session, &err);
  ck_assert_int_eq(st, verdict_cases[_i].fatal ? verdict_cases[_i].status : BL_OK);
  if (st != BL_OK)
    ck_assert_str_eq(err.text, "because");
  bench_free(b);
}
END_TEST

START_TEST(a_job_that_stays_unknown_ends_the_session) {
  bench *b = bench_new(&(test_plan_options){.world = 1, .n_shards = 1}, 4096);
  uint64_t now = MS;
  bl_session_start(b->session, now);
  for (int i = 0; i < 200 && bl_session_status(b->session, NULL) == BL_OK; i++) {
    carry(b, now); /* the shard has never heard of job 7 */
    now = bl_session_tick(b->session, now);
  }
  ck_assert_int_eq(bl_session_status(b->session, NULL), BL_ENOENT);
  bench_free(b);
}
END_TEST

START_TEST(a_shard_that_forgot_the_job_is_greeted_again) {
  bench *b = bench_new(&(test_plan_options){.world = 1, .n_shards = 1}, 4096);
  begin(b);
  ck_assert_ok(srv_shard_close_job(b->shards[0], 7));
  push_all(b, 2 * MS);
  bl_session_commit(b->session, 1.0f, true, 1, 2 * MS);
  carry(b, 2 * MS);
  open_all(b);
  uint64_t now = 2 * MS;
  for (int i = 0; i < 50 && bl_session_weights_version(b->session) != 1; i++) {
    now = bl_session_tick(b->session, now);
    ck_assert_uint_ne(now, UINT64_MAX);
    bl_session_tick(b->session, now);
    carry(b, now);
  }
  ck_assert_uint_eq(bl_session_weights_version(b->session), 1);
  bench_free(b);
}
END_TEST

/* Its predecessor's pushes may end the clock meanwhile: what is being pulled, and then redone, is still the first. */
START_TEST(a_greeting_while_the_first_weights_are_on_their_way_changes_no_clock) {
  bench *b = bench_new(&(test_plan_options){.world = 1, .n_shards = 1}, 4096);
  bl_data_msg welcome = {.type = BL_MSG_WELCOME};
  welcome.welcome = (bl_welcome){.protocol = 1, .job = 7, .view = 1, .window_bytes = 4096};
  bl_session_start(b->session, MS);
  reply(b, 0, &welcome, MS);
  bl_session_pull(b->session, bl_session_clock(b->session), MS);
  refuse(b, BL_ENOENT, 0, 0, 2 * MS); /* a late answer to a hello from before the job was open */
  bl_session_tick(b->session, 60000 * MS);
  welcome.welcome.clock = 1;
  reply(b, 0, &welcome, 60000 * MS);
  ck_assert(bl_session_is_ready(b->session));
  ck_assert_uint_eq(bl_session_clock(b->session), 0);
  bench_free(b);
}
END_TEST

START_TEST(weights_are_not_touched_before_the_commit) {
  bench *b = bench_new(&(test_plan_options){.world = 1, .n_shards = 1, .lr = 1}, 4096);
  begin(b);
  /* Another life of this rank has finished the clock on the shard; ours is still computing. */
  bench *other = bench_new(&(test_plan_options){.world = 1, .n_shards = 1, .lr = 1}, 4096);
  srv_shard *own = other->shards[0];
  other->shards[0] = b->shards[0];
  bl_session_start(other->session, MS);
  carry(other, MS);
  float before = b->weights[0][0];
  push_all(b, 2 * MS);
  (void)!bl_session_tick(b->session, 2 * MS); /* small tensors leave */
  for (uint32_t i = 0; i < b->table->n_tensors; i++)
    bl_session_push(other->session, i, other->grads[i], 2 * MS);
  bl_session_commit(other->session, 1.0f, true, 1, 2 * MS);
  bl_msg m;
  bl_peer peer = {.id = {'r'}, .id_size = 1};
  while (take(&other->up[0], &m)) {
    srv_shard_on_msg(b->shards[0], &peer, &m, 2 * MS);
    bl_msg_fini(&m);
  }
  carry(b, 2 * MS);
  ck_assert_float_eq(b->weights[0][0], before);
  bl_session_commit(b->session, 1.0f, true, 1, 3 * MS);
  uint64_t now = 3 * MS;
  for (int i = 0; i < 20 && bl_session_weights_version(b->session) != 1; i++) {
    carry(b, now);
    now += 100 * MS;
    bl_session_tick(b->session, now);
  }
  ck_assert_uint_eq(bl_session_weights_version(b->session), 1);
  ck_assert_float_eq(b->weights[0][0], before - 0.01f);
  other->shards[0] = own;
  bench_free(other);
  bench_free(b);
}
END_TEST

START_TEST(random_bytes_are_counted_and_dropped) {
  bench *b = bench_new(&(test_plan_options){.world = 1, .n_shards = 1}, 4096);
  begin(b);
  for (uint8_t i = 0; i < 10; i++) {
    uint8_t bytes[16] = {'B', 'L', i, 0, i, 0, 0, 0, i};
    bl_msg m = BL_MSG_INIT;
    m.head = bl_frame_copy(bytes, i);
    bl_session_on_msg(b->session, 0, &m, 2 * MS);
    bl_msg_fini(&m);
  }
  ck_assert_uint_eq(bl_session_get_stats(b->session).refusals, 10);
  ck_assert_int_eq(bl_session_status(b->session, NULL), BL_OK);
  run_clock(b, 3 * MS);
  bench_free(b);
}
END_TEST

static uint64_t wild(uint64_t i, uint64_t field, uint64_t plausible) {
  static const uint64_t edges[] = {0, 1, 2, 3, UINT32_MAX, UINT64_MAX - 1, UINT64_MAX};
  bool is_edge = bl_rng_below(3, field, i, 6) == 0;
  return is_edge ? edges[bl_rng_below(4, field, i, sizeof edges / sizeof edges[0])] : plausible;
}

/* What a shard out of its mind may say; job and rank are right, or nothing would be read. */
static void say_wild(bench *b, uint64_t i, uint64_t now_ns) {
  static const bl_status statuses[] = {BL_EAGAIN, BL_EVIEW, BL_ENOENT, BL_ECLOCK};
  static const bl_msg_type types[] = {BL_MSG_WELCOME, BL_MSG_ACK, BL_MSG_FRAMES, BL_MSG_FRAMES, BL_MSG_REFUSE};
  uint64_t clock = bl_session_clock(b->session);
  uint32_t shard = (uint32_t)bl_rng_below(3, 1, i, b->n_shards), chunk = (uint32_t)bl_rng_below(3, 2, i, b->table->n_chunks);
  bl_data_msg d = {.type = types[bl_rng_below(3, 3, i, sizeof types / sizeof types[0])]};
  bl_msg m = BL_MSG_INIT;
  if (d.type == BL_MSG_WELCOME) {
    d.welcome = (bl_welcome){.protocol = 1, .job = 7, .view = wild(i, 4, 1), .clock = wild(i, 5, clock), .window_bytes = wild(i, 6, 500)};
  } else if (d.type == BL_MSG_ACK) {
    d.ack = (bl_ack){.job = 7, .clock = wild(i, 4, clock), .commit = i & 1, .applied_incarnation = 1, .n_chunks = 1, .chunks = {chunk}};
  } else if (d.type == BL_MSG_REFUSE) {
    d.refuse = (bl_refuse){.job = 7, .request = wild(i, 4, 9), .status = statuses[i % 4], .view = wild(i, 5, 1), .clock = wild(i, 6, clock)};
  } else {
    uint64_t to = wild(i, 4, clock + (i & 1)), from = wild(i, 5, to);
    d.frames = (bl_frames){.job = 7, .version = to, .n_chunks = 1, .chunks = {chunk}, .from = {from <= to ? from : to}, .to = {to}};
    float x[48] = {0};
    bl_frame *f = test_frame("float32", x, b->table->chunks[chunk].n_elems, i % 3 == 0 ? 0 : BL_CODEC_REPLACE);
    ck_assert_ok(bl_msg_add_frame(&m, f));
  }
  ck_assert_ok(bl_data_pack(&d, m.n_frames, &m));
  bl_session_on_msg(b->session, shard, &m, now_ns);
  bl_msg_fini(&m);
}

START_TEST(a_shard_out_of_its_mind_ends_the_session_at_worst) {
  bench *b = bench_new(&(test_plan_options){.world = 1, .n_shards = 2}, 500);
  begin(b);
  uint64_t now = MS, n_clocks = 0, next = 0;
  for (uint64_t i = (uint64_t)_i * 1000; i < (uint64_t)_i * 1000 + 1000; i++, now += MS) {
    bool can_push = bl_session_status(b->session, NULL) == BL_OK && bl_session_gradients_free(b->session) &&
                    bl_session_weights_version(b->session) == next;
    if (i % 20 == 0 && can_push) {
      push_all(b, now);
      bl_session_commit(b->session, 1.0f, true, 1, now);
      n_clocks++;
      next++;
    }
    say_wild(b, i, now);
    bl_session_tick(b->session, now);
    if (i % 8 == 0)
      carry(b, now);
  }
  ck_assert_uint_gt(n_clocks, 0);
  bench_free(b);
}
END_TEST

START_TEST(a_session_without_memory_is_no_session) {
  bench *b = bench_new(&(test_plan_options){.world = 1, .n_shards = 2}, 4096);
  bl_session_config config = {.job = 7,
                              .world = 1,
                              .table = b->table,
                              .shard_of_chunk = b->plan->chunk_shards,
                              .n_shards = 2,
                              .shards = b->transports,
                              .weights = b->weights};
  uint64_t live = bl_alloc_get_stats().live_blocks;
  bl_status st = BL_ENOMEM;
  for (uint64_t n = 1; st != BL_OK && n < 100; n++) {
    bl_session *s = NULL;
    bl_alloc_fail_after(n);
    st = bl_session_new(&config, &s, NULL);
    bl_alloc_fail_after(0);
    ck_assert_msg(st == BL_OK || (st == BL_ENOMEM && s == NULL), "allocation %" PRIu64, n);
    bl_session_free(s);
    ck_assert_uint_eq(bl_alloc_get_stats().live_blocks, live);
  }
  ck_assert_ok(st);
  bench_free(b);
}
END_TEST

int main(void) {
  Suite *s = suite_create("session");
  TCase *t = tcase_create("session");
  tcase_set_timeout(t, 60);
  tcase_add_test(t, clocks_go_by_and_the_weights_follow);
  tcase_add_loop_test(t, a_steady_state_allocates_nothing, 0, 2);
  tcase_add_test(t, a_tensor_knows_what_it_has_cost);
  tcase_add_test(t, small_chunks_share_a_message_and_large_ones_do_not);
  tcase_add_test(t, chunks_of_a_part_go_out_when_they_are_filled);
  tcase_add_test(t, the_window_bounds_what_is_on_its_way);
  tcase_add_test(t, what_is_lost_is_repeated_with_growing_pauses);
  tcase_add_loop_test(t, a_lost_message_of_any_kind_delays_and_changes_nothing, 0, 3);
  tcase_add_test(t, a_full_transport_is_tried_again);
  tcase_add_test(t, a_refused_view_waits_for_the_new_one_and_then_repeats);
  tcase_add_loop_test(t, a_refusal_ends_the_session_only_when_repeating_cannot_help, 0,
                      (int)BL_COUNT_OF(verdict_cases));
  tcase_add_test(t, a_job_that_stays_unknown_ends_the_session);
  tcase_add_test(t, a_shard_that_forgot_the_job_is_greeted_again);
  tcase_add_test(t, a_greeting_while_the_first_weights_are_on_their_way_changes_no_clock);
  tcase_add_test(t, weights_are_not_touched_before_the_commit);
  tcase_add_test(t, random_bytes_are_counted_and_dropped);
  tcase_add_loop_test(t, a_shard_out_of_its_mind_ends_the_session_at_worst, 0, 20);
  tcase_add_test(t, a_session_without_memory_is_no_session);
  suite_add_tcase(s, t);
  return test_run(&s, 1);
}
