/* SPDX-License-Identifier: Apache-2.0
 *
 * Protocol Buffers messages as text, one field a line, for files that people and tests read:
 *
 *   name: "w1"
 *   tasks {
 *     job: 7
 *     state: TASK_RUNNING
 *   }
 *
 * Repeated fields are repeated lines; what is 0, empty or absent is left out; numbers are decimal, float and double
 * in hexadecimal floating point. Works on any descriptor of protoc-c. Lines that begin with # are passed over.
 */
#ifndef TESTS_PBTEXT_H
#define TESTS_PBTEXT_H

#include "base/buf.h"

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>

/* Message of d from text; freed by protobuf_c_message_free_unpacked(m, NULL). NULL with a line on stderr. */
ProtobufCMessage *pbtext_parse(const ProtobufCMessageDescriptor *d, const char *text);
void pbtext_print(const ProtobufCMessage *m, bl_buf *out);

/* The descriptor behind a message type of either plane; NULL: there is none. */
const ProtobufCMessageDescriptor *pbtext_descriptor(unsigned msg_type);

/* The packed message [n] without what a program that knows only `schema` would pass over, in what order they stand.
 * Messages within it too. False: no Protocol Buffers message. */
bool pbtext_forget(const ProtobufCMessageDescriptor *d, const char *schema, const uint8_t *in, size_t n, bl_buf *out);
/* "Message.field number type" of every field of every message that a type of either plane uses, sorted by use. */
void pbtext_schema(bl_buf *out);

#endif
