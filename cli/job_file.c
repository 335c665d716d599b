/* SPDX-License-Identifier: Apache-2.0
 *
 * See job_file.h.
 */
#include "cli/job_file.h"

#include <stdio.h>

void cli_sets_add(cli_sets *sets, const char *arg, struct argp_state *state) {
  if (sets->n == CLI_SET_MAX)
    argp_error(state, "more than %d overrides", CLI_SET_MAX);
  sets->at[sets->n++] = arg;
}

error_t cli_job_args_parse(int key, char *arg, struct argp_state *state, cli_job_args *args) {
  switch (key) {
  case 's':
    cli_sets_add(&args->sets, arg, state);
    return 0;
  case ARGP_KEY_ARG:
    if (args->file != NULL)
      argp_error(state, "one job file at a time, '%s' is too many", arg);
    args->file = arg;
    return 0;
  case ARGP_KEY_END:
    if (args->file == NULL)
      argp_error(state, "which job file?");
    return 0;
  default:
    return ARGP_ERR_UNKNOWN;
  }
}

bl_status cli_job_file_read(const cli_job_args *args, bl_job_spec **ret_spec) {
  static bl_conf_errors errors;
  errors.n = 0;
  bl_status status = bl_job_spec_read(args->file, args->sets.at, args->sets.n, ret_spec, &errors);
  if (status == BL_OK)
    return BL_OK;
  bl_buf text = BL_BUF_INIT;
  bl_conf_errors_print(&errors, args->file, &text);
  fputs(bl_buf_str(&text), stderr);
  bl_buf_fini(&text);
  return status;
}
