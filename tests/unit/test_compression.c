/* SPDX-License-Identifier: Apache-2.0
 *
 * The section `compression`: from the job file over the spec to each tensor's policy, and from a plan to the same.
 */
#include "base/alloc.h"
#include "base/num.h"
#include "base/rng.h"
#include "codec/spec.h"
#include "job/estimate.h"
#include "job/policy.h"
#include "job/protocol.h"
#include "tests/support/plan.h"
#include "tests/support/support.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static bl_conf_errors errors;

#define HEAD "name: x\ndata: {train: {libsvm: a}}\nmodel: {input: [784], layers: [dense 64 relu, dense 10]}\n"
#define SPARSE_HEAD "name: x\ndata: {train: {libsvm: a}}\nmodel: {input: [784], layers: [sparse 4 relu, dense 10]}\n"
#define REST "loss: softmax_cross_entropy\nbatch: 32\nepochs: 4\n"
#define SGD "optimizer: {sgd: {lr: 0.5}}\n"
#define JOB HEAD REST SGD         /* the next line is 8 */
#define TABLE SPARSE_HEAD REST SGD

static bl_job_spec *parse(const char *text) {
  bl_job_spec *s = NULL;
  bl_status st = bl_job_spec_parse(text, strlen(text), "job.yaml", "/", NULL, 0, &s, &errors);
  ck_assert_msg(st == BL_OK, "%s: %u: %s", text, errors.at[0].line, errors.n > 0 ? errors.at[0].text : "");
  return s;
}

/* "PUSH/PULL[ feedback][ momentum=M][ warmup=N]" */
static const char *describe(const bl_tensor_policy *p, char *out, size_t size) {
  char push[BL_CODEC_TEXT_MAX], pull[BL_CODEC_TEXT_MAX];
  int n = snprintf(out, size, "%s/%s%s", bl_codec_spec_write(&p->push, push), bl_codec_spec_write(&p->pull, pull),
                   p->feedback ? " feedback" : "");
  if (p->momentum > 0)
    n += snprintf(out + n, size - (size_t)n, " momentum=%g", (double)p->momentum);
  if (p->warmup_epochs > 0)
    snprintf(out + n, size - (size_t)n, " warmup=%u", p->warmup_epochs);
  return out;
}

static void check_round_trip(const bl_job_spec *s) {
  bl_buf dump = BL_BUF_INIT, again = BL_BUF_INIT;
  bl_job_spec_dump(s, &dump);
  bl_job_spec *copy = parse(bl_buf_str(&dump));
  bl_job_spec_dump(copy, &again);
  ck_assert_str_eq(bl_buf_str(&dump), bl_buf_str(&again));
  for (uint32_t t = 0; t < 2; t++) { /* the dump is not all: what it means is the same */
    bl_tensor x = {.name = "dense1.weight", .n_elems = t == 0 ? 50176 : 100, .n_dims = 2};
    char a[200], b[200];
    bl_tensor_policy one = bl_job_policy_of(s, &x), other = bl_job_policy_of(copy, &x);
    ck_assert_str_eq(describe(&one, a, sizeof a), describe(&other, b, sizeof b));
  }
  bl_job_spec_free(copy);
  bl_buf_fini(&dump);
  bl_buf_fini(&again);
}

/* ---- what a tensor gets ---- */

