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

#define BLOCK 64 /* columns at a time; full blocks have loops of a constant length, which the compiler vectorises */
#define INLINE static inline __attribute__((always_inline))

INLINE void gather_block(bl_loose_float *q, const bl_loose_float *m, size_t m_stride, size_t rows, const bl_loose_float *p,
                         size_t n) {
  float sum[BLOCK];
  memcpy(sum, q, n * sizeof *sum);
  for (size_t i = 0; i < rows; i++)
    for (size_t j = 0; j < n; j++)
      sum[j] += p[i] * m[i * m_stride + j];
  memcpy(q, sum, n * sizeof *sum);
}

static void gather(float *q, size_t q_stride, const float *m, size_t m_stride, size_t rows, size_t columns, const float *p,
                   size_t p_stride, unsigned rank) {
  for (unsigned k = 0; k < rank; k++) {
    size_t j = 0;
    for (; j + BLOCK <= columns; j += BLOCK)
      gather_block(q + k * q_stride + j, m + j, m_stride, rows, p + k * p_stride, BLOCK);
    gather_block(q + k * q_stride + j, m + j, m_stride, rows, p + k * p_stride, columns - j);
  }
}

INLINE void expand_block(bl_loose_float *y, const bl_loose_float *p, size_t p_stride, const bl_loose_float *q,
                         size_t q_stride, unsigned rank, size_t n, bl_lowrank_op op, float scale) {
  float sum[BLOCK], old[BLOCK];
  for (size_t j = 0; j < n; j++)
    sum[j] = p[0] * q[j];
  for (unsigned k = 1; k < rank; k++) {
    float part = p[k * p_stride];
    for (size_t j = 0; j < n; j++)
      sum[j] += part * q[k * q_stride + j];
  }
  if (op != BL_LOWRANK_STORE)
    memcpy(old, y, n * sizeof *old);
  for (size_t j = 0; op == BL_LOWRANK_ADD && j < n; j++)
    sum[j] = old[j] + sum[j];
  for (size_t j = 0; op == BL_LOWRANK_ADD_PART && j < n; j++)
    sum[j] = old[j] + scale * sum[j];
  for (size_t j = 0; op == BL_LOWRANK_SUBTRACT && j < n; j++)
    sum[j] = old[j] - sum[j];
  memcpy(y, sum, n * sizeof *sum);
}

static void expand(float *y, size_t y_stride, size_t rows, size_t columns, const float *p, size_t p_stride, const float *q,
                   size_t q_stride, unsigned rank, bl_lowrank_op op, float scale) {
  for (size_t i = 0; i < rows; i++) {
    size_t j = 0;
    for (; j + BLOCK <= columns; j += BLOCK)
      expand_block(y + i * y_stride + j, p + i, p_stride, q + j, q_stride, rank, BLOCK, op, scale);
    expand_block(y + i * y_stride + j, p + i, p_stride, q + j, q_stride, rank, columns - j, op, scale);
  }
}

const bl_lowrank_kernels bl_lowrank_scalar = {.project = project, .gather = gather, .expand = expand};
