/* SPDX-License-Identifier: Apache-2.0 */
#include "base/alloc.h"
#include "base/num.h"
#include "base/file.h"
#include "codec/codec.h"
#include "conf/doc.h"
#include "conf/schema.h"
#include "job/estimate.h"
#include "job/spec.h"
#include "job/tensors.h"
#include "tests/support/support.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bl_conf_errors errors;

/* ---- examples and round trips ---- */

static const char *const examples[] = {"fashion-mlp", "a9a-logistic", "housing-regression", "seed-text", "digits",
                                       "fashion-early-stopping", "fashion-large-batch", "fashion-ssp", "fashion-slow-link", "a9a-stream", "a9a-ftrl",
                                       "clicks"};

static void check_round_trip(const bl_job_spec *spec) {
  bl_buf dump = BL_BUF_INIT, again = BL_BUF_INIT;
  bl_job_spec *copy = NULL;
  bl_job_spec_dump(spec, &dump);
  bl_status status = bl_job_spec_parse(bl_buf_str(&dump), dump.size, "dump", "/nowhere", NULL, 0, &copy, &errors);
  ck_assert_msg(status == BL_OK, "%u: %s in\n%s", errors.at[0].line, errors.at[0].text, bl_buf_str(&dump));
  bl_job_spec_dump(copy, &again);
  ck_assert_str_eq(bl_buf_str(&dump), bl_buf_str(&again));
  bl_job_spec_free(copy);
  bl_buf_fini(&dump);
  bl_buf_fini(&again);
}

START_TEST(every_example_is_read_and_comes_back_from_its_dump) {
  char path[200];
  snprintf(path, sizeof path, "conf/jobs/%s.yaml", examples[_i]);
  bl_job_spec *spec = NULL;
  bl_status status = bl_job_spec_read(test_source_path(path), NULL, 0, &spec, &errors);
  ck_assert_msg(status == BL_OK, "%s:%u: %s", path, errors.at[0].line, errors.at[0].text);
  ck_assert_str_eq(spec->name, examples[_i]);
  ck_assert_int_eq(spec->data.train.paths[0][0], '/');
  check_round_trip(spec);
  bl_tensor_table *table;
  bl_error err;
  ck_assert_ok_err(bl_tensor_table_of_model(&spec->model, spec->chunk_bytes, &table, &err), err);
  bl_tensor_table_free(table);
  bl_job_spec_free(spec);
}
END_TEST

/* ---- values ---- */

#define TAIL "loss: softmax_cross_entropy\noptimizer: adam\nbatch: 32\nepochs: 2\n"
#define DATA "data: {train: {idx: [images, labels]}}\n"
#define MODEL "model: {input: [4], layers: [dense 3 relu, dense 2]}\n"
#define ONE "model: {input: [4], layers: [dense 3 relu, dense 1]}\n"
#define GOOD "name: good\n" DATA MODEL TAIL

static bl_job_spec *parse_set(const char *text, const char *const *set, size_t n_set) {
  bl_job_spec *spec = NULL;
  bl_status status = bl_job_spec_parse(text, strlen(text), "job.yaml", "/base", set, n_set, &spec, &errors);
  ck_assert_msg(status == BL_OK, "%s: line %u: %s\n%s", bl_status_name(status), errors.at[0].line,
                errors.n > 0 ? errors.at[0].text : "", text);
  return spec;
}

START_TEST(defaults_are_as_documented) {
  bl_job_spec *s = parse_set(GOOD, NULL, 0);
  ck_assert_uint_eq(s->seed, 1);
  ck_assert_int_eq(s->data.where, BL_DATA_SHARED);
  ck_assert_str_eq(s->data.train.paths[1], "/base/labels");
  ck_assert_int_eq(s->data.test.kind, BL_SOURCE_NONE);
  ck_assert_double_eq(s->data.validation, 0);
  ck_assert(s->data.shuffle);
  ck_assert_int_eq(s->data.normalize, BL_NORMALIZE_UNIT);
  ck_assert_str_eq(s->model.layers[0].name, "dense1");
  ck_assert_int_eq(s->model.layers[0].activation, BL_ACT_RELU);
  ck_assert(s->model.layers[1].bias);
  ck_assert_str_eq(s->optimizer, "adam");
  ck_assert_str_eq(s->optimizer_params[0].key, "lr");
  ck_assert_double_eq(s->optimizer_params[0].value, 1e-3);
  ck_assert_str_eq(s->schedule, "constant");
  ck_assert_uint_eq(s->ranks, 1);
  ck_assert_uint_eq(s->workers_min, 1);
  ck_assert_str_eq(s->sync, "bsp");
  ck_assert_str_eq(s->compression.push.codec->name, "float32");
  ck_assert_str_eq(s->compression.pull.codec->name, "float32");
  ck_assert_uint_eq(s->chunk_bytes, 1u << 20);
  ck_assert_uint_eq(s->key_cache_bytes, 64u << 20);
  ck_assert_uint_eq(s->task_retries, 3);
  ck_assert_uint_eq(s->accumulate, 1);
  ck_assert_uint_eq(s->n_metrics, 0);
  ck_assert_uint_eq(s->blas_threads, 1);
  ck_assert_ptr_null(s->output);
  bl_job_spec_free(s);
}
END_TEST

static const char rich[] =
    "name: rich\n"
    "seed: 18446744073709551615\n"
    "data:\n"
    "  test: {csv: t.csv}\n"
    "  train: {csv: {paths: [a.csv, \"b c.csv\"], target: y, delimiter: tab, categorical: x, missing: skip}}\n"
    "  validation: 12.5 %\n"
    "  shuffle: false\n"
    "  standardize_target: true\n"
    "model:\n"
    "  input: [2, 4]\n"
    "  layers:\n"
    "    - flatten\n"
    "    - dense: {units: 6, bias: false, init: zero, name: first}\n"
    "    - dropout 20 %\n"
    "    - gelu\n"
    "    - dense 1\n"
    "loss: squared\n"
    "optimizer: {momentum: {lr: 0.5}}\n"
    "groups:\n"
    "  - {match: first.*, frozen: true}\n"
    "  - {match: \"*.bias\", lr_scale: 0.5}\n"
    "  - {match: \"*\", lr_scale: 2, weight_decay: 0.25}\n"
    "clip: {norm: 2.5}\n"
    "not_finite: skip_clock\n"
    "batch: 12\n"
    "epochs: 3\n"
    "ranks: 4\n"
    "workers: {min: 2}\n"
    "compression: {push: float16}\n"
    "chunk: 64 KiB\n"
    "keys: {cache: 1 MiB}\n"
    "output: ../out\n";

START_TEST(values_reach_the_spec) {
  bl_job_spec *s = parse_set(rich, NULL, 0);
  ck_assert_uint_eq(s->seed, UINT64_MAX);
  ck_assert_uint_eq(s->data.train.n_paths, 2);
  ck_assert_str_eq(s->data.train.paths[1], "/base/b c.csv");
  ck_assert_int_eq(s->data.train.delimiter, '\t');
  ck_assert_str_eq(s->data.train.categorical[0], "x");
  ck_assert_ptr_null(s->data.train.columns);
  ck_assert_int_eq(s->data.normalize, BL_NORMALIZE_STANDARD);
  ck_assert_double_eq(s->data.validation, 0.125);
  ck_assert_uint_eq(s->model.n_input_dims, 2);
  ck_assert_str_eq(s->model.layers[1].name, "first");
  ck_assert(!s->model.layers[1].bias);
  ck_assert_double_eq(s->model.layers[2].rate, 0.2);
  ck_assert_int_eq(s->model.layers[3].kind, BL_LAYER_ACTIVATION);
  ck_assert_int_eq(s->model.layers[3].activation, BL_ACT_GELU);
  ck_assert_str_eq(s->model.layers[4].name, "dense2");
  ck_assert_uint_eq(s->model.layers[4].line, 16);
  ck_assert_double_eq(s->optimizer_params[0].value, 0.5);
  ck_assert_double_eq(s->optimizer_params[1].value, 0.9);
  ck_assert_double_eq(s->clip_norm, 2.5);
  ck_assert_int_eq(s->not_finite, BL_NOT_FINITE_SKIP);
  ck_assert_str_eq(s->compression.push.codec->name, "float16");
  ck_assert_str_eq(s->compression.pull.codec->name, "float32");
  ck_assert_uint_eq(s->chunk_bytes, 65536);
  ck_assert_uint_eq(s->key_cache_bytes, 1 << 20);
  ck_assert_str_eq(s->output, "/out");
  check_round_trip(s);
  bl_job_spec_free(s);
}
END_TEST

START_TEST(test_set_takes_what_it_leaves_out_from_the_training_set) {
  bl_job_spec *s = parse_set(rich, NULL, 0);
  ck_assert_uint_eq(s->data.test.n_paths, 1);
  ck_assert_str_eq(s->data.test.paths[0], "/base/t.csv");
  ck_assert_str_eq(s->data.test.target, "y");
  ck_assert_int_eq(s->data.test.missing, BL_MISSING_SKIP);
  bl_job_spec_free(s);
}
END_TEST

