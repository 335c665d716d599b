/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/pbtext.h"

#include "base/num.h"
#include "proto/data.pb-c.h"
#include "wire/control.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONTROL(name) &ballast__control__##name##__descriptor
#define DATA(name) &ballast__data__##name##__descriptor
#define DEPTH_MAX 8
#define LINE_BYTES_MAX 8192

const ProtobufCMessageDescriptor *pbtext_descriptor(unsigned msg_type) {
  static const ProtobufCMessageDescriptor *const all[BL_MSG_TYPE_END] = {
      [BL_MSG_HELLO] = DATA(hello),
      [BL_MSG_WELCOME] = DATA(welcome),
      [BL_MSG_PUSH] = DATA(push),
      [BL_MSG_COMMIT] = DATA(commit),
      [BL_MSG_ACK] = DATA(ack),
      [BL_MSG_PULL] = DATA(pull),
      [BL_MSG_FRAMES] = DATA(frames),
      [BL_MSG_REFUSE] = DATA(refuse),
      [BL_MSG_REGISTER] = CONTROL(register),
      [BL_MSG_REGISTERED] = CONTROL(registered),
      [BL_MSG_REREGISTER] = CONTROL(reregister),
      [BL_MSG_REJECTED] = CONTROL(rejected),
      [BL_MSG_HEARTBEAT] = CONTROL(heartbeat),
      [BL_MSG_HEARTBEAT_ACK] = CONTROL(heartbeat_ack),
      [BL_MSG_OPEN_JOB] = CONTROL(open_job),
      [BL_MSG_CLOSE_JOB] = CONTROL(close_job),
      [BL_MSG_START_TASK] = CONTROL(start_task),
      [BL_MSG_RUN_TASK] = CONTROL(run_task),
      [BL_MSG_STOP_TASK] = CONTROL(stop_task),
      [BL_MSG_UPDATE_TASK] = CONTROL(update_task),
      [BL_MSG_REPORT] = CONTROL(report),
      [BL_MSG_REPORT_ACK] = CONTROL(report_ack),
      [BL_MSG_TASK_HELLO] = CONTROL(task_hello),
      [BL_MSG_TASK_STATUS] = CONTROL(task_status),
      [BL_MSG_SUBMIT] = CONTROL(submit),
      [BL_MSG_CANCEL] = CONTROL(cancel),
      [BL_MSG_QUERY] = CONTROL(query),
      [BL_MSG_ANSWER] = CONTROL(answer),
  };
  return msg_type < BL_MSG_TYPE_END ? all[msg_type] : NULL;
}

/* ---- fields of any message ---- */

static size_t value_bytes(const ProtobufCFieldDescriptor *f) {
  switch (f->type) {
  case PROTOBUF_C_TYPE_UINT32:
  case PROTOBUF_C_TYPE_FLOAT:
    return 4;
  case PROTOBUF_C_TYPE_ENUM:
  case PROTOBUF_C_TYPE_BOOL:
    return sizeof(int);
  default:
    return 8;
  }
}

static void *field_at(const ProtobufCMessage *m, size_t offset) { return (uint8_t *)(uintptr_t)m + offset; }

static bool is_repeated(const ProtobufCFieldDescriptor *f) { return f->label == PROTOBUF_C_LABEL_REPEATED; }

static size_t *count_of(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f) {
  return field_at(m, f->quantifier_offset);
}

/* ---- text to message ---- */

static void *allocated(size_t bytes) {
  void *p = calloc(1, bytes > 0 ? bytes : 1); /* protobuf-c frees with its own default, which is free() */
  BL_ASSERT(p != NULL);
  return p;
}

/* Place of the next value of the field. */
static void *grown(ProtobufCMessage *m, const ProtobufCFieldDescriptor *f) {
  if (!is_repeated(f))
    return field_at(m, f->offset);
  size_t *n = count_of(m, f), bytes = value_bytes(f);
  void **list = field_at(m, f->offset);
  *list = realloc(*list, (*n + 1) * bytes);
  BL_ASSERT(*list != NULL);
  return (uint8_t *)*list + (*n)++ * bytes;
}

