/* SPDX-License-Identifier: Apache-2.0
 *
 * Timers, wake-ups, descriptors, signals and child processes. Every test ends with bl_loop_free, which
 * asserts that no handle is left.
 */
#include "base/alloc.h"
#include "base/clock.h"
#include "loop/loop.h"
#include "tests/support/support.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static bl_loop *loop;
static uint64_t live_before;

static void set_up(void) {
  live_before = bl_alloc_get_stats().live_blocks;
  loop = bl_loop_new();
  ck_assert_ptr_nonnull(loop);
}

static void tear_down(void) {
  bl_loop_free(loop);
  ck_assert_uint_eq(bl_alloc_get_stats().live_blocks, live_before);
}

static void count(void *arg) { ++*(int *)arg; }

static void count_and_stop(void *arg) {
  ++*(int *)arg;
  bl_loop_stop(loop);
}

/* Turns the loop until *what reaches n, for at most 10 s. */
static void run_until(const int *what, int n) {
  uint64_t end = bl_clock_now_ns() + 10 * BL_NS_PER_S;
  while (*what < n && bl_clock_now_ns() < end)
    bl_loop_run_once(loop, 50);
  ck_assert_int_ge(*what, n);
}

START_TEST(timer_fires_once_or_again_and_again) {
  bl_timer *once, *often;
  int n_once = 0, n_often = 0;
  ck_assert_ok(bl_timer_new(loop, count, &n_once, &once));
  ck_assert_ok(bl_timer_new(loop, count, &n_often, &often));
  bl_timer_start(once, 1, 0);
  bl_timer_start(often, 1, 1);
  run_until(&n_often, 3);
  ck_assert_int_eq(n_once, 1);
  bl_timer_stop(often);
  int seen = n_often;
  bl_timer_start(once, 5, 0);
  run_until(&n_once, 2);
  ck_assert_int_eq(n_often, seen);
  bl_timer_close(once);
  bl_timer_close(often);
}
END_TEST

START_TEST(timer_waits_its_time_after_long_work) {
  bl_timer *t;
  int n = 0;
  ck_assert_ok(bl_timer_new(loop, count, &n, &t));
  bl_loop_run_once(loop, 0);
  uint64_t start = bl_clock_now_ns();
  while (bl_clock_now_ns() - start < 30 * BL_NS_PER_MS)
    ;
  bl_timer_start(t, 20, 0);
  uint64_t armed = bl_clock_now_ns();
  run_until(&n, 1);
  ck_assert_uint_ge(bl_clock_now_ns() - armed, 19 * BL_NS_PER_MS);
  bl_timer_close(t);
}
END_TEST

START_TEST(run_goes_on_until_stop) {
  bl_timer *t;
  int n = 0;
  ck_assert_ok(bl_timer_new(loop, count_and_stop, &n, &t));
  bl_timer_start(t, 2, 0);
  bl_loop_run(loop);
  ck_assert_int_eq(n, 1);
  bl_timer_close(t);
}
END_TEST

START_TEST(one_turn_waits_no_longer_than_its_limit) {
  uint64_t start = bl_clock_now_ns();
  bl_loop_run_once(loop, 0);
  ck_assert_uint_lt(bl_clock_now_ns() - start, BL_NS_PER_S);
  start = bl_clock_now_ns();
  bl_loop_run_once(loop, 20);
  uint64_t took = bl_clock_now_ns() - start;
  ck_assert_uint_ge(took, 19 * BL_NS_PER_MS);
  ck_assert_uint_lt(took, 5 * BL_NS_PER_S);
}
END_TEST

static void *send_async(void *arg) {
  bl_async_send(arg);
  return NULL;
}

START_TEST(another_thread_wakes_the_loop) {
  bl_async *a;
  int n = 0;
  ck_assert_ok(bl_async_new(loop, count_and_stop, &n, &a));
  pthread_t t;
  ck_assert_int_eq(pthread_create(&t, NULL, send_async, a), 0);
  bl_loop_run(loop);
  pthread_join(t, NULL);
  ck_assert_int_eq(n, 1);
  bl_async_close(a);
}
END_TEST

typedef struct seen {
  int n, events;
} seen;

static void on_events(int events, void *arg) {
  seen *s = arg;
  s->n++;
  s->events = events;
}

