/* SPDX-License-Identifier: Apache-2.0
 *
 * Event loop over libuv. Every object begins with its libuv handle, whose `data` is the object; the last
 * close callback frees it. Children are in child.c.
 */
#include "loop/loop_internal.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"


bl_status bl_loop_status_of_uv(int rc) { return rc == 0 ? BL_OK : rc == UV_ENOMEM ? BL_ENOMEM : BL_EIO; }

static void on_closed(uv_handle_t *h) { bl_free(h->data); }

static void on_wake(uv_async_t *a) {}
static void on_waited(uv_timer_t *t) {}

bl_loop *bl_loop_new(void) {
  bl_loop *l = bl_calloc(1, sizeof *l);
  if (l == NULL)
    return NULL;
  if (uv_loop_init(&l->uv) != 0) {
    bl_free(l);
    return NULL;
  }
  /* Keeps the loop alive while it has nothing else, so that run blocks instead of returning. */
  if (uv_async_init(&l->uv, &l->keep_alive, on_wake) != 0) {
    BL_ASSERT(uv_loop_close(&l->uv) == 0);
    bl_free(l);
    return NULL;
  }
  BL_ASSERT(uv_timer_init(&l->uv, &l->wait) == 0); /* cannot fail */
  return l;
}

static void check_closing(uv_handle_t *h, void *arg) {
  if (uv_is_closing(h))
    return;
  bl_log_error("handle_left_open", "bug=loop kind=%s", uv_handle_type_name(h->type));
  *(bool *)arg = true;
}

void bl_loop_free(bl_loop *l) {
  if (l == NULL)
    return;
  bl_loop_drop_children(l);
  uv_close((uv_handle_t *)&l->keep_alive, NULL);
  uv_close((uv_handle_t *)&l->wait, NULL);
  bool left_open = false;
  uv_walk(&l->uv, check_closing, &left_open);
  BL_ASSERT(!left_open);
  uv_run(&l->uv, UV_RUN_DEFAULT);
  BL_ASSERT(uv_loop_close(&l->uv) == 0);
  bl_free(l);
}

void bl_loop_run(bl_loop *l) { uv_run(&l->uv, UV_RUN_DEFAULT); }

void bl_loop_stop(bl_loop *l) { uv_stop(&l->uv); }

void bl_loop_run_once(bl_loop *l, int timeout_ms) {
  if (timeout_ms <= 0) {
    uv_run(&l->uv, UV_RUN_NOWAIT);
    return;
  }
  uv_update_time(&l->uv); /* the caller may have computed for long since the last turn */
  BL_ASSERT(uv_timer_start(&l->wait, on_waited, (uint64_t)timeout_ms, 0) == 0);
  uv_run(&l->uv, UV_RUN_ONCE);
  uv_timer_stop(&l->wait);
}

uint64_t bl_loop_now_ns(const bl_loop *l) { return bl_clock_now_ns(); }

void *bl_loop_uv(bl_loop *l) { return &l->uv; }

/* ---- timers ---- */

struct bl_timer {
  uv_timer_t uv; /* first */
  bl_loop_fn *fn;
  void *arg;
};

static void on_timer(uv_timer_t *uv) {
  bl_timer *t = uv->data;
  t->fn(t->arg);
}

bl_status bl_timer_new(bl_loop *l, bl_loop_fn *fn, void *arg, bl_timer **ret_timer) {
  bl_timer *t = bl_calloc(1, sizeof *t);
  if (t == NULL)
    return BL_ENOMEM;
  BL_ASSERT(uv_timer_init(&l->uv, &t->uv) == 0);
  t->uv.data = t;
  t->fn = fn;
  t->arg = arg;
  *ret_timer = t;
  return BL_OK;
}

void bl_timer_start(bl_timer *t, uint64_t first_ms, uint64_t repeat_ms) {
  uv_update_time(t->uv.loop); /* otherwise long work before this call is counted as waiting */
  BL_ASSERT(uv_timer_start(&t->uv, on_timer, first_ms, repeat_ms) == 0);
}

void bl_timer_stop(bl_timer *t) { uv_timer_stop(&t->uv); }

