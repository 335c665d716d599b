/* SPDX-License-Identifier: Apache-2.0
 *
 * Control-plane messages: protobuf-c packs and unpacks, two tables check. One maps message types to
 * descriptors; the other holds, per message, the limits of its fields and a function for what concerns
 * several fields at once. A walk over the descriptor applies them to a message and all inside it (as deep as
 * the schema, not as the bytes say).
 *
 * Unpacking counts what it allocates: two bytes of input may ask for a struct of 200, so a header within its
 * limit could still ask for gigabytes.
 */
#include "wire/control.h"

#include "base/alloc.h"
#include "base/le.h"
#include "base/log.h"
#include "base/num.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

/* A plan with the most tensors, shards and chunks takes 40 MiB as structs. */
#define UNPACK_BYTES_MAX (UINT64_C(64) << 20)
#define CODEC_BYTES_MAX 63 /* a text of codec/spec.h */
#define ENDPOINT_BYTES_MAX 256
#define PARAMS_MAX 64
#define KEY_Z85_BYTES 40

#define DESCRIPTOR(name) (&ballast__control__##name##__descriptor)

/* ---- types ---- */

static const ProtobufCMessageDescriptor *descriptor_of(bl_msg_type type) {
  static const ProtobufCMessageDescriptor *const descriptors[BL_MSG_TYPE_END] = {
      [BL_MSG_REGISTER] = DESCRIPTOR(register),
      [BL_MSG_REGISTERED] = DESCRIPTOR(registered),
      [BL_MSG_REREGISTER] = DESCRIPTOR(reregister),
      [BL_MSG_REJECTED] = DESCRIPTOR(rejected),
      [BL_MSG_HEARTBEAT] = DESCRIPTOR(heartbeat),
      [BL_MSG_HEARTBEAT_ACK] = DESCRIPTOR(heartbeat_ack),
      [BL_MSG_OPEN_JOB] = DESCRIPTOR(open_job),
      [BL_MSG_CLOSE_JOB] = DESCRIPTOR(close_job),
      [BL_MSG_START_TASK] = DESCRIPTOR(start_task),
      [BL_MSG_RUN_TASK] = DESCRIPTOR(run_task),
      [BL_MSG_STOP_TASK] = DESCRIPTOR(stop_task),
      [BL_MSG_UPDATE_TASK] = DESCRIPTOR(update_task),
      [BL_MSG_REPORT] = DESCRIPTOR(report),
      [BL_MSG_REPORT_ACK] = DESCRIPTOR(report_ack),
      [BL_MSG_TASK_HELLO] = DESCRIPTOR(task_hello),
      [BL_MSG_TASK_STATUS] = DESCRIPTOR(task_status),
      [BL_MSG_SUBMIT] = DESCRIPTOR(submit),
      [BL_MSG_CANCEL] = DESCRIPTOR(cancel),
      [BL_MSG_QUERY] = DESCRIPTOR(query),
      [BL_MSG_ANSWER] = DESCRIPTOR(answer),
      [BL_MSG_SET_PRIORITY] = DESCRIPTOR(set_priority),
  };
  return (unsigned)type < BL_MSG_TYPE_END ? descriptors[type] : NULL;
}

/* ---- text ---- */

/* Bytes of the character at s, 0 when it is none. RFC 3629: no overlong forms, no surrogates, nothing above
 * U+10FFFF. */
static size_t utf8_char_bytes(const uint8_t *s, size_t n) {
  if (s[0] < 0x80)
    return 1;
  unsigned more = s[0] >= 0xc2 && s[0] <= 0xdf ? 1 : (s[0] & 0xf0) == 0xe0 ? 2 : s[0] >= 0xf0 && s[0] <= 0xf4 ? 3 : 0;
  if (more == 0 || n <= more)
    return 0;
  uint32_t code = s[0] & (0x3fu >> more);
  for (unsigned k = 1; k <= more; k++) {
    if ((s[k] & 0xc0) != 0x80)
      return 0;
    code = code << 6 | (s[k] & 0x3fu);
  }
  static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
  return code < least[more] || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff) ? 0 : more + 1;
}

