/* SPDX-License-Identifier: Apache-2.0
 *
 * Workers in the simulator: the agent, and a launcher whose processes are simulated tasks (part_task.c).
 */
#include "parts.h"

#include "base/clock.h"
#include "support.h"

#include <signal.h>
#include <stdio.h>

static sim_task *process_of(sim_worker *w, uint64_t process) {
  for (uint32_t i = w->c->n_tasks; i-- > 0;) {
    sim_task *t = w->c->tasks[i];
    if (t->worker == w && t->worker_incarnation == w->incarnation && t->process == process)
      return t;
  }
  return NULL;
}

static bl_status launch(wk_launcher *l, const wk_launch *what, bl_error *err) {
  sim_worker *w = (sim_worker *)l;
  (void)err;
  return sim_task_start(w, what);
}

static bl_status send_to_task(wk_launcher *l, uint64_t process, bl_msg *msg) {
  sim_task *t = process_of((sim_worker *)l, process);
  if (t == NULL || !sim_task_is_live(t))
    return BL_EUNREACHABLE;
  return bl_transport_send(sim_transport(t->of_agent), NULL, msg);
}

static void kill_task(wk_launcher *l, uint64_t process, int signum) {
  sim_task *t = process_of((sim_worker *)l, process);
  if (t != NULL && sim_task_is_live(t))
    sim_task_end(t, 0, (uint8_t)signum);
}

static uint64_t worker_tick(void *arg, uint64_t now_ns) {
  return wk_agent_tick(((sim_worker *)arg)->agent, now_ns);
}

static void worker_on_msg(const bl_peer *from, bl_msg *msg, void *arg) {
  (void)from;
  sim_worker *w = arg;
  wk_agent_on_msg(w->agent, msg, sim_now(w->c->sim));
}

void sim_worker_start(void *arg) {
  sim_worker *w = arg;
  cluster *c = w->c;
  if (w->agent != NULL)
    return;
  w->incarnation = SIM_WALL_NS + sim_now(c->sim);
  w->dealer = sim_dealer(w->node, w->name, c->co.router, worker_on_msg, w);
  wk_agent_config config = {.name = w->name,
                            .host = w->name,
                            .rack = "",
                            .incarnation = w->incarnation,
                            .build = "sim",
                            .blas_core = "Zen",
                            .kernel_table = "scalar",
                            .status_url = "",
                            .public_key = "",
                            .slots = c->o->n_slots,
                            .cores = 1,
                            .protocol_max = sim_protocol(sim_worker_is_old(w)),
                            .coordinator = "sim",
                            .transport = sim_transport(w->dealer),
                            .launcher = &w->launcher};
  ck_assert_ok(wk_agent_new(&config, &w->agent, NULL));
  sim_set_old(c, w->node, sim_worker_is_old(w));
  sim_node_restart(w->node);
}

void sim_worker_init(cluster *c, uint32_t index) {
  sim_worker *w = &c->workers[index];
  w->c = c;
  w->launcher = (wk_launcher){launch, send_to_task, kill_task};
  snprintf(w->name, sizeof w->name, "w%u", index);
  w->node = sim_node_new(c->sim, w->name, worker_tick, w);
  sim_node_crash(w->node);
}

/* Without their agent, tasks notice that their pipe is closed; a little later. */
static void orphan_ends(void *arg) {
  sim_task *t = arg;
  if (sim_task_is_live(t))
    sim_task_end(t, 1, 0);
}

void sim_worker_crash(sim_worker *w) {
  cluster *c = w->c;
  if (w->agent == NULL)
    return;
  wk_agent_free(w->agent);
  w->agent = NULL;
  c->old_workers &= ~(1u << (w - c->workers));
  sim_node_crash(w->node);
  sim_socket_close(w->dealer);
  for (uint32_t i = 0; i < c->n_tasks; i++) {
    sim_task *t = c->tasks[i];
    if (t->worker != w || t->worker_incarnation != w->incarnation)
      continue;
    sim_socket_close(t->of_agent);
    sim_after(c->sim, sim_random_below(c->sim, 50 * BL_NS_PER_MS), orphan_ends, t);
  }
}

void sim_worker_pause(sim_worker *w, uint64_t for_ns) {
  sim_node_pause(w->node, for_ns);
  for (uint32_t i = 0; i < w->c->n_tasks; i++)
    if (w->c->tasks[i]->worker == w)
      sim_node_pause(w->c->tasks[i]->node, for_ns);
}
