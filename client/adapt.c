/* SPDX-License-Identifier: Apache-2.0
 *
 * Between a session and its engine.
 */
#include "client/adapt.h"

#include "base/alloc.h"
#include "base/log.h"
#include "base/num.h"
#include "codec/spec.h"
#include "job/choices.h"

#include <inttypes.h>
#include <string.h>

#define LINES_MAX 32 /* of the log, for the decisions of one clock */

struct bl_adapt {
  bl_adapt_config config;
  bl_auto *engine;
  bl_codec_spec *told; /* [n_tensors]: pulls, as the shards were told last; codec NULL: not yet */
  bl_frame *choices;   /* of this clock; NULL: none */
  bool asked;          /* for them, in this clock */
};

static bl_status new_engine(bl_adapt *a, bl_error *err) {
  const bl_tensor_table *t = a->config.table;
  bl_auto_tensor *tensors = bl_calloc(t->n_tensors, sizeof *tensors);
  if (tensors == NULL)
    return bl_fail(err, BL_ENOMEM, "no memory for the codecs of %u tensors", t->n_tensors);
  for (uint32_t i = 0; i < t->n_tensors; i++) {
    const bl_tensor *x = &t->tensors[i];
    bool ours = !x->table && !x->group.frozen;
    if (a->config.tensors != NULL) {
      tensors[i] = a->config.tensors[i];
      continue;
    }
    tensors[i] = (bl_auto_tensor){
        .n_elems = x->n_elems, .chosen = {ours, ours}, .spec = {x->policy.push, x->policy.pull}};
  }
  bl_auto_config config = {.tensors = tensors,
                           .n_tensors = t->n_tensors,
                           .world = a->config.world,
                           .n_shards = a->config.n_shards,
                           .decides_pull = a->config.rank == 0,
                           .sparse = a->config.sparse};
  bl_status st = bl_auto_new(&config, &a->engine, err);
  bl_free(tensors);
  return st;
}

bl_status bl_adapt_new(const bl_adapt_config *config, bl_adapt **ret, bl_error *err) {
  bl_adapt *a = bl_calloc(1, sizeof *a);
  if (a == NULL)
    return bl_fail(err, BL_ENOMEM, "no memory for an engine of codecs");
  a->config = *config;
  a->told = bl_calloc(config->table->n_tensors, sizeof *a->told);
  bl_status st = a->told != NULL ? new_engine(a, err) : bl_fail(err, BL_ENOMEM, "no memory for codecs");
  a->config.tensors = NULL; /* borrowed for the call */
  if (st != BL_OK) {
    bl_adapt_free(a);
    return st;
  }
  if (config->now_ns != NULL)
    (void)!bl_auto_calibrate(a->engine, config->now_ns, config->now_arg); /* without it, what runs is measured */
  *ret = a;
  return BL_OK;
}

void bl_adapt_free(bl_adapt *a) {
  if (a == NULL)
    return;
  bl_frame_unref(a->choices);
  bl_auto_free(a->engine);
  bl_free(a->told);
  bl_free(a);
}

size_t bl_adapt_frame_bytes_max(const bl_adapt *a, uint32_t n) {
  size_t bytes = 0;
  for (size_t i = 0; a != NULL && bl_auto_ladder[BL_AUTO_PUSH][i] != NULL; i++) {
    bl_codec_spec spec;
    if (bl_codec_spec_read(bl_auto_ladder[BL_AUTO_PUSH][i], &spec, NULL) == BL_OK)
      bytes = BL_MAX(bytes, bl_codec_bound_bytes(&spec, n));
  }
  return bytes;
}

const bl_codec_spec *bl_adapt_push_spec(const bl_adapt *a, uint32_t tensor) {
  return a != NULL ? bl_auto_push_spec(a->engine, tensor) : NULL;
}

const bl_codec_spec *bl_adapt_pull_spec(const bl_adapt *a, uint32_t tensor) {
  return a != NULL && a->config.rank == 0 ? bl_auto_pull_spec(a->engine, tensor) : NULL;
}

const char *bl_adapt_reason(const bl_adapt *a, uint32_t tensor) {
  if (a == NULL)
    return "";
  const char *push = bl_auto_reason(a->engine, tensor, BL_AUTO_PUSH);
  return push[0] != '\0' ? push : bl_auto_reason(a->engine, tensor, BL_AUTO_PULL);
}

uint64_t bl_adapt_now(const bl_adapt *a) {
  return a != NULL && a->config.now_ns != NULL ? a->config.now_ns(a->config.now_arg) : 0;
}

