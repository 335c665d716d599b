/* SPDX-License-Identifier: Apache-2.0
 *
 * The shard by itself: what it refuses, acknowledges, adds up, and gives back.
 */
#include "base/alloc.h"
#include "base/rng.h"
#include "codec/codec.h"
#include "server/log.h"
#include "server/shard.h"
#include "tests/support/plan.h"
#include "tests/support/frames.h"
#include "tests/support/support.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CAUGHT_MAX 512
#define N_CHUNKS 7 /* of the plan in support/plan.c: 48 48 48 6 | 7 | 48 16 */
static const uint32_t chunk_elems[N_CHUNKS] = {48, 48, 48, 6, 7, 48, 16};

/* ---- a transport that catches ---- */

typedef struct caught {
  bl_data_msg d;
  bl_frame *frames[BL_MSG_FRAMES_MAX];
  uint32_t n_frames;
} caught;

typedef struct net {
  bl_transport transport;
  bl_status answer; /* BL_OK: caught; otherwise returned */
  const bl_frame *refused_frame; /* the first one of what was not taken last */
  caught *at[CAUGHT_MAX];
  size_t n;
} net;

static bl_status catch_msg(bl_transport *t, const bl_peer *to, bl_msg *msg) {
  net *n = (net *)t;
  (void)to;
  if (n->answer != BL_OK) {
    n->refused_frame = msg->n_frames > 0 ? msg->frames[0] : NULL;
    return n->answer;
  }
  caught *c = calloc(1, sizeof *c);
  ck_assert(c != NULL && n->n < CAUGHT_MAX);
  bl_error err = BL_ERROR_INIT;
  ck_assert_ok_err(bl_data_unpack(msg, &c->d, &err), err);
  for (uint32_t i = 0; i < msg->n_frames; i++)
    c->frames[i] = bl_frame_ref(msg->frames[i]);
  c->n_frames = msg->n_frames;
  n->at[n->n++] = c;
  bl_msg_fini(msg);
  return BL_OK;
}

static void forget(net *n) {
  for (size_t i = 0; i < n->n; i++) {
    for (uint32_t k = 0; k < n->at[i]->n_frames; k++)
      bl_frame_unref(n->at[i]->frames[k]);
    free(n->at[i]);
  }
  n->n = 0;
}

static const bl_data_msg *last_of(const net *n, bl_msg_type type) {
  for (size_t i = n->n; i-- > 0;)
    if (n->at[i]->d.type == type)
      return &n->at[i]->d;
  return NULL;
}

static bl_status refused(const net *n) {
  const bl_data_msg *d = last_of(n, BL_MSG_REFUSE);
  return d != NULL ? d->refuse.status : BL_OK;
}

/* ---- a bench ---- */

typedef struct bench {
  net net;
  srv_shard *shard;
  Ballast__Control__JobPlan *plan;
  bl_peer peer;
} bench;

static void bench_shard(bench *b, const srv_shard_config *over) {
  srv_shard_config config = {.server = "s0",
                             .window_bytes = 1 << 20,
                             .hold_bytes_max = over != NULL && over->hold_bytes_max > 0 ? over->hold_bytes_max : 1 << 20,
                             .log_bytes_max = over != NULL && over->log_bytes_max > 0 ? over->log_bytes_max : 1 << 20,
                             .has_follower = over != NULL && over->has_follower,
                             .transport = &b->net.transport};
  memset(b, 0, sizeof *b);
  b->net.transport.send = catch_msg;
  memcpy(b->peer.id, "peer", 4);
  b->peer.id_size = 4;
  ck_assert_ok(srv_shard_new(&config, &b->shard, NULL));
}

static void turn(bench *b) {
  for (int i = 0; i < 1000 && srv_shard_tick(b->shard, 5) == 5; i++)
    ;
}

static void bench_open(bench *b, const test_plan_options *o) {
  test_plan_options options = *o;
  options.job = 7;
  if (options.n_shards == 0)
    options.n_shards = 1;
  b->plan = test_plan_new(&options);
  ck_assert_ok(srv_shard_open_job(b->shard, b->plan, NULL));
  turn(b);
}

static void bench_close(bench *b) {
  forget(&b->net);
  srv_shard_free(b->shard);
  if (b->plan != NULL)
    bl_control_free(&b->plan->base);
}

static void say(bench *b, const bl_data_msg *d, bl_frame *const *frames, uint32_t n) {
  bl_msg msg = BL_MSG_INIT;
  for (uint32_t i = 0; i < n; i++)
    ck_assert_ok(bl_msg_add_frame(&msg, frames[i]));
  ck_assert_ok(bl_data_pack(d, n, &msg));
  srv_shard_on_msg(b->shard, &b->peer, &msg, 5);
  bl_msg_fini(&msg);
  turn(b);
}

static bl_frame *constant_frame(float value, uint32_t n) {
  float x[64];
  for (uint32_t i = 0; i < n; i++)
    x[i] = value;
  return test_frame("float32", x, n, 0);
}

typedef struct name { /* defaults: rank 0, incarnation 1, view 1, clock 0 */
  uint32_t rank, incarnation;
  uint64_t view, clock, job;
  bool answer;
} name;

static name named(uint32_t rank, uint64_t clock) {
  return (name){.rank = rank, .incarnation = 1, .view = 1, .clock = clock, .job = 7};
}

static bl_data_msg push_header(const name *m, uint32_t chunk) {
  bl_data_msg d = {.type = BL_MSG_PUSH};
  d.push.job = m->job;
  d.push.view = m->view;
  d.push.rank = m->rank;
  d.push.incarnation = m->incarnation;
  d.push.clock = m->clock;
  d.push.request = 99;
  d.push.answer = m->answer;
  d.push.n_chunks = 1;
  d.push.chunks[0] = chunk;
  return d;
}

static void push(bench *b, const name *m, uint32_t chunk, float value) {
  bl_data_msg d = push_header(m, chunk);
  bl_frame *f = constant_frame(value, chunk_elems[chunk]);
  say(b, &d, &f, 1);
}

static void push_all(bench *b, const name *m, float value) {
  for (uint32_t i = 0; i < N_CHUNKS; i++)
    push(b, m, i, value);
}

static void commit_with(bench *b, const name *m, float scale, bool not_finite, uint32_t n_chunks) {
  bl_data_msg d = {.type = BL_MSG_COMMIT};
  d.commit = (bl_commit){.job = m->job,
                         .view = m->view,
                         .rank = m->rank,
                         .incarnation = m->incarnation,
                         .clock = m->clock,
                         .request = 98,
                         .scale = scale,
                         .not_finite = not_finite,
                         .n_samples = 1,
                         .n_chunks = n_chunks};
  say(b, &d, NULL, 0);
}

static void commit(bench *b, const name *m) { commit_with(b, m, 1.0f, false, N_CHUNKS); }

static void ask(bench *b, const name *m, uint32_t chunk, uint64_t want) {
  bl_data_msg d = {.type = BL_MSG_PULL};
  d.pull.job = m->job;
  d.pull.view = m->view;
  d.pull.rank = m->rank;
  d.pull.incarnation = m->incarnation;
  d.pull.have_nothing = true;
  d.pull.want = want;
  d.pull.request = 97;
  d.pull.n_chunks = 1;
  d.pull.chunks[0] = chunk;
  say(b, &d, NULL, 0);
}

/* Weights of a chunk at a version, by a pull. */
static bool fetch(bench *b, uint32_t chunk, uint64_t want, float *out) {
  name m = named(0, 0);
  forget(&b->net);
  ask(b, &m, chunk, want);
  bool any = false;
  for (size_t i = 0; i < b->net.n; i++) {
    const caught *c = b->net.at[i];
    for (uint32_t k = 0; c->d.type == BL_MSG_FRAMES && k < c->n_frames; k++) {
      ck_assert_uint_eq(c->d.frames.chunks[k], chunk);
      ck_assert_ok(bl_codec_apply(c->frames[k]->data, c->frames[k]->size, chunk_elems[chunk], out, NULL));
      any = true;
    }
  }
  return any;
}

static uint64_t clock_of(bench *b) {
  srv_shard_job_info info;
  ck_assert_ok(srv_shard_job_status(b->shard, 7, &info));
  return info.clock;
}

/* ---- refusals ---- */

static const struct refusal {
  const char *what;
  bl_status status;
  name name;
  uint32_t chunk;
  enum { GOOD, OTHER_CODEC, REPLACE, SHORT, FLIPPED, EMPTY } frame;
} refusals[] = {
    {"another job", BL_ENOENT, {0, 1, 1, 0, 8, 0}, 0, GOOD},
    {"a view that is over", BL_EVIEW, {0, 1, 0, 0, 7, 0}, 0, GOOD},
    {"a view to come", BL_EAGAIN, {0, 1, 2, 0, 7, 0}, 0, GOOD},
    {"a rank beyond the last", BL_EINVAL, {2, 1, 1, 0, 7, 0}, 0, GOOD},
    {"an older incarnation", BL_EINCARNATION, {0, 0, 1, 0, 7, 0}, 0, GOOD},
    {"a later incarnation", BL_EINCARNATION, {0, 2, 1, 0, 7, 0}, 0, GOOD},
    {"a clock to come", BL_ECLOCK, {0, 1, 1, 1, 7, 0}, 0, GOOD},
    {"the last clock of all", BL_ECLOCK, {0, 1, 1, UINT64_MAX, 7, 0}, 0, GOOD},
    {"a chunk that is not there", BL_EINVAL, {0, 1, 1, 0, 7, 0}, N_CHUNKS, GOOD},
    {"a frame of another codec", BL_EINVAL, {0, 1, 1, 0, 7, 0}, 0, OTHER_CODEC},
    {"a frame that replaces", BL_EINVAL, {0, 1, 1, 0, 7, 0}, 0, REPLACE},
    {"a frame with too few elements", BL_EMISMATCH, {0, 1, 1, 0, 7, 0}, 0, SHORT},
    {"a frame with a flipped bit", BL_ECORRUPT, {0, 1, 1, 0, 7, 0}, 0, FLIPPED},
    {"a frame without bytes", BL_ECORRUPT, {0, 1, 1, 0, 7, 0}, 0, EMPTY},
};

