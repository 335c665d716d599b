/* SPDX-License-Identifier: Apache-2.0 */
#include "base/alloc.h"
#include "base/rng.h"
#include "nn/gemm.h"
#include "nn/math.h"
#include "nn/model.h"
#include "nn/vec.h"
#include "tests/support/support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LAYERS_MAX 8

/* A model with the table that belongs to it, made by hand. */
typedef struct net {
  bl_layer_spec layers[LAYERS_MAX];
  bl_model_spec spec;
  bl_tensor tensors[2 * LAYERS_MAX];
  bl_tensor_table table;
  bl_loss_kind loss;
  uint64_t outputs;
} net;

static bl_layer_spec dense(uint32_t units, bl_activation act) {
  return (bl_layer_spec){.kind = BL_LAYER_DENSE, .name = "dense", .units = units, .activation = act, .bias = true};
}
static bl_layer_spec dense_without_bias(uint32_t units, bl_activation act) {
  bl_layer_spec l = dense(units, act);
  l.bias = false;
  return l;
}
static bl_layer_spec activation(bl_activation act) {
  return (bl_layer_spec){.kind = BL_LAYER_ACTIVATION, .name = "activation", .activation = act};
}
static bl_layer_spec dropout(double rate) {
  return (bl_layer_spec){.kind = BL_LAYER_DROPOUT, .name = "dropout", .rate = rate};
}
static bl_layer_spec flatten(void) { return (bl_layer_spec){.kind = BL_LAYER_FLATTEN, .name = "flatten"}; }

static void net_tensor(net *t, uint32_t layer, const char *name, uint64_t a, uint64_t b) {
  t->tensors[t->table.n_tensors++] = (bl_tensor){
      .name = name, .dims = {a, b}, .n_dims = b == 0 ? 1 : 2, .n_elems = b == 0 ? a : a * b, .layer = layer};
}

/* layers ends with kind 0. */
static void net_init(net *t, uint64_t inputs, bl_loss_kind loss, const bl_layer_spec *layers) {
  memset(t, 0, sizeof *t);
  t->spec.input[0] = inputs;
  t->spec.n_input_dims = 1;
  t->spec.layers = t->layers;
  t->table.tensors = t->tensors;
  t->loss = loss;
  t->outputs = inputs;
  for (uint32_t i = 0; layers[i].kind != 0; i++) {
    t->layers[i] = layers[i];
    t->spec.n_layers++;
    if (layers[i].kind != BL_LAYER_DENSE)
      continue;
    net_tensor(t, i, "weight", t->outputs, layers[i].units);
    if (layers[i].bias)
      net_tensor(t, i, "bias", layers[i].units, 0);
    t->outputs = layers[i].units;
  }
}

static wk_model *net_model(net *t, uint32_t batch_max, bool for_training) {
  wk_model *m;
  bl_error err = BL_ERROR_INIT;
  ck_assert_ok_err(wk_model_new(&t->spec, t->loss, &t->table, batch_max, for_training, &m, &err), err);
  return m;
}

static float uniform(uint64_t stream, uint64_t i) { return 2.0f * bl_rng_unit(11, stream, i) - 1.0f; }

static void fill(float *x, size_t n, uint64_t stream, float scale) {
  for (size_t i = 0; i < n; i++)
    x[i] = scale * uniform(stream, i);
}

static void fill_params(net *t, wk_model *m) {
  for (uint32_t k = 0; k < t->table.n_tensors; k++)
    fill(wk_model_params(m)[k], t->tensors[k].n_elems, 100 + k, 0.8f);
}

/* The same mathematics in double precision with libm, one sample at a time. */
static double ref_act(bl_activation act, double z) {
  switch (act) {
  case BL_ACT_RELU:
    return z > 0 ? z : 0;
  case BL_ACT_LEAKY_RELU:
    return z > 0 ? z : 0.01 * z;
  case BL_ACT_TANH:
    return tanh(z);
  case BL_ACT_SIGMOID:
    return 1 / (1 + exp(-z));
  case BL_ACT_GELU:
    return 0.5 * z * (1 + tanh(sqrt(2 / 3.14159265358979323846) * (z + 0.044715 * z * z * z)));
  default:
    return z;
  }
}

static void ref_softmax(double *z, uint64_t n) {
  double sum = 0;
  for (uint64_t j = 0; j < n; j++)
    sum += z[j] = exp(z[j]);
  for (uint64_t j = 0; j < n; j++)
    z[j] /= sum;
}

static void ref_forward(const net *t, double *const *params, const float *x, double *out) {
  double a[64], z[64];
  uint64_t width = t->spec.input[0];
  uint32_t k = 0;
  for (uint64_t j = 0; j < width; j++)
    a[j] = (double)x[j];
  for (size_t i = 0; i < t->spec.n_layers; i++) {
    const bl_layer_spec *l = &t->layers[i];
    uint64_t units = l->kind == BL_LAYER_DENSE ? l->units : width;
    for (uint64_t j = 0; j < units; j++)
      z[j] = a[j];
    if (l->kind == BL_LAYER_DENSE) {
      const double *w = params[k++], *b = l->bias ? params[k++] : NULL;
      for (uint64_t j = 0; j < units; j++) {
        z[j] = b == NULL ? 0 : b[j];
        for (uint64_t q = 0; q < width; q++)
          z[j] += a[q] * w[q * units + j];
      }
    }
    bool of_loss = i + 1 == t->spec.n_layers &&
                   ((l->activation == BL_ACT_SOFTMAX && t->loss == BL_LOSS_SOFTMAX_CROSS_ENTROPY) ||
                    (l->activation == BL_ACT_SIGMOID && t->loss == BL_LOSS_SIGMOID_CROSS_ENTROPY));
    if (l->activation == BL_ACT_SOFTMAX && !of_loss)
      ref_softmax(z, units);
    for (uint64_t j = 0; j < units; j++)
      a[j] = of_loss ? z[j] : ref_act(l->activation, z[j]);
    width = units;
  }
  memcpy(out, a, width * sizeof *a);
}

