/* SPDX-License-Identifier: Apache-2.0
 *
 * Composition root of the server.
 */
#include "server/server.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/num.h"
#include "base/str.h"
#include "daemon/daemon.h"
#include "daemon/security.h"
#include "http/http.h"
#include "kernel/kernel.h"
#include "server/pages.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ROLE "server"
#define HOST_BYTES_MAX 256
#define REPORT_NS BL_NS_PER_S /* how old the numbers on the pages may be */

struct srv_server {
  srv_server_config config;
  char name[BL_CONTROL_NAME_BYTES_MAX];
  char host[HOST_BYTES_MAX], advertise[HOST_BYTES_MAX], http_address[HOST_BYTES_MAX + 24];
  char *endpoints[SRV_SHARDS_MAX]; /* owned */
  uint32_t n_shards;
  bl_net *net;
  bl_keypair keys;
  srv_thread *threads[SRV_SHARDS_MAX];
  srv_mailbox *reports;
  bl_socket *control;
  srv_node *node;
  bl_timer *timer;
  bl_http *http;
  uint64_t report_at;
  bool rejected;
  srv_shard_stats stats[SRV_SHARDS_MAX];
  bl_socket_stats sockets[SRV_SHARDS_MAX];
};

/* ---- addresses and keys ---- */

static const bl_listen_conf *listen_of(const srv_server *s) { return &s->config.conf->server.net; }

static bl_status check_addresses(const srv_server *s, bl_error *err) {
  const bl_listen_conf *l = listen_of(s);
  if (s->n_shards == 0 || s->n_shards > SRV_SHARDS_MAX)
    return bl_fail(err, BL_EINVAL, "server.shards: %u is not in [1, %d]", s->n_shards, SRV_SHARDS_MAX);
  bl_status st = bl_daemon_check_listen(s->config.conf, l, err);
  return st == BL_OK ? bl_daemon_check_coordinator(s->config.conf, err) : st;
}

static bl_status choose_names(srv_server *s, bl_error *err) {
  const bl_cluster_conf *c = s->config.conf;
  if (c->server.host != NULL)
    bl_str_copy(s->host, sizeof s->host, c->server.host);
  else if (gethostname(s->host, sizeof s->host - 1) != 0)
    return bl_fail_errno(err, "cannot find this machine's host name");
  bl_daemon_advertised_host(listen_of(s), s->advertise, sizeof s->advertise);
  return bl_daemon_node_name(s->config.name != NULL ? s->config.name : c->server.name, ROLE, s->name, sizeof s->name, err);
}

static bl_status open_net(srv_server *s, bl_error *err) {
  bl_status st = bl_daemon_read_keys(s->config.conf, ROLE, &s->keys, err);
  if (st == BL_OK && s->keys.secret_key[0] != '\0' && s->config.conf->coordinator_key == NULL)
    st = bl_fail(err, BL_EINVAL, "connect.coordinator_key is missing: with keys, the coordinator's public one must be known");
  return st == BL_OK ? bl_daemon_open_net(s->config.conf, ROLE, &s->net, err) : st;
}

/* ---- shards ---- */

static bl_status start_shard(srv_server *s, uint32_t i, bl_error *err) {
  const bl_cluster_conf *c = s->config.conf;
  const bl_listen_conf *l = listen_of(s);
  uint16_t port = 0;
  srv_thread_config tc = {.net = s->net,
                          .listen = l->listen,
                          .n_listen = l->n_listen,
                          .port = l->port == 0 ? 0 : (uint16_t)(l->port + i),
                          .secured = s->keys.secret_key[0] != '\0',
                          .reports = s->reports};
  tc.shard = (srv_shard_config){.server = s->name,
                                .index = i,
                                .window_bytes = c->server.window_bytes,
                                .hold_bytes_max = c->server.hold_bytes_max,
                                .memory_bytes_max = c->server.memory_bytes / c->server.shards,
                                .log_bytes_max = c->server.log_bytes_max};
  if (l->port != 0 && l->port + i > UINT16_MAX)
    return bl_fail(err, BL_EINVAL, "server.port: %u leaves no port for shard %u", l->port, i);
  bl_status st = srv_thread_start(&tc, &s->threads[i], &port, err);
  if (st != BL_OK)
    return st;
  bl_buf text = BL_BUF_INIT;
  bl_buf_printf(&text, "tcp://%s:%u", s->advertise, port);
  s->endpoints[i] = bl_buf_take_str(&text);
  return s->endpoints[i] != NULL ? BL_OK : bl_fail(err, BL_ENOMEM, "no memory for an endpoint");
}

