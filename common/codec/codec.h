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
 * Registry: a const table, one row per codec, one file per codec. What a codec is to do is a bl_codec_spec, which job
 * files write as text (codec/spec.h). Encoding and decoding are pure leaf work on the caller's memory: no allocation,
 * no lock, any thread. Kernels underneath give the same bits on every instruction set. All randomness (stochastic
 * rounding, random indices) is a function of the key that the caller names the frame by: encoding the same numbers
 * under the same key gives the same frame.
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
  BL_CODEC_FLOAT32 = 1,   /* exact */
  BL_CODEC_FLOAT16 = 2,   /* IEEE binary16, round to nearest even; overflow saturates to +-65504, NaN and Inf kept */
  BL_CODEC_BFLOAT16 = 3,  /* the upper half of a float32, round to nearest even */
  BL_CODEC_INT8 = 4,      /* blocks with a scale */
  BL_CODEC_INT4 = 5,      /* blocks with a scale, stochastic */
  BL_CODEC_SIGN = 6,      /* one bit, block scale */
  BL_CODEC_TERNARY = 7,   /* -1, 0, 1 times a block scale, stochastic */
  BL_CODEC_QSGD = 8,      /* s levels of a block's largest magnitude, stochastic */
  BL_CODEC_NATURAL = 9,   /* powers of two, stochastic */
  BL_CODEC_TOPK = 10,     /* the largest magnitudes: indices and values */
  BL_CODEC_THRESHOLD = 11, /* magnitudes from a number on: the same frame as topk */
  BL_CODEC_RANDOMK = 12,  /* indices that both ends draw: values only */
  BL_CODEC_LOWRANK = 13,  /* two thin factors of the chunk as a matrix */
  BL_CODEC_ZSTD = 14,     /* another codec's payload, compressed */
} bl_codec_id;

typedef enum bl_codec_flags {
  BL_CODEC_REPLACE = 1,
} bl_codec_flags;

/* How sparse codecs write the values that they keep. Numbers are pinned. */
typedef enum bl_values {
  BL_VALUES_FLOAT32 = 0,
  BL_VALUES_FLOAT16 = 1,
  BL_VALUES_INT8 = 2,
  BL_VALUES_BITS2 = 3,   /* sign and one of two magnitudes */
  BL_VALUES_TERNARY = 4, /* sign; one magnitude for all (the zeros are those that are not kept) */
  BL_VALUES_COUNT
} bl_values;

typedef struct bl_codec bl_codec;

/* A codec and its numbers; those that it has no use for are 0. See codec/spec.h. */
typedef struct bl_codec_spec {
  const bl_codec *codec;
  float density;    /* topk, randomk: part of the elements that is kept, in (0, 1] */
  float threshold;  /* threshold: least magnitude that is kept, above 0 */
  bl_values values; /* topk, threshold, randomk */
  uint16_t levels;  /* qsgd: 1 to 127 */
  uint16_t rank;    /* lowrank: 1 to 32 */
  bool stochastic;  /* int8: rounds up or down by chance, without bias, in place of to nearest */
  bool shared;      /* int8, int4: scales are powers of two, so that frames with equal scales add as integers */
  bool zstd;        /* compressed once more where that makes it smaller */
} bl_codec_spec;

/* One frame to encode. Zero what is not needed. */
typedef struct bl_encode {
  const bl_codec_spec *spec;
  uint64_t key;              /* names the frame's random numbers, of stream BL_RNG_ROUNDING; see bl_codec_key */
  float threshold;           /* topk: least magnitude to keep as found over the whole tensor; 0: k largest of this frame */
  const uint8_t *exponents;  /* int8, int4 shared: exponent + 128 of each block's scale; NULL: from the numbers */
  uint32_t columns;          /* lowrank: x is row-major [n / columns, columns], the last row may be cut short; 0: square */
  float *factor;             /* lowrank: [columns * rank] to begin with, and the new one after; NULL: from the key */
  float *velocity;           /* topk, threshold, randomk with `residual`: momentum correction, see codec/sparse.h; NULL: none */
  float momentum;            /* its factor, in [0, 1) */
} bl_encode;

/* A frame that has been checked. */
typedef struct bl_codec_view {
  const bl_codec *codec;
  uint32_t flags;
  uint32_t parameter;
  uint32_t n;
  const uint8_t *payload;
  size_t payload_bytes;
} bl_codec_view;

