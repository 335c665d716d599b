/* SPDX-License-Identifier: Apache-2.0
 *
 * A locked list and a wake-up of the loop.
 */
#include "server/mailbox.h"

#include "base/alloc.h"

#include <pthread.h>

struct srv_mailbox {
  pthread_mutex_t lock;
  srv_letter *first, **last;
  bl_async *async;
  srv_letter_fn *fn;
  void *arg;
};

static srv_letter *take_all(srv_mailbox *b) {
  pthread_mutex_lock(&b->lock);
  srv_letter *first = b->first;
  b->first = NULL;
  b->last = &b->first;
  pthread_mutex_unlock(&b->lock);
  return first;
}

static void on_wake(void *arg) {
  srv_mailbox *b = arg;
  for (srv_letter *l = take_all(b), *next; l != NULL; l = next) {
    next = l->next;
    b->fn(l, b->arg);
  }
}

bl_status srv_mailbox_open(bl_loop *loop, srv_letter_fn *fn, void *arg, srv_mailbox **ret_box, bl_error *err) {
  srv_mailbox *b = bl_calloc(1, sizeof *b);
  if (b == NULL)
    return bl_fail(err, BL_ENOMEM, "no memory for a mailbox");
  b->last = &b->first;
  b->fn = fn;
  b->arg = arg;
  if (pthread_mutex_init(&b->lock, NULL) != 0) {
    bl_free(b);
    return bl_fail(err, BL_ENOMEM, "no memory for a lock");
  }
  bl_status st = bl_async_new(loop, on_wake, b, &b->async);
  if (st != BL_OK) {
    pthread_mutex_destroy(&b->lock);
    bl_free(b);
    return bl_fail(err, st, "the loop takes no more wake-ups");
  }
  *ret_box = b;
  return BL_OK;
}

void srv_mailbox_put(srv_mailbox *b, srv_letter *letter) {
  letter->next = NULL;
  pthread_mutex_lock(&b->lock);
  *b->last = letter;
  b->last = &letter->next;
  pthread_mutex_unlock(&b->lock);
  bl_async_send(b->async);
}

void srv_mailbox_close(srv_mailbox *b, void (*free_letter)(srv_letter *letter)) {
  if (b == NULL)
    return;
  for (srv_letter *l = take_all(b), *next; l != NULL; l = next) {
    next = l->next;
    if (free_letter != NULL)
      free_letter(l);
    else
      bl_free(l);
  }
  bl_async_close(b->async);
  pthread_mutex_destroy(&b->lock);
  bl_free(b);
}
