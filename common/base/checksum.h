/* SPDX-License-Identifier: Apache-2.0
 *
 * XXH3 64-bit checksums, one-shot and streaming. The only includer of xxhash.h is checksum.c.
 */
#ifndef BL_BASE_CHECKSUM_H
#define BL_BASE_CHECKSUM_H

#include "base/status.h"

#include <stdint.h>

uint64_t bl_checksum(const void *data, size_t size);
uint64_t bl_checksum_seeded(const void *data, size_t size, uint64_t seed);

typedef struct bl_checksum_stream bl_checksum_stream;
bl_checksum_stream *bl_checksum_stream_new(void) BL_MUST_CHECK; /* NULL: no memory */
void bl_checksum_stream_free(bl_checksum_stream *s);
void bl_checksum_stream_add(bl_checksum_stream *s, const void *data, size_t size);
uint64_t bl_checksum_stream_value(const bl_checksum_stream *s);

#endif
