/* SPDX-License-Identifier: Apache-2.0
 *
 * Any bytes as a CSV file: with a header, a category and missing values as a regression, and without a
 * header as a classification.
 */
#include "tests/fuzz/data_files.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const char *const categorical[] = {"kind"};
  const char *path = fuzz_file(0, data, size);
  bl_job_spec spec = {.loss = BL_LOSS_SQUARED,
                      .data = {.train = {.kind = BL_SOURCE_CSV,
                                         .paths = &path,
                                         .n_paths = 1,
                                         .header = true,
                                         .delimiter = ',',
                                         .target = "price",
                                         .categorical = categorical,
                                         .n_categorical = 1,
                                         .missing = BL_MISSING_MEAN},
                               .normalize = BL_NORMALIZE_STANDARD,
                               .standardize_target = true}};
  fuzz_open(&spec, 4, 1);
  spec.loss = BL_LOSS_SOFTMAX_CROSS_ENTROPY;
  spec.data.train.header = false;
  spec.data.train.n_categorical = 0;
  spec.data.train.target = "2";
  spec.data.train.missing = BL_MISSING_SKIP;
  fuzz_open(&spec, 2, 3);
  spec.loss = BL_LOSS_SIGMOID_CROSS_ENTROPY;
  spec.data.normalize = BL_NORMALIZE_NONE;
  spec.data.standardize_target = false;
  spec.data.train.missing = BL_MISSING_ZERO;
  spec.data.train.hash_bits = 40;
  fuzz_open_sparse(&spec, UINT64_C(1) << 40);
  spec.data.train.hash_bits = 4;
  fuzz_open(&spec, 16, 1);
  return 0;
}
