/* SPDX-License-Identifier: Apache-2.0
 *
 * Child processes. libuv's own spawn has no place for PR_SET_PDEATHSIG between fork and exec, so this file
 * forks itself; between fork and exec only async-signal-safe functions run. The end of a child is seen through
 * its pidfd (Linux 5.3), which is a descriptor of the loop like any other: no SIGCHLD handler, nothing shared
 * between loops, and the pid cannot be another process before we have reaped it.
 *
 * What the child inherits is what it is given: all descriptors from n_fds on are closed at exec, whether or not
 * whoever opened them thought of O_CLOEXEC; signal handlers and the mask are the default.
 */
#include "loop/loop_internal.h"

#include "base/alloc.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHILD_FDS_MAX 16
#ifndef CLOSE_RANGE_CLOEXEC
#define CLOSE_RANGE_CLOEXEC (1U << 2)
#endif

struct bl_child {
  uv_poll_t uv; /* first; of the pidfd */
  bl_loop *loop;
  bl_child_fn *fn;
  void *arg;
  bl_child *next_forgotten;
  pid_t pid;
  int pidfd;
  bool ended;     /* reaped */
  bool forgotten; /* by its owner */
};

/* ---- in the child, between fork and exec ---- */

/* What the child tells its parent when it cannot start; nothing comes when exec succeeds. */
typedef struct start_failure {
  int error;
  char step[16];
} start_failure;

static void fail_start(int report_fd, const char *step) {
  start_failure f = {.error = errno};
  strncpy(f.step, step, sizeof f.step - 1);
  ssize_t n = write(report_fd, &f, sizeof f); /* less than PIPE_BUF: whole or not at all */
  _exit(n == (ssize_t)sizeof f ? 127 : 126);
}

static void default_signals(void) {
  for (int i = 1; i < NSIG; i++)
    if (i != SIGKILL && i != SIGSTOP)
      signal(i, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Sources first move above the targets, so that no dup2 overwrites one that is still needed. */
static bool place_descriptors(const bl_child_options *o) {
  int moved[CHILD_FDS_MAX];
  for (size_t i = 0; i < o->n_fds; i++) {
    int fd = o->fds[i] >= 0 ? o->fds[i] : open("/dev/null", O_RDWR | O_CLOEXEC);
    moved[i] = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, (int)o->n_fds);
    if (moved[i] < 0)
      return false;
  }
  for (size_t i = 0; i < o->n_fds; i++)
    if (dup2(moved[i], (int)i) < 0)
      return false;
  return true;
}

static void close_the_rest(unsigned first) {
  if (syscall(SYS_close_range, first, ~0U, CLOSE_RANGE_CLOEXEC) == 0)
    return;
  long n = sysconf(_SC_OPEN_MAX); /* before Linux 5.11 */
  for (int fd = (int)first; fd < (n > 0 && n < 65536 ? n : 65536); fd++)
    fcntl(fd, F_SETFD, FD_CLOEXEC);
}

BL_NORETURN static void become(const bl_child_options *o, int report_fd, pid_t parent) {
  int fd = fcntl(report_fd, F_DUPFD_CLOEXEC, (int)o->n_fds); /* out of the way of the targets */
  if (fd < 0)
    _exit(126);
  if (o->die_with_parent) {
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0)
      fail_start(fd, "prctl");
    if (getppid() != parent) /* it died before the prctl */
      _exit(126);
  }
  if (!place_descriptors(o))
    fail_start(fd, "descriptors");
  close_the_rest((unsigned)o->n_fds);
  default_signals();
  execvpe(o->file, o->argv, o->env != NULL ? o->env : environ);
  fail_start(fd, "exec");
  _exit(126);
}

/* ---- in the parent ---- */

static void free_child(uv_handle_t *h) {
  bl_child *c = h->data;
  close(c->pidfd);
  bl_free(c);
}

static void unlink_forgotten(bl_child *c) {
  for (bl_child **p = &c->loop->forgotten; *p != NULL; p = &(*p)->next_forgotten)
    if (*p == c) {
      *p = c->next_forgotten;
      return;
    }
}