START_TEST(softmax_at_the_end_belongs_to_the_loss) {
  static const char *const layers[] = {"[dense 3 relu, dense 2 softmax]", "[dense 3 relu, dense 2, softmax]"};
  char text[500];
  snprintf(text, sizeof text, "name: x\n" DATA "model: {input: [4], layers: %s}\n" TAIL, layers[_i]);
  bl_job_spec *s = parse_set(text, NULL, 0);
  ck_assert_uint_eq(s->model.n_layers, 2);
  ck_assert_int_eq(s->model.layers[1].activation, BL_ACT_NONE);
  check_round_trip(s);
  bl_job_spec_free(s);
}
END_TEST

START_TEST(overrides_change_the_document_before_the_checks) {
  static const char *const set[] = {
      "epochs=5", "optimizer.adam.lr=0.25", "model.layers.1=dense 7", "clip.value=3",
      "model.layers.0={dense: {units: 9, name: wide}}", "data.test={idx: [a, /b]}", "epochs=6", "seed="};
  bl_job_spec *s = parse_set(GOOD, set, BL_COUNT_OF(set));
  ck_assert_uint_eq(s->epochs, 6);
  ck_assert_double_eq(s->optimizer_params[0].value, 0.25);
  ck_assert_uint_eq(s->model.layers[0].units, 9);
  ck_assert_str_eq(s->model.layers[0].name, "wide");
  ck_assert_uint_eq(s->model.layers[1].units, 7);
  ck_assert_double_eq(s->clip_value, 3);
  ck_assert_str_eq(s->data.test.paths[1], "/b");
  ck_assert_uint_eq(s->seed, 1);
  bl_job_spec_free(s);
}
END_TEST

/* The shards step by the outer rule at a constant rate; what differs for some tensors is the workers'. */
START_TEST(local_steps_leave_the_servers_another_rule) {
  static const struct {
    const char *set[3];
    const char *rule;
    double lr;
    uint32_t steps;
  } cases[] = {
      {{"sync=bsp", "epochs=2", "epochs=2"}, "momentum", 0.5, 0},
      {{"sync=local", "schedule=cosine", "epochs=2"}, "sgd", 1, 16},
      {{"sync={local: {steps: 500}}", "outer={nesterov: {momentum: 0.8}}", "schedule=cosine"}, "nesterov", 0.7, 500},
      {{"sync={local: {steps: 4}}", "outer={adam: {lr: 0.1}}", "epochs=2"}, "adam", 0.1, 4},
      {{"sync={local: {steps: 4}}", "outer=yogi", "epochs=2"}, "yogi", 0.01, 4},
      {{"sync={local: {steps: 4}}", "compression=balanced", "epochs=2"}, "sgd", 1, 4}, /* the momentum stays */
      {{"sync={local: {steps: 4}}", "outer={streams: 3, overlap: 2}", "epochs=2"}, "sgd", 1, 4},
      {{"sync={local: {steps: 4}}", "outer={yogi: {lr: 0.5}, streams: 1, overlap: 4, mix: 0.25}", "epochs=2"}, "yogi", 0.5, 4},
  };
  for (size_t i = 0; i < BL_COUNT_OF(cases); i++) {
    bl_job_spec *s = parse_set(rich, cases[i].set, 3);
    bl_job_rule rule = bl_job_server_rule(s), schedule = bl_job_server_schedule(s);
    bl_optim o;
    bl_error err = BL_ERROR_INIT;
    ck_assert_ok_err(bl_optim_init(&o, rule.name, rule.params, rule.n_params, schedule.name, schedule.params,
                                   schedule.n_params, 100, &err), err);
    ck_assert_str_eq(rule.name, cases[i].rule);
    ck_assert_double_eq(o.params[0], cases[i].lr);
    ck_assert_uint_eq(s->local_steps, cases[i].steps);
    ck_assert_uint_eq(bl_job_clock_samples(s), s->batch * BL_MAX(cases[i].steps, 1));
    bl_update_group group = bl_job_server_group(s, (bl_update_group){true, 2, 0.25, false});
    ck_assert(group.set == (s->local_steps == 0));
    ck_assert(bl_job_server_group(s, (bl_update_group){true, 1, -1, true}).frozen);
    ck_assert_str_eq(s->optimizer, "momentum");
    ck_assert_str_eq(schedule.name, s->local_steps > 0 ? "constant" : s->schedule);
    check_round_trip(s);
    bl_job_spec_free(s);
  }
}
END_TEST

START_TEST(the_first_group_that_matches_holds) {
  bl_job_spec *s = parse_set(rich, NULL, 0);
  bl_tensor_table *t;
  ck_assert_ok(bl_tensor_table_of_job(s, &t, NULL));
  static const struct {
    const char *name;
    bl_update_group group;
  } want[] = {{"first.weight", {true, 1, -1, true}}, {"dense2.weight", {true, 2, 0.25, false}},
              {"dense2.bias", {true, 0.5, -1, false}}};
  ck_assert_uint_eq(t->n_tensors, BL_COUNT_OF(want));
  for (uint32_t i = 0; i < t->n_tensors; i++) {
    const bl_update_group *g = &t->tensors[i].group;
    ck_assert_str_eq(t->tensors[i].name, want[i].name);
    ck_assert(g->set && g->frozen == want[i].group.frozen);
    ck_assert_double_eq(g->lr_scale, want[i].group.lr_scale);
    ck_assert_double_eq(g->weight_decay, want[i].group.weight_decay);
  }
  /* A group without a weight decay of its own leaves biases exempt. */
  ck_assert_double_eq(bl_tensor_optim_at(&t->tensors[2], 5, 6).weight_decay, 0);
  ck_assert_double_eq(bl_tensor_optim_at(&t->tensors[0], 5, 6).weight_decay, BL_OPTIM_DECAY_OF_RULE);
  bl_tensor_table_free(t);
  ck_assert_ok(bl_tensor_table_of_model(&s->model, s->chunk_bytes, &t, NULL));
  ck_assert(!t->tensors[0].group.set);
  bl_tensor_table_free(t);
  bl_job_spec_free(s);
}
END_TEST

/* ---- mistakes ---- */

