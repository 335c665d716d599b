/* SPDX-License-Identifier: Apache-2.0
 *
 * Whole files and paths over plain POSIX calls.
 */
#include "base/file.h"

#include "base/alloc.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

bool bl_file_exists(const char *path) { return access(path, F_OK) == 0; }

bl_status bl_file_read(const char *path, size_t limit_bytes, bl_buf *out, bl_error *err) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0)
    return bl_fail_errno(err, "cannot open %s", path);
  bl_status status = BL_OK;
  struct stat st;
  if (fstat(fd, &st) == 0 && S_ISDIR(st.st_mode)) {
    status = bl_fail(err, BL_EINVAL, "%s is a directory, not a file", path);
    goto out;
  }
  size_t start = out->size;
  for (;;) {
    char *room = bl_buf_reserve(out, 65536);
    if (room == NULL) {
      status = bl_fail(err, BL_ENOMEM, "no memory to read %s", path);
      goto out;
    }
    ssize_t n = read(fd, room, 65536);
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0) {
      status = bl_fail_errno(err, "cannot read %s", path);
      goto out;
    }
    if (n == 0)
      break;
    out->size += (size_t)n;
    if (out->size - start > limit_bytes) {
      status = bl_fail(err, BL_ELIMIT, "%s is larger than the limit of %zu bytes", path, limit_bytes);
      goto out;
    }
  }
  if (out->data != NULL)
    out->data[out->size] = '\0';
out:
  close(fd);
  return status;
}

static bl_status write_all(int fd, const void *data, size_t size) {
  const char *p = data;
  while (size > 0) {
    ssize_t n = write(fd, p, size);
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      return BL_EIO;
    p += n;
    size -= (size_t)n;
  }
  return BL_OK;
}

static void sync_dir_of(const char *path) {
  char *dir = bl_path_dir(path);
  int fd = dir != NULL ? open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
  if (fd >= 0) {
    (void)fsync(fd);
    close(fd);
  }
  bl_free(dir);
}

bl_status bl_file_write_atomic(const char *path, const void *data, size_t size, unsigned mode, bl_error *err) {
  return bl_file_write_atomic_parts(path, &(bl_file_part){data, size}, 1, mode, err);
}

bl_status bl_file_write_atomic_parts(const char *path, const bl_file_part *parts, size_t n_parts, unsigned mode,
                                     bl_error *err) {
  char tmp[4096];
  if ((size_t)snprintf(tmp, sizeof tmp, "%s.tmp.%ld", path, (long)getpid()) >= sizeof tmp)
    return bl_fail(err, BL_ELIMIT, "path too long: %s", path);
  int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, (mode_t)mode);
  if (fd < 0)
    return bl_fail_errno(err, "cannot create %s", tmp);
  bl_status status = BL_OK;
  for (size_t i = 0; status == BL_OK && i < n_parts; i++)
    if (write_all(fd, parts[i].data, parts[i].size) != BL_OK)
      status = bl_fail_errno(err, "cannot write %s", tmp);
  if (status == BL_OK && fsync(fd) != 0)
    status = bl_fail_errno(err, "cannot write %s", tmp);
  if (close(fd) != 0 && status == BL_OK)
    status = bl_fail_errno(err, "cannot write %s", tmp);
  if (status == BL_OK && rename(tmp, path) != 0)
    status = bl_fail_errno(err, "cannot rename %s to %s", tmp, path);
  if (status != BL_OK) {
    unlink(tmp);
    return status;
  }
  sync_dir_of(path);
  return BL_OK;
}

