/* SPDX-License-Identifier: Apache-2.0 */
#include "codec/values.h"

#include "base/le.h"
#include "base/num.h"
#include "kernel/kernel.h"
#include "kernel/sparse.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>

#define INT8_MAX_VALUE 127
/* 127 times this is finite, and no float32 is further than half a step above it. */
#define INT8_SCALE_MAX 0x1.02p121f
/* Below this the reciprocal of a scale is infinite; what is so small is sent as 0 and stays in the residual. */
#define INT8_SCALE_MIN 0x1p-126f

static size_t bits_bytes(uint32_t k) { return (k + 7) / 8; }

static float get_f32(const uint8_t *at) {
  float v;
  memcpy(&v, at, sizeof v);
  return v;
}

static void put_f32(uint8_t *at, float v) { memcpy(at, &v, sizeof v); }

size_t bl_values_bytes(bl_values kind, uint32_t k) {
  if (k == 0)
    return 0;
  switch (kind) {
  case BL_VALUES_FLOAT32: return (size_t)k * 4;
  case BL_VALUES_FLOAT16: return (size_t)k * 2;
  case BL_VALUES_INT8: return (size_t)k + 4 * bl_div_up_u64(k, BL_VALUES_BLOCK);
  case BL_VALUES_BITS2: return 8 + 2 * bits_bytes(k);
  case BL_VALUES_TERNARY: return 4 + bits_bytes(k);
  case BL_VALUES_COUNT: break;
  }
  return 0;
}

static uint8_t *scales_end(uint8_t *out, uint32_t k) { return out + 4 * bl_div_up_u64(k, BL_VALUES_BLOCK); }

static void put_int8_block(float *value, uint32_t count, uint8_t *scale_out, int8_t *out) {
  float largest = 0;
  for (uint32_t i = 0; i < count; i++)
    largest = BL_MAX(largest, fabsf(value[i]));
  float scale = BL_MIN(largest / (float)INT8_MAX_VALUE, INT8_SCALE_MAX);
  scale = scale < INT8_SCALE_MIN ? 0 : scale;
  float inverse = scale > 0 ? 1 / scale : 0;
  put_f32(scale_out, scale);
  for (uint32_t i = 0; i < count; i++) {
    float q = nearbyintf(value[i] * inverse);
    q = BL_MIN(BL_MAX(q, -(float)INT8_MAX_VALUE), (float)INT8_MAX_VALUE);
    out[i] = (int8_t)q;
    value[i] = (float)out[i] * scale;
  }
}

static void put_int8(float *value, uint32_t k, uint8_t *out) {
  int8_t *bytes = (int8_t *)scales_end(out, k);
  for (uint32_t at = 0; at < k; at += BL_VALUES_BLOCK, out += 4)
    put_int8_block(value + at, BL_MIN(k - at, (uint32_t)BL_VALUES_BLOCK), out, bytes + at);
}

static void put_float16(float *value, uint32_t k, uint8_t *out) {
  const bl_kernels *kernels = bl_kernels_get();
  uint16_t *halves = (uint16_t *)(void *)out; /* kernels take any alignment */
  kernels->f32_to_f16(halves, value, k);
  kernels->f16_to_f32(value, halves, k);
}

static void put_ternary(float *value, uint32_t k, uint8_t *out) {
  const bl_sparse_kernels *s = bl_kernels_get()->sparse;
  float magnitude = (float)(s->sum_magnitudes(value, k) / k);
  put_f32(out, magnitude);
  s->pack_signs(out + 4, value, k);
  s->unpack_signs(value, out + 4, magnitude, k);
}

static uint32_t ones_in(const uint8_t *bits, uint32_t k) {
  uint32_t ones = 0;
  for (uint32_t i = 0; i < bits_bytes(k); i++)
    ones += (uint32_t)__builtin_popcount(bits[i]);
  return ones;
}

/* One step of Lloyd's algorithm from the mean. */
static void put_bits2(float *value, uint32_t k, uint8_t *out) {
  const bl_sparse_kernels *s = bl_kernels_get()->sparse;
  uint8_t *signs = out + 8, *choice = signs + bits_bytes(k);
  const float mean = (float)(s->sum_magnitudes(value, k) / k);
  double sums[2];
  s->pack_signs(signs, value, k);
  s->pack_reaching(choice, value, mean, k);
  s->sum_split(value, mean, sums, k);
  const uint32_t n_high = ones_in(choice, k);
  const float low = n_high < k ? (float)(sums[0] / (k - n_high)) : mean, high = n_high > 0 ? (float)(sums[1] / n_high) : mean;
  put_f32(out, low);
  put_f32(out + 4, high);
  s->unpack_pairs(value, signs, choice, low, high, k);
}

