/* SPDX-License-Identifier: Apache-2.0
 *
 * One row per type: how to read a scalar into its place and how to write it. Everything else walks the
 * caller's table of fields.
 */
#include "conf/schema.h"

#include "base/alloc.h"
#include "base/num.h"
#include "base/str.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAMES_MAX 64

static void *place_of(const bl_conf_reader *r, const bl_field *f) {
  return (char *)r->base + f->offset;
}

const char *bl_conf_text(bl_conf_reader *r, const char *text) {
  const char *copy = bl_arena_strdup(r->arena, text);
  if (copy != NULL)
    return copy;
  r->no_memory = true;
  return "";
}

/* ---- words and names ---- */

const char *bl_word_name(const bl_word *words, size_t n, int value) {
  for (size_t i = 0; i < n; i++) {
    if (words[i].value == value)
      return words[i].name;
  }
  return "?";
}

const char *bl_word_list(const bl_word *words, size_t n, char *out, size_t size) {
  size_t used = 0;
  out[0] = '\0';
  for (size_t i = 0; i < n && used < size; i++)
    used += (size_t)snprintf(out + used, size - used, "%s%s", i > 0 ? ", " : "", words[i].name);
  return out;
}

const char *bl_conf_nearest(const char *word, const char *const *names, size_t n, char *out, size_t size) {
  const char *near = bl_str_nearest(word, names, n);
  out[0] = '\0';
  if (near != NULL)
    snprintf(out, size, "; did you mean '%s'?", near);
  return out;
}

void bl_schema_unknown(bl_conf_reader *r, const bl_field *fields, size_t n, const bl_node *node) {
  const char *names[NAMES_MAX];
  char near[100], all[220] = "";
  size_t used = 0, n_names = BL_MIN(n, (size_t)NAMES_MAX);
  for (size_t i = 0; i < n_names; i++) {
    names[i] = fields[i].name;
    if (used < sizeof all)
      used += (size_t)snprintf(all + used, sizeof all - used, "%s%s", i > 0 ? ", " : "", names[i]);
  }
  bl_conf_nearest(node->key, names, n_names, near, sizeof near);
  if (near[0] != '\0')
    bl_conf_errors_add_field(r->errors, node, "there is no such field%s", near);
  else
    bl_conf_errors_add_field(r->errors, node, "there is no such field; allowed here: %s", all);
}

/* ---- reading scalars ---- */

static const char *const type_allows[BL_FIELD_COUNT] = {
    [BL_FIELD_BOOL] = "true or false",
    [BL_FIELD_U16] = "a whole number",
    [BL_FIELD_U32] = "a whole number",
    [BL_FIELD_U64] = "a whole number",
    [BL_FIELD_DOUBLE] = "a number",
    [BL_FIELD_FRACTION] = "a fraction such as 0.1 or 10 %",
    [BL_FIELD_BYTES] = "a size such as 512 KiB or 8 GiB",
    [BL_FIELD_NS] = "a time with its unit such as 500 ms or 30 s",
    [BL_FIELD_TEXT] = "a text",
    [BL_FIELD_CHAR] = "a single character, or tab",
    [BL_FIELD_ENUM] = "a word",
    [BL_FIELD_LIST] = "a list of texts",
    [BL_FIELD_SECTION] = "a mapping ('name: value' lines)",
    [BL_FIELD_CUSTOM] = "something else",
};

static void wrong_type(bl_conf_reader *r, const bl_node *node, bl_field_type type) {
  char what[80];
  bl_conf_errors_add_field(r->errors, node, "%s is not allowed here; write %s",
                           bl_node_describe(node, what, sizeof what), type_allows[type]);
}

bool bl_node_to_double(bl_conf_reader *r, const bl_node *node, double *ret_value) {
  if (node->kind == BL_NODE_SCALAR && bl_str_to_double(node->text, ret_value) == BL_OK)
    return true;
  wrong_type(r, node, BL_FIELD_DOUBLE);
  return false;
}

bool bl_node_to_u64(bl_conf_reader *r, const bl_node *node, uint64_t *ret_value) {
  if (node->kind == BL_NODE_SCALAR && bl_str_to_u64(node->text, ret_value) == BL_OK)
    return true;
  wrong_type(r, node, BL_FIELD_U64);
  return false;
}

