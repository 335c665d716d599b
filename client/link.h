/* SPDX-License-Identifier: Apache-2.0
 *
 * How fast a link is, up and down, as a rank sees it: from the bytes that its shards acknowledge and that come in, and
 * when. Knows nothing of chunks and codecs. Pure, no allocation. Threads: one.
 *
 * What a clock says, in each direction at most once:
 *   spread  what came behind the first arrivals, over the time from these to the last one. Latency, waiting for other
 *           ranks and the moment at which somebody looks are not in it. Acknowledgements count from the commit on,
 *           when the rank has nothing to do but to look.
 *   whole   bytes over the time since they were sent, less what is known to pass without any. Up: of each message until
 *           as many bytes as were sent up to its end are acknowledged, the best of the clock: waiting behind others and
 *           looking late only add to the time. Down: of all since the commit, waiting for other ranks included.
 *
 * Spread is believed where there is some, as long as it is fresh; up, whole stands in for it. Down, where everything comes
 * at once, the time since the commit is held against what it should be (what it had beside the bytes while spread was
 * there, and the bytes at the rate that is believed): only where it differs clearly the rate is another.
 */
#ifndef BL_CLIENT_LINK_H
#define BL_CLIENT_LINK_H

#include <stdbool.h>
#include <stdint.h>

#define BL_LINK_WINDOW 24   /* samples */
#define BL_LINK_MESSAGES 64 /* that are followed at a time; more are not measured */

typedef struct bl_link_samples {
  double at[BL_LINK_WINDOW];
  uint64_t clock[BL_LINK_WINDOW];
  uint32_t n, next;
} bl_link_samples;

/* Arrivals of one clock. */
typedef struct bl_link_train {
  uint64_t bytes, behind_bytes; /* of them behind the first group */
  uint64_t first_ns, group_ns, last_ns;
} bl_link_train;

/* A message that is not acknowledged yet. */
typedef struct bl_link_message {
  uint64_t end, bytes, sent_ns; /* end: bytes sent in this clock up to its own end */
} bl_link_message;

typedef struct bl_link {
  double up, down;   /* what is believed, bytes per second; 0: nothing yet */
  double latency_ns; /* least round trip; 0: not known */
  bl_link_samples up_spread, up_whole, down_spread, down_whole; /* bytes per second */
  bl_link_samples times, sizes, late; /* down: ns since the commit, bytes, and ns over what it should have been */
  double floor_ns;                    /* of these times: what passes without bytes */
  /* this clock */
  uint64_t sent, acked; /* bytes */
  bl_link_message messages[BL_LINK_MESSAGES];
  uint32_t first_message, n_messages;
  bl_link_train acks, arrivals;
  double best_up;       /* whole */
  uint64_t commit_ns;
  bool committed, lost;
} bl_link;

void bl_link_round_trip(bl_link *l, uint64_t ns);
void bl_link_begin_clock(bl_link *l);
void bl_link_sent(bl_link *l, uint64_t bytes, uint64_t now_ns);
void bl_link_acked(bl_link *l, uint64_t bytes, uint64_t now_ns);
void bl_link_lost(bl_link *l);
void bl_link_committed(bl_link *l, uint64_t now_ns);
void bl_link_arrived(bl_link *l, uint64_t bytes, uint64_t now_ns);
/* Takes what the clock says. codec_ns: time that encoding and decoding of what came down takes; 0: not known. A spread
 * that is close to it says only that the link is faster. */
void bl_link_end_clock(bl_link *l, uint64_t clock, double codec_ns);
/* Brings the rates up to date: small differences are followed slowly, larger ones at once. clock_ns: of a usual clock;
 * times that differ by little of it say nothing. */
void bl_link_settle(bl_link *l, uint64_t clock, double clock_ns);

#endif
