/* SPDX-License-Identifier: Apache-2.0
 *
 * Fields whose words and numbers are defined by the registry of optim. A rule is written as its
 * name, or as a mapping of one name to its parameters; the spec holds every parameter, given or default, in
 * the order of the rule's table.
 */
#include "base/num.h"
#include "base/str.h"
#include "job/spec_parts.h"
#include "optim/optim.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#define NAMES_MAX 64

/* ---- registries seen alike ---- */

typedef bl_job_rule_info rule;
typedef bl_job_rule_at_fn rule_at_fn;

static rule optim_at(size_t i) {
  const bl_optim_rule *o = bl_optim_rule_at(i);
  return o != NULL ? (rule){o->name, o->params, o->n_params} : (rule){NULL, NULL, 0};
}

static rule schedule_at(size_t i) {
  const bl_schedule_rule *s = bl_schedule_rule_at(i);
  return s != NULL ? (rule){s->name, s->params, s->n_params} : (rule){NULL, NULL, 0};
}

static const char *word_list(const char *const *names, size_t n, char *out, size_t size) {
  size_t used = 0;
  out[0] = '\0';
  for (size_t i = 0; i < n && used < size; i++)
    used += (size_t)snprintf(out + used, size - used, "%s%s", i > 0 ? ", " : "", names[i]);
  return out;
}

/* Records an unknown name with what there is. */
static void unknown(bl_conf_reader *r, const bl_node *node, const char *name, const char *what, rule_at_fn *at) {
  const char *names[NAMES_MAX];
  char near[100], all[220];
  size_t n = 0;
  while (n < NAMES_MAX && (names[n] = at(n).name) != NULL)
    n++;
  bl_conf_errors_add_field(r->errors, node, "there is no %s '%.60s'%s (allowed: %s)", what, name,
                           bl_conf_nearest(name, names, n, near, sizeof near),
                           word_list(names, n, all, sizeof all));
}

static rule rule_by_name(const char *name, rule_at_fn *at) {
  rule found = {NULL, NULL, 0};
  for (size_t i = 0; (found = at(i)).name != NULL; i++) {
    if (strcmp(found.name, name) == 0)
      return found;
  }
  return found;
}

/* ---- rules with parameters ---- */

static void read_param(bl_conf_reader *r, const rule *chosen, const bl_node *node, bl_param *values) {
  const char *names[BL_OPTIM_PARAMS_MAX];
  char near[100], all[220];
  double v;
  size_t n = BL_MIN(chosen->n_params, (size_t)BL_OPTIM_PARAMS_MAX), i = 0;
  for (size_t k = 0; k < n; k++)
    names[k] = chosen->params[k].key;
  while (i < n && strcmp(names[i], node->key) != 0)
    i++;
  if (i == n) {
    bl_conf_errors_add_field(r->errors, node, "'%s' has no such parameter%s (allowed: %s)", chosen->name,
                             bl_conf_nearest(node->key, names, n, near, sizeof near),
                             n > 0 ? word_list(names, n, all, sizeof all) : "none");
    return;
  }
  if (node->is_null || !bl_node_to_double(r, node, &v))
    return;
  const bl_param_info *p = &chosen->params[i];
  if (v < p->min || v > p->max || (p->min_open && v == p->min))
    bl_conf_errors_add_field(r->errors, node, "%s is not in %c%g, %g]", node->text, p->min_open ? '(' : '[',
                             p->min, p->max);
  else
    values[i].value = v == 0 ? 0 : v;
}

void bl_job_read_rule(bl_conf_reader *r, const bl_node *node, const char *what, rule_at_fn *at, const char **ret_name,
                      bl_param **ret_params, size_t *ret_n) {
  const bl_node *params = node->kind == BL_NODE_MAP ? node->first : NULL;
  if (node->kind == BL_NODE_LIST || (node->kind == BL_NODE_MAP && node->n_children != 1)) {
    bl_conf_errors_add_field(r->errors, node, "write the name of one %s, or {NAME: {parameter: value}}", what);
    return;
  }
  const char *name = params != NULL ? params->key : node->text;
  rule chosen = rule_by_name(name, at);
  if (chosen.name == NULL) {
    unknown(r, params != NULL ? params : node, name, what, at);
    return;
  }
  if (params != NULL && params->kind != BL_NODE_MAP && !params->is_null) {
    bl_conf_errors_add_field(r->errors, params, "write the parameters as {name: value}");
    return;
  }
  size_t n = BL_MIN(chosen.n_params, (size_t)BL_OPTIM_PARAMS_MAX);
  bl_param *values = bl_arena_array(r->arena, n + 1, sizeof *values);
  if (values == NULL) {
    r->no_memory = true;
    return;
  }
  for (size_t i = 0; i < n; i++)
    values[i] = (bl_param){.key = chosen.params[i].key, .value = chosen.params[i].default_value};
  for (const bl_node *c = params != NULL ? params->first : NULL; c != NULL; c = c->next)
    read_param(r, &chosen, c, values);
  *ret_name = chosen.name;
  *ret_params = values;
  *ret_n = n;
}

void bl_job_write_rule(const char *name, const bl_param *params, size_t n, bl_buf *out) {
  if (name == NULL || n == 0) {
    bl_buf_printf(out, " %s\n", name != NULL ? name : "null");
    return;
  }
  bl_buf_printf(out, " {%s: {", name);
  for (size_t i = 0; i < n; i++) {
    bl_buf_printf(out, "%s%s: ", i > 0 ? ", " : "", params[i].key);
    bl_yaml_add_double(out, params[i].value);
  }
  bl_buf_add_str(out, "}}\n");
}

