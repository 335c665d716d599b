/* SPDX-License-Identifier: Apache-2.0
 *
 * Files and paths: whole-file reads with a limit, atomic durable replacement, path resolution.
 */
#ifndef BL_BASE_FILE_H
#define BL_BASE_FILE_H

#include "base/buf.h"
#include "base/status.h"

#include <stdbool.h>

/* Reads a whole regular file of at most limit bytes; appends to *out. The text names the path. */
BL_MUST_CHECK bl_status bl_file_read(const char *path, size_t limit_bytes, bl_buf *out, bl_error *err);

/* Writes path.tmp.<pid>, fsyncs it, renames it over path, fsyncs the directory. mode e.g. 0644. */
BL_MUST_CHECK bl_status bl_file_write_atomic(const char *path, const void *data, size_t size, unsigned mode,
                                             bl_error *err);

/* The same from parts in order, so that a large file needs no second copy in memory. */
typedef struct bl_file_part {
  const void *data;
  size_t size;
} bl_file_part;
BL_MUST_CHECK bl_status bl_file_write_atomic_parts(const char *path, const bl_file_part *parts, size_t n_parts,
                                                   unsigned mode, bl_error *err);

/* mkdir -p. */
BL_MUST_CHECK bl_status bl_file_make_dirs(const char *path, unsigned mode, bl_error *err);

/* rm -r of a directory that we made ourselves. Does not follow links. Nesting at most 32. */
BL_MUST_CHECK bl_status bl_file_remove_tree(const char *path, bl_error *err);

bool bl_file_exists(const char *path);

/* Absolute path: "~/x" against $HOME, relative ones against base_dir; "." and ".." are folded as text.
 * *ret_path is owned by the caller (bl_free). */
BL_MUST_CHECK bl_status bl_path_resolve(const char *base_dir, const char *path, char **ret_path, bl_error *err);

/* Directory part, owned by the caller; "." when there is none. NULL: no memory. */
char *bl_path_dir(const char *path);

/* True when the absolute, folded path is root itself or lies below it. */
bool bl_path_is_below(const char *path, const char *root);

#endif
