/* SPDX-License-Identifier: Apache-2.0
 *
 * One ZeroMQ socket on the loop.
 *
 * ZeroMQ's descriptor only says that something changed since ZMQ_EVENTS was last read, once (edge-triggered).
 * So: `poll` merely wakes the loop; `check`, behind the wait, receives up to a limit; `prepare`, before the
 * wait, asks ZMQ_EVENTS, and while messages are left it keeps `idle` active, so that the loop does not wait.
 * Sending may use up the edge as well, which the same question in `prepare` covers.
 *
 * A second descriptor brings the socket's monitor: both learn the descriptors of new connections; a ROUTER with
 * keys counts the peers that fail before ZAP is asked; a DEALER learns that libzmq has given up. It does that for good after a protocol error or a refused
 * key (4.3.4, session_base_t::engine_error), so the pump is made anew after a while.
 *
 * The watchers and the ZeroMQ sockets are a `pump`. It outlives its bl_socket until the last close
 * callback, so on_msg may close or reconnect the socket that calls it.
 */
#include "net/net_internal.h"

#include "base/alloc.h"
#include "base/checksum.h"
#include "base/log.h"
#include "base/map.h"
#include "base/num.h"
#include "base/str.h"
#include "net/keys.h"

#include <errno.h>
#include <inttypes.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <uv.h>

#define TURN_MESSAGES_MAX 64         /* received per turn of the loop, so that timers and others get theirs */
#define TURN_BYTES_MAX (8u << 20)
#define HWM_DEFAULT 1000
#define LINGER_MS 100
#define RECONNECT_MS 100
#define RECONNECT_MAX_MS 2000
#define RENEW_MS 2000                /* after libzmq has given up a connection */
#define HANDSHAKE_MS 3000
#define HEARTBEAT_MS 5000            /* finds connections whose other end is gone without a word */
#define HEARTBEAT_TIMEOUT_MS 15000
#define BACKLOG 1024
#define KEEPALIVE_IDLE_S 30
#define KEEPALIVE_INTERVAL_S 10
#define KEEPALIVE_PROBES 3
#define LOOPBACK_CONGESTION "reno"   /* every Linux has it, and any user may choose it */
#define OWNERS_MAX 65536             /* identities whose key is remembered */
typedef struct pump pump;

/* Whose key a routing identity was first seen with. */
typedef struct id_owner {
  uint64_t hash;
  uint8_t id[BL_PEER_ID_BYTES_MAX];
  uint8_t id_size;
  char name[64];
} id_owner;

struct bl_socket {
  bl_transport transport; /* first */
  bl_net *net;
  bl_loop *loop;
  bl_socket_config config;
  char identity[BL_PEER_ID_BYTES_MAX + 1];
  char server_key[BL_KEY_Z85_BYTES];
  char endpoint[BL_NET_ENDPOINT_BYTES_MAX]; /* DEALER: where it is connected to */
  bool told_refused;                 /* the log knows that the server refuses our key */
  bl_peer server; /* DEALER: what is known of the other end */
  pump *pump;     /* owned; replaced by a reconnect */
  bl_socket_stats stats;
  zmq_msg_t out[BL_MSG_FRAMES_MAX + 2];
  uint64_t owner_seed;
  bl_map owner_of; /* hash of identity -> id_owner */
  id_owner *owners; /* owned ring of OWNERS_MAX, made with the first authenticated message */
  size_t next_owner;
};

struct pump {
  uv_prepare_t prepare;
  uv_check_t check;
  uv_idle_t idle;
  uv_timer_t renew;  /* runs while libzmq may have given up */
  uv_poll_t poll;
  uv_poll_t monitor_poll;
  int n_handles;     /* that must close before the memory goes */
  void *zmq;
  void *monitor;
  bl_socket *socket; /* NULL: closed */
  bl_msg in;
};

/* ---- who sent it ---- */

