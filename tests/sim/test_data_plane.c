/* SPDX-License-Identifier: Apache-2.0
 *
 * The real shards and sessions over a simulated network that does what networks do. Seeds: environment
 * BALLAST_SIM_SEEDS (how many per scenario, default 50).
 */
#include "data_plane.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/str.h"
#include "kernel/kernel.h"
#include "support.h"

#include <inttypes.h>
#include <stdlib.h>

#define QUIET {.delay_min_ns = 100000, .delay_max_ns = 200000}
#define ROUGH                                                                                                \
  {.delay_min_ns = 50000, .delay_max_ns = 8000000, .drop_per_1000 = 80, .duplicate_per_1000 = 80, .reorder = true}

static const uint64_t one_large[] = {1000};

static const dp_options scenarios[] = {
    {.plan = {.world = 1, .n_shards = 1}, .net = QUIET},
    {.plan = {.world = 2, .n_shards = 2, .optimizer = "adam"}, .net = QUIET},
    {.plan = {.world = 3, .n_shards = 1}, .net = ROUGH},
    {.plan = {.world = 3, .n_shards = 2, .optimizer = "momentum", .weight_decay = 0.01}, .net = ROUGH},
    {.plan = {.world = 2, .n_shards = 3, .optimizer = "adam"}, .net = ROUGH},
    {.plan = {.world = 3, .n_shards = 2, .codec_push = "float16", .codec_pull = "float16"}, .net = ROUGH},
    {.plan = {.world = 3, .n_shards = 2, .clip_norm = 0.2, .clip_value = 0.05}, .net = ROUGH},
    {.plan = {.world = 4, .n_shards = 2}, .net = ROUGH, .hold_bytes_max = 300},
    {.plan = {.world = 2, .n_shards = 2, .tensor_elems = one_large, .n_tensors = 1}, .net = ROUGH, .window_bytes = 500},
    {.plan = {.world = 3, .n_shards = 2}, .net = ROUGH, .n_crashes = 2},
    {.plan = {.world = 2, .n_shards = 3, .optimizer = "adam", .clip_norm = 0.2}, .net = ROUGH, .n_crashes = 3},
    {.plan = {.world = 3, .n_shards = 2, .codec_push = "float16", .codec_pull = "float16"},
     .net = ROUGH,
     .n_crashes = 3},
    {.plan = {.world = 1, .n_shards = 1, .codec_pull = "float16"}, .net = ROUGH, .n_crashes = 2},
    {.plan = {.world = 4, .n_shards = 3}, .net = QUIET, .n_crashes = 4},
    {.plan = {.world = 3, .n_shards = 2, .optimizer = "adam", .clip_norm = 0.2}, .net = ROUGH, .n_ghosts = 4},
    {.plan = {.world = 3, .n_shards = 3, .codec_pull = "float16"},
     .net = ROUGH,
     .hold_bytes_max = 300,
     .n_crashes = 2,
     .n_ghosts = 3},
    {.plan = {.world = 1, .n_shards = 2}, .net = QUIET, .window_bytes = 500, .n_ghosts = 4},
    {.plan = {.world = 1, .n_shards = 2, .grouped = true}, .net = ROUGH, .n_crashes = 2},
    {.plan = {.world = 3, .n_shards = 3, .optimizer = "lamb", .grouped = true, .clip_norm = 0.2}, .net = ROUGH, .n_crashes = 2},
    {.plan = {.world = 3, .n_shards = 2, .optimizer = "amsgrad", .grouped = true, .codec_pull = "float16"}, .net = ROUGH},
    {.plan = {.world = 2, .n_shards = 2, .optimizer = "ftrl"}, .net = ROUGH, .n_crashes = 2},
    {.plan = {.world = 3, .n_shards = 2, .average_ema = 0.75}, .net = ROUGH, .n_crashes = 2},
    {.plan = {.world = 2, .n_shards = 3, .average_ema = 0.75, .optimizer = "adam", .grouped = true, .codec_pull = "float16"},
     .net = ROUGH,
     .window_bytes = 500,
     .n_crashes = 2,
     .n_ghosts = 2},
    {.plan = {.world = 1, .n_shards = 1, .clip_global_norm = 0.5}, .net = QUIET},
    {.plan = {.world = 3, .n_shards = 2, .clip_global_norm = 0.5}, .net = ROUGH},
    {.plan = {.world = 3, .n_shards = 3, .clip_global_norm = 0.5, .clip_value = 0.05, .grouped = true, .optimizer = "adam"},
     .net = ROUGH,
     .n_crashes = 3},
    {.plan = {.world = 4, .n_shards = 2, .clip_global_norm = 0.5, .codec_pull = "float16"},
     .net = ROUGH,
     .window_bytes = 500,
     .hold_bytes_max = 300,
     .n_crashes = 2,
     .n_ghosts = 3},
    {.plan = {.world = 2, .n_shards = 2, .clip_global_norm = 1000}, .net = ROUGH, .n_ghosts = 2},
    {.plan = {.world = 4, .n_shards = 2, .clip_norm = 0.2},
     .net = ROUGH,
     .window_bytes = 500,
     .hold_bytes_max = 300,
     .n_crashes = 1,
     .n_ghosts = 2},
};

