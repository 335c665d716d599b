/* SPDX-License-Identifier: Apache-2.0
 *
 * Low-rank products, the definition: each line is one rounding or none. What is not fixed by the header is written for
 * the compiler to vectorise.
 */
#include "kernel/lowrank.h"
#include "kernel/tables.h"

#include <string.h>

static float sum_lanes(float p[BL_SUM_LANES]) {
  for (int apart = BL_SUM_LANES / 2; apart > 0; apart /= 2) {
    for (int i = 0; i < apart; i++)
      p[i] += p[i + apart];
  }
  return p[0];
}

static float dot(const bl_loose_float *a, const bl_loose_float *b, size_t n) {
  float p[BL_SUM_LANES] = {0};
  size_t i = 0;
  for (; i + BL_SUM_LANES <= n; i += BL_SUM_LANES)
    for (size_t l = 0; l < BL_SUM_LANES; l++)
      p[l] += a[i + l] * b[i + l];
  for (; i < n; i++)
    p[i % BL_SUM_LANES] += a[i] * b[i];
  return sum_lanes(p);
}

static void project(float *p0, size_t p_stride, const float *m, size_t m_stride, size_t rows, size_t columns,
                    const float *q, size_t q_stride, unsigned rank) {
  bl_loose_float *p = p0;
  for (size_t i = 0; i < rows; i++)
    for (unsigned k = 0; k < rank; k++)
      p[k * p_stride + i] = dot(m + i * m_stride, q + k * q_stride, columns);
}

static void gather(float *q0, size_t q_stride, const float *m0, size_t m_stride, size_t rows, size_t columns,
                   const float *p0, size_t p_stride, unsigned rank) {
  bl_loose_float *q = q0;
  const bl_loose_float *m = m0, *p = p0;
  for (size_t i = 0; i < rows; i++)
    for (unsigned k = 0; k < rank; k++) {
      float part = p[k * p_stride + i];
      for (size_t j = 0; j < columns; j++)
        q[k * q_stride + j] += part * m[i * m_stride + j];
    }
}

#define BLOCK 64

/* BLOCK elements of a row of the product, or fewer. */
static void product_row(float *restrict sum, const bl_loose_float *p, size_t p_stride, const bl_loose_float *q,
                        size_t q_stride, unsigned rank, size_t n) {
  for (size_t j = 0; j < n; j++)
    sum[j] = p[0] * q[j];
  for (unsigned k = 1; k < rank; k++) {
    float part = p[k * p_stride];
    for (size_t j = 0; j < n; j++)
      sum[j] += part * q[k * q_stride + j];
  }
}

static void apply(bl_loose_float *y, const float *sum, size_t n, bl_lowrank_op op, float scale) {
  for (size_t j = 0; j < n; j++)
    y[j] = op == BL_LOWRANK_STORE      ? sum[j]
           : op == BL_LOWRANK_ADD      ? y[j] + sum[j]
           : op == BL_LOWRANK_ADD_PART ? y[j] + scale * sum[j]
                                       : y[j] - sum[j];
}

static void expand(float *y, size_t y_stride, size_t rows, size_t columns, const float *p, size_t p_stride, const float *q,
                   size_t q_stride, unsigned rank, bl_lowrank_op op, float scale) {
  float sum[BLOCK];
  for (size_t i = 0; i < rows; i++)
    for (size_t j = 0; j < columns; j += BLOCK) {
      size_t n = columns - j < BLOCK ? columns - j : BLOCK;
      product_row(sum, p + i, p_stride, q + j, q_stride, rank, n);
      apply(y + i * y_stride + j, sum, n, op, scale);
    }
}

const bl_lowrank_kernels bl_lowrank_scalar = {.project = project, .gather = gather, .expand = expand};
