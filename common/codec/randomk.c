/* SPDX-License-Identifier: Apache-2.0
 *
 * randomk: k = ceil(density * n) elements by chance. Both ends draw them, so no index travels.
 *
 * The n elements are cut into k strata, stratum j from floor(j n / k) on, and one element of each is drawn with 32 bits
 * of Philox, word j % 4 at counter (0, j / 4) under the frame's key: below(size) = word * size >> 32. So indices increase
 * and each end makes them in one pass. Without a residual a value is multiplied by the size of its stratum, which makes
 * the frame unbiased with float32 values (and, but for rounding, float16); with a residual values are sent as they are.
 *
 * Header: parameter = kind of values (enum bl_values). Payload: the key, 8 bytes; k in 1 to 3 bytes as in
 * codec/sparse.h; k values (codec/values.h).
 *
 * Source: Stich, Cordonnier, Jaggi, "Sparsified SGD with memory", NeurIPS 2018, arXiv:1809.07599; Wangni et al.,
 * arXiv:1710.09854.
 */
#include "base/le.h"
#include "base/num.h"
#include "base/rng.h"
#include "codec/codecs.h"
#include "codec/select.h"
#include "codec/sparse.h"
#include "codec/values.h"

#include <inttypes.h>
#include <string.h>

#define KEY_BYTES 8

typedef struct stratum {
  uint32_t index, size;
} stratum;

/* Strata first to first + count of k; first: a multiple of 4. */
static void draw(uint64_t key, uint32_t n, uint32_t k, uint32_t first, uint32_t count, stratum *out) {
  uint32_t begin = (uint32_t)((uint64_t)first * n / k);
  bl_rng_block words;
  for (uint32_t i = 0; i < count; i++) {
    uint32_t end = (uint32_t)((uint64_t)(first + i + 1) * n / k);
    if (i % 4 == 0)
      words = bl_rng_philox(key, 0, (first + i) / 4);
    out[i].size = end - begin;
    out[i].index = begin + (uint32_t)((uint64_t)words.v[i % 4] * out[i].size >> 32);
    begin = end;
  }
}

static size_t bound_bytes(const bl_codec_spec *spec, uint32_t n) {
  return KEY_BYTES + bl_sparse_bound(spec->values, n, (uint32_t)bl_select_wanted(spec->density, n));
}

/* The list of what is drawn from a, which is finite where it comes from a residual. */
static void gather_drawn(uint64_t key, const float *a, bool weigh, uint32_t n, uint32_t k, const bl_sparse_list *list) {
  stratum s[BL_VALUES_BLOCK];
  for (uint32_t first = 0, count; first < k; first += count) {
    count = BL_MIN(k - first, (uint32_t)BL_VALUES_BLOCK);
    draw(key, n, k, first, count, s);
    for (uint32_t i = 0; i < count; i++) {
      float v = a[s[i].index] * (weigh ? (float)s[i].size : 1.0f);
      list->index[first + i] = s[i].index;
      list->value[first + i] = v - v == 0 ? v : 0;
    }
  }
}

static size_t encode(const bl_encode *e, const float *x, float *residual, uint32_t n, uint32_t flags, uint8_t *out) {
  const bl_codec_spec *spec = e->spec;
  const uint32_t k = (uint32_t)bl_select_wanted(spec->density, n), width = bl_sparse_count_bytes(n);
  const bl_sparse_list list = bl_sparse_lists(spec->values, n, k, out + KEY_BYTES);
  if (residual != NULL)
    bl_sparse_gather(e, x, residual, n, BL_SPARSE_NONE, NULL);
  gather_drawn(e->key, residual == NULL ? x : residual, residual == NULL, n, k, &list);
  uint8_t *at = out + BL_CODEC_HEADER_BYTES;
  bl_le_put64(at, e->key);
  memcpy(at + KEY_BYTES, &k, width);
  bl_values_put(spec->values, list.value, k, at + KEY_BYTES + width);
  bl_sparse_leave(e, list.index, list.value, k, residual);
  return bl_codec_seal(out, BL_CODEC_RANDOMK, flags, (uint16_t)spec->values, n,
                       KEY_BYTES + width + bl_values_bytes(spec->values, k));
}

static uint32_t count_of(const bl_codec_view *v) {
  uint32_t k = 0;
  memcpy(&k, v->payload + KEY_BYTES, bl_sparse_count_bytes(v->n));
  return k;
}

static bl_status check(const bl_codec_view *v, bl_error *err) {
  const uint32_t begin = KEY_BYTES + bl_sparse_count_bytes(v->n);
  if (v->parameter >= BL_VALUES_COUNT)
    return bl_fail(err, BL_ECORRUPT, "randomk frame has parameter %u: values of an unknown kind", v->parameter);
  if (v->payload_bytes < begin)
    return bl_codec_expect(v, begin, err);
  const uint32_t k = count_of(v);
  if (k > v->n)
    return bl_fail(err, BL_ECORRUPT, "randomk frame keeps %" PRIu32 " of %" PRIu32 " elements", k, v->n);
  bl_status st = bl_codec_expect(v, begin + bl_values_bytes((bl_values)v->parameter, k), err);
  if (st != BL_OK)
    return st;
  st = bl_values_check((bl_values)v->parameter, k, v->payload + begin, err);
  return st == BL_OK ? st : bl_fail_prefix(err, st, "randomk frame of %" PRIu32 " elements", v->n);
}

static void scatter(const bl_codec_view *v, bool store, float scale, float *y) {
  const uint32_t k = count_of(v);
  const uint64_t key = bl_le_get64(v->payload);
  stratum s[BL_VALUES_BLOCK];
  float value[BL_VALUES_BLOCK];
  for (uint32_t first = 0, count; first < k; first += count) {
    count = BL_MIN(k - first, (uint32_t)BL_VALUES_BLOCK);
    draw(key, v->n, k, first, count, s);
    bl_values_get((bl_values)v->parameter, k, v->payload + KEY_BYTES + bl_sparse_count_bytes(v->n), first, count, value);
    for (uint32_t i = 0; i < count; i++)
      y[s[i].index] = store ? value[i] : y[s[i].index] + scale * value[i];
  }
}

static void decode(const bl_codec_view *v, float *y) {
  memset(y, 0, (size_t)v->n * sizeof *y);
  scatter(v, true, 1, y);
}

static void accumulate(const bl_codec_view *v, float scale, float *y) { scatter(v, false, scale, y); }

const bl_codec bl_codec_randomk = {
    .id = BL_CODEC_RANDOMK,
    .name = "randomk",
    .sparse = true,
    .unbiased = true,
    .check = check,
    .bound_bytes = bound_bytes,
    .encode = encode,
    .decode = decode,
    .accumulate = accumulate,
};