static const uint64_t layers[] = {150, 7, 64, 96, 5};
#define STREAMS(n) .sync = "local", .streams = n, .tensor_elems = layers, .n_tensors = 5

/* Parts of the model in turn: shards that have nothing of a clock's part, and clocks that end on one of them earlier. */
static const dp_options stream_scenarios[] = {
    {.plan = {.world = 1, .n_shards = 1, STREAMS(2)}, .net = QUIET},
    {.plan = {.world = 3, .n_shards = 2, STREAMS(3), .optimizer = "adam"}, .net = QUIET},
    {.plan = {.world = 3, .n_shards = 3, STREAMS(5), .optimizer = "nesterov"}, .net = ROUGH},
    {.plan = {.world = 2, .n_shards = 2, STREAMS(3), .clocks = 3}, .net = ROUGH, .window_bytes = 500},
    {.plan = {.world = 3, .n_shards = 3, STREAMS(4), .optimizer = "adam", .grouped = true}, .net = ROUGH, .n_crashes = 3},
    {.plan = {.world = 3, .n_shards = 2, STREAMS(3), .codec_push = "float16", .codec_pull = "float16"}, .net = ROUGH},
    {.plan = {.world = 3, .n_shards = 3, STREAMS(5), .codec_push = "float16", .codec_pull = "float16"},
     .net = ROUGH,
     .n_crashes = 3},
    {.plan = {.world = 2, .n_shards = 3, STREAMS(2), .codec_pull = "float16", .optimizer = "momentum"},
     .net = ROUGH,
     .hold_bytes_max = 300,
     .n_crashes = 2,
     .n_ghosts = 3},
    {.plan = {.world = 1, .n_shards = 1, STREAMS(3)}, .net = ROUGH, .n_crashes = 3},
    {.plan = {.world = 4, .n_shards = 3, STREAMS(1)}, .net = ROUGH, .n_crashes = 2, .n_ghosts = 2},
    {.plan = {.world = 3, .n_shards = 2, STREAMS(3), .codec_push = "topk(10%, 2bit)", .codec_pull = "int8", .clocks = 20},
     .net = ROUGH,
     .n_crashes = 3},
    {.plan = {.world = 3, .n_shards = 3, STREAMS(2), .codec_push = "int4", .codec_pull = "topk(30%, int8)", .clocks = 15},
     .net = ROUGH,
     .n_crashes = 4},
};

#define CODECS(up, down, ...) .plan = {.world = 3, .n_shards = 2, .codec_push = up, .codec_pull = down, __VA_ARGS__}

/* In step every codec, with its residuals, gives the bits of the straight line; crashed ranks find theirs in a file. (No
 * ghosts: a rank that is replaced while it lives on takes what it has left since with it.) */
