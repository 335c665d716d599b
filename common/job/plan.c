/* SPDX-License-Identifier: Apache-2.0
 *
 * Checked values of a job plan.
 */
#include "job/plan.h"

#include "base/alloc.h"
#include "codec/spec.h"
#include "job/policy.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

/* What tables cannot do. Most of it looks at all weights of a chunk, of which a table has only the rows that were
 * touched. */
static bl_status check_tables(const Ballast__Control__JobPlan *plan, const bl_tensor_table *table, bl_error *err) {
  const bl_optim_rule *rule = plan->optimizer != NULL ? bl_optim_rule_by_name(plan->optimizer->name) : NULL;
  for (uint32_t i = 0; i < table->n_tensors; i++) {
    const bl_tensor *t = &table->tensors[i];
    if (!t->table)
      continue;
    if (plan->average_ema > 0 || plan->clip_global_norm > 0 || t->group.frozen || (rule != NULL && rule->needs_chunk))
      return bl_fail(err, BL_EUNSUPPORTED,
                     "plan of job %" PRIu64 ": the table '%s' cannot be frozen, averaged, clipped by the norm of all "
                     "ranks, or updated by %s",
                     plan->job, t->name, rule != NULL ? rule->name : "this rule");
    if (!bl_codec_takes_rows(&t->policy.push) || !bl_codec_takes_rows(&t->policy.pull) || plan->momentum_correction > 0)
      return bl_fail(err, BL_EUNSUPPORTED,
                     "plan of job %" PRIu64 ": the rows of the table '%s' cannot travel as %s and %s%s", plan->job, t->name,
                     t->policy.push.codec->name, t->policy.pull.codec->name,
                     plan->momentum_correction > 0 ? " with momentum correction" : "");
  }
  return BL_OK;
}

bl_status bl_plan_check(const Ballast__Control__JobPlan *plan, const bl_tensor_table *table, bl_error *err) {
  if (plan->world == 0 || plan->world > BL_CONTROL_RANKS_MAX)
    return bl_fail(err, BL_EINVAL, "plan of job %" PRIu64 ": world %u is not in [1, %d]", plan->job, plan->world,
                   BL_CONTROL_RANKS_MAX);
  if (plan->n_incarnations != plan->world)
    return bl_fail(err, BL_EINVAL, "plan of job %" PRIu64 ": %zu incarnations for %u ranks", plan->job,
                   plan->n_incarnations, plan->world);
  for (size_t i = 0; i < plan->n_incarnations; i++)
    if (plan->incarnations[i] == UINT32_MAX)
      return bl_fail(err, BL_EINVAL, "plan of job %" PRIu64 ": incarnation of rank %zu is beyond the last number",
                     plan->job, i);
  if (!bl_plan_in_step(plan) && plan->clock_samples == 0)
    return bl_fail(err, BL_EINVAL, "plan of job %" PRIu64 ": a clock of %s has no samples", plan->job, plan->sync);
  if (plan->n_shards == 0 || plan->n_shards > BL_CONTROL_SHARDS_MAX)
    return bl_fail(err, BL_EINVAL, "plan of job %" PRIu64 ": %zu shards, allowed are 1 to %d", plan->job,
                   plan->n_shards, BL_CONTROL_SHARDS_MAX);
  if (plan->n_chunk_shards != table->n_chunks)
    return bl_fail(err, BL_EINVAL, "plan of job %" PRIu64 ": %zu placements for %u chunks", plan->job,
                   plan->n_chunk_shards, table->n_chunks);
  for (size_t i = 0; i < plan->n_chunk_shards; i++)
    if (plan->chunk_shards[i] >= plan->n_shards)
      return bl_fail(err, BL_EINVAL, "plan of job %" PRIu64 ": chunk %zu lies on shard %u of %zu", plan->job, i,
                     plan->chunk_shards[i], plan->n_shards);
  if (!(plan->clip_value >= 0) || !isfinite(plan->clip_value) || !(plan->clip_norm >= 0) ||
      !isfinite(plan->clip_norm) || !(plan->clip_global_norm >= 0) || !isfinite(plan->clip_global_norm))
    return bl_fail(err, BL_EINVAL, "plan of job %" PRIu64 ": clipping limits must be finite and not negative",
                   plan->job);
  if (plan->streams > 1 && (plan->streams > table->n_tensors || strcmp(plan->sync, "local") != 0 || plan->clocks == 0 ||
                            plan->average_ema > 0 || bl_tensor_table_has_tables(table)))
    return bl_fail(err, BL_EINVAL, "plan of job %" PRIu64 ": %u streams of %u tensors go with local steps, a number of clocks, and "
                   "no table or average", plan->job, plan->streams, table->n_tensors);
  if (check_tables(plan, table, err) != BL_OK)
    return BL_EUNSUPPORTED;
  if (!(plan->average_ema >= 0 && plan->average_ema < 1))
    return bl_fail(err, BL_EINVAL, "plan of job %" PRIu64 ": average_ema is %g, allowed are 0 to below 1", plan->job,
                   plan->average_ema);
  if (plan->not_finite >= BL_NOT_FINITE_COUNT)
    return bl_fail(err, BL_EUNSUPPORTED, "plan of job %" PRIu64 ": unknown policy %u for gradients that are not finite",
                   plan->job, plan->not_finite);
  if (plan->clip_global_norm > 0 && (plan->clip_norm > 0 || !bl_plan_in_step(plan)))
    return bl_fail(err, BL_EINVAL, "plan of job %" PRIu64 ": clipping by the norm of all ranks goes with bsp and without "
                   "clipping by a rank's", plan->job);
  return BL_OK;
}

