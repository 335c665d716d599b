/* SPDX-License-Identifier: Apache-2.0
 *
 * Local steps: a clock is a round, in which every rank takes steps by itself; what it pushes is its part of the average
 * of the differences between the round's weights and its own. To a shard that is a clock of bsp, whose "gradient" is the
 * average difference, and whose optimizer is the job's outer one.
 * Source: McMahan et al., "Communication-efficient learning of deep networks from decentralized data", AISTATS 2017.
 */
#include "server/rule.h"

#include <stddef.h>

const srv_rule srv_rule_local = {.name = "local", .in_step = true, .may_begin = NULL};
