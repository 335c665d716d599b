/* SPDX-License-Identifier: Apache-2.0
 *
 * What a task process may write into its pipe: the first byte is the size of the pieces it comes in.
 */
#include "pipe.h"
#include "wire/control.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 1)
    return 0;
  size_t step = (size_t)data[0] + 1;
  wk_pipe_reader r = WK_PIPE_READER_INIT;
  bl_status status = BL_OK;
  for (size_t at = 1; at < size && status == BL_OK; at += step) {
    size_t n = size - at < step ? size - at : step;
    bool have = true;
    while (have && status == BL_OK) {
      bl_msg msg = BL_MSG_INIT;
      status = wk_pipe_reader_feed(&r, data + at, n, &msg, &have, NULL);
      n = 0;
      bl_msg_type type;
      ProtobufCMessage *m;
      if (have && bl_control_unpack(&msg, &type, &m, NULL) == BL_OK)
        bl_control_free(m);
      bl_msg_fini(&msg);
    }
  }
  wk_pipe_reader_fini(&r);
  return 0;
}
