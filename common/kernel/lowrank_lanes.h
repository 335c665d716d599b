/* SPDX-License-Identifier: Apache-2.0
 *
 * Low-rank products of the wide tables, written once over a vector of LANES floats. The file of an instruction set defines
 * the vector and includes this header once:
 *
 *   LANES, vec, v_load v_store v_set v_add v_sub v_mul, v_load_part(p, n) with zeros behind n, v_store_part(p, n, x),
 *   sum_halves(acc[HALVES]) (the end of a sum over 16 lanes), TABLE
 *   PROJECT_ROWS, PROJECT_RANK, WIDE: how many rows, vectors of q, and columns in units of LANES stay in registers
 *
 * A tile of sums stays in registers while its operands stream by; the order within a sum is that of the scalar file.
 * The tile's bounds are constants where the functions are inlined, so that the arrays become registers.
 */
#ifndef LANES
#error "included by the file of an instruction set, which says what a vector is"
#endif

#include "kernel/lowrank.h"
#include "kernel/tables.h"

#include <stdint.h>

#define HALVES (BL_SUM_LANES / LANES)
#define UNROLL _Pragma("GCC unroll 8")
#define INLINE static inline __attribute__((always_inline))

/* The lines of the next rows are asked for while these are worked on: several streams, each in short pieces, are more than
 * the CPU foresees by itself. An address behind the matrix does nothing. */
INLINE void ahead(const float *row, size_t distance, int n_wide) {
  const char *p = (const char *)((uintptr_t)row + distance * sizeof(float));
  UNROLL for (int v = 0; v < n_wide; v += 16 / LANES)
    __builtin_prefetch(p + (size_t)v * LANES * sizeof(float));
}

/* Vector h of the 16 columns from j; zeros behind the last column when `cut`. */
INLINE vec load_lanes(const float *row, size_t j, size_t columns, int h, bool cut) {
  size_t first = j + (size_t)h * LANES;
  if (!cut)
    return v_load(row + first);
  return first < columns ? v_load_part(row + first, columns - first < LANES ? columns - first : LANES) : v_set(0);
}

/* Zeros behind the end change no sum: 0 * 0 = +0, and a sum that began at +0 is never -0. */
INLINE void project_step(vec acc[PROJECT_ROWS][PROJECT_RANK][HALVES], const float *m, size_t m_stride, const float *q,
                         size_t q_stride, size_t j, size_t columns, int n_rows, int n_rank, bool cut) {
  UNROLL for (int h = 0; h < HALVES; h++) {
    vec right[PROJECT_RANK];
    UNROLL for (int k = 0; k < n_rank; k++)
      right[k] = load_lanes(q + (size_t)k * q_stride, j, columns, h, cut);
    UNROLL for (int i = 0; i < n_rows; i++) {
      vec left = load_lanes(m + (size_t)i * m_stride, j, columns, h, cut);
      if (h == 0)
        ahead(m + (size_t)i * m_stride + j, (size_t)n_rows * m_stride, 1);
      UNROLL for (int k = 0; k < n_rank; k++)
        acc[i][k][h] = v_add(acc[i][k][h], v_mul(left, right[k]));
    }
  }
}

INLINE void project_tile(float *p0, size_t p_stride, const float *m, size_t m_stride, size_t columns, const float *q,
                         size_t q_stride, int n_rows, int n_rank) {
  vec acc[PROJECT_ROWS][PROJECT_RANK][HALVES];
  UNROLL for (int i = 0; i < n_rows; i++)
    UNROLL for (int k = 0; k < n_rank; k++)
      UNROLL for (int h = 0; h < HALVES; h++)
        acc[i][k][h] = v_set(0);
  size_t j = 0;
  for (; j + BL_SUM_LANES <= columns; j += BL_SUM_LANES)
    project_step(acc, m, m_stride, q, q_stride, j, columns, n_rows, n_rank, false);
  if (j < columns)
    project_step(acc, m, m_stride, q, q_stride, j, columns, n_rows, n_rank, true);
  bl_loose_float *p = p0;
  UNROLL for (int i = 0; i < n_rows; i++)
    UNROLL for (int k = 0; k < n_rank; k++)
      p[(size_t)k * p_stride + (size_t)i] = sum_halves(acc[i][k]);
}

/* All vectors of q for some rows. */
INLINE void project_rows(float *p, size_t p_stride, const float *m, size_t m_stride, size_t columns, const float *q,
                         size_t q_stride, unsigned rank, int n_rows) {
  unsigned k = 0;
  for (; k + PROJECT_RANK <= rank; k += PROJECT_RANK)
    project_tile(p + k * p_stride, p_stride, m, m_stride, columns, q + k * q_stride, q_stride, n_rows, PROJECT_RANK);
  for (; k + 2 <= rank; k += 2)
    project_tile(p + k * p_stride, p_stride, m, m_stride, columns, q + k * q_stride, q_stride, n_rows, 2);
  if (k < rank)
    project_tile(p + k * p_stride, p_stride, m, m_stride, columns, q + k * q_stride, q_stride, n_rows, 1);
}