static const struct {
  const char *text, *want[4]; /* dense1.weight (50176), dense1.bias (64), dense2.weight (640), dense2.bias (10) */
  uint32_t protocol;
} policies[] = {
    {JOB, {"float32/float32", "float32/float32", "float32/float32", "float32/float32"}, 1},
    {JOB "compression: none\n", {"float32/float32", "float32/float32", "float32/float32", "float32/float32"}, 1},
    /* As version 1 did: every tensor. */
    {JOB "compression: float16\n",
     {"float16/float16 feedback", "float16/float16 feedback", "float16/float16 feedback", "float16/float16 feedback"}, 1},
    {JOB "compression: {pull: float16}\n", {"float32/float16", "float32/float16", "float32/float16", "float32/float16"}, 1},
    {JOB "compression: {push: float16, feedback: false}\n",
     {"float16/float32", "float16/float32", "float16/float32", "float16/float32"}, 2},
    {JOB "compression: {push: float16, exact_below: 641}\n",
     {"float16/float32 feedback", "float32/float32", "float32/float32", "float32/float32"}, 2},
    {JOB "compression: {push: float16, rules: [{kind: bias, pull: float16}, {match: dense1.*, push: float32}]}\n",
     {"float32/float32", "float16/float16 feedback", "float16/float32 feedback", "float16/float16 feedback"}, 2},
    {JOB "compression: {rules: [{elems_min: 100, elems_max: 1000, push: float16}, {kind: weight, match: \"*\", push: float32, pull: float16}]}\n",
     {"float32/float16", "float32/float32", "float16/float32 feedback", "float32/float32"}, 2},
    {JOB "compression: {push: float16, momentum_correction: 0.75}\n",
     {"float16/float32 feedback momentum=0.75", "float16/float32 feedback momentum=0.75",
      "float16/float32 feedback momentum=0.75", "float16/float32 feedback momentum=0.75"}, 2},
    {JOB "compression: auto\n", {"float32/float32", "float32/float32", "float32/float32", "float32/float32"}, 2},
    {JOB "compression: int8\n", {"int8/int8 feedback", "float32/float32", "float32/float32", "float32/float32"}, 2},
    {JOB "compression: {push: int8, exact_below: 640}\n",
     {"int8/float32 feedback", "float32/float32", "int8/float32 feedback", "float32/float32"}, 2},
    {JOB "compression: {push: int8, exact_below: 0}\n",
     {"int8/float32 feedback", "int8/float32 feedback", "int8/float32 feedback", "int8/float32 feedback"}, 2},
    {JOB "compression: {push: int8, small: float16}\n",
     {"int8/float32 feedback", "float16/float32 feedback", "float16/float32 feedback", "float16/float32 feedback"}, 2},
    {JOB "compression: safe\n", {"int4/int4 feedback", "float32/float32", "float32/float32", "float32/float32"}, 2},
    {HEAD REST "optimizer: adam\ncompression: safe\n",
     {"int4/int4 feedback", "float32/float32", "float32/float32", "float32/float32"}, 2},
    {JOB "compression: {preset: safe, pull: none}\n",
     {"int4/float32 feedback", "float32/float32", "float32/float32", "float32/float32"}, 2},
    {JOB "compression: {push: \"topk(1%)\", pull: \"topk(0.02, 2bit)\", warmup_epochs: 4}\n",
     {"topk(0.01)/topk(0.02, 2bit) feedback warmup=4", "float32/float32", "float32/float32", "float32/float32"}, 2},
    /* A moment of pulls would be the servers' own business. */
    {HEAD REST "optimizer: adam\ncompression: {push: int8, pull: \"topk(5%, int8)\"}\n",
     {"int8/topk(0.05, int8) feedback", "float32/float32", "float32/float32", "float32/float32"}, 2},
};

START_TEST(each_tensor_travels_as_the_section_says) {
  bl_job_spec *s = parse(policies[_i].text);
  bl_tensor_table *t;
  char got[200], what[64];
  ck_assert_ok(bl_tensor_table_of_job(s, &t, NULL));
  for (uint32_t i = 0; i < t->n_tensors; i++)
    ck_assert_str_eq(describe(&t->tensors[i].policy, got, sizeof got), policies[_i].want[i]);
  ck_assert_uint_eq(bl_job_spec_protocol(s, what, sizeof what), policies[_i].protocol);
  ck_assert_msg(policies[_i].protocol == 1 || strncmp(what, "compression", 11) == 0, "%s", what);
  check_round_trip(s);
  bl_tensor_table_free(t);
  bl_job_spec_free(s);
}
END_TEST

START_TEST(what_a_later_version_gives_a_preset_changes_no_job_that_is_stored) {
  bl_buf dump = BL_BUF_INIT;
  bl_job_spec *s = parse(HEAD REST "optimizer: {momentum: {lr: 0.5}}\ncompression: extreme\n");
  bl_job_spec_dump(s, &dump);
  static const char *const written[] = {"  preset: extreme\n", "  push: \"topk(", "  pull: \"topk(", "  exact_below: 1024\n",
                                        "  small: float16\n", "  feedback: true\n", "  momentum_correction: 0.9\n",
                                        "  warmup_epochs: "};
  for (size_t i = 0; i < BL_COUNT_OF(written); i++)
    ck_assert_msg(strstr(bl_buf_str(&dump), written[i]) != NULL, "no '%s' in\n%s", written[i], bl_buf_str(&dump));
  bl_buf_fini(&dump);
  bl_job_spec_free(s);
}
END_TEST

