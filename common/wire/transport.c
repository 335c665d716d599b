/* SPDX-License-Identifier: Apache-2.0
 *
 * Names of roles. Everything else of a transport is inline or belongs to its implementations.
 */
#include "wire/transport.h"

static const char *const role_names[BL_ROLE_COUNT] = {
    [BL_ROLE_INVALID] = "invalid", [BL_ROLE_COORDINATOR] = "coordinator", [BL_ROLE_SERVER] = "server",
    [BL_ROLE_WORKER] = "worker",   [BL_ROLE_ADMIN] = "admin",             [BL_ROLE_USER] = "user",
    [BL_ROLE_VIEWER] = "viewer",
};

const char *bl_role_name(bl_role role) {
  return (unsigned)role < BL_ROLE_COUNT ? role_names[role] : role_names[BL_ROLE_INVALID];
}
