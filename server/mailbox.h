/* SPDX-License-Identifier: Apache-2.0
 *
 * Hand-over between threads: letters go in from any thread and come out, in order, on the loop that owns the
 * box. Few and small (jobs opened and closed, reports); weights and gradients never pass here.
 */
#ifndef SRV_MAILBOX_H
#define SRV_MAILBOX_H

#include "loop/loop.h"

/* First member of every letter; the letter is one block of bl_malloc. */
typedef struct srv_letter {
  struct srv_letter *next;
} srv_letter;

typedef struct srv_mailbox srv_mailbox;

/* letter: the callee's, freed with bl_free. */
typedef void srv_letter_fn(srv_letter *letter, void *arg);

BL_MUST_CHECK bl_status srv_mailbox_open(bl_loop *loop, srv_letter_fn *fn, void *arg, srv_mailbox **ret_box,
                                         bl_error *err);
void srv_mailbox_put(srv_mailbox *b, srv_letter *letter); /* any thread; taken */
/* On the loop's thread, or when it has ended; nobody may put any more. Letters left go to free_letter (NULL:
 * bl_free). */
void srv_mailbox_close(srv_mailbox *b, void (*free_letter)(srv_letter *letter));

#endif