static double ref_loss(const net *t, double *const *params, const float *x, uint32_t n, const uint32_t *labels,
                       const float *values) {
  double sum = 0;
  for (uint32_t i = 0; i < n; i++) {
    double z[64];
    ref_forward(t, params, x + i * t->spec.input[0], z);
    if (t->loss == BL_LOSS_SQUARED) {
      sum += (z[0] - (double)values[i]) * (z[0] - (double)values[i]);
    } else if (t->loss == BL_LOSS_SIGMOID_CROSS_ENTROPY) {
      sum += log(1 + exp(z[0])) - labels[i] * z[0];
    } else {
      double picked = z[labels[i]];
      double total = 0;
      for (uint64_t j = 0; j < t->outputs; j++)
        total += exp(z[j]);
      sum += log(total) - picked;
    }
  }
  return sum;
}

typedef struct seen {
  uint32_t order[2 * LAYERS_MAX];
  uint32_t n;
} seen;

static void on_grad(uint32_t tensor, const float *grad, uint64_t n_ready, void *arg) {
  seen *s = arg;
  s->order[s->n++] = tensor;
}

/* What was said to be ready of tensor 0, as it was then. */
typedef struct parts {
  float *copy;
  uint64_t n_ready;
  int n;
} parts;

static void on_part(uint32_t tensor, const float *grad, uint64_t n_ready, void *arg) {
  parts *p = arg;
  if (tensor != 0)
    return;
  ck_assert_uint_gt(n_ready, p->n_ready);
  memcpy(p->copy + p->n_ready, grad + p->n_ready, (n_ready - p->n_ready) * sizeof(float));
  p->n_ready = n_ready;
  p->n++;
}

/* Backward against central differences of the double-precision reference. */
static void check_gradients(net *t, uint32_t n) {
  wk_model *m = net_model(t, n, true);
  fill_params(t, m);
  float x[64 * 16], values[16];
  uint32_t labels[16];
  fill(x, n * t->spec.input[0], 1, 1.0f);
  fill(values, n, 2, 2.0f);
  uint64_t classes = t->loss == BL_LOSS_SIGMOID_CROSS_ENTROPY ? 2 : t->outputs;
  for (uint32_t i = 0; i < n; i++)
    labels[i] = (uint32_t)bl_rng_below(5, 0, i, classes);
  double *params[2 * LAYERS_MAX];
  for (uint32_t k = 0; k < t->table.n_tensors; k++) {
    params[k] = malloc(t->tensors[k].n_elems * sizeof(double));
    for (uint64_t e = 0; e < t->tensors[k].n_elems; e++)
      params[k][e] = (double)wk_model_params(m)[k][e];
  }
  const double denominator = 3 * n;
  seen s = {0};
  wk_step_id step = {1, 2, 0};
  wk_model_forward(m, x, n, &step);
  wk_loss_sums sums = wk_model_loss(m, labels, values, n);
  ck_assert_double_eq_tol(sums.loss_sum, ref_loss(t, params, x, n, labels, values), 2e-5 * n);
  wk_model_backward(m, labels, values, n, denominator, on_grad, &s);
  ck_assert_uint_eq(s.n, t->table.n_tensors);
  for (uint32_t k = 0; k < t->table.n_tensors; k++) {
    ck_assert_uint_eq(s.order[k], t->table.n_tensors - 1 - k);
    for (uint64_t e = 0; e < t->tensors[k].n_elems; e++) {
      const double h = 1e-5;
      double at = params[k][e];
      params[k][e] = at + h;
      double up = ref_loss(t, params, x, n, labels, values);
      params[k][e] = at - h;
      double down = ref_loss(t, params, x, n, labels, values);
      params[k][e] = at;
      double want = (up - down) / (2 * h) / denominator, got = (double)wk_model_grads(m)[k][e];
      ck_assert_msg(fabs(want - got) <= 2e-6 + 2e-5 * fabs(want), "tensor %u element %llu: %.9g, expected %.9g", k,
                    (unsigned long long)e, got, want);
    }
  }
  for (uint32_t k = 0; k < t->table.n_tensors; k++)
    free(params[k]);
  wk_model_free(m);
}

#define END {.kind = 0}
static const bl_activation all_acts[] = {BL_ACT_NONE, BL_ACT_RELU,    BL_ACT_LEAKY_RELU, BL_ACT_TANH,
                                         BL_ACT_SIGMOID, BL_ACT_GELU, BL_ACT_SOFTMAX};

START_TEST(gradients_of_dense_with_each_activation_match_differences) {
  net t;
  bl_layer_spec layers[] = {dense(5, all_acts[_i]), dense_without_bias(7, all_acts[_i]), dense(3, BL_ACT_NONE), END};
  net_init(&t, 4, BL_LOSS_SOFTMAX_CROSS_ENTROPY, layers);
  check_gradients(&t, 6);
}
END_TEST

START_TEST(gradients_through_activation_layers_match_differences) {
  net t;
  bl_layer_spec layers[] = {dense(5, BL_ACT_NONE), activation(all_acts[_i]), flatten(), dense(3, BL_ACT_NONE),
                            activation(all_acts[_i]), END};
  net_init(&t, 4, BL_LOSS_SOFTMAX_CROSS_ENTROPY, layers);
  check_gradients(&t, 6);
}
END_TEST

