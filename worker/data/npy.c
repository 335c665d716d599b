/* SPDX-License-Identifier: Apache-2.0
 *
 * The format: 93 'N' 'U' 'M' 'P' 'Y', version major and minor, length of the header (version 1: 2 bytes, later 4,
 * little-endian), the header, the elements. The header is a Python dictionary as text, filled with blanks and ended by
 * a line end. Example, two rows of three float32:
 * 93 4e 55 4d 50 59 01 00 76 00 "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }" blanks 0a, then 24 bytes.
 *
 * The dictionary is read by a parser of just these three keys: no Python, no recursion.
 */
#include "data/npy.h"

#include "data/input.h"

#include "base/alloc.h"
#include "base/le.h"
#include "base/num.h"
#include "kernel/kernel.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define MAGIC_BYTES 6
#define DESCR_BYTES_MAX 16
#define ELEMS_MAX (UINT64_C(1) << 48)

static const struct {
  const char *name;
  uint32_t bytes;
  bool integer;
} types[WK_NPY_TYPE_COUNT] = {
    [WK_NPY_BOOL] = {"|b1", 1, true}, [WK_NPY_U1] = {"|u1", 1, true}, [WK_NPY_I1] = {"|i1", 1, true},
    [WK_NPY_U2] = {"<u2", 2, true},   [WK_NPY_I2] = {"<i2", 2, true}, [WK_NPY_U4] = {"<u4", 4, true},
    [WK_NPY_I4] = {"<i4", 4, true},   [WK_NPY_I8] = {"<i8", 8, true}, [WK_NPY_F2] = {"<f2", 2, false},
    [WK_NPY_F4] = {"<f4", 4, false},  [WK_NPY_F8] = {"<f8", 8, false},
};

const char *wk_npy_type_name(wk_npy_type type) { return types[type].name; }
bool wk_npy_is_integer(const wk_npy *a) { return types[a->type].integer; }

void wk_npy_fini(wk_npy *a) {
  bl_free(a->data);
  *a = (wk_npy){0};
}

/* ---- header ------------------------------------------------------------------------------------------- */

typedef struct header {
  const char *path;
  const char *next; /* NUL-terminated text */
  bool has_descr, has_order, has_shape, fortran;
  char descr[DESCR_BYTES_MAX];
  wk_npy *a;
  bl_error *err;
} header;

static bl_status bad(const header *h, const char *what) {
  return bl_fail(h->err, BL_ECORRUPT, "%s: the header of the npy file %s, at '%.24s'", h->path, what, h->next);
}

static void skip_blanks(header *h) { h->next += strspn(h->next, " \t\r\n"); }

static bool accept(header *h, char c) {
  skip_blanks(h);
  if (*h->next != c)
    return false;
  h->next++;
  return true;
}

static bool accept_word(header *h, const char *word) {
  skip_blanks(h);
  if (strncmp(h->next, word, strlen(word)) != 0)
    return false;
  h->next += strlen(word);
  return true;
}

/* A text in quotes, without escapes. */
static bl_status read_text(header *h, char *out, size_t size) {
  skip_blanks(h);
  char quote = *h->next;
  if (quote != '\'' && quote != '"')
    return bad(h, "holds no text where one must stand");
  const char *end = strchr(h->next + 1, quote);
  if (end == NULL || (size_t)(end - h->next) > size)
    return bad(h, "holds a text that is too long or has no end");
  memcpy(out, h->next + 1, (size_t)(end - h->next - 1));
  out[end - h->next - 1] = '\0';
  h->next = end + 1;
  return BL_OK;
}

static bl_status read_descr(header *h) {
  skip_blanks(h);
  if (*h->next == '[' || *h->next == '{' || *h->next == '(')
    return bl_fail(h->err, BL_EUNSUPPORTED, "%s: arrays of structured types are not supported", h->path);
  return read_text(h, h->descr, sizeof h->descr);
}

static bl_status read_order(header *h) {
  if (accept_word(h, "False"))
    return BL_OK;
  if (!accept_word(h, "True"))
    return bad(h, "says neither True nor False for fortran_order");
  h->fortran = true;
  return BL_OK;
}

static bl_status read_dim(header *h, uint64_t *ret_dim) {
  uint64_t v = 0;
  skip_blanks(h);
  size_t n = strspn(h->next, "0123456789");
  if (n == 0 || n > 19)
    return bad(h, "holds a dimension that is no whole number");
  for (size_t i = 0; i < n; i++)
    v = v * 10 + (uint64_t)(h->next[i] - '0');
  h->next += n;
  accept(h, 'L'); /* written by Python 2 */
  *ret_dim = v;
  return BL_OK;
}

