/* SPDX-License-Identifier: Apache-2.0
 *
 * Per-tensor policy.
 */
#include "job/policy.h"

#include "base/num.h"
#include "base/str.h"
#include "codec/spec.h"

#include <math.h>

#define WARMUP_HALVINGS 2 /* of the density from one epoch to the next: a quarter */

bool bl_codec_takes_rows(const bl_codec_spec *s) {
  bl_codec_id id = s->codec->id;
  bool plain = !s->zstd && !s->stochastic && !s->shared; /* their frames have no key, and scales of their own */
  return plain && (id == BL_CODEC_FLOAT32 || id == BL_CODEC_FLOAT16 || id == BL_CODEC_BFLOAT16 || id == BL_CODEC_INT8);
}

bool bl_codec_has_density(const bl_codec_spec *s) { return s->density > 0; }

float bl_density_at(float density, uint32_t warmup_epochs, uint64_t epoch) {
  if (epoch >= warmup_epochs)
    return density;
  uint64_t halvings = WARMUP_HALVINGS * (BL_MIN(epoch, (uint64_t)BL_JOB_WARMUP_EPOCHS_MAX) + 1);
  return fmaxf(density, ldexpf(1, -(int)halvings));
}

bl_codec_spec bl_codec_spec_at(const bl_codec_spec *spec, uint32_t warmup_epochs, uint64_t epoch) {
  bl_codec_spec s = *spec;
  if (bl_codec_has_density(spec))
    s.density = bl_density_at(spec->density, warmup_epochs, epoch);
  return s;
}

bl_tensor_policy bl_tensor_policy_make(const bl_codec_spec *push, const bl_codec_spec *pull, bool table, bool feedback,
                                       double momentum, uint32_t warmup_epochs) {
  bool dense = bl_codec_has_density(push) || bl_codec_has_density(pull);
  return (bl_tensor_policy){.push = *push,
                            .pull = *pull,
                            .feedback = feedback && !table && !bl_codec_spec_is_exact(push),
                            .momentum = table ? 0 : (float)momentum,
                            .warmup_epochs = dense ? warmup_epochs : 0};
}

static bool holds(const bl_compression_rule *rule, const bl_tensor *t) {
  return (rule->match == NULL || bl_str_glob(rule->match, t->name)) && t->n_elems >= rule->elems_min &&
         t->n_elems <= rule->elems_max && (rule->kind == BL_KIND_ANY || (rule->kind == BL_KIND_BIAS) == t->no_decay);
}

const bl_compression_rule *bl_job_compression_rule_of(const bl_job_spec *spec, const bl_tensor *tensor) {
  for (size_t i = 0; i < spec->compression.n_rules; i++)
    if (holds(&spec->compression.rules[i], tensor))
      return &spec->compression.rules[i];
  return NULL;
}

/* Of one direction, without rules. */
static const bl_codec_spec *codec_of(const bl_compression_spec *c, const bl_codec_spec *of_job, const bl_tensor *t) {
  if (t->table)
    return bl_codec_takes_rows(of_job) ? of_job : &bl_codec_spec_exact;
  bool small = c->exact_below > 0 && (t->no_decay || t->n_elems < c->exact_below);
  return small && !bl_codec_spec_is_exact(of_job) ? &c->small : of_job;
}

bl_tensor_policy bl_job_policy_of(const bl_job_spec *spec, const bl_tensor *tensor) {
  const bl_compression_spec *c = &spec->compression;
  const bl_compression_rule *rule = bl_job_compression_rule_of(spec, tensor);
  const bl_codec_spec *push = codec_of(c, &c->push, tensor), *pull = codec_of(c, &c->pull, tensor);
  push = rule != NULL && rule->push.codec != NULL ? &rule->push : push;
  pull = rule != NULL && rule->pull.codec != NULL ? &rule->pull : pull;
  return bl_tensor_policy_make(push, pull, tensor->table, c->feedback, c->momentum_correction, c->warmup_epochs);
}
