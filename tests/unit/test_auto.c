/* SPDX-License-Identifier: Apache-2.0
 *
 * The choice of codecs, on links that are arithmetic: ranks that share a server's link push and pull chunk by chunk, with
 * encoding, latency and noise, and tell their engines what a session would. What an engine chooses is held against every
 * fixed choice, run through the same arithmetic.
 */
#include "base/alloc.h"
#include "base/clock.h"
#include "base/num.h"
#include "base/rng.h"
#include "client/auto.h"
#include "client/auto_job.h"
#include "client/choice.h"
#include "client/link.h"
#include "codec/spec.h"
#include "tests/support/support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MS 1e6
#define RANKS_MAX 4
#define TENSORS_MAX 8
#define CHUNK (1u << 18)
#define STEPS_MAX 8
#define TENSORS_N 6
#define NOISE_SEEDS 2

/* ---- codecs that only have numbers ---- */

static size_t whole_bound(const bl_codec_spec *spec, uint32_t n) { return 16 + (size_t)(4 * n * spec->density); }

static const bl_codec fake_exact = {.id = BL_CODEC_FLOAT32, .name = "float32", .exact = true, .bound_bytes = whole_bound};
static const bl_codec fake_float16 = {.id = BL_CODEC_FLOAT16, .name = "float16", .bound_bytes = whole_bound};
static const bl_codec fake_int8 = {.id = BL_CODEC_INT8, .name = "int8", .bound_bytes = whole_bound};
static const bl_codec fake_int4 = {.id = BL_CODEC_INT4, .name = "int4", .bound_bytes = whole_bound};
static const bl_codec fake_topk = {.id = BL_CODEC_TOPK, .name = "topk", .sparse = true, .bound_bytes = whole_bound};

typedef struct truth {
  double bytes, encode_ns, decode_ns, error; /* of an element */
} truth;

static const bl_codec_spec push_ladder[] = {
    {.codec = &fake_exact, .density = 1},    {.codec = &fake_float16, .density = 1},
    {.codec = &fake_int8, .density = 1},     {.codec = &fake_int4, .density = 1},
    {.codec = &fake_topk, .density = 0.1f, .values = BL_VALUES_INT8},
    {.codec = &fake_topk, .density = 0.03f, .values = BL_VALUES_INT8},
    {.codec = &fake_topk, .density = 0.03f, .values = BL_VALUES_TERNARY},
};
/* About what the kernels of a core with AVX-512 do out of cache, error feedback included. */
static const truth push_truth[] = {{4, 0.3, 0.2, 0},       {2, 0.35, 0.25, 1e-7},   {1.02, 0.4, 0.25, 5e-5}, {0.52, 0.45, 0.25, 0.028},
                                   {0.16, 0.8, 0.15, 0.35}, {0.051, 0.5, 0.1, 0.6}, {0.024, 0.5, 0.1, 0.65}};
static const bl_codec_spec pull_ladder[] = {
    {.codec = &fake_exact, .density = 1}, {.codec = &fake_float16, .density = 1},
    {.codec = &fake_int8, .density = 1},  {.codec = &fake_int4, .density = 1},
    {.codec = &fake_topk, .density = 0.2f, .values = BL_VALUES_INT8},
    {.codec = &fake_topk, .density = 0.1f, .values = BL_VALUES_INT8},
};
static const truth pull_truth[] = {{4, 0.3, 0.2, 0},        {2, 0.35, 0.25, 1e-7},  {1.02, 0.4, 0.25, 5e-5},
                                   {0.52, 0.45, 0.25, 0.028}, {0.3, 0.9, 0.2, 0.2}, {0.16, 0.8, 0.15, 0.35}};
#define N_PUSH BL_COUNT_OF(push_ladder)
#define N_PULL BL_COUNT_OF(pull_ladder)

/* ---- a cluster that is arithmetic ---- */

typedef struct net {
  double rank_rate, server_rate; /* bytes per second; the server's is shared by the ranks */
  double latency_ns;             /* round trip */
  double compute_ns, overlap_ns;
  double noise;                  /* of transfers and computing: factors in 1 +- noise */
} net;

typedef struct cluster {
  net net;
  uint32_t world, n_tensors;
  uint64_t elems[TENSORS_MAX];
  bool chosen[TENSORS_MAX];
  bl_auto *autos[RANKS_MAX]; /* NULL: fixed steps */
  uint32_t fixed[2];
  double now[RANKS_MAX];
  uint64_t clock, draws;
} cluster;

static const uint64_t mlp[TENSORS_N] = {784 * 512, 512, 512 * 256, 256, 2560, 10};

static double noisy(cluster *c, double v) {
  double u = (double)(bl_rng_u64(7, 0, c->draws++) >> 11) * 0x1p-53;
  return v * (1 + c->net.noise * (2 * u - 1));
}

static uint32_t step_of(const bl_codec_spec *ladder, size_t n, const bl_codec_spec *s) {
  for (uint32_t i = 0; i < n; i++)
    if (bl_codec_spec_equal(&ladder[i], s))
      return i;
  ck_abort_msg("a spec that is not on the ladder");
  return 0;
}

static uint32_t push_step(const cluster *c, uint32_t rank, uint32_t t) {
  if (!c->chosen[t])
    return 0;
  return c->autos[rank] == NULL ? c->fixed[0] : step_of(push_ladder, N_PUSH, bl_auto_push_spec(c->autos[rank], t));
}

static uint32_t pull_step(const cluster *c, uint32_t t) {
  if (!c->chosen[t])
    return 0;
  return c->autos[0] == NULL ? c->fixed[1] : step_of(pull_ladder, N_PULL, bl_auto_pull_spec(c->autos[0], t));
}

static double share(const cluster *c) { return BL_MIN(c->net.rank_rate, c->net.server_rate / c->world) / 1e9; }

/* Acknowledgements that have come in by now, or all. */
typedef struct acks {
  double at[64];
  uint64_t bytes[64];
  uint32_t n, taken;
} acks;

