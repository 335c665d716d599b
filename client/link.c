/* SPDX-License-Identifier: Apache-2.0 */
#include "client/link.h"

#include "base/clock.h"
#include "base/num.h"

#include <math.h>

#define GROUP_NS (200 * UINT64_C(1000)) /* arrivals this close were waiting together */
#define FRESH_CLOCKS 40                 /* a sample is believed for so long */
#define SAMPLES_MIN 3
#define NEWEST 6                        /* samples that outvote the window... */
#define NEWEST_FACTOR 1.5               /* ...when they differ by this factor */
#define JUMP_FACTOR 1.25                /* less is noise: followed by SMOOTH of it */
#define SMOOTH 0.2
#define WHOLE_QUANTILE 0.8              /* they are lower bounds */
#define WAITS_QUANTILE 0.9              /* of the first rate down: clocks in which this rank was the last */
#define FLOOR_SHARE_MAX 0.9             /* of a time */
#define FLOOR_WEIGHT 0.1
#define LATE_MAX 1.5                    /* a time that says that the link is another */
#define LATE_MIN 0.7
#define LATE_SAMPLES 12
#define LATE_SHARE 0.15                 /* of a clock */
#define LIMITED 0.6                     /* of what the codecs can do: they are what takes the time... */
#define FASTER 4                        /* ...and the link is taken to be so much faster: a less lossy codec will show */

static void samples_put(bl_link_samples *s, double v, uint64_t clock) {
  s->at[s->next] = v;
  s->clock[s->next] = clock;
  s->next = (s->next + 1) % BL_LINK_WINDOW;
  s->n = BL_MIN(s->n + 1, BL_LINK_WINDOW);
}

/* Quantile of the newest n fresh samples; 0: fewer than SAMPLES_MIN. */
static double samples_quantile(const bl_link_samples *s, uint32_t n_newest, double q, uint64_t clock) {
  double sorted[BL_LINK_WINDOW];
  uint32_t n = 0;
  for (uint32_t i = 1; i <= BL_MIN(s->n, n_newest); i++) {
    uint32_t at = (s->next + BL_LINK_WINDOW - i) % BL_LINK_WINDOW;
    if (s->clock[at] + FRESH_CLOCKS < clock)
      break;
    uint32_t k = n++;
    for (; k > 0 && sorted[k - 1] > s->at[at]; k--)
      sorted[k] = sorted[k - 1];
    sorted[k] = s->at[at];
  }
  return n >= SAMPLES_MIN ? sorted[(uint32_t)(q * (n - 1) + 0.5)] : 0;
}

static bool differ(double a, double b, double factor) { return a > b * factor || b > a * factor; }

/* Of the window, or of the newest where they say something else. */
static double samples_rate(const bl_link_samples *s, double q, uint64_t clock) {
  double all = samples_quantile(s, BL_LINK_WINDOW, q, clock), newest = samples_quantile(s, NEWEST, q, clock);
  return newest > 0 && differ(all, newest, NEWEST_FACTOR) ? newest : all;
}

/* bytes per second over a time without the part that passes without bytes. */
static double rate_of(double bytes, double ns, double floor_ns) {
  return ns > 0 ? bytes * 1e9 / (ns - BL_MIN(floor_ns, ns * FLOOR_SHARE_MAX)) : 0;
}

/* ---- a clock ---- */

void bl_link_round_trip(bl_link *l, uint64_t ns) {
  if (ns > 0 && (l->latency_ns == 0 || (double)ns < l->latency_ns))
    l->latency_ns = (double)ns;
}

void bl_link_begin_clock(bl_link *l) {
  l->acks = l->arrivals = (bl_link_train){0};
  l->committed = l->lost = false;
  l->sent = l->acked = 0;
  l->n_messages = 0;
  l->best_up = 0;
}

void bl_link_sent(bl_link *l, uint64_t bytes, uint64_t now_ns) {
  l->sent += bytes;
  if (l->n_messages < BL_LINK_MESSAGES)
    l->messages[(l->first_message + l->n_messages++) % BL_LINK_MESSAGES] = (bl_link_message){l->sent, bytes, now_ns};
}

static void train_take(bl_link_train *t, uint64_t bytes, uint64_t now_ns) {
  if (t->bytes == 0)
    t->first_ns = now_ns;
  if (now_ns - t->first_ns <= GROUP_NS)
    t->group_ns = now_ns;
  else
    t->behind_bytes += bytes;
  t->bytes += bytes;
  t->last_ns = now_ns;
}

