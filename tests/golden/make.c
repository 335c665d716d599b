/* SPDX-License-Identifier: Apache-2.0
 *
 * Makes the golden bytes of a version from the texts that stand beside them; run once when a version is released
 * (CONTRIBUTING.md), never to mend a failing test.
 *
 *   make wire FOLDER     for every FOLDER/TYPE[-WHAT].txt: TYPE[-WHAT].hex, the message as it is sent;
 *                        and schema.txt, every field that this version knows
 *   make jobs FOLDER     for every FOLDER/NAME.yaml: NAME.normal, the text that is submitted and stored;
 *                        and fields, every field of a job file
 *   make codec FILE      frames of every codec
 */
#include "base/file.h"
#include "tests/support/golden.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void expect(bool ok, const char *what, const char *which) {
  if (ok)
    return;
  fprintf(stderr, "make: %s: %s\n", which, what);
  exit(1);
}

static void write_file(const char *folder, const char *name, const char *ending, const bl_buf *data) {
  char path[512];
  bl_error err = BL_ERROR_INIT;
  snprintf(path, sizeof path, "%s/%s%s", folder, name, ending);
  expect(bl_file_write_atomic(path, data->data, data->size, 0644, &err) == BL_OK, err.text, path);
}

static void make_wire(const char *folder, const char *name) {
  bl_buf out = BL_BUF_INIT;
  bl_msg msg = BL_MSG_INIT;
  bl_error err = BL_ERROR_INIT;
  expect(golden_msg_of_text(folder, name, &msg, &err) == BL_OK, err.text, name);
  golden_hex(&msg, &out);
  write_file(folder, name, ".hex", &out);
  bl_msg_fini(&msg);
  bl_buf_fini(&out);
}

static void make_job(const char *folder, const char *name) {
  bl_buf out = BL_BUF_INIT;
  bl_error err = BL_ERROR_INIT;
  expect(golden_job_normal(folder, name, &out, &err) == BL_OK, err.text, name);
  write_file(folder, name, ".normal", &out);
  bl_buf_fini(&out);
}

static void each(const char *folder, const char *ending, void (*make)(const char *folder, const char *name)) {
  char names[GOLDEN_FILES_MAX][GOLDEN_NAME_BYTES_MAX];
  size_t n = golden_list(folder, ending, names);
  expect(n > 0, "nothing in it", folder);
  for (size_t i = 0; i < n; i++)
    make(folder, names[i]);
}

int main(int argc, char **argv) {
  bl_buf out = BL_BUF_INIT;
  expect(argc == 3, "usage: see the head of make.c", "arguments");
  if (strcmp(argv[1], "wire") == 0) {
    each(argv[2], ".txt", make_wire);
    pbtext_schema(&out);
    write_file(argv[2], "schema", "", &out);
  } else if (strcmp(argv[1], "jobs") == 0) {
    each(argv[2], ".yaml", make_job);
    bl_buf_add_byte(&out, '\n');
    golden_job_fields(&out);
    write_file(argv[2], "fields", "", &out);
  } else if (strcmp(argv[1], "codec") == 0) {
    golden_codec_frames(&out);
    write_file(".", argv[2], "", &out);
  } else {
    expect(false, "wire, jobs or codec", argv[1]);
  }
  bl_buf_fini(&out);
  return 0;
}