static char *unquoted(const char *value) {
  size_t n = strlen(value), used = 0;
  char *text = allocated(n + 1);
  for (size_t i = 1; i + 1 < n; i++) {
    if (value[i] == '\\') {
      i++;
      text[used++] = value[i] == 'n' ? '\n' : value[i];
    } else {
      text[used++] = value[i];
    }
  }
  return text;
}

static bool set_value(ProtobufCMessage *m, const ProtobufCFieldDescriptor *f, const char *value) {
  void *at = grown(m, f);
  switch (f->type) {
  case PROTOBUF_C_TYPE_STRING:
    *(char **)at = unquoted(value);
    return value[0] == '"';
  case PROTOBUF_C_TYPE_UINT32:
    *(uint32_t *)at = (uint32_t)strtoull(value, NULL, 10);
    return true;
  case PROTOBUF_C_TYPE_UINT64:
    *(uint64_t *)at = strtoull(value, NULL, 10);
    return true;
  case PROTOBUF_C_TYPE_FLOAT:
    *(float *)at = strtof(value, NULL);
    return true;
  case PROTOBUF_C_TYPE_DOUBLE:
    *(double *)at = strtod(value, NULL);
    return true;
  case PROTOBUF_C_TYPE_BOOL:
    *(protobuf_c_boolean *)at = strcmp(value, "true") == 0;
    return true;
  case PROTOBUF_C_TYPE_ENUM: {
    const ProtobufCEnumValue *v = protobuf_c_enum_descriptor_get_value_by_name(f->descriptor, value);
    *(int *)at = v != NULL ? v->value : 0;
    return v != NULL;
  }
  default:
    return false;
  }
}

static ProtobufCMessage *message_new(const ProtobufCMessageDescriptor *d) {
  ProtobufCMessage *m = allocated(d->sizeof_message);
  d->message_init(m);
  return m;
}

/* One line without its indent. */
static bool take_line(ProtobufCMessage **stack, unsigned *depth, char *line) {
  ProtobufCMessage *m = stack[*depth];
  if (strcmp(line, "}") == 0)
    return *depth > 0 && (*depth)-- > 0;
  char *colon = strstr(line, ": "), *brace = strstr(line, " {");
  bool opens = brace != NULL && brace[2] == '\0' && (colon == NULL || brace < colon);
  if (!opens && colon == NULL)
    return false;
  *(opens ? brace : colon) = '\0';
  const ProtobufCFieldDescriptor *f = protobuf_c_message_descriptor_get_field_by_name(m->descriptor, line);
  if (f == NULL || opens != (f->type == PROTOBUF_C_TYPE_MESSAGE))
    return false;
  if (!opens)
    return set_value(m, f, colon + 2);
  if (*depth + 1 == DEPTH_MAX)
    return false;
  ProtobufCMessage *sub = message_new(f->descriptor);
  *(ProtobufCMessage **)grown(m, f) = sub;
  stack[++*depth] = sub;
  return true;
}

ProtobufCMessage *pbtext_parse(const ProtobufCMessageDescriptor *d, const char *text) {
  ProtobufCMessage *stack[DEPTH_MAX] = {message_new(d)};
  unsigned depth = 0;
  char line[LINE_BYTES_MAX];
  for (const char *at = text, *end; *at != '\0'; at = *end != '\0' ? end + 1 : end) {
    end = strchr(at, '\n');
    end = end != NULL ? end : at + strlen(at);
    at += strspn(at, " ");
    size_t n = (size_t)(end - at);
    if (n == 0 || *at == '#')
      continue;
    BL_ASSERT(n < sizeof line);
    memcpy(line, at, n);
    line[n] = '\0';
    if (!take_line(stack, &depth, line)) {
      fprintf(stderr, "%s: this line makes no sense: %.*s\n", d->name, (int)n, at);
      protobuf_c_message_free_unpacked(stack[0], NULL);
      return NULL;
    }
  }
  return stack[0];
}

/* ---- message to text ---- */

