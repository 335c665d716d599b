/* SPDX-License-Identifier: Apache-2.0
 *
 * Any bytes as a job file, with the first line once more as an override. What is accepted must come back from
 * its own dump, and give a tensor table or an error.
 */
#include "job/spec.h"
#include "job/tensors.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_round_trip(const bl_job_spec *spec) {
  bl_conf_errors errors;
  bl_buf dump = BL_BUF_INIT, again = BL_BUF_INIT;
  bl_job_spec *copy = NULL;
  bl_job_spec_dump(spec, &dump);
  bl_status status = bl_job_spec_parse(bl_buf_str(&dump), dump.size, "dump", "/", NULL, 0, &copy, &errors);
  /* A file near the size limit may have a dump beyond it. */
  if (status != BL_OK && dump.size <= 1u << 20)
    abort();
  if (status == BL_OK) {
    bl_job_spec_dump(copy, &again);
    if (strcmp(bl_buf_str(&dump), bl_buf_str(&again)) != 0)
      abort();
  }
  bl_job_spec_free(copy);
  bl_buf_fini(&dump);
  bl_buf_fini(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  bl_conf_errors errors;
  bl_buf text = BL_BUF_INIT;
  char set[128];
  const char *overrides[] = {set};
  bl_job_spec *spec = NULL;
  size_t n = 0;
  while (n < size && n < sizeof set - 1 && data[n] != '\n' && data[n] != '\0')
    n++;
  memcpy(set, data, n);
  set[n] = '\0';
  bl_status status = bl_job_spec_parse((const char *)data, size, "fuzz", "/base", overrides,
                                       strchr(set, '=') != NULL, &spec, &errors);
  if ((status == BL_OK) != (errors.n == 0))
    abort();
  bl_conf_errors_print(&errors, "fuzz", &text);
  bl_buf_fini(&text);
  if (status != BL_OK)
    return 0;
  check_round_trip(spec);
  bl_tensor_table *table = NULL;
  uint64_t units;
  if (bl_model_output_size(&spec->model, &units, NULL) != BL_OK)
    abort(); /* the parser has walked the shapes */
  if (units < 4096 && bl_tensor_table_of_model(&spec->model, 1u << 20, &table, NULL) == BL_OK)
    bl_tensor_table_free(table);
  bl_job_spec_free(spec);
  return 0;
}
