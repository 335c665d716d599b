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

static void on_grad(uint32_t tensor, const float *grad, void *arg) {
  seen *s = arg;
  s->order[s->n++] = tensor;
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

int main(void) {
  Suite *s = suite_create("nn");
  TCase *t = tcase_create("model");
  tcase_set_timeout(t, 60);
  tcase_add_loop_test(t, gradients_of_dense_with_each_activation_match_differences, 0, BL_COUNT_OF(all_acts));
  tcase_add_loop_test(t, gradients_through_activation_layers_match_differences, 0, BL_COUNT_OF(all_acts));
  tcase_add_loop_test(t, gradients_of_each_loss_match_differences, 0, 6);
  tcase_add_test(t, a_model_of_one_sample_one_input_and_one_unit_works);
  tcase_add_test(t, no_samples_give_zero_gradients_that_are_reported);
  tcase_add_test(t, xor_is_learnt_to_a_loss_near_zero);
  tcase_add_test(t, evaluation_models_give_the_outputs_of_training_models);
  suite_add_tcase(s, t);
  return test_run(&s, 1);
}
