/* SPDX-License-Identifier: Apache-2.0
 *
 * Small things that subcommands share: common options, errors, JSON access.
 */
#include "cli/cli.h"

#include "base/alloc.h"
#include "base/file.h"
#include "base/str.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OPT_CLUSTER = 500, OPT_JSON };

static const struct argp_option common_options[] = {
    {"cluster", OPT_CLUSTER, "FILE|ADDRESS", 0, "cluster file, or the coordinator's address (tcp://host:port)", 10},
    {"json", OPT_JSON, NULL, 0, "print the result as JSON", 10},
    {NULL, 0, NULL, 0, NULL, 0},
};

static error_t parse_common(int key, char *arg, struct argp_state *state) {
  cli_common *common = state->input;
  switch (key) {
  case OPT_CLUSTER:
    common->cluster = arg;
    return 0;
  case OPT_JSON:
    common->json = true;
    return 0;
  default:
    return ARGP_ERR_UNKNOWN;
  }
}

static const struct argp common_argp = {.options = common_options, .parser = parse_common};
static const struct argp local_argp = {.options = common_options + 1, .parser = parse_common};

typedef struct wrap {
  argp_parser_t parser;
  void *input;
  cli_common *common;
} wrap;

/* Gives the child parser its input, and the subcommand's parser its own state. */
static error_t parse_wrapped(int key, char *arg, struct argp_state *state) {
  wrap *w = state->input;
  if (key == ARGP_KEY_INIT)
    state->child_inputs[0] = w->common;
  state->input = w->input;
  error_t e = w->parser != NULL ? w->parser(key, arg, state) : ARGP_ERR_UNKNOWN;
  state->input = w;
  if (e == ARGP_ERR_UNKNOWN && key == ARGP_KEY_ARG)
    argp_error(state, "unexpected argument '%s'", arg);
  return e;
}

void cli_parse(int argc, char **argv, const struct argp_option *options, argp_parser_t parser, const char *args_doc,
               const char *doc, void *input, cli_common *common) {
  const struct argp_child children[] = {{common->local ? &local_argp : &common_argp, 0, NULL, 0}, {NULL, 0, NULL, 0}};
  const struct argp argp = {options, parse_wrapped, args_doc, doc, children, NULL, NULL};
  wrap w = {parser, input, common};
  argp_err_exit_status = BL_EXIT_USAGE;
  argp_parse(&argp, argc, argv, 0, NULL, &w);
}

static int exit_code_of(bl_status status) {
  switch (status) {
  case BL_OK:
    return BL_EXIT_OK;
  case BL_EUNREACHABLE:
  case BL_ETIMEOUT:
    return BL_EXIT_UNREACHABLE;
  default:
    return BL_EXIT_FAILED;
  }
}

int cli_fail(const bl_error *err) {
  fprintf(stderr, "ballast: %s\n", err->text);
  return exit_code_of(err->status);
}

int cli_fail_text(bl_status status, const char *fmt, ...) {
  va_list args;
  va_start(args, fmt);
  fputs("ballast: ", stderr);
  vfprintf(stderr, fmt, args);
  fputc('\n', stderr);
  va_end(args);
  return exit_code_of(status);
}

void cli_print_json(const json_t *value) {
  json_dumpf(value, stdout, JSON_COMPACT | JSON_REAL_PRECISION(9));
  fputc('\n', stdout);
}

bool cli_has(const json_t *object, const char *key) {
  const json_t *v = json_object_get(object, key);
  return v != NULL && !json_is_null(v);
}

const char *cli_text(const json_t *object, const char *key) {
  const char *text = json_string_value(json_object_get(object, key));
  return text != NULL ? text : "";
}

double cli_number(const json_t *object, const char *key, double otherwise) {
  const json_t *v = json_object_get(object, key);
  return json_is_number(v) ? json_number_value(v) : otherwise;
}

uint64_t cli_integer(const json_t *object, const char *key) {
  json_int_t v = json_integer_value(json_object_get(object, key));
  return v > 0 ? (uint64_t)v : 0;
}

char *cli_program_path(const char *name) {
  char self[PATH_MAX];
  ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
  if (n > 0) {
    self[n] = '\0';
    char *dir = bl_path_dir(self);
    bl_buf path = BL_BUF_INIT;
    bl_buf_printf(&path, "%s/%s", dir != NULL ? dir : ".", name);
    bl_free(dir);
    if (access(bl_buf_str(&path), X_OK) == 0)
      return bl_buf_take_str(&path);
    bl_buf_fini(&path);
  }
  return bl_strdup(name);
}

uint64_t cli_job_number(const char *text, struct argp_state *state) {
  uint64_t job;
  const char *digits = strncmp(text, "job", 3) == 0 ? text + 3 + strspn(text + 3, " -") : text;
  if (bl_str_to_u64(digits, &job) != BL_OK || job == 0)
    argp_error(state, "'%s' is not a job number; 'ballast jobs' lists them", text);
  return job;
}
