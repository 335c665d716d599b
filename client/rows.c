/* SPDX-License-Identifier: Apache-2.0
 *
 * Rows on a rank's side. Order of the file: life, lists, what shards know, pulls, pushes.
 */
#include "client/rows.h"

#include "base/alloc.h"
#include "base/checksum.h"
#include "base/map.h"
#include "base/num.h"
#include "wire/rows.h"

#include <inttypes.h>
#include <string.h>

#define BATCH_BYTES (1u << 20) /* of the answers to one message, unless a single bucket has more */
#define KNOWN_MAX (1u << 16)   /* lists that shards are thought to know; beyond, all are forgotten */
#define LISTS 3                /* of a tensor: being pushed, being pulled, being cut */

/* Rows of a tensor by bucket: bucket b has order[start[b] .. start[b + 1]), by rising row. */
typedef struct row_list {
  uint64_t hash; /* of the rows */
  uint32_t n, capacity;
  uint32_t *order;   /* owned, [capacity]: numbers into the caller's rows */
  uint32_t *start;   /* owned, [n_buckets + 1] */
  uint64_t *keys_at; /* owned, [n_buckets + 1] */
  bl_rows_id *ids;   /* owned, [n_buckets]; of a bucket with rows */
  uint8_t *keys;     /* owned, [capacity * BL_ROWS_KEY_BYTES_MAX] */
} row_list;

typedef struct tensor_rows {
  row_list lists[LISTS];
  row_list *pull, *push; /* NULL: none */
  uint64_t want;
  float *values;
  const float *grad;
  uint32_t n_missing; /* buckets */
} tensor_rows;

typedef enum bucket_state { BUCKET_NONE = 0, BUCKET_QUEUED, BUCKET_ASKED } bucket_state;

typedef struct bucket {
  uint64_t due_ns;
  uint8_t state;
  bool pushed_before; /* in this clock: a repeat */
} bucket;

typedef struct row_shard {
  uint32_t *queue; /* owned ring, [n_buckets] */
  uint32_t n_buckets, first, n_queued, n_asked;
  uint64_t flight_bytes;
} row_shard;

struct bl_row_exchange {
  bl_row_config config;
  const bl_tensor_table *table;
  tensor_rows *tensors; /* [n_tensors]; of the dense ones unused */
  bucket *buckets;      /* [n_chunks]; likewise */
  row_shard *shards;    /* [n_shards] */
  float *values;        /* [chunk_elems] */
  bl_map known;
  bl_row_stats stats;
};

/* ---- life ---------------------------------------------------------------------------------------------- */

static const bl_tensor *tensor_of(const bl_row_exchange *x, uint32_t id) {
  return &x->table->tensors[x->table->chunks[id].tensor];
}

static row_shard *shard_of(bl_row_exchange *x, uint32_t id) {
  return &x->shards[x->config.shard_of_chunk[id]];
}

static bl_status allocate_lists(const bl_tensor *t, tensor_rows *rows) {
  for (uint32_t i = 0; i < LISTS; i++) {
    row_list *l = &rows->lists[i];
    l->start = bl_calloc(t->n_chunks + 1, sizeof *l->start);
    l->keys_at = bl_calloc(t->n_chunks + 1, sizeof *l->keys_at);
    l->ids = bl_calloc(t->n_chunks, sizeof *l->ids);
    if (l->start == NULL || l->keys_at == NULL || l->ids == NULL)
      return BL_ENOMEM;
  }
  return BL_OK;
}

static bl_status allocate(bl_row_exchange *x) {
  const bl_tensor_table *t = x->table;
  x->tensors = bl_calloc(t->n_tensors, sizeof *x->tensors);
  x->buckets = bl_calloc(t->n_chunks, sizeof *x->buckets);
  x->shards = bl_calloc(x->config.n_shards, sizeof *x->shards);
  x->values = bl_calloc_aligned(t->chunk_elems, sizeof *x->values);
  if (x->tensors == NULL || x->buckets == NULL || x->shards == NULL || x->values == NULL)
    return BL_ENOMEM;
  for (uint32_t id = 0; id < t->n_chunks; id++)
    shard_of(x, id)->n_buckets += tensor_of(x, id)->table;
  for (uint32_t i = 0; i < x->config.n_shards; i++) {
    x->shards[i].queue = bl_calloc(BL_MAX(x->shards[i].n_buckets, 1), sizeof(uint32_t));
    if (x->shards[i].queue == NULL)
      return BL_ENOMEM;
  }
  for (uint32_t i = 0; i < t->n_tensors; i++)
    if (t->tensors[i].table && allocate_lists(&t->tensors[i], &x->tensors[i]) != BL_OK)
      return BL_ENOMEM;
  return BL_OK;
}

