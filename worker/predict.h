/* SPDX-License-Identifier: Apache-2.0
 *
 * Prediction with a trained model's folder: reads data files as training did, writes one line per sample.
 *
 *   CSV, classes:  row,class,p(<class>),p(<class>),...      values:  row,value        with targets: ...,target
 *   JSON lines:    {"row": 0, "class": "7", "probabilities": {"0": 0.001, ...}} or {"row": 0, "value": 21.5}
 */
#ifndef WK_PREDICT_H
#define WK_PREDICT_H

#include "base/status.h"

#include <stdbool.h>
#include <stdio.h>

typedef enum wk_predict_format { WK_PREDICT_CSV = 1, WK_PREDICT_JSON } wk_predict_format;

typedef struct wk_predict_config {
  const char *model_dir;
  const char *kind;          /* "idx", "csv", "libsvm", "npy"; NULL: as the training data */
  const char *const *files;  /* [n_files] */
  size_t n_files;
  bool with_targets;         /* the files hold targets: they are written too, and a summary goes to stderr;
                                true by itself for idx and npy with two files */
  wk_predict_format format;
} wk_predict_config;

BL_MUST_CHECK bl_status wk_predict(const wk_predict_config *config, FILE *out, bl_error *err);

/* `ballast-worker --predict ...`: the exit code. */
int wk_predict_main(int argc, char **argv);

#endif
