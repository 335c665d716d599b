/* SPDX-License-Identifier: Apache-2.0
 *
 * Follows a job until it has ended: a progress bar on a terminal, plain lines otherwise, one line per epoch
 * either way. Everything goes to stderr, so that stdout carries only the result.
 */
#ifndef CLI_FOLLOW_H
#define CLI_FOLLOW_H

#include "cli/cli.h"
#include "cli/link.h"

typedef enum cli_follow_end { CLI_FOLLOW_ENDED = 1, CLI_FOLLOW_DETACHED } cli_follow_end;

typedef struct cli_follow_options {
  bool quiet;              /* no progress at all */
  const volatile bool *stop; /* becomes true on Ctrl-C; NULL: never */
} cli_follow_options;

/* *ret_job: the job as last seen, owned (json_decref). BL_EUNREACHABLE when the coordinator is lost for good. */
BL_MUST_CHECK bl_status cli_follow(cli_link *link, uint64_t job, const cli_follow_options *options, json_t **ret_job,
                                   cli_follow_end *ret_end, bl_error *err);

/* Follows until the job ends or the user detaches (Ctrl-C), and prints the result. The exit code of the job, or 0 when the
 * user has detached. */
int cli_follow_job(cli_link *link, uint64_t number, const cli_common *common);

bool cli_job_has_ended(const json_t *job);
/* Exit code of an ended job: 0 when it is done. */
int cli_job_exit_code(const json_t *job);
/* Final figures and what to try next, for a person, on stdout. */
void cli_print_result(const json_t *job);

#endif