static bl_status open_job(void *arg, uint32_t shard, Ballast__Control__JobPlan *plan) {
  return srv_thread_open_job(((srv_server *)arg)->threads[shard], plan);
}

static void close_job(void *arg, uint32_t shard, uint64_t job) {
  srv_thread_close_job(((srv_server *)arg)->threads[shard], job);
}

static void schedule(srv_server *s);

static void on_report(srv_letter *letter, void *arg) {
  srv_server *s = arg;
  srv_report *r = (srv_report *)letter;
  s->stats[r->shard] = r->stats;
  s->stats[r->shard].malformed += r->socket.malformed; /* what the socket dropped unread */
  s->sockets[r->shard] = r->socket;
  if (s->node != NULL)
    srv_node_on_report(s->node, r->shard, r->infos, r->n_infos, bl_clock_now_ns());
  bl_free(r);
  schedule(s);
}

/* ---- control ---- */

static void schedule(srv_server *s) {
  if (s->node == NULL || s->timer == NULL)
    return;
  uint64_t now = bl_clock_now_ns();
  if (now >= s->report_at) {
    s->report_at = now + REPORT_NS;
    for (uint32_t i = 0; i < s->n_shards; i++)
      srv_thread_ask_report(s->threads[i]);
  }
  uint64_t next = BL_MIN(srv_node_tick(s->node, now), s->report_at);
  uint64_t wait_ns = next > now ? next - now : 0;
  bl_timer_start(s->timer, (wait_ns + BL_NS_PER_MS - 1) / BL_NS_PER_MS, 0);
  if (srv_node_rejected(s->node) != NULL && !s->rejected) {
    s->rejected = true;
    if (s->config.on_rejected != NULL)
      s->config.on_rejected(s->config.arg);
  }
}

static void on_timer(void *arg) { schedule(arg); }

static void on_control(const bl_peer *from, bl_msg *msg, void *arg) {
  srv_server *s = arg;
  (void)from; /* a DEALER hears only whom it connected to, and with keys only that key's owner */
  if (s->node == NULL)
    return;
  srv_node_on_msg(s->node, msg, bl_clock_now_ns());
  schedule(s);
}

static bl_status open_control(srv_server *s, bl_error *err) {
  const bl_cluster_conf *c = s->config.conf;
  char identity[BL_PEER_ID_BYTES_MAX + 1];
  uint64_t incarnation = bl_clock_wall_ns();
  snprintf(identity, sizeof identity, "s.%.24s.%016" PRIx64, s->name, incarnation);
  bl_socket_config sc = {.kind = BL_SOCKET_DEALER,
                         .identity = identity,
                         .server_key = s->keys.secret_key[0] != '\0' ? c->coordinator_key : NULL,
                         .on_msg = on_control,
                         .arg = s};
  bl_status st = bl_socket_open(s->net, s->config.loop, &sc, &s->control, err);
  if (st == BL_OK)
    st = bl_socket_connect(s->control, c->coordinator, err);
  srv_node_config nc = {.name = s->name,
                        .address = c->coordinator,
                        .build = bl_version_string(),
                        .host = s->host,
                        .rack = c->server.rack,
                        .kernel_table = bl_kernels_get()->name,
                        .status_url = s->http_address,
                        .public_key = s->keys.public_key,
                        .incarnation = incarnation,
                        .endpoints = (const char *const *)s->endpoints,
                        .n_shards = s->n_shards,
                        .memory_bytes = c->server.memory_bytes,
                        .heartbeat_ns = c->co.heartbeat_ns,
                        .lease_ns = c->co.lease_ns,
                        .coordinator = s->control != NULL ? bl_socket_transport(s->control) : NULL,
                        .open_job = open_job,
                        .close_job = close_job,
                        .arg = s};
  return st == BL_OK ? srv_node_new(&nc, &s->node, err) : st;
}

