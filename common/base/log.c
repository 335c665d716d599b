/* SPDX-License-Identifier: Apache-2.0
 *
 * logfmt lines to stderr. The line is built on the stack and written once, so that lines of several
 * threads and of child processes do not interleave.
 */
#include "base/log.h"

#include "base/clock.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

static const char *program_name = "ballast";
static _Atomic int least_level = BL_LOG_INFO;
static bool under_journal;

static const struct {
  const char *name;
  int journal_priority;
} levels[BL_LOG_COUNT] = {
    [BL_LOG_DEBUG] = {"debug", 7},
    [BL_LOG_INFO] = {"info", 6},
    [BL_LOG_WARNING] = {"warning", 4},
    [BL_LOG_ERROR] = {"error", 3},
};

void bl_log_init(const char *program, bl_log_level least) {
  program_name = program;
  atomic_store(&least_level, (int)least);
  under_journal = getenv("JOURNAL_STREAM") != NULL;
}

void bl_log_set_level(bl_log_level least) { atomic_store(&least_level, (int)least); }

bl_log_level bl_log_get_level(void) { return (bl_log_level)atomic_load(&least_level); }

bl_status bl_log_level_parse(const char *text, bl_log_level *ret_level) {
  for (int i = BL_LOG_DEBUG; i < BL_LOG_COUNT; i++) {
    if (strcasecmp(text, levels[i].name) == 0) {
      *ret_level = (bl_log_level)i;
      return BL_OK;
    }
  }
  return BL_EINVAL;
}

void bl_log(bl_log_level level, const char *ev, const char *fmt, ...) {
  if ((int)level < atomic_load_explicit(&least_level, memory_order_relaxed))
    return;
  int saved = errno;
  char line[2048];
  char when[40];
  int n;
  if (under_journal) {
    n = snprintf(line, sizeof line, "<%d>ev=%s ", levels[level].journal_priority, ev);
  } else {
    bl_clock_format_utc(bl_clock_wall_ns(), when, sizeof when);
    n = snprintf(line, sizeof line, "%s %s %s ev=%s ", when, levels[level].name, program_name, ev);
  }
  va_list args;
  va_start(args, fmt);
  int m = vsnprintf(line + n, sizeof line - (size_t)n - 1, fmt, args);
  va_end(args);
  size_t len = (size_t)n + (m < 0 ? 0 : (size_t)m);
  if (len > sizeof line - 2)
    len = sizeof line - 2;
  line[len++] = '\n';
  ssize_t unused = write(STDERR_FILENO, line, len);
  (void)unused;
  errno = saved;
}

const char *bl_logq(bl_logq_buf *buf, const char *text) {
  size_t n = 0;
  const size_t limit = sizeof buf->text - 8;
  buf->text[n++] = '"';
  for (const char *p = text != NULL ? text : ""; *p != '\0'; p++) {
    if (n >= limit) {
      memcpy(buf->text + n, "...", 3);
      n += 3;
      break;
    }
    unsigned char c = (unsigned char)*p;
    if (c == '"' || c == '\\') {
      buf->text[n++] = '\\';
      buf->text[n++] = (char)c;
    } else if (c < 0x20 || c == 0x7f) {
      buf->text[n++] = ' ';
    } else {
      buf->text[n++] = (char)c;
    }
  }
  buf->text[n++] = '"';
  buf->text[n] = '\0';
  return buf->text;
}
