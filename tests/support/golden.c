/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/golden.h"

#include "base/file.h"
#include "base/num.h"
#include "codec/codec.h"
#include "conf/schema.h"
#include "job/spec.h"
#include "wire/control.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILE_BYTES_MAX (1 << 20)
#define FRAME_ELEMS 3
#define HEX_BYTES_PER_LINE 32

static int by_name(const void *a, const void *b) { return strcmp(a, b); }

size_t golden_list(const char *folder, const char *ending, char names[][GOLDEN_NAME_BYTES_MAX]) {
  size_t n = 0, n_ending = strlen(ending);
  DIR *dir = opendir(folder);
  for (struct dirent *e = dir != NULL ? readdir(dir) : NULL; e != NULL; e = readdir(dir)) {
    size_t size = strlen(e->d_name);
    if (size <= n_ending || strcmp(e->d_name + size - n_ending, ending) != 0)
      continue;
    BL_ASSERT(n < GOLDEN_FILES_MAX && size - n_ending < GOLDEN_NAME_BYTES_MAX);
    memcpy(names[n], e->d_name, size - n_ending);
    names[n++][size - n_ending] = '\0';
  }
  if (dir != NULL)
    closedir(dir);
  qsort(names, n, GOLDEN_NAME_BYTES_MAX, by_name);
  return n;
}

void golden_read(const char *folder, const char *name, const char *ending, bl_buf *out) {
  char path[4096];
  bl_error err = BL_ERROR_INIT;
  snprintf(path, sizeof path, "%s/%s%s", folder, name, ending);
  if (bl_file_read(path, FILE_BYTES_MAX, out, &err) != BL_OK) {
    fprintf(stderr, "%s\n", err.text);
    abort();
  }
}

bl_msg_type golden_type(const char *name) {
  size_t n = strcspn(name, "-");
  for (int type = 1; type < BL_MSG_TYPE_END; type++) {
    const char *known = bl_msg_type_name((bl_msg_type)type);
    if (strlen(known) == n && strncmp(known, name, n) == 0)
      return (bl_msg_type)type;
  }
  return BL_MSG_INVALID;
}

/* ---- messages ---- */

static const float frame_values[FRAME_ELEMS] = {1, -2, 0.5f};

static bl_status add_frames(bl_msg *msg, bl_msg_type type, uint32_t n) {
  bl_codec_spec spec = {.codec = bl_codec_by_id(type == BL_MSG_PUSH ? BL_CODEC_FLOAT16 : BL_CODEC_FLOAT32)};
  bl_encode e = {.spec = &spec};
  bl_status status = BL_OK;
  for (uint32_t i = 0; status == BL_OK && i < n; i++) {
    bl_frame *f = bl_frame_new(bl_codec_bound_bytes(&spec, FRAME_ELEMS));
    if (f == NULL)
      return BL_ENOMEM;
    f->size = bl_codec_encode(&e, frame_values, NULL, FRAME_ELEMS, type == BL_MSG_FRAMES ? BL_CODEC_REPLACE : 0, f->data);
    status = bl_msg_add_frame(msg, f);
  }
  return status;
}

/* Headers of the data plane: packed as the schema says, read and packed again as our programs do. */
static bl_status data_msg(bl_msg_type type, const ProtobufCMessage *m, bl_msg *msg, bl_error *err) {
  static bl_data_msg d;
  bl_msg plain = BL_MSG_INIT;
  size_t bytes = protobuf_c_message_get_packed_size(m), n_chunks = 0;
  const ProtobufCFieldDescriptor *chunks = protobuf_c_message_descriptor_get_field_by_name(m->descriptor, "chunks");
  if ((type == BL_MSG_PUSH || type == BL_MSG_FRAMES) && chunks != NULL)
    memcpy(&n_chunks, (const uint8_t *)m + chunks->quantifier_offset, sizeof n_chunks);
  plain.head = bl_frame_new(BL_MSG_PREAMBLE_BYTES + bytes);
  if (plain.head == NULL)
    return BL_ENOMEM;
  bl_msg_put_preamble(plain.head->data, type, (uint32_t)n_chunks);
  protobuf_c_message_pack(m, plain.head->data + BL_MSG_PREAMBLE_BYTES);
  bl_status status = add_frames(&plain, type, (uint32_t)n_chunks);
  if (status == BL_OK)
    status = bl_data_unpack(&plain, &d, err);
  bl_msg_fini(&plain);
  if (status == BL_OK)
    status = add_frames(msg, type, (uint32_t)n_chunks);
  return status == BL_OK ? bl_data_pack(&d, msg->n_frames, msg) : status;
}

