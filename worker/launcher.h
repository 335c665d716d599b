/* SPDX-License-Identifier: Apache-2.0
 *
 * Task processes: starts this program again as `--task`, with the pipe on descriptor 3 and its output in
 * another pipe, and reports messages, output and the end of each. The end comes last: first everything that
 * the process had said. Threads: the loop's.
 */
#ifndef WK_LAUNCHER_H
#define WK_LAUNCHER_H

#include "agent.h"
#include "loop/loop.h"

/* The end waits this long, after the process is gone, for what is still in its pipes. */
#define WK_LAUNCHER_DRAIN_MS 1000

typedef struct wk_launcher_events {
  void (*on_msg)(uint64_t process, bl_msg *msg, void *arg);
  void (*on_output)(uint64_t process, const char *bytes, size_t size, void *arg);
  void (*on_exit)(uint64_t process, int64_t code, int signum, void *arg);
  void *arg;
} wk_launcher_events;

typedef struct wk_processes wk_processes;

/* task_args: what every task gets behind `--task`, NULL-terminated, borrowed. */
BL_MUST_CHECK bl_status wk_processes_new(bl_loop *l, const char *const *task_args, const wk_launcher_events *events,
                                         wk_processes **ret_processes, bl_error *err);
wk_launcher *wk_processes_launcher(wk_processes *p); /* borrowed */
/* Processes that still run are killed; no event comes any more. */
void wk_processes_free(wk_processes *p);

#endif