static bool is_utf8(const char *text) {
  for (size_t i = 0, n = strlen(text), step; i < n; i += step)
    if ((step = utf8_char_bytes((const uint8_t *)text + i, n - i)) == 0)
      return false;
  return true;
}

static void repair_utf8(char *text) {
  for (size_t i = 0, n = strlen(text); i < n;) {
    size_t step = utf8_char_bytes((const uint8_t *)text + i, n - i);
    if (step == 0)
      text[i] = '?';
    i += step > 0 ? step : 1;
  }
}

static bool has_only(const char *text, const char *extra) {
  for (const char *s = text; *s != '\0'; s++)
    if (!(*s >= 'a' && *s <= 'z') && !(*s >= 'A' && *s <= 'Z') && !(*s >= '0' && *s <= '9') && !strchr(extra, *s))
      return false;
  return true;
}

/* ---- rules of fields ---- */

typedef enum rule_kind {
  RULE_TEXT = 1, /* for people, min to max bytes; received, what is not UTF-8 becomes '?': a sentence that was cut
                    within a character must not cost the message */
  RULE_UTF8,     /* for programs: min to max bytes of UTF-8 */
  RULE_NAME,     /* 1 to max of [A-Za-z0-9._-] */
  RULE_KEY,      /* "" or a public key in Z85 */
  RULE_NUMBER,   /* unsigned integer from min to max */
  RULE_FINITE,   /* float or double; min 1: not below zero */
  RULE_COUNT,    /* repeated: min to max entries */
  RULE_REQUIRED, /* submessage must be there */
} rule_kind;

typedef struct rule {
  const char *field;
  rule_kind kind;
  uint64_t min, max;
} rule;

typedef bl_status check_fn(const ProtobufCMessage *m, bl_error *err);

/* Whatever has no rule: texts up to BL_CONTROL_TEXT_BYTES_MAX, lists up to BL_CONTROL_TASKS_MAX, numbers of any
 * value (loss, speed and metrics may be NaN: a diverging job reports that), enums known and not 0. */
typedef struct message_rules {
  const ProtobufCMessageDescriptor *descriptor;
  check_fn *check; /* or NULL */
  rule rules[16];  /* ended by field NULL */
} message_rules;

#define NAME(field) {field, RULE_NAME, 1, BL_CONTROL_NAME_BYTES_MAX}
#define RANK {"rank", RULE_NUMBER, 0, BL_CONTROL_RANKS_MAX - 1}
#define STATUS {"status", RULE_NUMBER, 0, -BL_STATUS_LAST}
#define TEXT(field, min, max) {field, RULE_TEXT, min, max}
#define UTF8(field, min, max) {field, RULE_UTF8, min, max}
#define COUNT(field, min, max) {field, RULE_COUNT, min, max}

static check_fn check_protocol, check_tensor, check_plan, check_start_task, check_update_task, check_report, check_metrics;

