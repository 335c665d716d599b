/* SPDX-License-Identifier: Apache-2.0
 *
 * Any bytes as cluster.yaml. What is accepted must come back from its own dump.
 */
#include "conf/cluster.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  bl_conf_errors errors;
  bl_cluster_conf *conf = NULL, *copy = NULL;
  bl_buf dump = BL_BUF_INIT, again = BL_BUF_INIT;
  bl_status status = bl_cluster_conf_parse((const char *)data, size, "fuzz", NULL, 0, &conf, &errors);
  if ((status == BL_OK) != (errors.n == 0))
    abort();
  bl_conf_errors_print(&errors, "fuzz", &again);
  bl_buf_clear(&again);
  if (status == BL_OK) {
    bl_cluster_conf_dump(conf, &dump);
    if (bl_cluster_conf_parse(bl_buf_str(&dump), dump.size, "dump", NULL, 0, &copy, &errors) != BL_OK)
      abort();
    bl_cluster_conf_dump(copy, &again);
    if (strcmp(bl_buf_str(&dump), bl_buf_str(&again)) != 0)
      abort();
  }
  bl_cluster_conf_free(conf);
  bl_cluster_conf_free(copy);
  bl_buf_fini(&dump);
  bl_buf_fini(&again);
  return 0;
}
