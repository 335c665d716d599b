/* SPDX-License-Identifier: Apache-2.0
 *
 * What a task says on stderr: cut into lines, limited in rate, and its end kept as "last words" for the
 * report of a crash. Pure; the program on the other side is not trusted to write sense.
 */
#ifndef WK_TASK_OUTPUT_H
#define WK_TASK_OUTPUT_H

#include "base/log.h"

#include <stdbool.h>
#include <stdint.h>

#define WK_TASK_OUTPUT_LINE_BYTES_MAX 1024
#define WK_TASK_OUTPUT_LAST_BYTES_MAX 2048

typedef struct wk_task_output {
  char last[WK_TASK_OUTPUT_LAST_BYTES_MAX];
  size_t n_last;
  char line[WK_TASK_OUTPUT_LINE_BYTES_MAX];
  size_t n_line;
  uint64_t budget_ns, refilled_ns; /* token bucket in time: a line costs its share of a second */
  uint64_t n_left_out;             /* since the last line that was let through */
  uint64_t n_left_out_total;
} wk_task_output;

/* text: printable ASCII, without the time, level and program that our own log lines begin with. */
typedef void wk_task_output_line_fn(bl_log_level level, const char *text, void *arg);

void wk_task_output_init(wk_task_output *w, uint64_t now_ns);
/* Calls on_line for every complete line that the rate admits. */
void wk_task_output_feed(wk_task_output *w, const char *bytes, size_t size, uint64_t now_ns, wk_task_output_line_fn *on_line,
                   void *arg);
/* The end of what was said, printable, starting at the beginning of a line where possible. Returns out. */
const char *wk_task_output_last(const wk_task_output *w, char *out, size_t size);

#endif
