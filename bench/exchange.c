/* SPDX-License-Identifier: Apache-2.0
 *
 * Time of a clock's exchange without the computation: one session pushes the gradients of the MLP
 * 784-512-256-10 in the order of its backward pass to a real shard thread with Adam, over sockets on
 * loopback, and waits for the new weights. Between the tensors it spins for about as long as the model would
 * compute, serving its socket, so that what overlaps there overlaps here. One JSON line; microseconds, over
 * the clocks:
 *   tail  from the last gradient to the new weights: what the exchange adds to a step
 *   push  inside the session's push and commit
 *   cpu   of both sides and their I/O threads, spinning left out (mean)
 * Usage: exchange [clocks [KiB per chunk]]
 */
#include "base/alloc.h"
#include "base/clock.h"
#include "base/num.h"
#include "client/session.h"
#include "net/socket.h"
#include "server/thread.h"
#include "tests/support/plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define WARM_UP 50
#define HELLO_WAIT_NS (10 * BL_NS_PER_S)

/* From the model's output to its input; spin_us: what comes before the gradient. */
static const struct {
  uint32_t tensor;
  uint64_t spin_us;
} backward[] = {{5, 50}, {4, 20}, {3, 50}, {2, 330}, {1, 350}, {0, 1000}};
static const uint64_t elems[] = {784 * 512, 512, 512 * 256, 256, 256 * 10, 10};
enum { N_TENSORS = 6 };

typedef struct bench {
  bl_loop *loop;
  bl_socket *socket;
  bl_session *session;
  bl_tensor_table *table;
  uint32_t *shard_of_chunk;
  float *grads[N_TENSORS], *weights[N_TENSORS];
  uint64_t next_tick_ns, spun_ns;
} bench;

static void need(bool ok, const char *what) {
  if (ok)
    return;
  fprintf(stderr, "exchange: %s\n", what);
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
}

static uint64_t thread_cpu_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return (uint64_t)t.tv_sec * BL_NS_PER_S + (uint64_t)t.tv_nsec;
}

static void spin(bench *b, uint64_t us) {
  uint64_t begin_ns = thread_cpu_ns(), end_ns = begin_ns + us * 1000;
  while (thread_cpu_ns() < end_ns)
    ;
  b->spun_ns += thread_cpu_ns() - begin_ns;
}

