/* SPDX-License-Identifier: Apache-2.0
 *
 * Child daemons, started with posix fork and exec: the command needs no event loop for them. They die with
 * the command (PR_SET_PDEATHSIG), whatever ends it.
 */
#include "cli/children.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/num.h"
#include "base/str.h"
#include "cli/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHILDREN_MAX 129
#define START_DEADLINE_NS (UINT64_C(20) * 1000000000)
#define STOP_DEADLINE_NS (UINT64_C(5) * 1000000000)
#define ARGS_MAX 64
#define LOG_TAIL_BYTES 600

typedef struct child {
  pid_t pid; /* 0: not running */
  int wait_status;
  bool ended;
  char name[16];
} child;

struct cli_children {
  child at[CHILDREN_MAX];
  size_t n;
  char dir[512];
  char coordinator[128], status_url[128];
};

static void sleep_a_little(void) { nanosleep(&(struct timespec){.tv_nsec = 5 * 1000 * 1000}, NULL); }

static void reap(child *c) {
  if (c->pid != 0 && !c->ended && waitpid(c->pid, &c->wait_status, WNOHANG) == c->pid)
    c->ended = true;
}

static void file_of(const cli_children *c, const char *name, const char *suffix, char *out, size_t size) {
  snprintf(out, size, "%s/%s.%s", c->dir, name, suffix);
}

/* Last words of a daemon's log, for the error text. */
static void log_tail(const cli_children *c, const char *name, char *out, size_t size) {
  char path[600];
  file_of(c, name, "log", path, sizeof path);
  out[0] = '\0';
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0)
    return;
  off_t end = lseek(fd, 0, SEEK_END);
  off_t start = end > (off_t)size - 1 ? end - ((off_t)size - 1) : 0;
  ssize_t n = pread(fd, out, size - 1, start);
  out[n > 0 ? n : 0] = '\0';
  close(fd);
}

static bl_status spawn(cli_children *c, const char *program, const char *name, const char *const *args, size_t n_args,
                       bl_error *err) {
  char *path = cli_program_path(program);
  if (path == NULL)
    return bl_fail(err, BL_ENOMEM, "no memory");
  char log_path[600], address_path[600];
  file_of(c, name, "log", log_path, sizeof log_path);
  file_of(c, name, "address", address_path, sizeof address_path);
  const char *argv[ARGS_MAX + 8] = {path, "--name", name, "--address-file", address_path};
  size_t n = 5;
  for (size_t i = 0; i < n_args; i++)
    argv[n++] = args[i];
  argv[n] = NULL;
  pid_t parent = getpid(), pid = fork();
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
      _exit(127);
    setpgid(0, 0); /* Ctrl-C is for the command alone; it stops its children in order */
    int fd = open(log_path, O_WRONLY | O_CREAT | O_TRUNC, 0600), null = open("/dev/null", O_RDWR);
    if (fd < 0 || null < 0 || dup2(null, 0) < 0 || dup2(fd, 1) < 0 || dup2(fd, 2) < 0)
      _exit(127);
    unsetenv("JOURNAL_STREAM");
    unsetenv("NOTIFY_SOCKET");
    char **exec_argv = (char **)(uintptr_t)argv; /* execvp does not change them */
    execvp(path, exec_argv);
    fprintf(stderr, "cannot start %s: %s\n", path, strerror(errno));
    _exit(127);
  }
  bl_free(path);
  if (pid < 0)
    return bl_fail_errno(err, "cannot start %s", program);
  child *ch = &c->at[c->n++];
  ch->pid = pid;
  bl_str_copy(ch->name, sizeof ch->name, name);
  return BL_OK;
}

/* Waits for the child's address file; *ret_json is owned. */
static bl_status wait_address(cli_children *c, child *ch, json_t **ret_json, bl_error *err) {
  char path[600], tail[LOG_TAIL_BYTES];
  file_of(c, ch->name, "address", path, sizeof path);
  uint64_t deadline = bl_clock_now_ns() + START_DEADLINE_NS;
  for (;;) {
    bl_buf text = BL_BUF_INIT;
    if (bl_file_read(path, 65536, &text, NULL) == BL_OK)
      *ret_json = json_loads(bl_buf_str(&text), 0, NULL);
    bl_buf_fini(&text);
    if (*ret_json != NULL)
      return BL_OK;
    reap(ch);
    if (ch->ended) {
      log_tail(c, ch->name, tail, sizeof tail);
      return bl_fail(err, BL_EIO, "%s ended while starting:\n%s", ch->name, tail);
    }
    if (bl_clock_now_ns() > deadline) {
      log_tail(c, ch->name, tail, sizeof tail);
      return bl_fail(err, BL_ETIMEOUT, "%s was not ready within %d s:\n%s", ch->name,
                     (int)(START_DEADLINE_NS / BL_NS_PER_S), tail);
    }
    sleep_a_little();
  }
}

static bl_status start_one(cli_children *c, const char *program, const char *name, const char *const *settings,
                           size_t n_settings, const cli_children_options *options, json_t **ret_address, bl_error *err) {
  const char *args[ARGS_MAX];
  size_t n = 0;
  for (size_t i = 0; i < n_settings; i++) {
    args[n++] = "--set";
    args[n++] = settings[i];
  }
  for (size_t i = 0; i < options->n_set && n + 2 <= ARGS_MAX; i++) {
    args[n++] = "--set";
    args[n++] = options->set[i];
  }
  bl_status status = spawn(c, program, name, args, n, err);
  if (status != BL_OK || ret_address == NULL)
    return status;
  return wait_address(c, &c->at[c->n - 1], ret_address, err);
}

