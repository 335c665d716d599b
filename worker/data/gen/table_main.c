/* SPDX-License-Identifier: Apache-2.0
 *
 * ballast-table: makes a table of 10 numbers and a class 0 to 9 that follows from them by a hidden smooth
 * rule: ten scores, each linear in the numbers plus the product of two linear forms; the class has the
 * highest score. Samples whose two best scores are close are left out, so that the rule can be learned well.
 */
#include "base/buf.h"
#include "base/file.h"
#include "base/rng.h"
#include "base/str.h"

#include <getopt.h>
#include <math.h>
#include <stdio.h>

#define INPUTS 10
#define CLASSES 10
#define SAMPLES_MAX UINT64_C(1000000)
#define MARGIN 0.8

static const char help[] =
    "Usage: ballast-table --out DIR [options]\n"
    "Writes train.csv and test.csv: 10 numbers x0 to x9 and the class 0 to 9 that a hidden smooth rule gives\n"
    "them. The same seed gives the same bytes on every machine.\n\n"
    "  --out DIR    folder to write into, made when absent\n"
    "  --train N    training rows [10000], at most 1000000\n"
    "  --test N     test rows [2000]\n"
    "  --seed S     of rule and rows [1]\n"
    "  --help\n";

typedef struct options {
  const char *out;
  uint64_t train, test, seed;
  bool help;
} options;

static bool parse(int argc, char **argv, options *ret_o) {
  static const struct option names[] = {
      {"out", required_argument, NULL, 'o'},  {"train", required_argument, NULL, 't'},
      {"test", required_argument, NULL, 'e'}, {"seed", required_argument, NULL, 's'},
      {"help", no_argument, NULL, 'h'},       {NULL, 0, NULL, 0}};
  options o = {.train = 10000, .test = 2000, .seed = 1};
  int c;
  while ((c = getopt_long(argc, argv, "", names, NULL)) != -1) {
    uint64_t *number = c == 't' ? &o.train : c == 'e' ? &o.test : c == 's' ? &o.seed : NULL;
    if (number != NULL && bl_str_to_u64(optarg, number) != BL_OK) {
      fprintf(stderr, "ballast-table: '%s' is not a whole number\n", optarg);
      return false;
    }
    o.out = c == 'o' ? optarg : o.out;
    o.help |= c == 'h';
    if (c == '?')
      return false;
  }
  if (!o.help && o.out == NULL) {
    fputs("ballast-table: --out DIR is missing, see --help\n", stderr);
    return false;
  }
  if (optind < argc || o.train > SAMPLES_MAX || o.test > SAMPLES_MAX || o.train == 0 || o.test == 0) {
    fprintf(stderr, "ballast-table: --train and --test take 1 to %llu, and nothing may follow the options\n",
            (unsigned long long)SAMPLES_MAX);
    return false;
  }
  *ret_o = o;
  return true;
}

typedef struct rule {
  double linear[CLASSES][INPUTS], left[CLASSES][INPUTS], right[CLASSES][INPUTS];
} rule;

#define RULE_STREAM (UINT64_C(1) << 56) /* apart from the rows of any part */

static void rule_init(rule *r, uint64_t key) {
  uint64_t at = 0;
  for (int k = 0; k < CLASSES; k++) {
    for (int i = 0; i < INPUTS; i++) {
      r->linear[k][i] = (double)bl_rng_normal(key, RULE_STREAM, at++);
      r->left[k][i] = 0.3 * (double)bl_rng_normal(key, RULE_STREAM, at++);
      r->right[k][i] = 0.3 * (double)bl_rng_normal(key, RULE_STREAM, at++);
    }
  }
}

static double score(const rule *r, int k, const double *x) {
  double linear = 0, left = 0, right = 0;
  for (int i = 0; i < INPUTS; i++) {
    linear += r->linear[k][i] * x[i];
    left += r->left[k][i] * x[i];
    right += r->right[k][i] * x[i];
  }
  return linear + left * right;
}

/* Class of x, or -1 when the two best scores are too close. */
static int classify(const rule *r, const double *x) {
  double best = -INFINITY, second = -INFINITY;
  int at = -1;
  for (int k = 0; k < CLASSES; k++) {
    double s = score(r, k, x);
    if (s > best) {
      second = best;
      best = s;
      at = k;
    } else if (s > second) {
      second = s;
    }
  }
  return best - second >= MARGIN ? at : -1;
}

static bl_status write_part(const options *o, uint32_t part, const char *name, uint64_t n, bl_error *err) {
  uint64_t key = bl_rng_key(o->seed, BL_RNG_DATA);
  rule r;
  rule_init(&r, key);
  bl_buf text = BL_BUF_INIT, path = BL_BUF_INIT;
  for (int i = 0; i < INPUTS; i++)
    bl_buf_printf(&text, "x%d,", i);
  bl_buf_add_str(&text, "class\n");
  for (uint64_t candidate = 0, kept = 0; kept < n && !text.failed; candidate++) {
    double x[INPUTS];
    for (int i = 0; i < INPUTS; i++) /* four decimals, so that the file says exactly what the rule saw */
      x[i] = rint((double)bl_rng_normal(key, (uint64_t)part << 48 | candidate, (uint64_t)i) * 1e4) / 1e4;
    int k = classify(&r, x);
    if (k < 0)
      continue;
    for (int i = 0; i < INPUTS; i++)
      bl_buf_printf(&text, "%.4f,", x[i]);
    bl_buf_printf(&text, "%d\n", k);
    kept++;
  }
  bl_buf_printf(&path, "%s/%s", o->out, name);
  bl_status status = text.failed || path.failed
                         ? bl_fail(err, BL_ENOMEM, "no memory for %llu rows", (unsigned long long)n)
                         : bl_file_write_atomic(bl_buf_str(&path), text.data, text.size, 0644, err);
  bl_buf_fini(&text);
  bl_buf_fini(&path);
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
  bl_status status = bl_file_make_dirs(o.out, 0755, &err);
  if (status == BL_OK)
    status = write_part(&o, 0, "train.csv", o.train, &err);
  if (status == BL_OK)
    status = write_part(&o, 1, "test.csv", o.test, &err);
  if (status != BL_OK) {
    fprintf(stderr, "ballast-table: %s\n", err.text);
    return 1;
  }
  printf("%llu training and %llu test rows in %s\n", (unsigned long long)o.train, (unsigned long long)o.test,
         o.out);
  return 0;
}