/* User id "role:name", as our ZAP handler gave it. */
static bool parse_user(const char *user, bl_peer *peer) {
  const char *colon = strchr(user, ':');
  for (int r = 1; colon != NULL && r < BL_ROLE_COUNT; r++) {
    const char *role = bl_role_name((bl_role)r);
    if (strlen(role) == (size_t)(colon - user) && memcmp(role, user, strlen(role)) == 0) {
      peer->authenticated = true;
      peer->role = (bl_role)r;
      return bl_str_copy(peer->name, sizeof peer->name, colon + 1);
    }
  }
  return false;
}

/* True when the identity is new or belongs to this key's name. The list forgets its oldest entry. */
static bool owns_identity(bl_socket *s, const bl_peer *p) {
  uint64_t hash = bl_checksum_seeded(p->id, p->id_size, s->owner_seed);
  id_owner *o = bl_map_get(&s->owner_of, hash);
  if (o != NULL)
    return o->id_size == p->id_size && memcmp(o->id, p->id, p->id_size) == 0 && strcmp(o->name, p->name) == 0;
  if (s->owners == NULL && (s->owners = bl_calloc(OWNERS_MAX, sizeof *s->owners)) == NULL)
    return false;
  o = &s->owners[s->next_owner];
  if (o->id_size > 0)
    bl_map_remove(&s->owner_of, o->hash);
  o->id_size = 0;
  if (bl_map_put(&s->owner_of, hash, o) != BL_OK)
    return false;
  s->next_owner = (s->next_owner + 1) % OWNERS_MAX;
  o->hash = hash;
  memcpy(o->id, p->id, p->id_size);
  o->id_size = p->id_size;
  memcpy(o->name, p->name, sizeof o->name);
  return true;
}

static bl_status renew_pump(bl_socket *s, bl_error *err);

/* ---- receiving ---- */

typedef enum got { GOT_NOTHING, GOT_MESSAGE, GOT_MALFORMED, GOT_IMPOSTOR } got;

static void drop_rest(void *zmq, bool more) {
  zmq_msg_t part;
  while (more) {
    zmq_msg_init(&part);
    more = zmq_msg_recv(&part, zmq, ZMQ_DONTWAIT) >= 0 && zmq_msg_more(&part);
    zmq_msg_close(&part);
  }
}

/* The first part of a ROUTER's message: the routing identity. */
static got receive_identity(pump *p, bl_peer *from, bool *ret_more) {
  zmq_msg_t part;
  zmq_msg_init(&part);
  if (zmq_msg_recv(&part, p->zmq, ZMQ_DONTWAIT) < 0) {
    zmq_msg_close(&part);
    return GOT_NOTHING;
  }
  size_t size = zmq_msg_size(&part);
  *ret_more = zmq_msg_more(&part);
  bool ok = size > 0 && size <= BL_PEER_ID_BYTES_MAX && *ret_more;
  if (ok) {
    memcpy(from->id, zmq_msg_data(&part), size);
    from->id_size = (uint8_t)size;
  }
  zmq_msg_close(&part);
  return ok ? GOT_MESSAGE : GOT_MALFORMED;
}

/* Head and frames into p->in; the whole message is there once its first part is. */
static got receive_parts(pump *p, bl_peer *from, bool *ret_more) {
  bool is_curve_router = p->socket->config.kind == BL_SOCKET_ROUTER && bl_net_has_keys(p->socket->net);
  *ret_more = true;
  for (uint32_t i = 0; *ret_more; i++) {
    zmq_msg_t part;
    zmq_msg_init(&part);
    if (zmq_msg_recv(&part, p->zmq, ZMQ_DONTWAIT) < 0) {
      zmq_msg_close(&part);
      *ret_more = false;
      return i == 0 ? GOT_NOTHING : GOT_MALFORMED;
    }
    *ret_more = zmq_msg_more(&part);
    if (i == 0 && is_curve_router) {
      const char *user = zmq_msg_gets(&part, "User-Id");
      if (user == NULL || !parse_user(user, from)) {
        zmq_msg_close(&part);
        return GOT_IMPOSTOR;
      }
    }
    bl_frame *f = i <= BL_MSG_FRAMES_MAX ? bl_net_frame_of_part(p->socket->net, &part) : NULL;
    zmq_msg_close(&part);
    if (f == NULL)
      return GOT_MALFORMED;
    if (i == 0)
      p->in.head = f;
    else
      p->in.frames[p->in.n_frames++] = f;
  }
  return GOT_MESSAGE;
}