bl_status bl_row_exchange_new(const bl_row_config *config, bl_row_exchange **ret) {
  *ret = NULL;
  if (!bl_tensor_table_has_tables(config->table))
    return BL_OK;
  bl_row_exchange *x = bl_calloc(1, sizeof *x);
  if (x == NULL)
    return BL_ENOMEM;
  x->config = *config;
  x->table = config->table;
  if (allocate(x) != BL_OK) {
    bl_row_exchange_free(x);
    return BL_ENOMEM;
  }
  *ret = x;
  return BL_OK;
}

static void free_list(row_list *l) {
  bl_free(l->order);
  bl_free(l->start);
  bl_free(l->keys_at);
  bl_free(l->ids);
  bl_free(l->keys);
}

void bl_row_exchange_free(bl_row_exchange *x) {
  if (x == NULL)
    return;
  for (uint32_t i = 0; x->tensors != NULL && i < x->table->n_tensors; i++)
    for (uint32_t k = 0; k < LISTS; k++)
      free_list(&x->tensors[i].lists[k]);
  for (uint32_t i = 0; x->shards != NULL && i < x->config.n_shards; i++)
    bl_free(x->shards[i].queue);
  bl_map_fini(&x->known);
  bl_free_aligned(x->values);
  bl_free(x->shards);
  bl_free(x->buckets);
  bl_free(x->tensors);
  bl_free(x);
}

size_t bl_rows_frame_bytes_max(const bl_tensor_table *table) {
  size_t keys = 0;
  for (uint32_t i = 0; i < table->n_tensors; i++)
    if (table->tensors[i].table)
      keys = BL_MAX(keys, (size_t)bl_table_frame_rows_max(table, i) * BL_ROWS_KEY_BYTES_MAX);
  return keys > 0 ? BL_ROWS_HEADER_BYTES + keys + bl_tensor_table_frame_bytes_max(table, true) : 0;
}

bl_row_stats bl_rows_get_stats(const bl_row_exchange *x) {
  return x->stats;
}

/* ---- lists --------------------------------------------------------------------------------------------- */

static bl_status grow_list(row_list *l, uint32_t n) {
  if (n <= l->capacity)
    return BL_OK;
  uint64_t capacity = BL_MAX((uint64_t)l->capacity * 2, BL_MAX(n, 256));
  uint32_t *order = bl_realloc_array(l->order, capacity, sizeof *order);
  if (order == NULL)
    return BL_ENOMEM;
  l->order = order;
  uint8_t *keys = bl_realloc_array(l->keys, capacity, BL_ROWS_KEY_BYTES_MAX);
  if (keys == NULL)
    return BL_ENOMEM;
  l->keys = keys;
  l->capacity = (uint32_t)BL_MIN(capacity, UINT32_MAX);
  return BL_OK;
}

/* A counting sort; rows come rising and stay so within a bucket. */
static void order_rows(row_list *l, const bl_tensor *t, const uint64_t *rows) {
  memset(l->start, 0, (t->n_chunks + 1) * sizeof *l->start);
  for (uint32_t i = 0; i < l->n; i++) {
    BL_ASSERT(rows[i] < bl_table_rows(t) && (i == 0 || rows[i] > rows[i - 1]));
    l->start[bl_table_bucket(t, rows[i]) + 1]++;
  }
  for (uint32_t b = 0; b < t->n_chunks; b++)
    l->start[b + 1] += l->start[b];
  for (uint32_t i = 0; i < l->n; i++) /* start[b] moves to the bucket's end */
    l->order[l->start[bl_table_bucket(t, rows[i])]++] = i;
  memmove(l->start + 1, l->start, t->n_chunks * sizeof *l->start);
  l->start[0] = 0;
}

