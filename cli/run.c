/* SPDX-License-Identifier: Apache-2.0
 *
 * ballast run: a whole cluster in child processes of this machine, one job, and the result.
 */
#include "base/alloc.h"
#include "base/file.h"
#include "base/str.h"
#include "cli/children.h"
#include "cli/cli.h"
#include "cli/follow.h"
#include "cli/job_file.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NODES_MAX 64

enum { OPT_SERVERS = 256, OPT_WORKERS, OPT_CLUSTER_SET, OPT_KEEP };

typedef struct run_options {
  cli_common common;
  cli_job_args job;
  cli_sets cluster_sets;
  unsigned servers, workers;
  const char *keep_dir;
} run_options;

static const struct argp_option options[] = {
    {"servers", OPT_SERVERS, "N", 0, "number of servers (default 1)", 0},
    {"workers", OPT_WORKERS, "N", 0, "number of workers (default: the job's ranks, at most 8)", 0},
    CLI_JOB_SET_OPTION,
    {"cluster-set", OPT_CLUSTER_SET, "A.B=VALUE", 0, "override one field of the cluster file of all daemons", 0},
    {"keep", OPT_KEEP, "DIR", 0, "keep state and logs of the daemons in DIR", 0},
    {NULL, 0, NULL, 0, NULL, 0},
};

static unsigned parse_count(const char *option, const char *arg, struct argp_state *state) {
  uint64_t n;
  if (bl_str_to_u64(arg, &n) != BL_OK || n < 1 || n > NODES_MAX)
    argp_error(state, "%s '%s': a number from 1 to %d", option, arg, NODES_MAX);
  return (unsigned)n;
}

static error_t parse(int key, char *arg, struct argp_state *state) {
  run_options *o = state->input;
  switch (key) {
  case OPT_SERVERS:
    o->servers = parse_count("--servers", arg, state);
    return 0;
  case OPT_WORKERS:
    o->workers = parse_count("--workers", arg, state);
    return 0;
  case OPT_CLUSTER_SET:
    cli_sets_add(&o->cluster_sets, arg, state);
    return 0;
  case OPT_KEEP:
    o->keep_dir = arg;
    return 0;
  default:
    return cli_job_args_parse(key, arg, state, &o->job);
  }
}

static volatile bool interrupted;

static void on_interrupt(int signum) { interrupted = true; }

static void catch_interrupts(void) {
  struct sigaction action = {.sa_handler = on_interrupt, .sa_flags = SA_RESETHAND};
  sigaction(SIGINT, &action, NULL);
  sigaction(SIGTERM, &action, NULL);
}

static bl_status make_dir(const run_options *o, char *out, size_t size, bl_error *err) {
  if (o->keep_dir != NULL) {
    char *path;
    bl_status status = bl_path_resolve(NULL, o->keep_dir, &path, err);
    if (status == BL_OK) {
      bl_str_copy(out, size, path);
      bl_free(path);
      status = bl_file_make_dirs(out, 0700, err);
    }
    return status;
  }
  const char *tmp = getenv("TMPDIR");
  snprintf(out, size, "%s/ballast-run-XXXXXX", tmp != NULL && tmp[0] == '/' ? tmp : "/tmp");
  return mkdtemp(out) != NULL ? BL_OK : bl_fail_errno(err, "cannot make a folder like %s", out);
}

/* Submits and follows; on an interrupt cancels the job and waits for its end. */
static bl_status submit_and_follow(const run_options *o, cli_link *link, const bl_job_spec *spec, json_t **ret_job,
                                   bl_error *err) {
  bl_buf text = BL_BUF_INIT;
  bl_job_spec_dump(spec, &text);
  uint64_t job;
  bl_status status = cli_link_submit(link, bl_buf_str(&text), o->job.file, &job, err, NULL);
  bl_buf_fini(&text);
  if (status != BL_OK)
    return status;
  cli_follow_end end;
  status = cli_follow(link, job, &(cli_follow_options){.stop = &interrupted}, ret_job, &end, err);
  if (status == BL_OK && end == CLI_FOLLOW_DETACHED) {
    fputs("interrupted: cancelling the job\n", stderr);
    json_decref(*ret_job);
    status = cli_link_cancel(link, job, err);
    if (status == BL_OK)
      status = cli_follow(link, job, &(cli_follow_options){.quiet = true}, ret_job, &end, err);
  }
  return status;
}

