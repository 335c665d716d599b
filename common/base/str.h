/* SPDX-License-Identifier: Apache-2.0
 *
 * Strings: number parsing that refuses anything but a whole valid number, human-readable units, and the
 * nearest word for "did you mean".
 */
#ifndef BL_BASE_STR_H
#define BL_BASE_STR_H

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

bool bl_str_has_prefix(const char *s, const char *prefix);
bool bl_str_has_suffix(const char *s, const char *suffix);

/* The whole text must be one number in range; no leading blanks, no trailing bytes. Locale-independent. */
BL_MUST_CHECK bl_status bl_str_to_u64(const char *s, uint64_t *ret_value);
BL_MUST_CHECK bl_status bl_str_to_i64(const char *s, int64_t *ret_value);
BL_MUST_CHECK bl_status bl_str_to_double(const char *s, double *ret_value); /* finite only */

/* "8 GiB", "512KiB", "10 MB", "1024" -> bytes. */
BL_MUST_CHECK bl_status bl_str_to_bytes(const char *s, uint64_t *ret_bytes);
/* "30 s", "500ms", "2 min", "1 h" -> nanoseconds; a unit is required. */
BL_MUST_CHECK bl_status bl_str_to_ns(const char *s, uint64_t *ret_ns);

/* "1.5 GiB", "312 B"; "1 h 02 min", "14 s", "250 ms". Return out. */
const char *bl_str_bytes(uint64_t bytes, char *out, size_t size);
const char *bl_str_duration(uint64_t ns, char *out, size_t size);

/* Copies with truncation, always terminated. Returns false when cut. */
bool bl_str_copy(char *out, size_t size, const char *s);

/* Does the whole text fit the pattern? '*' stands for any bytes, also none, '?' for one. */
bool bl_str_glob(const char *pattern, const char *s);

/* Edit distance of two short words, at most 64 bytes considered. */
unsigned bl_str_distance(const char *a, const char *b);
/* Nearest of n words (distance at most a third of its length plus one), or NULL. */
const char *bl_str_nearest(const char *word, const char *const *words, size_t n);

#endif
