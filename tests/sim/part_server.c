/* SPDX-License-Identifier: Apache-2.0
 *
 * Servers in the simulator: the node on one thread, each shard on another, orders and reports in between take
 * their time, as those of server/thread.c do.
 */
#include "parts.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/num.h"
#include "support.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define JOBS_SHOWN_MAX 8
#define REPORT_NS (500 * BL_NS_PER_MS)

/* ---- shards ---- */

static void watch_open(cluster *c, const Ballast__Control__JobPlan *plan) {
  sim_job *job = cluster_job_by_id(c, plan->job);
  if (job == NULL || job->applied != NULL)
    return;
  job->is_free = !bl_plan_in_step(plan);
  job->clocks = job->is_free ? SIM_FREE_CLOCKS_MAX : plan->clocks;
  job->world = plan->world;
  job->n_chunks = (uint32_t)plan->n_chunk_shards;
  job->applied = bl_calloc(job->clocks * plan->world, plan->n_chunk_shards);
  ck_assert_ptr_nonnull(job->applied);
  bl_tensor_table *table;
  ck_assert_ok(bl_plan_table(plan, &table, NULL));
  for (uint64_t i = 0; plan->streams > 1 && i < job->clocks * plan->world * plan->n_chunk_shards; i++)
    if (!bl_tensor_in_clock(table, table->chunks[i % table->n_chunks].tensor, i / table->n_chunks / plan->world))
      job->applied[i] = SIM_NOT_IN_CLOCK;
  bl_tensor_table_free(table);
}

static void tap(const srv_entry *e, void *arg) {
  cluster *c = ((sim_shard *)arg)->server->c;
  if (e->kind == SRV_ENTRY_OPEN)
    watch_open(c, e->plan);
  sim_job *job = cluster_job_by_id(c, e->job);
  if (e->kind != SRV_ENTRY_PUSH || job == NULL)
    return;
  if (e->clock >= job->clocks || e->rank >= job->world || e->chunk >= job->n_chunks) {
    cluster_break(c, "a push of rank %u, clock %" PRIu64 ", chunk %u is none of job %" PRIu64, e->rank,
                  e->clock, e->chunk, e->job);
    return;
  }
  size_t at = ((size_t)e->clock * job->world + e->rank) * job->n_chunks + e->chunk;
  /* What a free running rank had pushed for its open clock is forgotten with its incarnation. */
  bool again = job->is_free ? job->applied[at] == (uint8_t)e->incarnation : job->applied[at] != 0;
  job->applied[at] = job->is_free ? (uint8_t)e->incarnation : 1;
  if (again)
    cluster_break(c, "clock %" PRIu64 ", rank %u, chunk %u of job %" PRIu64 " is applied twice", e->clock,
                  e->rank, e->chunk, e->job);
}

static void obey(sim_shard *s, sim_order *o) {
  if (o->plan != NULL) {
    (void)!srv_shard_open_job(s->shard, o->plan, NULL); /* a failure stands in its reports */
    bl_control_free(&o->plan->base);
    return;
  }
  (void)!srv_shard_close_job(s->shard, o->job);
  if (o->job <= CLUSTER_JOBS_MAX)
    s->last_clock[o->job] = s->last_view[o->job] = 0;
}

static void watch(sim_shard *s) {
  srv_shard_job_info infos[JOBS_SHOWN_MAX];
  size_t n = srv_shard_jobs(s->shard, infos, JOBS_SHOWN_MAX);
  for (size_t i = 0; i < n; i++) {
    uint64_t id = infos[i].job;
    if (id > CLUSTER_JOBS_MAX)
      continue;
    if (infos[i].clock < s->last_clock[id] || infos[i].view < s->last_view[id])
      cluster_break(s->server->c, "clock or view of job %" PRIu64 " goes back on %s: %" PRIu64 ", %" PRIu64, id,
                    s->server->name, infos[i].clock, infos[i].view);
    if (infos[i].view != s->last_view[id])
      s->server->report_at_ns = 0;
    s->last_clock[id] = infos[i].clock;
    s->last_view[id] = infos[i].view;
  }
}

static uint64_t shard_tick(void *arg, uint64_t now_ns) {
  sim_shard *s = arg;
  uint32_t n = 0;
  while (n < s->n_orders && s->orders[n].at_ns <= now_ns)
    obey(s, &s->orders[n++]);
  s->n_orders -= n;
  memmove(s->orders, s->orders + n, s->n_orders * sizeof *s->orders);
  uint64_t next = srv_shard_tick(s->shard, now_ns);
  watch(s);
  if (s->server->report_at_ns == 0)
    sim_node_wake(s->server->node);
  return s->n_orders > 0 ? BL_MIN(next, s->orders[0].at_ns) : next;
}

static void shard_on_msg(const bl_peer *from, bl_msg *msg, void *arg) {
  sim_shard *s = arg;
  srv_shard_on_msg(s->shard, from, msg, sim_now(s->server->c->sim));
}

static void order(sim_server *server, uint32_t index, Ballast__Control__JobPlan *plan, uint64_t job) {
  sim_shard *s = &server->shards[index];
  ck_assert_uint_lt(s->n_orders, SIM_ORDERS_MAX);
  uint64_t at = sim_now(server->c->sim) + sim_random_below(server->c->sim, 5 * BL_NS_PER_MS);
  if (s->n_orders > 0)
    at = BL_MAX(at, s->orders[s->n_orders - 1].at_ns);
  s->orders[s->n_orders++] = (sim_order){at, plan, job};
  sim_node_wake(s->node);
}

