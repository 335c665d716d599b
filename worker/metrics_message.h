/* SPDX-License-Identifier: Apache-2.0
 *
 * A rank's sums as the message that takes them to the coordinator: counts go sparse, only what is not zero.
 */
#ifndef WK_METRICS_MESSAGE_H
#define WK_METRICS_MESSAGE_H

#include "train/trainer.h"
#include "wire/control.h"

typedef struct wk_metrics_message {
  Ballast__Control__Metrics m; /* its lists are owned */
} wk_metrics_message;

/* with_lists: the counts behind AUC and confusion matrix, too. Without memory they are left out: the loss is worth more
 * than its ornaments. */
void wk_metrics_message_init(wk_metrics_message *mm, const wk_metrics *from, bool with_lists);
void wk_metrics_message_fini(wk_metrics_message *mm);

#endif