static void poll_acks(bl_auto *a, acks *k, double now, bool all) {
  for (; k->taken < k->n && (all || k->at[k->taken] <= now); k->taken++)
    if (a != NULL)
      bl_auto_push_acked(a, k->bytes[k->taken], (uint64_t)BL_MAX(k->at[k->taken], now));
}

static void try_codecs(bl_auto *a) {
  bl_auto_trial t;
  while (bl_auto_next_trial(a, &t)) {
    const truth *codec = t.spec->density == 0.2f ? &pull_truth[4] : &push_truth[step_of(push_ladder, N_PUSH, t.spec)];
    bl_auto_tried(a, &t, codec->error, (uint64_t)(codec->bytes * t.n));
  }
}

/* A rank computes and pushes; returns when its last byte is on the server. */
static double push_side(cluster *c, uint32_t rank) {
  bl_auto *a = c->autos[rank];
  double all = 0, done = 0, encode = 0, begin = c->now[rank], link = begin, now = begin;
  double compute = noisy(c, c->net.compute_ns), overlap = compute * c->net.overlap_ns / c->net.compute_ns;
  acks k = {.n = 0};
  for (uint32_t t = 0; t < c->n_tensors; t++)
    all += (double)c->elems[t];
  if (a != NULL) {
    bl_auto_begin_clock(a, c->clock, (uint64_t)begin);
    try_codecs(a);
  }
  for (uint32_t t = c->n_tensors; t-- > 0;) {
    for (uint64_t first = 0; first < c->elems[t]; first += CHUNK) {
      const truth *codec = &push_truth[push_step(c, rank, t)];
      double n = (double)BL_MIN(CHUNK, c->elems[t] - first), ns = codec->encode_ns * n, bytes = 16 + codec->bytes * n;
      done += n;
      encode += ns;
      now = begin + compute - overlap * (1 - done / all) + encode;
      if (a != NULL) {
        poll_acks(a, &k, now, false);
        bl_auto_encoded(a, c->chosen[t] ? bl_auto_push_spec(a, t) : &push_ladder[0], (uint64_t)n, (uint64_t)bytes, (uint64_t)ns);
        bl_auto_push_sent(a, (uint64_t)bytes, (uint64_t)now);
      }
      link = BL_MAX(link, now) + noisy(c, bytes / share(c));
      k.at[k.n] = link + c->net.latency_ns;
      k.bytes[k.n++] = (uint64_t)bytes;
    }
  }
  if (a != NULL)
    bl_auto_committed(a, (uint64_t)now);
  poll_acks(a, &k, now, true);
  c->now[rank] = now;
  return link + c->net.latency_ns / 2;
}

/* The shards have everything at `from`: a rank takes the new weights. */
static void pull_side(cluster *c, uint32_t rank, double from) {
  bl_auto *a = c->autos[rank];
  double encoded = from, link = from, free_at = c->now[rank];
  for (uint32_t t = 0; t < c->n_tensors; t++) {
    for (uint64_t first = 0; first < c->elems[t]; first += CHUNK) {
      const truth *codec = &pull_truth[pull_step(c, t)];
      double n = (double)BL_MIN(CHUNK, c->elems[t] - first), bytes = 16 + codec->bytes * n;
      encoded += codec->encode_ns * n;
      link = BL_MAX(link, encoded) + noisy(c, bytes / share(c));
      double seen = BL_MAX(free_at, link + c->net.latency_ns / 2);
      free_at = seen + codec->decode_ns * n;
      if (a == NULL)
        continue;
      bl_auto_pull_arrived(a, (uint64_t)bytes, (uint64_t)seen);
      bl_auto_decoded(a, c->chosen[t] ? bl_auto_pull_spec(c->autos[0], t) : &pull_ladder[0], (uint64_t)n,
                      (uint64_t)(codec->decode_ns * n));
    }
  }
  c->now[rank] = free_at;
}

/* Returns how long it took. Adds up the decisions of all ranks. */
static double run_clock(cluster *c, uint64_t *changes) {
  double from = 0, begin = c->now[0];
  for (uint32_t r = 0; r < c->world; r++) {
    double there = push_side(c, r);
    from = BL_MAX(from, there);
  }
  for (uint32_t r = 0; r < c->world; r++)
    pull_side(c, r, from);
  c->clock++;
  for (uint32_t r = 0; r < c->world && c->autos[r] != NULL; r++) {
    bl_auto_end_clock(c->autos[r], (uint64_t)c->now[r]);
    while (bl_auto_next_decision(c->autos[r]) != NULL)
      *changes += 1;
  }
  return c->now[0] - begin;
}

static cluster cluster_of(const net *n, uint32_t world) {
  cluster c = {.net = *n, .world = world, .n_tensors = TENSORS_N};
  memcpy(c.elems, mlp, sizeof mlp);
  for (uint32_t t = 0; t < c.n_tensors; t++)
    c.chosen[t] = c.elems[t] >= 1024;
  for (uint32_t r = 0; r < world; r++)
    c.now[r] = 1e9;
  return c;
}

static void know(bl_auto *a, const bl_codec_spec *spec, const truth *codec) {
  bl_auto_know(a, spec, codec->bytes, codec->encode_ns, codec->decode_ns, codec->error);
}

static void begin_autos(cluster *c, bool sparse) {
  bl_auto_tensor tensors[TENSORS_MAX];
  for (uint32_t t = 0; t < c->n_tensors; t++)
    tensors[t] = (bl_auto_tensor){.n_elems = c->elems[t],
                                  .chosen = {c->chosen[t], c->chosen[t]},
                                  .spec = {push_ladder[0], pull_ladder[0]}};
  for (uint32_t r = 0; r < c->world; r++) {
    bl_auto_config config = {.tensors = tensors,
                             .n_tensors = c->n_tensors,
                             .world = c->world,
                             .n_shards = 1,
                             .decides_pull = r == 0,
                             .sparse = sparse,
                             .ladder = {push_ladder, pull_ladder},
                             .n_ladder = {N_PUSH, N_PULL}};
    ck_assert_ok(bl_auto_new(&config, &c->autos[r], NULL));
    bl_auto_round_trip(c->autos[r], (uint64_t)c->net.latency_ns);
    for (uint32_t i = 0; i < N_PUSH; i++)
      know(c->autos[r], &push_ladder[i], &push_truth[i]);
    for (uint32_t i = 0; i < N_PULL; i++)
      know(c->autos[r], &pull_ladder[i], &pull_truth[i]);
  }
}

