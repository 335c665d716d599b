/* SPDX-License-Identifier: Apache-2.0 */
#include "client/auto_job.h"

#include "base/alloc.h"

#include <string.h>

static bool may_adapt(const bl_job_spec *spec, const bl_tensor *t) {
  return spec->compression.adapts && !t->table && !t->no_decay && !t->group.frozen &&
         t->n_elems >= spec->compression.exact_below;
}

uint32_t bl_auto_tensors_of_job(const bl_job_spec *spec, const bl_tensor_table *table, bl_auto_tensor *out) {
  uint32_t n = 0;
  for (uint32_t i = 0; i < table->n_tensors; i++) {
    const bl_tensor *t = &table->tensors[i];
    const bl_compression_rule *rule = bl_job_compression_rule_of(spec, t);
    bl_tensor_policy policy = bl_job_policy_of(spec, t);
    bool may = may_adapt(spec, t);
    out[i] = (bl_auto_tensor){.n_elems = t->n_elems,
                              .chosen = {may && (rule == NULL || rule->push.codec == NULL),
                                         may && (rule == NULL || rule->pull.codec == NULL)},
                              .spec = {policy.push, policy.pull}};
    n += out[i].chosen[BL_AUTO_PUSH] || out[i].chosen[BL_AUTO_PULL];
  }
  return n;
}

bool bl_auto_job_takes_sparse(const bl_job_spec *spec) {
  bool momentum = strcmp(spec->optimizer, "momentum") == 0 || strcmp(spec->optimizer, "nesterov") == 0;
  return spec->compression.feedback && !momentum;
}

bl_status bl_auto_new_of_job(const bl_job_spec *spec, const bl_tensor_table *table, uint32_t rank, uint32_t n_shards,
                             bl_auto **ret_auto, bl_error *err) {
  bl_auto_tensor *tensors = bl_calloc(table->n_tensors + 1u, sizeof *tensors);
  if (tensors == NULL)
    return bl_fail(err, BL_ENOMEM, "no memory to choose codecs for %u tensors", table->n_tensors);
  bl_auto_config config = {.tensors = tensors,
                           .n_tensors = table->n_tensors,
                           .world = spec->ranks,
                           .n_shards = n_shards,
                           .decides_pull = rank == 0,
                           .sparse = bl_auto_job_takes_sparse(spec)};
  bl_auto *a = NULL;
  bl_status st = BL_OK;
  if (bl_auto_tensors_of_job(spec, table, tensors) > 0)
    st = bl_auto_new(&config, &a, err);
  bl_free(tensors);
  if (st == BL_OK)
    *ret_auto = a;
  return st;
}
