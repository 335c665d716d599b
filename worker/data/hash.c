/* SPDX-License-Identifier: Apache-2.0 */
#include "data/hash.h"

#include "base/checksum.h"

#include <string.h>

uint64_t wk_hash_column(uint64_t seed, const char *column) {
  return bl_checksum_seeded(column, strlen(column), seed);
}

uint64_t wk_hash_slot(uint64_t column_seed, const char *text, size_t size, unsigned bits) {
  return bl_checksum_seeded(text, size, column_seed) >> (64 - bits);
}
