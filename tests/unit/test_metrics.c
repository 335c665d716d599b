/* SPDX-License-Identifier: Apache-2.0
 *
 * Counts from the outputs of a model to the numbers over all ranks: top-k, AUC, confusion matrix, against their
 * definitions.
 */
#include "base/alloc.h"
#include "base/rng.h"
#include "coordinator/metrics.h"
#include "coordinator/stopping.h"
#include "job/auc.h"
#include "metrics_message.h"
#include "tests/support/support.h"
#include "train/measures.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

START_TEST(buckets_keep_the_order_of_scores) {
  static const float rising[] = {-INFINITY, -FLT_MAX, -1e10f, -2, -1, -0.5f, -1e-30f, -1e-45f, 0,
                                 1e-45f, 1e-30f, 0.5f, 1, 2, 1e10f, FLT_MAX, INFINITY};
  for (size_t i = 1; i < BL_COUNT_OF(rising); i++)
    ck_assert_uint_ge(bl_auc_bucket(rising[i]), bl_auc_bucket(rising[i - 1]));
  ck_assert_uint_eq(bl_auc_bucket(-0.0f), bl_auc_bucket(0.0f));
  ck_assert_uint_lt(bl_auc_bucket(1.0f), bl_auc_bucket(1.0f + 1 / 64.0f));
  ck_assert_uint_eq(bl_auc_bucket(NAN), BL_AUC_BUCKETS - 1);
  ck_assert_uint_eq(bl_auc_bucket(-NAN), BL_AUC_BUCKETS - 1);
  uint64_t key = bl_rng_key(1, BL_RNG_DATA);
  for (uint64_t i = 0; i < 10000; i++) {
    float a = bl_rng_normal(key, 0, i) * expf(10 * bl_rng_normal(key, 1, i));
    float b = bl_rng_normal(key, 2, i) * expf(10 * bl_rng_normal(key, 3, i));
    ck_assert(a <= b ? bl_auc_bucket(a) <= bl_auc_bucket(b) : bl_auc_bucket(a) >= bl_auc_bucket(b));
  }
}
END_TEST

#define N 400

/* Over all pairs. */
static double exact_auc(const float *z, const uint32_t *labels) {
  double right = 0, pairs = 0;
  for (int i = 0; i < N; i++)
    for (int j = 0; j < N; j++)
      if (labels[i] == 1 && labels[j] == 0) {
        right += z[i] > z[j] ? 1 : z[i] == z[j] ? 0.5 : 0;
        pairs++;
      }
  return right / pairs;
}

/* The samples are divided over three ranks; what they count goes through the message as to the coordinator. With _i 1 the
 * scores lie so near to each other that buckets are full of ties. */
START_TEST(auc_over_ranks_is_within_its_bound) {
  static float z[N];
  static uint32_t labels[N];
  bl_job_spec spec = {.measure = {.auc = true}};
  uint64_t key = bl_rng_key((uint64_t)_i, BL_RNG_DATA);
  for (uint64_t i = 0; i < N; i++) {
    labels[i] = bl_rng_below(key, 0, i, 3) == 0;
    z[i] = _i == 0 ? bl_rng_normal(key, 1, i) + (float)labels[i] : 3 + 0.01f * (bl_rng_normal(key, 1, i) + (float)labels[i]);
  }
  co_metrics sum = {0};
  for (uint32_t r = 0, first = 0; r < 3; r++) {
    uint32_t n = r == 2 ? N - first : 100 + r;
    wk_measures m;
    bl_error err = BL_ERROR_INIT;
    ck_assert_ok_err(wk_measures_init(&m, &spec.measure, 1, 2, &err), err);
    wk_measures_add(&m, z + first, labels + first, n);
    wk_metrics rank = {.n = n, .more = &m};
    wk_metrics_message message;
    wk_metrics_message_init(&message, &rank, true);
    co_metrics part;
    ck_assert_ok(co_metrics_from(&message.m, &part));
    ck_assert_ok(co_metrics_add(&sum, &part));
    co_metrics_fini(&part);
    wk_metrics_message_fini(&message);
    wk_measures_fini(&m);
    first += n;
  }
  co_metrics_close(&sum);
  ck_assert(sum.has_auc && sum.n == N);
  double exact = exact_auc(z, labels);
  ck_assert_msg(fabs(sum.auc - exact) <= sum.auc_error + 1e-12, "%.6f instead of %.6f, bound %.6f", sum.auc, exact,
                sum.auc_error);
  if (_i == 0)
    ck_assert_double_lt(sum.auc_error, 0.002);
  else
    ck_assert_double_gt(sum.auc_error, 0.05);
  co_metric_value values[CO_METRIC_NAMES_MAX];
  ck_assert_uint_eq(co_metrics_values(&spec, &sum, values), 2);
  ck_assert_str_eq(values[0].name, "auc");
  ck_assert(values[0].value == sum.auc && values[1].value == sum.auc_error);
  co_metrics_fini(&sum);
}
END_TEST

