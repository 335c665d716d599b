/* SPDX-License-Identifier: Apache-2.0
 *
 * Update rules and schedules against the independent implementation in tests/golden/optim.py, and the checks
 * of their parameters.
 */
#include "kernel/kernel.h"
#include "optim/optim.h"
#include "tests/support/support.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define N 19 /* as in optim.py */
#define N_TABLES_MAX 3

/* Exact in float32; the same as in optim.py. */
static float gradient(uint64_t i, uint64_t step) {
  int k = (int)((i * 37 + step * 101) % 201) - 100;
  return ldexpf((float)k, -6 - 3 * (int)(i % 4));
}

static float weight(uint64_t i) { return (float)((int)(i * 53 % 97) - 48) / 32; }

static FILE *open_golden(void) {
  FILE *f = fopen(test_source_path("tests/golden/optim.txt"), "r");
  ck_assert_ptr_nonnull(f);
  return f;
}

/* "key=value ..." of a line, cut in place. */
static size_t read_params(char *text, bl_param *params) {
  size_t n = 0;
  for (char *word = strtok(text, " \n"); word != NULL; word = strtok(NULL, " \n")) {
    char *equals = strchr(word, '=');
    ck_assert_ptr_nonnull(equals);
    *equals = '\0';
    params[n++] = (bl_param){word, strtod(equals + 1, NULL)};
  }
  return n;
}

typedef struct trial {
  char name[64];
  bl_optim optim;
  bool no_decay;
  uint64_t clock; /* updates made */
  float w[N], slots[BL_OPTIM_SLOTS_MAX][N];
} trial;

static void trial_begin(trial *t, char *line) {
  char rule[32];
  int no_decay, rest;
  bl_param params[BL_OPTIM_PARAMS_MAX];
  bl_error err = BL_ERROR_INIT;
  memset(t, 0, sizeof *t);
  ck_assert_int_eq(sscanf(line, "case %63s %31s %d%n", t->name, rule, &no_decay, &rest), 3);
  size_t n = read_params(line + rest, params);
  ck_assert_ok_err(bl_optim_init(&t->optim, rule, params, n, NULL, NULL, 0, 1000, &err), err);
  t->no_decay = no_decay != 0;
  for (uint64_t i = 0; i < N; i++)
    t->w[i] = weight(i);
}

static void step_at(const bl_optim *o, uint64_t clock, bool no_decay, float *w, const float *g, float *const *slots,
                    size_t n) {
  bl_optim_at at = bl_optim_at_clock(clock, no_decay);
  bl_optim_step(o, &at, w, g, slots, n);
}

static void trial_advance(trial *t, uint64_t step) {
  float *slots[BL_OPTIM_SLOTS_MAX] = {t->slots[0], t->slots[1], t->slots[2], t->slots[3]};
  for (; t->clock < step; t->clock++) {
    float g[N];
    for (uint64_t i = 0; i < N; i++)
      g[i] = gradient(i, t->clock + 1);
    step_at(&t->optim, t->clock, t->no_decay, t->w, g, slots, N);
  }
}

static void trial_check(const trial *t, size_t i, uint32_t want_bits, double want) {
  uint32_t got_bits;
  memcpy(&got_bits, &t->w[i], sizeof got_bits);
  ck_assert_msg(got_bits == want_bits, "%s with %s kernels: step %" PRIu64 " weight %zu is %08x, must be %08x", t->name,
                bl_kernels_get()->name, t->clock, i, got_bits, want_bits);
  double error = fabs((double)t->w[i] - want), allowed = 1e-4 * (1 + fabs(want));
  ck_assert_msg(error <= allowed, "%s: step %" PRIu64 " weight %zu is %.9g, the equation gives %.9g", t->name, t->clock,
                i, (double)t->w[i], want);
}

START_TEST(updates_are_those_of_the_independent_implementation) {
  const bl_kernels *table = bl_kernels_at((size_t)_i);
  if (table == NULL)
    return;
  ck_assert_ok(bl_kernels_force(table->name, NULL));
  FILE *f = open_golden();
  char line[512];
  trial t = {.name = ""};
  size_t n_cases = 0, n_checked = 0;
  while (fgets(line, sizeof line, f) != NULL) {
    uint64_t step, i;
    uint32_t bits;
    double value;
    if (strncmp(line, "case ", 5) == 0) {
      trial_begin(&t, line);
      n_cases++;
    } else if (sscanf(line, "at %" SCNu64 " %" SCNu64 " %" SCNx32 " %lf", &step, &i, &bits, &value) == 4) {
      trial_advance(&t, step);
      trial_check(&t, i, bits, value);
      n_checked++;
    }
  }
  fclose(f);
  ck_assert_uint_eq(n_cases, 12);
  ck_assert_uint_eq(n_checked, 12 * 6 * N);
}
END_TEST