static uint64_t since(const bl_adapt *a, uint64_t since_ns) { return since_ns > 0 ? bl_adapt_now(a) - since_ns : 0; }

void bl_adapt_encoded(bl_adapt *a, const bl_codec_spec *spec, uint64_t n_elems, uint64_t bytes, uint64_t since_ns) {
  if (a != NULL)
    bl_auto_encoded(a->engine, spec, n_elems, bytes, since(a, since_ns));
}

void bl_adapt_decoded(bl_adapt *a, uint32_t tensor, uint64_t n_elems, uint64_t since_ns) {
  if (a != NULL && bl_auto_chooses(a->engine, tensor, BL_AUTO_PULL)) /* else it is not known here what came */
    bl_auto_decoded(a->engine, bl_auto_pull_spec(a->engine, tensor), n_elems, since(a, since_ns));
}

void bl_adapt_begin_clock(bl_adapt *a, uint64_t clock, uint64_t now_ns) {
  if (a != NULL)
    bl_auto_begin_clock(a->engine, clock, now_ns);
}

void bl_adapt_sent(bl_adapt *a, uint64_t bytes, uint64_t now_ns) {
  if (a != NULL)
    bl_auto_push_sent(a->engine, bytes, now_ns);
}

void bl_adapt_acked(bl_adapt *a, uint64_t bytes, uint64_t now_ns) {
  if (a != NULL)
    bl_auto_push_acked(a->engine, bytes, now_ns);
}

void bl_adapt_lost(bl_adapt *a) {
  if (a != NULL)
    bl_auto_lost(a->engine);
}

void bl_adapt_committed(bl_adapt *a, const float *const *grads, uint64_t key, uint64_t now_ns) {
  bl_auto_trial trial;
  if (a == NULL)
    return;
  bl_auto_committed(a->engine, now_ns);
  while (bl_auto_next_trial(a->engine, &trial))
    if (grads[trial.tensor] != NULL)
      bl_auto_try(a->engine, &trial, key, grads[trial.tensor] + trial.first);
}

void bl_adapt_arrived(bl_adapt *a, uint64_t bytes, uint64_t now_ns) {
  if (a != NULL)
    bl_auto_pull_arrived(a->engine, bytes, now_ns);
}

static void log_decision(const bl_adapt *a, const bl_auto_decision *d) {
  char before[BL_CODEC_TEXT_MAX], now[BL_CODEC_TEXT_MAX];
  bl_log_info("codec_chosen", "clock=%" PRIu64 " tensor=%s direction=%s before=%s codec=%s reason=%s", d->clock,
              BL_LOGQ(a->config.table->tensors[d->tensor].name), d->direction == BL_AUTO_PUSH ? "push" : "pull",
              BL_LOGQ(bl_codec_spec_write(d->before, before)), BL_LOGQ(bl_codec_spec_write(d->spec, now)),
              BL_LOGQ(d->reason));
}

void bl_adapt_end_clock(bl_adapt *a, uint64_t now_ns) {
  if (a == NULL)
    return;
  bl_auto_end_clock(a->engine, now_ns);
  uint32_t n = 0;
  for (const bl_auto_decision *d; (d = bl_auto_next_decision(a->engine)) != NULL; n++)
    if (n < LINES_MAX)
      log_decision(a, d);
  if (n > LINES_MAX)
    bl_log_info("codecs_chosen", "more=%u", n - LINES_MAX);
  bl_frame_unref(a->choices);
  a->choices = NULL;
  a->asked = false;
}

/* What does not fit goes with the next clock. */
static void make_choices(bl_adapt *a) {
  const bl_tensor_table *t = a->config.table;
  char text[BL_CHOICES_BYTES_MAX];
  size_t used = 0;
  bl_codec_spec *told = a->told;
  for (uint32_t i = 0; i < t->n_tensors; i++) {
    const bl_codec_spec *now = bl_auto_pull_spec(a->engine, i);
    if (!bl_auto_chooses(a->engine, i, BL_AUTO_PULL) || (told[i].codec != NULL && bl_codec_spec_equal(&told[i], now)))
      continue;
    if (!bl_choices_put(text, sizeof text, &used, i, now))
      break;
    told[i] = *now;
  }
  if (used > 0 && (a->choices = bl_frame_new(used)) != NULL)
    memcpy(a->choices->data, text, used);
  else if (used > 0)
    memset(told, 0, t->n_tensors * sizeof *told); /* once more, all of it */
}

bl_frame *bl_adapt_choices(bl_adapt *a) {
  if (a == NULL || a->config.rank != 0)
    return NULL;
  if (!a->asked)
    make_choices(a);
  a->asked = true;
  return a->choices;
}
