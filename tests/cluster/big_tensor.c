/* SPDX-License-Identifier: Apache-2.0
 *
 * One tensor of 5 GiB through push and pull, over a real shard thread and a real socket: no count is 32-bit,
 * no message exceeds its bound, and the server needs weights and sums but no third copy. The gradient is made
 * chunk by chunk, so that this side needs no memory for it.
 *
 * In `make check` 96 MiB are enough to try the path; BALLAST_LONG=1 (make check-long) makes it 5 GiB and
 * BALLAST_BIG_TENSOR_MIB anything.
 */
#include "base/alloc.h"
#include "base/clock.h"
#include "base/num.h"
#include "base/str.h"
#include "server/thread.h"
#include "tests/support/plan.h"
#include "wire/pools.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK_ELEMS (1u << 18)
#define IN_FLIGHT 8
#define DEADLINE_NS (900 * BL_NS_PER_S)
#define MESSAGE_BYTES_MAX ((1u << 20) + 4096)

static void expect_at(bool ok, const char *what, int line) {
  if (ok)
    return;
  fprintf(stderr, "big_tensor.c:%d: %s\n", line, what);
  exit(1);
}
#define expect(cond) expect_at((cond), #cond, __LINE__)

typedef enum phase { HELLO = 1, PUSHING, COMMITTED, PULLING, DONE } phase;

typedef struct big {
  bl_loop *loop;
  bl_socket *socket;
  bl_timer *timer;
  bl_frame_pools pools;
  phase phase;
  uint32_t n_chunks, next, n_back;
  uint64_t started_ns, phase_ns, largest_message;
  float *x, *got; /* [CHUNK_ELEMS] */
} big;

/* Exact in float32, different for every element of the tensor's chunk and for every chunk. */
static void make_chunk(uint32_t chunk, float *x) {
  uint32_t v = chunk * 2654435761u;
  for (uint32_t i = 0; i < CHUNK_ELEMS; i++) {
    v = v * 1664525u + 1013904223u;
    x[i] = (float)(int32_t)(v >> 8) - 8388608.0f;
  }
}

static bool say(big *b, const bl_data_msg *d, bl_frame *frame) {
  bl_msg m = BL_MSG_INIT;
  if (frame != NULL)
    expect(bl_msg_add_frame(&m, frame) == BL_OK);
  expect(bl_data_pack(d, frame != NULL, &m) == BL_OK);
  b->largest_message = BL_MAX(b->largest_message, bl_msg_bytes(&m));
  bl_status st = bl_transport_send(bl_socket_transport(b->socket), NULL, &m);
  bl_msg_fini(&m);
  expect(st == BL_OK || st == BL_EAGAIN);
  return st == BL_OK;
}

static void hello(big *b) {
  bl_data_msg d = {.type = BL_MSG_HELLO};
  d.hello = (bl_hello){.protocol_min = 1, .protocol_max = 1, .job = 7, .incarnation = 1, .view = 1};
  (void)!say(b, &d, NULL);
}

static void push_one(big *b) {
  static bl_data_msg d = {.type = BL_MSG_PUSH};
  d.push = (bl_push){.job = 7, .view = 1, .incarnation = 1, .request = b->next + 1, .n_chunks = 1};
  d.push.chunks[0] = b->next;
  bl_frame *f = bl_frame_pools_take(&b->pools, bl_codec_bound_bytes(&bl_codec_spec_exact, CHUNK_ELEMS));
  expect(f != NULL);
  make_chunk(b->next, b->x);
  f->size = bl_codec_encode_exact(b->x, CHUNK_ELEMS, 0, f->data);
  expect(say(b, &d, f));
  b->next++;
}

static void pull_one(big *b) {
  static bl_data_msg d = {.type = BL_MSG_PULL};
  d.pull = (bl_pull){.job = 7, .view = 1, .incarnation = 1, .request = b->next + 1, .n_chunks = 1};
  d.pull.have_nothing = true;
  d.pull.want = 1;
  d.pull.chunks[0] = b->next;
  expect(say(b, &d, NULL));
  b->next++;
}

