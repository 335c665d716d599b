/* SPDX-License-Identifier: Apache-2.0
 *
 * ballast jobs: lists and searches jobs, present and past, and shows one. Long lists come in pages.
 */
#include "base/clock.h"
#include "base/num.h"
#include "base/str.h"
#include "cli/cli.h"
#include "cli/follow.h"

#include <stdio.h>
#include <string.h>

#define PAGE_JOBS 1000u
#define ENDED_SHOWN 20u /* without any option */

typedef struct jobs_options {
  cli_common common;
  uint64_t job;
  cli_search search;
  uint64_t limit; /* 0: none */
  bool all, searches;
} jobs_options;

enum { OPT_ALL = 600, OPT_STATE, OPT_NAME, OPT_USER, OPT_SINCE, OPT_LIMIT };

static const struct argp_option options[] = {
    {"all", OPT_ALL, NULL, 0, "every job that is remembered, not only the present and the last 20 that ended", 0},
    {"state", OPT_STATE, "S", 0,
     "jobs in this state (queued, starting, running, recovering, finishing, done, failed, cancelled; active and ended stand "
     "for several; commas between)",
     0},
    {"name", OPT_NAME, "PATTERN", 0, "jobs whose name fits: * any text, ? any character", 0},
    {"user", OPT_USER, "U", 0, "jobs that this user submitted", 0},
    {"since", OPT_SINCE, "TIME", 0, "jobs submitted in the last TIME, such as 2d, 12h, 30min", 0},
    {"limit", OPT_LIMIT, "N", 0, "at most the newest N of them", 0},
    {NULL, 0, NULL, 0, NULL, 0},
};

static void parse_since(jobs_options *o, const char *arg, struct argp_state *state) {
  uint64_t age_ns = 0, now_ns = bl_clock_wall_ns();
  if (bl_str_to_ns(arg, &age_ns) != BL_OK)
    argp_error(state, "'%s' is no time: write a number and ms, s, min, h or d, such as 2d", arg);
  o->search.submitted_ns = age_ns < now_ns ? now_ns - age_ns : 0;
}

static error_t parse(int key, char *arg, struct argp_state *state) {
  jobs_options *o = state->input;
  o->searches |= key >= OPT_STATE && key <= OPT_LIMIT;
  switch (key) {
  case OPT_ALL:
    o->all = true;
    return 0;
  case OPT_STATE:
    o->search.state = arg;
    return 0;
  case OPT_NAME:
    o->search.name = arg;
    return 0;
  case OPT_USER:
    o->search.submitter = arg;
    return 0;
  case OPT_SINCE:
    parse_since(o, arg, state);
    return 0;
  case OPT_LIMIT:
    if (bl_str_to_u64(arg, &o->limit) != BL_OK || o->limit == 0)
      argp_error(state, "'%s' is no number of jobs", arg);
    return 0;
  case ARGP_KEY_ARG:
    if (o->job != 0)
      argp_error(state, "one job at a time, '%s' is too many", arg);
    o->job = cli_job_number(arg, state);
    return 0;
  case ARGP_KEY_END:
    if (o->job != 0 && (o->searches || o->all))
      argp_error(state, "either a job's number, or options to search by");
    return 0;
  default:
    return ARGP_ERR_UNKNOWN;
  }
}

/* ---- asking ------------------------------------------------------------------------------------------ */

/* Adds to `jobs`, which is by number, what fits and is older than its first: a page, or until there is no more.
 * limit 0: all. */
