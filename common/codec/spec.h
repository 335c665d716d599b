/* SPDX-License-Identifier: Apache-2.0
 *
 * Codecs as text, in job files, plans and on the status page:
 *
 *   spec   = name [ "(" option *( "," option ) ")" ] [ "+zstd" ]
 *
 *   none, float32, float16, bfloat16, sign, ternary, natural
 *   int8, int8(stochastic), int8(shared)      int4, int4(shared)
 *   qsgd(levels)                              levels: 1 to 127
 *   topk(density), topk(density, values)      density: 0.01 or 1%; values: float32 float16 int8 2bit ternary
 *   randomk(density), randomk(density, values)
 *   threshold(magnitude), threshold(magnitude, values)
 *   lowrank(rank)                             rank: 1 to 32
 *
 * Spaces between the parts do not matter. The canonical text has what is written here and numbers as short as they
 * read back the same.
 */
#ifndef BL_CODEC_SPEC_H
#define BL_CODEC_SPEC_H

#include "codec/codec.h"

#define BL_CODEC_TEXT_MAX 64 /* with its 0 */

/* BL_EINVAL: the sentence names the part, the value and what is allowed. */
BL_MUST_CHECK bl_status bl_codec_spec_read(const char *text, bl_codec_spec *ret_spec, bl_error *err);
/* Canonical; out: at least BL_CODEC_TEXT_MAX. Returns out. */
const char *bl_codec_spec_write(const bl_codec_spec *spec, char *out);
bool bl_codec_spec_equal(const bl_codec_spec *a, const bl_codec_spec *b);
bool bl_codec_spec_is_exact(const bl_codec_spec *spec);

#endif
