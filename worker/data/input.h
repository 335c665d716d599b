/* SPDX-License-Identifier: Apache-2.0
 *
 * Bytes of a data file in order, plain or gzip (told by the first two bytes, not by the name). A truncated
 * or damaged gzip file is an error, never a short read. Only regular files, so that no read can hang on a
 * pipe. One thread at a time.
 */
#ifndef WK_DATA_INPUT_H
#define WK_DATA_INPUT_H

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct wk_input wk_input;

BL_MUST_CHECK bl_status wk_input_open(const char *path, wk_input **ret_in, bl_error *err);
void wk_input_close(wk_input *in);
const char *wk_input_path(const wk_input *in); /* for messages; borrowed until close */

/* Reads n bytes, fewer only at the end of the file. */
BL_MUST_CHECK bl_status wk_input_read(wk_input *in, void *out, size_t n, size_t *ret_n, bl_error *err);

/* Next byte, or -1 at the end of the file or after an error, which stays for wk_input_status. */
int wk_input_byte(wk_input *in);
BL_MUST_CHECK bl_status wk_input_status(const wk_input *in, bl_error *err);

/* Reads exactly size bytes into a new block (bl_free). Memory grows with the bytes that really come, so a
 * lying header costs nothing. `what` names them in the message: "60000 records of 784 bytes". */
BL_MUST_CHECK bl_status wk_input_read_block(wk_input *in, uint64_t size, const char *what, uint8_t **ret_data,
                                            bl_error *err);

#endif
