/* SPDX-License-Identifier: Apache-2.0
 *
 * A ring of unsafe entries. Without a follower nothing ever stands in it, so the hot path is a counter.
 */
#include "server/log.h"

#include "base/alloc.h"
#include "base/num.h"

#define LOG_ENTRY_BYTES 128 /* what an entry costs besides its frame */

struct srv_log {
  srv_entry *ring; /* owned; entries of (safe, last] */
  size_t capacity, first, count;
  uint64_t last, safe, bytes, bytes_max;
  bool has_follower;
  srv_log_tap_fn *tap;
  void *tap_arg;
};

srv_log *srv_log_new(uint64_t bytes_max, bool has_follower) {
  srv_log *l = bl_calloc(1, sizeof *l);
  if (l != NULL) {
    l->bytes_max = bytes_max;
    l->has_follower = has_follower;
  }
  return l;
}

static uint64_t cost_of(const srv_entry *e) {
  return LOG_ENTRY_BYTES + (e->frame != NULL ? e->frame->size : 0) + (e->keys != NULL ? e->keys->size : 0);
}

static void drop_first(srv_log *l) {
  srv_entry *e = &l->ring[l->first];
  l->bytes -= cost_of(e);
  bl_frame_unref(e->frame);
  bl_frame_unref(e->keys);
  if (e->plan != NULL)
    bl_control_free((ProtobufCMessage *)(uintptr_t)&e->plan->base);
  l->first = (l->first + 1) % l->capacity;
  l->count--;
}

void srv_log_free(srv_log *l) {
  if (l == NULL)
    return;
  while (l->count > 0)
    drop_first(l);
  bl_free(l->ring);
  bl_free(l);
}

void srv_log_set_tap(srv_log *l, srv_log_tap_fn *tap, void *arg) {
  l->tap = tap;
  l->tap_arg = arg;
}

static bl_status grow(srv_log *l) {
  size_t capacity = BL_MAX(l->capacity * 2, (size_t)64);
  srv_entry *ring = bl_calloc(capacity, sizeof *ring);
  if (ring == NULL)
    return BL_ENOMEM;
  for (size_t i = 0; i < l->count; i++)
    ring[i] = l->ring[(l->first + i) % l->capacity];
  bl_free(l->ring);
  l->ring = ring;
  l->capacity = capacity;
  l->first = 0;
  return BL_OK;
}

/* Keeps an entry that is not safe yet: with its own reference to the frame and its own copy of the plan. */
static bl_status keep(srv_log *l, const srv_entry *entry) {
  if (l->bytes + cost_of(entry) > l->bytes_max)
    return BL_EAGAIN;
  if (l->count == l->capacity) {
    bl_status st = grow(l);
    if (st != BL_OK)
      return st;
  }
  srv_entry kept = *entry;
  if (entry->plan != NULL) {
    kept.plan = (const Ballast__Control__JobPlan *)bl_control_copy(&entry->plan->base);
    if (kept.plan == NULL)
      return BL_ENOMEM;
  }
  if (entry->frame != NULL)
    bl_frame_ref(entry->frame);
  if (entry->keys != NULL)
    bl_frame_ref(entry->keys);
  l->ring[(l->first + l->count++) % l->capacity] = kept;
  l->bytes += cost_of(&kept);
  return BL_OK;
}

bl_status srv_log_append(srv_log *l, srv_entry *entry) {
  entry->lsn = l->last + 1;
  if (l->has_follower) {
    bl_status st = keep(l, entry);
    if (st != BL_OK)
      return st;
  }
  l->last = entry->lsn;
  if (!l->has_follower)
    l->safe = l->last;
  if (l->tap != NULL)
    l->tap(entry, l->tap_arg);
  return BL_OK;
}

uint64_t srv_log_last(const srv_log *l) { return l->last; }
uint64_t srv_log_safe(const srv_log *l) { return l->safe; }
uint64_t srv_log_bytes(const srv_log *l) { return l->bytes; }

void srv_log_set_safe(srv_log *l, uint64_t lsn) {
  lsn = BL_MIN(lsn, l->last);
  while (l->count > 0 && l->ring[l->first].lsn <= lsn)
    drop_first(l);
  l->safe = BL_MAX(l->safe, lsn);
}