START_TEST(gradients_of_each_loss_match_differences) {
  static const struct {
    bl_loss_kind loss;
    uint32_t units;
    bl_activation last;
  } cases[] = {
      {BL_LOSS_SOFTMAX_CROSS_ENTROPY, 10, BL_ACT_NONE}, {BL_LOSS_SOFTMAX_CROSS_ENTROPY, 33, BL_ACT_SOFTMAX},
      {BL_LOSS_SIGMOID_CROSS_ENTROPY, 1, BL_ACT_NONE},  {BL_LOSS_SIGMOID_CROSS_ENTROPY, 1, BL_ACT_SIGMOID},
      {BL_LOSS_SQUARED, 1, BL_ACT_NONE},                {BL_LOSS_SQUARED, 1, BL_ACT_TANH},
  };
  net t;
  bl_layer_spec layers[] = {flatten(), activation(BL_ACT_TANH), dense(6, BL_ACT_RELU), dropout(0.0),
                            dense(cases[_i].units, cases[_i].last), END};
  net_init(&t, 3, cases[_i].loss, layers);
  check_gradients(&t, 1);
  check_gradients(&t, 9);
}
END_TEST

START_TEST(a_model_of_one_sample_one_input_and_one_unit_works) {
  net t;
  bl_layer_spec layers[] = {dense(1, BL_ACT_RELU), dense(1, BL_ACT_NONE), END};
  net_init(&t, 1, BL_LOSS_SQUARED, layers);
  check_gradients(&t, 1);
}
END_TEST

START_TEST(large_gradients_are_reported_in_parts_that_are_final) {
  enum { IN = 700, OUT = 512, N = 3 };
  net t;
  bl_layer_spec layers[] = {dense(OUT, BL_ACT_NONE), END};
  net_init(&t, IN, BL_LOSS_SOFTMAX_CROSS_ENTROPY, layers);
  wk_model *m = net_model(&t, N, true);
  fill_params(&t, m);
  static float x[N * IN], whole[IN * OUT], dy[N * OUT];
  fill(x, N * IN, 1, 1.0f);
  const uint32_t labels[N] = {0, 7, 511};
  parts p = {.copy = calloc(IN * OUT, sizeof(float))};
  wk_step_id step = {1, 2, 3};
  const float *y = wk_model_forward(m, x, N, &step);
  for (int i = 0; i < N; i++) { /* softmax - one-hot, over N */
    double sum = 0;
    for (int k = 0; k < OUT; k++)
      sum += exp((double)y[i * OUT + k]);
    for (int k = 0; k < OUT; k++)
      dy[i * OUT + k] = (float)((exp((double)y[i * OUT + k]) / sum - (k == (int)labels[i])) / N);
  }
  (void)wk_model_loss(m, labels, NULL, N);
  wk_model_backward(m, labels, NULL, N, N, on_part, &p);
  wk_gemm_tn(IN, OUT, N, x, dy, whole);
  ck_assert_int_gt(p.n, 1);
  ck_assert_uint_eq(p.n_ready, IN * OUT);
  ck_assert_mem_eq(p.copy, wk_model_grads(m)[0], IN * OUT * sizeof(float));
  for (int e = 0; e < IN * OUT; e++)
    ck_assert_double_eq_tol(p.copy[e], whole[e], 1e-5);
  free(p.copy);
  wk_model_free(m);
}
END_TEST

START_TEST(no_samples_give_zero_gradients_that_are_reported) {
  net t;
  bl_layer_spec layers[] = {dense(5, BL_ACT_GELU), dropout(0.5), dense(3, BL_ACT_NONE), END};
  net_init(&t, 4, BL_LOSS_SOFTMAX_CROSS_ENTROPY, layers);
  wk_model *m = net_model(&t, 2, true);
  for (uint32_t k = 0; k < t.table.n_tensors; k++)
    memset(wk_model_grads(m)[k], 0xff, t.tensors[k].n_elems * sizeof(float));
  seen s = {0};
  wk_step_id step = {1, 2, 3};
  wk_model_forward(m, NULL, 0, &step);
  wk_loss_sums sums = wk_model_loss(m, NULL, NULL, 0);
  ck_assert_double_eq(sums.loss_sum, 0);
  wk_model_backward(m, NULL, NULL, 0, 17, on_grad, &s);
  ck_assert_uint_eq(s.n, 4);
  for (uint32_t k = 0; k < t.table.n_tensors; k++)
    for (uint64_t e = 0; e < t.tensors[k].n_elems; e++)
      ck_assert(wk_model_grads(m)[k][e] == 0.0f);
  wk_model_free(m);
}
END_TEST

START_TEST(xor_is_learnt_to_a_loss_near_zero) {
  net t;
  bl_layer_spec layers[] = {dense(8, BL_ACT_TANH), dense(1, BL_ACT_NONE), END};
  net_init(&t, 2, BL_LOSS_SIGMOID_CROSS_ENTROPY, layers);
  wk_model *m = net_model(&t, 4, true);
  fill_params(&t, m);
  static const float x[] = {0, 0, 0, 1, 1, 0, 1, 1};
  static const uint32_t labels[] = {0, 1, 1, 0};
  uint64_t calls = bl_alloc_get_stats().total_calls;
  wk_loss_sums sums = {0};
  for (int i = 0; i < 5000; i++) {
    wk_step_id step = {1, (uint64_t)i, 0};
    wk_model_forward(m, x, 4, &step);
    sums = wk_model_loss(m, labels, NULL, 4);
    wk_model_backward(m, labels, NULL, 4, 4, NULL, NULL);
    for (uint32_t k = 0; k < t.table.n_tensors; k++)
      for (uint64_t e = 0; e < t.tensors[k].n_elems; e++)
        wk_model_params(m)[k][e] -= wk_model_grads(m)[k][e];
  }
  ck_assert_uint_eq(bl_alloc_get_stats().total_calls, calls); /* steps allocate nothing */
  ck_assert_uint_eq(sums.correct, 4);
  ck_assert_double_lt(sums.loss_sum, 0.01);
  float p[4];
  wk_model_predict(m, 4, p);
  for (int i = 0; i < 4; i++)
    ck_assert(labels[i] == 1 ? p[i] > 0.99f : p[i] < 0.01f);
  wk_model_free(m);
}
END_TEST