static void encode_keys(row_list *l, const bl_tensor *t, const uint64_t *rows) {
  uint8_t *p = l->keys;
  for (uint32_t b = 0; b < t->n_chunks; b++) {
    uint8_t *first = p;
    uint64_t prev = UINT64_MAX;
    l->keys_at[b] = (uint64_t)(p - l->keys);
    for (uint32_t i = l->start[b]; i < l->start[b + 1]; i++) {
      uint64_t run = bl_table_run(t, rows[l->order[i]]);
      p = bl_rows_put_key(p, prev, run);
      prev = run;
    }
    if (p > first)
      l->ids[b] = bl_rows_id_of(first, (uint32_t)(p - first), l->start[b + 1] - l->start[b], bl_table_width(t));
  }
  l->keys_at[t->n_chunks] = (uint64_t)(p - l->keys);
}

static bl_status check_counts(const bl_row_exchange *x, uint32_t tensor, const row_list *l, bl_error *err) {
  const bl_tensor *t = &x->table->tensors[tensor];
  uint32_t max = bl_table_frame_rows_max(x->table, tensor);
  for (uint32_t b = 0; b < t->n_chunks; b++)
    if (l->start[b + 1] - l->start[b] > max)
      return bl_fail(err, BL_ELIMIT,
                     "table '%s': %" PRIu32 " rows of one bucket in one list of %" PRIu32 "; at most %" PRIu32
                     " are allowed",
                     t->name, l->start[b + 1] - l->start[b], l->n, max);
  return BL_OK;
}

/* The list of these rows: the one that is there, or one cut now in place of one out of use. */
static bl_status cut_list(bl_row_exchange *x, uint32_t tensor, const uint64_t *rows, uint32_t n,
                          row_list **ret_list, bl_error *err) {
  tensor_rows *t = &x->tensors[tensor];
  uint64_t hash = bl_checksum(rows, n * sizeof *rows);
  row_list *there[] = {t->pull, t->push};
  for (size_t i = 0; i < BL_COUNT_OF(there); i++)
    if (there[i] != NULL && there[i]->hash == hash && there[i]->n == n) {
      *ret_list = there[i];
      return BL_OK;
    }
  row_list *l = t->lists;
  while (l == t->pull || l == t->push)
    l++;
  if (grow_list(l, n) != BL_OK)
    return bl_fail(err, BL_ENOMEM, "no memory for a list of %" PRIu32 " rows of table '%s'", n,
                   x->table->tensors[tensor].name);
  l->hash = hash;
  l->n = n;
  order_rows(l, &x->table->tensors[tensor], rows);
  encode_keys(l, &x->table->tensors[tensor], rows);
  *ret_list = l;
  return check_counts(x, tensor, l, err);
}

static uint32_t rows_in(const row_list *l, uint32_t b) {
  return l != NULL ? l->start[b + 1] - l->start[b] : 0;
}

static uint32_t bucket_of(const bl_row_exchange *x, uint32_t id) {
  return (uint32_t)x->table->chunks[id].first;
}

static tensor_rows *rows_of(const bl_row_exchange *x, uint32_t id) {
  return &x->tensors[x->table->chunks[id].tensor];
}

/* ---- what shards know ---------------------------------------------------------------------------------- */

static uint64_t known_key(uint32_t id, const bl_rows_id *list) {
  return list->checksum ^ (id + UINT64_C(1)) * UINT64_C(0x9e3779b97f4a7c15);
}

static bool is_known(const bl_row_exchange *x, uint32_t id, const row_list *l) {
  return x->config.caches_keys && bl_map_get(&x->known, known_key(id, &l->ids[bucket_of(x, id)])) != NULL;
}

static void set_known(bl_row_exchange *x, uint32_t id, const row_list *l) {
  if (!x->config.caches_keys)
    return;
  if (x->known.count >= KNOWN_MAX)
    bl_map_fini(&x->known);
  (void)!bl_map_put(&x->known, known_key(id, &l->ids[bucket_of(x, id)]), x); /* without memory: sent again */
}