static const struct {
  const char *text;
  unsigned line;
  const char *says;
} mistakes[] = {
    {"", 0, "'name' is missing"},
    {"name: Fashion\n" DATA MODEL TAIL, 1, "write small letters, digits"},
    {"name: x\nname: y\n" DATA MODEL TAIL, 2, "first given in line 1"},
    {"name: [a]\n" DATA MODEL TAIL, 1, "a list is not allowed here"},
    {GOOD "seed: -1\n", 8, "'-1' is not allowed here; write a whole number"},
    {GOOD "seed: 18446744073709551616\n", 8, "write a whole number"},
    {GOOD "optimiser: sgd\n", 8, "did you mean 'optimizer'?"},
    {GOOD "zebra: 1\n", 8, "allowed here: name, seed"},
    {GOOD "ranks: 33\n", 8, "33 ranks cannot share a batch of 32 samples"},
    {GOOD "ranks: 5000\n", 8, "5000 is out of range; allowed: 1 to 4096"},
    {GOOD "workers: {min: 2}\n", 8, "2 workers cannot share 1 ranks"},
    {GOOD "sync: {local: {steps: 0}}\n", 8, "0 steps are too few; write at least 1"},
    {GOOD "sync: {local: {steps: 1000001}}\n", 8, "1000001 steps are too many; at most 1000000 are allowed"},
    {GOOD "sync: {local: 16}\n", 8, "write {steps: STEPS}"},
    {GOOD "sync: {local: {step: 16}}\n", 8, "did you mean 'steps'?"},
    {GOOD "sync: local\naccumulate: 2\n", 9, "with local steps every batch is a step; write steps in place of accumulate"},
    {GOOD "sync: local\nclip: {global_norm: 1}\n", 9, "with local steps every rank clips the gradients of its own: write clip.norm"},
    {"name: x\n" DATA MODEL "loss: softmax_cross_entropy\noptimizer: ftrl\nbatch: 1\nepochs: 1\nsync: local\n", 5,
     "'ftrl' makes its weights anew from its own sums, and would undo what the ranks exchange"},
    {"name: x\n" DATA MODEL "loss: softmax_cross_entropy\noptimizer: adam\nbatch: 1048576\nepochs: 2\nsync: {local: {steps: 1025}}\n", 8,
     "1025 steps of 1048576 samples are more than the 1073741824 that a round may have"},
    {GOOD "outer: nesterov\n", 8, "the outer optimizer belongs to local steps: write 'sync: {local: {steps: STEPS}}'"},
    {GOOD "sync: ssp\nouter: average\n", 9, "the outer optimizer belongs to local steps"},
    {GOOD "sync: local\nouter: sgd\n", 9, "there is no outer optimizer 'sgd' (allowed: average, nesterov, adam, yogi)"},
    {GOOD "sync: local\nouter: nesterof\n", 9, "did you mean 'nesterov'?"},
    {GOOD "sync: local\nouter: {average: {lr: 1}}\n", 9, "'average' has no such parameter (allowed: none)"},
    {GOOD "sync: local\nouter: {nesterov: {momentum: 1}}\n", 9, "1 is not in [0, 0.999999]"},
    {GOOD "sync: local\nouter: nesterov\ncompression: {push: \"topk(3%)\", pull: int8, exact_below: 0}\n", 10,
     "'outer: nesterov' keeps moments of whole differences on the servers"},
    {GOOD "sync: local\ncompression: {push: \"topk(3%)\", pull: int8, momentum_correction: 0.9}\n", 9, "no momentum_correction"},
    {GOOD "sync: local\nouter: {adam: {lr: 1}, yogi: {lr: 1}}\n", 9, "there is an outer optimizer already: 'adam'"},
    {GOOD "sync: local\nouter: {streams: 0}\n", 9, "0 is not allowed here; write 1 to 1024"},
    {GOOD "sync: local\nouter: {streams: 5}\n", 9, "5 parts cannot be made of a model of 4 tensors"},
    {GOOD "sync: {local: {steps: 4}}\nouter: {average: null, overlap: 5}\n", 9, "5 steps cannot overlap: a round has 4"},
    {GOOD "sync: local\nouter: {overlap: 2, mix: 1}\n", 9, "1 is not in [0, 1)"},
    {GOOD "sync: local\nouter: {mix: 0.5}\n", 9, "without overlap there is nothing to mix"},
    {GOOD "sync: local\nouter: {streams: 2}\naverage: {ema: 0.9}\n", 10, "the servers' weights are never all of one moment"},
    {GOOD "outer: {streams: 2}\n", 8, "the outer optimizer belongs to local steps"},
    {GOOD "sync: local\nouter: {adam: {weight_decay: 0.1}}\n", 9, "(allowed: lr, beta1, beta2, eps)"},
    {GOOD "sync: {ssp: {staleness: -1}}\n", 8, "-1"},
    {GOOD "sync: {ssp: {staleness: 10000000}}\n", 8, "10000000 clocks are too many; at most 1000000 are allowed"},
    {GOOD "sync: {ssp: {stale: 3}}\n", 8, "staleness"},
    {GOOD "sync: {asp: {staleness: 3}}\n", 8, "asp has no parameters"},
    {GOOD "sync: psp\n", 8, "write bsp, asp, {ssp: {staleness: CLOCKS}} or {local: {steps: STEPS}}"},
    {GOOD "sync: fast\n", 8, "write bsp"},
    {GOOD "compression: flaot16\n", 8, "did you mean 'float16'? (allowed: none, float32, float16"},
    {GOOD "compression: {up: float16}\n", 8, "'compression.up': there is no such field"},
    {GOOD "compression: [float16]\n", 8, "write a codec's name"},
    {GOOD "chunk: 5000\n", 8, "5000 is not a multiple of 4 KiB"},
    {GOOD "chunk: 2 MiB\n", 8, "2 MiB is out of range; allowed: 4 KiB to 1 MiB"},
    {GOOD "chunk: big\n", 8, "write a size such as"},
    {GOOD "clip: 3\n", 8, "write a mapping"},
    {GOOD "clip: {norm: -1}\n", 8, "-1 is out of range; allowed: 0 to 1e+30"},
    {GOOD "clip: {norm: 1, global_norm: 1}\n", 8, "cannot stand together"},
    {GOOD "sync: asp\nclip: {global_norm: 1}\n", 9, "in asp an update is the gradient of one rank: write clip.norm"},
    {GOOD "not_finite: ignore\n", 8, "'ignore' is not known (allowed: fail, skip_clock, clip)"},
    {GOOD "average: {ema: 1}\n", 8, "1 is out of range; allowed: 0 to below 1"},
    {GOOD "average: 0.9\n", 8, "write a mapping"},
    {GOOD "clip: {norm: nan}\n", 8, "'nan' is not allowed here; write a number"},
    {GOOD "output: \"a\\nb\"\n", 8, "must stand on one line"},
    {GOOD "output: \"a\\0b\"\n", 8, "control character"},
    {GOOD "groups: {match: a}\n", 8, "write a list of at most 256 groups"},
    {GOOD "groups: [dense1]\n", 8, "write a group as {match: PATTERN"},
    {GOOD "groups: [{lr_scale: 2}]\n", 8, "'groups[0].match' is missing"},
    {GOOD "groups:\n  - {match: \"*.bias\", lr_scal: 2}\n", 9, "did you mean 'lr_scale'?"},
    {GOOD "groups:\n  - {match: dense1.*, lr_scale: -1}\n", 9, "-1 is out of range; allowed: 0 to"},
    {GOOD "groups:\n  - {match: dense1.*, weight_decay: 2}\n", 9, "2 is out of range; allowed: 0 to 1"},
    {GOOD "groups:\n  - {match: dense1.*, frozen: true}\n  - {match: dens1.*}\n", 10,
     "no tensor is called 'dens1.*' (there are: dense1.weight, dense1.bias, dense2.weight, dense2.bias)"},
    {GOOD "groups:\n  - {match: \"*\", lr_scale: 2}\n  - {match: dense1.bias}\n", 10,
     "all tensors called 'dense1.bias' are taken by groups before this one"},
    {GOOD "groups:\n  - {match: dense1.*, frozen: true, lr_scale: 1}\n", 9, "frozen tensors have no learning rate"},
    {GOOD "groups:\n  - {match: \"*\", frozen: true}\n", 9, "every tensor is frozen"},
    {GOOD "schedule: cosin\n", 8, "there is no schedule 'cosin'"},
    {"name: x\n" DATA MODEL "loss: hinge\noptimizer: adam\nbatch: 1\nepochs: 1\n", 4, "'hinge' is not known"},
    {"name: x\n" DATA MODEL "loss: squraed\noptimizer: adam\nbatch: 1\nepochs: 1\n", 4, "did you mean 'squared'?"},
    {"name: x\n" DATA ONE "loss: squared\noptimizer: adma\nbatch: 1\nepochs: 1\n", 5, "did you mean 'adam'?"},
    {"name: x\n" DATA ONE "loss: squared\noptimizer: {adam: {lr: -1}}\nbatch: 1\nepochs: 1\n", 5,
     "field 'optimizer.adam.lr': -1 is not in (0, "},
    {"name: x\n" DATA ONE "loss: squared\noptimizer: {adam: {weight_deacy: 1}}\nbatch: 1\nepochs: 1\n", 5,
     "'adam' has no such parameter; did you mean 'weight_decay'?"},
    {"name: x\n" DATA ONE "loss: squared\noptimizer: {adam: {}, sgd: {}}\nbatch: 1\nepochs: 1\n", 5,
     "write the name of one optimizer"},
    {"name: x\n" DATA ONE "loss: squared\noptimizer: {adam: 3}\nbatch: 1\nepochs: 1\n", 5, "{name: value}"},
    {"name: x\n" DATA ONE "loss: squared\noptimizer: adam\nbatch: 0\nepochs: 1\n", 6, "1 to 1073741824"},
    {"name: x\n" DATA ONE "loss: squared\noptimizer: {ftrl: {weight_decay: 1}}\nbatch: 1\nepochs: 1\n", 5,
     "'ftrl' has no such parameter (allowed: lr, beta, l1, l2)"},
    {"name: x\n" DATA ONE "loss: squared\noptimizer: ftrl\ngroups: [{match: \"*.bias\", weight_decay: 0}]\nbatch: 1\nepochs: 1\n",
     6, "the optimizer 'ftrl' has no weight decay"},
    {"name: x\n" DATA ONE "loss: squared\noptimizer: ftrl\nschedule: cosine\nbatch: 1\nepochs: 1\n", 6,
     "'ftrl' takes no schedule but constant without warmup"},
    {"name: x\n" DATA ONE "loss: squared\noptimizer: ftrl\nschedule: {constant: {warmup: 3}}\nbatch: 1\nepochs: 1\n", 6,
     "'ftrl' takes no schedule but constant without warmup"},
    {GOOD "metrics: [auc, hits]\n", 8, "there is no metric 'hits'"},
    {GOOD "metrics: [acu]\n", 8, "did you mean 'auc'?"},
    {GOOD "metrics: top1\n", 8, "behind top stands a number from 2 to 1000"},
    {GOOD "metrics: topmost\n", 8, "behind top stands a number"},
    {GOOD "metrics: [top2]\n", 8, "top2: with 2 classes it would always be right"},
    {"name: x\n" DATA "model: {input: [4], layers: [dense 9]}\n" TAIL "metrics: [top2, top3]\n", 8, "top2 is there already"},
    {"name: x\n" DATA "model: {input: [4], layers: [dense 3]}\n" TAIL "metrics: [auc]\n", 8, "auc needs two classes, this model has 3"},
    {"name: x\n" DATA "model: {input: [4], layers: [dense 257]}\n" TAIL "metrics: confusion\n", 8, "the limit is 256"},
    {"name: x\n" DATA ONE "loss: squared\noptimizer: adam\nbatch: 1\nepochs: 1\nmetrics: auc\n", 8, "there are no classes"},
    {GOOD "early_stopping: {patience: 2}\n", 8, "metric is missing"},
    {GOOD "early_stopping: {metric: test_loss}\n", 8, "the test set is there to judge"},
    {GOOD "early_stopping: {metric: loss}\n", 8, "'loss' is not measured"},
    {GOOD "early_stopping: {metric: validation_rmse}\n", 8, "'validation_rmse' is not measured (allowed: validation_loss, validation_accuracy"},
    {GOOD "early_stopping: {metric: train_auc}\nmetrics: auc\n", 8, "'train_auc' is not measured"},
    {GOOD "early_stopping: {metric: validation_loss}\n", 8, "set data.validation"},
    {GOOD "early_stopping: {metric: train_loss, patience: 0}\n", 8, "1 to 1000000"},
    {GOOD "sync: asp\nearly_stopping: {metric: train_loss}\n", 9, "with 'sync: asp' the ranks are never"},
    {GOOD "save_every: 2\n", 8, "set output"},
    {"name: x\ndata: {train: {idx: [a, b]}, validation: 0.1, progressive: true}\n" MODEL TAIL, 2, "holds nothing out"},
    {GOOD "accumulate: 0\n", 8, "1 to 65536"},
    {"name: x\n" DATA MODEL "loss: softmax_cross_entropy\noptimizer: adam\nbatch: 1048576\nepochs: 2\naccumulate: 1025\n", 8,
     "1025 batches of 1048576 samples are more than the 1073741824 that a clock may have"},
    /* data */
    {"name: x\n" MODEL TAIL, 0, "'data.train' is missing"},
    {"name: x\ndata: {where: here, train: {idx: [a, b]}}\n" MODEL TAIL, 2, "'here' is not known"},
    {"name: x\ndata: {where: local, train: {csv: {path: a, target: y}}}\n" MODEL TAIL, 2,
     "data.normalize must be none or unit, and for csv it is standard when it is left out"},
    {"name: x\ndata: {where: local, normalize: standard, train: {libsvm: a}}\n" MODEL TAIL, 2,
     "data.normalize must be none or unit: means"},
    {"name: x\ndata: {where: local, normalize: none, train: {csv: {path: a, target: y, missing: mean}}}\n" MODEL TAIL, 2,
     "only error and zero are allowed"},
    {"name: x\ndata: {where: local, normalize: none, train: {csv: {path: a, target: y, missing: skip}}}\n" MODEL TAIL, 2,
     "only error and zero are allowed"},
    {"name: x\ndata: {where: local, normalize: none, train: {csv: {path: a, target: y, categorical: z}}}\n" MODEL TAIL, 2,
     "no column may be categorical"},
    {"name: x\ndata: {where: local, normalize: none, standardize_target: true, train: {libsvm: a}}\n" ONE
     "loss: squared\noptimizer: adam\nbatch: 1\nepochs: 1\n", 2, "the target cannot be standardised"},
    {"name: x\ndata: {where: local, train: {libsvm: a}}\n" ONE
     "loss: squared\noptimizer: adam\nbatch: 10\nepochs: 1\nranks: 4\n", 6, "10 is no multiple of 4 ranks"},
    {"name: x\ndata: {train: images}\n" MODEL TAIL, 2, "write {idx: ...}, {csv: ...}, {libsvm: ...} or {npy: ...}"},
    {"name: x\ndata: {train: {idx: [a]}}\n" MODEL TAIL, 2, "the list has 1 items; allowed: 2 to 2"},
    {"name: x\ndata: {train: {idx: [a, [b]]}}\n" MODEL TAIL, 2, "a list is not allowed here; write a text"},
    {"name: x\ndata: {train: {idy: [a, b]}}\n" MODEL TAIL, 2, "did you mean 'idx'?"},
    {"name: x\ndata: {train: {idx: [a, b], csv: c}}\n" MODEL TAIL, 2, "only one kind of source"},
    {"name: x\ndata: {train: {csv: a.csv}}\n" MODEL TAIL, 2, "target is missing"},
    {"name: x\ndata: {train: {csv: {target: y}}}\n" MODEL TAIL, 2, "the path of the file is missing"},
    {"name: x\ndata: {train: {csv: {path: a, paths: b, target: y}}}\n" MODEL TAIL, 2, "cannot stand together"},
    {"name: x\ndata: {train: {csv: {path: a, target: y, header: false}}}\n" MODEL TAIL, 2, "only numbers"},
    {"name: x\ndata: {train: {csv: {path: a, target: y, columns: [x, y]}}}\n" MODEL TAIL, 2, "cannot be an input too"},
    {"name: x\ndata: {train: {csv: {path: a, target: y, categorical: y}}}\n" MODEL TAIL, 2, "cannot be an input too"},
    {"name: x\ndata: {train: {csv: {path: a, target: y, columns: [x], categorical: z}}}\n" MODEL TAIL, 2,
     "'z' is not among the columns"},
    {"name: x\ndata: {train: {csv: {path: a, target: y, delimiter: ab}}}\n" MODEL TAIL, 2, "a single character"},
    {"name: x\ndata: {train: {csv: {path: a, target: y, missing: men}}}\n" MODEL TAIL, 2, "did you mean 'mean'?"},
    {"name: x\ndata: {train: {csv: {path: a, target: y, header: yes}}}\n" MODEL TAIL, 2, "write true or false"},
    {"name: x\ndata: {train: {idx: [a, b]}, test: {libsvm: c}}\n" MODEL TAIL, 2, "they must be of one kind"},
    {"name: x\ndata: {train: {idx: [a, b]}, validation: 100 %}\n" MODEL TAIL, 2, "allowed: 0 to below 1"},
    {"name: x\ndata: {train: {idx: [a, b]}, validation: some}\n" MODEL TAIL, 2, "such as 0.1 or 10 %"},
    {"name: x\ndata: {train: {idx: [a, b]}, standardize_target: true}\n" MODEL TAIL, 2, "only the squared loss"},
    /* model */
    {"name: x\n" DATA "model: {layers: [dense 2]}\n" TAIL, 3, "'model.input' is missing"},
    {"name: x\n" DATA "model: {input: [0], layers: [dense 2]}\n" TAIL, 3, "1 to 4294967295 values"},
    {"name: x\n" DATA "model: {input: [65536, 65536], layers: [flatten, dense 2]}\n" TAIL, 3, "4294967295 values"},
    {"name: x\n" DATA "model: {input: [1, 1, 1, 1, 1], layers: [dense 2]}\n" TAIL, 3, "a list of 1 to 4 numbers"},
    {"name: x\n" DATA "model: {input: [4], layers: dense 2}\n" TAIL, 3, "write a list of 1 to 1024 layers"},
    {"name: x\n" DATA "model: {input: [4], layers: []}\n" TAIL, 3, "write a list of 1 to 1024 layers"},
    {"name: x\n" DATA "model: {input: [4], layers: [conv 3]}\n" TAIL, 3, "there is no layer 'conv'"},
    {"name: x\n" DATA "model: {input: [4], layers: [dens 3]}\n" TAIL, 3, "did you mean 'dense'?"},
    {"name: x\n" DATA "model: {input: [4], layers: [dense]}\n" TAIL, 3, "write dense UNITS [ACTIVATION]"},
    {"name: x\n" DATA "model: {input: [4], layers: [dense 3 relu 4]}\n" TAIL, 3, "write dense UNITS [ACTIVATION]"},
    {"name: x\n" DATA "model: {input: [4], layers: [dense 0]}\n" TAIL, 3, "0 is out of range"},
    {"name: x\n" DATA "model: {input: [4], layers: [dense many]}\n" TAIL, 3, "write a whole number"},
    {"name: x\n" DATA "model: {input: [4], layers: [dense 3 rleu]}\n" TAIL, 3, "did you mean 'relu'?"},
    {"name: x\n" DATA "model: {input: [4], layers: [dropout 1, dense 2]}\n" TAIL, 3, "allowed: 0 to below 1"},
    {"name: x\n" DATA "model: {input: [4], layers: [{dense: {unit: 3}}]}\n" TAIL, 3, "did you mean 'units'?"},
    {"name: x\n" DATA "model: {input: [4], layers: [{dense: 3}]}\n" TAIL, 3, "as {field: value}"},
    {"name: x\n" DATA "model: {input: [4], layers: [{dense: {units: 3}, dropout: {rate: 0}}]}\n" TAIL, 3, "one kind"},
    {"name: x\n" DATA "model: {input: [4], layers: [[dense 3]]}\n" TAIL, 3, "a list is not a layer"},
    {"name: x\n" DATA "model: {input: [4], layers: [dense 3 softmax, dense 2]}\n" TAIL, 3, "only in the last layer"},
    {"name: x\n" DATA "model: {input: [4], layers: [dense 1]}\n" TAIL, 3, "needs one per class, at least 2"},
    {"name: x\n" DATA MODEL "loss: squared\noptimizer: adam\nbatch: 1\nepochs: 1\n", 3, "2 outputs, and this loss (line 4)"},
    {"name: x\n" DATA "model: {input: [4], layers: [relu]}\n" TAIL, 3, "no layer with weights"},
    {"name: x\n" DATA "model: {input: [2, 4], layers: [dense 2]}\n" TAIL, 3,
     "'dense1' (dense) takes one dimension and gets 2x4: put flatten before it"},
    {"name: x\n" DATA "model: {input: [4], layers: [dense 3, {dense: {units: 2, name: dense1}}]}\n" TAIL, 3,
     "the name 'dense1' is taken"},
    {"name: x\n" DATA "model: {input: [4000000000], layers: [dense 1000000000, dense 2]}\n" TAIL, 3, "x 1000000000 weights"},
};

