/* SPDX-License-Identifier: Apache-2.0
 *
 * Framing and non-blocking I/O of the socketpair. A pipe closed inside its own callback is freed when the
 * callback has returned.
 */
#include "pipe.h"

#include "base/alloc.h"
#include "base/le.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define READ_BYTES_MAX 65536

struct wk_pipe {
  int fd;
  bl_watch *watch;
  wk_pipe_reader reader;
  bl_buf out;
  size_t out_sent;  /* bytes of out that the socket has taken */
  bool ended;       /* on_end was called */
  bool in_callback;
  bool closed;
  wk_pipe_msg_fn *on_msg;
  wk_pipe_end_fn *on_end;
  void *arg;
};

void wk_pipe_reader_fini(wk_pipe_reader *r) { bl_buf_fini(&r->buf); }

bl_status wk_pipe_reader_feed(wk_pipe_reader *r, const void *data, size_t size, bl_msg *ret_msg, bool *ret_have,
                              bl_error *err) {
  *ret_have = false;
  if (size > 0)
    bl_buf_add(&r->buf, data, size);
  if (r->buf.failed)
    return bl_fail(err, BL_ENOMEM, "no memory for a message of the task pipe");
  if (r->buf.size < WK_PIPE_PREFIX_BYTES)
    return BL_OK;
  uint32_t total = bl_le_get32(r->buf.data), head = bl_le_get32(r->buf.data + 4);
  if (head < BL_MSG_PREAMBLE_BYTES || head > BL_MSG_HEADER_BYTES_MAX || total != head + 4)
    return bl_fail(err, BL_EPROTO, "task pipe: sizes %u and %u are not those of a message of at most %u bytes", total,
                   head, BL_MSG_HEADER_BYTES_MAX);
  size_t whole = WK_PIPE_PREFIX_BYTES + (size_t)head;
  if (r->buf.size < whole)
    return BL_OK;
  bl_msg msg = BL_MSG_INIT;
  msg.head = bl_frame_copy(r->buf.data + WK_PIPE_PREFIX_BYTES, head);
  if (msg.head == NULL)
    return bl_fail(err, BL_ENOMEM, "no memory for a message of the task pipe");
  bl_msg_type type;
  bl_status status = bl_msg_check(&msg, &type, err);
  if (status != BL_OK) {
    bl_msg_fini(&msg);
    return status;
  }
  memmove(r->buf.data, r->buf.data + whole, r->buf.size - whole);
  r->buf.size -= whole;
  bl_msg_move(ret_msg, &msg);
  *ret_have = true;
  return BL_OK;
}

bl_status wk_pipe_encode(const bl_msg *msg, bl_buf *out) {
  if (msg->head == NULL || msg->n_frames != 0 || msg->head->size > BL_MSG_HEADER_BYTES_MAX)
    return BL_EINVAL;
  uint8_t prefix[WK_PIPE_PREFIX_BYTES];
  bl_le_put32(prefix, (uint32_t)msg->head->size + 4);
  bl_le_put32(prefix + 4, (uint32_t)msg->head->size);
  /* Both parts or none: half a message would break the stream. */
  if (bl_buf_reserve(out, sizeof prefix + msg->head->size) == NULL)
    return BL_ENOMEM;
  bl_buf_add(out, prefix, sizeof prefix);
  bl_buf_add(out, msg->head->data, msg->head->size);
  return BL_OK;
}

static void pipe_free(wk_pipe *p) {
  wk_pipe_reader_fini(&p->reader);
  bl_buf_fini(&p->out);
  bl_free(p);
}

static void end(wk_pipe *p, bl_status why, const char *text) {
  if (p->ended || p->closed)
    return;
  p->ended = true;
  bl_watch_stop(p->watch);
  p->on_end(why, text, p->arg);
}

