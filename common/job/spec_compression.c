/* SPDX-License-Identifier: Apache-2.0
 *
 * The section `compression` of the job file, and what it must agree about with optimizer, clipping and model.
 *
 * A preset is a row of a table of texts; what the section says beside it replaces the preset's. The spec holds the
 * result written out, so that a job keeps its meaning when a later version gives the preset other numbers.
 *
 * Momentum and parts of gradients: a momentum on the servers would see each gradient's parts late and in lumps, and
 * accuracy falls; workers that accumulate it before they choose what to send (momentum correction) lose nothing by it.
 * Source: Lin, Han, Mao, Wang, Dally, "Deep Gradient Compression", ICLR 2018, section 3.1.
 */
#include "base/num.h"
#include "base/str.h"
#include "codec/spec.h"
#include "job/policy.h"
#include "job/spec_parts.h"
#include "optim/optim.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* ---- presets ---- */

typedef struct preset {
  const char *name;
  const char *push, *pull, *small; /* codecs as text */
  uint32_t warmup_epochs;
  bool moves_momentum; /* the optimizer momentum becomes sgd on the servers and momentum correction on the workers */
  bool adapts;
} preset;

static const preset presets[] = {
    {"none", "float32", "float32", "float32", 0, false, false},
    /* 7.5 times fewer bytes each way, no loss that can be measured. */
    {"safe", "int4", "int4", "float32", 0, false, false},
    /* 100 times fewer up, 40 times down: a pull carries what the pushes of three ranks touch. */
    {"balanced", "topk(3%, ternary)", "topk(10%, ternary)", "float16", 0, true, false},
    /* 200 times fewer up, 100 times down. */
    {"extreme", "topk(1%, ternary)", "topk(3%, ternary)", "float16", 0, true, false},
    /* Begins exactly, and chooses while the job runs. */
    {"auto", "float32", "float32", "float32", 0, false, true},
};

static const preset *preset_by_name(const char *name) {
  for (size_t i = 0; i < BL_COUNT_OF(presets); i++)
    if (strcmp(presets[i].name, name) == 0)
      return &presets[i];
  return NULL;
}

/* Stand for "not given" until the section is finished. */
#define UNSET_ELEMS UINT64_MAX
#define UNSET_MOMENTUM (-1.0)

static void take_preset(bl_conf_reader *r, const bl_node *node, const preset *p, bl_compression_spec *c) {
  bl_error err = BL_ERROR_INIT;
  *c = (bl_compression_spec){.preset = p != &presets[0] ? p->name : NULL,
                             .adapts = p->adapts,
                             .exact_below = UNSET_ELEMS,
                             .feedback = true,
                             .momentum_correction = UNSET_MOMENTUM,
                             .warmup_epochs = p->warmup_epochs};
  if (bl_codec_spec_read(p->push, &c->push, &err) != BL_OK || bl_codec_spec_read(p->pull, &c->pull, &err) != BL_OK ||
      bl_codec_spec_read(p->small, &c->small, &err) != BL_OK) {
    bl_conf_errors_add_field(r->errors, node, "the preset '%s' cannot be used: %s", p->name, err.text);
    c->push = c->pull = c->small = bl_codec_spec_exact;
  }
}

/* ---- reading ---- */

#define NAMES_MAX 40

/* Codecs, and where a preset may stand those. */
static void unknown(bl_conf_reader *r, const bl_node *node, bool or_preset) {
  const char *names[NAMES_MAX];
  char near[100], all[240];
  size_t n = 0, used = 0;
  names[n++] = "none";
  for (size_t i = 0; bl_codec_at(i) != NULL && n < NAMES_MAX; i++)
    if (bl_codec_at(i)->id != BL_CODEC_ZSTD)
      names[n++] = bl_codec_at(i)->name;
  for (size_t i = 1; or_preset && i < BL_COUNT_OF(presets) && n < NAMES_MAX; i++)
    names[n++] = presets[i].name;
  for (size_t i = 0; i < n && used < sizeof all; i++)
    used += (size_t)snprintf(all + used, sizeof all - used, "%s%s", i > 0 ? ", " : "", names[i]);
  bl_conf_errors_add_field(r->errors, node, "there is no compression '%.60s'%s (allowed: %s)", node->text,
                           bl_conf_nearest(node->text, names, n, near, sizeof near), all);
}

