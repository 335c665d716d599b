/* SPDX-License-Identifier: Apache-2.0
 *
 * Processes, their pipes, and the order of their ends.
 */
#include "launcher.h"

#include "base/alloc.h"
#include "base/log.h"
#include "base/str.h"
#include "pipe.h"
#include "task.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PATH_BYTES_MAX 4096
#define ARGS_MAX 300
#define ENV_MAX 4096

extern char **environ;

typedef struct process {
  struct process *next;
  wk_processes *owner;
  uint64_t number;
  bl_child *child;
  wk_pipe *pipe;
  bl_watch *output;
  int output_fd; /* -1: closed */
  bl_timer *drain;
  bool pipe_ended, output_ended, exited;
  int64_t code;
  int signum;
} process;

struct wk_processes {
  wk_launcher base; /* first: the launcher is this object */
  bl_loop *loop;
  const char *const *task_args;
  wk_launcher_events events;
  process *first;
  char program[PATH_BYTES_MAX];
};

static void close_output(process *p) {
  if (p->output_fd < 0)
    return;
  bl_watch_close(p->output);
  close(p->output_fd);
  p->output_fd = -1;
}

static void process_free(process *p) {
  close_output(p);
  wk_pipe_close(p->pipe);
  if (p->child != NULL)
    bl_child_close(p->child);
  bl_timer_close(p->drain);
  bl_free(p);
}

static void finish(process *p) {
  wk_processes *owner = p->owner;
  for (process **at = &owner->first; *at != NULL; at = &(*at)->next) {
    if (*at == p) {
      *at = p->next;
      break;
    }
  }
  uint64_t number = p->number;
  int64_t code = p->code;
  int signum = p->signum;
  process_free(p);
  owner->events.on_exit(number, code, signum, owner->events.arg);
}

static void finish_when_silent(process *p) {
  if (p->exited && p->pipe_ended && p->output_ended)
    finish(p);
}

static void on_pipe_msg(bl_msg *msg, void *arg) {
  process *p = arg;
  p->owner->events.on_msg(p->number, msg, p->owner->events.arg);
}

static void on_pipe_end(bl_status why, const char *text, void *arg) {
  process *p = arg;
  p->pipe_ended = true;
  if (why != BL_OK) {
    bl_log_warning("task_pipe_broken", "process=%" PRIu64 " reason=%s", p->number, BL_LOGQ(text));
    if (!p->exited)
      bl_child_kill(p->child, SIGKILL);
  }
  finish_when_silent(p);
}

static void on_output(int events, void *arg) {
  (void)events;
  process *p = arg;
  char bytes[16384];
  ssize_t n = read(p->output_fd, bytes, sizeof bytes);
  if (n < 0 && (errno == EAGAIN || errno == EINTR))
    return;
  if (n > 0) {
    p->owner->events.on_output(p->number, bytes, (size_t)n, p->owner->events.arg);
    return;
  }
  close_output(p);
  p->output_ended = true;
  finish_when_silent(p);
}

static void on_drained(void *arg) { finish(arg); }

static void on_child_exit(int64_t code, int signum, void *arg) {
  process *p = arg;
  p->exited = true;
  p->code = code;
  p->signum = signum;
  bl_timer_start(p->drain, WK_LAUNCHER_DRAIN_MS, 0);
  finish_when_silent(p);
}

/* The environment of a task: ours, without what belongs to this daemon, with what BLAS reads before main. */
static bool is_ours_alone(const char *variable) {
  static const char *const names[] = {"JOURNAL_STREAM=", "NOTIFY_SOCKET=",        "WATCHDOG_PID=",
                                      "WATCHDOG_USEC=",  "OPENBLAS_NUM_THREADS=", "OPENBLAS_CORETYPE=",
                                      "LISTEN_FDS=",     "LISTEN_PID="};
  for (size_t i = 0; i < BL_COUNT_OF(names); i++) {
    if (bl_str_has_prefix(variable, names[i]))
      return true;
  }
  return false;
}

