/* SPDX-License-Identifier: Apache-2.0
 *
 * Pull frames of a chunk.
 */
#include "server/versions.h"

#include "base/num.h"
#include "kernel/kernel.h"

#include <string.h>

static void drop(bl_frame **f) {
  bl_frame_unref(*f);
  *f = NULL;
}

void srv_versions_fini(srv_versions *v) {
  drop(&v->snapshot);
  drop(&v->previous);
  for (uint32_t i = 0; i < v->n_deltas; i++)
    drop(&v->deltas[i]);
  v->n_deltas = 0;
}

static size_t snapshot_bytes(uint32_t n) { return bl_codec_bound_bytes(&bl_codec_spec_exact, n); }

static bl_status make_snapshot(srv_versions *v, const srv_versions_env *env, const float *weights, uint32_t n) {
  if (v->snapshot != NULL)
    return BL_OK;
  bl_frame *f = bl_frame_pools_take(env->pools, snapshot_bytes(n));
  if (f == NULL)
    return BL_ENOMEM;
  f->size = bl_codec_encode_exact(v->base != NULL ? v->base : weights, n, BL_CODEC_REPLACE, f->data);
  v->snapshot = f;
  return BL_OK;
}

static uint64_t bytes_of_deltas(const srv_versions *v, uint64_t n_newest) {
  uint64_t bytes = 0;
  for (uint64_t i = 0; i < n_newest; i++)
    bytes += v->deltas[v->n_deltas - 1 - i]->size;
  return bytes;
}

/* Base takes the newest delta. Our own frame, so that it decodes is not in question. */
static void advance_base(srv_versions *v) {
  const bl_frame *delta = v->deltas[v->n_deltas - 1];
  bl_codec_view view = bl_codec_trusted(delta->data, delta->size);
  view.codec->accumulate(&view, 1.0f, v->base);
  drop(&v->snapshot);
}

/* ---- choices ---- */

void srv_versions_choose(srv_versions *v, const bl_codec_spec *spec, uint64_t from) {
  v->next = *spec;
  v->next_from = from;
}

/* What workers hold, as a replace frame: the version before the next, once the chunk is exact. */
static bl_status leave_base(srv_versions *v, const srv_versions_env *env, uint32_t n) {
  if (env->keeps_previous && v->n_deltas > 0)
    advance_base(v);
  while (v->n_deltas > 0)
    drop(&v->deltas[--v->n_deltas]);
  bl_status st = make_snapshot(v, env, NULL, n);
  if (st == BL_OK)
    v->base = NULL;
  return st;
}

/* Workers hold the weights as they are. */
static void take_base(srv_versions *v, const float *weights, uint32_t n) {
  v->base = v->room;
  memcpy(v->base, weights, n * sizeof(float));
  drop(&v->previous);
}

static bl_status take_choice(srv_versions *v, const srv_versions_env *env, const float *weights, uint32_t n) {
  bool exact = v->next.codec->exact;
  if (v->base != NULL && exact) {
    bl_status st = leave_base(v, env, n);
    if (st != BL_OK)
      return st;
  } else if (v->base == NULL && !exact) {
    take_base(v, weights, n);
  }
  v->pull = v->next;
  v->next_from = 0;
  v->brake = 0;
  return BL_OK;
}

bl_status srv_versions_prepare(srv_versions *v, const srv_versions_env *env, const float *weights, uint32_t n,
                               uint64_t version, bl_frame **ret_spare) {
  *ret_spare = NULL;
  if (v->next_from != 0 && version >= v->next_from) {
    bl_status st = take_choice(v, env, weights, n);
    if (st != BL_OK)
      return st;
  }
  if (v->base != NULL) {
    *ret_spare = bl_frame_pools_take(env->pools, srv_versions_frame_bytes_max(&v->pull, v->policy->warmup_epochs, n));
    return *ret_spare != NULL ? BL_OK : BL_ENOMEM;
  }
  return env->keeps_previous ? make_snapshot(v, env, weights, n) : BL_OK;
}

/* ---- brake ---- */

#define BRAKE_MAX 4    /* sixteen times the density */
#define BRAKE_EVERY 8  /* versions */
#define BRAKE_ABOVE 8  /* left behind : sent; sending 3 % of an update that is spread evenly settles at about 3 */
#define BRAKE_BELOW 4

static bl_codec_spec with_brake(const bl_codec_spec *spec, uint32_t brake) {
  bl_codec_spec s = *spec;
  s.density = BL_MIN(spec->density * (float)(1u << brake), 1.0f);
  return s;
}

size_t srv_versions_frame_bytes_max(const bl_codec_spec *spec, uint32_t warmup_epochs, uint32_t n) {
  bl_codec_spec warm = bl_codec_spec_at(spec, warmup_epochs, 0);
  size_t bytes = 0;
  for (uint32_t brake = 0; brake <= (warm.density > 0 ? BRAKE_MAX : 0); brake++) {
    bl_codec_spec s = with_brake(&warm, brake);
    bytes = BL_MAX(bytes, bl_codec_bound_bytes(&s, n));
  }
  return bytes;
}

/* change: what the frame was to carry; rest: what it does not. */
static void set_brake(srv_versions *v, const float *change, const float *rest, uint32_t n) {
  double all = bl_kernels_get()->sum_squares(change, n), left = bl_kernels_get()->sum_squares(rest, n);
  double sent = all - left;
  if (left > BRAKE_ABOVE * BRAKE_ABOVE * sent && left > 0)
    v->brake = BL_MIN(v->brake + 1, BRAKE_MAX);
  else if (left < BRAKE_BELOW * BRAKE_BELOW * sent && v->brake > 0)
    v->brake--;
}

