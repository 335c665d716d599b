/* SPDX-License-Identifier: Apache-2.0
 *
 * Speed of plain kernels and of optimizer steps on every table, beside memcpy in turn with each; codecs are measured by
 * `ballast bench codec`. By CPU time: a share of the core that others had is not the kernel's. One JSON line per
 * measurement: GB/s of float32 (elements times 4 bytes per second; GB = 1e9 bytes), the median of 31 rounds,
 * the slowest and fastest of them, and the median of their multiples of a memcpy in the same round.
 */
#include "base/alloc.h"
#include "base/clock.h"
#include "base/rng.h"
#include "kernel/kernel.h"
#include "optim/optim.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROUNDS 31
#define ROUND_BYTES (16u << 20) /* of float32 in one round, so that small sizes repeat */

typedef struct work {
  const bl_kernels *kernels;
  float *w, *m, *v, *top, *g;
  uint16_t *half;
  const char *filter, *table; /* NULL: all */
  size_t n;
  double sink;
} work;

typedef void (*body_fn)(work *k);

static void do_memcpy(work *k) { memcpy(k->w, k->g, k->n * 4); }
static void do_add(work *k) { k->kernels->add(k->w, k->g, k->n); }
static void do_axpy(work *k) { k->kernels->axpy(k->w, k->g, 1e-3f, k->n); }
static void do_clip(work *k) { k->kernels->clip(k->w, 1e30f, k->n); }
static void do_to_half(work *k) { k->kernels->f32_to_f16(k->half, k->g, k->n); }
static void do_from_half(work *k) { k->kernels->f16_to_f32(k->w, k->half, k->n); }
static void do_half_add(work *k) { k->kernels->f16_add(k->w, k->half, k->n); }
static void do_finite(work *k) { k->sink += k->kernels->all_finite(k->g, k->n); }
static void do_squares(work *k) { k->sink += k->kernels->sum_squares(k->g, k->n); }
static void do_sgd(work *k) { k->kernels->sgd(k->w, k->g, 1e-3f, 0, k->n); }
static void do_momentum(work *k) { k->kernels->momentum(k->w, k->m, k->g, 1e-3f, 0.9f, 0, k->n); }
static void do_adam(work *k) {
  static const bl_adam_args args = {1e-3f, 0.9f, 0.999f, 1e-8f, 1, 1, 0};
  k->kernels->adam(k->w, k->m, k->v, k->g, &args, k->n);
}
static void do_nesterov(work *k) { k->kernels->nesterov(k->w, k->m, k->g, 1e-3f, 0.9f, 0, k->n); }
static void do_adagrad(work *k) { k->kernels->adagrad(k->w, k->v, k->g, 1e-3f, 0, 1e-10f, 0, k->n); }
static void do_rmsprop(work *k) { k->kernels->rmsprop(k->w, k->v, k->g, 1e-3f, 0.9f, 1e-8f, 0, k->n); }
static void do_adamw(work *k) {
  static const bl_adam_args args = {1e-3f, 0.9f, 0.999f, 1e-8f, 1, 1, 0.01f};
  k->kernels->adamw(k->w, k->m, k->v, k->g, &args, k->n);
}
static void do_amsgrad(work *k) {
  static const bl_adam_args args = {1e-3f, 0.9f, 0.999f, 1e-8f, 1, 1, 0};
  k->kernels->amsgrad(k->w, k->m, k->v, k->top, k->g, &args, k->n);
}
static void do_yogi(work *k) {
  static const bl_adam_args args = {1e-3f, 0.9f, 0.999f, 1e-3f, 1, 1, 0};
  k->kernels->yogi(k->w, k->m, k->v, k->g, &args, k->n);
}
static void do_ftrl(work *k) {
  static const bl_ftrl_args args = {.lr = 0.1f, .beta = 1, .l1 = 1, .l2 = 1};
  k->kernels->ftrl(k->w, k->m, k->v, k->g, &args, k->n);
}
static void do_lamb(work *k) { /* the rule itself: it is three kernels */
  static const double params[] = {1e-3, 0.9, 0.999, 1e-6, 0.01};
  static const bl_optim_step_args args = {.lr = 1e-3, .step = 10, .weight_decay = 0.01, .params = params};
  bl_optim_rule_by_name("lamb")->step(k->w, k->g, (float *const[]){k->m, k->v}, k->n, &args);
}
static void do_average(work *k) { k->kernels->average(k->w, k->g, 1e-3f, k->n); }

