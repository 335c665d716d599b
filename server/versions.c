/* SPDX-License-Identifier: Apache-2.0
 *
 * Pull frames of a chunk.
 */
#include "server/versions.h"

#include "base/num.h"
#include "kernel/kernel.h"

static void drop(bl_frame **f) {
  bl_frame_unref(*f);
  *f = NULL;
}

void srv_versions_fini(srv_versions *v) {
  drop(&v->snapshot);
  drop(&v->previous);
  drop(&v->delta);
}

static bl_status encode(const srv_versions_env *env, const bl_codec *codec, const float *x, uint32_t n,
                        uint32_t flags, bl_frame **ret_frame) {
  bl_frame *f = bl_frame_pools_take(env->pools, codec->bound_bytes(n));
  if (f == NULL)
    return BL_ENOMEM;
  f->size = codec->encode(x, NULL, n, flags, f->data);
  *ret_frame = f;
  return BL_OK;
}

static bl_status make_snapshot(srv_versions *v, const srv_versions_env *env, const float *weights, uint32_t n) {
  if (v->snapshot != NULL)
    return BL_OK;
  return encode(env, env->exact, v->base != NULL ? v->base : weights, n, BL_CODEC_REPLACE, &v->snapshot);
}

bl_status srv_versions_prepare(srv_versions *v, const srv_versions_env *env, const float *weights, uint32_t n,
                               bl_frame **ret_spare) {
  *ret_spare = NULL;
  if (v->base != NULL) {
    *ret_spare = bl_frame_pools_take(env->pools, env->codec->bound_bytes(n));
    return *ret_spare != NULL ? BL_OK : BL_ENOMEM;
  }
  return env->keeps_previous ? make_snapshot(v, env, weights, n) : BL_OK;
}

void srv_versions_step(srv_versions *v, const srv_versions_env *env, const float *weights, uint32_t n,
                       bl_frame *spare) {
  if (v->base == NULL) {
    drop(&v->previous);
    if (env->keeps_previous)
      v->previous = v->snapshot; /* moved */
    else
      bl_frame_unref(v->snapshot);
    v->snapshot = NULL;
    return;
  }
  if (v->delta != NULL) { /* our own frame, so that it decodes is not in question */
    bl_status st = env->codec->accumulate(v->delta->data + BL_CODEC_HEADER_BYTES,
                                          v->delta->size - BL_CODEC_HEADER_BYTES, n, 1.0f, v->base);
    BL_ASSERT(st == BL_OK);
    drop(&v->delta);
    drop(&v->snapshot);
  }
  bl_kernels_get()->sub(env->scratch, weights, v->base, n);
  spare->size = env->codec->encode(env->scratch, NULL, n, 0, spare->data);
  v->delta = spare;
}

static void add(srv_versions_frames *r, bl_frame *f, uint64_t from, uint64_t to) {
  r->frame[r->n] = f;
  r->from[r->n] = from;
  r->to[r->n++] = to;
}

static bl_status get_exact(srv_versions *v, const srv_versions_env *env, const float *weights, uint32_t n,
                           uint64_t version, uint64_t want, srv_versions_frames *ret) {
  if (want < version) {
    if (want + 1 != version || v->previous == NULL)
      return BL_ECLOCK;
    add(ret, v->previous, want, want);
    return BL_OK;
  }
  bl_status st = make_snapshot(v, env, weights, n);
  if (st == BL_OK)
    add(ret, v->snapshot, want, want);
  return st;
}

static bl_status get_lossy(srv_versions *v, const srv_versions_env *env, uint32_t n, uint64_t version,
                           uint64_t want, bool has_before, srv_versions_frames *ret) {
  uint64_t base_version = v->delta != NULL ? version - 1 : version;
  if (want < base_version)
    return BL_ECLOCK;
  bool needs_base = want == base_version || !has_before;
  if (needs_base) {
    bl_status st = make_snapshot(v, env, NULL, n);
    if (st != BL_OK)
      return st;
    add(ret, v->snapshot, base_version, base_version);
  }
  if (want > base_version)
    add(ret, v->delta, base_version, want);
  return BL_OK;
}

bl_status srv_versions_get(srv_versions *v, const srv_versions_env *env, const float *weights, uint32_t n,
                           uint64_t version, uint64_t want, bool has_before, srv_versions_frames *ret) {
  if (want > version)
    return BL_EAGAIN;
  ret->n = 0;
  return v->base != NULL ? get_lossy(v, env, n, version, want, has_before, ret)
                         : get_exact(v, env, weights, n, version, want, ret);
}

void srv_versions_sent(srv_versions *v, const srv_versions_env *env) {
  if (v->base == NULL && !env->keeps_previous)
    drop(&v->snapshot);
}

uint64_t srv_versions_oldest(const srv_versions_env *env, uint64_t version, uint64_t start) {
  bool has_previous = version > start && (!env->codec->exact || env->keeps_previous);
  return has_previous ? version - 1 : version;
}