START_TEST(presets_compress_pushes_no_less_than_pulls) {
  static const char *const names[] = {"balanced", "extreme"};
  char text[600];
  snprintf(text, sizeof text, JOB "compression: %s\n", names[_i]);
  bl_job_spec *s = parse(text);
  const bl_compression_spec *c = &s->compression;
  ck_assert(c->push.codec->sparse && c->pull.codec->sparse && c->push.density <= c->pull.density);
  ck_assert_str_eq(c->small.codec->name, "float16");
  ck_assert_double_eq(c->momentum_correction, 0); /* sgd has none, and stays what it was */
  check_round_trip(s);
  bl_job_spec_free(s);
}
END_TEST

/* ---- momentum ---- */

START_TEST(a_sparse_preset_moves_the_momentum_to_the_workers) {
  bl_job_spec *s = parse(HEAD REST "optimizer: {momentum: {lr: 0.25, momentum: 0.75, weight_decay: 0.125}}\n"
                                   "groups: [{match: \"*.bias\", weight_decay: 0.25}, {match: \"dense1*\", lr_scale: 2}]\n"
                                   "compression: extreme\n");
  ck_assert_str_eq(s->optimizer, "sgd");
  ck_assert_uint_eq(s->n_optimizer_params, 2);
  ck_assert_str_eq(s->optimizer_params[0].key, "lr");
  ck_assert_double_eq(s->optimizer_params[0].value, 0.25);
  ck_assert_str_eq(s->optimizer_params[1].key, "weight_decay");
  ck_assert_double_eq(s->optimizer_params[1].value, 0.5);
  ck_assert_double_eq(s->groups[0].says.weight_decay, 1);
  ck_assert_double_eq(s->groups[1].says.weight_decay, BL_OPTIM_DECAY_OF_RULE);
  ck_assert_double_eq(s->compression.momentum_correction, 0.75);
  bl_tensor_table *t;
  ck_assert_ok(bl_tensor_table_of_job(s, &t, NULL));
  for (uint32_t i = 0; i < t->n_tensors; i++)
    ck_assert_float_eq(t->tensors[i].policy.momentum, 0.75f);
  bl_tensor_table_free(t);
  check_round_trip(s);
  bl_job_spec_free(s);
}
END_TEST

/* With local steps the optimizer is the workers' own. */
START_TEST(local_steps_keep_their_optimizer) {
  static const char *const optimizers[] = {"momentum", "adam"};
  char text[600];
  snprintf(text, sizeof text, HEAD REST "optimizer: %s\ncompression: extreme\nsync: local\n", optimizers[_i]);
  bl_job_spec *s = parse(text);
  ck_assert_str_eq(s->optimizer, optimizers[_i]);
  ck_assert_double_eq(s->compression.momentum_correction, 0);
  check_round_trip(s);
  bl_job_spec_free(s);
}
END_TEST

START_TEST(other_presets_leave_the_momentum_where_it_is) {
  static const char *const names[] = {"safe", "auto", "none", "float16"};
  char text[600];
  snprintf(text, sizeof text, HEAD REST "optimizer: momentum\ncompression: %s\n", names[_i]);
  bl_job_spec *s = parse(text);
  ck_assert_str_eq(s->optimizer, "momentum");
  ck_assert_double_eq(s->compression.momentum_correction, 0);
  bl_job_spec_free(s);
}
END_TEST

/* ---- tables ---- */

