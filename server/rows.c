/* SPDX-License-Identifier: Apache-2.0
 *
 * Buckets of tables. Order of the file: life, received frames, memory, sum and step, answers, dump, checksum.
 *
 * The sum is gathered: a touched row's record carries its number in the sum (mark), so adding a rank costs one
 * look per row of that rank, and a step runs the rule's kernel over arrays without gaps.
 */
#include "server/rows.h"

#include "base/alloc.h"
#include "base/num.h"
#include "kernel/kernel.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define N_MAX_FIRST 64
#define AHEAD 12 /* rows whose memory is asked for before it is read */

/* ---- life ---------------------------------------------------------------------------------------------- */

bl_status srv_rows_env_init(srv_rows_env *env, uint32_t n_slots) {
  env->n_scratch = 1 + n_slots;
  env->values = bl_calloc_aligned(env->table->chunk_elems, sizeof(float));
  return env->values != NULL ? BL_OK : BL_ENOMEM;
}

void srv_rows_env_fini(srv_rows_env *env) {
  srv_key_cache_fini(&env->cache);
  bl_free_aligned(env->values);
  for (uint32_t i = 0; i < env->n_scratch; i++)
    bl_free_aligned(env->scratch[i]);
}

size_t srv_rows_frame_bytes_max(const bl_tensor_table *table) {
  size_t keys = 0;
  for (uint32_t i = 0; i < table->n_tensors; i++)
    if (table->tensors[i].table)
      keys = BL_MAX(keys, (size_t)bl_table_frame_rows_max(table, i) * BL_ROWS_KEY_BYTES_MAX);
  size_t numbers = bl_codec_bound_bytes(&bl_codec_spec_exact, (uint32_t)table->chunk_elems);
  return sizeof(srv_keys) + BL_ROWS_HEADER_BYTES + keys + BL_MAX(numbers, bl_tensor_table_frame_bytes_max(table, false));
}

srv_rows *srv_rows_new(srv_rows_env *env, uint32_t chunk, uint32_t n_slots) {
  const bl_chunk *place = &env->table->chunks[chunk];
  const bl_tensor *tensor = &env->table->tensors[place->tensor];
  srv_rows *r = bl_calloc(1, sizeof *r);
  if (r == NULL)
    return NULL;
  r->cells = bl_calloc(env->world, sizeof *r->cells);
  if (r->cells == NULL) {
    bl_free(r);
    return NULL;
  }
  srv_table_init(&r->table, bl_table_width(tensor), n_slots);
  r->tensor = tensor;
  r->bucket = (uint32_t)place->first;
  r->rows_max = bl_table_frame_rows_max(env->table, place->tensor);
  r->n_runs = bl_table_runs(tensor, r->bucket);
  *env->memory_bytes += sizeof *r + env->world * sizeof *r->cells;
  return r;
}

void srv_rows_free(srv_rows *r, const srv_rows_env *env) {
  if (r == NULL)
    return;
  for (uint32_t i = 0; i < env->world; i++) {
    srv_keys_unref(r->cells[i].staged);
    srv_keys_unref(r->cells[i].held);
    srv_keys_unref(r->cells[i].wanted);
  }
  srv_table_fini(&r->table);
  bl_free(r->cells);
  bl_free(r->touched);
  bl_free(r->before);
  bl_free(r->before_at);
  bl_free_aligned(r->sum);
  bl_free_aligned(r->before_weights);
  bl_free(r);
}

/* ---- received frames ----------------------------------------------------------------------------------- */

static bl_status open_numbers(const srv_rows *r, const bl_rows_view *v, bl_error *err) {
  uint64_t n = (uint64_t)v->id.n_rows * v->id.width; /* at most a chunk's: rows_max */
  bl_codec_view numbers;
  bl_status st = bl_codec_open(v->numbers, v->numbers_bytes, (uint32_t)n, &numbers, err);
  if (st != BL_OK)
    return st;
  if (numbers.codec != r->tensor->policy.push.codec || (numbers.flags & BL_CODEC_REPLACE) != 0)
    return bl_fail(err, BL_EINVAL, "a row frame of codec %s with flags %u, this job pushes %s differences",
                   numbers.codec->name, numbers.flags, r->tensor->policy.push.codec->name);
  return BL_OK;
}

