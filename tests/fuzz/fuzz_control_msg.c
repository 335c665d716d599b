/* SPDX-License-Identifier: Apache-2.0
 *
 * Any bytes as the head of a control message. What is accepted must be a message that we could send, and a
 * copy of it must pack to the same bytes.
 */
#include "base/log.h"
#include "wire/control.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_accepted(bl_msg_type type, const ProtobufCMessage *m) {
  bl_msg first = BL_MSG_INIT, second = BL_MSG_INIT;
  ProtobufCMessage *copy = bl_control_copy(m);
  if (copy == NULL || bl_control_pack(type, m, &first) != BL_OK || bl_control_pack(type, copy, &second) != BL_OK)
    abort();
  if (first.head->size != second.head->size || memcmp(first.head->data, second.head->data, first.head->size) != 0)
    abort();
  bl_control_free(copy);
  bl_msg_fini(&first);
  bl_msg_fini(&second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  bl_msg in = BL_MSG_INIT;
  bl_msg_type type;
  ProtobufCMessage *m = NULL;
  bl_error err = BL_ERROR_INIT;
  in.head = bl_frame_copy(data, size);
  if (in.head == NULL)
    abort();
  bl_status st = bl_control_unpack(&in, &type, &m, &err);
  if (st == BL_OK)
    check_accepted(type, m);
  else if ((st != BL_EPROTO && st != BL_EINVAL) || err.text[0] == '\0' || m != NULL)
    abort();
  bl_control_free(m);
  bl_msg_fini(&in);
  return 0;
}
