/* SPDX-License-Identifier: Apache-2.0
 *
 * Shapes are walked layer by layer; each dense layer gives a weight and, unless it is told not to, a bias.
 * Chunks are cut per tensor, so that a chunk never spans two of them and its place does not depend on the
 * tensors around it.
 *
 * A table has the least power of two of buckets that keeps a full bucket within a chunk and a frame; two rows
 * must fit into one, so that the power of two never exceeds the number of rows.
 *
 * Initial values are uniform in [-scale, scale). Sources: He, Zhang, Ren, Sun, "Delving deep into rectifiers",
 * ICCV 2015 (scale = sqrt(6 / inputs)); Glorot, Bengio, "Understanding the difficulty of training deep
 * feedforward neural networks", AISTATS 2010 (scale = sqrt(6 / (inputs + outputs))).
 */
#include "job/tensors.h"

#include "base/alloc.h"
#include "base/checksum.h"
#include "base/num.h"
#include "base/rng.h"
#include "base/str.h"
#include "codec/codec.h"
#include "job/policy.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define TENSORS_MAX (2 * BL_JOB_LAYERS_MAX)

/* ---- shapes ---- */

static const char *shape_text(const bl_shape *s, char *out, size_t size) {
  size_t used = 0;
  out[0] = '\0';
  for (size_t i = 0; i < s->n_dims && used < size; i++)
    used += (size_t)snprintf(out + used, size - used, "%s%" PRIu64, i > 0 ? "x" : "", s->dims[i]);
  return out;
}

static uint64_t shape_size(const bl_shape *s) {
  uint64_t n = 1;
  for (size_t i = 0; i < s->n_dims; i++) {
    if (!bl_mul_u64(n, s->dims[i], &n))
      return UINT64_MAX;
  }
  return n;
}

bool bl_layer_has_weights(bl_layer_kind kind) { return kind == BL_LAYER_DENSE || kind == BL_LAYER_SPARSE; }

bool bl_model_is_sparse(const bl_model_spec *model) {
  return model->n_layers > 0 && model->layers[0].kind == BL_LAYER_SPARSE;
}

static const char *kind_name(bl_layer_kind kind) { return kind == BL_LAYER_SPARSE ? "sparse" : "dense"; }

bl_status bl_layer_step(const bl_layer_spec *layer, bl_shape *shape, bl_error *err) {
  char text[100];
  if (layer->kind == BL_LAYER_FLATTEN) {
    *shape = (bl_shape){.dims = {shape_size(shape)}, .n_dims = 1};
    return BL_OK;
  }
  if (!bl_layer_has_weights(layer->kind))
    return BL_OK;
  if (shape->n_dims != 1)
    return bl_fail(err, BL_EINVAL, "layer '%s' (%s) takes one dimension and gets %s%s", layer->name,
                   kind_name(layer->kind), shape_text(shape, text, sizeof text),
                   layer->kind == BL_LAYER_DENSE ? ": put flatten before it" : "");
  uint64_t n;
  if (layer->units == 0 || !bl_mul_u64(shape->dims[0], layer->units, &n) || n > BL_JOB_ELEMS_MAX)
    return bl_fail(err, BL_EINVAL, "layer '%s' (%s) has %" PRIu64 " x %u weights; allowed: 1 to %" PRIu64,
                   layer->name, kind_name(layer->kind), shape->dims[0], layer->units, BL_JOB_ELEMS_MAX);
  shape->dims[0] = layer->units;
  return BL_OK;
}

static bl_status input_shape(const bl_model_spec *model, bl_shape *ret_shape, bl_error *err) {
  if (model->n_input_dims == 0 || model->n_input_dims > BL_JOB_DIMS_MAX)
    return bl_fail(err, BL_EINVAL, "the model's input has %zu dimensions; allowed: 1 to %d",
                   model->n_input_dims, BL_JOB_DIMS_MAX);
  bl_shape s = {.n_dims = model->n_input_dims};
  memcpy(s.dims, model->input, model->n_input_dims * sizeof s.dims[0]);
  uint64_t n = shape_size(&s), max = bl_model_is_sparse(model) ? BL_JOB_SPARSE_INPUTS_MAX : BL_JOB_INPUTS_MAX;
  if (n == 0 || n > max)
    return bl_fail(err, BL_EINVAL, "the model's input has %" PRIu64 " values per sample; allowed: 1 to %" PRIu64, n, max);
  *ret_shape = s;
  return BL_OK;
}

