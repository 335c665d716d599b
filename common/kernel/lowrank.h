/* SPDX-License-Identifier: Apache-2.0
 *
 * Kernels of the low-rank codec: products of a matrix with a few vectors, at most BL_LOWRANK_MAX of them. One table per
 * instruction set beside the others (bl_kernels.lowrank), with the same bits on each: the scalar file is the definition.
 *
 * Why not OpenBLAS: its bits depend on the CPU, so that a follower or a server on another machine would not hold what its
 * primary holds; and it is not faster. bench/lowrank, one core of a Zen 4, matrices of 1 MiB out of cache, the three
 * products together as a multiple of sgemm's (rank 1: sgemv's and sger's) speed:
 *
 *   rank                          1      2      4      8     16     32
 *   512 x 512,  avx512         0.88   1.01   1.25   1.21   1.14   1.09
 *   334 x 784,  avx512         0.97   1.07   1.24   1.23   1.20   1.05
 *   2621 x 100, avx512         0.87   1.50   1.90   1.77   1.34   1.07
 *   512 x 512,  avx2           0.84   0.95   1.01   1.23   1.02   0.87   (OpenBLAS with AVX-512)
 *
 * Shapes: m and y are row-major [rows, columns] with `m_stride` or `y_stride` floats from row to row. The vectors stand one
 * behind the other: p is [rank][rows] with p_stride floats from vector to vector, q is [rank][columns] with q_stride.
 * Any alignment; nothing overlaps; rank 1 to BL_LOWRANK_MAX; rows and columns may be 0. Numbers are expected to be finite
 * (where they are not, what comes out is not finite either, but may differ between tables). Threads: any.
 */
#ifndef BL_KERNEL_LOWRANK_H
#define BL_KERNEL_LOWRANK_H

#include <stddef.h>

#define BL_LOWRANK_MAX 32

typedef enum bl_lowrank_op {
  BL_LOWRANK_STORE,    /* y = product */
  BL_LOWRANK_ADD,      /* y += product */
  BL_LOWRANK_ADD_PART, /* y += scale * product: rounded twice */
  BL_LOWRANK_SUBTRACT, /* y -= product */
} bl_lowrank_op;

typedef struct bl_lowrank_kernels {
  /* p[k][i] = sum over j of m[i][j] * q[k][j]. Order: 16 partial sums (lane l takes the columns j with j mod 16 = l), then
   * those 8, 4, 2, 1 apart are added. */
  void (*project)(float *p, size_t p_stride, const float *m, size_t m_stride, size_t rows, size_t columns, const float *q,
                  size_t q_stride, unsigned rank);
  /* q[k][j] += sum over i of p[k][i] * m[i][j], row after row. */
  void (*gather)(float *q, size_t q_stride, const float *m, size_t m_stride, size_t rows, size_t columns, const float *p,
                 size_t p_stride, unsigned rank);
  /* product[i][j] = sum over k of p[k][i] * q[k][j], k upwards from the first product; then `op`. */
  void (*expand)(float *y, size_t y_stride, size_t rows, size_t columns, const float *p, size_t p_stride, const float *q,
                 size_t q_stride, unsigned rank, bl_lowrank_op op, float scale);
} bl_lowrank_kernels;

extern const bl_lowrank_kernels bl_lowrank_scalar, bl_lowrank_avx2, bl_lowrank_avx512;

#endif