static const message_rules all_rules[] = {
    {DESCRIPTOR(key_value), NULL, {NAME("key"), {"value", RULE_FINITE, 0, 0}}},
    {DESCRIPTOR(register),
     check_protocol,
     {NAME("name"), COUNT("shard_endpoints", 0, BL_CONTROL_SHARDS_MAX), UTF8("shard_endpoints", 1, ENDPOINT_BYTES_MAX),
      {"slots", RULE_NUMBER, 0, BL_CONTROL_RANKS_MAX}, {"public_key", RULE_KEY, 0, 0}}},
    {DESCRIPTOR(registered), NULL, {NAME("name")}},
    {DESCRIPTOR(rejected), NULL, {STATUS}},
    {DESCRIPTOR(task_status),
     NULL,
     {RANK, STATUS, COUNT("lead", 0, BL_CONTROL_LEAD_MAX), COUNT("traffic", 0, BL_CONTROL_TRAFFIC_MAX)}},
    {DESCRIPTOR(tensor_traffic),
     NULL,
     {UTF8("name", 0, BL_CONTROL_TENSOR_NAME_BYTES_MAX), UTF8("codec_push", 0, BL_CONTROL_NAME_BYTES_MAX),
      UTF8("codec_pull", 0, BL_CONTROL_NAME_BYTES_MAX), TEXT("reason", 0, BL_CONTROL_REASON_BYTES_MAX),
      {"residual_norm", RULE_FINITE, 1, 0}, {"gradient_norm", RULE_FINITE, 1, 0}, {"lost_squared", RULE_FINITE, 1, 0}}},
    {DESCRIPTOR(server_job_status), NULL, {STATUS}},
    {DESCRIPTOR(heartbeat),
     NULL,
     {NAME("name"), COUNT("tasks", 0, BL_CONTROL_TASKS_MAX), COUNT("jobs", 0, BL_CONTROL_TASKS_MAX)}},
    {DESCRIPTOR(tensor),
     check_tensor,
     {{"name", RULE_NAME, 1, BL_CONTROL_TENSOR_NAME_BYTES_MAX}, COUNT("dims", 1, BL_CONTROL_DIMS_MAX),
      {"init", RULE_NUMBER, 1, BL_CONTROL_INIT_MAX}, {"init_scale", RULE_FINITE, 0, 0},
      {"lr_scale", RULE_FINITE, 1, 0}, {"weight_decay", RULE_FINITE, 0, 0},
      UTF8("codec_push", 0, CODEC_BYTES_MAX), UTF8("codec_pull", 0, CODEC_BYTES_MAX)}},
    {DESCRIPTOR(shard_ref),
     NULL,
     {NAME("server"), UTF8("endpoint", 1, ENDPOINT_BYTES_MAX), {"public_key", RULE_KEY, 0, 0}}},
    {DESCRIPTOR(rule), NULL, {NAME("name"), COUNT("params", 0, PARAMS_MAX)}},
    {DESCRIPTOR(job_plan),
     check_plan,
     {{"world", RULE_NUMBER, 1, BL_CONTROL_RANKS_MAX},
      COUNT("incarnations", 1, BL_CONTROL_RANKS_MAX),
      COUNT("tensors", 1, BL_CONTROL_TENSORS_MAX),
      {"chunk_elems", RULE_NUMBER, 1, BL_CONTROL_CHUNK_ELEMS_MAX},
      COUNT("shards", 1, BL_CONTROL_SHARDS_MAX),
      COUNT("chunk_shards", 1, BL_CONTROL_CHUNKS_MAX),
      COUNT("rank_samples", 0, BL_CONTROL_RANKS_MAX),
      {"rank_samples", RULE_NUMBER, 1, UINT64_MAX},
      {"optimizer", RULE_REQUIRED, 0, 0},
      {"clip_value", RULE_FINITE, 1, 0},
      {"clip_norm", RULE_FINITE, 1, 0},
      {"clip_global_norm", RULE_FINITE, 1, 0},
      {"average_ema", RULE_FINITE, 1, 0}}},
    {DESCRIPTOR(open_job), NULL, {{"plan", RULE_REQUIRED, 0, 0}}},
    {DESCRIPTOR(start_task),
     check_start_task,
     {{"plan", RULE_REQUIRED, 0, 0}, RANK, UTF8("job_text", 1, BL_CONTROL_JOB_TEXT_BYTES_MAX)}},
    {DESCRIPTOR(run_task), NULL, {RANK}},
    {DESCRIPTOR(stop_task), NULL, {RANK}},
    {DESCRIPTOR(update_task), check_update_task, {{"plan", RULE_REQUIRED, 0, 0}, RANK}},
    {DESCRIPTOR(log_line), NULL, {{"level", RULE_NUMBER, BL_LOG_DEBUG, BL_LOG_ERROR}}},
    {DESCRIPTOR(metrics),
     check_metrics,
     {COUNT("auc_buckets", 0, BL_CONTROL_BUCKETS_MAX), COUNT("auc_positive", 0, BL_CONTROL_BUCKETS_MAX),
      COUNT("auc_negative", 0, BL_CONTROL_BUCKETS_MAX), COUNT("confusion_cells", 0, BL_CONTROL_BUCKETS_MAX),
      COUNT("confusion_counts", 0, BL_CONTROL_BUCKETS_MAX)}},
    {DESCRIPTOR(report), check_report, {RANK, {"sequence", RULE_NUMBER, 1, UINT64_MAX}}},
    {DESCRIPTOR(lease_request),
     NULL,
     {COUNT("leases", 0, BL_CONTROL_LEASES_MAX), {"samples_per_second", RULE_FINITE, 1, 0}}},
    {DESCRIPTOR(report_ack),
     NULL,
     {RANK, UTF8("metrics_csv", 0, BL_CONTROL_JSON_BYTES_MAX), COUNT("leases", 0, BL_CONTROL_LEASES_MAX),
      COUNT("files", 0, BL_CONTROL_FILES_MAX)}},
    {DESCRIPTOR(epoch_verdict), NULL, {{"epoch", RULE_NUMBER, 1, UINT32_MAX}}},
    {DESCRIPTOR(output_file), NULL, {NAME("name"), UTF8("text", 0, BL_CONTROL_JSON_BYTES_MAX)}},
    {DESCRIPTOR(task_hello), NULL, {RANK}},
    {DESCRIPTOR(submit), NULL, {NAME("token"), UTF8("job_text", 1, BL_CONTROL_JOB_TEXT_BYTES_MAX)}},
    {DESCRIPTOR(query),
     NULL,
     {NAME("what"), UTF8("state", 0, BL_CONTROL_NAME_BYTES_MAX), UTF8("name", 0, BL_CONTROL_NAME_BYTES_MAX),
      UTF8("submitter", 0, BL_CONTROL_TEXT_BYTES_MAX)}},
    {DESCRIPTOR(answer),
     NULL,
     {STATUS, TEXT("text", 0, BL_CONTROL_JOB_TEXT_BYTES_MAX), UTF8("json", 0, BL_CONTROL_JSON_BYTES_MAX)}},
};