/* The same fields for a job that ended without a result: what it has, and null for the rest. */
static void print_no_result(const json_t *job) {
  static const char *const has[] = {"job", "state", "reason"};
  static const char *const lacks[] = {"samples",      "seconds",           "samples_per_second", "train_loss", "test_loss",
                                      "test_accuracy", "bytes_pushed",      "bytes_pulled",       "bytes_pushed_dense",
                                      "bytes_pulled_dense", "weights_xxh3", "output"};
  json_t *o = json_object();
  for (size_t i = 0; i < BL_COUNT_OF(has); i++)
    json_object_set(o, has[i], json_object_get(job, has[i]));
  json_object_set(o, "clocks", json_object_get(job, "clock"));
  json_object_set(o, "epochs", json_object_get(job, "epoch"));
  for (size_t i = 0; i < BL_COUNT_OF(lacks); i++)
    json_object_set_new(o, lacks[i], json_null());
  cli_print_json(o);
  json_decref(o);
}

static void print_run_result(const run_options *o, const json_t *job) {
  const json_t *ended = json_object_get(job, "result");
  if (o->common.json && !json_is_object(ended)) {
    print_no_result(job);
    return;
  }
  if (o->common.json) {
    cli_print_json(ended);
    return;
  }
  cli_print_result(job);
  const char *output = cli_text(json_object_get(job, "result"), "output");
  if (strcmp(cli_text(job, "state"), "done") == 0 && output[0] != '\0')
    printf("next: ballast predict --model %s FILE     apply the model to other data\n"
           "      ballast check %s       what the job costs, before running it\n",
           output, o->job.file);
}

static int run_in(const run_options *o, const bl_job_spec *spec, const char *dir) {
  bl_error err = BL_ERROR_INIT;
  unsigned workers = o->workers != 0 ? o->workers : (spec->ranks < 8 ? spec->ranks : 8);
  const cli_children_options children_options = {.servers = o->servers != 0 ? o->servers : 1,
                                                 .workers = workers,
                                                 .slots_per_worker = (spec->ranks + workers - 1) / workers,
                                                 .dir = dir,
                                                 .set = o->cluster_sets.at,
                                                 .n_set = o->cluster_sets.n};
  cli_children *children = NULL;
  cli_link *link = NULL;
  json_t *job = NULL;
  int code;
  if (cli_children_start(&children_options, &children, &err) != BL_OK ||
      cli_link_open(cli_children_coordinator(children), &link, &err) != BL_OK) {
    code = cli_fail(&err);
    goto out;
  }
  fprintf(stderr, "%s: %u server%s, %u worker%s, %u rank%s; status page %s\n", spec->name, children_options.servers,
          children_options.servers == 1 ? "" : "s", workers, workers == 1 ? "" : "s", spec->ranks,
          spec->ranks == 1 ? "" : "s", cli_children_status_url(children));
  bl_status status = submit_and_follow(o, link, spec, &job, &err);
  char dead[1024];
  if (status != BL_OK && cli_children_dead(children, dead, sizeof dead))
    fprintf(stderr, "ballast: %s\n", dead);
  if (status != BL_OK) {
    code = cli_fail(&err);
    goto out;
  }
  print_run_result(o, job);
  code = cli_job_exit_code(job);
out:
  json_decref(job);
  cli_link_close(link);
  cli_children_stop(children);
  return code;
}

int cli_run(int argc, char **argv) {
  static run_options o = {.common.local = true};
  cli_parse(argc, argv, options, parse, "JOB.yaml",
            "Trains a job on a private cluster: coordinator, servers and workers as child processes of this machine, on "
            "free ports, gone at the end. With --json the last line of standard output is one JSON object with the result.",
            &o, &o.common);
  bl_job_spec *spec = NULL;
  if (cli_job_file_read(&o.job, &spec) != BL_OK)
    return BL_EXIT_USAGE;
  bl_error err = BL_ERROR_INIT;
  char dir[512];
  int code;
  catch_interrupts();
  if (make_dir(&o, dir, sizeof dir, &err) != BL_OK) {
    code = cli_fail(&err);
  } else {
    code = run_in(&o, spec, dir);
    if (o.keep_dir == NULL && bl_file_remove_tree(dir, &err) != BL_OK)
      (void)cli_fail(&err);
  }
  bl_job_spec_free(spec);
  return code;
}
