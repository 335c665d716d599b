/* SPDX-License-Identifier: Apache-2.0 */
#include "codec/sparse.h"

#include "base/num.h"
#include "codec/codecs.h"
#include "codec/index.h"
#include "codec/select.h"
#include "codec/values.h"

#include <inttypes.h>
#include <string.h>

#define LIST_ALIGN 64
#define SUM_GROUP 8      /* 2 KiB on the stack for each */
#define SUM_TILE 16384u  /* 64 KiB of y */
#define MAGNITUDE_MASK 0x7fffffffu

uint32_t bl_sparse_count_bytes(uint32_t n) { return n < 1u << 8 ? 1 : n < 1u << 16 ? 2 : 3; }

uint32_t bl_sparse_max(float density, uint32_t n) {
  return (uint32_t)BL_MIN(2 * bl_select_wanted(density, n) + 64, (size_t)n);
}

/* Frame, then lists. */
static size_t frame_bound(bl_values kind, uint32_t n, uint32_t kept_max) {
  return BL_CODEC_HEADER_BYTES + bl_sparse_count_bytes(n) + bl_values_bytes(kind, kept_max) +
         bl_index_bound(kept_max, n) + BL_INDEX_SLACK;
}

static size_t list_bytes(uint32_t kept_max) { return 4 * ((size_t)kept_max + BL_SPARSE_SLACK); }

size_t bl_sparse_bound(bl_values kind, uint32_t n, uint32_t kept_max) {
  return frame_bound(kind, n, kept_max) + LIST_ALIGN + 2 * list_bytes(kept_max);
}

bl_sparse_list bl_sparse_lists(bl_values kind, uint32_t n, uint32_t kept_max, uint8_t *out) {
  uint8_t *at = out + frame_bound(kind, n, kept_max);
  at += (LIST_ALIGN - (uintptr_t)at % LIST_ALIGN) % LIST_ALIGN;
  return (bl_sparse_list){.index = (uint32_t *)(void *)at,
                          .value = (float *)(void *)(at + list_bytes(kept_max)),
                          .max = kept_max};
}

uint32_t bl_sparse_gather(const bl_encode *e, const float *x, float *residual, uint32_t n, uint32_t least,
                          const bl_sparse_list *list) {
  const bl_sparse_kernels *k = bl_kernels_get()->sparse;
  uint32_t spare_index[BL_SPARSE_SLACK];
  float spare_value[BL_SPARSE_SLACK];
  const bl_sparse_list none = {spare_index, spare_value, 0};
  list = list == NULL ? &none : list;
  if (residual == NULL)
    return k->select(x, n, least, list);
  if (e->velocity == NULL)
    return k->select_feedback(x, residual, n, least, list);
  return k->select_momentum(x, residual, e->velocity, e->momentum, n, least, list);
}

static uint32_t magnitude_at(const float *x) {
  uint32_t b;
  memcpy(&b, x, sizeof b);
  return b & MAGNITUDE_MASK;
}

uint32_t bl_sparse_gather_exact(const float *a, uint32_t n, uint32_t k, const bl_sparse_list *list) {
  if (k == 0)
    return 0;
  const uint32_t least = bl_select_kth(&(bl_select_source){.x = a, .n = n}, k);
  uint32_t equals = k - bl_sparse_gather(NULL, a, NULL, n, least + 1, NULL), count = 0;
  for (uint32_t i = 0; i < n && count < k; i++) {
    uint32_t size = magnitude_at(a + i);
    if (size < least || size >= BL_SPARSE_NONE || (size == least && equals == 0))
      continue;
    equals -= size == least;
    list->index[count] = i;
    memcpy(&list->value[count++], a + i, sizeof *a);
  }
  return count;
}

/* Of `count` entries that all reach `least` the last ones that equal it go, until k are left. */
static uint32_t drop_equals(const bl_sparse_list *list, uint32_t count, uint32_t least, uint32_t k) {
  uint32_t first = count, kept;
  for (uint32_t surplus = count - k; surplus > 0;)
    surplus -= magnitude_at(list->value + --first) == least;
  kept = first;
  for (uint32_t i = first; i < count; i++) {
    if (magnitude_at(list->value + i) == least)
      continue;
    list->index[kept] = list->index[i];
    list->value[kept++] = list->value[i];
  }
  return kept;
}

