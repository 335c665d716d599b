/* SPDX-License-Identifier: Apache-2.0
 *
 * Progress of a job. The bar is redrawn in place; an epoch's line scrolls by above it.
 */
#include "cli/follow.h"

#include "base/clock.h"
#include "base/num.h"
#include "base/str.h"
#include "cli/cli.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define POLL_NS (UINT64_C(300) * 1000000)
#define PLAIN_LINE_EVERY_NS (UINT64_C(10) * 1000000000)
#define BAR_CELLS 24

typedef struct view {
  bool tty, quiet;
  size_t epochs_shown;
  bool bar_drawn;
  char last_wait[256];
  uint64_t last_plain_ns;
} view;

bool cli_job_has_ended(const json_t *job) {
  const char *state = cli_text(job, "state");
  return strcmp(state, "done") == 0 || strcmp(state, "failed") == 0 || strcmp(state, "cancelled") == 0;
}

int cli_job_exit_code(const json_t *job) {
  return strcmp(cli_text(job, "state"), "done") == 0 ? BL_EXIT_OK : BL_EXIT_FAILED;
}

static void clear_bar(view *v) {
  if (v->bar_drawn)
    fputs("\r\033[K", stderr);
  v->bar_drawn = false;
}

/* "41234" -> "41,234" */
static const char *grouped(double value, char *out, size_t size) {
  char digits[32];
  int n = snprintf(digits, sizeof digits, "%.0f", value);
  size_t o = 0;
  for (int i = 0; i < n && o + 2 < size; i++) {
    out[o++] = digits[i];
    if ((n - i - 1) % 3 == 0 && i + 1 < n)
      out[o++] = ',';
  }
  out[o] = '\0';
  return out;
}

static void print_metric(FILE *out, const json_t *row, const char *key, const char *label, int decimals,
                         const char *unit) {
  if (cli_has(row, key))
    fprintf(out, "  %s %.*f%s", label, decimals, cli_number(row, key, 0), unit);
}

/* What the job's `metrics` asks for, by the names that the job says it has. */
static void print_asked(FILE *out, const json_t *job, const json_t *row, const char *set, const char *end) {
  size_t i;
  json_t *name;
  json_array_foreach(json_object_get(job, "metrics"), i, name) {
    char key[64], label[64];
    snprintf(key, sizeof key, "%s_%.32s", set, json_string_value(name) != NULL ? json_string_value(name) : "");
    snprintf(label, sizeof label, "%s %.32s", set, json_string_value(name) != NULL ? json_string_value(name) : "");
    if (!bl_str_has_suffix(key, "_error")) /* of the AUC: for programs */
      print_metric(out, row, key, label, 4, end);
  }
}

static void print_epoch(const json_t *job, const json_t *row, uint64_t epochs) {
  fprintf(stderr, "epoch %3llu/%llu", (unsigned long long)cli_integer(row, "epoch"), (unsigned long long)epochs);
  print_metric(stderr, row, "train_loss", "loss", 4, "");
  print_metric(stderr, row, "validation_loss", "validation loss", 4, "");
  print_metric(stderr, row, "validation_accuracy", "accuracy", 4, "");
  print_metric(stderr, row, "validation_rmse", "rmse", 4, "");
  print_asked(stderr, job, row, "validation", "");
  print_metric(stderr, row, "test_loss", "test loss", 4, "");
  print_metric(stderr, row, "test_accuracy", "test accuracy", 4, "");
  print_metric(stderr, row, "test_rmse", "test rmse", 4, "");
  print_asked(stderr, job, row, "test", "");
  print_metric(stderr, row, "seconds", " ", 1, " s");
  fputc('\n', stderr);
}

static void show_new_epochs(view *v, const json_t *job) {
  const json_t *history = json_object_get(job, "history");
  while (v->epochs_shown < json_array_size(history)) {
    clear_bar(v);
    print_epoch(job, json_array_get(history, v->epochs_shown++), cli_integer(job, "epochs"));
  }
}

static void draw_bar(view *v, const json_t *job) {
  uint64_t clocks = cli_integer(job, "clocks"), clock = cli_integer(job, "clock");
  if (clocks == 0)
    return;
  double part = BL_MIN((double)clock / (double)clocks, 1.0);
  int full = (int)(part * BAR_CELLS);
  char rate[40], left[40] = "";
  double rate_value = cli_number(job, "samples_per_second", 0);
  if (cli_has(job, "eta_s"))
    bl_str_duration((uint64_t)(cli_number(job, "eta_s", 0) * 1e9), left, sizeof left);
  fputs("\r\033[K", stderr);
  for (int i = 0; i < BAR_CELLS; i++)
    fputs(i < full ? "█" : "░", stderr);
  fprintf(stderr, " %3.0f %%  epoch %llu/%llu", part * 100,
          (unsigned long long)BL_MIN(cli_integer(job, "epoch") + 1, cli_integer(job, "epochs")),
          (unsigned long long)cli_integer(job, "epochs"));
  if (rate_value > 0) { /* before the first report there is nothing to say */
    print_metric(stderr, job, "loss", "loss", 4, "");
    fprintf(stderr, "  %s samples/s%s%s", grouped(rate_value, rate, sizeof rate), left[0] ? "  left " : "", left);
  }
  fflush(stderr);
  v->bar_drawn = true;
}

