/* SPDX-License-Identifier: Apache-2.0
 *
 * One ZeroMQ context with what all its sockets share: keys, frame pools, and the ZAP handler, a thread that
 * libzmq asks about every CURVE peer before it lets it in (https://rfc.zeromq.org/spec/27/). It answers from
 * the allow-list; the answer's user id, "role:name", comes back with every message of that peer.
 */
#include "net/keys.h"
#include "net/net_internal.h"

#include "base/alloc.h"
#include "base/log.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#define SOCKETS_MAX 8192
#define SMALL_FRAMES_KEEP_MAX 4096
#define WRAPPERS_KEEP_MAX 4096

/* ---- ZAP ---- */

enum { ZAP_VERSION, ZAP_REQUEST, ZAP_DOMAIN, ZAP_ADDRESS, ZAP_IDENTITY, ZAP_MECHANISM, ZAP_CREDENTIALS, ZAP_PARTS };
#define ZAP_PART_BYTES_MAX 256

typedef struct zap_request {
  uint8_t part[ZAP_PARTS][ZAP_PART_BYTES_MAX];
  size_t size[ZAP_PARTS];
} zap_request;

/* False: the context ends. A part too many or too long shows itself as a size above the limit. */
static bool zap_receive(void *socket, zap_request *r, bool *ret_whole) {
  int n = 0, more = 1;
  size_t more_size = sizeof more;
  bool whole = true;
  while (more) {
    uint8_t *to = n < ZAP_PARTS ? r->part[n] : r->part[ZAP_PARTS - 1];
    int size = zmq_recv(socket, to, ZAP_PART_BYTES_MAX, 0);
    if (size < 0) {
      if (errno == EINTR)
        continue;
      return false;
    }
    whole = whole && n < ZAP_PARTS && size <= ZAP_PART_BYTES_MAX;
    if (whole)
      r->size[n] = (size_t)size;
    n++;
    if (zmq_getsockopt(socket, ZMQ_RCVMORE, &more, &more_size) != 0)
      return false;
  }
  *ret_whole = whole && n == ZAP_PARTS;
  return true;
}

static bool part_is(const zap_request *r, int i, const char *text) {
  return r->size[i] == strlen(text) && memcmp(r->part[i], text, r->size[i]) == 0;
}

static bool zap_admits(bl_net *n, const zap_request *r, char *user, size_t user_size) {
  char key[BL_KEY_Z85_BYTES];
  bl_allow_entry entry;
  if (!part_is(r, ZAP_VERSION, "1.0") || !part_is(r, ZAP_DOMAIN, BL_NET_ZAP_DOMAIN) ||
      !part_is(r, ZAP_MECHANISM, "CURVE") || r->size[ZAP_CREDENTIALS] != 32 ||
      zmq_z85_encode(key, r->part[ZAP_CREDENTIALS], 32) == NULL)
    return false;
  if (!bl_net_find_allowed(n, key, &entry)) {
    bl_log_info("peer_refused", "address=%.*s key=%s reason=\"key is not on the allow-list\"",
                (int)r->size[ZAP_ADDRESS], (const char *)r->part[ZAP_ADDRESS], key);
    return false;
  }
  snprintf(user, user_size, "%s:%s", bl_role_name(entry.role), entry.name);
  return true;
}

static void zap_reply(void *socket, const zap_request *r, bool admit, const char *user) {
  const struct {
    const void *data;
    size_t size;
  } parts[] = {{"1.0", 3},
               {r->part[ZAP_REQUEST], r->size[ZAP_REQUEST]},
               {admit ? "200" : "400", 3},
               {admit ? "OK" : "refused", admit ? 2 : 7},
               {user, strlen(user)},
               {"", 0}};
  for (size_t i = 0; i < BL_COUNT_OF(parts); i++)
    zmq_send(socket, parts[i].data, parts[i].size, i + 1 < BL_COUNT_OF(parts) ? ZMQ_SNDMORE : 0);
}

static void *zap_main(void *arg) {
  bl_net *n = arg;
  zap_request r;
  bool whole;
  memset(&r, 0, sizeof r);
  while (zap_receive(n->zap_socket, &r, &whole)) {
    char user[128] = "";
    bool admit = whole && zap_admits(n, &r, user, sizeof user);
    if (!admit)
      atomic_fetch_add(&n->refused, 1);
    zap_reply(n->zap_socket, &r, admit, user);
  }
  zmq_close(n->zap_socket);
  return NULL;
}

static bl_status start_zap(bl_net *n, bl_error *err) {
  n->zap_socket = zmq_socket(n->context, ZMQ_REP);
  int zero = 0;
  if (n->zap_socket == NULL || zmq_setsockopt(n->zap_socket, ZMQ_LINGER, &zero, sizeof zero) != 0 ||
      zmq_bind(n->zap_socket, "inproc://zeromq.zap.01") != 0)
    return bl_fail(err, BL_EIO, "cannot start the key check: %s", zmq_strerror(errno));
  sigset_t all, before;
  sigfillset(&all); /* signals belong to the main thread's loop */
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int rc = pthread_create(&n->zap_thread, NULL, zap_main, n);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (rc != 0)
    return bl_fail(err, BL_EIO, "cannot start the thread of the key check: %s", strerror(rc));
  n->has_zap_thread = true;
  return BL_OK;
}

