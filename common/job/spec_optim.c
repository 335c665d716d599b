/* SPDX-License-Identifier: Apache-2.0
 *
 * Parameter groups of the job file, and what the fields about updates must say together.
 *
 * A group is a pattern of tensor names and what differs for them. The first that matches holds, so special ones stand
 * before general ones; a group that holds for no tensor is a mistake, since that is what a misspelt name looks like.
 */
#include "base/str.h"
#include "job/spec_parts.h"
#include "job/tensors.h"
#include "optim/optim.h"

#include <stdio.h>
#include <string.h>

/* ---- groups ---- */

#define AT(member) .offset = offsetof(bl_group_spec, member)

/* clang-format off */
const bl_field bl_job_group_fields[BL_JOB_N_GROUP_FIELDS] = {
    {.name = "match", .type = BL_FIELD_TEXT, AT(match), .required = true, .min = 1, .max = 200,
     .doc = "Pattern of tensor names: * stands for any letters, ? for one."},
    {.name = "lr_scale", .type = BL_FIELD_DOUBLE, AT(says.lr_scale), .default_text = "1", .real_max = 1e6,
     .doc = "Factor on the learning rate."},
    {.name = "weight_decay", .type = BL_FIELD_DOUBLE, AT(says.weight_decay), .real_max = 1,
     .doc = "In place of the optimizer's weight decay, for biases too. Left out: the optimizer's."},
    {.name = "frozen", .type = BL_FIELD_BOOL, AT(says.frozen), .default_text = "false",
     .doc = "The tensors keep their initial values."},
};
/* clang-format on */

void bl_job_read_groups(bl_conf_reader *r, const bl_field *f, const bl_node *node) {
  bl_job_spec *spec = r->base;
  (void)f;
  if (node->kind != BL_NODE_LIST || node->n_children > BL_JOB_GROUPS_MAX) {
    bl_conf_errors_add_field(r->errors, node, "write a list of at most %d groups, such as - {match: \"*.bias\", lr_scale: 2}",
                             BL_JOB_GROUPS_MAX);
    return;
  }
  bl_group_spec *groups = bl_arena_array(r->arena, node->n_children + 1, sizeof *groups);
  if (groups == NULL) {
    r->no_memory = true;
    return;
  }
  size_t n = 0;
  for (const bl_node *item = node->first; item != NULL; item = item->next, n++) {
    bl_conf_reader inner = *r;
    inner.base = &groups[n];
    groups[n] = (bl_group_spec){.says = {.set = true, .weight_decay = BL_OPTIM_DECAY_OF_RULE}, .line = item->line};
    if (item->kind == BL_NODE_MAP)
      bl_schema_read(&inner, bl_job_group_fields, BL_JOB_N_GROUP_FIELDS, item);
    else
      bl_conf_errors_add_field(r->errors, item, "write a group as {match: PATTERN, ...}");
    r->no_memory |= inner.no_memory;
  }
  spec->groups = groups;
  spec->n_groups = n;
}

void bl_job_write_groups(const bl_field *f, const void *base, unsigned indent, bl_buf *out) {
  const bl_job_spec *spec = base;
  (void)f;
  bl_buf_add_str(out, spec->n_groups > 0 ? "\n" : " null\n");
  for (size_t i = 0; i < spec->n_groups; i++) {
    const bl_group_spec *g = &spec->groups[i];
    bl_buf_printf(out, "%*s- {match: ", (int)indent + 2, "");
    bl_yaml_add_text(out, g->match);
    if (g->says.frozen) {
      bl_buf_add_str(out, ", frozen: true}\n");
      continue;
    }
    bl_buf_add_str(out, ", lr_scale: ");
    bl_yaml_add_double(out, g->says.lr_scale);
    if (g->says.weight_decay >= 0) {
      bl_buf_add_str(out, ", weight_decay: ");
      bl_yaml_add_double(out, g->says.weight_decay);
    }
    bl_buf_add_str(out, "}\n");
  }
}

/* "dense1.weight, dense1.bias, ...", cut to size. */
static const char *tensor_names(const bl_tensor *tensors, uint32_t n, char *out, size_t size) {
  size_t used = 0;
  out[0] = '\0';
  for (uint32_t i = 0; i < n && used < size; i++) {
    bool cut = used + strlen(tensors[i].name) + 8 > size;
    used += (size_t)snprintf(out + used, size - used, "%s%s", i > 0 ? ", " : "", cut ? "..." : tensors[i].name);
    if (cut)
      break;
  }
  return out;
}

static const bl_optim_rule *rule_of(const bl_job_spec *s) {
  return s->optimizer != NULL ? bl_optim_rule_by_name(s->optimizer) : NULL;
}

static bool has_weight_decay(const bl_optim_rule *rule) {
  for (size_t i = 0; i < rule->n_params; i++) {
    if (strcmp(rule->params[i].key, "weight_decay") == 0)
      return true;
  }
  return false;
}

