/* SPDX-License-Identifier: Apache-2.0 */
#include "base/alloc.h"
#include "base/arena.h"
#include "base/buf.h"
#include "base/file.h"
#include "base/map.h"
#include "base/rng.h"
#include "base/str.h"
#include "tests/support/support.h"

#include <stdio.h>
#include <string.h>

START_TEST(philox_gives_the_published_answers) {
  /* Known-answer vectors of the Random123 distribution for philox4x32 with 10 rounds. */
  bl_rng_block z = bl_rng_philox(0, 0, 0);
  ck_assert_uint_eq(z.v[0], 0x6627e8d5u);
  ck_assert_uint_eq(z.v[1], 0xe169c58du);
  ck_assert_uint_eq(z.v[2], 0xbc57ac4cu);
  ck_assert_uint_eq(z.v[3], 0x9b00dbd8u);
  bl_rng_block f = bl_rng_philox(UINT64_MAX, UINT64_MAX, UINT64_MAX);
  ck_assert_uint_eq(f.v[0], 0x408f276du);
  ck_assert_uint_eq(f.v[1], 0x41c83b0eu);
  ck_assert_uint_eq(f.v[2], 0xa20bc7c6u);
  ck_assert_uint_eq(f.v[3], 0x6d5451fdu);
}
END_TEST

START_TEST(normal_variates_have_mean_zero_and_deviation_one) {
  double sum = 0, squares = 0;
  const int n = 200000;
  for (int i = 0; i < n; i++) {
    double x = bl_rng_normal(7, 1, (uint64_t)i);
    sum += x;
    squares += x * x;
  }
  ck_assert_double_lt(sum / n, 0.01);
  ck_assert_double_gt(sum / n, -0.01);
  ck_assert_double_eq_tol(squares / n, 1.0, 0.02);
}
END_TEST

START_TEST(numbers_are_read_whole_or_not_at_all) {
  uint64_t u;
  double d;
  ck_assert_ok(bl_str_to_u64("18446744073709551615", &u));
  ck_assert_uint_eq(u, UINT64_MAX);
  static const char *const bad[] = {"", " 1", "1 ", "-1", "+1", "0x10", "18446744073709551616", "1e3", "abc"};
  for (size_t i = 0; i < BL_COUNT_OF(bad); i++)
    ck_assert_status(bl_str_to_u64(bad[i], &u), BL_EINVAL);
  ck_assert_ok(bl_str_to_double("-1.5e-3", &d));
  static const char *const bad_doubles[] = {"", "nan", "inf", "1e999", "0x1p3", "1.0f", "1 "};
  for (size_t i = 0; i < BL_COUNT_OF(bad_doubles); i++)
    ck_assert_status(bl_str_to_double(bad_doubles[i], &d), BL_EINVAL);
}
END_TEST

START_TEST(sizes_and_times_carry_units) {
  uint64_t v;
  ck_assert_ok(bl_str_to_bytes("8 GiB", &v));
  ck_assert_uint_eq(v, UINT64_C(8) << 30);
  ck_assert_ok(bl_str_to_bytes("1.5KiB", &v));
  ck_assert_uint_eq(v, 1536);
  ck_assert_ok(bl_str_to_ns("250 ms", &v));
  ck_assert_uint_eq(v, 250000000);
  ck_assert_status(bl_str_to_ns("30", &v), BL_EINVAL);
  ck_assert_status(bl_str_to_bytes("8 GiBs", &v), BL_EINVAL);
  ck_assert_status(bl_str_to_bytes("-1", &v), BL_EINVAL);
}
END_TEST

START_TEST(nearest_word_is_suggested_only_when_near) {
  static const char *const words[] = {"optimizer", "epochs", "batch"};
  ck_assert_str_eq(bl_str_nearest("optimiser", words, 3), "optimizer");
  ck_assert_str_eq(bl_str_nearest("epoch", words, 3), "epochs");
  ck_assert_ptr_null(bl_str_nearest("zebra", words, 3));
}
END_TEST

START_TEST(patterns_fit_the_whole_text) {
  static const struct {
    const char *pattern, *text;
    bool fits;
  } cases[] = {
      {"", "", true},          {"", "a", false},         {"*", "", true},           {"*", "dense1.bias", true},
      {"?", "", false},        {"?", "a", true},         {"?", "ab", false},        {"*.bias", "dense1.bias", true},
      {"*.bias", ".bias", true}, {"*.bias", "dense1.bias2", false}, {"dense1.*", "dense10.bias", false},
      {"dense?.*", "dense1.weight", true}, {"a*b*c", "a1b2b3c", true}, {"a*b*c", "a1c2b", false},
      {"*aab", "aaaaab", true}, {"**", "x", true},       {"*?", "", false},         {"*?", "x", true},
      {"[a]", "a", false},     {"dense1.weight", "dense1.weight", true},
  };
  for (size_t i = 0; i < BL_COUNT_OF(cases); i++)
    ck_assert_msg(bl_str_glob(cases[i].pattern, cases[i].text) == cases[i].fits, "'%s' and '%s'", cases[i].pattern,
                  cases[i].text);
}
END_TEST

