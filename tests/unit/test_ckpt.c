/* SPDX-License-Identifier: Apache-2.0 */
#include "base/alloc.h"
#include "base/checksum.h"
#include "base/file.h"
#include "base/le.h"
#include "ckpt/safetensors.h"
#include "tests/support/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Two tensors whose order in the table is not that of their names. */
static bl_tensor two_tensors[] = {
    {.name = "w", .dims = {2, 3}, .n_dims = 2, .n_elems = 6},
    {.name = "b", .dims = {3}, .n_dims = 1, .n_elems = 3},
};
static const bl_tensor_table two = {.tensors = two_tensors, .n_tensors = 2};

static const char *path_in_temp(const char *name) {
  static char path[256];
  static const char *dir;
  if (dir == NULL)
    dir = test_temp_dir();
  snprintf(path, sizeof path, "%s/%s", dir, name);
  return path;
}

/* A file as another program would write it: length, header, data. */
static const char *write_file(const char *header, const void *data, size_t size) {
  bl_buf b = BL_BUF_INIT;
  uint8_t length[8];
  bl_le_put64(length, strlen(header));
  bl_buf_add(&b, length, 8);
  bl_buf_add_str(&b, header);
  bl_buf_add(&b, data, size);
  const char *path = path_in_temp("hand.safetensors");
  bl_error err = BL_ERROR_INIT;
  ck_assert_ok_err(bl_file_write_atomic(path, b.data, b.size, 0644, &err), err);
  bl_buf_fini(&b);
  return path;
}

static const float nine[9] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
static const char good_header[] = "{\"__metadata__\":{\"format\":\"pt\"},\"b\":{\"dtype\":\"F32\",\"shape\":[3],"
                                  "\"data_offsets\":[0,12]},\"w\":{\"dtype\":\"F32\",\"shape\":[2,3],"
                                  "\"data_offsets\":[12,36]}}   ";

START_TEST(what_is_written_is_read_back_bit_for_bit) {
  float w[6], b[3], w2[6] = {0}, b2[3] = {0};
  memcpy(w, nine, sizeof w);
  memcpy(b, nine + 6, sizeof b);
  w[1] = -0.0f;
  memcpy(&w[2], &(uint32_t){0x7fc12345u}, 4);
  static const char *const metadata[][2] = {{"job", "fashion \"7\""}, {"framework", "ballast"}};
  const char *path = path_in_temp("m.safetensors");
  bl_error err = BL_ERROR_INIT;
  ck_assert_ok_err(bl_safetensors_write(path, &two, (float *[]){w, b}, metadata, 2, &err), err);
  ck_assert_ok_err(bl_safetensors_read(path, &two, (float *[]){w2, b2}, &err), err);
  ck_assert_mem_eq(w, w2, sizeof w);
  ck_assert_mem_eq(b, b2, sizeof b);
}
END_TEST

START_TEST(the_written_bytes_are_those_of_the_format) {
  float w[6], b[3];
  memcpy(w, nine, sizeof w);
  memcpy(b, nine + 6, sizeof b);
  const char *path = path_in_temp("m.safetensors");
  bl_error err = BL_ERROR_INIT;
  ck_assert_ok_err(bl_safetensors_write(path, &two, (float *[]){w, b}, NULL, 0, &err), err);
  bl_buf file = BL_BUF_INIT;
  ck_assert_ok_err(bl_file_read(path, 4096, &file, &err), err);
  static const char want[] = "{\"w\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]},"
                             "\"b\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[24,36]}}";
  size_t padded = (sizeof want - 1 + 7) / 8 * 8;
  ck_assert_uint_eq(bl_le_get64(file.data), padded);
  ck_assert_mem_eq(file.data + 8, want, sizeof want - 1);
  for (size_t i = sizeof want - 1; i < padded; i++)
    ck_assert_int_eq(file.data[8 + i], ' ');
  ck_assert_uint_eq(file.size, 8 + padded + 36);
  ck_assert_mem_eq(file.data + 8 + padded, nine, 36);
  bl_buf_fini(&file);
}
END_TEST