bl_status golden_msg_of_text(const char *folder, const char *name, bl_msg *msg, bl_error *err) {
  bl_msg_type type = golden_type(name);
  const ProtobufCMessageDescriptor *d = pbtext_descriptor(type);
  bl_buf text = BL_BUF_INIT;
  if (d == NULL)
    return bl_fail(err, BL_EINVAL, "'%s' is no type of message", name);
  golden_read(folder, name, ".txt", &text);
  ProtobufCMessage *m = pbtext_parse(d, bl_buf_str(&text));
  bl_buf_fini(&text);
  if (m == NULL)
    return bl_fail(err, BL_EINVAL, "the text cannot be read");
  bl_status status = type < BL_MSG_REGISTER ? data_msg(type, m, msg, err) : bl_control_pack(type, m, msg);
  if (status != BL_OK && err != NULL && err->text[0] == '\0')
    bl_fail(err, status, "cannot be packed");
  protobuf_c_message_free_unpacked(m, NULL);
  return status;
}

void golden_hex(const bl_msg *msg, bl_buf *out) {
  for (uint32_t part = 0; part <= msg->n_frames; part++) {
    const bl_frame *f = part == 0 ? msg->head : msg->frames[part - 1];
    if (part > 0)
      bl_buf_add_str(out, "--\n");
    for (size_t i = 0; i < f->size; i++)
      bl_buf_printf(out, "%02x%s", f->data[i], (i + 1) % HEX_BYTES_PER_LINE == 0 || i + 1 == f->size ? "\n" : "");
  }
}

static void add_part(bl_msg *msg, const bl_buf *bytes) {
  bl_frame *f = bl_frame_copy(bytes->data, bytes->size);
  BL_ASSERT(f != NULL);
  if (msg->head == NULL)
    msg->head = f;
  else
    BL_ASSERT(bl_msg_add_frame(msg, f) == BL_OK);
}

void golden_msg_of_hex(const char *folder, const char *name, bl_msg *msg) {
  bl_buf text = BL_BUF_INIT, bytes = BL_BUF_INIT;
  golden_read(folder, name, ".hex", &text);
  for (const char *at = bl_buf_str(&text); *at != '\0';) {
    unsigned byte;
    if (strncmp(at, "--\n", 3) == 0) {
      add_part(msg, &bytes);
      bl_buf_clear(&bytes);
      at += 3;
    } else if (*at == '\n') {
      at++;
    } else {
      BL_ASSERT(sscanf(at, "%2x", &byte) == 1);
      bl_buf_add_byte(&bytes, (uint8_t)byte);
      at += 2;
    }
  }
  add_part(msg, &bytes);
  bl_buf_fini(&text);
  bl_buf_fini(&bytes);
}

/* ---- job files, codecs ---- */

bl_status golden_job_normal(const char *folder, const char *name, bl_buf *out, bl_error *err) {
  static bl_conf_errors errors;
  bl_buf text = BL_BUF_INIT;
  bl_job_spec *spec = NULL;
  golden_read(folder, name, ".yaml", &text);
  bl_status status =
      bl_job_spec_parse(bl_buf_str(&text), text.size, "job.yaml", "/srv/ballast", NULL, 0, &spec, &errors);
  if (status == BL_OK)
    bl_job_spec_dump(spec, out);
  else
    bl_conf_errors_print(&errors, "job.yaml", out);
  if (status != BL_OK)
    bl_fail(err, status, "%.400s", bl_buf_str(out));
  bl_job_spec_free(spec);
  bl_buf_fini(&text);
  return status;
}

static void add_fields(const bl_field *fields, size_t n, const char *prefix, bl_buf *out) {
  for (size_t i = 0; i < n; i++) {
    char path[128];
    snprintf(path, sizeof path, "%s%s%s", prefix, prefix[0] != '\0' ? "." : "", fields[i].name);
    bl_buf_printf(out, "%s\n", path);
    if (fields[i].fields != NULL)
      add_fields(fields[i].fields, fields[i].n_fields, path, out);
  }
}

void golden_job_fields(bl_buf *out) {
  size_t n;
  const bl_field *fields = bl_job_spec_fields(&n);
  add_fields(fields, n, "", out);
}

void golden_codec_frames(bl_buf *out) {
  static const float values[] = {0, -0.0f, 1, -2, 0.1f, 65504, 1e-8f, 3e38f, INFINITY, NAN};
  static const bl_codec_id ids[] = {BL_CODEC_FLOAT32, BL_CODEC_FLOAT16};
  uint8_t frame[256];
  for (size_t k = 0; k < BL_COUNT_OF(ids); k++)
    for (uint32_t flags = 0; flags <= BL_CODEC_REPLACE; flags++)
      for (uint32_t n = 0; n <= BL_COUNT_OF(values); n += 5) {
        bl_codec_spec spec = {.codec = bl_codec_by_id(ids[k])};
        BL_ASSERT(bl_codec_bound_bytes(&spec, n) <= sizeof frame);
        size_t size = bl_codec_encode(&(bl_encode){.spec = &spec}, values, NULL, n, flags, frame);
        bl_buf_printf(out, "%s %s %u: ", spec.codec->name, flags != 0 ? "replace" : "difference", n);
        for (size_t i = 0; i < size; i++)
          bl_buf_printf(out, "%02x", frame[i]);
        bl_buf_add_byte(out, '\n');
      }
}
