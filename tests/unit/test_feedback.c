/* SPDX-License-Identifier: Apache-2.0
 *
 * Residuals of pushes: nothing is lost but what is counted, in memory and in files, over restarts and other incarnations.
 */
#include "client/feedback.h"

#include "base/alloc.h"
#include "base/buf.h"
#include "base/file.h"
#include "base/rng.h"
#include "codec/spec.h"
#include "tests/support/support.h"

#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define N 1000
#define CHUNK 384 /* three chunks, the last one short */
#define ROUNDS 12

static bl_tensor_table *table_of(const char *push, float momentum) {
  bl_tensor t = {.name = "w", .n_dims = 1, .dims = {N}, .n_elems = N, .init = BL_INIT_ZERO};
  ck_assert_ok(bl_codec_spec_read(push, &t.policy.push, NULL));
  t.policy.pull = bl_codec_spec_exact;
  t.policy.feedback = !t.policy.push.codec->exact;
  t.policy.momentum = momentum;
  bl_tensor_table *table;
  ck_assert_ok(bl_tensor_table_of_list(&t, 1, CHUNK, &table, NULL));
  return table;
}

static bl_feedback *open_as(const bl_tensor_table *table, const char *path, uint32_t incarnation) {
  bl_feedback_config config = {.table = table, .job = 7, .seed = 11, .rank = 2, .incarnation = incarnation, .path = path};
  bl_feedback *f;
  bl_error err = BL_ERROR_INIT;
  ck_assert_ok_err(bl_feedback_new(&config, &f, &err), err);
  ck_assert_ptr_nonnull(f);
  return f;
}

static void gradient(uint64_t clock, float *g) {
  for (uint64_t i = 0; i < N; i++)
    g[i] = bl_rng_normal(3, clock, i);
}

/* Encodes a clock's gradient; adds what the frames carry to sent (NULL: the frames are lost with the process). */
static void push_clock(bl_feedback *f, const bl_tensor_table *t, uint64_t clock, double *sent) {
  float g[N], y[CHUNK];
  uint8_t *frame = bl_malloc(bl_codec_bound_bytes(&t->tensors[0].policy.push, CHUNK));
  ck_assert_ptr_nonnull(frame);
  gradient(clock, g);
  for (uint32_t id = 0; id < t->n_chunks; id++) {
    const bl_chunk *c = &t->chunks[id];
    bl_encode e = {.spec = &t->tensors[0].policy.push, .key = bl_codec_key(11, 2, clock, id)};
    size_t size = bl_feedback_encode(f, id, clock, &e, g + c->first, frame);
    bl_codec_view v;
    ck_assert_ok(bl_codec_open(frame, size, c->n_elems, &v, NULL));
    v.codec->decode(&v, y);
    for (uint32_t i = 0; i < c->n_elems && sent != NULL; i++)
      sent[c->first + i] += (double)y[i];
  }
  bl_free(frame);
}

static void expect_conserved(const bl_feedback *f, uint64_t clock, const double *sent) {
  const float *left = bl_feedback_of_tensor(f, 0, clock);
  float g[N];
  double sum[N] = {0};
  for (uint64_t c = 0; c < clock; c++) {
    gradient(c, g);
    for (int i = 0; i < N; i++)
      sum[i] += (double)g[i];
  }
  for (int i = 0; i < N; i++)
    ck_assert_double_eq_tol(sent[i] + (double)left[i], sum[i], 1e-4);
}

static const char *const codecs[] = {"float16", "bfloat16", "int8", "int4", "sign", "ternary", "qsgd(15)", "natural", "lowrank(2)"};

static const char *path_in_temp_dir(void) {
  static char path[128];
  snprintf(path, sizeof path, "%s/residual-7.2", test_temp_dir());
  return path;
}

START_TEST(what_was_pushed_and_what_is_left_is_the_sum_of_all_gradients) {
  bl_tensor_table *t = table_of(codecs[_i / 2], 0);
  bl_feedback *f = open_as(t, _i % 2 == 0 ? NULL : path_in_temp_dir(), 1);
  double sent[N] = {0};
  bl_feedback_begin(f, 0, true);
  for (uint64_t clock = 0; clock < ROUNDS; clock++) {
    push_clock(f, t, clock, sent);
    expect_conserved(f, clock + 1, sent);
  }
  ck_assert(bl_feedback_norm(f, 0, ROUNDS) > 0);
  ck_assert_uint_eq(bl_feedback_loss_of(f, 0).chunks, 0);
  bl_feedback_free(f);
  bl_tensor_table_free(t);
}
END_TEST

