/* SPDX-License-Identifier: Apache-2.0
 *
 * ballast predict: the arithmetic lives in the worker program, which this becomes.
 */
#include "base/alloc.h"
#include "cli/cli.h"

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define FILES_MAX 64

typedef struct predict_options {
  cli_common common;
  const char *model, *out, *kind;
  const char *files[FILES_MAX];
  size_t n_files;
} predict_options;

static const struct argp_option options[] = {
    {"model", 'm', "DIR", 0, "folder of a trained model, as written by a job's 'output'", 0},
    {"kind", 'k', "idx|csv|libsvm|npy", 0, "what the files are (default: as the model's training data)", 0},
    {"out", 'o', "FILE", 0, "write there instead of to standard output", 0},
    {NULL, 0, NULL, 0, NULL, 0},
};

static error_t parse(int key, char *arg, struct argp_state *state) {
  predict_options *o = state->input;
  switch (key) {
  case 'm':
    o->model = arg;
    return 0;
  case 'k':
    o->kind = arg;
    return 0;
  case 'o':
    o->out = arg;
    return 0;
  case ARGP_KEY_ARG:
    if (o->n_files == FILES_MAX)
      argp_error(state, "more than %d files", FILES_MAX);
    o->files[o->n_files++] = arg;
    return 0;
  case ARGP_KEY_END:
    if (o->model == NULL)
      argp_error(state, "which model? --model DIR");
    if (o->n_files == 0)
      argp_error(state, "which file?");
    return 0;
  default:
    return ARGP_ERR_UNKNOWN;
  }
}

int cli_predict(int argc, char **argv) {
  static predict_options o = {.common.local = true};
  cli_parse(argc, argv, options, parse, "FILE...",
            "Applies a trained model to data files of the kind it was trained on and writes one prediction per sample, as "
            "CSV, or as JSON lines with --json.",
            &o, &o.common);
  char *program = cli_program_path("ballast-worker");
  if (program == NULL)
    return cli_fail_text(BL_ENOMEM, "no memory");
  const char *args[FILES_MAX + 12];
  size_t n = 0;
  args[n++] = program;
  args[n++] = "--predict";
  args[n++] = "--model";
  args[n++] = o.model;
  args[n++] = "--format";
  args[n++] = o.common.json ? "json" : "csv";
  if (o.kind != NULL) {
    args[n++] = "--kind";
    args[n++] = o.kind;
  }
  if (o.out != NULL) {
    args[n++] = "--out";
    args[n++] = o.out;
  }
  for (size_t i = 0; i < o.n_files; i++)
    args[n++] = o.files[i];
  args[n] = NULL;
  signal(SIGPIPE, SIG_DFL); /* `ballast predict ... | head` ends quietly */
  char **exec_argv = (char **)(uintptr_t)args; /* execvp does not change them */
  execvp(program, exec_argv);
  int code = cli_fail_text(BL_EIO, "cannot start %s: %s", program, strerror(errno));
  bl_free(program);
  return code;
}