bl_status bl_model_output_size(const bl_model_spec *model, uint64_t *ret_units, bl_error *err) {
  bl_shape shape;
  bl_status status = input_shape(model, &shape, err);
  for (size_t i = 0; status == BL_OK && i < model->n_layers; i++)
    status = bl_layer_step(&model->layers[i], &shape, err);
  if (status == BL_OK)
    *ret_units = shape_size(&shape);
  return status;
}

/* ---- tensors of a model ---- */

static bool is_relu_like(bl_activation a) {
  return a == BL_ACT_RELU || a == BL_ACT_LEAKY_RELU || a == BL_ACT_GELU;
}

/* What a dense layer feeds: its own activation, or that of the layers behind it. */
static bl_activation activation_behind(const bl_model_spec *model, size_t layer) {
  if (model->layers[layer].activation != BL_ACT_NONE)
    return model->layers[layer].activation;
  for (size_t i = layer + 1; i < model->n_layers && !bl_layer_has_weights(model->layers[i].kind); i++) {
    if (model->layers[i].kind == BL_LAYER_ACTIVATION)
      return model->layers[i].activation;
  }
  return BL_ACT_NONE;
}

#define SPARSE_SCALE 0.05f

/* How many inputs of a sample are not 0 is not known, so the scale is small, whatever their number. */
static float sparse_scale(const bl_model_spec *model, size_t layer) {
  bool linear = true;
  for (size_t i = layer + 1; i < model->n_layers; i++)
    linear &= !bl_layer_has_weights(model->layers[i].kind);
  return linear || model->layers[layer].init == BL_WINIT_ZERO ? 0 : SPARSE_SCALE;
}

static float weight_scale(const bl_model_spec *model, size_t layer, uint64_t inputs, uint64_t outputs) {
  bl_weight_init init = model->layers[layer].init;
  if (init == BL_WINIT_AUTO)
    init = is_relu_like(activation_behind(model, layer)) ? BL_WINIT_HE : BL_WINIT_XAVIER;
  double fan = init == BL_WINIT_HE ? (double)inputs : (double)inputs + (double)outputs;
  return init == BL_WINIT_ZERO ? 0 : (float)sqrt(6.0 / fan);
}

/* Appends the tensors of a dense or sparse layer. inputs: of the layer. */
static bl_status add_weights(bl_arena *arena, const bl_model_spec *model, uint32_t layer, uint64_t inputs,
                           bl_tensor *tensors, uint32_t *n, bl_error *err) {
  const bl_layer_spec *l = &model->layers[layer];
  bool sparse = l->kind == BL_LAYER_SPARSE;
  float scale = sparse ? sparse_scale(model, layer) : weight_scale(model, layer, inputs, l->units);
  bl_tensor *w = &tensors[(*n)++];
  *w = (bl_tensor){.name = bl_arena_printf(arena, "%s.weight", l->name),
                   .dims = {inputs, l->units},
                   .n_dims = 2,
                   .n_elems = inputs * l->units, /* bl_layer_step has checked the product */
                   .init = scale == 0 ? BL_INIT_ZERO : BL_INIT_UNIFORM,
                   .init_scale = scale,
                   .table = sparse,
                   .layer = layer};
  if (w->name == NULL)
    return bl_fail(err, BL_ENOMEM, "no memory for the tensors of layer '%s'", l->name);
  if (!l->bias)
    return BL_OK;
  bl_tensor *b = &tensors[(*n)++];
  *b = (bl_tensor){.name = bl_arena_printf(arena, "%s.bias", l->name),
                   .dims = {l->units},
                   .n_dims = 1,
                   .n_elems = l->units,
                   .init = BL_INIT_ZERO,
                   .no_decay = true,
                   .layer = layer};
  return b->name != NULL ? BL_OK : bl_fail(err, BL_ENOMEM, "no memory for the tensors of layer '%s'", l->name);
}

