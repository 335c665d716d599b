/* SPDX-License-Identifier: Apache-2.0
 *
 * Codecs as text. Which options a codec takes is a table.
 */
#include "codec/spec.h"

#include "base/num.h"
#include "base/str.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum option_kind { OPT_NONE = 0, OPT_DENSITY, OPT_MAGNITUDE, OPT_LEVELS, OPT_RANK } option_kind;

/* What may stand in the brackets: a number first, where the codec needs one, then words. */
static const struct {
  bl_codec_id id;
  option_kind number;
  bool values, stochastic, shared;
} options[] = {
    {BL_CODEC_INT8, OPT_NONE, false, true, true},
    {BL_CODEC_INT4, OPT_NONE, false, false, true},
    {BL_CODEC_QSGD, OPT_LEVELS, false, false, false},
    {BL_CODEC_TOPK, OPT_DENSITY, true, false, false},
    {BL_CODEC_RANDOMK, OPT_DENSITY, true, false, false},
    {BL_CODEC_THRESHOLD, OPT_MAGNITUDE, true, false, false},
    {BL_CODEC_LOWRANK, OPT_RANK, false, false, false},
};

static const struct {
  const char *what;
  double min, max;
  bool whole;
} numbers[] = {
    [OPT_DENSITY] = {"density", 1e-6, 1, false},
    [OPT_MAGNITUDE] = {"magnitude", 1e-30, 1e30, false},
    [OPT_LEVELS] = {"number of levels", 1, 127, true},
    [OPT_RANK] = {"rank", 1, 32, true},
};

static const char *const values_names[BL_VALUES_COUNT] = {"float32", "float16", "int8", "2bit", "ternary"};

static size_t options_of(bl_codec_id id) {
  size_t i = 0;
  while (i < BL_COUNT_OF(options) && options[i].id != id)
    i++;
  return i;
}

static option_kind number_of(bl_codec_id id) {
  size_t i = options_of(id);
  return i < BL_COUNT_OF(options) ? options[i].number : OPT_NONE;
}

/* The next part of the text up to one of the ends, without spaces around it. Returns what stands behind it. */
static const char *take_word(const char *text, const char *ends, char *out, size_t size) {
  text += strspn(text, " \t");
  size_t n = strcspn(text, ends), kept = n;
  while (kept > 0 && (text[kept - 1] == ' ' || text[kept - 1] == '\t'))
    kept--;
  snprintf(out, size, "%.*s", (int)BL_MIN(kept, size - 1), text);
  return text + n;
}

static bl_status read_number(const char *word, option_kind kind, const char *codec, double *ret, bl_error *err) {
  char *end;
  double v = strtod(word, &end);
  bool percent = kind == OPT_DENSITY && *end == '%';
  v = percent ? v / 100 : v;
  end += percent;
  if (end == word || *end != '\0' || !(v >= numbers[kind].min && v <= numbers[kind].max) ||
      (numbers[kind].whole && v != floor(v)))
    return bl_fail(err, BL_EINVAL, "%s: '%.30s' is no %s; allowed: %g to %g", codec, word, numbers[kind].what,
                   numbers[kind].min, numbers[kind].max);
  *ret = v;
  return BL_OK;
}

static void set_number(bl_codec_spec *s, option_kind kind, double v) {
  s->density = kind == OPT_DENSITY ? (float)v : s->density;
  s->threshold = kind == OPT_MAGNITUDE ? (float)v : s->threshold;
  s->levels = kind == OPT_LEVELS ? (uint16_t)v : s->levels;
  s->rank = kind == OPT_RANK ? (uint16_t)v : s->rank;
}

static double get_number(const bl_codec_spec *s, option_kind kind) {
  return kind == OPT_DENSITY     ? (double)s->density
         : kind == OPT_MAGNITUDE ? (double)s->threshold
         : kind == OPT_LEVELS    ? s->levels
                                 : s->rank;
}

static bl_status read_word(const char *word, bl_codec_spec *s, bl_error *err) {
  size_t o = options_of(s->codec->id);
  bool any = o < BL_COUNT_OF(options);
  if (any && options[o].stochastic && strcmp(word, "stochastic") == 0) {
    s->stochastic = true;
    return BL_OK;
  }
  if (any && options[o].shared && strcmp(word, "shared") == 0) {
    s->shared = true;
    return BL_OK;
  }
  for (int v = 0; any && options[o].values && v < BL_VALUES_COUNT; v++)
    if (strcmp(word, values_names[v]) == 0) {
      s->values = (bl_values)v;
      return BL_OK;
    }
  return bl_fail(err, BL_EINVAL, "%s does not take '%.30s'%s", s->codec->name, word,
                 any && options[o].values ? "; values are float32, float16, int8, 2bit or ternary" : "");
}

