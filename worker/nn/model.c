/* SPDX-License-Identifier: Apache-2.0 */
#include "nn/model.h"

#include "base/alloc.h"
#include "base/num.h"
#include "nn/gemm.h"
#include "nn/layer.h"
#include "nn/loss.h"

#include <inttypes.h>
#include <string.h>

#define ABSENT UINT64_MAX

/* Where a layer's memory lies in the block: offsets in bytes, ABSENT for none. */
typedef struct layer_places {
  uint64_t params[WK_LAYER_PARAMS_MAX], grads[WK_LAYER_PARAMS_MAX], output, state;
} layer_places;

struct wk_model {
  const wk_vec *vec;
  const wk_loss_ops *loss;
  wk_layer *layers;      /* [n_layers] */
  layer_places *places;  /* [n_layers] */
  uint32_t n_layers;
  uint32_t first_with_params; /* backward stops there; n_layers: none has any */
  uint32_t batch_max;
  bool for_training;
  uint64_t in, out;
  uint64_t block_bytes;
  char *block;           /* everything below lies in it */
  uint64_t scratch_at[2];
  float *scratch[2];     /* [batch_max, widest]: gradients of activations, or activations in evaluation */
  float **params, **grads; /* [n_tensors] */
  uint32_t n_tensors;
  uint32_t last_n;
};

/* Takes bytes from the block that is being planned, on a cache line of their own. */
static bool take(uint64_t *used, uint64_t n, uint64_t elem_bytes, uint64_t *ret_at) {
  uint64_t bytes, end;
  if (!bl_mul_u64(n, elem_bytes, &bytes) || !bl_add_u64(bytes, 63, &bytes) ||
      !bl_add_u64(*used, bytes & ~UINT64_C(63), &end) || end > SIZE_MAX / 2)
    return false;
  *ret_at = *used;
  *used = end;
  return true;
}

static uint64_t param_elems(const wk_layer *l, unsigned p) {
  const uint64_t *dims = l->plan.params[p];
  if (l->plan.table && p == WK_WEIGHT)
    return 0;
  return dims[1] == 0 ? dims[0] : dims[0] * dims[1]; /* both at most WK_GEMM_SIZE_MAX */
}

static bool has_params(const wk_layer *l) { return l->plan.params[WK_WEIGHT][0] != 0; }

static bl_status plan_layer(wk_model *m, uint32_t i, const bl_layer_spec *spec, bl_error *err) {
  wk_layer *l = &m->layers[i];
  l->ops = wk_layer_ops_of(spec->kind);
  if (l->ops == NULL || (unsigned)spec->activation >= BL_ACT_COUNT)
    return bl_fail(err, BL_EINVAL, "layer %s: kind %d with activation %d is none of ours", spec->name, (int)spec->kind,
                   (int)spec->activation);
  l->index = i;
  l->vec = m->vec;
  l->in = i == 0 ? m->in : m->layers[i - 1].out;
  l->rate = spec->rate;
  l->activation = spec->activation;
  if (i + 1 == m->n_layers && m->loss != NULL && l->activation == m->loss->own_activation)
    l->activation = BL_ACT_NONE;
  bl_status status = l->ops->plan(l, spec, m->for_training, &l->plan, err);
  if (status != BL_OK)
    return status;
  l->out = l->plan.out;
  if (l->out == 0 || l->out > WK_GEMM_SIZE_MAX)
    return bl_fail(err, BL_EINVAL, "layer %s: %llu outputs, the limit is %d", spec->name, (unsigned long long)l->out,
                   WK_GEMM_SIZE_MAX);
  if (has_params(l) && m->first_with_params == m->n_layers)
    m->first_with_params = i;
  return BL_OK;
}

/* Training keeps each layer's output for backward; evaluation alternates between two buffers. */
static bool place_layer(wk_model *m, uint32_t i) {
  wk_layer *l = &m->layers[i];
  layer_places *at = &m->places[i];
  memset(at, 0xff, sizeof *at);
  for (unsigned p = 0; p < WK_LAYER_PARAMS_MAX; p++) {
    uint64_t n = param_elems(l, p);
    if (n != 0 && !take(&m->block_bytes, n, sizeof(float), &at->params[p]))
      return false;
    if (n != 0 && m->for_training && !take(&m->block_bytes, n, sizeof(float), &at->grads[p]))
      return false;
  }
  if (m->for_training && !l->plan.in_place &&
      !take(&m->block_bytes, m->batch_max * l->out, sizeof(float), &at->output))
    return false;
  return l->plan.state_bytes_per_sample == 0 ||
         take(&m->block_bytes, m->batch_max, l->plan.state_bytes_per_sample, &at->state);
}

