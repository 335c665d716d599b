/* SPDX-License-Identifier: Apache-2.0
 *
 * For targets whose parser opens files itself: bytes as a file in memory, with a path.
 */
#ifndef TESTS_FUZZ_DATA_FILES_H
#define TESTS_FUZZ_DATA_FILES_H

#include "data/dataset.h"

#include <stddef.h>
#include <stdint.h>

/* The path of a file that holds just these bytes; slot 0 or 1, each call replaces the slot's bytes. */
const char *fuzz_file(int slot, const uint8_t *data, size_t size);

/* Opens a training set, fetches its samples, opens the files again with what was fitted. */
void fuzz_open(const bl_job_spec *spec, uint32_t n_inputs, uint32_t n_outputs);
/* The same for a model whose first layer is sparse, with up to 2^40 inputs. */
void fuzz_open_sparse(const bl_job_spec *spec, uint64_t n_inputs);

#endif
