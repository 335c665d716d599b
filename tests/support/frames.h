/* SPDX-License-Identifier: Apache-2.0
 *
 * Codec frames for tests.
 */
#ifndef TESTS_SUPPORT_FRAMES_H
#define TESTS_SUPPORT_FRAMES_H

#include "codec/spec.h"
#include "tests/support/support.h"
#include "wire/msg.h"

/* codec: as in a job file. A frame of its own. */
static inline bl_frame *test_frame(const char *codec, const float *x, uint32_t n, uint32_t flags) {
  bl_codec_spec spec;
  ck_assert_ok(bl_codec_spec_read(codec, &spec, NULL));
  bl_frame *f = bl_frame_new(bl_codec_bound_bytes(&spec, n));
  ck_assert_ptr_nonnull(f);
  f->size = bl_codec_encode(&(bl_encode){.spec = &spec}, x, NULL, n, flags, f->data);
  return f;
}

#endif