static bool read_codec(bl_conf_reader *r, const bl_node *node, bool or_preset, bl_codec_spec *ret) {
  char what[80];
  if (node->kind != BL_NODE_SCALAR) {
    bl_conf_errors_add_field(r->errors, node, "%s is not allowed here; write a codec's name%s",
                             bl_node_describe(node, what, sizeof what), or_preset ? ", or {push: ..., pull: ...}" : "");
    return false;
  }
  bl_error err = BL_ERROR_INIT;
  if (bl_codec_spec_read(node->text, ret, &err) == BL_OK)
    return true;
  if (strpbrk(node->text, "(+") == NULL && bl_codec_by_name(node->text) == NULL)
    unknown(r, node, or_preset);
  else
    bl_conf_errors_add_field(r->errors, node, "%s", err.text);
  return false;
}

static void read_codec_field(bl_conf_reader *r, const bl_field *f, const bl_node *node) {
  (void)read_codec(r, node, false, (bl_codec_spec *)((char *)r->base + f->offset));
}

static void write_codec_field(const bl_field *f, const void *base, unsigned indent, bl_buf *out) {
  char text[BL_CODEC_TEXT_MAX];
  (void)indent;
  bl_buf_add_byte(out, ' ');
  bl_yaml_add_text(out, bl_codec_spec_write((const bl_codec_spec *)((const char *)base + f->offset), text));
  bl_buf_add_byte(out, '\n');
}

/* Was taken before the other fields, which it is the default of. */
static void read_preset(bl_conf_reader *r, const bl_field *f, const bl_node *node) {
  (void)r;
  (void)f;
  (void)node;
}

static void write_preset(const bl_field *f, const void *base, unsigned indent, bl_buf *out) {
  const bl_compression_spec *c = base;
  (void)f;
  (void)indent;
  bl_buf_printf(out, " %s\n", c->preset != NULL ? c->preset : "none");
}

static void read_rules(bl_conf_reader *r, const bl_field *f, const bl_node *node);
static void write_rules(const bl_field *f, const void *base, unsigned indent, bl_buf *out);

static const bl_word kinds[] = {{"any", BL_KIND_ANY}, {"weight", BL_KIND_WEIGHT}, {"bias", BL_KIND_BIAS}};

/* clang-format off */
#define AT(member) .offset = offsetof(bl_compression_rule, member)
#define CODEC .type = BL_FIELD_CUSTOM, .read = read_codec_field, .write = write_codec_field

static const bl_field rule_fields[] = {
    {.name = "match", .type = BL_FIELD_TEXT, AT(match), .min = 1, .max = 200,
     .doc = "Pattern of tensor names: * stands for any letters, ? for one. Left out: any."},
    {.name = "elems_min", .type = BL_FIELD_U64, AT(elems_min), .default_text = "0",
     .doc = "Tensors with at least so many elements."},
    {.name = "elems_max", .type = BL_FIELD_U64, AT(elems_max), .default_text = "18446744073709551615",
     .doc = "Tensors with at most so many elements."},
    {.name = "kind", .type = BL_FIELD_ENUM, AT(kind), .default_text = "any", BL_WORDS(kinds),
     .doc = "weight, bias (what normalisation learns counts as one) or any."},
    {.name = "push", CODEC, AT(push), .doc = "Codec of gradients. Left out: as without the rule."},
    {.name = "pull", CODEC, AT(pull), .doc = "Codec of weights. Left out: as without the rule."},
};

#undef AT
#define AT(member) .offset = offsetof(bl_compression_spec, member)

const bl_field bl_job_compression_fields[BL_JOB_N_COMPRESSION_FIELDS] = {
    {.name = "preset", .since = 2, .type = BL_FIELD_CUSTOM, .read = read_preset, .write = write_preset,
     .doc = "none, safe, balanced, extreme or auto: what the fields that are left out say."},
    {.name = "push", .since = 2, CODEC, AT(push), .doc = "Codec of gradients, from the workers to the servers."},
    {.name = "pull", .since = 2, CODEC, AT(pull), .doc = "Codec of weights, from the servers to the workers."},
    {.name = "exact_below", .since = 2, .type = BL_FIELD_U64, AT(exact_below),
     .doc = "Tensors with fewer elements, and biases, travel as `small` says. 0: as the others."},
    {.name = "small", .since = 2, CODEC, AT(small), .doc = "Codec of small tensors and biases."},
    {.name = "feedback", .since = 2, .type = BL_FIELD_BOOL, AT(feedback),
     .doc = "What a frame of a push leaves out is kept and sent with a later one."},
    {.name = "momentum_correction", .since = 2, .type = BL_FIELD_DOUBLE, AT(momentum_correction), .real_max = 1, .real_max_open = true,
     .doc = "Momentum that workers apply before they choose what to send, such as 0.9. 0: off."},
    {.name = "warmup_epochs", .since = 2, .type = BL_FIELD_U32, AT(warmup_epochs), .max = BL_JOB_WARMUP_EPOCHS_MAX,
     .doc = "Epochs in which the density falls to its value: 1/4, 1/16, 1/64 ..."},
    {.name = "rules", .since = 2, .type = BL_FIELD_CUSTOM, AT(rules), BL_FIELDS(rule_fields), .read = read_rules, .write = write_rules,
     .doc = "Tensors that travel otherwise. The first rule that holds for one decides."},
};
#undef AT
/* clang-format on */