static void end_autos(cluster *c) {
  for (uint32_t r = 0; r < c->world; r++)
    bl_auto_free(c->autos[r]);
}

/* Without noise, with what is chosen now. The engines do not see it. */
static double time_of(const cluster *c) {
  cluster quiet = *c;
  quiet.net.noise = 0;
  for (uint32_t r = 0; r < c->world; r++)
    quiet.now[r] = 1e9;
  double from = 0;
  bl_auto *autos[RANKS_MAX];
  /* The sides feed engines where there are some: steps are read before, as fixed choices of one tensor each. */
  memcpy(autos, quiet.autos, sizeof autos);
  uint32_t push[RANKS_MAX][TENSORS_MAX], pull[TENSORS_MAX];
  for (uint32_t t = 0; t < c->n_tensors; t++) {
    pull[t] = pull_step(c, t);
    for (uint32_t r = 0; r < c->world; r++)
      push[r][t] = push_step(c, r, t);
  }
  for (uint32_t r = 0; r < c->world; r++) {
    double all = 0, done = 0, encode = 0, link = 0, now = 0;
    for (uint32_t t = 0; t < c->n_tensors; t++)
      all += (double)c->elems[t];
    for (uint32_t t = c->n_tensors; t-- > 0;)
      for (uint64_t first = 0; first < c->elems[t]; first += CHUNK) {
        double n = (double)BL_MIN(CHUNK, c->elems[t] - first);
        done += n;
        encode += push_truth[push[r][t]].encode_ns * n;
        now = c->net.compute_ns - c->net.overlap_ns * (1 - done / all) + encode;
        link = BL_MAX(link, now) + (16 + push_truth[push[r][t]].bytes * n) / share(c);
      }
    from = BL_MAX(from, link + c->net.latency_ns / 2);
  }
  double encoded = from, link = from, free_at = 0;
  for (uint32_t t = 0; t < c->n_tensors; t++)
    for (uint64_t first = 0; first < c->elems[t]; first += CHUNK) {
      double n = (double)BL_MIN(CHUNK, c->elems[t] - first);
      encoded += pull_truth[pull[t]].encode_ns * n;
      link = BL_MAX(link, encoded) + (16 + pull_truth[pull[t]].bytes * n) / share(c);
      free_at = BL_MAX(free_at, link + c->net.latency_ns / 2) + pull_truth[pull[t]].decode_ns * n;
    }
  return free_at;
}

static bool may_be_together(uint32_t push, uint32_t pull, uint32_t world, bool sparse) {
  if (!sparse && (push_ladder[push].codec->sparse || pull_ladder[pull].codec->sparse))
    return false;
  return !pull_ladder[pull].codec->sparse ||
         (push_ladder[push].codec->sparse && (double)push_ladder[push].density * world <= (double)pull_ladder[pull].density * 1.001);
}

static double best_fixed(const cluster *c, bool sparse, uint32_t *ret_push, uint32_t *ret_pull) {
  double best = INFINITY;
  cluster fixed = *c;
  memset(fixed.autos, 0, sizeof fixed.autos);
  for (uint32_t i = 0; i < N_PUSH; i++)
    for (uint32_t k = 0; k < N_PULL; k++) {
      fixed.fixed[0] = i;
      fixed.fixed[1] = k;
      double t = may_be_together(i, k, c->world, sparse) ? time_of(&fixed) : INFINITY;
      if (t >= best)
        continue;
      best = t;
      *ret_push = i;
      *ret_pull = k;
    }
  return best;
}

static void assert_close_to_best(cluster *c, bool sparse, double within) {
  uint32_t push = 0, pull = 0;
  double best = best_fixed(c, sparse, &push, &pull), chosen = time_of(c);
  bl_auto_view v = bl_auto_get_view(c->autos[0]);
  ck_assert_msg(chosen <= best * within,
                "%u ranks, clock %lu: %.3f ms, of a fixed choice (%u, %u) %.3f ms; chosen: %u, %u; believed %.3g up %.3g down "
                "compute %.3f overlap %.3f, model %.3f exact %.3f, clock %.3f; other tensor %u %u, last rank %u %u",
                c->world, (unsigned long)c->clock, chosen / MS, push, pull, best / MS, push_step(c, 0, 0), pull_step(c, 0),
                v.up_bytes_per_s, v.down_bytes_per_s, v.compute_ns / MS, v.overlap_ns / MS, v.chosen_ns / MS,
                v.exact_ns / MS, v.clock_ns / MS, push_step(c, 0, 2), pull_step(c, 2), push_step(c, c->world - 1, 0),
                push_step(c, c->world - 1, 2));
}

static void run(cluster *c, uint32_t clocks, uint64_t *changes) {
  for (uint32_t i = 0; i < clocks; i++)
    run_clock(c, changes);
}

/* ---- the link ---- */

/* A clock with n messages up and n down, each of them `bytes` and `gap_ns` behind the one before: acknowledged 0.2 ms behind
 * the commit, there `waits_ns` behind it. */
static void link_clock(bl_link *l, uint64_t clock, uint32_t n, uint64_t bytes, uint64_t gap_ns, uint64_t waits_ns,
                       double codec_ns) {
  uint64_t from = clock * UINT64_C(10000000000);
  bl_link_begin_clock(l);
  for (uint32_t i = 0; i < n; i++)
    bl_link_sent(l, bytes, from + 1000);
  bl_link_committed(l, from + 1000);
  for (uint32_t i = 0; i < n; i++)
    bl_link_acked(l, bytes, from + 201000 + (i + 1) * gap_ns);
  for (uint32_t i = 0; i < n; i++)
    bl_link_arrived(l, bytes, from + 1000 + waits_ns + (i + 1) * gap_ns);
  bl_link_end_clock(l, clock, codec_ns);
}

static void assert_about(double is, double wanted, double share) {
  ck_assert_msg(fabs(is - wanted) <= share * wanted, "%g, not %g", is, wanted);
}