START_TEST(evaluation_models_give_the_outputs_of_training_models) {
  net t;
  bl_layer_spec layers[] = {flatten(),         dense(9, BL_ACT_GELU), dropout(0.3), activation(BL_ACT_TANH),
                            dense(5, BL_ACT_RELU), activation(BL_ACT_NONE), dense(4, BL_ACT_SOFTMAX), END};
  net_init(&t, 6, BL_LOSS_SOFTMAX_CROSS_ENTROPY, layers);
  wk_model *train = net_model(&t, 7, true), *eval = net_model(&t, 7, false);
  fill_params(&t, train);
  fill_params(&t, eval);
  float x[42], a[28], b[28];
  fill(x, 42, 1, 1.0f);
  const float *y = wk_model_forward(train, x, 7, NULL);
  ck_assert_mem_eq(y, wk_model_forward(eval, x, 7, NULL), sizeof a);
  wk_model_predict(train, 7, a);
  wk_model_predict(eval, 7, b);
  ck_assert_mem_eq(a, b, sizeof a);
  for (int i = 0; i < 7; i++)
    ck_assert_float_eq_tol(a[4 * i] + a[4 * i + 1] + a[4 * i + 2] + a[4 * i + 3], 1.0f, 1e-6f);
  wk_model_free(train);
  wk_model_free(eval);
}
END_TEST

/* ---- golden values of tests/golden/nn.py ---- */

#define GOLDEN_FLOATS_MAX 1024

typedef struct golden_array {
  char key[16];
  uint32_t n;
  float v[GOLDEN_FLOATS_MAX];
} golden_array;

static uint32_t index_of(const char *word, const char *const *words, uint32_t n) {
  for (uint32_t i = 0; i < n; i++)
    if (strcmp(word, words[i]) == 0)
      return i;
  ck_abort_msg("unknown word %s", word);
  return 0;
}

static bool read_array(FILE *f, golden_array *a) {
  if (fscanf(f, "%15s", a->key) != 1 || strcmp(a->key, "end") == 0)
    return false;
  ck_assert_int_eq(fscanf(f, "%u", &a->n), 1);
  ck_assert_uint_le(a->n, GOLDEN_FLOATS_MAX);
  for (uint32_t i = 0; i < a->n; i++)
    ck_assert_int_eq(fscanf(f, "%f", &a->v[i]), 1);
  return true;
}

static long read_layers(FILE *f, bl_layer_spec *layers) {
  static const char *const kinds[] = {"", "dense", "activation", "dropout", "flatten"};
  static const char *const acts[] = {"none", "relu", "leaky_relu", "tanh", "sigmoid", "gelu", "softmax"};
  char kind[16], act[16];
  unsigned units;
  long at = ftell(f);
  for (; fscanf(f, " layer %15s %u %15s", kind, &units, act) == 3; at = ftell(f))
    *layers++ = (bl_layer_spec){.kind = (bl_layer_kind)index_of(kind, kinds, 5), .name = kind, .units = units,
                                .activation = (bl_activation)index_of(act, acts, 7), .bias = true};
  *layers = (bl_layer_spec)END;
  return at;
}

static void check_near(const char *name, const golden_array *want, const float *got) {
  for (uint32_t i = 0; i < want->n; i++)
    ck_assert_msg(fabsf(got[i] - want->v[i]) <= 2e-6f + 1e-5f * fabsf(want->v[i]), "%s: %s[%u] is %.9g, expected %.9g",
                  name, want->key, i, (double)got[i], (double)want->v[i]);
}

static void check_golden_case(FILE *f, const char *name, bl_loss_kind loss, uint32_t inputs, uint32_t n,
                              uint32_t denominator) {
  net t;
  bl_layer_spec layers[LAYERS_MAX];
  fseek(f, read_layers(f, layers), SEEK_SET);
  net_init(&t, inputs, loss, layers);
  wk_model *m = net_model(&t, n, true);
  golden_array a, x;
  uint32_t labels[64], param = 0, grad = 0;
  float values[64], predict[GOLDEN_FLOATS_MAX];
  const float *out = NULL;
  wk_step_id step = {0};
  while (read_array(f, &a)) {
    if (strcmp(a.key, "x") == 0)
      x = a;
    for (uint32_t i = 0; strcmp(a.key, "labels") == 0 && i < a.n; i++)
      labels[i] = (uint32_t)a.v[i];
    if (strcmp(a.key, "values") == 0)
      memcpy(values, a.v, a.n * sizeof *values);
    if (strcmp(a.key, "param") == 0)
      memcpy(wk_model_params(m)[param++], a.v, a.n * sizeof(float));
    if (strcmp(a.key, "grad") == 0) {
      if (out == NULL) {
        out = wk_model_forward(m, x.v, n, &step);
        wk_model_backward(m, labels, values, n, denominator, NULL, NULL);
      }
      check_near(name, &a, wk_model_grads(m)[grad++]);
    }
    if (strcmp(a.key, "out") == 0)
      check_near(name, &a, out);
    if (strcmp(a.key, "predict") == 0) {
      wk_model_predict(m, n, predict);
      check_near(name, &a, predict);
    }
    if (strcmp(a.key, "loss") == 0)
      ck_assert_double_eq_tol(wk_model_loss(m, labels, values, n).loss_sum, (double)a.v[0], 1e-5 * n);
  }
  ck_assert_uint_eq(param, t.table.n_tensors);
  ck_assert_uint_eq(grad, t.table.n_tensors);
  wk_model_free(m);
}

