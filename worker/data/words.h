/* SPDX-License-Identifier: Apache-2.0
 *
 * Distinct words of a column, numbered in order of appearance, each with where it was first seen; then
 * sorted bytewise. One thread at a time.
 */
#ifndef WK_DATA_WORDS_H
#define WK_DATA_WORDS_H

#include "base/map.h"

#include <stdint.h>

typedef struct wk_word {
  char *text;    /* owned */
  uint32_t file; /* where it was first seen */
  uint64_t line;
  uint32_t id;
} wk_word;

typedef struct wk_words {
  wk_word **at; /* owned [n]; at[i]->id == i until sorted */
  uint32_t n, capacity;
  bl_map index; /* hash of the text -> wk_word */
} wk_words;

void wk_words_fini(wk_words *w);
/* Number of the word, added when new. BL_ELIMIT when there are limit already; BL_ENOMEM. */
BL_MUST_CHECK bl_status wk_words_add(wk_words *w, const char *text, uint32_t file, uint64_t line,
                                     uint32_t limit, uint32_t *ret_id);
/* Sorts at[] by text; ret_rank[id] (owned by the caller, bl_free) is the new place of each number. */
BL_MUST_CHECK bl_status wk_words_sort(wk_words *w, uint32_t **ret_rank);
/* Number of the word, or -1. */
int64_t wk_words_find(const wk_words *w, const char *text);
/* Place in a sorted list of n texts, or -1. */
int64_t wk_words_search(char *const *sorted, uint32_t n, const char *text);

#endif