static const dp_options lossy_scenarios[] = {
    {CODECS("int8", "int8", .optimizer = "adam"), .net = ROUGH},
    {CODECS("int8(stochastic)", "int4"), .net = ROUGH, .n_crashes = 3},
    {CODECS("int8(shared)", "float32"), .net = ROUGH, .hold_bytes_max = 300, .n_crashes = 2},
    {CODECS("int4(shared)", "bfloat16", .optimizer = "momentum"), .net = ROUGH, .window_bytes = 500, .n_crashes = 3},
    {CODECS("sign", "int4"), .net = ROUGH, .n_crashes = 4},
    {CODECS("ternary", "natural"), .net = ROUGH, .n_crashes = 2},
    {CODECS("qsgd(4)", "qsgd(127)", .clip_value = 0.05), .net = ROUGH, .n_crashes = 2},
    {CODECS("natural", "sign"), .net = ROUGH, .n_crashes = 2},
    {CODECS("topk(10%, ternary)", "topk(30%, ternary)", .clocks = 20), .net = ROUGH, .n_crashes = 3},
    {CODECS("topk(5%, int8)", "topk(2%)", .clocks = 30, .momentum_correction = 0.9), .net = ROUGH, .n_crashes = 3},
    {CODECS("randomk(20%)", "threshold(0.001, 2bit)", .momentum_correction = 0.5), .net = ROUGH, .n_crashes = 2},
    {CODECS("int8", "randomk(10%, ternary)", .clocks = 30), .net = ROUGH, .n_crashes = 2},
    {CODECS("int8", "int8", .momentum_correction = 0.9), .net = ROUGH, .n_crashes = 2},
    {CODECS("topk(10%, float16)", "float32", .tensor_elems = one_large, .n_tensors = 1), .net = ROUGH, .window_bytes = 500},
};

static const uint64_t bias[] = {7};
static const test_table two_tables[] = {{300, 1}, {40, 5}};
static const test_table wide[] = {{23, 20}};

#define TABLES .tensor_elems = bias, .n_tensors = 1, .tables = two_tables, .n_tables = 2, .key_cache_bytes = 1 << 20
#define TABLES_ONLY(cache) .tensor_elems = bias, .tables = two_tables, .n_tables = 2, .key_cache_bytes = cache

static const dp_options table_scenarios[] = {
    {.plan = {.world = 1, .n_shards = 1, TABLES}, .net = QUIET},
    {.plan = {.world = 3, .n_shards = 2, TABLES, .optimizer = "adam", .weight_decay = 0.01}, .net = QUIET},
    {.plan = {.world = 3, .n_shards = 2, TABLES, .optimizer = "adam"}, .net = ROUGH},
    {.plan = {.world = 2, .n_shards = 3, TABLES_ONLY(1 << 20)}, .net = ROUGH},
    {.plan = {.world = 3, .n_shards = 2, TABLES_ONLY(0), .optimizer = "momentum"}, .net = ROUGH},
    {.plan = {.world = 3, .n_shards = 2, TABLES_ONLY(600)}, .net = ROUGH}, /* lists are let go all the time */
    {.plan = {.world = 3, .n_shards = 2, TABLES, .codec_push = "float16", .codec_pull = "float16"},
     .net = ROUGH},
    {.plan = {.world = 3, .n_shards = 2, TABLES, .clip_norm = 0.2, .clip_value = 0.05}, .net = ROUGH},
    {.plan = {.world = 4, .n_shards = 2, TABLES}, .net = ROUGH, .window_bytes = 200, .hold_bytes_max = 300},
    {.plan = {.world = 3, .n_shards = 2, TABLES, .optimizer = "adam"}, .net = ROUGH, .n_crashes = 3},
    {.plan = {.world = 3, .n_shards = 3, TABLES_ONLY(1 << 20)}, .net = QUIET, .n_crashes = 4},
    {.plan = {.world = 2,
              .n_shards = 2,
              .tables = wide,
              .n_tables = 1,
              .key_cache_bytes = 1 << 20,
              .codec_pull = "float16"},
     .net = ROUGH,
     .n_crashes = 2,
     .n_ghosts = 3},
    {.plan = {.world = 4, .n_shards = 2, TABLES_ONLY(2000), .clip_norm = 0.2},
     .net = ROUGH,
     .window_bytes = 500,
     .hold_bytes_max = 300,
     .n_crashes = 1,
     .n_ghosts = 2},
    {.plan = {.world = 3, .n_shards = 2, TABLES, .clocks = 14, .sync = "asp"}, .net = ROUGH},
    {.plan = {.world = 3, .n_shards = 2, TABLES_ONLY(1 << 20), .clocks = 14, .sync = "ssp", .staleness = 2},
     .net = ROUGH},
    {.plan = {.world = 4, .n_shards = 3, TABLES_ONLY(600), .clocks = 14, .sync = "ssp", .staleness = 1},
     .net = ROUGH,
     .hold_bytes_max = 300,
     .n_crashes = 2,
     .n_ghosts = 1},
    {.plan = {.world = 3, .n_shards = 2, TABLES, .clocks = 14, .sync = "asp", .codec_push = "float16"},
     .net = ROUGH,
     .n_crashes = 3},
};