/* A clock that changed nothing has left nothing behind, whatever was in its gradient. */
START_TEST(an_undone_clock_leaves_what_there_was_before) {
  static const char *const pushes[] = {"float16", "float32"}; /* momentum on the worker has a velocity of exact pushes too */
  bl_tensor_table *t = table_of(pushes[_i % 2], 0.5f);
  bl_feedback_config config = {.table = t, .job = 7, .rank = 2, .incarnation = 1, .undoes = true,
                               .path = _i < 2 ? NULL : path_in_temp_dir()};
  bl_feedback *f;
  double sent[N] = {0};
  float residual[N], velocity[N], g[CHUNK];
  uint8_t frame[BL_CODEC_HEADER_BYTES + 4 * CHUNK];
  ck_assert_ok(bl_feedback_new(&config, &f, NULL));
  bl_feedback_begin(f, 0, true);
  for (uint64_t clock = 0; clock < 3; clock++)
    push_clock(f, t, clock, sent);
  memcpy(residual, bl_feedback_of_tensor(f, 0, 3), sizeof residual);
  memcpy(velocity, bl_feedback_velocity(f, 0, 3), sizeof velocity);
  ck_assert(velocity[0] != 0 && (_i % 2 == 1 || residual[0] != 0));
  for (uint32_t i = 0; i < CHUNK; i++)
    g[i] = i % 3 == 0 ? NAN : i % 3 == 1 ? INFINITY : 1;
  for (uint32_t id = 0; id < t->n_chunks; id++) {
    bl_encode e = {.spec = &t->tensors[0].policy.push};
    (void)bl_feedback_encode(f, id, 3, &e, g, frame);
  }
  ck_assert(memcmp(bl_feedback_velocity(f, 0, 4), velocity, sizeof velocity) != 0);
  bl_feedback_undo(f, 3);
  ck_assert_mem_eq(bl_feedback_of_tensor(f, 0, 4), residual, sizeof residual);
  ck_assert_mem_eq(bl_feedback_velocity(f, 0, 4), velocity, sizeof velocity);
  bl_feedback_undo(f, 7); /* never was */
  ck_assert_mem_eq(bl_feedback_of_tensor(f, 0, 4), residual, sizeof residual);
  bl_feedback_free(f);
  bl_tensor_table_free(t);
}
END_TEST

START_TEST(a_process_that_comes_back_goes_on_with_what_was_left) {
  bl_tensor_table *t = table_of("float16", 0);
  const char *path = path_in_temp_dir();
  double sent[N] = {0};
  bl_feedback *f = open_as(t, path, 1);
  bl_feedback_begin(f, 0, true);
  for (uint64_t clock = 0; clock < 5; clock++)
    push_clock(f, t, clock, sent);
  push_clock(f, t, 5, NULL); /* and dies: clock 5 is to be done again */
  bl_feedback_free(f);
  f = open_as(t, path, 2);
  bl_feedback_begin(f, 5, false);
  for (uint32_t id = 0; id < t->n_chunks; id++)
    ck_assert(bl_feedback_is_whole(f, id));
  for (uint64_t clock = 5; clock < ROUNDS; clock++)
    push_clock(f, t, clock, sent);
  expect_conserved(f, ROUNDS, sent);
  ck_assert_uint_eq(bl_feedback_loss_of(f, 0).chunks, 0);
  bl_feedback_free(f);
  bl_tensor_table_free(t);
}
END_TEST