void bl_timer_close(bl_timer *t) {
  if (t != NULL)
    uv_close((uv_handle_t *)&t->uv, on_closed);
}

/* ---- wake-ups from other threads ---- */

struct bl_async {
  uv_async_t uv; /* first */
  bl_loop_fn *fn;
  void *arg;
};

static void on_async(uv_async_t *uv) {
  bl_async *a = uv->data;
  a->fn(a->arg);
}

bl_status bl_async_new(bl_loop *l, bl_loop_fn *fn, void *arg, bl_async **ret_async) {
  bl_async *a = bl_calloc(1, sizeof *a);
  if (a == NULL)
    return BL_ENOMEM;
  int rc = uv_async_init(&l->uv, &a->uv, on_async);
  if (rc != 0) {
    bl_free(a);
    return bl_loop_status_of_uv(rc);
  }
  a->uv.data = a;
  a->fn = fn;
  a->arg = arg;
  *ret_async = a;
  return BL_OK;
}

void bl_async_send(bl_async *a) { uv_async_send(&a->uv); }

void bl_async_close(bl_async *a) {
  if (a != NULL)
    uv_close((uv_handle_t *)&a->uv, on_closed);
}

/* ---- descriptors ---- */

struct bl_watch {
  uv_poll_t uv; /* first */
  bl_watch_fn *fn;
  void *arg;
};

static void on_poll(uv_poll_t *uv, int status, int events) {
  bl_watch *w = uv->data;
  /* An error of the descriptor shows itself to whoever reads it. */
  int seen = status < 0 ? BL_WATCH_READABLE : 0;
  seen |= events & UV_READABLE ? BL_WATCH_READABLE : 0;
  seen |= events & UV_WRITABLE ? BL_WATCH_WRITABLE : 0;
  if (seen != 0)
    w->fn(seen, w->arg);
}

bl_status bl_watch_new(bl_loop *l, int fd, bl_watch_fn *fn, void *arg, bl_watch **ret_watch) {
  bl_watch *w = bl_calloc(1, sizeof *w);
  if (w == NULL)
    return BL_ENOMEM;
  int rc = uv_poll_init(&l->uv, &w->uv, fd);
  if (rc != 0) {
    bl_free(w);
    return bl_loop_status_of_uv(rc);
  }
  w->uv.data = w;
  w->fn = fn;
  w->arg = arg;
  *ret_watch = w;
  return BL_OK;
}

void bl_watch_start(bl_watch *w, int events) {
  int wanted = (events & BL_WATCH_READABLE ? UV_READABLE : 0) | (events & BL_WATCH_WRITABLE ? UV_WRITABLE : 0);
  BL_ASSERT(uv_poll_start(&w->uv, wanted, on_poll) == 0);
}

void bl_watch_stop(bl_watch *w) { uv_poll_stop(&w->uv); }

void bl_watch_close(bl_watch *w) {
  if (w != NULL)
    uv_close((uv_handle_t *)&w->uv, on_closed);
}

/* ---- signals ---- */

struct bl_signal {
  uv_signal_t uv; /* first */
  bl_signal_fn *fn;
  void *arg;
};

static void on_signal(uv_signal_t *uv, int signum) {
  bl_signal *s = uv->data;
  s->fn(signum, s->arg);
}

bl_status bl_signal_new(bl_loop *l, int signum, bl_signal_fn *fn, void *arg, bl_signal **ret_signal) {
  bl_signal *s = bl_calloc(1, sizeof *s);
  if (s == NULL)
    return BL_ENOMEM;
  int rc = uv_signal_init(&l->uv, &s->uv);
  if (rc != 0) {
    bl_free(s);
    return bl_loop_status_of_uv(rc);
  }
  s->uv.data = s;
  s->fn = fn;
  s->arg = arg;
  rc = uv_signal_start(&s->uv, on_signal, signum);
  if (rc != 0) {
    bl_signal_close(s);
    return rc == UV_EINVAL ? BL_EINVAL : bl_loop_status_of_uv(rc);
  }
  *ret_signal = s;
  return BL_OK;
}

void bl_signal_close(bl_signal *s) {
  if (s != NULL)
    uv_close((uv_handle_t *)&s->uv, on_closed);
}
