/* SPDX-License-Identifier: Apache-2.0
 *
 * Any bytes as an npy array; then as the inputs and the targets of a training set, classes and values.
 */
#include "data/npy.h"
#include "tests/fuzz/data_files.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Touches every element. */
static void read_all(const char *path) {
  wk_npy a;
  bl_error err = BL_ERROR_INIT;
  if (wk_npy_read(path, &a, &err) != BL_OK) {
    if (err.text[0] == '\0')
      abort();
    return;
  }
  double sum = 0;
  for (uint64_t i = 0; i < a.n_elems; i++) {
    sum += wk_npy_number(&a, i);
    if (wk_npy_is_integer(&a) && (double)wk_npy_integer(&a, i) != wk_npy_number(&a, i))
      abort();
  }
  volatile double keep = sum;
  (void)keep;
  wk_npy_fini(&a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const char targets[] = "\x93NUMPY\1\0\x38\0{'descr': '<i8', 'fortran_order': False, 'shape': (2,)}\n"
                                "\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
  const char *path = fuzz_file(0, data, size);
  read_all(path);
  const char *paths[2] = {path, fuzz_file(1, (const uint8_t *)targets, sizeof targets)};
  bl_job_spec spec = {.loss = BL_LOSS_SOFTMAX_CROSS_ENTROPY,
                      .data = {.train = {.kind = BL_SOURCE_NPY, .paths = paths, .n_paths = 2},
                               .normalize = BL_NORMALIZE_NONE}};
  fuzz_open(&spec, 3, 2);
  spec.data.normalize = BL_NORMALIZE_STANDARD;
  spec.loss = BL_LOSS_SQUARED;
  paths[1] = path; /* [n, 1]: its own target */
  fuzz_open(&spec, 1, 1);
  fuzz_open_sparse(&spec, 300);
  fuzz_open_sparse(&spec, UINT64_C(1) << 40);
  return 0;
}
