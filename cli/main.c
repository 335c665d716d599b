/* SPDX-License-Identifier: Apache-2.0
 *
 * ballast: table of subcommands.
 */
#include "cli/cli.h"

#include "base/log.h"
#include "base/str.h"

#include <errno.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

static const struct {
  const char *name, *doc;
  cli_main_fn *main;
} commands[] = {
    {"run", "train a job on a private cluster in child processes of this machine", cli_run},
    {"check", "check a job file; report memory, traffic and time before anything runs", cli_check},
    {"submit", "hand a job to the cluster", cli_submit},
    {"resume", "go on from where a job has stopped", cli_resume},
    {"wait", "wait until a job has ended", cli_wait},
    {"jobs", "list and search jobs, or show one", cli_jobs},
    {"priority", "change the place of a job in the queue", cli_priority},
    {"status", "show nodes, shards and jobs of the cluster", cli_status},
    {"logs", "show what a job's tasks have said", cli_logs},
    {"cancel", "stop a job", cli_cancel},
    {"predict", "apply a trained model to data", cli_predict},
    {"keygen", "make keys for encrypted connections", cli_keygen},
    {"bench", "measure this machine: codecs beside memcpy", cli_bench},
};

static void print_help(FILE *out) {
  fputs("Usage: ballast COMMAND [OPTION...]\nTrain models on a cluster of ordinary machines.\n\n", out);
  for (size_t i = 0; i < BL_COUNT_OF(commands); i++)
    fprintf(out, "  %-9s %s\n", commands[i].name, commands[i].doc);
  fputs("\n'ballast COMMAND --help' explains a command. Try it out: ballast run conf/jobs/digits.yaml\n"
        "The cluster is found by --cluster, BALLAST_CLUSTER, ~/.config/ballast/client.yaml, /etc/ballast/cluster.yaml.\n"
        "Exit status: 0 ok, 1 failed, 2 usage, 3 coordinator unreachable.\n",
        out);
}

static int unknown_command(const char *word) {
  const char *names[BL_COUNT_OF(commands)];
  for (size_t i = 0; i < BL_COUNT_OF(commands); i++)
    names[i] = commands[i].name;
  const char *near = bl_str_nearest(word, names, BL_COUNT_OF(commands));
  fprintf(stderr, "ballast: no command '%s'%s%s%s; 'ballast --help' lists them\n", word, near ? " (did you mean '" : "",
          near ? near : "", near ? "'?)" : "");
  return BL_EXIT_USAGE;
}

int main(int argc, char **argv) {
  setlocale(LC_CTYPE, "");
  signal(SIGPIPE, SIG_IGN);
  bl_log_init("ballast", BL_LOG_WARNING);
  if (argc < 2) {
    print_help(stderr);
    return BL_EXIT_USAGE;
  }
  if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
    print_help(stdout);
    return BL_EXIT_OK;
  }
  if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0) {
    puts(bl_version_string());
    return BL_EXIT_OK;
  }
  for (size_t i = 0; i < BL_COUNT_OF(commands); i++) {
    if (strcmp(argv[1], commands[i].name) != 0)
      continue;
    char name[64];
    snprintf(name, sizeof name, "ballast %s", commands[i].name);
    argv[1] = name; /* argp shows it in messages */
    int code = commands[i].main(argc - 1, argv + 1);
    if (fflush(stdout) != 0 && errno != EPIPE) {
      perror("ballast: cannot write to standard output");
      return BL_EXIT_FAILED;
    }
    return code;
  }
  return unknown_command(argv[1]);
}