static bl_status find_all(cli_link *link, cli_search what, uint64_t limit, json_t *jobs, bool *ret_more, bl_error *err) {
  for (uint64_t n = 0;;) {
    what.limit = limit > 0 && limit - n < PAGE_JOBS ? (uint32_t)(limit - n) : PAGE_JOBS;
    json_t *answer = NULL;
    bl_status status = cli_link_find(link, &what, &answer, err);
    if (status != BL_OK)
      return status;
    json_t *page = json_object_get(answer, "jobs");
    size_t got = json_array_size(page);
    for (size_t i = got; i-- > 0;)
      json_array_insert(jobs, 0, json_array_get(page, i));
    what.before = got > 0 ? cli_integer(json_array_get(page, 0), "job") : 0;
    *ret_more = json_is_true(json_object_get(answer, "more"));
    json_decref(answer);
    n += got;
    if (!*ret_more || got == 0 || n == limit)
      return BL_OK;
  }
}

/* The present jobs among the last that ended, by number. */
static bl_status find_present(cli_link *link, json_t *jobs, bool *ret_more, bl_error *err) {
  json_t *present = json_array();
  bool more = false;
  bl_status status = find_all(link, (cli_search){.state = "ended"}, ENDED_SHOWN, jobs, ret_more, err);
  if (status == BL_OK)
    status = find_all(link, (cli_search){.state = "queued,active"}, 0, present, &more, err);
  for (size_t i = 0, at = 0; status == BL_OK && i < json_array_size(present); i++) {
    json_t *job = json_array_get(present, i);
    uint64_t number = cli_integer(job, "job");
    while (at < json_array_size(jobs) && cli_integer(json_array_get(jobs, at), "job") < number)
      at++;
    /* A job may have ended between the two questions. */
    if (at == json_array_size(jobs) || cli_integer(json_array_get(jobs, at), "job") != number)
      json_array_insert(jobs, at, job);
  }
  json_decref(present);
  return status;
}

/* ---- showing ----------------------------------------------------------------------------------------- */

static void print_job_line(const json_t *job) {
  char progress[32] = "";
  uint64_t clocks = cli_integer(job, "clocks");
  if (clocks > 0)
    snprintf(progress, sizeof progress, "%3.0f %%", 100.0 * (double)BL_MIN(cli_integer(job, "clock"), clocks) / (double)clocks);
  const char *why = cli_text(job, "reason")[0] != '\0' ? cli_text(job, "reason") : cli_text(job, "waits_for");
  printf("%4llu  %-20s %-10s %4.0f  %-10s %6s  %s\n", (unsigned long long)cli_integer(job, "job"), cli_text(job, "name"),
         cli_text(job, "submitter"), cli_number(job, "priority", 0), cli_text(job, "state"), progress, why);
}

void cli_print_jobs(const json_t *jobs) {
  if (json_array_size(jobs) == 0) {
    puts("no jobs");
    return;
  }
  printf("%4s  %-20s %-10s %4s  %-10s %6s  %s\n", "JOB", "NAME", "USER", "PRIO", "STATE", "DONE", "");
  size_t i;
  json_t *job;
  json_array_foreach(jobs, i, job) print_job_line(job);
}

/* "int8 (3.9 x)": what it travels as, and how many times fewer bytes that are than float32. */
static const char *travels_as(const json_t *tensor, const char *codec_key, const char *factor_key, char *out, size_t size) {
  const char *codec = cli_text(tensor, codec_key);
  if (cli_has(tensor, factor_key))
    snprintf(out, size, "%s (%.3g x)", codec, cli_number(tensor, factor_key, 0));
  else
    snprintf(out, size, "%s", codec);
  return out;
}

static void print_tensor(const json_t *tensor) {
  char name[160], push[200], pull[200];
  if (cli_text(tensor, "name")[0] != '\0')
    snprintf(name, sizeof name, "%s", cli_text(tensor, "name"));
  else
    snprintf(name, sizeof name, "%llu others", (unsigned long long)cli_integer(tensor, "tensors"));
  printf("      %-24s pushed as %s, pulled as %s", name, travels_as(tensor, "push", "push_factor", push, sizeof push),
         travels_as(tensor, "pull", "pull_factor", pull, sizeof pull));
  if (cli_number(tensor, "residual_norm", 0) > 0 && cli_has(tensor, "residual_ratio"))
    printf(", residual %.2g of the gradient", cli_number(tensor, "residual_ratio", 0));
  if (cli_integer(tensor, "residuals_lost") > 0)
    printf(", %llu residuals lost (norm %.3g)", (unsigned long long)cli_integer(tensor, "residuals_lost"),
           cli_number(tensor, "lost_norm", 0));
  putchar('\n');
  if (cli_text(tensor, "reason")[0] != '\0')
    printf("        %s\n", cli_text(tensor, "reason"));
}

