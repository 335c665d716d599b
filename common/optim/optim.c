/* SPDX-License-Identifier: Apache-2.0
 *
 * Registry of update rules, and the check of named parameters against a rule's table, which rules and
 * schedules share.
 */
#include "optim/optim.h"

#include "base/num.h"
#include "base/str.h"
#include "optim/rules.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define NAMES_MAX 32
_Static_assert(NAMES_MAX >= BL_OPTIM_PARAMS_MAX, "every parameter of a rule can be named in a message");

static const bl_optim_rule *const rules[] = {
    &bl_optim_sgd,  &bl_optim_momentum, &bl_optim_nesterov, &bl_optim_adagrad, &bl_optim_rmsprop,
    &bl_optim_adam, &bl_optim_adamw,    &bl_optim_amsgrad,  &bl_optim_ftrl,    &bl_optim_lamb,
    &bl_optim_yogi,
};

const bl_optim_rule *bl_optim_rule_at(size_t i) { return i < BL_COUNT_OF(rules) ? rules[i] : NULL; }

const bl_optim_rule *bl_optim_rule_by_name(const char *name) {
  for (size_t i = 0; i < BL_COUNT_OF(rules); i++) {
    if (strcmp(rules[i]->name, name) == 0)
      return rules[i];
  }
  return NULL;
}

double bl_optim_power(double base, uint64_t n) {
  double r = 1.0;
  for (; n != 0; n >>= 1) {
    if ((n & 1) != 0)
      r *= base;
    base *= base;
  }
  return r;
}

/* `unknown` is none of `names`: says which there are and which is near. */
static bl_status fail_unknown(bl_error *err, const char *what, const char *unknown, const char *const *names,
                              size_t n) {
  char list[256] = "";
  size_t used = 0;
  for (size_t i = 0; i < n && used < sizeof list; i++)
    used += (size_t)snprintf(list + used, sizeof list - used, "%s%s", i == 0 ? "" : ", ", names[i]);
  const char *near = bl_str_nearest(unknown, names, n);
  if (near != NULL)
    return bl_fail(err, BL_EINVAL, "unknown %s \"%s\": did you mean \"%s\"? (allowed: %s)", what, unknown, near, list);
  return bl_fail(err, BL_EINVAL, "unknown %s \"%s\" (allowed: %s)", what, unknown, n > 0 ? list : "none");
}

static bl_status check_range(const char *owner, const bl_param_info *info, double value, bl_error *err) {
  bool low = info->min_open ? value <= info->min : value < info->min;
  if (isfinite(value) && !low && value <= info->max)
    return BL_OK;
  return bl_fail(err, BL_EINVAL, "%s of %s is %g; it must be %s %g and at most %g", info->key, owner, value,
                 info->min_open ? "above" : "at least", info->min, info->max);
}

/* Fills out[n_infos] from the defaults and what is given. */
static bl_status read_params(const char *kind, const char *owner, const bl_param_info *infos, size_t n_infos,
                             const bl_param *given, size_t n_given, double *out, bl_error *err) {
  const char *keys[NAMES_MAX];
  bool seen[NAMES_MAX] = {false};
  for (size_t i = 0; i < n_infos; i++) {
    keys[i] = infos[i].key;
    out[i] = infos[i].default_value;
  }
  for (size_t k = 0; k < n_given; k++) {
    size_t i = 0;
    while (i < n_infos && strcmp(infos[i].key, given[k].key) != 0)
      i++;
    if (i == n_infos) {
      char what[64];
      snprintf(what, sizeof what, "parameter of %s %s", kind, owner);
      return fail_unknown(err, what, given[k].key, keys, n_infos);
    }
    if (seen[i])
      return bl_fail(err, BL_EINVAL, "%s of %s %s is given twice", given[k].key, kind, owner);
    seen[i] = true;
    bl_status status = check_range(owner, &infos[i], given[k].value, err);
    if (status != BL_OK)
      return status;
    out[i] = given[k].value;
  }
  return BL_OK;
}

static bl_status find_rule(const char *name, const bl_optim_rule **ret_rule, bl_error *err) {
  const char *names[NAMES_MAX];
  size_t n = 0;
  for (const bl_optim_rule *r; n < NAMES_MAX && (r = bl_optim_rule_at(n)) != NULL; n++)
    names[n] = r->name;
  const bl_optim_rule *rule = bl_optim_rule_by_name(name);
  if (rule == NULL)
    return fail_unknown(err, "optimizer", name, names, n);
  *ret_rule = rule;
  return BL_OK;
}

static bl_status find_schedule(const char *name, const bl_schedule_rule **ret_rule, bl_error *err) {
  const char *names[NAMES_MAX];
  size_t n = 0;
  for (const bl_schedule_rule *r; n < NAMES_MAX && (r = bl_schedule_rule_at(n)) != NULL; n++)
    names[n] = r->name;
  const bl_schedule_rule *rule = bl_schedule_rule_by_name(name);
  if (rule == NULL)
    return fail_unknown(err, "schedule", name, names, n);
  *ret_rule = rule;
  return BL_OK;
}

bool bl_optim_takes_schedule(const bl_optim_rule *rule, const bl_schedule_rule *schedule, const double *params) {
  return !rule->no_schedule || (strcmp(schedule->name, "constant") == 0 && params[0] == 0);
}

bl_status bl_optim_init(bl_optim *o, const char *rule, const bl_param *params, size_t n_params, const char *schedule,
                        const bl_param *schedule_params, size_t n_schedule_params, uint64_t n_clocks, bl_error *err) {
  bl_optim r = {.n_clocks = n_clocks};
  bl_status status = find_rule(rule, &r.rule, err);
  if (status == BL_OK)
    status = find_schedule(schedule != NULL ? schedule : "constant", &r.schedule, err);
  if (status == BL_OK)
    status = read_params("optimizer", r.rule->name, r.rule->params, r.rule->n_params, params, n_params, r.params, err);
  if (status == BL_OK)
    status = read_params("schedule", r.schedule->name, r.schedule->params, r.schedule->n_params, schedule_params,
                         n_schedule_params, r.schedule_params, err);
  if (status == BL_OK && !bl_optim_takes_schedule(r.rule, r.schedule, r.schedule_params))
    status = bl_fail(err, BL_EINVAL, "%s takes no schedule but a constant one without warm-up: its weights are made anew "
                     "from sums each time, and a falling rate would shrink them", r.rule->name);
  if (status == BL_OK)
    *o = r;
  return status;
}

/* Where the rule has its own weight decay; one without the parameter has none. */
static double own_decay(const bl_optim *o) {
  for (size_t i = 0; i < o->rule->n_params; i++) {
    if (strcmp(o->rule->params[i].key, "weight_decay") == 0)
      return o->params[i];
  }
  return 0;
}

void bl_optim_step(const bl_optim *o, const bl_optim_at *at, float *w, const float *g, float *const *slots, size_t n) {
  if (n == 0)
    return; /* the arrays may not be there */
  bl_optim_step_args args = {
      .lr = o->params[0] * o->schedule->factor(at->clock, o->n_clocks, o->schedule_params) * at->lr_scale,
      .step = at->step,
      .weight_decay = at->weight_decay < 0 ? own_decay(o) : at->weight_decay,
      .params = o->params,
  };
  o->rule->step(w, g, slots, n, &args);
}
