/* SPDX-License-Identifier: Apache-2.0
 *
 * The pipe between agent and task process: control messages over a stream socketpair. One message is
 *
 *   offset  size
 *   0       4     total size of what follows, little-endian: 4 + n
 *   4       4     size n of the head, little-endian
 *   8       n     head of a control message (wire/msg.h); no raw frames
 *
 * for example 0c 00 00 00 | 08 00 00 00 | 42 4c 01 00 2e 00 00 00: an empty task_hello.
 *
 * A stream that breaks this grammar is closed, for there is no way to find the next message in it.
 * Both ends use it on their own loop and never block. Threads: one.
 */
#ifndef WK_PIPE_H
#define WK_PIPE_H

#include "base/buf.h"
#include "loop/loop.h"
#include "wire/transport.h"

#define WK_PIPE_PREFIX_BYTES 8
/* Unsent bytes that an end keeps before it says BL_EAGAIN. */
#define WK_PIPE_QUEUE_BYTES_MAX (32u << 20)

/* The callee may move *msg out. */
typedef void wk_pipe_msg_fn(bl_msg *msg, void *arg);
/* The peer closed (BL_OK) or the stream broke; called once, nothing comes after. The callee may close the pipe. */
typedef void wk_pipe_end_fn(bl_status why, const char *text, void *arg);

/* Pure part: bytes to messages. */
typedef struct wk_pipe_reader {
  bl_buf buf;
} wk_pipe_reader;

#define WK_PIPE_READER_INIT {BL_BUF_INIT}

void wk_pipe_reader_fini(wk_pipe_reader *r);
/* Feeds any number of bytes and takes out at most one complete message per call: *ret_have tells. Call again
 * with size 0 until it is false. BL_EPROTO, BL_ENOMEM: the stream is of no use any more. */
BL_MUST_CHECK bl_status wk_pipe_reader_feed(wk_pipe_reader *r, const void *data, size_t size, bl_msg *ret_msg,
                                            bool *ret_have, bl_error *err);
/* Appends a message as bytes. BL_EINVAL: it has raw frames or no head; BL_ENOMEM. */
BL_MUST_CHECK bl_status wk_pipe_encode(const bl_msg *msg, bl_buf *out);

typedef struct wk_pipe wk_pipe;

/* fd: one end of a SOCK_STREAM socketpair, taken on success (closed with the pipe), made non-blocking. */
BL_MUST_CHECK bl_status wk_pipe_open(bl_loop *l, int fd, wk_pipe_msg_fn *on_msg, wk_pipe_end_fn *on_end, void *arg,
                                     wk_pipe **ret_pipe, bl_error *err);
void wk_pipe_close(wk_pipe *p); /* NULL allowed; also from within a callback */
/* Queues and sends what the socket takes at once. *msg is emptied on success. BL_EAGAIN: the queue is full;
 * BL_EUNREACHABLE: the other end is gone. */
BL_MUST_CHECK bl_status wk_pipe_send(wk_pipe *p, bl_msg *msg);
size_t wk_pipe_unsent_bytes(const wk_pipe *p);

#endif
