/* SPDX-License-Identifier: Apache-2.0
 *
 * ballast check: all mistakes of a job file at once, and what the job will cost.
 */
#include "base/clock.h"
#include "base/str.h"
#include "cli/cli.h"
#include "cli/job_file.h"
#include "job/estimate.h"

#include <stdio.h>
#include <string.h>

/* Assumptions behind the time estimate, printed with it. */
#define ASSUMED_FLOPS_PER_RANK 40e9
#define ASSUMED_LINK_BYTES_PER_S (1e9 / 8)

typedef struct check_options {
  cli_common common;
  const char *file;
  cli_sets sets;
} check_options;

static const struct argp_option options[] = {
    {"set", 's', "A.B=VALUE", 0, "override one field of the job file; may be repeated", 0},
    {NULL, 0, NULL, 0, NULL, 0},
};

static error_t parse(int key, char *arg, struct argp_state *state) {
  check_options *o = state->input;
  switch (key) {
  case 's':
    if (o->sets.n == CLI_SET_MAX)
      argp_error(state, "more than %d --set options", CLI_SET_MAX);
    o->sets.at[o->sets.n++] = arg;
    return 0;
  case ARGP_KEY_ARG:
    if (o->file != NULL)
      argp_error(state, "one job file at a time, '%s' is too many", arg);
    o->file = arg;
    return 0;
  case ARGP_KEY_END:
    if (o->file == NULL)
      argp_error(state, "which job file?");
    return 0;
  default:
    return ARGP_ERR_UNKNOWN;
  }
}

typedef struct clock_cost {
  double compute_s, network_s;
} clock_cost;

/* Push and pull overlap in a full-duplex link of the servers' side; every rank has its own link. */
static clock_cost cost_of_clock(const bl_job_spec *spec, const bl_job_estimate *e) {
  double per_rank = (double)(e->push_bytes_per_clock + e->pull_bytes_per_clock) / spec->ranks;
  return (clock_cost){.compute_s = e->flops_per_sample * (double)e->batch_per_rank / ASSUMED_FLOPS_PER_RANK,
                      .network_s = per_rank / ASSUMED_LINK_BYTES_PER_S};
}

static void print_estimate(const bl_job_spec *spec, const bl_job_estimate *e) {
  char a[40], b[40];
  clock_cost cost = cost_of_clock(spec, e);
  printf("%s: ok\n", spec->file);
  printf("  model     %llu weights in %u tensors, %u chunks\n", (unsigned long long)e->n_weights, e->n_tensors, e->n_chunks);
  printf("  servers   %s together, divided by chunks\n", bl_str_bytes(e->server_bytes, a, sizeof a));
  printf("  workers   %s per rank, and the data set; batches of up to %llu samples per rank\n",
         bl_str_bytes(e->worker_bytes_per_rank, a, sizeof a), (unsigned long long)e->batch_per_rank);
  printf("  traffic   %s up and %s down per clock, all %u rank(s) together\n",
         bl_str_bytes(e->push_bytes_per_clock, a, sizeof a), bl_str_bytes(e->pull_bytes_per_clock, b, sizeof b),
         spec->ranks);
  printf("  time      %s to compute and %s to exchange per clock, partly at once", bl_str_duration((uint64_t)(cost.compute_s * 1e9), a, sizeof a),
         bl_str_duration((uint64_t)(cost.network_s * 1e9), b, sizeof b));
  printf(" (assuming %.0f GFLOP/s per rank and 1 Gbit/s links)\n", ASSUMED_FLOPS_PER_RANK / 1e9);
}

static void print_estimate_json(const bl_job_spec *spec, const bl_job_estimate *e) {
  clock_cost cost = cost_of_clock(spec, e);
  json_t *value = json_pack(
      "{s:s, s:b, s:I, s:i, s:i, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:f}", "file", spec->file, "ok", 1, "weights",
      (json_int_t)e->n_weights, "tensors", (int)e->n_tensors, "chunks", (int)e->n_chunks, "server_bytes",
      (json_int_t)e->server_bytes, "worker_bytes_per_rank", (json_int_t)e->worker_bytes_per_rank, "batch_per_rank",
      (json_int_t)e->batch_per_rank, "push_bytes_per_clock", (json_int_t)e->push_bytes_per_clock, "pull_bytes_per_clock",
      (json_int_t)e->pull_bytes_per_clock, "flops_per_sample", e->flops_per_sample, "compute_seconds_per_clock",
      cost.compute_s, "network_seconds_per_clock", cost.network_s);
  cli_print_json(value);
  json_decref(value);
}

int cli_check(int argc, char **argv) {
  static check_options o;
  cli_parse(argc, argv, options, parse, "JOB.yaml",
            "Checks a job file: reports every mistake with its line, then memory per server and worker, bytes per clock "
            "and an estimated time.",
            &o, &o.common);
  bl_job_spec *spec = NULL;
  if (cli_job_file_read(o.file, o.sets.at, o.sets.n, &spec) != BL_OK) {
    if (o.common.json)
      puts("{\"ok\":false}");
    return BL_EXIT_USAGE;
  }
  bl_error err = BL_ERROR_INIT;
  bl_job_estimate estimate;
  int code = BL_EXIT_OK;
  if (bl_job_estimate_make(spec, &estimate, &err) != BL_OK)
    code = cli_fail(&err);
  else if (o.common.json)
    print_estimate_json(spec, &estimate);
  else
    print_estimate(spec, &estimate);
  bl_job_spec_free(spec);
  return code;
}