bl_status bl_model_tensors(const bl_model_spec *model, bl_arena *arena, bl_tensor **ret_tensors, uint32_t *ret_n,
                           bl_error *err) {
  bl_shape shape;
  uint32_t n = 0;
  bl_status status = input_shape(model, &shape, err);
  if (status != BL_OK)
    return status;
  if (model->n_layers > BL_JOB_LAYERS_MAX)
    return bl_fail(err, BL_EINVAL, "the model has %zu layers; at most %d are allowed", model->n_layers,
                   BL_JOB_LAYERS_MAX);
  bl_tensor *tensors = bl_arena_array(arena, 2 * model->n_layers + 1, sizeof *tensors);
  if (tensors == NULL)
    return bl_fail(err, BL_ENOMEM, "no memory for the tensors of %zu layers", model->n_layers);
  for (uint32_t i = 0; status == BL_OK && i < model->n_layers; i++) {
    uint64_t inputs = shape.dims[0];
    status = bl_layer_step(&model->layers[i], &shape, err);
    if (status == BL_OK && bl_layer_has_weights(model->layers[i].kind))
      status = add_weights(arena, model, i, inputs, tensors, &n, err);
  }
  if (status != BL_OK)
    return status;
  *ret_tensors = tensors;
  *ret_n = n;
  return BL_OK;
}

const bl_group_spec *bl_job_group_of(const bl_job_spec *spec, const char *tensor) {
  for (size_t i = 0; i < spec->n_groups; i++) {
    if (bl_str_glob(spec->groups[i].match, tensor))
      return &spec->groups[i];
  }
  return NULL;
}

static bl_status table_of(const bl_model_spec *model, const bl_job_spec *spec, uint64_t chunk_bytes,
                          bl_tensor_table **ret_table, bl_error *err) {
  bl_arena scratch;
  bl_arena_init(&scratch, 0);
  bl_tensor *tensors;
  uint32_t n;
  bl_status status = bl_model_tensors(model, &scratch, &tensors, &n, err);
  for (uint32_t i = 0; spec != NULL && status == BL_OK && i < n; i++) {
    const bl_group_spec *group = bl_job_group_of(spec, tensors[i].name);
    if (group != NULL)
      tensors[i].group = group->says;
    tensors[i].policy = bl_job_policy_of(spec, &tensors[i]);
  }
  if (status == BL_OK)
    status = bl_tensor_table_of_list(tensors, n, BL_MIN(chunk_bytes / sizeof(float), BL_CODEC_ELEMS_MAX), ret_table,
                                     err);
  bl_arena_fini(&scratch);
  return status;
}

bl_status bl_tensor_table_of_model(const bl_model_spec *model, uint64_t chunk_bytes,
                                   bl_tensor_table **ret_table, bl_error *err) {
  return table_of(model, NULL, chunk_bytes, ret_table, err);
}

bl_status bl_tensor_table_of_job(const bl_job_spec *spec, bl_tensor_table **ret_table, bl_error *err) {
  return table_of(&spec->model, spec, spec->chunk_bytes, ret_table, err);
}

bool bl_tensor_table_pulls_exactly(const bl_tensor_table *table) {
  for (uint32_t i = 0; i < table->n_tensors; i++)
    if (!table->tensors[i].policy.pull.codec->exact)
      return false;
  return true;
}

size_t bl_tensor_table_frame_bytes_max(const bl_tensor_table *table, bool push) {
  size_t bytes = 0;
  for (uint32_t i = 0; i < table->n_chunks; i++) {
    const bl_tensor_policy *p = &table->tensors[table->chunks[i].tensor].policy;
    bl_codec_spec densest = bl_codec_spec_at(push ? &p->push : &p->pull, p->warmup_epochs, 0);
    bytes = BL_MAX(bytes, bl_codec_bound_bytes(&densest, table->chunks[i].n_elems));
  }
  return bytes;
}

