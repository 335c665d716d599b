/* SPDX-License-Identifier: Apache-2.0
 *
 * Two buffers: bytes of the file, and bytes after inflation. For a plain file they are the same one.
 */
#include "data/input.h"

#include "base/alloc.h"
#include "base/num.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#define RAW_BYTES ((size_t)64 << 10)
#define INFLATED_BYTES ((size_t)256 << 10)
#define BLOCK_START_BYTES ((uint64_t)1 << 20)

struct wk_input {
  int fd;
  char *path;        /* owned */
  uint8_t *raw;      /* owned [RAW_BYTES] */
  uint8_t *inflated; /* owned [INFLATED_BYTES], NULL for plain files */
  const uint8_t *next, *end;
  z_stream z;
  bool z_ready, gzip, inside_member, raw_ended;
  bl_status status;
  bl_error error;
};

static void *z_alloc(void *arg, unsigned n, unsigned size) {
  return bl_calloc(n, size);
}
static void z_free(void *arg, void *p) {
  bl_free(p);
}

static bl_status fill_raw(wk_input *in, size_t *ret_n, bl_error *err) {
  size_t got = 0;
  while (got < RAW_BYTES) {
    ssize_t n = read(in->fd, in->raw + got, RAW_BYTES - got);
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0)
      return bl_fail_errno(err, "cannot read %s", in->path);
    if (n == 0)
      break;
    got += (size_t)n;
  }
  *ret_n = got;
  return BL_OK;
}

static bl_status open_regular(const char *path, int *ret_fd, bl_error *err) {
  /* O_NONBLOCK: opening a pipe must not wait for a writer. */
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0)
    return bl_fail_errno(err, "cannot open %s", path);
  struct stat st;
  if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
    close(fd);
    return bl_fail(err, BL_EINVAL, "%s is not a regular file", path);
  }
  *ret_fd = fd;
  return BL_OK;
}

static bl_status start_gzip(wk_input *in) {
  in->inflated = bl_malloc(INFLATED_BYTES);
  if (in->inflated == NULL)
    return BL_ENOMEM;
  in->z.zalloc = z_alloc;
  in->z.zfree = z_free;
  if (inflateInit2(&in->z, 15 + 16) != Z_OK)
    return BL_ENOMEM;
  in->z_ready = true;
  in->gzip = true;
  in->inside_member = true;
  return BL_OK;
}

bl_status wk_input_open(const char *path, wk_input **ret_in, bl_error *err) {
  int fd = -1;
  bl_status status = open_regular(path, &fd, err);
  if (status != BL_OK)
    return status;
  wk_input *in = bl_calloc(1, sizeof *in);
  if (in == NULL) {
    close(fd);
    return bl_fail(err, BL_ENOMEM, "no memory to read %s", path);
  }
  in->fd = fd;
  in->path = bl_strdup(path);
  in->raw = bl_malloc(RAW_BYTES);
  size_t n = 0;
  if (in->path == NULL || in->raw == NULL) {
    status = bl_fail(err, BL_ENOMEM, "no memory to read %s", path);
    goto fail;
  }
  status = fill_raw(in, &n, err);
  if (status != BL_OK)
    goto fail;
  in->next = in->end = in->raw;
  if (n >= 2 && in->raw[0] == 0x1f && in->raw[1] == 0x8b) {
    if (start_gzip(in) != BL_OK) {
      status = bl_fail(err, BL_ENOMEM, "no memory to read %s", path);
      goto fail;
    }
    in->z.next_in = in->raw;
    in->z.avail_in = (unsigned)n;
  } else {
    in->end = in->raw + n;
  }
  *ret_in = in;
  return BL_OK;
fail:
  wk_input_close(in);
  return status;
}

void wk_input_close(wk_input *in) {
  if (in == NULL)
    return;
  if (in->z_ready)
    inflateEnd(&in->z);
  close(in->fd);
  bl_free(in->inflated);
  bl_free(in->raw);
  bl_free(in->path);
  bl_free(in);
}

const char *wk_input_path(const wk_input *in) {
  return in->path;
}

static bl_status refill_plain(wk_input *in) {
  size_t n;
  bl_status status = fill_raw(in, &n, &in->error);
  if (status != BL_OK)
    return status;
  in->next = in->raw;
  in->end = in->raw + n;
  return BL_OK;
}

