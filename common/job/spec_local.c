/* SPDX-License-Identifier: Apache-2.0
 *
 * Local steps and the outer optimizer: the words of the job file, what goes together with them, and which rule
 * of common/optim the shards step by.
 *
 * The outer rules have tables of their own, because the numbers that suit differences of many steps are not those
 * that suit gradients. Each row becomes a rule of the registry with the same parameters by name.
 */
#include "base/num.h"
#include "job/spec_parts.h"
#include "job/tensors.h"
#include "optim/optim.h"

#include <inttypes.h>
#include <string.h>

/* lr 0.7 and momentum 0.9: Douillard et al., "DiLoCo", 2023, section 3. */
static const bl_param_info nesterov_params[] = {
    {"lr", 0.7, 0, 1e6, true, "learning rate on the average of the differences"},
    {"momentum", 0.9, 0, 0.999999, false, "what is kept of the last update"},
};

/* Reddi et al., "Adaptive federated optimization", ICLR 2021, section 5: beta1 0.9, beta2 0.99, tau (our eps) 1e-3. */
static const bl_param_info adaptive_params[] = {
    {"lr", 0.01, 0, 1e6, true, "learning rate on the average of the differences"},
    {"beta1", 0.9, 0, 0.999999, false, "decay of the mean of differences"},
    {"beta2", 0.99, 0, 0.999999, false, "decay of the mean of squared differences"},
    {"eps", 1e-3, 1e-30, 1, false, "added to the root"},
};

/* What averaging is to the shards: one whole step along the average. */
static const bl_param average_params[] = {{"lr", 1.0}};

static const struct {
  const char *name, *optimizer;
  const bl_param_info *infos;
  size_t n_infos;
  const bl_param *fixed; /* NULL: those of the job file */
  size_t n_fixed;
} outers[] = {
    {"average", "sgd", NULL, 0, average_params, BL_COUNT_OF(average_params)},
    {"nesterov", "nesterov", nesterov_params, BL_COUNT_OF(nesterov_params), NULL, 0},
    {"adam", "adam", adaptive_params, BL_COUNT_OF(adaptive_params), NULL, 0},
    {"yogi", "yogi", adaptive_params, BL_COUNT_OF(adaptive_params), NULL, 0},
};

static bl_job_rule_info outer_at(size_t i) {
  return i < BL_COUNT_OF(outers) ? (bl_job_rule_info){outers[i].name, outers[i].infos, outers[i].n_infos}
                                 : (bl_job_rule_info){NULL, NULL, 0};
}

#define OVERLAP_MAX BL_JOB_LOCAL_STEPS_MAX
#define MIX_DEFAULT 0.5 /* Douillard et al., "Streaming DiLoCo", 2025, section 3.2 */

static void read_count(bl_conf_reader *r, const bl_node *node, uint64_t min, uint64_t max, uint32_t *ret) {
  uint64_t value;
  if (node->is_null || !bl_node_to_u64(r, node, &value))
    return;
  if (value < min || value > max)
    bl_conf_errors_add_field(r->errors, node, "%" PRIu64 " is not allowed here; write %" PRIu64 " to %" PRIu64, value, min, max);
  else
    *ret = (uint32_t)value;
}

static void read_mix(bl_conf_reader *r, const bl_node *node, double *ret) {
  double value;
  if (node->is_null || !bl_node_to_double(r, node, &value))
    return;
  if (!(value >= 0) || value >= 1)
    bl_conf_errors_add_field(r->errors, node, "%s is not in [0, 1)", node->text);
  else
    *ret = value == 0 ? 0 : value;
}

/* The keys beside the rule's name. */
static bool read_beside(bl_conf_reader *r, bl_outer_spec *o, const bl_node *c) {
  if (strcmp(c->key, "streams") == 0)
    read_count(r, c, 1, BL_JOB_STREAMS_MAX, &o->streams);
  else if (strcmp(c->key, "overlap") == 0)
    read_count(r, c, 0, OVERLAP_MAX, &o->overlap);
  else if (strcmp(c->key, "mix") == 0)
    read_mix(r, c, &o->mix);
  else
    return false;
  return true;
}

