/* SPDX-License-Identifier: Apache-2.0
 *
 * ballast status and logs: what the coordinator knows, as tables for people or as its JSON.
 */
#include "base/clock.h"
#include "base/num.h"
#include "base/str.h"
#include "cli/cli.h"
#include "cli/follow.h"

#include <stdio.h>
#include <string.h>

typedef struct show_options {
  cli_common common;
  uint64_t job;
  bool follow;
} show_options;

static error_t parse_optional_job(int key, char *arg, struct argp_state *state) {
  show_options *o = state->input;
  switch (key) {
  case 'f':
    o->follow = true;
    return 0;
  case ARGP_KEY_ARG:
    if (o->job != 0)
      argp_error(state, "one job at a time, '%s' is too many", arg);
    o->job = cli_job_number(arg, state);
    return 0;
  default:
    return ARGP_ERR_UNKNOWN;
  }
}

/* Opens the link, asks once; NULL (after printing) on failure. */
static json_t *query_once(const cli_common *common, const char *what, uint64_t job, int *ret_code) {
  bl_error err = BL_ERROR_INIT;
  cli_link *link = NULL;
  json_t *value = NULL;
  if (cli_link_open(common->cluster, &link, &err) != BL_OK ||
      cli_link_query(link, what, job, 0, &value, &err) != BL_OK)
    *ret_code = cli_fail(&err);
  cli_link_close(link);
  return value;
}

static void print_node(const json_t *node) {
  char used[32], total[32];
  printf("  %-12s %-11s %-8s", cli_text(node, "name"), cli_text(node, "role"), cli_text(node, "state"));
  if (strcmp(cli_text(node, "role"), "server") == 0)
    printf(" %zu shard(s), %s of %s", json_array_size(json_object_get(node, "shards")),
           bl_str_bytes(cli_integer(node, "memory_used_bytes"), used, sizeof used),
           bl_str_bytes(cli_integer(node, "memory_bytes"), total, sizeof total));
  else
    printf(" %llu of %llu slots in use", (unsigned long long)cli_integer(node, "slots_used"),
           (unsigned long long)cli_integer(node, "slots"));
  putchar('\n');
}

int cli_status(int argc, char **argv) {
  static show_options o;
  cli_parse(argc, argv, NULL, parse_optional_job, "[JOB]", "Shows nodes and jobs of the cluster, or one job.", &o,
            &o.common);
  int code = BL_EXIT_OK;
  json_t *value = query_once(&o.common, o.job != 0 ? "job" : "status", o.job, &code);
  if (value == NULL)
    return code;
  if (o.common.json) {
    cli_print_json(value);
  } else if (o.job != 0) {
    cli_print_job(value);
  } else {
    size_t i;
    json_t *node;
    puts("nodes");
    json_array_foreach(json_object_get(value, "nodes"), i, node) print_node(node);
    puts("jobs");
    cli_print_jobs(json_object_get(value, "jobs"));
  }
  json_decref(value);
  return BL_EXIT_OK;
}

static const struct argp_option log_options[] = {
    {"follow", 'f', NULL, 0, "go on until the job has ended", 0},
    {NULL, 0, NULL, 0, NULL, 0},
};

static error_t parse_log(int key, char *arg, struct argp_state *state) {
  if (key == ARGP_KEY_END && ((show_options *)state->input)->job == 0)
    argp_error(state, "which job? 'ballast jobs' lists them");
  return parse_optional_job(key, arg, state);
}

/* "rank 3", or "" for what the coordinator itself says. */
static const char *log_source(const json_t *line) {
  static char text[24];
  snprintf(text, sizeof text, "rank %llu", (unsigned long long)cli_integer(line, "rank"));
  return cli_has(line, "rank") ? text : "";
}

/* Prints lines behind *since and moves it on. */
static void print_log_lines(const json_t *lines, bool as_json, uint64_t *since) {
  size_t i;
  json_t *line;
  json_array_foreach(lines, i, line) {
    *since = BL_MAX(*since, cli_integer(line, "number"));
    if (as_json)
      cli_print_json(line);
    else
      printf("%s  %-7s %s\n", cli_text(line, "time"), log_source(line), cli_text(line, "text"));
  }
  fflush(stdout);
}

int cli_logs(int argc, char **argv) {
  static show_options o;
  cli_parse(argc, argv, log_options, parse_log, "JOB", "Shows what a job's tasks have said.", &o, &o.common);
  bl_error err = BL_ERROR_INIT;
  cli_link *link = NULL;
  if (cli_link_open(o.common.cluster, &link, &err) != BL_OK)
    return cli_fail(&err);
  int code = BL_EXIT_OK;
  uint64_t since = 0;
  for (bool ended = !o.follow;;) {
    json_t *logs = NULL, *job = NULL;
    if (cli_link_query(link, "logs", o.job, since, &logs, &err) != BL_OK ||
        (!ended && cli_link_query(link, "job", o.job, 0, &job, &err) != BL_OK)) {
      json_decref(logs);
      code = cli_fail(&err);
      break;
    }
    print_log_lines(json_is_array(logs) ? logs : json_object_get(logs, "lines"), o.common.json, &since);
    json_decref(logs);
    if (ended)
      break;
    ended = cli_job_has_ended(job);
    json_decref(job);
    if (!ended)
      cli_link_pause(link, BL_NS_PER_S / 2, NULL);
  }
  cli_link_close(link);
  return code;
}