static bl_status spawn(process *p, const wk_launch *what, int pipe_fd, int output_fd, bl_error *err) {
  char threads[64], core[96];
  snprintf(threads, sizeof threads, "OPENBLAS_NUM_THREADS=%u", what->blas_threads);
  snprintf(core, sizeof core, "OPENBLAS_CORETYPE=%s", what->blas_core);
  char **env = bl_calloc(ENV_MAX + 3, sizeof *env);
  if (env == NULL)
    return bl_fail(err, BL_ENOMEM, "no memory for an environment");
  size_t n_env = 0;
  for (char **e = environ; *e != NULL && n_env < ENV_MAX; e++) {
    if (!is_ours_alone(*e))
      env[n_env++] = *e;
  }
  env[n_env++] = threads;
  if (what->blas_core[0] != '\0')
    env[n_env++] = core;
  char *argv[ARGS_MAX + 3] = {p->owner->program, (char *)"--task"};
  for (size_t i = 0; p->owner->task_args[i] != NULL && i < ARGS_MAX; i++)
    argv[2 + i] = (char *)p->owner->task_args[i];
  int fds[] = {-1, output_fd, output_fd, pipe_fd};
  bl_child_options options = {.file = p->owner->program,
                              .argv = argv,
                              .env = env,
                              .fds = fds,
                              .n_fds = BL_COUNT_OF(fds),
                              .die_with_parent = true};
  bl_status status = bl_child_spawn(p->owner->loop, &options, on_child_exit, p, &p->child, err);
  bl_free(env);
  return status;
}

static void close_fd(int fd) {
  if (fd >= 0)
    close(fd);
}

static bl_status launcher_start(wk_launcher *l, const wk_launch *what, bl_error *err) {
  wk_processes *owner = (wk_processes *)l;
  int pair[2] = {-1, -1}, out[2] = {-1, -1};
  process *p = bl_calloc(1, sizeof *p);
  if (p == NULL)
    return bl_fail(err, BL_ENOMEM, "no memory for a process");
  p->owner = owner;
  p->number = what->process;
  p->output_fd = -1;
  bl_status status = BL_OK;
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
    status = bl_fail_errno(err, "cannot make a socketpair");
  /* Only our end is non-blocking: the task writes its log lines plainly. */
  if (status == BL_OK && (pipe2(out, O_CLOEXEC) != 0 || fcntl(out[0], F_SETFL, O_NONBLOCK) != 0))
    status = bl_fail_errno(err, "cannot make a pipe");
  if (status == BL_OK)
    status = bl_timer_new(owner->loop, on_drained, p, &p->drain);
  if (status == BL_OK)
    status = wk_pipe_open(owner->loop, pair[0], on_pipe_msg, on_pipe_end, p, &p->pipe, err);
  if (p->pipe != NULL)
    pair[0] = -1; /* taken */
  if (status == BL_OK)
    status = bl_watch_new(owner->loop, out[0], on_output, p, &p->output);
  if (p->output != NULL) {
    p->output_fd = out[0];
    out[0] = -1;
  }
  if (status == BL_OK)
    status = spawn(p, what, pair[1], out[1], err);
  for (int i = 0; i < 2; i++) {
    close_fd(pair[i]);
    close_fd(out[i]);
  }
  if (status != BL_OK) {
    process_free(p);
    return status;
  }
  bl_watch_start(p->output, 1);
  p->next = owner->first;
  owner->first = p;
  return BL_OK;
}

static process *find(wk_processes *owner, uint64_t number) {
  process *p = owner->first;
  while (p != NULL && p->number != number)
    p = p->next;
  return p;
}

static bl_status launcher_send(wk_launcher *l, uint64_t number, bl_msg *msg) {
  process *p = find((wk_processes *)l, number);
  return p != NULL ? wk_pipe_send(p->pipe, msg) : BL_EUNREACHABLE;
}

static void launcher_kill(wk_launcher *l, uint64_t number, int signum) {
  process *p = find((wk_processes *)l, number);
  if (p != NULL && !p->exited && bl_child_kill(p->child, signum) != BL_OK)
    bl_log_warning("kill_failed", "process=%" PRIu64 " signal=%d", number, signum);
}

bl_status wk_processes_new(bl_loop *l, const char *const *task_args, const wk_launcher_events *events,
                           wk_processes **ret_processes, bl_error *err) {
  wk_processes *p = bl_calloc(1, sizeof *p);
  if (p == NULL)
    return bl_fail(err, BL_ENOMEM, "no memory for the launcher");
  ssize_t n = readlink("/proc/self/exe", p->program, sizeof p->program - 1);
  if (n <= 0) {
    bl_free(p);
    return bl_fail_errno(err, "cannot read /proc/self/exe");
  }
  p->program[n] = '\0';
  p->base = (wk_launcher){launcher_start, launcher_send, launcher_kill};
  p->loop = l;
  p->task_args = task_args;
  p->events = *events;
  *ret_processes = p;
  return BL_OK;
}

wk_launcher *wk_processes_launcher(wk_processes *p) { return &p->base; }

void wk_processes_free(wk_processes *p) {
  if (p == NULL)
    return;
  while (p->first != NULL) {
    process *next = p->first->next;
    if (!p->first->exited)
      bl_child_kill(p->first->child, SIGKILL);
    process_free(p->first);
    p->first = next;
  }
  bl_free(p);
}