bl_status srv_rows_open(const srv_rows *r, const srv_rows_env *env, const bl_frame *frame, bool push,
                        bl_rows_view *ret_view, bl_error *err) {
  bl_status st = bl_rows_open(frame->data, frame->size, r->table.width, r->rows_max, r->n_runs, ret_view, err);
  if (st != BL_OK)
    return st;
  if ((ret_view->numbers != NULL) != push)
    return bl_fail(err, BL_EINVAL, "a row frame %s numbers in a %s", push ? "without" : "with",
                   push ? "push" : "pull");
  return push ? open_numbers(r, ret_view, err) : BL_OK;
}

/* ---- memory -------------------------------------------------------------------------------------------- */

static void *grow(void *old, uint64_t old_bytes, uint64_t bytes) {
  void *p = bl_calloc_aligned(bytes, 1);
  if (p != NULL && old_bytes > 0)
    memcpy(p, old, old_bytes);
  if (p != NULL)
    bl_free_aligned(old);
  return p;
}

static bl_status grow_floats(float **at, uint64_t old_elems, uint64_t elems) {
  void *p = grow(*at, old_elems * sizeof(float), elems * sizeof(float));
  if (p == NULL)
    return BL_ENOMEM;
  *at = p;
  return BL_OK;
}

static bl_status grow_slots(uint32_t **at, uint64_t n) {
  void *p = bl_realloc_array(*at, n, sizeof **at);
  if (p == NULL)
    return BL_ENOMEM;
  *at = p;
  return BL_OK;
}

static uint64_t sum_row_bytes(const srv_rows *r, const srv_rows_env *env) {
  return 2 * sizeof(uint32_t) + (uint64_t)r->table.width * sizeof(float) * (env->keeps_previous ? 2 : 1);
}

/* Room for n rows in the sum. An array that has grown already when another cannot stays so. */
static bl_status reserve_sum(srv_rows *r, srv_rows_env *env, uint64_t n) {
  if (n <= r->n_max)
    return BL_OK;
  uint64_t n_max = BL_MAX(r->n_max, N_MAX_FIRST);
  while (n_max < n)
    n_max *= 2;
  uint64_t width = r->table.width;
  bl_status st = grow_slots(&r->touched, n_max);
  if (st == BL_OK)
    st = grow_slots(&r->before, n_max);
  if (st == BL_OK)
    st = grow_floats(&r->sum, r->n_max * width, n_max * width);
  if (st == BL_OK && env->keeps_previous)
    st = grow_floats(&r->before_weights, r->n_max * width, n_max * width);
  if (st != BL_OK)
    return st;
  *env->memory_bytes += (n_max - r->n_max) * sum_row_bytes(r, env);
  r->n_max = n_max;
  return BL_OK;
}

static bl_status reserve_scratch(srv_rows_env *env, uint64_t elems) {
  if (elems <= env->scratch_elems)
    return BL_OK;
  for (uint32_t i = 0; i < env->n_scratch; i++) {
    bl_status st = grow_floats(&env->scratch[i], 0, elems);
    if (st != BL_OK)
      return st;
  }
  *env->memory_bytes += (elems - env->scratch_elems) * sizeof(float) * env->n_scratch;
  env->scratch_elems = elems;
  return BL_OK;
}

