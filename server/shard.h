/* SPDX-License-Identifier: Apache-2.0
 *
 * A shard: the jobs' chunks that lie on it, and the conversation about them. A deterministic state machine
 * without socket, clock or thread: messages and time come in, messages go out through a transport. The
 * decisions about a message are made here; what they change is an entry of the log, applied by job.c.
 *
 * After every call of srv_shard_on_msg, and when its deadline has come, the owner calls srv_shard_tick
 * before it sleeps: the arithmetic is done there, about a millisecond's worth per call.
 *
 * Threads: one.
 */
#ifndef SRV_SHARD_H
#define SRV_SHARD_H

#include "server/log.h"
#include "wire/data.h"
#include "wire/transport.h"

#define SRV_JOBS_MAX 1024          /* per shard */
#define SRV_PENDING_REPLIES_MAX 4096 /* replies that wait for their entry to be safe; beyond: dropped, peers repeat */

typedef struct srv_shard srv_shard;

typedef struct srv_shard_config {
  const char *server;       /* node name, as in JobPlan.shards; borrowed */
  uint32_t index;           /* of this shard within the server */
  uint32_t protocol_max;    /* 0: all that this program speaks; see bl_protocol_max */
  uint64_t window_bytes;    /* credit per session */
  uint64_t hold_bytes_max;  /* early frames held, per job */
  uint64_t memory_bytes_max; /* of a job on this shard, beyond which its tables get no more rows; 0: none */
  uint64_t log_bytes_max;   /* unsafe entries */
  bool has_follower;        /* replies wait for srv_shard_set_safe */
  bl_transport *transport;  /* borrowed; NULL: says nothing (replay) */
  srv_log_tap_fn *tap;      /* sees every entry; may be NULL */
  void *tap_arg;
} srv_shard_config;

BL_MUST_CHECK bl_status srv_shard_new(const srv_shard_config *config, srv_shard **ret_shard, bl_error *err);
void srv_shard_free(srv_shard *s);

/* A message of a worker; frames that are needed later are referenced. Never fails: what is wrong is answered
 * with a Refuse and counted. */
void srv_shard_on_msg(srv_shard *s, const bl_peer *from, bl_msg *msg, uint64_t now_ns);
/* Returns when it wants to be called again: now_ns = at once, UINT64_MAX = not before the next message. */
uint64_t srv_shard_tick(srv_shard *s, uint64_t now_ns);

/* Idempotent: the same or an older view changes nothing, a higher one is adopted. A job that cannot be opened is
 * kept as failed with its reason, until it is closed; the status is the same reason. */
bl_status srv_shard_open_job(srv_shard *s, const Ballast__Control__JobPlan *plan, bl_error *err);
/* Frees all of the job's memory. BL_ENOENT when there is none. */
bl_status srv_shard_close_job(srv_shard *s, uint64_t job);

typedef struct srv_shard_job_info {
  uint64_t job, view, clock, memory_bytes;
  uint64_t clocks_skipped; /* of them a gradient was not finite */
  uint64_t table_rows, key_bytes, key_bytes_saved;
  Ballast__Control__ShardJobState state;
  bl_status status; /* when failed */
  char text[256];
  uint32_t n_chunks;
} srv_shard_job_info;
/* BL_ENOENT */
BL_MUST_CHECK bl_status srv_shard_job_status(const srv_shard *s, uint64_t job, srv_shard_job_info *ret_info);
/* Infos of at most max jobs; returns how many there are. */
size_t srv_shard_jobs(const srv_shard *s, srv_shard_job_info *out, size_t max);

/* Everything up to this entry is where it must be. */
void srv_shard_set_safe(srv_shard *s, uint64_t lsn);
uint64_t srv_shard_last_lsn(const srv_shard *s);
/* Feeds a recorded entry. The result is the state that the recording shard had. BL_ENOMEM, BL_EINVAL. */
BL_MUST_CHECK bl_status srv_shard_replay(srv_shard *s, const srv_entry *entry, bl_error *err);
/* Over all that entries decide; finishes the arithmetic that is due first. */
uint64_t srv_shard_state_checksum(srv_shard *s);

typedef struct srv_shard_stats {
  uint64_t messages, malformed, refusals, pushes, repeats, commits, pulls, frames_sent, bytes_pushed, bytes_pulled;
  uint64_t not_finite; /* commits of gradients that hold a NaN or infinity */
  uint64_t key_bytes, key_bytes_saved; /* of tables' keys: received; that a checksum stood for */
  uint64_t refused_by[-BL_STATUS_LAST + 1]; /* by magnitude of the status */
  uint64_t log_last, log_safe, log_bytes, held_bytes, memory_bytes;
  uint32_t n_jobs;
} srv_shard_stats;
void srv_shard_get_stats(const srv_shard *s, srv_shard_stats *ret_stats);

#endif
