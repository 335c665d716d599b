/* SPDX-License-Identifier: Apache-2.0
 *
 * The section model: layers in their short form ("dense 512 relu") and their long one ({dense: {units: 512,
 * activation: relu}}), their names and shapes.
 *
 * A softmax at the end together with the softmax cross-entropy is the loss's own: the layer is taken out here,
 * training works on the logits, prediction gives probabilities. The same holds for sigmoid. So no later
 * module ever sees a softmax layer.
 */
#include "base/num.h"
#include "base/str.h"
#include "job/spec_parts.h"
#include "job/tensors.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define AT(member) .offset = offsetof(bl_layer_spec, member)

/* clang-format off */
static const bl_word activations[] = {
    {"none", BL_ACT_NONE}, {"relu", BL_ACT_RELU}, {"leaky_relu", BL_ACT_LEAKY_RELU}, {"tanh", BL_ACT_TANH},
    {"sigmoid", BL_ACT_SIGMOID}, {"gelu", BL_ACT_GELU}, {"softmax", BL_ACT_SOFTMAX}};
#define FIRST_FUNCTION 1 /* "none" is no layer */
static const bl_word inits[] = {
    {"auto", BL_WINIT_AUTO}, {"he", BL_WINIT_HE}, {"xavier", BL_WINIT_XAVIER}, {"zero", BL_WINIT_ZERO}};

#define NAME_FIELD                                                                                           \
  {.name = "name", .type = BL_FIELD_TEXT, AT(name), BL_JOB_NAME_ALLOWED,                                     \
   .doc = "Unique name. Left out: the kind and its count, such as dense1."}

static const bl_field dense_fields[] = {
    NAME_FIELD,
    {.name = "units", .type = BL_FIELD_U32, AT(units), .required = true, .min = 1, .max = 1u << 30,
     .doc = "Number of outputs."},
    {.name = "activation", .type = BL_FIELD_ENUM, AT(activation), .default_text = "none", BL_WORDS(activations),
     .doc = "Function applied to the outputs."},
    {.name = "bias", .type = BL_FIELD_BOOL, AT(bias), .default_text = "true",
     .doc = "Add a bias to every output."},
    {.name = "init", .type = BL_FIELD_ENUM, AT(init), .default_text = "auto", BL_WORDS(inits),
     .doc = "Initial weights: he, xavier, zero; auto: he before relu, leaky_relu and gelu, xavier otherwise."},
};

static const bl_word sparse_inits[] = {{"auto", BL_WINIT_AUTO}, {"zero", BL_WINIT_ZERO}};

static const bl_field sparse_fields[] = {
    NAME_FIELD,
    {.name = "units", .type = BL_FIELD_U32, AT(units), .required = true, .min = 1, .max = 4096,
     .doc = "Number of outputs."},
    {.name = "activation", .type = BL_FIELD_ENUM, AT(activation), .default_text = "none", BL_WORDS(activations),
     .doc = "Function applied to the outputs."},
    {.name = "bias", .type = BL_FIELD_BOOL, AT(bias), .default_text = "true",
     .doc = "Add a bias to every output."},
    {.name = "init", .type = BL_FIELD_ENUM, AT(init), .default_text = "auto", BL_WORDS(sparse_inits),
     .doc = "Initial weights: zero; auto: zero in a linear model, small random numbers before other layers with weights."},
};

static const bl_field activation_fields[] = {
    NAME_FIELD,
    {.name = "function", .type = BL_FIELD_ENUM, AT(activation), .required = true, BL_WORDS(activations),
     .doc = "The function."},
};

static const bl_field dropout_fields[] = {
    NAME_FIELD,
    {.name = "rate", .type = BL_FIELD_FRACTION, AT(rate), .required = true, .real_max = 1,
     .real_max_open = true,
     .doc = "Part of the values that is set to zero in training; the others grow so that the sum stays."},
};