/* ---- streams ---- */

/* A part ends where it has its share of what was left at its beginning, or where the others need the tensors behind. */
void bl_tensor_table_set_streams(bl_tensor_table *t, uint32_t n_streams, uint64_t n_clocks) {
  uint64_t left = t->n_elems, in_part = 0;
  t->n_streams = n_streams;
  t->n_clocks = n_clocks;
  for (uint32_t i = 0, part = 0; i < t->n_tensors; i++) {
    uint32_t parts_left = BL_MAX(n_streams, 1) - part;
    t->tensors[i].stream = part;
    in_part += t->tensors[i].n_elems;
    bool full = in_part >= left / parts_left || t->n_tensors - i - 1 < parts_left;
    if (!full || parts_left == 1)
      continue;
    left -= in_part;
    in_part = 0;
    part++;
  }
}

uint64_t bl_tensor_exchanges(const bl_tensor_table *t, uint32_t tensor, uint64_t clock) {
  uint64_t stream = t->tensors[tensor].stream, n;
  if (t->n_streams <= 1)
    return clock;
  n = clock > stream ? (clock - 1 - stream) / t->n_streams + 1 : 0;
  bool last_is_extra = t->n_clocks > 0 && clock >= t->n_clocks && (t->n_clocks - 1) % t->n_streams != stream;
  return n + last_is_extra;
}

uint64_t bl_tensor_exchanged(const bl_tensor_table *t, uint32_t tensor, uint64_t clock) {
  uint64_t stream = t->tensors[tensor].stream;
  if (t->n_streams <= 1)
    return clock;
  return clock > stream ? (clock - 1 - stream) / t->n_streams * t->n_streams + stream + 1 : 0;
}

/* ---- tables ---- */

static uint32_t bucket_bits(const bl_tensor *t, uint64_t chunk_elems) {
  uint32_t bits = 0;
  uint64_t rows_max = BL_MIN(chunk_elems / t->dims[1], BL_TABLE_FRAME_ROWS_MAX);
  while ((UINT32_C(1) << bits) < BL_TABLE_BUCKETS_MAX && bl_div_up_u64(t->dims[0], UINT64_C(1) << bits) > rows_max)
    bits++;
  return bits;
}

static bl_status check_table(const bl_tensor *t, uint64_t chunk_elems, bl_error *err) {
  if (t->n_dims != 2)
    return bl_fail(err, BL_EINVAL, "table '%.80s' has %u dimensions; it must have two, rows and width", t->name,
                   t->n_dims);
  if (t->dims[0] == 0 || t->dims[0] > BL_TABLE_ROWS_MAX)
    return bl_fail(err, BL_EINVAL, "table '%.80s' has %" PRIu64 " rows; allowed: 1 to %" PRIu64, t->name, t->dims[0],
                   BL_TABLE_ROWS_MAX);
  if (t->dims[1] == 0 || t->dims[1] > chunk_elems / 2)
    return bl_fail(err, BL_EINVAL,
                   "table '%.80s' has rows of %" PRIu64 " numbers; two of them must fit into a chunk of %" PRIu64,
                   t->name, t->dims[1], chunk_elems);
  return BL_OK;
}

static uint64_t count_chunks(const bl_tensor *t, uint64_t chunk_elems) {
  return t->table ? UINT64_C(1) << bucket_bits(t, chunk_elems) : bl_div_up_u64(t->n_elems, chunk_elems);
}