static const message_rules *rules_of(const ProtobufCMessageDescriptor *d) {
  static const message_rules none = {NULL, NULL, {{NULL, RULE_TEXT, 0, 0}}};
  for (size_t i = 0; i < BL_COUNT_OF(all_rules); i++)
    if (all_rules[i].descriptor == d)
      return &all_rules[i];
  return &none;
}

static const rule *rule_of(const message_rules *r, const char *field, bool count) {
  for (size_t i = 0; i < BL_COUNT_OF(r->rules) && r->rules[i].field != NULL; i++)
    if ((r->rules[i].kind == RULE_COUNT) == count && strcmp(r->rules[i].field, field) == 0)
      return &r->rules[i];
  return NULL;
}

static bl_status check_string(const char *field, const rule *r, const char *text, bl_error *err) {
  static const rule plain = {NULL, RULE_TEXT, 0, BL_CONTROL_TEXT_BYTES_MAX};
  if (r == NULL)
    r = &plain;
  size_t n = text != NULL ? strlen(text) : 0;
  if (r->kind == RULE_KEY) {
    if (n == 0 || (n == KEY_Z85_BYTES && has_only(text, ".-:+=^!/*?&<>()[]{}@%$#")))
      return BL_OK;
    return bl_fail(err, BL_EINVAL, "%s is no public key", field);
  }
  if (n < r->min || n > r->max)
    return bl_fail(err, BL_EINVAL, "%s has %zu bytes, allowed are %" PRIu64 " to %" PRIu64, field, n, r->min, r->max);
  if (r->kind == RULE_NAME && !has_only(text, "._-"))
    return bl_fail(err, BL_EINVAL, "%s may only hold letters, digits, '.', '_' and '-'", field);
  if (r->kind == RULE_UTF8 && n > 0 && !is_utf8(text))
    return bl_fail(err, BL_EINVAL, "%s is not UTF-8", field);
  return BL_OK;
}

static bl_status check_unsigned(const char *field, const rule *r, uint64_t v, bl_error *err) {
  if (r != NULL && (v < r->min || v > r->max))
    return bl_fail(err, BL_EINVAL, "%s is %" PRIu64 ", allowed are %" PRIu64 " to %" PRIu64, field, v, r->min, r->max);
  return BL_OK;
}

static bl_status check_real(const char *field, const rule *r, double v, bl_error *err) {
  if (r != NULL && (!isfinite(v) || (r->min == 1 && v < 0)))
    return bl_fail(err, BL_EINVAL, "%s is %g", field, v);
  return BL_OK;
}

