/* SPDX-License-Identifier: Apache-2.0
 *
 * The map is keyed by a 64-bit hash; texts whose hashes collide take the next free key.
 */
#include "data/words.h"

#include "base/alloc.h"
#include "base/checksum.h"
#include "base/num.h"

#include <stdlib.h>
#include <string.h>

void wk_words_fini(wk_words *w) {
  for (uint32_t i = 0; i < w->n; i++) {
    bl_free(w->at[i]->text);
    bl_free(w->at[i]);
  }
  bl_free(w->at);
  bl_map_fini(&w->index);
  *w = (wk_words){0};
}

static bl_status append(wk_words *w, uint64_t key, const char *text, uint32_t file, uint64_t line) {
  if (w->n == w->capacity) {
    uint32_t capacity = BL_MAX(16, w->capacity * 2);
    wk_word **at = bl_realloc_array(w->at, capacity, sizeof *at);
    if (at == NULL)
      return BL_ENOMEM;
    w->at = at;
    w->capacity = capacity;
  }
  wk_word *word = bl_calloc(1, sizeof *word);
  if (word == NULL)
    return BL_ENOMEM;
  *word = (wk_word){.text = bl_strdup(text), .file = file, .line = line, .id = w->n};
  if (word->text == NULL || bl_map_put(&w->index, key, word) != BL_OK) {
    bl_free(word->text);
    bl_free(word);
    return BL_ENOMEM;
  }
  w->at[w->n++] = word;
  return BL_OK;
}

/* The word, or NULL and the key under which it would stand. */
static const wk_word *find(const wk_words *w, const char *text, uint64_t *ret_key) {
  uint64_t key = bl_checksum(text, strlen(text));
  const wk_word *found;
  while ((found = bl_map_get(&w->index, key)) != NULL && strcmp(found->text, text) != 0)
    key++;
  *ret_key = key;
  return found;
}

int64_t wk_words_find(const wk_words *w, const char *text) {
  uint64_t key;
  const wk_word *found = find(w, text, &key);
  return found != NULL ? (int64_t)found->id : -1;
}

bl_status wk_words_add(wk_words *w, const char *text, uint32_t file, uint64_t line, uint32_t limit,
                       uint32_t *ret_id) {
  uint64_t key;
  const wk_word *found = find(w, text, &key);
  if (found != NULL) {
    *ret_id = found->id;
    return BL_OK;
  }
  if (w->n >= limit)
    return BL_ELIMIT;
  bl_status status = append(w, key, text, file, line);
  if (status == BL_OK)
    *ret_id = w->n - 1;
  return status;
}

static int compare_words(const void *a, const void *b) {
  return strcmp((*(wk_word *const *)a)->text, (*(wk_word *const *)b)->text);
}

bl_status wk_words_sort(wk_words *w, uint32_t **ret_rank) {
  uint32_t *rank = bl_calloc(w->n, sizeof *rank);
  if (rank == NULL)
    return BL_ENOMEM;
  if (w->n > 0)
    qsort(w->at, w->n, sizeof *w->at, compare_words);
  for (uint32_t i = 0; i < w->n; i++)
    rank[w->at[i]->id] = i;
  *ret_rank = rank;
  return BL_OK;
}

int64_t wk_words_search(char *const *sorted, uint32_t n, const char *text) {
  uint32_t first = 0, end = n;
  while (first < end) {
    uint32_t middle = first + (end - first) / 2;
    int c = strcmp(text, sorted[middle]);
    if (c == 0)
      return middle;
    if (c < 0)
      end = middle;
    else
      first = middle + 1;
  }
  return -1;
}
