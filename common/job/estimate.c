/* SPDX-License-Identifier: Apache-2.0
 *
 * Sums over tensors and chunks. A dense layer costs 2 flops per weight forward and 4 backward.
 */
#include "job/estimate.h"

#include "base/num.h"
#include "codec/codec.h"
#include "optim/optim.h"

#include <math.h>
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

#define INDEX_OVER_FLOOR 1.01 /* what the codes of indices take, by the floor: codec/index.h */
#define SPARSE_EXTRA_BYTES 8  /* count, magnitude, divisor */
#define LOWRANK_EXTRA_BYTES 4

/* Of choosing a part p of many: -log2 of its probability, per element. */
static double entropy_bits(double p) { return p <= 0 || p >= 1 ? 0 : -(p * log2(p) + (1 - p) * log2(1 - p)); }

static double sparse_bytes(const bl_codec_spec *spec, uint32_t n) {
  static const double value_bits[BL_VALUES_COUNT] = {
      [BL_VALUES_FLOAT32] = 32, [BL_VALUES_FLOAT16] = 16, [BL_VALUES_INT8] = 8, [BL_VALUES_BITS2] = 2, [BL_VALUES_TERNARY] = 1};
  double density = (double)spec->density, index = spec->codec->id == BL_CODEC_TOPK ? entropy_bits(density) : 0;
  return SPARSE_EXTRA_BYTES + n / 8.0 * (INDEX_OVER_FLOOR * index + density * value_bits[spec->values]);
}

static double lowrank_bytes(const bl_codec_spec *spec, uint32_t n, uint32_t columns) {
  double wide = columns > 0 && columns < n ? columns : ceil(sqrt(n)), rows = ceil(n / wide);
  return LOWRANK_EXTRA_BYTES + spec->rank + 2.0 * spec->rank * (rows + wide);
}

uint64_t bl_frame_bytes_expected(const bl_codec_spec *spec, uint32_t n, uint32_t columns) {
  double bytes = (double)bl_codec_bound_bytes(spec, n);
  if (spec->density > 0)
    bytes = fmin(bytes, BL_CODEC_HEADER_BYTES + sparse_bytes(spec, n));
  else if (spec->rank > 0)
    bytes = fmin(bytes, BL_CODEC_HEADER_BYTES + lowrank_bytes(spec, n, columns));
  return (uint64_t)ceil(bytes);
}

static uint64_t frame_bytes(const bl_tensor_table *table, bool push) {
  uint64_t sum = 0;
  for (uint32_t i = 0; i < table->n_chunks; i++) {
    const bl_tensor *t = &table->tensors[table->chunks[i].tensor];
    if (!t->table)
      sum += bl_frame_bytes_expected(push ? &t->policy.push : &t->policy.pull, table->chunks[i].n_elems, bl_tensor_columns(t));
  }
  return sum;
}

/* What workers keep of what was not sent, and of their momentum: numbers. */
static uint64_t feedback_elems(const bl_tensor_table *table, bool undoes) {
  uint64_t sum = 0;
  for (uint32_t i = 0; i < table->n_tensors; i++) {
    const bl_tensor_policy *p = &table->tensors[i].policy;
    sum += table->tensors[i].n_elems * ((p->feedback || p->momentum > 0) + (p->momentum > 0)) * (undoes ? 2 : 1);
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

#define ROWS_AT_ONCE_ELEMS 4096 /* rows of one frame share its header and scales */

static uint64_t row_bytes(const bl_codec_spec *spec, uint32_t width) {
  double elem = (double)(bl_codec_bound_bytes(spec, ROWS_AT_ONCE_ELEMS) - BL_CODEC_HEADER_BYTES) / ROWS_AT_ONCE_ELEMS;
  return (uint64_t)ceil(elem * width) + KEY_BYTES_ON_THE_WIRE;
}

static void estimate_table(const bl_tensor_table *table, const bl_optim_rule *rule, bl_job_estimate *e) {
  for (uint32_t i = 0; i < table->n_tensors; i++) {
    if (!table->tensors[i].table)
      continue;
    uint64_t row = bl_table_width(&table->tensors[i]) * sizeof(float);
    e->table_rows = bl_table_rows(&table->tensors[i]);
    e->server_bytes_per_row = row * (2 + rule->n_slots) + ROW_OVERHEAD_BYTES; /* weights, sum, the rule's state */
    e->worker_bytes_per_row = 2 * row + sizeof(uint64_t);
    e->push_bytes_per_row = row_bytes(&table->tensors[i].policy.push, bl_table_width(&table->tensors[i]));
    e->pull_bytes_per_row = row_bytes(&table->tensors[i].policy.pull, bl_table_width(&table->tensors[i]));
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
  uint64_t copies = 1 + 1 + rule->n_slots + averages + (bl_tensor_table_pulls_exactly(table) && !spec->compression.adapts ? 2 : 3);
  uint64_t dense = dense_elems(table);
  e.server_bytes = dense * sizeof(float) * copies;
  e.batch_per_rank = bl_div_up_u64(spec->batch, spec->ranks);
  uint64_t sums = spec->accumulate > 1 || strcmp(spec->sync, "ssp") == 0;
  uint64_t local = spec->local_steps > 0 ? 1 + own->n_slots + bl_job_holds_weights(spec) : 0; /* the round's first weights, and the rule's state */
  e.worker_bytes_per_rank = dense * sizeof(float) * (2 + sums + averages + local) +
                            activation_elems(&spec->model) * e.batch_per_rank * sizeof(float) * 2 +
                            feedback_elems(table, spec->not_finite == BL_NOT_FINITE_SKIP) * sizeof(float);
  e.push_bytes_per_clock = frame_bytes(table, true) * spec->ranks;
  e.pull_bytes_per_clock = frame_bytes(table, false) * spec->ranks;
  e.flops_per_sample = FLOPS_PER_WEIGHT * (double)dense;
  estimate_table(table, rule, &e);
  bl_tensor_table_free(table);
  *ret_estimate = e;
  return BL_OK;
}
