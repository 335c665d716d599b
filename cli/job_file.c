/* SPDX-License-Identifier: Apache-2.0
 *
 * See job_file.h.
 */
#include "cli/job_file.h"

#include <stdio.h>

bl_status cli_job_file_read(const char *path, const char *const *overrides, size_t n_overrides, bl_job_spec **ret_spec) {
  static bl_conf_errors errors;
  errors.n = 0;
  bl_status status = bl_job_spec_read(path, overrides, n_overrides, ret_spec, &errors);
  if (status == BL_OK)
    return BL_OK;
  bl_buf text = BL_BUF_INIT;
  bl_conf_errors_print(&errors, path, &text);
  fputs(bl_buf_str(&text), stderr);
  bl_buf_fini(&text);
  return status;
}
