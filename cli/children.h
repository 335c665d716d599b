/* SPDX-License-Identifier: Apache-2.0
 *
 * A private cluster of child processes for `ballast run`: one coordinator, servers and workers on free
 * loopback ports, with their state and logs in a temporary folder. Threads: one.
 */
#ifndef CLI_CHILDREN_H
#define CLI_CHILDREN_H

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct cli_children cli_children;

typedef struct cli_children_options {
  unsigned servers, workers, slots_per_worker;
  const char *dir;           /* empty folder for state and logs */
  const char *const *set;    /* further --set overrides for all daemons */
  size_t n_set;
} cli_children_options;

/* Starts the daemons and waits until each has said where it listens. On failure the text names the daemon and
 * quotes the end of its log. */
BL_MUST_CHECK bl_status cli_children_start(const cli_children_options *options, cli_children **ret_children, bl_error *err);
/* SIGTERM to all, SIGKILL after 5 s; frees. NULL allowed. */
void cli_children_stop(cli_children *c);
const char *cli_children_coordinator(const cli_children *c); /* tcp://127.0.0.1:port */
const char *cli_children_status_url(const cli_children *c);  /* http://127.0.0.1:port/ */
/* A daemon that has died although nobody asked it to; false when all live. */
bool cli_children_dead(const cli_children *c, char *out, size_t size);

#endif