static const struct {
  const char *text, *want[3]; /* sparse1.weight, sparse1.bias, dense1.weight (40 elements) */
} table_policies[] = {
    {TABLE "compression: float16\n", {"float16/float16", "float16/float16 feedback", "float16/float16 feedback"}},
    {TABLE "compression: {push: int8, pull: bfloat16, exact_below: 0}\n",
     {"int8/bfloat16", "int8/bfloat16 feedback", "int8/bfloat16 feedback"}},
    {TABLE "compression: {push: int8(stochastic), exact_below: 0}\n",
     {"float32/float32", "int8(stochastic)/float32 feedback", "int8(stochastic)/float32 feedback"}},
    {TABLE "compression: {preset: extreme, exact_below: 20}\n",
     {"float32/float32", "float16/float16 feedback", "topk(0.01, ternary)/topk(0.03, ternary) feedback"}},
    {TABLE "compression: {preset: safe, exact_below: 20, rules: [{match: sparse1.weight, push: int8}]}\n",
     {"int8/float32", "float32/float32", "int4/int4 feedback"}},
};

START_TEST(rows_of_tables_are_exact_where_the_codec_is_not_for_them) {
  bl_job_spec *s = parse(table_policies[_i].text);
  bl_tensor_table *t;
  char got[200];
  ck_assert_ok(bl_tensor_table_of_job(s, &t, NULL));
  for (uint32_t i = 0; i < 3; i++)
    ck_assert_str_eq(describe(&t->tensors[i].policy, got, sizeof got), table_policies[_i].want[i]);
  check_round_trip(s);
  bl_tensor_table_free(t);
  bl_job_spec_free(s);
}
END_TEST

/* ---- mistakes ---- */

#define MOMENTUM HEAD REST "optimizer: momentum\n"
#define ADAM HEAD REST "optimizer: adam\n"

static const struct {
  const char *text;
  const char *says; /* in line 8 */
} mistakes[] = {
    {JOB "compression: saef\n", "did you mean 'safe'?"},
    {JOB "compression: zip\n", "there is no compression 'zip' (allowed: none, float32, float16"},
    {JOB "compression: zip\n", "safe, balanced, extreme, auto)"},
    {JOB "compression: {push: balanced}\n", "there is no compression 'balanced'"},
    {JOB "compression: {pushes: float16}\n", "did you mean 'push'?"},
    {JOB "compression: {preset: fast}\n", "'fast' is no preset (allowed: none, safe, balanced, extreme, auto)"},
    {JOB "compression: {preset: [safe]}\n", "a list is no preset"},
    {JOB "compression: {push: {codec: float16}}\n", "a mapping is not allowed here; write a codec's name"},
    {JOB "compression: {exact_below: -1}\n", "write a whole number"},
    {JOB "compression: {small: tiny}\n", "there is no compression 'tiny'"},
    {JOB "compression: {feedback: yes}\n", "write true or false"},
    {JOB "compression: {momentum_correction: 1}\n", "allowed: 0 to below 1"},
    {JOB "compression: {momentum_correction: -0.5}\n", "allowed: 0 to below 1"},
    {JOB "compression: {warmup_epochs: 1001}\n", "allowed: 0 to 1000"},
    {JOB "compression: {push: float16, warmup_epochs: 2}\n", "no tensor travels like that"},
    {JOB "compression: {rules: {match: a}}\n", "write a list of at most 256 rules"},
    {JOB "compression: {rules: [float16]}\n", "write a rule as {match: PATTERN"},
    {JOB "compression: {rules: [{match: \"*\"}]}\n", "the rule says nothing"},
    {JOB "compression: {rules: [{match: \"*\", pusch: float16}]}\n", "did you mean 'push'?"},
    {JOB "compression: {rules: [{kind: wieght, push: float16}]}\n", "did you mean 'weight'?"},
    {JOB "compression: {rules: [{match: dense3.*, push: float16}]}\n", "the rule holds for no tensor"},
    {JOB "compression: {rules: [{push: float16}, {match: dense1.*, push: none}]}\n", "the rule holds for no tensor"},
    {JOB "compression: {rules: [{elems_min: 9, elems_max: 8, push: float16}]}\n", "the rule holds for no tensor"},
    {MOMENTUM "compression: {push: float16, momentum_correction: 0.9}\n", "the optimizer 'momentum' has one of its own"},
    {ADAM "compression: {push: float16, momentum_correction: 0.9}\n", "the optimizer 'adam' has one of its own"},
    {JOB "compression: {push: float16, momentum_correction: 0.9, feedback: false}\n", "it needs feedback: true"},
    {TABLE "compression: {push: float16, momentum_correction: 0.9}\n", "can have no momentum on the workers"},
    {TABLE "compression: {rules: [{match: sparse1.weight, push: int4}]}\n", "cannot travel as int4; allowed for it are"},
    {TABLE "compression: {rules: [{match: \"*\", pull: \"topk(1%)\"}]}\n", "the rows of the table 'sparse1.weight' cannot travel"},
    {JOB "compression: \"topk(0)\"\n", "'0' is no density"},
    {JOB "compression: topk\n", "topk needs a density, as in topk(0.01)"},
    {MOMENTUM "compression: {push: \"topk(1%)\"}\n", "behind parts of gradients the momentum on the servers costs accuracy"},
    {HEAD REST "optimizer: nesterov\ncompression: extreme\n", "compression.momentum_correction: 0.9"},
    {HEAD REST "optimizer: nesterov\ncompression: balanced\n", "'dense1.weight' is pushed with topk(0.03, ternary)"},
    {ADAM "compression: balanced\n", "write preset: safe, or sync: local"},
    {HEAD REST "optimizer: rmsprop\ncompression: extreme\n", "'rmsprop' keeps moments of whole gradients"},
    {ADAM "compression: {push: none, rules: [{match: dense2.weight, push: \"topk(9%)\"}]}\n", "'dense2.weight' is pushed with topk(0.09)"},
    {ADAM "compression: extreme\nsync: local\nouter: nesterov\n", "'outer: nesterov' keeps moments of whole differences"},
    {JOB "compression: {push: float16, momentum_correction: 0.9}\nsync: local\nouter: adam\n", "write outer: average"},
    {MOMENTUM "compression: {preset: extreme, momentum_correction: 0.9}\n", "the optimizer 'momentum' has one of its own"},
    {HEAD REST "optimizer: {momentum: {lr: 1, weight_decay: 0.2}}\ncompression: extreme\n", "at most 1 is allowed"},
    {JOB "compression: {push: \"topk(2%)\", pull: \"topk(1%)\"}\n", "pull at least as much"},
    {JOB "compression: extreme\nclip: {global_norm: 1}\n", "write clip.norm in place of clip.global_norm"},
    {SPARSE_HEAD REST "optimizer: momentum\ncompression: {preset: extreme, exact_below: 20}\n", "can have no momentum on the workers"},
};

