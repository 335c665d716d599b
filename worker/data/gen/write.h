/* SPDX-License-Identifier: Apache-2.0
 *
 * Writes idx files, plain or gzip, and grey PNG pictures. The same input gives the same bytes.
 */
#ifndef WK_DATA_GEN_WRITE_H
#define WK_DATA_GEN_WRITE_H

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

/* data: the product of dims bytes; n_dims 1 to 4. */
BL_MUST_CHECK bl_status wk_idx_write(const char *path, const uint32_t *dims, unsigned n_dims,
                                     const uint8_t *data, bool compress, bl_error *err);

/* grey: [height, width]. */
BL_MUST_CHECK bl_status wk_png_write(const char *path, uint32_t width, uint32_t height, const uint8_t *grey,
                                     bl_error *err);

#endif
