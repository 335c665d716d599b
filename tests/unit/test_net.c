/* SPDX-License-Identifier: Apache-2.0
 *
 * ZeroMQ sockets on the loop, CURVE with its allow-list, key files. Contexts are made inside each test: they
 * do not survive the fork. Every wait has a deadline.
 */
#include "base/alloc.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/le.h"
#include "base/log.h"
#include "net/keys.h"
#include "net/socket.h"
#include "tests/support/support.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

/* ---- rig ---- */

typedef struct end end;
struct end {
  bl_socket *socket;
  bl_transport *transport;
  int n;            /* received */
  bool echo, keep;
  int refused_sends;
  bl_peer from;     /* of the last one */
  bl_msg last;      /* with keep */
  uint64_t sequence_errors;
  void (*act)(end *e);
};

static bl_loop *loop;

static void set_up(void) {
  bl_log_set_level(BL_LOG_ERROR);
  loop = bl_loop_new();
}
static void tear_down(void) { bl_loop_free(loop); }

static void on_msg(const bl_peer *from, bl_msg *msg, void *arg) {
  end *e = arg;
  if (msg->head->size >= 12 && bl_le_get32(msg->head->data + 8) != (uint32_t)e->n)
    e->sequence_errors++;
  e->n++;
  e->from = *from;
  if (e->keep) {
    bl_msg_fini(&e->last);
    bl_msg_move(&e->last, msg);
  } else if (e->echo) {
    e->refused_sends += bl_transport_send(e->transport, from, msg) != BL_OK;
  }
  if (e->act != NULL)
    e->act(e);
}

static bl_net *net_new(const bl_keypair *keys, const bl_allow_entry *allow, size_t n) {
  bl_net_config c = {.allow = allow, .n_allow = n};
  if (keys != NULL)
    c.keys = *keys;
  bl_net *net;
  bl_error err = BL_ERROR_INIT;
  ck_assert_ok_err(bl_net_new(&c, &net, &err), err);
  return net;
}

static void open_end(end *e, bl_net *n, bl_socket_kind kind, const char *identity, const char *server_key, int hwm) {
  bl_socket_config c = {.kind = kind, .identity = identity, .server_key = server_key, .send_hwm = hwm,
                        .receive_hwm = hwm, .on_msg = on_msg, .arg = e};
  bl_error err = BL_ERROR_INIT;
  ck_assert_ok_err(bl_socket_open(n, loop, &c, &e->socket, &err), err);
  e->transport = bl_socket_transport(e->socket);
}

static uint16_t bind_end(end *e) {
  uint16_t port = 0;
  bl_error err = BL_ERROR_INIT;
  ck_assert_ok_err(bl_socket_bind(e->socket, "127.0.0.1", 0, &port, &err), err);
  ck_assert_uint_ne(port, 0);
  return port;
}

static void connect_end(end *e, uint16_t port) {
  char endpoint[64];
  bl_error err = BL_ERROR_INIT;
  snprintf(endpoint, sizeof endpoint, "tcp://127.0.0.1:%u", port);
  ck_assert_ok_err(bl_socket_connect(e->socket, endpoint, &err), err);
}

static void close_end(end *e) {
  bl_socket_close(e->socket);
  bl_msg_fini(&e->last);
}

/* Message of type PULL (any will do) that carries its number and frames of one size. */
static bl_msg numbered(uint32_t number, uint32_t n_frames, size_t frame_bytes) {
  bl_msg m = BL_MSG_INIT;
  m.head = bl_frame_new(12);
  memcpy(m.head->data, "BL\1\0", 4);
  bl_le_put16(m.head->data + 4, BL_MSG_PULL);
  bl_le_put16(m.head->data + 6, (uint16_t)n_frames);
  bl_le_put32(m.head->data + 8, number);
  for (uint32_t i = 0; i < n_frames; i++) {
    bl_frame *f = bl_frame_new(frame_bytes);
    memset(f->data, (int)(i + 1), frame_bytes);
    ck_assert_ok(bl_msg_add_frame(&m, f));
  }
  return m;
}

static uint64_t deadline_in_s(unsigned s) { return bl_clock_now_ns() + s * BL_NS_PER_S; }

static void run_until(const int *what, int n) {
  for (uint64_t due = deadline_in_s(20); *what < n && bl_clock_now_ns() < due;)
    bl_loop_run_once(loop, 20);
  ck_assert_int_ge(*what, n);
}

/* Repeats a send until it is taken. */
static void send_all(end *e, const bl_peer *to, bl_msg *m) {
  bl_status st = BL_EAGAIN;
  for (uint64_t due = deadline_in_s(20); st == BL_EAGAIN && bl_clock_now_ns() < due;)
    if ((st = bl_transport_send(e->transport, to, m)) == BL_EAGAIN)
      bl_loop_run_once(loop, 1);
  ck_assert_ok(st);
}

/* ---- plain sockets ---- */

