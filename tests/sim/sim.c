/* SPDX-License-Identifier: Apache-2.0
 *
 * Simulated time and network: a heap of events ordered by (time, number).
 */
#include "sim.h"

#include "base/alloc.h"
#include "base/num.h"
#include "base/rng.h"

#include <string.h>

#define NODES_MAX 256
#define SOCKETS_MAX 4096
#define TICK_MIN_NS 1000 /* a tick that asks for another at once gets it a microsecond later */

struct sim_node {
  sim *sim;
  char name[32];
  sim_tick_fn *tick;
  void *arg;
  uint64_t next_tick_ns, paused_until_ns;
  bool alive;
  uint32_t index;
  sim_filter_fn *filter;
  void *filter_arg;
};

struct sim_socket {
  bl_transport transport; /* first: a transport is its socket */
  sim_node *node;
  sim_socket *router; /* of a dealer; NULL for a router */
  sim_socket *other;  /* of a pipe's end; NULL for others */
  bool closed;
  bl_peer self;       /* of a dealer: what the router sees */
  bl_on_msg_fn *on_msg;
  void *arg;
  uint64_t last_to_router_ns, last_from_router_ns; /* to keep order */
};

typedef struct event {
  uint64_t at_ns, number;
  sim_socket *from, *to; /* a delivery, or: */
  void (*fn)(void *arg);
  void *arg;
  bl_msg *msg;
} event;

struct sim {
  sim_config config;
  uint64_t now_ns, n_events, n_random;
  event *heap;
  size_t n_heap, heap_capacity;
  sim_node *nodes[NODES_MAX];
  uint32_t n_nodes;
  sim_socket *sockets[SOCKETS_MAX];
  uint32_t n_sockets;
  bool cut[NODES_MAX][NODES_MAX];
  sim_stats stats;
};

sim *sim_new(const sim_config *config) {
  sim *s = bl_calloc(1, sizeof *s);
  BL_ASSERT(s != NULL);
  s->config = *config;
  s->now_ns = UINT64_C(1000000000);
  return s;
}

static void free_msg(bl_msg *m) {
  if (m != NULL)
    bl_msg_fini(m);
  bl_free(m);
}

void sim_free(sim *s) {
  if (s == NULL)
    return;
  for (size_t i = 0; i < s->n_heap; i++)
    free_msg(s->heap[i].msg);
  for (uint32_t i = 0; i < s->n_sockets; i++)
    bl_free(s->sockets[i]);
  for (uint32_t i = 0; i < s->n_nodes; i++)
    bl_free(s->nodes[i]);
  bl_free(s->heap);
  bl_free(s);
}

uint64_t sim_now(const sim *s) { return s->now_ns; }
void sim_set_config(sim *s, const sim_config *config) {
  uint64_t seed = s->config.seed;
  s->config = *config;
  s->config.seed = seed;
}
sim_stats sim_get_stats(const sim *s) { return s->stats; }

uint64_t sim_random_below(sim *s, uint64_t n) { return bl_rng_below(s->config.seed, 0x51, s->n_random++, n); }

static bool chance(sim *s, uint32_t per_1000) { return per_1000 > 0 && sim_random_below(s, 1000) < per_1000; }

/* ---- events ---- */

static bool before(const event *a, const event *b) {
  return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->number < b->number;
}

static void put(sim *s, event e) {
  if (s->n_heap == s->heap_capacity) {
    s->heap_capacity = BL_MAX(s->heap_capacity * 2, (size_t)64);
    s->heap = bl_realloc_array(s->heap, s->heap_capacity, sizeof *s->heap);
    BL_ASSERT(s->heap != NULL);
  }
  e.number = s->n_events++;
  size_t i = s->n_heap++;
  for (; i > 0 && before(&e, &s->heap[(i - 1) / 2]); i = (i - 1) / 2)
    s->heap[i] = s->heap[(i - 1) / 2];
  s->heap[i] = e;
}

static event take(sim *s) {
  event top = s->heap[0], last = s->heap[--s->n_heap];
  size_t i = 0;
  for (size_t child; (child = 2 * i + 1) < s->n_heap; i = child) {
    if (child + 1 < s->n_heap && before(&s->heap[child + 1], &s->heap[child]))
      child++;
    if (!before(&s->heap[child], &last))
      break;
    s->heap[i] = s->heap[child];
  }
  s->heap[i] = last;
  return top;
}

