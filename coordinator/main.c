/* SPDX-License-Identifier: Apache-2.0
 *
 * Composition root of ballast-coordinator: configuration, store, socket, core, pages, loop; closed in the
 * opposite order. Everything that decides is in core.c.
 */
#include "coordinator/core.h"
#include "coordinator/pages.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "daemon/daemon.h"
#include "daemon/security.h"
#include "net/socket.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char doc[] =
    "The coordinator of a Ballast cluster: knows who is alive, which job runs where and which part "
    "of a model lives on which server.";

typedef struct coordinator {
  bl_daemon_args args;
  const bl_cluster_conf *conf;
  bl_loop *loop;
  bl_daemon *daemon;
  bl_net *net;
  bl_socket *socket;
  bl_timer *timer;
  bl_http *http;
  co_store *store;
  co_core *core;
  uint16_t port;
  char control[300], http_url[300];
} coordinator;

/* ---- running ---------------------------------------------------------------------------------------- */

static void on_tick(void *arg) {
  coordinator *c = arg;
  uint64_t now_ns = bl_loop_now_ns(c->loop);
  co_core_set_wall(c->core, bl_clock_wall_ns());
  co_core_set_dropped(c->core, bl_socket_get_stats(c->socket).malformed);
  uint64_t next_ns = co_core_tick(c->core, now_ns);
  now_ns = bl_loop_now_ns(c->loop);
  bl_timer_start(c->timer, next_ns > now_ns ? (next_ns - now_ns) / BL_NS_PER_MS + 1 : 1, 0);
}

static void on_msg(const bl_peer *from, bl_msg *msg, void *arg) {
  coordinator *c = arg;
  co_core_set_wall(c->core, bl_clock_wall_ns());
  co_core_on_msg(c->core, from, msg, bl_loop_now_ns(c->loop));
  on_tick(c);
}

static void on_stop(void *arg) {
  coordinator *c = arg;
  bl_loop_stop(c->loop);
}

static void on_reload(void *arg) {
  coordinator *c = arg;
  bl_error err = BL_ERROR_INIT;
  if (bl_daemon_reload_allow(c->conf, c->net, &err) == BL_OK)
    bl_log_info("reloaded", "config=%s",
                BL_LOGQ(c->args.config_path != NULL ? c->args.config_path : "built-in defaults"));
  else
    bl_log_error("reload_failed", "error=%s", BL_LOGQ(err.text));
}

/* ---- opening ---------------------------------------------------------------------------------------- */

static bl_status open_net(coordinator *c, bl_error *err) {
  bl_status status = bl_daemon_check_listen(c->conf, &c->conf->co.net, err);
  return status == BL_OK ? bl_daemon_open_net(c->conf, "coordinator", &c->net, err) : status;
}

static bl_status open_socket(coordinator *c, bl_error *err) {
  bl_socket_config config = {.kind = BL_SOCKET_ROUTER, .on_msg = on_msg, .arg = c};
  bl_status status = bl_socket_open(c->net, c->loop, &config, &c->socket, err);
  c->port = c->conf->co.net.port;
  for (size_t i = 0; status == BL_OK && i < c->conf->co.net.n_listen; i++)
    status = bl_socket_bind(c->socket, c->conf->co.net.listen[i], c->port, &c->port, err);
  if (status == BL_OK) {
    char host[256];
    bl_daemon_advertised_host(&c->conf->co.net, host, sizeof host);
    snprintf(c->control, sizeof c->control, "tcp://%s:%u", host, c->port);
  }
  return status;
}

static bl_status open_store(coordinator *c, bl_error *err) {
  const char *dir = c->conf->co.state_dir;
  bl_status status = bl_file_make_dirs(dir, 0700, err);
  if (status != BL_OK)
    return status;
  char path[4096];
  if (snprintf(path, sizeof path, "%s/coordinator.db", dir) >= (int)sizeof path)
    return bl_fail(err, BL_EINVAL, "coordinator.state_dir is longer than %zu bytes", sizeof path);
  return co_store_sqlite_open(path, &c->store, err);
}