static void read_outer_rule(bl_conf_reader *r, const bl_node *node) {
  bl_outer_spec *o = &((bl_job_spec *)r->base)->outer;
  bl_job_read_rule(r, node, "outer optimizer", outer_at, &o->rule, &o->params, &o->n_params);
}

/* average, {nesterov: {lr: 0.7}}, {nesterov: {lr: 0.7}, streams: 4, overlap: 2, mix: 0.5}, {streams: 4} */
void bl_job_read_outer(bl_conf_reader *r, const bl_field *f, const bl_node *node) {
  bl_outer_spec *o = &((bl_job_spec *)r->base)->outer;
  uint32_t n_rules = 0;
  (void)f;
  *o = (bl_outer_spec){.rule = outers[0].name, .streams = 1, .mix = MIX_DEFAULT};
  if (node->kind != BL_NODE_MAP) {
    read_outer_rule(r, node);
    return;
  }
  for (bl_node *c = node->first; c != NULL; c = c->next) {
    if (read_beside(r, o, c))
      continue;
    bl_node one = *node; /* as if it stood there alone */
    one.first = c;
    one.n_children = 1;
    if (++n_rules == 1)
      read_outer_rule(r, &one);
    else
      bl_conf_errors_add_field(r->errors, c, "there is an outer optimizer already: '%s'", o->rule);
  }
}

void bl_job_write_outer(const bl_field *f, const void *base, unsigned indent, bl_buf *out) {
  const bl_outer_spec *o = &((const bl_job_spec *)base)->outer;
  (void)f;
  (void)indent;
  if (o->streams <= 1 && o->overlap == 0) {
    bl_job_write_rule(o->rule, o->params, o->n_params, out);
    return;
  }
  bl_buf_printf(out, " {%s: {", o->rule);
  for (size_t i = 0; i < o->n_params; i++) {
    bl_buf_printf(out, "%s%s: ", i > 0 ? ", " : "", o->params[i].key);
    bl_yaml_add_double(out, o->params[i].value);
  }
  bl_buf_printf(out, "}, streams: %" PRIu32 ", overlap: %" PRIu32 ", mix: ", o->streams, o->overlap);
  bl_yaml_add_double(out, o->mix);
  bl_buf_add_str(out, "}\n");
}

/* ---- together ---- */

static void check_optimizer(bl_conf_reader *r, const bl_node *root) {
  const bl_job_spec *s = r->base;
  const bl_optim_rule *rule = s->optimizer != NULL ? bl_optim_rule_by_name(s->optimizer) : NULL;
  if (rule != NULL && rule->no_schedule)
    bl_conf_errors_add_field(r->errors, bl_node_get(root, "optimizer"),
                             "'%s' makes its weights anew from its own sums, and would undo what the ranks exchange: it "
                             "cannot take local steps", rule->name);
}

/* Parts are made of whole tensors. */
static uint32_t count_tensors(bl_conf_reader *r) {
  const bl_job_spec *s = r->base;
  bl_arena scratch;
  bl_tensor *tensors;
  uint32_t n = 0;
  bl_arena_init(&scratch, 0);
  bool named = true;
  for (size_t i = 0; i < s->model.n_layers; i++)
    named &= s->model.layers[i].name != NULL;
  bl_status status = named ? bl_model_tensors(&s->model, &scratch, &tensors, &n, NULL) : BL_EINVAL;
  r->no_memory |= status == BL_ENOMEM;
  bl_arena_fini(&scratch);
  return status == BL_OK ? n : 0; /* 0: the model's mistakes are named elsewhere */
}