START_TEST(mistake_is_named_once_with_its_line) {
  bl_job_spec *s = NULL;
  const char *text = mistakes[_i].text;
  unsigned line = strstr(text, "momentum: {lr: 1,") != NULL ? 7 : 8; /* the optimizer's */
  ck_assert_status(bl_job_spec_parse(text, strlen(text), "job.yaml", "/", NULL, 0, &s, &errors), BL_EINVAL);
  ck_assert_uint_eq(errors.n, 1);
  ck_assert_msg(strstr(errors.at[0].text, mistakes[_i].says) != NULL && errors.at[0].line == line, "%s: line %u: %s", text,
                errors.at[0].line, errors.at[0].text);
}
END_TEST

START_TEST(reading_survives_the_loss_of_any_allocation) {
  static const char text[] = JOB "compression: {push: float16, rules: [{match: dense1.*, push: float32}, {kind: bias, pull: float16}]}\n";
  uint64_t live = bl_alloc_get_stats().live_blocks;
  bool done = false;
  for (uint64_t n = 1; !done; n++) {
    bl_job_spec *s = NULL;
    bl_alloc_fail_after(n);
    bl_status st = bl_job_spec_parse(text, strlen(text), "j", "/", NULL, 0, &s, &errors);
    bl_alloc_fail_after(0);
    done = st == BL_OK;
    ck_assert_msg(done || st == BL_ENOMEM, "%s", bl_status_name(st));
    bl_job_spec_free(s);
    ck_assert_uint_eq(bl_alloc_get_stats().live_blocks, live);
  }
}
END_TEST

/* ---- density ---- */