START_TEST(a_rate_is_that_of_what_comes_behind_the_first) {
  bl_link l = {.up = 0};
  for (uint64_t i = 0; i < 10; i++)
    link_clock(&l, i, 4, 1000000, 8000000, 50000000, 0); /* 125 MB/s, after 50 ms in which nothing comes */
  bl_link_settle(&l, 10, 1e8);
  assert_about(l.up, 125e6, 0.001);
  assert_about(l.down, 125e6, 0.001);
}
END_TEST

START_TEST(what_waited_together_is_not_behind_the_first) {
  bl_link l = {.up = 0};
  for (uint64_t i = 0; i < 10; i++) {
    uint64_t from = i * UINT64_C(1000000000);
    bl_link_begin_clock(&l);
    bl_link_sent(&l, 5000000, from);
    bl_link_acked(&l, 1000000, from + 100000000); /* looked at late: the rank computed */
    bl_link_acked(&l, 1000000, from + 200000000);
    bl_link_committed(&l, from + 200000001);
    for (uint64_t k = 0; k < 2; k++)
      bl_link_acked(&l, 1000000, from + 201000000 + k * 5000);
    bl_link_acked(&l, 1000000, from + 209000000);
    for (uint64_t k = 0; k < 3; k++)
      bl_link_arrived(&l, 1000000, from + 210000000 + k * 5000);
    bl_link_arrived(&l, 2000000, from + 226000000);
    bl_link_end_clock(&l, i, 0);
  }
  bl_link_settle(&l, 10, 1e8);
  assert_about(l.up, 125e6, 0.01);
  assert_about(l.down, 125e6, 0.01);
}
END_TEST

START_TEST(one_message_up_is_measured_against_the_latency) {
  bl_link l = {.up = 0};
  bl_link_round_trip(&l, 900000);
  bl_link_round_trip(&l, 200000);
  bl_link_round_trip(&l, 300000);
  for (uint64_t i = 0; i < 10; i++)
    link_clock(&l, i, 1, 20000, 160000, 200000, 0);
  bl_link_settle(&l, 10, 1e8);
  assert_about(l.up, 125e6, 0.001);
}
END_TEST

START_TEST(noise_is_followed_slowly_and_a_change_at_once) {
  bl_link l = {.up = 0};
  for (uint64_t i = 0; i < 10; i++)
    link_clock(&l, i, 4, 1000000, 8000000, 0, 0);
  bl_link_settle(&l, 10, 1e8);
  for (uint64_t i = 10; i < 40; i++)
    link_clock(&l, i, 4, 1000000, 9000000, 0, 0);
  bl_link_settle(&l, 40, 1e8);
  assert_about(l.up, 125e6, 0.05); /* 111 MB/s now */
  ck_assert_double_lt(l.up, 124e6);
  for (uint64_t i = 40; i < 46; i++) /* fewer than half of the window */
    link_clock(&l, i, 4, 1000000, 80000000, 0, 0);
  bl_link_settle(&l, 46, 1e8);
  assert_about(l.up, 12.5e6, 0.001);
  assert_about(l.down, 12.5e6, 0.001);
}
END_TEST

/* Where all comes at once, 20 KB after a wait of about 5 ms: what is known stays, unless the time says clearly otherwise. */
START_TEST(a_single_pull_shows_only_clear_changes_of_the_link) {
  bl_link l = {.up = 0};
  for (uint64_t i = 0; i < 20; i++)
    link_clock(&l, i, 4, 1000000, 8000000, 5000000, 0);
  bl_link_settle(&l, 20, 1e8);
  for (uint64_t i = 20; i < 100; i++)
    link_clock(&l, i, 1, 20000, 160000, _i == 1 ? 7000000 : 4000000, 0);
  bl_link_settle(&l, 100, 20e6);
  assert_about(l.down, 125e6, 0.01);
  for (uint64_t i = 100; i < 120; i++)
    link_clock(&l, i, 1, 20000, 40000000, 5000000, 0); /* 0.5 MB/s; up and down */
  bl_link_settle(&l, 120, 20e6);
  assert_about(l.down, 0.5e6, 0.01);
  for (uint64_t i = 120; i < 140; i++)
    link_clock(&l, i, 1, 20000, 160000, 5000000, 0);
  bl_link_settle(&l, 140, 20e6);
  ck_assert_double_gt(l.down, 2e6);
}
END_TEST

START_TEST(what_the_codecs_take_is_not_taken_for_the_link) {
  bl_link l = {.up = 0};
  for (uint64_t i = 0; i < 10; i++)
    link_clock(&l, i, 4, 1000000, 8000000, 0, 0);
  bl_link_settle(&l, 10, 1e8);
  for (uint64_t i = 60; i < 80; i++) { /* the same pace, and encoding takes it */
    link_clock(&l, i, 1, 100000, 100000, 0, 0);
    bl_link_begin_clock(&l);
    bl_link_committed(&l, i * 1000000000);
    for (uint64_t k = 0; k < 4; k++)
      bl_link_arrived(&l, 100000, i * 1000000000 + (k + 1) * 8000000);
    bl_link_end_clock(&l, i, _i == 0 ? 0 : 32000000);
  }
  l.up = 125e6;
  bl_link_settle(&l, 80, 1e8);
  if (_i == 0)
    assert_about(l.down, 12.5e6, 0.01);
  else
    ck_assert_double_gt(l.down, 40e6);
}
END_TEST

/* ---- the model and the search ---- */