/* Hands on every complete message. */
static void deliver(wk_pipe *p, const uint8_t *data, size_t size) {
  bool have = true;
  while (have && !p->closed && !p->ended) {
    bl_msg msg = BL_MSG_INIT;
    bl_error err = BL_ERROR_INIT;
    bl_status status = wk_pipe_reader_feed(&p->reader, data, size, &msg, &have, &err);
    size = 0;
    if (status != BL_OK) {
      end(p, status, err.text);
      return;
    }
    if (have)
      p->on_msg(&msg, p->arg);
    bl_msg_fini(&msg);
  }
}

static void on_readable(wk_pipe *p) {
  uint8_t buf[READ_BYTES_MAX];
  ssize_t n = recv(p->fd, buf, sizeof buf, 0);
  if (n > 0)
    deliver(p, buf, (size_t)n);
  else if (n == 0)
    end(p, BL_OK, "closed by the other end");
  else if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
    end(p, errno == ECONNRESET ? BL_OK : BL_EIO, strerror(errno));
}

/* Sends what the socket takes; watches for room when something is left. */
static void flush(wk_pipe *p) {
  while (p->out_sent < p->out.size) {
    ssize_t n = send(p->fd, p->out.data + p->out_sent, p->out.size - p->out_sent, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
      break;
    if (n < 0) {
      /* The other end is gone; reading will say so, after what it still had to tell. */
      bl_buf_clear(&p->out);
      p->out_sent = 0;
      break;
    }
    p->out_sent += (size_t)n;
  }
  if (p->out_sent == p->out.size) {
    bl_buf_clear(&p->out);
    p->out_sent = 0;
  }
  if (!p->ended)
    bl_watch_start(p->watch, p->out.size > 0 ? 3 : 1);
}

static void on_ready(int events, void *arg) {
  wk_pipe *p = arg;
  p->in_callback = true;
  if (events & 2)
    flush(p);
  if (events & 1)
    on_readable(p);
  p->in_callback = false;
  if (p->closed)
    pipe_free(p);
}

bl_status wk_pipe_open(bl_loop *l, int fd, wk_pipe_msg_fn *on_msg, wk_pipe_end_fn *on_end, void *arg,
                       wk_pipe **ret_pipe, bl_error *err) {
  wk_pipe *p = bl_calloc(1, sizeof *p);
  if (p == NULL)
    return bl_fail(err, BL_ENOMEM, "no memory for a task pipe");
  p->fd = fd;
  p->on_msg = on_msg;
  p->on_end = on_end;
  p->arg = arg;
  bl_status status = BL_OK;
  int flags = fcntl(fd, F_GETFL);
  if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
    status = bl_fail_errno(err, "cannot make the task pipe non-blocking");
  if (status == BL_OK)
    status = bl_watch_new(l, fd, on_ready, p, &p->watch);
  if (status != BL_OK) {
    bl_free(p);
    return status;
  }
  bl_watch_start(p->watch, 1);
  *ret_pipe = p;
  return BL_OK;
}

void wk_pipe_close(wk_pipe *p) {
  if (p == NULL || p->closed)
    return;
  p->closed = true;
  bl_watch_close(p->watch);
  close(p->fd);
  if (!p->in_callback)
    pipe_free(p);
}

bl_status wk_pipe_send(wk_pipe *p, bl_msg *msg) {
  if (p->ended || p->closed)
    return BL_EUNREACHABLE;
  if (wk_pipe_unsent_bytes(p) > WK_PIPE_QUEUE_BYTES_MAX)
    return BL_EAGAIN;
  if (p->out_sent > 0) {
    memmove(p->out.data, p->out.data + p->out_sent, p->out.size - p->out_sent);
    p->out.size -= p->out_sent;
    p->out_sent = 0;
  }
  bl_status status = wk_pipe_encode(msg, &p->out);
  if (status != BL_OK) {
    p->out.failed = false; /* what was queued before is whole and still to be sent */
    return status;
  }
  bl_msg_fini(msg);
  flush(p);
  return BL_OK;
}

size_t wk_pipe_unsent_bytes(const wk_pipe *p) { return p->out.size - p->out_sent; }
