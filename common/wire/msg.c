/* SPDX-License-Identifier: Apache-2.0
 *
 * The message container and the check of its first eight bytes. Knows the grammar of a multipart message,
 * not what the typed headers mean: that is data.c and control.c.
 */
#include "wire/msg.h"

#include "base/le.h"
#include "base/num.h"

#include <inttypes.h>

static const char *const type_names[BL_MSG_TYPE_END] = {
    [BL_MSG_HELLO] = "hello",
    [BL_MSG_WELCOME] = "welcome",
    [BL_MSG_PUSH] = "push",
    [BL_MSG_COMMIT] = "commit",
    [BL_MSG_ACK] = "ack",
    [BL_MSG_PULL] = "pull",
    [BL_MSG_FRAMES] = "frames",
    [BL_MSG_REFUSE] = "refuse",
    [BL_MSG_PULL_ROWS] = "pull_rows",
    [BL_MSG_DUMP_ROWS] = "dump_rows",
    [BL_MSG_NEED_KEYS] = "need_keys",
    [BL_MSG_DUMPED_ROWS] = "dumped_rows",
    [BL_MSG_NORMS] = "norms",
    [BL_MSG_ASK_NORMS] = "ask_norms",
    [BL_MSG_REGISTER] = "register",
    [BL_MSG_REGISTERED] = "registered",
    [BL_MSG_REREGISTER] = "reregister",
    [BL_MSG_REJECTED] = "rejected",
    [BL_MSG_HEARTBEAT] = "heartbeat",
    [BL_MSG_HEARTBEAT_ACK] = "heartbeat_ack",
    [BL_MSG_OPEN_JOB] = "open_job",
    [BL_MSG_CLOSE_JOB] = "close_job",
    [BL_MSG_START_TASK] = "start_task",
    [BL_MSG_RUN_TASK] = "run_task",
    [BL_MSG_STOP_TASK] = "stop_task",
    [BL_MSG_UPDATE_TASK] = "update_task",
    [BL_MSG_REPORT] = "report",
    [BL_MSG_REPORT_ACK] = "report_ack",
    [BL_MSG_TASK_HELLO] = "task_hello",
    [BL_MSG_TASK_STATUS] = "task_status",
    [BL_MSG_SUBMIT] = "submit",
    [BL_MSG_CANCEL] = "cancel",
    [BL_MSG_QUERY] = "query",
    [BL_MSG_ANSWER] = "answer",
    [BL_MSG_SET_PRIORITY] = "set_priority",
};

/* Numbers of types, in blocks, and the version that brought them. A type never changes its grammar but for fields
 * that an older peer may pass over; what has to change otherwise becomes a new type, in a block of its version. */
static const struct {
  uint16_t first, end;
  uint8_t since;
} blocks[] = {
    {BL_MSG_HELLO, BL_MSG_REFUSE + 1, 1},         /* data plane */
    {BL_MSG_REFUSE + 1, BL_MSG_REGISTER, 2},
    {BL_MSG_REGISTER, BL_MSG_TASK_STATUS + 1, 1}, /* nodes and tasks */
    {BL_MSG_TASK_STATUS + 1, BL_MSG_SUBMIT, 2},
    {BL_MSG_SUBMIT, BL_MSG_ANSWER + 1, 1},        /* commands */
    {BL_MSG_ANSWER + 1, 96, 2},
};

unsigned bl_msg_type_since(unsigned type) {
  for (size_t i = 0; i < BL_COUNT_OF(blocks); i++)
    if (type >= blocks[i].first && type < blocks[i].end)
      return blocks[i].since;
  return 0;
}

const char *bl_msg_type_name(bl_msg_type type) {
  const char *name = (unsigned)type < BL_MSG_TYPE_END ? type_names[type] : NULL;
  return name != NULL ? name : "?";
}

void bl_msg_fini(bl_msg *m) {
  bl_frame_unref(m->head);
  m->head = NULL;
  for (uint32_t i = 0; i < m->n_frames; i++)
    bl_frame_unref(m->frames[i]);
  m->n_frames = 0;
}

void bl_msg_move(bl_msg *to, bl_msg *from) {
  BL_ASSERT(to->head == NULL && to->n_frames == 0);
  to->head = from->head;
  to->n_frames = from->n_frames;
  for (uint32_t i = 0; i < from->n_frames; i++)
    to->frames[i] = from->frames[i];
  from->head = NULL;
  from->n_frames = 0;
}