static void commit(big *b) {
  bl_data_msg d = {.type = BL_MSG_COMMIT};
  d.commit = (bl_commit){
      .job = 7, .view = 1, .incarnation = 1, .request = 1, .scale = 1, .n_samples = 1, .n_chunks = b->n_chunks};
  expect(say(b, &d, NULL));
}

static void report(big *b, const char *what) {
  uint64_t now = bl_clock_now_ns();
  double s = (double)(now - b->phase_ns) / 1e9, gb = (double)b->n_chunks * CHUNK_ELEMS * sizeof(float) / 1e9;
  printf("%s: %.2f GB in %.2f s, %.2f GB/s\n", what, gb, s, gb / s);
  b->phase_ns = now;
}

static void enter(big *b, phase p) {
  b->phase = p;
  b->next = b->n_back = 0;
  while (b->next < BL_MIN((uint32_t)IN_FLIGHT, b->n_chunks) && (p == PUSHING || p == PULLING))
    p == PUSHING ? push_one(b) : pull_one(b);
}

static void on_ack(big *b, const bl_ack *a) {
  if (a->commit) {
    expect(b->phase == COMMITTED);
    enter(b, PULLING);
    return;
  }
  b->n_back += a->n_chunks;
  if (b->next < b->n_chunks)
    push_one(b);
  if (b->n_back < b->n_chunks)
    return;
  report(b, "push");
  b->phase = COMMITTED;
  commit(b);
}

static void on_frames(big *b, const bl_frames *f, const bl_msg *m) {
  for (uint32_t i = 0; i < f->n_chunks; i++) {
    bl_error err = BL_ERROR_INIT;
    expect(f->to[i] == 1);
    expect(bl_codec_apply(m->frames[i]->data, m->frames[i]->size, CHUNK_ELEMS, b->got, &err) == BL_OK);
    make_chunk(f->chunks[i], b->x);
    for (uint32_t k = 0; k < CHUNK_ELEMS; k++)
      expect(b->got[k] == -b->x[k]); /* from zero, one step of rate 1 */
    b->n_back++;
    if (b->next < b->n_chunks)
      pull_one(b);
  }
  if (b->n_back < b->n_chunks)
    return;
  report(b, "step and pull");
  b->phase = DONE;
}

static void on_msg(const bl_peer *from, bl_msg *m, void *arg) {
  big *b = arg;
  static bl_data_msg d;
  bl_error err = BL_ERROR_INIT;
  (void)from;
  expect(bl_data_unpack(m, &d, &err) == BL_OK);
  b->largest_message = BL_MAX(b->largest_message, bl_msg_bytes(m));
  if (d.type == BL_MSG_REFUSE && b->phase != HELLO)
    fprintf(stderr, "refused: %s\n", d.refuse.text);
  expect(d.type != BL_MSG_REFUSE || b->phase == HELLO); /* still opening */
  if (d.type == BL_MSG_WELCOME && b->phase == HELLO) {
    bl_timer_stop(b->timer);
    report(b, "open");
    enter(b, PUSHING);
  } else if (d.type == BL_MSG_ACK) {
    on_ack(b, &d.ack);
  } else if (d.type == BL_MSG_FRAMES) {
    on_frames(b, &d.frames, m);
  }
}

static void on_timer(void *arg) { hello(arg); }
static void on_report(srv_letter *l, void *arg) {
  (void)arg;
  bl_free(l);
}

static uint64_t tensor_mib(void) {
  uint64_t mib = getenv("BALLAST_LONG") != NULL ? 5 * 1024 : 96;
  const char *text = getenv("BALLAST_BIG_TENSOR_MIB");
  if (text != NULL)
    expect(bl_str_to_u64(text, &mib) == BL_OK && mib > 0);
  return mib;
}

static uint64_t peak_bytes(void) {
  char line[256];
  uint64_t kib = 0;
  FILE *f = fopen("/proc/self/status", "r");
  while (f != NULL && fgets(line, sizeof line, f) != NULL)
    if (sscanf(line, "VmHWM: %" SCNu64, &kib) == 1)
      break;
  if (f != NULL)
    fclose(f);
  return kib * 1024;
}

