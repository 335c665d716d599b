/* SPDX-License-Identifier: Apache-2.0
 *
 * Any bytes as the head of a data-plane message; the preamble says how many (empty) frames stand behind. What
 * is accepted must pack again, and unpack to the same struct.
 */
#include "base/le.h"
#include "wire/data.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void add_frames(bl_msg *m, uint32_t n) {
  for (uint32_t i = 0; i < n; i++) {
    bl_frame *f = bl_frame_copy("", 0);
    if (f == NULL || bl_msg_add_frame(m, f) != BL_OK)
      abort();
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static bl_data_msg first, second;
  bl_msg in = BL_MSG_INIT, out = BL_MSG_INIT;
  bl_error err = BL_ERROR_INIT;
  in.head = bl_frame_copy(data, size);
  if (in.head == NULL)
    abort();
  uint32_t announced = size >= BL_MSG_PREAMBLE_BYTES ? bl_le_get16(data + 6) : 0;
  add_frames(&in, announced <= BL_MSG_FRAMES_MAX ? announced : 0);
  memset(&first, 0, sizeof first);
  memset(&second, 0, sizeof second);
  bl_status st = bl_data_unpack(&in, &first, &err);
  if (st != BL_OK && (st != BL_EPROTO || err.text[0] == '\0'))
    abort();
  if (st == BL_OK) {
    if (bl_data_pack(&first, in.n_frames, &out) != BL_OK)
      abort();
    add_frames(&out, in.n_frames);
    if (bl_data_unpack(&out, &second, &err) != BL_OK || memcmp(&first, &second, sizeof first) != 0)
      abort();
  }
  bl_msg_fini(&in);
  bl_msg_fini(&out);
  return 0;
}