static void print_message(const ProtobufCMessage *m, int indent, bl_buf *out);

static void print_text(const char *s, bl_buf *out) {
  bl_buf_add_byte(out, '"');
  for (; *s != '\0'; s++) {
    if (*s == '"' || *s == '\\' || *s == '\n')
      bl_buf_add_byte(out, '\\');
    bl_buf_add_byte(out, *s == '\n' ? 'n' : (uint8_t)*s);
  }
  bl_buf_add_byte(out, '"');
}

static bool is_default(const ProtobufCFieldDescriptor *f, const void *at) {
  static const uint8_t zero[8];
  switch (f->type) {
  case PROTOBUF_C_TYPE_STRING:
    return (*(char *const *)at)[0] == '\0';
  case PROTOBUF_C_TYPE_MESSAGE:
    return *(ProtobufCMessage *const *)at == NULL;
  default:
    return memcmp(at, zero, value_bytes(f)) == 0;
  }
}

static void print_value(const ProtobufCFieldDescriptor *f, const void *at, int indent, bl_buf *out) {
  bl_buf_printf(out, "%*s%s", indent, "", f->name);
  if (f->type == PROTOBUF_C_TYPE_MESSAGE) {
    bl_buf_add_str(out, " {\n");
    print_message(*(ProtobufCMessage *const *)at, indent + 2, out);
    bl_buf_printf(out, "%*s}\n", indent, "");
    return;
  }
  bl_buf_add_str(out, ": ");
  if (f->type == PROTOBUF_C_TYPE_STRING)
    print_text(*(char *const *)at, out);
  else if (f->type == PROTOBUF_C_TYPE_ENUM)
    bl_buf_add_str(out, protobuf_c_enum_descriptor_get_value(f->descriptor, *(const int *)at)->name);
  else if (f->type == PROTOBUF_C_TYPE_BOOL)
    bl_buf_add_str(out, *(const protobuf_c_boolean *)at ? "true" : "false");
  else if (f->type == PROTOBUF_C_TYPE_FLOAT)
    bl_buf_printf(out, "%a", (double)*(const float *)at);
  else if (f->type == PROTOBUF_C_TYPE_DOUBLE)
    bl_buf_printf(out, "%a", *(const double *)at);
  else if (f->type == PROTOBUF_C_TYPE_UINT32)
    bl_buf_printf(out, "%" PRIu32, *(const uint32_t *)at);
  else
    bl_buf_printf(out, "%" PRIu64, *(const uint64_t *)at);
  bl_buf_add_byte(out, '\n');
}

static void print_message(const ProtobufCMessage *m, int indent, bl_buf *out) {
  for (unsigned i = 0; i < m->descriptor->n_fields; i++) {
    const ProtobufCFieldDescriptor *f = &m->descriptor->fields[i];
    if (!is_repeated(f)) {
      if (!is_default(f, field_at(m, f->offset)))
        print_value(f, field_at(m, f->offset), indent, out);
      continue;
    }
    for (size_t k = 0; k < *count_of(m, f); k++)
      print_value(f, *(uint8_t **)field_at(m, f->offset) + k * value_bytes(f), indent, out);
  }
}

void pbtext_print(const ProtobufCMessage *m, bl_buf *out) { print_message(m, 0, out); }

/* ---- what a version knew ---- */

static const char *type_name(const ProtobufCFieldDescriptor *f) {
  static const char *const names[] = {
      [PROTOBUF_C_TYPE_UINT32] = "uint32", [PROTOBUF_C_TYPE_UINT64] = "uint64", [PROTOBUF_C_TYPE_FLOAT] = "float",
      [PROTOBUF_C_TYPE_DOUBLE] = "double", [PROTOBUF_C_TYPE_BOOL] = "bool",     [PROTOBUF_C_TYPE_STRING] = "string",
  };
  if (f->type == PROTOBUF_C_TYPE_ENUM || f->type == PROTOBUF_C_TYPE_MESSAGE)
    return ((const ProtobufCMessageDescriptor *)f->descriptor)->short_name; /* both descriptors begin alike */
  return names[f->type];
}

