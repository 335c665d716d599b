/* SPDX-License-Identifier: Apache-2.0
 *
 * The ledger of samples: whatever the number of samples, ranks and batches, whoever is fast or slow, asks twice
 * or starts again, every sample of every epoch is handed out exactly once.
 */
#include "base/alloc.h"
#include "base/num.h"
#include "base/rng.h"
#include "coordinator/ledger.h"
#include "tests/support/support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define RANKS_MAX 16

typedef struct sim {
  co_ledger_config config;
  co_ledger *ledger;
  co_ledger_entry stored[RANKS_MAX]; /* newest of each rank, as the store has it */
  bool has_stored[RANKS_MAX];
  uint64_t clock[RANKS_MAX], samples[RANKS_MAX];
  double rate[RANKS_MAX]; /* samples per second */
  double busy_until[RANKS_MAX];
  uint8_t *taken;         /* [epochs][n_train] */
} sim;

static sim *sim_new(const co_ledger_config *config) {
  sim *s = calloc(1, sizeof *s);
  s->config = *config;
  s->ledger = co_ledger_new(config);
  s->taken = calloc(config->epochs, config->n_train);
  ck_assert(s->ledger != NULL && s->taken != NULL);
  for (uint32_t r = 0; r < config->world; r++)
    s->rate[r] = 1000;
  return s;
}

static void sim_free(sim *s) {
  co_ledger_free(s->ledger);
  free(s->taken);
  free(s);
}

static void ask(sim *s, uint32_t rank, double rate) {
  co_ledger_entry e;
  co_ledger_plan(s->ledger, rank, s->clock[rank], rate, &e);
  s->stored[rank] = e;
  s->has_stored[rank] = true;
  ck_assert_ok(co_ledger_apply(s->ledger, rank, &e));
}

/* Another process of the coordinator, from what was stored, in the order of ranks. */
static void restart(sim *s) {
  co_ledger_free(s->ledger);
  s->ledger = co_ledger_new(&s->config);
  ck_assert_ptr_nonnull(s->ledger);
  for (uint32_t r = 0; r < s->config.world; r++)
    if (s->has_stored[r])
      ck_assert_ok(co_ledger_apply(s->ledger, r, &s->stored[r]));
}

static const co_lease *lease_of(const sim *s, uint32_t rank) {
  const co_lease *leases;
  uint32_t n = co_ledger_leases(s->ledger, rank, &leases);
  for (uint32_t i = 0; i < n; i++)
    if (s->clock[rank] >= leases[i].first_clock &&
        s->clock[rank] < leases[i].first_clock + bl_div_up_u64(leases[i].end - leases[i].first, leases[i].per_clock))
      return &leases[i];
  return NULL;
}

/* The rank's next clock; false: it has none any more. */
static bool work(sim *s, uint32_t rank, bool says_rate) {
  ask(s, rank, says_rate ? s->rate[rank] : 0);
  const co_lease *l = lease_of(s, rank);
  if (l == NULL) {
    ck_assert(co_ledger_is_exhausted(s->ledger));
    return false;
  }
  uint64_t first = l->first + (s->clock[rank] - l->first_clock) * l->per_clock;
  uint64_t end = BL_MIN(first + l->per_clock, l->end);
  for (uint64_t i = first; i < end; i++)
    ck_assert_uint_eq(s->taken[l->epoch * s->config.n_train + i]++, 0);
  s->clock[rank]++;
  s->samples[rank] += end - first;
  s->busy_until[rank] += (double)(end - first) / s->rate[rank];
  return true;
}

static void assert_all_taken(const sim *s) {
  for (uint64_t i = 0; i < s->config.epochs * s->config.n_train; i++)
    ck_assert_uint_eq(s->taken[i], 1);
}