static bool says(unsigned line, const char *part) {
  for (size_t i = 0; i < errors.n; i++) {
    if (errors.at[i].line == line && strstr(errors.at[i].text, part) != NULL)
      return true;
  }
  return false;
}

START_TEST(mistake_is_named_with_its_line) {
  bl_job_spec *spec = NULL;
  const char *text = mistakes[_i].text;
  ck_assert_status(bl_job_spec_parse(text, strlen(text), "job.yaml", "/base", NULL, 0, &spec, &errors), BL_EINVAL);
  ck_assert_ptr_null(spec);
  ck_assert_msg(says(mistakes[_i].line, mistakes[_i].says), "%s: expected '%s' in line %u; first of %zu is %u: %s", text,
                mistakes[_i].says, mistakes[_i].line, errors.n, errors.at[0].line, errors.at[0].text);
  /* One mistake gives one sentence, except where a field is missing because of it. */
  for (size_t i = 0; i < errors.n; i++)
    ck_assert_msg(strstr(errors.at[i].text, mistakes[_i].says) != NULL || strstr(errors.at[i].text, "is missing") != NULL,
                  "%s: also '%s'", text, errors.at[i].text);
}
END_TEST

START_TEST(all_mistakes_come_at_once_and_in_order) {
  static const char text[] = "epochs: 0\nname: A\ndata: {train: {idx: a}}\nmodel: {input: x, layers: [dense]}\nbatch: b\n";
  bl_job_spec *spec = NULL;
  bl_buf out = BL_BUF_INIT;
  ck_assert_status(bl_job_spec_parse(text, strlen(text), "j", "/", NULL, 0, &spec, &errors), BL_EINVAL);
  ck_assert_uint_eq(errors.n, 8);
  for (size_t i = 1; i < errors.n; i++)
    ck_assert(errors.at[i].line == 0 || errors.at[i].line >= errors.at[i - 1].line);
  bl_conf_errors_print(&errors, "j.yaml", &out);
  ck_assert_ptr_nonnull(strstr(bl_buf_str(&out), "j.yaml:2: field 'name': 'A'"));
  ck_assert_ptr_nonnull(strstr(bl_buf_str(&out), "j.yaml: the field 'loss' is missing"));
  bl_buf_fini(&out);
}
END_TEST