/* ---- status pages ---- */

static bl_status open_http(srv_server *s, bl_error *err) {
  const bl_listen_conf *l = listen_of(s);
  if (l->http_listen == NULL || l->http_listen[0] == '\0')
    return BL_OK;
  char token[BL_DAEMON_TOKEN_BYTES_MAX];
  bl_status st = bl_daemon_read_token(l, token, sizeof token, err);
  if (st == BL_OK)
    st = bl_http_open(s->config.loop, l->http_listen, token, srv_pages, srv_n_pages, s, &s->http, err);
  if (st == BL_OK)
    bl_daemon_http_url(l, bl_http_port(s->http), s->http_address, sizeof s->http_address);
  return st;
}

/* ---- life ---- */

bl_status srv_server_new(const srv_server_config *config, srv_server **ret_server, bl_error *err) {
  srv_server *s = bl_calloc(1, sizeof *s);
  if (s == NULL)
    return bl_fail(err, BL_ENOMEM, "no memory for the server");
  s->config = *config;
  s->n_shards = config->conf->server.shards;
  bl_status st = check_addresses(s, err);
  if (st == BL_OK)
    st = choose_names(s, err);
  if (st == BL_OK)
    st = open_net(s, err);
  if (st == BL_OK)
    st = srv_mailbox_open(config->loop, on_report, s, &s->reports, err);
  for (uint32_t i = 0; st == BL_OK && i < s->n_shards; i++)
    st = start_shard(s, i, err);
  if (st == BL_OK)
    st = open_http(s, err);
  if (st == BL_OK)
    st = open_control(s, err);
  if (st == BL_OK)
    st = bl_timer_new(config->loop, on_timer, s, &s->timer);
  if (st != BL_OK) {
    srv_server_free(s);
    return st;
  }
  schedule(s);
  *ret_server = s;
  return BL_OK;
}

void srv_server_reload(srv_server *s) {
  bl_error err = BL_ERROR_INIT;
  if (bl_daemon_reload_allow(s->config.conf, s->net, &err) == BL_OK)
    bl_log_info("reloaded", "name=%s", s->name);
  else
    bl_log_error("reload_failed", "error=%s", BL_LOGQ(err.text));
}

void srv_server_free(srv_server *s) {
  if (s == NULL)
    return;
  bl_http_close(s->http);
  bl_timer_close(s->timer);
  for (uint32_t i = 0; i < SRV_SHARDS_MAX; i++)
    srv_thread_stop(s->threads[i]);
  bl_socket_close(s->control);
  srv_mailbox_close(s->reports, NULL);
  srv_node_free(s->node);
  if (s->net != NULL)
    bl_net_free(s->net);
  for (uint32_t i = 0; i < SRV_SHARDS_MAX; i++)
    bl_free(s->endpoints[i]);
  bl_free(s);
}

bl_status srv_server_write_addresses(const srv_server *s, const char *path, bl_error *err) {
  json_t *shards = json_array();
  for (uint32_t i = 0; i < s->n_shards; i++)
    json_array_append_new(shards, json_string(s->endpoints[i]));
  json_t *o = json_pack("{s:s, s:o, s:s}", "name", s->name, "shards", shards, "http", s->http_address);
  char *text = o != NULL ? json_dumps(o, JSON_INDENT(2)) : NULL;
  json_decref(o);
  if (text == NULL)
    return bl_fail(err, BL_ENOMEM, "no memory for %s", path);
  bl_status st = bl_file_write_atomic(path, text, strlen(text), 0644, err);
  free(text);
  return st;
}

const char *srv_server_rejected(const srv_server *s) { return s->node != NULL ? srv_node_rejected(s->node) : NULL; }

srv_view srv_server_view(const srv_server *s) {
  return (srv_view){.name = s->name,
                    .coordinator = s->config.conf->coordinator,
                    .http = s->http_address,
                    .node = s->node,
                    .n_shards = s->n_shards,
                    .endpoints = (const char *const *)s->endpoints,
                    .shards = s->stats,
                    .sockets = s->sockets,
                    .refused_handshakes = bl_net_refused_handshakes(s->net),
                    .memory_bytes = s->config.conf->server.memory_bytes};
}
