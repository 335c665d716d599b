/* SPDX-License-Identifier: Apache-2.0
 *
 * A frame is a run of bytes with one owner count: a part of a message that is handed from socket to
 * state machine to log to socket by reference, never by copy.
 *
 * The bytes do not change once a second reference exists. Counting is atomic, because the last reference
 * may be dropped by ZeroMQ's I/O thread.
 */
#ifndef BL_WIRE_FRAME_H
#define BL_WIRE_FRAME_H

#include "base/status.h"

#include <stdatomic.h>
#include <stdint.h>

typedef struct bl_frame bl_frame;

/* Called once, by whichever thread drops the last reference; frees the struct too. */
typedef void bl_frame_free_fn(bl_frame *frame);

struct bl_frame {
  uint8_t *data;
  size_t size;
  size_t capacity;         /* bytes behind data; size may be lowered by the writer before sharing */
  bl_frame_free_fn *free_fn;
  void *owner;             /* for free_fn: a pool, a zmq_msg_t, ... */
  bl_frame *pool_next;     /* free list of a pool */
  _Atomic uint32_t refs;
};

/* One heap block; refs = 1. NULL: no memory. */
bl_frame *bl_frame_new(size_t size) BL_MUST_CHECK;
bl_frame *bl_frame_copy(const void *data, size_t size) BL_MUST_CHECK;
bl_frame *bl_frame_ref(bl_frame *f);
void bl_frame_unref(bl_frame *f); /* accepts NULL */

/* Frames of one capacity, kept warm: taking and giving back allocates nothing once the pool has grown to
 * its steady size (a page fault costs 2 us per 4 KiB: touched memory is 5 times faster). Any thread. */
typedef struct bl_frame_pool bl_frame_pool;
bl_frame_pool *bl_frame_pool_new(size_t capacity_bytes, size_t keep_max) BL_MUST_CHECK;
/* Frames still out keep the pool's memory alive until they come back. */
void bl_frame_pool_free(bl_frame_pool *p);
bl_frame *bl_frame_pool_take(bl_frame_pool *p) BL_MUST_CHECK; /* refs = 1, size = capacity */

#endif