#define FREE(how, ...) .plan = {.sync = how, .clocks = 14, __VA_ARGS__}

static const dp_options free_scenarios[] = {
    {FREE("asp", .world = 1, .n_shards = 1), .net = QUIET},
    {FREE("asp", .world = 3, .n_shards = 2), .net = ROUGH},
    {FREE("ssp", .staleness = 0, .world = 3, .n_shards = 2), .net = ROUGH},
    {FREE("ssp", .staleness = 2, .world = 4, .n_shards = 3), .net = ROUGH},
    {FREE("ssp", .staleness = 2, .world = 3, .n_shards = 2), .net = ROUGH, .slow_factor = 5},
    {FREE("asp", .world = 3, .n_shards = 2, .codec_push = "float16", .codec_pull = "float16"), .net = ROUGH},
    {FREE("asp", .world = 4, .n_shards = 2, .clip_value = 100), .net = ROUGH, .hold_bytes_max = 300},
    {FREE("ssp", .staleness = 1, .world = 3, .n_shards = 2, .clip_norm = 1000), .net = ROUGH, .n_crashes = 2},
    {FREE("asp", .world = 3, .n_shards = 3), .net = ROUGH, .n_crashes = 3},
    {FREE("ssp", .staleness = 3, .world = 4, .n_shards = 2, .codec_pull = "float16"),
     .net = ROUGH,
     .n_crashes = 2,
     .n_ghosts = 2},
    {FREE("asp", .world = 3, .n_shards = 2, .average_ema = 0.75), .net = ROUGH, .n_crashes = 2},
    {FREE("asp", .world = 2, .n_shards = 2, .tensor_elems = one_large, .n_tensors = 1),
     .net = ROUGH,
     .window_bytes = 500,
     .hold_bytes_max = 300,
     .n_crashes = 1},
};

/* What is applied and what ranks still hold back is the sum of all gradients. */
static const dp_options lossy_free_scenarios[] = {
    {FREE("asp", .world = 3, .n_shards = 2, .codec_push = "int8"), .net = ROUGH},
    {FREE("asp", .world = 3, .n_shards = 2, .codec_push = "int4"), .net = ROUGH, .n_crashes = 3},
    {FREE("ssp", .staleness = 2, .world = 3, .n_shards = 3, .codec_push = "sign"), .net = ROUGH, .n_crashes = 2},
    {FREE("asp", .world = 4, .n_shards = 2, .codec_push = "ternary"), .net = ROUGH, .hold_bytes_max = 300, .n_crashes = 2},
    {FREE("ssp", .staleness = 1, .world = 3, .n_shards = 2, .codec_push = "natural"), .net = ROUGH, .n_crashes = 2},
    {FREE("asp", .world = 3, .n_shards = 2, .codec_push = "topk(10%, ternary)"), .net = ROUGH, .n_crashes = 3},
    {.plan = {.sync = "asp", .clocks = 120, .world = 3, .n_shards = 2, .adapts = true}, .net = ROUGH, .n_crashes = 2},
    {FREE("ssp", .staleness = 2, .world = 3, .n_shards = 2, .codec_push = "randomk(20%)"), .net = ROUGH, .n_crashes = 2},
};

