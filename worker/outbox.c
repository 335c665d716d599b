/* SPDX-License-Identifier: Apache-2.0
 *
 * Reports under way: a list with one in flight.
 */
#include "outbox.h"

#include "agent.h"
#include "base/alloc.h"
#include "base/num.h"

struct wk_outbox_item {
  wk_outbox_item *next;
  Ballast__Control__Report *report; /* owned */
  uint64_t task_sequence;
};

void wk_outbox_init(wk_outbox *o) { *o = (wk_outbox){.repeat_ns = WK_AGENT_REPEAT_NS}; }

static void item_free(wk_outbox_item *item) {
  bl_control_free(&item->report->base);
  bl_free(item);
}

/* Takes out the item behind prev (the first one when prev is NULL). */
static void take_out(wk_outbox *o, wk_outbox_item *prev) {
  wk_outbox_item *item = prev != NULL ? prev->next : o->first;
  if (prev != NULL)
    prev->next = item->next;
  else
    o->first = item->next;
  if (o->last == item)
    o->last = prev;
  o->n--;
  o->n_logs -= item->report->log != NULL;
  item_free(item);
}

void wk_outbox_fini(wk_outbox *o) {
  while (o->first != NULL)
    take_out(o, NULL);
}

/* Drops the oldest waiting log line, or the oldest waiting epoch report. */
static void drop_one(wk_outbox *o, bool log) {
  wk_outbox_item *prev = NULL;
  for (wk_outbox_item *i = o->first; i != NULL; prev = i, i = i->next) {
    bool sent = o->under_way && i == o->first;
    if (sent || (log ? i->report->log == NULL : i->report->epoch == NULL))
      continue;
    take_out(o, prev);
    o->n_dropped++;
    o->n_logs_dropped += log;
    return;
  }
}

bl_status wk_outbox_add(wk_outbox *o, const Ballast__Control__Report *report, uint64_t task_sequence) {
  if (report->log != NULL && o->n_logs >= WK_AGENT_LOGS_MAX)
    drop_one(o, true);
  if (o->n >= WK_AGENT_REPORTS_MAX)
    drop_one(o, o->n_logs > 0);
  if (o->n >= WK_AGENT_REPORTS_MAX)
    return BL_ELIMIT;
  wk_outbox_item *item = bl_calloc(1, sizeof *item);
  if (item == NULL)
    return BL_ENOMEM;
  item->report = (Ballast__Control__Report *)bl_control_copy(&report->base);
  if (item->report == NULL) {
    bl_free(item);
    return BL_ENOMEM;
  }
  item->task_sequence = task_sequence;
  if (o->last != NULL)
    o->last->next = item;
  else
    o->first = item;
  o->last = item;
  o->n++;
  o->n_logs += report->log != NULL;
  return BL_OK;
}

const Ballast__Control__Report *wk_outbox_due(wk_outbox *o, uint64_t now_ns) {
  if (o->first == NULL || (o->under_way && now_ns < o->repeat_at_ns))
    return NULL;
  if (!o->under_way) {
    o->under_way = true;
    o->first->report->sequence = ++o->sequence;
    o->repeat_ns = WK_AGENT_REPEAT_NS;
  } else {
    o->repeat_ns = BL_MIN(o->repeat_ns * 2, WK_AGENT_REPEAT_MAX_NS);
  }
  o->repeat_at_ns = now_ns + o->repeat_ns;
  return o->first->report;
}

uint64_t wk_outbox_next_ns(const wk_outbox *o) {
  if (o->first == NULL)
    return UINT64_MAX;
  return o->under_way ? o->repeat_at_ns : 0;
}

bool wk_outbox_ack(wk_outbox *o, uint64_t sequence) {
  if (!o->under_way || sequence < o->sequence)
    return false;
  o->task_sequence = BL_MAX(o->task_sequence, o->first->task_sequence);
  take_out(o, NULL);
  o->under_way = false;
  return true;
}

void wk_outbox_hurry(wk_outbox *o) {
  if (o->under_way) {
    o->repeat_at_ns = 0;
    o->repeat_ns = WK_AGENT_REPEAT_NS / 2;
  }
}
