/* SPDX-License-Identifier: Apache-2.0
 *
 * Six Feistel rounds with a 64-bit finaliser as round function: far more mixing than a shuffle needs, and
 * still a few nanoseconds per position. Cycle walking visits fewer than four points on average, because the
 * domain is less than four times n.
 */
#include "data/shuffle.h"

#include "base/num.h"
#include "base/rng.h"
#include "base/status.h"

#define FEISTEL_ROUNDS 6

/* stream: 0 for the order that all ranks share, rank + 1 for a rank's own. */
static void init_stream(wk_permutation *p, uint64_t n, uint64_t seed, uint64_t epoch, uint64_t stream, bool shuffle) {
  BL_ASSERT(n <= UINT64_C(1) << 62);
  unsigned half_bits = 1;
  while ((UINT64_C(1) << (2 * half_bits)) < n)
    half_bits++;
  *p = (wk_permutation){.n = n,
                        .key = bl_rng_u64(bl_rng_key(seed, BL_RNG_SHUFFLE), epoch, stream),
                        .half_bits = half_bits,
                        .identity = !shuffle};
}

void wk_permutation_init(wk_permutation *p, uint64_t n, uint64_t seed, uint64_t epoch, bool shuffle) {
  init_stream(p, n, seed, epoch, 0, shuffle);
}

void wk_permutation_init_local(wk_permutation *p, uint64_t n, uint64_t seed, uint64_t epoch, uint32_t rank, bool shuffle) {
  init_stream(p, n, seed, epoch, (uint64_t)rank + 1, shuffle);
}

/* The finaliser of splitmix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014). */
static inline uint64_t mix(uint64_t z) {
  z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
  z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
  return z ^ (z >> 31);
}

static uint64_t feistel(const wk_permutation *p, uint64_t x) {
  uint64_t mask = (UINT64_C(1) << p->half_bits) - 1;
  uint64_t left = x >> p->half_bits, right = x & mask;
  for (uint64_t round = 1; round <= FEISTEL_ROUNDS; round++) {
    uint64_t f = mix(right + p->key + round * UINT64_C(0x9e3779b97f4a7c15)) & mask;
    uint64_t swapped = left ^ f;
    left = right;
    right = swapped;
  }
  return left << p->half_bits | right;
}

uint64_t wk_permutation_at(const wk_permutation *p, uint64_t position) {
  BL_ASSERT(position < p->n);
  if (p->identity)
    return position;
  do
    position = feistel(p, position);
  while (position >= p->n);
  return position;
}

/* n * part / parts without overflow. */
static uint64_t share(uint64_t n, uint32_t part, uint32_t parts) {
  return (uint64_t)((unsigned __int128)n * part / parts);
}

uint64_t wk_batch_size(uint64_t n, uint64_t batch, uint64_t clock_in_epoch) {
  BL_ASSERT(batch > 0);
  if (clock_in_epoch >= bl_div_up_u64(n, batch))
    return 0;
  return BL_MIN(batch, n - clock_in_epoch * batch);
}

wk_range wk_batch_range(uint64_t n, uint64_t batch, uint64_t clock_in_epoch, uint32_t rank, uint32_t world) {
  BL_ASSERT(rank < world);
  uint64_t size = wk_batch_size(n, batch, clock_in_epoch);
  uint64_t first = size > 0 ? clock_in_epoch * batch : n;
  return (wk_range){first + share(size, rank, world), first + share(size, rank + 1, world)};
}

wk_range wk_local_range(uint64_t n, uint64_t share_size, uint64_t clock_in_epoch) {
  uint64_t size = wk_batch_size(n, share_size, clock_in_epoch);
  uint64_t first = size > 0 ? clock_in_epoch * share_size : n;
  return (wk_range){first, first + size};
}

uint64_t wk_local_size(const uint64_t *rank_samples, size_t n_ranks, uint64_t share_size, uint64_t clock_in_epoch) {
  uint64_t size = 0;
  for (size_t i = 0; i < n_ranks; i++)
    size += wk_batch_size(rank_samples[i], share_size, clock_in_epoch);
  return size;
}

wk_range wk_eval_range(uint64_t n, uint32_t rank, uint32_t world) {
  BL_ASSERT(rank < world);
  return (wk_range){share(n, rank, world), share(n, rank + 1, world)};
}

uint64_t wk_train_part(uint64_t n, double validation) {
  BL_ASSERT(validation >= 0 && validation <= 1);
  uint64_t held_out = (uint64_t)((double)n * validation + 0.5);
  return held_out >= n ? 0 : n - held_out;
}
