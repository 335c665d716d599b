/* SPDX-License-Identifier: Apache-2.0
 *
 * ballast-digits: makes the data set of digits for the first steps and the tests.
 */
#include "data/gen/digits.h"
#include "data/gen/write.h"

#include "base/alloc.h"
#include "base/buf.h"
#include "base/file.h"
#include "base/str.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

#define SAMPLES_MAX UINT64_C(1000000)
#define PREVIEW_COLUMNS 20
#define PREVIEW_ZOOM 2

static const char help[] =
    "Usage: ballast-digits --out DIR [options]\n"
    "Draws digits 0 to 9 from strokes, distorts them, and writes 28x28 grey pictures as idx files:\n"
    "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte.\n"
    "The same seed gives the same bytes on every machine.\n\n"
    "  --out DIR       folder to write into, made when absent\n"
    "  --train N       training samples [12000], at most 1000000\n"
    "  --test N        test samples [2000]\n"
    "  --seed S        [1]\n"
    "  --gz            compress (file names end in .gz)\n"
    "  --preview FILE  PNG picture to look at: one row per digit\n"
    "  --help\n";

typedef struct options {
  const char *out, *preview;
  uint64_t train, test, seed;
  bool gz, help;
} options;

static bool parse(int argc, char **argv, options *ret_o) {
  static const struct option names[] = {
      {"out", required_argument, NULL, 'o'},     {"train", required_argument, NULL, 't'},
      {"test", required_argument, NULL, 'e'},    {"seed", required_argument, NULL, 's'},
      {"preview", required_argument, NULL, 'p'}, {"gz", no_argument, NULL, 'z'},
      {"help", no_argument, NULL, 'h'},          {NULL, 0, NULL, 0}};
  options o = {.train = 12000, .test = 2000, .seed = 1};
  int c;
  while ((c = getopt_long(argc, argv, "", names, NULL)) != -1) {
    uint64_t *number = c == 't' ? &o.train : c == 'e' ? &o.test : c == 's' ? &o.seed : NULL;
    if (number != NULL && bl_str_to_u64(optarg, number) != BL_OK) {
      fprintf(stderr, "ballast-digits: '%s' is not a whole number\n", optarg);
      return false;
    }
    o.out = c == 'o' ? optarg : o.out;
    o.preview = c == 'p' ? optarg : o.preview;
    o.gz |= c == 'z';
    o.help |= c == 'h';
    if (c == '?')
      return false;
  }
  if (!o.help && (o.out == NULL && o.preview == NULL)) {
    fputs("ballast-digits: --out DIR is missing, see --help\n", stderr);
    return false;
  }
  if (optind < argc || o.train > SAMPLES_MAX || o.test > SAMPLES_MAX || o.train == 0 || o.test == 0) {
    fprintf(stderr, "ballast-digits: --train and --test take 1 to %llu, and nothing may follow the options\n",
            (unsigned long long)SAMPLES_MAX);
    return false;
  }
  *ret_o = o;
  return true;
}

static bl_status write_part(const options *o, uint32_t part, const char *name, uint64_t n, bl_error *err) {
  uint8_t *images = bl_calloc(n, WK_DIGIT_PIXELS), *labels = bl_calloc(n, 1);
  bl_buf path = BL_BUF_INIT;
  bl_status status = bl_fail(err, BL_ENOMEM, "no memory for %llu pictures", (unsigned long long)n);
  if (images == NULL || labels == NULL)
    goto out;
  for (uint64_t i = 0; i < n; i++) {
    labels[i] = wk_digit_label(o->seed, part, i);
    wk_digit_draw(o->seed, part, i, labels[i], images + i * WK_DIGIT_PIXELS);
  }
  const uint32_t dims[3] = {(uint32_t)n, WK_DIGIT_SIDE, WK_DIGIT_SIDE};
  bl_buf_printf(&path, "%s/%s-images-idx3-ubyte%s", o->out, name, o->gz ? ".gz" : "");
  status = wk_idx_write(bl_buf_str(&path), dims, 3, images, o->gz, err);
  if (status != BL_OK)
    goto out;
  bl_buf_clear(&path);
  bl_buf_printf(&path, "%s/%s-labels-idx1-ubyte%s", o->out, name, o->gz ? ".gz" : "");
  status = wk_idx_write(bl_buf_str(&path), dims, 1, labels, o->gz, err);
out:
  bl_buf_fini(&path);
  bl_free(images);
  bl_free(labels);
  return status;
}

static bl_status write_preview(const options *o, bl_error *err) {
  enum { CELL = WK_DIGIT_SIDE * PREVIEW_ZOOM, WIDTH = CELL * PREVIEW_COLUMNS, HEIGHT = CELL * 10 };
  uint8_t *sheet = bl_calloc(HEIGHT, WIDTH);
  if (sheet == NULL)
    return bl_fail(err, BL_ENOMEM, "no memory for the preview");
  for (uint32_t k = 0; k < 10 * PREVIEW_COLUMNS; k++) {
    uint8_t pixels[WK_DIGIT_PIXELS];
    uint32_t digit = k / PREVIEW_COLUMNS, column = k % PREVIEW_COLUMNS;
    wk_digit_draw(o->seed, 0, k, (uint8_t)digit, pixels);
    for (uint32_t y = 0; y < CELL; y++)
      for (uint32_t x = 0; x < CELL; x++)
        sheet[(digit * CELL + y) * WIDTH + column * CELL + x] =
            pixels[y / PREVIEW_ZOOM * WK_DIGIT_SIDE + x / PREVIEW_ZOOM];
  }
  bl_status status = wk_png_write(o->preview, WIDTH, HEIGHT, sheet, err);
  bl_free(sheet);
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
  bl_status status = o.preview != NULL ? write_preview(&o, &err) : BL_OK;
  if (status == BL_OK && o.out != NULL)
    status = bl_file_make_dirs(o.out, 0755, &err);
  if (status == BL_OK && o.out != NULL)
    status = write_part(&o, 0, "train", o.train, &err);
  if (status == BL_OK && o.out != NULL)
    status = write_part(&o, 1, "t10k", o.test, &err);
  if (status != BL_OK) {
    fprintf(stderr, "ballast-digits: %s\n", err.text);
    return 1;
  }
  if (o.out != NULL)
    printf("%llu training and %llu test pictures of digits in %s\n", (unsigned long long)o.train,
           (unsigned long long)o.test, o.out);
  return 0;
}
