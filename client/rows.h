/* SPDX-License-Identifier: Apache-2.0
 *
 * A session's rows: lists of rows cut by bucket, their keys as they go on the wire, which lists the shards know
 * by their checksum, and the pulls that are under way. It sends nothing and knows no time but what it is told:
 * session.c has the messages, windows and repeats, and this part the row frames in them.
 *
 * A list is cut once: its rows are ordered by bucket, their keys encoded, and both serve pull and push when the
 * caller names the same rows.
 *
 * Threads: one.
 */
#ifndef BL_CLIENT_ROWS_H
#define BL_CLIENT_ROWS_H

#include "codec/codec.h"
#include "job/tensors.h"
#include "wire/msg.h"
#include "wire/pools.h"

typedef struct bl_row_config {
  const bl_tensor_table *table;   /* borrowed */
  const uint32_t *shard_of_chunk; /* borrowed */
  uint32_t n_shards;
  bool caches_keys; /* the shards keep lists: a checksum may stand for one that they have */
} bl_row_config;

typedef struct bl_row_stats {
  uint64_t keys_sent_bytes, keys_saved_bytes; /* encoded keys that went out; that a checksum stood for */
  uint64_t rows_pulled, rows_pushed;          /* numbers of rows that arrived, and were first pushed */
} bl_row_stats;

typedef struct bl_row_exchange bl_row_exchange;

/* *ret is NULL for a table without tables. BL_ENOMEM. */
BL_MUST_CHECK bl_status bl_row_exchange_new(const bl_row_config *config, bl_row_exchange **ret);
void bl_row_exchange_free(bl_row_exchange *x);

/* Cuts the list, and queues its buckets for being asked for `want`. BL_ENOMEM; BL_ELIMIT: too many rows of one
 * bucket. */
BL_MUST_CHECK bl_status bl_rows_begin_pull(bl_row_exchange *x, uint32_t tensor, uint64_t want,
                                           const uint64_t *rows, uint32_t n, float *values, bl_error *err);
bool bl_rows_is_ready(const bl_row_exchange *x, uint32_t tensor);
bool bl_rows_is_waiting(const bl_row_exchange *x,
                        uint32_t shard);                  /* for rows that were asked for, or are to be */
uint64_t bl_rows_oldest_wanted(const bl_row_exchange *x); /* UINT64_MAX: nothing is wanted */

/* Takes buckets of one version from a shard's queue, as many as fit, and adds their frames to msg. Returns how
 * many (0: nothing to send, or no memory); then either _asked or _unasked follows. */
uint32_t bl_rows_take_pulls(bl_row_exchange *x, uint32_t shard, uint64_t room_bytes, bl_frame_pools *pools,
                            bl_msg *msg, uint32_t *ids, uint64_t *ret_want);
void bl_rows_asked(bl_row_exchange *x, const uint32_t *ids, uint32_t n, uint64_t due_ns);
void bl_rows_unasked(bl_row_exchange *x, const uint32_t *ids, uint32_t n);
uint64_t bl_rows_flight_bytes(const bl_row_exchange *x,
                              uint32_t shard); /* asked for and not arrived, as float32 */

/* What a shard sent for a bucket at `version` (of free running ranks: the clock that it answers). *ret_taken:
 * it was waited for. BL_ECORRUPT and others when it cannot be read. */
BL_MUST_CHECK bl_status bl_rows_take_answer(bl_row_exchange *x, uint32_t id, uint64_t version,
                                            const bl_frame *frame, bool *ret_taken, bl_error *err);
/* Puts what is overdue (all: whatever was asked) back into the shard's queue. *ret_next: lowered to the next
 * time something may be. Returns whether there was any. */
bool bl_rows_repeat(bl_row_exchange *x, uint32_t shard, uint64_t now_ns, bool all, uint64_t *ret_next);

/* The gradient of a clock; cuts the list unless it is the one pulled last. */
BL_MUST_CHECK bl_status bl_rows_begin_push(bl_row_exchange *x, uint32_t tensor, const uint64_t *rows,
                                           uint32_t n, const float *grad, bl_error *err);
uint32_t bl_rows_pushed(const bl_row_exchange *x,
                        uint32_t id); /* rows of a bucket in it; 0 before, and after _end_push */
bl_frame *bl_rows_encode_push(bl_row_exchange *x, uint32_t id,
                              bl_frame_pools *pools) BL_MUST_CHECK; /* NULL: no memory */
void bl_rows_push_known(bl_row_exchange *x, uint32_t id);           /* acknowledged */
void bl_rows_end_push(bl_row_exchange *x);                          /* the clock is over */

/* The shard lacks the keys of a bucket. Returns whether a pull of it was put back into the queue. */
bool bl_rows_need_keys(bl_row_exchange *x, uint32_t id, bool push);

bl_row_stats bl_rows_get_stats(const bl_row_exchange *x);
/* Bound of the frames made here, for the session's pools. */
size_t bl_rows_frame_bytes_max(const bl_tensor_table *table);

#endif