static const bl_field flatten_fields[] = {NAME_FIELD};

/* The kinds as fields: nearest names and documentation come from here too. */
static const bl_field kind_fields[] = {
    {.name = "dense", .type = BL_FIELD_CUSTOM, BL_FIELDS(dense_fields),
     .doc = "Every output is a weighted sum of all inputs. Short form: dense UNITS [ACTIVATION]."},
    {.name = "activation", .type = BL_FIELD_CUSTOM, BL_FIELDS(activation_fields),
     .doc = "A function of every value. Short form: its name, such as relu."},
    {.name = "dropout", .type = BL_FIELD_CUSTOM, BL_FIELDS(dropout_fields),
     .doc = "Sets values to zero at random in training. Short form: dropout RATE."},
    {.name = "flatten", .type = BL_FIELD_CUSTOM, BL_FIELDS(flatten_fields),
     .doc = "Any shape becomes one dimension. Short form: flatten."},
    {.name = "sparse", .type = BL_FIELD_CUSTOM, .since = 2, BL_FIELDS(sparse_fields),
     .doc = "As dense, for inputs that are nearly all 0; the first layer. Short form: sparse UNITS [ACTIVATION]."},
};

static const struct layer_row {
  bl_layer_kind kind;
  const char *positional[2]; /* fields of the short form */
  size_t n_positional_min;
  const char *short_form;
} layer_rows[BL_COUNT_OF(kind_fields)] = {
    {BL_LAYER_DENSE, {"units", "activation"}, 1, "dense UNITS [ACTIVATION]"},
    {BL_LAYER_ACTIVATION, {"function", NULL}, 1, "the name of the function alone, such as relu"},
    {BL_LAYER_DROPOUT, {"rate", NULL}, 1, "dropout RATE"},
    {BL_LAYER_FLATTEN, {NULL, NULL}, 0, "flatten"},
    {BL_LAYER_SPARSE, {"units", "activation"}, 1, "sparse UNITS [ACTIVATION]"},
};
/* clang-format on */

static bool row_by_name(const char *name, size_t *ret_row) {
  for (size_t i = 0; i < BL_COUNT_OF(kind_fields); i++) {
    if (strcmp(kind_fields[i].name, name) == 0) {
      *ret_row = i;
      return true;
    }
  }
  return false;
}

static size_t row_of_kind(bl_layer_kind kind) {
  size_t i = 0;
  while (i < BL_COUNT_OF(layer_rows) - 1 && layer_rows[i].kind != kind)
    i++;
  return i;
}

static bool is_activation(const char *word) {
  for (size_t i = FIRST_FUNCTION; i < BL_COUNT_OF(activations); i++) {
    if (strcmp(activations[i].name, word) == 0)
      return true;
  }
  return false;
}

static void unknown_layer(bl_conf_reader *r, const bl_node *node, const char *word) {
  const char *names[BL_COUNT_OF(kind_fields) + BL_COUNT_OF(activations)];
  char near[100];
  size_t n = 0;
  for (size_t i = 0; i < BL_COUNT_OF(kind_fields); i++)
    names[n++] = kind_fields[i].name;
  for (size_t i = FIRST_FUNCTION; i < BL_COUNT_OF(activations); i++)
    names[n++] = activations[i].name;
  bl_conf_errors_add_field(
      r->errors, node,
      "there is no layer '%.60s'%s (allowed: dense UNITS [ACTIVATION], sparse UNITS [ACTIVATION], dropout RATE, flatten, "
      "relu, leaky_relu, tanh, sigmoid, gelu, softmax)",
      word, bl_conf_nearest(word, names, n, near, sizeof near));
}

/* ---- short form ---- */

#define WORDS_MAX 8

