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
#define BL_CONTROL_LEASES_MAX 16
#define BL_CONTROL_LEAD_MAX 16
#define BL_CONTROL_TRAFFIC_MAX 65             /* tensors of a task, and the others together */
#define BL_CONTROL_REASON_BYTES_MAX 255
#define BL_CONTROL_DIMS_MAX 4
#define BL_CONTROL_INIT_MAX 4                 /* the last bl_init_kind */
#define BL_CONTROL_TENSOR_NAME_BYTES_MAX 128  /* a layer's name and ".weight" */
#define BL_CONTROL_BUCKETS_MAX 65536u         /* BL_AUC_BUCKETS; cells of the largest confusion matrix */
#define BL_CONTROL_FILES_MAX 8
#define BL_CONTROL_CHUNK_ELEMS_MAX (1u << 18) /* BL_CODEC_ELEMS_MAX */

/* For fields of generated structs, which are char * though packing only reads them. */
static inline char *bl_control_text(const char *s) { return (char *)(uintptr_t)s; }

/* Packs a generated struct, e.g. bl_control_pack(BL_MSG_HEARTBEAT, &hb.base, &msg). What the receiver would
 * refuse is refused here too, with a line in the log: BL_EINVAL, or BL_ELIMIT when it is too long. */
BL_MUST_CHECK bl_status bl_control_pack(bl_msg_type type, const ProtobufCMessage *m, bl_msg *msg);

/* Unpacks and validates a control message: *ret_m is the generated struct of the message's type, owned by
 * the caller, freed with bl_control_free. BL_EPROTO / BL_EINVAL / BL_ENOMEM with a sentence. */
BL_MUST_CHECK bl_status bl_control_unpack(const bl_msg *msg, bl_msg_type *ret_type, ProtobufCMessage **ret_m,
                                          bl_error *err);
void bl_control_free(ProtobufCMessage *m); /* accepts NULL */

/* Deep copy of any control message; NULL: no memory. Freed with bl_control_free. */
ProtobufCMessage *bl_control_copy(const ProtobufCMessage *m);

#endif
