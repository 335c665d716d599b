/* SPDX-License-Identifier: Apache-2.0
 *
 * ballast submit, wait, cancel and priority: a job's way through the cluster.
 */
#include "base/alloc.h"
#include "base/str.h"
#include "cli/cli.h"
#include "cli/follow.h"
#include "cli/job_file.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

typedef struct submit_options {
  cli_common common;
  cli_job_args job;
  bool follow;
  char priority[40]; /* "priority=N", one more override */
} submit_options;

enum { OPT_PRIORITY = 700 };

static const struct argp_option options[] = {
    CLI_JOB_SET_OPTION,
    {"priority", OPT_PRIORITY, "N", 0, "place in the queue, from -100 to 100: higher goes first (the job file's, or 0)", 0},
    {"follow", 'f', NULL, 0, "show progress until the job ends; Ctrl-C detaches, the job goes on", 0},
    {NULL, 0, NULL, 0, NULL, 0},
};

static error_t parse(int key, char *arg, struct argp_state *state) {
  submit_options *o = state->input;
  if (key == OPT_PRIORITY) {
    snprintf(o->priority, sizeof o->priority, "priority=%.20s", arg);
    cli_sets_add(&o->job.sets, o->priority, state);
    return 0;
  }
  if (key != 'f')
    return cli_job_args_parse(key, arg, state, &o->job);
  o->follow = true;
  return 0;
}

static volatile bool interrupted;

static void on_interrupt(int signum) { interrupted = true; }

int cli_follow_job(cli_link *link, uint64_t number, const cli_common *common) {
  bl_error err = BL_ERROR_INIT;
  json_t *job = NULL;
  cli_follow_end end;
  signal(SIGINT, on_interrupt);
  if (cli_follow(link, number, &(cli_follow_options){.quiet = common->json, .stop = &interrupted}, &job, &end, &err) != BL_OK)
    return cli_fail(&err);
  int code = BL_EXIT_OK;
  if (end == CLI_FOLLOW_DETACHED) {
    fprintf(stderr, "detached: job %llu goes on; 'ballast wait %llu' follows it again, 'ballast cancel %llu' stops it\n",
            (unsigned long long)number, (unsigned long long)number, (unsigned long long)number);
  } else {
    code = cli_job_exit_code(job);
    if (common->json)
      cli_print_json(job);
    else
      cli_print_result(job);
  }
  json_decref(job);
  return code;
}

int cli_submit(int argc, char **argv) {
  static submit_options o;
  cli_parse(argc, argv, options, parse, "JOB.yaml",
            "Checks a job file, hands it to the cluster and prints the job's number.", &o, &o.common);
  bl_job_spec *spec = NULL;
  if (cli_job_file_read(&o.job, &spec) != BL_OK)
    return BL_EXIT_USAGE;
  bl_buf text = BL_BUF_INIT;
  bl_job_spec_dump(spec, &text);
  bl_job_spec_free(spec);
  bl_error err = BL_ERROR_INIT;
  cli_link *link = NULL;
  uint64_t job = 0;
  int code = BL_EXIT_OK;
  if (cli_link_open(o.common.cluster, &link, &err) != BL_OK ||
      cli_link_submit(link, bl_buf_str(&text), o.job.file, &job, &err, NULL) != BL_OK) {
    code = cli_fail(&err);
  } else {
    if (o.common.json && !o.follow)
      printf("{\"job\":%llu}\n", (unsigned long long)job);
    else if (!o.common.json)
      printf("job %llu\n", (unsigned long long)job);
    fflush(stdout);
    if (o.follow)
      code = cli_follow_job(link, job, &o.common);
  }
  bl_buf_fini(&text);
  cli_link_close(link);
  return code;
}

typedef struct job_options {
  cli_common common;
  uint64_t job;
} job_options;

