/* SPDX-License-Identifier: Apache-2.0
 *
 * The rules that this build knows.
 */
#include "server/rule.h"

#include <stddef.h>
#include <string.h>

static const srv_rule *const rules[] = {&srv_rule_bsp, &srv_rule_ssp, &srv_rule_asp, &srv_rule_local};

const srv_rule *srv_rule_by_name(const char *name) {
  for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++)
    if (strcmp(rules[i]->name, name) == 0)
      return rules[i];
  return NULL;
}