START_TEST(many_mistakes_end_with_a_note) {
  bl_buf text = BL_BUF_INIT;
  bl_job_spec *spec = NULL;
  for (int i = 0; i < 200; i++)
    bl_buf_printf(&text, "wrong%d: 1\n", i);
  ck_assert_status(bl_job_spec_parse(bl_buf_str(&text), text.size, "j", "/", NULL, 0, &spec, &errors), BL_EINVAL);
  ck_assert_uint_eq(errors.n, BL_CONF_ERRORS_MAX);
  ck_assert_ptr_nonnull(strstr(errors.at[BL_CONF_ERRORS_MAX - 1].text, "there are more mistakes"));
  bl_buf_fini(&text);
}
END_TEST

static const struct {
  const char *set;
  const char *says;
} bad_overrides[] = {
    {"epochs", "write it as field.subfield=value"},
    {"=3", "write it as field.subfield=value"},
    {"a..b=3", "--set a..b: write the field as"},
    {"epochs=0", "--set epochs: field 'epochs': 0 is out of range"},
    {"optimzer.adam.lr=1", "did you mean 'optimizer'?"},
    {"optimizer.sgd.lr=1", "'sgd' cannot be set inside of 'adam'"},
    {"model.layers.2=relu", "'2' is not the number of one of the 2 items"},
    {"model.layers.x=relu", "'x' is not the number"},
    {"model.layers.1=dense 1", "at least 2"},
    {"epochs=[1", "not valid YAML"},
    {"epochs=*x", "aliases"},
    {"ranks=33", "--set ranks: field 'ranks': 33 ranks cannot share"},
};

START_TEST(mistake_in_an_override_names_the_override) {
  bl_job_spec *spec = NULL;
  const char *set = bad_overrides[_i].set;
  ck_assert_status(bl_job_spec_parse(GOOD, strlen(GOOD), "j", "/", &set, 1, &spec, &errors), BL_EINVAL);
  ck_assert_msg(says(0, bad_overrides[_i].says), "%s: %s", set, errors.at[0].text);
  ck_assert_msg(strncmp(errors.at[0].text, "--set ", 6) == 0, "%s", errors.at[0].text);
}
END_TEST

START_TEST(missing_file_is_a_sentence) {
  bl_job_spec *spec = NULL;
  ck_assert_status(bl_job_spec_read("/nonexistent/job.yaml", NULL, 0, &spec, &errors), BL_ENOENT);
  ck_assert_uint_eq(errors.n, 1);
  ck_assert_ptr_nonnull(strstr(errors.at[0].text, "/nonexistent/job.yaml"));
}
END_TEST

START_TEST(reading_survives_the_loss_of_any_allocation) {
  static const char *const set[] = {"optimizer.momentum.lr=0.25", "data.validation=0.5"};
  uint64_t live = bl_alloc_get_stats().live_blocks;
  bool done = false;
  for (uint64_t n = 1; !done; n++) {
    bl_job_spec *spec = NULL;
    bl_alloc_fail_after(n);
    bl_status status = bl_job_spec_parse(rich, strlen(rich), "j", "/base", set, 2, &spec, &errors);
    bl_alloc_fail_after(0);
    done = status == BL_OK;
    ck_assert_msg(done || status == BL_ENOMEM, "%s at %" PRIu64 ": %s", bl_status_name(status), n, errors.at[0].text);
    ck_assert_msg(done == (spec != NULL), "at %" PRIu64, n);
    bl_job_spec_free(spec);
    ck_assert_uint_eq(bl_alloc_get_stats().live_blocks, live);
    ck_assert_uint_lt(n, 10000);
  }
}
END_TEST

/* ---- streams ---- */

/* Runs of tensors, none empty, and what is said of clocks is what counting them says. */
START_TEST(parts_of_a_model_are_exchanged_in_turn) {
  static const struct {
    uint32_t n_tensors, n_streams;
    uint64_t elems[6];
    uint32_t streams[6];
  } cases[] = {
      {6, 1, {401408, 512, 131072, 256, 2560, 10}, {0, 0, 0, 0, 0, 0}},
      {6, 2, {401408, 512, 131072, 256, 2560, 10}, {0, 1, 1, 1, 1, 1}},
      {6, 4, {401408, 512, 131072, 256, 2560, 10}, {0, 1, 1, 2, 2, 3}},
      {6, 6, {1, 1, 1, 1, 1, 1000}, {0, 1, 2, 3, 4, 5}},
      {6, 3, {10, 10, 10, 10, 10, 10}, {0, 0, 1, 1, 2, 2}},
      {6, 3, {1, 1, 1, 1, 1, 1000}, {0, 0, 0, 0, 1, 2}},
  };
  for (size_t i = 0; i < BL_COUNT_OF(cases); i++) {
    bl_tensor tensors[6];
    bl_tensor_table *t;
    for (uint32_t k = 0; k < cases[i].n_tensors; k++)
      tensors[k] = (bl_tensor){.name = "t", .dims = {cases[i].elems[k]}, .n_dims = 1, .n_elems = cases[i].elems[k], .init = BL_INIT_ZERO};
    ck_assert_ok(bl_tensor_table_of_list(tensors, cases[i].n_tensors, 1024, &t, NULL));
    for (uint64_t n_clocks = 1; n_clocks < 10; n_clocks++) {
      bl_tensor_table_set_streams(t, cases[i].n_streams, n_clocks);
      for (uint32_t k = 0; k < t->n_tensors; k++) {
        uint64_t n = 0, behind = 0;
        ck_assert_uint_eq(t->tensors[k].stream, cases[i].streams[k]);
        for (uint64_t clock = 0; clock <= n_clocks; clock++) {
          ck_assert_uint_eq(bl_tensor_exchanges(t, k, clock), n);
          if (clock < n_clocks)
            ck_assert_uint_eq(bl_tensor_exchanged(t, k, clock), behind);
          if (clock < n_clocks && bl_tensor_in_clock(t, k, clock)) {
            n++;
            behind = clock + 1;
          }
        }
        ck_assert_uint_eq(behind, n_clocks); /* in the last clock all are */
      }
    }
    bl_tensor_table_free(t);
  }
}
END_TEST

