/* SPDX-License-Identifier: Apache-2.0
 *
 * Bulk-synchronous: all ranks finish clock c before c + 1 is applied, and their gradients are added in
 * rank order, so that the sum has the same bits whatever the order of arrival.
 * Source: Valiant, "A bridging model for parallel computation", CACM 33 (1990).
 */
#include "server/rule.h"

#include <stddef.h>

const srv_rule srv_rule_bsp = {.name = "bsp", .in_step = true, .may_begin = NULL};