static void project(float *p, size_t p_stride, const float *m, size_t m_stride, size_t rows, size_t columns, const float *q,
                    size_t q_stride, unsigned rank) {
  size_t i = 0;
  for (; i + PROJECT_ROWS <= rows; i += PROJECT_ROWS)
    project_rows(p + i, p_stride, m + i * m_stride, m_stride, columns, q, q_stride, rank, PROJECT_ROWS);
  for (; i < rows; i++)
    project_rows(p + i, p_stride, m + i * m_stride, m_stride, columns, q, q_stride, rank, 1);
}

/* n_last: columns of the last vector, LANES when it is whole. */
INLINE vec load_column(const float *p, int v, int n_wide, size_t n_last) {
  return v == n_wide - 1 && n_last < LANES ? v_load_part(p + v * LANES, n_last) : v_load(p + v * LANES);
}

INLINE void store_column(float *p, int v, int n_wide, size_t n_last, vec x) {
  if (v == n_wide - 1 && n_last < LANES)
    v_store_part(p + v * LANES, n_last, x);
  else
    v_store(p + v * LANES, x);
}

#define GATHER_RANK 4
#define GATHER_AHEAD 8 /* rows */
#define GATHER_ROWS 4

INLINE void gather_tile(float *q, size_t q_stride, const float *m, size_t m_stride, size_t rows, const float *p0,
                        size_t p_stride, int n_rank, int n_wide, size_t n_last) {
  const bl_loose_float *p = p0;
  vec acc[GATHER_RANK][2 * WIDE];
  UNROLL for (int k = 0; k < n_rank; k++)
    UNROLL for (int v = 0; v < n_wide; v++)
      acc[k][v] = load_column(q + (size_t)k * q_stride, v, n_wide, n_last);
  for (size_t i = 0; i < rows; i++) {
    vec right[2 * WIDE];
    ahead(m + i * m_stride, GATHER_AHEAD * m_stride, n_wide);
    UNROLL for (int v = 0; v < n_wide; v++)
      right[v] = load_column(m + i * m_stride, v, n_wide, n_last);
    UNROLL for (int k = 0; k < n_rank; k++) {
      vec left = v_set(p[(size_t)k * p_stride + i]);
      UNROLL for (int v = 0; v < n_wide; v++)
        acc[k][v] = v_add(acc[k][v], v_mul(left, right[v]));
    }
  }
  UNROLL for (int k = 0; k < n_rank; k++)
    UNROLL for (int v = 0; v < n_wide; v++)
      store_column(q + (size_t)k * q_stride, v, n_wide, n_last, acc[k][v]);
}

INLINE void gather_columns(float *q, size_t q_stride, const float *m, size_t m_stride, size_t rows, const float *p,
                           size_t p_stride, unsigned rank, int n_wide, size_t n_last) {
  unsigned k = 0;
  for (; k + GATHER_RANK <= rank; k += GATHER_RANK)
    gather_tile(q + k * q_stride, q_stride, m, m_stride, rows, p + k * p_stride, p_stride, GATHER_RANK, n_wide, n_last);
  for (; k + 2 <= rank; k += 2)
    gather_tile(q + k * q_stride, q_stride, m, m_stride, rows, p + k * p_stride, p_stride, 2, n_wide, n_last);
  if (k < rank)
    gather_tile(q + k * q_stride, q_stride, m, m_stride, rows, p + k * p_stride, p_stride, 1, n_wide, n_last);
}

INLINE void gather_rows(float *q, size_t q_stride, const float *m, size_t m_stride, size_t rows, size_t columns,
                        const float *p, size_t p_stride, unsigned rank) {
  size_t j = 0;
  if (rank <= 2) /* few sums: longer pieces of a row */
    for (; j + 2 * WIDE * LANES <= columns; j += 2 * WIDE * LANES)
      gather_columns(q + j, q_stride, m + j, m_stride, rows, p, p_stride, rank, 2 * WIDE, LANES);
  for (; j + WIDE * LANES <= columns; j += WIDE * LANES)
    gather_columns(q + j, q_stride, m + j, m_stride, rows, p, p_stride, rank, WIDE, LANES);
  for (; j + LANES <= columns; j += LANES)
    gather_columns(q + j, q_stride, m + j, m_stride, rows, p, p_stride, rank, 1, LANES);
  if (j < columns)
    gather_columns(q + j, q_stride, m + j, m_stride, rows, p, p_stride, rank, 1, columns - j);
}

/* One vector's sums come from the first-level cache as fast as the matrix does, which is then read nearly as it lies. */
static void gather(float *q, size_t q_stride, const float *m, size_t m_stride, size_t rows, size_t columns, const float *p,
                   size_t p_stride, unsigned rank) {
  size_t step = rank == 1 ? GATHER_ROWS : rows;
  for (size_t i = 0, n; i < rows; i += n) {
    n = rows - i < step ? rows - i : step;
    gather_rows(q, q_stride, m + i * m_stride, m_stride, n, columns, p + i, p_stride, rank);
  }
}