static bl_status read_codec(const Ballast__Control__JobPlan *plan, const char *own, const char *of_job,
                            bl_codec_spec *ret, bl_error *err) {
  const char *text = own[0] != '\0' ? own : of_job;
  bl_error why = BL_ERROR_INIT;
  if (bl_codec_spec_read(text, ret, &why) != BL_OK)
    return bl_fail(err, BL_EINVAL, "plan of job %" PRIu64 ": unknown codec '%.60s': %.120s", plan->job, text, why.text);
  return BL_OK;
}

/* Numbers that policies are made of. */
static bl_status check_compression(const Ballast__Control__JobPlan *plan, bl_error *err) {
  if (!(plan->momentum_correction >= 0 && plan->momentum_correction < 1))
    return bl_fail(err, BL_EINVAL, "plan of job %" PRIu64 ": momentum_correction is %g, allowed are 0 to below 1", plan->job,
                   plan->momentum_correction);
  if (plan->warmup_epochs > BL_JOB_WARMUP_EPOCHS_MAX)
    return bl_fail(err, BL_EINVAL, "plan of job %" PRIu64 ": warmup_epochs is %u, allowed are 0 to %d", plan->job,
                   plan->warmup_epochs, BL_JOB_WARMUP_EPOCHS_MAX);
  if (plan->warmup_epochs > 0 && plan->clocks > 0 && plan->epoch_clocks == 0)
    return bl_fail(err, BL_EINVAL, "plan of job %" PRIu64 ": a warm-up over epochs of no clocks", plan->job);
  return BL_OK;
}

static bl_status read_policy(const Ballast__Control__JobPlan *plan, const Ballast__Control__Tensor *t,
                             bl_tensor_policy *ret, bl_error *err) {
  bl_codec_spec push, pull;
  bl_status st = read_codec(plan, t->codec_push, plan->codec_push, &push, err);
  if (st == BL_OK)
    st = read_codec(plan, t->codec_pull, plan->codec_pull, &pull, err);
  if (st == BL_OK)
    *ret = bl_tensor_policy_make(&push, &pull, t->table, plan->feedback, plan->momentum_correction, plan->warmup_epochs);
  if (st == BL_OK && plan->adapts) /* whatever it is pushed with now */
    ret->feedback = !t->table;
  return st;
}