/* ---- estimates ---- */

START_TEST(estimates_count_optimizer_state_and_average) {
  static const struct {
    const char *set[2];
    uint64_t copies_on_servers, copies_in_tasks; /* more than sgd without anything */
  } cases[] = {
      {{"optimizer=sgd", "average.ema=0"}, 0, 0},
      {{"optimizer=nesterov", "average.ema=0"}, 1, 0},
      {{"optimizer=ftrl", "average.ema=0"}, 2, 0},
      {{"optimizer=amsgrad", "average.ema=0"}, 3, 0},
      {{"optimizer=amsgrad", "average.ema=0.9"}, 4, 1},
      {{"optimizer=adam", "sync=local"}, 0, 3},
      {{"sync=local", "outer=yogi"}, 2, 3}, /* adam is the job's */
  };
  bl_job_estimate first = {0};
  for (size_t i = 0; i < BL_COUNT_OF(cases); i++) {
    bl_job_spec *s = parse_set(GOOD, cases[i].set, 2);
    bl_job_estimate e;
    ck_assert_ok(bl_job_estimate_make(s, &e, NULL));
    if (i == 0)
      first = e;
    uint64_t bytes = e.n_weights * sizeof(float);
    ck_assert_uint_eq(e.server_bytes, first.server_bytes + cases[i].copies_on_servers * bytes);
    ck_assert_uint_eq(e.worker_bytes_per_rank, first.worker_bytes_per_rank + cases[i].copies_in_tasks * bytes);
    bl_job_spec_free(s);
  }
}
END_TEST

/* ---- documentation ---- */

static char doc_text[1 << 16];

/* The row of the reference that starts with the field's path, or NULL. */
static const char *doc_row(const char *path) {
  static char row[4096];
  char start[300];
  snprintf(start, sizeof start, "\n| `%s` |", path);
  const char *at = strstr(doc_text, start);
  if (at == NULL)
    return NULL;
  size_t n = strcspn(at + 1, "\n");
  ck_assert_uint_lt(n, sizeof row);
  memcpy(row, at + 1, n);
  row[n] = '\0';
  return row;
}

static void check_doc(const char *prefix, const bl_field *fields, size_t n) {
  for (size_t i = 0; i < n; i++) {
    char path[200], value[64];
    const bl_field *f = &fields[i];
    snprintf(path, sizeof path, "%s%s%s", prefix, prefix[0] != '\0' ? "." : "", f->name);
    if (f->type != BL_FIELD_SECTION) {
      const char *row = doc_row(path);
      ck_assert_msg(row != NULL, "doc/job-file.md has no row for %s", path);
      snprintf(value, sizeof value, "| %s |", f->required ? "required" : f->default_text);
      if (f->required || f->default_text != NULL)
        ck_assert_msg(strstr(row, value) != NULL, "doc/job-file.md: %s: the default '%s' is not in: %s", path, value, row);
      for (size_t w = 0; w < f->n_words; w++) {
        snprintf(value, sizeof value, "`%s`", f->words[w].name);
        ck_assert_msg(strstr(doc_text, value) != NULL, "doc/job-file.md: %s: no word %s", path, value);
      }
    }
    if (strcmp(path, "data.test") != 0) /* as data.train */
      check_doc(path, f->fields, f->n_fields);
  }
}

static void check_doc_rule(const char *name, const bl_param_info *params, size_t n) {
  const char *row = doc_row(name);
  ck_assert_msg(row != NULL, "doc/job-file.md has no row for %s", name);
  for (size_t i = 0; i < n; i++) {
    char key[100];
    snprintf(key, sizeof key, "`%s` ", params[i].key);
    const char *at = strstr(strchr(row + 1, '|'), key); /* behind the first column */
    ck_assert_msg(at != NULL, "doc/job-file.md: %s: no parameter %s", name, key);
    double v = strtod(at + strlen(key), NULL);
    ck_assert_msg(v == params[i].default_value, "doc/job-file.md: %s.%s is %g there", name, params[i].key, v);
  }
}

START_TEST(reference_names_every_field_with_its_default) {
  bl_buf text = BL_BUF_INIT;
  bl_error err;
  ck_assert_ok_err(bl_file_read(test_source_path("doc/job-file.md"), sizeof doc_text - 1, &text, &err), err);
  memcpy(doc_text, text.data, text.size);
  bl_buf_fini(&text);
  size_t n;
  const bl_field *fields = bl_job_spec_fields(&n);
  check_doc("", fields, n);
  for (size_t i = 0; bl_optim_rule_at(i) != NULL; i++)
    check_doc_rule(bl_optim_rule_at(i)->name, bl_optim_rule_at(i)->params, bl_optim_rule_at(i)->n_params);
  for (size_t i = 0; bl_schedule_rule_at(i) != NULL; i++)
    check_doc_rule(bl_schedule_rule_at(i)->name, bl_schedule_rule_at(i)->params, bl_schedule_rule_at(i)->n_params);
  for (size_t i = 0; bl_codec_at(i) != NULL; i++)
    ck_assert_msg(strstr(doc_text, bl_codec_at(i)->name) != NULL, "no codec %s", bl_codec_at(i)->name);
}
END_TEST

/* ---- tensors ---- */

static bl_tensor_table *table_of(const char *layers, const char *input, uint64_t chunk_bytes) {
  char text[600];
  bl_error err;
  bl_tensor_table *t;
  snprintf(text, sizeof text, "name: x\n" DATA "model: {input: %s, layers: %s}\n" TAIL, input, layers);
  bl_job_spec *s = parse_set(text, NULL, 0);
  ck_assert_ok_err(bl_tensor_table_of_model(&s->model, chunk_bytes, &t, &err), err);
  bl_job_spec_free(s); /* the table stands on its own */
  return t;
}

START_TEST(tensors_have_names_shapes_and_scales) {
  bl_tensor_table *t = table_of("[dense 6 relu, {dense: {units: 3, bias: false, name: mid}}, dropout 0.5, gelu, dense 2]",
                                "[24]", 1 << 20);
  static const struct {
    const char *name;
    uint64_t n_elems;
    double fan;
    uint32_t layer;
  } want[] = {{"dense1.weight", 144, 24, 0}, {"dense1.bias", 6, 0, 0}, {"mid.weight", 18, 6, 1},
              {"dense3.weight", 6, 3 + 2, 4}, {"dense3.bias", 2, 0, 4}};
  ck_assert_uint_eq(t->n_tensors, BL_COUNT_OF(want));
  for (size_t i = 0; i < BL_COUNT_OF(want); i++) {
    const bl_tensor *x = &t->tensors[i];
    ck_assert_str_eq(x->name, want[i].name);
    ck_assert_uint_eq(x->n_elems, want[i].n_elems);
    ck_assert_uint_eq(x->layer, want[i].layer);
    ck_assert_int_eq(x->no_decay, want[i].fan == 0);
    ck_assert_int_eq(x->init, want[i].fan == 0 ? BL_INIT_ZERO : BL_INIT_UNIFORM);
    ck_assert_float_eq(x->init_scale, want[i].fan == 0 ? 0 : (float)sqrt(6 / want[i].fan));
  }
  ck_assert_uint_eq(t->tensors[0].dims[0], 24);
  ck_assert_uint_eq(t->tensors[0].dims[1], 6);
  ck_assert_uint_eq(t->n_elems, 176);
  bl_tensor_table_free(t);
}
END_TEST

