/* SPDX-License-Identifier: Apache-2.0
 *
 * Bulk-synchronous: all ranks finish clock c before c + 1 is applied, and their gradients are added in
 * rank order, so that the sum has the same bits whatever the order of arrival.
 */
#include "server/rule.h"

static srv_when when(uint64_t shard_clock, uint64_t clock) {
  if (clock < shard_clock)
    return SRV_PAST;
  return clock == shard_clock ? SRV_PRESENT : SRV_FUTURE;
}

static bool is_turn(uint32_t n_added, uint32_t rank) { return rank == n_added; }

static bool is_complete(uint32_t world, uint32_t n_ranks_complete) { return n_ranks_complete == world; }

const srv_rule srv_rule_bsp = {.name = "bsp", .when = when, .is_turn = is_turn, .is_complete = is_complete};