bl_status bl_file_make_dirs(const char *path, unsigned mode, bl_error *err) {
  char *copy = bl_strdup(path);
  if (copy == NULL)
    return bl_fail(err, BL_ENOMEM, "no memory for path %s", path);
  bl_status status = BL_OK;
  for (char *p = copy + 1; status == BL_OK; p++) {
    if (*p != '/' && *p != '\0')
      continue;
    char saved = *p;
    *p = '\0';
    if (mkdir(copy, (mode_t)mode) != 0 && errno != EEXIST)
      status = bl_fail_errno(err, "cannot make directory %s", copy);
    *p = saved;
    if (saved == '\0')
      break;
  }
  struct stat st;
  if (status == BL_OK && (stat(path, &st) != 0 || !S_ISDIR(st.st_mode)))
    status = bl_fail(err, BL_EEXIST, "%s exists and is not a directory", path);
  bl_free(copy);
  return status;
}

#define TREE_DEPTH_MAX 32

static bl_status remove_at(int parent, const char *name, int depth) {
  if (unlinkat(parent, name, 0) == 0 || errno == ENOENT)
    return BL_OK;
  if (depth >= TREE_DEPTH_MAX)
    return BL_ELIMIT;
  int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
  if (dir == NULL) {
    if (fd >= 0)
      close(fd);
    return BL_EIO;
  }
  bl_status status = BL_OK;
  struct dirent *e;
  while (status == BL_OK && (e = readdir(dir)) != NULL) {
    if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
      status = remove_at(fd, e->d_name, depth + 1);
  }
  closedir(dir);
  if (status == BL_OK && unlinkat(parent, name, AT_REMOVEDIR) != 0)
    status = BL_EIO;
  return status;
}

bl_status bl_file_remove_tree(const char *path, bl_error *err) {
  bl_status status = remove_at(AT_FDCWD, path, 0);
  return status == BL_OK ? BL_OK : bl_fail_errno(err, "cannot remove %s", path);
}

/* Folds "." and ".." of an absolute path in place. */
static void fold(char *path) {
  char *out = path;
  const char *in = path;
  while (*in != '\0') {
    while (*in == '/')
      in++;
    size_t n = strcspn(in, "/");
    if (n == 2 && in[0] == '.' && in[1] == '.') {
      while (out > path && *--out != '/')
        ;
    } else if (n > 0 && !(n == 1 && in[0] == '.')) {
      *out++ = '/';
      memmove(out, in, n);
      out += n;
    }
    in += n;
  }
  if (out == path)
    *out++ = '/';
  *out = '\0';
}

bl_status bl_path_resolve(const char *base_dir, const char *path, char **ret_path, bl_error *err) {
  bl_buf b = BL_BUF_INIT;
  char cwd[4096];
  if (path[0] == '~' && (path[1] == '/' || path[1] == '\0')) {
    const char *home = getenv("HOME");
    if (home == NULL || home[0] != '/')
      return bl_fail(err, BL_EINVAL, "cannot resolve %s: HOME is not set to an absolute path", path);
    bl_buf_printf(&b, "%s/%s", home, path + 1);
  } else if (path[0] == '/') {
    bl_buf_add_str(&b, path);
  } else {
    if (base_dir == NULL || base_dir[0] != '/') {
      if (getcwd(cwd, sizeof cwd) == NULL)
        return bl_fail_errno(err, "cannot find the current directory");
      bl_buf_printf(&b, "%s/", cwd);
    }
    bl_buf_printf(&b, "%s/%s", base_dir != NULL ? base_dir : ".", path);
  }
  char *text = bl_buf_take_str(&b);
  if (text == NULL) {
    bl_buf_fini(&b);
    return bl_fail(err, BL_ENOMEM, "no memory for path %s", path);
  }
  fold(text);
  *ret_path = text;
  return BL_OK;
}

char *bl_path_dir(const char *path) {
  const char *slash = strrchr(path, '/');
  if (slash == NULL)
    return bl_strdup(".");
  return bl_strndup(path, slash == path ? 1 : (size_t)(slash - path));
}

bool bl_path_is_below(const char *path, const char *root) {
  size_t n = strlen(root);
  while (n > 1 && root[n - 1] == '/')
    n--;
  if (strncmp(path, root, n) != 0)
    return false;
  return n == 1 || path[n] == '\0' || path[n] == '/';
}
