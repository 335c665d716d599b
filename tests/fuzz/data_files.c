/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fuzz/data_files.h"

#include "base/num.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define INPUTS_MAX 64
#define SAMPLES_MAX 64

const char *fuzz_file(int slot, const uint8_t *data, size_t size) {
  static int fds[2] = {-1, -1};
  static char paths[2][64];
  if (fds[slot] < 0)
    fds[slot] = memfd_create("fuzz", MFD_CLOEXEC);
  if (fds[slot] < 0 || ftruncate(fds[slot], 0) != 0 || pwrite(fds[slot], data, size, 0) != (ssize_t)size)
    abort();
  snprintf(paths[slot], sizeof paths[slot], "/proc/self/fd/%d", fds[slot]);
  return paths[slot];
}

static void fetch_all_sparse(const wk_dataset *ds, const uint64_t *indices, size_t n, uint32_t *labels, float *values) {
  wk_sparse_batch b = {0};
  if (wk_dataset_fetch_sparse(ds, indices, n, &b, labels, values) != BL_OK || b.row_start[0] != 0)
    abort();
  for (uint32_t k = 0; k < b.row_start[n]; k++)
    if (b.keys[k] >= wk_dataset_get_info(ds).n_inputs || (!b.ones && isnan(b.vals[k])))
      abort();
  wk_sparse_batch_fini(&b);
}

static void fetch_all(const wk_dataset *ds) {
  static float x[SAMPLES_MAX * INPUTS_MAX], values[SAMPLES_MAX];
  static uint32_t labels[SAMPLES_MAX];
  uint64_t indices[SAMPLES_MAX];
  wk_dataset_info info = wk_dataset_get_info(ds);
  size_t n = BL_MIN(info.n_samples, SAMPLES_MAX);
  if (info.n_samples == 0 || (info.n_inputs > INPUTS_MAX && !info.sparse))
    abort();
  for (size_t i = 0; i < n; i++)
    indices[i] = i;
  if (info.sparse)
    fetch_all_sparse(ds, indices, n, labels, values);
  else
    wk_dataset_fetch(ds, indices, n, x, labels, values);
  for (size_t i = 0; !info.sparse && i < n * info.n_inputs; i++)
    if (isnan(x[i]))
      abort();
  for (size_t i = 0; info.target == WK_TARGET_CLASS && i < n; i++)
    if (labels[i] >= info.n_classes)
      abort();
}

static void open_both(const bl_job_spec *spec, uint64_t n_inputs, uint32_t n_outputs) {
  wk_dataset *ds = NULL, *again = NULL;
  wk_preprocess *pre = NULL;
  bl_error err = BL_ERROR_INIT;
  if (wk_dataset_open_train(spec, n_inputs, n_outputs, &ds, &pre, &err) != BL_OK) {
    if (err.text[0] == '\0' || ds != NULL || pre != NULL)
      abort();
    return;
  }
  fetch_all(ds);
  /* What trained must open again, with the same samples. */
  if (wk_dataset_open(&spec->data.train, pre, true, &again, &err) != BL_OK ||
      wk_dataset_get_info(again).n_samples != wk_dataset_get_info(ds).n_samples)
    abort();
  fetch_all(again);
  wk_dataset_free(again);
  wk_dataset_free(ds);
  wk_preprocess_free(pre);
}

void fuzz_open(const bl_job_spec *spec, uint32_t n_inputs, uint32_t n_outputs) { open_both(spec, n_inputs, n_outputs); }

void fuzz_open_sparse(const bl_job_spec *spec, uint64_t n_inputs) {
  bl_layer_spec layer = {.kind = BL_LAYER_SPARSE, .name = "sparse1", .units = 1, .bias = true};
  bl_job_spec sparse = *spec;
  sparse.model = (bl_model_spec){.input = {n_inputs}, .n_input_dims = 1, .layers = &layer, .n_layers = 1};
  sparse.data.normalize = BL_NORMALIZE_NONE;
  open_both(&sparse, n_inputs, 1);
}