START_TEST(map_survives_a_random_history) {
  bl_map m = BL_MAP_INIT;
  static char present[512];
  for (uint64_t i = 0; i < 20000; i++) {
    uint64_t key = bl_rng_below(3, 0, i, 512);
    if (bl_rng_below(3, 1, i, 2) == 0) {
      ck_assert_ok(bl_map_put(&m, key, &present[key]));
      present[key] = 1;
    } else {
      ck_assert_int_eq(bl_map_remove(&m, key) != NULL, present[key]);
      present[key] = 0;
    }
  }
  size_t count = 0;
  for (uint64_t key = 0; key < 512; key++) {
    ck_assert_ptr_eq(bl_map_get(&m, key), present[key] ? &present[key] : NULL);
    count += (size_t)present[key];
  }
  ck_assert_uint_eq(m.count, count);
  bl_map_fini(&m);
}
END_TEST

START_TEST(paths_are_resolved_and_folded) {
  static const struct {
    const char *base, *path, *want;
  } cases[] = {
      {"/a/b", "c", "/a/b/c"}, {"/a/b", "../c", "/a/c"},    {"/a", "/x/./y//z", "/x/y/z"},
      {"/a", "../../..", "/"}, {"/a/b", "./", "/a/b"},
  };
  for (size_t i = 0; i < BL_COUNT_OF(cases); i++) {
    char *got;
    ck_assert_ok(bl_path_resolve(cases[i].base, cases[i].path, &got, NULL));
    ck_assert_str_eq(got, cases[i].want);
    bl_free(got);
  }
  ck_assert(bl_path_is_below("/a/b", "/a"));
  ck_assert(!bl_path_is_below("/ab", "/a"));
  ck_assert(bl_path_is_below("/ab", "/"));
}
END_TEST

START_TEST(atomic_write_replaces_and_missing_files_are_named) {
  char path[128];
  snprintf(path, sizeof path, "%s/f", test_temp_dir());
  bl_error err = BL_ERROR_INIT;
  ck_assert_ok_err(bl_file_write_atomic(path, "one", 3, 0644, &err), err);
  ck_assert_ok_err(bl_file_write_atomic(path, "second", 6, 0644, &err), err);
  bl_buf b = BL_BUF_INIT;
  ck_assert_ok_err(bl_file_read(path, 100, &b, &err), err);
  ck_assert_str_eq(bl_buf_str(&b), "second");
  ck_assert_status(bl_file_read(path, 3, &b, &err), BL_ELIMIT);
  ck_assert_status(bl_file_read("/nonexistent/x", 100, &b, &err), BL_ENOENT);
  ck_assert_ptr_nonnull(strstr(err.text, "/nonexistent/x"));
  bl_buf_fini(&b);
}
END_TEST

START_TEST(allocation_failure_is_injected_and_counted) {
  uint64_t before = bl_alloc_get_stats().live_blocks;
  bl_alloc_fail_after(2);
  void *a = bl_malloc(8), *b = bl_malloc(8);
  bl_alloc_fail_after(0);
  ck_assert_ptr_nonnull(a);
  ck_assert_ptr_null(b);
  bl_free(a);
  ck_assert_uint_eq(bl_alloc_get_stats().live_blocks, before);
}
END_TEST

START_TEST(arena_respects_its_limit) {
  bl_arena a;
  bl_arena_init(&a, 1000);
  ck_assert_ptr_nonnull(bl_arena_alloc(&a, 900));
  ck_assert_ptr_null(bl_arena_alloc(&a, 200));
  bl_arena_reset(&a);
  ck_assert_ptr_nonnull(bl_arena_alloc(&a, 200));
  bl_arena_fini(&a);
}
END_TEST

int main(void) {
  Suite *s = suite_create("base");
  TCase *t = tcase_create("base");
  tcase_add_test(t, philox_gives_the_published_answers);
  tcase_add_test(t, normal_variates_have_mean_zero_and_deviation_one);
  tcase_add_test(t, numbers_are_read_whole_or_not_at_all);
  tcase_add_test(t, sizes_and_times_carry_units);
  tcase_add_test(t, nearest_word_is_suggested_only_when_near);
  tcase_add_test(t, patterns_fit_the_whole_text);
  tcase_add_test(t, map_survives_a_random_history);
  tcase_add_test(t, paths_are_resolved_and_folded);
  tcase_add_test(t, atomic_write_replaces_and_missing_files_are_named);
  tcase_add_test(t, allocation_failure_is_injected_and_counted);
  tcase_add_test(t, arena_respects_its_limit);
  suite_add_tcase(s, t);
  return test_run(&s, 1);
}