START_TEST(a_clock_is_as_long_as_its_slowest_parts) {
  bl_codec_cost exact = {4, 0.5, 0.25}, half = {2, 1, 0.25}, slow = {4, 0.5, 50};
  bl_clock_conditions c = {.compute_ns = 10e6, .overlap_ns = 0, .latency_ns = 1e6, .up_ns_per_byte = 8, .down_ns_per_byte = 4,
                           .world = 2, .n_shards = 1, .pull_ns = -1};
  bl_clock_tensor t = {100000, &exact, &exact};
  /* compute 10, encode 0.05, up 3.2, latency 1, down 1.6 */
  assert_about(bl_clock_model(&c, &t, 1).total_ns, 15.85e6, 1e-9);
  t.push = &half; /* encode 0.1, up 1.6 */
  assert_about(bl_clock_model(&c, &t, 1).total_ns, 14.3e6, 1e-9);
  t.push = &slow; /* shards add up two ranks' pushes: 10 */
  assert_about(bl_clock_model(&c, &t, 1).total_ns, 22.65e6, 1e-9);
  c.n_shards = 4; /* 2.5 is less than the wire's 3.2 */
  assert_about(bl_clock_model(&c, &t, 1).total_ns, 15.85e6, 1e-9);
  t.push = &exact;
  c.pull_ns = 7e6; /* not ours */
  assert_about(bl_clock_model(&c, &t, 1).total_ns, 21.25e6, 1e-9);
  c.overlap_ns = 10e6; /* all of it can go while it computes, but for the end: it is one chunk */
  assert_about(bl_clock_model(&c, &t, 1).total_ns, 21.25e6, 1e-9);
  bl_clock_tensor two[] = {{10, &exact, &exact}, {100000, &exact, &exact}}; /* the large one is pushed first */
  c.overlap_ns = 5e6;
  two[0].n_elems = 100000;
  double both = bl_clock_model(&c, two, 2).total_ns;
  c.overlap_ns = 0;
  assert_about(bl_clock_model(&c, two, 2).total_ns - both, 2.5e6, 0.1); /* half of the overlap is before it is ready */
}
END_TEST

START_TEST(a_large_tensor_that_hides_stays_exact_among_many_small_ones) {
  enum { SMALL = 40, ALL = SMALL + 1 };
  bl_choice_candidate ladder[] = {{{4, 0.1, 0.1}, 1}, {{1, 0.1, 0.1}, 1}};
  bl_choice_tensor tensors[ALL] = {{.n_elems = 0}};
  bl_clock_tensor scratch[ALL];
  uint8_t plan[2 * ALL], trial[2 * ALL];
  for (uint32_t t = 0; t < ALL; t++)
    tensors[t] = (bl_choice_tensor){.n_elems = 50000, .fixed = {NULL, &ladder[0].cost}, .allowed = {3, 1}};
  tensors[ALL - 1].n_elems = 200000; /* the last layer: pushed first */
  bl_choice c = {.conditions = {.compute_ns = 10e6, .overlap_ns = 9e6, .up_ns_per_byte = 2, .down_ns_per_byte = 0,
                                .world = 1, .n_shards = 1, .pull_ns = 0},
                 .ladder = {ladder, ladder}, .n_ladder = {2, 2}, .tensors = tensors, .n_tensors = ALL, .scratch = scratch};
  double price = bl_choice_search(&c, plan, trial);
  ck_assert_uint_eq(plan[2 * (ALL - 1)], 0);
  ck_assert_uint_eq(plan[0], 1);
  assert_about(bl_choice_price(&c, plan), price, 1e-12);
  tensors[0].held[BL_CHOICE_PUSH] = true; /* whatever it costs */
  (void)bl_choice_search(&c, plan, trial);
  ck_assert_uint_eq(plan[0], 0);
}
END_TEST

/* ---- the engine ---- */

static const net nets[] = {
    {10e9, 10e9, 0.03 * MS, 10 * MS, 6 * MS, 0}, /* loopback */
    {10e9, 10e9, 0.03 * MS, 2 * MS, 1 * MS, 0},
    {1.25e9, 1.25e9, 0.05 * MS, 10 * MS, 6 * MS, 0},
    {125e6, 125e6, 0.2 * MS, 10 * MS, 6 * MS, 0},
    {125e6, 125e6, 0.2 * MS, 200 * MS, 120 * MS, 0},
    {12.5e6, 12.5e6, 1 * MS, 10 * MS, 6 * MS, 0},
    {1.25e6, 1.25e6, 1 * MS, 10 * MS, 6 * MS, 0},
    {125e6, 1.25e9, 0.2 * MS, 10 * MS, 6 * MS, 0}, /* the server has the faster link */
    {125e6, 125e6, 20 * MS, 10 * MS, 0, 0},        /* a long way, nothing overlaps */
};

START_TEST(any_link_gets_what_is_near_the_best_fixed_choice) {
  static const uint32_t worlds[] = {1, 2, 4};
  size_t i = (size_t)_i;
  bool sparse = i % 2 == 0;
  cluster c = cluster_of(&nets[i / 6], worlds[i / 2 % 3]);
  begin_autos(&c, sparse);
  uint64_t changes = 0;
  run(&c, 200, &changes);
  assert_close_to_best(&c, sparse, 1.05);
  end_autos(&c);
}
END_TEST

START_TEST(a_fast_link_ends_at_none) {
  cluster c = cluster_of(&nets[0], 2);
  begin_autos(&c, true);
  uint64_t changes = 0;
  run(&c, 200, &changes);
  ck_assert_uint_eq(changes, 0);
  for (uint32_t t = 0; t < c.n_tensors; t++)
    ck_assert_uint_eq(push_step(&c, 0, t) + pull_step(&c, t), 0);
  ck_assert_ptr_nonnull(strstr(bl_auto_reason(c.autos[0], 0, BL_AUTO_PUSH), "exact: at "));
  ck_assert_str_eq(bl_auto_reason(c.autos[0], 1, BL_AUTO_PUSH), ""); /* not its choice */
  end_autos(&c);
}
END_TEST

START_TEST(what_hides_behind_computing_stays_exact_on_the_way_up) {
  cluster c = cluster_of(&nets[4], 1); /* 17 ms of transfer behind 120 ms */
  begin_autos(&c, false);
  uint64_t changes = 0;
  run(&c, 100, &changes);
  ck_assert_uint_eq(push_step(&c, 0, 2), 0);
  bl_auto_view v = bl_auto_get_view(c.autos[0]); /* encoding is no computing */
  assert_about(v.compute_ns, c.net.compute_ns, 1e-4);
  assert_about(v.overlap_ns, c.net.overlap_ns, 0.01);
  end_autos(&c);
}
END_TEST