/* Whoever is free first goes on; the rule of ssp holds ranks back. Returns the time of the last one. */
static double run(sim *s, uint64_t staleness, uint64_t restart_key) {
  bool over[RANKS_MAX] = {false};
  double end = 0;
  for (uint64_t step = 0;; step++) {
    uint32_t next = UINT32_MAX;
    uint64_t slowest = UINT64_MAX;
    for (uint32_t r = 0; r < s->config.world; r++)
      if (!over[r])
        slowest = BL_MIN(slowest, s->clock[r]);
    for (uint32_t r = 0; r < s->config.world; r++) {
      bool held = over[r] || s->clock[r] > slowest + staleness;
      if (!held && (next == UINT32_MAX || s->busy_until[r] < s->busy_until[next]))
        next = r;
    }
    if (next == UINT32_MAX)
      return end;
    if (restart_key != 0 && bl_rng_below(restart_key, 1, step, 7) == 0)
      restart(s);
    /* Whoever was held goes on when the others have come as far. */
    for (uint32_t r = 0; r < s->config.world; r++)
      if (s->clock[r] > slowest + staleness)
        s->busy_until[r] = BL_MAX(s->busy_until[r], s->busy_until[next]);
    over[next] = !work(s, next, s->clock[next] > 0);
    end = BL_MAX(end, s->busy_until[next]);
  }
}

static const co_ledger_config configs[] = {
    {.n_train = 1, .clock_samples = 1, .epochs = 1, .world = 1},
    {.n_train = 1, .clock_samples = 8, .epochs = 3, .world = 8}, /* more ranks than samples */
    {.n_train = 10, .clock_samples = 4, .epochs = 2, .world = 4},
    {.n_train = 103, .clock_samples = 16, .epochs = 4, .world = 3}, /* nothing divides */
    {.n_train = 103, .clock_samples = 16, .epochs = 4, .world = 3, .adapts = true},
    {.n_train = 40, .clock_samples = 32, .epochs = 5, .world = 16}, /* more ranks than batches */
    {.n_train = 40, .clock_samples = 32, .epochs = 5, .world = 16, .adapts = true},
    {.n_train = 60000, .clock_samples = 256, .epochs = 2, .world = 4},
    {.n_train = 60000, .clock_samples = 256, .epochs = 2, .world = 4, .adapts = true},
};

START_TEST(every_sample_of_every_epoch_is_handed_out_once) {
  for (uint64_t key = 1; key <= 20; key++) {
    sim *s = sim_new(&configs[_i]);
    for (uint32_t r = 0; r < s->config.world; r++)
      s->rate[r] = 10 + (double)bl_rng_below(key, 2, r, 5000);
    run(s, s->config.adapts ? 2 : UINT64_MAX / 2, key % 2 == 0 ? key : 0);
    assert_all_taken(s);
    sim_free(s);
  }
}
END_TEST

START_TEST(asking_again_gives_the_same_leases) {
  co_ledger_config config = configs[7];
  sim *s = sim_new(&config);
  ask(s, 1, 0);
  const co_lease *a, *b;
  uint32_t n = co_ledger_leases(s->ledger, 1, &a);
  co_lease first = a[0];
  ask(s, 1, 0);
  ck_assert_uint_eq(co_ledger_leases(s->ledger, 1, &b), n);
  ck_assert_mem_eq(&b[0], &first, sizeof first);
  co_ledger_entry e, again;
  co_ledger_plan(s->ledger, 2, 0, 100, &e); /* planning changes nothing */
  co_ledger_plan(s->ledger, 2, 0, 100, &again);
  ck_assert_mem_eq(&e, &again, sizeof e);
  sim_free(s);
}
END_TEST

/* One rank of four takes five times as long for a sample. The others would need 3/4 of the time with its help. */
START_TEST(a_slow_rank_does_not_hold_the_others_back) {
  double time[2];
  uint64_t others[2], slow = 0;
  for (int slowed = 0; slowed < 2; slowed++) {
    co_ledger_config config = configs[_i == 0 ? 7 : 8];
    config.epochs = 4;
    sim *s = sim_new(&config);
    s->rate[3] = slowed ? 200 : 1000;
    time[slowed] = run(s, _i == 0 ? UINT64_MAX / 2 : 4, 0);
    others[slowed] = s->samples[0] + s->samples[1] + s->samples[2];
    slow = s->samples[3];
    assert_all_taken(s);
    sim_free(s);
  }
  double pace = ((double)others[1] / time[1]) / ((double)others[0] / time[0]);
  ck_assert_msg(pace >= 0.9, "the others keep %.3f of their pace", pace);
  ck_assert_uint_lt(slow * 4, others[1]); /* about a fifteenth of all */
}
END_TEST