START_TEST(auc_needs_samples_of_both_classes) {
  const uint64_t some[] = {1, 2}, none[] = {0, 0};
  double auc, error;
  ck_assert(!bl_auc_from_counts(some, none, 2, &auc, &error));
  ck_assert(!bl_auc_from_counts(none, some, 2, &auc, &error));
  ck_assert(bl_auc_from_counts((const uint64_t[]){0, 3}, (const uint64_t[]){2, 0}, 2, &auc, &error));
  ck_assert(auc == 1 && error == 0);
  ck_assert(bl_auc_from_counts((const uint64_t[]){3, 0}, (const uint64_t[]){0, 2}, 2, &auc, &error));
  ck_assert(auc == 0 && error == 0);
  ck_assert(bl_auc_from_counts(some, some, 2, &auc, &error));
  ck_assert(auc == 0.5);
}
END_TEST

START_TEST(top_k_and_confusion_are_counted_as_defined) {
  enum { CLASSES = 4 };
  /* ties go to the lower class, in all of them */
  static const float z[][CLASSES] = {{4, 3, 2, 1}, {4, 3, 2, 1}, {4, 3, 2, 1}, {1, 1, 1, 1}, {1, 1, 1, 1}, {-1, 0, 5, 5}};
  static const uint32_t labels[] = {0, 1, 2, 1, 2, 3};
  wk_measures m;
  bl_metrics_spec spec = {.top_k = 2, .confusion = true};
  bl_error err = BL_ERROR_INIT;
  ck_assert_ok_err(wk_measures_init(&m, &spec, CLASSES, CLASSES, &err), err);
  for (int round = 0; round < 2; round++) {
    wk_measures_clear(&m);
    wk_measures_add(&m, z[0], labels, 6);
    ck_assert_uint_eq(m.n_top, 4); /* all but the 3rd and the 5th */
    uint64_t total = 0;
    for (int i = 0; i < CLASSES * CLASSES; i++)
      total += m.confusion[i];
    ck_assert_uint_eq(total, 6);
    ck_assert(m.confusion[0] == 1 && m.confusion[1 * CLASSES] == 2 && m.confusion[2 * CLASSES] == 2 &&
              m.confusion[3 * CLASSES + 2] == 1);
  }
  wk_measures_fini(&m);
  /* one output tells two classes apart at 0 */
  ck_assert_ok_err(wk_measures_init(&m, &(bl_metrics_spec){.confusion = true}, 1, 2, &err), err);
  wk_measures_add(&m, (const float[]){-1, 0, 2, -3}, (const uint32_t[]){0, 0, 1, 1}, 4);
  ck_assert(m.confusion[0] == 1 && m.confusion[1] == 1 && m.confusion[2] == 1 && m.confusion[3] == 1);
  wk_measures_fini(&m);
}
END_TEST