void sim_after(sim *s, uint64_t delay_ns, void (*fn)(void *arg), void *arg) {
  put(s, (event){.at_ns = s->now_ns + delay_ns, .fn = fn, .arg = arg});
}

/* ---- nodes and sockets ---- */

sim_node *sim_node_new(sim *s, const char *name, sim_tick_fn *tick, void *arg) {
  sim_node *n = bl_calloc(1, sizeof *n);
  BL_ASSERT(n != NULL && s->n_nodes < NODES_MAX);
  strncpy(n->name, name, sizeof n->name - 1);
  n->sim = s;
  n->tick = tick;
  n->arg = arg;
  n->alive = true;
  n->next_tick_ns = s->now_ns;
  n->index = s->n_nodes;
  s->nodes[s->n_nodes++] = n;
  return n;
}

void sim_node_crash(sim_node *n) { n->alive = false; }
bool sim_node_is_alive(const sim_node *n) { return n->alive; }
void sim_node_restart(sim_node *n) {
  n->alive = true;
  n->next_tick_ns = n->sim->now_ns;
}
void sim_node_pause(sim_node *n, uint64_t for_ns) {
  n->paused_until_ns = BL_MAX(n->paused_until_ns, n->sim->now_ns + for_ns);
}
void sim_node_set_filter(sim_node *n, sim_filter_fn *fn, void *arg) {
  n->filter = fn;
  n->filter_arg = arg;
}
void sim_node_wake(sim_node *n) { n->next_tick_ns = n->sim->now_ns; }
void sim_cut(sim *s, const sim_node *a, const sim_node *b, bool cut) { s->cut[a->index][b->index] = cut; }

static sim_socket *find_dealer(sim *s, const sim_socket *router, const bl_peer *peer) {
  for (uint32_t i = 0; i < s->n_sockets; i++) {
    sim_socket *d = s->sockets[i];
    if (d->router == router && !d->closed && d->node->alive && d->self.id_size == peer->id_size &&
        memcmp(d->self.id, peer->id, peer->id_size) == 0)
      return d;
  }
  return NULL;
}

static bl_frame *filtered(const sim_socket *from, const sim_socket *to, const bl_msg *msg) {
  const sim_node *n = from->node->filter != NULL ? from->node : to->node;
  return n->filter != NULL ? n->filter(n->filter_arg, msg) : bl_frame_ref(msg->head);
}

static void deliver_later(sim *s, sim_socket *from, sim_socket *to, const bl_msg *msg) {
  uint64_t span = s->config.delay_max_ns - s->config.delay_min_ns;
  uint64_t at = s->now_ns + s->config.delay_min_ns + (span > 0 ? sim_random_below(s, span) : 0);
  sim_socket *dealer = from->router != NULL || from->other != NULL ? from : to;
  uint64_t *last = dealer == from ? &dealer->last_to_router_ns : &dealer->last_from_router_ns;
  if (!s->config.reorder || from->other != NULL)
    at = BL_MAX(at, *last);
  *last = BL_MAX(at, *last);
  bl_msg *copy = bl_calloc(1, sizeof *copy);
  BL_ASSERT(copy != NULL);
  copy->head = filtered(from, to, msg);
  copy->n_frames = msg->n_frames;
  for (uint32_t i = 0; i < msg->n_frames; i++)
    copy->frames[i] = bl_frame_ref(msg->frames[i]);
  put(s, (event){.at_ns = at, .from = from, .to = to, .msg = copy});
}

static bl_status pipe_send(bl_transport *t, const bl_peer *to, bl_msg *msg) {
  (void)to;
  sim_socket *from = (sim_socket *)t;
  deliver_later(from->node->sim, from, from->other, msg);
  bl_msg_fini(msg);
  return BL_OK;
}

