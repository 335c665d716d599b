/* SPDX-License-Identifier: Apache-2.0
 *
 * Parts of ZeroMQ messages and frames, both ways. Large ones share their bytes: a received part lives on in
 * a wrapper, a sent frame is referenced until ZeroMQ has written it. Small ones are copied, which is cheaper.
 *
 * Threads: frames may be dropped by any thread, also after socket and context are gone.
 */
#include "net/net_internal.h"

#include <string.h>

typedef struct wrapper {
  bl_frame frame;
  zmq_msg_t msg;
} wrapper;
_Static_assert(sizeof(wrapper) <= BL_NET_WRAPPER_BYTES, "a pooled block holds a wrapper");

static void release_wrapper(bl_frame *f) {
  wrapper *w = (wrapper *)f;
  zmq_msg_close(&w->msg);
  bl_frame_unref(f->owner); /* the pooled block that holds us */
}

bl_frame *bl_net_frame_of_part(bl_net *n, zmq_msg_t *part) {
  size_t size = zmq_msg_size(part);
  if (size <= BL_NET_SMALL_FRAME_BYTES) {
    bl_frame *f = bl_frame_pool_take(n->small_frames);
    if (f != NULL) {
      memcpy(f->data, zmq_msg_data(part), size);
      f->size = size;
    }
    return f;
  }
  bl_frame *block = bl_frame_pool_take(n->wrappers);
  if (block == NULL)
    return NULL;
  wrapper *w = (wrapper *)block->data;
  zmq_msg_init(&w->msg);
  zmq_msg_move(&w->msg, part);
  w->frame = (bl_frame){.data = zmq_msg_data(&w->msg),
                        .size = size,
                        .capacity = size,
                        .free_fn = release_wrapper,
                        .owner = block,
                        .refs = 1};
  return &w->frame;
}

static void release_sent(void *data, void *frame) { bl_frame_unref(frame); }

bl_status bl_net_part_of_bytes(zmq_msg_t *part, const void *data, size_t size) {
  if (zmq_msg_init_size(part, size) != 0)
    return BL_ENOMEM;
  memcpy(zmq_msg_data(part), data, size);
  return BL_OK;
}

bl_status bl_net_part_of_frame(zmq_msg_t *part, bl_frame *f) {
  if (f->size <= BL_NET_SMALL_FRAME_BYTES)
    return bl_net_part_of_bytes(part, f->data, f->size);
  if (zmq_msg_init_data(part, f->data, f->size, release_sent, f) != 0)
    return BL_ENOMEM;
  bl_frame_ref(f); /* dropped by ZeroMQ, maybe in its I/O thread */
  return BL_OK;
}
