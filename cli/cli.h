/* SPDX-License-Identifier: Apache-2.0
 *
 * The command: what its subcommands share. One row per subcommand in cli/main.c, one file each.
 *
 * Exit codes are those of bl_exit: 0 ok, 1 failed, 2 usage, 3 coordinator unreachable. Results go to
 * stdout, everything about their making to stderr. With --json the last line of stdout is one JSON object.
 */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include "conf/cluster.h"
#include "daemon/daemon.h"

#include <argp.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/* Options of every subcommand that speaks to a cluster. */
typedef struct cli_common {
  const char *cluster; /* --cluster: cluster file or tcp:// endpoint; NULL: searched for */
  bool json;
  bool local; /* set by the subcommand: it speaks to no cluster, so there is no --cluster */
} cli_common;

/* argp_parse with our exit codes. doc as argp wants it. input: the subcommand's own state; common: its cli_common. */
void cli_parse(int argc, char **argv, const struct argp_option *options, argp_parser_t parser, const char *args_doc,
               const char *doc, void *input, cli_common *common);

typedef int cli_main_fn(int argc, char **argv);
cli_main_fn cli_run, cli_submit, cli_wait, cli_jobs, cli_status, cli_logs, cli_cancel, cli_priority, cli_check, cli_predict, cli_resume, cli_keygen, cli_bench;

/* "ballast: <sentence>" to stderr; returns the exit code that goes with the status. */
int cli_fail(const bl_error *err);
int cli_fail_text(bl_status status, const char *fmt, ...) BL_PRINTF(2, 3);

/* Prints a JSON value on one line to stdout. */
void cli_print_json(const json_t *value);

/* A table of jobs, and one job in full, for people. */
void cli_print_jobs(const json_t *jobs);
void cli_print_job(const json_t *job);

/* Text or number of a field, with a default where it is absent or null. */
const char *cli_text(const json_t *object, const char *key);
double cli_number(const json_t *object, const char *key, double otherwise);
uint64_t cli_integer(const json_t *object, const char *key);
bool cli_has(const json_t *object, const char *key); /* there and not null */

/* Path of a program of this installation: beside the running `ballast`, else from PATH. Owned: bl_free. */
char *cli_program_path(const char *name);

/* Parses "7" or a job's number with a leading "job"; usage error with a sentence otherwise. */
uint64_t cli_job_number(const char *text, struct argp_state *state);

#endif