START_TEST(models_agree_with_numpy) {
  static const char *const losses[] = {"", "softmax_cross_entropy", "sigmoid_cross_entropy", "squared"};
  FILE *f = fopen(test_source_path("tests/golden/nn.txt"), "r");
  ck_assert_ptr_nonnull(f);
  char name[32], loss[32];
  uint32_t inputs, n, denominator, cases = 0;
  for (; fscanf(f, " case %31s %31s %u %u %u", name, loss, &inputs, &n, &denominator) == 5; cases++)
    check_golden_case(f, name, (bl_loss_kind)index_of(loss, losses, 4), inputs, n, denominator);
  ck_assert_uint_eq(cases, 5);
  fclose(f);
}
END_TEST

/* ---- refusals ---- */

START_TEST(models_that_do_not_fit_are_refused_with_a_sentence) {
  net t;
  wk_model *m = NULL;
  bl_error err = BL_ERROR_INIT;
  bl_layer_spec layers[] = {dense(5, BL_ACT_RELU), dense(3, BL_ACT_NONE), END};
  net_init(&t, 4, BL_LOSS_SIGMOID_CROSS_ENTROPY, layers);
  ck_assert_status(wk_model_new(&t.spec, t.loss, &t.table, 1, true, &m, &err), BL_EINVAL);
  ck_assert_ptr_nonnull(strstr(err.text, "takes one output, the last layer has 3"));
  t.loss = BL_LOSS_SOFTMAX_CROSS_ENTROPY;
  t.tensors[2].dims[0] = 6;
  ck_assert_status(wk_model_new(&t.spec, t.loss, &t.table, 1, true, &m, &err), BL_EINVAL);
  ck_assert_ptr_nonnull(strstr(err.text, "tensor 2 (weight) is not the weight of layer 1"));
  t.tensors[2].dims[0] = 5;
  t.table.n_tensors = 3;
  ck_assert_status(wk_model_new(&t.spec, t.loss, &t.table, 1, true, &m, &err), BL_EINVAL);
  ck_assert_ptr_nonnull(strstr(err.text, "tensor 3 (absent)"));
  t.table.n_tensors = 5;
  ck_assert_status(wk_model_new(&t.spec, t.loss, &t.table, 1, true, &m, &err), BL_EINVAL);
  t.table.n_tensors = 4;
  ck_assert_status(wk_model_new(&t.spec, t.loss, &t.table, 0, true, &m, &err), BL_EINVAL);
  ck_assert_status(wk_model_new(&t.spec, (bl_loss_kind)0, &t.table, 1, true, &m, &err), BL_EINVAL);
  t.layers[0].kind = (bl_layer_kind)77;
  ck_assert_status(wk_model_new(&t.spec, t.loss, &t.table, 1, true, &m, &err), BL_EINVAL);
  t.layers[0] = dropout(1.0);
  ck_assert_status(wk_model_new(&t.spec, t.loss, &t.table, 1, true, &m, &err), BL_EINVAL);
  t.layers[0] = dense(5, BL_ACT_RELU);
  t.spec.input[0] = UINT64_C(1) << 40;
  uint64_t bytes = 7;
  ck_assert_status(wk_model_memory(&t.spec, 1, true, &bytes, &err), BL_EINVAL);
  t.spec.input[0] = 0x7fffffff;
  t.layers[0].units = t.layers[1].units = 0x7fffffff;
  ck_assert_status(wk_model_memory(&t.spec, 0x7fffffff, true, &bytes, &err), BL_ELIMIT);
  ck_assert_uint_eq(bytes, 7);
  ck_assert_ptr_null(m);
}
END_TEST

START_TEST(a_model_without_memory_is_refused_and_leaks_nothing) {
  net t;
  bl_layer_spec layers[] = {dense(5, BL_ACT_RELU), dense(3, BL_ACT_NONE), END};
  net_init(&t, 4, BL_LOSS_SOFTMAX_CROSS_ENTROPY, layers);
  uint64_t before = bl_alloc_get_stats().live_blocks;
  bl_status status = BL_ENOMEM;
  for (uint64_t n = 1; status != BL_OK; n++) {
    wk_model *m = NULL;
    bl_alloc_fail_after(n);
    status = wk_model_new(&t.spec, t.loss, &t.table, 4, true, &m, NULL);
    bl_alloc_fail_after(0);
    ck_assert(status == BL_OK || status == BL_ENOMEM);
    wk_model_free(m);
    ck_assert_uint_eq(bl_alloc_get_stats().live_blocks, before);
  }
}
END_TEST