START_TEST(a_sparse_pull_has_room_for_what_all_ranks_push) {
  cluster c = cluster_of(&nets[6], _i == 0 ? 2 : 4);
  begin_autos(&c, true);
  uint64_t changes = 0;
  run(&c, 300, &changes);
  ck_assert(bl_auto_push_spec(c.autos[0], 0)->codec->sparse);
  for (uint32_t t = 0; t < c.n_tensors; t++) {
    const bl_codec_spec *push = bl_auto_push_spec(c.autos[0], t), *pull = bl_auto_pull_spec(c.autos[0], t);
    ck_assert(!pull->codec->sparse || pull->density * 1.0001f >= push->density * (float)c.world);
  }
  end_autos(&c);
}
END_TEST

/* A link that goes to and fro between two rates, of which each has another best codec, 30 % apart: it may be followed a few
 * times, and then every turn is waited for longer. */
START_TEST(who_goes_back_and_forth_waits_longer_each_time) {
  bl_auto_tensor t = {.n_elems = 1000000, .chosen = {true, false}, .spec = {push_ladder[0], pull_ladder[0]}};
  bl_auto_config config = {.tensors = &t, .n_tensors = 1, .world = 1, .n_shards = 1, .ladder = {push_ladder, pull_ladder},
                           .n_ladder = {3, 1}};
  bl_auto *a;
  ck_assert_ok(bl_auto_new(&config, &a, NULL));
  bl_auto_know(a, &push_ladder[0], 4, 0.001, 0.001, 0);
  bl_auto_know(a, &push_ladder[1], 2, 9, 0.001, 0);
  bl_auto_know(a, &push_ladder[2], 1, 3, 0.001, 0.01); /* as fast as exact at 1 GB/s */
  uint64_t now = 1000000000;
  for (uint64_t i = 0; i < 12000; i++) {
    double rate = i / 100 % 2 == 0 ? 1.38 : 1 / 1.38; /* bytes per ns */
    bool exact = bl_auto_push_spec(a, 0)->codec->exact;
    uint64_t bytes = exact ? 4000000 : 1000000, gap = (uint64_t)((double)bytes / 4 / rate);
    bl_auto_begin_clock(a, i, now);
    now += 100000 + (exact ? 0 : 3000000);
    bl_auto_encoded(a, bl_auto_push_spec(a, 0), 1000000, bytes, exact ? 1000 : 3000000);
    for (int k = 0; k < 4; k++)
      bl_auto_push_sent(a, bytes / 4, now);
    bl_auto_committed(a, now);
    for (int k = 0; k < 4; k++)
      bl_auto_push_acked(a, bytes / 4, now += gap);
    bl_auto_pull_arrived(a, 1000, now += 1000);
    bl_auto_end_clock(a, now);
  }
  uint64_t changes = bl_auto_get_view(a).changes;
  ck_assert_msg(changes > 4 && changes < 30, "%lu changes in 120 turns", (unsigned long)changes);
  bl_auto_free(a);
}
END_TEST

START_TEST(what_was_lost_says_nothing_about_the_link) {
  cluster c = cluster_of(&nets[3], 1);
  begin_autos(&c, true);
  bl_auto *a = c.autos[0];
  for (uint64_t i = 0; i < 100; i++) {
    uint64_t from = i * 10000000;
    bl_auto_begin_clock(a, i, from);
    bl_auto_push_sent(a, 100, from + 1000);
    bl_auto_lost(a); /* repeated: the acknowledgement is of either */
    bl_auto_committed(a, from + 2000);
    bl_auto_push_acked(a, 100, from + 5000000);
    bl_auto_pull_arrived(a, 100, from + 6000000);
    bl_auto_end_clock(a, from + 6000000);
  }
  ck_assert_double_eq(bl_auto_get_view(a).up_bytes_per_s, 0);
  ck_assert_uint_eq(bl_auto_get_view(a).changes, 0);
  end_autos(&c);
}
END_TEST

START_TEST(a_link_that_changes_is_followed) {
  cluster c = cluster_of(&nets[3], 2);
  begin_autos(&c, true);
  uint64_t changes = 0;
  static const double rates[] = {125e6, 6.25e6, 125e6, 10e9};
  for (size_t i = 0; i < BL_COUNT_OF(rates); i++) {
    c.net.rank_rate = c.net.server_rate = rates[i];
    run(&c, 400, &changes);
    assert_close_to_best(&c, true, 1.05);
  }
  end_autos(&c);
}
END_TEST

START_TEST(noise_does_not_make_it_flap) {
  int n = (int)BL_COUNT_OF(nets);
  cluster c = cluster_of(&nets[_i % n], _i / n % 2 == 0 ? 2 : 4);
  c.net.noise = 0.3;
  c.draws = (uint64_t)(_i / n / 2) << 32;
  begin_autos(&c, true);
  uint64_t first = 0, later = 0;
  run(&c, 500, &first);
  run(&c, 5000, &later);
  assert_close_to_best(&c, true, 1.08);
  /* Pushes of three tensors for each rank, and three pulls: not two changes each in 5000 clocks. */
  ck_assert_msg(later < 2 * (3 + 3 * c.world), "%lu changes, then %lu", (unsigned long)first, (unsigned long)later);
  end_autos(&c);
}
END_TEST

START_TEST(a_codec_that_errs_too_much_for_a_tensor_is_not_used_for_it) {
  cluster c = cluster_of(&nets[6], 2);
  begin_autos(&c, false);
  uint64_t changes = 0;
  run(&c, 100, &changes);
  ck_assert_uint_eq(push_step(&c, 0, 0), 3); /* int4: the most that there is without sparse ones */
  bl_auto_trial bad = {.tensor = 0, .candidate = 3, .n = 100};
  for (int i = 0; i < 20; i++)
    bl_auto_tried(c.autos[0], &bad, 0.5, 100);
  run(&c, 80, &changes); /* few trials in between say 0.028 again */
  ck_assert_uint_eq(push_step(&c, 0, 2), 3);
  ck_assert_uint_eq(push_step(&c, 0, 0), 2);
  end_autos(&c);
}
END_TEST

