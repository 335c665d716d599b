/* SPDX-License-Identifier: Apache-2.0 */
#include "codec/zstd.h"

#include "base/alloc.h"
#include "base/le.h"
#include "codec/codecs.h"

#include <inttypes.h>
#include <pthread.h>

#define ZSTD_STATIC_LINKING_ONLY /* contexts in memory that we give */
#include <zstd.h>

#define LEVEL 3
#define DCTX_BYTES (256 * 1024) /* ZSTD_estimateDCtxSize is some 94 KiB */

enum { OFF_ID = 0, OFF_PARAMETER = 1, OFF_BYTES = 3, OFF_FRAME = 7 };

typedef struct reader {
  _Alignas(8) uint8_t context[DCTX_BYTES];
  uint8_t payload[BL_ZSTD_INNER_MAX];
} reader;

/* What a thread has. */
typedef struct workspace {
  reader *reader;
  uint8_t *writer; /* of ZSTD_estimateCCtxSize(LEVEL) */
} workspace;

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t key;
static bool has_key;

/* For threads without a workspace of their own. */
static reader shared_reader;
static pthread_mutex_t shared_lock = PTHREAD_MUTEX_INITIALIZER;

static void workspace_free(void *arg) {
  workspace *w = arg;
  bl_free(w->reader);
  bl_free(w->writer);
  bl_free(w);
}

static void make_key(void) { has_key = pthread_key_create(&key, workspace_free) == 0; }

/* This thread's, or NULL. */
static workspace *workspace_get(void) {
  pthread_once(&once, make_key);
  if (!has_key)
    return NULL;
  workspace *w = pthread_getspecific(key);
  if (w != NULL)
    return w;
  w = bl_calloc(1, sizeof *w);
  if (w != NULL && pthread_setspecific(key, w) != 0) {
    bl_free(w);
    w = NULL;
  }
  return w;
}

static reader *reader_take(void) {
  workspace *w = workspace_get();
  if (w != NULL && w->reader == NULL)
    w->reader = bl_malloc(sizeof *w->reader);
  if (w != NULL && w->reader != NULL)
    return w->reader;
  pthread_mutex_lock(&shared_lock);
  return &shared_reader;
}

static void reader_give_back(const reader *r) {
  if (r == &shared_reader)
    pthread_mutex_unlock(&shared_lock);
}

size_t bl_zstd_bound(size_t bound) { return 2 * bound; }

/* Bytes of the compressed form at `to`, 0 if there is none below `capacity`. */
static size_t compress(const uint8_t *from, size_t size, uint8_t *to, size_t capacity) {
  const size_t context_bytes = ZSTD_estimateCCtxSize(LEVEL);
  workspace *w = workspace_get();
  if (w == NULL || (w->writer == NULL && (w->writer = bl_malloc(context_bytes)) == NULL))
    return 0;
  ZSTD_CCtx *context = ZSTD_initStaticCCtx(w->writer, context_bytes);
  size_t n = context == NULL ? 0 : ZSTD_compressCCtx(context, to, capacity, from, size, LEVEL);
  return ZSTD_isError(n) ? 0 : n;
}

/* The compressed form is made behind the frame. */
size_t bl_zstd_stage(uint8_t *out, size_t size) {
  const bl_codec_view inner = bl_codec_trusted(out, size);
  if (inner.payload_bytes <= OFF_FRAME + 1 || inner.payload_bytes > BL_ZSTD_INNER_MAX)
    return size;
  size_t n = compress(inner.payload, inner.payload_bytes, out + size, inner.payload_bytes - OFF_FRAME - 1);
  if (n == 0)
    return size;
  uint8_t *payload = out + BL_CODEC_HEADER_BYTES;
  payload[OFF_ID] = (uint8_t)inner.codec->id;
  bl_le_put16(payload + OFF_PARAMETER, (uint16_t)inner.parameter);
  bl_le_put32(payload + OFF_BYTES, (uint32_t)inner.payload_bytes);
  memmove(payload + OFF_FRAME, out + size, n);
  return bl_codec_seal(out, BL_CODEC_ZSTD, inner.flags, 0, inner.n, OFF_FRAME + n);
}

