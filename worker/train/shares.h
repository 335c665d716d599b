/* SPDX-License-Identifier: Apache-2.0
 *
 * Which samples a rank takes in which clock. Three kinds: in step (bsp) a part of every batch; with data of its own
 * (data.where: local) its share of it in every clock; otherwise (ssp, asp) the leases that the coordinator's
 * ledger hands out ahead of need, so that a fast rank takes more of them than a slow one. Either way every sample
 * is taken once per epoch, and a clock has the same samples whoever works on it and however often.
 *
 * With local steps (in step) a clock is a round of so many batches, fewer at the end of an epoch, and a rank takes its part of each in
 * a step of its own: the same samples that it would take in as many clocks of bsp.
 *
 * Knows positions in an epoch's order, not samples. Threads: one.
 */
#ifndef WK_TRAIN_SHARES_H
#define WK_TRAIN_SHARES_H

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

#define WK_LEASES_MAX 4

/* Positions [first, end) of an epoch's order, per_clock of them in each clock from first_clock on. */
typedef struct wk_lease {
  uint64_t first_clock, per_clock, epoch, first, end;
} wk_lease;

typedef struct wk_share {
  uint64_t epoch;      /* 0, 1, ... */
  uint64_t first, end; /* positions; may be none. With local steps: see wk_shares_step */
  double denominator;  /* the gradient is the sum over the samples divided by this */
} wk_share;

/* A step of a round of local steps: the rank's part of one batch. */
typedef struct wk_step_share {
  uint64_t first, end; /* positions; may be none */
  uint64_t place;      /* number of the batch in the job, from 0: what a clock of bsp would be */
} wk_step_share;

typedef enum wk_share_state {
  WK_SHARE_THERE = 1,
  WK_SHARE_UNKNOWN, /* the ledger has to be asked */
  WK_SHARE_END,     /* the rank has no more clocks */
} wk_share_state;

typedef struct wk_shares_config {
  bool in_step;
  uint32_t rank, world;
  uint64_t n_train;             /* samples of the training set, or of the rank's own */
  const uint64_t *rank_samples; /* [world], borrowed: where local; NULL: shared */
  uint64_t clock_samples;       /* of a clock over all ranks */
  uint32_t local_steps;         /* of a full clock; 0: none */
  uint64_t epochs;
  uint64_t clock_samples_max;   /* with a ledger: of a clock of this rank */
} wk_shares_config;

typedef struct wk_shares {
  wk_shares_config config;
  uint64_t clocks_per_epoch, clocks; /* of the ledger's: as if it were bsp */
  uint64_t steps_per_epoch;          /* local steps */
  wk_lease leases[WK_LEASES_MAX];    /* ledger: by first_clock */
  uint32_t n_leases;
  bool exhausted;
} wk_shares;

void wk_shares_init(wk_shares *s, const wk_shares_config *config);
bool wk_shares_has_ledger(const wk_shares *s);

wk_share_state wk_shares_at(const wk_shares *s, uint64_t clock, wk_share *ret_share);
/* Of a clock with local steps, below s->clocks: how many steps it has, 1 at least, the same for all ranks; one of them;
 * and the samples of this rank in all of them. */
uint32_t wk_shares_steps(const wk_shares *s, uint64_t clock);
wk_step_share wk_shares_step(const wk_shares *s, uint64_t clock, uint32_t step);
uint64_t wk_shares_own(const wk_shares *s, uint64_t clock);
/* The clock is the first of an epoch, or behind the last. Not with a ledger, whose epochs have no edges. */
bool wk_shares_begins_epoch(const wk_shares *s, uint64_t clock);

/* With a ledger: should it be asked, at this clock, for more? */
bool wk_shares_wants_more(const wk_shares *s, uint64_t clock);
/* Its answer: all leases that the rank has. BL_EINVAL: they make no sense, nothing changed. */
BL_MUST_CHECK bl_status wk_shares_take(wk_shares *s, const wk_lease *leases, uint32_t n, bool exhausted, bl_error *err);

#endif
