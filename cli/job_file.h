/* SPDX-License-Identifier: Apache-2.0
 *
 * Job files as the command sees them: reading with all mistakes printed, and the text that is submitted.
 */
#ifndef CLI_JOB_FILE_H
#define CLI_JOB_FILE_H

#include "job/spec.h"

/* Prints every mistake to stderr; *ret_spec owned. */
BL_MUST_CHECK bl_status cli_job_file_read(const char *path, const char *const *overrides, size_t n_overrides,
                                          bl_job_spec **ret_spec);

#define CLI_SET_MAX 64
/* --set options as they come in. */
typedef struct cli_sets {
  const char *at[CLI_SET_MAX];
  size_t n;
} cli_sets;

#endif