static bl_status check_message(const ProtobufCMessage *m, bl_error *err);

/* One value of a field. Bools and messages within messages need no rule. */
static bl_status check_value(const ProtobufCFieldDescriptor *f, const rule *r, const void *at, bl_error *err) {
  switch (f->type) {
  case PROTOBUF_C_TYPE_STRING:
    return check_string(f->name, r, *(char *const *)at, err);
  case PROTOBUF_C_TYPE_UINT32:
    return check_unsigned(f->name, r, *(const uint32_t *)at, err);
  case PROTOBUF_C_TYPE_UINT64:
    return check_unsigned(f->name, r, *(const uint64_t *)at, err);
  case PROTOBUF_C_TYPE_FLOAT:
    return check_real(f->name, r, (double)*(const float *)at, err);
  case PROTOBUF_C_TYPE_DOUBLE:
    return check_real(f->name, r, *(const double *)at, err);
  case PROTOBUF_C_TYPE_ENUM: {
    int v = *(const int *)at;
    if (v == 0 || protobuf_c_enum_descriptor_get_value(f->descriptor, v) == NULL)
      return bl_fail(err, BL_EINVAL, "%s is %d, which is no known value", f->name, v);
    return BL_OK;
  }
  case PROTOBUF_C_TYPE_MESSAGE: {
    const ProtobufCMessage *sub = *(ProtobufCMessage *const *)at;
    if (sub == NULL)
      return r == NULL ? BL_OK : bl_fail(err, BL_EINVAL, "%s is missing", f->name);
    bl_status st = check_message(sub, err);
    return st == BL_OK ? BL_OK : bl_fail_prefix(err, st, "%s", f->name);
  }
  default:
    return BL_OK;
  }
}

static size_t value_bytes(const ProtobufCFieldDescriptor *f) {
  switch (f->type) {
  case PROTOBUF_C_TYPE_UINT32:
  case PROTOBUF_C_TYPE_FLOAT:
    return 4;
  case PROTOBUF_C_TYPE_ENUM:
    return sizeof(int);
  default: /* 64-bit numbers and pointers: all that the schema repeats */
    return 8;
  }
}

static bl_status check_repeated(const ProtobufCFieldDescriptor *f, const message_rules *rules, const uint8_t *m,
                                bl_error *err) {
  static const rule plain = COUNT(NULL, 0, BL_CONTROL_TASKS_MAX);
  const rule *count = rule_of(rules, f->name, true);
  if (count == NULL)
    count = &plain;
  size_t n;
  const uint8_t *list;
  memcpy(&n, m + f->quantifier_offset, sizeof n);
  memcpy(&list, m + f->offset, sizeof list);
  if (n < count->min || n > count->max)
    return bl_fail(err, BL_EINVAL, "%s has %zu entries, allowed are %" PRIu64 " to %" PRIu64, f->name, n, count->min,
                   count->max);
  const rule *r = rule_of(rules, f->name, false);
  bl_status st = BL_OK;
  for (size_t i = 0; st == BL_OK && i < n; i++)
    st = check_value(f, r, list + i * value_bytes(f), err);
  return st;
}

static bl_status check_message(const ProtobufCMessage *m, bl_error *err) {
  const ProtobufCMessageDescriptor *d = m->descriptor;
  const message_rules *rules = rules_of(d);
  bl_status st = BL_OK;
  for (unsigned i = 0; st == BL_OK && i < d->n_fields; i++) {
    const ProtobufCFieldDescriptor *f = &d->fields[i];
    st = f->label == PROTOBUF_C_LABEL_REPEATED
             ? check_repeated(f, rules, (const uint8_t *)m, err)
             : check_value(f, rule_of(rules, f->name, false), (const uint8_t *)m + f->offset, err);
  }
  if (st == BL_OK && rules->check != NULL)
    st = rules->check(m, err);
  return st;
}

/* ---- checks across fields ---- */

static bl_status check_protocol(const ProtobufCMessage *base, bl_error *err) {
  const Ballast__Control__Register *m = (const Ballast__Control__Register *)base;
  if (m->protocol_min == 0 || m->protocol_min > m->protocol_max)
    return bl_fail(err, BL_EINVAL, "protocol versions %" PRIu32 " to %" PRIu32 " are no range", m->protocol_min,
                   m->protocol_max);
  return BL_OK;
}

