/* SPDX-License-Identifier: Apache-2.0
 *
 * ballast-clicks: makes a click log with a known truth (data/gen/clicks.h), and says what the truth itself
 * scores.
 */
#include "data/gen/clicks.h"

#include "base/buf.h"
#include "base/file.h"
#include "base/le.h"
#include "base/num.h"
#include "base/str.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define ROWS_MAX UINT64_C(1000000000)
#define NPY_HEADER_BYTES 128
#define WRITE_BUFFER_BYTES (1u << 20)

static const char help[] =
    "Usage: ballast-clicks --out DIR [options]\n"
    "Writes rows of 39 categorical fields, skewed like real click logs, with labels drawn from a logistic "
    "model over\n"
    "the hashed fields; truth.json says what that model scores on the test rows: nobody can do better. The "
    "same seed\n"
    "gives the same bytes on every machine.\n\n"
    "  train-slots.npy, test-slots.npy     hashed fields: uint32 [rows, 39], below 2^bits\n"
    "  train-labels.npy, test-labels.npy   uint8 [rows]\n"
    "  train.csv, test.csv                 with --csv, instead: the fields before hashing, and 'click'\n\n"
    "  --out DIR    folder to write into, made when absent\n"
    "  --train N    training rows [100000], at most 1000000000\n"
    "  --test N     test rows [10000]\n"
    "  --bits B     of slots [24], 1 to 28\n"
    "  --seed S     of truth and rows [1]\n"
    "  --csv        text instead of npy\n"
    "  --help\n";

typedef struct options {
  const char *out;
  uint64_t train, test, bits, seed;
  bool csv, help;
} options;

static bool parse(int argc, char **argv, options *ret_o) {
  static const struct option names[] = {
      {"out", required_argument, NULL, 'o'},  {"train", required_argument, NULL, 't'},
      {"test", required_argument, NULL, 'e'}, {"bits", required_argument, NULL, 'b'},
      {"seed", required_argument, NULL, 's'}, {"csv", no_argument, NULL, 'c'},
      {"help", no_argument, NULL, 'h'},       {NULL, 0, NULL, 0}};
  options o = {.train = 100000, .test = 10000, .bits = 24, .seed = 1};
  int c;
  while ((c = getopt_long(argc, argv, "", names, NULL)) != -1) {
    uint64_t *number = c == 't'   ? &o.train
                       : c == 'e' ? &o.test
                       : c == 'b' ? &o.bits
                       : c == 's' ? &o.seed
                                  : NULL;
    if (number != NULL && bl_str_to_u64(optarg, number) != BL_OK) {
      fprintf(stderr, "ballast-clicks: '%s' is not a whole number\n", optarg);
      return false;
    }
    o.out = c == 'o' ? optarg : o.out;
    o.csv |= c == 'c';
    o.help |= c == 'h';
    if (c == '?')
      return false;
  }
  if (!o.help && o.out == NULL) {
    fputs("ballast-clicks: --out DIR is missing, see --help\n", stderr);
    return false;
  }
  if (optind < argc || o.train > ROWS_MAX || o.test > ROWS_MAX || o.train == 0 || o.test == 0 || o.bits == 0 ||
      o.bits > WK_CLICKS_BITS_MAX) {
    fprintf(stderr,
            "ballast-clicks: --train and --test take 1 to %" PRIu64
            ", --bits 1 to %d, and nothing may follow\n",
            ROWS_MAX, WK_CLICKS_BITS_MAX);
    return false;
  }
  *ret_o = o;
  return true;
}

/* ---- files: written beside their place, then renamed ------------------------------------------------------
 */

typedef struct output {
  bl_buf path, staging;
  FILE *file;
} output;

static bl_status output_open(output *f, const char *dir, const char *name, bl_error *err) {
  *f = (output){BL_BUF_INIT, BL_BUF_INIT, NULL};
  bl_buf_printf(&f->path, "%s/%s", dir, name);
  bl_buf_printf(&f->staging, "%s/%s.new", dir, name);
  if (f->path.failed || f->staging.failed)
    return bl_fail(err, BL_ENOMEM, "no memory for a path");
  f->file = fopen(bl_buf_str(&f->staging), "wb");
  if (f->file == NULL)
    return bl_fail_errno(err, "cannot write %s", bl_buf_str(&f->staging));
  (void)setvbuf(f->file, NULL, _IOFBF, WRITE_BUFFER_BYTES);
  return BL_OK;
}

/* whole: nothing went wrong so far. */
static bl_status output_close(output *f, bool whole, bl_error *err) {
  bl_status status = BL_OK;
  if (f->file != NULL) {
    bool failed = ferror(f->file) != 0;
    failed |= fclose(f->file) != 0;
    if (whole && failed)
      status = bl_fail_errno(err, "cannot write %s", bl_buf_str(&f->staging));
    else if (whole && rename(bl_buf_str(&f->staging), bl_buf_str(&f->path)) != 0)
      status = bl_fail_errno(err, "cannot move %s to %s", bl_buf_str(&f->staging), bl_buf_str(&f->path));
    if (!whole || status != BL_OK)
      (void)remove(bl_buf_str(&f->staging));
  }
  bl_buf_fini(&f->path);
  bl_buf_fini(&f->staging);
  return status;
}

/* Format: data/npy.c. */
static void put_npy_header(FILE *file, const char *descr, uint64_t rows, const char *columns) {
  char header[NPY_HEADER_BYTES];
  memset(header, ' ', sizeof header);
  memcpy(header, "\x93NUMPY\x01\x00", 8);
  bl_le_put16(header + 8, NPY_HEADER_BYTES - 10);
  int n =
      snprintf(header + 10, sizeof header - 10,
               "{'descr': '%s', 'fortran_order': False, 'shape': (%" PRIu64 ",%s), }", descr, rows, columns);
  header[10 + n] = ' '; /* where snprintf put its NUL */
  header[NPY_HEADER_BYTES - 1] = '\n';
  fwrite(header, 1, sizeof header, file);
}