static srv_thread *start_shard(bl_net *net, srv_mailbox *reports, Ballast__Control__JobPlan *plan, uint16_t *ret_port) {
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

static void open_session(bench *b, const Ballast__Control__JobPlan *plan, bl_transport *const *shards) {
  bl_error err = BL_ERROR_INIT;
  need(bl_plan_table(plan, &b->table, &err) == BL_OK, err.text);
  b->shard_of_chunk = bl_calloc(b->table->n_chunks, sizeof *b->shard_of_chunk);
  for (uint32_t i = 0; i < N_TENSORS; i++) {
    b->grads[i] = bl_calloc_aligned(elems[i], sizeof(float));
    b->weights[i] = bl_calloc_aligned(elems[i], sizeof(float));
    need(b->grads[i] != NULL && b->weights[i] != NULL && b->shard_of_chunk != NULL, "no memory");
    for (uint64_t k = 0; k < elems[i]; k++)
      b->grads[i][k] = (float)(k % 1000) * 1e-4f - 0.05f;
  }
  bl_session_config config = {.job = plan->job,
                              .world = 1,
                              .incarnation = 1,
                              .view = 1,
                              .table = b->table,
                              .shard_of_chunk = b->shard_of_chunk,
                              .n_shards = 1,
                              .shards = shards,
                              .retry_ns = BL_NS_PER_S,
                              .weights = b->weights};
  need(bl_plan_codecs(plan, &config.codec_push, &config.codec_pull, &err) == BL_OK, err.text);
  need(bl_session_new(&config, &b->session, &err) == BL_OK, err.text);
}

typedef struct times {
  uint64_t tail, push;
} times;

static times one_clock(bench *b, uint64_t clock) {
  times t = {0, 0};
  uint64_t begin_ns = 0;
  for (size_t i = 0; i < BL_COUNT_OF(backward); i++) {
    spin(b, backward[i].spin_us);
    begin_ns = bl_clock_now_ns();
    bl_session_push(b->session, backward[i].tensor, b->grads[backward[i].tensor], begin_ns);
    t.push += bl_clock_now_ns() - begin_ns;
    serve(b, 0);
  }
  uint64_t commit_ns = bl_clock_now_ns();
  bl_session_commit(b->session, 1, true, 128, commit_ns);
  t.push += bl_clock_now_ns() - commit_ns;
  while (bl_session_weights_version(b->session) != clock + 1 || !bl_session_gradients_free(b->session))
    serve(b, 1000);
  t.tail = bl_clock_now_ns() - begin_ns;
  return t;
}

static int by_value(const void *a, const void *b) {
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return (x > y) - (x < y);
}

static void print_spread(const char *name, uint64_t *ns, size_t n) {
  qsort(ns, n, sizeof *ns, by_value);
  printf(",\"%s_us\":%.0f,\"%s_p10_us\":%.0f,\"%s_p90_us\":%.0f", name, (double)ns[n / 2] / 1e3, name,
         (double)ns[n / 10] / 1e3, name, (double)ns[n - 1 - n / 10] / 1e3);
}

static void measure(bench *b, uint64_t clocks, uint64_t chunk_kib) {
  uint64_t *tail = bl_calloc(clocks, sizeof *tail), *push = bl_calloc(clocks, sizeof *push);
  need(tail != NULL && push != NULL, "no memory");
  for (uint64_t i = 0; i < WARM_UP; i++)
    (void)one_clock(b, i);
  b->spun_ns = 0;
  uint64_t cpu_ns = bl_clock_cpu_ns();
  for (uint64_t i = 0; i < clocks; i++) {
    times t = one_clock(b, WARM_UP + i);
    tail[i] = t.tail;
    push[i] = t.push;
  }
  cpu_ns = bl_clock_cpu_ns() - cpu_ns;
  printf("{\"bench\":\"exchange\",\"clocks\":%llu,\"chunk_kib\":%llu", (unsigned long long)clocks,
         (unsigned long long)chunk_kib);
  print_spread("tail", tail, clocks);
  print_spread("push", push, clocks);
  printf(",\"cpu_us\":%.0f}\n", ((double)cpu_ns - (double)b->spun_ns) / 1e3 / (double)clocks);
  bl_free(tail);
  bl_free(push);
}

int main(int argc, char **argv) {
  uint64_t clocks = argc > 1 ? strtoull(argv[1], NULL, 10) : 1000;
  uint64_t chunk_kib = argc > 2 ? strtoull(argv[2], NULL, 10) : 1024;
  need(clocks > 0 && chunk_kib > 0 && chunk_kib <= 1024, "usage: exchange [clocks [KiB per chunk]]");
  bl_net_tune_process();
  bench b = {0};
  bl_error err = BL_ERROR_INIT;
  bl_net *net, *shard_net; /* two, as in two processes: each has its own I/O thread */
  srv_mailbox *reports;
  uint16_t port;
  char endpoint[64];
  b.loop = bl_loop_new();
  need(b.loop != NULL, "no memory");
  need(bl_net_new(&(bl_net_config){.io_threads = 1}, &net, &err) == BL_OK, err.text);
  need(bl_net_new(&(bl_net_config){.io_threads = 1}, &shard_net, &err) == BL_OK, err.text);
  need(srv_mailbox_open(b.loop, on_report, NULL, &reports, &err) == BL_OK, err.text);
  test_plan_options options = {.job = 7,
                               .world = 1,
                               .n_shards = 1,
                               .tensor_elems = elems,
                               .n_tensors = N_TENSORS,
                               .chunk_elems = chunk_kib * 1024 / sizeof(float),
                               .optimizer = "adam",
                               .lr = 1e-3,
                               .clocks = WARM_UP + clocks};
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
  while (bl_session_weights_version(b.session) != 0)
    serve(&b, 10);
  measure(&b, clocks, chunk_kib);

  srv_thread_stop(shard);
  bl_socket_close(b.socket);
  bl_session_free(b.session);
  srv_mailbox_close(reports, NULL);
  bl_loop_free(b.loop);
  bl_net_free(net);
  bl_net_free(shard_net);
  bl_control_free(&plan->base);
  bl_tensor_table_free(b.table);
  bl_free(b.shard_of_chunk);
  for (uint32_t i = 0; i < N_TENSORS; i++) {
    bl_free_aligned(b.grads[i]);
    bl_free_aligned(b.weights[i]);
  }
  return 0;
}
