/* SPDX-License-Identifier: Apache-2.0
 *
 * What a state machine sees of the network: a way to send to a peer, and a callback on receipt. Real
 * sockets (net/socket.h) and the simulator (tests/sim) both implement it, so that shard, session, agent
 * and coordinator logic run unchanged in either.
 */
#ifndef BL_WIRE_TRANSPORT_H
#define BL_WIRE_TRANSPORT_H

#include "wire/msg.h"

#define BL_PEER_ID_BYTES_MAX 48

typedef enum bl_role {
  BL_ROLE_INVALID = 0, /* same numbers as Role in control.proto */
  BL_ROLE_COORDINATOR = 1,
  BL_ROLE_SERVER = 2,
  BL_ROLE_WORKER = 3,
  BL_ROLE_ADMIN = 4,
  BL_ROLE_USER = 5,
  BL_ROLE_VIEWER = 6,
  BL_ROLE_COUNT
} bl_role;
const char *bl_role_name(bl_role role);

/* Who sent a message: the routing identity, and what its key says about it. */
typedef struct bl_peer {
  uint8_t id[BL_PEER_ID_BYTES_MAX];
  uint8_t id_size;
  bool authenticated;      /* a key on the allow-list was shown; false on sockets without CURVE */
  bl_role role;            /* by the key; BL_ROLE_INVALID without CURVE (everything is allowed there) */
  char name[64];           /* name of the key; "" without CURVE */
} bl_peer;

typedef struct bl_transport bl_transport;
struct bl_transport {
  /* Sends without blocking. `to` is NULL on a transport with one peer (DEALER). Frames are referenced, not
   * copied; *msg is emptied on success and left alone otherwise. BL_EAGAIN: the peer's queue is full, try
   * on the next tick; BL_EUNREACHABLE: no such peer now. */
  bl_status (*send)(bl_transport *t, const bl_peer *to, bl_msg *msg);
};

static inline bl_status bl_transport_send(bl_transport *t, const bl_peer *to, bl_msg *msg) {
  return t->send(t, to, msg);
}

/* A received message; the callee may keep frames by taking references, or move *msg out. */
typedef void bl_on_msg_fn(const bl_peer *from, bl_msg *msg, void *arg);

#endif
