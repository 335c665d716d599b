/* SPDX-License-Identifier: Apache-2.0
 *
 * The worker's agent: keeps the coordinator informed, runs one process per rank that is placed here, and
 * outlives all of them. A deterministic core without sockets, processes or clocks: it is fed messages,
 * exits, output lines and time, and acts through a transport and a launcher (both real or simulated).
 *
 * What it holds per (job, rank) is one record: the highest incarnation asked for, its state, and the reports
 * that the coordinator has not acknowledged. Ended tasks are remembered, and stand in every heartbeat, until
 * the coordinator stops them or replaces them. A lost coordinator changes nothing for tasks.
 *
 * Threads: one.
 */
#ifndef WK_AGENT_H
#define WK_AGENT_H

#include "wire/control.h"
#include "wire/transport.h"

/* Last words: what a crashed task wrote to stderr at the end. */
#define WK_AGENT_LAST_WORDS_BYTES 2048
/* A task that says nothing for this long is hung; while it loads its data it has longer. */
#define WK_AGENT_SILENCE_MAX_NS (UINT64_C(60) * 1000000000)
#define WK_AGENT_LOADING_SILENCE_MAX_NS (UINT64_C(600) * 1000000000)
/* A task asked to stop has this long before it is killed. */
#define WK_AGENT_STOP_GRACE_NS (UINT64_C(10) * 1000000000)
/* Unacknowledged reports per task: beyond the first limit log lines go, beyond the second the oldest epochs. */
#define WK_AGENT_LOGS_MAX 256
#define WK_AGENT_REPORTS_MAX 4096
/* Log lines per second and task that go to the coordinator, and how many may come at once. */
#define WK_AGENT_LOG_LINES_PER_S 20
#define WK_AGENT_LOG_BURST 100
/* Unacknowledged reports are sent again after this; doubles up to the second. */
#define WK_AGENT_REPEAT_NS (UINT64_C(1) * 1000000000)
#define WK_AGENT_REPEAT_MAX_NS (UINT64_C(10) * 1000000000)
/* Ended tasks remembered; the oldest without reports go first. */
#define WK_AGENT_ENDED_MAX 1024

/* What a launcher needs to make a task process. Strings are borrowed for the call. */
typedef struct wk_launch {
  uint64_t process; /* number that names this process to launcher and agent; never used twice */
  uint64_t job;
  uint32_t rank, incarnation;
  const char *blas_core; /* "" : whatever BLAS picks */
  uint32_t blas_threads;
} wk_launch;

typedef struct wk_launcher wk_launcher;
struct wk_launcher {
  bl_status (*start)(wk_launcher *l, const wk_launch *what, bl_error *err);
  /* To the process's pipe; as bl_transport.send. */
  bl_status (*send)(wk_launcher *l, uint64_t process, bl_msg *msg);
  void (*kill)(wk_launcher *l, uint64_t process, int signum);
};

typedef struct wk_agent_config {
  const char *name, *host, *rack; /* all strings are borrowed for the agent's life */
  uint64_t incarnation;
  const char *build, *blas_core, *kernel_table, *status_url, *public_key;
  uint32_t slots, cores;
  uint32_t protocol_max;          /* 0: all that this program speaks; see bl_protocol_max */
  const char *coordinator;        /* its address, for messages */
  bl_transport *transport;        /* to the coordinator */
  wk_launcher *launcher;
} wk_agent_config;

typedef struct wk_agent wk_agent;

BL_MUST_CHECK bl_status wk_agent_new(const wk_agent_config *config, wk_agent **ret_agent, bl_error *err);
void wk_agent_free(wk_agent *a); /* does not end processes */

/* A message from the coordinator. Malformed ones are counted and dropped. */
void wk_agent_on_msg(wk_agent *a, const bl_msg *msg, uint64_t now_ns);
/* From a task process; one of a process that was replaced is ignored. */
void wk_agent_on_task_msg(wk_agent *a, uint64_t process, const bl_msg *msg, uint64_t now_ns);
/* Bytes that a task wrote to stderr. */
void wk_agent_on_task_output(wk_agent *a, uint64_t process, const char *bytes, size_t size, uint64_t now_ns,
                             uint64_t wall_ns);
/* The process is gone; everything that it had sent was handed over before. signum 0: exited with code. */
void wk_agent_on_task_exit(wk_agent *a, uint64_t process, int64_t code, int signum, uint64_t now_ns);
/* Does what is due; returns when to call again at the latest. */
uint64_t wk_agent_tick(wk_agent *a, uint64_t now_ns);
/* The daemon ends: tasks are asked to stop. True when no process is left. */
bool wk_agent_stop(wk_agent *a, const char *reason, uint64_t now_ns);

typedef struct wk_agent_stats {
  uint64_t tasks_started, tasks_crashed, tasks_hung;
  uint64_t heartbeats, reports_sent, reports_acknowledged, reports_dropped, log_lines_dropped, malformed;
} wk_agent_stats;

bool wk_agent_is_registered(const wk_agent *a);
/* How long nothing came from the coordinator; 0 while all is well. */
uint64_t wk_agent_silence_ns(const wk_agent *a, uint64_t now_ns);
/* Set when the coordinator refused this node for good (protocol version): the daemon should end. "" otherwise. */
const char *wk_agent_refusal(const wk_agent *a, bool *ret_for_good);
wk_agent_stats wk_agent_get_stats(const wk_agent *a);
size_t wk_agent_n_processes(const wk_agent *a);
/* Status of the ith record, borrowed until the next call that changes the agent; NULL behind the last. */
const Ballast__Control__TaskStatus *wk_agent_task_at(const wk_agent *a, size_t i);

#endif