START_TEST(bytes_of_the_incarnation_before_bring_its_residual_with_them) {
  bl_tensor_table *t = table_of("float16", 0);
  const char *path = path_in_temp_dir();
  double sent[N] = {0};
  bl_feedback *f = open_as(t, path, 1);
  bl_feedback_begin(f, 0, true);
  for (uint64_t clock = 0; clock <= 5; clock++)
    push_clock(f, t, clock, sent); /* all of them are applied, clock 5 too */
  bl_feedback_free(f);
  f = open_as(t, path, 2);
  bl_feedback_begin(f, 5, false);
  float other[N];
  gradient(77, other); /* this one computes something else */
  uint8_t frame[BL_CODEC_HEADER_BYTES + 4 * CHUNK];
  for (uint32_t id = 0; id < t->n_chunks; id++) {
    bl_encode e = {.spec = &t->tensors[0].policy.push};
    bl_feedback_encode(f, id, 5, &e, other + t->chunks[id].first, frame);
    bl_feedback_replace(f, id, 5, 1);
  }
  expect_conserved(f, 6, sent);
  ck_assert_uint_eq(bl_feedback_loss_of(f, 0).chunks, 0);
  push_clock(f, t, 6, sent);
  expect_conserved(f, 7, sent);
  bl_feedback_replace(f, 0, 6, 9); /* nobody knows what that one had left */
  ck_assert_uint_eq(bl_feedback_loss_of(f, 0).chunks, 1);
  ck_assert(bl_feedback_loss_of(f, 0).squares > 0);
  bl_feedback_free(f);
  bl_tensor_table_free(t);
}
END_TEST

START_TEST(a_frame_that_is_not_applied_goes_back) {
  bl_tensor_table *t = table_of("float16", 0);
  bl_feedback *f = open_as(t, NULL, 1);
  float g[N];
  uint8_t frame[BL_CODEC_HEADER_BYTES + 4 * CHUNK];
  gradient(0, g);
  bl_feedback_begin(f, 0, true);
  for (uint32_t id = 0; id < t->n_chunks; id++) {
    bl_encode e = {.spec = &t->tensors[0].policy.push};
    size_t size = bl_feedback_encode(f, id, 0, &e, g + t->chunks[id].first, frame);
    bl_codec_view v = bl_codec_trusted(frame, size);
    bl_feedback_return(f, id, 0, &v);
  }
  for (int i = 0; i < N; i++)
    ck_assert_float_eq_tol(bl_feedback_of_tensor(f, 0, 1)[i], g[i], 1e-6f);
  bl_feedback_free(f);
  bl_tensor_table_free(t);
}
END_TEST

/* Each spoils the file of a rank that had come to clock 4. */
static void spoil_torn(uint8_t *file) { memset(file + 40, 0, 8); } /* the stamp of chunk 0's even copy */
static void spoil_job(uint8_t *file) { file[8]++; }
static void spoil_magic(uint8_t *file) { file[0] = 'x'; }
static void spoil_nan(uint8_t *file) { memset(file + 4096, 0xff, 4); }
static void spoil_clock(uint8_t *file) { memset(file + 40, 0x77, 16); }

static const struct {
  void (*spoil)(uint8_t *file);
  uint32_t n_lost;
} spoils[] = {{spoil_torn, 1}, {spoil_job, 3}, {spoil_magic, 3}, {spoil_nan, 1}, {spoil_clock, 1}};

START_TEST(what_is_torn_or_not_ours_is_counted_as_lost) {
  bl_tensor_table *t = table_of("float16", 0);
  const char *path = path_in_temp_dir();
  bl_feedback *f = open_as(t, path, 1);
  double sent[N] = {0};
  bl_feedback_begin(f, 0, true);
  for (uint64_t clock = 0; clock < 4; clock++)
    push_clock(f, t, clock, sent);
  bl_feedback_free(f);
  bl_buf bytes = BL_BUF_INIT;
  ck_assert_ok(bl_file_read(path, 1 << 20, &bytes, NULL));
  spoils[_i].spoil(bytes.data);
  ck_assert_ok(bl_file_write_atomic(path, bytes.data, bytes.size, 0600, NULL));
  bl_buf_fini(&bytes);
  f = open_as(t, path, 2);
  bl_feedback_begin(f, 4, false);
  ck_assert_uint_eq(bl_feedback_loss_of(f, 0).chunks, spoils[_i].n_lost);
  ck_assert(!bl_feedback_is_whole(f, 0));
  for (uint32_t i = 0; i < t->chunks[0].n_elems; i++)
    ck_assert(bl_feedback_of_tensor(f, 0, 4)[i] == 0);
  push_clock(f, t, 4, sent);
  bl_feedback_free(f);
  bl_tensor_table_free(t);
}
END_TEST