/* Entries only move down, and a kernel has read what it writes over. */
uint32_t bl_sparse_keep_largest(const bl_sparse_list *list, uint32_t count, uint32_t k, uint32_t picked_from) {
  if (count <= k)
    return count;
  const uint32_t least = bl_select_kth_above(list->value, count, k, picked_from);
  uint32_t place[BL_VALUES_BLOCK + BL_SPARSE_SLACK], kept = 0;
  for (uint32_t at = 0, n; at < count; at += n) {
    n = BL_MIN(count - at, (uint32_t)BL_VALUES_BLOCK);
    uint32_t more = bl_sparse_gather(NULL, list->value + at, NULL, n, least,
                                     &(bl_sparse_list){place, list->value + kept, n});
    for (uint32_t i = 0; i < more; i++)
      list->index[kept + i] = list->index[at + place[i]];
    kept += more;
  }
  return drop_equals(list, kept, least, k);
}

void bl_sparse_leave(const bl_encode *e, const uint32_t *index, const float *sent, uint32_t count, float *residual) {
  if (residual == NULL)
    return;
  for (uint32_t i = 0; i < count; i++)
    residual[index[i]] -= sent[i];
  for (uint32_t i = 0; e->velocity != NULL && i < count; i++)
    e->velocity[index[i]] = 0;
}

static void put_count(uint8_t *out, uint32_t count, uint32_t width) { memcpy(out, &count, width); }

size_t bl_sparse_finish(const bl_encode *e, const bl_sparse_list *list, uint32_t count, float *residual, uint32_t n,
                        uint32_t flags, uint8_t *out) {
  const bl_codec_spec *spec = e->spec;
  uint8_t *at = out + BL_CODEC_HEADER_BYTES;
  put_count(at, count, bl_sparse_count_bytes(n));
  at += bl_sparse_count_bytes(n);
  bl_values_put(spec->values, list->value, count, at);
  at += bl_values_bytes(spec->values, count);
  bl_sparse_leave(e, list->index, list->value, count, residual);
  bl_index_plan plan = bl_index_plan_gaps(list->index, count, n);
  bl_index_put(&plan, list->index, at);
  at += plan.bytes;
  return bl_codec_seal(out, spec->codec->id, flags, (uint16_t)((uint32_t)spec->values | plan.code << 8), n,
                       (size_t)(at - out) - BL_CODEC_HEADER_BYTES);
}

/* A frame's parts. */
typedef struct parts {
  bl_values kind;
  uint32_t code, k;
  const uint8_t *values, *indices;
  size_t index_bytes;
} parts;

/* The payload has its count, and the values and indices that it speaks of, if these are within the payload. */
static parts parts_of(const bl_codec_view *v) {
  parts p = {.kind = (bl_values)(v->parameter & 0xff), .code = v->parameter >> 8};
  memcpy(&p.k, v->payload, bl_sparse_count_bytes(v->n));
  p.values = v->payload + bl_sparse_count_bytes(v->n);
  p.indices = p.values + bl_values_bytes(p.kind, p.k);
  p.index_bytes = v->payload_bytes - (size_t)(p.indices - v->payload);
  return p;
}

bl_status bl_sparse_check(const bl_codec_view *v, bl_error *err) {
  const uint32_t width = bl_sparse_count_bytes(v->n);
  uint32_t k = 0;
  if ((v->parameter & 0xff) >= BL_VALUES_COUNT || v->parameter >> 8 >= BL_INDEX_CODES)
    return bl_fail(err, BL_ECORRUPT, "%s frame has parameter %u: an unknown kind of values or of indices", v->codec->name,
                   v->parameter);
  if (v->payload_bytes < width)
    return bl_fail(err, BL_ECORRUPT, "%s frame of %zu bytes of payload has no count", v->codec->name, v->payload_bytes);
  memcpy(&k, v->payload, width);
  if (k > v->n)
    return bl_fail(err, BL_ECORRUPT, "%s frame keeps %" PRIu32 " of %" PRIu32 " elements", v->codec->name, k, v->n);
  if (v->payload_bytes < width + bl_values_bytes((bl_values)(v->parameter & 0xff), k))
    return bl_fail(err, BL_ECORRUPT, "%s frame of %zu bytes of payload is too short for %" PRIu32 " values",
                   v->codec->name, v->payload_bytes, k);
  const parts p = parts_of(v);
  bl_status st = bl_values_check(p.kind, p.k, p.values, err);
  if (st == BL_OK)
    st = bl_index_check(p.code, p.k, v->n, p.indices, p.index_bytes, err);
  return st == BL_OK ? st : bl_fail_prefix(err, st, "%s frame of %" PRIu32 " elements", v->codec->name, v->n);
}

