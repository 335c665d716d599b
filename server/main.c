/* SPDX-License-Identifier: Apache-2.0
 *
 * ballast-server: holds the weights.
 */
#include "base/log.h"
#include "daemon/daemon.h"
#include "kernel/kernel.h"
#include "server/server.h"

typedef struct program {
  bl_loop *loop;
  srv_server *server; /* NULL while it starts */
} program;

static void on_stop(void *arg) { bl_loop_stop(((program *)arg)->loop); }

static void on_reload(void *arg) {
  const program *p = arg;
  if (p->server != NULL)
    srv_server_reload(p->server);
}

/* Runs until it is told to stop; returns the exit code. */
static int serve(const bl_daemon_args *args, bl_loop *loop) {
  bl_error err = BL_ERROR_INIT;
  bl_daemon *daemon = NULL;
  program p = {.loop = loop};
  srv_server_config config = {.conf = args->conf, .name = args->name, .loop = loop, .on_rejected = on_stop, .arg = &p};
  int code = BL_EXIT_FAILED;
  if (bl_kernels_force(args->conf->kernels, &err) != BL_OK ||
      bl_daemon_new(loop, on_stop, on_reload, &p, &daemon, &err) != BL_OK ||
      srv_server_new(&config, &p.server, &err) != BL_OK ||
      (args->address_file != NULL && srv_server_write_addresses(p.server, args->address_file, &err) != BL_OK)) {
    bl_log_error("cannot_start", "reason=%s", BL_LOGQ(err.text));
    code = bl_daemon_start_exit_code(err.status);
  } else {
    bl_log_info("ready", "version=%s", BL_LOGQ(bl_version_string()));
    bl_daemon_ready(daemon);
    bl_loop_run(loop);
    bl_daemon_stopping(daemon);
    code = srv_server_rejected(p.server) != NULL ? BL_EXIT_FAILED : BL_EXIT_OK;
    bl_log_info("stopped", "exit=%d", code);
  }
  srv_server_free(p.server);
  bl_daemon_free(daemon);
  return code;
}

int main(int argc, char **argv) {
  bl_daemon_args args;
  if (!bl_daemon_parse(argc, argv, "ballast-server", "Holds the weights of jobs, sharded.", &args)) {
    bl_daemon_args_fini(&args);
    return args.exit_code;
  }
  bl_net_tune_process();
  bl_loop *loop = bl_loop_new();
  int code = BL_EXIT_FAILED;
  if (loop != NULL) {
    code = serve(&args, loop);
    bl_loop_free(loop);
  }
  bl_daemon_args_fini(&args);
  return code;
}