void bl_job_read_optimizer(bl_conf_reader *r, const bl_field *f, const bl_node *node) {
  bl_job_spec *s = r->base;
  (void)f;
  bl_job_read_rule(r, node, "optimizer", optim_at, &s->optimizer, &s->optimizer_params, &s->n_optimizer_params);
}

void bl_job_write_optimizer(const bl_field *f, const void *base, unsigned indent, bl_buf *out) {
  const bl_job_spec *s = base;
  (void)f;
  (void)indent;
  bl_job_write_rule(s->optimizer, s->optimizer_params, s->n_optimizer_params, out);
}

void bl_job_read_schedule(bl_conf_reader *r, const bl_field *f, const bl_node *node) {
  bl_job_spec *s = r->base;
  (void)f;
  bl_job_read_rule(r, node, "schedule", schedule_at, &s->schedule, &s->schedule_params, &s->n_schedule_params);
}

void bl_job_write_schedule(const bl_field *f, const void *base, unsigned indent, bl_buf *out) {
  const bl_job_spec *s = base;
  (void)f;
  (void)indent;
  bl_job_write_rule(s->schedule, s->schedule_params, s->n_schedule_params, out);
}

/* ---- synchronisation ---- */

#define STALENESS_DEFAULT 4 /* OSDI'14 found 8 best on 6000 machines; few ranks need less */
#define STALENESS_MAX 1000000

/* How ranks are kept in step, and the one number that some of them take. */
static const struct {
  const char *name, *param; /* NULL: takes none */
  uint32_t by_default, min, max;
  size_t offset;            /* in the spec */
  const char *unit;
} syncs[] = {
    {.name = "bsp"},
    {"ssp", "staleness", STALENESS_DEFAULT, 0, STALENESS_MAX, offsetof(bl_job_spec, staleness), "clocks"},
    {.name = "asp"},
    {"local", "steps", BL_JOB_LOCAL_STEPS_DEFAULT, 1, BL_JOB_LOCAL_STEPS_MAX, offsetof(bl_job_spec, local_steps), "steps"},
};

static void set_sync(bl_job_spec *s, size_t i, uint64_t value) {
  if (syncs[i].param != NULL)
    *(uint32_t *)(void *)((char *)s + syncs[i].offset) = (uint32_t)value;
}

static void read_sync_param(bl_conf_reader *r, size_t i, const bl_node *node) {
  const bl_field params[] = {{.name = syncs[i].param}};
  const bl_node *c = node->kind == BL_NODE_MAP ? node->first : NULL;
  char what[80];
  uint64_t value;
  if (c == NULL)
    bl_conf_errors_add_field(r->errors, node, "%s is not allowed here; write {%s: %s}",
                             bl_node_describe(node, what, sizeof what), syncs[i].param,
                             strcmp(syncs[i].unit, "clocks") == 0 ? "CLOCKS" : "STEPS");
  for (; c != NULL; c = c->next) {
    if (strcmp(c->key, syncs[i].param) != 0)
      bl_schema_unknown(r, params, BL_COUNT_OF(params), c);
    else if (!bl_node_to_u64(r, c, &value))
      continue;
    else if (value > syncs[i].max)
      bl_conf_errors_add_field(r->errors, c, "%" PRIu64 " %s are too many; at most %u are allowed", value, syncs[i].unit,
                               syncs[i].max);
    else if (value < syncs[i].min)
      bl_conf_errors_add_field(r->errors, c, "%" PRIu64 " %s are too few; write at least %u", value, syncs[i].unit, syncs[i].min);
    else
      set_sync(r->base, i, value);
  }
}

/* bsp, asp, ssp, {ssp: {staleness: 4}}, local, {local: {steps: 16}} */
void bl_job_read_sync(bl_conf_reader *r, const bl_field *f, const bl_node *node) {
  bl_job_spec *s = r->base;
  char what[80];
  const bl_node *params = node->kind == BL_NODE_MAP ? node->first : NULL;
  const char *name = node->kind == BL_NODE_SCALAR ? node->text : params != NULL && params->next == NULL ? params->key : "";
  (void)f;
  s->staleness = s->local_steps = 0;
  for (size_t i = 0; i < BL_COUNT_OF(syncs); i++) {
    if (strcmp(name, syncs[i].name) != 0)
      continue;
    s->sync = syncs[i].name;
    set_sync(s, i, syncs[i].by_default);
    if (params == NULL || params->is_null)
      return;
    if (syncs[i].param != NULL)
      read_sync_param(r, i, params);
    else
      bl_conf_errors_add_field(r->errors, params, "%s has no parameters", name);
    return;
  }
  bl_conf_errors_add_field(r->errors, node, "%s is not allowed here; write bsp, asp, {ssp: {staleness: CLOCKS}} or {local: {steps: STEPS}}",
                           bl_node_describe(node, what, sizeof what));
}

void bl_job_write_sync(const bl_field *f, const void *base, unsigned indent, bl_buf *out) {
  const bl_job_spec *s = base;
  (void)f;
  (void)indent;
  if (strcmp(s->sync, "ssp") == 0)
    bl_buf_printf(out, " {ssp: {staleness: %" PRIu32 "}}\n", s->staleness);
  else if (s->local_steps > 0)
    bl_buf_printf(out, " {local: {steps: %" PRIu32 "}}\n", s->local_steps);
  else
    bl_buf_printf(out, " %s\n", s->sync);
}