START_TEST(ten_thousand_messages_go_both_ways_in_order) {
  end server = {.echo = true}, client = {0};
  bl_net *n = net_new(NULL, NULL, 0);
  open_end(&server, n, BL_SOCKET_ROUTER, NULL, NULL, 20000);
  open_end(&client, n, BL_SOCKET_DEALER, "j1.r0.i1", NULL, 20000);
  connect_end(&client, bind_end(&server));
  for (uint32_t i = 0; i < 10000; i++) {
    bl_msg m = numbered(i, i % 7 == 0, 3000);
    send_all(&client, NULL, &m);
    ck_assert_ptr_null(m.head);
    if (i % 50 == 0)
      bl_loop_run_once(loop, 0);
  }
  run_until(&client.n, 10000);
  ck_assert_int_eq(server.n, 10000);
  ck_assert_int_eq(server.refused_sends, 0);
  ck_assert_uint_eq(server.sequence_errors + client.sequence_errors, 0);
  ck_assert_uint_eq(server.from.id_size, 8);
  ck_assert_mem_eq(server.from.id, "j1.r0.i1", 8);
  ck_assert(!server.from.authenticated && server.from.role == BL_ROLE_INVALID);
  bl_socket_stats st = bl_socket_get_stats(server.socket);
  ck_assert_uint_eq(st.messages_in, 10000);
  ck_assert_uint_eq(st.messages_out, 10000);
  ck_assert_uint_eq(st.bytes_in, 10000 * 12 + 1429 * 3000);
  close_end(&client);
  close_end(&server);
  bl_net_free(n);
}
END_TEST

/* Ends of connections in this process with this congestion control. */
static int ends_with(const char *congestion) {
  int n = 0;
  for (int fd = 3; fd < 256; fd++) {
    struct sockaddr_storage peer;
    socklen_t size = sizeof peer;
    char name[16] = "";
    socklen_t name_size = sizeof name;
    n += getpeername(fd, (struct sockaddr *)&peer, &size) == 0 &&
         getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &name_size) == 0 && strcmp(name, congestion) == 0;
  }
  return n;
}

START_TEST(connections_over_loopback_are_not_paced) {
  end server = {.echo = true}, client = {0};
  bl_net *n = net_new(NULL, NULL, 0);
  open_end(&server, n, BL_SOCKET_ROUTER, NULL, NULL, 0);
  open_end(&client, n, BL_SOCKET_DEALER, "j1.r0.i1", NULL, 0);
  connect_end(&client, bind_end(&server));
  bl_msg m = numbered(0, 0, 0);
  send_all(&client, NULL, &m);
  run_until(&client.n, 1);
  for (uint64_t due = deadline_in_s(20); ends_with("reno") < 2 && bl_clock_now_ns() < due;)
    bl_loop_run_once(loop, 20);
  ck_assert_int_eq(ends_with("reno"), 2);
  close_end(&client);
  close_end(&server);
  bl_net_free(n);
}
END_TEST

START_TEST(ping_pong_never_stalls_and_allocates_nothing) {
  /* One message in flight: every turn depends on the edge of the descriptor being seen. */
  end server = {.echo = true}, client = {.echo = true};
  bl_net *n = net_new(NULL, NULL, 0);
  open_end(&server, n, BL_SOCKET_ROUTER, NULL, NULL, 0);
  open_end(&client, n, BL_SOCKET_DEALER, NULL, NULL, 0);
  connect_end(&client, bind_end(&server));
  bl_msg m = numbered(0, 0, 0);
  bl_le_put16(m.head->data + 6, 1);
  ck_assert_ok(bl_msg_add_frame(&m, bl_frame_new(3000))); /* head copied, frame used in place */
  send_all(&client, NULL, &m);
  run_until(&client.n, 100);
  uint64_t calls = bl_alloc_get_stats().total_calls;
  for (uint64_t due = deadline_in_s(20); client.n < 2000 && bl_clock_now_ns() < due;)
    bl_loop_run_once(loop, 5000); /* a stall shows as five seconds */
  ck_assert_int_ge(client.n, 2000);
  ck_assert_uint_eq(bl_alloc_get_stats().total_calls, calls); /* steady traffic comes from pools */
  close_end(&client);
  close_end(&server);
  bl_net_free(n);
}
END_TEST

START_TEST(frames_of_a_mebibyte_are_used_in_place_and_forwarded) {
  end server = {.echo = true}, client = {.keep = true};
  bl_net *n = net_new(NULL, NULL, 0);
  open_end(&server, n, BL_SOCKET_ROUTER, NULL, NULL, 0);
  open_end(&client, n, BL_SOCKET_DEALER, NULL, NULL, 0);
  connect_end(&client, bind_end(&server));
  bl_msg m = numbered(0, 64, 1u << 20);
  m.frames[63]->size = 10; /* a small one among them is copied */
  send_all(&client, NULL, &m);
  run_until(&client.n, 1);
  ck_assert_uint_eq(client.last.n_frames, 64);
  for (uint32_t i = 0; i < 64; i++) {
    bl_frame *f = client.last.frames[i];
    ck_assert_uint_eq(f->size, i == 63 ? 10 : 1u << 20);
    ck_assert_uint_eq(f->data[0], i + 1);
    ck_assert_uint_eq(f->data[f->size - 1], i + 1);
  }
  /* Frames live on without socket and context. */
  close_end(&server);
  bl_socket_close(client.socket);
  bl_net_free(n);
  ck_assert_uint_eq(client.last.frames[5]->data[99], 6);
  bl_msg_fini(&client.last);
}
END_TEST