START_TEST(a_model_takes_the_table_made_from_its_own_spec) {
  bl_layer_spec layers[] = {flatten(), dense(5, BL_ACT_RELU), dropout(0.5), dense_without_bias(4, BL_ACT_NONE),
                            dense(3, BL_ACT_NONE)};
  layers[1].name = "a";
  layers[3].name = "b";
  layers[4].name = "c";
  bl_model_spec spec = {.input = {2, 3}, .n_input_dims = 2, .layers = layers, .n_layers = 5};
  bl_tensor_table *table;
  wk_model *m;
  bl_error err = BL_ERROR_INIT;
  ck_assert_ok_err(bl_tensor_table_of_model(&spec, 1 << 20, &table, &err), err);
  ck_assert_ok_err(wk_model_new(&spec, BL_LOSS_SOFTMAX_CROSS_ENTROPY, table, 4, true, &m, &err), err);
  ck_assert_uint_eq(table->n_tensors, 5);
  for (uint32_t k = 0; k < table->n_tensors; k++)
    bl_tensor_init_values(&table->tensors[k], 1, 0, table->tensors[k].n_elems, wk_model_params(m)[k]);
  float x[24];
  fill(x, 24, 1, 1.0f);
  wk_step_id step = {1, 0, 0};
  const float *y = wk_model_forward(m, x, 4, &step);
  for (int i = 0; i < 12; i++)
    ck_assert(isfinite(y[i]));
  wk_model_free(m);
  bl_tensor_table_free(table);
}
END_TEST

static uint64_t aligned(uint64_t bytes) { return (bytes + 63) / 64 * 64; }

START_TEST(memory_is_the_sum_of_its_parts) {
  net t;
  bl_layer_spec layers[] = {dense(50, BL_ACT_GELU), dropout(0.5), flatten(), dense(3, BL_ACT_SOFTMAX), END};
  net_init(&t, 40, BL_LOSS_SOFTMAX_CROSS_ENTROPY, layers);
  uint64_t training, evaluation;
  ck_assert_ok(wk_model_memory(&t.spec, 7, true, &training, NULL));
  ck_assert_ok(wk_model_memory(&t.spec, 7, false, &evaluation, NULL));
  uint64_t params = aligned(40 * 50 * 4) + aligned(50 * 4) + aligned(50 * 3 * 4) + aligned(3 * 4);
  uint64_t buffers = 2 * aligned(7 * 50 * 4);
  ck_assert_uint_eq(evaluation, params + buffers);
  uint64_t outputs = 2 * aligned(7 * 50 * 4) + aligned(7 * 3 * 4);
  uint64_t state = aligned(7 * 50 * 4) + aligned(7 * 50); /* slope of gelu, mask of dropout */
  ck_assert_uint_eq(training, 2 * params + outputs + state + buffers);
}
END_TEST

/* ---- dropout ---- */

START_TEST(dropout_keeps_its_rate_its_mean_and_its_mask) {
  enum { WIDTH = 1000, N = 50 };
  net t;
  bl_layer_spec layers[] = {dropout(0.25), dropout(0.25), END};
  net_init(&t, WIDTH, BL_LOSS_SOFTMAX_CROSS_ENTROPY, layers);
  t.spec.n_layers = 1;
  wk_model *m = net_model(&t, N, true);
  static float x[WIDTH * N], first[WIDTH * N];
  for (size_t i = 0; i < WIDTH * N; i++)
    x[i] = 1.0f;
  static const wk_step_id steps[] = {{9, 4, 2}, {9, 4, 2}, {8, 4, 2}, {9, 5, 2}, {9, 4, 3}};
  for (size_t s = 0; s < BL_COUNT_OF(steps); s++) {
    const float *y = wk_model_forward(m, x, N, &steps[s]);
    size_t dropped = 0, same = 0;
    for (size_t i = 0; i < WIDTH * N; i++) {
      ck_assert(y[i] == 0.0f || y[i] == (float)(1 / 0.75));
      dropped += y[i] == 0.0f;
      same += y[i] == first[i];
    }
    /* binomial: deviation 97 of 12500 */
    ck_assert_uint_ge(dropped, 12000);
    ck_assert_uint_le(dropped, 13000);
    if (s == 0)
      memcpy(first, y, sizeof first);
    else if (s == 1)
      ck_assert_uint_eq(same, WIDTH * N);
    else /* independent masks agree on 0.75^2 + 0.25^2 of the elements */
      ck_assert(same > 30000 && same < 32500);
  }
  ck_assert_mem_eq(wk_model_forward(m, x, N, NULL), x, sizeof x); /* evaluation */
  wk_model_free(m);
  t.spec.n_layers = 2; /* the second layer draws another mask */
  m = net_model(&t, N, true);
  const float *y = wk_model_forward(m, x, N, &steps[0]);
  size_t kept = 0;
  for (size_t i = 0; i < WIDTH * N; i++)
    kept += y[i] != 0.0f;
  ck_assert(kept > 27400 && kept < 28900);
  wk_model_free(m);
}
END_TEST

START_TEST(gradients_pass_where_dropout_kept) {
  net t;
  bl_layer_spec layers[] = {dense(64, BL_ACT_NONE), dropout(0.5), dense(1, BL_ACT_NONE), END};
  net_init(&t, 1, BL_LOSS_SQUARED, layers);
  wk_model *m = net_model(&t, 1, true);
  fill_params(&t, m);
  wk_step_id step = {1, 1, 1};
  const float x = 1, value = 100;
  wk_model_forward(m, &x, 1, &step);
  wk_model_backward(m, NULL, &value, 1, 1, NULL, NULL);
  size_t kept = 0;
  for (int j = 0; j < 64; j++) {
    /* the weight behind a dropped unit saw 0, and the unit's own bias gets nothing */
    bool dropped = wk_model_grads(m)[2][j] == 0.0f;
    ck_assert_int_eq(wk_model_grads(m)[1][j] == 0.0f, dropped);
    kept += !dropped;
  }
  ck_assert(kept > 16 && kept < 48);
  wk_model_free(m);
}
END_TEST

/* ---- functions and tables ---- */

static double ulps(float got, double want) {
  float near = (float)want;
  double unit = (double)(nextafterf(fabsf(near), INFINITY) - fabsf(near));
  return fabs((double)got - want) / unit;
}