static bl_status start_coordinator(cli_children *c, const cli_children_options *options, bl_error *err) {
  char state_dir[600];
  snprintf(state_dir, sizeof state_dir, "coordinator.state_dir=%s/coordinator", c->dir);
  const char *settings[] = {state_dir, "coordinator.port=0", "coordinator.http=127.0.0.1:0"};
  json_t *address = NULL;
  bl_status status = start_one(c, "ballast-coordinator", "coordinator", settings, BL_COUNT_OF(settings), options, &address, err);
  if (status == BL_OK) {
    snprintf(c->coordinator, sizeof c->coordinator, "%s", cli_text(address, "control"));
    snprintf(c->status_url, sizeof c->status_url, "%s", cli_text(address, "http"));
  }
  json_decref(address);
  return status;
}

/* kind: "server" or "worker"; nodes are named s1, s2, ... and w1, w2, ... */
static bl_status start_nodes(cli_children *c, const char *kind, unsigned n, const char *const *extra, size_t n_extra,
                             const cli_children_options *options, bl_error *err) {
  char coordinator[160], state_dir[600], http[64], program[32];
  snprintf(coordinator, sizeof coordinator, "connect.coordinator=%s", c->coordinator);
  snprintf(http, sizeof http, "%s.http=127.0.0.1:0", kind);
  snprintf(program, sizeof program, "ballast-%s", kind);
  size_t first = c->n;
  for (unsigned i = 0; i < n; i++) {
    char name[16];
    snprintf(name, sizeof name, "%c%u", kind[0], i + 1);
    snprintf(state_dir, sizeof state_dir, "%s.state_dir=%s/%s", kind, c->dir, name);
    const char *settings[8] = {coordinator, state_dir, http};
    size_t n_settings = 3;
    for (size_t k = 0; k < n_extra; k++)
      settings[n_settings++] = extra[k];
    bl_status status = start_one(c, program, name, settings, n_settings, options, NULL, err);
    if (status != BL_OK)
      return status;
  }
  for (size_t i = first; i < c->n; i++) {
    json_t *address = NULL;
    bl_status status = wait_address(c, &c->at[i], &address, err);
    json_decref(address);
    if (status != BL_OK)
      return status;
  }
  return BL_OK;
}

bl_status cli_children_start(const cli_children_options *options, cli_children **ret_children, bl_error *err) {
  cli_children *c = bl_calloc(1, sizeof *c);
  if (c == NULL)
    return bl_fail(err, BL_ENOMEM, "no memory");
  bl_str_copy(c->dir, sizeof c->dir, options->dir);
  char slots[48];
  snprintf(slots, sizeof slots, "worker.slots=%u", options->slots_per_worker);
  const char *server_settings[] = {"server.port=0"};
  const char *worker_settings[] = {slots, "worker.data_roots=[/]", "worker.output_roots=[/]"};
  bl_status status = start_coordinator(c, options, err);
  if (status == BL_OK)
    status = start_nodes(c, "server", options->servers, server_settings, BL_COUNT_OF(server_settings), options, err);
  if (status == BL_OK)
    status = start_nodes(c, "worker", options->workers, worker_settings, BL_COUNT_OF(worker_settings), options, err);
  if (status != BL_OK) {
    cli_children_stop(c);
    return status;
  }
  *ret_children = c;
  return BL_OK;
}

static bool any_left(cli_children *c) {
  bool left = false;
  for (size_t i = 0; i < c->n; i++) {
    reap(&c->at[i]);
    left |= !c->at[i].ended;
  }
  return left;
}

static void signal_all(cli_children *c, int signum) {
  for (size_t i = c->n; i-- > 0;) { /* workers first, coordinator last */
    if (!c->at[i].ended)
      kill(c->at[i].pid, signum);
  }
}

void cli_children_stop(cli_children *c) {
  if (c == NULL)
    return;
  signal_all(c, SIGTERM);
  uint64_t deadline = bl_clock_now_ns() + STOP_DEADLINE_NS;
  while (any_left(c) && bl_clock_now_ns() < deadline)
    sleep_a_little();
  signal_all(c, SIGKILL);
  while (any_left(c))
    sleep_a_little();
  bl_free(c);
}

const char *cli_children_coordinator(const cli_children *c) { return c->coordinator; }
const char *cli_children_status_url(const cli_children *c) { return c->status_url; }

bool cli_children_dead(const cli_children *c, char *out, size_t size) {
  for (size_t i = 0; i < c->n; i++) {
    child copy = c->at[i];
    siginfo_t info = {0};
    if (!copy.ended && waitid(P_PID, (id_t)copy.pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == copy.pid)
      copy.ended = true;
    if (copy.ended) {
      char tail[LOG_TAIL_BYTES];
      log_tail(c, copy.name, tail, sizeof tail);
      snprintf(out, size, "%s has ended:\n%s", copy.name, tail);
      return true;
    }
  }
  return false;
}