START_TEST(sums_survive_the_loss_of_any_allocation) {
  wk_measures m;
  bl_error err = BL_ERROR_INIT;
  bl_metrics_spec spec = {.auc = true, .confusion = true};
  uint64_t live = bl_alloc_get_stats().live_blocks;
  bool done = false;
  for (uint64_t n = 1; !done; n++) {
    ck_assert_ok_err(wk_measures_init(&m, &spec, 1, 2, &err), err);
    wk_measures_add(&m, (const float[]){-1, 0, 2}, (const uint32_t[]){0, 1, 1}, 3);
    wk_metrics rank = {.n = 3, .more = &m};
    co_metrics sum = {0}, part = {0};
    wk_metrics_message message;
    bl_alloc_fail_after(n);
    wk_metrics_message_init(&message, &rank, true);
    bl_status status = co_metrics_from(&message.m, &part);
    bl_status added = co_metrics_add(&sum, &part);
    bl_alloc_fail_after(0);
    ck_assert_uint_eq(sum.n, 3); /* whatever is left out */
    done = status == BL_OK && added == BL_OK && sum.scores.n == 3 && sum.confusion.n == 2;
    co_metrics_fini(&part);
    co_metrics_fini(&sum);
    wk_metrics_message_fini(&message);
    wk_measures_fini(&m);
    ck_assert_uint_eq(bl_alloc_get_stats().live_blocks, live);
    ck_assert_uint_lt(n, 100);
  }
}
END_TEST

/* Losses or accuracies of 8 epochs, and what follows. NaN: the epoch diverged. */
static const struct {
  const char *metric;
  bl_stop_mode mode;
  uint32_t patience;
  double min_delta;
  double values[8];
  uint32_t first, best, stop;
} curves[] = {
    {"validation_loss", BL_STOP_MIN, 2, 0, {5, 4, 3, 2, 1, 0.5, 0.2, 0.1}, 1, 8, 0},
    {"validation_loss", BL_STOP_MIN, 2, 0, {5, 4, 4, 4, 1, 1, 1, 1}, 1, 2, 4},
    {"validation_loss", BL_STOP_MIN, 3, 0, {5, 4, 4, 4, 1, 1, 1, 1}, 1, 5, 8},
    {"validation_loss", BL_STOP_MIN, 2, 0.5, {5, 4.6, 4.4, 4, 3.9, 3.8, 3, 2}, 1, 3, 5},
    {"validation_accuracy", BL_STOP_MAX, 2, 0, {0.1, 0.2, 0.3, 0.2, 0.4, 0.4, 0.4, 0.4}, 1, 5, 7},
    {"validation_loss", BL_STOP_MIN, 2, 0, {NAN, NAN, 1, 1, 1, 1, 1, 1}, 1, 0, 2},
    {"validation_loss", BL_STOP_MIN, 3, 0, {1, NAN, NAN, NAN, 0, 0, 0, 0}, 1, 1, 4},
    {"train_loss", BL_STOP_MIN, 1, 0, {3, 2, 2, 1, 1, 1, 1, 1}, 1, 2, 3},
    {"validation_loss", BL_STOP_MIN, 2, 0, {0, 0, 0, 4, 3, 3, 3, 3}, 4, 5, 7}, /* epochs 1 to 3 were another job's */
};

START_TEST(stopping_follows_its_rule) {
  bl_job_spec spec = {.stop = {curves[_i].metric, curves[_i].patience, curves[_i].min_delta, curves[_i].mode}};
  co_stopping s = {0};
  for (uint32_t e = 1; e <= 8; e++) {
    double v = curves[_i].values[e - 1];
    co_metrics m = {.n = 10, .loss_sum = 10 * v, .correct = isnan(v) ? 0 : (uint64_t)(10 * v + 0.5)}, other = {0};
    bool on_train = strncmp(curves[_i].metric, "train", 5) == 0;
    co_stopping_judge(&s, &spec, e, curves[_i].first, on_train ? &m : &other, on_train ? &other : &m);
  }
  ck_assert_uint_eq(s.best_epoch, curves[_i].best);
  ck_assert_uint_eq(s.stop_epoch, curves[_i].stop);
}
END_TEST

int main(void) {
  Suite *s = suite_create("metrics");
  TCase *tc = tcase_create("metrics");
  tcase_add_test(tc, buckets_keep_the_order_of_scores);
  tcase_add_loop_test(tc, auc_over_ranks_is_within_its_bound, 0, 2);
  tcase_add_test(tc, auc_needs_samples_of_both_classes);
  tcase_add_test(tc, top_k_and_confusion_are_counted_as_defined);
  tcase_add_test(tc, sums_survive_the_loss_of_any_allocation);
  tcase_add_loop_test(tc, stopping_follows_its_rule, 0, (int)BL_COUNT_OF(curves));
  suite_add_tcase(s, tc);
  return test_run(&s, 1);
}