bool bl_node_to_list(bl_conf_reader *r, const bl_node *node, const char *const **ret_items, size_t *ret_n) {
  bool is_list = node->kind == BL_NODE_LIST;
  if (node->kind == BL_NODE_MAP) {
    wrong_type(r, node, BL_FIELD_LIST);
    return false;
  }
  size_t n = is_list ? node->n_children : 1;
  const char **items = bl_arena_array(r->arena, n + 1, sizeof *items);
  if (items == NULL) {
    r->no_memory = true;
    return false;
  }
  const bl_node *item = is_list ? node->first : node;
  for (size_t i = 0; i < n; i++, item = item->next) {
    if (item->kind != BL_NODE_SCALAR || item->is_null) {
      wrong_type(r, item, BL_FIELD_TEXT);
      return false;
    }
    items[i] = bl_conf_text(r, item->text);
  }
  *ret_items = items;
  *ret_n = n;
  return true;
}

/* "10 %" or "0.1". */
static bl_status text_to_fraction(const char *s, double *ret_value) {
  char number[64];
  size_t n = strlen(s);
  if (n == 0 || s[n - 1] != '%')
    return bl_str_to_double(s, ret_value);
  n--;
  while (n > 0 && s[n - 1] == ' ')
    n--;
  if (n >= sizeof number)
    return BL_EINVAL;
  memcpy(number, s, n);
  number[n] = '\0';
  double v;
  if (bl_str_to_double(number, &v) != BL_OK)
    return BL_EINVAL;
  *ret_value = v / 100;
  return BL_OK;
}

/* The number of an integer-like type; its unit is the type's. */
static bl_status text_to_integer(const bl_field *f, const char *text, uint64_t *ret_value) {
  if (f->type == BL_FIELD_BYTES)
    return bl_str_to_bytes(text, ret_value);
  if (f->type == BL_FIELD_NS)
    return bl_str_to_ns(text, ret_value);
  return bl_str_to_u64(text, ret_value);
}

/* A limit in the type's own writing: "1 MiB", "500 ms", "12". Exact, or in the base unit. */
static void add_integer(bl_buf *out, bl_field_type type, uint64_t v) {
  static const struct {
    uint64_t factor;
    const char *name;
  } bytes[] = {{UINT64_C(1) << 40, "TiB"}, {1u << 30, "GiB"}, {1u << 20, "MiB"}, {1u << 10, "KiB"}},
    times[] = {{UINT64_C(3600000000000), "h"},
               {UINT64_C(60000000000), "min"},
               {1000000000, "s"},
               {1000000, "ms"},
               {1000, "us"},
               {1, "ns"}};
  for (size_t i = 0; type == BL_FIELD_BYTES && v != 0 && i < BL_COUNT_OF(bytes); i++) {
    if (v % bytes[i].factor == 0) {
      bl_buf_printf(out, "%" PRIu64 " %s", v / bytes[i].factor, bytes[i].name);
      return;
    }
  }
  for (size_t i = 0; type == BL_FIELD_NS && i < BL_COUNT_OF(times); i++) {
    if (v != 0 ? v % times[i].factor == 0 : times[i].factor == 1000000000) {
      bl_buf_printf(out, "%" PRIu64 " %s", v / times[i].factor, times[i].name);
      return;
    }
  }
  bl_buf_printf(out, "%" PRIu64, v);
}

static uint64_t type_max(bl_field_type type) {
  return type == BL_FIELD_U16 ? UINT16_MAX : type == BL_FIELD_U32 ? UINT32_MAX : UINT64_MAX;
}

static void out_of_range(bl_conf_reader *r, const bl_field *f, const bl_node *node, uint64_t max) {
  bl_buf text = BL_BUF_INIT;
  add_integer(&text, f->type, f->min);
  if (max == UINT64_MAX) {
    bl_conf_errors_add_field(r->errors, node, "%s is too small; the least is %s", node->text,
                             bl_buf_str(&text));
  } else {
    bl_buf_add_str(&text, " to ");
    add_integer(&text, f->type, max);
    bl_conf_errors_add_field(r->errors, node, "%s is out of range; allowed: %s", node->text, bl_buf_str(&text));
  }
  r->no_memory |= text.failed;
  bl_buf_fini(&text);
}

static void store_integer(const bl_conf_reader *r, const bl_field *f, uint64_t v) {
  void *p = place_of(r, f);
  if (f->type == BL_FIELD_U16)
    *(uint16_t *)p = (uint16_t)v;
  else if (f->type == BL_FIELD_U32)
    *(uint32_t *)p = (uint32_t)v;
  else
    *(uint64_t *)p = v;
}