START_TEST(one_frame_goes_to_many_by_reference) {
  end server = {.keep = true}, a = {0}, b = {0};
  bl_net *n = net_new(NULL, NULL, 0);
  open_end(&server, n, BL_SOCKET_ROUTER, NULL, NULL, 0);
  open_end(&a, n, BL_SOCKET_DEALER, "a", NULL, 0);
  open_end(&b, n, BL_SOCKET_DEALER, "b", NULL, 0);
  uint16_t port = bind_end(&server);
  connect_end(&a, port);
  connect_end(&b, port);
  bl_msg hello = numbered(0, 0, 0);
  send_all(&a, NULL, &hello);
  hello = numbered(0, 0, 0);
  send_all(&b, NULL, &hello);
  run_until(&server.n, 2);
  bl_frame *shared = bl_frame_new(500000);
  memset(shared->data, 9, 500000);
  for (uint32_t i = 0; i < 20; i++) {
    bl_peer to = {.id = {i % 2 == 0 ? 'a' : 'b'}, .id_size = 1};
    bl_msg m = numbered(i / 2, 0, 0);
    bl_le_put16(m.head->data + 6, 1);
    ck_assert_ok(bl_msg_add_frame(&m, bl_frame_ref(shared)));
    send_all(&server, &to, &m);
  }
  run_until(&a.n, 10);
  run_until(&b.n, 10);
  ck_assert_uint_eq(a.sequence_errors + b.sequence_errors, 0);
  close_end(&a);
  close_end(&b);
  close_end(&server);
  bl_net_free(n); /* all that ZeroMQ held is back */
  ck_assert_uint_eq(atomic_load(&shared->refs), 1);
  bl_frame_unref(shared);
}
END_TEST

START_TEST(unknown_peer_is_unreachable_and_the_message_stays) {
  end server = {0};
  bl_net *n = net_new(NULL, NULL, 0);
  open_end(&server, n, BL_SOCKET_ROUTER, NULL, NULL, 0);
  bind_end(&server);
  bl_peer nobody = {.id = {'x'}, .id_size = 1};
  bl_msg m = numbered(0, 2, 5000);
  ck_assert_status(bl_transport_send(server.transport, &nobody, &m), BL_EUNREACHABLE);
  ck_assert_uint_eq(m.n_frames, 2);
  ck_assert_uint_eq(atomic_load(&m.frames[0]->refs), 1);
  bl_msg_fini(&m);
  close_end(&server);
  bl_net_free(n);
}
END_TEST

START_TEST(full_queue_is_again_and_nothing_is_lost) {
  end server = {0}, client = {0};
  bl_net *n = net_new(NULL, NULL, 0);
  open_end(&server, n, BL_SOCKET_ROUTER, NULL, NULL, 4);
  open_end(&client, n, BL_SOCKET_DEALER, "c", NULL, 4);
  connect_end(&client, bind_end(&server));
  /* Nobody runs the loop: the queues fill. */
  uint32_t taken = 0;
  bl_status st = BL_OK;
  while (st == BL_OK && taken < 100000) {
    bl_msg m = numbered(taken, 3, 1u << 20);
    st = bl_transport_send(client.transport, NULL, &m);
    ck_assert(st == BL_OK || m.n_frames == 3);
    taken += st == BL_OK;
    bl_msg_fini(&m);
  }
  ck_assert_status(st, BL_EAGAIN);
  ck_assert_uint_eq(bl_socket_get_stats(client.socket).again, 1);
  run_until(&server.n, (int)taken);
  ck_assert_uint_eq(server.sequence_errors, 0);
  bl_msg m = numbered(taken, 1, 10);
  send_all(&client, NULL, &m);
  run_until(&server.n, (int)taken + 1);
  ck_assert_uint_eq(server.sequence_errors, 0);
  ck_assert_uint_eq(bl_socket_get_stats(server.socket).malformed, 0);
  close_end(&client);
  close_end(&server);
  bl_net_free(n);
}
END_TEST

/* A plain ZeroMQ peer, for messages that ours cannot send. */
static void *raw_dealer(void *context, uint16_t port) {
  void *s = zmq_socket(context, ZMQ_DEALER);
  int linger = 2000;
  char endpoint[64];
  snprintf(endpoint, sizeof endpoint, "tcp://127.0.0.1:%u", port);
  ck_assert_int_eq(zmq_setsockopt(s, ZMQ_LINGER, &linger, sizeof linger), 0);
  ck_assert_int_eq(zmq_connect(s, endpoint), 0);
  return s;
}