/* What can be said without the model. */
static void check_group(bl_conf_reader *r, const bl_group_spec *g, const bl_node *item) {
  const bl_job_spec *s = r->base;
  const bl_optim_rule *rule = rule_of(s);
  const bl_node *decay = bl_node_get(item, "weight_decay");
  if (g->says.frozen && (decay != NULL || bl_node_get(item, "lr_scale") != NULL))
    bl_conf_errors_add_field(r->errors, item, "frozen tensors have no learning rate and no weight decay");
  else if (decay != NULL && rule != NULL && !has_weight_decay(rule))
    bl_conf_errors_add_field(r->errors, decay, "the optimizer '%s' has no weight decay", rule->name);
}

/* Whom each group holds for. */
static void check_matches(bl_conf_reader *r, const bl_node *groups, const bl_tensor *tensors, uint32_t n) {
  const bl_job_spec *s = r->base;
  char names[200];
  uint32_t n_frozen = 0;
  const bl_node *item = groups->first;
  for (size_t i = 0; i < s->n_groups; i++, item = item->next) {
    uint32_t n_fits = 0, n_holds = 0;
    for (uint32_t t = 0; t < n && s->groups[i].match != NULL; t++) {
      bool holds = bl_job_group_of(s, tensors[t].name) == &s->groups[i];
      n_fits += bl_str_glob(s->groups[i].match, tensors[t].name);
      n_holds += holds;
      n_frozen += holds && s->groups[i].says.frozen;
      if (holds && s->groups[i].says.frozen && tensors[t].table)
        bl_conf_errors_add_field(r->errors, item, "the table '%.60s' of a sparse layer cannot be frozen", tensors[t].name);
    }
    if (s->groups[i].match == NULL || n_holds > 0)
      continue;
    if (n_fits == 0)
      bl_conf_errors_add_field(r->errors, item, "no tensor is called '%.60s' (there are: %s)", s->groups[i].match,
                               tensor_names(tensors, n, names, sizeof names));
    else
      bl_conf_errors_add_field(r->errors, item,
                               "all tensors called '%.60s' are taken by groups before this one; put it before them",
                               s->groups[i].match);
  }
  if (n > 0 && n_frozen == n)
    bl_conf_errors_add_field(r->errors, groups, "every tensor is frozen: there is nothing to train");
}

/* Everything that the comparison needs could be read. */
static bool names_are_known(const bl_job_spec *s) {
  for (size_t i = 0; i < s->model.n_layers; i++) {
    if (s->model.layers[i].name == NULL)
      return false;
  }
  for (size_t i = 0; i < s->n_groups; i++) {
    if (s->groups[i].match == NULL)
      return false;
  }
  return true;
}

static void check_groups(bl_conf_reader *r, const bl_node *root) {
  const bl_job_spec *s = r->base;
  const bl_node *groups = bl_node_get(root, "groups");
  if (groups == NULL || s->n_groups == 0)
    return;
  const bl_node *item = groups->first;
  for (size_t i = 0; i < s->n_groups; i++, item = item->next)
    check_group(r, &s->groups[i], item);
  bl_arena scratch;
  bl_tensor *tensors;
  uint32_t n;
  bl_arena_init(&scratch, 0);
  bl_status status = names_are_known(s) ? bl_model_tensors(&s->model, &scratch, &tensors, &n, NULL) : BL_EINVAL;
  if (status == BL_OK) /* else the model's mistakes are named elsewhere */
    check_matches(r, groups, tensors, n);
  r->no_memory |= status == BL_ENOMEM;
  bl_arena_fini(&scratch);
}

/* ---- rule and schedule ---- */

/* The schedule's parameters stand in the spec in the order of its table. */
static void check_schedule(bl_conf_reader *r, const bl_node *root) {
  const bl_job_spec *s = r->base;
  const bl_node *node = bl_node_get(root, "schedule");
  const bl_optim_rule *rule = rule_of(s);
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

static void check_clipping(bl_conf_reader *r, const bl_node *root) {
  const bl_job_spec *s = r->base;
  const bl_node *node = bl_node_find(root, "clip.global_norm");
  if (node == NULL || !(s->clip_global_norm > 0))
    return;
  if (s->local_steps > 0)
    bl_conf_errors_add_field(r->errors, node, "with local steps every rank clips the gradients of its own: write clip.norm");
  else if (s->sync != NULL && strcmp(s->sync, "bsp") != 0)
    bl_conf_errors_add_field(r->errors, node, "in %s an update is the gradient of one rank: write clip.norm", s->sync);
  else if (s->clip_norm > 0)
    bl_conf_errors_add_field(r->errors, node, "clip.norm and clip.global_norm cannot stand together");
}

void bl_job_optim_finish(bl_conf_reader *r, const bl_node *root) {
  check_clipping(r, root);
  check_schedule(r, root);
  check_groups(r, root);
}
