/* SPDX-License-Identifier: Apache-2.0
 *
 * cluster.yaml as a checked struct: one file that can be identical on all machines. Sections connect (who
 * reaches the coordinator where), security, coordinator, server, worker; each daemon reads what concerns it.
 * Reference: conf/cluster.yaml (equal to --dump).
 *
 * Default ports: coordinator 7070 (control) and 7071 (HTTP); server shards 7100..7163, its HTTP 7080;
 * worker HTTP 7090.
 */
#ifndef BL_CONF_CLUSTER_H
#define BL_CONF_CLUSTER_H

#include "base/arena.h"
#include "base/buf.h"
#include "conf/errors.h"

#include <stdbool.h>
#include <stdint.h>

#define BL_CLUSTER_LISTEN_MAX 8
#define BL_CLUSTER_BYTES_MAX (1u << 20) /* of the file */

typedef struct bl_listen_conf {
  const char *listen[BL_CLUSTER_LISTEN_MAX]; /* host or address, IPv6 without brackets; default 127.0.0.1 */
  size_t n_listen;
  const char *advertise;  /* host that peers use; NULL: the first listen address, or the host name for wildcards */
  uint16_t port;          /* 0: any free one, reported through --address-file */
  const char *http_listen; /* "127.0.0.1:7071"; "" = off; port 0 allowed */
  const char *http_token_file; /* bearer token, required off loopback */
} bl_listen_conf;

typedef struct bl_security_conf {
  bool insecure;            /* allows public addresses without keys */
  const char *key_file;     /* own secret key; NULL: no CURVE */
  const char *allow_file;   /* keys and roles of peers */
} bl_security_conf;

typedef struct bl_cluster_conf {
  bl_arena arena;
  const char *file;                 /* NULL: built-in defaults */
  const char *coordinator;          /* endpoint that others connect to: tcp://host:7070 */
  const char *coordinator_key;      /* its public key, Z85; NULL without CURVE */
  bl_security_conf security;
  struct {
    bl_listen_conf net;
    const char *state_dir;
    uint64_t heartbeat_ns, lease_ns; /* 0.5 s, 3 s */
    uint64_t history_jobs_max;
    uint64_t queue_pass_ns; /* 5 min */
  } co;
  struct {
    bl_listen_conf net;             /* port: the first shard's; shard i listens on port + i */
    const char *name;               /* node name; NULL: host name */
    const char *host, *rack;
    uint32_t shards;                /* default 1 */
    uint64_t memory_bytes;          /* for jobs; default half of the machine's */
    bool memory_auto;               /* memory_bytes was filled in by the parser */
    const char *state_dir;
    uint64_t log_bytes_max;         /* update log in memory, per shard */
    uint64_t window_bytes;          /* credit per session: default 8 MiB */
    uint64_t hold_bytes_max;        /* early frames held per job and shard: default 256 MiB */
  } server;
  struct {
    bl_listen_conf net;             /* HTTP only */
    const char *name;
    const char *host, *rack;
    uint32_t slots;                 /* default: number of CPUs */
    bool slots_auto;                /* slots was filled in by the parser */
    const char *const *data_roots;  /* tasks read data only below these; default: none off loopback, "/" in `ballast run` */
    size_t n_data_roots;
    const char *const *output_roots;
    size_t n_output_roots;
    const char *state_dir;
  } worker;
  const char *log_level;
  const char *kernels;              /* auto | scalar | avx2 | avx512 */
} bl_cluster_conf;

BL_MUST_CHECK bl_status bl_cluster_conf_parse(const char *text, size_t size, const char *file,
                                              const char *const *overrides, size_t n_overrides,
                                              bl_cluster_conf **ret_conf, bl_conf_errors *errors);
/* path NULL: defaults. */
BL_MUST_CHECK bl_status bl_cluster_conf_read(const char *path, const char *const *overrides, size_t n_overrides,
                                             bl_cluster_conf **ret_conf, bl_conf_errors *errors);
void bl_cluster_conf_free(bl_cluster_conf *conf);
/* Every field with its comment and present value; with defaults it equals conf/cluster.yaml byte for byte. */
void bl_cluster_conf_dump(const bl_cluster_conf *conf, bl_buf *out);

/* The table behind it, for the tests of the documentation. */
struct bl_field;
const struct bl_field *bl_cluster_conf_fields(size_t *ret_n);

#endif
