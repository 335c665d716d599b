/* SPDX-License-Identifier: Apache-2.0
 *
 * Rows of a table, without a model: one session pulls the rows of a batch from a real shard thread over sockets
 * on loopback, pushes a gradient for them, commits, and asks for the next batch's rows at once. Rows are drawn
 * so that some are in every batch and most in few, as hashed features are. JSON lines for lists that come again
 * (16 batches in turn), for new ones in every clock, of which the cache of keys saves the second sending, and
 * without that cache: rows_per_s        distinct rows pulled and pushed, per second up_bytes_per_row  sent by
 * the rank: keys and gradient of pull and push, headers included down_bytes_per_row keys_bytes_per_row  of them
 * keys us_per_clock      median; cpu_us of both sides and their I/O threads (mean) Usage: rows [clocks [draws
 * per batch [width [optimizer]]]]
 */
#include "base/alloc.h"
#include "base/clock.h"
#include "base/num.h"
#include "base/rng.h"
#include "client/session.h"
#include "net/socket.h"
#include "server/thread.h"
#include "tests/support/plan.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define WARM_UP 20
#define LISTS_AGAIN 16
#define ROWS (UINT64_C(1) << 24)
#define HELLO_WAIT_NS (10 * BL_NS_PER_S)

typedef struct bench {
  bl_loop *loop;
  bl_socket *socket;
  bl_session *session;
  bl_tensor_table *table;
  uint32_t *shard_of_chunk;
  uint64_t **rows; /* [n_lists], used in turn */
  uint32_t *n_rows, n_lists;
  float *values, *grad;
  uint64_t next_tick_ns;
} bench;

static void need(bool ok, const char *what) {
  if (ok)
    return;
  fprintf(stderr, "rows: %s\n", what);
  exit(1);
}

static void on_msg(const bl_peer *from, bl_msg *msg, void *arg) {
  (void)from;
  bl_session_on_msg(((bench *)arg)->session, 0, msg, bl_clock_now_ns());
}

static void on_report(srv_letter *l, void *arg) {
  (void)arg;
  bl_free(l);
}

static void serve(bench *b, int wait_ms) {
  bl_loop_run_once(b->loop, wait_ms);
  uint64_t now_ns = bl_clock_now_ns();
  if (now_ns >= b->next_tick_ns)
    b->next_tick_ns = bl_session_tick(b->session, now_ns);
  bl_error err = BL_ERROR_INIT;
  need(bl_session_status(b->session, &err) == BL_OK, err.text);
}

static int by_value(const void *a, const void *b) {
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return (x > y) - (x < y);
}

static void draw_lists(bench *b, uint32_t n_draws, uint64_t width) {
  uint32_t most = 0;
  b->rows = bl_calloc(b->n_lists, sizeof *b->rows);
  b->n_rows = bl_calloc(b->n_lists, sizeof *b->n_rows);
  need(b->rows != NULL && b->n_rows != NULL, "no memory");
  for (uint32_t i = 0; i < b->n_lists; i++) {
    uint64_t *rows = b->rows[i] = bl_calloc(n_draws, sizeof *rows);
    need(rows != NULL, "no memory");
    for (uint32_t k = 0; k < n_draws; k++) {
      double u = (double)bl_rng_unit(1, i, k);
      uint64_t feature = (uint64_t)(pow(u, 6) * (double)ROWS); /* a few are frequent */
      rows[k] = bl_rng_below(2, 0, feature, ROWS);             /* hashed */
    }
    qsort(rows, n_draws, sizeof *rows, by_value);
    uint32_t n = 0;
    for (uint32_t k = 0; k < n_draws; k++)
      if (n == 0 || rows[n - 1] != rows[k])
        rows[n++] = rows[k];
    b->n_rows[i] = n;
    most = BL_MAX(most, n);
  }
  b->values = bl_calloc_aligned(most * width, sizeof(float));
  b->grad = bl_calloc_aligned(most * width, sizeof(float));
  need(b->values != NULL && b->grad != NULL, "no memory");
  for (uint64_t i = 0; i < most * width; i++)
    b->grad[i] = (float)(i % 1000) * 1e-4f - 0.05f;
}