START_TEST(files_of_other_writers_are_read) {
  float w[6], b[3];
  bl_error err = BL_ERROR_INIT;
  ck_assert_ok_err(bl_safetensors_read(write_file(good_header, nine, 36), &two, (float *[]){w, b}, &err), err);
  ck_assert_mem_eq(b, nine, 12);
  ck_assert_mem_eq(w, nine + 3, 24);
}
END_TEST

#define T(name, dtype, shape, from, to)                                                                      \
  "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" from "," to "]}"
#define B T("b", "F32", "[3]", "0", "12")
#define W T("w", "F32", "[2,3]", "12", "36")

static const struct {
  const char *header;
  bl_status status;
  const char *says;
} bad[] = {
    {"", BL_ECORRUPT, "JSON"},
    {"[]", BL_ECORRUPT, "JSON object"},
    {"{" B "," W "} x", BL_ECORRUPT, "JSON"},
    {"{" B "," B "," W "}", BL_ECORRUPT, "duplicate"},
    {"{" B "}", BL_ECORRUPT, "the tensors take 12"},
    {"{}", BL_ECORRUPT, "the tensors take 0"},
    {"{" B "," T("w", "F32", "[2,3]", "0", "24") "}", BL_ECORRUPT, "begins at byte 0"},
    {"{" B "," T("w", "F32", "[2,3]", "11", "35") "}", BL_ECORRUPT, "begins at byte 11"},
    {"{" B "," T("w", "F32", "[2,3]", "13", "37") "}", BL_ECORRUPT, "lies at [13, 37) of 36"},
    {"{" B "," T("w", "F32", "[2,3]", "36", "12") "}", BL_ECORRUPT, "lies at"},
    {"{" B "," T("w", "F32", "[2,3]", "-1", "23") "}", BL_ECORRUPT, "no valid data_offsets"},
    {"{" B "," T("w", "F32", "[2,3]", "12", "9223372036854775807") "}", BL_ECORRUPT, "lies at"},
    {"{" B "," T("w", "F32", "[2,3]", "12", "18446744073709551616") "}", BL_ECORRUPT, "JSON"},
    {"{" B "," T("w", "F32", "[2,3]", "12.0", "36") "}", BL_ECORRUPT, "no valid data_offsets"},
    {"{" B ",\"w\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[12]}}", BL_ECORRUPT, "no valid data_offsets"},
    {"{" B ",\"w\":{\"dtype\":\"F32\",\"shape\":[2,3]}}", BL_ECORRUPT, "no valid data_offsets"},
    {"{" B ",\"w\":{\"shape\":[2,3],\"data_offsets\":[12,36]}}", BL_ECORRUPT, "dtype"},
    {"{" B ",\"w\":7}", BL_ECORRUPT, "dtype"},
    {"{" B "," T("w", "F33", "[2,3]", "12", "36") "}", BL_ECORRUPT, "dtype"},
    {"{" B "," T("w", "F32", "[2,4]", "12", "36") "}", BL_ECORRUPT, "takes 24 bytes, its shape 32"},
    {"{" B "," T("w", "F32", "[-2,-3]", "12", "36") "}", BL_ECORRUPT, "no valid shape"},
    {"{" B "," T("w", "F32", "[4611686018427387904,4,6]", "12", "36") "}", BL_ECORRUPT, "no valid shape"},
    {"{" B "," T("w", "F32", "{}", "12", "36") "}", BL_ECORRUPT, "no valid shape"},
    {"{" B "," T("w", "F32", "[3,2]", "12", "36") "}", BL_EMISMATCH, "tensor w has the shape [3, 2], the model's has [2, 3]"},
    {"{" B "," T("w", "F32", "[6]", "12", "36") "}", BL_EMISMATCH, "tensor w has the shape [6], the model's has [2, 3]"},
    {"{" B "," T("w", "I32", "[2,3]", "12", "36") "}", BL_EMISMATCH, "not of type F32"},
    {"{" B "," T("v", "F32", "[2,3]", "12", "36") "}", BL_EMISMATCH, "holds no tensor w"},
    {"{" B "," W "," T("v", "F32", "[0]", "36", "36") "}", BL_EMISMATCH, "holds 3 tensors, the model has 2: v is none of them"},
};

