/* SPDX-License-Identifier: Apache-2.0
 *
 * Asynchronous: nobody waits for anybody.
 * Source: Dean et al., "Large scale distributed deep networks" (Downpour SGD), NIPS 2012, section 4.1.
 */
#include "server/rule.h"

static bool may_begin(uint64_t clock, uint64_t slowest, uint32_t staleness) {
  (void)clock;
  (void)slowest;
  (void)staleness;
  return true;
}

const srv_rule srv_rule_asp = {.name = "asp", .in_step = false, .may_begin = may_begin};
