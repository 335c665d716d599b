/* SPDX-License-Identifier: Apache-2.0
 *
 * Inside common/kernel only: the tables, and what their files share.
 *
 * Arrays come at any alignment (a frame's payload lies wherever the receive buffer put it), so loads and
 * stores in C go through these one-byte-aligned types; the compiler makes ordinary moves of them.
 */
#ifndef BL_KERNEL_TABLES_H
#define BL_KERNEL_TABLES_H

#include "kernel/kernel.h"

extern const bl_kernels bl_kernels_scalar;
extern const bl_kernels bl_kernels_avx2;
extern const bl_kernels bl_kernels_avx512;

extern const struct bl_sparse_kernels bl_sparse_kernels_scalar;
extern const struct bl_sparse_kernels bl_sparse_kernels_avx2;
extern const struct bl_sparse_kernels bl_sparse_kernels_avx512;

/* What the CPU and the operating system allow; cpu.c. */
bool bl_cpu_has_avx2(void);   /* AVX2 and F16C */
bool bl_cpu_has_avx512(void); /* F, BW, VL, DQ */

typedef float bl_loose_float __attribute__((aligned(1)));
typedef uint16_t bl_loose_u16 __attribute__((aligned(1)));

#define BL_SUM_LANES 16

/* The end of every reduction: lanes 8, 4, 2, 1 apart are added. Destroys p. */
static inline double bl_sum_lanes(double p[BL_SUM_LANES]) {
  for (int apart = BL_SUM_LANES / 2; apart > 0; apart /= 2) {
    for (int i = 0; i < apart; i++)
      p[i] += p[i + apart];
  }
  return p[0];
}

#endif