static got receive_one(pump *p, bl_peer *from) {
  bl_socket *s = p->socket;
  bool is_router = s->config.kind == BL_SOCKET_ROUTER, more = false;
  memset(from, 0, sizeof *from);
  if (!is_router)
    *from = s->server;
  got g = is_router ? receive_identity(p, from, &more) : GOT_MESSAGE;
  if (g == GOT_MESSAGE)
    g = receive_parts(p, from, &more);
  drop_rest(p->zmq, more);
  if (g == GOT_MESSAGE && is_router && from->authenticated && !owns_identity(s, from))
    g = GOT_IMPOSTOR;
  bl_msg_type type;
  bl_error err = BL_ERROR_INIT;
  if (g == GOT_MESSAGE && bl_msg_check(&p->in, &type, &err) != BL_OK) {
    g = GOT_MALFORMED;
    if (bl_is_worth_a_line(s->stats.malformed + 1))
      bl_log_warning("message_refused", "from=%s count=%" PRIu64 " reason=%s", is_router ? "peer" : s->endpoint,
                     s->stats.malformed + 1, BL_LOGQ(err.text));
  }
  return g;
}

static bool has_input(void *zmq) {
  int events = 0;
  size_t size = sizeof events;
  return zmq_getsockopt(zmq, ZMQ_EVENTS, &events, &size) == 0 && (events & ZMQ_POLLIN) != 0;
}

/* ---- the monitor ---- */

/* Peers without keys, or with another server's: they never get as far as ZAP. Whichever side sees the mismatch
 * first hangs up; then it is NO_DETAIL. */
#define ROUTER_EVENTS (ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL | ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL)
/* After one of these a connection is over, for good unless libzmq shows life. */
#define DEALER_EVENTS_OVER                                                                                   \
  (ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH | ZMQ_EVENT_DISCONNECTED)
#define DEALER_EVENTS_ALIVE                                                                                  \
  (ZMQ_EVENT_CONNECT_DELAYED | ZMQ_EVENT_CONNECT_RETRIED | ZMQ_EVENT_CONNECTED | ZMQ_EVENT_HANDSHAKE_SUCCEEDED)

/* A pacing congestion control such as bbr halves what loopback carries and has nothing to control there. The
 * monitor brings the descriptor; should libzmq have closed it meanwhile, this call fails or finds another
 * connection, of which it asks the same. */
static void tune_connection(int fd) {
  struct sockaddr_storage a;
  socklen_t size = sizeof a;
  char host[NI_MAXHOST];
  if (getpeername(fd, (struct sockaddr *)&a, &size) == 0 &&
      getnameinfo((struct sockaddr *)&a, size, host, sizeof host, NULL, 0, NI_NUMERICHOST) == 0 &&
      bl_host_is_loopback(host))
    (void)setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, LOOPBACK_CONGESTION, strlen(LOOPBACK_CONGESTION));
}

static void on_renew(uv_timer_t *h) {
  pump *p = h->data;
  bl_error err = BL_ERROR_INIT;
  if (renew_pump(p->socket, &err) == BL_OK) /* p is closed now */
    return;
  bl_log_warning("connection_not_renewed", "endpoint=%s reason=%s", p->socket->endpoint, BL_LOGQ(err.text));
  uv_timer_start(h, on_renew, RENEW_MS, 0);
}

