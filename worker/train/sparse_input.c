/* SPDX-License-Identifier: Apache-2.0 */
#include "train/sparse_input.h"

#include "base/alloc.h"
#include "base/num.h"

#include <string.h>

void wk_sparse_input_init(wk_sparse_input *in, uint32_t units, bool for_training) {
  *in = (wk_sparse_input){.units = units, .for_training = for_training};
}

void wk_sparse_input_fini(wk_sparse_input *in) {
  wk_sparse_batch_fini(&in->batch);
  bl_free(in->at);
  bl_free(in->rows);
  bl_free_aligned(in->weights);
  bl_free_aligned(in->grads);
  bl_free(in->labels);
  bl_free(in->values);
  *in = (wk_sparse_input){0};
}

static bl_status grow_samples(wk_sparse_input *in, uint32_t n) {
  if (n <= in->n_capacity)
    return BL_OK;
  uint32_t *labels = bl_realloc_array(in->labels, n, sizeof *labels);
  if (labels == NULL)
    return BL_ENOMEM;
  in->labels = labels;
  float *values = bl_realloc_array(in->values, n, sizeof *values);
  if (values == NULL)
    return BL_ENOMEM;
  in->values = values;
  in->n_capacity = n;
  return BL_OK;
}

/* What the arrays held is of no use any more. */
static bl_status grow_weights(wk_sparse_input *in) {
  if (in->x.n_rows <= in->weights_capacity)
    return BL_OK;
  bl_free_aligned(in->weights);
  bl_free_aligned(in->grads);
  in->grads = NULL;
  in->weights_capacity = 0;
  in->weights = bl_calloc_aligned(in->rows_capacity, in->units * sizeof *in->weights);
  if (in->for_training)
    in->grads = bl_calloc_aligned(in->rows_capacity, in->units * sizeof *in->grads);
  if (in->weights == NULL || (in->for_training && in->grads == NULL))
    return BL_ENOMEM;
  in->weights_capacity = in->rows_capacity;
  return BL_OK;
}

static bl_status fetch(wk_sparse_input *in, wk_distinct *scratch, const wk_dataset *data,
                       const uint64_t *indices, uint32_t n) {
  bl_status status = grow_samples(in, n);
  if (status == BL_OK)
    status = wk_dataset_fetch_sparse(data, indices, n, &in->batch, in->labels, in->values);
  if (status != BL_OK)
    return status;
  if (in->batch.key_capacity > in->at_capacity) {
    bl_free(in->at);
    in->at_capacity = 0;
    in->at = bl_malloc(in->batch.key_capacity * sizeof *in->at);
    if (in->at == NULL)
      return BL_ENOMEM;
    in->at_capacity = in->batch.key_capacity;
  }
  status = wk_distinct_find(scratch, in->batch.keys, in->batch.row_start[n], in->at, &in->rows,
                            &in->rows_capacity, &in->x.n_rows);
  return status == BL_OK ? grow_weights(in) : status;
}

bl_status wk_sparse_input_fetch(wk_sparse_input *in, wk_distinct *scratch, const wk_dataset *data,
                                const uint64_t *indices, uint32_t n, bl_error *err) {
  bl_status status = fetch(in, scratch, data, indices, n);
  if (status == BL_ELIMIT)
    return bl_fail(err, status, "a batch of %u samples has more than 2^31 inputs that are not 0", n);
  if (status != BL_OK)
    return bl_fail(err, status, "no memory for a batch of %u sparse samples", n);
  in->n = n;
  in->x.row_start = in->batch.row_start;
  in->x.at = in->at;
  in->x.vals = in->batch.ones ? NULL : in->batch.vals;
  in->x.weights = in->weights;
  in->x.grads = in->grads;
  return BL_OK;
}

/* First place in [from, n) whose row is at least `row`: steps that double, then halve, for rows come ascending.
 */
static uint64_t seek(const bl_saved_rows *table, uint64_t from, uint64_t row) {
  uint64_t step = 1, end = from;
  while (end < table->n && table->rows[end] < row) {
    from = end + 1;
    end += step;
    step *= 2;
  }
  end = BL_MIN(end, table->n);
  while (from < end) {
    uint64_t mid = from + (end - from) / 2;
    if (table->rows[mid] < row)
      from = mid + 1;
    else
      end = mid;
  }
  return from;
}

void wk_sparse_input_fill(wk_sparse_input *in, const bl_saved_rows *table, const bl_tensor *tensor,
                          uint64_t seed) {
  uint64_t at = 0, width = in->units;
  for (uint32_t i = 0; i < in->x.n_rows; i++) {
    float *out = in->weights + i * width;
    at = seek(table, at, in->rows[i]);
    if (at < table->n && table->rows[at] == in->rows[i])
      memcpy(out, table->values + at * width, width * sizeof *out);
    else
      bl_tensor_init_values(tensor, seed, in->rows[i] * width, width, out);
  }
}

uint32_t wk_sparse_tensor(const bl_tensor_table *table) {
  for (uint32_t i = 0; i < table->n_tensors; i++)
    if (table->tensors[i].table)
      return i;
  return UINT32_MAX;
}