static void open_session(bench *b, const Ballast__Control__JobPlan *plan, bl_transport *const *shards) {
  bl_error err = BL_ERROR_INIT;
  need(bl_plan_table(plan, &b->table, &err) == BL_OK, err.text);
  b->shard_of_chunk = bl_calloc(b->table->n_chunks, sizeof *b->shard_of_chunk);
  need(b->shard_of_chunk != NULL, "no memory");
  bl_session_config config = {.job = plan->job,
                              .world = 1,
                              .incarnation = 1,
                              .view = 1,
                              .table = b->table,
                              .shard_of_chunk = b->shard_of_chunk,
                              .n_shards = 1,
                              .shards = shards,
                              .caches_keys = plan->key_cache_bytes > 0,
                              .retry_ns = BL_NS_PER_S};
  need(bl_plan_codecs(plan, &config.codec_push, &config.codec_pull, &err) == BL_OK, err.text);
  need(bl_session_new(&config, &b->session, &err) == BL_OK, err.text);
}

static void pull(bench *b, uint64_t clock) {
  uint32_t i = (uint32_t)(clock % b->n_lists);
  bl_session_pull_rows(b->session, 0, clock, b->rows[i], b->n_rows[i], b->values, bl_clock_now_ns());
}

/* From the rows' arrival to that of the next. */
static void one_clock(bench *b, uint64_t clock) {
  uint32_t i = (uint32_t)(clock % b->n_lists);
  bl_session_push_rows(b->session, 0, b->rows[i], b->n_rows[i], b->grad, bl_clock_now_ns());
  bl_session_commit(b->session, 1, true, 1, bl_clock_now_ns());
  pull(b, clock + 1);
  while (bl_session_weights_version(b->session) != clock + 1 || !bl_session_gradients_free(b->session) ||
         !bl_session_rows_ready(b->session, 0))
    serve(b, 1000);
}

typedef struct mode {
  const char *name;
  bool again, cache;
} mode;

static void measure(bench *b, uint64_t clocks, uint64_t width, const char *optimizer, const mode *m) {
  uint64_t *ns = bl_calloc(clocks, sizeof *ns);
  need(ns != NULL, "no memory");
  for (uint64_t i = 0; i < WARM_UP; i++)
    one_clock(b, i);
  bl_session_stats before = bl_session_get_stats(b->session);
  uint64_t begin_ns = bl_clock_now_ns(), cpu_ns = bl_clock_cpu_ns();
  for (uint64_t i = 0; i < clocks; i++) {
    uint64_t at_ns = bl_clock_now_ns();
    one_clock(b, WARM_UP + i);
    ns[i] = bl_clock_now_ns() - at_ns;
  }
  cpu_ns = bl_clock_cpu_ns() - cpu_ns;
  double s = (double)(bl_clock_now_ns() - begin_ns) / 1e9;
  bl_session_stats after = bl_session_get_stats(b->session);
  double rows = (double)(after.rows_pushed - before.rows_pushed);
  qsort(ns, clocks, sizeof *ns, by_value);
  printf(
      "{\"bench\":\"rows\",\"mode\":\"%s\",\"clocks\":%llu,\"width\":%llu,\"optimizer\":\"%s\",\"rows_per_"
      "clock\":%.0f,"
      "\"rows_per_s\":%.0f,\"up_bytes_per_row\":%.2f,\"down_bytes_per_row\":%.2f,\"keys_bytes_per_row\":%.2f,"
      "\"us_per_clock\":%.0f,\"us_p10\":%.0f,\"us_p90\":%.0f,\"cpu_us\":%.0f}\n",
      m->name, (unsigned long long)clocks, (unsigned long long)width, optimizer, rows / (double)clocks,
      rows / s, (double)(after.bytes_pushed - before.bytes_pushed) / rows,
      (double)(after.bytes_pulled - before.bytes_pulled) / rows,
      (double)(after.keys_sent_bytes - before.keys_sent_bytes) / rows, (double)ns[clocks / 2] / 1e3,
      (double)ns[clocks / 10] / 1e3, (double)ns[clocks - 1 - clocks / 10] / 1e3,
      (double)cpu_ns / 1e3 / (double)clocks);
  bl_free(ns);
}

static srv_thread *start_shard(bl_net *net, srv_mailbox *reports, Ballast__Control__JobPlan *plan,
                               uint16_t *ret_port) {
  static const char *const listen[] = {"127.0.0.1"};
  srv_thread_config config = {.net = net, .listen = listen, .n_listen = 1, .reports = reports};
  config.shard = (srv_shard_config){
      .server = "s0", .window_bytes = 8 << 20, .hold_bytes_max = 64 << 20, .log_bytes_max = 64 << 20};
  bl_error err = BL_ERROR_INIT;
  srv_thread *t;
  need(srv_thread_start(&config, &t, ret_port, &err) == BL_OK, err.text);
  need(srv_thread_open_job(t, plan) == BL_OK, "no memory for an order");
  return t;
}