START_TEST(lying_headers_are_refused_with_a_sentence_and_change_nothing) {
  float w[6] = {0}, b[3] = {0}, zero[9] = {0};
  bl_error err = BL_ERROR_INIT;
  ck_assert_status(bl_safetensors_read(write_file(bad[_i].header, nine, 36), &two, (float *[]){w, b}, &err),
                   bad[_i].status);
  ck_assert_msg(strstr(err.text, bad[_i].says) != NULL, "\"%s\" does not say \"%s\"", err.text, bad[_i].says);
  ck_assert_ptr_nonnull(strstr(err.text, "hand.safetensors"));
  ck_assert_mem_eq(w, zero, sizeof w);
  ck_assert_mem_eq(b, zero, sizeof b);
}
END_TEST

static bl_status read_bytes(const void *data, size_t size, bl_error *err) {
  float w[6], b[3];
  const char *path = path_in_temp("bytes.safetensors");
  FILE *f = fopen(path, "wb"); /* without fsync: this runs thousands of times */
  ck_assert_ptr_nonnull(f);
  ck_assert_uint_eq(fwrite(data, 1, size, f), size);
  fclose(f);
  return bl_safetensors_read(path, &two, (float *[]){w, b}, err);
}

START_TEST(every_truncation_and_extension_is_refused) {
  bl_buf file = BL_BUF_INIT;
  bl_error err = BL_ERROR_INIT;
  ck_assert_ok(bl_file_read(write_file(good_header, nine, 36), 4096, &file, &err));
  ck_assert_ok_err(read_bytes(file.data, file.size, &err), err);
  for (size_t n = 0; n < file.size; n++) {
    ck_assert_status(read_bytes(file.data, n, &err), BL_ECORRUPT);
    ck_assert_ptr_nonnull(strstr(err.text, "bytes.safetensors"));
  }
  bl_buf_add_byte(&file, 0);
  ck_assert_status(read_bytes(file.data, file.size, &err), BL_ECORRUPT);
  bl_buf_fini(&file);
}
END_TEST

START_TEST(every_bit_flip_of_length_and_header_is_survived) {
  bl_buf file = BL_BUF_INIT;
  bl_error err = BL_ERROR_INIT;
  ck_assert_ok(bl_file_read(write_file(good_header, nine, 36), 4096, &file, &err));
  for (size_t bit = 0; bit < 8 * (8 + strlen(good_header)); bit++) {
    file.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    bl_status status = read_bytes(file.data, file.size, &err);
    ck_assert_msg(status == BL_OK || status == BL_ECORRUPT || status == BL_EMISMATCH, "bit %zu: %s", bit,
                  bl_status_name(status));
    if (bit < 64) /* the length: no other value fits */
      ck_assert_int_ne(status, BL_OK);
    file.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
  }
  bl_buf_fini(&file);
}
END_TEST

START_TEST(a_header_beyond_the_limit_is_refused_before_it_is_read) {
  uint8_t length[8];
  const char *path = path_in_temp("huge.safetensors");
  FILE *f = fopen(path, "wb");
  ck_assert_ptr_nonnull(f);
  bl_le_put64(length, BL_SAFETENSORS_HEADER_MAX_BYTES + 1);
  fwrite(length, 1, 8, f);
  ck_assert_int_eq(fseek(f, BL_SAFETENSORS_HEADER_MAX_BYTES + 100, SEEK_SET), 0);
  fputc(0, f);
  fclose(f);
  bl_error err = BL_ERROR_INIT;
  ck_assert_status(bl_safetensors_read(path, &two, NULL, &err), BL_ELIMIT);
  bl_le_put64(length, UINT64_MAX);
  ck_assert_status(read_bytes(length, 8, &err), BL_ECORRUPT);
}
END_TEST