static bool tensor_elems(const Ballast__Control__Tensor *t, uint64_t *ret_n) {
  uint64_t n = 1;
  for (size_t i = 0; i < t->n_dims; i++)
    if (t->dims[i] == 0 || !bl_mul_u64(n, t->dims[i], &n))
      return false;
  *ret_n = n;
  return true;
}

static bl_status check_tensor(const ProtobufCMessage *base, bl_error *err) {
  uint64_t n;
  const Ballast__Control__Tensor *t = (const Ballast__Control__Tensor *)base;
  if (!tensor_elems(t, &n))
    return bl_fail(err, BL_EINVAL, "tensor %s has a dimension of 0 or too many elements", t->name);
  return BL_OK;
}

/* Every tensor is cut into slices of chunk_elems, the last one shorter. A table is cut into buckets; how many is for
 * bl_plan_check to know. */
static bl_status check_plan(const ProtobufCMessage *base, bl_error *err) {
  const Ballast__Control__JobPlan *p = (const Ballast__Control__JobPlan *)base;
  if (p->n_incarnations != p->world)
    return bl_fail(err, BL_EINVAL, "%zu incarnations for %" PRIu32 " ranks", p->n_incarnations, p->world);
  if (p->n_rank_samples != 0 && p->n_rank_samples != p->world)
    return bl_fail(err, BL_EINVAL, "%zu rank_samples for %" PRIu32 " ranks", p->n_rank_samples, p->world);
  if (p->start_clock > p->clocks)
    return bl_fail(err, BL_EINVAL, "start_clock %" PRIu64 " is behind the last of %" PRIu64 " clocks", p->start_clock,
                   p->clocks);
  uint64_t n_chunks = 0, n_tables = 0;
  for (size_t i = 0; i < p->n_tensors; i++) {
    uint64_t n;
    bool table = p->tensors[i]->table;
    n_tables += table;
    if (!tensor_elems(p->tensors[i], &n) ||
        !bl_add_u64(n_chunks, table ? 1 : bl_div_up_u64(n, p->chunk_elems), &n_chunks))
      return bl_fail(err, BL_EINVAL, "tensor %s has too many elements", p->tensors[i]->name);
  }
  if (n_tables > 0 ? n_chunks > p->n_chunk_shards : n_chunks != p->n_chunk_shards)
    return bl_fail(err, BL_EINVAL, "chunk_shards places %zu chunks, the tensors have %" PRIu64, p->n_chunk_shards,
                   n_chunks);
  for (size_t i = 0; i < p->n_chunk_shards; i++)
    if (p->chunk_shards[i] >= p->n_shards)
      return bl_fail(err, BL_EINVAL, "chunk %zu is on shard %" PRIu32 " of %zu", i, p->chunk_shards[i], p->n_shards);
  static const rule name = NAME(NULL), text = {NULL, RULE_TEXT, 1, BL_CONTROL_TEXT_BYTES_MAX};
  static const rule codec = {NULL, RULE_TEXT, 1, CODEC_BYTES_MAX};
  const struct {
    const char *what;
    const rule *rule;
    const char *value;
  } texts[] = {{"name", &text, p->name},
               {"sync", &name, p->sync},
               {"codec_push", &codec, p->codec_push},
               {"codec_pull", &codec, p->codec_pull}};
  bl_status st = BL_OK;
  for (size_t i = 0; st == BL_OK && i < BL_COUNT_OF(texts); i++)
    st = check_string(texts[i].what, texts[i].rule, texts[i].value, err);
  return st;
}

static bl_status check_task_rank(const Ballast__Control__JobPlan *p, uint32_t rank, uint32_t incarnation,
                                 bl_error *err) {
  if (rank >= p->world)
    return bl_fail(err, BL_EINVAL, "rank %" PRIu32 " of %" PRIu32, rank, p->world);
  if (incarnation != p->incarnations[rank])
    return bl_fail(err, BL_EINVAL, "incarnation %" PRIu32 " of rank %" PRIu32 ", the plan has %" PRIu32, incarnation,
                   rank, p->incarnations[rank]);
  return BL_OK;
}

