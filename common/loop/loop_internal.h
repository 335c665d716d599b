/* SPDX-License-Identifier: Apache-2.0
 *
 * Shared by the files of loop/ only.
 */
#ifndef BL_LOOP_LOOP_INTERNAL_H
#define BL_LOOP_LOOP_INTERNAL_H

#include "loop/loop.h"

#include <uv.h>

struct bl_loop {
  uv_loop_t uv;
  uv_async_t keep_alive;
  uv_timer_t wait;     /* the time limit of bl_loop_run_once */
  bl_child *forgotten; /* closed by their owners while they ran: reaped when they end */
};

bl_status bl_loop_status_of_uv(int rc);
void bl_loop_drop_children(bl_loop *l); /* the forgotten ones, at the end of the loop */

#endif
