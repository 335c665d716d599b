/* SPDX-License-Identifier: Apache-2.0
 *
 * What a task says of how its tensors travel: the largest ones by themselves, in the order of the model, and the others
 * together, so that a status stays small whatever the model. Which they are follows from the table alone: all ranks of a
 * job name the same.
 */
#ifndef WORKER_TRAFFIC_H
#define WORKER_TRAFFIC_H

#include "client/session.h"
#include "codec/spec.h"
#include "wire/control.h"

typedef struct wk_traffic {
  Ballast__Control__TensorTraffic at[BL_CONTROL_TRAFFIC_MAX];
  Ballast__Control__TensorTraffic *list[BL_CONTROL_TRAFFIC_MAX];
  struct {
    char push[BL_CODEC_TEXT_MAX], pull[BL_CODEC_TEXT_MAX], reason[BL_CONTROL_REASON_BYTES_MAX + 1];
  } texts[BL_CONTROL_TRAFFIC_MAX];
} wk_traffic;

/* Fills w and makes m->traffic point into it. Names are the table's: both are borrowed as long as m is used. */
void wk_traffic_take(wk_traffic *w, const bl_tensor_table *table, const bl_session *s, Ballast__Control__TaskStatus *m);

#endif