static bl_status check_start_task(const ProtobufCMessage *base, bl_error *err) {
  const Ballast__Control__StartTask *m = (const Ballast__Control__StartTask *)base;
  return check_task_rank(m->plan, m->rank, m->incarnation, err);
}

static bl_status check_update_task(const ProtobufCMessage *base, bl_error *err) {
  const Ballast__Control__UpdateTask *m = (const Ballast__Control__UpdateTask *)base;
  return check_task_rank(m->plan, m->rank, m->incarnation, err);
}

static bl_status check_rising(const char *field, const uint32_t *v, size_t n, bl_error *err) {
  for (size_t i = 0; i < n; i++)
    if (v[i] >= BL_CONTROL_BUCKETS_MAX || (i > 0 && v[i] <= v[i - 1]))
      return bl_fail(err, BL_EINVAL, "%s[%zu] is %" PRIu32 ", not rising or not below %u", field, i, v[i],
                     BL_CONTROL_BUCKETS_MAX);
  return BL_OK;
}

static bl_status check_metrics(const ProtobufCMessage *base, bl_error *err) {
  const Ballast__Control__Metrics *m = (const Ballast__Control__Metrics *)base;
  if (m->n_auc_positive != m->n_auc_buckets || m->n_auc_negative != m->n_auc_buckets ||
      m->n_confusion_counts != m->n_confusion_cells)
    return bl_fail(err, BL_EINVAL, "counts of %zu, %zu and %zu entries for %zu buckets and %zu cells", m->n_auc_positive,
                   m->n_auc_negative, m->n_confusion_counts, m->n_auc_buckets, m->n_confusion_cells);
  bl_status st = check_rising("auc_buckets", m->auc_buckets, m->n_auc_buckets, err);
  return st == BL_OK ? check_rising("confusion_cells", m->confusion_cells, m->n_confusion_cells, err) : st;
}

static bl_status check_report(const ProtobufCMessage *base, bl_error *err) {
  const Ballast__Control__Report *m = (const Ballast__Control__Report *)base;
  int n = (m->data != NULL) + (m->epoch != NULL) + (m->done != NULL) + (m->log != NULL) + (m->lease != NULL);
  return n == 1 ? BL_OK : bl_fail(err, BL_EINVAL, "%d bodies, expected 1", n);
}

/* ---- packing ---- */

bl_status bl_control_pack(bl_msg_type type, const ProtobufCMessage *m, bl_msg *msg) {
  BL_ASSERT(m->descriptor == descriptor_of(type) && msg->head == NULL);
  bl_error err = BL_ERROR_INIT;
  bl_status st = check_message(m, &err);
  size_t bytes = st == BL_OK ? protobuf_c_message_get_packed_size(m) : 0;
  if (st == BL_OK && bytes > BL_MSG_HEADER_BYTES_MAX - BL_MSG_PREAMBLE_BYTES)
    st = bl_fail(&err, BL_ELIMIT, "%zu bytes, limit %u", bytes, BL_MSG_HEADER_BYTES_MAX - BL_MSG_PREAMBLE_BYTES);
  if (st != BL_OK) { /* the peer would drop it without a word to us */
    bl_log_error("message_not_sent", "type=%s reason=%s", bl_msg_type_name(type), BL_LOGQ(err.text));
    return st;
  }
  bl_frame *head = bl_frame_new(BL_MSG_PREAMBLE_BYTES + bytes);
  if (head == NULL)
    return BL_ENOMEM;
  bl_msg_put_preamble(head->data, type, 0);
  protobuf_c_message_pack(m, head->data + BL_MSG_PREAMBLE_BYTES);
  msg->head = head;
  return BL_OK;
}

/* ---- unpacking ---- */

typedef struct budget {
  uint64_t left_bytes;
  bool exceeded;
  bool no_memory;
} budget;

static void *budget_alloc(void *arg, size_t size) {
  budget *b = arg; /* NULL: our own message, no limit */
  if (b != NULL && size > b->left_bytes) {
    b->exceeded = true;
    return NULL;
  }
  void *p = bl_malloc(size);
  if (b != NULL) {
    b->left_bytes -= size;
    b->no_memory |= p == NULL;
  }
  return p;
}