static float tanh_of(float x) { return wk_tanhf(x); }
static double exact_sigmoid(double x) { return 1 / (1 + exp(-x)); }

START_TEST(functions_keep_their_error_bounds) {
  static const struct {
    const char *name;
    float (*f)(float);
    double (*exact)(double);
    float low, high;
    double bound;
  } cases[] = {
      {"exp", wk_expf, exp, -87.0f, 88.7f, 1.0},       {"exp", wk_expf, exp, -1.0f, 1.0f, 1.0},
      {"log", wk_logf, log, 1.2e-38f, 3e38f, 1.0},     {"log", wk_logf, log, 0.5f, 2.0f, 1.0},
      {"log1p", wk_log1pf, log1p, 0.0f, 1.0f, 3.0},    {"tanh", tanh_of, tanh, -10.0f, 10.0f, 2.0},
      {"tanh", tanh_of, tanh, -0.7f, 0.7f, 2.0},       {"sigmoid", wk_sigmoidf, exact_sigmoid, -86.0f, 20.0f, 3.0},
  };
  double worst = 0;
  float at = 0;
  bool in_bits = strcmp(cases[_i].name, "log") == 0; /* across the exponents */
  uint32_t low = wk_bits_of_float(cases[_i].low), high = wk_bits_of_float(cases[_i].high);
  for (uint32_t i = 0; i <= 1000000; i++) {
    float x = in_bits ? wk_float_of_bits(low + (uint32_t)((double)(high - low) * (i / 1e6)))
                      : cases[_i].low + (cases[_i].high - cases[_i].low) * (float)(i / 1e6);
    double e = ulps(cases[_i].f(x), cases[_i].exact((double)x));
    if (e > worst) {
      worst = e;
      at = x;
    }
  }
  printf("%s in [%g, %g]: at most %.3f ulp, at %.9g\n", cases[_i].name, (double)cases[_i].low, (double)cases[_i].high,
         worst, (double)at);
  ck_assert_double_le(worst, cases[_i].bound);
}
END_TEST

START_TEST(functions_are_right_at_the_edges) {
  ck_assert(wk_expf(0.0f) == 1.0f && wk_expf(-INFINITY) == 0.0f && wk_expf(INFINITY) == INFINITY);
  ck_assert(wk_expf(89.0f) == INFINITY && wk_expf(-200.0f) == 0.0f && wk_expf(-90.0f) > 0.0f);
  ck_assert(wk_logf(1.0f) == 0.0f && wk_logf(0.0f) == -INFINITY && wk_logf(INFINITY) == INFINITY);
  ck_assert(isnan(wk_logf(-1.0f)) && isnan(wk_logf(NAN)) && isnan(wk_expf(NAN)) && isnan(wk_tanhf(NAN)));
  ck_assert_float_eq_tol(wk_logf(1e-40f), -92.1034037f, 1e-4f);
  ck_assert(wk_tanhf(INFINITY) == 1.0f && wk_tanhf(-INFINITY) == -1.0f && wk_tanhf(0.0f) == 0.0f);
  ck_assert(wk_sigmoidf(-INFINITY) == 0.0f && wk_sigmoidf(INFINITY) == 1.0f && wk_sigmoidf(0.0f) == 0.5f);
  float slope;
  ck_assert(wk_geluf(1e30f, &slope) == 1e30f && slope == 1.0f);
  ck_assert(wk_geluf(-1e30f, &slope) == 0.0f && slope == 0.0f);
}
END_TEST

START_TEST(every_table_gives_the_bits_of_the_scalar_one) {
  enum { ROWS = 3, COLS_MAX = 70 };
  float x[ROWS * COLS_MAX], bias[COLS_MAX], want[ROWS * COLS_MAX], got[ROWS * COLS_MAX], slope[2][ROWS * COLS_MAX],
      sums[2][COLS_MAX];
  static const float extremes[] = {0.0f, -0.0f, 1e-40f, -1e-40f, 3e38f, -3e38f, 88.5f, -104.0f, INFINITY, -INFINITY};
  const wk_vec *scalar = wk_vec_at(0), *v;
  for (size_t i = 1; (v = wk_vec_at(i)) != NULL; i++)
    for (size_t act = 0; act < BL_ACT_COUNT; act++)
      for (size_t cols = 1; cols <= COLS_MAX; cols++) {
        size_t bytes = ROWS * cols * sizeof(float);
        fill(x, ROWS * cols, cols, 10.0f);
        fill(bias, cols, 99, 1.0f);
        for (size_t e = 0; e < BL_COUNT_OF(extremes) && act != BL_ACT_SOFTMAX; e++)
          x[(e * 7) % (ROWS * cols)] = extremes[e];
        scalar->act_forward[act](x, bias, want, slope[0], ROWS, cols);
        v->act_forward[act](x, bias, got, slope[1], ROWS, cols);
        ck_assert_mem_eq(want, got, bytes);
        const float *saved = wk_act_needs_slope[act] ? slope[0] : want;
        if (wk_act_needs_slope[act])
          ck_assert_mem_eq(slope[0], slope[1], bytes);
        fill(x, ROWS * cols, cols + 1, 1.0f);
        memcpy(got, x, bytes);
        scalar->act_backward[act](x, saved, sums[0], ROWS, cols);
        v->act_backward[act](got, saved, sums[1], ROWS, cols);
        ck_assert_mem_eq(x, got, bytes);
        ck_assert_mem_eq(sums[0], sums[1], cols * sizeof(float));
        float e0 = scalar->exp_sum(x, 0.5f, want, cols), e1 = v->exp_sum(x, 0.5f, got, cols);
        ck_assert_mem_eq(&e0, &e1, sizeof e0);
        ck_assert_mem_eq(want, got, cols * sizeof(float));
        ck_assert(scalar->max(x, cols) == v->max(x, cols));
      }
}
END_TEST

