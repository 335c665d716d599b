/* SPDX-License-Identifier: Apache-2.0
 *
 * Parsing and formatting of numbers with units. The programs never call setlocale for LC_NUMERIC, so
 * strtod reads a decimal point.
 */
#include "base/str.h"

#include "base/clock.h"
#include "base/num.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool bl_str_has_prefix(const char *s, const char *prefix) { return strncmp(s, prefix, strlen(prefix)) == 0; }

bool bl_str_has_suffix(const char *s, const char *suffix) {
  size_t n = strlen(s), m = strlen(suffix);
  return n >= m && strcmp(s + n - m, suffix) == 0;
}

bl_status bl_str_to_u64(const char *s, uint64_t *ret_value) {
  if (!isdigit((unsigned char)s[0]))
    return BL_EINVAL;
  char *end;
  errno = 0;
  unsigned long long v = strtoull(s, &end, 10);
  if (errno != 0 || *end != '\0')
    return BL_EINVAL;
  *ret_value = v;
  return BL_OK;
}

bl_status bl_str_to_i64(const char *s, int64_t *ret_value) {
  if (!isdigit((unsigned char)s[0]) && !(s[0] == '-' && isdigit((unsigned char)s[1])))
    return BL_EINVAL;
  char *end;
  errno = 0;
  long long v = strtoll(s, &end, 10);
  if (errno != 0 || *end != '\0')
    return BL_EINVAL;
  *ret_value = v;
  return BL_OK;
}

static bool starts_decimal(const char *s) {
  if (*s == '-' || *s == '+')
    s++;
  return isdigit((unsigned char)*s) || (*s == '.' && isdigit((unsigned char)s[1]));
}

/* Decimal number at the start of s, hexadecimal and words refused; *ret_rest is behind it and behind blanks. */
static bl_status number_prefix(const char *s, double *ret_value, const char **ret_rest) {
  if (!starts_decimal(s) || strpbrk(s, "xX") != NULL)
    return BL_EINVAL;
  char *end;
  double v = strtod(s, &end);
  if (end == s || !isfinite(v))
    return BL_EINVAL;
  while (*end == ' ')
    end++;
  *ret_value = v;
  *ret_rest = end;
  return BL_OK;
}

bl_status bl_str_to_double(const char *s, double *ret_value) {
  double v;
  const char *rest;
  if (s[0] == '\0' || s[strlen(s) - 1] == ' ' || number_prefix(s, &v, &rest) != BL_OK || *rest != '\0')
    return BL_EINVAL;
  *ret_value = v;
  return BL_OK;
}

typedef struct unit {
  const char *name;
  double factor;
} unit;

static const unit byte_units[] = {
    {"", 1},       {"B", 1},        {"kB", 1e3},      {"KB", 1e3},     {"MB", 1e6},  {"GB", 1e9},
    {"TB", 1e12},  {"KiB", 0x1p10}, {"MiB", 0x1p20},  {"GiB", 0x1p30}, {"TiB", 0x1p40},
};

static const unit time_units[] = {
    {"ns", 1}, {"us", 1e3}, {"ms", 1e6}, {"s", 1e9}, {"min", 60e9}, {"h", 3600e9}, {"d", 86400e9},
};

static bl_status with_unit(const char *s, const unit *units, size_t n, uint64_t *ret_value) {
  double v;
  const char *rest;
  if (number_prefix(s, &v, &rest) != BL_OK || v < 0)
    return BL_EINVAL;
  for (size_t i = 0; i < n; i++) {
    if (strcmp(rest, units[i].name) == 0) {
      double scaled = v * units[i].factor;
      if (scaled >= 0x1p63)
        return BL_EINVAL;
      *ret_value = (uint64_t)(scaled + 0.5);
      return BL_OK;
    }
  }
  return BL_EINVAL;
}

bl_status bl_str_to_bytes(const char *s, uint64_t *ret_bytes) {
  return with_unit(s, byte_units, BL_COUNT_OF(byte_units), ret_bytes);
}

bl_status bl_str_to_ns(const char *s, uint64_t *ret_ns) {
  return with_unit(s, time_units, BL_COUNT_OF(time_units), ret_ns);
}

const char *bl_str_bytes(uint64_t bytes, char *out, size_t size) {
  static const char *const names[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double v = (double)bytes;
  size_t i = 0;
  while (v >= 1024 && i + 1 < BL_COUNT_OF(names)) {
    v /= 1024;
    i++;
  }
  snprintf(out, size, i == 0 || v >= 100 ? "%.0f %s" : "%.1f %s", v, names[i]);
  return out;
}

const char *bl_str_duration(uint64_t ns, char *out, size_t size) {
  unsigned long long s = ns / BL_NS_PER_S;
  if (s >= 3600)
    snprintf(out, size, "%llu h %02llu min", s / 3600, s / 60 % 60);
  else if (s >= 60)
    snprintf(out, size, "%llu min %02llu s", s / 60, s % 60);
  else if (s >= 10)
    snprintf(out, size, "%llu s", s);
  else if (ns >= BL_NS_PER_S)
    snprintf(out, size, "%.1f s", (double)ns / 1e9);
  else
    snprintf(out, size, "%.0f ms", (double)ns / 1e6);
  return out;
}

bool bl_str_copy(char *out, size_t size, const char *s) {
  size_t n = strlen(s);
  bool fits = n < size;
  if (!fits)
    n = size - 1;
  memcpy(out, s, n);
  out[n] = '\0';
  return fits;
}

#define WORD_MAX 64

/* Where the text does not fit, the last '*' takes one byte more: earlier ones need not be tried again. */
bool bl_str_glob(const char *pattern, const char *s) {
  const char *star = NULL, *taken = NULL;
  while (*s != '\0') {
    if (*pattern == '*') {
      star = pattern++;
      taken = s;
    } else if (*pattern == '?' || *pattern == *s) {
      pattern++;
      s++;
    } else if (star != NULL) {
      pattern = star + 1;
      s = ++taken;
    } else {
      return false;
    }
  }
  while (*pattern == '*')
    pattern++;
  return *pattern == '\0';
}

unsigned bl_str_distance(const char *a, const char *b) {
  size_t n = strnlen(a, WORD_MAX), m = strnlen(b, WORD_MAX);
  unsigned row[WORD_MAX + 1];
  for (size_t j = 0; j <= m; j++)
    row[j] = (unsigned)j;
  for (size_t i = 1; i <= n; i++) {
    unsigned diagonal = row[0];
    row[0] = (unsigned)i;
    for (size_t j = 1; j <= m; j++) {
      unsigned substitute = diagonal + (a[i - 1] != b[j - 1]);
      unsigned shift = BL_MIN(row[j], row[j - 1]) + 1;
      diagonal = row[j];
      row[j] = BL_MIN(substitute, shift);
    }
  }
  return row[m];
}

const char *bl_str_nearest(const char *word, const char *const *words, size_t n) {
  const char *best = NULL;
  unsigned best_distance = 0;
  for (size_t i = 0; i < n; i++) {
    unsigned d = bl_str_distance(word, words[i]);
    if (d <= strlen(words[i]) / 3 + 1 && (best == NULL || d < best_distance)) {
      best = words[i];
      best_distance = d;
    }
  }
  return best;
}
