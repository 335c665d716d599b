/* SPDX-License-Identifier: Apache-2.0
 *
 * The ledger of a job whose ranks run free (ssp, asp): who trains on which samples of an epoch. It hands out
 * leases ahead of need, large while much is left and small towards the end, larger to fast ranks, so that every
 * sample is taken exactly once per epoch and all come to the end of the last one together. Pure: the coordinator
 * stores each step before it answers.
 *
 * Epochs follow one another without a barrier: a rank that finds nothing left in one begins the next.
 *
 * With stale-synchronous ranks (ssp) nobody may run far ahead of the slowest in clocks, so a slow rank gets fewer
 * samples per clock instead of holding the others back.
 * Source: Polychronopoulos and Kuck, "Guided self-scheduling", IEEE Trans. Computers C-36 (1987), for the sizes.
 */
#ifndef CO_LEDGER_H
#define CO_LEDGER_H

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

#define CO_LEASES_MAX 4 /* of a rank, not worked off */

/* Positions [first, end) of an epoch's order, per_clock of them in each of the rank's clocks from first_clock on. */
typedef struct co_lease {
  uint64_t first_clock, per_clock, epoch, first, end;
} co_lease;

/* A step: what a rank has after its request, and where the ledger is then. */
typedef struct co_ledger_entry {
  double rate;
  co_lease leases[CO_LEASES_MAX];
  uint32_t n_leases;
  uint64_t epoch, position; /* the next sample that nobody has */
} co_ledger_entry;

typedef struct co_ledger_config {
  uint64_t n_train;       /* samples of an epoch, at least 1 */
  uint64_t clock_samples; /* of a clock over all ranks */
  uint64_t epochs, start_epoch, start_clock;
  uint32_t world;
  bool adapts;            /* ssp: samples per clock follow the ranks' speed */
} co_ledger_config;

typedef struct co_ledger co_ledger;

co_ledger *co_ledger_new(const co_ledger_config *config) BL_MUST_CHECK; /* NULL: no memory */
void co_ledger_free(co_ledger *l);

/* What the rank's request leads to; changes nothing. clock: that it works on; one that it cannot be at leads to
 * nothing: it keeps what it has. samples_per_second: of its own work; 0
 * or nonsense: not known. */
void co_ledger_plan(const co_ledger *l, uint32_t rank, uint64_t clock, double samples_per_second,
                    co_ledger_entry *ret_entry);
/* Takes a step, new or restored. BL_EINVAL: it makes no sense for this ledger; nothing changed. */
BL_MUST_CHECK bl_status co_ledger_apply(co_ledger *l, uint32_t rank, const co_ledger_entry *entry);

/* All samples of all epochs have been handed out. */
bool co_ledger_is_exhausted(const co_ledger *l);
/* Samples that have been handed out, over all epochs since the first. */
uint64_t co_ledger_handed(const co_ledger *l);
/* Leases of a rank that it had not worked off at its last request; the last one in any case. */
uint32_t co_ledger_leases(const co_ledger *l, uint32_t rank, const co_lease **ret_leases);

#endif
