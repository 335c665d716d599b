/* SPDX-License-Identifier: Apache-2.0
 *
 * Learning-rate schedules: pure functions of the clock, so that a replaced server or a resumed job has the
 * same rate without any state. One row and one function per rule.
 */
#include "optim/rules.h"

#include <string.h>

static double constant_factor(uint64_t clock, uint64_t n_clocks, const double *params) { return 1.0; }

static const bl_schedule_rule rules[] = {
    {"constant", "the base rate throughout", NULL, 0, constant_factor},
};

const bl_schedule_rule *bl_schedule_rule_at(size_t i) { return i < BL_COUNT_OF(rules) ? &rules[i] : NULL; }

const bl_schedule_rule *bl_schedule_rule_by_name(const char *name) {
  for (size_t i = 0; i < BL_COUNT_OF(rules); i++) {
    if (strcmp(rules[i].name, name) == 0)
      return &rules[i];
  }
  return NULL;
}
