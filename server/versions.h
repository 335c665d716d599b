/* SPDX-License-Identifier: Apache-2.0
 *
 * What a chunk can be pulled as: frames encoded once and shared by reference by all ranks.
 *
 * Exact pull codec: replace frames of the present version and, when an earlier clock may have to be redone,
 * of the one before. Made on first request; where one rank is the only reader, given up once sent.
 *
 * Lossy pull codec: `base` is, in float32, exactly what workers hold at `base_version`, and the deltas are the
 * compressed differences between versions, encoded once. What compression left out stays in weights - workers'
 * values and so in the next difference. In bsp base is one version behind, so that an earlier clock can be redone:
 * whoever holds something else than the version before gets base as a float32 replace frame, followed by the delta.
 * Of free running ranks nothing is ever redone with older weights: base is at the newest version, and whoever is
 * some versions behind gets the deltas since, or base where that is less to send; so no more deltas are kept.
 *
 * A free running rank that holds the newest version already gets an empty frame.
 *
 * Brake: a sparse codec may send less than an update changes, as when several ranks push different coordinates; then what
 * workers hold falls behind without end. So now and then the norm of what is left behind is compared with that of what was
 * sent, and the density doubled or halved. It is part of the state: a function of the updates alone.
 *
 * In a job that adapts the codec may change from one version to the next. What goes from exact to lossy begins with the
 * weights that workers hold; what goes back serves what they hold as the version before.
 */
#ifndef SRV_VERSIONS_H
#define SRV_VERSIONS_H

#include "job/policy.h"
#include "wire/pools.h"

#define SRV_DELTAS_MAX 8 /* kept of a chunk for ranks that run free */

/* Shared by the chunks of a job. */
typedef struct srv_versions_env {
  uint64_t seed;          /* of the job */
  uint64_t epoch_clocks;  /* of the plan: versions of an epoch, for a warm-up; 0: none */
  bool is_shared;         /* several ranks read a frame */
  bool keeps_previous;    /* version - 1 is served too */
  uint32_t n_deltas_max;  /* 1 to SRV_DELTAS_MAX */
  bl_frame_pools *pools;  /* borrowed */
  float *scratch, *rest;  /* [largest chunk], lossy jobs only */
  bl_frame *empty;        /* says "you hold it"; NULL: ranks do not know it (bsp) */
} srv_versions_env;

typedef struct srv_versions {
  const bl_tensor_policy *policy; /* of the tensor, borrowed */
  uint32_t chunk;            /* its id */
  bl_codec_spec pull;  /* in use */
  bl_codec_spec next;  /* from version next_from on */
  uint64_t next_from;  /* 0: there is none */
  uint32_t brake;      /* the density is doubled so many times */
  float *room;         /* [n] within the job's block, for base; NULL: never lossy */
  float *base;         /* [n] within the job's block; NULL with an exact codec */
  bl_frame *snapshot;  /* replace frame of the weights (exact) or of base (lossy); NULL: not made */
  bl_frame *previous;  /* exact: replace frame of version - 1 */
  bl_frame *deltas[SRV_DELTAS_MAX]; /* lossy: the newest, to version, stands last */
  uint32_t n_deltas;
  bool unchanged;      /* the newest version is the same weights as the one before */
} srv_versions;

void srv_versions_fini(srv_versions *v); /* drops the frames */

/* Largest frame of a chunk of n elements, whatever the brake does. */
size_t srv_versions_frame_bytes_max(const bl_codec_spec *spec, uint32_t warmup_epochs, uint32_t n);

/* The codec of the frames to version `from` and behind it, in place of the one that was to come. */
void srv_versions_choose(srv_versions *v, const bl_codec_spec *spec, uint64_t from);

/* Before the weights change to a version: makes sure that srv_versions_step cannot fail. BL_ENOMEM changes nothing that
 * can be seen. */
BL_MUST_CHECK bl_status srv_versions_prepare(srv_versions *v, const srv_versions_env *env, const float *weights,
                                             uint32_t n, uint64_t version, bl_frame **ret_spare);
/* After the weights changed to this version, one more than before. spare: from prepare, taken. */
void srv_versions_step(srv_versions *v, const srv_versions_env *env, const float *weights, uint32_t n,
                       uint64_t version, bl_frame *spare);

/* A version, one more than before, that changes nothing and is sent to nobody (streams; in step only). */
void srv_versions_skip(srv_versions *v);

typedef struct srv_versions_frames {
  uint32_t n;
  bl_frame *frame[SRV_DELTAS_MAX + 1]; /* borrowed until the next call on this chunk */
  uint64_t from[SRV_DELTAS_MAX + 1], to[SRV_DELTAS_MAX + 1];
} srv_versions_frames;

/* Frames that bring a worker to version `want`; version: the chunk's present one. have: version + 1 that it holds,
 * 0: nothing. BL_EAGAIN: not there yet; BL_ECLOCK: gone; BL_ENOMEM. */
BL_MUST_CHECK bl_status srv_versions_get(srv_versions *v, const srv_versions_env *env, const float *weights,
                                         uint32_t n, uint64_t version, uint64_t want, uint64_t have,
                                         srv_versions_frames *ret);
/* The frames of a get have been handed to the transport. */
void srv_versions_sent(srv_versions *v, const srv_versions_env *env);
/* Oldest version that a chunk at `version`, which began at `start`, can serve. */
uint64_t srv_versions_oldest(const srv_versions_env *env, uint64_t version, uint64_t start);

#endif
