/* SPDX-License-Identifier: Apache-2.0
 *
 * Two tables: words of fields that version 1 had already, and here what it knew; rows of registries and enums that
 * came later. Fields that came later say so themselves (bl_field.since).
 */
#include "job/protocol.h"

#include "base/num.h"
#include "base/str.h"
#include "codec/spec.h"
#include "conf/schema.h"
#include "job/spec_parts.h"

#include <stdio.h>
#include <string.h>

/* Whatever stands in such a field and not in this list came with version 2. A word of version 3 needs a row of its
 * own below. */
static const struct {
  const char *field;
  const char *words[8];
} first_words[] = {
    {"sync", {"bsp"}},
    {"optimizer", {"sgd", "momentum", "adam"}},
    {"schedule", {"constant", "step", "exponential", "linear", "cosine"}},
    {"compression", {"float32", "float16"}},
};

bool bl_job_word_is_old(const char *field, const char *word) {
  for (size_t i = 0; i < BL_COUNT_OF(first_words); i++)
    for (size_t k = 0; strcmp(first_words[i].field, field) == 0 && first_words[i].words[k] != NULL; k++)
      if (strcmp(first_words[i].words[k], word) == 0)
        return true;
  return false;
}

/* Each row: whether the spec uses what came with `since`. text: what it is, where more than the field can be said. */
typedef bool uses_fn(const bl_job_spec *s, char *text, size_t size);

static bool new_word(const char *field, const char *word, char *text, size_t size) {
  if (word == NULL || bl_job_word_is_old(field, word))
    return false;
  snprintf(text, size, "%s: %s", field, word);
  return true;
}

static bool sync(const bl_job_spec *s, char *text, size_t size) { return new_word("sync", s->sync, text, size); }

static bool optimizer(const bl_job_spec *s, char *text, size_t size) {
  return new_word("optimizer", s->optimizer, text, size);
}

static bool schedule(const bl_job_spec *s, char *text, size_t size) {
  return new_word("schedule", s->schedule, text, size);
}

static bool compression(const bl_job_spec *s, char *text, size_t size) {
  char push[BL_CODEC_TEXT_MAX], pull[BL_CODEC_TEXT_MAX];
  const bl_compression_spec *c = &s->compression;
  if (!bl_job_compression_is_plain(c) && c->preset == NULL)
    bl_str_copy(text, size, "compression");
  return new_word("compression", c->preset, text, size) ||
         new_word("compression", bl_codec_spec_write(&c->push, push), text, size) ||
         new_word("compression", bl_codec_spec_write(&c->pull, pull), text, size) || !bl_job_compression_is_plain(c);
}

static bool source(const bl_job_spec *s, char *text, size_t size) {
  bl_str_copy(text, size, "data.train: its kind of file");
  return s->data.train.kind > BL_SOURCE_LIBSVM || s->data.test.kind > BL_SOURCE_LIBSVM;
}

static bool hash(const bl_job_spec *s, char *text, size_t size) {
  bl_str_copy(text, size, "data.train.csv.hash");
  return s->data.train.hash_bits > 0 || s->data.test.hash_bits > 0;
}

static bool layer(const bl_job_spec *s, char *text, size_t size) {
  for (size_t i = 0; i < s->model.n_layers; i++)
    if (s->model.layers[i].kind > BL_LAYER_FLATTEN || s->model.layers[i].activation > BL_ACT_SOFTMAX) {
      snprintf(text, size, "model.layers: %.40s", s->model.layers[i].name);
      return true;
    }
  return false;
}

static bool loss(const bl_job_spec *s, char *text, size_t size) {
  bl_str_copy(text, size, "loss");
  return s->loss > BL_LOSS_SQUARED;
}

static const struct {
  uint32_t since;
  uses_fn *uses;
} rows[] = {
    {2, sync}, {2, optimizer}, {2, schedule}, {2, compression}, {2, source}, {2, hash}, {2, layer}, {2, loss},
};

uint32_t bl_job_spec_protocol(const bl_job_spec *spec, char *what, size_t size) {
  size_t n;
  unsigned needs = 1;
  char text[96];
  const bl_field *fields = bl_job_spec_fields(&n), *newest = bl_schema_newest(fields, n, spec, &needs);
  snprintf(what, size, "%s", newest != NULL ? newest->name : "");
  for (size_t i = 0; i < BL_COUNT_OF(rows); i++)
    if (rows[i].since > needs && rows[i].uses(spec, text, sizeof text)) {
      needs = rows[i].since;
      bl_str_copy(what, size, text);
    }
  return needs;
}
