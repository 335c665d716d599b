/* SPDX-License-Identifier: Apache-2.0
 *
 * ballast keygen: key pairs for encrypted connections, and the lines of the allow file that go with them.
 */
#include "base/file.h"
#include "cli/cli.h"
#include "net/keys.h"

#include <stdio.h>
#include <string.h>

#define PEERS_MAX 1024

typedef struct keygen_options {
  cli_common common;
  const char *dir;
  bool replace;
  const char *peers[PEERS_MAX]; /* "role:name" */
  size_t n_peers;
} keygen_options;

static const struct argp_option options[] = {
    {"out", 'o', "DIR", 0, "where the files go (default: the current folder)", 0},
    {"replace", 'r', NULL, 0, "overwrite key files that exist", 0},
    {NULL, 0, NULL, 0, NULL, 0},
};

static error_t parse(int key, char *arg, struct argp_state *state) {
  keygen_options *o = state->input;
  switch (key) {
  case 'o':
    o->dir = arg;
    return 0;
  case 'r':
    o->replace = true;
    return 0;
  case ARGP_KEY_ARG:
    if (o->n_peers == PEERS_MAX)
      argp_error(state, "more than %d peers", PEERS_MAX);
    o->peers[o->n_peers++] = arg;
    return 0;
  case ARGP_KEY_END:
    if (o->n_peers == 0)
      argp_error(state, "which peers? for example: coordinator:c1 server:s1 worker:w1 worker:w2 admin:anna");
    return 0;
  default:
    return ARGP_ERR_UNKNOWN;
  }
}

static bl_role role_of(const char *peer, const char **ret_name) {
  const char *colon = strchr(peer, ':');
  if (colon == NULL)
    return BL_ROLE_INVALID;
  for (int r = BL_ROLE_COORDINATOR; r < BL_ROLE_COUNT; r++) {
    const char *name = bl_role_name((bl_role)r);
    if (strlen(name) == (size_t)(colon - peer) && strncmp(peer, name, strlen(name)) == 0) {
      *ret_name = colon + 1;
      return (bl_role)r;
    }
  }
  return BL_ROLE_INVALID;
}

static bool name_is_valid(const char *name) {
  size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");
  return n > 0 && n < 64 && name[n] == '\0';
}

static bl_status make_key(const keygen_options *o, const char *peer, bl_buf *allow, json_t *list, bl_error *err) {
  const char *name = NULL;
  bl_role role = role_of(peer, &name);
  if (role == BL_ROLE_INVALID || !name_is_valid(name))
    return bl_fail(err, BL_EINVAL,
                   "'%s': expected ROLE:NAME with a role of coordinator, server, worker, admin, user, viewer and a name "
                   "of letters, digits, '.', '_', '-'",
                   peer);
  bl_keypair keys;
  char path[4096];
  snprintf(path, sizeof path, "%s/%s.key", o->dir, name);
  bl_status status = bl_keys_generate(&keys, err);
  if (status == BL_OK)
    status = bl_keys_write(&keys, path, o->replace, err);
  if (status == BL_OK) {
    bl_buf_printf(allow, "%s %s %s\n", keys.public_key, bl_role_name(role), name);
    json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:s}", "name", name, "role", bl_role_name(role), "public_key",
                                          keys.public_key, "key_file", path));
    if (!o->common.json)
      printf("%-11s %-16s %s  %s\n", bl_role_name(role), name, keys.public_key, path);
  }
  memset(keys.secret_key, 0, sizeof keys.secret_key);
  return status;
}

int cli_keygen(int argc, char **argv) {
  static keygen_options o = {.common.local = true, .dir = "."};
  cli_parse(argc, argv, options, parse, "ROLE:NAME...",
            "Makes a key pair for each peer: DIR/NAME.key (secret, mode 0600: belongs on that host alone), and adds its "
            "public key with role and name to DIR/allow (the same file on all hosts).",
            &o, &o.common);
  bl_error err = BL_ERROR_INIT;
  bl_buf allow = BL_BUF_INIT;
  char allow_path[4096];
  json_t *list = json_array();
  snprintf(allow_path, sizeof allow_path, "%s/allow", o.dir);
  bl_status status = bl_file_make_dirs(o.dir, 0755, &err);
  if (status == BL_OK && bl_file_exists(allow_path))
    status = bl_file_read(allow_path, 1 << 20, &allow, &err);
  else
    bl_buf_add_str(&allow, "# public key, role, name\n");
  for (size_t i = 0; status == BL_OK && i < o.n_peers; i++)
    status = make_key(&o, o.peers[i], &allow, list, &err);
  if (status == BL_OK)
    status = bl_file_write_atomic(allow_path, allow.data, allow.size, 0644, &err);
  int code = status == BL_OK ? BL_EXIT_OK : cli_fail(&err);
  if (status == BL_OK && o.common.json) {
    json_t *all = json_pack("{s:O, s:s}", "keys", list, "allow_file", allow_path);
    cli_print_json(all);
    json_decref(all);
  } else if (status == BL_OK) {
    printf("allow file  %s\n", allow_path);
  }
  json_decref(list);
  bl_buf_fini(&allow);
  return code;
}