static uint64_t n_seeds(void) {
  uint64_t n = 50;
  const char *text = getenv("BALLAST_SIM_SEEDS");
  if (text != NULL && bl_str_to_u64(text, &n) != BL_OK)
    ck_abort_msg("BALLAST_SIM_SEEDS is no number");
  return n;
}

static dp_options with_seed(const dp_options *from, uint64_t seed) {
  dp_options o = *from;
  o.seed = seed;
  o.plan.job = 7;
  o.plan.seed = 11;
  return o;
}

START_TEST(every_run_gives_the_weights_of_the_straight_line) {
  uint64_t n = n_seeds();
  for (uint64_t seed = 1; seed <= n; seed++) {
    dp_options o = with_seed(&scenarios[_i], seed * 1000 + (uint64_t)_i);
    dp_run(&o);
  }
}
END_TEST

START_TEST(lossy_pushes_and_pulls_give_the_bits_of_the_straight_line) {
  uint64_t n = n_seeds();
  for (uint64_t seed = 1; seed <= n; seed++) {
    dp_options o = with_seed(&lossy_scenarios[_i], seed * 1000 + (uint64_t)_i);
    dp_run(&o);
  }
}
END_TEST

START_TEST(gradients_are_applied_or_held_back_and_never_lost) {
  uint64_t n = n_seeds();
  for (uint64_t seed = 1; seed <= n; seed++) {
    dp_options o = with_seed(&lossy_free_scenarios[_i], seed * 1000 + (uint64_t)_i);
    dp_run(&o);
  }
}
END_TEST

START_TEST(every_update_of_a_free_rank_is_applied_once_and_all_end_with_the_same_weights) {
  uint64_t n = n_seeds();
  for (uint64_t seed = 1; seed <= n; seed++) {
    dp_options o = with_seed(&free_scenarios[_i], seed * 1000 + (uint64_t)_i);
    dp_run(&o);
  }
}
END_TEST

START_TEST(rows_of_tables_come_to_the_weights_of_the_straight_line) {
  uint64_t n = n_seeds();
  for (uint64_t seed = 1; seed <= n; seed++) {
    dp_options o = with_seed(&table_scenarios[_i], seed * 1000 + (uint64_t)_i);
    dp_run(&o);
  }
}
END_TEST

START_TEST(parts_in_turn_give_the_weights_of_the_straight_line) {
  uint64_t n = n_seeds();
  for (uint64_t seed = 1; seed <= n; seed++) {
    dp_options o = with_seed(&stream_scenarios[_i], seed * 1000 + (uint64_t)_i);
    dp_run(&o);
  }
}
END_TEST

START_TEST(neither_shards_nor_the_key_cache_show_in_rows) {
  dp_result expected = {0};
  for (uint32_t i = 0; i < 6; i++) {
    dp_options o = with_seed(&table_scenarios[2], 5 + i);
    o.plan.n_shards = 1 + i % 3;
    o.plan.key_cache_bytes = i < 3 ? 0 : 1 << 20;
    dp_result got = dp_run(&o);
    if (i == 0)
      expected = got;
    ck_assert_uint_eq(got.weights, expected.weights);
    if (i == 3) /* one shard again, another order of everything */
      ck_assert_uint_eq(got.shards, expected.shards);
  }
}
END_TEST