void bl_values_put(bl_values kind, float *value, uint32_t k, uint8_t *out) {
  if (k == 0)
    return;
  switch (kind) {
  case BL_VALUES_FLOAT32: memmove(out, value, (size_t)k * 4); break;
  case BL_VALUES_FLOAT16: put_float16(value, k, out); break;
  case BL_VALUES_INT8: put_int8(value, k, out); break;
  case BL_VALUES_BITS2: put_bits2(value, k, out); break;
  case BL_VALUES_TERNARY: put_ternary(value, k, out); break;
  case BL_VALUES_COUNT: break;
  }
}

static bl_status check_sizes(const uint8_t *at, uint32_t count, float max, const char *what, bl_error *err) {
  for (uint32_t i = 0; i < count; i++) {
    float v = get_f32(at + 4 * i);
    if (!(v >= 0 && v <= max) || signbit(v))
      return bl_fail(err, BL_ECORRUPT, "%s %" PRIu32 " is %g, which none can be", what, i, (double)v);
  }
  return BL_OK;
}

static bl_status check_padding(const uint8_t *bits, uint32_t k, bl_error *err) {
  if (k % 8 == 0 || bits[k / 8] >> k % 8 == 0)
    return BL_OK;
  return bl_fail(err, BL_ECORRUPT, "bits are left over behind %" PRIu32 " values", k);
}

static bl_status check_int8(uint32_t k, const uint8_t *bytes, bl_error *err) {
  uint32_t n_blocks = (uint32_t)bl_div_up_u64(k, BL_VALUES_BLOCK);
  bl_status st = check_sizes(bytes, n_blocks, INT8_SCALE_MAX, "scale", err);
  if (st == BL_OK && memchr(bytes + 4 * (size_t)n_blocks, 0x80, k) != NULL)
    st = bl_fail(err, BL_ECORRUPT, "an int8 value is -128, which none can be");
  return st;
}

static bl_status check_float16(uint32_t k, const uint8_t *bytes, bl_error *err) {
  bool finite = true;
  for (uint32_t i = 0; i < k; i++)
    finite &= (bl_le_get16(bytes + 2 * (size_t)i) & 0x7c00) != 0x7c00;
  return finite ? BL_OK : bl_fail(err, BL_ECORRUPT, "a kept value is not finite");
}

bl_status bl_values_check(bl_values kind, uint32_t k, const uint8_t *bytes, bl_error *err) {
  if (k == 0)
    return BL_OK;
  bl_status st = BL_OK;
  switch (kind) {
  case BL_VALUES_FLOAT32:
    return bl_kernels_get()->all_finite((const float *)(const void *)bytes, k)
               ? BL_OK
               : bl_fail(err, BL_ECORRUPT, "a kept value is not finite");
  case BL_VALUES_FLOAT16: return check_float16(k, bytes, err);
  case BL_VALUES_INT8: return check_int8(k, bytes, err);
  case BL_VALUES_BITS2:
    st = check_sizes(bytes, 2, FLT_MAX, "magnitude", err);
    st = st == BL_OK ? check_padding(bytes + 8, k, err) : st;
    return st == BL_OK ? check_padding(bytes + 8 + bits_bytes(k), k, err) : st;
  case BL_VALUES_TERNARY:
    st = check_sizes(bytes, 1, FLT_MAX, "magnitude", err);
    return st == BL_OK ? check_padding(bytes + 4, k, err) : st;
  case BL_VALUES_COUNT: break;
  }
  return bl_fail(err, BL_ECORRUPT, "values of kind %d are unknown", (int)kind);
}

static void get_int8(const uint8_t *bytes, uint32_t k, uint32_t first, uint32_t count, float *ret_value) {
  float scale = get_f32(bytes + first / BL_VALUES_BLOCK * 4);
  const int8_t *q = (const int8_t *)bytes + 4 * bl_div_up_u64(k, BL_VALUES_BLOCK) + first;
  for (uint32_t i = 0; i < count; i++)
    ret_value[i] = (float)q[i] * scale;
}

void bl_values_get(bl_values kind, uint32_t k, const uint8_t *bytes, uint32_t first, uint32_t count, float *ret_value) {
  const bl_kernels *kernels = bl_kernels_get();
  switch (kind) {
  case BL_VALUES_FLOAT32: memcpy(ret_value, bytes + (size_t)first * 4, (size_t)count * 4); break;
  case BL_VALUES_FLOAT16:
    kernels->f16_to_f32(ret_value, (const uint16_t *)(const void *)(bytes + (size_t)first * 2), count);
    break;
  case BL_VALUES_INT8: get_int8(bytes, k, first, count, ret_value); break;
  case BL_VALUES_BITS2:
    kernels->sparse->unpack_pairs(ret_value, bytes + 8 + first / 8, bytes + 8 + bits_bytes(k) + first / 8,
                                  get_f32(bytes), get_f32(bytes + 4), count);
    break;
  case BL_VALUES_TERNARY:
    kernels->sparse->unpack_signs(ret_value, bytes + 4 + first / 8, get_f32(bytes), count);
    break;
  case BL_VALUES_COUNT: break;
  }
}