static bl_status read_shape(header *h) {
  wk_npy *a = h->a;
  if (!accept(h, '('))
    return bad(h, "has no tuple for the shape");
  while (!accept(h, ')')) {
    if (a->n_dims == WK_NPY_DIMS_MAX)
      return bl_fail(h->err, BL_EUNSUPPORTED, "%s: more than %d dimensions", h->path, WK_NPY_DIMS_MAX);
    bl_status status = read_dim(h, &a->dims[a->n_dims]);
    if (status != BL_OK)
      return status;
    a->n_dims++;
    if (!accept(h, ',') && *h->next != ')')
      return bad(h, "has no comma between two dimensions");
  }
  return BL_OK;
}

static bl_status read_entry(header *h) {
  char key[DESCR_BYTES_MAX];
  bl_status status = read_text(h, key, sizeof key);
  if (status != BL_OK)
    return status;
  const struct {
    const char *key;
    bool *seen;
    bl_status (*read)(header *h);
  } entries[] = {{"descr", &h->has_descr, read_descr},
                 {"fortran_order", &h->has_order, read_order},
                 {"shape", &h->has_shape, read_shape}};
  for (size_t i = 0; i < BL_COUNT_OF(entries); i++) {
    if (strcmp(key, entries[i].key) != 0)
      continue;
    if (*entries[i].seen)
      return bad(h, "holds a key twice");
    *entries[i].seen = true;
    return accept(h, ':') ? entries[i].read(h) : bad(h, "has no colon behind a key");
  }
  return bad(h, "holds a key that is none of descr, fortran_order, shape");
}

static bl_status read_dictionary(header *h) {
  if (!accept(h, '{'))
    return bad(h, "is no dictionary");
  while (!accept(h, '}')) {
    bl_status status = read_entry(h);
    if (status != BL_OK)
      return status;
    if (!accept(h, ',') && *h->next != '}')
      return bad(h, "has no comma between two entries");
  }
  skip_blanks(h);
  if (*h->next != '\0')
    return bad(h, "goes on behind its dictionary");
  return h->has_descr && h->has_order && h->has_shape ? BL_OK : bad(h, "lacks one of descr, fortran_order, shape");
}

/* '|' (one byte, no order) and '<' are the same where an element has one byte. */
static bl_status find_type(const header *h, wk_npy_type *ret_type) {
  const char *d = h->descr;
  for (int t = 1; t < WK_NPY_TYPE_COUNT; t++) {
    bool order = d[0] == '<' || (d[0] == '|' && types[t].bytes == 1);
    if (order && strcmp(d + 1, types[t].name + 1) == 0) {
      *ret_type = (wk_npy_type)t;
      return BL_OK;
    }
  }
  if (d[0] == '>')
    return bl_fail(h->err, BL_EUNSUPPORTED, "%s holds big-endian numbers ('%s'); save it as little-endian: a.astype('<%s')",
                   h->path, d, d + 1);
  if (strchr(d, 'O') != NULL)
    return bl_fail(h->err, BL_EUNSUPPORTED, "%s holds Python objects ('%s'), not numbers", h->path, d);
  return bl_fail(h->err, BL_EUNSUPPORTED,
                 "%s holds elements of type '%s'; supported are b1 u1 i1 u2 i2 u4 i4 i8 f2 f4 f8", h->path, d);
}

static bl_status check_shape(const header *h) {
  wk_npy *a = h->a;
  unsigned wide = 0;
  a->n_elems = 1;
  if (a->n_dims == 0)
    return bl_fail(h->err, BL_EINVAL, "%s holds one number, not an array: its shape is ()", h->path);
  for (unsigned i = 0; i < a->n_dims; i++) {
    wide += a->dims[i] > 1;
    if (!bl_mul_u64(a->n_elems, a->dims[i], &a->n_elems) || a->n_elems > ELEMS_MAX)
      return bl_fail(h->err, BL_ELIMIT, "%s: its header promises more than 2^48 elements", h->path);
  }
  /* With one dimension both orders are the same. */
  if (h->fortran && wide > 1)
    return bl_fail(h->err, BL_EUNSUPPORTED,
                   "%s is in Fortran order; save it in C order: numpy.save(file, numpy.ascontiguousarray(a))", h->path);
  return BL_OK;
}

static bl_status parse_header(const char *path, const char *text, wk_npy *a, bl_error *err) {
  header h = {.path = path, .next = text, .a = a, .err = err};
  bl_status status = read_dictionary(&h);
  if (status == BL_OK)
    status = find_type(&h, &a->type);
  if (status == BL_OK)
    status = check_shape(&h);
  if (status == BL_OK)
    a->elem_bytes = types[a->type].bytes;
  return status;
}

/* ---- file --------------------------------------------------------------------------------------------- */

static bl_status read_bytes(wk_input *in, uint8_t *out, size_t n, bl_error *err) {
  size_t got = 0;
  bl_status status = wk_input_read(in, out, n, &got, err);
  if (status == BL_OK && got < n)
    return bl_fail(err, BL_ECORRUPT, "%s is truncated inside its npy header", wk_input_path(in));
  return status;
}

