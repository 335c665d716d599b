/* SPDX-License-Identifier: Apache-2.0
 *
 * Any bytes as preprocess.json; what is accepted is used on a small file.
 */
#include "tests/fuzz/data_files.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const char csv[] = "rooms,kind,price\n1,b,3\n2,a,1\n";
  wk_preprocess *pre = NULL;
  wk_dataset *ds = NULL;
  if (wk_preprocess_read(fuzz_file(0, data, size), &pre, NULL) != BL_OK)
    return 0;
  const char *path = fuzz_file(1, (const uint8_t *)csv, strlen(csv));
  bl_source_spec source = {
      .kind = BL_SOURCE_CSV, .paths = &path, .n_paths = 1, .header = true, .delimiter = ','};
  if (wk_dataset_open(&source, pre, false, &ds, NULL) == BL_OK) {
    static float x[1 << 16];
    wk_dataset_info info = wk_dataset_get_info(ds);
    if (info.n_inputs <= sizeof x / sizeof x[0])
      wk_dataset_fetch(ds, (const uint64_t[]){info.n_samples - 1}, 1, x, NULL, NULL);
  }
  char name[16];
  (void)wk_preprocess_class_name(pre, 1, name, sizeof name);
  wk_dataset_free(ds);
  wk_preprocess_free(pre);
  return 0;
}