START_TEST(density_falls_by_quarters_during_the_warm_up) {
  static const struct {
    float density;
    uint32_t warmup;
    uint64_t epoch;
    float want;
  } cases[] = {
      {0.001f, 4, 0, 0.25f},     {0.001f, 4, 1, 0.0625f},   {0.001f, 4, 2, 0.015625f}, {0.001f, 4, 3, 0.00390625f},
      {0.001f, 4, 4, 0.001f},    {0.001f, 4, 1u << 30, 0.001f}, {0.01f, 9, 3, 0.01f},  {0.01f, 0, 0, 0.01f},
      {0.5f, 3, 0, 0.5f},        {1e-6f, 1000, 999, 1e-6f}, {0.001f, 1, 0, 0.25f},     {0.001f, 1, 1, 0.001f},
      {1e-6f, 1000, UINT64_MAX, 1e-6f},
  };
  for (size_t i = 0; i < BL_COUNT_OF(cases); i++)
    ck_assert_float_eq(bl_density_at(cases[i].density, cases[i].warmup, cases[i].epoch), cases[i].want);
  bl_codec_spec exact = bl_codec_spec_at(&bl_codec_spec_exact, 4, 0);
  ck_assert(bl_codec_spec_equal(&exact, &bl_codec_spec_exact));
}
END_TEST

START_TEST(frames_of_the_warm_up_fit_into_the_buffers) {
  bl_job_spec *s = parse(JOB "compression: {push: \"topk(0.1%)\", pull: \"topk(1%)\", warmup_epochs: 2, exact_below: 0}\n");
  bl_tensor_table *t;
  ck_assert_ok(bl_tensor_table_of_job(s, &t, NULL));
  bl_codec_spec first;
  ck_assert_ok(bl_codec_spec_read("topk(25%)", &first, NULL));
  ck_assert_uint_ge(bl_tensor_table_frame_bytes_max(t, true), bl_codec_bound_bytes(&first, 50176));
  ck_assert_uint_ge(bl_tensor_table_frame_bytes_max(t, false), bl_codec_bound_bytes(&first, 50176));
  bl_tensor_table_free(t);
  bl_job_spec_free(s);
}
END_TEST

/* ---- estimates ---- */

#define N_ESTIMATED 200000

START_TEST(estimated_frames_are_as_large_as_real_ones) {
  static const char *const texts[] = {"float32", "float16", "int8", "int4", "sign", "ternary", "qsgd(4)", "natural",
                                      "topk(10%, ternary)", "topk(3%, ternary)", "topk(1%, ternary)", "topk(0.1%, ternary)",
                                      "topk(1%, 2bit)", "topk(1%, int8)", "topk(1%, float16)", "topk(1%)", "randomk(1%)",
                                      "randomk(2%, int8)", "lowrank(2)"};
  bl_codec_spec spec;
  ck_assert_ok(bl_codec_spec_read(texts[_i], &spec, NULL));
  float *x = bl_malloc(N_ESTIMATED * sizeof *x);
  uint8_t *frame = bl_malloc(bl_codec_bound_bytes(&spec, N_ESTIMATED));
  ck_assert(x != NULL && frame != NULL);
  for (uint32_t i = 0; i < N_ESTIMATED; i++)
    x[i] = bl_rng_normal(1, 2, i);
  bl_encode e = {.spec = &spec, .key = 3, .columns = 500};
  double real = (double)bl_codec_encode(&e, x, NULL, N_ESTIMATED, 0, frame);
  double expected = (double)bl_frame_bytes_expected(&spec, N_ESTIMATED, 500);
  ck_assert_msg(fabs(expected - real) <= 0.02 * real, "%s: %g expected, %g real", texts[_i], expected, real);
  bl_free(x);
  bl_free(frame);
}
END_TEST