/* Nothing to tell of a job whose tensors all travel as they are. */
static void print_tensors(const json_t *tensors) {
  size_t i;
  json_t *tensor;
  bool any = false;
  json_array_foreach(tensors, i, tensor) any |= strcmp(cli_text(tensor, "push"), "float32") != 0 ||
                                               strcmp(cli_text(tensor, "pull"), "float32") != 0 ||
                                               cli_text(tensor, "reason")[0] != '\0';
  if (any)
    json_array_foreach(tensors, i, tensor) print_tensor(tensor);
}

void cli_print_job(const json_t *job) {
  print_job_line(job);
  static const char *const times[] = {"submitted", "started", "running", "finished"};
  for (size_t i = 0; i < BL_COUNT_OF(times); i++)
    if (cli_has(job, times[i]))
      printf("      %-9s %s\n", times[i], cli_text(job, times[i]));
  size_t i;
  json_t *task;
  json_array_foreach(json_object_get(job, "rank_states"), i, task) {
    const char *node = cli_text(task, "node");
    printf("      rank %llu%s%s: %s", (unsigned long long)cli_integer(task, "rank"), node[0] != '\0' ? " on " : "", node,
           cli_text(task, "state"));
    if (strcmp(cli_text(task, "state"), "running") == 0)
      printf(", clock %llu", (unsigned long long)cli_integer(task, "clock"));
    putchar('\n');
  }
  print_tensors(json_object_get(job, "tensors"));
  if (cli_job_has_ended(job))
    cli_print_result(job);
}

static int show_one(const jobs_options *o, cli_link *link) {
  bl_error err = BL_ERROR_INIT;
  json_t *job = NULL;
  if (cli_link_query(link, "job", o->job, 0, &job, &err) != BL_OK)
    return cli_fail(&err);
  if (o->common.json)
    cli_print_json(job);
  else
    cli_print_job(job);
  json_decref(job);
  return BL_EXIT_OK;
}

static int show_list(const jobs_options *o, cli_link *link) {
  bl_error err = BL_ERROR_INIT;
  bool more = false;
  json_t *answer = json_object(), *jobs = json_array();
  json_object_set_new(answer, "jobs", jobs);
  bl_status status = o->all || o->searches ? find_all(link, o->search, o->limit, jobs, &more, &err)
                                           : find_present(link, jobs, &more, &err);
  if (status == BL_OK && o->common.json)
    cli_print_json(answer);
  else if (status == BL_OK)
    cli_print_jobs(jobs);
  json_decref(answer);
  if (status == BL_OK && more && !o->common.json && o->limit == 0)
    fprintf(stderr, "older jobs are left out: 'ballast jobs --all' lists them\n");
  return status == BL_OK ? BL_EXIT_OK : cli_fail(&err);
}

int cli_jobs(int argc, char **argv) {
  static jobs_options o;
  cli_parse(argc, argv, options, parse, "[JOB]",
            "Lists jobs by number, the newest last: the present ones and the last that ended, or what is looked for. "
            "With a number: shows that job.",
            &o, &o.common);
  bl_error err = BL_ERROR_INIT;
  cli_link *link = NULL;
  if (cli_link_open(o.common.cluster, &link, &err) != BL_OK)
    return cli_fail(&err);
  int code = o.job != 0 ? show_one(&o, link) : show_list(&o, link);
  cli_link_close(link);
  return code;
}