START_TEST(what_cannot_be_measured_changes_nothing) {
  cluster c = cluster_of(&nets[6], 1);
  begin_autos(&c, true);
  bl_auto *a = c.autos[0];
  for (uint64_t i = 0; i < 100; i++) { /* nothing is ever pushed; clocks out of order; nonsense in between */
    bl_auto_end_clock(a, i * 1000);
    bl_auto_begin_clock(a, i, i * 1000 + 1);
    bl_auto_encoded(a, &push_ladder[2], 0, 0, 0);
    bl_auto_decoded(a, &push_ladder[2], 0, 5);
    bl_auto_push_acked(a, 1000, i * 1000 + 2);
    bl_auto_tried(a, &(bl_auto_trial){.tensor = 99}, 1, 1);
    bl_auto_tried(a, &(bl_auto_trial){.candidate = 99}, 1, 1);
    bl_auto_tried(a, &(bl_auto_trial){.candidate = 1}, (double)NAN, 1);
    if (i % 2 == 0)
      bl_auto_committed(a, i * 1000 + 3);
    bl_auto_lost(a);
  }
  ck_assert_ptr_null(bl_auto_next_decision(a));
  ck_assert_uint_eq(push_step(&c, 0, 0), 0);
  end_autos(&c);
}
END_TEST

START_TEST(decisions_say_what_when_and_why) {
  cluster c = cluster_of(&nets[7], 2);
  begin_autos(&c, true);
  uint64_t none = 0;
  for (uint32_t i = 0; i < 19; i++)
    run_clock(&c, &none);
  ck_assert_uint_eq(none, 0);
  ck_assert_uint_lt((uint64_t)c.now[0], UINT64_C(2000000000)); /* else the first decision comes earlier */
  double from = 0;
  for (uint32_t r = 0; r < 2; r++) {
    double there = push_side(&c, r);
    from = BL_MAX(from, there);
  }
  for (uint32_t r = 0; r < 2; r++)
    pull_side(&c, r, from);
  bl_auto_end_clock(c.autos[0], (uint64_t)c.now[0]);
  const bl_auto_decision *d = bl_auto_next_decision(c.autos[0]);
  ck_assert_ptr_nonnull(d);
  ck_assert_uint_eq(d->clock, 20);
  ck_assert_uint_eq(d->tensor, 0);
  ck_assert_int_eq(d->direction, BL_AUTO_PUSH);
  ck_assert(d->before->codec->exact);
  ck_assert_ptr_eq(d->spec, bl_auto_push_spec(c.autos[0], 0));
  ck_assert(!d->spec->codec->exact);
  ck_assert_ptr_nonnull(strstr(d->reason, "MB/s up"));
  ck_assert_ptr_nonnull(strstr(d->reason, "allowed"));
  ck_assert_str_eq(d->reason, bl_auto_reason(c.autos[0], 0, BL_AUTO_PUSH));
  end_autos(&c);
}
END_TEST

START_TEST(clocks_allocate_nothing) {
  cluster c = cluster_of(&nets[5], 1);
  begin_autos(&c, true);
  uint64_t before = bl_alloc_get_stats().total_calls, changes = 0;
  run(&c, 100, &changes);
  ck_assert_uint_gt(changes, 0);
  ck_assert_uint_eq(bl_alloc_get_stats().total_calls, before);
  end_autos(&c);
}
END_TEST

static uint64_t count_up(void *arg) { return *(uint64_t *)arg += 16384; }

START_TEST(the_codecs_that_there_are_are_timed_and_tried) {
  bl_auto_tensor t = {.n_elems = 50000, .chosen = {true, true}};
  bl_auto_config config = {.tensors = &t, .n_tensors = 1, .world = 1, .n_shards = 1, .decides_pull = true};
  bl_auto *a;
  ck_assert_ok(bl_auto_new(&config, &a, NULL));
  uint64_t time = 0;
  ck_assert_ok(bl_auto_calibrate(a, count_up, &time));
  ck_assert_uint_gt(time, 0);
  float *x = calloc(50000, sizeof *x);
  for (uint32_t i = 0; i < 50000; i++)
    x[i] = bl_rng_normal(1, 0, i);
  bl_auto_begin_clock(a, 0, 1);
  bl_auto_trial trial;
  uint32_t n = 0;
  for (; bl_auto_next_trial(a, &trial); n++) {
    ck_assert_uint_le(trial.first + trial.n, 50000);
    bl_auto_try(a, &trial, 1, x + trial.first);
  }
  ck_assert_uint_gt(n, 0); /* float16 at least */
  ck_assert(!bl_auto_next_trial(a, &trial));
  bl_auto_begin_clock(a, 1, 2); /* all has been tried: not in every clock */
  ck_assert(!bl_auto_next_trial(a, &trial));
  bl_auto_begin_clock(a, 25, 2);
  ck_assert(bl_auto_next_trial(a, &trial));
  free(x);
  bl_auto_free(a);
}
END_TEST

START_TEST(what_cannot_be_is_refused) {
  bl_auto *a = NULL;
  bl_error err = BL_ERROR_INIT;
  bl_auto_tensor t = {.n_elems = 10, .chosen = {true, true}};
  bl_auto_config lossy = {.tensors = &t, .n_tensors = 1, .ladder = {&push_ladder[1]}, .n_ladder = {2}};
  ck_assert_status(bl_auto_new(&lossy, &a, &err), BL_EINVAL);
  bl_auto_config many = {.tensors = &t, .n_tensors = 1, .ladder = {push_ladder}, .n_ladder = {17}};
  ck_assert_status(bl_auto_new(&many, &a, &err), BL_EINVAL);
  bl_auto_config good = {.tensors = &t, .n_tensors = 1};
  uint64_t live = bl_alloc_get_stats().live_blocks;
  bl_status st = BL_ENOMEM;
  for (uint64_t n = 1; st != BL_OK && n < 100; n++) {
    bl_alloc_fail_after(n);
    st = bl_auto_new(&good, &a, NULL);
    bl_alloc_fail_after(0);
    if (st == BL_OK)
      bl_auto_free(a);
    ck_assert_uint_eq(bl_alloc_get_stats().live_blocks, live);
  }
  ck_assert_ok(st);
  bl_auto_free(NULL);
}
END_TEST

