/* SPDX-License-Identifier: Apache-2.0
 *
 * A rank without a network.
 */
#include "measure.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/num.h"
#include "daemon/daemon.h"
#include "data/dataset.h"
#include "data/shuffle.h"
#include "nn/gemm.h"
#include "nn/model.h"
#include "train/sparse_input.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define MEASURE_NS (400 * BL_NS_PER_MS)
#define STEPS_MIN 3
#define JOB_BYTES_MAX (1u << 20)

typedef struct rank {
  bl_job_spec *spec;
  bl_tensor_table *table;
  wk_dataset *train, *test;
  wk_preprocess *pre;
  wk_model *model;
  uint64_t n_train, n_validation, n_test, data_bytes, model_bytes;
  uint64_t n_inputs;
  uint32_t batch;
  wk_sparse_input sparse; /* where the model takes sparse samples */
  wk_distinct distinct;
  uint64_t rows_per_step;
  double seconds_per_step;
} rank;

static uint64_t resident_bytes(void) {
  bl_buf text = BL_BUF_INIT;
  unsigned long long pages = 0;
  if (bl_file_read("/proc/self/statm", 4096, &text, NULL) == BL_OK)
    (void)sscanf(bl_buf_str(&text), "%*s %llu", &pages);
  bl_buf_fini(&text);
  return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static bl_status read_job(rank *r, bl_error *err) {
  static bl_conf_errors errors;
  bl_buf text = BL_BUF_INIT;
  errors.n = 0;
  bl_status status = bl_file_read("/dev/stdin", JOB_BYTES_MAX, &text, err);
  if (status == BL_OK) {
    status = bl_job_spec_parse(bl_buf_str(&text), text.size, "job", "/", NULL, 0, &r->spec, &errors);
    if (status != BL_OK)
      bl_fail(err, status, "%s", errors.n > 0 ? errors.at[0].text : bl_status_name(status));
  }
  bl_buf_fini(&text);
  return status;
}

static bl_status open_data(rank *r, bl_error *err) {
  uint64_t n_outputs = 0, n_inputs = 1, before = resident_bytes();
  bl_status status = bl_model_output_size(&r->spec->model, &n_outputs, err);
  for (size_t i = 0; i < r->spec->model.n_input_dims; i++)
    n_inputs *= r->spec->model.input[i];
  if (status == BL_OK)
    status = wk_dataset_open_train(r->spec, n_inputs, (uint32_t)n_outputs, &r->train, &r->pre, err);
  if (status == BL_OK && r->spec->data.test.kind != BL_SOURCE_NONE)
    status = wk_dataset_open(&r->spec->data.test, r->pre, true, &r->test, err);
  if (status != BL_OK)
    return status;
  uint64_t n = wk_dataset_get_info(r->train).n_samples;
  r->n_inputs = n_inputs;
  r->n_train = wk_train_part(n, r->spec->data.validation);
  r->n_validation = n - r->n_train;
  r->n_test = r->test != NULL ? wk_dataset_get_info(r->test).n_samples : 0;
  r->data_bytes = BL_MAX(resident_bytes(), before) - before;
  return BL_OK;
}

static bl_status build(rank *r, bl_error *err) {
  uint64_t largest = bl_div_up_u64(BL_MIN(r->spec->batch, r->n_train), r->spec->ranks);
  r->batch = (uint32_t)BL_MAX(largest, 1);
  bl_status status = bl_tensor_table_of_model(&r->spec->model, r->spec->chunk_bytes, &r->table, err);
  if (status == BL_OK)
    status = wk_model_new(&r->spec->model, r->spec->loss, r->table, r->batch, true, &r->model, err);
  if (status == BL_OK)
    status = wk_model_memory(&r->spec->model, r->batch, true, &r->model_bytes, err);
  if (bl_model_is_sparse(&r->spec->model))
    wk_sparse_input_init(&r->sparse, r->spec->model.layers[0].units, true);
  for (uint32_t i = 0; status == BL_OK && i < r->table->n_tensors; i++)
    if (!r->table->tensors[i].table)
      bl_tensor_init_values(&r->table->tensors[i], r->spec->seed, 0, r->table->tensors[i].n_elems,
                            wk_model_params(r->model)[i]);
  return status;
}

static void ignore_grad(uint32_t tensor, const float *grad, uint64_t n_ready, void *arg) {}

/* What a batch is made of; owned. */
typedef struct arrays {
  uint64_t *indices;
  uint32_t *labels;
  float *values, *x;
} arrays;

static bl_status forward(rank *r, const arrays *a, const wk_step_id *step, bl_error *err) {
  if (!bl_model_is_sparse(&r->spec->model)) {
    wk_dataset_fetch(r->train, a->indices, r->batch, a->x, a->labels, a->values);
    (void)wk_model_forward(r->model, a->x, r->batch, step);
    return BL_OK;
  }
  bl_status status = wk_sparse_input_fetch(&r->sparse, &r->distinct, r->train, a->indices, r->batch, err);
  if (status != BL_OK)
    return status;
  memcpy(a->labels, r->sparse.labels, r->batch * sizeof *a->labels);
  memcpy(a->values, r->sparse.values, r->batch * sizeof *a->values);
  (void)wk_model_forward_sparse(r->model, &r->sparse.x, r->batch, step); /* with weights of 0: as fast as any */
  r->rows_per_step += r->sparse.x.n_rows;
  return BL_OK;
}

static bl_status measure_steps(rank *r, const arrays *a, bl_error *err) {
  wk_permutation order;
  wk_permutation_init(&order, r->n_train, r->spec->seed, 0, true);
  uint64_t begin_ns = 0, steps = 0;
  for (uint64_t position = 0; steps < STEPS_MIN || bl_clock_now_ns() - begin_ns < MEASURE_NS; steps++) {
    if (steps == 1)
      begin_ns = bl_clock_now_ns(); /* the first step warms up */
    for (uint32_t i = 0; i < r->batch; i++)
      a->indices[i] = wk_permutation_at(&order, position++ % r->n_train);
    wk_step_id step = {r->spec->seed, steps, 0};
    bl_status status = forward(r, a, &step, err);
    if (status != BL_OK)
      return status;
    (void)wk_model_loss(r->model, a->labels, a->values, r->batch);
    wk_model_backward(r->model, a->labels, a->values, r->batch, (double)r->spec->batch, ignore_grad, NULL);
  }
  r->seconds_per_step = (double)(bl_clock_now_ns() - begin_ns) / 1e9 / (double)(steps - 1);
  r->rows_per_step /= steps;
  return BL_OK;
}

static bl_status measure(rank *r, bl_error *err) {
  uint64_t width = bl_model_is_sparse(&r->spec->model) ? 1 : r->n_inputs;
  arrays a = {bl_calloc(r->batch, sizeof *a.indices), bl_calloc(r->batch, sizeof *a.labels),
              bl_calloc(r->batch, sizeof *a.values), bl_calloc((size_t)r->batch * width, sizeof *a.x)};
  bl_status status = BL_OK;
  if (a.indices == NULL || a.labels == NULL || a.values == NULL || a.x == NULL)
    status = bl_fail(err, BL_ENOMEM, "no memory for a batch of %u samples", r->batch);
  else
    status = measure_steps(r, &a, err);
  bl_free(a.indices);
  bl_free(a.labels);
  bl_free(a.values);
  bl_free(a.x);
  return status;
}

static void print(const rank *r) {
  json_t *o = json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:f}", "train_samples", (json_int_t)r->n_train, "validation_samples",
                        (json_int_t)r->n_validation, "test_samples", (json_int_t)r->n_test, "data_bytes",
                        (json_int_t)r->data_bytes, "model_bytes", (json_int_t)r->model_bytes, "rows_per_step",
                        (json_int_t)r->rows_per_step, "seconds_per_step",
                        r->seconds_per_step);
  json_dumpf(o, stdout, JSON_COMPACT);
  putchar('\n');
  json_decref(o);
}

int wk_measure_main(void) {
  rank r = {0};
  bl_error err = BL_ERROR_INIT;
  wk_gemm_set_threads(1);
  bl_status status = read_job(&r, &err);
  if (status == BL_OK)
    status = open_data(&r, &err);
  if (status == BL_OK)
    status = build(&r, &err);
  if (status == BL_OK)
    status = measure(&r, &err);
  if (status == BL_OK)
    print(&r);
  else
    fprintf(stderr, "%s\n", err.text);
  wk_model_free(r.model);
  wk_sparse_input_fini(&r.sparse);
  wk_distinct_fini(&r.distinct);
  bl_tensor_table_free(r.table);
  wk_dataset_free(r.test);
  wk_dataset_free(r.train);
  wk_preprocess_free(r.pre);
  bl_job_spec_free(r.spec);
  return status == BL_OK ? BL_EXIT_OK : BL_EXIT_FAILED;
}