START_TEST(where_the_file_is_taken_or_the_disk_is_full_memory_does) {
  bl_tensor_table *t = table_of("float16", 0);
  const char *path = path_in_temp_dir();
  double sent[N] = {0};
  bl_feedback *first = open_as(t, path, 1), *second = open_as(t, path, 2);
  bl_feedback_begin(second, 0, true);
  push_clock(second, t, 0, sent);
  expect_conserved(second, 1, sent);
  bl_feedback_remove_file(second); /* not its own */
  ck_assert(bl_file_exists(path));
  bl_feedback_free(second);
  bl_feedback_remove_file(first);
  ck_assert(!bl_file_exists(path));
  bl_feedback_free(first);
  signal(SIGXFSZ, SIG_IGN);
  struct rlimit limit = {4096, 4096};
  ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
  bl_feedback *f = open_as(t, path, 1);
  bl_feedback_begin(f, 0, true);
  memset(sent, 0, sizeof sent);
  push_clock(f, t, 0, sent);
  expect_conserved(f, 1, sent);
  ck_assert(!bl_file_exists(path));
  bl_feedback_free(f);
  bl_tensor_table_free(t);
}
END_TEST

START_TEST(old_files_are_swept_away_and_nothing_else) {
  const char *dir = test_temp_dir();
  static const struct {
    const char *name;
    long age_s;
    bool stays;
  } files[] = {{"residual-1.0", 1000, false}, {"residual-2.0", 10, true}, {"other-1.0", 1000, true}};
  char path[128];
  for (size_t i = 0; i < BL_COUNT_OF(files); i++) {
    snprintf(path, sizeof path, "%s/%s", dir, files[i].name);
    ck_assert_ok(bl_file_write_atomic(path, "x", 1, 0600, NULL));
    struct timespec at[2] = {{.tv_sec = time(NULL) - files[i].age_s}, {.tv_sec = time(NULL) - files[i].age_s}};
    ck_assert_int_eq(utimensat(AT_FDCWD, path, at, 0), 0);
  }
  ck_assert_uint_eq(bl_feedback_sweep(dir, 100), 1);
  ck_assert_uint_eq(bl_feedback_sweep("/nowhere/at/all", 100), 0);
  for (size_t i = 0; i < BL_COUNT_OF(files); i++) {
    snprintf(path, sizeof path, "%s/%s", dir, files[i].name);
    ck_assert(bl_file_exists(path) == files[i].stays);
  }
}
END_TEST

START_TEST(momentum_is_on_the_worker_for_exact_codecs_too) {
  bl_tensor_table *t = table_of("float32", 0.5f);
  bl_feedback *f = open_as(t, NULL, 1);
  float g[N], want[N] = {0};
  bl_feedback_begin(f, 0, true);
  for (uint64_t clock = 0; clock < 3; clock++) {
    double sent[N] = {0};
    gradient(clock, g);
    push_clock(f, t, clock, sent);
    for (int i = 0; i < N; i++) {
      want[i] = 0.5f * want[i] + g[i];
      ck_assert_double_eq(sent[i], (double)want[i]);
    }
  }
  bl_feedback_free(f);
  bl_tensor_table_free(t);
}
END_TEST

START_TEST(exact_pushes_leave_nothing_behind) {
  bl_tensor_table *t = table_of("float32", 0);
  bl_feedback_config config = {.table = t};
  bl_feedback *f;
  ck_assert_ok(bl_feedback_new(&config, &f, NULL));
  ck_assert_ptr_null(f);
  bl_tensor_table_free(t);
}
END_TEST

int main(void) {
  Suite *s = suite_create("feedback");
  TCase *t = tcase_create("feedback");
  tcase_add_loop_test(t, an_undone_clock_leaves_what_there_was_before, 0, 4);
  tcase_add_loop_test(t, what_was_pushed_and_what_is_left_is_the_sum_of_all_gradients, 0, 2 * (int)BL_COUNT_OF(codecs));
  tcase_add_test(t, a_process_that_comes_back_goes_on_with_what_was_left);
  tcase_add_test(t, bytes_of_the_incarnation_before_bring_its_residual_with_them);
  tcase_add_test(t, a_frame_that_is_not_applied_goes_back);
  tcase_add_loop_test(t, what_is_torn_or_not_ours_is_counted_as_lost, 0, (int)BL_COUNT_OF(spoils));
  tcase_add_test(t, where_the_file_is_taken_or_the_disk_is_full_memory_does);
  tcase_add_test(t, old_files_are_swept_away_and_nothing_else);
  tcase_add_test(t, momentum_is_on_the_worker_for_exact_codecs_too);
  tcase_add_test(t, exact_pushes_leave_nothing_behind);
  suite_add_tcase(s, t);
  return test_run(&s, 1);
}