static void on_dealer_event(pump *p, unsigned event) {
  bl_socket *s = p->socket;
  if (event == ZMQ_EVENT_HANDSHAKE_FAILED_AUTH && !s->told_refused) {
    s->told_refused = true;
    bl_log_warning("connection_refused", "endpoint=%s reason=\"our key is not on the server's allow-list\"",
                   s->endpoint);
  }
  if (event == ZMQ_EVENT_HANDSHAKE_SUCCEEDED)
    s->told_refused = false;
  if (event & DEALER_EVENTS_OVER)
    uv_timer_start(&p->renew, on_renew, RENEW_MS, 0);
  else
    uv_timer_stop(&p->renew);
}

static void drain_monitor(pump *p) {
  for (int i = 0; i < TURN_MESSAGES_MAX; i++) {
    uint8_t bytes[6]; /* u16 event, u32 value in the host's order; then a part with the address */
    if (zmq_recv(p->monitor, bytes, sizeof bytes, ZMQ_DONTWAIT) < 0)
      return;
    drop_rest(p->monitor, true);
    uint16_t event;
    int32_t value;
    memcpy(&event, bytes, sizeof event);
    memcpy(&value, bytes + sizeof event, sizeof value);
    if (event == ZMQ_EVENT_ACCEPTED || event == ZMQ_EVENT_CONNECTED)
      tune_connection(value);
    if (event == ZMQ_EVENT_ACCEPTED)
      continue;
    if (p->socket->config.kind == BL_SOCKET_ROUTER)
      atomic_fetch_add(&p->socket->net->refused, 1);
    else
      on_dealer_event(p, event);
  }
}

static void on_check(uv_check_t *h) {
  pump *p = h->data;
  drain_monitor(p);
  size_t bytes = 0;
  for (int i = 0; i < TURN_MESSAGES_MAX && bytes < TURN_BYTES_MAX; i++) {
    bl_socket *s = p->socket;
    bl_peer from;
    got g = receive_one(p, &from);
    if (g == GOT_NOTHING)
      return;
    size_t n = bl_msg_bytes(&p->in);
    bytes += n;
    s->stats.bytes_in += n;
    s->stats.messages_in += g == GOT_MESSAGE;
    s->stats.malformed += g == GOT_MALFORMED;
    s->stats.impostors += g == GOT_IMPOSTOR;
    if (g == GOT_MESSAGE)
      s->config.on_msg(&from, &p->in, s->config.arg);
    bl_msg_fini(&p->in);
    if (p->socket == NULL) /* closed or reconnected meanwhile: s may be gone */
      return;
  }
}

static void on_idle(uv_idle_t *h) {}
static void on_poll(uv_poll_t *h, int status, int events) {}

static void on_prepare(uv_prepare_t *h) {
  pump *p = h->data;
  if (has_input(p->zmq) || has_input(p->monitor))
    uv_idle_start(&p->idle, on_idle);
  else
    uv_idle_stop(&p->idle);
}

/* ---- sending ---- */

/* All parts are made before the first is sent, so that memory cannot run short in the middle. */
static bl_status make_parts(bl_socket *s, const bl_peer *to, const bl_msg *msg, size_t *ret_n) {
  size_t n = 0;
  bl_status st = s->config.kind == BL_SOCKET_ROUTER ? bl_net_part_of_bytes(&s->out[n++], to->id, to->id_size) : BL_OK;
  if (st == BL_OK)
    st = bl_net_part_of_frame(&s->out[n++], msg->head);
  for (uint32_t i = 0; st == BL_OK && i < msg->n_frames; i++)
    st = bl_net_part_of_frame(&s->out[n++], msg->frames[i]);
  if (st != BL_OK)
    n--; /* the last one was not made */
  *ret_n = n;
  return st;
}

/* libzmq refuses a message at its first part (queue full, no such peer) or takes it whole; once it is taken
 * only the end of the connection can stop a part. Then the other parts are still offered, because the
 * socket must see the message's end, and the message counts as lost on its way. */