INLINE vec applied(const float *y, vec product, bl_lowrank_op op, vec scale, int v, int n_wide, size_t n_last) {
  if (op == BL_LOWRANK_STORE)
    return product;
  vec old = load_column(y, v, n_wide, n_last);
  return op == BL_LOWRANK_ADD        ? v_add(old, product)
         : op == BL_LOWRANK_ADD_PART ? v_add(old, v_mul(scale, product))
                                     : v_sub(old, product);
}

#define EXPAND_ROWS 4

INLINE void expand_tile(float *y, size_t y_stride, const float *p0, size_t p_stride, const float *q, size_t q_stride,
                        unsigned rank, bl_lowrank_op op, float scale, int n_rows, int n_wide, size_t n_last) {
  const bl_loose_float *p = p0;
  vec acc[EXPAND_ROWS][WIDE], right[WIDE];
  UNROLL for (int v = 0; v < n_wide; v++)
    right[v] = load_column(q, v, n_wide, n_last);
  UNROLL for (int i = 0; i < n_rows; i++)
    UNROLL for (int v = 0; v < n_wide; v++)
      acc[i][v] = v_mul(v_set(p[i]), right[v]);
  UNROLL for (int i = 0; i < n_rows; i++)
    ahead(y + (size_t)i * y_stride, (size_t)n_rows * y_stride, n_wide);
  for (unsigned k = 1; k < rank; k++) {
    UNROLL for (int v = 0; v < n_wide; v++)
      right[v] = load_column(q + k * q_stride, v, n_wide, n_last);
    UNROLL for (int i = 0; i < n_rows; i++) {
      vec left = v_set(p[k * p_stride + (size_t)i]);
      UNROLL for (int v = 0; v < n_wide; v++)
        acc[i][v] = v_add(acc[i][v], v_mul(left, right[v]));
    }
  }
  UNROLL for (int i = 0; i < n_rows; i++)
    UNROLL for (int v = 0; v < n_wide; v++)
      store_column(y + (size_t)i * y_stride, v, n_wide, n_last,
                   applied(y + (size_t)i * y_stride, acc[i][v], op, v_set(scale), v, n_wide, n_last));
}

INLINE void expand_rows(float *y, size_t y_stride, size_t columns, const float *p, size_t p_stride, const float *q,
                        size_t q_stride, unsigned rank, bl_lowrank_op op, float scale, int n_rows) {
  size_t j = 0;
  for (; j + WIDE * LANES <= columns; j += WIDE * LANES)
    expand_tile(y + j, y_stride, p, p_stride, q + j, q_stride, rank, op, scale, n_rows, WIDE, LANES);
  for (; j + LANES <= columns; j += LANES)
    expand_tile(y + j, y_stride, p, p_stride, q + j, q_stride, rank, op, scale, n_rows, 1, LANES);
  if (j < columns)
    expand_tile(y + j, y_stride, p, p_stride, q + j, q_stride, rank, op, scale, n_rows, 1, columns - j);
}

INLINE void expand_op(float *y, size_t y_stride, size_t rows, size_t columns, const float *p, size_t p_stride,
                      const float *q, size_t q_stride, unsigned rank, bl_lowrank_op op, float scale) {
  size_t i = 0;
  for (; rank > 1 && i + EXPAND_ROWS <= rows; i += EXPAND_ROWS) /* rank 1 is best read as it lies */
    expand_rows(y + i * y_stride, y_stride, columns, p + i, p_stride, q, q_stride, rank, op, scale, EXPAND_ROWS);
  for (; i < rows; i++)
    expand_rows(y + i * y_stride, y_stride, columns, p + i, p_stride, q, q_stride, rank, op, scale, 1);
}

static void expand(float *y, size_t y_stride, size_t rows, size_t columns, const float *p, size_t p_stride, const float *q,
                   size_t q_stride, unsigned rank, bl_lowrank_op op, float scale) {
  switch (op) { /* a loop of its own for each */
  case BL_LOWRANK_STORE:
    expand_op(y, y_stride, rows, columns, p, p_stride, q, q_stride, rank, BL_LOWRANK_STORE, scale);
    return;
  case BL_LOWRANK_ADD:
    expand_op(y, y_stride, rows, columns, p, p_stride, q, q_stride, rank, BL_LOWRANK_ADD, scale);
    return;
  case BL_LOWRANK_ADD_PART:
    expand_op(y, y_stride, rows, columns, p, p_stride, q, q_stride, rank, BL_LOWRANK_ADD_PART, scale);
    return;
  case BL_LOWRANK_SUBTRACT:
    expand_op(y, y_stride, rows, columns, p, p_stride, q, q_stride, rank, BL_LOWRANK_SUBTRACT, scale);
    return;
  }
}

const bl_lowrank_kernels TABLE = {.project = project, .gather = gather, .expand = expand};
