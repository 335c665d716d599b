/* SPDX-License-Identifier: Apache-2.0
 *
 * Sums over tensors and chunks. A dense layer costs 2 flops per weight forward and 4 backward.
 */
#include "job/estimate.h"

#include "base/num.h"
#include "codec/codec.h"
#include "optim/optim.h"

#include <string.h>

#define FLOPS_PER_WEIGHT 6.0

/* Outputs of all layers together, per sample: what a worker keeps between forward and backward. */
static uint64_t activation_elems(const bl_model_spec *model) {
  uint64_t width = 1, sum = 0;
  for (size_t i = 0; i < model->n_input_dims && !bl_model_is_sparse(model); i++)
    width *= model->input[i];
  sum = width;
  for (size_t i = 0; i < model->n_layers; i++) {
    if (bl_layer_has_weights(model->layers[i].kind))
      width = model->layers[i].units;
    sum += width;
  }
  return sum;
}

static uint64_t frame_bytes(const bl_tensor_table *table, bool push) {
  uint64_t sum = 0;
  for (uint32_t i = 0; i < table->n_chunks; i++) {
    const bl_tensor *t = &table->tensors[table->chunks[i].tensor];
    if (!t->table)
      sum += bl_codec_bound_bytes(push ? &t->policy.push : &t->policy.pull, table->chunks[i].n_elems);
  }
  return sum;
}

/* Of all tensors but tables. */
static uint64_t dense_elems(const bl_tensor_table *table) {
  uint64_t sum = 0;
  for (uint32_t i = 0; i < table->n_tensors; i++)
    sum += table->tensors[i].table ? 0 : table->tensors[i].n_elems;
  return sum;
}

#define KEY_BYTES_ON_THE_WIRE 2 /* of a row in a list of ascending ones; none when a checksum stands for the list */
#define ROW_OVERHEAD_BYTES 24   /* of the servers' hash tables and lists */

static void estimate_table(const bl_tensor_table *table, const bl_optim_rule *rule, bl_job_estimate *e) {
  for (uint32_t i = 0; i < table->n_tensors; i++) {
    if (!table->tensors[i].table)
      continue;
    uint64_t row = bl_table_width(&table->tensors[i]) * sizeof(float);
    e->table_rows = bl_table_rows(&table->tensors[i]);
    e->server_bytes_per_row = row * (2 + rule->n_slots) + ROW_OVERHEAD_BYTES; /* weights, sum, the rule's state */
    e->worker_bytes_per_row = 2 * row + sizeof(uint64_t);
    e->push_bytes_per_row = e->pull_bytes_per_row = row + KEY_BYTES_ON_THE_WIRE;
  }
}

bl_status bl_job_estimate_make(const bl_job_spec *spec, bl_job_estimate *ret_estimate, bl_error *err) {
  const bl_optim_rule *own = bl_optim_rule_by_name(spec->optimizer), *rule = bl_optim_rule_by_name(bl_job_server_rule(spec).name);
  if (own == NULL || rule == NULL)
    return bl_fail(err, BL_EINVAL, "unknown optimizer '%s'", spec->optimizer);
  bl_tensor_table *table;
  bl_status status = bl_tensor_table_of_job(spec, &table, err);
  if (status != BL_OK)
    return status;
  bl_job_estimate e = {.n_weights = table->n_elems, .n_tensors = table->n_tensors, .n_chunks = table->n_chunks};
  uint64_t averages = spec->average_ema > 0;
  /* weights, accumulator, optimizer slots, average, frames of two versions or what workers hold and frames of it */
  uint64_t copies = 1 + 1 + rule->n_slots + averages + (bl_tensor_table_pulls_exactly(table) ? 2 : 3);
  uint64_t dense = dense_elems(table);
  e.server_bytes = dense * sizeof(float) * copies;
  e.batch_per_rank = bl_div_up_u64(spec->batch, spec->ranks);
  uint64_t sums = spec->accumulate > 1 || strcmp(spec->sync, "ssp") == 0;
  uint64_t local = spec->local_steps > 0 ? 1 + own->n_slots + bl_job_holds_weights(spec) : 0; /* the round's first weights, and the rule's state */
  e.worker_bytes_per_rank = dense * sizeof(float) * (2 + sums + averages + local) +
                            activation_elems(&spec->model) * e.batch_per_rank * sizeof(float) * 2;
  e.push_bytes_per_clock = frame_bytes(table, true) * spec->ranks;
  e.pull_bytes_per_clock = frame_bytes(table, false) * spec->ranks;
  e.flops_per_sample = FLOPS_PER_WEIGHT * (double)dense;
  estimate_table(table, rule, &e);
  bl_tensor_table_free(table);
  *ret_estimate = e;
  return BL_OK;
}
