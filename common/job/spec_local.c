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
#include "optim/optim.h"

#include <stdio.h>
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

void bl_job_read_outer(bl_conf_reader *r, const bl_field *f, const bl_node *node) {
  bl_outer_spec *o = &((bl_job_spec *)r->base)->outer;
  (void)f;
  bl_job_read_rule(r, node, "outer optimizer", outer_at, &o->rule, &o->params, &o->n_params);
}

void bl_job_write_outer(const bl_field *f, const void *base, unsigned indent, bl_buf *out) {
  const bl_outer_spec *o = &((const bl_job_spec *)base)->outer;
  (void)f;
  (void)indent;
  bl_job_write_rule(o->rule, o->params, o->n_params, out);
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

bl_update_group bl_job_server_group(const bl_job_spec *spec, bl_update_group group) {
  if (spec->local_steps == 0 || !group.set)
    return group;
  return (bl_update_group){.set = group.frozen, .lr_scale = 1, .weight_decay = BL_OPTIM_DECAY_OF_RULE, .frozen = group.frozen};
}

bool bl_sync_in_step(const char *sync) { return strcmp(sync, "bsp") == 0 || strcmp(sync, "local") == 0; }