static bl_status check_memory(const srv_rows *r, const srv_rows_env *env, uint64_t n_rows, bl_error *err) {
  if (n_rows > SRV_TABLE_ROWS_MAX)
    return bl_fail(err, BL_ELIMIT, "a bucket of table '%s' would have %" PRIu64 " rows; at most %u are allowed",
                   r->tensor->name, n_rows, SRV_TABLE_ROWS_MAX);
  uint64_t more = srv_table_bytes_for(&r->table, n_rows) - r->table.bytes;
  if (more > 0 && env->memory_bytes_max > 0 && *env->memory_bytes + more > env->memory_bytes_max)
    return bl_fail(err, BL_ELIMIT,
                   "table '%s' has no room for more rows: the job has %" PRIu64
                   " bytes on this shard, its limit is %" PRIu64 " (server.memory over the server's shards)",
                   r->tensor->name, *env->memory_bytes, env->memory_bytes_max);
  return BL_OK;
}

bl_status srv_rows_stage(srv_rows *r, srv_rows_env *env, uint32_t rank, srv_keys *keys, bl_error *err) {
  BL_ASSERT(r->cells[rank].staged == NULL && r->cells[rank].held == NULL);
  uint64_t coming = r->n_pending + keys->id.n_rows, bytes = r->table.bytes;
  uint64_t n_rows = BL_MIN(r->table.n_rows + coming, r->n_runs);
  bl_status st = check_memory(r, env, n_rows, err);
  if (st != BL_OK)
    return st;
  st = srv_table_reserve(&r->table, n_rows);
  *env->memory_bytes += r->table.bytes - bytes;
  if (st == BL_OK)
    st = reserve_sum(r, env, BL_MIN(r->n_touched + coming, r->n_runs));
  if (st == BL_OK)
    st = reserve_scratch(env, r->n_max * r->table.width);
  if (st != BL_OK)
    return bl_fail(err, st, "no memory for %" PRIu32 " rows of table '%s'", keys->id.n_rows, r->tensor->name);
  r->n_pending = coming;
  r->cells[rank].staged = keys;
  return BL_OK;
}

void srv_rows_hold(srv_rows *r, uint32_t rank) {
  r->cells[rank].held = r->cells[rank].staged;
  r->cells[rank].staged = NULL;
}

void srv_rows_unstage(srv_rows *r, uint32_t rank) {
  srv_rows_cell *cell = &r->cells[rank];
  if (cell->staged == NULL)
    return;
  r->n_pending -= cell->staged->id.n_rows;
  srv_keys_unref(cell->staged);
  cell->staged = NULL;
}

void srv_rows_drop(srv_rows *r, uint32_t rank) {
  srv_rows_cell *cell = &r->cells[rank];
  r->n_pending -= cell->held->id.n_rows;
  srv_keys_unref(cell->held);
  cell->held = NULL;
}

/* ---- sum and step -------------------------------------------------------------------------------------- */

/* Finds the slots that the list does not know yet; make: rows that are not there are made. */
static void resolve(srv_rows *r, const srv_rows_env *env, srv_keys *k, bool make) {
  uint32_t width = r->table.width, n_ahead = 0;
  bl_rows_reader keys = bl_rows_read(k->keys), ahead = keys;
  for (uint32_t i = 0, left = k->n_unknown; left > 0; i++) {
    for (; n_ahead < k->id.n_rows && n_ahead < i + AHEAD; n_ahead++)
      srv_table_expect(&r->table, bl_rows_next(&ahead));
    uint64_t run = bl_rows_next(&keys);
    if (k->slots[i] != SRV_NO_ROW)
      continue;
    left--;
    uint32_t slot = srv_table_find(&r->table, run);
    if (slot == SRV_NO_ROW && make) {
      slot = srv_table_add(&r->table, run);
      bl_tensor_init_values(r->tensor, env->seed, bl_table_row(r->tensor, r->bucket, run) * width, width,
                            srv_table_weights(&r->table, slot));
    }
    k->n_unknown -= slot != SRV_NO_ROW;
    k->slots[i] = slot;
  }
}