struct bl_codec {
  bl_codec_id id;
  const char *name; /* "float32", as in job files ("none" is an alias of it there) */
  bool exact;       /* decode(encode(x)) == x bit for bit, for every x */
  bool sparse;      /* carries some elements and nothing of the others */
  bool unbiased;    /* expectation over keys of decode(encode(x)) is x (with the spec's `stochastic` where there is one) */
  /* Everything that decoding relies on: sizes, counts, indices, scales; from then on it cannot fail. BL_ECORRUPT. n and
   * the header's fields are within their limits, the checksum is right. */
  bl_status (*check)(const bl_codec_view *v, bl_error *err);
  /* Upper bound of a whole frame for n elements, header included. n: at most BL_CODEC_ELEMS_MAX. */
  size_t (*bound_bytes)(const bl_codec_spec *spec, uint32_t n);
  /* x: [n] -> out: at least bound_bytes(n). Returns the frame's size. With `residual` ([n], not NULL) the
   * codec encodes x + residual and leaves in residual what the frame does not carry (error feedback);
   * exact codecs leave zeros. Where x + residual is not finite the frame need not carry it and the residual
   * is that of a 0: callers look for such numbers before, and a scale is never NaN or infinite. */
  size_t (*encode)(const bl_encode *e, const float *x, float *residual, uint32_t n, uint32_t flags, uint8_t *out);
  /* A checked frame: y[i] = v[i] (all n, zeros where a sparse frame has nothing) or y[i] += scale * v[i] (scale 1
   * adds exactly). y: [n]. */
  void (*decode)(const bl_codec_view *v, float *y);
  void (*accumulate)(const bl_codec_view *v, float scale, float *y);
  /* y = or += the sum of several checked frames of this codec, in their order: the same bits as one after the other with
   * scale 1, in one pass. NULL: there is nothing better than one after the other. n_views: at least 1. */
  void (*sum)(const bl_codec_view *views, uint32_t n_views, bool store, float *y);
};

/* NULL when there is no such codec. "none" is float32. */
const bl_codec *bl_codec_by_id(bl_codec_id id);
const bl_codec *bl_codec_by_name(const char *name);
/* For tables and messages: the ith registered codec, NULL behind the last. */
const bl_codec *bl_codec_at(size_t i);

/* The key of a frame: of a push by (rank, clock, chunk), of a pull by (UINT32_MAX, version, chunk). */
uint64_t bl_codec_key(uint64_t seed, uint32_t rank, uint64_t clock, uint32_t chunk);

/* Of the codec, and of the zstd stage where the spec has one. */
size_t bl_codec_bound_bytes(const bl_codec_spec *spec, uint32_t n);
size_t bl_codec_encode(const bl_encode *e, const float *x, float *residual, uint32_t n, uint32_t flags, uint8_t *out);
/* The float32 spec, for what must be exact. */
extern const bl_codec_spec bl_codec_spec_exact;
size_t bl_codec_encode_exact(const float *x, uint32_t n, uint32_t flags, uint8_t *out);

/* Checks a received frame: header, known codec, n == n_expected, size, reserved bits, checksum, payload. The view
 * points into the frame. BL_EUNSUPPORTED: unknown codec; BL_EMISMATCH: another n; BL_ELIMIT: n above the
 * limit; BL_ECORRUPT: anything else. */
BL_MUST_CHECK bl_status bl_codec_open(const uint8_t *frame, size_t size, uint32_t n_expected,
                                      bl_codec_view *ret_view, bl_error *err);
/* The view of a frame that bl_codec_open has accepted before, or that we encoded: nothing is checked. */
bl_codec_view bl_codec_trusted(const uint8_t *frame, size_t size);

/* y = or += the sum of several checked frames of any codecs, in their order. */
void bl_codec_sum(const bl_codec_view *views, uint32_t n_views, bool store, float *y);

/* Whole frames: open, then decode. y: [n], untouched on failure. bl_codec_apply stores a replace frame and
 * adds a difference; bl_codec_accumulate adds scale times the numbers whatever the flags say. */
BL_MUST_CHECK bl_status bl_codec_apply(const uint8_t *frame, size_t size, uint32_t n, float *y, bl_error *err);
BL_MUST_CHECK bl_status bl_codec_accumulate(const uint8_t *frame, size_t size, uint32_t n, float scale, float *y,
                                            bl_error *err);

#endif
