/* SPDX-License-Identifier: Apache-2.0
 *
 * Kernels of the sparse codecs: one pass over a chunk that settles the residual and picks what reaches a threshold, and
 * the small loops over what was picked. The scalar table is the definition; every table gives the same bits.
 *
 * Magnitudes are compared as integers: a float32 without its sign bit orders like its value. `least` is such a pattern,
 * from 1 (every number but zeros) on; at BL_SPARSE_NONE and above nothing reaches it. NaN and infinity reach nothing,
 * and where one would be left in a residual or a velocity a zero is left.
 *
 * Shapes, alignment, threads: as in kernel/kernel.h; index lists are aligned as uint32_t.
 */
#ifndef BL_KERNEL_SPARSE_H
#define BL_KERNEL_SPARSE_H

#include "kernel/kernel.h"

#define BL_SPARSE_NONE 0x7f800000u
#define BL_SPARSE_SLACK 16 /* entries of a list behind its limit that a kernel may overwrite */

/* What was picked, in the order of the elements. */
typedef struct bl_sparse_list {
  uint32_t *index; /* [max + BL_SPARSE_SLACK] */
  float *value;    /* [max + BL_SPARSE_SLACK] */
  uint32_t max;
} bl_sparse_list;

typedef struct bl_sparse_kernels {
  /* The finite elements with a magnitude of at least `least`: the first list->max of them are listed.
   * Returns how many there are, listed or not. x, residual, velocity: [n].
   * feedback: residual = x + residual, and that is what is picked from.
   * momentum: velocity = m * velocity + x, residual = residual + velocity, picked from residual. */
  uint32_t (*select)(const float *x, uint32_t n, uint32_t least, const bl_sparse_list *list);
  uint32_t (*select_feedback)(const float *x, float *residual, uint32_t n, uint32_t least, const bl_sparse_list *list);
  uint32_t (*select_momentum)(const float *x, float *residual, float *velocity, float m, uint32_t n, uint32_t least,
                              const bl_sparse_list *list);
  /* The magnitudes that these would pick from, as patterns; 0 for what is not finite. residual and velocity may be NULL
   * (velocity only with residual) and are not changed. */
  void (*magnitudes)(uint32_t *out, const float *x, const float *residual, const float *velocity, float m, size_t n);
  /* Sum of |x| in double, lanes and their order as in bl_kernels.sum_squares. */
  double (*sum_magnitudes)(const float *x, size_t n);
  /* The same of those below a limit (sums[0]; NaN too) and of those with |x| >= limit (sums[1]). */
  void (*sum_split)(const float *x, float limit, double sums[2], size_t n);
  /* Bit i of out (least significant first; whole bytes, the last filled with zeros): x[i] has its sign bit set;
   * |x[i]| >= limit. */
  void (*pack_signs)(uint8_t *out, const float *x, size_t n);
  void (*pack_reaching)(uint8_t *out, const float *x, float limit, size_t n);
  /* y[i] = magnitude, negative where bit i of signs is set. */
  void (*unpack_signs)(float *y, const uint8_t *signs, float magnitude, size_t n);
  /* The same with `high` for the magnitude where bit i of choice is set, else `low`. */
  void (*unpack_pairs)(float *y, const uint8_t *signs, const uint8_t *choice, float low, float high, size_t n);
} bl_sparse_kernels;

#endif