static void read_rule(bl_conf_reader *r, const bl_node *item, bl_compression_rule *rule) {
  bl_conf_reader inner = *r;
  *rule = (bl_compression_rule){.line = item->line};
  inner.base = rule;
  size_t n_errors = r->errors->n;
  if (item->kind == BL_NODE_MAP)
    bl_schema_read(&inner, rule_fields, BL_COUNT_OF(rule_fields), item);
  else
    bl_conf_errors_add_field(r->errors, item, "write a rule as {match: PATTERN, push: CODEC, pull: CODEC}");
  if (r->errors->n == n_errors && rule->push.codec == NULL && rule->pull.codec == NULL)
    bl_conf_errors_add_field(r->errors, item, "the rule says nothing: write push, pull or both");
  r->no_memory |= inner.no_memory;
}

static void read_rules(bl_conf_reader *r, const bl_field *f, const bl_node *node) {
  bl_compression_spec *c = r->base;
  (void)f;
  if (node->kind != BL_NODE_LIST || node->n_children > BL_JOB_COMPRESSION_RULES_MAX) {
    bl_conf_errors_add_field(r->errors, node, "write a list of at most %d rules, such as - {match: \"dense1.*\", push: int8}",
                             BL_JOB_COMPRESSION_RULES_MAX);
    return;
  }
  bl_compression_rule *rules = bl_arena_array(r->arena, node->n_children + 1, sizeof *rules);
  if (rules == NULL) {
    r->no_memory = true;
    return;
  }
  c->rules = rules;
  c->n_rules = 0;
  for (const bl_node *item = node->first; item != NULL; item = item->next)
    read_rule(r, item, &rules[c->n_rules++]);
}

static void write_rule(const bl_compression_rule *rule, bl_buf *out) {
  static const char *const keys[] = {"push", "pull"};
  const bl_codec_spec *codecs[] = {&rule->push, &rule->pull};
  char text[BL_CODEC_TEXT_MAX];
  bl_buf_add_byte(out, '{');
  if (rule->match != NULL) {
    bl_buf_add_str(out, "match: ");
    bl_yaml_add_text(out, rule->match);
    bl_buf_add_str(out, ", ");
  }
  bl_buf_printf(out, "elems_min: %" PRIu64 ", elems_max: %" PRIu64 ", kind: %s", rule->elems_min, rule->elems_max,
                bl_word_name(kinds, BL_COUNT_OF(kinds), (int)rule->kind));
  for (size_t i = 0; i < BL_COUNT_OF(keys); i++) {
    if (codecs[i]->codec == NULL)
      continue;
    bl_buf_printf(out, ", %s: ", keys[i]);
    bl_yaml_add_text(out, bl_codec_spec_write(codecs[i], text));
  }
  bl_buf_add_str(out, "}\n");
}

static void write_rules(const bl_field *f, const void *base, unsigned indent, bl_buf *out) {
  const bl_compression_spec *c = base;
  (void)f;
  bl_buf_add_str(out, c->n_rules > 0 ? "\n" : " null\n");
  for (size_t i = 0; i < c->n_rules; i++) {
    bl_buf_printf(out, "%*s- ", (int)indent + 2, "");
    write_rule(&c->rules[i], out);
  }
}

/* Nothing is to be gained where rounding leaves half of the bytes: such codecs are for every tensor, as in version 1. */
static bool is_nearly_exact(const bl_codec_spec *s) {
  return s->codec->exact || s->codec->id == BL_CODEC_FLOAT16 || s->codec->id == BL_CODEC_BFLOAT16;
}

