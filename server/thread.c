/* SPDX-License-Identifier: Apache-2.0
 *
 * Loop of a shard. Messages of one turn are taken in together and ticked once behind them, so that replies to
 * a burst share messages; while arithmetic is left, the loop turns without sleeping.
 */
#include "server/thread.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"

#include <inttypes.h>
#include <pthread.h>
#include <string.h>

/* About 1 MiB each: what a slow reader may have on its way before its weights wait in the shard. */
#define SEND_HWM 32
#define RECEIVE_HWM 256
#define TRIM_AGAIN_MS 2000 /* behind a close: what was on its way then has come and gone */

typedef enum order_kind { ORDER_OPEN = 1, ORDER_CLOSE, ORDER_REPORT, ORDER_STOP } order_kind;

typedef struct order {
  srv_letter letter;
  order_kind kind;
  Ballast__Control__JobPlan *plan;
  uint64_t job;
} order;

/* What was last said about a job, to notice a change. */
typedef struct said {
  uint64_t job, view;
  int state;
} said;

struct srv_thread {
  srv_thread_config config;
  pthread_t thread;
  bool running;
  bl_loop *loop;
  bl_timer *timer, *trim_timer;
  bl_socket *socket;
  srv_mailbox *orders;
  srv_shard *shard;
  order *stop; /* made at the start, so that stopping cannot fail */
  said said[SRV_JOBS_MAX];
  size_t n_said;
  srv_shard_job_info infos[SRV_JOBS_MAX];
  uint64_t intruders;
  bl_frame *keepsake; /* a large frame as received: its free gives back the end of the receiving thread's heap */
};

static void report(srv_thread *t, size_t n) {
  srv_report *r = bl_calloc(1, sizeof *r + n * sizeof r->infos[0]);
  if (r == NULL)
    return; /* asked for again with the next heartbeat */
  r->shard = t->config.shard.index;
  srv_shard_get_stats(t->shard, &r->stats);
  r->socket = bl_socket_get_stats(t->socket);
  r->n_infos = n;
  memcpy(r->infos, t->infos, n * sizeof r->infos[0]);
  srv_mailbox_put(t->config.reports, &r->letter);
}

static void report_changes(srv_thread *t, bool asked) {
  size_t n = srv_shard_jobs(t->shard, t->infos, SRV_JOBS_MAX);
  bool changed = n != t->n_said;
  for (size_t i = 0; i < n; i++) {
    said now = {.job = t->infos[i].job, .view = t->infos[i].view, .state = (int)t->infos[i].state};
    changed |= i >= t->n_said || t->said[i].job != now.job || t->said[i].view != now.view ||
               t->said[i].state != now.state;
    t->said[i] = now;
  }
  t->n_said = n;
  if (changed || asked)
    report(t, n);
}

static void on_tick(void *arg) {
  srv_thread *t = arg;
  uint64_t now = bl_clock_now_ns();
  uint64_t next = srv_shard_tick(t->shard, now);
  report_changes(t, false);
  if (next == UINT64_MAX)
    return;
  uint64_t wait_ns = next > now ? next - now : 0;
  bl_timer_start(t->timer, (wait_ns + BL_NS_PER_MS - 1) / BL_NS_PER_MS, 0);
}

static bool may_speak(const srv_thread *t, const bl_peer *from) {
  return !t->config.secured || from->role == BL_ROLE_WORKER; /* tasks have their worker's key */
}

static void on_msg(const bl_peer *from, bl_msg *msg, void *arg) {
  srv_thread *t = arg;
  if (!may_speak(t, from)) {
    if (t->intruders++ == 0)
      bl_log_warning("refused_role", "shard=%u peer=%s role=%s", t->config.shard.index, BL_LOGQ(from->name),
                     bl_role_name(from->role));
    return;
  }
  for (uint32_t i = 0; t->keepsake == NULL && i < msg->n_frames; i++)
    if (msg->frames[i]->size >= BL_ALLOC_TRIM_BYTES)
      t->keepsake = bl_frame_ref(msg->frames[i]);
  srv_shard_on_msg(t->shard, from, msg, bl_clock_now_ns());
  bl_timer_start(t->timer, 0, 0);
}

static void free_order(srv_letter *letter) {
  order *o = (order *)letter;
  if (o->plan != NULL)
    bl_control_free(&o->plan->base);
  bl_free(o);
}

static void open_job(srv_thread *t, const Ballast__Control__JobPlan *plan) {
  bl_error err = BL_ERROR_INIT;
  if (srv_shard_open_job(t->shard, plan, &err) != BL_OK)
    bl_log_warning("job_not_opened", "shard=%u job=%" PRIu64 " reason=%s", t->config.shard.index, plan->job,
                   BL_LOGQ(err.text));
}

static void drop_keepsake(void *arg) {
  srv_thread *t = arg;
  bl_frame_unref(t->keepsake);
  t->keepsake = NULL;
}

static void on_trim(void *arg) { bl_alloc_trim(drop_keepsake, arg); }

