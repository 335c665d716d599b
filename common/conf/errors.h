/* SPDX-License-Identifier: Apache-2.0
 *
 * All mistakes of a configuration or job file at once, each with its line.
 */
#ifndef BL_CONF_ERRORS_H
#define BL_CONF_ERRORS_H

#include "base/buf.h"

/* One mistake. line 0: the whole file. */
typedef struct bl_conf_error {
  unsigned line;
  char text[400]; /* "field 'optimizer.adam.lr': -1 is not in (0, 10]" ... */
} bl_conf_error;

#define BL_CONF_ERRORS_MAX 64
typedef struct bl_conf_errors {
  bl_conf_error at[BL_CONF_ERRORS_MAX];
  size_t n;
} bl_conf_errors;

/* "job.yaml:12: field ..." one per line into *out; file NULL: only the texts. Mistakes in an override
 * read "--set a.b: ..." without the file. */
void bl_conf_errors_print(const bl_conf_errors *errors, const char *file, bl_buf *out);

#endif