static void read_integer(bl_conf_reader *r, const bl_field *f, const bl_node *node) {
  uint64_t v;
  if (f->has_auto) {
    bool is_auto = strcmp(node->text, "auto") == 0;
    *(bool *)((char *)r->base + f->count_offset) = is_auto;
    if (is_auto)
      return;
  }
  if (text_to_integer(f, node->text, &v) != BL_OK) {
    wrong_type(r, node, f->type);
    return;
  }
  uint64_t max = f->max != 0 ? f->max : type_max(f->type);
  if (v < f->min || v > max) {
    out_of_range(r, f, node, max);
    return;
  }
  if (f->multiple_of != 0 && v % f->multiple_of != 0) {
    bl_buf text = BL_BUF_INIT;
    add_integer(&text, f->type, f->multiple_of);
    bl_conf_errors_add_field(r->errors, node, "%s is not a multiple of %s", node->text, bl_buf_str(&text));
    bl_buf_fini(&text);
    return;
  }
  store_integer(r, f, v);
}

static void read_real(bl_conf_reader *r, const bl_field *f, const bl_node *node) {
  double v;
  bl_status status =
      f->type == BL_FIELD_FRACTION ? text_to_fraction(node->text, &v) : bl_str_to_double(node->text, &v);
  if (status != BL_OK) {
    wrong_type(r, node, f->type);
    return;
  }
  bool limited = f->real_min != f->real_max;
  if (limited && (v < f->real_min || v > f->real_max || (f->real_max_open && v == f->real_max))) {
    bl_conf_errors_add_field(r->errors, node, "%s is out of range; allowed: %g to %s%g", node->text,
                             f->real_min, f->real_max_open ? "below " : "", f->real_max);
    return;
  }
  *(double *)place_of(r, f) = v == 0 ? 0 : v; /* no negative zero */
}

static void read_bool(bl_conf_reader *r, const bl_field *f, const bl_node *node) {
  bool yes = strcmp(node->text, "true") == 0;
  if (yes || strcmp(node->text, "false") == 0)
    *(bool *)place_of(r, f) = yes;
  else
    wrong_type(r, node, f->type);
}

static bool text_is_allowed(bl_conf_reader *r, const bl_field *f, const bl_node *node) {
  if (f->max != 0 && strlen(node->text) > f->max) {
    bl_conf_errors_add_field(r->errors, node, "the text has %zu bytes; at most %" PRIu64 " are allowed",
                             strlen(node->text), f->max);
    return false;
  }
  if (f->check != NULL && f->check(node->text) != BL_OK) {
    bl_conf_errors_add_field(r->errors, node, "'%.60s' is not allowed; write %s", node->text, f->allowed_text);
    return false;
  }
  return true;
}

static void read_text(bl_conf_reader *r, const bl_field *f, const bl_node *node) {
  if (text_is_allowed(r, f, node))
    *(const char **)place_of(r, f) = bl_conf_text(r, node->text);
}

static void read_char(bl_conf_reader *r, const bl_field *f, const bl_node *node) {
  bool tab = strcmp(node->text, "tab") == 0;
  if (!tab && (node->text[0] == '\0' || node->text[1] != '\0'))
    wrong_type(r, node, f->type);
  else
    *(char *)place_of(r, f) = tab ? '\t' : node->text[0];
}

static void read_enum(bl_conf_reader *r, const bl_field *f, const bl_node *node) {
  const char *names[NAMES_MAX];
  char near[100], all[220];
  size_t n = BL_MIN(f->n_words, (size_t)NAMES_MAX);
  for (size_t i = 0; i < n; i++) {
    names[i] = f->words[i].name;
    if (strcmp(names[i], node->text) == 0) {
      memcpy(place_of(r, f), &f->words[i].value, sizeof(int));
      return;
    }
  }
  bl_conf_errors_add_field(r->errors, node, "'%.60s' is not known%s (allowed: %s)", node->text,
                           bl_conf_nearest(node->text, names, n, near, sizeof near),
                           bl_word_list(f->words, f->n_words, all, sizeof all));
}

static void read_list(bl_conf_reader *r, const bl_field *f, const bl_node *node) {
  const char *const *items;
  size_t n;
  if (!bl_node_to_list(r, node, &items, &n))
    return;
  uint64_t max = f->max != 0 ? f->max : BL_DOC_NODES_MAX;
  if (n < f->min || n > max) {
    bl_conf_errors_add_field(r->errors, node, "the list has %zu items; allowed: %" PRIu64 " to %" PRIu64, n,
                             f->min, max);
    return;
  }
  for (size_t i = 0; f->check != NULL && i < n; i++) {
    if (f->check(items[i]) != BL_OK) {
      bl_conf_errors_add_field(r->errors, node, "'%.60s' is not allowed; write %s", items[i], f->allowed_text);
      return;
    }
  }
  memcpy(place_of(r, f), &items, sizeof items);
  memcpy((char *)r->base + f->count_offset, &n, sizeof n);
}

