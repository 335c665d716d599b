/* SPDX-License-Identifier: Apache-2.0
 *
 * Speed of a training step of the MLP 784-512-256-10 at batch 128 on one thread. One JSON line per
 * measurement: samples per second of CPU time (on an idle core the same as elapsed time) of
 *   compute  forward, loss, backward, on batches that are in memory as float32
 *   step     fetch, forward, loss, backward and a plain SGD step: what a training loop does
 *   gemm     only the matrix products of a step: no model can be faster
 *   dropout  only the random masks of two dropout layers behind the hidden layers
 *   fetch    float32 rows gathered from bytes in random order, divided by 255
 * Usage: compute [seconds per measurement [one of the names]]. bench/compute.py runs it beside PyTorch. Unless the environment
 * names BLAS's core type, the program starts itself again with the one that a worker gives its tasks.
 */
#include "base/alloc.h"
#include "base/clock.h"
#include "base/rng.h"
#include "kernel/kernel.h"
#include "nn/gemm.h"
#include "nn/model.h"
#include "nn/vec.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { IN = 784, H1 = 512, H2 = 256, OUT = 10, BATCH = 128, N_BATCHES = 16, N_IMAGES = 60000 };

typedef struct work {
  wk_model *model;
  float *x;           /* [N_BATCHES, BATCH, IN] */
  uint32_t *labels;   /* [N_BATCHES, BATCH] */
  uint8_t *images;    /* [N_IMAGES, IN] */
  float *gemm;        /* memory for the bare products */
  uint64_t steps;
  double sink;
} work;

static bl_layer_spec layers[] = {
    {.kind = BL_LAYER_DENSE, .name = "dense1", .units = H1, .activation = BL_ACT_RELU, .bias = true},
    {.kind = BL_LAYER_DENSE, .name = "dense2", .units = H2, .activation = BL_ACT_RELU, .bias = true},
    {.kind = BL_LAYER_DENSE, .name = "dense3", .units = OUT, .bias = true},
};
static const bl_model_spec spec = {.input = {IN}, .n_input_dims = 1, .layers = layers, .n_layers = 3};
static bl_tensor tensors[] = {
    {.name = "dense1.weight", .dims = {IN, H1}, .n_dims = 2, .n_elems = IN * H1, .layer = 0},
    {.name = "dense1.bias", .dims = {H1}, .n_dims = 1, .n_elems = H1, .layer = 0},
    {.name = "dense2.weight", .dims = {H1, H2}, .n_dims = 2, .n_elems = H1 * H2, .layer = 1},
    {.name = "dense2.bias", .dims = {H2}, .n_dims = 1, .n_elems = H2, .layer = 1},
    {.name = "dense3.weight", .dims = {H2, OUT}, .n_dims = 2, .n_elems = H2 * OUT, .layer = 2},
    {.name = "dense3.bias", .dims = {OUT}, .n_dims = 1, .n_elems = OUT, .layer = 2},
};
static const bl_tensor_table table = {.tensors = tensors, .n_tensors = BL_COUNT_OF(tensors)};

static void do_compute(work *k) {
  size_t b = k->steps % N_BATCHES;
  const uint32_t *labels = k->labels + b * BATCH;
  wk_step_id step = {1, k->steps, 0};
  wk_model_forward(k->model, k->x + b * BATCH * IN, BATCH, &step);
  k->sink += wk_model_loss(k->model, labels, NULL, BATCH).loss_sum;
  wk_model_backward(k->model, labels, NULL, BATCH, BATCH, NULL, NULL);
}

static void do_gemm(work *k) {
  const float *x = k->x + k->steps % N_BATCHES * BATCH * IN;
  float *w1 = k->gemm, *w2 = w1 + IN * H1, *w3 = w2 + H1 * H2, *g1 = w3 + H2 * OUT, *g2 = g1 + IN * H1,
        *g3 = g2 + H1 * H2, *y1 = g3 + H2 * OUT, *y2 = y1 + BATCH * H1, *y3 = y2 + BATCH * H2, *d1 = y3 + BATCH * OUT,
        *d2 = d1 + BATCH * H1;
  wk_gemm_nn(BATCH, H1, IN, x, w1, y1);
  wk_gemm_nn(BATCH, H2, H1, y1, w2, y2);
  wk_gemm_nn(BATCH, OUT, H2, y2, w3, y3);
  wk_gemm_tn(H2, OUT, BATCH, y2, y3, g3);
  wk_gemm_nt(BATCH, H2, OUT, y3, w3, d2);
  wk_gemm_tn(H1, H2, BATCH, y1, d2, g2);
  wk_gemm_nt(BATCH, H1, H2, d2, w2, d1);
  wk_gemm_tn(IN, H1, BATCH, x, d1, g1);
}