void bl_link_acked(bl_link *l, uint64_t bytes, uint64_t now_ns) {
  l->acked += bytes;
  if (l->committed)
    train_take(&l->acks, bytes, now_ns);
  while (l->n_messages > 0 && l->messages[l->first_message].end <= l->acked) {
    const bl_link_message *m = &l->messages[l->first_message];
    if (now_ns > m->sent_ns)
      l->best_up = BL_MAX(l->best_up, rate_of((double)m->bytes, (double)(now_ns - m->sent_ns), l->latency_ns));
    l->first_message = (l->first_message + 1) % BL_LINK_MESSAGES;
    l->n_messages--;
  }
}

void bl_link_lost(bl_link *l) { l->lost = true; }

void bl_link_committed(bl_link *l, uint64_t now_ns) {
  l->committed = true;
  l->commit_ns = now_ns;
}

void bl_link_arrived(bl_link *l, uint64_t bytes, uint64_t now_ns) { train_take(&l->arrivals, bytes, now_ns); }

/* 0: none. */
static double spread_of(const bl_link_train *t) {
  if (t->behind_bytes == 0 || t->last_ns - t->group_ns < GROUP_NS)
    return 0;
  return (double)t->behind_bytes * 1e9 / (double)(t->last_ns - t->group_ns);
}

/* What is not measured but followed from what was: not faster than what is known of the way up. */
static double guess(const bl_link *l, double known, double rate) { return BL_MIN(rate, BL_MAX(known, l->up)); }

static void take_down(bl_link *l, uint64_t clock, double codec_ns) {
  double bytes = (double)l->arrivals.bytes, spread = spread_of(&l->arrivals);
  if (bytes == 0 || l->arrivals.last_ns <= l->commit_ns)
    return;
  double ns = (double)(l->arrivals.last_ns - l->commit_ns);
  if (spread > 0)
    samples_put(&l->down_spread, spread * codec_ns > LIMITED * bytes * 1e9 ? guess(l, spread, spread * FASTER) : spread, clock);
  samples_put(&l->down_whole, rate_of(bytes, ns, l->latency_ns + codec_ns), clock);
  samples_put(&l->times, ns, clock);
  samples_put(&l->sizes, bytes, clock);
  if (l->down <= 0)
    return;
  double bytes_ns = bytes * 1e9 / l->down, rest = BL_MAX(ns - bytes_ns, 0);
  if (spread > 0)
    l->floor_ns = l->floor_ns == 0 ? rest : l->floor_ns + FLOOR_WEIGHT * (rest - l->floor_ns);
  samples_put(&l->late, ns / (l->floor_ns + bytes_ns), clock);
}

void bl_link_end_clock(bl_link *l, uint64_t clock, double codec_ns) {
  if (l->lost || !l->committed)
    return;
  double spread = spread_of(&l->acks);
  if (spread > 0)
    samples_put(&l->up_spread, spread, clock);
  if (l->best_up > 0)
    samples_put(&l->up_whole, l->best_up, clock);
  take_down(l, clock, codec_ns);
}

/* ---- what follows ---- */

static void follow(double *believed, double rate) {
  if (rate > 0)
    *believed = *believed == 0 || differ(*believed, rate, JUMP_FACTOR) ? rate : *believed * pow(rate / *believed, SMOOTH);
}

static void settle_down(bl_link *l, uint64_t clock, double clock_ns) {
  double ns = samples_quantile(&l->times, LATE_SAMPLES, 0.5, clock);
  double bytes = samples_quantile(&l->sizes, LATE_SAMPLES, 0.5, clock);
  double spread = samples_rate(&l->down_spread, 0.5, clock);
  if (spread > 0)
    follow(&l->down, spread);
  else if (l->down == 0)
    l->down = samples_quantile(&l->down_whole, BL_LINK_WINDOW, WAITS_QUANTILE, clock);
  if (l->floor_ns == 0 && l->down > 0)
    l->floor_ns = BL_MAX(ns - bytes * 1e9 / l->down, 0);
  if (spread > 0)
    return;
  /* Everything comes at once. */
  double late = l->late.n >= LATE_SAMPLES ? samples_quantile(&l->late, LATE_SAMPLES, 0.5, clock) : 0;
  if (late == 0 || (late >= LATE_MIN && late <= LATE_MAX) || fabs(ns - ns / late) < LATE_SHARE * clock_ns)
    return;
  l->down = late > 1 ? rate_of(bytes, ns, l->floor_ns) : guess(l, l->down, rate_of(bytes, ns, l->floor_ns));
  l->late.n = 0; /* held against another rate */
}

void bl_link_settle(bl_link *l, uint64_t clock, double clock_ns) {
  double spread = samples_rate(&l->up_spread, 0.5, clock);
  double whole = samples_rate(&l->up_whole, spread > 0 ? 0.5 : WHOLE_QUANTILE, clock);
  follow(&l->up, BL_MAX(spread, whole));
  settle_down(l, clock, clock_ns);
}