START_TEST(deeply_nested_json_is_refused) {
  size_t n = 200000;
  char *deep = malloc(n + 1);
  memset(deep, '[', n);
  deep[n] = '\0';
  bl_error err = BL_ERROR_INIT;
  ck_assert_status(bl_safetensors_read(write_file(deep, NULL, 0), &two, NULL, &err), BL_ECORRUPT);
  free(deep);
}
END_TEST

START_TEST(missing_files_directories_and_pipes_are_named) {
  bl_error err = BL_ERROR_INIT;
  ck_assert_status(bl_safetensors_read("/nonexistent/m", &two, NULL, &err), BL_ENOENT);
  ck_assert_ptr_nonnull(strstr(err.text, "/nonexistent/m"));
  ck_assert_status(bl_safetensors_read("/tmp", &two, NULL, &err), BL_EINVAL);
  const char *fifo = path_in_temp("fifo");
  ck_assert_int_eq(mkfifo(fifo, 0600), 0);
  ck_assert_status(bl_safetensors_read(fifo, &two, NULL, &err), BL_EINVAL);
  float w[6] = {0}, b[3] = {0};
  ck_assert_status(bl_safetensors_write("/nonexistent/m", &two, (float *[]){w, b}, NULL, 0, &err), BL_ENOENT);
}
END_TEST

START_TEST(text_that_is_not_utf8_is_not_written) {
  float w[6] = {0}, b[3] = {0};
  static const char *const metadata[][2] = {{"k", "\xff"}};
  bl_error err = BL_ERROR_INIT;
  const char *path = path_in_temp("utf8.safetensors");
  ck_assert_status(bl_safetensors_write(path, &two, (float *[]){w, b}, metadata, 1, &err), BL_EINVAL);
  ck_assert(!bl_file_exists(path));
}
END_TEST

START_TEST(memory_shortage_is_reported_and_leaks_nothing) {
  float w[6], b[3];
  bl_error err = BL_ERROR_INIT;
  const char *path = write_file(good_header, nine, 36);
  uint64_t before = bl_alloc_get_stats().live_blocks;
  bl_status status = BL_ENOMEM;
  for (uint64_t n = 1; status != BL_OK; n++) {
    bl_alloc_fail_after(n);
    status = bl_safetensors_read(path, &two, (float *[]){w, b}, &err);
    bl_alloc_fail_after(0);
    ck_assert(status == BL_OK || status == BL_ENOMEM);
    ck_assert_uint_eq(bl_alloc_get_stats().live_blocks, before);
  }
}
END_TEST

START_TEST(the_checksum_runs_over_the_tensors_in_name_order) {
  float w[6], b[3];
  memcpy(b, nine, sizeof b);
  memcpy(w, nine + 3, sizeof w);
  uint64_t sum;
  ck_assert_ok(bl_weights_checksum(&two, (float *[]){w, b}, &sum));
  ck_assert_uint_eq(sum, bl_checksum(nine, sizeof nine));
}
END_TEST

int main(void) {
  Suite *s = suite_create("ckpt");
  TCase *t = tcase_create("safetensors");
  tcase_set_timeout(t, 60);
  tcase_add_test(t, what_is_written_is_read_back_bit_for_bit);
  tcase_add_test(t, the_written_bytes_are_those_of_the_format);
  tcase_add_test(t, files_of_other_writers_are_read);
  tcase_add_loop_test(t, lying_headers_are_refused_with_a_sentence_and_change_nothing, 0, BL_COUNT_OF(bad));
  tcase_add_test(t, every_truncation_and_extension_is_refused);
  tcase_add_test(t, every_bit_flip_of_length_and_header_is_survived);
  tcase_add_test(t, a_header_beyond_the_limit_is_refused_before_it_is_read);
  tcase_add_test(t, deeply_nested_json_is_refused);
  tcase_add_test(t, missing_files_directories_and_pipes_are_named);
  tcase_add_test(t, text_that_is_not_utf8_is_not_written);
  tcase_add_test(t, memory_shortage_is_reported_and_leaks_nothing);
  tcase_add_test(t, the_checksum_runs_over_the_tensors_in_name_order);
  suite_add_tcase(s, t);
  return test_run(&s, 1);
}