/* One row's numbers: the first rank's are stored, those of further ones added. */
static void add_row(srv_rows *r, uint32_t slot, const float *x) {
  uint32_t width = r->table.width;
  float *record = srv_table_record(&r->table, slot);
  uint32_t mark = srv_table_mark(record);
  if (mark == 0) {
    r->touched[r->n_touched++] = slot;
    srv_table_set_mark(record, r->n_touched);
    bl_rows_copy_row(r->sum + (size_t)(r->n_touched - 1) * width, x, width);
    return;
  }
  float *y = r->sum + (size_t)(mark - 1) * width;
  if (width < 16) /* the same bits as the kernel, without the call */
    for (uint32_t i = 0; i < width; i++)
      y[i] += x[i];
  else
    bl_kernels_get()->add(y, x, width);
}

void srv_rows_add(srv_rows *r, srv_rows_env *env, uint32_t rank, const bl_frame *held, float scale) {
  srv_keys *k = r->cells[rank].held;
  uint32_t n = k->id.n_rows * r->table.width;
  size_t offset = bl_rows_numbers_offset(held->data);
  bl_codec_view numbers = bl_codec_trusted(held->data + offset, held->size - offset);
  numbers.codec->decode(&numbers, env->values); /* opened before it was logged */
  if (scale != 1.0f)
    bl_kernels_get()->scale(env->values, scale, n);
  resolve(r, env, k, true);
  for (uint32_t i = 0; i < k->id.n_rows; i++) {
    if (i + AHEAD < k->id.n_rows)
      srv_table_expect_record(&r->table, k->slots[i + AHEAD]);
    add_row(r, k->slots[i], env->values + (size_t)i * r->table.width);
  }
  r->n_worked += n;
  r->n_pending -= k->id.n_rows;
  r->cells[rank].held = NULL;
  srv_keys_unref(k);
}

bool srv_rows_is_finite(const srv_rows *r) {
  return r->n_touched == 0 || bl_kernels_get()->all_finite(r->sum, (size_t)r->n_touched * r->table.width);
}

static void gather(srv_rows *r, srv_rows_env *env) {
  size_t width = r->table.width;
  for (uint32_t i = 0; i < r->n_touched; i++) {
    if (i + AHEAD < r->n_touched)
      srv_table_expect_record(&r->table, r->touched[i + AHEAD]);
    const float *from = srv_table_weights(&r->table, r->touched[i]);
    for (uint32_t part = 0; part < env->n_scratch; part++, from += width)
      bl_rows_copy_row(env->scratch[part] + i * width, from, width);
  }
}

static void scatter(srv_rows *r, srv_rows_env *env) {
  size_t width = r->table.width;
  for (uint32_t i = 0; i < r->n_touched; i++) {
    if (i + AHEAD < r->n_touched)
      srv_table_expect_record(&r->table, r->touched[i + AHEAD]);
    float *to = srv_table_record(&r->table, r->touched[i]);
    srv_table_set_mark(to++, 0);
    for (uint32_t part = 0; part < env->n_scratch; part++, to += width)
      bl_rows_copy_row(to, env->scratch[part] + i * width, width);
  }
}

void srv_rows_step(srv_rows *r, srv_rows_env *env, const bl_optim *optim, const bl_optim_at *at,
                   float clip_value) {
  size_t n = (size_t)r->n_touched * r->table.width;
  bl_free(r->before_at);
  r->before_at = NULL;
  r->n_before = 0;
  if (n == 0)
    return;
  if (clip_value > 0)
    bl_kernels_get()->clip(r->sum, clip_value, n);
  gather(r, env);
  if (env->keeps_previous)
    memcpy(r->before_weights, env->scratch[0], n * sizeof(float));
  bl_optim_step(optim, at, env->scratch[0], r->sum, env->scratch + 1, n);
  scatter(r, env);
  uint32_t *touched = r->touched;
  r->touched = r->before;
  r->before = touched;
  r->n_before = env->keeps_previous ? r->n_touched : 0;
  r->n_touched = 0;
  r->n_worked += n;
}