/* Kept for long, so it takes no more than it needs. */
static bl_frame *shrunk(const srv_versions_env *env, bl_frame *f) {
  bl_frame *small = bl_frame_pools_take(env->pools, f->size);
  if (small == NULL)
    return f;
  memcpy(small->data, f->data, f->size);
  bl_frame_unref(f);
  return small;
}

/* The change from base to the weights as a frame. spare: taken. */
static bl_frame *encode_change(srv_versions *v, const srv_versions_env *env, const float *weights, uint32_t n,
                               uint64_t version, bl_frame *spare) {
  uint64_t epoch = env->epoch_clocks > 0 ? (version - 1) / env->epoch_clocks : UINT64_MAX;
  bl_codec_spec spec = bl_codec_spec_at(&v->pull, v->policy->warmup_epochs, epoch);
  bool sparse = spec.density > 0;
  spec = with_brake(&spec, v->brake);
  bl_encode e = {.spec = &spec, .key = bl_codec_key(env->seed, UINT32_MAX, version, v->chunk)};
  bool looks = sparse && version % BRAKE_EVERY == 0;
  /* Without a residual it would send more than there is, to be right on average; here the rest is in the next difference. */
  bool keeps_rest = looks || spec.codec->id == BL_CODEC_RANDOMK;
  bl_kernels_get()->sub(env->scratch, weights, v->base, n);
  if (keeps_rest)
    memset(env->rest, 0, n * sizeof(float));
  spare->size = bl_codec_encode(&e, env->scratch, keeps_rest ? env->rest : NULL, n, 0, spare->data);
  if (looks)
    set_brake(v, env->scratch, env->rest, n);
  return spare->size < bl_codec_bound_bytes(&spec, n) / 2 ? shrunk(env, spare) : spare;
}

void srv_versions_step(srv_versions *v, const srv_versions_env *env, const float *weights, uint32_t n,
                       uint64_t version, bl_frame *spare) {
  v->unchanged = false;
  if (v->base == NULL) {
    drop(&v->previous);
    if (env->keeps_previous)
      v->previous = v->snapshot; /* moved */
    else
      bl_frame_unref(v->snapshot);
    v->snapshot = NULL;
    return;
  }
  if (env->keeps_previous && v->n_deltas > 0)
    advance_base(v);
  bl_frame *delta = encode_change(v, env, weights, n, version, spare);
  if (v->n_deltas == env->n_deltas_max) {
    drop(&v->deltas[0]);
    memmove(v->deltas, v->deltas + 1, --v->n_deltas * sizeof v->deltas[0]);
  }
  v->deltas[v->n_deltas++] = delta;
  /* More than a snapshot has is never sent. */
  while (!env->keeps_previous && v->n_deltas > 1 && bytes_of_deltas(v, v->n_deltas) > snapshot_bytes(n)) {
    drop(&v->deltas[0]);
    memmove(v->deltas, v->deltas + 1, --v->n_deltas * sizeof v->deltas[0]);
  }
  if (!env->keeps_previous)
    advance_base(v);
}

/* Workers hold the version before, so base is brought there. */
void srv_versions_skip(srv_versions *v) {
  v->unchanged = true;
  drop(&v->previous);
  if (v->n_deltas > 0)
    advance_base(v);
  while (v->n_deltas > 0)
    drop(&v->deltas[--v->n_deltas]);
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

/* The deltas behind version `from`. */
static void add_deltas(const srv_versions *v, uint64_t version, uint64_t from, uint64_t want, srv_versions_frames *ret) {
  for (uint64_t at = from; at < want; at++)
    add(ret, v->deltas[v->n_deltas - (version - at)], at, at + 1);
}

static bl_status get_lossy(srv_versions *v, const srv_versions_env *env, uint32_t n, uint64_t version,
                           uint64_t want, uint64_t have, srv_versions_frames *ret) {
  uint64_t base_version = env->keeps_previous && v->n_deltas > 0 ? version - 1 : version;
  uint64_t held = have - 1, oldest = version - v->n_deltas;
  if (want < base_version)
    return BL_ECLOCK;
  bool by_deltas = have > 0 && held >= oldest && held < want;
  if (by_deltas && !env->keeps_previous)
    by_deltas = bytes_of_deltas(v, version - held) <= snapshot_bytes(n);
  if (by_deltas) {
    add_deltas(v, version, held, want, ret);
    return BL_OK;
  }
  bl_status st = make_snapshot(v, env, NULL, n);
  if (st != BL_OK)
    return st;
  add(ret, v->snapshot, base_version, base_version);
  add_deltas(v, version, base_version, want, ret);
  return BL_OK;
}

bl_status srv_versions_get(srv_versions *v, const srv_versions_env *env, const float *weights, uint32_t n,
                           uint64_t version, uint64_t want, uint64_t have, srv_versions_frames *ret) {
  if (want > version)
    return BL_EAGAIN;
  ret->n = 0;
  if (have == want + 1 && env->empty != NULL) {
    add(ret, env->empty, want, want);
    return BL_OK;
  }
  bool same = v->unchanged && want + 1 == version; /* told as the version that is asked for */
  uint64_t found = same ? version : want;
  bl_status st = v->base != NULL ? get_lossy(v, env, n, version, found, same ? 0 : have, ret)
                                 : get_exact(v, env, weights, n, version, found, ret);
  if (st == BL_OK && same)
    ret->from[0] = ret->to[0] = want;
  return st;
}

void srv_versions_sent(srv_versions *v, const srv_versions_env *env) {
  if (v->base == NULL && !env->keeps_previous && !env->is_shared)
    drop(&v->snapshot);
}

uint64_t srv_versions_oldest(const srv_versions_env *env, uint64_t version, uint64_t start) {
  bool has_previous = version > start && env->keeps_previous;
  return has_previous ? version - 1 : version;
}