/* Plans layers and memory; m->block_bytes is what the block will take. */
static bl_status model_plan(wk_model *m, const bl_model_spec *spec, bl_error *err) {
  uint64_t max = bl_model_is_sparse(spec) ? BL_JOB_SPARSE_INPUTS_MAX : WK_GEMM_SIZE_MAX;
  m->in = spec->n_input_dims == 0 ? 0 : 1;
  for (size_t d = 0; d < spec->n_input_dims; d++)
    if (spec->input[d] == 0 || !bl_mul_u64(m->in, spec->input[d], &m->in) || m->in > max)
      m->in = 0;
  if (m->in == 0)
    return bl_fail(err, BL_EINVAL, "model: the input has 0 or more than %" PRIu64 " elements", max);
  if (spec->n_layers == 0 || spec->n_layers > BL_JOB_LAYERS_MAX)
    return bl_fail(err, BL_EINVAL, "model: %zu layers, 1 to %d are allowed", spec->n_layers, BL_JOB_LAYERS_MAX);
  if (m->batch_max == 0 || m->batch_max > WK_GEMM_SIZE_MAX)
    return bl_fail(err, BL_EINVAL, "model: a batch of %u samples, 1 to %d are allowed", m->batch_max,
                   WK_GEMM_SIZE_MAX);
  m->n_layers = (uint32_t)spec->n_layers;
  m->first_with_params = m->n_layers;
  m->layers = bl_calloc(m->n_layers, sizeof *m->layers);
  m->places = bl_calloc(m->n_layers, sizeof *m->places);
  if (m->layers == NULL || m->places == NULL)
    return bl_fail(err, BL_ENOMEM, "model: no memory for %u layers", m->n_layers);
  uint64_t widest = 0;
  for (uint32_t i = 0; i < m->n_layers; i++) {
    bl_status status = plan_layer(m, i, &spec->layers[i], err);
    if (status != BL_OK)
      return status;
    if (!place_layer(m, i))
      return bl_fail(err, BL_ELIMIT, "model: layer %s does not fit into the address space", spec->layers[i].name);
    widest = BL_MAX(widest, m->layers[i].out);
  }
  m->out = m->layers[m->n_layers - 1].out;
  for (unsigned s = 0; s < BL_COUNT_OF(m->scratch_at); s++)
    if (!take(&m->block_bytes, m->batch_max * widest, sizeof(float), &m->scratch_at[s]))
      return bl_fail(err, BL_ELIMIT, "model: a batch of %u samples does not fit into the address space", m->batch_max);
  return BL_OK;
}

static bool same_dims(const bl_tensor *t, const uint64_t dims[2]) {
  uint32_t n_dims = dims[1] == 0 ? 1 : 2;
  return t->n_dims == n_dims && t->dims[0] == dims[0] && (n_dims == 1 || t->dims[1] == dims[1]);
}

/* Gives each parameter its tensor: the table lists them layer by layer, the weight before the bias. */
static bl_status bind_tensors(wk_model *m, const bl_tensor_table *table, bl_error *err) {
  uint32_t next = 0;
  for (uint32_t i = 0; i < m->n_layers; i++)
    for (unsigned p = 0; p < WK_LAYER_PARAMS_MAX; p++) {
      wk_layer *l = &m->layers[i];
      if (l->plan.params[p][0] == 0)
        continue;
      const bl_tensor *t = next < table->n_tensors ? &table->tensors[next] : NULL;
      if (t == NULL || t->layer != i || !same_dims(t, l->plan.params[p]) ||
          t->table != (l->plan.table && p == WK_WEIGHT))
        return bl_fail(err, BL_EINVAL, "model: tensor %u (%s) is not the %s of layer %u, a %s", next,
                       t == NULL ? "absent" : t->name, p == WK_WEIGHT ? "weight" : "bias", i, l->ops->name);
      l->tensors[p] = next++;
    }
  if (next != table->n_tensors)
    return bl_fail(err, BL_EINVAL, "model: the table has %u tensors, the layers %u", table->n_tensors, next);
  m->n_tensors = next;
  return BL_OK;
}

static void *at_offset(const wk_model *m, uint64_t offset) { return offset == ABSENT ? NULL : m->block + offset; }

static void bind_memory(wk_model *m) {
  for (unsigned s = 0; s < BL_COUNT_OF(m->scratch); s++)
    m->scratch[s] = at_offset(m, m->scratch_at[s]);
  unsigned turn = 0;
  for (uint32_t i = 0; i < m->n_layers; i++) {
    wk_layer *l = &m->layers[i];
    const layer_places *at = &m->places[i];
    l->y = m->for_training ? at_offset(m, at->output) : m->scratch[turn];
    turn ^= !l->plan.in_place;
    l->state = at_offset(m, at->state);
    for (unsigned p = 0; p < WK_LAYER_PARAMS_MAX; p++) {
      l->params[p] = at_offset(m, at->params[p]);
      l->grads[p] = at_offset(m, at->grads[p]);
      if (l->params[p] == NULL)
        continue;
      m->params[l->tensors[p]] = l->params[p];
      m->grads[l->tensors[p]] = l->grads[p];
    }
  }
}