bl_status bl_msg_add_frame(bl_msg *m, bl_frame *f) {
  if (m->n_frames >= BL_MSG_FRAMES_MAX)
    return BL_ELIMIT;
  m->frames[m->n_frames++] = f;
  return BL_OK;
}

void bl_msg_put_preamble(uint8_t *out, bl_msg_type type, uint32_t n_frames) {
  BL_ASSERT((unsigned)type < BL_MSG_TYPE_END && n_frames <= BL_MSG_FRAMES_MAX);
  out[0] = 'B';
  out[1] = 'L';
  out[2] = (uint8_t)bl_msg_type_since(type);
  out[3] = 0;
  bl_le_put16(out + 4, (uint16_t)type);
  bl_le_put16(out + 6, (uint16_t)n_frames);
}

/* What a peer of a later version says that this program never heard of is told apart from nonsense. */
static bl_status check_version(unsigned version, unsigned type, bl_error *err) {
  if (version < 1 || version > BL_PROTOCOL_VERSION)
    return bl_fail(err, BL_EPROTO, "message of protocol version %u, this program speaks %d to %d", version,
                   BL_PROTOCOL_MIN, BL_PROTOCOL_VERSION);
  unsigned since = type < BL_MSG_TYPE_END && type_names[type] != NULL ? bl_msg_type_since(type) : version;
  if (version != since)
    return bl_fail(err, BL_EPROTO, "%s of protocol version %u: it is spoken in version %u for ever",
                   type_names[type], version, since);
  return BL_OK;
}

static bl_status check_preamble(const bl_msg *m, bl_msg_type *ret_type, bl_error *err) {
  const bl_frame *h = m->head;
  if (h == NULL || h->size < BL_MSG_PREAMBLE_BYTES)
    return bl_fail(err, BL_EPROTO, "message of %zu bytes is shorter than its preamble of %d", h == NULL ? 0 : h->size,
                   BL_MSG_PREAMBLE_BYTES);
  if (h->data[0] != 'B' || h->data[1] != 'L')
    return bl_fail(err, BL_EPROTO, "message begins with bytes %02x %02x, expected 42 4c: not a Ballast peer",
                   h->data[0], h->data[1]);
  unsigned type = bl_le_get16(h->data + 4);
  if (check_version(h->data[2], type, err) != BL_OK)
    return BL_EPROTO;
  if (h->data[3] != 0)
    return bl_fail(err, BL_EPROTO, "reserved byte of the message is %u, expected 0", h->data[3]);
  if (type >= BL_MSG_TYPE_END || type_names[type] == NULL)
    return bl_fail(err, BL_EPROTO, "unknown message type %u", type);
  *ret_type = (bl_msg_type)type;
  return BL_OK;
}

bl_status bl_msg_check(const bl_msg *m, bl_msg_type *ret_type, bl_error *err) {
  bl_msg_type type = BL_MSG_INVALID;
  bl_status st = check_preamble(m, &type, err);
  if (st != BL_OK)
    return st;
  const char *name = type_names[type];
  if (m->head->size > BL_MSG_HEADER_BYTES_MAX)
    return bl_fail(err, BL_EPROTO, "%s: header of %zu bytes, limit %u", name, m->head->size, BL_MSG_HEADER_BYTES_MAX);
  unsigned announced = bl_le_get16(m->head->data + 6);
  if (announced > BL_MSG_FRAMES_MAX || announced != m->n_frames)
    return bl_fail(err, BL_EPROTO, "%s: announces %u frames, %" PRIu32 " follow, limit %d", name, announced,
                   m->n_frames, BL_MSG_FRAMES_MAX);
  for (uint32_t i = 0; i < m->n_frames; i++)
    if (m->frames[i]->size > BL_MSG_FRAME_BYTES_MAX)
      return bl_fail(err, BL_EPROTO, "%s: frame %" PRIu32 " of %zu bytes, limit %u", name, i, m->frames[i]->size,
                     BL_MSG_FRAME_BYTES_MAX);
  *ret_type = type;
  return BL_OK;
}

size_t bl_msg_bytes(const bl_msg *m) {
  size_t bytes = m->head != NULL ? m->head->size : 0;
  for (uint32_t i = 0; i < m->n_frames; i++)
    bytes += m->frames[i]->size;
  return bytes;
}