START_TEST(watch_tells_readable_and_writable) {
  int sv[2];
  ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
  bl_watch *w;
  seen s = {0, 0};
  ck_assert_ok(bl_watch_new(loop, sv[0], on_events, &s, &w));
  bl_watch_start(w, BL_WATCH_READABLE);
  bl_loop_run_once(loop, 0);
  ck_assert_int_eq(s.n, 0);
  ck_assert_int_eq(write(sv[1], "x", 1), 1);
  run_until(&s.n, 1);
  run_until(&s.n, 2); /* level: as long as it is not read */
  ck_assert_int_eq(s.events, BL_WATCH_READABLE);
  bl_watch_start(w, BL_WATCH_READABLE | BL_WATCH_WRITABLE);
  s.n = 0;
  run_until(&s.n, 1);
  ck_assert_int_eq(s.events, BL_WATCH_READABLE | BL_WATCH_WRITABLE);
  bl_watch_stop(w);
  s.n = 0;
  bl_loop_run_once(loop, 5);
  ck_assert_int_eq(s.n, 0);
  close(sv[1]); /* the end of the peer is readable */
  char c;
  ck_assert_int_eq(read(sv[0], &c, 1), 1);
  bl_watch_start(w, BL_WATCH_READABLE);
  run_until(&s.n, 1);
  bl_watch_close(w);
  bl_loop_run_once(loop, 0);
  close(sv[0]);
}
END_TEST

static void on_signal(int signum, void *arg) { *(int *)arg = signum; }

START_TEST(signals_arrive_on_the_loop) {
  bl_signal *s;
  int got = 0;
  ck_assert_ok(bl_signal_new(loop, SIGUSR1, on_signal, &got, &s));
  raise(SIGUSR1);
  run_until(&got, SIGUSR1);
  bl_signal_close(s);
  ck_assert_status(bl_signal_new(loop, SIGKILL, on_signal, &got, &s), BL_EINVAL);
}
END_TEST

/* ---- children ---- */

typedef struct ending {
  int n;
  int64_t code;
  int signum;
} ending;

static void on_ending(int64_t code, int signum, void *arg) {
  ending *e = arg;
  e->n++;
  e->code = code;
  e->signum = signum;
}

static bl_child *shell(const char *script, const int *fds, size_t n_fds, ending *e) {
  static const int none[] = {-1, -1, -1};
  char text[512];
  snprintf(text, sizeof text, "%s", script);
  char sh[] = "sh", c[] = "-c", *argv[] = {sh, c, text, NULL};
  bl_child_options o = {.file = "/bin/sh", .argv = argv, .fds = fds != NULL ? fds : none,
                        .n_fds = fds != NULL ? n_fds : 3, .die_with_parent = true};
  bl_child *child;
  bl_error err = BL_ERROR_INIT;
  ck_assert_ok_err(bl_child_spawn(loop, &o, on_ending, e, &child, &err), err);
  return child;
}

START_TEST(exit_code_of_a_child_is_told) {
  ending e = {0, 0, 0};
  bl_child *c = shell("exit 7", NULL, 0, &e);
  ck_assert_int_gt(bl_child_pid(c), 0);
  run_until(&e.n, 1);
  ck_assert_int_eq(e.code, 7);
  ck_assert_int_eq(e.signum, 0);
  ck_assert_status(bl_child_kill(c, SIGTERM), BL_ENOENT);
  bl_child_close(c);
}
END_TEST

START_TEST(signal_that_ends_a_child_is_told) {
  ending e = {0, 0, 0};
  int p[2];
  ck_assert_int_eq(pipe2(p, O_CLOEXEC), 0);
  const int fds[] = {p[0], -1, -1};
  bl_child *c = shell("read x", fds, 3, &e);
  bl_loop_run_once(loop, 0);
  ck_assert_int_eq(e.n, 0);
  ck_assert_ok(bl_child_kill(c, SIGTERM));
  run_until(&e.n, 1);
  ck_assert_int_eq(e.signum, SIGTERM);
  bl_child_close(c);
  close(p[0]);
  close(p[1]);
}
END_TEST

START_TEST(program_that_is_not_there_is_an_error_at_once) {
  char name[] = "nobody", *argv[] = {name, NULL};
  static const int none[] = {-1, -1, -1};
  bl_child_options o = {.file = "/nowhere/nobody", .argv = argv, .fds = none, .n_fds = 3};
  bl_child *c = NULL;
  bl_error err = BL_ERROR_INIT;
  ending e = {0, 0, 0};
  ck_assert_status(bl_child_spawn(loop, &o, on_ending, &e, &c, &err), BL_ENOENT);
  ck_assert_ptr_nonnull(strstr(err.text, "/nowhere/nobody"));
  ck_assert_ptr_null(c);
  ck_assert_int_lt(waitpid(-1, NULL, WNOHANG), 0); /* nothing left behind */
}
END_TEST

/* Reads all that comes until the end. */
static void read_all(int fd, char *out, size_t size) {
  size_t n = 0;
  ssize_t got;
  while ((got = read(fd, out + n, size - 1 - n)) > 0)
    n += (size_t)got;
  out[n] = '\0';
}

