/* SPDX-License-Identifier: Apache-2.0
 *
 * Formats are described at wk_idx_read and in the PNG specification (W3C, 2003): signature, then chunks of
 * length, type, data, CRC-32 of type and data.
 */
#include "data/gen/write.h"

#include "base/buf.h"
#include "base/file.h"

#include <string.h>
#include <zlib.h>

#define GZIP_WINDOW (15 + 16)
#define ZLIB_WINDOW 15

static void put_be32(bl_buf *b, uint32_t v) {
  uint8_t bytes[4] = {(uint8_t)(v >> 24), (uint8_t)(v >> 16), (uint8_t)(v >> 8), (uint8_t)v};
  bl_buf_add(b, bytes, sizeof bytes);
}

/* Appends data, compressed; a failure shows in out->failed. */
static void put_compressed(bl_buf *out, const void *data, size_t size, int window) {
  z_stream z = {0};
  if (size > UINT32_MAX / 2 || deflateInit2(&z, 6, Z_DEFLATED, window, 8, Z_DEFAULT_STRATEGY) != Z_OK) {
    out->failed = true;
    return;
  }
  size_t bound = deflateBound(&z, size) + 64; /* room for the gzip header */
  z.next_in = (uint8_t *)(uintptr_t)data;
  z.avail_in = (unsigned)size;
  z.next_out = bl_buf_reserve(out, bound);
  z.avail_out = (unsigned)bound;
  if (z.next_out != NULL && deflate(&z, Z_FINISH) == Z_STREAM_END)
    out->size += bound - z.avail_out;
  else
    out->failed = true;
  deflateEnd(&z);
}

static bl_status write_out(const char *path, bl_buf *b, bl_error *err) {
  bl_status status = b->failed ? bl_fail(err, BL_ENOMEM, "no memory to write %s", path)
                               : bl_file_write_atomic(path, b->data, b->size, 0644, err);
  bl_buf_fini(b);
  return status;
}

bl_status wk_idx_write(const char *path, const uint32_t *dims, unsigned n_dims, const uint8_t *data,
                       bool compress, bl_error *err) {
  BL_ASSERT(n_dims >= 1 && n_dims <= 4);
  bl_buf plain = BL_BUF_INIT, packed = BL_BUF_INIT;
  put_be32(&plain, 0x800 | n_dims);
  size_t size = 1;
  for (unsigned i = 0; i < n_dims; i++) {
    put_be32(&plain, dims[i]);
    size *= dims[i];
  }
  bl_buf_add(&plain, data, size);
  if (!compress)
    return write_out(path, &plain, err);
  if (!plain.failed)
    put_compressed(&packed, plain.data, plain.size, GZIP_WINDOW);
  packed.failed |= plain.failed;
  bl_buf_fini(&plain);
  return write_out(path, &packed, err);
}

static void put_chunk(bl_buf *out, const char type[5], const void *data, size_t size) {
  put_be32(out, (uint32_t)size);
  size_t start = out->size;
  bl_buf_add(out, type, 4);
  bl_buf_add(out, data, size);
  if (!out->failed)
    put_be32(out, (uint32_t)crc32(0, out->data + start, (unsigned)(size + 4)));
}

bl_status wk_png_write(const char *path, uint32_t width, uint32_t height, const uint8_t *grey, bl_error *err) {
  static const uint8_t signature[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
  static const uint8_t grey_8_bit[5] = {8, 0, 0, 0, 0};
  bl_buf out = BL_BUF_INIT, header = BL_BUF_INIT, rows = BL_BUF_INIT, packed = BL_BUF_INIT;
  put_be32(&header, width);
  put_be32(&header, height);
  bl_buf_add(&header, grey_8_bit, sizeof grey_8_bit);
  for (uint32_t y = 0; y < height; y++) {
    bl_buf_add_byte(&rows, 0); /* no filter */
    bl_buf_add(&rows, grey + (size_t)y * width, width);
  }
  if (!rows.failed)
    put_compressed(&packed, rows.data, rows.size, ZLIB_WINDOW);
  bl_buf_add(&out, signature, sizeof signature);
  if (!header.failed && !rows.failed && !packed.failed) {
    put_chunk(&out, "IHDR", header.data, header.size);
    put_chunk(&out, "IDAT", packed.data, packed.size);
    put_chunk(&out, "IEND", "", 0);
  } else {
    out.failed = true;
  }
  bl_buf_fini(&header);
  bl_buf_fini(&rows);
  bl_buf_fini(&packed);
  return write_out(path, &out, err);
}
