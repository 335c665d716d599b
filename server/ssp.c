/* SPDX-License-Identifier: Apache-2.0
 *
 * Stale-synchronous: a rank may be at most `staleness` clocks ahead of the slowest.
 * Source: Ho et al., "More effective distributed ML via a stale synchronous parallel parameter server", NIPS 2013.
 */
#include "server/rule.h"

static bool may_begin(uint64_t clock, uint64_t slowest, uint32_t staleness) {
  return clock <= slowest || clock - slowest <= staleness;
}

const srv_rule srv_rule_ssp = {.name = "ssp", .in_step = false, .may_begin = may_begin};