static void on_exit(uv_poll_t *uv, int status, int events) {
  bl_child *c = uv->data;
  int how;
  pid_t pid = waitpid(c->pid, &how, WNOHANG);
  if (pid == 0 || (pid < 0 && errno == EINTR))
    return;
  uv_poll_stop(&c->uv);
  c->ended = true;
  if (c->forgotten) {
    unlink_forgotten(c);
    uv_close((uv_handle_t *)&c->uv, free_child);
    return;
  }
  /* pid < 0: somebody else reaped it; its exit is certain, how it ended is lost. */
  if (pid > 0 && WIFSIGNALED(how))
    c->fn(0, WTERMSIG(how), c->arg);
  else
    c->fn(pid > 0 ? WEXITSTATUS(how) : -1, 0, c->arg);
}

/* All signals wait while two processes share one memory of handlers: none of ours may run in the child. */
static pid_t fork_child(const bl_child_options *o, int report_fd) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pid_t parent = getpid();
  pid_t pid = fork();
  if (pid == 0)
    become(o, report_fd, parent);
  int saved = errno;
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  errno = saved;
  return pid;
}

/* Waits until the child runs its program or has said why not. */
static bl_status await_exec(const bl_child_options *o, int report_fd, pid_t pid, bl_error *err) {
  start_failure f = {0};
  ssize_t n;
  do
    n = read(report_fd, &f, sizeof f);
  while (n < 0 && errno == EINTR);
  if (n != (ssize_t)sizeof f)
    return BL_OK; /* end of file: the pipe was closed by exec. One that died before is seen as its exit. */
  waitpid(pid, NULL, 0);
  errno = f.error;
  return bl_fail_errno(err, "cannot start %s (%.15s)", o->file, f.step);
}

bl_status bl_child_spawn(bl_loop *l, const bl_child_options *o, bl_child_fn *fn, void *arg, bl_child **ret_child,
                         bl_error *err) {
  BL_ASSERT(o->n_fds >= 3 && o->n_fds <= CHILD_FDS_MAX);
  bl_child *c = bl_calloc(1, sizeof *c);
  if (c == NULL)
    return bl_fail(err, BL_ENOMEM, "cannot start %s: no memory", o->file);
  *c = (bl_child){.loop = l, .fn = fn, .arg = arg, .pid = -1, .pidfd = -1};
  int report[2] = {-1, -1};
  bl_status st;
  if (pipe2(report, O_CLOEXEC) != 0) {
    st = bl_fail_errno(err, "cannot start %s (pipe)", o->file);
    goto fail;
  }
  c->pid = fork_child(o, report[1]);
  if (c->pid < 0) {
    st = bl_fail_errno(err, "cannot start %s (fork)", o->file);
    goto fail;
  }
  close(report[1]);
  report[1] = -1;
  st = await_exec(o, report[0], c->pid, err);
  if (st != BL_OK)
    goto fail;
  c->pidfd = (int)syscall(SYS_pidfd_open, c->pid, 0);
  int rc = c->pidfd < 0 ? -errno : uv_poll_init(&l->uv, &c->uv, c->pidfd);
  if (rc != 0) {
    kill(c->pid, SIGKILL);
    waitpid(c->pid, NULL, 0);
    errno = -rc;
    st = bl_fail_errno(err, "cannot watch %s (pid %d)", o->file, (int)c->pid);
    goto fail;
  }
  c->uv.data = c;
  BL_ASSERT(uv_poll_start(&c->uv, UV_READABLE, on_exit) == 0);
  close(report[0]);
  *ret_child = c;
  return BL_OK;

fail:
  for (int i = 0; i < 2; i++)
    if (report[i] >= 0)
      close(report[i]);
  if (c->pidfd >= 0)
    close(c->pidfd);
  bl_free(c);
  return st;
}

int bl_child_pid(const bl_child *c) { return (int)c->pid; }

bl_status bl_child_kill(bl_child *c, int signum) {
  if (c->ended)
    return BL_ENOENT;
  return kill(c->pid, signum) == 0 ? BL_OK : errno == ESRCH ? BL_ENOENT : BL_EIO;
}

void bl_child_close(bl_child *c) {
  if (c == NULL)
    return;
  if (c->ended) {
    uv_close((uv_handle_t *)&c->uv, free_child);
    return;
  }
  c->forgotten = true;
  c->next_forgotten = c->loop->forgotten;
  c->loop->forgotten = c;
}

void bl_loop_drop_children(bl_loop *l) {
  for (bl_child *c = l->forgotten; c != NULL;) {
    bl_child *next = c->next_forgotten;
    waitpid(c->pid, NULL, WNOHANG); /* one that still runs becomes a child of init when we end */
    uv_close((uv_handle_t *)&c->uv, free_child);
    c = next;
  }
  l->forgotten = NULL;
}