/* ---- allow-list ---- */

bool bl_net_find_allowed(bl_net *n, const char *public_key, bl_allow_entry *ret_entry) {
  bool found = false;
  pthread_mutex_lock(&n->allow_lock);
  for (size_t i = 0; i < n->n_allow && !found; i++)
    if (strcmp(n->allow[i].public_key, public_key) == 0) {
      *ret_entry = n->allow[i];
      found = true;
    }
  pthread_mutex_unlock(&n->allow_lock);
  return found;
}

bl_status bl_net_set_allow(bl_net *n, const bl_allow_entry *allow, size_t n_allow) {
  bl_allow_entry *copy = bl_calloc(n_allow, sizeof *copy);
  if (copy == NULL)
    return BL_ENOMEM;
  if (n_allow > 0)
    memcpy(copy, allow, n_allow * sizeof *copy);
  pthread_mutex_lock(&n->allow_lock);
  bl_allow_entry *old = n->allow;
  n->allow = copy;
  n->n_allow = n_allow;
  pthread_mutex_unlock(&n->allow_lock);
  bl_free(old);
  return BL_OK;
}

uint64_t bl_net_refused_handshakes(const bl_net *n) { return atomic_load(&n->refused); }

/* ---- context ---- */

static bl_status check_keys(const bl_net_config *c, bl_error *err) {
  bool has_public = c->keys.public_key[0] != '\0', has_secret = c->keys.secret_key[0] != '\0';
  if (!has_public && !has_secret)
    return BL_OK;
  if (!bl_key_is_valid(c->keys.public_key) || !bl_key_is_valid(c->keys.secret_key))
    return bl_fail(err, BL_EINVAL, "own key pair is not valid Z85 of 40 characters each");
  if (!zmq_has("curve"))
    return bl_fail(err, BL_EUNSUPPORTED, "this libzmq was built without CURVE: keys cannot be used");
  return BL_OK;
}

bl_status bl_net_new(const bl_net_config *config, bl_net **ret_net, bl_error *err) {
  bl_status st = check_keys(config, err);
  if (st != BL_OK)
    return st;
  bl_net *n = bl_calloc(1, sizeof *n);
  if (n == NULL)
    return bl_fail(err, BL_ENOMEM, "no memory for the network context");
  pthread_mutex_init(&n->allow_lock, NULL); /* a default mutex: cannot fail on Linux */
  n->keys = config->keys;
  n->small_frames = bl_frame_pool_new(BL_NET_SMALL_FRAME_BYTES, SMALL_FRAMES_KEEP_MAX);
  n->wrappers = bl_frame_pool_new(BL_NET_WRAPPER_BYTES, WRAPPERS_KEEP_MAX);
  st = bl_net_set_allow(n, config->allow, config->n_allow);
  if (n->small_frames == NULL || n->wrappers == NULL || st != BL_OK) {
    st = bl_fail(err, BL_ENOMEM, "no memory for the network context");
    goto fail;
  }
  n->context = zmq_ctx_new();
  if (n->context == NULL || zmq_ctx_set(n->context, ZMQ_MAX_SOCKETS, SOCKETS_MAX) != 0 ||
      zmq_ctx_set(n->context, ZMQ_IO_THREADS, config->io_threads > 0 ? config->io_threads : 1) != 0) {
    st = bl_fail(err, BL_EIO, "cannot make the ZeroMQ context: %s", zmq_strerror(errno));
    goto fail;
  }
  st = bl_net_has_keys(n) ? start_zap(n, err) : BL_OK;
  if (st != BL_OK)
    goto fail;
  *ret_net = n;
  return BL_OK;

fail:
  bl_net_free(n);
  return st;
}

void bl_net_free(bl_net *n) {
  if (n == NULL)
    return;
  BL_ASSERT(atomic_load(&n->n_sockets) == 0);
  if (n->has_zap_thread) {
    zmq_ctx_shutdown(n->context); /* wakes the thread, which closes its socket */
    pthread_join(n->zap_thread, NULL);
  } else if (n->zap_socket != NULL)
    zmq_close(n->zap_socket);
  if (n->context != NULL)
    while (zmq_ctx_term(n->context) != 0 && errno == EINTR)
      ;
  bl_frame_pool_free(n->small_frames);
  bl_frame_pool_free(n->wrappers);
  bl_free(n->allow);
  pthread_mutex_destroy(&n->allow_lock);
  explicit_bzero(&n->keys, sizeof n->keys);
  bl_free(n);
}

void bl_net_tune_process(void) { bl_alloc_tune(); /* libzmq mallocs every large part that it receives */ }
