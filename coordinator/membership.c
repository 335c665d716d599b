/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/membership.h"

#include "base/alloc.h"
#include "base/num.h"

#include <inttypes.h>
#include <string.h>

void co_membership_init(co_membership *m) {
  *m = (co_membership){NULL, 0, 0};
}

static void node_free(co_node *node) {
  if (node == NULL)
    return;
  if (node->reg != NULL)
    bl_control_free(&node->reg->base);
  if (node->hb != NULL)
    bl_control_free(&node->hb->base);
  bl_free(node);
}

void co_membership_fini(co_membership *m) {
  for (size_t i = 0; i < m->n; i++)
    node_free(m->nodes[i]);
  bl_free(m->nodes);
  co_membership_init(m);
}

/* First position whose name is not below `name`. */
static size_t lower_bound(const co_membership *m, const char *name) {
  size_t first = 0, end = m->n;
  while (first < end) {
    size_t mid = first + (end - first) / 2;
    if (strcmp(m->nodes[mid]->reg->name, name) < 0)
      first = mid + 1;
    else
      end = mid;
  }
  return first;
}

size_t co_membership_index(const co_membership *m, const char *name) {
  size_t i = lower_bound(m, name);
  return i < m->n && strcmp(m->nodes[i]->reg->name, name) == 0 ? i : m->n;
}

co_node *co_membership_find(const co_membership *m, const char *name) {
  size_t i = co_membership_index(m, name);
  return i < m->n ? m->nodes[i] : NULL;
}

static bool same_peer(const bl_peer *a, const bl_peer *b) {
  return a->id_size == b->id_size && memcmp(a->id, b->id, a->id_size) == 0;
}

co_node *co_membership_find_peer(const co_membership *m, const bl_peer *peer) {
  for (size_t i = 0; i < m->n; i++)
    if (same_peer(&m->nodes[i]->peer, peer))
      return m->nodes[i];
  return NULL;
}

bool co_node_is(const co_node *node, bl_role role) {
  return (bl_role)node->reg->role == role;
}

static bl_status check_registration(const Ballast__Control__Register *reg, bl_error *err) {
  if (reg->role == BALLAST__CONTROL__ROLE__ROLE_SERVER && reg->n_shard_endpoints == 0)
    return bl_fail(err, BL_EINVAL, "server '%s' registers without a shard", reg->name);
  if (reg->role == BALLAST__CONTROL__ROLE__ROLE_WORKER && reg->slots == 0)
    return bl_fail(err, BL_EINVAL, "worker '%s' registers without a slot", reg->name);
  if (reg->role != BALLAST__CONTROL__ROLE__ROLE_SERVER && reg->role != BALLAST__CONTROL__ROLE__ROLE_WORKER)
    return bl_fail(err, BL_EINVAL, "'%s' registers as neither server nor worker", reg->name);
  return BL_OK;
}

/* The later start owns a name: a restarted daemon must not wait for its predecessor's lease. */
static bl_status check_name_is_free(const co_node *node, const Ballast__Control__Register *reg, bl_error *err) {
  if (node->reg->role != reg->role && node->alive)
    return bl_fail(err, BL_EEXIST, "the name '%s' belongs to a %s on host '%s'", reg->name,
                   bl_role_name((bl_role)node->reg->role), node->reg->host);
  if (reg->incarnation < node->reg->incarnation)
    return bl_fail(
        err, BL_EEXIST,
        "the name '%s' belongs to a process on host '%s' that started later; give this one another name",
        reg->name, node->reg->host);
  return BL_OK;
}

static bl_status insert(co_membership *m, size_t at, co_node *node) {
  if (m->n == m->capacity) {
    size_t capacity = BL_MAX(16, 2 * m->capacity);
    co_node **nodes = bl_realloc_array(m->nodes, capacity, sizeof(co_node *));
    if (nodes == NULL)
      return BL_ENOMEM;
    m->nodes = nodes;
    m->capacity = capacity;
  }
  memmove(m->nodes + at + 1, m->nodes + at, (m->n - at) * sizeof(co_node *));
  m->nodes[at] = node;
  m->n++;
  return BL_OK;
}

bl_status co_membership_register(co_membership *m, const bl_peer *peer, Ballast__Control__Register *reg,
                                 uint64_t now_ns, co_node **ret_node, bl_error *err) {
  bl_status status = check_registration(reg, err);
  if (status != BL_OK)
    return status;
  co_node *node = co_membership_find(m, reg->name);
  if (node != NULL) {
    status = check_name_is_free(node, reg, err);
    if (status != BL_OK)
      return status;
    if (reg->incarnation != node->reg->incarnation && node->hb != NULL) {
      bl_control_free(&node->hb->base);
      node->hb = NULL;
    }
    bl_control_free(&node->reg->base);
  } else {
    if (m->n >= CO_NODES_MAX)
      return bl_fail(err, BL_ELIMIT, "'%s' cannot join: the cluster has %u nodes, the most there can be",
                     reg->name, CO_NODES_MAX);
    node = bl_calloc(1, sizeof *node);
    if (node == NULL || insert(m, lower_bound(m, reg->name), node) != BL_OK) {
      bl_free(node);
      return bl_fail(err, BL_ENOMEM, "no memory for node '%s'", reg->name);
    }
  }
  node->reg = reg;
  node->peer = *peer;
  node->alive = true;
  node->heard_ns = now_ns;
  node->cleanup_sent_ns = 0;
  *ret_node = node;
  return BL_OK;
}

bl_status co_membership_heartbeat(co_membership *m, const bl_peer *peer, Ballast__Control__Heartbeat *hb,
                                  uint64_t now_ns, co_node **ret_node) {
  co_node *node = co_membership_find(m, hb->name);
  if (node == NULL || node->reg->incarnation != hb->incarnation || !same_peer(&node->peer, peer))
    return BL_ENOENT;
  if (node->hb != NULL && hb->sequence <= node->hb->sequence)
    return BL_ESTATE;
  if (node->hb != NULL)
    bl_control_free(&node->hb->base);
  node->hb = hb;
  node->alive = true;
  node->heard_ns = now_ns;
  *ret_node = node;
  return BL_OK;
}

size_t co_membership_expire(co_membership *m, uint64_t now_ns, uint64_t lease_ns) {
  size_t n = 0;
  for (size_t i = 0; i < m->n; i++) {
    co_node *node = m->nodes[i];
    if (node->alive && now_ns > node->heard_ns && now_ns - node->heard_ns > lease_ns) {
      node->alive = false;
      n++;
    }
  }
  return n;
}

const Ballast__Control__TaskStatus *co_node_task(const co_node *node, uint64_t job, uint32_t rank,
                                                 uint32_t incarnation) {
  if (node->hb == NULL)
    return NULL;
  for (size_t i = 0; i < node->hb->n_tasks; i++) {
    const Ballast__Control__TaskStatus *t = node->hb->tasks[i];
    if (t->job == job && t->rank == rank && t->incarnation == incarnation)
      return t;
  }
  return NULL;
}

const Ballast__Control__ServerJobStatus *co_node_job(const co_node *node, uint64_t job) {
  if (node->hb == NULL)
    return NULL;
  for (size_t i = 0; i < node->hb->n_jobs; i++)
    if (node->hb->jobs[i]->job == job)
      return node->hb->jobs[i];
  return NULL;
}
