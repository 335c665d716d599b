/* SPDX-License-Identifier: Apache-2.0
 *
 * Signals, readiness and watchdog. Outside systemd the notifications do nothing.
 */
#include "daemon/daemon.h"

#include "base/alloc.h"
#include "base/log.h"
#include "base/num.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

struct bl_daemon {
  bl_signal *term, *interrupt, *hangup;
  bl_timer *watchdog;
  bl_loop_fn *on_stop, *on_reload;
  void *arg;
  bool stopping;
};

static void on_terminate(int signum, void *arg) {
  bl_daemon *d = arg;
  if (d->stopping) {
    bl_log_warning("stop_forced", "signal=%d", signum);
    _exit(BL_EXIT_FAILED);
  }
  d->stopping = true;
  bl_log_info("stopping", "signal=%d", signum);
  bl_daemon_stopping(d);
  d->on_stop(d->arg);
}

static void on_hangup(int signum, void *arg) {
  bl_daemon *d = arg;
  if (d->on_reload != NULL)
    d->on_reload(d->arg);
}

static void on_watchdog(void *arg) { sd_notify(0, "WATCHDOG=1"); }

static bl_status start_watchdog(bl_daemon *d, bl_loop *l) {
  uint64_t limit_us = 0;
  if (sd_watchdog_enabled(0, &limit_us) <= 0)
    return BL_OK;
  bl_status status = bl_timer_new(l, on_watchdog, NULL, &d->watchdog);
  if (status == BL_OK) {
    uint64_t period_ms = BL_MAX(limit_us / 3000, 1);
    bl_timer_start(d->watchdog, period_ms, period_ms);
  }
  return status;
}

bl_status bl_daemon_new(bl_loop *l, bl_loop_fn *on_stop, bl_loop_fn *on_reload, void *arg, bl_daemon **ret_daemon,
                        bl_error *err) {
  bl_daemon *d = bl_calloc(1, sizeof *d);
  if (d == NULL)
    return bl_fail(err, BL_ENOMEM, "no memory for signal handling");
  d->on_stop = on_stop;
  d->on_reload = on_reload;
  d->arg = arg;
  signal(SIGPIPE, SIG_IGN);
  bl_status status = bl_signal_new(l, SIGTERM, on_terminate, d, &d->term);
  if (status == BL_OK)
    status = bl_signal_new(l, SIGINT, on_terminate, d, &d->interrupt);
  if (status == BL_OK)
    status = bl_signal_new(l, SIGHUP, on_hangup, d, &d->hangup);
  if (status == BL_OK)
    status = start_watchdog(d, l);
  if (status != BL_OK) {
    bl_daemon_free(d);
    return bl_fail(err, status, "cannot set up signal handling");
  }
  *ret_daemon = d;
  return BL_OK;
}

void bl_daemon_free(bl_daemon *d) {
  if (d == NULL)
    return;
  bl_signal_close(d->term);
  bl_signal_close(d->interrupt);
  bl_signal_close(d->hangup);
  bl_timer_close(d->watchdog);
  bl_free(d);
}

int bl_daemon_start_exit_code(bl_status status) {
  return status == BL_EACCES || status == BL_EINVAL ? BL_EXIT_USAGE : BL_EXIT_FAILED;
}

void bl_daemon_ready(bl_daemon *d) { sd_notify(0, "READY=1"); }

void bl_daemon_status(bl_daemon *d, const char *fmt, ...) {
  char text[256];
  va_list args;
  va_start(args, fmt);
  vsnprintf(text, sizeof text, fmt, args);
  va_end(args);
  sd_notifyf(0, "STATUS=%s", text);
}

void bl_daemon_stopping(bl_daemon *d) { sd_notify(0, "STOPPING=1"); }
