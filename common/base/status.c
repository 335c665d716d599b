/* SPDX-License-Identifier: Apache-2.0
 *
 * Status names and error texts. No allocation, any thread.
 */
#include "base/status.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const status_names[] = {
    "ok",          "invalid",   "no_memory",  "io",          "not_found", "exists",
    "again",       "timeout",   "stale_view", "clock",       "incarnation", "protocol",
    "corrupt",     "access",    "unreachable", "cancelled",  "not_finite", "limit",
    "unsupported", "state",     "mismatch",   "bug",
};

_Static_assert(BL_COUNT_OF(status_names) == -BL_STATUS_LAST + 1, "every status has a name");

const char *bl_status_name(bl_status status) {
  int i = -(int)status;
  if (i < 0 || (size_t)i >= BL_COUNT_OF(status_names))
    return "unknown";
  return status_names[i];
}

static bl_status status_of_errno(int e) {
  switch (e) {
  case ENOENT:
    return BL_ENOENT;
  case EEXIST:
    return BL_EEXIST;
  case EACCES:
  case EPERM:
    return BL_EACCES;
  case ENOMEM:
    return BL_ENOMEM;
  default:
    return BL_EIO;
  }
}

bl_status bl_fail(bl_error *err, bl_status status, const char *fmt, ...) {
  if (err != NULL) {
    char text[sizeof err->text]; /* an argument may be err->text itself */
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    err->status = status;
    memcpy(err->text, text, sizeof text);
  }
  return status;
}

bl_status bl_fail_errno(bl_error *err, const char *fmt, ...) {
  int saved = errno;
  bl_status status = status_of_errno(saved);
  if (err != NULL) {
    char text[sizeof err->text];
    char reason[128];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    const char *why = strerror_r(saved, reason, sizeof reason);
    err->status = status;
    if (snprintf(err->text, sizeof err->text, "%s: %s", text, why) < 0)
      err->text[0] = '\0';
  }
  errno = saved;
  return status;
}

bl_status bl_fail_prefix(bl_error *err, bl_status status, const char *fmt, ...) {
  if (err == NULL)
    return status;
  char prefix[sizeof err->text / 2];
  char rest[sizeof err->text];
  va_list args;
  va_start(args, fmt);
  vsnprintf(prefix, sizeof prefix, fmt, args);
  va_end(args);
  memcpy(rest, err->text, sizeof rest);
  if (snprintf(err->text, sizeof err->text, "%s: %.*s", prefix, (int)(sizeof rest - sizeof prefix - 3), rest) < 0)
    err->text[0] = '\0';
  return err->status != BL_OK ? err->status : status;
}

void bl_assert_failed(const char *expr, const char *file, int line) {
  fprintf(stderr, "ballast: assertion failed: %s (%s:%d)\n", expr, file, line);
  fflush(stderr);
  abort();
}
