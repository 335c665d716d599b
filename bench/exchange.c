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
#include "bench/link.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define WARM_UP 50

/* From the model's output to its input; spin_us: what comes before the gradient. */
static const struct {
  uint32_t tensor;
  uint64_t spin_us;
} backward[] = {{5, 50}, {4, 20}, {3, 50}, {2, 330}, {1, 350}, {0, 1000}};
static const uint64_t elems[] = {784 * 512, 512, 512 * 256, 256, 256 * 10, 10};
enum { N_TENSORS = 6 };

typedef struct bench {
  bench_link link;
  float *grads[N_TENSORS], *weights[N_TENSORS];
  uint64_t spun_ns;
} bench;

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

static void make_arrays(bench *b) {
  for (uint32_t i = 0; i < N_TENSORS; i++) {
    b->grads[i] = bl_calloc_aligned(elems[i], sizeof(float));
    b->weights[i] = bl_calloc_aligned(elems[i], sizeof(float));
    bench_need(b->grads[i] != NULL && b->weights[i] != NULL, "no memory");
    for (uint64_t k = 0; k < elems[i]; k++)
      b->grads[i][k] = (float)(k % 1000) * 1e-4f - 0.05f;
  }
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
    bl_session_push(b->link.session, backward[i].tensor, b->grads[backward[i].tensor], begin_ns);
    t.push += bl_clock_now_ns() - begin_ns;
    bench_link_serve(&b->link, 0);
  }
  uint64_t commit_ns = bl_clock_now_ns();
  bl_session_commit(b->link.session, 1, true, 128, commit_ns);
  t.push += bl_clock_now_ns() - commit_ns;
  while (bl_session_weights_version(b->link.session) != clock + 1 || !bl_session_gradients_free(b->link.session))
    bench_link_serve(&b->link, 1000);
  t.tail = bl_clock_now_ns() - begin_ns;
  return t;
}

static void print_spread(const char *name, uint64_t *ns, size_t n) {
  qsort(ns, n, sizeof *ns, bench_by_value);
  printf(",\"%s_us\":%.0f,\"%s_p10_us\":%.0f,\"%s_p90_us\":%.0f", name, (double)ns[n / 2] / 1e3, name,
         (double)ns[n / 10] / 1e3, name, (double)ns[n - 1 - n / 10] / 1e3);
}

static void measure(bench *b, uint64_t clocks, uint64_t chunk_kib) {
  uint64_t *tail = bl_calloc(clocks, sizeof *tail), *push = bl_calloc(clocks, sizeof *push);
  bench_need(tail != NULL && push != NULL, "no memory");
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
  bench_need(clocks > 0 && chunk_kib > 0 && chunk_kib <= 1024, "usage: exchange [clocks [KiB per chunk]]");
  bl_net_tune_process();
  bench b = {0};
  test_plan_options options = {.job = 7,
                               .world = 1,
                               .n_shards = 1,
                               .tensor_elems = elems,
                               .n_tensors = N_TENSORS,
                               .chunk_elems = chunk_kib * 1024 / sizeof(float),
                               .optimizer = "adam",
                               .lr = 1e-3,
                               .clocks = WARM_UP + clocks};
  make_arrays(&b);
  bench_link_open(&b.link, &options, b.weights);
  while (bl_session_weights_version(b.link.session) != 0)
    bench_link_serve(&b.link, 10);
  measure(&b, clocks, chunk_kib);
  bench_link_close(&b.link);
  for (uint32_t i = 0; i < N_TENSORS; i++) {
    bl_free_aligned(b.grads[i]);
    bl_free_aligned(b.weights[i]);
  }
  return 0;
}