/* 784-512-256-10, what README says of the presets: frames only. */
START_TEST(presets_save_what_they_promise) {
  static const struct {
    const char *preset;
    double up, down;
  } cases[] = {{"safe", 7.5, 7.5}, {"balanced", 100, 40}, {"extreme", 200, 100}};
  char text[600];
  snprintf(text, sizeof text, "name: x\ndata: {train: {libsvm: a}}\nmodel: {input: [784], layers: [dense 512 relu, dense 256 relu, "
           "dense 10]}\n" REST SGD "ranks: 2\ncompression: %s\n", cases[_i].preset);
  bl_job_spec *s = parse(text);
  bl_job_estimate e;
  ck_assert_ok(bl_job_estimate_make(s, &e, NULL));
  double dense = 2.0 * 4 * (double)e.n_weights;
  ck_assert_msg(dense / (double)e.push_bytes_per_clock >= cases[_i].up && dense / (double)e.pull_bytes_per_clock >= cases[_i].down,
                "%s: %.1f up, %.1f down", cases[_i].preset, dense / (double)e.push_bytes_per_clock,
                dense / (double)e.pull_bytes_per_clock);
  bl_job_spec_free(s);
}
END_TEST

/* ---- plans ---- */

static Ballast__Control__JobPlan *plan_of(const test_table *table) {
  return test_plan_new(&(test_plan_options){.job = 1, .world = 2, .n_shards = 1, .codec_push = "float16",
                                            .tables = table, .n_tables = table != NULL});
}

START_TEST(a_plan_says_how_each_tensor_travels) {
  Ballast__Control__JobPlan *plan = plan_of(&(test_table){8, 2});
  bl_tensor_table *t;
  char got[200], *push = plan->tensors[1]->codec_push, *pull = plan->tensors[2]->codec_pull;
  plan->momentum_correction = 0.5;
  plan->tensors[1]->codec_push = (char *)"float32";
  plan->tensors[2]->codec_pull = (char *)"float16";
  static const char *const want[] = {"float16/float32 feedback momentum=0.5", "float32/float32 momentum=0.5",
                                     "float16/float16 feedback momentum=0.5", "float16/float32"};
  ck_assert_ok(bl_plan_table(plan, &t, NULL));
  for (uint32_t i = 0; i < t->n_tensors; i++)
    ck_assert_str_eq(describe(&t->tensors[i].policy, got, sizeof got), want[i]);
  bl_tensor_table_free(t);
  plan->feedback = false; /* a coordinator of version 1 */
  ck_assert_ok(bl_plan_table(plan, &t, NULL));
  ck_assert(!t->tensors[0].policy.feedback);
  bl_tensor_table_free(t);
  plan->tensors[1]->codec_push = push;
  plan->tensors[2]->codec_pull = pull;
  bl_control_free(&plan->base);
}
END_TEST

START_TEST(a_plan_that_lies_about_compression_is_a_sentence) {
  static const struct {
    double momentum;
    uint32_t warmup;
    uint64_t epoch_clocks;
    const char *push, *says;
    bool table;
  } cases[] = {
      {1, 0, 0, "", "momentum_correction is 1", false},
      {-0.5, 0, 0, "", "momentum_correction is -0.5", false},
      {(double)NAN, 0, 0, "", "momentum_correction is", false},
      {0, 1001, 1, "", "warmup_epochs is 1001", false},
      {0, 1, 0, "", "a warm-up over epochs of no clocks", false},
      {0, 0, 0, "float61", "unknown codec 'float61'", false},
      {0, 0, 0, "topk(2)", "unknown codec 'topk(2)'", false},
      {0.5, 0, 0, "", "rows of the table 't3' cannot travel as float16 and float32 with momentum", true},
      {0, 0, 0, "int4", "rows of the table 't3' cannot travel as int4", true},
  };
  for (size_t i = 0; i < BL_COUNT_OF(cases); i++) {
    Ballast__Control__JobPlan *plan = plan_of(cases[i].table ? &(test_table){8, 2} : NULL);
    bl_tensor_table *t = NULL;
    bl_error err = BL_ERROR_INIT;
    Ballast__Control__Tensor *last = plan->tensors[plan->n_tensors - 1];
    char *kept = last->codec_push;
    plan->momentum_correction = cases[i].momentum;
    plan->warmup_epochs = cases[i].warmup;
    plan->epoch_clocks = cases[i].epoch_clocks;
    last->codec_push = (char *)(uintptr_t)cases[i].push;
    bl_status st = bl_plan_table(plan, &t, &err);
    if (st == BL_OK)
      st = bl_plan_check(plan, t, &err);
    ck_assert_msg(st != BL_OK && strstr(err.text, cases[i].says) != NULL, "%zu: %s", i, err.text);
    bl_tensor_table_free(t);
    last->codec_push = kept;
    bl_control_free(&plan->base);
  }
}
END_TEST