START_TEST(chunks_cover_every_element_once) {
  static const uint64_t chunk_bytes[] = {4096, 8192, 65536, 1 << 20, 1 << 21};
  bl_tensor_table *t = table_of("[dense 1024 relu, dense 2]", "[700]", chunk_bytes[_i]);
  uint32_t tensor = 0;
  uint64_t next = 0;
  ck_assert_uint_le(t->chunk_elems, BL_CODEC_ELEMS_MAX);
  for (uint32_t i = 0; i < t->n_chunks; i++) {
    const bl_chunk *c = &t->chunks[i];
    if (next == t->tensors[tensor].n_elems) {
      tensor++;
      next = 0;
    }
    ck_assert_uint_eq(c->tensor, tensor);
    ck_assert_uint_eq(c->first, next);
    next += c->n_elems;
    ck_assert_uint_ge(c->n_elems, 1);
    ck_assert(c->n_elems == t->chunk_elems || next == t->tensors[tensor].n_elems);
  }
  ck_assert_uint_eq(tensor, t->n_tensors - 1);
  ck_assert_uint_eq(next, t->tensors[tensor].n_elems);
  bl_tensor_table_free(t);
}
END_TEST

START_TEST(tensor_of_five_gibibytes_needs_no_memory_of_its_size) {
  bl_tensor x = {.name = "w", .dims = {40000, 33555}, .n_dims = 2, .n_elems = UINT64_C(40000) * 33555,
                 .init = BL_INIT_UNIFORM, .init_scale = 1};
  bl_tensor_table *t;
  ck_assert_ok(bl_tensor_table_of_list(&x, 1, BL_CODEC_ELEMS_MAX, &t, NULL));
  ck_assert_uint_eq(t->n_chunks, (x.n_elems + BL_CODEC_ELEMS_MAX - 1) / BL_CODEC_ELEMS_MAX);
  ck_assert_uint_gt(t->chunks[t->n_chunks - 1].first, UINT32_C(1) << 30);
  float a[3], b;
  bl_tensor_init_values(&x, 1, UINT64_C(5000000000), 3, a); /* any counter is allowed */
  bl_tensor_init_values(&x, 1, UINT64_C(5000000002), 1, &b);
  ck_assert_float_eq(a[2], b);
  bl_tensor_table_free(t);
}
END_TEST

static const bl_tensor good_tensor = {.name = "w", .dims = {4, 5}, .n_dims = 2, .n_elems = 20, .init = BL_INIT_ZERO};

START_TEST(wrong_tensors_from_outside_are_refused) {
  bl_tensor_table *t = NULL;
  bl_tensor bad[9];
  for (size_t i = 0; i < BL_COUNT_OF(bad); i++)
    bad[i] = good_tensor;
  bad[0].name = NULL;
  bad[1].name = "";
  bad[2].n_dims = 0;
  bad[3].n_dims = 5;
  bad[4].n_elems = 21;
  bad[5].dims[0] = 0;
  bad[6].dims[0] = UINT64_MAX;
  bad[7].init = (bl_init_kind)9;
  bad[8].init_scale = NAN;
  for (size_t i = 0; i < BL_COUNT_OF(bad); i++)
    ck_assert_status(bl_tensor_table_of_list(&bad[i], 1, 1024, &t, NULL), BL_EINVAL);
  ck_assert_status(bl_tensor_table_of_list(&good_tensor, 0, 1024, &t, NULL), BL_EINVAL);
  ck_assert_status(bl_tensor_table_of_list(&good_tensor, 1, 0, &t, NULL), BL_EINVAL);
  ck_assert_status(bl_tensor_table_of_list(&good_tensor, 1, BL_CODEC_ELEMS_MAX + 1, &t, NULL), BL_EINVAL);
  bl_tensor huge = {.name = "w", .dims = {UINT64_C(1) << 40}, .n_dims = 1, .n_elems = UINT64_C(1) << 40,
                    .init = BL_INIT_ZERO};
  ck_assert_status(bl_tensor_table_of_list(&huge, 1, 1, &t, NULL), BL_ELIMIT);
  ck_assert_ptr_null(t);
}
END_TEST

/* rows, width, chunk_elems -> buckets; the fullest bucket as elements. */
static const struct table_case {
  uint64_t rows, width, chunk_elems;
  uint32_t n_buckets, n_elems;
} table_cases[] = {
    {1, 1, 1024, 1, 1},        {1024, 1, 1024, 1, 1024},     {1025, 1, 1024, 2, 513},
    {3, 512, 1024, 2, 1024},   {1 << 24, 1, 1 << 18, 128, 1 << 17}, {1000, 64, 1 << 12, 16, 63 * 64},
    {UINT64_C(1) << 40, 8, 1 << 18, BL_TABLE_BUCKETS_MAX, 1 << 18},
};

START_TEST(buckets_of_a_table_are_of_one_size) {
  const struct table_case *c = &table_cases[_i];
  bl_tensor x = {.name = "t", .dims = {c->rows, c->width}, .n_dims = 2, .n_elems = c->rows * c->width,
                 .init = BL_INIT_ZERO, .table = true};
  bl_tensor_table *t;
  ck_assert_ok(bl_tensor_table_of_list(&x, 1, c->chunk_elems, &t, NULL));
  ck_assert_uint_eq(t->n_chunks, c->n_buckets);
  ck_assert_uint_eq(t->tensors[0].n_chunks, c->n_buckets);
  ck_assert_uint_eq(t->n_placed, (uint64_t)c->n_buckets * c->n_elems);
  for (uint32_t i = 0; i < t->n_chunks; i++) {
    ck_assert_uint_eq(t->chunks[i].first, i);
    ck_assert_uint_eq(t->chunks[i].n_elems, c->n_elems);
  }
  for (uint64_t row = 0; row < c->rows; row += 1 + c->rows / 1000) {
    uint32_t bucket = bl_table_bucket(&t->tensors[0], row);
    ck_assert_uint_lt(bucket, c->n_buckets);
    ck_assert_uint_eq(bl_table_row(&t->tensors[0], bucket, bl_table_run(&t->tensors[0], row)), row);
    ck_assert_uint_lt(bl_table_run(&t->tensors[0], row), bl_table_runs(&t->tensors[0], bucket));
  }
  uint64_t n_rows = 0;
  for (uint32_t i = 0; i < c->n_buckets; i++)
    n_rows += bl_table_runs(&t->tensors[0], i);
  ck_assert_uint_eq(n_rows, c->rows);
  /* Rows of one run, and rows a run apart, spread. */
  uint64_t n = BL_MIN(c->rows, (uint64_t)c->n_buckets * 64);
  uint32_t *count = bl_calloc(c->n_buckets, sizeof *count), *strided = bl_calloc(c->n_buckets, sizeof *strided);
  for (uint64_t row = 0; row < n; row++) {
    count[bl_table_bucket(&t->tensors[0], row)]++;
    strided[bl_table_bucket(&t->tensors[0], row * c->n_buckets % c->rows)]++;
  }
  for (uint32_t i = 0; i < c->n_buckets; i++) {
    ck_assert_uint_le(count[i], bl_div_up_u64(n, c->n_buckets));
    if (n == (uint64_t)c->n_buckets * 64 && c->rows > (UINT64_C(1) << 20))
      ck_assert_uint_le(strided[i], 64 * 3);
  }
  bl_free(count);
  bl_free(strided);
  bl_tensor_table_free(t);
}
END_TEST

START_TEST(wrong_tables_are_refused) {
  static const struct {
    uint64_t dims[3];
    uint32_t n_dims;
    const char *says;
  } bad[] = {
      {{4}, 1, "1 dimensions"},
      {{4, 5, 2}, 3, "3 dimensions"},
      {{(UINT64_C(1) << 40) + 1, 1}, 2, "rows; allowed: 1 to"},
      {{4, 513}, 2, "two of them must fit"},
  };
  for (size_t i = 0; i < BL_COUNT_OF(bad); i++) {
    bl_tensor x = {.name = "t", .n_dims = bad[i].n_dims, .n_elems = 1, .init = BL_INIT_ZERO, .table = true};
    for (uint32_t d = 0; d < x.n_dims; d++)
      x.n_elems *= x.dims[d] = bad[i].dims[d];
    bl_tensor_table *t;
    bl_error err = BL_ERROR_INIT;
    ck_assert_status(bl_tensor_table_of_list(&x, 1, 1024, &t, &err), BL_EINVAL);
    ck_assert_msg(strstr(err.text, bad[i].says) != NULL, "%s", err.text);
  }
}
END_TEST

START_TEST(initial_value_depends_on_seed_name_and_element_only) {
  bl_tensor x = {.name = "dense1.weight", .dims = {1000}, .n_dims = 1, .n_elems = 1000, .init = BL_INIT_UNIFORM,
                 .init_scale = 0.5f};
  float all[1000], part[1000], other[1000];
  double sum = 0, squares = 0;
  bl_tensor_init_values(&x, 7, 0, 1000, all);
  for (uint64_t first = 0; first < 40; first++) {
    bl_tensor_init_values(&x, 7, first, 37, part);
    ck_assert_mem_eq(part, all + first, 37 * sizeof(float));
  }
  for (size_t i = 0; i < 1000; i++) {
    ck_assert(all[i] >= -0.5f && all[i] < 0.5f);
    sum += (double)all[i];
    squares += (double)all[i] * (double)all[i];
  }
  ck_assert_double_eq_tol(sum / 1000, 0, 0.03);
  ck_assert_double_eq_tol(squares / 1000, 1.0 / 12, 0.01); /* variance of a uniform of width 1 */
  bl_tensor_init_values(&x, 8, 0, 1000, other);
  ck_assert_mem_ne(all, other, sizeof all);
  x.name = "dense2.weight";
  bl_tensor_init_values(&x, 7, 0, 1000, other);
  ck_assert_mem_ne(all, other, sizeof all);
}
END_TEST