bl_status wk_model_new(const bl_model_spec *spec, bl_loss_kind loss, const bl_tensor_table *table, uint32_t batch_max,
                       bool for_training, wk_model **ret_model, bl_error *err) {
  bl_status status = BL_OK;
  wk_model *m = bl_calloc(1, sizeof *m);
  if (m == NULL)
    return bl_fail(err, BL_ENOMEM, "model: no memory");
  m->vec = wk_vec_get();
  m->batch_max = batch_max;
  m->for_training = for_training;
  m->loss = wk_loss_ops_of(loss);
  if (m->loss == NULL) {
    status = bl_fail(err, BL_EINVAL, "model: loss %d is none of ours", (int)loss);
    goto fail;
  }
  status = model_plan(m, spec, err);
  if (status == BL_OK)
    status = bind_tensors(m, table, err);
  if (status != BL_OK)
    goto fail;
  if (m->loss->single_output && m->out != 1) {
    status = bl_fail(err, BL_EINVAL, "model: loss %s takes one output, the last layer has %llu", m->loss->name,
                     (unsigned long long)m->out);
    goto fail;
  }
  m->params = bl_calloc(m->n_tensors + 1, sizeof *m->params);
  m->grads = bl_calloc(m->n_tensors + 1, sizeof *m->grads);
  m->block = bl_calloc_aligned(m->block_bytes, 1); /* zeroing it here spares the steps the page faults */
  if (m->params == NULL || m->grads == NULL || m->block == NULL) {
    status = bl_fail(err, BL_ENOMEM, "model: no memory for %llu bytes", (unsigned long long)m->block_bytes);
    goto fail;
  }
  bind_memory(m);
  *ret_model = m;
  return BL_OK;
fail:
  wk_model_free(m);
  return status;
}

void wk_model_free(wk_model *m) {
  if (m == NULL)
    return;
  bl_free_aligned(m->block);
  bl_free(m->grads);
  bl_free(m->params);
  bl_free(m->places);
  bl_free(m->layers);
  bl_free(m);
}

bl_status wk_model_memory(const bl_model_spec *spec, uint32_t batch_max, bool for_training, uint64_t *ret_bytes,
                          bl_error *err) {
  wk_model *m = bl_calloc(1, sizeof *m);
  if (m == NULL)
    return bl_fail(err, BL_ENOMEM, "model: no memory");
  m->batch_max = batch_max;
  m->for_training = for_training;
  bl_status status = model_plan(m, spec, err);
  if (status == BL_OK)
    *ret_bytes = m->block_bytes;
  wk_model_free(m);
  return status;
}

float *const *wk_model_params(wk_model *m) { return m->params; }

float *const *wk_model_grads(wk_model *m) { return m->grads; }

static const float *model_output(const wk_model *m) { return m->layers[m->n_layers - 1].y; }

static const float *forward(wk_model *m, const float *x, uint32_t n, const wk_step_id *step) {
  BL_ASSERT(n <= m->batch_max && (step == NULL || m->for_training));
  m->last_n = n;
  for (uint32_t i = 0; i < m->n_layers; i++) {
    wk_layer *l = &m->layers[i];
    l->x = x;
    if (l->plan.in_place)
      l->y = (float *)x; /* such layers do not write */
    if (n > 0)
      l->ops->forward(l, n, step);
    x = l->y;
  }
  return model_output(m);
}

const float *wk_model_forward(wk_model *m, const float *x, uint32_t n, const wk_step_id *step) {
  BL_ASSERT(!m->layers[0].plan.table);
  return forward(m, x, n, step);
}

const float *wk_model_forward_sparse(wk_model *m, const wk_sparse_x *x, uint32_t n, const wk_step_id *step) {
  BL_ASSERT(m->layers[0].plan.table);
  m->layers[0].sparse = x;
  return forward(m, NULL, n, step);
}

wk_loss_sums wk_model_loss(wk_model *m, const uint32_t *labels, const float *values, uint32_t n) {
  BL_ASSERT(n == m->last_n);
  return m->loss->sums(m->vec, model_output(m), (wk_targets){labels, values}, n, m->out);
}

void wk_model_backward(wk_model *m, const uint32_t *labels, const float *values, uint32_t n, double denominator,
                       wk_on_grad_fn *on_grad, void *arg) {
  BL_ASSERT(m->for_training && n == m->last_n && (n == 0 || denominator > 0));
  wk_grad_sink sink = {on_grad, arg};
  float *dy = m->scratch[0], *other = m->scratch[1];
  if (n > 0)
    m->loss->grad(m->vec, model_output(m), (wk_targets){labels, values}, n, m->out, (float)(1.0 / denominator), dy);
  for (uint32_t i = m->n_layers; i-- > m->first_with_params;) {
    wk_layer *l = &m->layers[i];
    float *dx = i == m->first_with_params ? NULL : l->plan.needs_dx_buffer ? other : dy;
    l->ops->backward(l, dy, dx, n, &sink);
    if (dx == other) {
      other = dy;
      dy = dx;
    }
  }
}

void wk_model_predict(const wk_model *m, uint32_t n, float *out) {
  BL_ASSERT(n == m->last_n);
  m->loss->predict(m->vec, model_output(m), n, m->out, out);
}