START_TEST(random_masks_follow_the_generator_on_every_table) {
  const uint64_t key = 0x0123456789abcdef, hi = 77, lo = UINT64_C(0xfffffff8); /* carries into the upper word */
  const wk_vec *v;
  for (size_t i = 0; (v = wk_vec_at(i)) != NULL; i++)
    for (size_t n = 0; n <= 300; n += 37) {
      uint8_t keep[301];
      memset(keep, 7, sizeof keep);
      v->random_keep(key, hi, lo, 20000, keep, n);
      for (size_t e = 0; e < n; e++) {
        bl_rng_block block = bl_rng_philox(key, hi, lo + e / 128 * 16 + e % 16);
        uint32_t half = block.v[e % 128 / 32] >> (e % 32 / 16 * 16) & 0xffff;
        ck_assert_uint_eq(keep[e], half >= 20000);
      }
      ck_assert_uint_eq(keep[n], 7);
    }
}
END_TEST

START_TEST(losses_survive_huge_outputs_and_report_nan) {
  net t;
  bl_layer_spec layers[] = {activation(BL_ACT_NONE), END};
  net_init(&t, 3, BL_LOSS_SOFTMAX_CROSS_ENTROPY, layers);
  wk_model *m = net_model(&t, 1, true);
  float x[3] = {1000, -1000, 0};
  uint32_t label = 1;
  wk_model_forward(m, x, 1, NULL);
  ck_assert_double_eq_tol(wk_model_loss(m, &label, NULL, 1).loss_sum, 2000, 1e-3);
  x[2] = NAN;
  wk_model_forward(m, x, 1, NULL);
  ck_assert(isnan(wk_model_loss(m, &label, NULL, 1).loss_sum));
  wk_model_free(m);
  net_init(&t, 1, BL_LOSS_SIGMOID_CROSS_ENTROPY, layers);
  m = net_model(&t, 1, true);
  static const struct {
    float z;
    uint32_t label;
    double loss;
  } cases[] = {{1000, 1, 0}, {1000, 0, 1000}, {-1000, 1, 1000}, {-1000, 0, 0}, {20, 1, 2.0611536e-9}};
  for (size_t i = 0; i < BL_COUNT_OF(cases); i++) {
    x[0] = cases[i].z;
    wk_model_forward(m, x, 1, NULL);
    wk_loss_sums sums = wk_model_loss(m, &cases[i].label, NULL, 1);
    ck_assert_double_eq_tol(sums.loss_sum, cases[i].loss, 1e-6 * cases[i].loss + 1e-300);
    ck_assert_uint_eq(sums.correct, (cases[i].z > 0) == (cases[i].label == 1));
  }
  wk_model_free(m);
}
END_TEST

START_TEST(products_of_empty_matrices_are_zero) {
  float c[6] = {1, 2, 3, 4, 5, 6}, a[1] = {0};
  wk_gemm_nn(2, 3, 0, a, a, c);
  for (int i = 0; i < 6; i++)
    ck_assert(c[i] == 0.0f);
  wk_gemm_tn(0, 3, 5, NULL, a, NULL);
  ck_assert_ptr_nonnull(wk_gemm_core_name());
  ck_assert_ptr_nonnull(strstr(wk_gemm_config(), "OpenBLAS"));
}
END_TEST

int main(void) {
  Suite *s = suite_create("nn");
  TCase *t = tcase_create("model");
  tcase_set_timeout(t, 60);
  tcase_add_loop_test(t, gradients_of_dense_with_each_activation_match_differences, 0, BL_COUNT_OF(all_acts));
  tcase_add_loop_test(t, gradients_through_activation_layers_match_differences, 0, BL_COUNT_OF(all_acts));
  tcase_add_loop_test(t, gradients_of_each_loss_match_differences, 0, 6);
  tcase_add_test(t, a_model_of_one_sample_one_input_and_one_unit_works);
  tcase_add_test(t, no_samples_give_zero_gradients_that_are_reported);
  tcase_add_test(t, large_gradients_are_reported_in_parts_that_are_final);
  tcase_add_test(t, xor_is_learnt_to_a_loss_near_zero);
  tcase_add_test(t, evaluation_models_give_the_outputs_of_training_models);
  tcase_add_test(t, models_agree_with_numpy);
  tcase_add_test(t, models_that_do_not_fit_are_refused_with_a_sentence);
  tcase_add_test(t, a_model_without_memory_is_refused_and_leaks_nothing);
  tcase_add_test(t, a_model_takes_the_table_made_from_its_own_spec);
  tcase_add_test(t, memory_is_the_sum_of_its_parts);
  tcase_add_test(t, losses_survive_huge_outputs_and_report_nan);
  tcase_add_test(t, dropout_keeps_its_rate_its_mean_and_its_mask);
  tcase_add_test(t, gradients_pass_where_dropout_kept);
  suite_add_tcase(s, t);
  t = tcase_create("functions");
  tcase_set_timeout(t, 60);
  tcase_add_loop_test(t, functions_keep_their_error_bounds, 0, 8);
  tcase_add_test(t, functions_are_right_at_the_edges);
  tcase_add_test(t, every_table_gives_the_bits_of_the_scalar_one);
  tcase_add_test(t, random_masks_follow_the_generator_on_every_table);
  tcase_add_test(t, products_of_empty_matrices_are_zero);
  suite_add_tcase(s, t);
  return test_run(&s, 1);
}