static srv_thread *start_shard(bl_net *net, srv_mailbox *reports, uint64_t bytes, uint16_t *ret_port) {
  bl_error err = BL_ERROR_INIT;
  static const char *const listen[] = {"127.0.0.1"};
  srv_thread_config config = {.net = net, .listen = listen, .n_listen = 1, .reports = reports};
  config.shard = (srv_shard_config){
      .server = "s0", .window_bytes = 8 << 20, .hold_bytes_max = 64 << 20, .log_bytes_max = 64 << 20};
  srv_thread *t;
  expect(srv_thread_start(&config, &t, ret_port, &err) == BL_OK);
  uint64_t elems = bytes / sizeof(float);
  Ballast__Control__JobPlan *plan = test_plan_new(&(test_plan_options){.job = 7,
                                                                       .world = 1,
                                                                       .n_shards = 1,
                                                                       .tensor_elems = &elems,
                                                                       .n_tensors = 1,
                                                                       .chunk_elems = CHUNK_ELEMS,
                                                                       .lr = 1,
                                                                       .init = BL_INIT_ZERO});
  expect(srv_thread_open_job(t, plan) == BL_OK);
  return t;
}

int main(void) {
  uint64_t bytes = tensor_mib() << 20;
  bl_net_tune_process();
  big b = {.phase = HELLO, .n_chunks = (uint32_t)(bytes / sizeof(float) / CHUNK_ELEMS)};
  bl_error err = BL_ERROR_INIT;
  bl_net *net;
  srv_mailbox *reports;
  uint16_t port;
  char endpoint[64];
  expect(b.n_chunks > 0);
  b.loop = bl_loop_new();
  b.x = malloc(CHUNK_ELEMS * sizeof(float));
  b.got = malloc(CHUNK_ELEMS * sizeof(float));
  expect(b.loop != NULL && b.x != NULL && b.got != NULL);
  expect(bl_frame_pools_init(&b.pools, bl_codec_bound_bytes(&bl_codec_spec_exact, CHUNK_ELEMS), 16) == BL_OK);
  expect(bl_net_new(&(bl_net_config){.io_threads = 1}, &net, &err) == BL_OK);
  expect(srv_mailbox_open(b.loop, on_report, NULL, &reports, &err) == BL_OK);
  srv_thread *shard = start_shard(net, reports, bytes, &port);
  bl_socket_config sc = {.kind = BL_SOCKET_DEALER, .identity = "j7.r0.i1", .on_msg = on_msg, .arg = &b};
  expect(bl_socket_open(net, b.loop, &sc, &b.socket, &err) == BL_OK);
  snprintf(endpoint, sizeof endpoint, "tcp://127.0.0.1:%u", port);
  expect(bl_socket_connect(b.socket, endpoint, &err) == BL_OK);
  expect(bl_timer_new(b.loop, on_timer, &b, &b.timer) == BL_OK);
  b.started_ns = b.phase_ns = bl_clock_now_ns();
  bl_timer_start(b.timer, 0, 50);
  while (b.phase != DONE && bl_clock_now_ns() - b.started_ns < DEADLINE_NS)
    bl_loop_run_once(b.loop, 100);
  expect(b.phase == DONE);
  printf("largest message %" PRIu64 " bytes, peak memory %.2f GiB\n", b.largest_message,
         (double)peak_bytes() / (1u << 30));
  expect(b.largest_message <= MESSAGE_BYTES_MAX);
  expect(peak_bytes() < 2 * bytes + (UINT64_C(1) << 30));

  srv_thread_stop(shard);
  bl_timer_close(b.timer);
  bl_socket_close(b.socket);
  srv_mailbox_close(reports, NULL);
  bl_loop_free(b.loop);
  bl_net_free(net);
  bl_frame_pools_fini(&b.pools);
  free(b.x);
  free(b.got);
  return 0;
}