static bl_status inflate_some(wk_input *in) {
  int rc = inflate(&in->z, Z_NO_FLUSH);
  if (rc == Z_STREAM_END) {
    in->inside_member = false;
    return BL_OK;
  }
  if (rc == Z_OK || rc == Z_BUF_ERROR)
    return BL_OK;
  if (rc == Z_MEM_ERROR)
    return bl_fail(&in->error, BL_ENOMEM, "no memory to decompress %s", in->path);
  return bl_fail(&in->error, BL_ECORRUPT, "%s: damaged gzip data (%s)", in->path,
                 in->z.msg != NULL ? in->z.msg : "unexpected preset dictionary");
}

/* Inflates until there is at least one byte or the file ends cleanly after a member. */
static bl_status refill_gzip(wk_input *in) {
  in->z.next_out = in->inflated;
  in->z.avail_out = (unsigned)INFLATED_BYTES;
  while (in->z.avail_out == INFLATED_BYTES) {
    if (in->z.avail_in == 0) {
      size_t n;
      bl_status status = fill_raw(in, &n, &in->error);
      if (status != BL_OK)
        return status;
      if (n == 0 && in->inside_member)
        return bl_fail(&in->error, BL_ECORRUPT, "%s: truncated gzip file: it ends inside the compressed data",
                       in->path);
      if (n == 0)
        break;
      in->z.next_in = in->raw;
      in->z.avail_in = (unsigned)n;
    }
    if (!in->inside_member) { /* several members in one file: their contents follow each other */
      inflateReset(&in->z);
      in->inside_member = true;
    }
    bl_status status = inflate_some(in);
    if (status != BL_OK)
      return status;
  }
  in->next = in->inflated;
  in->end = in->inflated + (INFLATED_BYTES - in->z.avail_out);
  return BL_OK;
}

static void refill(wk_input *in) {
  if (in->status != BL_OK || in->raw_ended)
    return;
  in->status = in->gzip ? refill_gzip(in) : refill_plain(in);
  if (in->status == BL_OK && in->next == in->end)
    in->raw_ended = true;
}

bl_status wk_input_status(const wk_input *in, bl_error *err) {
  if (in->status != BL_OK && err != NULL)
    *err = in->error;
  return in->status;
}

int wk_input_byte(wk_input *in) {
  if (in->next == in->end)
    refill(in);
  return in->next < in->end ? *in->next++ : -1;
}

bl_status wk_input_read(wk_input *in, void *out, size_t n, size_t *ret_n, bl_error *err) {
  uint8_t *p = out;
  size_t left = n;
  while (left > 0) {
    if (in->next == in->end)
      refill(in);
    size_t have = (size_t)(in->end - in->next);
    if (have == 0)
      break;
    size_t take = BL_MIN(have, left);
    memcpy(p, in->next, take);
    in->next += take;
    p += take;
    left -= take;
  }
  if (in->status != BL_OK)
    return wk_input_status(in, err);
  *ret_n = n - left;
  return BL_OK;
}

bl_status wk_input_read_block(wk_input *in, uint64_t size, const char *what, uint8_t **ret_data,
                              bl_error *err) {
  uint64_t capacity = BL_MAX(BL_MIN(size, BLOCK_START_BYTES), 1), have = 0;
  uint8_t *data = bl_malloc(capacity);
  bl_status status = BL_OK;
  while (data != NULL) {
    size_t n = 0;
    status = wk_input_read(in, data + have, BL_MIN(capacity, size) - have, &n, err);
    have += n;
    if (status != BL_OK || have == size)
      goto out;
    if (have < capacity) {
      status =
          bl_fail(err, BL_ECORRUPT, "%s is truncated: its header promises %s, after it come only %llu bytes",
                  in->path, what, (unsigned long long)have);
      goto out;
    }
    capacity = capacity > size / 2 ? size : capacity * 2;
    uint8_t *grown = bl_realloc(data, capacity);
    if (grown == NULL)
      break;
    data = grown;
  }
  status = bl_fail(err, BL_ENOMEM, "%s: no memory for %s", in->path, what);
out:
  if (status == BL_OK)
    *ret_data = data;
  else
    bl_free(data);
  return status;
}