START_TEST(malformed_messages_are_counted_and_dropped) {
  end server = {0};
  bl_net *n = net_new(NULL, NULL, 0);
  open_end(&server, n, BL_SOCKET_ROUTER, NULL, NULL, 0);
  void *context = zmq_ctx_new();
  void *raw = raw_dealer(context, bind_end(&server));
  zmq_send(raw, "", 0, 0);
  zmq_send(raw, "nonsense", 8, 0);
  zmq_send(raw, "BL\1\0\6\0\1\0", 8, 0); /* announces a frame that is not there */
  for (int i = 0; i < 400; i++)           /* too many parts */
    zmq_send(raw, "BL\1\0\6\0\0\1", 8, i < 399 ? ZMQ_SNDMORE : 0);
  uint8_t *large = calloc(1, 3u << 20); /* a frame above its limit, below the socket's */
  zmq_send(raw, "BL\1\0\6\0\1\0", 8, ZMQ_SNDMORE);
  zmq_send(raw, large, 3u << 20, 0);
  free(large);
  zmq_send(raw, "BL\1\0\6\0\0\0", 8, 0); /* and a good one */
  run_until(&server.n, 1);
  ck_assert_int_eq(server.n, 1);
  ck_assert_uint_eq(bl_socket_get_stats(server.socket).malformed, 5);
  zmq_close(raw);
  zmq_ctx_term(context);
  close_end(&server);
  bl_net_free(n);
}
END_TEST

START_TEST(part_above_the_sockets_limit_ends_the_connection_only) {
  end server = {0};
  bl_net *n = net_new(NULL, NULL, 0);
  open_end(&server, n, BL_SOCKET_ROUTER, NULL, NULL, 0);
  uint16_t port = bind_end(&server);
  void *context = zmq_ctx_new();
  void *raw = raw_dealer(context, port), *good = raw_dealer(context, port);
  uint8_t *large = calloc(1, BL_MSG_HEADER_BYTES_MAX + 1);
  memcpy(large, "BL\1\0\6\0\0\0", 8);
  zmq_send(raw, large, BL_MSG_HEADER_BYTES_MAX + 1, 0);
  zmq_send(raw, "BL\1\0\6\0\0\0", 8, 0); /* behind it, after the reconnection */
  zmq_send(good, "BL\1\0\6\0\0\0", 8, 0);
  free(large);
  run_until(&server.n, 1);
  for (uint64_t due = bl_clock_now_ns() + 300 * BL_NS_PER_MS; bl_clock_now_ns() < due;)
    bl_loop_run_once(loop, 20);
  ck_assert_uint_le(bl_socket_get_stats(server.socket).bytes_in, 16);
  ck_assert_uint_eq(bl_socket_get_stats(server.socket).malformed, 0);
  zmq_close(raw);
  zmq_close(good);
  zmq_ctx_term(context);
  close_end(&server);
  bl_net_free(n);
}
END_TEST

START_TEST(garbage_on_the_port_does_no_harm) {
  end server = {.echo = true}, client = {0};
  bl_net *n = net_new(NULL, NULL, 0);
  open_end(&server, n, BL_SOCKET_ROUTER, NULL, NULL, 0);
  open_end(&client, n, BL_SOCKET_DEALER, NULL, NULL, 0);
  uint16_t port = bind_end(&server);
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  uint32_t random = 12345;
  for (int i = 0; i < 40; i++) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    ck_assert_int_eq(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    uint8_t bytes[512] = {0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 3, 0, 'N', 'U', 'L', 'L'}; /* a ZMTP greeting */
    for (size_t k = i % 2 == 0 ? 0 : 64; k < sizeof bytes; k++)
      bytes[k] = (uint8_t)((random = random * 1664525u + 1013904223u) >> 24);
    ck_assert_int_gt(send(fd, bytes, sizeof bytes, MSG_NOSIGNAL), 0);
    close(fd);
    bl_loop_run_once(loop, 0);
  }
  connect_end(&client, port);
  bl_msg m = numbered(0, 1, 2000);
  send_all(&client, NULL, &m);
  run_until(&client.n, 1);
  close_end(&client);
  close_end(&server);
  bl_net_free(n);
}
END_TEST

START_TEST(address_in_use_is_named) {
  end a = {0}, b = {0};
  bl_net *n = net_new(NULL, NULL, 0);
  open_end(&a, n, BL_SOCKET_ROUTER, NULL, NULL, 0);
  open_end(&b, n, BL_SOCKET_ROUTER, NULL, NULL, 0);
  uint16_t port = bind_end(&a), other = 7;
  bl_error err = BL_ERROR_INIT;
  char expected[64];
  snprintf(expected, sizeof expected, "127.0.0.1 port %u: the address is in use", port);
  ck_assert_status(bl_socket_bind(b.socket, "127.0.0.1", port, &other, &err), BL_EEXIST);
  ck_assert_msg(strstr(err.text, expected) != NULL, "%s", err.text);
  ck_assert_uint_eq(other, 7);
  ck_assert_status(bl_socket_bind(b.socket, "no-such-host.invalid", 0, &other, &err), BL_EINVAL);
  ck_assert_ptr_nonnull(strstr(err.text, "no-such-host.invalid"));
  static const char *const hosts[] = {"localhost", "*", "::1", "0.0.0.0"};
  for (size_t i = 0; i < BL_COUNT_OF(hosts); i++)
    ck_assert_ok_err(bl_socket_bind(b.socket, hosts[i], 0, &other, &err), err);
  ck_assert_status(bl_socket_connect(b.socket, "udp://127.0.0.1:5", &err), BL_EINVAL);
  ck_assert_status(bl_socket_connect(b.socket, "tcp://127.0.0.1", &err), BL_EINVAL);
  close_end(&a);
  close_end(&b);
  bl_net_free(n);
}
END_TEST

