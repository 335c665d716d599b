/* SPDX-License-Identifier: Apache-2.0
 *
 * The coordinator in the simulator. Everything it says is held against its store before it goes out. A crash
 * takes it within a tick: what was written stays, what would have been said is not.
 */
#include "parts.h"

#include "base/clock.h"
#include "base/num.h"
#include "tests/support/memory_store.h"

#include <check.h>
#include <inttypes.h>

typedef struct announcement {
  uint64_t job, view;
  uint32_t rank, incarnation; /* rank UINT32_MAX: not about one */
  const Ballast__Control__JobPlan *plan;
} announcement;

static bool announcement_of(bl_msg_type type, const ProtobufCMessage *base, announcement *a) {
  *a = (announcement){.rank = UINT32_MAX};
  if (type == BL_MSG_OPEN_JOB) {
    a->plan = ((const Ballast__Control__OpenJob *)base)->plan;
  } else if (type == BL_MSG_START_TASK) {
    const Ballast__Control__StartTask *m = (const Ballast__Control__StartTask *)base;
    *a = (announcement){.plan = m->plan, .rank = m->rank, .incarnation = m->incarnation};
  } else if (type == BL_MSG_UPDATE_TASK) {
    const Ballast__Control__UpdateTask *m = (const Ballast__Control__UpdateTask *)base;
    *a = (announcement){.plan = m->plan, .rank = m->rank, .incarnation = m->incarnation};
  } else if (type == BL_MSG_RUN_TASK) {
    const Ballast__Control__RunTask *m = (const Ballast__Control__RunTask *)base;
    *a = (announcement){m->job, m->view, m->rank, m->incarnation, NULL};
  } else {
    return false;
  }
  if (a->plan != NULL) {
    a->job = a->plan->job;
    a->view = a->plan->view;
  }
  return true;
}

static void check_stored(sim_coordinator *k, const announcement *a) {
  cluster *c = k->c;
  const co_job_record *r = memory_store_job(k->store, a->job);
  sim_job *job = cluster_job_by_id(c, a->job);
  if (r == NULL || a->view > r->view) {
    cluster_break(c, "view %" PRIu64 " of job %" PRIu64 " is announced before it is stored", a->view, a->job);
    return;
  }
  if (a->rank != UINT32_MAX && r->ranks[a->rank].incarnation != a->incarnation)
    cluster_break(c, "incarnation %u of rank %u is announced, stored is %u", a->incarnation, a->rank,
                  r->ranks[a->rank].incarnation);
  for (uint32_t i = 0; a->plan != NULL && i < r->n_ranks; i++)
    if (a->plan->incarnations[i] != r->ranks[i].incarnation)
      cluster_break(c, "a plan has incarnation %u of rank %u, stored is %u", a->plan->incarnations[i], i,
                    r->ranks[i].incarnation);
  /* An incomplete plan names none: a job that went back into the queue loads again. */
  if (job != NULL && a->view != 0 && a->view < job->max_view)
    cluster_break(c, "view %" PRIu64 " of job %" PRIu64 " is announced after %" PRIu64, a->view, a->job,
                  job->max_view);
  if (job != NULL)
    job->max_view = BL_MAX(job->max_view, a->view);
}

static void die_if_due(sim_coordinator *k) {
  if (k->die_at_puts == 0 || memory_store_puts(k->store) < k->die_at_puts)
    return;
  k->dying = true;
  memory_store_set_failing(k->store, true);
}

static bl_status checked_send(bl_transport *t, const bl_peer *to, bl_msg *msg) {
  sim_coordinator *k = (sim_coordinator *)t;
  bl_msg_type type;
  ProtobufCMessage *m;
  announcement a;
  bl_error err = BL_ERROR_INIT;
  die_if_due(k);
  if (k->dying) {
    bl_msg_fini(msg);
    return BL_OK;
  }
  if (bl_control_unpack(msg, &type, &m, &err) != BL_OK) {
    cluster_break(k->c, "the coordinator sends what nobody would accept: %s", err.text);
    return BL_EPROTO;
  }
  if (announcement_of(type, m, &a))
    check_stored(k, &a);
  bl_control_free(m);
  return bl_transport_send(sim_transport(k->router), to, msg);
}

void sim_coordinator_crash(sim_coordinator *k) {
  if (k->core == NULL)
    return;
  for (uint32_t i = 0; i < k->c->o->n_jobs; i++) {
    const co_job_record *r = memory_store_job(k->store, k->c->jobs[i].id);
    k->c->deaths_in[r != NULL ? co_job_phase_by_name(r->phase) : CO_JOB_INVALID]++;
  }
  co_core_free(k->core);
  k->core = NULL;
  k->c->old_coordinator = false;
  k->dying = false;
  k->die_at_puts = 0;
  sim_node_crash(k->node);
  memory_store_set_failing(k->store, false);
  if (k->back_after_ns > 0)
    sim_after(k->c->sim, k->back_after_ns, sim_coordinator_start, k);
}

static uint64_t coordinator_tick(void *arg, uint64_t now_ns) {
  sim_coordinator *k = arg;
  uint64_t next = UINT64_MAX;
  co_core_set_wall(k->core, SIM_WALL_NS + now_ns);
  if (!k->dying)
    next = co_core_tick(k->core, now_ns);
  if (k->dying)
    sim_coordinator_crash(k);
  return next;
}

static void coordinator_on_msg(const bl_peer *from, bl_msg *msg, void *arg) {
  sim_coordinator *k = arg;
  uint64_t now_ns = sim_now(k->c->sim);
  co_core_set_wall(k->core, SIM_WALL_NS + now_ns);
  co_core_on_msg(k->core, from, msg, now_ns);
}

void sim_coordinator_start(void *arg) {
  sim_coordinator *k = arg;
  uint64_t now_ns = sim_now(k->c->sim);
  if (k->core != NULL)
    return;
  co_core_config config = {.incarnation = SIM_WALL_NS + now_ns,
                           .heartbeat_ns = 500 * BL_NS_PER_MS,
                           .lease_ns = 3 * BL_NS_PER_S,
                           .history_jobs_max = 50,
                           .protocol_max = sim_protocol(k->c->old_coordinator),
                           .queue_pass_ns = UINT64_C(300000000000),
                           .transport = &k->checked,
                           .store = k->store};
  bl_error err = BL_ERROR_INIT;
  if (co_core_new(&config, now_ns, SIM_WALL_NS + now_ns, &k->core, &err) != BL_OK) {
    k->core = NULL;
    cluster_break(k->c, "the coordinator does not start again: %s", err.text);
    return;
  }
  sim_set_old(k->c, k->node, k->c->old_coordinator);
  sim_node_restart(k->node);
}

void sim_coordinator_init(cluster *c) {
  sim_coordinator *k = &c->co;
  k->checked.send = checked_send;
  k->c = c;
  k->store = memory_store_new();
  ck_assert_ptr_nonnull(k->store);
  memory_store_set_forgetful(k->store, c->o->store_forgets);
  k->node = sim_node_new(c->sim, "c", coordinator_tick, k);
  k->router = sim_router(k->node, coordinator_on_msg, k);
  sim_coordinator_start(k);
}
