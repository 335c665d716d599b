/* SPDX-License-Identifier: Apache-2.0
 *
 * What the three daemons share at their edges: command line, configuration, signals, readiness, watchdog.
 * The only includer of systemd/sd-daemon.h is daemon/.
 */
#ifndef BL_DAEMON_DAEMON_H
#define BL_DAEMON_DAEMON_H

#include "conf/cluster.h"
#include "loop/loop.h"

/* Exit codes of all programs. */
typedef enum bl_exit { BL_EXIT_OK = 0, BL_EXIT_FAILED = 1, BL_EXIT_USAGE = 2, BL_EXIT_UNREACHABLE = 3 } bl_exit;

/* Exit code of a daemon that cannot start: BL_EXIT_USAGE where only another configuration will cure it (units do
 * not restart on it), else BL_EXIT_FAILED. */
int bl_daemon_start_exit_code(bl_status status);

/* Options every daemon takes: --config FILE (default /etc/ballast/cluster.yaml when it exists), --set a.b=v
 * (repeatable), --name NAME, --check, --dump, --version, --help, --log-level L, --address-file FILE (bound
 * addresses as JSON, written when ready). */
typedef struct bl_daemon_args {
  bl_cluster_conf *conf;      /* owned */
  const char *config_path;
  const char *address_file;
  const char *name;
  int exit_code;              /* when bl_daemon_parse returns false */
} bl_daemon_args;

/* Returns true when the daemon should start; false when --check, --dump, --help, --version did their work or
 * something was wrong (already printed): exit with exit_code. */
bool bl_daemon_parse(int argc, char **argv, const char *program, const char *doc, bl_daemon_args *args);
void bl_daemon_args_fini(bl_daemon_args *args);

/* SIGTERM and SIGINT call on_stop once (a second one exits at once); SIGHUP calls on_reload when not NULL.
 * SIGPIPE is ignored. Watchdog pings go out from this loop when the unit asks for them. */
typedef struct bl_daemon bl_daemon;
BL_MUST_CHECK bl_status bl_daemon_new(bl_loop *l, bl_loop_fn *on_stop, bl_loop_fn *on_reload, void *arg,
                                      bl_daemon **ret_daemon, bl_error *err);
void bl_daemon_free(bl_daemon *d); /* before the loop */
/* sd_notify READY=1 / STATUS= / STOPPING=1; no-ops outside systemd. */
void bl_daemon_ready(bl_daemon *d);
void bl_daemon_status(bl_daemon *d, const char *fmt, ...) BL_PRINTF(2, 3);
void bl_daemon_stopping(bl_daemon *d);

/* Version and build facts: "ballast 0.1.0 (protocol 1)". */
const char *bl_version_string(void);

#endif
