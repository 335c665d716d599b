/* SPDX-License-Identifier: Apache-2.0
 *
 * Rules of synchronisation: what an update consists of and when a rank may go on. Pure functions of small
 * numbers; a rule is one row here and one file beside bsp.c. The job (job.c) keeps the state and asks.
 *
 * There are two families. In step (bsp, local): all ranks work on one clock, an update is the sum of all ranks'
 * gradients of it. Free running (ssp, asp): every rank has a clock of its own, an update is one rank's gradient of
 * one clock, and updates are numbered in the order in which they became complete on the shard.
 */
#ifndef SRV_RULE_H
#define SRV_RULE_H

#include "wire/data.h"

#include <stdbool.h>
#include <stdint.h>

typedef enum srv_when {
  SRV_PAST = 1, /* applied already: acknowledged again */
  SRV_PRESENT,
  SRV_FUTURE,   /* not admitted yet */
} srv_when;

/* Where a message's clock lies, seen from the one that is open for its rank. */
static inline srv_when srv_rule_when(uint64_t open, uint64_t clock) {
  if (clock < open || open == BL_CLOCK_FINISHED)
    return SRV_PAST;
  return clock == open ? SRV_PRESENT : SRV_FUTURE;
}

typedef struct srv_rule {
  const char *name; /* as in job files: sync: bsp */
  bool in_step;     /* all ranks share one clock */
  /* Free running: may a rank have the weights to begin `clock`, when the slowest rank (of those that have not
   * finished) works on clock `slowest`? */
  bool (*may_begin)(uint64_t clock, uint64_t slowest, uint32_t staleness);
} srv_rule;

/* NULL when there is no such rule. */
const srv_rule *srv_rule_by_name(const char *name);

extern const srv_rule srv_rule_bsp, srv_rule_ssp, srv_rule_asp, srv_rule_local;

#endif