START_TEST(child_has_its_descriptors_and_no_other) {
  /* Targets and sources cross: descriptor 3 of the child is the parent's lowest free one. */
  int p[2], leak = open("/dev/zero", O_RDONLY); /* no O_CLOEXEC, on purpose */
  ck_assert_int_ge(leak, 0);
  ck_assert_int_eq(pipe2(p, O_CLOEXEC), 0);
  const int fds[] = {-1, p[1], -1, p[1], leak};
  ending e = {0, 0, 0};
  bl_child *c = shell("echo three >&3; echo $(ls /proc/self/fd)", fds, 5, &e);
  close(p[1]);
  char text[256];
  read_all(p[0], text, sizeof text);
  /* ls has one of its own for the folder; 1 is the shell's pipe. */
  ck_assert_str_eq(text, "three\n0 1 2 3 4 5\n");
  run_until(&e.n, 1);
  bl_child_close(c);
  close(p[0]);
  close(leak);
}
END_TEST

START_TEST(environment_is_inherited_or_given_whole) {
  char sh[] = "sh", minus_c[] = "-c", script[] = "exit ${N:-3}", *argv[] = {sh, minus_c, script, NULL};
  char n5[] = "N=5", *env[] = {n5, NULL};
  static const int none[] = {-1, -1, -1};
  bl_child_options o = {.file = "sh", .argv = argv, .env = env, .fds = none, .n_fds = 3};
  ending e = {0, 0, 0};
  bl_child *c;
  ck_assert_ok(bl_child_spawn(loop, &o, on_ending, &e, &c, NULL));
  run_until(&e.n, 1);
  ck_assert_int_eq(e.code, 5);
  bl_child_close(c);
  o.env = NULL;
  ck_assert_ok(bl_child_spawn(loop, &o, on_ending, &e, &c, NULL));
  run_until(&e.n, 2);
  ck_assert_int_eq(e.code, 3);
  bl_child_close(c);
}
END_TEST

START_TEST(forgotten_child_is_reaped_in_silence) {
  ending e = {0, 0, 0}, other = {0, 0, 0};
  int p[2];
  ck_assert_int_eq(pipe2(p, O_CLOEXEC), 0);
  const int fds[] = {p[0], -1, -1};
  bl_child *c = shell("read x", fds, 3, &e);
  int pid = bl_child_pid(c);
  bl_child_close(c);
  close(p[0]);
  close(p[1]); /* its read ends */
  uint64_t end = bl_clock_now_ns() + 10 * BL_NS_PER_S;
  while (kill(pid, 0) == 0 && bl_clock_now_ns() < end)
    bl_loop_run_once(loop, 10);
  ck_assert_int_ne(kill(pid, 0), 0);
  ck_assert_int_eq(e.n, 0);
  c = shell("exec sleep 100", NULL, 0, &other); /* runs beyond the loop */
  pid = bl_child_pid(c);
  bl_child_close(c);
  kill(pid, SIGKILL);
}
END_TEST

START_TEST(child_dies_with_its_parent) {
  /* A process in between spawns a child that holds a pipe open, and is killed: the pipe must close. */
  int p[2];
  ck_assert_int_eq(pipe2(p, O_CLOEXEC), 0);
  pid_t between = fork();
  if (between == 0) {
    loop = bl_loop_new();
    const int fds[] = {-1, p[1], -1};
    ending e = {0, 0, 0};
    shell("echo up; exec sleep 100", fds, 3, &e);
    for (;;)
      pause();
  }
  close(p[1]);
  char text[16] = "";
  ck_assert_int_eq(read(p[0], text, 3), 3);
  kill(between, SIGKILL);
  read_all(p[0], text, sizeof text); /* ends only when the child is gone; the test's timeout is the limit */
  waitpid(between, NULL, 0);
  close(p[0]);
}
END_TEST

int main(void) {
  Suite *s = suite_create("loop");
  TCase *t = tcase_create("loop");
  tcase_add_checked_fixture(t, set_up, tear_down);
  tcase_set_timeout(t, 20);
  tcase_add_test(t, timer_fires_once_or_again_and_again);
  tcase_add_test(t, timer_waits_its_time_after_long_work);
  tcase_add_test(t, run_goes_on_until_stop);
  tcase_add_test(t, one_turn_waits_no_longer_than_its_limit);
  tcase_add_test(t, another_thread_wakes_the_loop);
  tcase_add_test(t, watch_tells_readable_and_writable);
  tcase_add_test(t, signals_arrive_on_the_loop);
  tcase_add_test(t, exit_code_of_a_child_is_told);
  tcase_add_test(t, signal_that_ends_a_child_is_told);
  tcase_add_test(t, program_that_is_not_there_is_an_error_at_once);
  tcase_add_test(t, child_has_its_descriptors_and_no_other);
  tcase_add_test(t, environment_is_inherited_or_given_whole);
  tcase_add_test(t, forgotten_child_is_reaped_in_silence);
  tcase_add_test(t, child_dies_with_its_parent);
  suite_add_tcase(s, t);
  return test_run(&s, 1);
}
