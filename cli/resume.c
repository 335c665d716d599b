/* SPDX-License-Identifier: Apache-2.0
 *
 * ballast resume: a job that was cancelled, has failed or is done is submitted again, to go on from what its output
 * folder holds.
 */
#include "base/alloc.h"
#include "base/file.h"
#include "base/num.h"
#include "base/str.h"
#include "cli/cli.h"
#include "cli/follow.h"
#include "cli/job_file.h"

#include <stdio.h>
#include <string.h>

#define RESUME_SETS 3 /* of our own */
#define PATH_BYTES_MAX 4096

typedef struct resume_options {
  cli_common common;
  const char *what;   /* number of a job, or folder */
  const char *epochs;
  cli_sets sets;
  bool follow;
} resume_options;

static const struct argp_option options[] = {
    CLI_JOB_SET_OPTION,
    {"epochs", 'e', "N", 0, "epochs in all, those that are done included (default: as before)", 0},
    {"follow", 'f', NULL, 0, "show progress until the job ends; Ctrl-C detaches, the job goes on", 0},
    {NULL, 0, NULL, 0, NULL, 0},
};

static error_t parse(int key, char *arg, struct argp_state *state) {
  resume_options *o = state->input;
  switch (key) {
  case 's':
    cli_sets_add(&o->sets, arg, state);
    return 0;
  case 'e':
    o->epochs = arg;
    return 0;
  case 'f':
    o->follow = true;
    return 0;
  case ARGP_KEY_ARG:
    if (o->what != NULL)
      argp_error(state, "one job or folder at a time, '%s' is too many", arg);
    o->what = arg;
    return 0;
  case ARGP_KEY_END:
    if (o->what == NULL)
      argp_error(state, "which job, or which output folder?");
    return 0;
  default:
    return ARGP_ERR_UNKNOWN;
  }
}

/* The text of a job that has ended, and its output folder. *ret_text: bl_free. */
static bl_status text_of_job(cli_link *link, uint64_t number, char **ret_text, bl_error *err) {
  json_t *job = NULL;
  bl_status status = cli_link_query(link, "job", number, 0, &job, err);
  if (status != BL_OK)
    return status;
  if (!cli_job_has_ended(job))
    status = bl_fail(err, BL_ESTATE, "job %llu is %s; 'ballast cancel %llu' ends it", (unsigned long long)number,
                     cli_text(job, "state"), (unsigned long long)number);
  else if ((*ret_text = bl_strdup(cli_text(job, "text"))) == NULL)
    status = bl_fail(err, BL_ENOMEM, "no memory");
  json_decref(job);
  return status;
}

static bl_status text_of_folder(const char *folder, char **ret_text, bl_error *err) {
  char path[PATH_BYTES_MAX + 16];
  bl_buf text = BL_BUF_INIT;
  snprintf(path, sizeof path, "%s/job.yaml", folder);
  bl_status status = bl_file_read(path, (size_t)1 << 20, &text, err);
  if (status == BL_OK && (*ret_text = bl_strdup(bl_buf_str(&text))) == NULL)
    status = bl_fail(err, BL_ENOMEM, "no memory");
  bl_buf_fini(&text);
  return status;
}

/* The folder that is gone on from: that of the job, or the one that was named. */
static bl_status folder_of(const char *text, const char *named, char *out, size_t size, bl_error *err) {
  bl_job_spec *spec = NULL;
  static bl_conf_errors errors;
  bl_status status = BL_OK;
  if (named != NULL) {
    char *path = NULL;
    status = bl_path_resolve(NULL, named, &path, err);
    if (status == BL_OK)
      bl_str_copy(out, size, path);
    bl_free(path);
    return status;
  }
  status = bl_job_spec_parse(text, strlen(text), "job", "/", NULL, 0, &spec, &errors);
  if (status != BL_OK)
    return bl_fail(err, status, "the job's file is not understood: %s", errors.n > 0 ? errors.at[0].text : bl_status_name(status));
  if (spec->output == NULL)
    status = bl_fail(err, BL_EINVAL, "the job had no output folder, so there is nothing to go on from");
  else
    bl_str_copy(out, size, spec->output);
  bl_job_spec_free(spec);
  return status;
}

/* The job again, from the folder. */
static bl_status make_job(const resume_options *o, const char *text, const char *folder, bool moved, bl_buf *out, bl_error *err) {
  static bl_conf_errors errors;
  static char init[PATH_BYTES_MAX + 64], output[PATH_BYTES_MAX + 16], epochs[64];
  const char *set[CLI_SET_MAX + RESUME_SETS];
  size_t n = 0;
  bl_job_spec *spec = NULL;
  snprintf(init, sizeof init, "init_from={path: \"%s\", resume: true}", folder);
  snprintf(output, sizeof output, "output=\"%s\"", folder);
  snprintf(epochs, sizeof epochs, "epochs=%.40s", o->epochs != NULL ? o->epochs : "");
  set[n++] = init;
  if (moved)
    set[n++] = output;
  if (o->epochs != NULL)
    set[n++] = epochs;
  for (size_t i = 0; i < o->sets.n; i++)
    set[n++] = o->sets.at[i];
  bl_status status = bl_job_spec_parse(text, strlen(text), "job.yaml", "/", set, n, &spec, &errors);
  if (status != BL_OK)
    return bl_fail(err, status, "%s", errors.n > 0 ? errors.at[0].text : bl_status_name(status));
  bl_job_spec_dump(spec, out);
  bl_job_spec_free(spec);
  return out->failed ? bl_fail(err, BL_ENOMEM, "no memory") : BL_OK;
}

static bl_status submit(const resume_options *o, cli_link *link, uint64_t *ret_job, char *folder, size_t size, bl_error *err) {
  uint64_t number = 0;
  char *text = NULL;
  bl_buf job = BL_BUF_INIT;
  bool is_job = bl_str_to_u64(o->what, &number) == BL_OK;
  bl_status status = is_job ? text_of_job(link, number, &text, err) : text_of_folder(o->what, &text, err);
  if (status == BL_OK)
    status = folder_of(text, is_job ? NULL : o->what, folder, size, err);
  if (status == BL_OK)
    status = make_job(o, text, folder, !is_job, &job, err);
  if (status == BL_OK)
    status = cli_link_submit(link, bl_buf_str(&job), folder, ret_job, err, NULL);
  bl_buf_fini(&job);
  bl_free(text);
  return status;
}

int cli_resume(int argc, char **argv) {
  static resume_options o;
  static char folder[PATH_BYTES_MAX];
  cli_parse(argc, argv, options, parse, "JOB|FOLDER",
            "Submits a job again that was cancelled, has failed or is done, to go on from what its output folder holds: weights, "
            "epochs, order of the samples and schedule go on; what the optimizer had accumulated starts at zero.",
            &o, &o.common);
  bl_error err = BL_ERROR_INIT;
  cli_link *link = NULL;
  uint64_t job = 0;
  int code = BL_EXIT_OK;
  if (cli_link_open(o.common.cluster, &link, &err) != BL_OK || submit(&o, link, &job, folder, sizeof folder, &err) != BL_OK) {
    code = cli_fail(&err);
  } else {
    if (o.common.json && !o.follow)
      printf("{\"job\":%llu}\n", (unsigned long long)job);
    else if (!o.common.json)
      printf("job %llu goes on from %s; the optimizer's moments start at zero\n", (unsigned long long)job, folder);
    fflush(stdout);
    if (o.follow)
      code = cli_follow_job(link, job, &o.common);
  }
  cli_link_close(link);
  return code;
}