START_TEST(initial_values_are_the_same_for_ever) {
  /* Golden: a change of these changes every job. */
  bl_tensor x = {.name = "dense1.weight", .dims = {8}, .n_dims = 1, .n_elems = 8, .init = BL_INIT_UNIFORM,
                 .init_scale = 1};
  float v[5];
  bl_tensor_init_values(&x, 1, 2, 5, v);
  static const float want[5] = {-0.238984466f, -0.505451202f, -0.952927351f, -0.404001713f, 0.532673836f};
  for (size_t i = 0; i < 5; i++)
    ck_assert_msg(v[i] == want[i], "%zu: %.9g", i, (double)v[i]);
  x.init = BL_INIT_CONSTANT;
  bl_tensor_init_values(&x, 1, 0, 2, v);
  ck_assert_float_eq(v[1], 1);
  x.init = BL_INIT_ZERO;
  bl_tensor_init_values(&x, 1, 0, 2, v);
  ck_assert_float_eq(v[1], 0);
}
END_TEST

START_TEST(clocks_count_the_short_one_at_the_end) {
  ck_assert_uint_eq(bl_job_clocks(1000, 256, 3), 12);
  ck_assert_uint_eq(bl_job_clocks(1024, 256, 3), 12);
  ck_assert_uint_eq(bl_job_clocks(0, 256, 3), 0);
  ck_assert_uint_eq(bl_job_clocks(UINT64_MAX, 1, 3), UINT64_MAX);
}
END_TEST

START_TEST(with_local_data_the_largest_rank_sets_the_clocks) {
  static const struct {
    uint64_t samples[3], batch, epochs, want;
  } cases[] = {
      {{100, 100, 100}, 30, 2, 20}, {{100, 1, 1}, 30, 2, 20},           {{101, 1, 99}, 30, 3, 33}, {{1, 1, 1}, 3, 5, 5},
      {{0, 0, 0}, 3, 5, 0},         {{UINT64_MAX, 1, 1}, 3, 2, UINT64_MAX},
  };
  for (size_t i = 0; i < BL_COUNT_OF(cases); i++)
    ck_assert_uint_eq(bl_job_clocks_local(cases[i].samples, 3, cases[i].batch, cases[i].epochs), cases[i].want);
  /* One rank: the same as shared data. */
  for (uint64_t n = 0; n < 50; n++)
    ck_assert_uint_eq(bl_job_clocks_local(&n, 1, 7, 3), bl_job_clocks(n, 7, 3));
}
END_TEST

START_TEST(local_data_is_understood_and_written_back) {
  static const char text[] = "name: x\ndata: {where: local, normalize: none, train: {csv: {path: /a, target: y}}}\n" ONE
                             "loss: squared\noptimizer: adam\nbatch: 8\nepochs: 1\nranks: 4\n";
  bl_job_spec *s = parse_set(text, NULL, 0);
  ck_assert_int_eq(s->data.where, BL_DATA_LOCAL);
  bl_job_spec_free(s);
}
END_TEST

START_TEST(early_stopping_is_understood) {
  bl_job_spec *s = parse_set(GOOD "metrics: auc\nsave_every: 3\noutput: o\n"
                             "early_stopping: {metric: validation_auc, min_delta: 0.01}\n",
                             (const char *const[]){"data.validation=0.2"}, 1);
  ck_assert_str_eq(s->stop.metric, "validation_auc");
  ck_assert(s->stop.mode == BL_STOP_MAX && s->stop.patience == 3 && s->stop.min_delta == 0.01 && s->save_every == 3);
  bl_buf text = BL_BUF_INIT;
  bl_job_spec_dump(s, &text);
  bl_job_spec *again = parse_set(bl_buf_str(&text), NULL, 0);
  ck_assert_str_eq(again->stop.metric, "validation_auc");
  ck_assert(again->stop.mode == BL_STOP_MAX);
  bl_job_spec_free(again);
  bl_job_spec_free(s);
  bl_buf_fini(&text);
  s = parse_set(GOOD "early_stopping: {metric: train_loss}\n", NULL, 0);
  ck_assert_int_eq(s->stop.mode, BL_STOP_MIN);
  bl_job_spec_free(s);
  s = parse_set(GOOD, NULL, 0);
  ck_assert_ptr_null(s->stop.metric);
  bl_job_spec_free(s);
}
END_TEST

START_TEST(metrics_are_understood) {
  bl_job_spec *s = parse_set("name: x\n" DATA "model: {input: [4], layers: [dense 9]}\n" TAIL
                             "metrics: [top5, log_loss, confusion]\naccumulate: 4\n", NULL, 0);
  ck_assert(s->measure.top_k == 5 && s->measure.log_loss && s->measure.confusion && !s->measure.auc);
  ck_assert_uint_eq(bl_job_clock_samples(s), 128);
  bl_job_spec_free(s);
}
END_TEST

START_TEST(table_survives_the_loss_of_any_allocation) {
  bl_job_spec *s = parse_set(GOOD, NULL, 0);
  uint64_t live = bl_alloc_get_stats().live_blocks;
  bool done = false;
  for (uint64_t n = 1; !done; n++) {
    bl_tensor_table *t = NULL;
    bl_alloc_fail_after(n);
    bl_status status = bl_tensor_table_of_model(&s->model, 4096, &t, NULL);
    bl_alloc_fail_after(0);
    done = status == BL_OK;
    ck_assert(done || status == BL_ENOMEM);
    bl_tensor_table_free(t);
    ck_assert_uint_eq(bl_alloc_get_stats().live_blocks, live);
  }
  bl_job_spec_free(s);
}
END_TEST

int main(void) {
  Suite *s = suite_create("job");
  TCase *tc = tcase_create("spec");
  tcase_add_loop_test(tc, every_example_is_read_and_comes_back_from_its_dump, 0, BL_COUNT_OF(examples));
  tcase_add_test(tc, defaults_are_as_documented);
  tcase_add_test(tc, values_reach_the_spec);
  tcase_add_test(tc, test_set_takes_what_it_leaves_out_from_the_training_set);
  tcase_add_loop_test(tc, softmax_at_the_end_belongs_to_the_loss, 0, 2);
  tcase_add_test(tc, overrides_change_the_document_before_the_checks);
  tcase_add_test(tc, parts_of_a_model_are_exchanged_in_turn);
  tcase_add_test(tc, local_steps_leave_the_servers_another_rule);
  tcase_add_test(tc, the_first_group_that_matches_holds);
  tcase_add_test(tc, estimates_count_optimizer_state_and_average);
  tcase_add_loop_test(tc, mistake_is_named_with_its_line, 0, BL_COUNT_OF(mistakes));
  tcase_add_test(tc, all_mistakes_come_at_once_and_in_order);
  tcase_add_test(tc, many_mistakes_end_with_a_note);
  tcase_add_loop_test(tc, mistake_in_an_override_names_the_override, 0, BL_COUNT_OF(bad_overrides));
  tcase_add_test(tc, missing_file_is_a_sentence);
  tcase_add_test(tc, reading_survives_the_loss_of_any_allocation);
  tcase_add_test(tc, reference_names_every_field_with_its_default);
  suite_add_tcase(s, tc);
  tc = tcase_create("tensors");
  tcase_add_test(tc, tensors_have_names_shapes_and_scales);
  tcase_add_loop_test(tc, chunks_cover_every_element_once, 0, 5);
  tcase_add_test(tc, tensor_of_five_gibibytes_needs_no_memory_of_its_size);
  tcase_add_test(tc, wrong_tensors_from_outside_are_refused);
  tcase_add_loop_test(tc, buckets_of_a_table_are_of_one_size, 0, BL_COUNT_OF(table_cases));
  tcase_add_test(tc, wrong_tables_are_refused);
  tcase_add_test(tc, initial_value_depends_on_seed_name_and_element_only);
  tcase_add_test(tc, initial_values_are_the_same_for_ever);
  tcase_add_test(tc, clocks_count_the_short_one_at_the_end);
  tcase_add_test(tc, with_local_data_the_largest_rank_sets_the_clocks);
  tcase_add_test(tc, local_data_is_understood_and_written_back);
  tcase_add_test(tc, early_stopping_is_understood);
  tcase_add_test(tc, metrics_are_understood);
  tcase_add_test(tc, table_survives_the_loss_of_any_allocation);
  suite_add_tcase(s, tc);
  return test_run(&s, 1);
}
