/* SPDX-License-Identifier: Apache-2.0
 *
 * Update rules and schedules against the independent implementation in tests/golden/optim.py, and the checks
 * of their parameters.
 */
#include "base/num.h"
#include "kernel/kernel.h"
#include "optim/optim.h"
#include "tests/support/support.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define N 19 /* as in optim.py */
#define N_LONG 2067
#define N_TABLES_MAX 3

/* Exact in float32; the same as in optim.py. */
static float gradient(uint64_t i, uint64_t step) {
  int k = (int)((i * 37 + step * 101) % 201) - 100;
  return ldexpf((float)k, -6 - 3 * (int)(i % 4));
}

static float extreme(uint64_t i, uint64_t step) {
  return ldexpf((float)((int)((i * 37 + step * 101) % 201) - 100), (int)((i * 23 + step * 59) % 161) - 86);
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
  size_t n;
  float (*gradient)(uint64_t i, uint64_t step);
  uint64_t clock; /* updates made */
  float w[N_LONG], slots[BL_OPTIM_SLOTS_MAX][N_LONG];
} trial;

static void trial_begin(trial *t, char *line) {
  char rule[32], kind[32];
  int no_decay, rest;
  bl_param params[BL_OPTIM_PARAMS_MAX];
  bl_error err = BL_ERROR_INIT;
  memset(t, 0, sizeof *t);
  ck_assert_int_eq(sscanf(line, "case %63s %31s %d %zu %31s%n", t->name, rule, &no_decay, &t->n, kind, &rest), 5);
  ck_assert_uint_le(t->n, N_LONG);
  size_t n = read_params(line + rest, params);
  ck_assert_ok_err(bl_optim_init(&t->optim, rule, params, n, NULL, NULL, 0, 1000, &err), err);
  t->no_decay = no_decay != 0;
  t->gradient = strcmp(kind, "extreme") == 0 ? extreme : gradient;
  for (uint64_t i = 0; i < t->n; i++)
    t->w[i] = strstr(t->name, "_from_zero") != NULL ? 0 : weight(i);
}

static void step_at(const bl_optim *o, uint64_t clock, bool no_decay, float *w, const float *g, float *const *slots,
                    size_t n) {
  bl_optim_at at = bl_optim_at_clock(clock, no_decay);
  bl_optim_step(o, &at, w, g, slots, n);
}

static void trial_advance(trial *t, uint64_t step) {
  float *slots[BL_OPTIM_SLOTS_MAX] = {t->slots[0], t->slots[1], t->slots[2], t->slots[3]};
  for (; t->clock < step; t->clock++) {
    float g[N_LONG];
    for (uint64_t i = 0; i < t->n; i++)
      g[i] = t->gradient(i, t->clock + 1);
    step_at(&t->optim, t->clock, t->no_decay, t->w, g, slots, t->n);
  }
}