START_TEST(reconnect_drops_the_queue_and_reaches_the_new_place) {
  end first = {0}, second = {0}, client = {0};
  bl_net *n = net_new(NULL, NULL, 0);
  open_end(&first, n, BL_SOCKET_ROUTER, NULL, NULL, 0);
  open_end(&second, n, BL_SOCKET_ROUTER, NULL, NULL, 0);
  open_end(&client, n, BL_SOCKET_DEALER, "c", NULL, 0);
  connect_end(&client, 1); /* nobody there: what is sent waits */
  bl_msg m = numbered(77, 0, 0);
  send_all(&client, NULL, &m);
  char endpoint[64];
  bl_error err = BL_ERROR_INIT;
  snprintf(endpoint, sizeof endpoint, "tcp://127.0.0.1:%u", bind_end(&second));
  ck_assert_status(bl_socket_reconnect(client.socket, "nonsense", &err), BL_EINVAL);
  ck_assert_ok_err(bl_socket_reconnect(client.socket, endpoint, &err), err);
  m = numbered(0, 0, 0);
  send_all(&client, NULL, &m);
  run_until(&second.n, 1);
  ck_assert_uint_eq(second.sequence_errors, 0); /* 77 did not come */
  ck_assert_mem_eq(second.from.id, "c", 1);
  close_end(&client);
  close_end(&first);
  close_end(&second);
  bl_net_free(n);
}
END_TEST

static void act_close(end *e) {
  bl_socket_close(e->socket);
  e->socket = NULL;
}

START_TEST(socket_can_be_closed_by_its_own_callback) {
  end server = {.act = act_close}, client = {0};
  bl_net *n = net_new(NULL, NULL, 0);
  open_end(&server, n, BL_SOCKET_ROUTER, NULL, NULL, 0);
  open_end(&client, n, BL_SOCKET_DEALER, NULL, NULL, 0);
  connect_end(&client, bind_end(&server));
  for (uint32_t i = 0; i < 5; i++) {
    bl_msg m = numbered(i, 1, 3000);
    send_all(&client, NULL, &m);
  }
  run_until(&server.n, 1);
  bl_loop_run_once(loop, 10);
  ck_assert_int_eq(server.n, 1);
  close_end(&client);
  bl_net_free(n);
}
END_TEST

START_TEST(restarted_peer_takes_over_its_identity) {
  end server = {.echo = true}, old = {0}, new = {0};
  bl_net *n = net_new(NULL, NULL, 0);
  open_end(&server, n, BL_SOCKET_ROUTER, NULL, NULL, 0);
  uint16_t port = bind_end(&server);
  open_end(&old, n, BL_SOCKET_DEALER, "same", NULL, 0);
  connect_end(&old, port);
  bl_msg m = numbered(0, 0, 0);
  send_all(&old, NULL, &m);
  run_until(&old.n, 1);
  open_end(&new, n, BL_SOCKET_DEALER, "same", NULL, 0);
  connect_end(&new, port);
  m = numbered(1, 0, 0);
  send_all(&new, NULL, &m);
  run_until(&new.n, 1);
  ck_assert_int_eq(old.n, 1);
  close_end(&old);
  close_end(&new);
  close_end(&server);
  bl_net_free(n);
}
END_TEST

/* ---- CURVE ---- */

static bl_keypair make_keys(void) {
  bl_keypair k;
  ck_assert_ok(bl_keys_generate(&k, NULL));
  return k;
}

static bl_allow_entry allow(const bl_keypair *k, bl_role role, const char *name) {
  bl_allow_entry e = {.role = role};
  memcpy(e.public_key, k->public_key, sizeof e.public_key);
  snprintf(e.name, sizeof e.name, "%s", name);
  return e;
}

/* Sends one message and waits: true when the server got it within the time. */
static bool gets_through(end *client, end *server, unsigned ms) {
  int before = server->n;
  bl_msg m = numbered((uint32_t)before, 0, 0);
  ck_assert_ok(bl_transport_send(client->transport, NULL, &m));
  for (uint64_t due = bl_clock_now_ns() + ms * BL_NS_PER_MS; server->n == before && bl_clock_now_ns() < due;)
    bl_loop_run_once(loop, 10);
  return server->n > before;
}

static void run_until_refused(bl_net *n, uint64_t more_than) {
  for (uint64_t due = deadline_in_s(15); bl_net_refused_handshakes(n) <= more_than && bl_clock_now_ns() < due;)
    bl_loop_run_once(loop, 10);
  ck_assert_uint_gt(bl_net_refused_handshakes(n), more_than);
}

START_TEST(curve_lets_in_whom_the_list_names) {
  bl_keypair ks = make_keys(), kc = make_keys();
  bl_allow_entry list[] = {allow(&kc, BL_ROLE_WORKER, "w1"), allow(&ks, BL_ROLE_SERVER, "s1")};
  bl_net *ns = net_new(&ks, list, 2), *nc = net_new(&kc, list, 2);
  end server = {.echo = true}, client = {0};
  open_end(&server, ns, BL_SOCKET_ROUTER, NULL, NULL, 0);
  open_end(&client, nc, BL_SOCKET_DEALER, "w1", ks.public_key, 0);
  connect_end(&client, bind_end(&server));
  ck_assert(gets_through(&client, &server, 10000));
  ck_assert(server.from.authenticated);
  ck_assert_int_eq(server.from.role, BL_ROLE_WORKER);
  ck_assert_str_eq(server.from.name, "w1");
  run_until(&client.n, 1);
  ck_assert(client.from.authenticated);
  ck_assert_int_eq(client.from.role, BL_ROLE_SERVER);
  ck_assert_str_eq(client.from.name, "s1");
  /* Large frames through encryption. */
  bl_msg m = numbered(1, 4, 1u << 20);
  send_all(&client, NULL, &m);
  run_until(&client.n, 2);
  ck_assert_uint_eq(bl_net_refused_handshakes(ns), 0);
  close_end(&client);
  close_end(&server);
  bl_net_free(nc);
  bl_net_free(ns);
}
END_TEST

