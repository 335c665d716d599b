/* SPDX-License-Identifier: Apache-2.0
 *
 * Key and allow files. The secret key file is read through one descriptor, whose mode is checked before its
 * bytes are believed; copies of secrets are wiped.
 */
#include "net/keys.h"

#include "base/alloc.h"
#include "base/buf.h"
#include "base/file.h"
#include "base/str.h"

#include <ctype.h>
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

#define KEY_FILE_BYTES_MAX 4096
#define ALLOW_FILE_BYTES_MAX (4u << 20)
#define ALLOW_ENTRIES_MAX 16384

bool bl_key_is_valid(const char *z85) {
  uint8_t raw[32];
  bool ok = strlen(z85) == BL_KEY_Z85_BYTES - 1 && zmq_z85_decode(raw, z85) != NULL;
  explicit_bzero(raw, sizeof raw);
  return ok;
}

bool bl_host_is_loopback(const char *host) {
  struct in_addr v4;
  struct in6_addr v6;
  if (strcasecmp(host, "localhost") == 0)
    return true;
  if (inet_pton(AF_INET, host, &v4) == 1)
    return ntohl(v4.s_addr) >> 24 == 127;
  return inet_pton(AF_INET6, host, &v6) == 1 &&
         (IN6_IS_ADDR_LOOPBACK(&v6) || (IN6_IS_ADDR_V4MAPPED(&v6) && v6.s6_addr[12] == 127));
}

bl_status bl_keys_generate(bl_keypair *ret_keys, bl_error *err) {
  bl_keypair k;
  do { /* Z85 has '#', '&', ':' and their like as digits: at the ends of a key they would read as YAML, or as a comment */
    if (zmq_curve_keypair(k.public_key, k.secret_key) != 0)
      return bl_fail(err, BL_EUNSUPPORTED, "cannot make keys: this libzmq was built without CURVE");
  } while (!isalnum((unsigned char)k.public_key[0]) || !isalnum((unsigned char)k.public_key[BL_KEY_Z85_BYTES - 2]));
  *ret_keys = k;
  explicit_bzero(&k, sizeof k);
  return BL_OK;
}

bl_status bl_keys_write(const bl_keypair *keys, const char *path, bool replace, bl_error *err) {
  if (!replace && bl_file_exists(path))
    return bl_fail(err, BL_EEXIST, "%s exists: a key that is in use is not overwritten", path);
  char text[256];
  int n = snprintf(text, sizeof text, "# Ballast key pair. Keep this file secret (mode 0600).\npublic: \"%s\"\nsecret: \"%s\"\n",
                   keys->public_key, keys->secret_key);
  BL_ASSERT(n > 0 && (size_t)n < sizeof text);
  bl_status st = bl_file_write_atomic(path, text, (size_t)n, 0600, err);
  explicit_bzero(text, sizeof text);
  return st;
}

static bl_status read_secret_file(const char *path, char *text, bl_error *err) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0)
    return bl_fail_errno(err, "cannot read key file %s", path);
  struct stat sb;
  bl_status st = BL_OK;
  size_t n = 0;
  if (fstat(fd, &sb) != 0)
    st = bl_fail_errno(err, "cannot read key file %s", path);
  else if (!S_ISREG(sb.st_mode))
    st = bl_fail(err, BL_EINVAL, "key file %s is no regular file", path);
  else if ((sb.st_mode & 077) != 0)
    st = bl_fail(err, BL_EACCES, "key file %s has mode %04o, so that others may read it: chmod 600 it, or make new keys",
                 path, (unsigned)sb.st_mode & 07777);
  while (st == BL_OK && n < KEY_FILE_BYTES_MAX) {
    ssize_t got = read(fd, text + n, KEY_FILE_BYTES_MAX - n);
    if (got < 0 && errno == EINTR)
      continue;
    if (got < 0)
      st = bl_fail_errno(err, "cannot read key file %s", path);
    if (got <= 0)
      break;
    n += (size_t)got;
  }
  if (st == BL_OK && n == KEY_FILE_BYTES_MAX)
    st = bl_fail(err, BL_ELIMIT, "key file %s is longer than %d bytes", path, KEY_FILE_BYTES_MAX - 1);
  text[n] = '\0';
  close(fd);
  return st;
}

/* `name: "value"` or without quotes; false when the line is something else. */
static bool read_key_line(const char *line, const char *name, char *out) {
  size_t n = strlen(name);
  if (strncmp(line, name, n) != 0 || line[n] != ':')
    return false;
  const char *s = line + n + 1;
  s += strspn(s, " \t");
  char quote = *s == '"' || *s == '\'' ? *s++ : '\0';
  if (strlen(s) < BL_KEY_Z85_BYTES - 1)
    return false;
  memcpy(out, s, BL_KEY_Z85_BYTES - 1);
  out[BL_KEY_Z85_BYTES - 1] = '\0';
  s += BL_KEY_Z85_BYTES - 1;
  if (quote != '\0' && *s++ != quote)
    return false;
  return s[strspn(s, " \t\r")] == '\0';
}

