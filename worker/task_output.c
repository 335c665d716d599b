/* SPDX-License-Identifier: Apache-2.0
 *
 * Lines, rate limit and last words of a task's stderr.
 */
#include "task_output.h"

#include "agent.h"
#include "base/clock.h"
#include "base/num.h"

#include <stdio.h>
#include <string.h>

#define LINE_COST_NS (BL_NS_PER_S / WK_AGENT_LOG_LINES_PER_S)
#define BUDGET_MAX_NS (LINE_COST_NS * WK_AGENT_LOG_BURST)

void wk_task_output_init(wk_task_output *w, uint64_t now_ns) {
  memset(w, 0, sizeof *w);
  w->budget_ns = BUDGET_MAX_NS;
  w->refilled_ns = now_ns;
}

static bool printable(char c) { return c >= 0x20 && c < 0x7f; }

/* "2026-01-02T03:04:05.678Z info ballast-task ev=x ..." -> level, "ev=x ...". Other lines stay whole. */
static const char *strip_log_prefix(const char *line, bl_log_level *ret_level) {
  char level[16], program[64], when[40];
  int n = 0;
  *ret_level = BL_LOG_INFO;
  if (sscanf(line, "%39s %15s %63s %n", when, level, program, &n) < 3 || n == 0 || strchr(when, 'T') == NULL)
    return line;
  bl_log_level parsed;
  if (bl_log_level_parse(level, &parsed) != BL_OK)
    return line;
  *ret_level = parsed;
  return line + n;
}

static void end_line(wk_task_output *w, uint64_t now_ns, wk_task_output_line_fn *on_line, void *arg) {
  w->line[w->n_line] = '\0';
  bool empty = w->n_line == 0;
  w->n_line = 0;
  if (empty)
    return;
  w->budget_ns = BL_MIN(BUDGET_MAX_NS, w->budget_ns + (now_ns - w->refilled_ns));
  w->refilled_ns = now_ns;
  if (w->budget_ns < LINE_COST_NS) {
    w->n_left_out++;
    w->n_left_out_total++;
    return;
  }
  w->budget_ns -= LINE_COST_NS;
  if (w->n_left_out > 0) {
    char text[96];
    snprintf(text, sizeof text, "%llu lines left out: more than %d a second", (unsigned long long)w->n_left_out,
             WK_AGENT_LOG_LINES_PER_S);
    w->n_left_out = 0;
    on_line(BL_LOG_WARNING, text, arg);
  }
  bl_log_level level;
  const char *text = strip_log_prefix(w->line, &level);
  on_line(level, text, arg);
}

static void keep_last(wk_task_output *w, const char *bytes, size_t size) {
  if (size >= sizeof w->last) {
    memcpy(w->last, bytes + (size - sizeof w->last), sizeof w->last);
    w->n_last = sizeof w->last;
    return;
  }
  size_t room = sizeof w->last - w->n_last;
  if (size > room) {
    memmove(w->last, w->last + (size - room), w->n_last - (size - room));
    w->n_last -= size - room;
  }
  memcpy(w->last + w->n_last, bytes, size);
  w->n_last += size;
}

void wk_task_output_feed(wk_task_output *w, const char *bytes, size_t size, uint64_t now_ns, wk_task_output_line_fn *on_line,
                   void *arg) {
  keep_last(w, bytes, size);
  for (size_t i = 0; i < size; i++) {
    if (bytes[i] == '\n') {
      end_line(w, now_ns, on_line, arg);
      continue;
    }
    if (w->n_line < sizeof w->line - 1)
      w->line[w->n_line++] = printable(bytes[i]) ? bytes[i] : (bytes[i] == '\t' ? ' ' : '?');
  }
}

const char *wk_task_output_last(const wk_task_output *w, char *out, size_t size) {
  size_t first = 0, n = w->n_last;
  while (n > 0 && w->last[n - 1] == '\n')
    n--;
  if (n >= size)
    first = n - (size - 1);
  /* A cut line at the front says little; drop it when whole ones follow. */
  if (first > 0 || w->n_last == sizeof w->last) {
    const char *newline = memchr(w->last + first, '\n', n - first);
    if (newline != NULL)
      first = (size_t)(newline - w->last) + 1;
  }
  size_t k = 0;
  for (size_t i = first; i < n; i++)
    out[k++] = printable(w->last[i]) || w->last[i] == '\n' ? w->last[i] : '?';
  out[k] = '\0';
  return out;
}