/* In place. "20 %" is one word. */
static size_t split_words(char *text, char *words[WORDS_MAX]) {
  size_t n = 0;
  char *percent = strstr(text, " %");
  if (percent != NULL) {
    percent[0] = '%';
    percent[1] = ' ';
  }
  char *rest = NULL;
  for (char *w = strtok_r(text, " \t", &rest); w != NULL && n < WORDS_MAX; w = strtok_r(NULL, " \t", &rest))
    words[n++] = w;
  return n;
}

/* One word of the short form, given to the row of its field. */
static void read_word(bl_conf_reader *r, const bl_field *kind, const char *field_name, const bl_node *item,
                      const char *word) {
  for (size_t i = 0; i < kind->n_fields; i++) {
    const bl_field *f = &kind->fields[i];
    if (strcmp(f->name, field_name) != 0)
      continue;
    bl_node node = {.kind = BL_NODE_SCALAR,
                    .line = item->line,
                    .override = item->override,
                    .key = f->name,
                    .text = word,
                    .parent = (bl_node *)item};
    bl_schema_read_value(r, f, &node);
  }
}

static void read_short(bl_conf_reader *r, const bl_node *item, bl_layer_spec *layer) {
  char *words[WORDS_MAX];
  char *text = bl_arena_strdup(r->arena, item->text);
  if (text == NULL) {
    r->no_memory = true;
    return;
  }
  size_t n = split_words(text, words), row, skip = 1;
  if (n == 0) {
    unknown_layer(r, item, "");
    return;
  }
  if (!row_by_name(words[0], &row)) {
    if (!is_activation(words[0])) {
      unknown_layer(r, item, words[0]);
      return;
    }
    row = row_of_kind(BL_LAYER_ACTIVATION);
    skip = 0; /* the word is the function itself */
  }
  const struct layer_row *shape = &layer_rows[row];
  size_t n_given = n - skip, n_max = 0;
  while (n_max < 2 && shape->positional[n_max] != NULL)
    n_max++;
  if (n_given < shape->n_positional_min || n_given > n_max) {
    bl_conf_errors_add_field(r->errors, item, "'%.60s' is not understood; write %s", item->text,
                             shape->short_form);
    return;
  }
  layer->kind = shape->kind;
  bl_schema_defaults(r, kind_fields[row].fields, kind_fields[row].n_fields);
  for (size_t i = 0; i < n_given; i++)
    read_word(r, &kind_fields[row], shape->positional[i], item, words[skip + i]);
}

/* ---- long form and list ---- */

static void read_long(bl_conf_reader *r, const bl_node *item, bl_layer_spec *layer) {
  size_t row;
  const bl_node *node = item->first;
  if (item->n_children != 1) {
    bl_conf_errors_add_field(r->errors, item, "a layer is written as {KIND: {field: value}} with one kind");
    return;
  }
  if (!row_by_name(node->key, &row)) {
    unknown_layer(r, node, node->key);
    return;
  }
  layer->kind = layer_rows[row].kind;
  bl_schema_defaults(r, kind_fields[row].fields, kind_fields[row].n_fields);
  if (node->kind == BL_NODE_MAP || node->is_null)
    bl_schema_read_given(r, kind_fields[row].fields, kind_fields[row].n_fields, node);
  else
    bl_conf_errors_add_field(r->errors, node, "write the fields of the layer as {field: value}");
}

static void read_layers(bl_conf_reader *r, const bl_field *f, const bl_node *node) {
  bl_job_spec *spec = r->base;
  (void)f;
  if (node->kind != BL_NODE_LIST || node->n_children == 0 || node->n_children > BL_JOB_LAYERS_MAX) {
    bl_conf_errors_add_field(r->errors, node,
                             "write a list of 1 to %d layers, such as [dense 512 relu, dense 10]",
                             BL_JOB_LAYERS_MAX);
    return;
  }
  bl_layer_spec *layers = bl_arena_array(r->arena, node->n_children, sizeof *layers);
  if (layers == NULL) {
    r->no_memory = true;
    return;
  }
  size_t n = 0;
  for (const bl_node *item = node->first; item != NULL; item = item->next, n++) {
    bl_conf_reader inner = *r;
    inner.base = &layers[n];
    layers[n].line = item->line;
    if (item->kind == BL_NODE_MAP)
      read_long(&inner, item, &layers[n]);
    else if (item->kind == BL_NODE_SCALAR)
      read_short(&inner, item, &layers[n]);
    else
      bl_conf_errors_add_field(r->errors, item, "a list is not a layer");
    r->no_memory |= inner.no_memory;
  }
  spec->model.layers = layers;
  spec->model.n_layers = n;
}