typedef void read_fn(bl_conf_reader *r, const bl_field *f, const bl_node *node);

static const struct {
  read_fn *read;
  bool scalar_only;
} types[BL_FIELD_COUNT] = {
    [BL_FIELD_BOOL] = {read_bool, true},     [BL_FIELD_U16] = {read_integer, true},
    [BL_FIELD_U32] = {read_integer, true},   [BL_FIELD_U64] = {read_integer, true},
    [BL_FIELD_DOUBLE] = {read_real, true},   [BL_FIELD_FRACTION] = {read_real, true},
    [BL_FIELD_BYTES] = {read_integer, true}, [BL_FIELD_NS] = {read_integer, true},
    [BL_FIELD_TEXT] = {read_text, true},     [BL_FIELD_CHAR] = {read_char, true},
    [BL_FIELD_ENUM] = {read_enum, true},     [BL_FIELD_LIST] = {read_list, false},
};

void bl_schema_read_value(bl_conf_reader *r, const bl_field *f, const bl_node *node) {
  if (f->type == BL_FIELD_CUSTOM) {
    f->read(r, f, node);
  } else if (f->type == BL_FIELD_SECTION) {
    if (node->kind == BL_NODE_MAP)
      bl_schema_read_given(r, f->fields, f->n_fields, node);
    else
      wrong_type(r, node, f->type);
  } else if (types[f->type].scalar_only && node->kind != BL_NODE_SCALAR) {
    wrong_type(r, node, f->type);
  } else {
    types[f->type].read(r, f, node);
  }
}

static const bl_field *field_by_name(const bl_field *fields, size_t n, const char *name) {
  for (size_t i = 0; i < n; i++) {
    if (strcmp(fields[i].name, name) == 0)
      return &fields[i];
  }
  return NULL;
}

static void missing(bl_conf_reader *r, const bl_field *f, const bl_node *map) {
  char path[160];
  if (map == NULL || map->parent == NULL)
    bl_conf_errors_add(r->errors, NULL, "the field '%s' is missing: %s", f->name, f->doc);
  else
    bl_conf_errors_add(r->errors, map, "the field '%s.%s' is missing: %s", bl_node_path(map, path, sizeof path),
                       f->name, f->doc);
}

/* Required fields below a section that is not there at all. */
static void missing_below(bl_conf_reader *r, const bl_field *f) {
  for (size_t i = 0; i < f->n_fields; i++) {
    if (f->fields[i].required)
      bl_conf_errors_add(r->errors, NULL, "the field '%s.%s' is missing: %s", f->name, f->fields[i].name,
                         f->fields[i].doc);
  }
}

void bl_schema_read_given(bl_conf_reader *r, const bl_field *fields, size_t n, const bl_node *map) {
  for (const bl_node *node = map != NULL ? map->first : NULL; node != NULL; node = node->next) {
    const bl_field *f = field_by_name(fields, n, node->key);
    if (f == NULL)
      bl_schema_unknown(r, fields, n, node);
    else if (!node->is_null)
      bl_schema_read_value(r, f, node);
  }
  for (size_t i = 0; i < n; i++) {
    if (map != NULL && bl_node_get(map, fields[i].name) != NULL)
      continue;
    if (fields[i].required)
      missing(r, &fields[i], map);
    else if (fields[i].type == BL_FIELD_SECTION)
      missing_below(r, &fields[i]);
  }
}

void bl_schema_defaults(bl_conf_reader *r, const bl_field *fields, size_t n) {
  for (size_t i = 0; i < n; i++) {
    const bl_field *f = &fields[i];
    if (f->type == BL_FIELD_SECTION) {
      bl_schema_defaults(r, f->fields, f->n_fields);
    } else if (f->default_text != NULL) {
      bl_node node = {.kind = BL_NODE_SCALAR, .text = f->default_text, .key = f->name};
      bl_schema_read_value(r, f, &node);
    }
  }
}

void bl_schema_read(bl_conf_reader *r, const bl_field *fields, size_t n, const bl_node *map) {
  bl_schema_defaults(r, fields, n);
  bl_schema_read_given(r, fields, n, map);
}