static bl_status parse_keys(const char *path, char *text, bl_keypair *k, bl_error *err) {
  unsigned number = 0;
  char *rest = text;
  for (char *line; (line = strsep(&rest, "\n")) != NULL;) {
    number++;
    if (line[strspn(line, " \t\r")] == '\0' || *line == '#')
      continue;
    if (!read_key_line(line, "public", k->public_key) && !read_key_line(line, "secret", k->secret_key))
      return bl_fail(err, BL_EINVAL, "%s:%u: expected public: \"...\" or secret: \"...\" with 40 characters", path, number);
  }
  if (!bl_key_is_valid(k->public_key) || !bl_key_is_valid(k->secret_key))
    return bl_fail(err, BL_EINVAL, "%s: public or secret key is missing or no Z85", path);
  char derived[BL_KEY_Z85_BYTES];
  if (zmq_curve_public(derived, k->secret_key) != 0 || strcmp(derived, k->public_key) != 0)
    return bl_fail(err, BL_ECORRUPT, "%s: the public key does not belong to the secret key", path);
  return BL_OK;
}

bl_status bl_keys_read(const char *path, bl_keypair *ret_keys, bl_error *err) {
  char text[KEY_FILE_BYTES_MAX + 1];
  bl_keypair k = {"", ""};
  bl_status st = read_secret_file(path, text, err);
  if (st == BL_OK)
    st = parse_keys(path, text, &k, err);
  if (st == BL_OK)
    *ret_keys = k;
  explicit_bzero(text, sizeof text);
  explicit_bzero(&k, sizeof k);
  return st;
}

/* ---- allow file ---- */

static bl_status parse_role(const char *word, bl_role *ret_role, bl_error *err) {
  const char *names[BL_ROLE_COUNT - 1];
  for (int r = 1; r < BL_ROLE_COUNT; r++) {
    names[r - 1] = bl_role_name((bl_role)r);
    if (strcmp(names[r - 1], word) == 0) {
      *ret_role = (bl_role)r;
      return BL_OK;
    }
  }
  const char *near = bl_str_nearest(word, names, BL_COUNT_OF(names));
  return bl_fail(err, BL_EINVAL, "role %s is none of coordinator, server, worker, admin, user, viewer%s%s%s", word,
                 near != NULL ? " (did you mean " : "", near != NULL ? near : "", near != NULL ? "?)" : "");
}

static bl_status parse_allow_line(char *line, bl_allow_entry *e, bl_error *err) {
  char *save = NULL;
  const char *words[4];
  size_t n = 0;
  for (char *w = strtok_r(line, " \t\r", &save); w != NULL && n < BL_COUNT_OF(words); w = strtok_r(NULL, " \t\r", &save))
    words[n++] = w;
  if (n != 3)
    return bl_fail(err, BL_EINVAL, "expected <public key> <role> <name>");
  if (!bl_key_is_valid(words[0]))
    return bl_fail(err, BL_EINVAL, "%s is no public key (Z85 of 40 characters)", words[0]);
  bl_status st = parse_role(words[1], &e->role, err);
  if (st != BL_OK)
    return st;
  if (strlen(words[2]) >= sizeof e->name || strspn(words[2], "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") != strlen(words[2]))
    return bl_fail(err, BL_EINVAL, "name %s has more than 63 characters or others than letters, digits, '.', '_', '-'",
                   words[2]);
  bl_str_copy(e->public_key, sizeof e->public_key, words[0]);
  bl_str_copy(e->name, sizeof e->name, words[2]);
  return BL_OK;
}

static bl_status add_allow_line(char *line, bl_allow_entry **list, size_t *n, size_t *capacity, bl_error *err) {
  bl_allow_entry e;
  memset(&e, 0, sizeof e);
  bl_status st = parse_allow_line(line, &e, err);
  if (st != BL_OK)
    return st;
  for (size_t i = 0; i < *n; i++)
    if (strcmp((*list)[i].public_key, e.public_key) == 0)
      return bl_fail(err, BL_EINVAL, "key of %s stands here again for %s", (*list)[i].name, e.name);
  if (*n == ALLOW_ENTRIES_MAX)
    return bl_fail(err, BL_ELIMIT, "more than %d keys", ALLOW_ENTRIES_MAX);
  if (*n == *capacity) {
    size_t grown = *capacity > 0 ? *capacity * 2 : 16;
    bl_allow_entry *more = bl_realloc_array(*list, grown, sizeof *more);
    if (more == NULL)
      return bl_fail(err, BL_ENOMEM, "no memory");
    *list = more;
    *capacity = grown;
  }
  (*list)[(*n)++] = e;
  return BL_OK;
}

bl_status bl_allow_read(const char *path, bl_allow_entry **ret_entries, size_t *ret_n, bl_error *err) {
  bl_buf text = BL_BUF_INIT;
  bl_allow_entry *list = bl_calloc(1, sizeof *list); /* never NULL on success, even when empty */
  size_t n = 0, capacity = 1;
  bl_status st = list != NULL ? bl_file_read(path, ALLOW_FILE_BYTES_MAX, &text, err)
                              : bl_fail(err, BL_ENOMEM, "cannot read %s: no memory", path);
  char *rest = st == BL_OK && text.size > 0 ? (char *)text.data : NULL;
  unsigned number = 0;
  for (char *line; st == BL_OK && (line = strsep(&rest, "\n")) != NULL;) {
    number++;
    line += strspn(line, " \t\r");
    if (*line == '\0' || *line == '#')
      continue;
    st = add_allow_line(line, &list, &n, &capacity, err);
    if (st != BL_OK)
      bl_fail_prefix(err, st, "%s:%u", path, number);
  }
  bl_buf_fini(&text);
  if (st != BL_OK) {
    bl_free(list);
    return st;
  }
  *ret_entries = list;
  *ret_n = n;
  return BL_OK;
}
