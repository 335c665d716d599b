/* SPDX-License-Identifier: Apache-2.0
 *
 * `ballast-worker --measure`: reads a job (its text on standard input), opens its data, and times a few training
 * steps of one rank on this machine. It is what `ballast check` asks for sizes and times, and it finds mistakes in
 * the data before a cluster does.
 *
 * Prints one JSON object: train_samples, validation_samples, test_samples, data_bytes (resident memory that the data
 * took), model_bytes (weights, gradients, activations of a rank), rows_per_step (rows of a sparse
 * layer's table that a rank's part of a batch touches, 0 without one), seconds_per_step (fetch, forward, loss, backward of
 * a rank's largest part of a batch).
 */
#ifndef WK_MEASURE_H
#define WK_MEASURE_H

/* Returns the exit code; mistakes go to standard error as sentences. */
int wk_measure_main(void);

#endif