static const char *const strangers[] = {"unlisted key", "no key", "wrong key of the server"};

START_TEST(curve_refuses_and_counts_strangers) {
  bl_keypair ks = make_keys(), kc = make_keys(), other = make_keys();
  bl_allow_entry list[] = {allow(&kc, BL_ROLE_WORKER, "w1")};
  bl_net *ns = net_new(&ks, list, 1);
  bl_net *nc = net_new(_i == 1 ? NULL : _i == 0 ? &other : &kc, NULL, 0);
  end server = {.echo = true}, client = {0};
  open_end(&server, ns, BL_SOCKET_ROUTER, NULL, NULL, 0);
  open_end(&client, nc, BL_SOCKET_DEALER, "w1", _i == 1 ? NULL : _i == 0 ? ks.public_key : other.public_key, 0);
  connect_end(&client, bind_end(&server));
  ck_assert_msg(!gets_through(&client, &server, 500), "%s", strangers[_i]);
  run_until_refused(ns, 0);
  ck_assert_int_eq(server.n, 0);
  close_end(&client);
  close_end(&server);
  bl_net_free(nc);
  bl_net_free(ns);
}
END_TEST

static void act_no_late(end *e) { ck_assert(e->from.id_size != 4 || memcmp(e->from.id, "late", 4) != 0); }

START_TEST(key_added_comes_in_and_key_removed_stays_out) {
  bl_keypair ks = make_keys(), kc = make_keys();
  bl_allow_entry list[] = {allow(&kc, BL_ROLE_ADMIN, "ann")};
  bl_net *ns = net_new(&ks, NULL, 0), *nc = net_new(&kc, NULL, 0);
  end server = {0}, client = {0}, late = {0};
  open_end(&server, ns, BL_SOCKET_ROUTER, NULL, NULL, 0);
  open_end(&client, nc, BL_SOCKET_DEALER, NULL, ks.public_key, 0);
  uint16_t port = bind_end(&server);
  connect_end(&client, port);
  run_until_refused(ns, 0);
  ck_assert_ok(bl_net_set_allow(ns, list, 1));
  bl_msg m = numbered(0, 0, 0);
  for (uint64_t due = deadline_in_s(15); server.n == 0 && bl_clock_now_ns() < due;) {
    bl_loop_run_once(loop, 20);
    if (m.head != NULL && bl_transport_send(client.transport, NULL, &m) != BL_OK)
      continue;
    bl_msg_fini(&m);
    m = numbered(0, 0, 0); /* repeated, as protocols above do: what was queued for a refused connection is gone */
  }
  bl_msg_fini(&m);
  ck_assert_int_gt(server.n, 0);
  ck_assert_int_eq(server.from.role, BL_ROLE_ADMIN);
  uint64_t refused = bl_net_refused_handshakes(ns);
  ck_assert_ok(bl_net_set_allow(ns, NULL, 0));
  server.act = act_no_late;
  open_end(&late, nc, BL_SOCKET_DEALER, "late", ks.public_key, 0);
  connect_end(&late, port);
  m = numbered(0, 0, 0);
  send_all(&late, NULL, &m);
  run_until_refused(ns, refused);
  for (uint64_t due = bl_clock_now_ns() + 200 * BL_NS_PER_MS; bl_clock_now_ns() < due;)
    bl_loop_run_once(loop, 10);
  close_end(&late);
  close_end(&client);
  close_end(&server);
  bl_net_free(nc);
  bl_net_free(ns);
}
END_TEST

START_TEST(identity_belongs_to_the_key_that_showed_it_first) {
  bl_keypair ks = make_keys(), k1 = make_keys(), k2 = make_keys();
  bl_allow_entry list[] = {allow(&k1, BL_ROLE_WORKER, "w1"), allow(&k2, BL_ROLE_WORKER, "w2")};
  bl_net *ns = net_new(&ks, list, 2), *n1 = net_new(&k1, NULL, 0), *n2 = net_new(&k2, NULL, 0);
  end server = {0}, c1 = {0}, c2 = {0};
  open_end(&server, ns, BL_SOCKET_ROUTER, NULL, NULL, 0);
  open_end(&c1, n1, BL_SOCKET_DEALER, "w1", ks.public_key, 0);
  open_end(&c2, n2, BL_SOCKET_DEALER, "w1", ks.public_key, 0);
  uint16_t port = bind_end(&server);
  connect_end(&c1, port);
  ck_assert(gets_through(&c1, &server, 10000));
  connect_end(&c2, port);
  bl_msg m = numbered(0, 0, 0);
  send_all(&c2, NULL, &m);
  for (uint64_t due = deadline_in_s(15);
       bl_socket_get_stats(server.socket).impostors == 0 && bl_clock_now_ns() < due;)
    bl_loop_run_once(loop, 10);
  ck_assert_uint_eq(bl_socket_get_stats(server.socket).impostors, 1);
  ck_assert_int_eq(server.n, 1);
  close_end(&c1);
  close_end(&c2);
  close_end(&server);
  bl_net_free(n1);
  bl_net_free(n2);
  bl_net_free(ns);
}
END_TEST