START_TEST(nonsense_from_a_rank_is_survived) {
  sim *s = sim_new(&configs[7]);
  static const double rates[] = {-1, NAN, INFINITY, 1e300, 1e-300};
  for (size_t i = 0; i < BL_COUNT_OF(rates); i++)
    for (uint64_t clock = 0; clock < UINT64_MAX / 2; clock = clock * 5 + 1) {
      co_ledger_entry e;
      co_ledger_plan(s->ledger, 0, clock, rates[i], &e);
      ck_assert_ok(co_ledger_apply(s->ledger, 0, &e));
    }
  co_ledger_entry bad = {.n_leases = CO_LEASES_MAX + 1};
  ck_assert_int_eq(co_ledger_apply(s->ledger, 0, &bad), BL_EINVAL);
  bad = (co_ledger_entry){.n_leases = 1, .leases = {{0, 0, 0, 0, 1}}};
  ck_assert_int_eq(co_ledger_apply(s->ledger, 0, &bad), BL_EINVAL);
  bad = (co_ledger_entry){.n_leases = 1, .leases = {{0, 1, 0, 5, 70000}}};
  ck_assert_int_eq(co_ledger_apply(s->ledger, 0, &bad), BL_EINVAL);
  bad = (co_ledger_entry){.position = 60000};
  ck_assert_int_eq(co_ledger_apply(s->ledger, 0, &bad), BL_EINVAL);
  ck_assert_int_eq(co_ledger_apply(s->ledger, 4, &(co_ledger_entry){.epoch = 0}), BL_EINVAL);
  sim_free(s);
}
END_TEST

START_TEST(a_rank_that_claims_an_impossible_clock_keeps_what_it_has) {
  sim *s = sim_new(&configs[7]);
  static const uint64_t clocks[] = {5, 1000000000000, UINT64_MAX - 1, UINT64_MAX};
  co_ledger_entry e;
  for (size_t i = 0; i < BL_COUNT_OF(clocks); i++) {
    co_ledger_plan(s->ledger, 0, clocks[i], 100, &e); /* before it ever had a lease */
    ck_assert_uint_eq(e.n_leases, 0);
  }
  ask(s, 0, 0);
  const co_lease *had;
  ck_assert_uint_eq(co_ledger_leases(s->ledger, 0, &had), 1);
  co_lease before = had[0];
  for (size_t i = 0; i < BL_COUNT_OF(clocks); i++) {
    co_ledger_plan(s->ledger, 0, clocks[i], 100, &e);
    ck_assert_ok(co_ledger_apply(s->ledger, 0, &e));
    ck_assert_uint_eq(co_ledger_leases(s->ledger, 0, &had), 1);
    ck_assert_mem_eq(&had[0], &before, sizeof before);
  }
  s->clock[0] = 4; /* where it really can be */
  ask(s, 0, 100);
  ck_assert_uint_eq(co_ledger_leases(s->ledger, 0, &had), 1);
  ck_assert_uint_eq(had[0].first_clock, 4);
  sim_free(s);
}
END_TEST

int main(void) {
  Suite *s = suite_create("ledger");
  TCase *t = tcase_create("ledger");
  tcase_set_timeout(t, 120);
  tcase_add_loop_test(t, every_sample_of_every_epoch_is_handed_out_once, 0, (int)BL_COUNT_OF(configs));
  tcase_add_test(t, asking_again_gives_the_same_leases);
  tcase_add_loop_test(t, a_slow_rank_does_not_hold_the_others_back, 0, 2);
  tcase_add_test(t, nonsense_from_a_rank_is_survived);
  tcase_add_test(t, a_rank_that_claims_an_impossible_clock_keeps_what_it_has);
  suite_add_tcase(s, t);
  return test_run(&s, 1);
}