/* Writes header and keys, or the checksum where that will do; returns where the numbers go. */
static uint8_t *put_keys(bl_row_exchange *x, uint32_t id, const row_list *l, uint8_t *out, bool numbers) {
  uint32_t b = bucket_of(x, id), bytes = (uint32_t)(l->keys_at[b + 1] - l->keys_at[b]);
  bool known = is_known(x, id, l);
  *(known ? &x->stats.keys_saved_bytes : &x->stats.keys_sent_bytes) += bytes;
  return bl_rows_put(out, &l->ids[b], known ? NULL : l->keys + l->keys_at[b], bytes, numbers);
}

static size_t bytes_of_keys(const bl_row_exchange *x, uint32_t id, const row_list *l) {
  uint32_t b = bucket_of(x, id);
  return BL_ROWS_HEADER_BYTES + (is_known(x, id, l) ? 0 : (size_t)(l->keys_at[b + 1] - l->keys_at[b]));
}

/* ---- pulls --------------------------------------------------------------------------------------------- */

static uint64_t answer_bytes(const bl_row_exchange *x, uint32_t id) {
  return (uint64_t)rows_in(rows_of(x, id)->pull, bucket_of(x, id)) * bl_table_width(tensor_of(x, id)) *
         sizeof(float);
}

static void enqueue(bl_row_exchange *x, uint32_t id) {
  row_shard *sh = shard_of(x, id);
  x->buckets[id].state = BUCKET_QUEUED;
  sh->queue[(sh->first + sh->n_queued++) % sh->n_buckets] = id;
}

static void dequeue(row_shard *sh) {
  sh->first = (sh->first + 1) % sh->n_buckets;
  sh->n_queued--;
}

/* Drops what was asked for before: the caller has given up waiting for it. */
static void forget_pull(bl_row_exchange *x, uint32_t tensor) {
  const bl_tensor *t = &x->table->tensors[tensor];
  for (uint32_t id = t->first_chunk; id < t->first_chunk + t->n_chunks && x->tensors[tensor].n_missing > 0;
       id++) {
    bucket *b = &x->buckets[id];
    row_shard *sh = shard_of(x, id);
    if (b->state == BUCKET_NONE)
      continue;
    x->tensors[tensor].n_missing--;
    if (b->state == BUCKET_ASKED) {
      sh->n_asked--;
      sh->flight_bytes -= answer_bytes(x, id);
    } else {
      while (sh->queue[sh->first] != id) { /* the ring keeps its order but for its beginning */
        enqueue(x, sh->queue[sh->first]);
        dequeue(sh);
      }
      dequeue(sh);
    }
    b->state = BUCKET_NONE;
  }
}

bl_status bl_rows_begin_pull(bl_row_exchange *x, uint32_t tensor, uint64_t want, const uint64_t *rows,
                             uint32_t n, float *values, bl_error *err) {
  tensor_rows *t = &x->tensors[tensor];
  const bl_tensor *place = &x->table->tensors[tensor];
  forget_pull(x, tensor);
  row_list *list;
  bl_status st = cut_list(x, tensor, rows, n, &list, err);
  if (st != BL_OK)
    return st;
  t->pull = list;
  t->want = want;
  t->values = values;
  for (uint32_t b = 0; b < place->n_chunks; b++)
    if (rows_in(t->pull, b) > 0) {
      t->n_missing++;
      enqueue(x, place->first_chunk + b);
    }
  return BL_OK;
}

bool bl_rows_is_ready(const bl_row_exchange *x, uint32_t tensor) {
  return x->tensors[tensor].n_missing == 0;
}

bool bl_rows_is_waiting(const bl_row_exchange *x, uint32_t shard) {
  return x->shards[shard].n_queued + x->shards[shard].n_asked > 0;
}

uint64_t bl_rows_oldest_wanted(const bl_row_exchange *x) {
  uint64_t oldest = UINT64_MAX;
  for (uint32_t i = 0; i < x->table->n_tensors; i++)
    if (x->tensors[i].n_missing > 0)
      oldest = BL_MIN(oldest, x->tensors[i].want);
  return oldest;
}

static bool add_pull(bl_row_exchange *x, uint32_t id, bl_frame_pools *pools, bl_msg *msg) {
  const row_list *l = rows_of(x, id)->pull;
  bl_frame *f = bl_frame_pools_take(pools, bytes_of_keys(x, id, l));
  if (f == NULL)
    return false;
  put_keys(x, id, l, f->data, false);
  bl_status st = bl_msg_add_frame(msg, f);
  BL_ASSERT(st == BL_OK);
  return true;
}

