/* SPDX-License-Identifier: Apache-2.0
 *
 * Logging: one logfmt line per event to stderr, with a stable `ev=` name:
 *
 *   bl_log_info("job_started", "job=%" PRIu64 " ranks=%u", id, ranks);
 *   -> 2026-01-02T03:04:05.678Z info ballast-server ev=job_started job=7 ranks=2
 *
 * Under systemd (JOURNAL_STREAM set) the time is left out and a "<N>" priority prefix is written.
 * Values that hold outside text go through BL_LOGQ, which quotes and escapes. Any thread; a line is
 * one write(2). Nothing per request at info level.
 */
#ifndef BL_BASE_LOG_H
#define BL_BASE_LOG_H

#include "base/status.h"

typedef enum bl_log_level { BL_LOG_DEBUG = 1, BL_LOG_INFO, BL_LOG_WARNING, BL_LOG_ERROR, BL_LOG_COUNT } bl_log_level;

/* program: borrowed for ever (a literal). Call once at start. */
void bl_log_init(const char *program, bl_log_level least);
void bl_log_set_level(bl_log_level least);
bl_log_level bl_log_get_level(void);
BL_MUST_CHECK bl_status bl_log_level_parse(const char *text, bl_log_level *ret_level);

void bl_log(bl_log_level level, const char *ev, const char *fmt, ...) BL_PRINTF(3, 4);

#define bl_log_debug(ev, ...) bl_log(BL_LOG_DEBUG, ev, __VA_ARGS__)
#define bl_log_info(ev, ...) bl_log(BL_LOG_INFO, ev, __VA_ARGS__)
#define bl_log_warning(ev, ...) bl_log(BL_LOG_WARNING, ev, __VA_ARGS__)
#define bl_log_error(ev, ...) bl_log(BL_LOG_ERROR, ev, __VA_ARGS__)

/* Quoted, escaped copy of outside text for a logfmt value; cut with "..." when long. Lives until the
 * end of the enclosing full expression's block. */
typedef struct bl_logq_buf {
  char text[256];
} bl_logq_buf;
const char *bl_logq(bl_logq_buf *buf, const char *text);
#define BL_LOGQ(text) bl_logq(&(bl_logq_buf){{0}}, (text))

#endif
