/* SPDX-License-Identifier: Apache-2.0
 *
 * Rows of a table, without a model: one session pulls the rows of a batch from a real shard thread over sockets on
 * loopback, pushes a gradient for them, commits, and asks for the next batch's rows at once. Rows are drawn so that
 * some are in every batch and most in few, as hashed features are. JSON lines for lists that come again (16 batches
 * in turn), for new ones in every clock, of which the cache of keys saves the second sending, and without that cache:
 *   rows_per_s          distinct rows pulled and pushed, per second
 *   up_bytes_per_row    sent by the rank: keys and gradient of pull and push, headers included
 *   down_bytes_per_row
 *   keys_bytes_per_row  of the bytes up
 *   us_per_clock        median
 *   cpu_us              of a clock, both sides and their I/O threads (mean)
 * Usage: rows [clocks [draws per batch [width [optimizer]]]]
 */
#include "base/alloc.h"
#include "base/clock.h"
#include "base/num.h"
#include "base/rng.h"
#include "bench/link.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define WARM_UP 20
#define LISTS_AGAIN 16
#define ROWS (UINT64_C(1) << 24)

typedef struct bench {
  bench_link link;
  uint64_t **rows; /* [n_lists], used in turn */
  uint32_t *n_rows, n_lists;
  float *values, *grad;
} bench;

static void draw_lists(bench *b, uint32_t n_draws, uint64_t width) {
  uint32_t most = 0;
  b->rows = bl_calloc(b->n_lists, sizeof *b->rows);
  b->n_rows = bl_calloc(b->n_lists, sizeof *b->n_rows);
  bench_need(b->rows != NULL && b->n_rows != NULL, "no memory");
  for (uint32_t i = 0; i < b->n_lists; i++) {
    uint64_t *rows = b->rows[i] = bl_calloc(n_draws, sizeof *rows);
    bench_need(rows != NULL, "no memory");
    for (uint32_t k = 0; k < n_draws; k++) {
      double u = (double)bl_rng_unit(1, i, k);
      uint64_t feature = (uint64_t)(pow(u, 6) * (double)ROWS); /* a few are frequent */
      rows[k] = bl_rng_below(2, 0, feature, ROWS);             /* hashed */
    }
    qsort(rows, n_draws, sizeof *rows, bench_by_value);
    uint32_t n = 0;
    for (uint32_t k = 0; k < n_draws; k++)
      if (n == 0 || rows[n - 1] != rows[k])
        rows[n++] = rows[k];
    b->n_rows[i] = n;
    most = BL_MAX(most, n);
  }
  b->values = bl_calloc_aligned(most * width, sizeof(float));
  b->grad = bl_calloc_aligned(most * width, sizeof(float));
  bench_need(b->values != NULL && b->grad != NULL, "no memory");
  for (uint64_t i = 0; i < most * width; i++)
    b->grad[i] = (float)(i % 1000) * 1e-4f - 0.05f;
}

static void pull(bench *b, uint64_t clock) {
  uint32_t i = (uint32_t)(clock % b->n_lists);
  bl_session_pull_rows(b->link.session, 0, clock, b->rows[i], b->n_rows[i], b->values, bl_clock_now_ns());
}

/* From the rows' arrival to that of the next. */
static void one_clock(bench *b, uint64_t clock) {
  uint32_t i = (uint32_t)(clock % b->n_lists);
  bl_session_push_rows(b->link.session, 0, b->rows[i], b->n_rows[i], b->grad, bl_clock_now_ns());
  bl_session_commit(b->link.session, 1, true, 1, bl_clock_now_ns());
  pull(b, clock + 1);
  while (bl_session_weights_version(b->link.session) != clock + 1 || !bl_session_gradients_free(b->link.session) ||
         !bl_session_rows_ready(b->link.session, 0))
    bench_link_serve(&b->link, 1000);
}

typedef struct mode {
  const char *name;
  bool again, cache;
} mode;

static void measure(bench *b, uint64_t clocks, uint64_t width, const char *optimizer, const mode *m) {
  uint64_t *ns = bl_calloc(clocks, sizeof *ns);
  bench_need(ns != NULL, "no memory");
  for (uint64_t i = 0; i < WARM_UP; i++)
    one_clock(b, i);
  bl_session_stats before = bl_session_get_stats(b->link.session);
  uint64_t begin_ns = bl_clock_now_ns(), cpu_ns = bl_clock_cpu_ns();
  for (uint64_t i = 0; i < clocks; i++) {
    uint64_t at_ns = bl_clock_now_ns();
    one_clock(b, WARM_UP + i);
    ns[i] = bl_clock_now_ns() - at_ns;
  }
  cpu_ns = bl_clock_cpu_ns() - cpu_ns;
  double s = (double)(bl_clock_now_ns() - begin_ns) / 1e9;
  bl_session_stats after = bl_session_get_stats(b->link.session);
  double rows = (double)(after.rows_pushed - before.rows_pushed);
  qsort(ns, clocks, sizeof *ns, bench_by_value);
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

static void run(uint64_t clocks, uint32_t n_draws, uint64_t width, const char *optimizer, const mode *m) {
  bench b = {.n_lists = m->again ? LISTS_AGAIN : (uint32_t)(WARM_UP + clocks + 1)};
  static const uint64_t none[] = {0};
  const test_table tables[] = {{ROWS, width}};
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
  bench_link_open(&b.link, &options, NULL);
  pull(&b, 0);
  while (bl_session_weights_version(b.link.session) != 0 || !bl_session_rows_ready(b.link.session, 0))
    bench_link_serve(&b.link, 10);
  measure(&b, clocks, width, optimizer, m);
  bench_link_close(&b.link);
  for (uint32_t i = 0; i < b.n_lists; i++)
    bl_free(b.rows[i]);
  bl_free(b.rows);
  bl_free(b.n_rows);
  bl_free_aligned(b.values);
  bl_free_aligned(b.grad);
}

int main(int argc, char **argv) {
  uint64_t clocks = argc > 1 ? strtoull(argv[1], NULL, 10) : 200;
  uint64_t draws = argc > 2 ? strtoull(argv[2], NULL, 10) : 100000;
  uint64_t width = argc > 3 ? strtoull(argv[3], NULL, 10) : 1;
  const char *optimizer = argc > 4 ? argv[4] : "sgd";
  bench_need(clocks > 0 && clocks <= 10000 && draws > 0 && draws <= 10000000 && width > 0 && width <= 1024,
       "usage: rows [clocks [draws per batch [width [optimizer]]]]");
  bl_net_tune_process();
  static const mode modes[] = {{"again", true, true}, {"new", false, true}, {"no cache", false, false}};
  for (size_t i = 0; i < BL_COUNT_OF(modes); i++)
    run(clocks, (uint32_t)draws, width, optimizer, &modes[i]);
  return 0;
}