/* The inner frame, its payload in r. False: these bytes are no zstd frames of that size. */
static bool decompress(const bl_codec_view *v, reader *r, bl_codec_view *ret_inner) {
  const size_t size = bl_le_get32(v->payload + OFF_BYTES);
  ZSTD_DCtx *context = ZSTD_initStaticDCtx(r->context, sizeof r->context);
  BL_ASSERT(context != NULL);
  size_t n = ZSTD_decompressDCtx(context, r->payload, size, v->payload + OFF_FRAME, v->payload_bytes - OFF_FRAME);
  *ret_inner = (bl_codec_view){.codec = bl_codec_by_id((bl_codec_id)v->payload[OFF_ID]),
                               .flags = v->flags,
                               .parameter = bl_le_get16(v->payload + OFF_PARAMETER),
                               .n = v->n,
                               .payload = r->payload,
                               .payload_bytes = size};
  return n == size;
}

static bl_status check_inner(const bl_codec_view *v, reader *r, bl_error *err) {
  bl_codec_view inner;
  if (!decompress(v, r, &inner))
    return bl_fail(err, BL_ECORRUPT, "zstd frame does not decompress to the %" PRIu32 " bytes that it states",
                   bl_le_get32(v->payload + OFF_BYTES));
  bl_status st = inner.codec->check(&inner, err);
  return st == BL_OK ? st : bl_fail_prefix(err, st, "in a zstd frame");
}

static bl_status check(const bl_codec_view *v, bl_error *err) {
  bl_status st = bl_codec_no_parameter(v, err);
  if (st != BL_OK)
    return st;
  if (v->payload_bytes < OFF_FRAME)
    return bl_fail(err, BL_ECORRUPT, "zstd frame of %zu bytes of payload has no inner header", v->payload_bytes);
  const bl_codec *inner = bl_codec_by_id((bl_codec_id)v->payload[OFF_ID]);
  if (inner == NULL || inner == &bl_codec_zstd)
    return bl_fail(err, BL_ECORRUPT, "zstd frame names inner codec %u", v->payload[OFF_ID]);
  if (bl_le_get32(v->payload + OFF_BYTES) > BL_ZSTD_INNER_MAX)
    return bl_fail(err, BL_ECORRUPT, "zstd frame states %" PRIu32 " bytes, at most %u are allowed",
                   bl_le_get32(v->payload + OFF_BYTES), BL_ZSTD_INNER_MAX);
  reader *r = reader_take();
  st = check_inner(v, r, err);
  reader_give_back(r);
  return st;
}

/* Without the stage; bl_codec_encode adds it. There is no spec of it alone. */
static size_t bound_bytes(const bl_codec_spec *spec, uint32_t n) { return bl_codec_float32.bound_bytes(spec, n); }
static size_t encode(const bl_encode *e, const float *x, float *residual, uint32_t n, uint32_t flags, uint8_t *out) {
  return bl_codec_float32.encode(e, x, residual, n, flags, out);
}

static void decode(const bl_codec_view *v, float *y) {
  bl_codec_view inner;
  reader *r = reader_take();
  BL_ASSERT(decompress(v, r, &inner)); /* it did when it was checked */
  inner.codec->decode(&inner, y);
  reader_give_back(r);
}

static void accumulate(const bl_codec_view *v, float scale, float *y) {
  bl_codec_view inner;
  reader *r = reader_take();
  BL_ASSERT(decompress(v, r, &inner));
  inner.codec->accumulate(&inner, scale, y);
  reader_give_back(r);
}

const bl_codec bl_codec_zstd = {
    .id = BL_CODEC_ZSTD,
    .name = "zstd",
    .check = check,
    .bound_bytes = bound_bytes,
    .encode = encode,
    .decode = decode,
    .accumulate = accumulate,
};
