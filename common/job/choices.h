/* SPDX-License-Identifier: Apache-2.0
 *
 * Codecs of pulls that were chosen while the job runs, as they stand behind a rank's commit: lines of text,
 * "tensor=codec\n", the tensor by its number, the codec as in codec/spec.h.
 */
#ifndef BL_JOB_CHOICES_H
#define BL_JOB_CHOICES_H

#include "job/tensors.h"

#define BL_CHOICES_BYTES_MAX 4096

/* Appends a line. False: there is no room for it (size bytes at out, *used of them taken). */
bool bl_choices_put(char *out, size_t size, size_t *used, uint32_t tensor, const bl_codec_spec *spec);

typedef void bl_on_choice_fn(uint32_t tensor, const bl_codec_spec *spec, void *arg);
/* BL_EINVAL: a tensor that the table has not, or that is a table of rows, or no codec; then on_choice (NULL: only checked)
 * has been called for the lines before. */
BL_MUST_CHECK bl_status bl_choices_read(const char *text, size_t size, const bl_tensor_table *table,
                                        bl_on_choice_fn *on_choice, void *arg, bl_error *err);

#endif