static const struct {
  const char *name;
  body_fn body;
} kernel_rows[] = {
    {"add", do_add},           {"axpy", do_axpy},         {"clip", do_clip},       {"f32_to_f16", do_to_half},
    {"f16_to_f32", do_from_half}, {"f16_add", do_half_add}, {"all_finite", do_finite}, {"sum_squares", do_squares},
    {"sgd", do_sgd},           {"momentum", do_momentum}, {"adam", do_adam},
    {"nesterov", do_nesterov}, {"adagrad", do_adagrad},   {"rmsprop", do_rmsprop}, {"adamw", do_adamw},
    {"amsgrad", do_amsgrad},   {"ftrl", do_ftrl},         {"lamb", do_lamb},       {"average", do_average},
    {"yogi", do_yogi},
};

static int compare_doubles(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

typedef struct measured {
  double gbps[ROUNDS], multiple[ROUNDS]; /* of memcpy, which ran just before; both sorted */
} measured;

static double round_gbps(work *k, body_fn body, size_t repeats) {
  uint64_t start = bl_clock_cpu_ns();
  for (size_t i = 0; i < repeats; i++)
    body(k);
  return (double)(repeats * k->n * 4) / (double)(bl_clock_cpu_ns() - start);
}

/* A round of memcpy, one of the body, in turn: what else the machine does meets both. */
static measured measure(work *k, body_fn body) {
  measured m;
  size_t repeats = ROUND_BYTES / (k->n * 4);
  body(k);
  for (int r = 0; r < ROUNDS; r++) {
    double base = round_gbps(k, do_memcpy, repeats);
    m.gbps[r] = round_gbps(k, body, repeats);
    m.multiple[r] = m.gbps[r] / base;
  }
  qsort(m.gbps, ROUNDS, sizeof m.gbps[0], compare_doubles);
  qsort(m.multiple, ROUNDS, sizeof m.multiple[0], compare_doubles);
  return m;
}

static void report(work *k, const char *what, const char *name, body_fn body) {
  if (k->filter != NULL && strstr(name, k->filter) == NULL)
    return;
  measured m = measure(k, body);
  printf("{\"bench\":\"%s\",\"name\":\"%s\",\"kernels\":\"%s\",\"bytes\":%zu,\"gbps\":%.2f,\"min\":%.2f,\"max\":%.2f,"
         "\"memcpy_multiple\":%.2f}\n",
         what, name, k->kernels->name, k->n * 4, m.gbps[ROUNDS / 2], m.gbps[0], m.gbps[ROUNDS - 1],
         m.multiple[ROUNDS / 2]);
}

static void fill(work *k) {
  for (size_t i = 0; i < k->n; i++) {
    k->g[i] = bl_rng_unit(1, 0, i) - 0.5f;
    k->w[i] = k->m[i] = k->v[i] = k->top[i] = 0.01f;
    k->half[i] = (uint16_t)(bl_rng_u64(2, 0, i) & 0x3fff);
  }
}

static void bench_size(work *k) {
  fill(k);
  for (size_t t = 0; bl_kernels_at(t) != NULL; t++) {
    k->kernels = bl_kernels_at(t);
    if (k->table != NULL && strcmp(k->table, k->kernels->name) != 0)
      continue;
    if (bl_kernels_force(k->kernels->name, NULL) != BL_OK)
      abort();
    report(k, "memory", "memcpy", do_memcpy);
    for (size_t i = 0; i < BL_COUNT_OF(kernel_rows); i++)
      report(k, "kernel", kernel_rows[i].name, kernel_rows[i].body);
  }
}

/* kernels [NAME [TABLE]]: only what has NAME in its name, on one table. */
int main(int argc, char **argv) {
  static const size_t sizes[] = {256u << 10, 16u << 20};
  const size_t n_max = (16u << 20) / 4;
  static work k;
  k.filter = argc > 1 ? argv[1] : NULL;
  k.table = argc > 2 ? argv[2] : NULL;
  k.w = bl_calloc_aligned(n_max, 4);
  k.m = bl_calloc_aligned(n_max, 4);
  k.v = bl_calloc_aligned(n_max, 4);
  k.top = bl_calloc_aligned(n_max, 4);
  k.g = bl_calloc_aligned(n_max, 4);
  k.half = bl_calloc_aligned(n_max, 2);
  if (k.w == NULL || k.m == NULL || k.v == NULL || k.top == NULL || k.g == NULL || k.half == NULL)
    return 1;
  for (size_t s = 0; s < BL_COUNT_OF(sizes); s++) {
    k.n = sizes[s] / 4;
    bench_size(&k);
  }
  fprintf(stderr, "sink %g\n", k.sink);
  float *const arrays[] = {k.w, k.m, k.v, k.top, k.g};
  for (size_t i = 0; i < BL_COUNT_OF(arrays); i++)
    bl_free_aligned(arrays[i]);
  bl_free_aligned(k.half);
  return 0;
}