START_TEST(schedules_are_those_of_the_independent_implementation) {
  FILE *f = open_golden();
  char line[512];
  bl_optim o = {0};
  size_t n_checked = 0;
  while (fgets(line, sizeof line, f) != NULL) {
    char name[32];
    uint64_t clock;
    double want;
    int rest;
    bl_error err = BL_ERROR_INIT;
    if (sscanf(line, "schedule %31s %" SCNu64 "%n", name, &clock, &rest) == 2) {
      bl_param params[BL_OPTIM_PARAMS_MAX];
      size_t n = read_params(line + rest, params);
      ck_assert_ok_err(bl_optim_init(&o, "sgd", NULL, 0, name, params, n, clock, &err), err);
    } else if (sscanf(line, "factor %" SCNu64 " %lf", &clock, &want) == 2) {
      double got = o.schedule->factor(clock, o.n_clocks, o.schedule_params);
      ck_assert_msg(fabs(got - want) <= 1e-13 * fabs(want) + 1e-15, "%s at %" PRIu64 " is %.17g, must be %.17g",
                    o.schedule->name, clock, got, want);
      n_checked++;
    }
  }
  fclose(f);
  ck_assert_uint_gt(n_checked, 100);
}
END_TEST

START_TEST(a_schedule_scales_the_rate_of_its_clock) {
  static const bl_param lr = {"lr", 0.5}, warmup = {"warmup", 4};
  bl_optim o;
  ck_assert_ok(bl_optim_init(&o, "sgd", &lr, 1, "constant", &warmup, 1, 100, NULL));
  static const float want[] = {-0.125f, -0.375f, -0.75f, -1.25f, -1.75f};
  float w = 0, g = 1;
  for (uint64_t clock = 0; clock < 5; clock++) {
    step_at(&o, clock, false, &w, &g, NULL, 1);
    ck_assert_float_eq(w, want[clock]);
  }
}
END_TEST

START_TEST(a_step_is_a_function_of_arrays_and_clock_alone) {
  /* As after a repair: the same arrays in another process at the same clock go on with the same bits. */
  bl_optim a, b;
  ck_assert_ok(bl_optim_init(&a, "adam", NULL, 0, "cosine", NULL, 0, 500, NULL));
  float w[2][N], m[2][N] = {{0}}, v[2][N] = {{0}}, g[N];
  for (uint64_t i = 0; i < N; i++)
    w[0][i] = weight(i);
  for (uint64_t clock = 0; clock < 400; clock++) {
    if (clock == 200) {
      memcpy(w[1], w[0], sizeof w[0]);
      memcpy(m[1], m[0], sizeof m[0]);
      memcpy(v[1], v[0], sizeof v[0]);
      ck_assert_ok(bl_optim_init(&b, "adam", NULL, 0, "cosine", NULL, 0, 500, NULL));
    }
    for (uint64_t i = 0; i < N; i++)
      g[i] = gradient(i, clock);
    for (size_t k = 0; k < (clock < 200 ? 1 : 2); k++) {
      float *slots[] = {m[k], v[k]};
      step_at(k == 0 ? &a : &b, clock, false, w[k], g, slots, N);
    }
  }
  ck_assert_mem_eq(w[0], w[1], sizeof w[0]);
}
END_TEST

START_TEST(adam_moves_by_the_rate_under_a_constant_gradient) {
  /* m and sqrt(v), corrected, are both the gradient, whatever its size and at any step. */
  bl_optim o;
  ck_assert_ok(bl_optim_init(&o, "adam", NULL, 0, NULL, NULL, 0, 0, NULL));
  static const float gradients[] = {1e-3f, 1, 1e6f};
  for (size_t k = 0; k < BL_COUNT_OF(gradients); k++) {
    float w = 0, m = 0, v = 0, g = gradients[k];
    float *slots[] = {&m, &v};
    for (uint64_t clock = 0; clock < 3000; clock++) {
      float before = w;
      step_at(&o, clock, false, &w, &g, slots, 1);
      ck_assert_double_eq_tol((double)(before - w), 1e-3, 1e-6);
    }
  }
}
END_TEST