typedef enum scatter_how { STORE, ADD, ADD_SCALED } scatter_how;

/* y takes what is kept; blocks stay in the first cache. */
static void scatter(const bl_codec_view *v, scatter_how how, float scale, float *y) {
  const parts p = parts_of(v);
  bl_index_reader r = bl_index_open(p.code, p.k, p.indices, p.index_bytes);
  uint32_t index[BL_VALUES_BLOCK];
  float value[BL_VALUES_BLOCK];
  for (uint32_t first = 0, count; first < p.k; first += count) {
    count = BL_MIN(p.k - first, (uint32_t)BL_VALUES_BLOCK);
    bl_index_next(&r, count, index);
    bl_values_get(p.kind, p.k, p.values, first, count, value);
    for (uint32_t i = 0; i < count; i++) {
      float *at = y + index[i];
      *at = how == STORE ? value[i] : how == ADD ? *at + value[i] : *at + scale * value[i];
    }
  }
}

void bl_sparse_decode(const bl_codec_view *v, float *y) {
  memset(y, 0, (size_t)v->n * sizeof *y);
  scatter(v, STORE, 1, y);
}

void bl_sparse_accumulate(const bl_codec_view *v, float scale, float *y) {
  scatter(v, scale == 1.0f ? ADD : ADD_SCALED, scale, y);
}

/* Where one frame of several has come to. */
typedef struct cursor {
  parts p;
  bl_index_reader reader;
  uint32_t first, count, at; /* the block in hand: of the frame's elements first to first + count */
  uint32_t index[BL_VALUES_BLOCK];
  float value[BL_VALUES_BLOCK];
} cursor;

static void cursor_fill(cursor *c) {
  c->first += c->count;
  c->count = BL_MIN(c->p.k - c->first, (uint32_t)BL_VALUES_BLOCK);
  c->at = 0;
  if (c->count == 0) /* behind the last there are no values, nor scales of them */
    return;
  bl_index_next(&c->reader, c->count, c->index);
  bl_values_get(c->p.kind, c->p.k, c->p.values, c->first, c->count, c->value);
}

static void cursor_open(cursor *c, const bl_codec_view *v) {
  c->p = parts_of(v);
  c->reader = bl_index_open(c->p.code, c->p.k, c->p.indices, c->p.index_bytes);
  c->first = c->count = 0;
  cursor_fill(c);
}

/* Everything up to element `end`. */
static void cursor_apply(cursor *c, uint32_t end, bool store, float *y) {
  while (c->at < c->count) {
    for (; c->at < c->count && c->index[c->at] < end; c->at++) {
      float *to = y + c->index[c->at], v = c->value[c->at];
      *to = store ? v : *to + v;
    }
    if (c->at < c->count)
      return;
    cursor_fill(c);
  }
}

/* The frames of a group go through y together, so that it is fetched once and stays near. */
static void sum_group(const bl_codec_view *views, uint32_t n_views, bool store, float *y) {
  cursor cursors[SUM_GROUP];
  const uint32_t n = views[0].n;
  for (uint32_t i = 0; i < n_views; i++)
    cursor_open(&cursors[i], &views[i]);
  for (uint32_t at = 0, end; at < n; at = end) {
    end = BL_MIN(n, at + SUM_TILE);
    if (store)
      memset(y + at, 0, (size_t)(end - at) * sizeof *y);
    for (uint32_t i = 0; i < n_views; i++)
      cursor_apply(&cursors[i], end, store && i == 0, y);
  }
}

void bl_sparse_sum(const bl_codec_view *views, uint32_t n_views, bool store, float *y) {
  for (uint32_t at = 0; at < n_views; at += SUM_GROUP, store = false)
    sum_group(views + at, BL_MIN(n_views - at, (uint32_t)SUM_GROUP), store, y);
}