static bl_status send_parts(bl_socket *s, size_t n) {
  bl_status st = BL_OK;
  for (size_t i = 0; i < n; i++) {
    int flags = ZMQ_DONTWAIT | (i + 1 < n ? ZMQ_SNDMORE : 0);
    if (st == BL_OK && zmq_msg_send(&s->out[i], s->pump->zmq, flags) >= 0)
      continue;
    if (i == 0)
      st = errno == EAGAIN ? BL_EAGAIN : errno == EHOSTUNREACH ? BL_EUNREACHABLE : BL_EIO;
    zmq_msg_close(&s->out[i]);
  }
  return st;
}

static bl_status socket_send(bl_transport *t, const bl_peer *to, bl_msg *msg) {
  bl_socket *s = (bl_socket *)t;
  BL_ASSERT(msg->head != NULL && (to != NULL || s->config.kind == BL_SOCKET_DEALER));
  size_t n;
  bl_status st = make_parts(s, to, msg, &n);
  if (st != BL_OK) {
    for (size_t i = 0; i < n; i++)
      zmq_msg_close(&s->out[i]);
    return st;
  }
  st = send_parts(s, n);
  s->stats.again += st == BL_EAGAIN;
  if (st != BL_OK)
    return st;
  s->stats.messages_out++;
  s->stats.bytes_out += bl_msg_bytes(msg);
  bl_msg_fini(msg);
  return BL_OK;
}

/* ---- the pump's life ---- */

static bool set_int(void *zmq, int option, int value) { return zmq_setsockopt(zmq, option, &value, sizeof value) == 0; }

static bool set_common_options(void *zmq, const bl_socket_config *c) {
  int64_t part_bytes_max = BL_MSG_HEADER_BYTES_MAX;
  /* SNDBUF and RCVBUF stay with the system: a fixed size switches off its growth and is cut at rmem_max. */
  const struct {
    int option, value;
  } options[] = {
      {ZMQ_LINGER, LINGER_MS},
      {ZMQ_SNDHWM, c->send_hwm > 0 ? c->send_hwm : HWM_DEFAULT},
      {ZMQ_RCVHWM, c->receive_hwm > 0 ? c->receive_hwm : HWM_DEFAULT},
      {ZMQ_RECONNECT_IVL, RECONNECT_MS},
      {ZMQ_RECONNECT_IVL_MAX, RECONNECT_MAX_MS},
      {ZMQ_HANDSHAKE_IVL, HANDSHAKE_MS},
      {ZMQ_HEARTBEAT_IVL, HEARTBEAT_MS},
      {ZMQ_HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS},
      {ZMQ_TCP_KEEPALIVE, 1},
      {ZMQ_TCP_KEEPALIVE_IDLE, KEEPALIVE_IDLE_S},
      {ZMQ_TCP_KEEPALIVE_INTVL, KEEPALIVE_INTERVAL_S},
      {ZMQ_TCP_KEEPALIVE_CNT, KEEPALIVE_PROBES},
      {ZMQ_IPV6, 1},
      {ZMQ_BACKLOG, BACKLOG},
  };
  for (size_t i = 0; i < BL_COUNT_OF(options); i++)
    if (!set_int(zmq, options[i].option, options[i].value))
      return false;
  return zmq_setsockopt(zmq, ZMQ_MAXMSGSIZE, &part_bytes_max, sizeof part_bytes_max) == 0;
}