static bl_frame *bad_frame(int kind) {
  float x[48] = {1};
  bl_frame *f = test_frame(kind == OTHER_CODEC ? "float16" : "float32", x, kind == SHORT ? 47 : 48,
                       kind == REPLACE ? BL_CODEC_REPLACE : 0);
  if (kind == FLIPPED)
    f->data[f->size - 1] ^= 4;
  if (kind == EMPTY)
    f->size = 0;
  return f;
}

START_TEST(a_wrong_push_is_refused_with_its_reason_and_changes_nothing) {
  const struct refusal *r = &refusals[_i];
  bench b;
  bench_shard(&b, NULL);
  bench_open(&b, &(test_plan_options){.world = 2});
  uint64_t before = srv_shard_state_checksum(b.shard);
  bl_data_msg d = push_header(&r->name, r->chunk);
  bl_frame *f = bad_frame((int)r->frame);
  say(&b, &d, &f, 1);
  const bl_data_msg *got = last_of(&b.net, BL_MSG_REFUSE);
  ck_assert_msg(got != NULL, "%s was not refused", r->what);
  ck_assert_msg(got->refuse.status == r->status, "%s: %s: %s", r->what, bl_status_name(got->refuse.status),
                got->refuse.text);
  ck_assert_uint_eq(got->refuse.request, 99);
  ck_assert(got->refuse.text[0] != '\0');
  if (r->name.job == 7)
    ck_assert_uint_eq(got->refuse.view, 1);
  ck_assert_uint_eq(srv_shard_state_checksum(b.shard), before);
  srv_shard_stats stats;
  srv_shard_get_stats(b.shard, &stats);
  ck_assert_uint_eq(stats.refusals, 1);
  ck_assert_uint_eq(stats.refused_by[-r->status], 1);
  bench_close(&b);
}
END_TEST

START_TEST(a_hello_of_another_protocol_is_told_which_ones_are_spoken) {
  bench b;
  bench_shard(&b, NULL);
  bench_open(&b, &(test_plan_options){.world = 1});
  bl_data_msg d = {.type = BL_MSG_HELLO};
  d.hello = (bl_hello){.protocol_min = 9, .protocol_max = 12, .job = 7, .incarnation = 1, .view = 1};
  say(&b, &d, NULL, 0);
  const bl_data_msg *got = last_of(&b.net, BL_MSG_REFUSE);
  ck_assert_ptr_nonnull(got);
  ck_assert_int_eq(got->refuse.status, BL_EPROTO);
  ck_assert_uint_eq(got->refuse.protocol_max, BL_PROTOCOL_VERSION);
  d.hello.protocol_min = 1;
  say(&b, &d, NULL, 0);
  got = last_of(&b.net, BL_MSG_WELCOME);
  ck_assert_ptr_nonnull(got);
  ck_assert_uint_eq(got->welcome.protocol, BL_PROTOCOL_VERSION);
  d.hello.protocol_max = 1; /* a task of version 1 */
  say(&b, &d, NULL, 0);
  got = last_of(&b.net, BL_MSG_WELCOME);
  ck_assert_uint_eq(got->welcome.protocol, 1);
  ck_assert_uint_eq(got->welcome.window_bytes, 1 << 20);
  bench_close(&b);
}
END_TEST

START_TEST(a_commit_that_counts_other_chunks_is_refused) {
  bench b;
  bench_shard(&b, NULL);
  bench_open(&b, &(test_plan_options){.world = 1});
  name m = named(0, 0);
  commit_with(&b, &m, 1.0f, false, N_CHUNKS - 1);
  ck_assert_int_eq(refused(&b.net), BL_EMISMATCH);
  bench_close(&b);
}
END_TEST

START_TEST(messages_with_flipped_bits_never_do_harm) {
  bench b;
  bench_shard(&b, NULL);
  bench_open(&b, &(test_plan_options){.world = 2});
  name m = named(0, 0);
  bl_data_msg d = push_header(&m, 3);
  for (uint64_t i = 0; i < 3000; i++) {
    bl_msg msg = BL_MSG_INIT;
    ck_assert_ok(bl_msg_add_frame(&msg, constant_frame(1, 6)));
    ck_assert_ok(bl_data_pack(&d, 1, &msg));
    bl_frame *f = bl_rng_below(1, 1, i, 2) == 0 ? msg.head : msg.frames[0];
    f->data[bl_rng_below(1, 2, i, f->size)] ^= (uint8_t)(1u << bl_rng_below(1, 3, i, 8));
    if (bl_rng_below(1, 4, i, 4) == 0)
      f->size = bl_rng_below(1, 5, i, f->size + 1);
    srv_shard_on_msg(b.shard, &b.peer, &msg, 5);
    bl_msg_fini(&msg);
    turn(&b);
    forget(&b.net);
  }
  srv_shard_stats stats;
  srv_shard_get_stats(b.shard, &stats);
  ck_assert_uint_gt(stats.malformed, 100);
  ck_assert_uint_eq(clock_of(&b), 0);
  bench_close(&b);
}
END_TEST

/* A number of the kind that breaks things, or a plausible one. */
static uint64_t wild(uint64_t i, uint64_t field) {
  static const uint64_t edges[] = {0, 0, 1, 1, 2, 3, 6, 7, 8, UINT32_MAX, UINT64_MAX - 1, UINT64_MAX};
  return edges[bl_rng_below(2, field, i, sizeof edges / sizeof edges[0])];
}

static bool rarely(uint64_t i, uint64_t field) { return bl_rng_below(2, field, i, 8) == 0; }

static bl_data_msg wild_message(uint64_t i, uint64_t clock) {
  static const bl_msg_type types[] = {BL_MSG_HELLO, BL_MSG_PUSH, BL_MSG_PUSH, BL_MSG_COMMIT, BL_MSG_PULL, BL_MSG_ASK_NORMS};
  bl_data_msg d = {.type = types[bl_rng_below(2, 1, i, sizeof types / sizeof types[0])]};
  uint64_t job = rarely(i, 2) ? wild(i, 3) : 7, view = rarely(i, 4) ? wild(i, 5) : 1;
  uint32_t rank = (uint32_t)(rarely(i, 6) ? wild(i, 7) & 4095 : bl_rng_below(2, 8, i, 2));
  uint32_t incarnation = (uint32_t)(rarely(i, 9) ? wild(i, 10) : 1), chunk = (uint32_t)bl_rng_below(2, 11, i, N_CHUNKS);
  uint64_t at = rarely(i, 12) ? wild(i, 13) : clock, have = rarely(i, 14) ? wild(i, 15) : clock;
  uint64_t want = rarely(i, 16) ? wild(i, 17) : clock + bl_rng_below(2, 18, i, 2);
  bool bit = rarely(i, 19);
  if (d.type == BL_MSG_HELLO)
    d.hello = (bl_hello){.protocol_min = 1, .protocol_max = 1, .job = job, .rank = rank, .incarnation = incarnation, .view = view};
  else if (d.type == BL_MSG_PUSH)
    d.push = (bl_push){job, view, rank, incarnation, at, i, !bit, 1, {chunk}};
  else if (d.type == BL_MSG_COMMIT)
    d.commit = (bl_commit){job, view, rank, incarnation, at, i, bit ? 0 : 1, false, wild(i, 20), rarely(i, 21) ? 3 : N_CHUNKS};
  else if (d.type == BL_MSG_ASK_NORMS)
    d.ask_norms = (bl_ask_norms){job, view, rank, incarnation, at, i, (uint32_t)wild(i, 22)};
  else
    d.pull = (bl_pull){job, view, rank, incarnation, have, want, i, bit, rarely(i, 23), 1, {chunk}};
  return d;
}