static bl_status write_npy(const options *o, const wk_clicks *c, uint32_t part, const char *part_name,
                           uint64_t n, wk_click_truth *truth, bl_error *err) {
  char name[2][32], columns[16];
  output files[2];
  wk_click row;
  snprintf(name[0], sizeof name[0], "%s-slots.npy", part_name);
  snprintf(name[1], sizeof name[1], "%s-labels.npy", part_name);
  snprintf(columns, sizeof columns, " %d", WK_CLICKS_FIELDS);
  bl_status status = output_open(&files[0], o->out, name[0], err);
  bl_status second = output_open(&files[1], o->out, name[1], status == BL_OK ? err : NULL);
  status = status == BL_OK ? second : status;
  if (status == BL_OK) {
    put_npy_header(files[0].file, "<u4", n, columns);
    put_npy_header(files[1].file, "|u1", n, "");
  }
  for (uint64_t i = 0; status == BL_OK && i < n; i++) {
    wk_clicks_row(c, part, i, &row);
    wk_click_truth_add(truth, &row);
    fwrite(row.slots, sizeof row.slots[0], WK_CLICKS_FIELDS, files[0].file);
    fputc(row.label, files[1].file);
  }
  bool whole = status == BL_OK;
  for (int i = 0; i < 2; i++) {
    bl_status closed = output_close(&files[i], whole, err);
    status = status == BL_OK ? closed : status;
  }
  return status;
}

static bl_status write_csv(const options *o, const wk_clicks *c, uint32_t part, const char *part_name,
                           uint64_t n, wk_click_truth *truth, bl_error *err) {
  char name[32], text[WK_CLICKS_TEXT_BYTES];
  output f;
  wk_click row;
  snprintf(name, sizeof name, "%s.csv", part_name);
  bl_status status = output_open(&f, o->out, name, err);
  for (unsigned k = 0; status == BL_OK && k < WK_CLICKS_FIELDS; k++)
    fprintf(f.file, "%s,", wk_clicks_column(k));
  if (status == BL_OK)
    fputs("click\n", f.file);
  for (uint64_t i = 0; status == BL_OK && i < n; i++) {
    wk_clicks_row(c, part, i, &row);
    wk_click_truth_add(truth, &row);
    for (unsigned k = 0; k < WK_CLICKS_FIELDS; k++) {
      wk_clicks_text(row.values[k], text);
      fputs(text, f.file);
      fputc(',', f.file);
    }
    fprintf(f.file, "%u\n", row.label);
  }
  bl_status closed = output_close(&f, status == BL_OK, err);
  return status == BL_OK ? closed : status;
}

/* ---- what the truth scores ----------------------------------------------------------------------------------
 */

static bl_status write_truth(const options *o, const wk_click_truth *t, bl_error *err) {
  bl_buf text = BL_BUF_INIT, path = BL_BUF_INIT;
  double n = (double)t->n;
  bl_buf_printf(&text,
                "{\"rows\": %" PRIu64 ", \"log_loss_bound\": %.6f, \"log_loss_of_truth\": %.6f, "
                "\"accuracy_of_truth\": %.6f, \"positives\": %.6f}\n",
                t->n, t->entropy / n, t->log_loss / n, (double)t->correct / n, (double)t->positives / n);
  bl_buf_printf(&path, "%s/truth.json", o->out);
  bl_status status = text.failed || path.failed
                         ? bl_fail(err, BL_ENOMEM, "no memory to write %s/truth.json", o->out)
                         : bl_file_write_atomic(bl_buf_str(&path), text.data, text.size, 0644, err);
  bl_buf_fini(&text);
  bl_buf_fini(&path);
  return status;
}

static bl_status make(const options *o, wk_click_truth *ret_test, bl_error *err) {
  wk_clicks *c = NULL;
  wk_click_truth train = {0};
  bl_status (*write)(const options *, const wk_clicks *, uint32_t, const char *, uint64_t, wk_click_truth *,
                     bl_error *) = o->csv ? write_csv : write_npy;
  bl_status status = bl_file_make_dirs(o->out, 0755, err);
  if (status == BL_OK)
    status = wk_clicks_new(o->seed, (unsigned)o->bits, &c, err);
  if (status == BL_OK)
    status = write(o, c, 0, "train", o->train, &train, err);
  if (status == BL_OK)
    status = write(o, c, 1, "test", o->test, ret_test, err);
  if (status == BL_OK)
    status = write_truth(o, ret_test, err);
  wk_clicks_free(c);
  return status;
}

int main(int argc, char **argv) {
  options o;
  if (!parse(argc, argv, &o))
    return 2;
  if (o.help) {
    fputs(help, stdout);
    return 0;
  }
  bl_error err = BL_ERROR_INIT;
  wk_click_truth t = {0};
  if (make(&o, &t, &err) != BL_OK) {
    fprintf(stderr, "ballast-clicks: %s\n", err.text);
    return 1;
  }
  double n = (double)t.n;
  printf("%" PRIu64 " training and %" PRIu64 " test rows of %d fields over 2^%" PRIu64 " slots in %s\n"
         "the truth on the test rows: log loss %.6f expected (the bound), %.6f on the labels drawn, accuracy "
         "%.4f\n",
         o.train, o.test, WK_CLICKS_FIELDS, o.bits, o.out, t.entropy / n, t.log_loss / n,
         (double)t.correct / n);
  return 0;
}
