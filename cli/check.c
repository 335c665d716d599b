/* SPDX-License-Identifier: Apache-2.0
 *
 * ballast check: all mistakes of a job file at once, and what the job will cost.
 */
#include "base/alloc.h"
#include "base/num.h"
#include "base/str.h"
#include "cli/cli.h"
#include "cli/job_file.h"
#include "codec/spec.h"
#include "job/estimate.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Assumption behind the time estimate, printed with it. */
#define ASSUMED_LINK_BYTES_PER_S (1e9 / 8)

typedef struct check_options {
  cli_common common;
  cli_job_args job;
} check_options;

static const struct argp_option options[] = {CLI_JOB_SET_OPTION, {NULL, 0, NULL, 0, NULL, 0}};

static error_t parse(int key, char *arg, struct argp_state *state) {
  return cli_job_args_parse(key, arg, state, &((check_options *)state->input)->job);
}

/* What opening the data and a few steps on this machine have shown. */
typedef struct measured {
  uint64_t train_samples, validation_samples, test_samples, data_bytes;
  uint64_t rows_per_step; /* of a table */
  double seconds_per_step;
} measured;

/* Starts `ballast-worker --measure`, hands it the job's text, and reads its answer; mistakes in the data have been
 * printed by it. */
static bl_status measure(const bl_job_spec *spec, measured *ret_measured, bl_error *err) {
  char *program = cli_program_path("ballast-worker");
  bl_buf text = BL_BUF_INIT;
  bl_job_spec_dump(spec, &text);
  FILE *job = tmpfile();
  int out[2] = {-1, -1};
  bl_status status = BL_OK;
  if (program == NULL || text.failed || job == NULL || fwrite(text.data, 1, text.size, job) != text.size ||
      fflush(job) != 0 || lseek(fileno(job), 0, SEEK_SET) != 0 || pipe2(out, O_CLOEXEC) != 0) {
    status = bl_fail_errno(err, "cannot prepare ballast-worker --measure");
    goto out;
  }
  pid_t pid = fork();
  if (pid == 0) {
    dup2(fileno(job), STDIN_FILENO);
    dup2(out[1], STDOUT_FILENO);
    execlp(program, program, "--measure", (char *)NULL);
    fprintf(stderr, "ballast: cannot start %s: %s\n", program, strerror(errno));
    _exit(BL_EXIT_FAILED);
  }
  close(out[1]);
  out[1] = -1;
  json_t *o = pid > 0 ? json_loadfd(out[0], 0, NULL) : NULL;
  int code = 0;
  if (pid < 0 || waitpid(pid, &code, 0) != pid || code != 0 || o == NULL)
    status = bl_fail(err, BL_EINVAL, "%s: the data cannot be used as the job says", spec->file);
  else
    *ret_measured = (measured){cli_integer(o, "train_samples"), cli_integer(o, "validation_samples"),
                               cli_integer(o, "test_samples"), cli_integer(o, "data_bytes"),
                               cli_integer(o, "rows_per_step"), cli_number(o, "seconds_per_step", 0)};
  json_decref(o);
out:
  if (out[0] >= 0)
    close(out[0]);
  if (out[1] >= 0)
    close(out[1]);
  if (job != NULL)
    fclose(job);
  bl_buf_fini(&text);
  bl_free(program);
  return status;
}

typedef struct cost {
  uint64_t clocks;
  double compute_s, network_s; /* per clock */
  double total_s;
} cost;

/* A clock takes at least the longer of both, at most their sum; the estimate is the sum. Every rank has its own link. */
static cost cost_of(const bl_job_spec *spec, const bl_job_estimate *e, const measured *m) {
  /* Local data: the other ranks' is not here, and is taken to be as much. */
  uint64_t samples = bl_job_clock_samples(spec), batch = spec->data.where == BL_DATA_LOCAL ? samples / spec->ranks : samples;
  cost c = {.clocks = bl_job_clocks(m->train_samples, batch, spec->epochs),
            .compute_s = m->seconds_per_step * spec->accumulate * BL_MAX(spec->local_steps, 1),
            .network_s = (double)(e->push_bytes_per_clock + e->pull_bytes_per_clock) / spec->ranks / ASSUMED_LINK_BYTES_PER_S};
  c.total_s = (double)c.clocks * (c.compute_s + c.network_s);
  return c;
}