static void write_layers(const bl_field *f, const void *base, unsigned indent, bl_buf *out) {
  const bl_model_spec *m = &((const bl_job_spec *)base)->model;
  (void)f;
  bl_buf_add_byte(out, '\n');
  for (size_t i = 0; i < m->n_layers; i++) {
    const bl_field *kind = &kind_fields[row_of_kind(m->layers[i].kind)];
    bl_buf_printf(out, "%*s- %s: ", (int)indent + 2, "", kind->name);
    bl_schema_dump_flow(kind->fields, kind->n_fields, &m->layers[i], out);
    bl_buf_add_byte(out, '\n');
  }
}

static void read_input(bl_conf_reader *r, const bl_field *f, const bl_node *node) {
  bl_model_spec *m = &((bl_job_spec *)r->base)->model;
  size_t n = node->kind == BL_NODE_LIST ? node->n_children : 1;
  uint64_t dims[BL_JOB_DIMS_MAX], product = 1;
  (void)f;
  if (node->kind == BL_NODE_MAP || n == 0 || n > BL_JOB_DIMS_MAX) {
    bl_conf_errors_add_field(r->errors, node,
                             "write the shape of a sample as a list of 1 to %d numbers, such as [28, 28]",
                             BL_JOB_DIMS_MAX);
    return;
  }
  const bl_node *item = node->kind == BL_NODE_LIST ? node->first : node;
  for (size_t i = 0; i < n; i++, item = item->next) {
    if (!bl_node_to_u64(r, item, &dims[i]))
      return;
    /* bl_job_model_finish knows the first layer, which may take less. */
    if (dims[i] == 0 || !bl_mul_u64(product, dims[i], &product) || product > BL_JOB_SPARSE_INPUTS_MAX) {
      bl_conf_errors_add_field(r->errors, item, "a sample may have 1 to %u values, before a sparse layer to %" PRIu64,
                               BL_JOB_INPUTS_MAX, BL_JOB_SPARSE_INPUTS_MAX);
      return;
    }
  }
  memcpy(m->input, dims, n * sizeof dims[0]);
  m->n_input_dims = n;
}

static void write_input(const bl_field *f, const void *base, unsigned indent, bl_buf *out) {
  const bl_model_spec *m = &((const bl_job_spec *)base)->model;
  (void)f;
  (void)indent;
  for (size_t i = 0; i < m->n_input_dims; i++)
    bl_buf_printf(out, "%s%" PRIu64, i > 0 ? ", " : " [", m->input[i]);
  bl_buf_add_str(out, "]\n");
}

/* clang-format off */
const bl_field bl_job_model_fields[BL_JOB_N_MODEL_FIELDS] = {
    {.name = "input", .type = BL_FIELD_CUSTOM, .required = true, .read = read_input, .write = write_input,
     .doc = "Shape of a sample, such as [784] or [28, 28]."},
    {.name = "layers", .type = BL_FIELD_CUSTOM, .required = true, .read = read_layers, .write = write_layers,
     BL_FIELDS(kind_fields), .doc = "The layers from input to output, such as [dense 512 relu, dense 10]."},
};
/* clang-format on */

/* ---- checks of the whole ---- */