static void plain_progress(view *v, const json_t *job, uint64_t now) {
  uint64_t clocks = cli_integer(job, "clocks");
  if (clocks == 0 || now - v->last_plain_ns < PLAIN_LINE_EVERY_NS)
    return;
  v->last_plain_ns = now;
  char rate[40];
  fprintf(stderr, "clock %llu/%llu  %s samples/s\n", (unsigned long long)cli_integer(job, "clock"),
          (unsigned long long)clocks, grouped(cli_number(job, "samples_per_second", 0), rate, sizeof rate));
}

/* What the job waits for, said once per change of its first words (the seconds in it count up). */
static void show_waiting(view *v, const json_t *job) {
  const char *text = cli_text(job, "waits_for");
  size_t n = strcspn(text, "0123456789");
  if (text[0] == '\0' || (v->tty && v->bar_drawn))
    return;
  if (v->tty) {
    fprintf(stderr, "\r\033[K%s", text);
    fflush(stderr);
    v->bar_drawn = true;
  } else if (strncmp(text, v->last_wait, BL_MAX(n, 8)) != 0) {
    fprintf(stderr, "%s\n", text);
    bl_str_copy(v->last_wait, sizeof v->last_wait, text);
  }
}

static void show(view *v, const json_t *job, uint64_t now) {
  if (v->quiet)
    return;
  show_new_epochs(v, job);
  if (cli_job_has_ended(job)) {
    clear_bar(v);
    return;
  }
  if (strcmp(cli_text(job, "state"), "running") != 0) {
    clear_bar(v);
    show_waiting(v, job);
  } else if (v->tty) {
    draw_bar(v, job);
  } else {
    plain_progress(v, job, now);
  }
}

bl_status cli_follow(cli_link *link, uint64_t job, const cli_follow_options *options, json_t **ret_job,
                     cli_follow_end *ret_end, bl_error *err) {
  view v = {.tty = isatty(STDERR_FILENO) == 1, .quiet = options->quiet, .last_plain_ns = bl_clock_now_ns()};
  for (;;) {
    json_t *seen = NULL;
    bl_status status = cli_link_query(link, "job", job, 0, &seen, err);
    if (status != BL_OK) {
      clear_bar(&v);
      return status;
    }
    show(&v, seen, bl_clock_now_ns());
    bool stopped = options->stop != NULL && *options->stop;
    if (cli_job_has_ended(seen) || stopped) {
      clear_bar(&v);
      *ret_job = seen;
      *ret_end = cli_job_has_ended(seen) ? CLI_FOLLOW_ENDED : CLI_FOLLOW_DETACHED;
      return BL_OK;
    }
    json_decref(seen);
    cli_link_pause(link, POLL_NS, options->stop);
  }
}

void cli_print_result(const json_t *job) {
  const json_t *result = json_object_get(job, "result");
  char a[40], b[40], c[40];
  unsigned long long number = (unsigned long long)cli_integer(job, "job");
  if (strcmp(cli_text(job, "state"), "done") != 0) {
    printf("job %llu (%s) %s%s%s\n", number, cli_text(job, "name"), cli_text(job, "state"),
           cli_text(job, "reason")[0] ? ": " : "", cli_text(job, "reason"));
    return;
  }
  printf("job %llu (%s) done: %llu epochs, %s samples in %.1f s (%s samples/s)\n", number, cli_text(job, "name"),
         (unsigned long long)cli_integer(result, "epochs"), grouped(cli_number(result, "samples", 0), a, sizeof a),
         cli_number(result, "seconds", 0), grouped(cli_number(result, "samples_per_second", 0), b, sizeof b));
  print_metric(stdout, result, "train_loss", "train loss    ", 4, "\n");
  print_metric(stdout, result, "test_loss", "test loss     ", 4, "\n");
  print_metric(stdout, result, "test_accuracy", "test accuracy ", 4, "\n");
  print_metric(stdout, result, "validation_rmse", "validation rmse", 4, "\n");
  print_metric(stdout, result, "test_rmse", "test rmse      ", 4, "\n");
  print_asked(stdout, job, result, "validation", "\n");
  print_asked(stdout, job, result, "test", "\n");
  printf("  pushed %s, pulled %s", bl_str_bytes(cli_integer(result, "bytes_pushed"), a, sizeof a),
         bl_str_bytes(cli_integer(result, "bytes_pulled"), b, sizeof b));
  printf(" (float32 without compression: %s",
         bl_str_bytes(cli_integer(result, "bytes_pushed_dense"), c, sizeof c));
  printf(" and %s)\n", bl_str_bytes(cli_integer(result, "bytes_pulled_dense"), c, sizeof c));
  printf("  weights %s\n", cli_text(result, "weights_xxh3"));
  const char *output = cli_text(result, "output");
  if (output[0] != '\0')
    printf("  model   %s (on %s)\n", output, cli_text(json_array_get(json_object_get(job, "rank_states"), 0), "node"));
}