/* A table's part of the traffic and of the workers' memory, as the data has shown. */
static void add_rows(const bl_job_spec *spec, const measured *m, bl_job_estimate *e) {
  e->worker_bytes_per_rank += m->rows_per_step * e->worker_bytes_per_row;
  e->push_bytes_per_clock += m->rows_per_step * e->push_bytes_per_row * spec->ranks;
  e->pull_bytes_per_clock += m->rows_per_step * e->pull_bytes_per_row * spec->ranks;
}

static void print_table(const bl_job_estimate *e, const measured *m) {
  char a[40], b[40];
  if (e->table_rows == 0)
    return;
  printf("  table     up to %llu rows, made when first touched; a rank's batch touches %llu\n",
         (unsigned long long)e->table_rows, (unsigned long long)m->rows_per_step);
  printf("            on the servers %llu bytes a row: %s per million rows that exist, at most %s\n",
         (unsigned long long)e->server_bytes_per_row, bl_str_bytes(1000000 * e->server_bytes_per_row, a, sizeof a),
         bl_str_bytes(e->table_rows * e->server_bytes_per_row, b, sizeof b));
}

#define TENSORS_SHOWN 40 /* --json has all */

static bool is_exact(const bl_tensor *t) {
  return bl_codec_spec_is_exact(&t->policy.push) && bl_codec_spec_is_exact(&t->policy.pull);
}

static uint32_t n_compressed(const bl_tensor_table *table) {
  uint32_t n = 0;
  for (uint32_t i = 0; i < table->n_tensors; i++)
    n += !is_exact(&table->tensors[i]);
  return n;
}

/* How each tensor travels, of a job that compresses. */
static void print_compression(const bl_job_spec *spec, const bl_tensor_table *table) {
  char push[BL_CODEC_TEXT_MAX], pull[BL_CODEC_TEXT_MAX];
  if (n_compressed(table) == 0)
    return;
  printf("  %-9s %-24s %12s  %-24s %s\n", "travels", "tensor", "elements", "up", "down");
  for (uint32_t i = 0; i < BL_MIN(table->n_tensors, TENSORS_SHOWN); i++) {
    const bl_tensor *t = &table->tensors[i];
    printf("  %9s %-24s %12llu  %-24s %s\n", "", t->name, (unsigned long long)t->n_elems,
           bl_codec_spec_write(&t->policy.push, push), bl_codec_spec_write(&t->policy.pull, pull));
  }
  if (table->n_tensors > TENSORS_SHOWN)
    printf("  %9s and %u more\n", "", table->n_tensors - TENSORS_SHOWN);
  if (spec->compression.momentum_correction > 0)
    printf("  %9s momentum %g on the workers, the servers run %s\n", "", spec->compression.momentum_correction,
           bl_job_server_rule(spec).name);
}

static json_t *compression_json(const bl_tensor_table *table) {
  json_t *list = json_array();
  char push[BL_CODEC_TEXT_MAX], pull[BL_CODEC_TEXT_MAX];
  for (uint32_t i = 0; i < table->n_tensors; i++) {
    const bl_tensor *t = &table->tensors[i];
    json_array_append_new(list, json_pack("{s:s, s:I, s:s, s:s, s:b, s:f}", "tensor", t->name, "elements",
                                          (json_int_t)t->n_elems, "push", bl_codec_spec_write(&t->policy.push, push),
                                          "pull", bl_codec_spec_write(&t->policy.pull, pull), "feedback",
                                          t->policy.feedback, "momentum", (double)t->policy.momentum));
  }
  return list;
}

