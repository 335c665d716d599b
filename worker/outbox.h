/* SPDX-License-Identifier: Apache-2.0
 *
 * The reports of one task on their way to the coordinator, in order, bounded, repeated until acknowledged.
 *
 * One report is under way at a time and gets its sequence number when it is first sent. So numbers have no
 * gaps although reports that wait may be dropped, and reordering on the network cannot skip one. Log lines
 * are dropped first (the oldest), then epoch reports; data and done reports never.
 */
#ifndef WK_OUTBOX_H
#define WK_OUTBOX_H

#include "wire/control.h"

#include <stdbool.h>

typedef struct wk_outbox_item wk_outbox_item;

typedef struct wk_outbox {
  wk_outbox_item *first, *last; /* owned */
  size_t n, n_logs;
  bool under_way;               /* the first one has its number and was sent */
  uint64_t sequence;            /* number of the last one sent */
  uint64_t repeat_at_ns, repeat_ns;
  uint64_t task_sequence;       /* greatest number (the task's own) of an acknowledged report */
  uint64_t n_logs_dropped, n_dropped;
} wk_outbox;

void wk_outbox_init(wk_outbox *o);
void wk_outbox_fini(wk_outbox *o);
/* Takes a copy. task_sequence: the task's own number of it, 0 for what the agent adds. BL_ELIMIT: full of reports
 * that may not be dropped. */
BL_MUST_CHECK bl_status wk_outbox_add(wk_outbox *o, const Ballast__Control__Report *report, uint64_t task_sequence);
/* The report to send now, NULL when none is due. Asking counts as sending. */
const Ballast__Control__Report *wk_outbox_due(wk_outbox *o, uint64_t now_ns);
/* When to ask again; UINT64_MAX: nothing to send. */
uint64_t wk_outbox_next_ns(const wk_outbox *o);
/* True when this took the one under way off the list. */
bool wk_outbox_ack(wk_outbox *o, uint64_t sequence);
/* The peer may have forgotten: what is under way is due at once. */
void wk_outbox_hurry(wk_outbox *o);

#endif