static bl_status read_header_size(wk_input *in, uint32_t *ret_size, bl_error *err) {
  static const uint8_t magic[MAGIC_BYTES] = {0x93, 'N', 'U', 'M', 'P', 'Y'};
  const char *path = wk_input_path(in);
  uint8_t b[MAGIC_BYTES + 2], length[4] = {0};
  bl_status status = read_bytes(in, b, sizeof b, err);
  if (status != BL_OK)
    return status;
  if (memcmp(b, magic, sizeof magic) != 0)
    return bl_fail(err, BL_ECORRUPT, "%s is not an npy file: it starts with %02x %02x %02x %02x, expected 93 4e 55 4d", path,
                   b[0], b[1], b[2], b[3]);
  unsigned major = b[MAGIC_BYTES], minor = b[MAGIC_BYTES + 1];
  if (major < 1 || major > 3 || minor != 0)
    return bl_fail(err, BL_EUNSUPPORTED, "%s has npy format version %u.%u, supported are 1.0, 2.0 and 3.0", path, major, minor);
  status = read_bytes(in, length, major == 1 ? 2 : 4, err);
  if (status != BL_OK)
    return status;
  uint32_t size = bl_le_get32(length);
  if (size > WK_NPY_HEADER_BYTES_MAX)
    return bl_fail(err, BL_ELIMIT, "%s: an npy header of %u bytes, the limit is %u", path, size, WK_NPY_HEADER_BYTES_MAX);
  *ret_size = size;
  return BL_OK;
}

static bl_status read_header(wk_input *in, wk_npy *a, bl_error *err) {
  uint32_t size = 0;
  bl_status status = read_header_size(in, &size, err);
  if (status != BL_OK)
    return status;
  char *text = bl_malloc(size + 1);
  if (text == NULL)
    return bl_fail(err, BL_ENOMEM, "%s: no memory for its header", wk_input_path(in));
  status = read_bytes(in, (uint8_t *)text, size, err);
  text[size] = '\0';
  if (status == BL_OK && strlen(text) != size)
    status = bl_fail(err, BL_ECORRUPT, "%s: a NUL byte in its npy header", wk_input_path(in));
  if (status == BL_OK)
    status = parse_header(wk_input_path(in), text, a, err);
  bl_free(text);
  return status;
}

bl_status wk_npy_read(const char *path, wk_npy *ret_array, bl_error *err) {
  wk_input *in = NULL;
  wk_npy a = {0};
  char what[80];
  bl_status status = wk_input_open(path, &in, err);
  if (status == BL_OK)
    status = read_header(in, &a, err);
  if (status != BL_OK)
    goto out;
  snprintf(what, sizeof what, "%" PRIu64 " elements of %u bytes", a.n_elems, a.elem_bytes);
  status = wk_input_read_block(in, a.n_elems * a.elem_bytes, what, &a.data, err);
  if (status != BL_OK)
    goto out;
  int more = wk_input_byte(in);
  status = wk_input_status(in, err);
  if (status == BL_OK && more >= 0)
    status = bl_fail(err, BL_ECORRUPT, "%s: more bytes follow the %s that its header promises", path, what);
out:
  wk_input_close(in);
  if (status == BL_OK)
    *ret_array = a;
  else
    wk_npy_fini(&a);
  return status;
}

/* ---- elements ----------------------------------------------------------------------------------------- */

int64_t wk_npy_integer(const wk_npy *a, uint64_t i) {
  const uint8_t *p = a->data + i * a->elem_bytes;
  switch (a->type) {
  case WK_NPY_BOOL:
    return *p != 0;
  case WK_NPY_U1:
    return *p;
  case WK_NPY_I1:
    return (int8_t)*p;
  case WK_NPY_U2:
    return bl_le_get16(p);
  case WK_NPY_I2:
    return (int16_t)bl_le_get16(p);
  case WK_NPY_U4:
    return bl_le_get32(p);
  case WK_NPY_I4:
    return (int32_t)bl_le_get32(p);
  default:
    BL_ASSERT(a->type == WK_NPY_I8);
    return (int64_t)bl_le_get64(p);
  }
}

double wk_npy_number(const wk_npy *a, uint64_t i) {
  const uint8_t *p = a->data + i * a->elem_bytes;
  if (types[a->type].integer)
    return (double)wk_npy_integer(a, i);
  if (a->type == WK_NPY_F2) {
    uint16_t half = bl_le_get16(p);
    float f;
    bl_kernels_get()->f16_to_f32(&f, &half, 1);
    return (double)f;
  }
  if (a->type == WK_NPY_F4) {
    float f;
    memcpy(&f, p, sizeof f);
    return (double)f;
  }
  double d;
  memcpy(&d, p, sizeof d);
  return d;
}
