/* SPDX-License-Identifier: Apache-2.0
 *
 * Any bytes as a libsvm file: two classes, then as a regression; then for sparse models.
 */
#include "tests/fuzz/data_files.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const char *path = fuzz_file(0, data, size);
  bl_job_spec spec = {.loss = BL_LOSS_SIGMOID_CROSS_ENTROPY,
                      .data = {.train = {.kind = BL_SOURCE_LIBSVM, .paths = &path, .n_paths = 1},
                               .normalize = BL_NORMALIZE_NONE}};
  fuzz_open(&spec, 9, 1);
  spec.loss = BL_LOSS_SQUARED;
  spec.data.normalize = BL_NORMALIZE_STANDARD;
  fuzz_open(&spec, 9, 1);
  fuzz_open_sparse(&spec, 9);
  fuzz_open_sparse(&spec, UINT64_C(1) << 40);
  return 0;
}
