/* SPDX-License-Identifier: Apache-2.0
 *
 * Control-plane messages. Their structs are those that protoc-c makes of proto/control.proto; this header
 * is the only way to them, so protobuf-c has one door. Received messages are validated here against
 * written limits (string lengths, counts, ranges) before anyone else sees them.
 */
#ifndef BL_WIRE_CONTROL_H
#define BL_WIRE_CONTROL_H

#include "proto/control.pb-c.h"
#include "wire/msg.h"

#define BL_CONTROL_NAME_BYTES_MAX 64
#define BL_CONTROL_TEXT_BYTES_MAX 4096
#define BL_CONTROL_JOB_TEXT_BYTES_MAX (1u << 20)
#define BL_CONTROL_JSON_BYTES_MAX (7u << 20)
#define BL_CONTROL_TASKS_MAX 4096
#define BL_CONTROL_TENSORS_MAX 65536
#define BL_CONTROL_CHUNKS_MAX (1u << 20)
#define BL_CONTROL_SHARDS_MAX 4096
#define BL_CONTROL_RANKS_MAX 4096

/* Packs a generated struct, e.g. bl_control_pack(BL_MSG_HEARTBEAT, &hb.base, &msg). */
BL_MUST_CHECK bl_status bl_control_pack(bl_msg_type type, const ProtobufCMessage *m, bl_msg *msg);

/* Unpacks and validates a control message: *ret_m is the generated struct of the message's type, owned by
 * the caller, freed with bl_control_free. BL_EPROTO / BL_EINVAL / BL_ENOMEM with a sentence. */
BL_MUST_CHECK bl_status bl_control_unpack(const bl_msg *msg, bl_msg_type *ret_type, ProtobufCMessage **ret_m,
                                          bl_error *err);
void bl_control_free(ProtobufCMessage *m); /* accepts NULL */

/* Deep copy of any control message; NULL: no memory. Freed with bl_control_free. */
ProtobufCMessage *bl_control_copy(const ProtobufCMessage *m);

#endif
