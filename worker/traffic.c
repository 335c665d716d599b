/* SPDX-License-Identifier: Apache-2.0 */
#include "traffic.h"

#include "base/num.h"
#include "base/str.h"

#include <math.h>
#include <string.h>

#define NAMED_MAX (BL_CONTROL_TRAFFIC_MAX - 1u)

/* The largest tensors, by number. Of equally large ones the first. */
static uint32_t choose(const bl_tensor_table *table, uint32_t out[NAMED_MAX]) {
  uint32_t n = 0;
  for (uint32_t t = 0; t < table->n_tensors; t++) {
    uint32_t least = 0;
    for (uint32_t i = 1; i < n; i++)
      if (table->tensors[out[i]].n_elems <= table->tensors[out[least]].n_elems)
        least = i;
    if (n < NAMED_MAX) {
      out[n++] = t;
    } else if (table->tensors[t].n_elems > table->tensors[out[least]].n_elems) {
      memmove(out + least, out + least + 1, (n - least - 1) * sizeof *out); /* stays in order */
      out[n - 1] = t;
    }
  }
  return n;
}

static double as_norm(double v) { return isfinite(v) && v > 0 ? v : 0; }

static void fill(Ballast__Control__TensorTraffic *to, const bl_tensor_stats *s) {
  to->bytes_pushed += s->bytes_pushed;
  to->bytes_pulled += s->bytes_pulled;
  to->bytes_pushed_dense += s->bytes_pushed_dense;
  to->bytes_pulled_dense += s->bytes_pulled_dense;
  to->residual_norm = as_norm(hypot(to->residual_norm, s->residual_norm));
  to->gradient_norm = as_norm(hypot(to->gradient_norm, s->gradient_norm));
  to->residuals_lost += s->residuals_lost;
  to->lost_squared = as_norm(to->lost_squared + s->lost_squared);
}

static Ballast__Control__TensorTraffic *add(wk_traffic *w, Ballast__Control__TaskStatus *m) {
  size_t i = m->n_traffic++;
  w->list[i] = &w->at[i];
  ballast__control__tensor_traffic__init(&w->at[i]);
  w->texts[i].push[0] = w->texts[i].pull[0] = w->texts[i].reason[0] = '\0';
  w->at[i].codec_push = w->texts[i].push;
  w->at[i].codec_pull = w->texts[i].pull;
  w->at[i].reason = w->texts[i].reason;
  return &w->at[i];
}

/* A codec that the others do not all have is none of theirs. */
static void agree(char *text, const bl_codec_spec *spec, bool first) {
  char other[BL_CODEC_TEXT_MAX];
  bl_codec_spec_write(spec, first ? text : other);
  if (!first && strcmp(text, other) != 0)
    text[0] = '\0';
}

void wk_traffic_take(wk_traffic *w, const bl_tensor_table *table, const bl_session *s, Ballast__Control__TaskStatus *m) {
  uint32_t named[NAMED_MAX] = {0}, n = choose(table, named), next = 0;
  Ballast__Control__TensorTraffic others = BALLAST__CONTROL__TENSOR_TRAFFIC__INIT;
  char push[BL_CODEC_TEXT_MAX] = "", pull[BL_CODEC_TEXT_MAX] = "";
  m->traffic = w->list;
  m->n_traffic = 0;
  for (uint32_t t = 0; t < table->n_tensors; t++) {
    bl_tensor_stats stats = bl_session_get_tensor_stats(s, t);
    if (next < n && named[next] == t) {
      Ballast__Control__TensorTraffic *to = add(w, m);
      fill(to, &stats);
      to->name = bl_control_text(table->tensors[t].name);
      agree(w->texts[next].push, stats.push, true);
      agree(w->texts[next].pull, stats.pull, true);
      (void)bl_str_copy(w->texts[next].reason, sizeof w->texts[next].reason, stats.reason);
      next++;
      continue;
    }
    fill(&others, &stats);
    agree(push, stats.push, others.n_tensors == 0);
    agree(pull, stats.pull, others.n_tensors == 0);
    others.n_tensors++;
  }
  if (others.n_tensors == 0)
    return;
  Ballast__Control__TensorTraffic *to = add(w, m);
  others.codec_push = strcpy(to->codec_push, push);
  others.codec_pull = strcpy(to->codec_pull, pull);
  others.reason = to->reason;
  *to = others;
}