static bool set_curve(void *zmq, const bl_socket *s) {
  const bl_keypair *k = &s->net->keys;
  if (s->config.kind == BL_SOCKET_ROUTER)
    return !bl_net_has_keys(s->net) ||
           (set_int(zmq, ZMQ_CURVE_SERVER, 1) && zmq_setsockopt(zmq, ZMQ_CURVE_SECRETKEY, k->secret_key, 41) == 0 &&
            zmq_setsockopt(zmq, ZMQ_ZAP_DOMAIN, BL_NET_ZAP_DOMAIN, strlen(BL_NET_ZAP_DOMAIN)) == 0);
  return s->server_key[0] == '\0' || (zmq_setsockopt(zmq, ZMQ_CURVE_SERVERKEY, s->server_key, 41) == 0 &&
                                      zmq_setsockopt(zmq, ZMQ_CURVE_PUBLICKEY, k->public_key, 41) == 0 &&
                                      zmq_setsockopt(zmq, ZMQ_CURVE_SECRETKEY, k->secret_key, 41) == 0);
}

static bool set_options(void *zmq, const bl_socket *s) {
  if (!set_common_options(zmq, &s->config) || !set_curve(zmq, s))
    return false;
  if (s->config.kind == BL_SOCKET_ROUTER)
    return set_int(zmq, ZMQ_ROUTER_MANDATORY, 1) && set_int(zmq, ZMQ_ROUTER_HANDOVER, 1);
  return s->identity[0] == '\0' || zmq_setsockopt(zmq, ZMQ_ROUTING_ID, s->identity, strlen(s->identity)) == 0;
}

/* The I/O thread blocks when a monitor's queue is full, so this queue has no limit; every turn empties it. */
static bool open_monitor(pump *p) {
  bl_net *n = p->socket->net;
  char name[64];
  snprintf(name, sizeof name, "inproc://monitor.%llu", (unsigned long long)atomic_fetch_add(&n->n_monitors, 1));
  bool is_router = p->socket->config.kind == BL_SOCKET_ROUTER;
  int events = !is_router             ? DEALER_EVENTS_OVER | DEALER_EVENTS_ALIVE
               : bl_net_has_keys(n) ? ROUTER_EVENTS | ZMQ_EVENT_ACCEPTED
                                      : ZMQ_EVENT_ACCEPTED;
  if (zmq_socket_monitor(p->zmq, name, events) != 0)
    return false;
  p->monitor = zmq_socket(n->context, ZMQ_PAIR);
  return p->monitor != NULL && set_int(p->monitor, ZMQ_RCVHWM, 0) && set_int(p->monitor, ZMQ_LINGER, 0) &&
         zmq_connect(p->monitor, name) == 0;
}

static bool poll_descriptor(uv_loop_t *loop, uv_poll_t *h, pump *p, void *zmq) {
  int fd;
  size_t size = sizeof fd;
  if (zmq_getsockopt(zmq, ZMQ_FD, &fd, &size) != 0 || uv_poll_init(loop, h, fd) != 0)
    return false;
  h->data = p;
  p->n_handles++;
  return uv_poll_start(h, UV_READABLE, on_poll) == 0;
}

static void close_zmq(pump *p) {
  if (p->monitor != NULL) {
    zmq_socket_monitor(p->zmq, NULL, 0); /* first: an event without a reader would block the I/O thread */
    zmq_close(p->monitor);
  }
  if (p->zmq != NULL)
    zmq_close(p->zmq);
  p->monitor = p->zmq = NULL;
}

static void on_handle_closed(uv_handle_t *h) {
  pump *p = h->data;
  if (--p->n_handles == 0)
    bl_free(p);
}

static void pump_close(pump *p) {
  p->socket = NULL;
  uv_handle_t *handles[] = {(uv_handle_t *)&p->prepare, (uv_handle_t *)&p->check, (uv_handle_t *)&p->idle,
                            (uv_handle_t *)&p->renew, (uv_handle_t *)&p->poll, (uv_handle_t *)&p->monitor_poll};
  int n = p->n_handles; /* they are made in this order */
  for (int i = 0; i < n; i++)
    uv_close(handles[i], on_handle_closed);
  close_zmq(p);
}

