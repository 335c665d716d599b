/* SPDX-License-Identifier: Apache-2.0
 *
 * Event loop over libuv: timers, wake-ups from other threads, readable descriptors, signals, child
 * processes. The only includer of uv.h is loop/. One loop belongs to one thread; only bl_async_send may
 * be called from another. Close functions are asynchronous: the object is freed in its last close callback,
 * on the loop.
 */
#ifndef BL_LOOP_LOOP_H
#define BL_LOOP_LOOP_H

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct bl_loop bl_loop;
typedef struct bl_timer bl_timer;
typedef struct bl_async bl_async;
typedef struct bl_watch bl_watch; /* a descriptor */
typedef struct bl_signal bl_signal;
typedef struct bl_child bl_child;

typedef void bl_loop_fn(void *arg);

bl_loop *bl_loop_new(void) BL_MUST_CHECK;
/* Runs pending close callbacks, then asserts that nothing is left open. */
void bl_loop_free(bl_loop *l);
void bl_loop_run(bl_loop *l);       /* until bl_loop_stop */
void bl_loop_stop(bl_loop *l);
/* One turn: waits at most timeout_ms for an event (0: only what is ready). For compute threads that own a
 * loop. Wakes early for events. bl_loop_stop has no meaning here. */
void bl_loop_run_once(bl_loop *l, int timeout_ms);
uint64_t bl_loop_now_ns(const bl_loop *l); /* bl_clock_now_ns */

/* One-shot or repeating (repeat_ms > 0). */
BL_MUST_CHECK bl_status bl_timer_new(bl_loop *l, bl_loop_fn *fn, void *arg, bl_timer **ret_timer);
void bl_timer_start(bl_timer *t, uint64_t first_ms, uint64_t repeat_ms);
void bl_timer_stop(bl_timer *t);
void bl_timer_close(bl_timer *t); /* NULL allowed */

BL_MUST_CHECK bl_status bl_async_new(bl_loop *l, bl_loop_fn *fn, void *arg, bl_async **ret_async);
void bl_async_send(bl_async *a); /* any thread */
void bl_async_close(bl_async *a);

/* Level-triggered read (and, when asked, write) readiness. events: a sum of the two below. An error of the
 * descriptor counts as readable. The descriptor becomes non-blocking; one watch per descriptor. */
enum { BL_WATCH_READABLE = 1, BL_WATCH_WRITABLE = 2 };
typedef void bl_watch_fn(int events, void *arg);
BL_MUST_CHECK bl_status bl_watch_new(bl_loop *l, int fd, bl_watch_fn *fn, void *arg, bl_watch **ret_watch);
void bl_watch_start(bl_watch *w, int events);
void bl_watch_stop(bl_watch *w);
void bl_watch_close(bl_watch *w); /* does not close fd */

typedef void bl_signal_fn(int signum, void *arg);
BL_MUST_CHECK bl_status bl_signal_new(bl_loop *l, int signum, bl_signal_fn *fn, void *arg, bl_signal **ret_signal);
void bl_signal_close(bl_signal *s);

/* Child process. file: a path, or a name looked up in PATH. env: NULL = inherited, else the whole environment.
 * fds[i] becomes descriptor i of the child (-1: /dev/null), n_fds from 3 to 16; it has no other descriptor.
 * With die_with_parent it is killed when the thread that spawned it ends (PR_SET_PDEATHSIG follows the thread):
 * spawn from a thread that lives as long as the process. Returns once the program runs, so that a missing
 * file is an error here. */
typedef struct bl_child_options {
  const char *file;
  char *const *argv;
  char *const *env;
  const int *fds;
  size_t n_fds;
  bool die_with_parent;
} bl_child_options;
/* signum 0: exited with code. */
typedef void bl_child_fn(int64_t code, int signum, void *arg);
BL_MUST_CHECK bl_status bl_child_spawn(bl_loop *l, const bl_child_options *options, bl_child_fn *fn, void *arg,
                                       bl_child **ret_child, bl_error *err);
int bl_child_pid(const bl_child *c);
bl_status bl_child_kill(bl_child *c, int signum); /* BL_ENOENT: it has ended */
void bl_child_close(bl_child *c); /* forgets it; the exit callback does not come any more */

/* Internal to net/: the libuv loop, as void so that uv.h stays behind this door. */
void *bl_loop_uv(bl_loop *l);

#endif
