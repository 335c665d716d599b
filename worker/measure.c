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

#include <jansson.h>
#include <stdio.h>
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
  uint32_t n_inputs, batch;
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
    status = wk_dataset_open_train(r->spec, (uint32_t)n_inputs, (uint32_t)n_outputs, &r->train, &r->pre, err);
  if (status == BL_OK && r->spec->data.test.kind != BL_SOURCE_NONE)
    status = wk_dataset_open(&r->spec->data.test, r->pre, true, &r->test, err);
  if (status != BL_OK)
    return status;
  uint64_t n = wk_dataset_get_info(r->train).n_samples;
  r->n_inputs = (uint32_t)n_inputs;
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
  for (uint32_t i = 0; status == BL_OK && i < r->table->n_tensors; i++)
    bl_tensor_init_values(&r->table->tensors[i], r->spec->seed, 0, r->table->tensors[i].n_elems,
                          wk_model_params(r->model)[i]);
  return status;
}

static void ignore_grad(uint32_t tensor, const float *grad, uint64_t n_ready, void *arg) {}

static bl_status measure(rank *r, bl_error *err) {
  uint64_t *indices = bl_calloc(r->batch, sizeof *indices);
  uint32_t *labels = bl_calloc(r->batch, sizeof *labels);
  float *values = bl_calloc(r->batch, sizeof *values), *x = bl_calloc((size_t)r->batch * r->n_inputs, sizeof *x);
  bl_status status = BL_OK;
  if (indices == NULL || labels == NULL || values == NULL || x == NULL) {
    status = bl_fail(err, BL_ENOMEM, "no memory for a batch of %u samples", r->batch);
    goto out;
  }
  wk_permutation order;
  wk_permutation_init(&order, r->n_train, r->spec->seed, 0, true);
  uint64_t begin_ns = 0, steps = 0;
  for (uint64_t position = 0; steps < STEPS_MIN || bl_clock_now_ns() - begin_ns < MEASURE_NS; steps++) {
    if (steps == 1)
      begin_ns = bl_clock_now_ns(); /* the first step warms up */
    for (uint32_t i = 0; i < r->batch; i++)
      indices[i] = wk_permutation_at(&order, position++ % r->n_train);
    wk_dataset_fetch(r->train, indices, r->batch, x, labels, values);
    wk_step_id step = {r->spec->seed, steps, 0};
    (void)wk_model_forward(r->model, x, r->batch, &step);
    (void)wk_model_loss(r->model, labels, values, r->batch);
    wk_model_backward(r->model, labels, values, r->batch, (double)r->spec->batch, ignore_grad, NULL);
  }
  r->seconds_per_step = (double)(bl_clock_now_ns() - begin_ns) / 1e9 / (double)(steps - 1);
out:
  bl_free(indices);
  bl_free(labels);
  bl_free(values);
  bl_free(x);
  return status;
}

static void print(const rank *r) {
  json_t *o = json_pack("{s:I, s:I, s:I, s:I, s:I, s:f}", "train_samples", (json_int_t)r->n_train, "validation_samples",
                        (json_int_t)r->n_validation, "test_samples", (json_int_t)r->n_test, "data_bytes",
                        (json_int_t)r->data_bytes, "model_bytes", (json_int_t)r->model_bytes, "seconds_per_step",
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
  bl_tensor_table_free(r.table);
  wk_dataset_free(r.test);
  wk_dataset_free(r.train);
  wk_preprocess_free(r.pre);
  bl_job_spec_free(r.spec);
  return status == BL_OK ? BL_EXIT_OK : BL_EXIT_FAILED;
}