static bl_status open_core(coordinator *c, bl_error *err) {
  const bl_cluster_conf *conf = c->conf;
  co_core_config config = {.incarnation = bl_clock_wall_ns(),
                           .heartbeat_ns = conf->co.heartbeat_ns,
                           .lease_ns = conf->co.lease_ns,
                           .history_jobs_max = conf->co.history_jobs_max,
                           .queue_pass_ns = conf->co.queue_pass_ns,
                           .transport = bl_socket_transport(c->socket),
                           .store = c->store};
  bl_status status = co_core_new(&config, bl_clock_now_ns(), bl_clock_wall_ns(), &c->core, err);
  if (status != BL_OK)
    return status;
  return bl_timer_new(c->loop, on_tick, c, &c->timer);
}

static bl_status open_http(coordinator *c, bl_error *err) {
  const bl_listen_conf *net = &c->conf->co.net;
  if (net->http_listen == NULL || net->http_listen[0] == '\0')
    return BL_OK;
  char token[BL_DAEMON_TOKEN_BYTES_MAX];
  bl_status status = bl_daemon_read_token(net, token, sizeof token, err);
  if (status == BL_OK)
    status = bl_http_open(c->loop, net->http_listen, token[0] != '\0' ? token : NULL, co_pages, co_n_pages,
                          c->core, &c->http, err);
  if (status != BL_OK)
    return status;
  bl_daemon_http_url(net, bl_http_port(c->http), c->http_url, sizeof c->http_url);
  return BL_OK;
}

/* {"control": "tcp://...", "http": "http://..."} for whoever started us on port 0. */
static bl_status write_addresses(const coordinator *c, bl_error *err) {
  if (c->args.address_file == NULL)
    return BL_OK;
  json_t *o = json_pack("{s:s, s:s}", "control", c->control, "http", c->http_url);
  char *text = o != NULL ? json_dumps(o, 0) : NULL;
  bl_status status = text != NULL ? bl_file_write_atomic(c->args.address_file, text, strlen(text), 0644, err)
                                  : bl_fail(err, BL_ENOMEM, "no memory for the address file");
  json_decref(o);
  free(text);
  return status;
}

static bl_status open_all(coordinator *c, bl_error *err) {
  c->loop = bl_loop_new();
  if (c->loop == NULL)
    return bl_fail(err, BL_ENOMEM, "no memory for the event loop");
  static bl_status (*const steps[])(coordinator * c, bl_error * err) = {open_net, open_socket, open_store,
                                                                        open_core, open_http};
  bl_status status = bl_daemon_new(c->loop, on_stop, on_reload, c, &c->daemon, err);
  for (size_t i = 0; status == BL_OK && i < BL_COUNT_OF(steps); i++)
    status = steps[i](c, err);
  return status == BL_OK ? write_addresses(c, err) : status;
}

static void close_all(coordinator *c) {
  if (c->http != NULL)
    bl_http_close(c->http);
  bl_timer_close(c->timer);
  bl_socket_close(c->socket);
  co_core_free(c->core);
  if (c->store != NULL)
    c->store->close(c->store);
  bl_daemon_free(c->daemon);
  if (c->loop != NULL)
    bl_loop_free(c->loop);
  if (c->net != NULL)
    bl_net_free(c->net);
}

int main(int argc, char **argv) {
  coordinator c;
  memset(&c, 0, sizeof c);
  bl_net_tune_process();
  if (!bl_daemon_parse(argc, argv, "ballast-coordinator", doc, &c.args)) {
    bl_daemon_args_fini(&c.args);
    return c.args.exit_code;
  }
  c.conf = c.args.conf;
  bl_error err = BL_ERROR_INIT;
  int exit_code = BL_EXIT_FAILED;
  bl_status status = open_all(&c, &err);
  if (status == BL_OK) {
    bl_log_info("ready", "control=%s http=%s state_dir=%s version=%s", c.control,
                c.http_url[0] != '\0' ? c.http_url : "off", BL_LOGQ(c.conf->co.state_dir),
                BL_LOGQ(bl_version_string()));
    bl_daemon_ready(c.daemon);
    bl_daemon_status(c.daemon, "listens on %s", c.control);
    on_tick(&c);
    bl_loop_run(c.loop);
    bl_log_info("stopped", "control=%s", c.control);
    exit_code = BL_EXIT_OK;
  } else {
    bl_log_error("start_failed", "status=%s error=%s", bl_status_name(status), BL_LOGQ(err.text));
    exit_code = bl_daemon_start_exit_code(status);
  }
  close_all(&c);
  bl_daemon_args_fini(&c.args);
  return exit_code;
}