static bool all_layers_were_read(const bl_model_spec *m) {
  for (size_t i = 0; i < m->n_layers; i++) {
    const bl_layer_spec *l = &m->layers[i];
    if (l->kind == 0 || (bl_layer_has_weights(l->kind) && l->units == 0))
      return false;
  }
  return m->n_layers > 0 && m->n_input_dims > 0;
}

static void name_layers(bl_conf_reader *r, bl_model_spec *m, const bl_node *items) {
  unsigned count[BL_LAYER_COUNT] = {0};
  for (size_t i = 0; i < m->n_layers; i++) {
    bl_layer_spec *l = &m->layers[i];
    count[l->kind]++;
    if (l->name == NULL)
      l->name = bl_arena_printf(r->arena, "%s%u", kind_fields[row_of_kind(l->kind)].name, count[l->kind]);
    if (l->name == NULL) {
      r->no_memory = true;
      return;
    }
  }
  const bl_node *item = items->first;
  for (size_t i = 0; i < m->n_layers; i++, item = item->next) {
    for (size_t k = 0; k < i; k++) {
      if (strcmp(m->layers[i].name, m->layers[k].name) == 0) {
        bl_conf_errors_add_field(r->errors, item, "the name '%s' is taken by layer %zu, counted from 0",
                                 m->layers[i].name, k);
        break;
      }
    }
  }
}

/* Takes the loss's own function out of the end of the model. */
static void drop_final_activation(bl_job_spec *spec) {
  static const bl_activation own[BL_LOSS_COUNT] = {
      [BL_LOSS_SOFTMAX_CROSS_ENTROPY] = BL_ACT_SOFTMAX, [BL_LOSS_SIGMOID_CROSS_ENTROPY] = BL_ACT_SIGMOID};
  bl_model_spec *m = &spec->model;
  bl_layer_spec *last = &m->layers[m->n_layers - 1];
  if (own[spec->loss] == BL_ACT_NONE || last->activation != own[spec->loss])
    return;
  if (last->kind == BL_LAYER_ACTIVATION)
    m->n_layers--;
  else
    last->activation = BL_ACT_NONE;
}

static void check_softmax(bl_conf_reader *r, const bl_model_spec *m, const bl_node *items) {
  const bl_node *item = items->first;
  for (size_t i = 0; i < m->n_layers; i++, item = item->next) {
    if (m->layers[i].activation == BL_ACT_SOFTMAX)
      bl_conf_errors_add_field(
          r->errors, item,
          "softmax is allowed only in the last layer, together with loss softmax_cross_entropy");
  }
}

