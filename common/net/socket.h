/* SPDX-License-Identifier: Apache-2.0
 *
 * ZeroMQ sockets as sources of an event loop. The only includer of zmq.h is net/.
 *
 * ZeroMQ's descriptor is edge-triggered; socket.c alone deals with that (prepare, check, idle and poll
 * watchers together). Large received parts are used in place as frames, and sent frames are handed over by
 * reference. LINGER, HWM, MAXMSGSIZE, reconnect limits, heartbeats and handshake limits are always set.
 *
 * Received messages have passed bl_msg_check; malformed ones, and with CURVE those whose routing identity was
 * first seen with the key of another name, are counted and dropped. Frames stand at any address: no alignment.
 * A message that was taken for sending is lost when its connection breaks; protocols above repeat.
 *
 * Threads: a socket belongs to its loop's thread. A bl_net (one ZeroMQ context with its ZAP handler) may be
 * shared by the loops of a process.
 */
#ifndef BL_NET_SOCKET_H
#define BL_NET_SOCKET_H

#include "loop/loop.h"
#include "wire/transport.h"

#define BL_KEY_Z85_BYTES 41 /* with NUL */

typedef struct bl_net bl_net;
typedef struct bl_socket bl_socket;

/* Own key pair (Z85). Empty strings: no CURVE. */
typedef struct bl_keypair {
  char public_key[BL_KEY_Z85_BYTES];
  char secret_key[BL_KEY_Z85_BYTES];
} bl_keypair;

/* A peer that may connect: its key, its name and what it is. */
typedef struct bl_allow_entry {
  char public_key[BL_KEY_Z85_BYTES];
  char name[64];
  bl_role role;
} bl_allow_entry;

typedef struct bl_net_config {
  bl_keypair keys;
  const bl_allow_entry *allow; /* copied */
  size_t n_allow;
  int io_threads;              /* 0: 1 */
} bl_net_config;

BL_MUST_CHECK bl_status bl_net_new(const bl_net_config *config, bl_net **ret_net, bl_error *err);
/* All sockets must be closed. */
void bl_net_free(bl_net *n);
/* Replaces the allow-list; new handshakes see it at once. Any thread. */
BL_MUST_CHECK bl_status bl_net_set_allow(bl_net *n, const bl_allow_entry *allow, size_t n_allow);
/* Since start: wrong or missing keys, and connections that ended before they had shown one. */
uint64_t bl_net_refused_handshakes(const bl_net *n);

/* Allocator thresholds for a process that receives large frames; once, at the start of a daemon's main. */
void bl_net_tune_process(void);

typedef enum bl_socket_kind { BL_SOCKET_ROUTER = 1, BL_SOCKET_DEALER } bl_socket_kind;

typedef struct bl_socket_config {
  bl_socket_kind kind;
  const char *identity;         /* DEALER: routing identity, up to BL_PEER_ID_BYTES_MAX; NULL: made by the peer */
  const char *server_key;       /* DEALER: public key of the peer to connect to; NULL: no CURVE */
  int send_hwm, receive_hwm;    /* messages; 0: 1000 */
  bl_on_msg_fn *on_msg;
  void *arg;
} bl_socket_config;

BL_MUST_CHECK bl_status bl_socket_open(bl_net *n, bl_loop *l, const bl_socket_config *config, bl_socket **ret_socket,
                                       bl_error *err);
/* host: name or address ("*" or "0.0.0.0" or "::" for all), port 0: any. *ret_port: the one bound. The error
 * names the address and, when it is in use, says so (BL_EEXIST). "localhost" is 127.0.0.1, here and in
 * endpoints. */
BL_MUST_CHECK bl_status bl_socket_bind(bl_socket *s, const char *host, uint16_t port, uint16_t *ret_port,
                                       bl_error *err);
/* endpoint: "tcp://host:port". Connects in the background, with backoff, for ever. */
BL_MUST_CHECK bl_status bl_socket_connect(bl_socket *s, const char *endpoint, bl_error *err);
/* DEALER: drops the connection and what is queued, and connects anew (to the same or another endpoint). */
BL_MUST_CHECK bl_status bl_socket_reconnect(bl_socket *s, const char *endpoint, bl_error *err);
bl_transport *bl_socket_transport(bl_socket *s); /* borrowed, lives as long as the socket */
void bl_socket_close(bl_socket *s);              /* NULL allowed; drops what is queued after LINGER (100 ms) */

typedef struct bl_socket_stats {
  uint64_t messages_in, messages_out, bytes_in, bytes_out;
  uint64_t malformed;  /* received and dropped */
  uint64_t impostors;  /* dropped: identity of another key's owner */
  uint64_t again;      /* sends refused with BL_EAGAIN */
} bl_socket_stats;
bl_socket_stats bl_socket_get_stats(const bl_socket *s);

#endif