START_TEST(keys_that_cannot_work_are_refused_at_once) {
  bl_keypair k = make_keys();
  bl_net_config c = {.keys = k};
  bl_error err = BL_ERROR_INIT;
  bl_net *n;
  c.keys.secret_key[3] = ' ';
  ck_assert_status(bl_net_new(&c, &n, &err), BL_EINVAL);
  n = net_new(NULL, NULL, 0);
  bl_socket_config sc = {.kind = BL_SOCKET_DEALER, .server_key = k.public_key, .on_msg = on_msg};
  bl_socket *s;
  ck_assert_status(bl_socket_open(n, loop, &sc, &s, &err), BL_EINVAL);
  ck_assert_ptr_nonnull(strstr(err.text, "own"));
  bl_net_free(n);
}
END_TEST

START_TEST(shortage_of_memory_is_survived) {
  uint64_t live = bl_alloc_get_stats().live_blocks;
  bl_net_config nc = {.allow = NULL};
  bl_status st = BL_ENOMEM;
  for (uint64_t nth = 1; st != BL_OK; nth++) {
    ck_assert_status(st, BL_ENOMEM);
    bl_net *n = NULL;
    bl_socket *s = NULL;
    bl_socket_config sc = {.kind = BL_SOCKET_ROUTER, .on_msg = on_msg};
    bl_alloc_fail_after(nth);
    st = bl_net_new(&nc, &n, NULL);
    if (st == BL_OK)
      st = bl_socket_open(n, loop, &sc, &s, NULL);
    bl_alloc_fail_after(0);
    bl_socket_close(s);
    bl_net_free(n);
    bl_loop_run_once(loop, 0);
  }
  bl_loop_run_once(loop, 0);
  ck_assert_uint_eq(bl_alloc_get_stats().live_blocks, live);
}
END_TEST

/* ---- key files ---- */

static char *write_file(const char *name, const char *text, unsigned mode) {
  static char path[512];
  snprintf(path, sizeof path, "%s/%s", test_temp_dir(), name);
  ck_assert_ok(bl_file_write_atomic(path, text, strlen(text), mode, NULL));
  ck_assert_int_eq(chmod(path, mode), 0);
  return path;
}

START_TEST(key_file_comes_back_and_is_private) {
  bl_keypair k = make_keys(), again;
  char path[512];
  snprintf(path, sizeof path, "%s/key.yaml", test_temp_dir());
  bl_error err = BL_ERROR_INIT;
  ck_assert_ok_err(bl_keys_write(&k, path, false, &err), err);
  struct stat sb;
  ck_assert_int_eq(stat(path, &sb), 0);
  ck_assert_uint_eq(sb.st_mode & 07777, 0600);
  ck_assert_ok_err(bl_keys_read(path, &again, &err), err);
  ck_assert_mem_eq(&k, &again, sizeof k);
  ck_assert_status(bl_keys_write(&k, path, false, &err), BL_EEXIST);
  ck_assert_ok(bl_keys_write(&k, path, true, &err));
  ck_assert_int_eq(chmod(path, 0640), 0);
  ck_assert_status(bl_keys_read(path, &again, &err), BL_EACCES);
  ck_assert_ptr_nonnull(strstr(err.text, "mode 0640"));
  ck_assert_status(bl_keys_read("/nowhere/key", &again, &err), BL_ENOENT);
}
END_TEST

START_TEST(key_file_with_mistakes_is_refused_with_its_line) {
  bl_keypair a = make_keys(), b = make_keys(), k;
  bl_error err = BL_ERROR_INIT;
  char text[512];
  snprintf(text, sizeof text, "# c\npublic: \"%s\"\nnonsense\n", a.public_key);
  ck_assert_status(bl_keys_read(write_file("k1", text, 0600), &k, &err), BL_EINVAL);
  ck_assert_ptr_nonnull(strstr(err.text, "k1:3: "));
  ck_assert_status(bl_keys_read(write_file("k2", "", 0600), &k, &err), BL_EINVAL);
  snprintf(text, sizeof text, "public: %s\nsecret: %s\n", a.public_key, b.secret_key);
  ck_assert_status(bl_keys_read(write_file("k3", text, 0600), &k, &err), BL_ECORRUPT);
  snprintf(text, sizeof text, "public: '%s'\r\n\nsecret: %s  \n", a.public_key, a.secret_key);
  ck_assert_ok_err(bl_keys_read(write_file("k4", text, 0600), &k, &err), err);
  ck_assert_str_eq(k.secret_key, a.secret_key);
}
END_TEST