static bl_status transport_send(bl_transport *t, const bl_peer *to, bl_msg *msg) {
  sim_socket *from = (sim_socket *)t;
  sim *s = from->node->sim;
  sim_socket *target = from->router != NULL ? from->router : find_dealer(s, from, to);
  if (target == NULL)
    return BL_EUNREACHABLE;
  s->stats.sent++;
  bool lost = chance(s, s->config.drop_per_1000) || s->cut[from->node->index][target->node->index];
  s->stats.dropped += lost;
  if (!lost) {
    deliver_later(s, from, target, msg);
    if (chance(s, s->config.duplicate_per_1000)) {
      s->stats.duplicated++;
      deliver_later(s, from, target, msg);
    }
  }
  bl_msg_fini(msg);
  return BL_OK;
}

static sim_socket *new_socket(sim_node *n, bl_on_msg_fn *on_msg, void *arg) {
  sim *s = n->sim;
  sim_socket *socket = bl_calloc(1, sizeof *socket);
  BL_ASSERT(socket != NULL && s->n_sockets < SOCKETS_MAX);
  socket->transport.send = transport_send;
  socket->node = n;
  socket->on_msg = on_msg;
  socket->arg = arg;
  s->sockets[s->n_sockets++] = socket;
  return socket;
}

sim_socket *sim_router(sim_node *n, bl_on_msg_fn *on_msg, void *arg) { return new_socket(n, on_msg, arg); }

sim_socket *sim_dealer(sim_node *n, const char *identity, sim_socket *router, bl_on_msg_fn *on_msg, void *arg) {
  sim_socket *socket = new_socket(n, on_msg, arg);
  size_t size = strlen(identity);
  BL_ASSERT(size > 0 && size <= BL_PEER_ID_BYTES_MAX);
  socket->router = router;
  memcpy(socket->self.id, identity, size);
  socket->self.id_size = (uint8_t)size;
  return socket;
}

void sim_pipe(const sim_end *a, const sim_end *b, sim_socket **ret_a, sim_socket **ret_b) {
  sim_socket *x = new_socket(a->node, a->on_msg, a->arg), *y = new_socket(b->node, b->on_msg, b->arg);
  x->transport.send = y->transport.send = pipe_send;
  x->other = y;
  y->other = x;
  *ret_a = x;
  *ret_b = y;
}

void sim_socket_close(sim_socket *socket) { socket->closed = true; }

bl_transport *sim_transport(sim_socket *socket) { return &socket->transport; }

/* ---- running ---- */

static void tick(sim_node *n) {
  sim *s = n->sim;
  if (!n->alive)
    return;
  uint64_t next = n->tick(n->arg, s->now_ns);
  n->next_tick_ns = next == UINT64_MAX ? next : BL_MAX(next, s->now_ns + TICK_MIN_NS);
}

static void happen(sim *s, event *e) {
  if (e->fn != NULL) {
    e->fn(e->arg);
    return;
  }
  if (e->to->node->alive && e->to->node->paused_until_ns > s->now_ns) {
    e->at_ns = e->to->node->paused_until_ns;
    put(s, *e);
    return;
  }
  if (e->to->node->alive && !e->to->closed) {
    s->stats.delivered++;
    e->to->on_msg(e->from->router != NULL ? &e->from->self : NULL, e->msg, e->to->arg);
    tick(e->to->node);
  }
  free_msg(e->msg);
}

static sim_node *next_to_tick(sim *s) {
  sim_node *best = NULL;
  for (uint32_t i = 0; i < s->n_nodes; i++) {
    sim_node *n = s->nodes[i];
    n->next_tick_ns = BL_MAX(n->next_tick_ns, n->paused_until_ns);
    if (n->alive && n->next_tick_ns != UINT64_MAX && (best == NULL || n->next_tick_ns < best->next_tick_ns))
      best = n;
  }
  return best;
}

bool sim_run(sim *s, sim_done_fn *done, void *arg, uint64_t limit_ns) {
  uint64_t end = s->now_ns + limit_ns;
  while (!done(arg)) {
    sim_node *n = next_to_tick(s);
    bool is_event = s->n_heap > 0 && (n == NULL || s->heap[0].at_ns <= n->next_tick_ns);
    if (!is_event && n == NULL)
      return false;
    uint64_t at = is_event ? s->heap[0].at_ns : n->next_tick_ns;
    if (at > end) {
      s->now_ns = end;
      return false;
    }
    s->now_ns = BL_MAX(s->now_ns, at);
    if (is_event) {
      event e = take(s);
      happen(s, &e);
    } else {
      tick(n);
    }
  }
  return true;
}