/* ---- writing ---- */

static bool is_plain(const char *s) {
  if (s[0] == '\0' || strcmp(s, "null") == 0 || s[0] == '-')
    return false;
  return strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./-+") == strlen(s);
}

void bl_yaml_add_text(bl_buf *out, const char *text) {
  /* "tcp://host:7070" and "127.0.0.1:7071" are plain too: a colon ends a key only before a blank. */
  size_t n = strlen(text);
  const char *colon = strchr(text, ':');
  if (is_plain(text)) {
    bl_buf_add_str(out, text);
    return;
  }
  if (colon != NULL && n < 200 && colon[1] != '\0' && colon != text && text[n - 1] != ':') {
    char copy[200];
    for (size_t i = 0; i <= n; i++)
      copy[i] = text[i] == ':' ? '_' : text[i];
    if (is_plain(copy)) {
      bl_buf_add_str(out, text);
      return;
    }
  }
  bl_buf_add_byte(out, '"');
  for (const char *s = text; *s != '\0'; s++) {
    if (*s == '"' || *s == '\\')
      bl_buf_add_byte(out, '\\');
    if (*s == '\t')
      bl_buf_add_str(out, "\\t");
    else
      bl_buf_add_byte(out, (uint8_t)*s);
  }
  bl_buf_add_byte(out, '"');
}

void bl_yaml_add_double(bl_buf *out, double v) {
  char text[40];
  for (int digits = 6; digits <= 17; digits++) {
    snprintf(text, sizeof text, "%.*g", digits, v);
    if (strtod(text, NULL) == v)
      break;
  }
  bl_buf_add_str(out, text);
}

void bl_yaml_add_list(bl_buf *out, const char *const *items, size_t n) {
  bl_buf_add_byte(out, '[');
  for (size_t i = 0; i < n; i++) {
    if (i > 0)
      bl_buf_add_str(out, ", ");
    bl_yaml_add_text(out, items[i]);
  }
  bl_buf_add_byte(out, ']');
}

static uint64_t load_integer(const bl_field *f, const void *p) {
  if (f->type == BL_FIELD_U16)
    return *(const uint16_t *)p;
  if (f->type == BL_FIELD_U32)
    return *(const uint32_t *)p;
  return *(const uint64_t *)p;
}

static bool has_value(const bl_field *f, const void *base) {
  const void *p = (const char *)base + f->offset;
  return f->type != BL_FIELD_TEXT || *(const char *const *)p != NULL;
}

/* A value that fits on the line of its name. */
static void write_value(const bl_field *f, const void *base, bl_buf *out) {
  const void *p = (const char *)base + f->offset;
  int value;
  const char *const *items;
  size_t n;
  switch (f->type) {
  case BL_FIELD_BOOL:
    bl_buf_add_str(out, *(const bool *)p ? "true" : "false");
    break;
  case BL_FIELD_DOUBLE:
  case BL_FIELD_FRACTION:
    bl_yaml_add_double(out, *(const double *)p);
    break;
  case BL_FIELD_TEXT:
    bl_yaml_add_text(out, *(const char *const *)p);
    break;
  case BL_FIELD_CHAR:
    bl_yaml_add_text(out, *(const char *)p == '\t' ? "tab" : (const char[]){*(const char *)p, '\0'});
    break;
  case BL_FIELD_ENUM:
    memcpy(&value, p, sizeof value);
    bl_buf_add_str(out, bl_word_name(f->words, f->n_words, value));
    break;
  case BL_FIELD_LIST:
    memcpy(&items, p, sizeof items);
    memcpy(&n, (const char *)base + f->count_offset, sizeof n);
    bl_yaml_add_list(out, items, n);
    break;
  default:
    if (f->has_auto && *(const bool *)((const char *)base + f->count_offset))
      bl_buf_add_str(out, "auto");
    else
      add_integer(out, f->type, load_integer(f, p));
    break;
  }
}

/* ---- versions ---- */

#define SCRATCH_BYTES 64 /* any simple value, and what stands at count_offset */