static void read_map(bl_conf_reader *r, const bl_node *map, bl_compression_spec *c) {
  const bl_node *named = bl_node_get(map, "preset");
  const preset *p = named != NULL && named->kind == BL_NODE_SCALAR ? preset_by_name(named->text) : &presets[0];
  if (p == NULL || (named != NULL && named->kind != BL_NODE_SCALAR)) {
    char what[80];
    bl_conf_errors_add_field(r->errors, named, "%s is no preset (allowed: none, safe, balanced, extreme, auto)",
                             bl_node_describe(named, what, sizeof what));
    p = &presets[0];
  }
  bl_conf_reader inner = *r;
  inner.base = c;
  take_preset(r, named, p, c);
  bl_schema_read_given(&inner, bl_job_compression_fields, BL_JOB_N_COMPRESSION_FIELDS, map);
  r->no_memory |= inner.no_memory;
}

void bl_job_read_compression(bl_conf_reader *r, const bl_field *f, const bl_node *node) {
  bl_compression_spec *c = &((bl_job_spec *)r->base)->compression;
  const preset *p = node->kind == BL_NODE_SCALAR ? preset_by_name(node->text) : NULL;
  (void)f;
  if (node->kind == BL_NODE_MAP) {
    read_map(r, node, c);
  } else {
    take_preset(r, node, p != NULL ? p : &presets[0], c);
    if (p == NULL && read_codec(r, node, true, &c->push))
      c->pull = c->push;
  }
  if (c->exact_below == UNSET_ELEMS)
    c->exact_below = is_nearly_exact(&c->push) && is_nearly_exact(&c->pull) && !c->adapts ? 0 : BL_JOB_EXACT_BELOW;
}

/* ---- writing ---- */

bool bl_job_compression_is_plain(const bl_compression_spec *c) {
  return c->preset == NULL && !c->adapts && c->exact_below == 0 && bl_codec_spec_is_exact(&c->small) && c->feedback &&
         c->momentum_correction == 0 && c->warmup_epochs == 0 && c->n_rules == 0 && is_nearly_exact(&c->push) &&
         is_nearly_exact(&c->pull);
}

void bl_job_write_compression(const bl_field *f, const void *base, unsigned indent, bl_buf *out) {
  const bl_compression_spec *c = &((const bl_job_spec *)base)->compression;
  char push[BL_CODEC_TEXT_MAX], pull[BL_CODEC_TEXT_MAX];
  (void)f;
  if (bl_job_compression_is_plain(c)) {
    bl_buf_printf(out, " {push: %s, pull: %s}\n", bl_codec_spec_write(&c->push, push), bl_codec_spec_write(&c->pull, pull));
    return;
  }
  /* All of it is of version 2, and what is left out would be the preset's. */
  bl_field fields[BL_JOB_N_COMPRESSION_FIELDS];
  memcpy(fields, bl_job_compression_fields, sizeof fields);
  for (size_t i = 0; i < BL_COUNT_OF(fields); i++)
    fields[i].since = 0;
  bl_buf_add_byte(out, '\n');
  bl_schema_dump(fields, BL_COUNT_OF(fields), c, indent + 2, false, out);
}

/* ---- momentum ---- */

static bool is_local(const bl_job_spec *s) { return s->local_steps > 0; }

static double *param_of(bl_job_spec *s, const char *key) {
  for (size_t i = 0; i < s->n_optimizer_params; i++)
    if (strcmp(s->optimizer_params[i].key, key) == 0)
      return &s->optimizer_params[i].value;
  return NULL;
}

/* What is not sent does not go through the workers' momentum: to weigh as much as before, it is multiplied by the sum of
 * all powers of the momentum. */
static bool enlarge_decay(bl_conf_reader *r, const bl_node *node, double *decay, double momentum) {
  *decay /= 1 - momentum;
  if (*decay <= 1)
    return true;
  bl_conf_errors_add_field(r->errors, node,
                           "with the momentum %g on the workers a weight decay of %g / (1 - %g) would be needed; at most 1 is "
                           "allowed", momentum, *decay * (1 - momentum), momentum);
  return false;
}

