/* SPDX-License-Identifier: Apache-2.0
 *
 * Thresholds for sparse codecs: which magnitude the kept part of some numbers begins at. Made for a whole tensor before
 * its chunks are encoded (bl_encode.threshold), so that the chunks compete with each other.
 *
 * By sampling the numbers as they are now: a controller that follows the density of earlier rounds was found to
 * oscillate. Pure functions, any thread, no allocation.
 */
#ifndef BL_CODEC_SELECT_H
#define BL_CODEC_SELECT_H

#include <stddef.h>
#include <stdint.h>

#define BL_SELECT_SAMPLES 16384 /* in runs of BL_SELECT_RUN neighbours, one cache line each */
#define BL_SELECT_RUN 16

/* What an encoder will select from: |x|, |x + residual|, or with a velocity the magnitude of
 * residual + (momentum * velocity + x). [n] each; residual and velocity may be NULL, velocity is for a residual.
 * Numbers that are not finite count as zeros. Nothing is changed. */
typedef struct bl_select_source {
  const float *x, *residual, *velocity;
  float momentum;
  size_t n;
} bl_select_source;

/* ceil(density * n), at least 1 for n > 0, at most n. */
size_t bl_select_wanted(float density, size_t n);

/* The magnitude that about density * n of the numbers reach; above 0, also where fewer are not zeros. Exact up to
 * BL_SELECT_SAMPLES numbers. With d * 16384 = m expected samples above it, the number that reach it is off by about
 * 1 / sqrt(m) of itself: 2.5 % at a density of 10 %, 8 % at 1 %, 25 % at 0.1 %. The places are a function of the key. */
float bl_select_sampled(const bl_select_source *source, float density, uint64_t key);
/* The bl_select_wanted-th largest magnitude, or the smallest number above 0. Three passes. */
float bl_select_exact(const bl_select_source *source, float density);

/* As patterns, as the kernels want them (kernel/sparse.h): the kth largest magnitude, at least 1. k: 1 to n. */
uint32_t bl_select_kth(const bl_select_source *source, size_t k);
/* The same of numbers that all reach `least`, in one pass where most are below twice that. */
uint32_t bl_select_kth_above(const float *x, size_t n, size_t k, uint32_t least);
/* A pattern that a few more than k of the numbers reach, in all likelihood: from BL_SELECT_SAMPLES / 4 samples. */
uint32_t bl_select_low_guess(const bl_select_source *source, size_t k, uint64_t key);

#endif