/* The text of a simple field's default, as a dump has it. False: the default is no value. */
static bool write_default(const bl_field *f, bl_buf *out) {
  _Alignas(16) char scratch[SCRATCH_BYTES] = {0};
  bl_field at_zero = *f;
  bl_conf_errors *errors = bl_calloc(1, sizeof *errors);
  bl_arena arena;
  bl_arena_init(&arena, 0);
  bl_conf_reader r = {.arena = &arena, .errors = errors, .base = scratch};
  at_zero.offset = 0;
  at_zero.count_offset = SCRATCH_BYTES / 2;
  if (errors != NULL)
    bl_schema_defaults(&r, &at_zero, 1);
  bool has = errors != NULL && has_value(&at_zero, scratch);
  if (has)
    write_value(&at_zero, scratch, out);
  bl_arena_fini(&arena);
  bl_free(errors);
  return has;
}

static bool text_is_default(const bl_field *f, const void *base) {
  bl_buf value = BL_BUF_INIT, other = BL_BUF_INIT;
  bool equal;
  if (f->type == BL_FIELD_CUSTOM) {
    f->write(f, base, 0, &value);
    bl_buf_printf(&other, " %s\n", f->default_text != NULL ? f->default_text : "null");
    equal = true;
  } else {
    equal = write_default(f, &other) == has_value(f, base);
    if (equal && has_value(f, base))
      write_value(f, base, &value);
  }
  equal = equal && value.size == other.size && strcmp(bl_buf_str(&value), bl_buf_str(&other)) == 0;
  bl_buf_fini(&value);
  bl_buf_fini(&other);
  return equal;
}

bool bl_schema_is_default(const bl_field *f, const void *base) {
  if (f->type != BL_FIELD_SECTION)
    return text_is_default(f, base);
  for (size_t i = 0; i < f->n_fields; i++)
    if (!bl_schema_is_default(&f->fields[i], base))
      return false;
  return true;
}

const bl_field *bl_schema_newest(const bl_field *fields, size_t n, const void *base, unsigned *since) {
  const bl_field *newest = NULL;
  for (size_t i = 0; i < n; i++) {
    const bl_field *f = &fields[i];
    if (f->since > *since && !bl_schema_is_default(f, base)) {
      newest = f;
      *since = f->since;
    }
    const bl_field *below = f->type == BL_FIELD_SECTION ? bl_schema_newest(f->fields, f->n_fields, base, since) : NULL;
    newest = below != NULL ? below : newest;
  }
  return newest;
}

static bool is_left_out(const bl_field *f, const void *base) { return f->since > 1 && bl_schema_is_default(f, base); }

static void add_comment(bl_buf *out, const char *doc, unsigned indent) {
  for (const char *line = doc; *line != '\0';) {
    size_t n = strcspn(line, "\n");
    bl_buf_printf(out, "%*s# %.*s\n", (int)indent, "", (int)n, line);
    line += n + (line[n] == '\n');
  }
}

void bl_schema_dump(const bl_field *fields, size_t n, const void *base, unsigned indent, bool comments,
                    bl_buf *out) {
  for (size_t i = 0; i < n; i++) {
    const bl_field *f = &fields[i];
    if (!comments && is_left_out(f, base))
      continue;
    if (comments && indent == 0)
      bl_buf_add_byte(out, '\n');
    if (comments)
      add_comment(out, f->doc, indent);
    if (f->type == BL_FIELD_SECTION) {
      bl_buf_printf(out, "%*s%s:\n", (int)indent, "", f->name);
      bl_schema_dump(f->fields, f->n_fields, base, indent + 2, comments, out);
    } else if (f->type == BL_FIELD_CUSTOM) {
      bl_buf_printf(out, "%*s%s:", (int)indent, "", f->name);
      f->write(f, base, indent, out);
    } else if (has_value(f, base)) {
      bl_buf_printf(out, "%*s%s: ", (int)indent, "", f->name);
      write_value(f, base, out);
      bl_buf_add_byte(out, '\n');
    } else if (comments) {
      bl_buf_printf(out, "%*s# %s: %s\n", (int)indent, "", f->name, f->example != NULL ? f->example : "...");
    }
  }
}

void bl_schema_dump_flow(const bl_field *fields, size_t n, const void *base, bl_buf *out) {
  const char *separator = "{";
  for (size_t i = 0; i < n; i++) {
    if (!has_value(&fields[i], base) || is_left_out(&fields[i], base))
      continue;
    bl_buf_printf(out, "%s%s: ", separator, fields[i].name);
    if (fields[i].type == BL_FIELD_SECTION)
      bl_schema_dump_flow(fields[i].fields, fields[i].n_fields, base, out);
    else
      write_value(&fields[i], base, out);
    separator = ", ";
  }
  bl_buf_add_str(out, separator[0] == '{' ? "{}" : "}");
}
