/* SPDX-License-Identifier: Apache-2.0
 *
 * The scalar table of the sparse codecs' kernels: the definition.
 */
#include "kernel/sparse.h"

#include "kernel/tables.h"

#include <math.h>
#include <string.h>

static uint32_t magnitude_of(float x) {
  uint32_t b;
  memcpy(&b, &x, sizeof b);
  return b & 0x7fffffffu;
}

static float zero_unless_finite(float x) { return magnitude_of(x) < BL_SPARSE_NONE ? x : 0.0f; }

/* Lists x where it is picked; returns whether it is. A pattern of infinity or NaN is at or above BL_SPARSE_NONE. */
static uint32_t pick(float x, uint32_t i, uint32_t least, uint32_t count, const bl_sparse_list *list) {
  uint32_t size = magnitude_of(x);
  if (size < least || size >= BL_SPARSE_NONE)
    return 0;
  if (count < list->max) {
    list->index[count] = i;
    ((bl_loose_float *)list->value)[count] = x;
  }
  return 1;
}

static uint32_t select_plain(const float *x0, uint32_t n, uint32_t least, const bl_sparse_list *list) {
  const bl_loose_float *x = x0;
  uint32_t count = 0;
  for (uint32_t i = 0; i < n; i++)
    count += pick(x[i], i, least, count, list);
  return count;
}

static uint32_t select_feedback(const float *x0, float *residual0, uint32_t n, uint32_t least,
                                const bl_sparse_list *list) {
  const bl_loose_float *x = x0;
  bl_loose_float *residual = residual0;
  uint32_t count = 0;
  for (uint32_t i = 0; i < n; i++) {
    residual[i] = zero_unless_finite(x[i] + residual[i]);
    count += pick(residual[i], i, least, count, list);
  }
  return count;
}

static uint32_t select_momentum(const float *x0, float *residual0, float *velocity0, float m, uint32_t n, uint32_t least,
                                const bl_sparse_list *list) {
  const bl_loose_float *x = x0;
  bl_loose_float *residual = residual0, *velocity = velocity0;
  uint32_t count = 0;
  for (uint32_t i = 0; i < n; i++) {
    velocity[i] = zero_unless_finite(m * velocity[i] + x[i]);
    residual[i] = zero_unless_finite(residual[i] + velocity[i]);
    count += pick(residual[i], i, least, count, list);
  }
  return count;
}

static void magnitudes(uint32_t *out, const float *x0, const float *residual0, const float *velocity0, float m,
                       size_t n) {
  const bl_loose_float *x = x0, *residual = residual0, *velocity = velocity0;
  for (size_t i = 0; i < n; i++) {
    float v = x[i];
    if (velocity != NULL)
      v = zero_unless_finite(m * velocity[i] + v);
    if (residual != NULL)
      v = velocity != NULL ? residual[i] + v : v + residual[i];
    out[i] = magnitude_of(zero_unless_finite(v));
  }
}

static double sum_magnitudes(const float *x0, size_t n) {
  const bl_loose_float *x = x0;
  double p[BL_SUM_LANES] = {0};
  for (size_t i = 0; i < n; i++)
    p[i % BL_SUM_LANES] += (double)fabsf(x[i]);
  return bl_sum_lanes(p);
}

static void sum_split(const float *x0, float limit, double sums[2], size_t n) {
  const bl_loose_float *x = x0;
  double p[2][BL_SUM_LANES] = {{0}};
  for (size_t i = 0; i < n; i++) {
    bool reaches = fabsf(x[i]) >= limit;
    p[0][i % BL_SUM_LANES] += reaches ? 0 : (double)fabsf(x[i]);
    p[1][i % BL_SUM_LANES] += reaches ? (double)fabsf(x[i]) : 0;
  }
  sums[0] = bl_sum_lanes(p[0]);
  sums[1] = bl_sum_lanes(p[1]);
}

static void pack_signs(uint8_t *out, const float *x0, size_t n) {
  const bl_loose_float *x = x0;
  memset(out, 0, (n + 7) / 8);
  for (size_t i = 0; i < n; i++)
    out[i / 8] = (uint8_t)(out[i / 8] | (signbit(x[i]) ? 1u << i % 8 : 0));
}

static void pack_reaching(uint8_t *out, const float *x0, float limit, size_t n) {
  const bl_loose_float *x = x0;
  memset(out, 0, (n + 7) / 8);
  for (size_t i = 0; i < n; i++)
    out[i / 8] = (uint8_t)(out[i / 8] | (fabsf(x[i]) >= limit ? 1u << i % 8 : 0));
}

static void unpack_signs(float *y0, const uint8_t *signs, float magnitude, size_t n) {
  bl_loose_float *y = y0;
  for (size_t i = 0; i < n; i++)
    y[i] = (signs[i / 8] >> i % 8 & 1) != 0 ? -magnitude : magnitude;
}

static void unpack_pairs(float *y0, const uint8_t *signs, const uint8_t *choice, float low, float high, size_t n) {
  bl_loose_float *y = y0;
  for (size_t i = 0; i < n; i++) {
    float magnitude = (choice[i / 8] >> i % 8 & 1) != 0 ? high : low;
    y[i] = (signs[i / 8] >> i % 8 & 1) != 0 ? -magnitude : magnitude;
  }
}

const bl_sparse_kernels bl_sparse_kernels_scalar = {
    .select = select_plain,
    .select_feedback = select_feedback,
    .select_momentum = select_momentum,
    .magnitudes = magnitudes,
    .sum_magnitudes = sum_magnitudes,
    .sum_split = sum_split,
    .pack_signs = pack_signs,
    .pack_reaching = pack_reaching,
    .unpack_signs = unpack_signs,
    .unpack_pairs = unpack_pairs,
};