/* A sparse layer takes the samples themselves; what reads them must keep them sparse. */
static void check_sparse(bl_conf_reader *r, const bl_job_spec *spec, const bl_node *root, const bl_node *items) {
  const bl_model_spec *m = &spec->model;
  const bl_source_spec *s = &spec->data.train;
  const bl_node *item = items->first, *input = bl_node_find(root, "model.input"), *train = bl_node_find(root, "data.train");
  uint64_t n_inputs = 1;
  for (size_t i = 0; i < m->n_input_dims; i++)
    n_inputs *= m->input[i]; /* read_input has checked the product */
  for (size_t i = 0; i < m->n_layers; i++, item = item->next)
    if (i > 0 && m->layers[i].kind == BL_LAYER_SPARSE)
      bl_conf_errors_add_field(r->errors, item, "a sparse layer can only be the first one");
  if (s->hash_bits > 0 && n_inputs != UINT64_C(1) << s->hash_bits)
    bl_conf_errors_add_field(r->errors, input, "%" PRIu64 " inputs, but the columns are hashed into 2^%u = %" PRIu64
                             " slots", n_inputs, s->hash_bits, UINT64_C(1) << s->hash_bits);
  if (!bl_model_is_sparse(m)) {
    if (n_inputs > BL_JOB_INPUTS_MAX)
      bl_conf_errors_add_field(r->errors, input, "a sample may have 1 to %u values, only before a sparse layer more",
                               BL_JOB_INPUTS_MAX);
    return;
  }
  if (spec->accumulate > 1)
    bl_conf_errors_add_field(r->errors, bl_node_get(root, "accumulate"),
                             "a model with a sparse layer takes a batch as a whole: make batch larger instead");
  if (spec->average_ema > 0)
    bl_conf_errors_add_field(r->errors, bl_node_find(root, "average.ema"),
                             "rows of a sparse layer's table have no average in this version");
  if (spec->clip_global_norm > 0)
    bl_conf_errors_add_field(r->errors, bl_node_find(root, "clip.global_norm"),
                             "the norm of all ranks' rows of a sparse layer is not known in this version: use clip.norm");
  const bl_optim_rule *rule = spec->optimizer != NULL ? bl_optim_rule_by_name(spec->optimizer) : NULL;
  if (rule != NULL && rule->needs_chunk)
    bl_conf_errors_add_field(r->errors, bl_node_get(root, "optimizer"),
                             "'%s' needs norms of whole tensors, and of a sparse layer's table only rows are at hand",
                             rule->name);
  if (s->kind == BL_SOURCE_IDX || (s->kind == BL_SOURCE_CSV && s->hash_bits == 0))
    bl_conf_errors_add_field(r->errors, train,
                             "a sparse layer takes libsvm, npy files of slots, or csv with hash: {bits: ...}");
  if (s->kind != BL_SOURCE_NONE && s->hash_bits == 0 && spec->data.normalize > BL_NORMALIZE_NONE)
    bl_conf_errors_add_field(r->errors, bl_node_find(root, "data.normalize"),
                             "inputs of a sparse layer are not normalised: zeros would be zeros no more");
}

/* Walks the shapes; then the output against the loss. */
static void check_shapes(bl_conf_reader *r, const bl_job_spec *spec, const bl_node *root,
                         const bl_node *items) {
  const bl_model_spec *m = &spec->model;
  bl_shape shape = {.n_dims = m->n_input_dims};
  memcpy(shape.dims, m->input, sizeof shape.dims);
  const bl_node *item = items->first, *last_item = items->last;
  bool has_weights = false;
  for (size_t i = 0; i < m->n_layers; i++, item = item->next) {
    bl_error err = BL_ERROR_INIT;
    if (bl_layer_step(&m->layers[i], &shape, &err) != BL_OK) {
      bl_conf_errors_add_field(r->errors, item, "%s", err.text);
      return;
    }
    has_weights |= bl_layer_has_weights(m->layers[i].kind);
  }
  if (!has_weights)
    bl_conf_errors_add_field(r->errors, items, "the model has no layer with weights");
  else if (spec->loss != BL_LOSS_SOFTMAX_CROSS_ENTROPY && shape.dims[0] != 1)
    bl_conf_errors_add_field(r->errors, last_item,
                             "the model has %" PRIu64 " outputs, and this loss (line %u) takes one",
                             shape.dims[0], bl_node_find(root, "loss")->line);
  else if (spec->loss == BL_LOSS_SOFTMAX_CROSS_ENTROPY && shape.dims[0] < 2)
    bl_conf_errors_add_field(r->errors, last_item,
                             "the model has %" PRIu64
                             " output, and loss softmax_cross_entropy (line %u) needs one per "
                             "class, at least 2",
                             shape.dims[0], bl_node_find(root, "loss")->line);
}

void bl_job_model_finish(bl_conf_reader *r, const bl_node *root) {
  bl_job_spec *spec = r->base;
  const bl_node *items = bl_node_find(root, "model.layers");
  if (items == NULL || !all_layers_were_read(&spec->model))
    return;
  name_layers(r, &spec->model, items);
  if (r->no_memory || spec->loss == 0)
    return;
  drop_final_activation(spec);
  check_softmax(r, &spec->model, items);
  if (spec->model.n_layers > 0) {
    check_sparse(r, spec, root, items);
    check_shapes(r, spec, root, items);
  }
}