#define JOB                                                                                                                \
  "name: t\nseed: 1\ndata: {train: {idx: [/d/i, /d/l]}, test: {idx: [/d/i, /d/l]}}\nmodel: {input: [784], layers: [dense 64 relu, " \
  "dense 20 relu, dense 10]}\nloss: softmax_cross_entropy\nbatch: 100\nepochs: 2\nranks: 2\n"
#define SGD "optimizer: {sgd: {lr: 0.1}}\n"

/* dense1.weight (50176), dense1.bias, dense2.weight (1280), dense2.bias, dense3.weight (200), dense3.bias: pushes, pulls */
static const struct {
  const char *text, *push, *pull;
  bool sparse;
} jobs[] = {
    {JOB SGD, "------", "------", true},
    {JOB SGD "compression: auto\n", "x-x---", "x-x---", true},
    {JOB SGD "compression: {preset: auto, exact_below: 2000}\n", "x-----", "x-----", true},
    {JOB SGD "compression: {preset: auto, feedback: false}\n", "x-x---", "x-x---", false},
    {JOB SGD "compression: {preset: auto, rules: [{match: dense1.*, push: float16}]}\n", "--x---", "x-x---", true},
    {JOB SGD "groups: [{match: dense2.*, frozen: true}]\ncompression: auto\n", "x-----", "x-----", true},
    {JOB "optimizer: {momentum: {lr: 0.1, momentum: 0.9}}\ncompression: auto\n", "x-x---", "x-x---", false},
    {JOB "optimizer: {adam: {lr: 0.001}}\ncompression: auto\n", "x-x---", "x-x---", true},
};

START_TEST(a_job_says_what_is_to_be_chosen) {
  bl_error err = BL_ERROR_INIT;
  static bl_conf_errors errors;
  bl_job_spec *spec = NULL;
  bl_status st = bl_job_spec_parse(jobs[_i].text, strlen(jobs[_i].text), "job.yaml", "/", NULL, 0, &spec, &errors);
  ck_assert_msg(st == BL_OK, "%s", errors.n > 0 ? errors.at[0].text : "");
  bl_tensor_table *table;
  ck_assert_ok_err(bl_tensor_table_of_job(spec, &table, &err), err);
  bl_auto_tensor tensors[6];
  ck_assert_uint_eq(table->n_tensors, 6);
  uint32_t n = bl_auto_tensors_of_job(spec, table, tensors), want = 0;
  for (uint32_t i = 0; i < 6; i++) {
    ck_assert_msg(tensors[i].chosen[BL_AUTO_PUSH] == (jobs[_i].push[i] == 'x'), "push of %s", table->tensors[i].name);
    ck_assert_msg(tensors[i].chosen[BL_AUTO_PULL] == (jobs[_i].pull[i] == 'x'), "pull of %s", table->tensors[i].name);
    want += jobs[_i].push[i] == 'x' || jobs[_i].pull[i] == 'x';
  }
  ck_assert_uint_eq(n, want);
  ck_assert(bl_auto_job_takes_sparse(spec) == jobs[_i].sparse);
  bl_auto *a = NULL;
  ck_assert_ok_err(bl_auto_new_of_job(spec, table, 0, 1, &a, &err), err);
  ck_assert((a != NULL) == (n > 0));
  for (uint32_t i = 0; a != NULL && i < 6; i++) {
    bl_tensor_policy policy = bl_job_policy_of(spec, &table->tensors[i]);
    ck_assert(bl_codec_spec_equal(bl_auto_push_spec(a, i), &policy.push));
    ck_assert(bl_codec_spec_equal(bl_auto_pull_spec(a, i), &policy.pull));
  }
  bl_auto_free(a);
  bl_tensor_table_free(table);
  bl_job_spec_free(spec);
}
END_TEST

int main(void) {
  Suite *s = suite_create("auto");
  TCase *t = tcase_create("auto");
  tcase_set_timeout(t, 60);
  tcase_add_test(t, a_rate_is_that_of_what_comes_behind_the_first);
  tcase_add_test(t, what_waited_together_is_not_behind_the_first);
  tcase_add_test(t, one_message_up_is_measured_against_the_latency);
  tcase_add_test(t, noise_is_followed_slowly_and_a_change_at_once);
  tcase_add_loop_test(t, a_single_pull_shows_only_clear_changes_of_the_link, 0, 2);
  tcase_add_loop_test(t, what_the_codecs_take_is_not_taken_for_the_link, 0, 2);
  tcase_add_test(t, a_clock_is_as_long_as_its_slowest_parts);
  tcase_add_test(t, a_large_tensor_that_hides_stays_exact_among_many_small_ones);
  tcase_add_loop_test(t, any_link_gets_what_is_near_the_best_fixed_choice, 0, 6 * (int)BL_COUNT_OF(nets));
  tcase_add_test(t, a_fast_link_ends_at_none);
  tcase_add_test(t, what_hides_behind_computing_stays_exact_on_the_way_up);
  tcase_add_loop_test(t, a_sparse_pull_has_room_for_what_all_ranks_push, 0, 2);
  tcase_add_test(t, who_goes_back_and_forth_waits_longer_each_time);
  tcase_add_test(t, what_was_lost_says_nothing_about_the_link);
  tcase_add_test(t, a_link_that_changes_is_followed);
  tcase_add_loop_test(t, noise_does_not_make_it_flap, 0, NOISE_SEEDS * 2 * (int)BL_COUNT_OF(nets));
  tcase_add_test(t, a_codec_that_errs_too_much_for_a_tensor_is_not_used_for_it);
  tcase_add_test(t, what_cannot_be_measured_changes_nothing);
  tcase_add_test(t, decisions_say_what_when_and_why);
  tcase_add_test(t, clocks_allocate_nothing);
  tcase_add_test(t, the_codecs_that_there_are_are_timed_and_tried);
  tcase_add_test(t, what_cannot_be_is_refused);
  tcase_add_loop_test(t, a_job_says_what_is_to_be_chosen, 0, (int)BL_COUNT_OF(jobs));
  suite_add_tcase(s, t);
  return test_run(&s, 1);
}
