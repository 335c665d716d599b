/* SPDX-License-Identifier: Apache-2.0
 *
 * Rank 0 brings the initial values to real shards over queues: the same bits for any number of shards, with messages
 * lost, and when it dies in the middle.
 */
#include "base/alloc.h"
#include "base/clock.h"
#include "base/rng.h"
#include "client/initial.h"
#include "client/session.h"
#include "codec/codec.h"
#include "server/shard.h"
#include "tests/support/plan.h"
#include "tests/support/frames.h"
#include "tests/support/support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MS BL_NS_PER_MS
#define QUEUE_MAX 512
#define SHARDS_MAX 3
#define TENSORS_MAX 3

typedef struct line {
  bl_transport transport;
  bl_msg queue[QUEUE_MAX];
  uint32_t first, n;
} line;

static uint64_t loss_key, n_sent; /* key 0: nothing is lost */

static bl_status put(bl_transport *t, const bl_peer *to, bl_msg *msg) {
  line *l = (line *)t;
  (void)to;
  if (loss_key != 0 && bl_rng_below(loss_key, 0, n_sent++, 3) == 0) {
    bl_msg_fini(msg);
    return BL_OK;
  }
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

typedef struct recorded {
  srv_entry e[256];
  size_t n;
} recorded;

static void record(const srv_entry *entry, void *arg) {
  recorded *r = arg;
  ck_assert_uint_lt(r->n, BL_COUNT_OF(r->e));
  r->e[r->n] = *entry;
  if (entry->frame != NULL)
    bl_frame_ref(entry->frame);
  if (entry->plan != NULL)
    r->e[r->n].plan = (const Ballast__Control__JobPlan *)bl_control_copy(&entry->plan->base);
  r->n++;
}

typedef struct bench {
  Ballast__Control__JobPlan *plan;
  bl_tensor_table *table;
  line up[SHARDS_MAX], down[SHARDS_MAX];
  bl_transport *transports[SHARDS_MAX];
  srv_shard *shards[SHARDS_MAX];
  recorded log[SHARDS_MAX];
  uint32_t n_shards;
  float *values[TENSORS_MAX], *pulled[TENSORS_MAX];
  bl_initial *initial;
  uint64_t now;
} bench;

static srv_shard *new_shard(bench *b, uint32_t i, bool tapped) {
  static const char *const names[SHARDS_MAX] = {"s0", "s1", "s2"};
  srv_shard *s;
  srv_shard_config config = {.server = names[i],
                             .window_bytes = 1 << 20,
                             .hold_bytes_max = 1 << 24,
                             .log_bytes_max = 1 << 20,
                             .tap = tapped ? record : NULL,
                             .tap_arg = &b->log[i],
                             .transport = tapped ? &b->down[i].transport : NULL};
  ck_assert_ok(srv_shard_new(&config, &s, NULL));
  return s;
}

static void start_initial(bench *b) {
  bl_initial_config config = {.job = 7,
                              .incarnation = b->plan->incarnations[0],
                              .view = b->plan->view,
                              .table = b->table,
                              .shard_of_chunk = b->plan->chunk_shards,
                              .n_shards = b->n_shards,
                              .shards = b->transports,
                              .retry_ns = 100 * MS,
                              .values = b->values};
  bl_initial_free(b->initial);
  ck_assert_ok(bl_initial_new(&config, &b->initial, NULL));
}

static bench *bench_new(uint32_t n_shards, const char *codec, uint32_t world) {
  bench *b = calloc(1, sizeof *b);
  b->now = 1000 * MS;
  b->n_shards = n_shards;
  loss_key = n_sent = 0;
  b->plan = test_plan_new(&(test_plan_options){
      .job = 7, .seed = 3, .world = world, .n_shards = n_shards, .codec_push = codec, .codec_pull = codec});
  b->plan->initial = true;
  ck_assert_ok(bl_plan_table(b->plan, &b->table, NULL));
  for (uint32_t i = 0; i < n_shards; i++) {
    b->up[i].transport.send = b->down[i].transport.send = put;
    b->transports[i] = &b->up[i].transport;
    b->shards[i] = new_shard(b, i, true);
    ck_assert_ok(srv_shard_open_job(b->shards[i], b->plan, NULL));
  }
  for (uint32_t t = 0; t < b->table->n_tensors; t++) {
    b->values[t] = calloc(b->table->tensors[t].n_elems, sizeof(float));
    b->pulled[t] = calloc(b->table->tensors[t].n_elems, sizeof(float));
    for (uint64_t k = 0; k < b->table->tensors[t].n_elems; k++)
      b->values[t][k] = bl_rng_normal(bl_rng_key(9, BL_RNG_DATA), t, k) * 1e-3f + 1.0f; /* float16 could not hold it */
  }
  start_initial(b);
  return b;
}

static void bench_free(bench *b) {
  bl_initial_free(b->initial);
  for (uint32_t i = 0; i < b->n_shards; i++) {
    drop_all(&b->up[i]);
    drop_all(&b->down[i]);
    srv_shard_free(b->shards[i]);
    for (size_t k = 0; k < b->log[i].n; k++) {
      bl_frame_unref(b->log[i].e[k].frame);
      if (b->log[i].e[k].plan != NULL)
        bl_control_free((ProtobufCMessage *)(uintptr_t)b->log[i].e[k].plan);
    }
  }
  for (uint32_t t = 0; t < b->table->n_tensors; t++) {
    free(b->values[t]);
    free(b->pulled[t]);
  }
  bl_tensor_table_free(b->table);
  bl_control_free(&b->plan->base);
  free(b);
}

static void to_shard(bench *b, uint32_t i, bl_msg *m) {
  bl_peer peer = {.id = {'r'}, .id_size = 1};
  srv_shard_on_msg(b->shards[i], &peer, m, b->now);
  while (srv_shard_tick(b->shards[i], b->now) <= b->now)
    ;
}

/* Carries at most `limit` messages up, and what is answered down. */
static void carry(bench *b, unsigned limit) {
  bl_msg m;
  for (uint32_t i = 0; i < b->n_shards; i++) {
    for (; limit > 0 && take(&b->up[i], &m); limit--) {
      to_shard(b, i, &m);
      bl_msg_fini(&m);
    }
    while (take(&b->down[i], &m)) {
      bl_initial_on_msg(b->initial, i, &m, b->now);
      bl_msg_fini(&m);
    }
  }
}

static void finish(bench *b) {
  for (int n = 0; !bl_initial_is_done(b->initial); n++) {
    ck_assert_int_lt(n, 10000);
    bl_initial_tick(b->initial, b->now);
    carry(b, UINT32_MAX);
    b->now += 50 * MS;
    ck_assert_ok(bl_initial_status(b->initial, NULL));
  }
}

/* What a session of another rank gets are these values, bit for bit. */
static void assert_values_are_there(bench *b, uint32_t rank) {
  bl_session *s;
  bl_session_config config = {.job = 7,
                              .rank = rank,
                              .world = b->plan->world,
                              .incarnation = b->plan->incarnations[rank],
                              .view = b->plan->view,
                              .table = b->table,
                              .shard_of_chunk = b->plan->chunk_shards,
                              .n_shards = b->n_shards,
                              .shards = b->transports,
                              .retry_ns = 100 * MS,
                              .weights = b->pulled};
  loss_key = 0;
  for (uint32_t i = 0; i < b->n_shards; i++) {
    drop_all(&b->up[i]);
    drop_all(&b->down[i]);
  }
  ck_assert_ok(bl_session_new(&config, &s, NULL));
  bl_session_start(s, b->now);
  bool asked = false;
  for (int n = 0; bl_session_weights_version(s) != b->plan->start_clock; n++) {
    ck_assert_int_lt(n, 1000);
    bl_msg m;
    for (uint32_t i = 0; i < b->n_shards; i++) {
      while (take(&b->up[i], &m)) {
        to_shard(b, i, &m);
        bl_msg_fini(&m);
      }
      while (take(&b->down[i], &m)) {
        bl_session_on_msg(s, i, &m, b->now);
        bl_msg_fini(&m);
      }
    }
    if (bl_session_is_ready(s) && !asked) {
      asked = true;
      bl_session_pull(s, b->plan->start_clock, b->now);
    }
    bl_session_tick(s, b->now += 50 * MS);
  }
  for (uint32_t t = 0; t < b->table->n_tensors; t++)
    ck_assert_mem_eq(b->pulled[t], b->values[t], b->table->tensors[t].n_elems * sizeof(float));
  bl_session_free(s);
}

/* _i: number of shards - 1, and from 3 on with a lossy network and codec. */
START_TEST(initial_values_reach_every_shard_bit_for_bit) {
  bench *b = bench_new(1 + (uint32_t)_i % 3, _i >= 3 ? "float16" : "float32", 2);
  loss_key = _i >= 3 ? 5 : 0;
  finish(b);
  assert_values_are_there(b, 1);
  /* the log alone makes the same state */
  for (uint32_t i = 0; i < b->n_shards; i++) {
    srv_shard *copy = new_shard(b, i, false);
    bl_error err = BL_ERROR_INIT;
    for (size_t k = 0; k < b->log[i].n; k++)
      ck_assert_ok_err(srv_shard_replay(copy, &b->log[i].e[k], &err), err);
    ck_assert_uint_eq(srv_shard_state_checksum(copy), srv_shard_state_checksum(b->shards[i]));
    srv_shard_free(copy);
  }
  bench_free(b);
}
END_TEST

/* After a few messages rank 0 is another process in a new view. */
START_TEST(a_rank_0_that_starts_anew_brings_what_is_missing) {
  bench *b = bench_new(2, "float32", 1);
  for (int n = 0; n < 3; n++) {
    bl_initial_tick(b->initial, b->now);
    carry(b, (unsigned)_i);
  }
  for (uint32_t i = 0; i < b->n_shards; i++) {
    drop_all(&b->up[i]);
    drop_all(&b->down[i]);
  }
  b->plan->view++;
  b->plan->incarnations[0]++;
  for (uint32_t i = 0; i < b->n_shards; i++)
    ck_assert_ok(srv_shard_open_job(b->shards[i], b->plan, NULL));
  start_initial(b);
  finish(b);
  assert_values_are_there(b, 0);
  bench_free(b);
}
END_TEST

/* Before the values are there nobody else gets in. */
START_TEST(a_session_waits_for_the_initial_values) {
  bench *b = bench_new(1, "float32", 2);
  bl_msg m = BL_MSG_INIT;
  bl_data_msg d = {.type = BL_MSG_HELLO};
  d.hello = (bl_hello){BL_PROTOCOL_MIN, BL_PROTOCOL_VERSION, 7, 1, b->plan->incarnations[1], b->plan->view};
  ck_assert_ok(bl_data_pack(&d, 0, &m));
  to_shard(b, 0, &m);
  bl_msg_fini(&m);
  ck_assert(take(&b->down[0], &m));
  ck_assert_ok(bl_data_unpack(&m, &d, NULL));
  ck_assert_int_eq(d.type, BL_MSG_REFUSE);
  ck_assert_int_eq(d.refuse.status, BL_EAGAIN);
  ck_assert_msg(strstr(d.refuse.text, "waits for its initial values from rank 0") != NULL, "%s", d.refuse.text);
  bl_msg_fini(&m);
  srv_shard_job_info info;
  ck_assert_ok(srv_shard_job_status(b->shards[0], 7, &info));
  ck_assert_int_eq(info.state, BALLAST__CONTROL__SHARD_JOB_STATE__SHARD_JOB_OPEN); /* or the tasks would not start */
  bench_free(b);
}
END_TEST

static const struct {
  uint32_t rank;
  uint64_t clock;
  bool asked, lossy, short_frame;
  bl_status status;
  const char *says;
} refusals[] = {
    {1, BL_CLOCK_INITIAL, true, false, false, BL_EINVAL, "initial values from rank 1: job 7 takes them from rank 0"},
    {0, BL_CLOCK_INITIAL, false, false, false, BL_EINVAL, "job 7 makes its own"},
    {0, 0, true, false, false, BL_EINVAL, "in the name of clock 0"},
    {0, BL_CLOCK_INITIAL, true, true, false, BL_EINVAL, "initial values are float32 replace frames"},
    {0, BL_CLOCK_INITIAL, true, false, true, BL_EINVAL, "chunk 0"},
};

START_TEST(initial_values_that_are_none_are_refused) {
  bench *b = bench_new(1, "float32", 2);
  if (!refusals[_i].asked) {
    b->plan->initial = false;
    b->plan->job = 7;
    ck_assert_ok(srv_shard_close_job(b->shards[0], 7));
    ck_assert_ok(srv_shard_open_job(b->shards[0], b->plan, NULL));
  }
  uint32_t n = b->table->chunks[0].n_elems - refusals[_i].short_frame;
  bl_frame *f = test_frame(refusals[_i].lossy ? "float16" : "float32", b->values[0], n, BL_CODEC_REPLACE);
  bl_msg m = BL_MSG_INIT;
  ck_assert_ok(bl_msg_add_frame(&m, f));
  bl_data_msg d = {.type = BL_MSG_PUSH};
  d.push = (bl_push){.job = 7, .view = b->plan->view, .rank = refusals[_i].rank, .incarnation = b->plan->incarnations[0],
                     .clock = refusals[_i].clock, .request = 1, .initial = true, .n_chunks = 1};
  ck_assert_ok(bl_data_pack(&d, 1, &m));
  to_shard(b, 0, &m);
  bl_msg_fini(&m);
  ck_assert(take(&b->down[0], &m));
  ck_assert_ok(bl_data_unpack(&m, &d, NULL));
  ck_assert_int_eq(d.type, BL_MSG_REFUSE);
  ck_assert_msg(strstr(d.refuse.text, refusals[_i].says) != NULL, "%s", d.refuse.text);
  bl_msg_fini(&m);
  bench_free(b);
}
END_TEST

int main(void) {
  Suite *s = suite_create("initial");
  TCase *tc = tcase_create("initial");
  tcase_add_loop_test(tc, initial_values_reach_every_shard_bit_for_bit, 0, 6);
  tcase_add_loop_test(tc, a_rank_0_that_starts_anew_brings_what_is_missing, 0, 5);
  tcase_add_test(tc, a_session_waits_for_the_initial_values);
  tcase_add_loop_test(tc, initial_values_that_are_none_are_refused, 0, (int)BL_COUNT_OF(refusals));
  suite_add_tcase(s, tc);
  return test_run(&s, 1);
}
