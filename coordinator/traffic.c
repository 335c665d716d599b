/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/traffic.h"

#include "base/num.h"

#include <stdio.h>
#include <string.h>

void co_traffic_keep(co_job *job, const Ballast__Control__TaskStatus *t) {
  if (job == NULL || t->n_traffic == 0 || t->rank >= job->n_ranks || t->incarnation != job->ranks[t->rank].incarnation)
    return;
  ProtobufCMessage *copy = bl_control_copy(&t->base);
  if (copy == NULL)
    return; /* the next one may fit */
  co_rank *rank = &job->ranks[t->rank];
  bl_control_free(rank->traffic != NULL ? &rank->traffic->base : NULL);
  rank->traffic = (Ballast__Control__TaskStatus *)copy;
}

static bool has_codec(const char *list, const char *codec) {
  size_t n = strlen(codec);
  for (const char *at = list; at != NULL && *at != '\0'; at = strchr(at, ';'), at = at != NULL ? at + 2 : NULL)
    if (strncmp(at, codec, n) == 0 && (at[n] == '\0' || at[n] == ';'))
      return true;
  return false;
}

/* Adds a codec to a list of them, once; what does not fit is left out. */
static void name_codec(char *list, const char *codec) {
  size_t used = strlen(list), n = strlen(codec);
  if (n == 0 || memchr(codec, ';', n) != NULL || has_codec(list, codec) || used + n + 3 > CO_TRAFFIC_CODECS_MAX)
    return;
  snprintf(list + used, CO_TRAFFIC_CODECS_MAX - used, "%s%s", used > 0 ? "; " : "", codec);
}

static void add(co_traffic *to, const Ballast__Control__TensorTraffic *t) {
  to->n_ranks++;
  to->n_tensors = BL_MAX(to->n_tensors, t->n_tensors);
  name_codec(to->push, t->codec_push);
  if (to->pull[0] == '\0') /* all ranks pull the same frames, and rank 0 chooses them */
    name_codec(to->pull, t->codec_pull);
  if (to->reason[0] == '\0')
    to->reason = t->reason;
  to->bytes_pushed += t->bytes_pushed;
  to->bytes_pulled += t->bytes_pulled;
  to->bytes_pushed_dense += t->bytes_pushed_dense;
  to->bytes_pulled_dense += t->bytes_pulled_dense;
  to->residuals_lost += t->residuals_lost;
  to->residual_squared += t->residual_norm * t->residual_norm;
  to->gradient_squared += t->gradient_norm * t->gradient_norm;
  to->lost_squared += t->lost_squared;
}

/* Ranks name the same tensors in the same order, if they are of the same program. NULL: there is no room for more. */
static co_traffic *find(co_traffic *out, size_t *n, size_t guess, const char *name) {
  if (guess < *n && strcmp(out[guess].name, name) == 0)
    return &out[guess];
  for (size_t i = 0; i < *n; i++)
    if (strcmp(out[i].name, name) == 0)
      return &out[i];
  if (*n == BL_CONTROL_TRAFFIC_MAX)
    return NULL;
  out[*n] = (co_traffic){.name = name, .reason = ""};
  return &out[(*n)++];
}

size_t co_traffic_sum(const co_job *job, co_traffic out[BL_CONTROL_TRAFFIC_MAX]) {
  size_t n = 0;
  for (uint32_t r = 0; r < job->n_ranks; r++) {
    const Ballast__Control__TaskStatus *t = job->ranks[r].traffic;
    if (t == NULL || t->incarnation != job->ranks[r].incarnation)
      continue;
    for (size_t i = 0; i < t->n_traffic; i++) {
      co_traffic *to = find(out, &n, i, t->traffic[i]->name);
      if (to != NULL)
        add(to, t->traffic[i]);
    }
  }
  return n;
}