void srv_rows_skip(srv_rows *r) {
  for (uint32_t i = 0; i < r->n_touched; i++)
    srv_table_set_mark(srv_table_record(&r->table, r->touched[i]), 0);
  r->n_worked += (uint64_t)r->n_touched * r->table.width;
  r->n_touched = 0;
  bl_free(r->before_at);
  r->before_at = NULL;
  r->n_before = 0;
}

/* ---- answers ------------------------------------------------------------------------------------------- */

void srv_rows_want(srv_rows *r, uint32_t rank, srv_keys *keys, uint64_t request) {
  srv_rows_cell *cell = &r->cells[rank];
  if (request < cell->wanted_request) { /* overtaken */
    srv_keys_unref(keys);
    return;
  }
  srv_keys_unref(cell->wanted);
  cell->wanted = keys;
  cell->wanted_request = request;
}

void srv_rows_answered(srv_rows *r, uint32_t rank) {
  srv_keys_unref(r->cells[rank].wanted);
  r->cells[rank].wanted = NULL;
}

void srv_rows_leave(srv_rows *r, uint32_t rank) {
  srv_rows_answered(r, rank);
  r->cells[rank].wanted_request = 0; /* the next one counts from the start */
}

/* Only asked for after a rank was replaced, so this is made when it is. */
static bl_status index_before(srv_rows *r) {
  if (r->before_at != NULL || r->n_before == 0)
    return BL_OK;
  r->n_before_at = r->table.n_rows;
  r->before_at = bl_malloc((size_t)r->n_before_at * sizeof *r->before_at);
  if (r->before_at == NULL)
    return BL_ENOMEM;
  memset(r->before_at, 0xff, (size_t)r->n_before_at * sizeof *r->before_at);
  for (uint32_t i = 0; i < r->n_before; i++)
    r->before_at[r->before[i]] = i;
  return BL_OK;
}

static const float *weights_before(const srv_rows *r, uint32_t slot) {
  uint32_t i = r->n_before > 0 && slot < r->n_before_at ? r->before_at[slot] : UINT32_MAX;
  return i != UINT32_MAX ? r->before_weights + (size_t)i * r->table.width : srv_table_weights(&r->table, slot);
}

static void read_rows(srv_rows *r, srv_rows_env *env, const srv_keys *k, bool previous, float *out) {
  uint32_t width = r->table.width;
  bl_rows_reader keys = bl_rows_read(k->keys);
  for (uint32_t i = 0; i < k->id.n_rows; i++, out += width) {
    uint32_t slot = k->slots[i];
    if (i + AHEAD < k->id.n_rows)
      srv_table_expect_record(&r->table, k->slots[i + AHEAD]);
    if (k->n_unknown > 0) {
      uint64_t row = bl_table_row(r->tensor, r->bucket, bl_rows_next(&keys));
      if (slot == SRV_NO_ROW) {
        bl_tensor_init_values(r->tensor, env->seed, row * width, width, out);
        continue;
      }
    }
    bl_rows_copy_row(out, previous ? weights_before(r, slot) : srv_table_weights(&r->table, slot), width);
  }
}

static bl_status encode(srv_rows_env *env, const bl_codec_spec *codec, const bl_rows_id *id, const uint8_t *keys,
                        uint32_t key_bytes, bl_frame **ret_frame) {
  uint32_t n = id->n_rows * id->width;
  bl_encode e = {.spec = codec};
  bl_frame *f = bl_frame_pools_take(env->pools, BL_ROWS_HEADER_BYTES + key_bytes + bl_codec_bound_bytes(codec, n));
  if (f == NULL)
    return BL_ENOMEM;
  uint8_t *numbers = bl_rows_put(f->data, id, keys, key_bytes, true);
  f->size = (size_t)(numbers - f->data) + bl_codec_encode(&e, env->values, NULL, n, BL_CODEC_REPLACE, numbers);
  *ret_frame = f;
  return BL_OK;
}