START_TEST(well_formed_messages_with_wild_numbers_harm_no_other_job) {
  bench b;
  bench_shard(&b, NULL);
  bench_open(&b, &(test_plan_options){.world = 2, .codec_pull = _i == 0 ? "float32" : "float16", .clip_norm = _i == 1,
                                      .clip_global_norm = _i == 2 ? 1000 : 0, .average_ema = _i == 2 ? 0.5 : 0});
  b.plan->job = 9;
  ck_assert_ok(srv_shard_open_job(b.shard, b.plan, NULL));
  turn(&b);
  for (uint64_t i = 0; i < 20000; i++) {
    bl_data_msg d = wild_message(i, clock_of(&b));
    if (d.type == BL_MSG_COMMIT && _i == 2)
      d.commit.scale = 1; /* ranks that do not agree fail the job */
    bl_frame *f = d.type == BL_MSG_PUSH ? constant_frame(1e-3f, chunk_elems[d.push.chunks[0]]) : NULL;
    say(&b, &d, &f, f != NULL);
    forget(&b.net);
  }
  ck_assert_uint_gt(clock_of(&b), 20); /* the plausible ones got somewhere */
  srv_shard_job_info info;
  ck_assert_ok(srv_shard_job_status(b.shard, 9, &info));
  ck_assert_uint_eq(info.clock, 0);
  ck_assert_int_eq(info.state, BALLAST__CONTROL__SHARD_JOB_STATE__SHARD_JOB_OPEN);
  bench_close(&b);
}
END_TEST

/* ---- exactly once ---- */

START_TEST(a_repeated_push_is_acknowledged_again_and_not_added) {
  bench b;
  bench_shard(&b, NULL);
  bench_open(&b, &(test_plan_options){.world = 2});
  name m = named(0, 0);
  push(&b, &m, 2, 1.0f);
  uint64_t before = srv_shard_state_checksum(b.shard);
  forget(&b.net);
  push(&b, &m, 2, 5.0f); /* other bytes under the same name */
  const bl_data_msg *ack = last_of(&b.net, BL_MSG_ACK);
  ck_assert_ptr_nonnull(ack);
  ck_assert_uint_eq(ack->ack.chunks[0], 2);
  ck_assert_uint_eq(ack->ack.applied_incarnation, 1);
  ck_assert_uint_eq(srv_shard_state_checksum(b.shard), before);
  bench_close(&b);
}
END_TEST

START_TEST(a_new_incarnation_hears_whose_bytes_count) {
  bench b;
  bench_shard(&b, NULL);
  bench_open(&b, &(test_plan_options){.world = 1});
  name m = named(0, 0);
  push(&b, &m, 2, 1.0f);
  b.plan->view = 2;
  b.plan->incarnations[0] = 4;
  ck_assert_ok(srv_shard_open_job(b.shard, b.plan, NULL));
  push(&b, &m, 3, 1.0f);
  ck_assert_int_eq(refused(&b.net), BL_EVIEW);
  m.view = 2;
  m.incarnation = 4;
  push_all(&b, &m, 1.0f);
  uint32_t n_old = 0, n_new = 0;
  for (size_t i = 0; i < b.net.n; i++) {
    const bl_ack *a = &b.net.at[i]->d.ack;
    if (b.net.at[i]->d.type == BL_MSG_ACK && a->applied_incarnation == 1)
      n_old += a->chunks[0] == 2;
    else if (b.net.at[i]->d.type == BL_MSG_ACK)
      n_new += a->applied_incarnation == 4;
  }
  ck_assert_uint_eq(n_old, 2); /* at first, and for the repeat */
  ck_assert_uint_eq(n_new, N_CHUNKS - 1);
  commit(&b, &m);
  ck_assert_uint_eq(clock_of(&b), 1);
  forget(&b.net);
  push(&b, &m, 2, 1.0f); /* the clock is over: still known */
  ck_assert_uint_eq(last_of(&b.net, BL_MSG_ACK)->ack.applied_incarnation, 1);
  bench_close(&b);
}
END_TEST

START_TEST(a_clock_needs_every_chunk_and_every_commit) {
  bench b;
  bench_shard(&b, NULL);
  bench_open(&b, &(test_plan_options){.world = 2});
  name r0 = named(0, 0), r1 = named(1, 0);
  commit(&b, &r1);
  push_all(&b, &r1, 1);
  push_all(&b, &r0, 1);
  ck_assert_uint_eq(clock_of(&b), 0);
  ck_assert(!fetch(&b, 0, 1, (float[48]){0}));
  commit(&b, &r0);
  ck_assert_uint_eq(clock_of(&b), 1);
  ck_assert_ptr_nonnull(last_of(&b.net, BL_MSG_FRAMES)); /* the pull that waited */
  bench_close(&b);
}
END_TEST

START_TEST(an_answer_waits_for_its_version) {
  bench b;
  bench_shard(&b, NULL);
  bench_open(&b, &(test_plan_options){.world = 1});
  name m = named(0, 0);
  m.answer = true;
  push_all(&b, &m, 1);
  ck_assert_ptr_null(last_of(&b.net, BL_MSG_FRAMES));
  commit(&b, &m);
  uint32_t n = 0;
  for (size_t i = 0; i < b.net.n; i++)
    n += b.net.at[i]->d.type == BL_MSG_FRAMES ? b.net.at[i]->d.frames.n_chunks : 0;
  ck_assert_uint_eq(n, N_CHUNKS);
  bench_close(&b);
}
END_TEST

/* ---- arithmetic ---- */