static bl_status pump_new(bl_socket *s, pump **ret_pump, bl_error *err) {
  pump *p = bl_calloc(1, sizeof *p);
  if (p == NULL)
    return bl_fail(err, BL_ENOMEM, "cannot make a socket: no memory");
  uv_loop_t *loop = bl_loop_uv(s->loop);
  p->socket = s;
  uv_prepare_init(loop, &p->prepare); /* these four cannot fail */
  uv_check_init(loop, &p->check);
  uv_idle_init(loop, &p->idle);
  uv_timer_init(loop, &p->renew);
  p->prepare.data = p->check.data = p->idle.data = p->renew.data = p;
  p->n_handles = 4;
  p->zmq = zmq_socket(s->net->context, s->config.kind == BL_SOCKET_ROUTER ? ZMQ_ROUTER : ZMQ_DEALER);
  if (p->zmq == NULL || !set_options(p->zmq, s) || !poll_descriptor(loop, &p->poll, p, p->zmq) ||
      !open_monitor(p) || !poll_descriptor(loop, &p->monitor_poll, p, p->monitor)) {
    bl_fail(err, BL_EIO, "cannot make a socket: %s", zmq_strerror(errno));
    pump_close(p);
    return BL_EIO;
  }
  uv_prepare_start(&p->prepare, on_prepare);
  uv_check_start(&p->check, on_check);
  *ret_pump = p;
  return BL_OK;
}

/* ---- the socket's life ---- */

static bl_status check_config(const bl_net *n, const bl_socket_config *c, bl_error *err) {
  BL_ASSERT(c->kind == BL_SOCKET_ROUTER || c->kind == BL_SOCKET_DEALER);
  if (c->identity != NULL && (c->identity[0] == '\0' || strlen(c->identity) > BL_PEER_ID_BYTES_MAX))
    return bl_fail(err, BL_EINVAL, "socket identity has %zu bytes, allowed are 1 to %d", strlen(c->identity),
                   BL_PEER_ID_BYTES_MAX);
  if (c->server_key == NULL || c->server_key[0] == '\0')
    return BL_OK;
  uint8_t raw[32];
  if (strlen(c->server_key) != 40 || zmq_z85_decode(raw, c->server_key) == NULL)
    return bl_fail(err, BL_EINVAL, "key of the server is no public key (Z85 of 40 characters)");
  if (!bl_net_has_keys(n))
    return bl_fail(err, BL_EINVAL, "a connection with a server key needs a key pair of our own");
  return BL_OK;
}

bl_status bl_socket_open(bl_net *n, bl_loop *l, const bl_socket_config *config, bl_socket **ret_socket, bl_error *err) {
  bl_status st = check_config(n, config, err);
  if (st != BL_OK)
    return st;
  bl_socket *s = bl_calloc(1, sizeof *s);
  if (s == NULL)
    return bl_fail(err, BL_ENOMEM, "cannot make a socket: no memory");
  s->transport.send = socket_send;
  s->net = n;
  s->loop = l;
  s->config = *config;
  if (config->identity != NULL)
    bl_str_copy(s->identity, sizeof s->identity, config->identity);
  if (config->server_key != NULL)
    bl_str_copy(s->server_key, sizeof s->server_key, config->server_key);
  s->config.identity = s->config.server_key = NULL; /* the copies count */
  if (getrandom(&s->owner_seed, sizeof s->owner_seed, 0) != sizeof s->owner_seed)
    s->owner_seed = (uintptr_t)s;
  bl_allow_entry entry;
  s->server.authenticated = s->server_key[0] != '\0';
  if (s->server.authenticated && bl_net_find_allowed(n, s->server_key, &entry)) {
    s->server.role = entry.role;
    memcpy(s->server.name, entry.name, sizeof s->server.name);
  }
  st = pump_new(s, &s->pump, err);
  if (st != BL_OK) {
    bl_free(s);
    return st;
  }
  atomic_fetch_add(&n->n_sockets, 1);
  *ret_socket = s;
  return BL_OK;
}

