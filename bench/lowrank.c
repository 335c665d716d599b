/* SPDX-License-Identifier: Apache-2.0
 *
 * The products of the low-rank codec beside OpenBLAS, one thread each: projecting (P = M Q), gathering (Q = M^T P) and
 * taking the product out of the residual (M -= P Q^T). Both are measured in turn within each round. One JSON line per shape,
 * rank and product: GB/s of the matrix as the median of the rounds, ours as a multiple of OpenBLAS's, the worst and the best
 * ratio of a round.
 */
#include "base/alloc.h"
#include "base/clock.h"
#include "base/num.h"
#include "base/rng.h"
#include "kernel/kernel.h"
#include "kernel/lowrank.h"

#include <cblas.h>
#include <stdio.h>
#include <stdlib.h>

#define ROUNDS 15
#define RANK_MAX 32
#define N_MATRICES 64 /* walked over: more than the last-level cache */
#define ROUND_MATRICES 8

typedef struct work {
  const bl_lowrank_kernels *ours;
  float *m, *p, *q;
  size_t rows, columns, at, q_stride;
  unsigned rank;
} work;

typedef void (*body_fn)(work *w, float *m);

static void our_project(work *w, float *m) {
  w->ours->project(w->p, w->rows, m, w->columns, w->rows, w->columns, w->q, w->columns, w->rank);
}
static void our_gather(work *w, float *m) {
  w->ours->gather(w->q, w->columns, m, w->columns, w->rows, w->columns, w->p, w->rows, w->rank);
}
static void our_take_out(work *w, float *m) {
  w->ours->expand(m, w->columns, w->rows, w->columns, w->p, w->rows, w->q, w->q_stride, w->rank, BL_LOWRANK_SUBTRACT, 1);
}

/* Each in the layout that the library takes best: vectors behind one another are rows of the smaller matrix. */
static void blas_project(work *w, float *m) {
  int rows = (int)w->rows, columns = (int)w->columns, rank = (int)w->rank;
  if (rank == 1)
    cblas_sgemv(CblasRowMajor, CblasNoTrans, rows, columns, 1, m, columns, w->q, 1, 0, w->p, 1);
  else
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, rank, rows, columns, 1, w->q, columns, m, columns, 0, w->p, rows);
}
static void blas_gather(work *w, float *m) {
  int rows = (int)w->rows, columns = (int)w->columns, rank = (int)w->rank;
  if (rank == 1)
    cblas_sgemv(CblasRowMajor, CblasTrans, rows, columns, 1, m, columns, w->p, 1, 1, w->q, 1);
  else
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, rank, columns, rows, 1, w->p, rows, m, columns, 1, w->q, columns);
}
static void blas_take_out(work *w, float *m) {
  int rows = (int)w->rows, columns = (int)w->columns, rank = (int)w->rank, q_stride = (int)w->q_stride;
  if (rank == 1)
    cblas_sger(CblasRowMajor, rows, columns, -1, w->p, 1, w->q, 1, m, columns);
  else
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, rows, columns, rank, -1, w->p, rows, w->q, q_stride, 1, m,
                columns);
}

static const struct {
  const char *name;
  body_fn ours, blas;
} products[] = {
    {"project", our_project, blas_project},
    {"gather", our_gather, blas_gather},
    {"take_out", our_take_out, blas_take_out},
};

static void fill(work *w) {
  for (size_t i = 0; i < (size_t)N_MATRICES * w->rows * w->columns; i++)
    w->m[i] = (float)(i * 2654435761u % 1021) * 1e-3f - 0.5f;
  for (size_t i = 0; i < w->rank * w->rows; i++)
    w->p[i] = 1e-3f * (bl_rng_unit(1, 1, i) - 0.5f);
  for (size_t i = 0; i < w->rank * w->q_stride; i++)
    w->q[i] = 1e-3f * (bl_rng_unit(1, 2, i) - 0.5f);
}

/* GB/s over the next matrices, by CPU time: what else runs on the machine counts less. */
static double timed(work *w, body_fn body) {
  uint64_t start = bl_clock_cpu_ns();
  for (int i = 0; i < ROUND_MATRICES; i++, w->at = (w->at + 1) % N_MATRICES)
    body(w, w->m + w->at * w->rows * w->columns);
  return (double)ROUND_MATRICES * (double)(w->rows * w->columns * 4) / (double)(bl_clock_cpu_ns() - start);
}

static int compare_doubles(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static void report(work *w, size_t product, const char *table) {
  double ours[ROUNDS], blas[ROUNDS], ratio[ROUNDS];
  fill(w);
  for (int r = -1; r < ROUNDS; r++) {
    double a = timed(w, products[product].ours), b = timed(w, products[product].blas);
    if (r < 0)
      continue;
    ours[r] = a;
    blas[r] = b;
    ratio[r] = a / b;
  }
  qsort(ours, ROUNDS, sizeof ours[0], compare_doubles);
  qsort(blas, ROUNDS, sizeof blas[0], compare_doubles);
  qsort(ratio, ROUNDS, sizeof ratio[0], compare_doubles);
  printf("{\"bench\":\"lowrank\",\"product\":\"%s\",\"kernels\":\"%s\",\"rows\":%zu,\"columns\":%zu,\"rank\":%u,"
         "\"gbps\":%.2f,\"openblas_gbps\":%.2f,\"openblas_multiple\":%.2f,\"min\":%.2f,\"max\":%.2f}\n",
         products[product].name, table, w->rows, w->columns, w->rank, ours[ROUNDS / 2], blas[ROUNDS / 2], ratio[ROUNDS / 2],
         ratio[0], ratio[ROUNDS - 1]);
}

int main(void) {
  static const size_t shapes[][2] = {{512, 512}, {334, 784}, {1024, 256}, {2621, 100}};
  static const unsigned ranks[] = {1, 2, 4, 8, 16, 32};
  work w = {0};
  openblas_set_num_threads(1);
  w.m = bl_calloc_aligned((size_t)N_MATRICES << 18, sizeof(float));
  w.p = bl_calloc_aligned((size_t)RANK_MAX * 4096, sizeof(float));
  w.q = bl_calloc_aligned((size_t)RANK_MAX * 4096, sizeof(float));
  if (w.m == NULL || w.p == NULL || w.q == NULL)
    return 1;
  for (size_t t = 1; bl_kernels_at(t) != NULL; t++)
    for (size_t s = 0; s < BL_COUNT_OF(shapes); s++)
      for (size_t r = 0; r < BL_COUNT_OF(ranks); r++)
        for (size_t k = 0; k < BL_COUNT_OF(products); k++) {
          w.ours = bl_kernels_at(t)->lowrank;
          w.rows = shapes[s][0];
          w.columns = shapes[s][1];
          w.q_stride = w.columns + 16; /* as the codec unpacks it: not a power of two */
          w.rank = ranks[r];
          report(&w, k, bl_kernels_at(t)->name);
        }
  bl_free_aligned(w.m);
  bl_free_aligned(w.p);
  bl_free_aligned(w.q);
  return 0;
}