static void check_streams(bl_conf_reader *r, const bl_node *root) {
  const bl_job_spec *s = r->base;
  const bl_node *mix = bl_node_find(root, "outer.mix");
  uint32_t n_tensors = s->outer.streams > 1 ? count_tensors(r) : 0;
  if (n_tensors > 0 && s->outer.streams > n_tensors)
    bl_conf_errors_add_field(r->errors, bl_node_find(root, "outer.streams"),
                             "%u parts cannot be made of a model of %u tensors", s->outer.streams, n_tensors);
  if (s->outer.overlap > s->local_steps)
    bl_conf_errors_add_field(r->errors, bl_node_find(root, "outer.overlap"),
                             "%u steps cannot overlap: a round has %u", s->outer.overlap, s->local_steps);
  if (mix != NULL && !mix->is_null && s->outer.overlap == 0 && s->outer.streams <= 1)
    bl_conf_errors_add_field(r->errors, mix, "without overlap there is nothing to mix: a rank has done nothing meanwhile");
  if (bl_job_holds_weights(s) && s->average_ema > 0)
    bl_conf_errors_add_field(r->errors, bl_node_find(root, "average.ema"),
                             "with streams or overlap the servers' weights are never all of one moment: no average in this version");
}

/* On top of averaging it would multiply every difference; against an outer rule with moments spec_compression.c speaks. */
static void check_compression(bl_conf_reader *r, const bl_node *root) {
  const bl_job_spec *s = r->base;
  const bl_optim_rule *outer = s->outer.rule != NULL ? bl_optim_rule_by_name(bl_job_server_rule(s).name) : NULL;
  if (s->compression.momentum_correction > 0 && outer != NULL && outer->n_slots == 0)
    bl_conf_errors_add_field(r->errors, bl_node_get(root, "compression"),
                             "with local steps the momentum is that of the optimizer, which the workers have: no momentum_correction");
}

void bl_job_local_finish(bl_conf_reader *r, const bl_node *root) {
  const bl_job_spec *s = r->base;
  const bl_node *outer = bl_node_get(root, "outer");
  if (s->local_steps == 0) {
    if (outer != NULL && !outer->is_null && s->sync != NULL)
      bl_conf_errors_add_field(r->errors, outer,
                               "the outer optimizer belongs to local steps: write 'sync: {local: {steps: STEPS}}', or leave it "
                               "out");
    return;
  }
  if (s->accumulate > 1)
    bl_conf_errors_add_field(r->errors, bl_node_get(root, "accumulate"),
                             "with local steps every batch is a step; write steps in place of accumulate");
  if (bl_model_is_sparse(&s->model))
    bl_conf_errors_add_field(r->errors, bl_node_get(root, "sync"),
                             "a model with a sparse layer takes no local steps in this version: its table is only on the servers");
  check_optimizer(r, root);
  check_streams(r, root);
  check_compression(r, root);
}

/* ---- what the shards do ---- */

bl_job_rule bl_job_server_rule(const bl_job_spec *spec) {
  for (size_t i = 0; spec->local_steps > 0 && i < BL_COUNT_OF(outers); i++) {
    if (strcmp(outers[i].name, spec->outer.rule) == 0)
      return outers[i].fixed != NULL ? (bl_job_rule){outers[i].optimizer, outers[i].fixed, outers[i].n_fixed}
                                     : (bl_job_rule){outers[i].optimizer, spec->outer.params, spec->outer.n_params};
  }
  return (bl_job_rule){spec->optimizer, spec->optimizer_params, spec->n_optimizer_params};
}

bl_job_rule bl_job_server_schedule(const bl_job_spec *spec) {
  return spec->local_steps > 0 ? (bl_job_rule){"constant", NULL, 0}
                               : (bl_job_rule){spec->schedule, spec->schedule_params, spec->n_schedule_params};
}

bool bl_job_holds_weights(const bl_job_spec *spec) {
  return spec->local_steps > 0 && (spec->outer.streams > 1 || spec->outer.overlap > 0);
}

bool bl_job_steps_have_state(const bl_job_spec *spec) {
  const bl_optim_rule *rule = bl_optim_rule_by_name(spec->optimizer);
  return spec->local_steps > 0 && (rule == NULL || rule->n_slots > 0 || bl_job_holds_weights(spec));
}

bl_update_group bl_job_server_group(const bl_job_spec *spec, bl_update_group group) {
  if (spec->local_steps == 0 || !group.set)
    return group;
  return (bl_update_group){.set = group.frozen, .lr_scale = 1, .weight_decay = BL_OPTIM_DECAY_OF_RULE, .frozen = group.frozen};
}

bool bl_sync_in_step(const char *sync) { return strcmp(sync, "bsp") == 0 || strcmp(sync, "local") == 0; }