/* A message names its chunks in rising order; the queue is nearly so. */
static void sort_ids(uint32_t *ids, uint32_t n) {
  for (uint32_t i = 1; i < n; i++)
    for (uint32_t k = i; k > 0 && ids[k - 1] > ids[k]; k--) {
      uint32_t t = ids[k];
      ids[k] = ids[k - 1];
      ids[k - 1] = t;
    }
}

uint32_t bl_rows_take_pulls(bl_row_exchange *x, uint32_t shard, uint64_t room_bytes, bl_frame_pools *pools,
                            bl_msg *msg, uint32_t *ids, uint64_t *ret_want) {
  row_shard *sh = &x->shards[shard];
  uint32_t n = 0;
  uint64_t bytes = 0;
  if (sh->n_queued > 0)
    *ret_want = rows_of(x, sh->queue[sh->first])->want;
  while (sh->n_queued > 0 && n < BL_MSG_FRAMES_MAX) {
    uint32_t id = sh->queue[sh->first];
    uint64_t more = answer_bytes(x, id);
    if (rows_of(x, id)->want != *ret_want || bytes + more > room_bytes || (n > 0 && bytes + more > BATCH_BYTES))
      break;
    ids[n++] = id;
    bytes += more;
    dequeue(sh);
  }
  sort_ids(ids, n);
  for (uint32_t i = 0; i < n; i++)
    if (!add_pull(x, ids[i], pools, msg)) {
      bl_rows_unasked(x, ids, n);
      return 0;
    }
  return n;
}

void bl_rows_asked(bl_row_exchange *x, const uint32_t *ids, uint32_t n, uint64_t due_ns) {
  for (uint32_t i = 0; i < n; i++) {
    row_shard *sh = shard_of(x, ids[i]);
    x->buckets[ids[i]].state = BUCKET_ASKED;
    x->buckets[ids[i]].due_ns = due_ns;
    sh->n_asked++;
    sh->flight_bytes += answer_bytes(x, ids[i]);
  }
}

void bl_rows_unasked(bl_row_exchange *x, const uint32_t *ids, uint32_t n) {
  for (uint32_t i = 0; i < n; i++)
    enqueue(x, ids[i]);
}

uint64_t bl_rows_flight_bytes(const bl_row_exchange *x, uint32_t shard) {
  return x->shards[shard].flight_bytes;
}

static bl_status open_answer(const bl_row_exchange *x, uint32_t id, const bl_rows_id *want,
                             const bl_frame *frame, bl_codec_view *ret_numbers, bool *ret_ours, bl_error *err) {
  bl_rows_view view;
  uint32_t rows_max = bl_table_frame_rows_max(x->table, x->table->chunks[id].tensor);
  bl_status st = bl_rows_open(frame->data, frame->size, want->width, rows_max, 0, &view, err);
  if (st != BL_OK)
    return st;
  if (view.numbers == NULL)
    return bl_fail(err, BL_ECORRUPT, "rows of chunk %" PRIu32 " without numbers", id);
  *ret_ours = view.id.checksum == want->checksum && view.id.n_rows == want->n_rows;
  if (!*ret_ours) /* the answer to another list */
    return BL_OK;
  return bl_codec_open(view.numbers, view.numbers_bytes, want->n_rows * want->width, ret_numbers, err);
}

bl_status bl_rows_take_answer(bl_row_exchange *x, uint32_t id, uint64_t version, const bl_frame *frame,
                              bool *ret_taken, bl_error *err) {
  tensor_rows *t = rows_of(x, id);
  bucket *b = &x->buckets[id];
  uint32_t at = bucket_of(x, id), width = bl_table_width(tensor_of(x, id));
  *ret_taken = false;
  if (b->state != BUCKET_ASKED || version != t->want)
    return BL_OK;
  const bl_rows_id *want = &t->pull->ids[at];
  bl_codec_view numbers;
  bool ours = false;
  bl_status st = open_answer(x, id, want, frame, &numbers, &ours, err);
  if (st != BL_OK || !ours)
    return st;
  numbers.codec->decode(&numbers, x->values);
  const uint32_t *order = t->pull->order + t->pull->start[at];
  for (uint32_t i = 0; i < want->n_rows; i++)
    bl_rows_copy_row(t->values + (size_t)order[i] * width, x->values + (size_t)i * width, width);
  row_shard *sh = shard_of(x, id);
  sh->n_asked--;
  sh->flight_bytes -= answer_bytes(x, id);
  b->state = BUCKET_NONE;
  t->n_missing--;
  x->stats.rows_pulled += want->n_rows;
  set_known(x, id, t->pull);
  *ret_taken = true;
  return BL_OK;
}