START_TEST(sums_are_made_in_rank_order) {
  static const float values[3] = {1e8f, 1.0f, -1e8f}; /* (a + b) + c = 0, a + c + b = 1 */
  static const uint32_t orders[6][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
  bench b;
  bench_shard(&b, NULL);
  bench_open(&b, &(test_plan_options){.world = 3, .lr = 1, .init = BL_INIT_ZERO});
  for (uint32_t k = 0; k < 3; k++) {
    name m = named(orders[_i][k], 0);
    push_all(&b, &m, values[m.rank]);
  }
  for (uint32_t r = 0; r < 3; r++) {
    name m = named(r, 0);
    commit(&b, &m);
  }
  float w[48];
  ck_assert(fetch(&b, 0, 1, w));
  ck_assert(w[0] == 0.0f && w[47] == 0.0f);
  bench_close(&b);
}
END_TEST

static const struct clipping {
  double clip_value, clip_norm, weight_decay;
  float scale, gradient;
  float expected[2]; /* tensor 0; tensor 1, which is exempt from decay */
} clippings[] = {
    {0, 0, 0, 0.5f, 1.0f, {-1.0f, -1.0f}},    /* without clip_norm the scale is not looked at */
    {0.25, 0, 0, 1.0f, 1.0f, {-0.25f, -0.25f}},
    {0, 3, 0, 0.5f, 1.0f, {-0.5f, -0.5f}},
    {0.25, 3, 0, 0.5f, 1.0f, {-0.25f, -0.25f}},
    {0, 0, 0.5, 1.0f, 0.0f, {0.0f, 0.5f}},    /* weights 0.5 decay by lr 1 * 0.5 */
};

START_TEST(clipping_and_decay_are_as_the_plan_says) {
  const struct clipping *c = &clippings[_i];
  bench b;
  bench_shard(&b, NULL);
  bool decays = c->weight_decay > 0;
  bench_open(&b, &(test_plan_options){.world = 1,
                                      .lr = 1,
                                      .init = decays ? BL_INIT_CONSTANT : BL_INIT_ZERO,
                                      .clip_value = c->clip_value,
                                      .clip_norm = c->clip_norm,
                                      .weight_decay = c->weight_decay});
  name m = named(0, 0);
  push_all(&b, &m, c->gradient);
  commit_with(&b, &m, c->scale, false, N_CHUNKS);
  float w[48];
  ck_assert(fetch(&b, 0, 1, w));
  float first = decays ? 0.5f - 0.25f : c->expected[0];
  ck_assert_float_eq(w[0], first);
  ck_assert(fetch(&b, 4, 1, w));
  ck_assert_float_eq(w[0], c->expected[1]);
  bench_close(&b);
}
END_TEST

START_TEST(groups_change_the_rate_and_the_decay_and_freeze) {
  bench b;
  bench_shard(&b, NULL);
  uint32_t world = _i == 0 ? 1 : 2; /* with one rank and exact frames there is no sum */
  bench_open(&b, &(test_plan_options){.world = world, .lr = 1, .init = BL_INIT_CONSTANT, .grouped = true});
  for (uint32_t r = 0; r < world; r++) {
    name m = named(r, 0);
    push_all(&b, &m, 1.0f / (float)world);
    commit(&b, &m);
  }
  float w[48];
  static const float want[] = {0.5f - 0.5f * (1 + 0.02f * 0.5f), 0.5f - (1 + 0.03f * 0.5f), 0.5f};
  static const uint32_t first_chunks[] = {0, 4, 5};
  for (uint32_t t = 0; t < 3; t++) {
    ck_assert(fetch(&b, first_chunks[t], 1, w));
    ck_assert_float_eq_tol(w[0], want[t], 1e-6f);
  }
  ck_assert_float_eq(w[0], 0.5f);
  bench_close(&b);
}
END_TEST

START_TEST(a_frozen_tensor_takes_any_gradient_and_no_memory_for_it) {
  uint64_t memory[2];
  for (int frozen = 0; frozen < 2; frozen++) {
    bench b;
    bench_shard(&b, NULL);
    bench_open(&b, &(test_plan_options){.world = 2, .init = BL_INIT_CONSTANT, .grouped = frozen});
    for (uint32_t r = 0; r < 2; r++) {
      name m = named(r, 0);
      for (uint32_t id = 0; id < N_CHUNKS; id++)
        push(&b, &m, id, frozen && id >= 5 ? NAN : 0.25f);
      commit(&b, &m);
    }
    float w[48];
    ck_assert(fetch(&b, 5, 1, w));
    ck_assert(frozen ? w[0] == 0.5f : w[0] < 0.5f);
    srv_shard_job_info info;
    ck_assert_ok(srv_shard_job_status(b.shard, 7, &info));
    ck_assert_int_eq(info.state, BALLAST__CONTROL__SHARD_JOB_STATE__SHARD_JOB_OPEN);
    memory[frozen] = info.memory_bytes;
    bench_close(&b);
  }
  ck_assert_uint_eq(memory[0] - memory[1], 64 * sizeof(float));
}
END_TEST

/* ---- averages ---- */

static bool fetch_average(bench *b, uint32_t chunk, uint64_t want, float *out) {
  bl_data_msg d = {.type = BL_MSG_PULL};
  d.pull = (bl_pull){.job = 7, .view = 1, .incarnation = 1, .want = want, .request = 95, .have_nothing = true,
                     .average = true, .n_chunks = 1, .chunks = {chunk}};
  forget(&b->net);
  say(b, &d, NULL, 0);
  for (size_t i = 0; i < b->net.n; i++) {
    const caught *c = b->net.at[i];
    if (c->d.type != BL_MSG_FRAMES || c->n_frames == 0)
      continue;
    ck_assert(c->d.frames.average);
    ck_assert_ok(bl_codec_apply(c->frames[0]->data, c->frames[0]->size, chunk_elems[chunk], out, NULL));
    return true;
  }
  return false;
}

START_TEST(averages_are_exact_and_follow_the_weights) {
  bench b;
  bench_shard(&b, NULL);
  bench_open(&b, &(test_plan_options){.world = 1, .lr = 1, .init = BL_INIT_CONSTANT, .codec_pull = "float16",
                                      .average_ema = 0.5, .grouped = true});
  float w[48];
  ck_assert(fetch_average(&b, 4, 0, w));
  ck_assert_float_eq(w[0], 0.5f); /* before any update: the weights */
  ck_assert(!fetch_average(&b, 4, 1, w));
  ck_assert_int_eq(refused(&b.net), BL_EAGAIN);
  double sum = 0, factors = 0, weight = 0.5;
  for (uint64_t clock = 0; clock < 4; clock++) {
    name m = named(0, clock);
    push_all(&b, &m, 0.25f);
    commit(&b, &m);
    weight -= 0.25 + 0.03 * weight;
    sum = sum * 0.5 + weight;
    factors = factors * 0.5 + 1;
    ck_assert(fetch_average(&b, 4, clock + 1, w));
    ck_assert_float_eq_tol(w[0], (float)(sum / factors), 1e-6f);
  }
  ck_assert(fetch_average(&b, 5, 4, w));
  ck_assert_float_eq(w[0], 0.5f); /* frozen */
  bench_close(&b);
}
END_TEST

START_TEST(a_job_without_an_average_refuses_to_give_one) {
  bench b;
  bench_shard(&b, NULL);
  bench_open(&b, &(test_plan_options){.world = 1});
  float w[48];
  ck_assert(!fetch_average(&b, 0, 0, w));
  ck_assert_int_eq(refused(&b.net), BL_EINVAL);
  bench_close(&b);
}
END_TEST

/* ---- norms ---- */

static void ask_norms(bench *b, const name *m, uint32_t first) {
  bl_data_msg d = {.type = BL_MSG_ASK_NORMS};
  d.ask_norms = (bl_ask_norms){.job = m->job, .view = m->view, .rank = m->rank, .incarnation = m->incarnation,
                               .clock = m->clock, .request = 96, .first = first};
  forget(&b->net);
  say(b, &d, NULL, 0);
}

/* The last answer's sum of squares of a chunk; below 0: not in it. */
static double norm_of(const bench *b, uint32_t chunk) {
  const bl_data_msg *d = last_of(&b->net, BL_MSG_NORMS);
  for (uint32_t i = 0; d != NULL && i < d->norms.n_chunks; i++)
    if (d->norms.chunks[i] == chunk)
      return d->norms.squares[i];
  return -1;
}

START_TEST(norms_are_told_when_all_ranks_are_in_the_sums_and_kept_for_one_clock_more) {
  bench b;
  bench_shard(&b, NULL);
  bench_open(&b, &(test_plan_options){.world = 2, .lr = 1, .init = BL_INIT_ZERO, .clip_global_norm = 1, .grouped = true});
  name m[2] = {named(0, 0), named(1, 0)};
  push_all(&b, &m[0], 1.0f);
  ask_norms(&b, &m[0], 0);
  ck_assert_ptr_null(last_of(&b.net, BL_MSG_NORMS));
  push_all(&b, &m[1], 2.0f);
  ck_assert_double_eq(norm_of(&b, 0), 9.0 * 48);
  ck_assert_double_eq(norm_of(&b, 4), 9.0 * 7);
  ck_assert_double_eq(norm_of(&b, 5), 0); /* frozen */
  ck_assert_uint_eq(last_of(&b.net, BL_MSG_NORMS)->norms.rank, 0);
  ask_norms(&b, &m[1], 4);
  ck_assert_double_lt(norm_of(&b, 3), 0);
  ck_assert_double_eq(norm_of(&b, 4), 9.0 * 7);
  for (int r = 0; r < 2; r++)
    commit_with(&b, &m[r], 0.5f, false, N_CHUNKS);
  ck_assert_uint_eq(clock_of(&b), 1);
  ask_norms(&b, &m[1], 0); /* carried anew, and another shard still waits */
  ck_assert_double_eq(norm_of(&b, 0), 9.0 * 48);
  float w[48];
  ck_assert(fetch(&b, 0, 1, w));
  ck_assert_float_eq(w[0], -0.5f * 3 * 0.5f); /* the rate of the group is a half */
  for (int r = 0; r < 2; r++) {
    m[r].clock = 1;
    push_all(&b, &m[r], 1.0f);
  }
  m[0].clock = 2;
  ask_norms(&b, &m[0], 0);
  ck_assert_int_eq(refused(&b.net), BL_ECLOCK);
  m[0].clock = 1;
  ask_norms(&b, &m[0], 0);
  ck_assert_double_eq(norm_of(&b, 0), 4.0 * 48);
  bench_close(&b);
}
END_TEST

START_TEST(ranks_that_clip_by_different_factors_fail_the_job) {
  bench b;
  bench_shard(&b, NULL);
  bench_open(&b, &(test_plan_options){.world = 2, .clip_global_norm = 1});
  for (uint32_t r = 0; r < 2; r++) {
    name m = named(r, 0);
    push_all(&b, &m, 1.0f);
  }
  for (uint32_t r = 0; r < 2; r++) {
    name m = named(r, 0);
    commit_with(&b, &m, r == 0 ? 0.5f : 0.25f, false, N_CHUNKS);
  }
  srv_shard_job_info info;
  ck_assert_ok(srv_shard_job_status(b.shard, 7, &info));
  ck_assert_int_eq(info.status, BL_EMISMATCH);
  ck_assert_ptr_nonnull(strstr(info.text, "0.25"));
  bench_close(&b);
}
END_TEST

START_TEST(norms_of_a_job_that_does_not_clip_by_them_are_refused) {
  bench b;
  bench_shard(&b, NULL);
  bench_open(&b, &(test_plan_options){.world = 1});
  name m = named(0, 0);
  ask_norms(&b, &m, 0);
  ck_assert_int_eq(refused(&b.net), BL_EINVAL);
  bench_close(&b);
}
END_TEST

START_TEST(a_gradient_that_is_not_finite_stops_the_job) {
  bench b;
  bench_shard(&b, NULL);
  bench_open(&b, &(test_plan_options){.world = 1});
  name m = named(0, 0);
  push_all(&b, &m, _i == 0 ? NAN : _i == 1 ? INFINITY : 1.0f);
  commit_with(&b, &m, 1.0f, _i == 2, N_CHUNKS);
  srv_shard_job_info info;
  ck_assert_ok(srv_shard_job_status(b.shard, 7, &info));
  ck_assert_int_eq(info.state, BALLAST__CONTROL__SHARD_JOB_STATE__SHARD_JOB_FAILED);
  ck_assert_int_eq(info.status, BL_ENOTFINITE);
  ck_assert(info.text[0] != '\0');
  forget(&b.net);
  ask(&b, &m, 0, 0);
  ck_assert_int_eq(refused(&b.net), BL_ENOTFINITE);
  bench_close(&b);
}
END_TEST

static bool says_skipped(const net *n) {
  const bl_data_msg *d = last_of(n, BL_MSG_FRAMES);
  ck_assert_ptr_nonnull(d);
  return d->frames.skipped;
}

/* One rank meets a NaN: nobody's gradient counts, the version goes on, and whoever gets the weights is told. */
START_TEST(a_skipped_clock_changes_nothing_but_the_version) {
  static const test_plan_options jobs[] = {
      {.world = 2, .optimizer = "momentum"},
      {.world = 2, .codec_pull = "float16"},
      {.world = 1},
      {.world = 2, .clip_norm = 10},
      {.world = 2, .clip_global_norm = 10},
      {.world = 2, .average_ema = 0.5},
  };
  bench b;
  test_plan_options o = jobs[_i];
  o.not_finite = BL_NOT_FINITE_SKIP;
  o.lr = 0.5;
  bench_shard(&b, NULL);
  bench_open(&b, &o);
  float before[48], w[48];
  for (uint64_t clock = 0; clock < 4; clock++) {
    bool bad = clock == 1 || clock == 2;
    ck_assert(fetch(&b, 0, clock, before));
    ck_assert_int_eq(says_skipped(&b.net), clock == 2 || clock == 3);
    for (uint32_t r = o.world; r-- > 0;) {
      name m = named(r, clock);
      bool not_finite = bad && r == o.world - 1; /* its codec may have made any numbers of them */
      push_all(&b, &m, not_finite && clock == 1 ? NAN : 0.25f);
      commit_with(&b, &m, not_finite || o.clip_global_norm == 0 ? 1 : 0.5f, not_finite, N_CHUNKS);
    }
    ck_assert_uint_eq(clock_of(&b), clock + 1);
    ck_assert(fetch(&b, 0, clock + 1, w));
    ck_assert_int_eq(memcmp(before, w, sizeof w) == 0, bad);
  }
  srv_shard_job_info info;
  ck_assert_ok(srv_shard_job_status(b.shard, 7, &info));
  ck_assert_uint_eq(info.clocks_skipped, 2);
  bench_close(&b);
}
END_TEST

START_TEST(of_free_running_ranks_only_the_one_with_a_nan_is_skipped) {
  bench b;
  bench_shard(&b, NULL);
  bench_open(&b, &(test_plan_options){.world = 2, .sync = "asp", .lr = 1, .not_finite = BL_NOT_FINITE_SKIP,
                                      .init = BL_INIT_CONSTANT});
  float w[48];
  for (uint32_t r = 0; r < 2; r++) {
    name m = named(r, 0);
    push_all(&b, &m, r == 0 ? NAN : 0.25f);
    commit_with(&b, &m, 1, r == 0, N_CHUNKS);
  }
  ck_assert(fetch(&b, 0, 1, w));
  ck_assert_float_eq(w[0], 0.5f - 0.25f);
  srv_shard_job_info info;
  ck_assert_ok(srv_shard_job_status(b.shard, 7, &info));
  ck_assert_uint_eq(info.clocks_skipped, 1);
  bench_close(&b);
}
END_TEST

/* What no rank has said: a sum that overflows would spread if it were skipped on this shard alone. */
START_TEST(a_sum_that_overflows_fails_a_job_that_skips) {
  bench b;
  bench_shard(&b, NULL);
  bench_open(&b, &(test_plan_options){.world = 2, .not_finite = _i == 0 ? BL_NOT_FINITE_SKIP : BL_NOT_FINITE_CLIP});
  for (uint32_t r = 0; r < 2; r++) {
    name m = named(r, 0);
    push_all(&b, &m, 3e38f);
    commit(&b, &m);
  }
  srv_shard_job_info info;
  ck_assert_ok(srv_shard_job_status(b.shard, 7, &info));
  ck_assert_int_eq(info.status, BL_ENOTFINITE);
  bench_close(&b);
}
END_TEST

/* ---- versions ---- */

START_TEST(the_version_before_is_served_while_it_may_be_redone) {
  bench b;
  bool keeps = _i == 0;
  bench_shard(&b, NULL);
  bench_open(&b, &(test_plan_options){.world = keeps ? 2 : 1, .init = BL_INIT_CONSTANT, .lr = 1});
  for (uint64_t clock = 0; clock < 2; clock++)
    for (uint32_t r = 0; r < b.plan->world; r++) {
      name m = named(r, clock);
      push_all(&b, &m, 1.0f / (float)b.plan->world);
      commit(&b, &m);
    }
  float w[48];
  ck_assert(fetch(&b, 0, 2, w));
  ck_assert_float_eq(w[0], 0.5f - 2.0f);
  ck_assert(fetch(&b, 0, 1, w) == keeps);
  ck_assert_int_eq(refused(&b.net), keeps ? BL_OK : BL_ECLOCK);
  if (keeps)
    ck_assert_float_eq(w[0], 0.5f - 1.0f);
  ck_assert(!fetch(&b, 0, 0, w));
  ck_assert_int_eq(refused(&b.net), BL_ECLOCK);
  ck_assert(!fetch(&b, 0, 4, w));
  ck_assert_int_eq(refused(&b.net), BL_ECLOCK);
  bench_close(&b);
}
END_TEST

START_TEST(a_snapshot_and_the_differences_give_the_same_weights) {
  bench b;
  bench_shard(&b, NULL);
  bench_open(&b, &(test_plan_options){.world = 1, .codec_pull = "float16", .lr = 0.1});
  float follows[48], fresh[48];
  ck_assert(fetch(&b, 0, 0, follows));
  for (uint64_t clock = 0; clock < 5; clock++) {
    name m = named(0, clock);
    m.answer = true;
    push_all(&b, &m, 0.001f * (float)(clock + 1));
    forget(&b.net);
    commit(&b, &m);
    bool small = false;
    for (size_t i = 0; i < b.net.n; i++)
      for (uint32_t k = 0; b.net.at[i]->d.type == BL_MSG_FRAMES && k < b.net.at[i]->n_frames; k++)
        if (b.net.at[i]->d.frames.chunks[k] == 0) {
          const bl_frame *f = b.net.at[i]->frames[k];
          small = f->size < 48 * sizeof(float);
          ck_assert_ok(bl_codec_apply(f->data, f->size, 48, follows, NULL));
        }
    ck_assert(small);
    ck_assert(fetch(&b, 0, clock + 1, fresh));
    ck_assert(memcmp(follows, fresh, sizeof fresh) == 0);
  }
  bench_close(&b);
}
END_TEST

/* A commit with choices behind it. */
static void commit_choosing(bench *b, const name *m, const char *choices) {
  bl_data_msg d = {.type = BL_MSG_COMMIT};
  d.commit = (bl_commit){.job = m->job,
                         .view = m->view,
                         .rank = m->rank,
                         .incarnation = m->incarnation,
                         .clock = m->clock,
                         .request = 98,
                         .scale = 1,
                         .n_samples = 1,
                         .n_chunks = N_CHUNKS,
                         .n_choices = 1};
  bl_frame *f = bl_frame_new(strlen(choices));
  ck_assert_ptr_nonnull(f);
  memcpy(f->data, choices, f->size);
  say(b, &d, &f, 1);
}

/* Applies what the shard has sent of chunk 0; returns the size of the last frame. */
static size_t follow(const bench *b, float *follows) {
  size_t size = 0;
  for (size_t i = 0; i < b->net.n; i++)
    for (uint32_t k = 0; b->net.at[i]->d.type == BL_MSG_FRAMES && k < b->net.at[i]->n_frames; k++)
      if (b->net.at[i]->d.frames.chunks[k] == 0) {
        const bl_frame *f = b->net.at[i]->frames[k];
        ck_assert_ok(bl_codec_apply(f->data, f->size, 48, follows, NULL));
        size = f->size;
      }
  return size;
}

START_TEST(a_job_that_adapts_changes_the_codec_of_its_pulls_between_two_clocks) {
  static const struct {
    uint64_t clock;
    const char *choices;
  } chosen[] = {{2, "0=float16\n2=int8\n"}, {15, "0=float32\n"}, {28, "0=topk(0.1, ternary)\n"}, {29, "0=float32\n"}};
  bench b;
  bench_shard(&b, &(srv_shard_config){0});
  bench_open(&b, &(test_plan_options){.world = 1, .adapts = true, .lr = 0.1, .clocks = 40});
  float follows[48], fresh[48], before[48];
  ck_assert(fetch(&b, 0, 0, follows));
  for (uint64_t clock = 0; clock < 36; clock++) {
    name m = named(0, clock);
    const char *choices = NULL;
    for (size_t i = 0; i < BL_COUNT_OF(chosen); i++)
      choices = chosen[i].clock == clock ? chosen[i].choices : choices;
    memcpy(before, follows, sizeof before);
    m.answer = true;
    push_all(&b, &m, 0.001f * (float)(clock + 1));
    forget(&b.net);
    if (choices != NULL)
      commit_choosing(&b, &m, choices);
    else
      commit(&b, &m);
    size_t size = follow(&b, follows), dense = BL_CODEC_HEADER_BYTES + 48 * sizeof(float);
    bool lossy = (clock >= 2 && clock < 15) || clock >= 28; /* what comes one clock behind another choice does not count */
    ck_assert_msg((size < dense) == lossy, "clock %d: %zu bytes", (int)clock, size);
    ck_assert(fetch(&b, 0, clock + 1, fresh));
    ck_assert(memcmp(follows, fresh, sizeof fresh) == 0);
    ck_assert(fetch(&b, 0, clock, fresh)); /* who has to do the clock again finds what the others had */
    ck_assert(memcmp(before, fresh, sizeof fresh) == 0);
  }
  bench_close(&b);
}
END_TEST

static const struct {
  bool adapts;
  uint32_t rank;
  const char *choices, *says;
} bad_choices[] = {
    {false, 0, "0=int8\n", "does not adapt"},         {true, 1, "0=int8\n", "lets rank 0 do that"},
    {true, 0, "0=int8", "cut off"},                   {true, 0, "0=int9\n", "there is no codec 'int9'"},
    {true, 0, "77=int8\n", "none of the 3"},          {true, 0, "int8\n", "chooses no codec"},
    {true, 0, "0=int8\n=\n", "none of the 3"},        {true, 0, "-1=int8\n", "none of the 3"},
    {true, 0, "0=topk(0.1, ternary, int8, float16, float32, ternary, ternary, 2bit, 2bit, 2bit, 2bit)\n", "cut off"},
};

START_TEST(choices_that_mean_nothing_are_refused_and_change_nothing) {
  bench b;
  bench_shard(&b, &(srv_shard_config){0});
  bench_open(&b, &(test_plan_options){.world = 2, .adapts = bad_choices[_i].adapts});
  name m = named(bad_choices[_i].rank, 0);
  push_all(&b, &m, 1);
  uint64_t before = srv_shard_state_checksum(b.shard);
  forget(&b.net);
  commit_choosing(&b, &m, bad_choices[_i].choices);
  ck_assert_int_eq(refused(&b.net), BL_EINVAL);
  ck_assert_msg(strstr(b.net.at[0]->d.refuse.text, bad_choices[_i].says) != NULL, "%s", b.net.at[0]->d.refuse.text);
  ck_assert_uint_eq(srv_shard_state_checksum(b.shard), before);
  bench_close(&b);
}
END_TEST

/* ---- limits ---- */

START_TEST(beyond_the_hold_limit_only_the_next_rank_is_admitted) {
  bench b;
  bench_shard(&b, &(srv_shard_config){.hold_bytes_max = 300});
  bench_open(&b, &(test_plan_options){.world = 3});
  name r0 = named(0, 0), r2 = named(2, 0);
  push(&b, &r2, 0, 1); /* 208 bytes */
  ck_assert_int_eq(refused(&b.net), BL_OK);
  push(&b, &r2, 1, 1);
  ck_assert_int_eq(refused(&b.net), BL_EAGAIN);
  forget(&b.net);
  push_all(&b, &r0, 1);
  ck_assert_int_eq(refused(&b.net), BL_OK);
  bench_close(&b);
}
END_TEST

START_TEST(replies_wait_until_their_entry_is_safe) {
  bench b;
  bench_shard(&b, &(srv_shard_config){.has_follower = true});
  bench_open(&b, &(test_plan_options){.world = 1});
  srv_shard_set_safe(b.shard, srv_shard_last_lsn(b.shard));
  name m = named(0, 0);
  m.answer = true;
  push(&b, &m, 0, 1);
  ck_assert_uint_eq(b.net.n, 0);
  uint64_t pushed = srv_shard_last_lsn(b.shard);
  push_all(&b, &m, 1);
  commit(&b, &m);
  ck_assert_uint_eq(clock_of(&b), 1);
  ck_assert_uint_eq(b.net.n, 0);
  srv_shard_set_safe(b.shard, pushed);
  ck_assert_ptr_nonnull(last_of(&b.net, BL_MSG_ACK));
  turn(&b);
  ck_assert_ptr_null(last_of(&b.net, BL_MSG_FRAMES));
  srv_shard_set_safe(b.shard, srv_shard_last_lsn(b.shard));
  turn(&b);
  ck_assert_ptr_nonnull(last_of(&b.net, BL_MSG_FRAMES));
  bench_close(&b);
}
END_TEST

START_TEST(a_full_log_refuses_until_something_is_safe) {
  bench b;
  bench_shard(&b, &(srv_shard_config){.has_follower = true, .log_bytes_max = 1000});
  bench_open(&b, &(test_plan_options){.world = 1});
  srv_shard_set_safe(b.shard, srv_shard_last_lsn(b.shard));
  name m = named(0, 0);
  for (uint32_t i = 0; i < 3; i++)
    push(&b, &m, i, 1);
  ck_assert_int_eq(refused(&b.net), BL_EAGAIN);
  srv_shard_set_safe(b.shard, srv_shard_last_lsn(b.shard));
  forget(&b.net);
  push(&b, &m, 2, 1);
  ck_assert_int_eq(refused(&b.net), BL_OK);
  bench_close(&b);
}
END_TEST

START_TEST(what_a_full_transport_refuses_is_sent_later) {
  bench b;
  bench_shard(&b, NULL);
  bench_open(&b, &(test_plan_options){.world = 1});
  name m = named(0, 0);
  b.net.answer = BL_EAGAIN;
  ask(&b, &m, 0, 0);
  ask(&b, &m, 1, 0);
  uint64_t next = srv_shard_tick(b.shard, 5);
  ck_assert(next > 5 && next != UINT64_MAX);
  b.net.answer = BL_OK;
  turn(&b);
  ck_assert_uint_eq(b.net.n, 1);
  ck_assert_uint_eq(last_of(&b.net, BL_MSG_FRAMES)->frames.n_chunks, 2);
  ck_assert_uint_eq(srv_shard_tick(b.shard, 5), UINT64_MAX);
  bench_close(&b);
}
END_TEST

START_TEST(a_refused_frame_is_not_made_again) {
  bench b;
  bench_shard(&b, NULL);
  bench_open(&b, &(test_plan_options){.world = 1});
  bl_data_msg d = {.type = BL_MSG_PULL};
  d.pull = (bl_pull){.job = 7, .view = 1, .incarnation = 1, .have_nothing = true, .n_chunks = 2, .chunks = {0, 1}};
  b.net.answer = BL_EAGAIN;
  say(&b, &d, NULL, 0);
  const bl_frame *first = b.net.refused_frame;
  ck_assert_ptr_nonnull(first);
  srv_shard_tick(b.shard, 5);
  ck_assert_ptr_eq(b.net.refused_frame, first);
  bench_close(&b);
}
END_TEST

START_TEST(a_long_step_is_cut_into_slices) {
  static const uint64_t large[] = {8u << 20};
  bench b;
  bench_shard(&b, NULL);
  bench_open(&b, &(test_plan_options){.world = 1,
                                      .tensor_elems = large,
                                      .n_tensors = 1,
                                      .chunk_elems = 1 << 18,
                                      .init = BL_INIT_ZERO});
  float *x = calloc(1 << 18, sizeof *x);
  ck_assert_ptr_nonnull(x);
  name m = named(0, 0);
  for (uint32_t i = 0; i < 32; i++) {
    bl_data_msg d = push_header(&m, i);
    bl_frame *f = test_frame("float32", x, 1 << 18, 0);
    say(&b, &d, &f, 1);
  }
  free(x);
  bl_data_msg d = {.type = BL_MSG_COMMIT};
  d.commit = (bl_commit){.job = 7, .view = 1, .incarnation = 1, .scale = 1, .n_samples = 1, .n_chunks = 32};
  bl_msg msg = BL_MSG_INIT;
  ck_assert_ok(bl_data_pack(&d, 0, &msg));
  srv_shard_on_msg(b.shard, &b.peer, &msg, 5);
  bl_msg_fini(&msg);
  int n = 1;
  while (srv_shard_tick(b.shard, 5) == 5)
    n++;
  ck_assert_int_ge(n, 8);
  bench_close(&b);
}
END_TEST

/* ---- ranks that run free ---- */

static void finish(bench *b, const name *m) {
  bl_data_msg d = {.type = BL_MSG_COMMIT};
  d.commit = (bl_commit){.job = m->job, .view = m->view, .rank = m->rank, .incarnation = m->incarnation,
                         .clock = m->clock, .request = 96, .scale = 1, .finished = true};
  say(b, &d, NULL, 0);
}

static void work_clock(bench *b, uint32_t rank, uint64_t clock, float value) {
  name m = named(rank, clock);
  push_all(b, &m, value);
  commit(b, &m);
}

/* The newest frames message, if it came in answer to `want`; the first weight of its first frame. */
static const bl_frames *answer(const bench *b, uint64_t want, float *ret_weight) {
  for (size_t i = b->net.n; i-- > 0;) {
    const caught *c = b->net.at[i];
    if (c->d.type != BL_MSG_FRAMES || c->d.frames.gate != want + 1)
      continue;
    float x[64] = {0}; /* what a difference is added to */
    if (c->frames[0]->size > 0)
      ck_assert_ok(bl_codec_apply(c->frames[0]->data, c->frames[0]->size, chunk_elems[c->d.frames.chunks[0]], x, NULL));
    *ret_weight = c->frames[0]->size > 0 ? x[0] : NAN;
    return &c->d.frames;
  }
  return NULL;
}

static const test_plan_options free_job = {.world = 2, .sync = "ssp", .staleness = 1, .lr = 1, .init = BL_INIT_ZERO};

START_TEST(an_update_of_a_free_rank_is_applied_when_its_clock_is_complete) {
  bench b;
  float w;
  bench_shard(&b, NULL);
  bench_open(&b, &free_job);
  name m = named(0, 0);
  push_all(&b, &m, 1);
  ask(&b, &m, 0, 0);
  const bl_frames *f = answer(&b, 0, &w);
  ck_assert_ptr_nonnull(f); /* the weights to begin with, without the open clock */
  ck_assert_uint_eq(f->version, 0);
  ck_assert_float_eq(w, 0);
  commit(&b, &m);
  ask(&b, &m, 0, 1);
  f = answer(&b, 1, &w);
  ck_assert_ptr_nonnull(f);
  ck_assert_uint_eq(f->version, 1);
  ck_assert_uint_eq(f->slowest, 0 + 1);
  ck_assert_float_eq(w, -1);
  work_clock(&b, 1, 0, 2); /* on its own, not added to rank 0's */
  ck_assert_uint_eq(clock_of(&b), 2);
  bench_close(&b);
}
END_TEST

START_TEST(a_rank_too_far_ahead_waits_for_the_slowest) {
  bench b;
  float w;
  bench_shard(&b, NULL);
  bench_open(&b, &free_job);
  work_clock(&b, 0, 0, 1);
  work_clock(&b, 0, 1, 1); /* clock 2 would be two ahead of rank 1, which works on 0 */
  name m = named(0, 2);
  ask(&b, &m, 0, 2);
  ck_assert_ptr_null(answer(&b, 2, &w));
  work_clock(&b, 1, 0, 5);
  ck_assert_ptr_nonnull(answer(&b, 2, &w));
  ck_assert_float_eq(w, -7);
  bench_close(&b);
}
END_TEST

START_TEST(asynchronous_ranks_wait_for_nobody) {
  bench b;
  float w;
  test_plan_options o = free_job;
  o.sync = "asp";
  bench_shard(&b, NULL);
  bench_open(&b, &o);
  for (uint64_t clock = 0; clock < 20; clock++) {
    work_clock(&b, 0, clock, 1);
    name m = named(0, clock + 1);
    forget(&b.net);
    ask(&b, &m, 0, clock + 1);
    ck_assert_ptr_nonnull(answer(&b, clock + 1, &w));
    ck_assert_float_eq(w, -1 - (float)clock);
  }
  bench_close(&b);
}
END_TEST

START_TEST(who_holds_the_newest_version_gets_an_empty_frame) {
  bench b;
  float w;
  test_plan_options o = free_job;
  o.codec_pull = _i == 0 ? "float32" : "float16";
  bench_shard(&b, NULL);
  bench_open(&b, &o);
  work_clock(&b, 0, 0, 1);
  bl_data_msg d = {.type = BL_MSG_PULL};
  d.pull = (bl_pull){.job = 7, .view = 1, .incarnation = 1, .have = 1, .want = 1, .request = 5, .n_chunks = 1};
  say(&b, &d, NULL, 0);
  const bl_frames *f = answer(&b, 1, &w);
  ck_assert_ptr_nonnull(f);
  ck_assert(isnan(w));
  ck_assert_uint_eq(f->to[0], 1);
  forget(&b.net);
  d.pull.have = 0; /* one version behind: what is missing, or all */
  say(&b, &d, NULL, 0);
  f = answer(&b, 1, &w);
  ck_assert_ptr_nonnull(f);
  ck_assert_float_eq(w, -1);
  bench_close(&b);
}
END_TEST

START_TEST(the_final_weights_wait_for_every_rank_to_finish) {
  bench b;
  float w;
  bench_shard(&b, NULL);
  bench_open(&b, &free_job);
  work_clock(&b, 0, 0, 1);
  name r0 = named(0, 1), r1 = named(1, 0);
  finish(&b, &r0);
  ask(&b, &r0, 0, BL_CLOCK_FINISHED);
  ck_assert_ptr_null(answer(&b, BL_CLOCK_FINISHED, &w));
  work_clock(&b, 1, 0, 1); /* the finished one holds nobody back */
  work_clock(&b, 1, 1, 1);
  work_clock(&b, 1, 2, 1);
  ck_assert_int_eq(refused(&b.net), BL_OK);
  r1.clock = 3;
  finish(&b, &r1);
  ck_assert_ptr_nonnull(answer(&b, BL_CLOCK_FINISHED, &w));
  ck_assert_float_eq(w, -4);
  forget(&b.net);
  finish(&b, &r1); /* a repeat */
  ck_assert_ptr_nonnull(last_of(&b.net, BL_MSG_ACK));
  bl_data_msg hello = {.type = BL_MSG_HELLO};
  hello.hello = (bl_hello){.protocol_min = 1, .protocol_max = BL_PROTOCOL_VERSION, .job = 7, .incarnation = 1, .view = 1};
  say(&b, &hello, NULL, 0);
  ck_assert_uint_eq(last_of(&b.net, BL_MSG_WELCOME)->welcome.clock, BL_CLOCK_FINISHED);
  bench_close(&b);
}
END_TEST

START_TEST(a_rank_cannot_finish_in_step_or_within_a_clock) {
  bench b;
  test_plan_options o = free_job;
  o.sync = _i == 0 ? "bsp" : "ssp";
  bench_shard(&b, NULL);
  bench_open(&b, &o);
  name m = named(0, 0);
  push(&b, &m, 0, 1);
  finish(&b, &m);
  ck_assert_int_eq(refused(&b.net), BL_EINVAL);
  bench_close(&b);
}
END_TEST

START_TEST(a_replaced_free_rank_begins_its_clock_anew) {
  bench b;
  float w;
  test_plan_options o = free_job;
  o.clip_norm = 1;
  bench_shard(&b, NULL);
  bench_open(&b, &o);
  name r0 = named(0, 0);
  push_all(&b, &r0, 1000); /* its commit would have scaled that; it never comes */
  b.plan->view = 2;
  b.plan->incarnations[0] = 2;
  ck_assert_ok(srv_shard_open_job(b.shard, b.plan, NULL));
  r0.view = 2;
  r0.incarnation = 2;
  commit(&b, &r0); /* overtakes its pushes */
  ck_assert_uint_eq(clock_of(&b), 0);
  push_all(&b, &r0, 0.25f);
  ck_assert_uint_eq(clock_of(&b), 1);
  r0.clock = 1;
  ask(&b, &r0, 0, 1);
  ck_assert_ptr_nonnull(answer(&b, 1, &w));
  ck_assert_float_eq(w, -0.25f);
  srv_shard_stats stats;
  srv_shard_get_stats(b.shard, &stats);
  ck_assert_uint_eq(stats.held_bytes, 0);
  bench_close(&b);
}
END_TEST

START_TEST(a_finished_rank_changes_nothing_any_more) {
  bench b;
  float w;
  bench_shard(&b, NULL);
  bench_open(&b, &free_job);
  name r0 = named(0, 0), r1 = named(1, 0);
  finish(&b, &r0);
  finish(&b, &r1);
  uint64_t before = srv_shard_state_checksum(b.shard);
  static const uint64_t clocks[] = {0, 1, BL_CLOCK_FINISHED - 1, BL_CLOCK_FINISHED, UINT64_MAX};
  for (size_t i = 0; i < BL_COUNT_OF(clocks); i++) {
    work_clock(&b, 1, clocks[i], 9);
    ck_assert_uint_eq(srv_shard_state_checksum(b.shard), before);
  }
  ask(&b, &r0, 0, BL_CLOCK_FINISHED);
  ck_assert_ptr_nonnull(answer(&b, BL_CLOCK_FINISHED, &w));
  ck_assert_float_eq(w, 0);
  bench_close(&b);
}
END_TEST

START_TEST(schedules_go_by_the_samples_that_are_applied) {
  bench b;
  float w;
  test_plan_options o = free_job;
  o.world = 1;
  o.clocks = 4;
  bench_shard(&b, NULL);
  o.job = 7;
  o.n_shards = 1;
  b.plan = test_plan_new(&o);
  b.plan->clock_samples = 4; /* of which a clock of this rank has one: 16 updates in 4 clocks */
  char *was = b.plan->schedule->name;
  b.plan->schedule->name = (char *)"linear";
  ck_assert_ok(srv_shard_open_job(b.shard, b.plan, NULL));
  b.plan->schedule->name = was; /* it is freed with the plan */
  turn(&b);
  double want = 0;
  for (uint64_t clock = 0; clock < 16; clock++) {
    work_clock(&b, 0, clock, 1);
    want -= 1 - (double)(clock / 4) / 4;
  }
  name m = named(0, 16);
  ask(&b, &m, 0, 16);
  ck_assert_ptr_nonnull(answer(&b, 16, &w));
  ck_assert_float_eq(w, (float)want);
  bench_close(&b);
}
END_TEST

START_TEST(beyond_the_hold_limit_one_free_rank_still_comes_to_its_commit) {
  bench b;
  bench_shard(&b, &(srv_shard_config){.hold_bytes_max = 300});
  bench_open(&b, &free_job);
  name r0 = named(0, 0), r1 = named(1, 0);
  push(&b, &r1, 0, 1); /* the first that began */
  push_all(&b, &r0, 1);
  ck_assert_int_eq(refused(&b.net), BL_EAGAIN);
  forget(&b.net);
  push_all(&b, &r1, 1);
  ck_assert_int_eq(refused(&b.net), BL_OK);
  commit(&b, &r1);
  ck_assert_uint_eq(clock_of(&b), 1);
  forget(&b.net);
  push_all(&b, &r0, 1); /* now it is the one */
  commit(&b, &r0);
  ck_assert_uint_eq(clock_of(&b), 2);
  bench_close(&b);
}
END_TEST

/* ---- jobs ---- */

static void use_and_close(bench *b) {
  bench_open(b, &(test_plan_options){.world = 2, .optimizer = "adam", .codec_pull = "float16"});
  ck_assert_ok(srv_shard_open_job(b->shard, b->plan, NULL)); /* said twice */
  name r0 = named(0, 0), r1 = named(1, 0);
  push_all(b, &r0, 1);
  push(b, &r1, 1, 1);
  fetch(b, 0, 0, (float[48]){0});
  forget(&b->net);
  ck_assert_ok(srv_shard_close_job(b->shard, 7));
  bl_control_free(&b->plan->base);
  b->plan = NULL;
}

START_TEST(closing_a_job_frees_its_memory) {
  bench b;
  bench_shard(&b, NULL);
  use_and_close(&b); /* what the process keeps is made */
  uint64_t before = bl_alloc_get_stats().live_blocks;
  use_and_close(&b);
  ck_assert_uint_eq(bl_alloc_get_stats().live_blocks, before);
  ck_assert_status(srv_shard_close_job(b.shard, 7), BL_ENOENT);
  bench_close(&b);
}
END_TEST

START_TEST(a_job_that_cannot_be_opened_says_why) {
  bench b;
  bl_error err = BL_ERROR_INIT;
  bench_shard(&b, NULL);
  b.plan = test_plan_new(&(test_plan_options){.job = 7, .world = 1, .n_shards = 1, .optimizer = "magic"});
  ck_assert_status(srv_shard_open_job(b.shard, b.plan, &err), BL_EINVAL);
  srv_shard_job_info info;
  ck_assert_ok(srv_shard_job_status(b.shard, 7, &info));
  ck_assert_int_eq(info.state, BALLAST__CONTROL__SHARD_JOB_STATE__SHARD_JOB_FAILED);
  ck_assert_ptr_nonnull(strstr(info.text, "magic"));
  name m = named(0, 0);
  ask(&b, &m, 0, 0);
  ck_assert_int_eq(refused(&b.net), BL_EINVAL);
  ck_assert_ok(srv_shard_close_job(b.shard, 7));
  bench_close(&b);
}
END_TEST

START_TEST(a_view_that_moves_chunks_is_refused) {
  bench b;
  bench_shard(&b, NULL);
  bench_open(&b, &(test_plan_options){.world = 1, .n_shards = 2});
  b.plan->view = 2;
  b.plan->chunk_shards[0] ^= 1;
  ck_assert_status(srv_shard_open_job(b.shard, b.plan, NULL), BL_EMISMATCH);
  bench_close(&b);
}
END_TEST

START_TEST(lost_allocations_lose_no_step) {
  for (uint64_t n = 1; n < 60; n++) {
    bench b;
    bench_shard(&b, NULL);
    b.plan = test_plan_new(&(test_plan_options){
        .job = 7, .world = 2, .n_shards = 1, .optimizer = "adam", .codec_pull = _i == 0 ? "float32" : "float16"});
    bl_alloc_fail_after(n);
    bl_status st = srv_shard_open_job(b.shard, b.plan, NULL);
    turn(&b);
    bl_alloc_fail_after(0);
    if (st != BL_OK) {
      (void)!srv_shard_close_job(b.shard, 7);
      ck_assert_ok(srv_shard_open_job(b.shard, b.plan, NULL));
    }
    turn(&b);
    for (uint32_t r = 0; r < 2; r++) {
      name m = named(r, 0);
      for (uint32_t i = 0; i < N_CHUNKS; i++) {
        bl_data_msg d = push_header(&m, i);
        bl_msg msg = BL_MSG_INIT;
        ck_assert_ok(bl_msg_add_frame(&msg, constant_frame(1, chunk_elems[i])));
        ck_assert_ok(bl_data_pack(&d, 1, &msg));
        bl_alloc_fail_after(1 + n % 3); /* refused, or not answered */
        srv_shard_on_msg(b.shard, &b.peer, &msg, 5);
        srv_shard_tick(b.shard, 5);
        bl_alloc_fail_after(0);
        srv_shard_on_msg(b.shard, &b.peer, &msg, 5); /* repeated */
        bl_msg_fini(&msg);
      }
      commit(&b, &m);
      bl_alloc_fail_after(1);
      srv_shard_tick(b.shard, 5);
      bl_alloc_fail_after(0);
    }
    turn(&b);
    ck_assert_uint_eq(clock_of(&b), 1);
    ck_assert(fetch(&b, 0, 1, (float[48]){0}));
    bench_close(&b);
  }
}
END_TEST

int main(void) {
  Suite *s = suite_create("shard");
  TCase *t = tcase_create("refusals");
  tcase_add_loop_test(t, a_wrong_push_is_refused_with_its_reason_and_changes_nothing, 0,
                      (int)BL_COUNT_OF(refusals));
  tcase_add_test(t, a_hello_of_another_protocol_is_told_which_ones_are_spoken);
  tcase_add_test(t, a_commit_that_counts_other_chunks_is_refused);
  tcase_add_test(t, messages_with_flipped_bits_never_do_harm);
  tcase_add_loop_test(t, well_formed_messages_with_wild_numbers_harm_no_other_job, 0, 3);
  suite_add_tcase(s, t);
  t = tcase_create("exactly once");
  tcase_add_test(t, a_repeated_push_is_acknowledged_again_and_not_added);
  tcase_add_test(t, a_new_incarnation_hears_whose_bytes_count);
  tcase_add_test(t, a_clock_needs_every_chunk_and_every_commit);
  tcase_add_test(t, an_answer_waits_for_its_version);
  suite_add_tcase(s, t);
  t = tcase_create("arithmetic");
  tcase_add_loop_test(t, sums_are_made_in_rank_order, 0, 6);
  tcase_add_test(t, norms_are_told_when_all_ranks_are_in_the_sums_and_kept_for_one_clock_more);
  tcase_add_test(t, ranks_that_clip_by_different_factors_fail_the_job);
  tcase_add_test(t, norms_of_a_job_that_does_not_clip_by_them_are_refused);
  tcase_add_test(t, averages_are_exact_and_follow_the_weights);
  tcase_add_test(t, a_job_without_an_average_refuses_to_give_one);
  tcase_add_loop_test(t, groups_change_the_rate_and_the_decay_and_freeze, 0, 2);
  tcase_add_test(t, a_frozen_tensor_takes_any_gradient_and_no_memory_for_it);
  tcase_add_loop_test(t, clipping_and_decay_are_as_the_plan_says, 0, (int)BL_COUNT_OF(clippings));
  tcase_add_loop_test(t, a_gradient_that_is_not_finite_stops_the_job, 0, 3);
  tcase_add_loop_test(t, a_skipped_clock_changes_nothing_but_the_version, 0, 6);
  tcase_add_test(t, of_free_running_ranks_only_the_one_with_a_nan_is_skipped);
  tcase_add_loop_test(t, a_sum_that_overflows_fails_a_job_that_skips, 0, 2);
  tcase_add_loop_test(t, the_version_before_is_served_while_it_may_be_redone, 0, 2);
  tcase_add_test(t, a_snapshot_and_the_differences_give_the_same_weights);
  suite_add_tcase(s, t);
  t = tcase_create("limits");
  tcase_set_timeout(t, 60);
  tcase_add_test(t, a_job_that_adapts_changes_the_codec_of_its_pulls_between_two_clocks);
  tcase_add_loop_test(t, choices_that_mean_nothing_are_refused_and_change_nothing, 0, BL_COUNT_OF(bad_choices));
  tcase_add_test(t, beyond_the_hold_limit_only_the_next_rank_is_admitted);
  tcase_add_test(t, replies_wait_until_their_entry_is_safe);
  tcase_add_test(t, a_full_log_refuses_until_something_is_safe);
  tcase_add_test(t, what_a_full_transport_refuses_is_sent_later);
  tcase_add_test(t, a_refused_frame_is_not_made_again);
  tcase_add_test(t, a_long_step_is_cut_into_slices);
  suite_add_tcase(s, t);
  t = tcase_create("jobs");
  tcase_set_timeout(t, 60);
  tcase_add_test(t, an_update_of_a_free_rank_is_applied_when_its_clock_is_complete);
  tcase_add_test(t, a_rank_too_far_ahead_waits_for_the_slowest);
  tcase_add_test(t, asynchronous_ranks_wait_for_nobody);
  tcase_add_loop_test(t, who_holds_the_newest_version_gets_an_empty_frame, 0, 2);
  tcase_add_test(t, the_final_weights_wait_for_every_rank_to_finish);
  tcase_add_loop_test(t, a_rank_cannot_finish_in_step_or_within_a_clock, 0, 2);
  tcase_add_test(t, a_replaced_free_rank_begins_its_clock_anew);
  tcase_add_test(t, a_finished_rank_changes_nothing_any_more);
  tcase_add_test(t, schedules_go_by_the_samples_that_are_applied);
  tcase_add_test(t, beyond_the_hold_limit_one_free_rank_still_comes_to_its_commit);
  tcase_add_test(t, closing_a_job_frees_its_memory);
  tcase_add_test(t, a_job_that_cannot_be_opened_says_why);
  tcase_add_test(t, a_view_that_moves_chunks_is_refused);
  tcase_add_loop_test(t, lost_allocations_lose_no_step, 0, 2);
  suite_add_tcase(s, t);
  return test_run(&s, 1);
}
