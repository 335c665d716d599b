/* SPDX-License-Identifier: Apache-2.0
 *
 * Codecs: what a chunk of float32 looks like on the wire and in the log.
 *
 * A codec frame describes itself:
 *
 *   offset  size
 *   0       1     codec id (enum bl_codec_id)
 *   1       1     flags: bit 0 = replace (the values themselves), else difference (to be added)
 *   2       2     codec parameter, 0 where a codec has none
 *   4       4     number of elements n
 *   8       8     XXH3-64 of the payload, seeded with bytes 0..7 read as one little-endian word
 *   16      ...   payload
 *
 * Example, the numbers 1 and -2 as float16, to replace what is there:
 *
 *   02 01 0000 02000000 c6dcbd63d95b7987 003c 00c0
 *
 * Registry: a const table, one row per codec, one file per codec. Encoding and decoding are pure leaf
 * work on the caller's memory: no allocation, no lock, any thread. Kernels underneath give the same bits
 * on every instruction set.
 */
#ifndef BL_CODEC_CODEC_H
#define BL_CODEC_CODEC_H

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

#define BL_CODEC_HEADER_BYTES 16
#define BL_CODEC_ELEMS_MAX (1u << 18) /* 1 MiB of float32: a chunk */

/* Numbers are pinned. */
typedef enum bl_codec_id {
  BL_CODEC_INVALID = 0,
  BL_CODEC_FLOAT32 = 1, /* exact */
  BL_CODEC_FLOAT16 = 2, /* IEEE binary16, round to nearest even; overflow saturates to +-65504, NaN and Inf kept */
} bl_codec_id;

typedef enum bl_codec_flags {
  BL_CODEC_REPLACE = 1,
} bl_codec_flags;

typedef struct bl_codec {
  bl_codec_id id;
  const char *name; /* "float32", as in job files ("none" is an alias of it there) */
  bool exact;       /* decode(encode(x)) == x bit for bit, for every x */
  /* Whether a payload of this size can hold n elements; bl_codec_open asks. */
  bool (*fits)(size_t size, uint32_t n);
  /* Upper bound of a whole frame for n elements, header included. n: at most BL_CODEC_ELEMS_MAX. */
  size_t (*bound_bytes)(uint32_t n);
  /* x: [n] -> out: at least bound_bytes(n). Returns the frame's size. With `residual` ([n], not NULL) the
   * codec encodes x + residual and leaves in residual what the frame does not carry (error feedback);
   * exact codecs leave zeros. Where x + residual is not finite the frame carries that and the residual
   * becomes 0. */
  size_t (*encode)(const float *x, float *residual, uint32_t n, uint32_t flags, uint8_t *out);
  /* Payload of a checked frame: y[i] = v[i] (store) or y[i] += scale * v[i] (accumulate; scale 1 adds exactly).
   * size is the payload's; BL_ECORRUPT when it does not fit n. */
  bl_status (*decode)(const uint8_t *payload, size_t size, uint32_t n, float *y);
  bl_status (*accumulate)(const uint8_t *payload, size_t size, uint32_t n, float scale, float *y);
} bl_codec;

/* NULL when there is no such codec. "none" is float32. */
const bl_codec *bl_codec_by_id(bl_codec_id id);
const bl_codec *bl_codec_by_name(const char *name);
/* For tables and messages: the ith registered codec, NULL behind the last. */
const bl_codec *bl_codec_at(size_t i);

typedef struct bl_codec_view {
  const bl_codec *codec;
  uint32_t flags;
  uint32_t n;
  const uint8_t *payload;
  size_t payload_bytes;
} bl_codec_view;

/* Checks a received frame: header, known codec, n == n_expected, size, reserved bits, checksum. The view
 * points into the frame. BL_EUNSUPPORTED: unknown codec; BL_EMISMATCH: another n; BL_ELIMIT: n above the
 * limit; BL_ECORRUPT: anything else. */
BL_MUST_CHECK bl_status bl_codec_open(const uint8_t *frame, size_t size, uint32_t n_expected,
                                      bl_codec_view *ret_view, bl_error *err);

/* Whole frames: open, then decode. y: [n], untouched on failure. bl_codec_apply stores a replace frame and
 * adds a difference; bl_codec_accumulate adds scale times the numbers whatever the flags say. */
BL_MUST_CHECK bl_status bl_codec_apply(const uint8_t *frame, size_t size, uint32_t n, float *y, bl_error *err);
BL_MUST_CHECK bl_status bl_codec_accumulate(const uint8_t *frame, size_t size, uint32_t n, float scale, float *y,
                                            bl_error *err);

#endif