/* Checks a tensor from outside and adds up what the table will need. */
static bl_status check_tensor(const bl_tensor *t, uint64_t chunk_elems, uint64_t *n_elems, uint64_t *n_chunks,
                              bl_error *err) {
  if (t->name == NULL || t->name[0] == '\0')
    return bl_fail(err, BL_EINVAL, "a tensor has no name");
  if (t->n_dims == 0 || t->n_dims > BL_JOB_DIMS_MAX)
    return bl_fail(err, BL_EINVAL, "tensor '%.80s' has %u dimensions; allowed: 1 to %d", t->name, t->n_dims,
                   BL_JOB_DIMS_MAX);
  if (t->table && check_table(t, chunk_elems, err) != BL_OK)
    return BL_EINVAL;
  bl_shape shape = {.n_dims = t->n_dims};
  memcpy(shape.dims, t->dims, t->n_dims * sizeof shape.dims[0]);
  uint64_t n = shape_size(&shape);
  if (n == 0 || n > BL_JOB_ELEMS_MAX || n != t->n_elems)
    return bl_fail(err, BL_EINVAL,
                   "tensor '%.80s' has %" PRIu64 " elements by its shape and %" PRIu64
                   " by its count; allowed: 1 to %" PRIu64,
                   t->name, n, t->n_elems, BL_JOB_ELEMS_MAX);
  if (t->init < BL_INIT_ZERO || t->init > BL_INIT_CONSTANT || !isfinite(t->init_scale))
    return bl_fail(err, BL_EINVAL, "tensor '%.80s' has the initial values %d with scale %g, which mean nothing",
                   t->name, (int)t->init, (double)t->init_scale);
  *n_elems += n;
  *n_chunks += count_chunks(t, chunk_elems);
  if (*n_elems > BL_JOB_ELEMS_MAX || *n_chunks > BL_JOB_CHUNKS_MAX)
    return bl_fail(err, BL_ELIMIT,
                   "the model has more than %" PRIu64 " elements or %u chunks of %" PRIu64 " elements",
                   BL_JOB_ELEMS_MAX, BL_JOB_CHUNKS_MAX, chunk_elems);
  return BL_OK;
}

/* Buckets are alike: as many elements as the fullest has. */
static void cut_buckets(const bl_tensor_table *t, uint32_t tensor, bl_chunk *chunks) {
  const bl_tensor *x = &t->tensors[tensor];
  uint64_t n = bl_div_up_u64(x->dims[0], x->n_chunks) * x->dims[1],
           most = bl_table_frame_rows_max(t, tensor) * x->dims[1];
  for (uint32_t i = 0; i < x->n_chunks; i++)
    chunks[i] = (bl_chunk){.tensor = tensor, .first = i, .n_elems = (uint32_t)BL_MIN(n, most)};
}

static void cut_slices(const bl_tensor_table *t, uint32_t tensor, bl_chunk *chunks) {
  uint64_t n = t->tensors[tensor].n_elems;
  for (uint64_t first = 0; first < n; first += t->chunk_elems)
    *chunks++ = (bl_chunk){.tensor = tensor, .first = first, .n_elems = (uint32_t)BL_MIN(t->chunk_elems, n - first)};
}

static void cut_chunks(bl_tensor_table *t) {
  uint32_t next = 0;
  for (uint32_t i = 0; i < t->n_tensors; i++) {
    bl_tensor *x = &t->tensors[i];
    x->first_chunk = next;
    x->n_chunks = (uint32_t)count_chunks(x, t->chunk_elems);
    x->bucket_bits = x->table ? bucket_bits(x, t->chunk_elems) : 0;
    if (x->table)
      cut_buckets(t, i, &t->chunks[next]);
    else
      cut_slices(t, i, &t->chunks[next]);
    next += x->n_chunks;
  }
  for (uint32_t i = 0; i < t->n_chunks; i++)
    t->n_placed += t->chunks[i].n_elems;
}

