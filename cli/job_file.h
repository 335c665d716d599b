/* SPDX-License-Identifier: Apache-2.0
 *
 * Job files as the command sees them: reading with all mistakes printed, and the text that is submitted.
 */
#ifndef CLI_JOB_FILE_H
#define CLI_JOB_FILE_H

#include "job/spec.h"

#include <argp.h>

#define CLI_SET_MAX 64
/* --set options as they come in. */
typedef struct cli_sets {
  const char *at[CLI_SET_MAX];
  size_t n;
} cli_sets;
void cli_sets_add(cli_sets *sets, const char *arg, struct argp_state *state);

/* "[--set A.B=VALUE]... JOB.yaml": what run, submit and check have in common. */
typedef struct cli_job_args {
  const char *file;
  cli_sets sets;
} cli_job_args;

#define CLI_JOB_SET_OPTION                                                                                   \
  { "set", 's', "A.B=VALUE", 0, "override one field of the job file; may be repeated", 0 }
/* For the default case of a parser that has CLI_JOB_SET_OPTION in its table. */
error_t cli_job_args_parse(int key, char *arg, struct argp_state *state, cli_job_args *args);

/* Prints every mistake to stderr; *ret_spec owned. */
BL_MUST_CHECK bl_status cli_job_file_read(const cli_job_args *args, bl_job_spec **ret_spec);

#endif