START_TEST(a_plan_with_an_unknown_policy_for_nan_is_refused) {
  Ballast__Control__JobPlan *plan = plan_of(NULL);
  bl_tensor_table *t;
  bl_error err = BL_ERROR_INIT;
  ck_assert_ok(bl_plan_table(plan, &t, NULL));
  plan->not_finite = BL_NOT_FINITE_CLIP;
  ck_assert_ok(bl_plan_check(plan, t, NULL));
  plan->not_finite = BL_NOT_FINITE_COUNT;
  ck_assert_status(bl_plan_check(plan, t, &err), BL_EUNSUPPORTED);
  ck_assert_msg(strstr(err.text, "unknown policy 3") != NULL, "%s", err.text);
  bl_tensor_table_free(t);
  bl_control_free(&plan->base);
}
END_TEST

START_TEST(a_plan_knows_the_epoch_of_a_clock_and_who_clips) {
  Ballast__Control__JobPlan *plan = plan_of(NULL);
  bl_tensor_table *t;
  ck_assert_uint_eq(bl_plan_epoch(plan, 3), UINT64_MAX); /* no warm-up: behind any */
  plan->epoch_clocks = 4;
  ck_assert_uint_eq(bl_plan_epoch(plan, 3), 0);
  ck_assert_uint_eq(bl_plan_epoch(plan, 8), 2);
  ck_assert_ok(bl_plan_table(plan, &t, NULL));
  ck_assert(!bl_plan_clips_locally(plan, t));
  plan->clip_norm = 1;
  ck_assert(bl_plan_clips_locally(plan, t));
  for (uint32_t i = 0; i < t->n_tensors; i++)
    t->tensors[i].policy.feedback = false;
  ck_assert(!bl_plan_clips_locally(plan, t));
  t->tensors[2].policy.momentum = 0.5f;
  ck_assert(bl_plan_clips_locally(plan, t));
  bl_tensor_table_free(t);
  bl_control_free(&plan->base);
}
END_TEST

int main(void) {
  Suite *s = suite_create("compression");
  TCase *tc = tcase_create("job file");
  tcase_add_loop_test(tc, each_tensor_travels_as_the_section_says, 0, BL_COUNT_OF(policies));
  tcase_add_test(tc, what_a_later_version_gives_a_preset_changes_no_job_that_is_stored);
  tcase_add_loop_test(tc, presets_compress_pushes_no_less_than_pulls, 0, 2);
  tcase_add_test(tc, a_sparse_preset_moves_the_momentum_to_the_workers);
  tcase_add_loop_test(tc, local_steps_keep_their_optimizer, 0, 2);
  tcase_add_loop_test(tc, other_presets_leave_the_momentum_where_it_is, 0, 4);
  tcase_add_loop_test(tc, rows_of_tables_are_exact_where_the_codec_is_not_for_them, 0, BL_COUNT_OF(table_policies));
  tcase_add_loop_test(tc, mistake_is_named_once_with_its_line, 0, BL_COUNT_OF(mistakes));
  tcase_add_test(tc, reading_survives_the_loss_of_any_allocation);
  tcase_add_test(tc, density_falls_by_quarters_during_the_warm_up);
  tcase_add_test(tc, frames_of_the_warm_up_fit_into_the_buffers);
  suite_add_tcase(s, tc);
  tc = tcase_create("estimates");
  tcase_add_loop_test(tc, estimated_frames_are_as_large_as_real_ones, 0, 19);
  tcase_add_loop_test(tc, presets_save_what_they_promise, 0, 3);
  suite_add_tcase(s, tc);
  tc = tcase_create("plan");
  tcase_add_test(tc, a_plan_says_how_each_tensor_travels);
  tcase_add_test(tc, a_plan_that_lies_about_compression_is_a_sentence);
  tcase_add_test(tc, a_plan_with_an_unknown_policy_for_nan_is_refused);
  tcase_add_test(tc, a_plan_knows_the_epoch_of_a_clock_and_who_clips);
  suite_add_tcase(s, tc);
  return test_run(&s, 1);
}
