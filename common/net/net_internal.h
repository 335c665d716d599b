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

#endif