static void print_estimate(const bl_job_spec *spec, const bl_job_estimate *e, const bl_tensor_table *table, const measured *m) {
  char a[40], b[40];
  cost c = cost_of(spec, e, m);
  printf("%s: ok\n", spec->file);
  printf("  data      %llu samples to train on, %llu to validate, %llu to test\n", (unsigned long long)m->train_samples,
         (unsigned long long)m->validation_samples, (unsigned long long)m->test_samples);
  printf("  model     %llu weights in %u tensors, %u chunks\n", (unsigned long long)e->n_weights, e->n_tensors, e->n_chunks);
  print_table(e, m);
  printf("  servers   %s together, divided by chunks\n", bl_str_bytes(e->server_bytes, a, sizeof a));
  printf("  workers   per rank %s and %s of data; batches of up to %llu samples\n",
         bl_str_bytes(e->worker_bytes_per_rank, a, sizeof a), bl_str_bytes(m->data_bytes, b, sizeof b),
         (unsigned long long)e->batch_per_rank);
  printf("  traffic   %s up and %s down per clock, all %u rank(s) together\n",
         bl_str_bytes(e->push_bytes_per_clock, a, sizeof a), bl_str_bytes(e->pull_bytes_per_clock, b, sizeof b),
         spec->ranks);
  print_compression(spec, table);
  printf("  a clock   %.2f ms to compute (measured here, one core), %.2f ms to exchange at 1 Gbit/s\n", c.compute_s * 1e3,
         c.network_s * 1e3);
  printf("  the job   %llu clocks: about %s\n", (unsigned long long)c.clocks,
         bl_str_duration((uint64_t)(c.total_s * 1e9), a, sizeof a));
}

static void print_estimate_json(const bl_job_spec *spec, const bl_job_estimate *e, const bl_tensor_table *table,
                                const measured *m) {
  cost c = cost_of(spec, e, m);
  json_t *value = json_pack(
      "{s:s, s:b, s:I, s:I, s:I, s:I, s:i, s:i, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:f, s:f}", "file",
      spec->file,
      "ok", 1, "train_samples", (json_int_t)m->train_samples, "validation_samples", (json_int_t)m->validation_samples,
      "test_samples", (json_int_t)m->test_samples, "weights", (json_int_t)e->n_weights, "tensors", (int)e->n_tensors,
      "chunks", (int)e->n_chunks, "server_bytes", (json_int_t)e->server_bytes, "worker_bytes_per_rank",
      (json_int_t)e->worker_bytes_per_rank, "data_bytes_per_rank", (json_int_t)m->data_bytes, "batch_per_rank",
      (json_int_t)e->batch_per_rank, "push_bytes_per_clock", (json_int_t)e->push_bytes_per_clock, "pull_bytes_per_clock",
      (json_int_t)e->pull_bytes_per_clock, "table_rows", (json_int_t)e->table_rows, "server_bytes_per_row",
      (json_int_t)e->server_bytes_per_row, "rows_per_batch", (json_int_t)m->rows_per_step, "clocks", (json_int_t)c.clocks, "flops_per_sample", e->flops_per_sample,
      "compute_seconds_per_clock", c.compute_s, "network_seconds_per_clock", c.network_s, "seconds", c.total_s);
  json_object_set_new(value, "compression", compression_json(table));
  cli_print_json(value);
  json_decref(value);
}

int cli_check(int argc, char **argv) {
  static check_options o = {.common.local = true};
  cli_parse(argc, argv, options, parse, "JOB.yaml",
            "Checks a job file: reports every mistake with its line, opens the data, then reports memory per server and worker, "
            "bytes per clock, and an estimated time from a few training steps on this machine.",
            &o, &o.common);
  bl_job_spec *spec = NULL;
  if (cli_job_file_read(&o.job, &spec) != BL_OK) {
    if (o.common.json)
      puts("{\"ok\":false}");
    return BL_EXIT_USAGE;
  }
  bl_error err = BL_ERROR_INIT;
  bl_job_estimate estimate;
  int code = BL_EXIT_OK;
  measured seen = {0};
  bl_tensor_table *table = NULL;
  if (bl_job_estimate_make(spec, &estimate, &err) != BL_OK || bl_tensor_table_of_job(spec, &table, &err) != BL_OK || measure(spec, &seen, &err) != BL_OK)
    code = cli_fail(&err);
  else
    add_rows(spec, &seen, &estimate);
  if (code == BL_EXIT_OK && o.common.json)
    print_estimate_json(spec, &estimate, table, &seen);
  else if (code == BL_EXIT_OK)
    print_estimate(spec, &estimate, table, &seen);
  bl_tensor_table_free(table);
  bl_job_spec_free(spec);
  return code;
}
