/* SPDX-License-Identifier: Apache-2.0
 *
 * Shared by the files of net/ only.
 */
#ifndef BL_NET_NET_INTERNAL_H
#define BL_NET_NET_INTERNAL_H

#include "net/socket.h"

#include <pthread.h>
#include <stdatomic.h>
#include <zmq.h>

#define BL_NET_ZAP_DOMAIN "ballast"
#define BL_NET_ENDPOINT_BYTES_MAX 320
#define BL_NET_SMALL_FRAME_BYTES 1024 /* parts up to this are copied */
#define BL_NET_WRAPPER_BYTES (sizeof(bl_frame) + sizeof(zmq_msg_t))

struct bl_net {
  void *context;
  bl_keypair keys; /* empty: no CURVE */
  bl_frame_pool *small_frames; /* received parts that are copied */
  bl_frame_pool *wrappers;     /* frames around received parts that are used in place */
  _Atomic uint64_t refused;
  _Atomic uint64_t n_sockets;
  _Atomic uint64_t n_monitors; /* ever made: their inproc names */

  pthread_mutex_t allow_lock;
  bl_allow_entry *allow; /* owned, under the lock */
  size_t n_allow;

  bool has_zap_thread;
  pthread_t zap_thread;
  void *zap_socket; /* the thread's, once it runs */
};

static inline bool bl_net_has_keys(const bl_net *n) { return n->keys.secret_key[0] != '\0'; }

/* Copies the entry of a key; false: not on the list. Any thread. */
bool bl_net_find_allowed(bl_net *n, const char *public_key, bl_allow_entry *ret_entry);

/* part.c. Moves *part into a frame; NULL: no memory. */
bl_frame *bl_net_frame_of_part(bl_net *n, zmq_msg_t *part) BL_MUST_CHECK;
/* Initialises *part, on success only: a copy of bytes, or the bytes of f by reference where they are many. */
BL_MUST_CHECK bl_status bl_net_part_of_bytes(zmq_msg_t *part, const void *data, size_t size);
BL_MUST_CHECK bl_status bl_net_part_of_frame(zmq_msg_t *part, bl_frame *f);

/* address.c. A host to listen on as a numeric address, IPv6 in brackets, or "*". May ask the resolver. */
BL_MUST_CHECK bl_status bl_net_numeric_host(const char *host, char *out, size_t size, bl_error *err);
/* An endpoint to connect to: "tcp://...", without "localhost". */
BL_MUST_CHECK bl_status bl_net_normal_endpoint(const char *endpoint, char *out, size_t size, bl_error *err);

#endif
