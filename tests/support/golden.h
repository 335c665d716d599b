/* SPDX-License-Identifier: Apache-2.0
 *
 * Files under tests/golden that a released version has made: how they are found, read and made.
 */
#ifndef TESTS_GOLDEN_H
#define TESTS_GOLDEN_H

#include "base/buf.h"
#include "tests/support/pbtext.h"
#include "wire/data.h"

#define GOLDEN_FILES_MAX 96
#define GOLDEN_NAME_BYTES_MAX 64

/* Names without `ending` of the folder's files that have it, in order. */
size_t golden_list(const char *folder, const char *ending, char names[][GOLDEN_NAME_BYTES_MAX]);
/* FOLDER/NAME with its ending; asserts that it is there. */
void golden_read(const char *folder, const char *name, const char *ending, bl_buf *out);

/* Type of a file's name: what stands before a '-'. BL_MSG_INVALID: none. */
bl_msg_type golden_type(const char *name);

/* The message that FOLDER/NAME.txt describes, packed by today's code. A push or frames message gets a codec frame of
 * three numbers per chunk. */
BL_MUST_CHECK bl_status golden_msg_of_text(const char *folder, const char *name, bl_msg *msg, bl_error *err);
/* As lines of 32 bytes in hexadecimal digits; "--" stands between parts. */
void golden_hex(const bl_msg *msg, bl_buf *out);
/* The message in FOLDER/NAME.hex. */
void golden_msg_of_hex(const char *folder, const char *name, bl_msg *msg);

/* What is submitted when FOLDER/NAME.yaml is. */
BL_MUST_CHECK bl_status golden_job_normal(const char *folder, const char *name, bl_buf *out, bl_error *err);

/* "data.train.csv.header": a line per field of the job file. */
void golden_job_fields(bl_buf *out);

/* A line per codec, kind of frame and list of numbers: "float16 replace: <hex>". */
void golden_codec_frames(bl_buf *out);

#endif
