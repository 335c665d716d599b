/* SPDX-License-Identifier: Apache-2.0 */
#include "client/clock_model.h"

#include "base/num.h"
#include "codec/codec.h"

/* Pushes of all ranks meet on the shards: a tensor's way up takes as long as the slower of wire and addition. */
static double up_ns(const bl_clock_conditions *c, const bl_codec_cost *push, double n_elems) {
  double wire = push->bytes * c->up_ns_per_byte, sum = push->decode_ns * c->world / c->n_shards;
  return BL_MAX(wire, sum) * n_elems;
}

bl_clock_time bl_clock_model(const bl_clock_conditions *c, const bl_clock_tensor *tensors, uint32_t n) {
  double all = 0, done = 0, encode = 0, sent = 0, down = 0, decode = 0, serve = 0;
  for (uint32_t i = 0; i < n; i++)
    all += (double)tensors[i].n_elems;
  for (uint32_t i = n; i-- > 0 && all > 0;) {
    const bl_clock_tensor *t = &tensors[i];
    double elems = (double)t->n_elems, last = BL_MIN(elems, BL_CODEC_ELEMS_MAX);
    double begin = c->compute_ns - c->overlap_ns * (1 - done / all) + encode;
    done += elems;
    encode += t->push->encode_ns * elems;
    double ready = c->compute_ns - c->overlap_ns * (1 - done / all) + encode;
    /* Chunks go as they are filled: not before the first is there, and the last one goes after all is. */
    double flow = BL_MAX(sent, begin) + up_ns(c, t->push, elems), behind = ready + up_ns(c, t->push, last);
    sent = BL_MAX(flow, behind);
    down += t->pull->bytes * elems * c->down_ns_per_byte;
    decode += t->pull->decode_ns * elems;
    serve += t->pull->encode_ns * elems / c->n_shards;
  }
  double own = c->compute_ns + encode, pull = c->pull_ns >= 0 ? c->pull_ns : BL_MAX(down, BL_MAX(decode, serve));
  bl_clock_time time = {.push_ns = BL_MAX(sent - own, 0), .pull_ns = pull};
  time.total_ns = own + time.push_ns + c->latency_ns + pull;
  return time;
}
