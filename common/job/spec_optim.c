/* SPDX-License-Identifier: Apache-2.0
 *
 * What the fields of the job file about updates must say together: rule, schedule and parameter groups.
 */
#include "job/spec_parts.h"
#include "optim/optim.h"

/* The schedule's parameters stand in the spec in the order of its table. */
static void check_schedule(bl_conf_reader *r, const bl_node *root) {
  const bl_job_spec *s = r->base;
  const bl_node *node = bl_node_get(root, "schedule");
  const bl_optim_rule *rule = s->optimizer != NULL ? bl_optim_rule_by_name(s->optimizer) : NULL;
  const bl_schedule_rule *schedule = s->schedule != NULL ? bl_schedule_rule_by_name(s->schedule) : NULL;
  double params[BL_OPTIM_PARAMS_MAX] = {0};
  if (node == NULL || rule == NULL || schedule == NULL)
    return;
  for (size_t i = 0; i < s->n_schedule_params; i++)
    params[i] = s->schedule_params[i].value;
  if (!bl_optim_takes_schedule(rule, schedule, params))
    bl_conf_errors_add_field(r->errors, node,
                             "'%s' takes no schedule but constant without warmup: it makes its weights anew from sums, "
                             "and a rate that falls would shrink them", rule->name);
}

void bl_job_optim_finish(bl_conf_reader *r, const bl_node *root) { check_schedule(r, root); }