START_TEST(a_slow_rank_holds_others_back_in_ssp_and_not_in_asp) {
  dp_options o = with_seed(&free_scenarios[4], 2);
  o.net = (sim_config)QUIET;
  o.plan.clocks = 40;
  dp_result ssp = dp_run(&o);
  o.plan.sync = "asp";
  dp_result asp = dp_run(&o);
  o.slow_factor = 1;
  dp_result even = dp_run(&o);
  ck_assert_uint_eq(ssp.lead_max, 2);
  ck_assert_uint_gt(asp.lead_max, 20);
  ck_assert_uint_lt(asp.others_ns * 9, even.others_ns * 10); /* 0.9 of their pace, or more */
  ck_assert_uint_gt(ssp.others_ns, 3 * even.others_ns);
}
END_TEST

START_TEST(the_number_of_shards_does_not_show) {
  uint64_t expected = 0;
  for (uint32_t n_shards = 1; n_shards <= 3; n_shards++) {
    dp_options o = with_seed(&scenarios[4], 5);
    o.plan.clip_global_norm = _i == 0 ? 0 : 0.5;
    o.plan.n_shards = n_shards;
    uint64_t got = dp_run(&o).weights;
    if (n_shards == 1)
      expected = got;
    ck_assert_uint_eq(got, expected);
  }
}
END_TEST

START_TEST(every_kernel_table_gives_the_same_weights_and_state) {
  dp_result expected = {0};
  for (size_t i = 0; bl_kernels_at(i) != NULL; i++) {
    ck_assert_ok(bl_kernels_force(bl_kernels_at(i)->name, NULL));
    dp_options o = with_seed(&scenarios[5], 9);
    o.plan.optimizer = "adam";
    dp_result got = dp_run(&o);
    if (i == 0)
      expected = got;
    ck_assert_uint_eq(got.weights, expected.weights);
    ck_assert_uint_eq(got.shards, expected.shards);
  }
}
END_TEST

START_TEST(the_same_seed_gives_the_same_run) {
  dp_options o = with_seed(&scenarios[9], 3);
  dp_result a = dp_run(&o), b = dp_run(&o);
  ck_assert_uint_eq(a.sim_ns, b.sim_ns);
  ck_assert_uint_eq(a.shards, b.shards);
}
END_TEST

START_TEST(a_run_leaves_no_memory_behind) {
  dp_options o = with_seed(&scenarios[9], 4);
  dp_run(&o); /* pools of the process are made */
  uint64_t before = bl_alloc_get_stats().live_blocks;
  dp_run(&o);
  ck_assert_uint_eq(bl_alloc_get_stats().live_blocks, before);
}
END_TEST

int main(void) {
  Suite *s = suite_create("data_plane");
  TCase *t = tcase_create("runs");
  tcase_set_timeout(t, 300);
  tcase_add_loop_test(t, every_run_gives_the_weights_of_the_straight_line, 0, (int)BL_COUNT_OF(scenarios));
  tcase_add_loop_test(t, rows_of_tables_come_to_the_weights_of_the_straight_line, 0, (int)BL_COUNT_OF(table_scenarios));
  tcase_add_loop_test(t, parts_in_turn_give_the_weights_of_the_straight_line, 0, (int)BL_COUNT_OF(stream_scenarios));
  tcase_add_test(t, neither_shards_nor_the_key_cache_show_in_rows);
  tcase_add_loop_test(t, every_update_of_a_free_rank_is_applied_once_and_all_end_with_the_same_weights, 0,
                      (int)BL_COUNT_OF(free_scenarios));
  tcase_add_loop_test(t, lossy_pushes_and_pulls_give_the_bits_of_the_straight_line, 0, (int)BL_COUNT_OF(lossy_scenarios));
  tcase_add_loop_test(t, gradients_are_applied_or_held_back_and_never_lost, 0, (int)BL_COUNT_OF(lossy_free_scenarios));
  tcase_add_test(t, a_slow_rank_holds_others_back_in_ssp_and_not_in_asp);
  tcase_add_loop_test(t, the_number_of_shards_does_not_show, 0, 2);
  tcase_add_test(t, every_kernel_table_gives_the_same_weights_and_state);
  tcase_add_test(t, the_same_seed_gives_the_same_run);
  tcase_add_test(t, a_run_leaves_no_memory_behind);
  suite_add_tcase(s, t);
  return test_run(&s, 1);
}
