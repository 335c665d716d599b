/* SPDX-License-Identifier: Apache-2.0
 *
 * Counter-based random numbers: a pure function of (key, counter), so there is no generator state to
 * lose, to copy or to order. Any thread.
 *
 * Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011:
 * Philox4x32-10, with the constants of that paper.
 */
#ifndef BL_BASE_RNG_H
#define BL_BASE_RNG_H

#include <stdint.h>

/* Purpose of a stream: mixed into the key so that streams never overlap. Numbers are pinned: they are
 * part of what makes a job reproducible. */
typedef enum bl_rng_stream {
  BL_RNG_INIT = 1,     /* weights at clock 0; counter: (tensor, element) */
  BL_RNG_SHUFFLE = 2,  /* keyed permutation; counter: (epoch, round) */
  BL_RNG_DROPOUT = 3,  /* counter: (layer, clock, rank, element) */
  BL_RNG_ROUNDING = 4, /* stochastic rounding; counter: (clock, rank, chunk, element) */
  BL_RNG_AUGMENT = 5,  /* counter: (epoch, sample, step) */
  BL_RNG_DATA = 6,     /* data that we make ourselves */
} bl_rng_stream;

typedef struct bl_rng_block {
  uint32_t v[4];
} bl_rng_block;

/* Ten rounds of Philox4x32. */
bl_rng_block bl_rng_philox(uint64_t key, uint64_t counter_hi, uint64_t counter_lo);

/* 64-bit key of a stream of a job. */
uint64_t bl_rng_key(uint64_t seed, bl_rng_stream stream);

/* 64 random bits at (hi, lo). */
uint64_t bl_rng_u64(uint64_t key, uint64_t hi, uint64_t lo);

/* Uniform in [0, 1), multiples of 2^-24: exact in float32. */
float bl_rng_unit(uint64_t key, uint64_t hi, uint64_t lo);

/* Standard normal by Box-Muller with this library's own logarithm, sine and cosine: same bits on every CPU and libm. */
float bl_rng_normal(uint64_t key, uint64_t hi, uint64_t lo);

/* Uniform in [0, n), n > 0, without modulo bias worth naming (multiply-shift on 64 bits). */
uint64_t bl_rng_below(uint64_t key, uint64_t hi, uint64_t lo, uint64_t n);

#endif