bl_status srv_rows_answer(srv_rows *r, srv_rows_env *env, uint32_t rank, bool previous, bl_frame **ret_frame) {
  srv_keys *k = r->cells[rank].wanted;
  if (previous && index_before(r) != BL_OK)
    return BL_ENOMEM;
  resolve(r, env, k, false);
  read_rows(r, env, k, previous, env->values);
  return encode(env, &r->tensor->policy.pull, &k->id, NULL, 0, ret_frame);
}

/* ---- dump ---------------------------------------------------------------------------------------------- */

/* First cell whose run is not below `from`. */
static uint64_t lower_bound(const uint64_t *sorted, uint64_t n, uint64_t from) {
  uint64_t low = 0;
  while (n > 0) {
    uint64_t half = n / 2;
    bool below = srv_table_run_of(sorted[low + half]) < from;
    low += below ? half + 1 : 0;
    n = below ? n - half - 1 : half;
  }
  return low;
}

static bl_status dump_some(srv_rows *r, srv_rows_env *env, const uint64_t *cells, uint32_t n,
                           bl_frame **ret_frame) {
  bl_frame *keys = bl_frame_pools_take(env->pools, (size_t)n * BL_ROWS_KEY_BYTES_MAX);
  if (keys == NULL)
    return BL_ENOMEM;
  uint8_t *p = keys->data;
  uint64_t prev = UINT64_MAX;
  uint32_t width = r->table.width;
  for (uint32_t i = 0; i < n; i++) {
    uint64_t run = srv_table_run_of(cells[i]);
    p = bl_rows_put_key(p, prev, run);
    prev = run;
    memcpy(env->values + (size_t)i * width, srv_table_weights(&r->table, srv_table_slot_of(cells[i])),
           width * sizeof(float));
  }
  uint32_t key_bytes = (uint32_t)(p - keys->data);
  bl_rows_id id = bl_rows_id_of(keys->data, key_bytes, n, width);
  bl_status st = encode(env, &bl_codec_spec_exact, &id, keys->data, key_bytes, ret_frame);
  bl_frame_unref(keys);
  return st;
}

bl_status srv_rows_dump(srv_rows *r, srv_rows_env *env, uint64_t from, uint64_t *ret_next, bool *ret_last,
                        bl_frame **ret_frame) {
  *ret_frame = NULL;
  *ret_next = r->n_runs;
  *ret_last = true;
  if (r->table.n_rows == 0)
    return BL_OK;
  uint64_t *sorted = srv_table_sorted(&r->table);
  if (sorted == NULL)
    return BL_ENOMEM;
  uint64_t first = lower_bound(sorted, r->table.n_rows, from), left = r->table.n_rows - first;
  uint32_t n = (uint32_t)BL_MIN(left, r->rows_max);
  bl_status st = n > 0 ? dump_some(r, env, sorted + first, n, ret_frame) : BL_OK;
  if (st == BL_OK && n < left) {
    *ret_last = false;
    *ret_next = srv_table_run_of(sorted[first + n]);
  }
  bl_free(sorted);
  return st;
}

/* ---- checksum ------------------------------------------------------------------------------------------ */

bl_status srv_rows_visit(const srv_rows *r, srv_rows_bytes_fn *add, void *arg) {
  uint32_t width = r->table.width;
  add(&r->table.n_rows, sizeof r->table.n_rows, arg);
  add(&r->n_touched, sizeof r->n_touched, arg);
  if (r->n_touched > 0)
    add(r->sum, (size_t)r->n_touched * width * sizeof(float), arg);
  if (r->table.n_rows == 0)
    return BL_OK;
  uint64_t *sorted = srv_table_sorted(&r->table);
  if (sorted == NULL)
    return BL_ENOMEM;
  for (uint32_t i = 0; i < r->table.n_rows; i++) {
    uint64_t run = srv_table_run_of(sorted[i]);
    add(&run, sizeof run, arg);
    add(srv_table_record(&r->table, srv_table_slot_of(sorted[i])), r->table.stride * sizeof(float), arg);
  }
  bl_free(sorted);
  return BL_OK;
}
