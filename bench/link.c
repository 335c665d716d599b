/* SPDX-License-Identifier: Apache-2.0
 *
 * A session and a shard on loopback.
 */
#include "bench/link.h"

#include "base/alloc.h"
#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>

#define HELLO_WAIT_NS (10 * BL_NS_PER_S)

void bench_need(bool ok, const char *what) {
  if (ok)
    return;
  fprintf(stderr, "bench: %s\n", what);
  exit(1);
}

int bench_by_value(const void *a, const void *b) {
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return (x > y) - (x < y);
}

static void on_msg(const bl_peer *from, bl_msg *msg, void *arg) {
  (void)from;
  bl_session_on_msg(((bench_link *)arg)->session, 0, msg, bl_clock_now_ns());
}

static void on_report(srv_letter *l, void *arg) {
  (void)arg;
  bl_free(l);
}

void bench_link_serve(bench_link *l, int wait_ms) {
  bl_loop_run_once(l->loop, wait_ms);
  uint64_t now_ns = bl_clock_now_ns();
  if (now_ns >= l->next_tick_ns)
    l->next_tick_ns = bl_session_tick(l->session, now_ns);
  bl_error err = BL_ERROR_INIT;
  bench_need(bl_session_status(l->session, &err) == BL_OK, err.text);
}

static uint16_t start_shard(bench_link *l, const test_plan_options *options) {
  static const char *const listen[] = {"127.0.0.1"};
  srv_thread_config config = {.net = l->shard_net, .listen = listen, .n_listen = 1, .reports = l->reports};
  config.shard = (srv_shard_config){
      .server = "s0", .window_bytes = 8 << 20, .hold_bytes_max = 64 << 20, .log_bytes_max = 64 << 20};
  bl_error err = BL_ERROR_INIT;
  uint16_t port;
  bench_need(srv_thread_start(&config, &l->shard, &port, &err) == BL_OK, err.text);
  bench_need(srv_thread_open_job(l->shard, test_plan_new(options)) == BL_OK, "no memory for an order");
  return port;
}

static void open_session(bench_link *l, bl_transport *const *shards, float *const *weights) {
  bl_error err = BL_ERROR_INIT;
  bench_need(bl_plan_table(l->plan, &l->table, &err) == BL_OK, err.text);
  l->shard_of_chunk = bl_calloc(l->table->n_chunks, sizeof *l->shard_of_chunk);
  bench_need(l->shard_of_chunk != NULL, "no memory");
  bl_session_config config = {.job = l->plan->job,
                              .world = 1,
                              .incarnation = 1,
                              .view = 1,
                              .table = l->table,
                              .shard_of_chunk = l->shard_of_chunk,
                              .n_shards = 1,
                              .shards = shards,
                              .caches_keys = l->plan->key_cache_bytes > 0,
                              .retry_ns = BL_NS_PER_S,
                              .weights = weights};
  config.seed = l->plan->seed;
  bench_need(bl_session_new(&config, &l->session, &err) == BL_OK, err.text);
}

static void say_hello(bench_link *l) {
  uint64_t deadline_ns = bl_clock_now_ns() + HELLO_WAIT_NS;
  bl_session_start(l->session, bl_clock_now_ns());
  while (!bl_session_is_ready(l->session) && bl_clock_now_ns() < deadline_ns)
    bench_link_serve(l, 10);
  bench_need(bl_session_is_ready(l->session), "the shard does not answer");
  bl_session_pull(l->session, 0, bl_clock_now_ns());
}

void bench_link_open(bench_link *l, const test_plan_options *options, float *const *weights) {
  bl_error err = BL_ERROR_INIT;
  char endpoint[64];
  *l = (bench_link){.loop = bl_loop_new(), .plan = test_plan_new(options)};
  bench_need(l->loop != NULL, "no memory");
  bench_need(bl_net_new(&(bl_net_config){.io_threads = 1}, &l->net, &err) == BL_OK, err.text);
  bench_need(bl_net_new(&(bl_net_config){.io_threads = 1}, &l->shard_net, &err) == BL_OK, err.text);
  bench_need(srv_mailbox_open(l->loop, on_report, NULL, &l->reports, &err) == BL_OK, err.text);
  uint16_t port = start_shard(l, options);
  bl_socket_config socket = {.kind = BL_SOCKET_DEALER, .identity = "j7.r0.i1", .on_msg = on_msg, .arg = l};
  bench_need(bl_socket_open(l->net, l->loop, &socket, &l->socket, &err) == BL_OK, err.text);
  bl_transport *transport = bl_socket_transport(l->socket);
  open_session(l, &transport, weights);
  snprintf(endpoint, sizeof endpoint, "tcp://127.0.0.1:%u", port);
  bench_need(bl_socket_connect(l->socket, endpoint, &err) == BL_OK, err.text);
  say_hello(l);
}

void bench_link_close(bench_link *l) {
  srv_thread_stop(l->shard);
  bl_socket_close(l->socket);
  bl_session_free(l->session);
  srv_mailbox_close(l->reports, NULL);
  bl_loop_free(l->loop);
  bl_net_free(l->net);
  bl_net_free(l->shard_net);
  bl_control_free(&l->plan->base);
  bl_tensor_table_free(l->table);
  bl_free(l->shard_of_chunk);
}