static error_t parse_job(int key, char *arg, struct argp_state *state) {
  job_options *o = state->input;
  switch (key) {
  case ARGP_KEY_ARG:
    if (o->job != 0)
      argp_error(state, "one job at a time, '%s' is too many", arg);
    o->job = cli_job_number(arg, state);
    return 0;
  case ARGP_KEY_END:
    if (o->job == 0)
      argp_error(state, "which job? 'ballast jobs' lists them");
    return 0;
  default:
    return ARGP_ERR_UNKNOWN;
  }
}

int cli_wait(int argc, char **argv) {
  static job_options o;
  cli_parse(argc, argv, NULL, parse_job, "JOB", "Shows a job's progress until it has ended; exits 0 when it is done.", &o,
            &o.common);
  bl_error err = BL_ERROR_INIT;
  cli_link *link = NULL;
  if (cli_link_open(o.common.cluster, &link, &err) != BL_OK)
    return cli_fail(&err);
  int code = cli_follow_job(link, o.job, &o.common);
  cli_link_close(link);
  return code;
}

int cli_cancel(int argc, char **argv) {
  static job_options o;
  cli_parse(argc, argv, NULL, parse_job, "JOB", "Stops a job and frees what it holds.", &o, &o.common);
  bl_error err = BL_ERROR_INIT;
  cli_link *link = NULL;
  int code = BL_EXIT_OK;
  if (cli_link_open(o.common.cluster, &link, &err) != BL_OK || cli_link_cancel(link, o.job, &err) != BL_OK)
    code = cli_fail(&err);
  else if (o.common.json)
    printf("{\"job\":%llu,\"state\":\"cancelled\"}\n", (unsigned long long)o.job);
  else
    printf("job %llu cancelled\n", (unsigned long long)o.job);
  cli_link_close(link);
  return code;
}

typedef struct priority_options {
  cli_common common;
  uint64_t job;
  int64_t priority;
  bool has_priority;
} priority_options;

static error_t parse_priority(int key, char *arg, struct argp_state *state) {
  priority_options *o = state->input;
  switch (key) {
  case ARGP_KEY_ARG:
    if (o->has_priority)
      argp_error(state, "a job and a priority, '%s' is too many", arg);
    if (o->job == 0) {
      o->job = cli_job_number(arg, state);
    } else {
      arg += arg[0] == ' ';
      if (bl_str_to_i64(arg, &o->priority) != BL_OK || o->priority < -BL_JOB_PRIORITY_MAX ||
          o->priority > BL_JOB_PRIORITY_MAX)
        argp_error(state, "'%s' is no priority: a whole number from -%d to %d", arg, BL_JOB_PRIORITY_MAX,
                   BL_JOB_PRIORITY_MAX);
      o->has_priority = true;
    }
    return 0;
  case ARGP_KEY_END:
    if (!o->has_priority)
      argp_error(state, "which job, and which priority?");
    return 0;
  default:
    return ARGP_ERR_UNKNOWN;
  }
}

int cli_priority(int argc, char **argv) {
  static priority_options o;
  static char words[8][24];
  for (int i = 1; i < argc && i < 8; i++) /* "-5" is a number here, not an option */
    if (argv[i][0] == '-' && argv[i][1] >= '0' && argv[i][1] <= '9') {
      snprintf(words[i], sizeof words[i], " %s", argv[i]);
      argv[i] = words[i];
    }
  cli_parse(argc, argv, NULL, parse_priority, "JOB N",
            "Gives a job that is still queued another priority, from -100 to 100: higher goes first.", &o, &o.common);
  bl_error err = BL_ERROR_INIT;
  cli_link *link = NULL;
  int code = BL_EXIT_OK;
  if (cli_link_open(o.common.cluster, &link, &err) != BL_OK ||
      cli_link_set_priority(link, o.job, (int32_t)o.priority, &err) != BL_OK)
    code = cli_fail(&err);
  else if (o.common.json)
    printf("{\"job\":%llu,\"priority\":%d}\n", (unsigned long long)o.job, (int)o.priority);
  else
    printf("job %llu has priority %d\n", (unsigned long long)o.job, (int)o.priority);
  cli_link_close(link);
  return code;
}
