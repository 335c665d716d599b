/* SPDX-License-Identifier: Apache-2.0
 *
 * The stage behind a codec: its payload compressed once more. Inside common/codec only. A frame of codec zstd:
 *
 *   offset  size
 *   0       1     id of the inner codec, not zstd
 *   1       2     the inner header's parameter
 *   3       4     bytes of the inner payload, at most BL_ZSTD_INNER_MAX
 *   7       ...   the inner payload as zstd frames (RFC 8878)
 *
 * Flags and n of the header are the inner ones, its parameter is 0. Example: 65536 zeros as float32, 29 bytes instead
 * of 262144: 01 0000 00000400 28b52ffd... A frame that would not become smaller is sent as it is.
 *
 * Memory: each thread that uses the stage allocates a workspace for it once, some 1.3 MiB for reading and as much for
 * writing, which goes when the thread ends. Where there is no memory frames are written uncompressed, and read in one
 * workspace of the process, one thread after the other: so reading cannot fail. A checked frame is decompressed again
 * when it is decoded, since nothing holds what the check saw.
 */
#ifndef BL_CODEC_ZSTD_H
#define BL_CODEC_ZSTD_H

#include "codec/codec.h"

/* More than any codec's payload is; longer ones are not compressed. */
#define BL_ZSTD_INNER_MAX (BL_CODEC_ELEMS_MAX * 4 + BL_CODEC_ELEMS_MAX / 4)

/* What the stage needs in `out` for a frame of at most `bound` bytes without it. */
size_t bl_zstd_bound(size_t bound);
/* The frame at out, of `size` bytes, becomes its compressed form if that is smaller. Returns its size. */
size_t bl_zstd_stage(uint8_t *out, size_t size);

#endif
