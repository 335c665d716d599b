/* SPDX-License-Identifier: Apache-2.0
 *
 * Leases of samples.
 */
#include "coordinator/ledger.h"

#include "base/alloc.h"
#include "base/num.h"

#include <math.h>
#include <string.h>

#define PARTS 4               /* a lease is at most a rank's share of what is left, divided by this */
#define FIRST_CLOCKS 4        /* of a lease for a rank whose speed is not known */
#define LEASE_S_MIN 0.1       /* work of a lease: less is not worth the question, but for very short epochs */
#define LEASE_S_MAX 10.0      /* goes on so long without the coordinator */
#define LEASE_S_ADAPT_MAX 0.5 /* where leases are how the ledger adapts */
#define SHARE_MAX 2           /* times the even share: samples of a clock, where they follow the speed */
#define RATE_MAX 1e15

typedef struct rank_leases {
  double rate; /* samples per second; 0: not known */
  co_lease at[CO_LEASES_MAX];
  uint32_t n;
} rank_leases;

struct co_ledger {
  co_ledger_config config;
  uint64_t epoch, position;
  rank_leases ranks[]; /* [world] */
};

co_ledger *co_ledger_new(const co_ledger_config *config) {
  co_ledger *l = bl_calloc(1, sizeof *l + config->world * sizeof l->ranks[0]);
  if (l == NULL)
    return NULL;
  l->config = *config;
  l->epoch = config->start_epoch;
  return l;
}

void co_ledger_free(co_ledger *l) { bl_free(l); }

static uint64_t n_clocks(const co_lease *l) { return bl_div_up_u64(l->end - l->first, l->per_clock); }
static uint64_t end_clock(const co_lease *l) { return l->first_clock + n_clocks(l); }

static bool is_known(double rate) { return rate > 0 && rate < RATE_MAX; }

/* The rank's part of all ranks' speed; those that are not known count as the mean of the others. */
static double speed_part(const co_ledger *l, uint32_t rank, double rate) {
  double sum = 0;
  uint32_t n = 0;
  for (uint32_t r = 0; r < l->config.world; r++) {
    double of = r == rank ? rate : l->ranks[r].rate;
    if (is_known(of)) {
      sum += of;
      n++;
    }
  }
  if (n == 0)
    return 1.0 / l->config.world;
  double mean = sum / n;
  return (is_known(rate) ? rate : mean) / (mean * l->config.world);
}

static uint64_t samples_per_clock(const co_ledger *l, double part) {
  uint64_t even = BL_MAX(l->config.clock_samples / l->config.world, 1);
  if (!l->config.adapts)
    return even;
  double own = (double)l->config.clock_samples * part;
  return (uint64_t)BL_MIN(BL_MAX(llround(own), 1), (long long)(SHARE_MAX * even));
}

/* Samples of the next lease, out of `left` in its epoch. */
static uint64_t lease_samples(const co_ledger *l, uint64_t left, uint64_t per_clock, double part, double rate) {
  double clocks = FIRST_CLOCKS * (double)per_clock, most = clocks, least = clocks;
  if (is_known(rate)) {
    most = BL_MAX(rate * (l->config.adapts ? LEASE_S_ADAPT_MAX : LEASE_S_MAX), clocks);
    double of_epoch = (double)l->config.n_train * part / PARTS; /* ranks stay in one epoch as long as they can */
    least = BL_MAX(BL_MIN(rate * LEASE_S_MIN, of_epoch), (double)per_clock);
  }
  double n = BL_MIN(BL_MAX((double)left * part / PARTS, least), most);
  uint64_t whole = (uint64_t)BL_MIN(n, (double)left);
  whole = bl_div_up_u64(BL_MAX(whole, 1), per_clock) * per_clock; /* a clock that is not full only at the end */
  return whole >= left || left - whole < per_clock ? left : whole;
}

/* A request from a clock that the rank cannot be at, or that it has samples for. */
static bool needs_nothing(const co_ledger *l, const rank_leases *r, uint64_t clock) {
  if (r->n == 0)
    return clock != l->config.start_clock;
  const co_lease *last = &r->at[r->n - 1];
  return clock > end_clock(last) || end_clock(last) - clock > n_clocks(last) / 2;
}

void co_ledger_plan(const co_ledger *l, uint32_t rank, uint64_t clock, double rate, co_ledger_entry *e) {
  const rank_leases *r = &l->ranks[rank];
  bool grants = !needs_nothing(l, r, clock) && l->epoch < l->config.epochs;
  *e = (co_ledger_entry){.rate = is_known(rate) ? rate : r->rate, .epoch = l->epoch, .position = l->position};
  for (uint32_t i = 0; i < r->n; i++)
    if (end_clock(&r->at[i]) > clock || (i + 1 == r->n && !grants))
      e->leases[e->n_leases++] = r->at[i];
  if (!grants || e->n_leases == CO_LEASES_MAX)
    return;
  uint64_t first_clock = r->n > 0 ? end_clock(&r->at[r->n - 1]) : clock;
  double part = speed_part(l, rank, e->rate);
  uint64_t per_clock = samples_per_clock(l, part), left = l->config.n_train - l->position;
  uint64_t n = lease_samples(l, left, per_clock, part, e->rate);
  e->leases[e->n_leases++] = (co_lease){first_clock, per_clock, l->epoch, l->position, l->position + n};
  e->position += n;
  if (e->position == l->config.n_train) {
    e->position = 0;
    e->epoch++;
  }
}

bl_status co_ledger_apply(co_ledger *l, uint32_t rank, const co_ledger_entry *e) {
  const co_ledger_config *c = &l->config;
  if (rank >= c->world || e->n_leases > CO_LEASES_MAX || e->epoch > c->epochs || e->position >= c->n_train)
    return BL_EINVAL;
  for (uint32_t i = 0; i < e->n_leases; i++) {
    const co_lease *lease = &e->leases[i];
    if (lease->per_clock == 0 || lease->first >= lease->end || lease->end > c->n_train || lease->epoch >= c->epochs ||
        lease->first_clock > UINT64_MAX - c->n_train)
      return BL_EINVAL;
  }
  rank_leases *r = &l->ranks[rank];
  r->rate = e->rate;
  r->n = e->n_leases;
  memcpy(r->at, e->leases, e->n_leases * sizeof e->leases[0]);
  /* Restored in the order of ranks, not of time: the furthest is the newest. */
  if (e->epoch > l->epoch || (e->epoch == l->epoch && e->position > l->position)) {
    l->epoch = e->epoch;
    l->position = e->position;
  }
  return BL_OK;
}

bool co_ledger_is_exhausted(const co_ledger *l) { return l->epoch >= l->config.epochs; }

uint64_t co_ledger_handed(const co_ledger *l) {
  return (l->epoch - l->config.start_epoch) * l->config.n_train + l->position;
}

uint32_t co_ledger_leases(const co_ledger *l, uint32_t rank, const co_lease **ret_leases) {
  *ret_leases = l->ranks[rank].at;
  return l->ranks[rank].n;
}