/* The job's memory is the system's again, not only ours to use again. */
static void close_job(srv_thread *t, uint64_t job) {
  if (srv_shard_close_job(t->shard, job) != BL_OK)
    return; /* not open: nothing to close */
  on_trim(t);
  bl_timer_start(t->trim_timer, TRIM_AGAIN_MS, 0);
}

static void on_order(srv_letter *letter, void *arg) {
  srv_thread *t = arg;
  order *o = (order *)letter;
  switch (o->kind) {
  case ORDER_OPEN:
    open_job(t, o->plan);
    break;
  case ORDER_CLOSE:
    close_job(t, o->job);
    break;
  case ORDER_REPORT:
    report_changes(t, true);
    break;
  case ORDER_STOP:
    bl_loop_stop(t->loop);
    break;
  }
  free_order(letter);
  bl_timer_start(t->timer, 0, 0);
}

static void *run(void *arg) {
  srv_thread *t = arg;
  bl_loop_run(t->loop);
  return NULL;
}

static bl_status bind_all(srv_thread *t, uint16_t *ret_port, bl_error *err) {
  uint16_t port = t->config.port;
  for (size_t i = 0; i < t->config.n_listen; i++) {
    bl_status st = bl_socket_bind(t->socket, t->config.listen[i], port, &port, err);
    if (st != BL_OK)
      return st;
  }
  *ret_port = port;
  return BL_OK;
}

/* Works on what is half made too; the thread has ended. */
static void destroy(srv_thread *t) {
  bl_socket_close(t->socket);
  srv_mailbox_close(t->orders, free_order);
  bl_timer_close(t->timer);
  bl_timer_close(t->trim_timer);
  if (t->loop != NULL)
    bl_loop_free(t->loop);
  srv_shard_free(t->shard);
  drop_keepsake(t);
  bl_free(t->stop);
  bl_free(t);
}

bl_status srv_thread_start(const srv_thread_config *config, srv_thread **ret_thread, uint16_t *ret_port,
                           bl_error *err) {
  srv_thread *t = bl_calloc(1, sizeof *t);
  if (t == NULL)
    return bl_fail(err, BL_ENOMEM, "no memory for a shard's thread");
  t->config = *config;
  bl_status st = BL_OK;
  t->stop = bl_calloc(1, sizeof *t->stop);
  t->loop = bl_loop_new();
  if (t->stop == NULL || t->loop == NULL)
    st = bl_fail(err, BL_ENOMEM, "no memory for the loop of shard %u", config->shard.index);
  if (st == BL_OK)
    st = bl_timer_new(t->loop, on_tick, t, &t->timer);
  if (st == BL_OK)
    st = bl_timer_new(t->loop, on_trim, t, &t->trim_timer);
  if (st == BL_OK)
    st = srv_mailbox_open(t->loop, on_order, t, &t->orders, err);
  bl_socket_config sc = {.kind = BL_SOCKET_ROUTER,
                         .send_hwm = SEND_HWM,
                         .receive_hwm = RECEIVE_HWM,
                         .on_msg = on_msg,
                         .arg = t};
  if (st == BL_OK)
    st = bl_socket_open(config->net, t->loop, &sc, &t->socket, err);
  uint16_t port = 0;
  if (st == BL_OK)
    st = bind_all(t, &port, err);
  if (st == BL_OK) {
    t->config.shard.transport = bl_socket_transport(t->socket);
    st = srv_shard_new(&t->config.shard, &t->shard, err);
  }
  if (st == BL_OK && pthread_create(&t->thread, NULL, run, t) != 0)
    st = bl_fail(err, BL_EIO, "cannot start the thread of shard %u", config->shard.index);
  if (st != BL_OK) {
    destroy(t);
    return st;
  }
  t->running = true;
  *ret_thread = t;
  *ret_port = port;
  return BL_OK;
}

void srv_thread_stop(srv_thread *t) {
  if (t == NULL)
    return;
  order *o = t->stop;
  t->stop = NULL;
  o->kind = ORDER_STOP;
  srv_mailbox_put(t->orders, &o->letter);
  pthread_join(t->thread, NULL);
  destroy(t);
}

static bl_status give(srv_thread *t, order_kind kind, Ballast__Control__JobPlan *plan, uint64_t job) {
  order *o = bl_calloc(1, sizeof *o);
  if (o == NULL) {
    if (plan != NULL)
      bl_control_free(&plan->base);
    return BL_ENOMEM;
  }
  o->kind = kind;
  o->plan = plan;
  o->job = job;
  srv_mailbox_put(t->orders, &o->letter);
  return BL_OK;
}

bl_status srv_thread_open_job(srv_thread *t, Ballast__Control__JobPlan *plan) { return give(t, ORDER_OPEN, plan, 0); }

void srv_thread_close_job(srv_thread *t, uint64_t job) {
  if (give(t, ORDER_CLOSE, NULL, job) != BL_OK)
    bl_log_warning("job_not_closed", "shard=%u job=%" PRIu64 " reason=%s", t->config.shard.index, job,
                   BL_LOGQ("no memory"));
}

void srv_thread_ask_report(srv_thread *t) { (void)!give(t, ORDER_REPORT, NULL, 0); /* asked again */ }
