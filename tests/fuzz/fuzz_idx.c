/* SPDX-License-Identifier: Apache-2.0
 *
 * Two idx files, plain or gzip: the first two bytes say how many of the rest are the inputs.
 */
#include "base/le.h"
#include "base/num.h"
#include "tests/fuzz/data_files.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 2)
    return 0;
  size_t n = BL_MIN(bl_le_get16(data), size - 2);
  const char *paths[2] = {fuzz_file(0, data + 2, n), fuzz_file(1, data + 2 + n, size - 2 - n)};
  bl_job_spec spec = {.loss = BL_LOSS_SOFTMAX_CROSS_ENTROPY,
                      .data = {.train = {.kind = BL_SOURCE_IDX, .paths = paths, .n_paths = 2},
                               .normalize = BL_NORMALIZE_STANDARD}};
  fuzz_open(&spec, 4, 3);
  return 0;
}