static void budget_free(void *arg, void *p) { bl_free(p); }

/* A newer peer's fields are passed over, not passed on: what is copied or packed again is what was checked.
 * Texts for people are made UTF-8. */
static void clean(ProtobufCMessage *m) {
  for (unsigned i = 0; i < m->n_unknown_fields; i++)
    bl_free(m->unknown_fields[i].data);
  bl_free(m->unknown_fields);
  m->unknown_fields = NULL;
  m->n_unknown_fields = 0;
  const message_rules *rules = rules_of(m->descriptor);
  for (unsigned i = 0; i < m->descriptor->n_fields; i++) {
    const ProtobufCFieldDescriptor *f = &m->descriptor->fields[i];
    void *list = (uint8_t *)m + f->offset;
    size_t n = 1;
    if (f->label == PROTOBUF_C_LABEL_REPEATED) {
      memcpy(&n, (uint8_t *)m + f->quantifier_offset, sizeof n);
      list = *(void **)list;
    }
    const rule *r = rule_of(rules, f->name, false);
    bool is_text = f->type == PROTOBUF_C_TYPE_STRING && (r == NULL || r->kind == RULE_TEXT);
    for (size_t k = 0; k < n; k++)
      if (is_text && ((char **)list)[k] != f->default_value)
        repair_utf8(((char **)list)[k]);
      else if (f->type == PROTOBUF_C_TYPE_MESSAGE && ((ProtobufCMessage **)list)[k] != NULL)
        clean(((ProtobufCMessage **)list)[k]);
  }
}

static ProtobufCAllocator plain_allocator = {budget_alloc, budget_free, NULL};

bl_status bl_control_unpack(const bl_msg *msg, bl_msg_type *ret_type, ProtobufCMessage **ret_m, bl_error *err) {
  bl_msg_type type;
  bl_status st = bl_msg_check(msg, &type, err);
  if (st != BL_OK)
    return st;
  const char *name = bl_msg_type_name(type);
  const ProtobufCMessageDescriptor *d = descriptor_of(type);
  if (d == NULL)
    return bl_fail(err, BL_EPROTO, "%s is no message of the control plane", name);
  if (msg->n_frames != 0)
    return bl_fail(err, BL_EPROTO, "%s: carries %" PRIu32 " raw frames, expected none", name, msg->n_frames);
  budget b = {UNPACK_BYTES_MAX, false, false};
  ProtobufCAllocator allocator = {budget_alloc, budget_free, &b};
  ProtobufCMessage *m = protobuf_c_message_unpack(d, &allocator, msg->head->size - BL_MSG_PREAMBLE_BYTES,
                                                  msg->head->data + BL_MSG_PREAMBLE_BYTES);
  if (m == NULL && b.no_memory)
    return bl_fail(err, BL_ENOMEM, "%s: no memory to read %zu bytes", name, msg->head->size);
  if (m == NULL && b.exceeded)
    return bl_fail(err, BL_EPROTO, "%s: would take more than %" PRIu64 " bytes of memory", name, UNPACK_BYTES_MAX);
  if (m == NULL)
    return bl_fail(err, BL_EPROTO, "%s: header is no valid Protocol Buffers message", name);
  clean(m);
  st = check_message(m, err);
  if (st != BL_OK) {
    bl_control_free(m);
    return bl_fail_prefix(err, st, "%s", name);
  }
  *ret_type = type;
  *ret_m = m;
  return BL_OK;
}

void bl_control_free(ProtobufCMessage *m) {
  if (m != NULL)
    protobuf_c_message_free_unpacked(m, &plain_allocator);
}

ProtobufCMessage *bl_control_copy(const ProtobufCMessage *m) {
  size_t bytes = protobuf_c_message_get_packed_size(m);
  uint8_t *packed = bl_malloc(bytes);
  if (packed == NULL)
    return NULL;
  protobuf_c_message_pack(m, packed);
  ProtobufCMessage *copy = protobuf_c_message_unpack(m->descriptor, &plain_allocator, bytes, packed);
  bl_free(packed);
  return copy;
}
