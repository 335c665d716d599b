/* SPDX-License-Identifier: Apache-2.0
 *
 * Parts of version 1 in the simulator. The code is today's; what makes it old is that it announces version 1, and that
 * of every message to and from it only the fields arrive that version 1 had (tests/golden/wire-1/schema). So it can
 * neither be told nor tell what is new, and whoever relies on that fails here.
 */
#include "parts.h"

#include "base/le.h"
#include "support.h"
#include "tests/support/golden.h"

#include <inttypes.h>

/* An old node must not be given a job that it does not understand. */
static void check_work(cluster *c, const bl_msg *msg) {
  bl_msg_type type;
  ProtobufCMessage *m;
  if (c->co.core == NULL || bl_control_unpack(msg, &type, &m, NULL) != BL_OK)
    return;
  const Ballast__Control__JobPlan *plan = type == BL_MSG_OPEN_JOB     ? ((Ballast__Control__OpenJob *)m)->plan
                                          : type == BL_MSG_START_TASK ? ((Ballast__Control__StartTask *)m)->plan
                                                                      : NULL;
  const co_job *job = plan != NULL ? co_state_job(co_core_state(c->co.core), plan->job) : NULL;
  if (job != NULL && job->protocol > 1)
    cluster_break(c, "a part of version 1 is given job %" PRIu64 ", which needs version %u for %s", job->id,
                  job->protocol, job->protocol_for);
  bl_control_free(m);
}

static bl_frame *read_as_version_1(void *arg, const bl_msg *msg) {
  cluster *c = arg;
  const bl_frame *head = msg->head;
  if (head->size < BL_MSG_PREAMBLE_BYTES) /* the end of a process, not a message */
    return bl_frame_ref(msg->head);
  unsigned type = bl_le_get16(head->data + 4);
  const ProtobufCMessageDescriptor *d = bl_msg_type_since(type) == 1 ? pbtext_descriptor(type) : NULL;
  if (head->data[2] != 1 || d == NULL) {
    cluster_break(c, "a part of version 1 meets a %s of version %u", bl_msg_type_name((bl_msg_type)type), head->data[2]);
    return bl_frame_ref(msg->head);
  }
  if (type == BL_MSG_OPEN_JOB || type == BL_MSG_START_TASK)
    check_work(c, msg);
  bl_buf out = BL_BUF_INIT;
  bl_buf_add(&out, head->data, BL_MSG_PREAMBLE_BYTES);
  if (!pbtext_forget(d, bl_buf_str(&c->schema), head->data + BL_MSG_PREAMBLE_BYTES, head->size - BL_MSG_PREAMBLE_BYTES,
                     &out))
    cluster_break(c, "a %s that is no message", bl_msg_type_name((bl_msg_type)type));
  bl_frame *f = bl_frame_copy(out.data, out.size);
  ck_assert_ptr_nonnull(f);
  bl_buf_fini(&out);
  return f;
}

void sim_set_old(cluster *c, sim_node *node, bool old) {
  if (old && c->schema.size == 0)
    golden_read(test_source_path("tests/golden/wire-1"), "schema", "", &c->schema);
  sim_node_set_filter(node, old ? read_as_version_1 : NULL, c);
}

bool sim_server_is_old(const sim_server *s) { return (s->c->old_servers >> (s - s->c->servers) & 1) != 0; }
bool sim_worker_is_old(const sim_worker *w) { return (w->c->old_workers >> (w - w->c->workers) & 1) != 0; }