static void schema_line(const ProtobufCMessageDescriptor *d, const ProtobufCFieldDescriptor *f, char *out, size_t size) {
  snprintf(out, size, "%s.%s %u %s%s\n", d->name, f->name, f->id, is_repeated(f) ? "repeated " : "", type_name(f));
}

static bool get_varint(const uint8_t **at, const uint8_t *end, uint64_t *ret_v) {
  uint64_t v = 0;
  for (unsigned shift = 0; *at < end && shift < 64; shift += 7) {
    uint8_t byte = *(*at)++;
    v |= (uint64_t)(byte & 0x7f) << shift;
    if (byte < 0x80) {
      *ret_v = v;
      return true;
    }
  }
  return false;
}

static void add_varint(uint64_t v, bl_buf *out) {
  for (; v >= 0x80; v >>= 7)
    bl_buf_add_byte(out, (uint8_t)(v | 0x80));
  bl_buf_add_byte(out, (uint8_t)v);
}

static bool is_known(const ProtobufCMessageDescriptor *d, const ProtobufCFieldDescriptor *f, const char *schema) {
  char line[256];
  if (f == NULL)
    return false;
  schema_line(d, f, line, sizeof line);
  return strstr(schema, line) != NULL;
}

/* Where the value behind the tag ends; NULL: behind the end of the message. */
static const uint8_t *value_end(unsigned wire, const uint8_t *at, const uint8_t *end) {
  uint64_t n = 0;
  if (wire == 0)
    return get_varint(&at, end, &n) ? at : NULL;
  if (wire == 2 && !get_varint(&at, end, &n))
    return NULL;
  n = wire == 1 ? 8 : wire == 5 ? 4 : wire == 2 ? n : UINT64_MAX;
  return n <= (uint64_t)(end - at) ? at + n : NULL;
}

bool pbtext_forget(const ProtobufCMessageDescriptor *d, const char *schema, const uint8_t *in, size_t n, bl_buf *out) {
  const uint8_t *at = in, *end = in + n;
  while (at < end) {
    const uint8_t *begin = at, *next;
    uint64_t tag, size;
    if (!get_varint(&at, end, &tag) || (next = value_end((unsigned)(tag & 7), at, end)) == NULL)
      return false;
    const ProtobufCFieldDescriptor *f = protobuf_c_message_descriptor_get_field(d, (unsigned)(tag >> 3));
    if (is_known(d, f, schema) && f->type == PROTOBUF_C_TYPE_MESSAGE && (tag & 7) == 2) {
      bl_buf sub = BL_BUF_INIT;
      bool ok = get_varint(&at, end, &size) && pbtext_forget(f->descriptor, schema, at, (size_t)(next - at), &sub);
      add_varint(tag, out);
      add_varint(sub.size, out);
      bl_buf_add(out, sub.data, sub.size);
      bl_buf_fini(&sub);
      if (!ok)
        return false;
    } else if (is_known(d, f, schema)) {
      bl_buf_add(out, begin, (size_t)(next - begin));
    }
    at = next;
  }
  return true;
}

static void schema_of(const ProtobufCMessageDescriptor *d, bl_buf *out) {
  char line[256];
  snprintf(line, sizeof line, "%s\n", d->name);
  if (strstr(bl_buf_str(out), line) != NULL)
    return;
  bl_buf_add_str(out, line);
  for (unsigned i = 0; i < d->n_fields; i++) {
    schema_line(d, &d->fields[i], line, sizeof line);
    bl_buf_add_str(out, line);
  }
  for (unsigned i = 0; i < d->n_fields; i++)
    if (d->fields[i].type == PROTOBUF_C_TYPE_MESSAGE)
      schema_of(d->fields[i].descriptor, out);
}

void pbtext_schema(bl_buf *out) {
  for (unsigned type = 0; type < BL_MSG_TYPE_END; type++)
    if (pbtext_descriptor(type) != NULL)
      schema_of(pbtext_descriptor(type), out);
}