/* A preset that sparsifies takes {momentum: {lr, momentum}} as sgd on the servers and momentum correction. */
static void move_momentum(bl_conf_reader *r, const bl_node *root) {
  bl_job_spec *s = r->base;
  bl_compression_spec *c = &s->compression;
  const preset *p = c->preset != NULL ? preset_by_name(c->preset) : NULL;
  bool given = c->momentum_correction != UNSET_MOMENTUM;
  c->momentum_correction = given ? c->momentum_correction : 0;
  if (p == NULL || !p->moves_momentum || given || s->optimizer == NULL || strcmp(s->optimizer, "momentum") != 0 ||
      is_local(s))
    return;
  double *momentum = param_of(s, "momentum"), *decay = param_of(s, "weight_decay"), *lr = param_of(s, "lr");
  const bl_optim_rule *sgd = bl_optim_rule_by_name("sgd");
  bl_param *params = bl_arena_array(r->arena, sgd->n_params, sizeof *params);
  if (params == NULL) {
    r->no_memory = true;
    return;
  }
  bool ok = enlarge_decay(r, bl_node_get(root, "optimizer"), decay, *momentum);
  for (size_t i = 0; ok && i < s->n_groups; i++)
    if (s->groups[i].says.weight_decay > 0)
      ok = enlarge_decay(r, bl_node_get(root, "groups"), &s->groups[i].says.weight_decay, *momentum);
  for (size_t i = 0; i < sgd->n_params; i++) /* lr, weight_decay */
    params[i] = (bl_param){sgd->params[i].key, strcmp(sgd->params[i].key, "lr") == 0 ? *lr : *decay};
  c->momentum_correction = *momentum;
  s->optimizer = sgd->name;
  s->optimizer_params = params;
  s->n_optimizer_params = sgd->n_params;
}

/* ---- against the rest of the job ---- */

/* Has the job a rule whose state on the servers is made of what arrives there? */
static bool has_state(const bl_job_spec *s) {
  bool known = s->optimizer != NULL && (!is_local(s) || s->outer.rule != NULL);
  const bl_optim_rule *rule = known ? bl_optim_rule_by_name(bl_job_server_rule(s).name) : NULL;
  return rule != NULL && rule->n_slots > 0;
}

static bool is_momentum(const char *optimizer) {
  return strcmp(optimizer, "momentum") == 0 || strcmp(optimizer, "nesterov") == 0;
}

/* What is wrong with momentum correction, whatever the model is. */
static void check_momentum(bl_conf_reader *r, const bl_node *node) {
  const bl_job_spec *s = r->base;
  const bl_compression_spec *c = &s->compression;
  if (!(c->momentum_correction > 0))
    return;
  if (has_state(s))
    bl_conf_errors_add_field(r->errors, node,
                             "momentum_correction is a momentum on the workers, and the optimizer '%s' has one of its own on "
                             "the servers, so that it would act twice: write %s",
                             is_local(s) ? s->outer.rule : s->optimizer,
                             is_local(s) ? "outer: average" : "optimizer: {sgd: {lr: ...}}");
  else if (!c->feedback)
    bl_conf_errors_add_field(r->errors, node, "momentum_correction accumulates what is not sent: it needs feedback: true");
}

static void check_sparse_push(bl_conf_reader *r, const bl_node *node, const bl_tensor *t, const bl_tensor_policy *p) {
  const bl_job_spec *s = r->base;
  char push[BL_CODEC_TEXT_MAX];
  bl_codec_spec_write(&p->push, push);
  if (is_local(s))
    bl_conf_errors_add_field(r->errors, node,
                             "'%.40s' is pushed with %s, and 'outer: %s' keeps moments of whole differences on the servers, which "
                             "parts of them spoil: write preset: safe, or outer: average", t->name, push, s->outer.rule);
  else if (is_momentum(s->optimizer))
    bl_conf_errors_add_field(r->errors, node,
                             "'%.40s' is pushed with %s, and behind parts of gradients the momentum on the servers costs "
                             "accuracy: write optimizer: {sgd: {lr: ...}} and compression.momentum_correction: 0.9%s", t->name, push,
                             strcmp(s->optimizer, "momentum") == 0 ? ", or a preset, which does it" : "");
  else
    bl_conf_errors_add_field(r->errors, node,
                             "'%.40s' is pushed with %s, and '%s' keeps moments of whole gradients on the servers, which parts "
                             "of gradients spoil: write preset: safe, or sync: local", t->name, push, s->optimizer);
}