static void ask_again(bl_row_exchange *x, uint32_t id) {
  row_shard *sh = shard_of(x, id);
  sh->n_asked--;
  sh->flight_bytes -= answer_bytes(x, id);
  enqueue(x, id);
}

bool bl_rows_repeat(bl_row_exchange *x, uint32_t shard, uint64_t now_ns, bool all, uint64_t *ret_next) {
  bool late = false;
  for (uint32_t id = 0; id < x->table->n_chunks && x->shards[shard].n_asked > 0; id++) {
    const bucket *b = &x->buckets[id];
    if (b->state != BUCKET_ASKED || x->config.shard_of_chunk[id] != shard)
      continue;
    if (all || b->due_ns <= now_ns) {
      late = true;
      ask_again(x, id);
    } else {
      *ret_next = BL_MIN(*ret_next, b->due_ns);
    }
  }
  return late;
}

bool bl_rows_need_keys(bl_row_exchange *x, uint32_t id, bool push) {
  const tensor_rows *t = rows_of(x, id);
  const row_list *l = push ? t->push : t->pull;
  if (rows_in(l, bucket_of(x, id)) > 0)
    bl_map_remove(&x->known, known_key(id, &l->ids[bucket_of(x, id)]));
  if (push || x->buckets[id].state != BUCKET_ASKED)
    return false;
  ask_again(x, id);
  return true;
}

/* ---- pushes -------------------------------------------------------------------------------------------- */

bl_status bl_rows_begin_push(bl_row_exchange *x, uint32_t tensor, const uint64_t *rows, uint32_t n,
                             const float *grad, bl_error *err) {
  tensor_rows *t = &x->tensors[tensor];
  row_list *list;
  bl_status st = cut_list(x, tensor, rows, n, &list, err);
  if (st != BL_OK)
    return st;
  t->push = list;
  t->grad = grad;
  return BL_OK;
}

uint32_t bl_rows_pushed(const bl_row_exchange *x, uint32_t id) {
  return rows_in(rows_of(x, id)->push, bucket_of(x, id));
}

bl_frame *bl_rows_encode_push(bl_row_exchange *x, uint32_t id, bl_frame_pools *pools) {
  const tensor_rows *t = rows_of(x, id);
  bl_encode e = {.spec = &tensor_of(x, id)->policy.push};
  uint32_t at = bucket_of(x, id), n_rows = rows_in(t->push, at), width = bl_table_width(tensor_of(x, id));
  bl_frame *f = bl_frame_pools_take(pools, bytes_of_keys(x, id, t->push) + bl_codec_bound_bytes(e.spec, n_rows * width));
  if (f == NULL)
    return NULL;
  const uint32_t *order = t->push->order + t->push->start[at];
  for (uint32_t i = 0; i < n_rows; i++)
    bl_rows_copy_row(x->values + (size_t)i * width, t->grad + (size_t)order[i] * width, width);
  uint8_t *numbers = put_keys(x, id, t->push, f->data, true);
  f->size = (size_t)(numbers - f->data) + bl_codec_encode(&e, x->values, NULL, n_rows * width, 0, numbers);
  x->stats.rows_pushed += x->buckets[id].pushed_before ? 0 : n_rows;
  x->buckets[id].pushed_before = true;
  return f;
}

void bl_rows_push_known(bl_row_exchange *x, uint32_t id) {
  if (bl_rows_pushed(x, id) > 0)
    set_known(x, id, rows_of(x, id)->push);
}

void bl_rows_end_push(bl_row_exchange *x) {
  for (uint32_t i = 0; i < x->table->n_tensors; i++)
    x->tensors[i].push = NULL;
  for (uint32_t id = 0; id < x->table->n_chunks; id++)
    x->buckets[id].pushed_before = false;
}
