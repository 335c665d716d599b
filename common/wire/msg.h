/* SPDX-License-Identifier: Apache-2.0
 *
 * A message: a typed header and up to BL_MSG_FRAMES_MAX raw frames. On the wire it is a ZeroMQ multipart
 * message whose first part is
 *
 *   offset  size
 *   0       2     magic 'B' 'L'
 *   2       1     protocol version that this type of message came with
 *   3       1     reserved, 0
 *   4       2     message type (enum bl_msg_type), little-endian
 *   6       2     number of raw frames that follow
 *   8       n     Protocol Buffers message of that type
 *
 * for example 42 4c 01 00 23 00 00 00 08 05: version 1, type 0x23, no frames, field 1 = 5.
 */
#ifndef BL_WIRE_MSG_H
#define BL_WIRE_MSG_H

#include "wire/frame.h"

#include <stdbool.h>

/* What this program speaks. doc/protocol.md, "Versions", says what a version is and how it rises. */
#define BL_PROTOCOL_VERSION 2
#define BL_PROTOCOL_MIN 1
#define BL_MSG_PREAMBLE_BYTES 8
#define BL_MSG_FRAMES_MAX 256
/* Bounds on what a peer may send; checked before any allocation that depends on it. */
#define BL_MSG_HEADER_BYTES_MAX (8u << 20)
#define BL_MSG_FRAME_BYTES_MAX (2u << 20) /* a chunk is at most 1 MiB of float32; no codec expands more */

/* Numbers are pinned. */
typedef enum bl_msg_type {
  BL_MSG_INVALID = 0,
  /* data plane */
  BL_MSG_HELLO = 1,
  BL_MSG_WELCOME = 2,
  BL_MSG_PUSH = 3,
  BL_MSG_COMMIT = 4,
  BL_MSG_ACK = 5,
  BL_MSG_PULL = 6,
  BL_MSG_FRAMES = 7,
  BL_MSG_REFUSE = 8,
  BL_MSG_PULL_ROWS = 16,
  BL_MSG_DUMP_ROWS = 17,
  BL_MSG_NEED_KEYS = 18,
  BL_MSG_DUMPED_ROWS = 19,
  BL_MSG_NORMS = 20,
  BL_MSG_ASK_NORMS = 21,
  /* control plane, nodes */
  BL_MSG_REGISTER = 32,
  BL_MSG_REGISTERED = 33,
  BL_MSG_REREGISTER = 34,
  BL_MSG_REJECTED = 35,
  BL_MSG_HEARTBEAT = 36,
  BL_MSG_HEARTBEAT_ACK = 37,
  BL_MSG_OPEN_JOB = 38,
  BL_MSG_CLOSE_JOB = 39,
  BL_MSG_START_TASK = 40,
  BL_MSG_RUN_TASK = 41,
  BL_MSG_STOP_TASK = 42,
  BL_MSG_UPDATE_TASK = 43,
  BL_MSG_REPORT = 44,
  BL_MSG_REPORT_ACK = 45,
  BL_MSG_TASK_HELLO = 46,
  BL_MSG_TASK_STATUS = 47,
  /* command */
  BL_MSG_SUBMIT = 64,
  BL_MSG_CANCEL = 65,
  BL_MSG_QUERY = 66,
  BL_MSG_ANSWER = 67,
  BL_MSG_SET_PRIORITY = 68,
  BL_MSG_TYPE_END
} bl_msg_type;

typedef struct bl_msg {
  bl_frame *head;                      /* owned reference; preamble and packed header */
  bl_frame *frames[BL_MSG_FRAMES_MAX]; /* owned references */
  uint32_t n_frames;
} bl_msg;

#define BL_MSG_INIT {NULL, {NULL}, 0}

void bl_msg_fini(bl_msg *m);                 /* drops all references */
void bl_msg_move(bl_msg *to, bl_msg *from);  /* to must be empty */
/* Takes the reference on success. BL_ELIMIT beyond BL_MSG_FRAMES_MAX. */
BL_MUST_CHECK bl_status bl_msg_add_frame(bl_msg *m, bl_frame *f);

/* The version that a type of message came with, which its preamble says for ever; 0: no number of ours. */
unsigned bl_msg_type_since(unsigned type);
/* The highest version of a program that is held to `limit` (0: not held): what a node or a session of a
 * configuration announces. Tests of upgrades hold one back. */
static inline uint32_t bl_protocol_max(uint32_t limit) {
  return limit >= BL_PROTOCOL_MIN && limit < BL_PROTOCOL_VERSION ? limit : BL_PROTOCOL_VERSION;
}

/* Writes the preamble of a message of ours: [BL_MSG_PREAMBLE_BYTES]. */
void bl_msg_put_preamble(uint8_t *out, bl_msg_type type, uint32_t n_frames);

/* Checks magic, version (that of the type), type, reserved byte, frame count against what stands behind, sizes
 * against the bounds above. BL_EPROTO with a sentence otherwise; a message of a later version reports both. */
BL_MUST_CHECK bl_status bl_msg_check(const bl_msg *m, bl_msg_type *ret_type, bl_error *err);
size_t bl_msg_bytes(const bl_msg *m); /* head and frames: what the transport counts */
const char *bl_msg_type_name(bl_msg_type type); /* "push"; "?" for unknown numbers */

#endif
