/* SPDX-License-Identifier: Apache-2.0
 *
 * Rules of synchronisation: which clock a shard takes pushes for, whose turn it is in a chunk's sum, and
 * when a clock is complete. Pure functions of small numbers; a rule is one row here and one file beside
 * bsp.c. The job (job.c) keeps the state and asks.
 */
#ifndef SRV_RULE_H
#define SRV_RULE_H

#include <stdbool.h>
#include <stdint.h>

typedef enum srv_when {
  SRV_PAST = 1, /* applied already: acknowledged again */
  SRV_PRESENT,
  SRV_FUTURE,   /* not admitted yet */
} srv_when;

typedef struct srv_rule {
  const char *name; /* as in job files: sync: bsp */
  /* Where a message's clock lies, seen from the shard's. */
  srv_when (*when)(uint64_t shard_clock, uint64_t clock);
  /* May this rank's bytes be added to a chunk's sum that has n_added ranks in it? */
  bool (*is_turn)(uint32_t n_added, uint32_t rank);
  /* A rank is complete with its commit and all its chunks. */
  bool (*is_complete)(uint32_t world, uint32_t n_ranks_complete);
} srv_rule;

/* NULL when there is no such rule. */
const srv_rule *srv_rule_by_name(const char *name);

extern const srv_rule srv_rule_bsp;

#endif
