/* SPDX-License-Identifier: Apache-2.0 */
#include "base/num.h"
#include "base/rng.h"
#include "place/place.h"
#include "tests/support/support.h"

#include <string.h>

#define CHUNKS_MAX 400
#define SHARDS_MAX 16

static bl_chunk chunks[CHUNKS_MAX];
static bl_tensor_table table = {.chunks = chunks};
static uint32_t shard_of[CHUNKS_MAX];
static uint64_t load[SHARDS_MAX], capacity[SHARDS_MAX];

/* A model of mostly full chunks and some small ones, as real ones are. */
static void make_table(uint32_t n, uint64_t seed) {
  table.n_chunks = n;
  table.n_elems = 0;
  for (uint32_t i = 0; i < n; i++) {
    bool full = bl_rng_below(seed, 0, i, 3) != 0;
    chunks[i].n_elems = full ? 1u << 18 : 1 + (uint32_t)bl_rng_below(seed, 1, i, 1u << 18);
    table.n_elems += chunks[i].n_elems;
  }
  memset(load, 0, sizeof load);
  memset(capacity, 0, sizeof capacity);
}

START_TEST(loads_differ_by_at_most_the_largest_chunk) {
  for (size_t n_shards = 1; n_shards <= SHARDS_MAX; n_shards++) {
    make_table(37 + 13 * (uint32_t)n_shards, n_shards);
    bl_error err = BL_ERROR_INIT;
    ck_assert_ok_err(bl_place_chunks(&table, 16, load, capacity, n_shards, shard_of, &err), err);
    uint64_t own[SHARDS_MAX] = {0}, least = UINT64_MAX, most = 0, sum = 0;
    for (uint32_t i = 0; i < table.n_chunks; i++) {
      ck_assert_uint_lt(shard_of[i], n_shards);
      own[shard_of[i]] += 16 * (uint64_t)chunks[i].n_elems;
    }
    for (size_t i = 0; i < n_shards; i++) {
      ck_assert_uint_eq(own[i], load[i]);
      least = BL_MIN(least, load[i]);
      most = BL_MAX(most, load[i]);
      sum += load[i];
    }
    ck_assert_uint_le(most - least, 16u << 18);
    ck_assert_uint_eq(sum, 16 * table.n_elems);
  }
}
END_TEST

START_TEST(the_same_inputs_give_the_same_placement) {
  uint32_t first[CHUNKS_MAX];
  make_table(CHUNKS_MAX, 7);
  ck_assert_ok(bl_place_chunks(&table, 20, load, capacity, 5, first, NULL));
  make_table(CHUNKS_MAX, 7);
  ck_assert_ok(bl_place_chunks(&table, 20, load, capacity, 5, shard_of, NULL));
  ck_assert_mem_eq(first, shard_of, sizeof first);
}
END_TEST

START_TEST(present_load_is_evened_out) {
  make_table(64, 3);
  load[0] = UINT64_C(1) << 40;
  ck_assert_ok(bl_place_chunks(&table, 16, load, capacity, 3, shard_of, NULL));
  for (uint32_t i = 0; i < table.n_chunks; i++)
    ck_assert_uint_ne(shard_of[i], 0);
}
END_TEST

START_TEST(capacity_is_respected_and_what_fits_nowhere_changes_nothing) {
  make_table(10, 3);
  for (uint32_t i = 0; i < 10; i++)
    chunks[i].n_elems = 1000;
  capacity[0] = 16000 * 3;
  capacity[1] = 16000 * 7;
  ck_assert_ok(bl_place_chunks(&table, 16, load, capacity, 2, shard_of, NULL));
  ck_assert_uint_eq(load[0], capacity[0]);
  ck_assert_uint_eq(load[1], capacity[1]);

  uint64_t before[2] = {0, 16000};
  memcpy(load, before, sizeof before);
  memset(shard_of, 0xff, sizeof shard_of);
  bl_error err = BL_ERROR_INIT;
  ck_assert_status(bl_place_chunks(&table, 16, load, capacity, 2, shard_of, &err), BL_ELIMIT);
  ck_assert_mem_eq(load, before, sizeof before);
  ck_assert_uint_eq(shard_of[0], UINT32_MAX);
  ck_assert_ptr_nonnull(strstr(err.text, "server memory"));
  ck_assert_status(bl_place_chunks(&table, 16, load, capacity, 0, shard_of, &err), BL_ELIMIT);
}
END_TEST

START_TEST(memory_per_weight_counts_slots_and_frames) {
  ck_assert_uint_eq(bl_place_bytes_per_elem(0, true), 16);
  ck_assert_uint_eq(bl_place_bytes_per_elem(2, true), 24);
  ck_assert_uint_eq(bl_place_bytes_per_elem(2, false), 28);
}
END_TEST

int main(void) {
  Suite *s = suite_create("place");
  TCase *t = tcase_create("place");
  tcase_add_test(t, loads_differ_by_at_most_the_largest_chunk);
  tcase_add_test(t, the_same_inputs_give_the_same_placement);
  tcase_add_test(t, present_load_is_evened_out);
  tcase_add_test(t, capacity_is_respected_and_what_fits_nowhere_changes_nothing);
  tcase_add_test(t, memory_per_weight_counts_slots_and_frames);
  suite_add_tcase(s, t);
  return test_run(&s, 1);
}