bl_status bl_tensor_table_of_list(const bl_tensor *tensors, uint32_t n, uint64_t chunk_elems,
                                  bl_tensor_table **ret_table, bl_error *err) {
  if (n == 0 || n > TENSORS_MAX)
    return bl_fail(err, BL_EINVAL, "the model has %u tensors; allowed: 1 to %d", n, TENSORS_MAX);
  if (chunk_elems == 0 || chunk_elems > BL_CODEC_ELEMS_MAX)
    return bl_fail(err, BL_EINVAL, "chunks of %" PRIu64 " elements are not allowed; 1 to %u are", chunk_elems,
                   BL_CODEC_ELEMS_MAX);
  uint64_t n_elems = 0, n_chunks = 0;
  for (uint32_t i = 0; i < n; i++) {
    bl_status status = check_tensor(&tensors[i], chunk_elems, &n_elems, &n_chunks, err);
    if (status != BL_OK)
      return status;
  }
  bl_tensor_table *t = bl_calloc(1, sizeof *t);
  if (t == NULL)
    goto no_memory;
  bl_arena_init(&t->arena, 0);
  t->tensors = bl_arena_array(&t->arena, n, sizeof *t->tensors);
  t->chunks = bl_arena_array(&t->arena, n_chunks, sizeof *t->chunks);
  if (t->tensors == NULL || t->chunks == NULL)
    goto no_memory;
  memcpy(t->tensors, tensors, n * sizeof *tensors);
  for (uint32_t i = 0; i < n; i++) {
    t->tensors[i].name = bl_arena_strdup(&t->arena, tensors[i].name);
    if (t->tensors[i].name == NULL)
      goto no_memory;
    bl_tensor_policy *p = &t->tensors[i].policy;
    p->push = p->push.codec != NULL ? p->push : bl_codec_spec_exact;
    p->pull = p->pull.codec != NULL ? p->pull : bl_codec_spec_exact;
  }
  t->n_tensors = n;
  t->n_chunks = (uint32_t)n_chunks;
  t->chunk_elems = chunk_elems;
  t->n_elems = n_elems;
  cut_chunks(t);
  *ret_table = t;
  return BL_OK;
no_memory:
  bl_tensor_table_free(t);
  return bl_fail(err, BL_ENOMEM, "no memory for a table of %u tensors and %" PRIu64 " chunks", n, n_chunks);
}

void bl_tensor_table_free(bl_tensor_table *t) {
  if (t == NULL)
    return;
  bl_arena_fini(&t->arena);
  bl_free(t);
}

bool bl_tensor_table_has_tables(const bl_tensor_table *t) {
  for (uint32_t i = 0; i < t->n_tensors; i++)
    if (t->tensors[i].table)
      return true;
  return false;
}

/* ---- initial values ---- */

/* A block of the generator serves four neighbouring elements. */
static void fill_uniform(uint64_t key, uint64_t stream, float scale, uint64_t first, uint64_t n, float *out) {
  bl_rng_block block = bl_rng_philox(key, stream, first / 4);
  for (uint64_t i = 0; i < n; i++) {
    uint64_t at = first + i;
    if (i > 0 && at % 4 == 0)
      block = bl_rng_philox(key, stream, at / 4);
    float unit = (float)(block.v[at % 4] >> 8) * 0x1p-23f - 1.0f; /* [-1, 1), exact */
    out[i] = unit * scale;
  }
}

void bl_tensor_init_values(const bl_tensor *t, uint64_t seed, uint64_t first, uint64_t n, float *out) {
  uint64_t key = bl_rng_key(seed, BL_RNG_INIT);
  uint64_t stream = bl_checksum(t->name, strlen(t->name));
  if (t->init == BL_INIT_UNIFORM) {
    fill_uniform(key, stream, t->init_scale, first, n, out);
    return;
  }
  for (uint64_t i = 0; i < n; i++) {
    if (t->init == BL_INIT_NORMAL)
      out[i] = bl_rng_normal(key, stream, first + i) * t->init_scale;
    else
      out[i] = t->init == BL_INIT_CONSTANT ? t->init_scale : 0.0f;
  }
}

uint64_t bl_job_clocks(uint64_t train_samples, uint64_t batch, uint64_t epochs) {
  uint64_t n;
  return bl_mul_u64(epochs, bl_div_up_u64(train_samples, batch), &n) ? n : UINT64_MAX;
}

uint64_t bl_job_clocks_local(const uint64_t *rank_samples, size_t n_ranks, uint64_t batch, uint64_t epochs) {
  uint64_t most = 0;
  for (size_t i = 0; i < n_ranks; i++)
    most = BL_MAX(most, rank_samples[i]);
  return n_ranks == 0 ? 0 : bl_job_clocks(most, batch / n_ranks, epochs);
}