static void run(uint64_t clocks, uint32_t n_draws, uint64_t width, const char *optimizer, const mode *m) {
  bench b = {.n_lists = m->again ? LISTS_AGAIN : (uint32_t)(WARM_UP + clocks + 1)};
  bl_error err = BL_ERROR_INIT;
  bl_net *net, *shard_net; /* two, as in two processes: each has its own I/O thread */
  srv_mailbox *reports;
  uint16_t port;
  char endpoint[64];
  static const uint64_t none[] = {0};
  const test_table tables[] = {{ROWS, width}};
  b.loop = bl_loop_new();
  need(b.loop != NULL, "no memory");
  need(bl_net_new(&(bl_net_config){.io_threads = 1}, &net, &err) == BL_OK, err.text);
  need(bl_net_new(&(bl_net_config){.io_threads = 1}, &shard_net, &err) == BL_OK, err.text);
  need(srv_mailbox_open(b.loop, on_report, NULL, &reports, &err) == BL_OK, err.text);
  test_plan_options options = {.job = 7,
                               .world = 1,
                               .n_shards = 1,
                               .tensor_elems = none,
                               .tables = tables,
                               .n_tables = 1,
                               .chunk_elems = BL_CODEC_ELEMS_MAX,
                               .key_cache_bytes = m->cache ? 64 << 20 : 0,
                               .optimizer = optimizer,
                               .init = BL_INIT_ZERO,
                               .lr = 1e-3,
                               .clocks = WARM_UP + clocks + 1};
  draw_lists(&b, n_draws, width);
  Ballast__Control__JobPlan *plan = test_plan_new(&options);
  srv_thread *shard = start_shard(shard_net, reports, test_plan_new(&options), &port);
  bl_socket_config sc = {.kind = BL_SOCKET_DEALER, .identity = "j7.r0.i1", .on_msg = on_msg, .arg = &b};
  need(bl_socket_open(net, b.loop, &sc, &b.socket, &err) == BL_OK, err.text);
  bl_transport *transport = bl_socket_transport(b.socket);
  open_session(&b, plan, &transport);
  snprintf(endpoint, sizeof endpoint, "tcp://127.0.0.1:%u", port);
  need(bl_socket_connect(b.socket, endpoint, &err) == BL_OK, err.text);
  uint64_t deadline_ns = bl_clock_now_ns() + HELLO_WAIT_NS;
  bl_session_start(b.session, bl_clock_now_ns());
  while (!bl_session_is_ready(b.session) && bl_clock_now_ns() < deadline_ns)
    serve(&b, 10);
  need(bl_session_is_ready(b.session), "the shard does not answer");
  bl_session_pull(b.session, 0, bl_clock_now_ns());
  pull(&b, 0);
  while (bl_session_weights_version(b.session) != 0 || !bl_session_rows_ready(b.session, 0))
    serve(&b, 10);
  measure(&b, clocks, width, optimizer, m);

  srv_thread_stop(shard);
  bl_socket_close(b.socket);
  bl_session_free(b.session);
  srv_mailbox_close(reports, NULL);
  bl_loop_free(b.loop);
  bl_net_free(net);
  bl_net_free(shard_net);
  bl_tensor_table_free(b.table);
  bl_control_free(&plan->base);
  for (uint32_t i = 0; i < b.n_lists; i++)
    bl_free(b.rows[i]);
  bl_free(b.rows);
  bl_free(b.n_rows);
  bl_free(b.shard_of_chunk);
  bl_free_aligned(b.values);
  bl_free_aligned(b.grad);
}

int main(int argc, char **argv) {
  uint64_t clocks = argc > 1 ? strtoull(argv[1], NULL, 10) : 200;
  uint64_t draws = argc > 2 ? strtoull(argv[2], NULL, 10) : 100000;
  uint64_t width = argc > 3 ? strtoull(argv[3], NULL, 10) : 1;
  const char *optimizer = argc > 4 ? argv[4] : "sgd";
  need(clocks > 0 && clocks <= 10000 && draws > 0 && draws <= 10000000 && width > 0 && width <= 1024,
       "usage: rows [clocks [draws per batch [width [optimizer]]]]");
  bl_net_tune_process();
  static const mode modes[] = {{"again", true, true}, {"new", false, true}, {"no cache", false, false}};
  for (size_t i = 0; i < BL_COUNT_OF(modes); i++)
    run(clocks, (uint32_t)draws, width, optimizer, &modes[i]);
  return 0;
}