START_TEST(rules_and_parameters_are_checked_with_a_hint) {
  static const struct {
    const char *rule;
    bl_param params[2];
    size_t n_params;
    const char *schedule;
    bl_param schedule_param;
    const char *words[3];
  } cases[] = {
      {"adagrad", {{0}}, 0, NULL, {0}, {"optimizer", "adagrad", "sgd, momentum, adam"}},
      {"adamm", {{0}}, 0, NULL, {0}, {"adamm", "did you mean \"adam\"", "sgd"}},
      {"adam", {{"beta_1", 0.9}}, 1, NULL, {0}, {"beta_1", "did you mean \"beta1\"", "weight_decay"}},
      {"sgd", {{"momentum", 0.9}}, 1, NULL, {0}, {"momentum", "sgd", "lr, weight_decay"}},
      {"sgd", {{"lr", 0}}, 1, NULL, {0}, {"lr", "above 0", "sgd"}},
      {"sgd", {{"lr", -1}}, 1, NULL, {0}, {"lr", "-1", "above 0"}},
      {"sgd", {{"lr", (double)NAN}}, 1, NULL, {0}, {"lr", "nan", "above 0"}},
      {"sgd", {{"lr", (double)INFINITY}}, 1, NULL, {0}, {"lr", "inf", "at most"}},
      {"sgd", {{"lr", 0.1}, {"lr", 0.2}}, 2, NULL, {0}, {"lr", "twice", "sgd"}},
      {"adam", {{"beta2", 1}}, 1, NULL, {0}, {"beta2", "at most 0.999999", "adam"}},
      {"adam", {{"eps", 0}}, 1, NULL, {0}, {"eps", "at least", "adam"}},
      {"sgd", {{0}}, 0, "cosin", {0}, {"schedule", "did you mean \"cosine\"", "constant"}},
      {"sgd", {{0}}, 0, "step", {"evry", 3}, {"evry", "did you mean \"every\"", "gamma"}},
      {"sgd", {{0}}, 0, "step", {"every", 0.5}, {"every", "at least 1", "step"}},
  };
  for (size_t i = 0; i < BL_COUNT_OF(cases); i++) {
    bl_optim o, before;
    memset(&o, 0x55, sizeof o);
    before = o;
    bl_error err = BL_ERROR_INIT;
    ck_assert_status(bl_optim_init(&o, cases[i].rule, cases[i].params, cases[i].n_params, cases[i].schedule,
                                   &cases[i].schedule_param, cases[i].schedule_param.key != NULL, 10, &err),
                     BL_EINVAL);
    for (size_t k = 0; k < 3; k++)
      ck_assert_msg(strstr(err.text, cases[i].words[k]) != NULL, "\"%s\" does not say \"%s\"", err.text,
                    cases[i].words[k]);
    ck_assert_mem_eq(&o, &before, sizeof o);
  }
}
END_TEST

static void check_infos(const char *owner, const bl_param_info *infos, size_t n) {
  ck_assert_uint_le(n, BL_OPTIM_PARAMS_MAX);
  for (size_t i = 0; i < n; i++) {
    const bl_param_info *p = &infos[i];
    ck_assert_msg(p->key != NULL && p->doc != NULL && p->doc[0] != '\0', "%s parameter %zu is documented", owner, i);
    ck_assert_msg(p->default_value >= p->min && p->default_value <= p->max &&
                      !(p->min_open && p->default_value == p->min),
                  "%s %s has a default out of its range", owner, p->key);
  }
}

START_TEST(every_row_of_the_registries_is_whole) {
  size_t n = 0;
  for (const bl_optim_rule *r; (r = bl_optim_rule_at(n)) != NULL; n++) {
    ck_assert_ptr_eq(bl_optim_rule_by_name(r->name), r);
    ck_assert_str_eq(r->params[0].key, "lr");
    ck_assert_uint_le(r->n_slots, BL_OPTIM_SLOTS_MAX);
    check_infos(r->name, r->params, r->n_params);
  }
  ck_assert_uint_eq(n, 3);
  for (n = 0; bl_schedule_rule_at(n) != NULL; n++) {
    const bl_schedule_rule *r = bl_schedule_rule_at(n);
    ck_assert_ptr_eq(bl_schedule_rule_by_name(r->name), r);
    check_infos(r->name, r->params, r->n_params);
    bl_optim o;
    ck_assert_ok(bl_optim_init(&o, "sgd", NULL, 0, r->name, NULL, 0, 50, NULL));
    for (uint64_t clock = 0; clock < 60; clock++) {
      double f = r->factor(clock, 50, o.schedule_params);
      ck_assert_msg(f >= 0 && f <= 1, "%s at %" PRIu64 " is %g", r->name, clock, f);
    }
  }
  ck_assert_uint_eq(n, 5);
  ck_assert_ptr_null(bl_optim_rule_by_name("none"));
  ck_assert_ptr_null(bl_schedule_rule_by_name("none"));
}
END_TEST

int main(void) {
  Suite *s = suite_create("optim");
  TCase *t = tcase_create("optim");
  tcase_set_timeout(t, 30);
  tcase_add_loop_test(t, updates_are_those_of_the_independent_implementation, 0, N_TABLES_MAX);
  tcase_add_test(t, schedules_are_those_of_the_independent_implementation);
  tcase_add_test(t, a_schedule_scales_the_rate_of_its_clock);
  tcase_add_test(t, a_step_is_a_function_of_arrays_and_clock_alone);
  tcase_add_test(t, adam_moves_by_the_rate_under_a_constant_gradient);
  tcase_add_test(t, rules_and_parameters_are_checked_with_a_hint);
  tcase_add_test(t, every_row_of_the_registries_is_whole);
  suite_add_tcase(s, t);
  return test_run(&s, 1);
}