void bl_socket_close(bl_socket *s) {
  if (s == NULL)
    return;
  pump_close(s->pump);
  atomic_fetch_sub(&s->net->n_sockets, 1);
  bl_map_fini(&s->owner_of);
  bl_free(s->owners);
  bl_free(s);
}

bl_transport *bl_socket_transport(bl_socket *s) { return &s->transport; }

bl_socket_stats bl_socket_get_stats(const bl_socket *s) { return s->stats; }

/* ---- addresses ---- */

bl_status bl_socket_bind(bl_socket *s, const char *host, uint16_t port, uint16_t *ret_port, bl_error *err) {
  char address[BL_NET_ENDPOINT_BYTES_MAX - 32], endpoint[BL_NET_ENDPOINT_BYTES_MAX];
  bl_status st = bl_net_numeric_host(host, address, sizeof address, err);
  if (st != BL_OK)
    return st;
  if (port == 0)
    snprintf(endpoint, sizeof endpoint, "tcp://%s:*", address);
  else
    snprintf(endpoint, sizeof endpoint, "tcp://%s:%u", address, port);
  if (zmq_bind(s->pump->zmq, endpoint) != 0) {
    if (errno == EADDRINUSE)
      return bl_fail(err, BL_EEXIST, "cannot listen on %s port %u: the address is in use by another program", host, port);
    return bl_fail(err, errno == EACCES ? BL_EACCES : BL_EIO, "cannot listen on %s port %u: %s", host, port,
                   zmq_strerror(errno));
  }
  size_t size = sizeof endpoint;
  uint64_t bound = 0;
  const char *colon = zmq_getsockopt(s->pump->zmq, ZMQ_LAST_ENDPOINT, endpoint, &size) == 0 ? strrchr(endpoint, ':') : NULL;
  if (colon == NULL || bl_str_to_u64(colon + 1, &bound) != BL_OK)
    return bl_fail(err, BL_EBUG, "cannot tell which port %s is bound to", host);
  *ret_port = (uint16_t)bound;
  return BL_OK;
}

static bl_status connect_pump(const pump *p, const char *endpoint, bl_error *err) {
  if (zmq_connect(p->zmq, endpoint) != 0)
    return bl_fail(err, BL_EINVAL, "cannot connect to %s: %s", endpoint, zmq_strerror(errno));
  return BL_OK;
}

bl_status bl_socket_connect(bl_socket *s, const char *endpoint, bl_error *err) {
  char normal[BL_NET_ENDPOINT_BYTES_MAX];
  bl_status st = bl_net_normal_endpoint(endpoint, normal, sizeof normal, err);
  if (st == BL_OK)
    st = connect_pump(s->pump, normal, err);
  if (st == BL_OK)
    memcpy(s->endpoint, normal, sizeof normal);
  return st;
}

static bl_status replace_pump(bl_socket *s, const char *endpoint, bl_error *err) {
  pump *fresh;
  bl_status st = pump_new(s, &fresh, err);
  if (st != BL_OK)
    return st;
  st = connect_pump(fresh, endpoint, err);
  if (st != BL_OK) { /* the old connection stays */
    pump_close(fresh);
    return st;
  }
  set_int(s->pump->zmq, ZMQ_LINGER, 0);
  pump_close(s->pump);
  s->pump = fresh;
  return BL_OK;
}

static bl_status renew_pump(bl_socket *s, bl_error *err) { return replace_pump(s, s->endpoint, err); }

bl_status bl_socket_reconnect(bl_socket *s, const char *endpoint, bl_error *err) {
  BL_ASSERT(s->config.kind == BL_SOCKET_DEALER);
  char normal[BL_NET_ENDPOINT_BYTES_MAX];
  bl_status st = bl_net_normal_endpoint(endpoint, normal, sizeof normal, err);
  if (st == BL_OK)
    st = replace_pump(s, normal, err);
  if (st == BL_OK)
    memcpy(s->endpoint, normal, sizeof normal);
  return st;
}
