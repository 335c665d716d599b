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
  for (size_t i = 0; i < model->n_input_dims; i++)
    width *= model->input[i];
  sum = width;
  for (size_t i = 0; i < model->n_layers; i++) {
    if (model->layers[i].kind == BL_LAYER_DENSE)
      width = model->layers[i].units;
    sum += width;
  }
  return sum;
}

static uint64_t frame_bytes(const bl_tensor_table *table, const bl_codec *codec) {
  uint64_t sum = 0;
  for (uint32_t i = 0; i < table->n_chunks; i++)
    sum += codec->bound_bytes(table->chunks[i].n_elems);
  return sum;
}

bl_status bl_job_estimate_make(const bl_job_spec *spec, bl_job_estimate *ret_estimate, bl_error *err) {
  const bl_codec *push = bl_codec_by_name(spec->codec_push), *pull = bl_codec_by_name(spec->codec_pull);
  const bl_optim_rule *rule = bl_optim_rule_by_name(spec->optimizer);
  if (push == NULL || pull == NULL || rule == NULL)
    return bl_fail(err, BL_EINVAL, "unknown codec or optimizer");
  bl_tensor_table *table;
  bl_status status = bl_tensor_table_of_model(&spec->model, spec->chunk_bytes, &table, err);
  if (status != BL_OK)
    return status;
  bl_job_estimate e = {.n_weights = table->n_elems, .n_tensors = table->n_tensors, .n_chunks = table->n_chunks};
  uint64_t averages = spec->average_ema > 0;
  /* weights, accumulator, optimizer slots, average, frames of two versions or what workers hold and frames of it */
  uint64_t copies = 1 + 1 + rule->n_slots + averages + (pull->exact ? 2 : 3);
  e.server_bytes = e.n_weights * sizeof(float) * copies;
  e.batch_per_rank = bl_div_up_u64(spec->batch, spec->ranks);
  uint64_t sums = spec->accumulate > 1 || strcmp(spec->sync, "ssp") == 0;
  e.worker_bytes_per_rank = e.n_weights * sizeof(float) * (2 + sums + averages) +
                            activation_elems(&spec->model) * e.batch_per_rank * sizeof(float) * 2;
  e.push_bytes_per_clock = frame_bytes(table, push) * spec->ranks;
  e.pull_bytes_per_clock = frame_bytes(table, pull) * spec->ranks;
  e.flops_per_sample = FLOPS_PER_WEIGHT * (double)e.n_weights;
  bl_tensor_table_free(table);
  *ret_estimate = e;
  return BL_OK;
}