static bl_status order_open(void *arg, uint32_t shard, Ballast__Control__JobPlan *plan) {
  order(arg, shard, plan, plan->job);
  return BL_OK;
}

static void order_close(void *arg, uint32_t shard, uint64_t job) {
  order(arg, shard, NULL, job);
}

/* ---- the process ---- */

static uint64_t server_tick(void *arg, uint64_t now_ns) {
  sim_server *s = arg;
  if (now_ns >= s->report_at_ns) {
    for (uint32_t i = 0; i < s->c->o->n_shards; i++) {
      srv_shard_job_info infos[JOBS_SHOWN_MAX];
      size_t n = srv_shard_jobs(s->shards[i].shard, infos, JOBS_SHOWN_MAX);
      srv_node_on_report(s->ctl, i, infos, BL_MIN(n, JOBS_SHOWN_MAX), now_ns);
    }
    s->report_at_ns = now_ns + REPORT_NS;
  }
  return BL_MIN(s->report_at_ns, srv_node_tick(s->ctl, now_ns));
}

static void server_on_msg(const bl_peer *from, bl_msg *msg, void *arg) {
  (void)from;
  sim_server *s = arg;
  srv_node_on_msg(s->ctl, msg, sim_now(s->c->sim));
}

static void shard_start(sim_shard *s) {
  srv_shard_config config = {.server = s->server->name,
                             .index = s->index,
                             .protocol_max = sim_protocol(sim_server_is_old(s->server)),
                             .window_bytes = 16 << 10,
                             .hold_bytes_max = 1 << 20,
                             .log_bytes_max = 1 << 20,
                             .transport = sim_transport(s->router),
                             .tap = tap,
                             .tap_arg = s};
  memset(s->last_clock, 0, sizeof s->last_clock);
  memset(s->last_view, 0, sizeof s->last_view);
  ck_assert_ok(srv_shard_new(&config, &s->shard, NULL));
  sim_set_old(s->server->c, s->node, sim_server_is_old(s->server));
  sim_node_restart(s->node);
}

void sim_server_start(void *arg) {
  sim_server *s = arg;
  cluster *c = s->c;
  if (s->ctl != NULL)
    return;
  char identity[BL_PEER_ID_BYTES_MAX];
  s->incarnation = SIM_WALL_NS + sim_now(c->sim);
  snprintf(identity, sizeof identity, "s.%s.%016" PRIx64, s->name, s->incarnation);
  s->dealer = sim_dealer(s->node, identity, c->co.router, server_on_msg, s);
  for (uint32_t i = 0; i < c->o->n_shards; i++)
    shard_start(&s->shards[i]);
  srv_node_config config = {.name = s->name,
                            .address = "sim",
                            .incarnation = s->incarnation,
                            .endpoints = s->endpoint_list,
                            .n_shards = c->o->n_shards,
                            .protocol_max = sim_protocol(sim_server_is_old(s)),
                            .memory_bytes = 1 << 28,
                            .heartbeat_ns = 500 * BL_NS_PER_MS,
                            .lease_ns = 3 * BL_NS_PER_S,
                            .coordinator = sim_transport(s->dealer),
                            .open_job = order_open,
                            .close_job = order_close,
                            .arg = s};
  ck_assert_ok(srv_node_new(&config, &s->ctl, NULL));
  sim_set_old(c, s->node, sim_server_is_old(s));
  s->report_at_ns = 0;
  sim_node_restart(s->node);
}

void sim_server_init(cluster *c, uint32_t index) {
  sim_server *s = &c->servers[index];
  s->c = c;
  snprintf(s->name, sizeof s->name, "s%u", index);
  s->node = sim_node_new(c->sim, s->name, server_tick, s);
  sim_node_crash(s->node);
  for (uint32_t i = 0; i < c->o->n_shards; i++) {
    sim_shard *shard = &s->shards[i];
    shard->server = s;
    shard->index = i;
    snprintf(s->endpoints[i], sizeof s->endpoints[i], "tcp://%u:%u", index, i);
    s->endpoint_list[i] = s->endpoints[i];
    shard->node = sim_node_new(c->sim, s->endpoints[i], shard_tick, shard);
    shard->router = sim_router(shard->node, shard_on_msg, shard);
    sim_node_crash(shard->node);
  }
}

void sim_server_crash(sim_server *s) {
  if (s->ctl == NULL)
    return;
  srv_node_free(s->ctl);
  s->ctl = NULL;
  s->c->old_servers &= ~(1u << (s - s->c->servers));
  sim_node_crash(s->node);
  sim_socket_close(s->dealer);
  for (uint32_t i = 0; i < s->c->o->n_shards; i++) {
    sim_shard *shard = &s->shards[i];
    srv_shard_free(shard->shard);
    shard->shard = NULL;
    for (uint32_t k = 0; k < shard->n_orders; k++)
      if (shard->orders[k].plan != NULL)
        bl_control_free(&shard->orders[k].plan->base);
    shard->n_orders = 0;
    sim_node_crash(shard->node);
  }
}

bool sim_server_holds_nothing(const sim_server *s) {
  Ballast__Control__ServerJobStatus status;
  if (s->ctl == NULL)
    return true;
  for (uint32_t i = 0; i < s->c->o->n_shards; i++) {
    srv_shard_stats stats;
    srv_shard_get_stats(s->shards[i].shard, &stats);
    if (stats.n_jobs > 0 || stats.memory_bytes > 0 || stats.held_bytes > 0 || s->shards[i].n_orders > 0)
      return false;
  }
  return !srv_node_job_at(s->ctl, 0, &status);
}