bl_status bl_plan_table(const Ballast__Control__JobPlan *plan, bl_tensor_table **ret_table, bl_error *err) {
  if (plan->n_tensors == 0 || plan->n_tensors > BL_CONTROL_TENSORS_MAX)
    return bl_fail(err, BL_EINVAL, "plan of job %" PRIu64 ": %zu tensors, allowed are 1 to %d", plan->job,
                   plan->n_tensors, BL_CONTROL_TENSORS_MAX);
  bl_tensor *tensors = bl_calloc(plan->n_tensors, sizeof *tensors);
  if (tensors == NULL)
    return bl_fail(err, BL_ENOMEM, "no memory for %zu tensors", plan->n_tensors);
  bl_status st = check_compression(plan, err);
  for (size_t i = 0; st == BL_OK && i < plan->n_tensors; i++) {
    const Ballast__Control__Tensor *t = plan->tensors[i];
    if (t->n_dims == 0 || t->n_dims > BL_JOB_DIMS_MAX) {
      st = bl_fail(err, BL_EINVAL, "tensor %zu of job %" PRIu64 " has %zu dimensions, allowed are 1 to %d", i,
                   plan->job, t->n_dims, BL_JOB_DIMS_MAX);
      break;
    }
    tensors[i] = (bl_tensor){.name = t->name,
                             .n_dims = (uint32_t)t->n_dims,
                             .init = (bl_init_kind)t->init,
                             .init_scale = t->init_scale,
                             .no_decay = t->no_decay,
                             .table = t->table};
    st = read_policy(plan, t, &tensors[i].policy, err);
    if (st != BL_OK)
      break;
    if (t->grouped)
      tensors[i].group = (bl_update_group){true, t->lr_scale, t->weight_decay, t->frozen};
    uint64_t n = 1;
    for (size_t d = 0; d < t->n_dims; d++) {
      tensors[i].dims[d] = t->dims[d];
      if (__builtin_mul_overflow(n, t->dims[d], &n))
        st = bl_fail(err, BL_ELIMIT, "tensor %zu of job %" PRIu64 " has more elements than can be counted", i,
                     plan->job);
    }
    tensors[i].n_elems = n;
    if (t->init < BL_INIT_ZERO || t->init > BL_INIT_CONSTANT)
      st = bl_fail(err, BL_EINVAL, "tensor %zu of job %" PRIu64 ": unknown kind of initial values %u", i, plan->job,
                   t->init);
  }
  if (st == BL_OK)
    st = bl_tensor_table_of_list(tensors, (uint32_t)plan->n_tensors, plan->chunk_elems, ret_table, err);
  if (st == BL_OK)
    bl_tensor_table_set_streams(*ret_table, plan->streams, plan->clocks);
  bl_free(tensors);
  return st;
}

static bl_status params_of(const Ballast__Control__Rule *rule, const char *what, bl_param *params, bl_error *err) {
  if (rule == NULL)
    return BL_OK;
  if (rule->n_params > BL_OPTIM_PARAMS_MAX)
    return bl_fail(err, BL_EINVAL, "%s '%s' has %zu parameters, at most %d are allowed", what, rule->name,
                   rule->n_params, BL_OPTIM_PARAMS_MAX);
  for (size_t i = 0; i < rule->n_params; i++)
    params[i] = (bl_param){.key = rule->params[i]->key, .value = rule->params[i]->value};
  return BL_OK;
}

bl_status bl_plan_optim(const Ballast__Control__JobPlan *plan, bl_optim *ret_optim, bl_error *err) {
  const Ballast__Control__Rule *rule = plan->optimizer, *schedule = plan->schedule;
  bl_param params[BL_OPTIM_PARAMS_MAX], schedule_params[BL_OPTIM_PARAMS_MAX];
  if (rule == NULL)
    return bl_fail(err, BL_EINVAL, "plan of job %" PRIu64 " names no optimizer", plan->job);
  bl_status st = params_of(rule, "optimizer", params, err);
  if (st == BL_OK)
    st = params_of(schedule, "schedule", schedule_params, err);
  if (st != BL_OK)
    return st;
  bool has_schedule = schedule != NULL && schedule->name[0] != '\0';
  return bl_optim_init(ret_optim, rule->name, params, rule->n_params, has_schedule ? schedule->name : NULL,
                       schedule_params, has_schedule ? schedule->n_params : 0, plan->clocks, err);
}

bool bl_plan_in_step(const Ballast__Control__JobPlan *plan) { return bl_sync_in_step(plan->sync); }

uint64_t bl_plan_epoch(const Ballast__Control__JobPlan *plan, uint64_t clock) {
  return plan->epoch_clocks > 0 ? clock / plan->epoch_clocks : UINT64_MAX;
}

bool bl_plan_clips_locally(const Ballast__Control__JobPlan *plan, const bl_tensor_table *table) {
  for (uint32_t i = 0; plan->clip_norm > 0 && i < table->n_tensors; i++)
    if (table->tensors[i].policy.feedback || table->tensors[i].policy.momentum > 0)
      return true;
  return false;
}
