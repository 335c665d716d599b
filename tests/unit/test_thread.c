/* SPDX-License-Identifier: Apache-2.0
 *
 * A shard's thread with keys: who may speak to it.
 */
#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "net/keys.h"
#include "server/thread.h"
#include "tests/support/support.h"

#include <stdio.h>
#include <string.h>

#define DEADLINE_NS (20 * BL_NS_PER_S)

typedef struct rig {
  bl_loop *loop;
  srv_mailbox *reports;
  bl_socket_stats socket; /* of the last report */
  srv_shard_stats shard;
} rig;

static void on_report(srv_letter *letter, void *arg) {
  rig *g = arg;
  const srv_report *r = (const srv_report *)letter;
  g->socket = r->socket;
  g->shard = r->stats;
  bl_free(letter);
}

static void ignore(const bl_peer *from, bl_msg *msg, void *arg) {
  (void)from, (void)msg, (void)arg;
}

static bl_net *net_new(const bl_keypair *keys, const bl_allow_entry *allow, size_t n) {
  bl_net_config c = {.keys = *keys, .allow = allow, .n_allow = n};
  bl_net *net;
  bl_error err = BL_ERROR_INIT;
  ck_assert_ok_err(bl_net_new(&c, &net, &err), err);
  return net;
}

static void say_hello(bl_socket *s) {
  bl_msg m = BL_MSG_INIT;
  bl_data_msg d = {.type = BL_MSG_HELLO};
  d.hello = (bl_hello){.protocol_min = 1, .protocol_max = 1, .job = 7, .view = 1};
  ck_assert_ok(bl_data_pack(&d, 0, &m));
  ck_assert_ok(bl_transport_send(bl_socket_transport(s), NULL, &m));
}

static const struct {
  bl_role role;
  bool may_speak;
} roles[] = {
    {BL_ROLE_WORKER, true},  {BL_ROLE_COORDINATOR, false}, {BL_ROLE_SERVER, false},
    {BL_ROLE_ADMIN, false},  {BL_ROLE_USER, false},        {BL_ROLE_VIEWER, false},
};

START_TEST(with_keys_only_workers_speak_to_a_shard) {
  static const char *const listen[] = {"127.0.0.1"};
  bl_error err = BL_ERROR_INIT;
  rig g = {.loop = bl_loop_new()};
  bl_keypair server_keys, keys;
  ck_assert_ok(bl_keys_generate(&server_keys, NULL));
  ck_assert_ok(bl_keys_generate(&keys, NULL));
  bl_allow_entry allow = {.role = roles[_i].role, .name = "peer"};
  memcpy(allow.public_key, keys.public_key, sizeof allow.public_key);
  bl_net *server_net = net_new(&server_keys, &allow, 1), *net = net_new(&keys, NULL, 0);
  ck_assert_ok(srv_mailbox_open(g.loop, on_report, &g, &g.reports, NULL));
  srv_thread_config config = {.net = server_net,
                              .listen = listen,
                              .n_listen = 1,
                              .secured = true,
                              .reports = g.reports,
                              .shard = {.server = "s0", .window_bytes = 4096, .hold_bytes_max = 4096}};
  srv_thread *thread;
  uint16_t port;
  ck_assert_ok_err(srv_thread_start(&config, &thread, &port, &err), err);
  bl_socket_config sc = {.kind = BL_SOCKET_DEALER, .server_key = server_keys.public_key, .on_msg = ignore};
  bl_socket *socket;
  ck_assert_ok_err(bl_socket_open(net, g.loop, &sc, &socket, &err), err);
  char endpoint[64];
  snprintf(endpoint, sizeof endpoint, "tcp://127.0.0.1:%u", port);
  ck_assert_ok_err(bl_socket_connect(socket, endpoint, &err), err);
  say_hello(socket);
  for (uint64_t due = bl_clock_now_ns() + DEADLINE_NS; g.socket.messages_in == 0 && bl_clock_now_ns() < due;) {
    srv_thread_ask_report(thread);
    bl_loop_run_once(g.loop, 10);
  }
  ck_assert_uint_eq(g.socket.messages_in, 1);
  ck_assert_uint_eq(g.shard.messages, roles[_i].may_speak ? 1 : 0);
  bl_socket_close(socket);
  srv_thread_stop(thread);
  srv_mailbox_close(g.reports, NULL);
  bl_loop_free(g.loop);
  bl_net_free(net);
  bl_net_free(server_net);
}
END_TEST

int main(void) {
  bl_log_set_level(BL_LOG_ERROR);
  Suite *s = suite_create("thread");
  TCase *t = tcase_create("thread");
  tcase_set_timeout(t, 60);
  tcase_add_loop_test(t, with_keys_only_workers_speak_to_a_shard, 0, (int)(sizeof roles / sizeof roles[0]));
  suite_add_tcase(s, t);
  return test_run(&s, 1);
}