START_TEST(allow_file_is_read_and_mistakes_have_lines) {
  bl_keypair a = make_keys(), b = make_keys();
  bl_error err = BL_ERROR_INIT;
  bl_allow_entry *list;
  size_t n;
  char text[1024];
  snprintf(text, sizeof text, "# peers\n\n%s worker w1\n  %s\tadmin  ann\r\n", a.public_key, b.public_key);
  ck_assert_ok_err(bl_allow_read(write_file("allow", text, 0644), &list, &n, &err), err);
  ck_assert_uint_eq(n, 2);
  ck_assert_int_eq(list[0].role, BL_ROLE_WORKER);
  ck_assert_str_eq(list[1].name, "ann");
  ck_assert_str_eq(list[1].public_key, b.public_key);
  bl_free(list);
  ck_assert_ok(bl_allow_read(write_file("empty", "", 0644), &list, &n, &err));
  ck_assert_uint_eq(n, 0);
  bl_free(list);
  const struct {
    const char *format, *expected;
  } bad[] = {{"\n%s wroker w1\n", "bad:2: role wroker is none of"}, {"%s worker\n", "bad:1: expected <public key>"},
             {"x%s worker w1\n", "is no public key"},               {"%s worker w/1\n", "name w/1"}};
  for (size_t i = 0; i < BL_COUNT_OF(bad); i++) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    snprintf(text, sizeof text, bad[i].format, a.public_key);
#pragma GCC diagnostic pop
    ck_assert_status(bl_allow_read(write_file("bad", text, 0644), &list, &n, &err), BL_EINVAL);
    ck_assert_msg(strstr(err.text, bad[i].expected) != NULL, "%s", err.text);
  }
  snprintf(text, sizeof text, "%s worker w1\n%s admin ann\n", a.public_key, a.public_key);
  ck_assert_status(bl_allow_read(write_file("twice", text, 0644), &list, &n, &err), BL_EINVAL);
  ck_assert_ptr_nonnull(strstr(err.text, "twice:2: key of w1 stands here again for ann"));
}
END_TEST

START_TEST(loopback_hosts_are_known) {
  static const char *const yes[] = {"127.0.0.1", "127.9.9.9", "::1", "localhost", "LocalHost", "::ffff:127.0.0.1"};
  static const char *const no[] = {"0.0.0.0", "*", "::", "10.0.0.1", "128.0.0.1", "localhost.example.org", "", "127.1"};
  for (size_t i = 0; i < BL_COUNT_OF(yes); i++)
    ck_assert_msg(bl_host_is_loopback(yes[i]), "%s", yes[i]);
  for (size_t i = 0; i < BL_COUNT_OF(no); i++)
    ck_assert_msg(!bl_host_is_loopback(no[i]), "%s", no[i]);
}
END_TEST

int main(void) {
  bl_net_tune_process();
  Suite *s = suite_create("net");
  TCase *plain = tcase_create("sockets");
  tcase_add_checked_fixture(plain, set_up, tear_down);
  tcase_set_timeout(plain, 40);
  tcase_add_test(plain, ten_thousand_messages_go_both_ways_in_order);
  tcase_add_test(plain, connections_over_loopback_are_not_paced);
  tcase_add_test(plain, ping_pong_never_stalls_and_allocates_nothing);
  tcase_add_test(plain, frames_of_a_mebibyte_are_used_in_place_and_forwarded);
  tcase_add_test(plain, one_frame_goes_to_many_by_reference);
  tcase_add_test(plain, unknown_peer_is_unreachable_and_the_message_stays);
  tcase_add_test(plain, full_queue_is_again_and_nothing_is_lost);
  tcase_add_test(plain, malformed_messages_are_counted_and_dropped);
  tcase_add_test(plain, part_above_the_sockets_limit_ends_the_connection_only);
  tcase_add_test(plain, garbage_on_the_port_does_no_harm);
  tcase_add_test(plain, address_in_use_is_named);
  tcase_add_test(plain, reconnect_drops_the_queue_and_reaches_the_new_place);
  tcase_add_test(plain, socket_can_be_closed_by_its_own_callback);
  tcase_add_test(plain, restarted_peer_takes_over_its_identity);
  tcase_add_test(plain, shortage_of_memory_is_survived);
  TCase *curve = tcase_create("curve");
  tcase_add_checked_fixture(curve, set_up, tear_down);
  tcase_set_timeout(curve, 40);
  tcase_add_test(curve, curve_lets_in_whom_the_list_names);
  tcase_add_loop_test(curve, curve_refuses_and_counts_strangers, 0, BL_COUNT_OF(strangers));
  tcase_add_test(curve, key_added_comes_in_and_key_removed_stays_out);
  tcase_add_test(curve, identity_belongs_to_the_key_that_showed_it_first);
  tcase_add_test(curve, keys_that_cannot_work_are_refused_at_once);
  TCase *files = tcase_create("files");
  tcase_add_test(files, key_file_comes_back_and_is_private);
  tcase_add_test(files, key_file_with_mistakes_is_refused_with_its_line);
  tcase_add_test(files, allow_file_is_read_and_mistakes_have_lines);
  tcase_add_test(files, loopback_hosts_are_known);
  suite_add_tcase(s, plain);
  suite_add_tcase(s, curve);
  suite_add_tcase(s, files);
  return test_run(&s, 1);
}