static void check_table(bl_conf_reader *r, const bl_node *node, const bl_tensor *t, const bl_tensor_policy *p) {
  const bl_job_spec *s = r->base;
  char text[BL_CODEC_TEXT_MAX];
  const bl_codec_spec *bad = !bl_codec_takes_rows(&p->push) ? &p->push : !bl_codec_takes_rows(&p->pull) ? &p->pull : NULL;
  if (bad != NULL)
    bl_conf_errors_add_field(r->errors, node,
                             "the rows of the table '%.40s' cannot travel as %s; allowed for it are float32, float16, bfloat16 "
                             "and int8", t->name, bl_codec_spec_write(bad, text));
  else if (s->compression.momentum_correction > 0)
    bl_conf_errors_add_field(r->errors, node, "the rows of the table '%.40s' can have no momentum on the workers", t->name);
}

/* A tensor against the job. False: what was said need not be said of others. */
static bool check_tensor(bl_conf_reader *r, const bl_node *node, const bl_tensor *t) {
  const bl_job_spec *s = r->base;
  bl_tensor_policy p = bl_job_policy_of(s, t);
  size_t n_errors = r->errors->n;
  if (t->table)
    check_table(r, node, t, &p);
  else if (p.push.codec->sparse && has_state(s))
    check_sparse_push(r, node, t, &p);
  else if (p.push.codec->sparse && s->clip_global_norm > 0)
    bl_conf_errors_add_field(r->errors, node,
                             "'%.40s' is pushed in parts, of which no norm of the gradient can be made: write clip.norm in place "
                             "of clip.global_norm", t->name);
  else if (p.push.density > 0 && p.pull.density > 0 && p.pull.density < p.push.density)
    bl_conf_errors_add_field(r->errors, node,
                             "'%.40s' is pulled with the density %g and pushed with %g: the servers' residual would grow without "
                             "end; pull at least as much", t->name, (double)p.pull.density, (double)p.push.density);
  return r->errors->n == n_errors;
}

static bool has_density(const bl_job_spec *s, const bl_tensor *tensors, uint32_t n) {
  for (uint32_t i = 0; i < n; i++)
    if (bl_job_policy_of(s, &tensors[i]).warmup_epochs > 0)
      return true;
  return false;
}

/* A rule that holds for nothing is what a misspelt name looks like. */
static void check_rules(bl_conf_reader *r, const bl_node *node, const bl_tensor *tensors, uint32_t n) {
  const bl_job_spec *s = r->base;
  const bl_node *rules = bl_node_get(node, "rules"), *item = rules != NULL ? rules->first : NULL;
  for (size_t i = 0; i < s->compression.n_rules && item != NULL; i++, item = item->next) {
    const bl_compression_rule *rule = &s->compression.rules[i];
    uint32_t t = 0;
    while (t < n && bl_job_compression_rule_of(s, &tensors[t]) != rule)
      t++;
    if (t == n && (rule->push.codec != NULL || rule->pull.codec != NULL)) /* else it is a mistake already */
      bl_conf_errors_add_field(r->errors, item,
                               "the rule holds for no tensor: there is none like that, or all are taken by rules before it");
  }
}

static void check_tensors(bl_conf_reader *r, const bl_node *node, const bl_tensor *tensors, uint32_t n) {
  const bl_job_spec *s = r->base;
  check_rules(r, node, tensors, n);
  for (uint32_t i = 0; i < n && check_tensor(r, node, &tensors[i]); i++)
    ;
  if (s->compression.warmup_epochs > 0 && !has_density(s, tensors, n))
    bl_conf_errors_add_field(r->errors, node, "warmup_epochs is for topk and randomk, and no tensor travels like that");
}

static bool names_are_known(const bl_job_spec *s) {
  for (size_t i = 0; i < s->model.n_layers; i++)
    if (s->model.layers[i].name == NULL)
      return false;
  return true;
}

void bl_job_compression_finish(bl_conf_reader *r, const bl_node *root) {
  const bl_job_spec *s = r->base;
  const bl_node *node = bl_node_get(root, "compression");
  size_t n_errors = r->errors->n;
  bl_arena scratch;
  bl_tensor *tensors;
  uint32_t n;
  move_momentum(r, root);
  if (node == NULL)
    return;
  check_momentum(r, node);
  bl_arena_init(&scratch, 0);
  bl_status status = names_are_known(s) ? bl_model_tensors(&s->model, &scratch, &tensors, &n, NULL) : BL_EINVAL;
  if (status == BL_OK && r->errors->n == n_errors) /* else the model's mistakes are named elsewhere */
    check_tensors(r, node, tensors, n);
  r->no_memory |= status == BL_ENOMEM;
  bl_arena_fini(&scratch);
}
