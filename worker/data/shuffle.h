/* SPDX-License-Identifier: Apache-2.0
 *
 * Which samples belong to (epoch, clock, rank): pure functions, no state.
 *
 * The order of an epoch is a keyed permutation of [0, n): a Feistel network over the next even power of two
 * with cycle walking (Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002), keyed by
 * (seed, epoch). Clock c of the epoch takes positions [c*batch, min((c+1)*batch, n)); rank r of R takes the
 * part [len*r/R, len*(r+1)/R) of them. Every sample is used exactly once per epoch, whatever R and batch.
 *
 * Where ranks have samples of their own, each goes through its own n in an order keyed by (seed, epoch, rank),
 * share = batch / R at a time; who has fewer than others has no part in the last clocks of an epoch.
 */
#ifndef WK_DATA_SHUFFLE_H
#define WK_DATA_SHUFFLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct wk_permutation {
  uint64_t n;
  uint64_t key;
  unsigned half_bits;
  bool identity;
} wk_permutation;

void wk_permutation_init(wk_permutation *p, uint64_t n, uint64_t seed, uint64_t epoch, bool shuffle);
/* Of a rank's own samples: ranks do not shuffle alike. */
void wk_permutation_init_local(wk_permutation *p, uint64_t n, uint64_t seed, uint64_t epoch, uint32_t rank, bool shuffle);
uint64_t wk_permutation_at(const wk_permutation *p, uint64_t position); /* position < n */

typedef struct wk_range {
  uint64_t first, end;
} wk_range;

/* Positions of a rank in a clock of an epoch (clock counted from 0 within the epoch). May be empty. */
wk_range wk_batch_range(uint64_t n, uint64_t batch, uint64_t clock_in_epoch, uint32_t rank, uint32_t world);
/* Samples of that clock over all ranks. */
uint64_t wk_batch_size(uint64_t n, uint64_t batch, uint64_t clock_in_epoch);
/* The same where every rank has samples of its own (data.where: local), n of them here: positions of the rank in its
 * own order, share = batch / ranks in every clock until there are none. Behind the last: empty. */
wk_range wk_local_range(uint64_t n, uint64_t share, uint64_t clock_in_epoch);
/* Samples of that clock over all ranks. */
uint64_t wk_local_size(const uint64_t *rank_samples, size_t n_ranks, uint64_t share, uint64_t clock_in_epoch);
/* Part of an evaluation set that a rank evaluates: [n*r/R, n*(r+1)/R). */
wk_range wk_eval_range(uint64_t n, uint32_t rank, uint32_t world);
/* Samples that are trained on: the first ones; the last round(n * validation) are held out. */
uint64_t wk_train_part(uint64_t n, double validation);

#endif