static bl_status read_options(const char **text, bl_codec_spec *s, bl_error *err) {
  char word[BL_CODEC_TEXT_MAX];
  option_kind number = number_of(s->codec->id);
  bool needs_number = number != OPT_NONE;
  for (const char *at = *text; *at == '(' || *at == ',';) {
    at = take_word(at + 1, ",()", word, sizeof word);
    double v = 0;
    bl_status st = needs_number ? read_number(word, number, s->codec->name, &v, err) : read_word(word, s, err);
    if (st == BL_OK && needs_number)
      set_number(s, number, v);
    if (st != BL_OK)
      return st;
    needs_number = false;
    *text = at;
    if (*at != ',' && *at != ')')
      return bl_fail(err, BL_EINVAL, "%s: a bracket is not closed", s->codec->name);
  }
  if (**text == ')')
    ++*text;
  *text += strspn(*text, " \t");
  return needs_number ? bl_fail(err, BL_EINVAL, "%s needs a %s, as in %s(%g)", s->codec->name, numbers[number].what,
                                s->codec->name, number == OPT_DENSITY ? 0.01 : number == OPT_MAGNITUDE ? 0.001 : 4.0)
                      : BL_OK;
}

bl_status bl_codec_spec_read(const char *text, bl_codec_spec *ret_spec, bl_error *err) {
  char name[BL_CODEC_TEXT_MAX];
  bl_codec_spec s = {0};
  const char *at = take_word(text, "(+", name, sizeof name);
  s.codec = bl_codec_by_name(name);
  if (s.codec == NULL || s.codec->id == BL_CODEC_ZSTD)
    return bl_fail(err, BL_EINVAL, "there is no codec '%.40s'", name);
  bl_status st = read_options(&at, &s, err);
  if (st != BL_OK)
    return st;
  if (*at == '+') {
    at = take_word(at + 1, "", name, sizeof name);
    if (strcmp(name, "zstd") != 0)
      return bl_fail(err, BL_EINVAL, "behind + stands zstd, not '%.30s'", name);
    s.zstd = true;
  }
  if (*at != '\0')
    return bl_fail(err, BL_EINVAL, "'%.30s' behind %s means nothing", at, s.codec->name);
  *ret_spec = s;
  return BL_OK;
}

/* As few digits as give the same float32. */
static int put_number(char *out, size_t size, double v) {
  int n = 0;
  for (int digits = 1; digits <= 9; digits++) {
    n = snprintf(out, size, "%.*g", digits, v);
    if ((float)strtod(out, NULL) == (float)v)
      break;
  }
  return n;
}

const char *bl_codec_spec_write(const bl_codec_spec *s, char *out) {
  char inner[BL_CODEC_TEXT_MAX] = "", part[32];
  option_kind number = number_of(s->codec->id);
  size_t o = options_of(s->codec->id);
  const char *words[4] = {NULL};
  size_t n = 0, used = 0;
  if (number != OPT_NONE) {
    put_number(part, sizeof part, get_number(s, number));
    words[n++] = part;
  }
  if (o < BL_COUNT_OF(options) && options[o].values && s->values != BL_VALUES_FLOAT32)
    words[n++] = values_names[s->values];
  if (s->stochastic)
    words[n++] = "stochastic";
  if (s->shared)
    words[n++] = "shared";
  for (size_t i = 0; i < n; i++)
    used += (size_t)snprintf(inner + used, sizeof inner - used, "%s%s", i > 0 ? ", " : "(", words[i]);
  snprintf(out, BL_CODEC_TEXT_MAX, "%.12s%.40s%s%s", s->codec->name, inner, n > 0 ? ")" : "", s->zstd ? "+zstd" : "");
  return out;
}

bool bl_codec_spec_equal(const bl_codec_spec *a, const bl_codec_spec *b) {
  return a->codec == b->codec && a->density == b->density && a->threshold == b->threshold && a->values == b->values &&
         a->levels == b->levels && a->rank == b->rank && a->stochastic == b->stochastic && a->shared == b->shared &&
         a->zstd == b->zstd;
}

bool bl_codec_spec_is_exact(const bl_codec_spec *spec) { return spec->codec->exact; }