static void do_dropout(work *k) {
  static uint8_t keep[BATCH * H1];
  wk_vec_get()->random_keep(1, k->steps, 0, 13107, keep, BATCH * H1);
  wk_vec_get()->random_keep(1, k->steps, UINT64_C(1) << 54, 13107, keep, BATCH * H2);
}

static void do_fetch(work *k) {
  float *x = k->x + k->steps % N_BATCHES * BATCH * IN;
  for (uint64_t i = 0; i < BATCH; i++) {
    const uint8_t *from = k->images + bl_rng_below(3, 0, k->steps * BATCH + i, N_IMAGES) * IN;
    for (size_t j = 0; j < IN; j += 16) /* a constant inner count, which gcc -O2 turns into vector code */
      for (size_t l = 0; l < 16; l++)
        x[i * IN + j + l] = (float)from[j + l] * (1.0f / 255);
  }
}

static void do_step(work *k) {
  do_fetch(k);
  do_compute(k);
  for (size_t i = 0; i < table.n_tensors; i++)
    bl_kernels_get()->sgd(wk_model_params(k->model)[i], wk_model_grads(k->model)[i], 0.01f, 0, tensors[i].n_elems);
}

static const struct {
  const char *name;
  void (*body)(work *k);
} rows[] = {{"fetch", do_fetch}, {"dropout", do_dropout}, {"gemm", do_gemm}, {"compute", do_compute}, {"step", do_step}};

static void measure(work *k, size_t row, double seconds) {
  for (k->steps = 0; k->steps < 20; k->steps++)
    rows[row].body(k);
  uint64_t begin = bl_clock_cpu_ns(), end = begin + (uint64_t)(seconds * (double)BL_NS_PER_S), now = begin;
  for (k->steps = 0; now < end; now = bl_clock_cpu_ns(), k->steps++)
    rows[row].body(k);
  printf("{\"bench\":\"compute\",\"by\":\"ballast\",\"what\":\"%s\",\"samples_per_cpu_second\":%.0f}\n", rows[row].name,
         (double)(k->steps * BATCH) / ((double)(now - begin) / (double)BL_NS_PER_S));
  fflush(stdout);
}

static void restart_with_core_type(char **argv) {
  const char *core = wk_gemm_core_choice();
  if (getenv(WK_GEMM_CORE_ENV) == NULL && core != NULL && setenv(WK_GEMM_CORE_ENV, core, 0) == 0)
    (void)execv("/proc/self/exe", argv);
}

int main(int argc, char **argv) {
  restart_with_core_type(argv);
  double seconds = argc > 1 ? atof(argv[1]) : 2;
  work k = {0};
  bl_error err = BL_ERROR_INIT;
  wk_gemm_set_threads(1);
  k.x = bl_calloc_aligned((size_t)N_BATCHES * BATCH * IN, sizeof *k.x);
  k.labels = bl_calloc((size_t)N_BATCHES * BATCH, sizeof *k.labels);
  k.images = bl_malloc((size_t)N_IMAGES * IN);
  k.gemm = bl_calloc_aligned(4u << 20, sizeof *k.gemm);
  bl_status status =
      wk_model_new(&spec, BL_LOSS_SOFTMAX_CROSS_ENTROPY, &table, BATCH, true, &k.model, &err);
  if (status != BL_OK || k.x == NULL || k.labels == NULL || k.images == NULL || k.gemm == NULL) {
    fprintf(stderr, "compute: %s\n", status != BL_OK ? err.text : "no memory");
    return 1;
  }
  for (size_t i = 0; i < (size_t)N_IMAGES * IN; i++)
    k.images[i] = (uint8_t)(i * 2654435761u >> 24);
  for (size_t i = 0; i < (size_t)N_BATCHES * BATCH; i++)
    k.labels[i] = (uint32_t)bl_rng_below(1, 0, i, OUT);
  for (size_t t = 0; t < table.n_tensors; t++)
    for (size_t i = 0; tensors[t].n_dims == 2 && i < tensors[t].n_elems; i++)
      wk_model_params(k.model)[t][i] = 0.05f * bl_rng_normal(2, t, i);
  for (size_t i = 0; i < (1u << 20); i++)
    k.gemm[i] = 0.05f * bl_rng_normal(2, 99, i);
  fprintf(stderr, "OpenBLAS: %s, kernels %s; tables: %s\n", wk_gemm_config(), wk_gemm_core_name(),
          bl_kernels_get()->name);
  for (size_t row = 0; row < BL_COUNT_OF(rows); row++)
    if (argc < 3 || strcmp(argv[2], rows[row].name) == 0)
      measure(&k, row, seconds);
  wk_model_free(k.model);
  bl_free_aligned(k.gemm);
  bl_free(k.images);
  bl_free(k.labels);
  bl_free_aligned(k.x);
  return k.sink != k.sink;
}
