/* SPDX-License-Identifier: Apache-2.0
 *
 * Data-plane messages as plain structs, packed into and read from bl_msg without allocation: arrays live
 * in a caller's scratch. Everything that can be checked without state is checked here, once: counts,
 * strictly increasing chunk ids, one frame per chunk, sizes. Semantics: proto/data.proto, doc/protocol.md.
 */
#ifndef BL_WIRE_DATA_H
#define BL_WIRE_DATA_H

#include "wire/msg.h"

/* Free running ranks (ssp, asp): the clock of a rank that has finished; as a `want`: the final weights, which are
 * there when every rank has finished. */
#define BL_CLOCK_FINISHED (UINT64_MAX - 1)
/* Clock of a Push of initial values, and of its Ack: no gradient is ever named so. */
#define BL_CLOCK_INITIAL (UINT64_MAX - 2)

typedef struct bl_hello {
  uint32_t protocol_min, protocol_max;
  uint64_t job;
  uint32_t rank, incarnation;
  uint64_t view;
} bl_hello;

typedef struct bl_welcome {
  uint32_t protocol;
  uint64_t job;
  uint32_t rank;
  uint64_t view, clock, oldest, window_bytes;
  uint32_t shard;
} bl_welcome;

typedef struct bl_push {
  uint64_t job, view;
  uint32_t rank, incarnation;
  uint64_t clock, request;
  bool answer;
  uint32_t n_chunks;
  uint32_t chunks[BL_MSG_FRAMES_MAX];
  bool initial; /* initial values, not a gradient; clock is BL_CLOCK_INITIAL */
} bl_push;

typedef struct bl_commit {
  uint64_t job, view;
  uint32_t rank, incarnation;
  uint64_t clock, request;
  float scale; /* finite, in [0, 1] */
  bool not_finite;
  uint64_t n_samples;
  uint32_t n_chunks;
  bool finished; /* this rank pushes no more; then n_chunks is 0. Not in bsp */
  bool answer;
  uint32_t n_choices; /* 1: a frame follows, codecs of pulls that were chosen (job/choices.h); 0: none */
} bl_commit;

typedef struct bl_ack {
  uint64_t job;
  uint32_t rank;
  uint64_t clock, request;
  bool commit;
  uint32_t applied_incarnation;
  uint32_t n_chunks;
  uint32_t chunks[BL_MSG_FRAMES_MAX];
} bl_ack;

typedef struct bl_pull {
  uint64_t job, view;
  uint32_t rank, incarnation;
  uint64_t have, want, request;
  bool have_nothing;
  bool average; /* of the weights, in place of them */
  uint32_t n_chunks;
  uint32_t chunks[BL_MSG_FRAMES_MAX];
} bl_pull;

/* Rows of tables; frame i is a row frame (wire/rows.h) without numbers. No chunk: the answer only says that the version is
 * there. */
typedef struct bl_pull_rows {
  uint64_t job, view;
  uint32_t rank, incarnation;
  uint64_t want, request;
  uint32_t n_chunks;
  uint32_t chunks[BL_MSG_FRAMES_MAX];
} bl_pull_rows;

typedef struct bl_need_keys {
  uint64_t job;
  uint32_t rank;
  uint64_t request;
  bool push; /* it was a push; otherwise a pull */
  uint32_t n_chunks;
  uint32_t chunks[BL_MSG_FRAMES_MAX];
} bl_need_keys;

typedef struct bl_dump_rows {
  uint64_t job, view;
  uint32_t rank, incarnation;
  uint64_t version, request;
  uint32_t chunk;
  uint64_t from; /* the least key that is wanted */
} bl_dump_rows;

typedef struct bl_dumped_rows {
  uint64_t job;
  uint32_t rank;
  uint64_t version, request;
  uint32_t chunk;
  uint64_t from, next; /* rows with keys in [from, next) are all here */
  uint32_t n_frames;   /* 0: there are none; 1: a row frame with keys and numbers */
  bool last;           /* nor are there any from next on */
} bl_dumped_rows;

typedef struct bl_frames {
  uint64_t job;
  uint32_t rank;
  uint64_t version, request;
  uint32_t n_chunks; /* = frames behind the header; non-decreasing ids: a chunk may repeat; may be 0 */
  uint32_t chunks[BL_MSG_FRAMES_MAX];
  uint64_t from[BL_MSG_FRAMES_MAX]; /* from[i] <= to[i] <= version; without meaning for a replace frame */
  uint64_t to[BL_MSG_FRAMES_MAX];
  uint64_t gate; /* free running ranks: the `want` that this answers, + 1; 0 in bsp, where that is the version */
  uint64_t slowest; /* free running ranks: clock of the slowest when this was sent, + 1; 0 in bsp */
  bool average; /* the answer to such a pull */
  bool skipped; /* bsp: the clock that led to `version` changed nothing */
} bl_frames;

typedef struct bl_ask_norms {
  uint64_t job, view;
  uint32_t rank, incarnation;
  uint64_t clock, request;
  uint32_t first;
} bl_ask_norms;

typedef struct bl_norms {
  uint64_t job;
  uint32_t rank;
  uint64_t clock, request;
  uint32_t n_chunks;
  uint32_t chunks[BL_MSG_FRAMES_MAX];
  double squares[BL_MSG_FRAMES_MAX]; /* not below 0, or NaN: of a gradient that is not finite */
} bl_norms;

typedef struct bl_refuse {
  uint64_t job;
  uint32_t rank;
  uint64_t request;
  bl_status status;
  uint64_t view, clock;
  uint32_t protocol_min, protocol_max;
  uint32_t chunk; /* of a push that was refused, + 1; 0: none in particular */
  char text[256]; /* received: other bytes than printable ASCII have become '?' */
} bl_refuse;

typedef struct bl_data_msg {
  bl_msg_type type;
  union {
    bl_hello hello;
    bl_welcome welcome;
    bl_push push;
    bl_commit commit;
    bl_ack ack;
    bl_pull pull;
    bl_frames frames;
    bl_ask_norms ask_norms;
    bl_norms norms;
    bl_refuse refuse;
    bl_pull_rows pull_rows;
    bl_need_keys need_keys;
    bl_dump_rows dump_rows;
    bl_dumped_rows dumped_rows;
  };
} bl_data_msg;

/* Packs the header into msg->head (msg must have no head yet; frames are added by the caller, before or
 * after). BL_ENOMEM only: the struct is ours and its limits are asserted. */
BL_MUST_CHECK bl_status bl_data_pack(const bl_data_msg *d, uint32_t n_frames, bl_msg *msg);

/* Reads and validates a received data-plane message. No allocation. On failure *d is undefined and the
 * text says what is wrong. */
BL_MUST_CHECK bl_status bl_data_unpack(const bl_msg *msg, bl_data_msg *d, bl_error *err);

#endif
