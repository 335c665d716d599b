/* SPDX-License-Identifier: Apache-2.0
 *
 * Shares of the data.
 */
#include "train/shares.h"

#include "base/num.h"
#include "data/shuffle.h"
#include "job/tensors.h"

#include <inttypes.h>
#include <string.h>

static uint64_t step_samples(const wk_shares *s) { return s->config.clock_samples / BL_MAX(s->config.local_steps, 1); }

static uint64_t count_steps(const wk_shares *s, uint64_t epochs) {
  const wk_shares_config *c = &s->config;
  return c->rank_samples == NULL ? bl_job_clocks(c->n_train, step_samples(s), epochs)
                                 : bl_job_clocks_local(c->rank_samples, c->world, step_samples(s), epochs);
}

void wk_shares_init(wk_shares *s, const wk_shares_config *c) {
  *s = (wk_shares){.config = *c};
  BL_ASSERT(c->local_steps == 0 || c->in_step);
  uint64_t epochs[] = {1, c->epochs}, *clocks[] = {&s->clocks_per_epoch, &s->clocks};
  for (size_t i = 0; i < BL_COUNT_OF(epochs); i++) {
    if (c->rank_samples == NULL)
      *clocks[i] = bl_job_clocks(c->n_train, c->clock_samples, epochs[i]);
    else if (c->in_step)
      *clocks[i] = bl_job_clocks_local(c->rank_samples, c->world, c->clock_samples, epochs[i]);
    else /* nobody waits for the rank with the most */
      *clocks[i] = bl_job_clocks(c->n_train, c->clock_samples / c->world, epochs[i]);
  }
  s->steps_per_epoch = count_steps(s, 1);
}

bool wk_shares_has_ledger(const wk_shares *s) { return !s->config.in_step && s->config.rank_samples == NULL; }

static uint64_t n_clocks(const wk_lease *l) { return bl_div_up_u64(l->end - l->first, l->per_clock); }

static wk_share_state share_of_leases(const wk_shares *s, uint64_t clock, wk_share *ret) {
  for (uint32_t i = 0; i < s->n_leases; i++) {
    const wk_lease *l = &s->leases[i];
    if (clock < l->first_clock || clock - l->first_clock >= n_clocks(l))
      continue;
    ret->epoch = l->epoch;
    ret->first = l->first + (clock - l->first_clock) * l->per_clock;
    ret->end = BL_MIN(ret->first + l->per_clock, l->end);
    return WK_SHARE_THERE;
  }
  const wk_lease *last = s->n_leases > 0 ? &s->leases[s->n_leases - 1] : NULL;
  bool behind = last == NULL || clock >= last->first_clock + n_clocks(last);
  return s->exhausted && behind ? WK_SHARE_END : WK_SHARE_UNKNOWN;
}

wk_share_state wk_shares_at(const wk_shares *s, uint64_t clock, wk_share *ret) {
  const wk_shares_config *c = &s->config;
  uint64_t in_epoch = clock % s->clocks_per_epoch, own = c->clock_samples / c->world;
  if (!c->in_step) /* every sample has the same weight, also in a clock of fewer than others have */
    ret->denominator = (double)c->clock_samples / c->world;
  if (wk_shares_has_ledger(s))
    return share_of_leases(s, clock, ret);
  if (clock >= s->clocks)
    return WK_SHARE_END;
  wk_range range = c->rank_samples != NULL ? wk_local_range(c->n_train, own, in_epoch)
                                           : wk_batch_range(c->n_train, c->clock_samples, in_epoch, c->rank, c->world);
  if (c->in_step)
    ret->denominator = (double)(c->rank_samples != NULL
                                    ? wk_local_size(c->rank_samples, c->world, own, in_epoch)
                                    : wk_batch_size(c->n_train, c->clock_samples, in_epoch));
  ret->epoch = clock / s->clocks_per_epoch;
  ret->first = range.first;
  ret->end = range.end;
  return WK_SHARE_THERE;
}

uint32_t wk_shares_steps(const wk_shares *s, uint64_t clock) {
  uint64_t behind = clock % s->clocks_per_epoch * s->config.local_steps;
  return (uint32_t)BL_MIN(s->config.local_steps, s->steps_per_epoch - behind);
}

wk_step_share wk_shares_step(const wk_shares *s, uint64_t clock, uint32_t step) {
  const wk_shares_config *c = &s->config;
  uint64_t in_epoch = clock % s->clocks_per_epoch * c->local_steps + step;
  wk_range range = c->rank_samples != NULL ? wk_local_range(c->n_train, step_samples(s) / c->world, in_epoch)
                                           : wk_batch_range(c->n_train, step_samples(s), in_epoch, c->rank, c->world);
  return (wk_step_share){range.first, range.end, clock / s->clocks_per_epoch * s->steps_per_epoch + in_epoch};
}

uint64_t wk_shares_own(const wk_shares *s, uint64_t clock) {
  uint64_t n = 0;
  for (uint32_t k = 0, steps = wk_shares_steps(s, clock); k < steps; k++) {
    wk_step_share step = wk_shares_step(s, clock, k);
    n += step.end - step.first;
  }
  return n;
}

bool wk_shares_begins_epoch(const wk_shares *s, uint64_t clock) {
  return !wk_shares_has_ledger(s) && clock % s->clocks_per_epoch == 0;
}

/* Ahead of need: when half of the newest lease is left. */
bool wk_shares_wants_more(const wk_shares *s, uint64_t clock) {
  if (!wk_shares_has_ledger(s) || s->exhausted)
    return false;
  if (s->n_leases == 0)
    return true;
  const wk_lease *last = &s->leases[s->n_leases - 1];
  uint64_t end = last->first_clock + n_clocks(last);
  return clock >= end || end - clock <= n_clocks(last) / 2;
}

bl_status wk_shares_take(wk_shares *s, const wk_lease *leases, uint32_t n, bool exhausted, bl_error *err) {
  const wk_shares_config *c = &s->config;
  if (n > WK_LEASES_MAX)
    return bl_fail(err, BL_EINVAL, "%" PRIu32 " leases, limit %d", n, WK_LEASES_MAX);
  for (uint32_t i = 0; i < n; i++) {
    const wk_lease *l = &leases[i];
    bool ok = l->per_clock > 0 && l->per_clock <= c->clock_samples_max && l->first < l->end &&
              l->first_clock <= UINT64_MAX / 2 && l->end <= c->n_train && l->epoch < c->epochs &&
              (i == 0 || l->first_clock == leases[i - 1].first_clock + n_clocks(&leases[i - 1]));
    if (!ok)
      return bl_fail(err, BL_EINVAL,
                     "lease of samples %" PRIu64 " to %" PRIu64 " of epoch %" PRIu64 ", %" PRIu64
                     " per clock from clock %" PRIu64 ", in a set of %" PRIu64,
                     l->first, l->end, l->epoch + 1, l->per_clock, l->first_clock, c->n_train);
  }
  memcpy(s->leases, leases, n * sizeof *leases);
  s->n_leases = n;
  s->exhausted = exhausted;
  return BL_OK;
}
