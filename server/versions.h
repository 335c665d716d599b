/* SPDX-License-Identifier: Apache-2.0
 *
 * What a chunk can be pulled as: frames encoded once and shared by reference by all ranks.
 *
 * Exact pull codec: replace frames of the present version and, when an earlier clock may have to be redone,
 * of the one before. Made on first request; where one rank is the only reader, given up once sent.
 *
 * Lossy pull codec: `base` is, in float32, exactly what workers hold at version - 1, and `delta` the one
 * compressed difference that takes them to version. What compression left out stays in weights - workers'
 * values and so in the next difference. Whoever holds something else gets base as a float32 replace frame,
 * followed by delta.
 */
#ifndef SRV_VERSIONS_H
#define SRV_VERSIONS_H

#include "codec/codec.h"
#include "wire/pools.h"

/* Shared by the chunks of a job. */
typedef struct srv_versions_env {
  const bl_codec *codec;  /* of pulls */
  const bl_codec *exact;  /* float32, for snapshots */
  bool keeps_previous;    /* an exact job must serve version - 1 too */
  bl_frame_pools *pools;  /* borrowed */
  float *scratch;         /* [largest chunk], lossy jobs only */
} srv_versions_env;

typedef struct srv_versions {
  float *base;         /* [n] within the job's block; NULL with an exact codec */
  bl_frame *snapshot;  /* replace frame of the weights (exact) or of base (lossy); NULL: not made */
  bl_frame *previous;  /* exact: replace frame of version - 1 */
  bl_frame *delta;     /* lossy: version - 1 -> version; NULL before the first step */
} srv_versions;

void srv_versions_fini(srv_versions *v); /* drops the frames */

/* Before the weights change: makes sure that srv_versions_step cannot fail. BL_ENOMEM changes nothing that
 * can be seen. */
BL_MUST_CHECK bl_status srv_versions_prepare(srv_versions *v, const srv_versions_env *env, const float *weights,
                                             uint32_t n, bl_frame **ret_spare);
/* After the weights changed: version is one more. spare: from prepare, taken. */
void srv_versions_step(srv_versions *v, const srv_versions_env *env, const float *weights, uint32_t n,
                       bl_frame *spare);

typedef struct srv_versions_frames {
  uint32_t n;
  bl_frame *frame[2]; /* borrowed until the next call on this chunk */
  uint64_t from[2], to[2];
} srv_versions_frames;

/* Frames that bring a worker to version `want`; version: the chunk's present one. has_before: it holds
 * want - 1. BL_EAGAIN: not there yet; BL_ECLOCK: gone; BL_ENOMEM. */
BL_MUST_CHECK bl_status srv_versions_get(srv_versions *v, const srv_versions_env *env, const float *weights,
                                         uint32_t n, uint64_t version, uint64_t want, bool has_before,
                                         srv_versions_frames *ret);
/* The frames of a get have been handed to the transport. */
void srv_versions_sent(srv_versions *v, const srv_versions_env *env);
/* Oldest version that a chunk at `version`, which began at `start`, can serve. */
uint64_t srv_versions_oldest(const srv_versions_env *env, uint64_t version, uint64_t start);

#endif
