/* SPDX-License-Identifier: Apache-2.0
 *
 * Key files. A secret key file is YAML of two lines, `public: "..."` and `secret: "..."` (Z85), mode 0600,
 * refused when others can read it. An allow file has one peer per line: `<public key> <role> <name>`, # comments.
 * (So a public key that begins with '#' cannot stand there; bl_keys_generate makes none.)
 */
#ifndef BL_NET_KEYS_H
#define BL_NET_KEYS_H

#include "net/socket.h"

BL_MUST_CHECK bl_status bl_keys_generate(bl_keypair *ret_keys, bl_error *err);
BL_MUST_CHECK bl_status bl_keys_write(const bl_keypair *keys, const char *path, bool replace, bl_error *err);
BL_MUST_CHECK bl_status bl_keys_read(const char *path, bl_keypair *ret_keys, bl_error *err);
/* *ret_entries: bl_free. */
BL_MUST_CHECK bl_status bl_allow_read(const char *path, bl_allow_entry **ret_entries, size_t *ret_n, bl_error *err);
bool bl_key_is_valid(const char *z85);
/* True for 127.0.0.0/8, ::1 and "localhost": where no keys are needed. */
bool bl_host_is_loopback(const char *host);

#endif