static void trial_check(const trial *t, size_t i, uint32_t want_bits, double want) {
  uint32_t got_bits, inf_bits = 0x7f800000;
  memcpy(&got_bits, &t->w[i], sizeof got_bits);
  bool same = got_bits == want_bits || (isnan(t->w[i]) && (want_bits & 0x7fffffff) > inf_bits);
  ck_assert_msg(same, "%s with %s kernels: step %" PRIu64 " weight %zu is %08x, must be %08x", t->name,
                bl_kernels_get()->name, t->clock, i, got_bits, want_bits);
  if (isnan(want))
    return;
  double error = fabs((double)t->w[i] - want), allowed = 1e-5 * (1 + fabs(want));
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
  static trial t;
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
  ck_assert_uint_eq(n_cases, 49);
  ck_assert_uint_eq(n_checked, 48 * 6 * N + 4 * 39);
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

/* As after a repair: the same arrays in another process at the same clock go on with the same bits. */
static void check_repair(const char *rule, const char *schedule) {
  bl_optim a, b;
  ck_assert_ok(bl_optim_init(&a, rule, NULL, 0, schedule, NULL, 0, 500, NULL));
  float w[2][N], slots[2][BL_OPTIM_SLOTS_MAX][N], g[N];
  memset(slots, 0, sizeof slots);
  for (uint64_t i = 0; i < N; i++)
    w[0][i] = weight(i);
  for (uint64_t clock = 0; clock < 400; clock++) {
    if (clock == 200) {
      memcpy(w[1], w[0], sizeof w[0]);
      for (uint32_t s = 0; s < a.rule->n_slots; s++)
        memcpy(slots[1][s], slots[0][s], sizeof slots[0][s]);
      ck_assert_ok(bl_optim_init(&b, rule, NULL, 0, schedule, NULL, 0, 500, NULL));
    }
    for (uint64_t i = 0; i < N; i++)
      g[i] = gradient(i, clock);
    for (size_t k = 0; k < (clock < 200 ? 1 : 2); k++) {
      float *at[] = {slots[k][0], slots[k][1], slots[k][2], slots[k][3]};
      step_at(k == 0 ? &a : &b, clock, false, w[k], g, at, N);
    }
  }
  ck_assert_msg(memcmp(w[0], w[1], sizeof w[0]) == 0, "%s went on otherwise", rule);
}

START_TEST(a_step_is_a_function_of_arrays_and_clock_alone) {
  const bl_optim_rule *rule = bl_optim_rule_at((size_t)_i);
  check_repair(rule->name, rule->no_schedule ? NULL : "cosine");
}
END_TEST

/* w after 5 updates of n weights handed over in parts that begin and end anywhere. */
static void five_steps(const bl_optim *o, const bl_optim_at *group, size_t part, float *w, size_t n) {
  static float g[300], s[BL_OPTIM_SLOTS_MAX][300];
  memset(s, 0, sizeof s);
  for (size_t i = 0; i < n; i++)
    w[i] = weight(i);
  for (uint64_t step = 1; step <= 5; step++) {
    for (size_t i = 0; i < n; i++)
      g[i] = gradient(i, step);
    bl_optim_at at = *group;
    at.clock = at.step = step;
    for (size_t i = 0; i < n; i += part) {
      float *slots[] = {s[0] + i, s[1] + i, s[2] + i, s[3] + i};
      bl_optim_step(o, &at, w + i, g + i, slots, BL_MIN(part, n - i));
    }
  }
}

START_TEST(elementwise_rules_do_not_see_how_weights_are_cut) {
  const bl_optim_rule *rule = bl_optim_rule_at((size_t)_i);
  const bl_optim_at plain = bl_optim_at_clock(0, false);
  for (size_t t = 0; bl_kernels_at(t) != NULL; t++) {
    static float whole[300], cut[300];
    bl_optim o;
    ck_assert_ok(bl_kernels_force(bl_kernels_at(t)->name, NULL));
    ck_assert_ok(bl_optim_init(&o, rule->name, NULL, 0, NULL, NULL, 0, 10, NULL));
    five_steps(&o, &plain, 300, whole, 300);
    five_steps(&o, &plain, 7, cut, 300);
    bool same = memcmp(whole, cut, sizeof whole) == 0;
    ck_assert_msg(same == !rule->needs_chunk, "%s: %s", rule->name, same ? "needs_chunk is not true" : "parts differ");
    bl_optim_at at = plain;
    bl_optim_step(&o, &at, NULL, NULL, (float *[BL_OPTIM_SLOTS_MAX]){NULL}, 0);
  }
}
END_TEST

/* What a group says is what the job file could have said for this tensor alone. */
START_TEST(a_group_has_a_rate_and_a_decay_of_its_own) {
  const bl_optim_rule *rule = bl_optim_rule_at((size_t)_i);
  static float grouped[40], alone[40], exempt[40];
  bl_param params[] = {{"lr", 0.5}, {"weight_decay", 0.25}};
  size_t n_params = strcmp(rule->name, "ftrl") == 0 ? 1 : 2;
  bl_optim o, own;
  const bl_optim_at plain = bl_optim_at_clock(0, false), none = bl_optim_at_clock(0, true);
  bl_optim_at group = {.lr_scale = 0.125, .weight_decay = 0.0625};
  ck_assert_ok(bl_optim_init(&o, rule->name, params, n_params, NULL, NULL, 0, 10, NULL));
  params[0].value *= group.lr_scale;
  params[1].value = group.weight_decay;
  ck_assert_ok(bl_optim_init(&own, rule->name, params, n_params, NULL, NULL, 0, 10, NULL));
  five_steps(&o, &group, 40, grouped, 40);
  five_steps(&own, &plain, 40, alone, 40);
  ck_assert_mem_eq(grouped, alone, sizeof alone);
  five_steps(&own, &none, 40, exempt, 40);
  group.weight_decay = 0;
  five_steps(&o, &group, 40, grouped, 40);
  ck_assert_mem_eq(grouped, exempt, sizeof exempt);
  if (n_params == 2)
    ck_assert_int_ne(memcmp(alone, exempt, sizeof alone), 0);
}
END_TEST

START_TEST(a_rate_of_0_changes_no_weight) {
  const bl_optim_rule *rule = bl_optim_rule_at((size_t)_i);
  static float w[40];
  bl_optim o;
  const bl_optim_at still = {.lr_scale = 0, .weight_decay = BL_OPTIM_DECAY_OF_RULE};
  ck_assert_ok(bl_optim_init(&o, rule->name, NULL, 0, NULL, NULL, 0, 10, NULL));
  five_steps(&o, &still, 40, w, 40);
  for (uint64_t i = 0; i < 40; i++)
    ck_assert_float_eq(w[i], weight(i));
}
END_TEST

START_TEST(an_average_is_the_weighted_mean_of_all_weights_so_far) {
  static const double decays[] = {0, 0.5, 0.9, 0.999};
  double decay = decays[_i], sum = 0, factors = 0;
  float average = 0;
  for (uint64_t step = 1; step <= 2000; step++) {
    float w = gradient(0, step);
    bl_kernels_get()->average(&average, &w, bl_average_part(decay, step), 1);
    sum = decay * sum + (double)w;
    factors = decay * factors + 1;
    ck_assert_double_eq_tol((double)average, sum / factors, 1e-5);
    if (step == 1)
      ck_assert_float_eq(average, w);
  }
}
END_TEST

START_TEST(ftrl_keeps_weights_at_0_until_there_is_evidence) {
  static const bl_param params[] = {{"l1", 1}};
  bl_optim o;
  ck_assert_ok(bl_optim_init(&o, "ftrl", params, 1, NULL, NULL, 0, 10, NULL));
  float w = 0, z = 0, n = 0, g = 0.25f;
  float *slots[] = {&z, &n};
  for (uint64_t clock = 0; clock < 4; clock++) {
    step_at(&o, clock, false, &w, &g, slots, 1);
    ck_assert_float_eq(w, 0);
  }
  step_at(&o, 4, false, &w, &g, slots, 1);
  ck_assert_float_lt(w, 0);
}
END_TEST

START_TEST(ftrl_begins_at_the_weights_that_there_are) {
  static const bl_param params[] = {{"l1", 0.5}, {"l2", 0.25}};
  bl_optim o;
  ck_assert_ok(bl_optim_init(&o, "ftrl", params, 2, NULL, NULL, 0, 10, NULL));
  float w[N], z[N] = {0}, n[N] = {0}, g[N] = {0};
  float *slots[] = {z, n};
  for (uint64_t i = 0; i < N; i++)
    w[i] = weight(i);
  step_at(&o, 0, false, w, g, slots, N);
  for (uint64_t i = 0; i < N; i++)
    ck_assert_float_eq_tol(w[i], weight(i), 1e-6f);
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
      {"adadelta", {{0}}, 0, NULL, {0}, {"optimizer", "adadelta", "sgd, momentum, nesterov, adagrad"}},
      {"adamm", {{0}}, 0, NULL, {0}, {"adamm", "did you mean \"adam", "sgd"}},
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
      {"ftrl", {{"weight_decay", 0.1}}, 1, NULL, {0}, {"weight_decay", "ftrl", "lr, beta, l1, l2"}},
      {"ftrl", {{"beta", 0}}, 1, NULL, {0}, {"beta", "at least", "ftrl"}},
      {"ftrl", {{0}}, 0, "cosine", {0}, {"ftrl", "no schedule", "shrink"}},
      {"ftrl", {{0}}, 0, "constant", {"warmup", 5}, {"ftrl", "without warm-up", "shrink"}},
      {"sgd", {{0}}, 0, "one_cycle", {"rise", 1}, {"rise", "at most 0.999", "one_cycle"}},
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
  ck_assert_uint_eq(n, 11);
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
  ck_assert_uint_eq(n, 7);
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
  tcase_add_loop_test(t, a_step_is_a_function_of_arrays_and_clock_alone, 0, 10);
  tcase_add_loop_test(t, elementwise_rules_do_not_see_how_weights_are_cut, 0, 10);
  tcase_add_loop_test(t, a_group_has_a_rate_and_a_decay_of_its_own, 0, 10);
  tcase_add_loop_test(t, a_rate_of_0_changes_no_weight, 0, 10);
  tcase_add_loop_test(t, an_average_is_the_weighted_mean_of_all_weights_so_far, 0, 4);
  tcase_add_test(t, ftrl_keeps_weights_at_0_until_there_is_evidence);
  tcase_add_test(t, ftrl_begins_at_the_weights_that_there_are);
  tcase_add_test(t, adam_moves_by_the_rate_under_a_constant_gradient);
  tcase_add_test(t, rules_and_parameters_are_checked_with_a_hint);
  tcase_add_test(t, every_row_of_the_registries_is_whole);
  suite_add_tcase(s, t);
  return test_run(&s, 1);
}
