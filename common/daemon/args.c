/* SPDX-License-Identifier: Apache-2.0
 *
 * Command line of the daemons, by argp: one option table for all three.
 */
#include "base/alloc.h"
#include "base/file.h"
#include "base/log.h"
#include "config.h"
#include "daemon/daemon.h"
#include "wire/msg.h"

#include <argp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SYSTEM_CONFIG "/etc/ballast/cluster.yaml"
#define OVERRIDES_MAX 64

enum { OPT_CHECK = 256, OPT_DUMP, OPT_ADDRESS_FILE, OPT_LOG_LEVEL, OPT_SET };

typedef struct parse_state {
  bl_daemon_args *args;
  const char *overrides[OVERRIDES_MAX];
  size_t n_overrides;
  const char *log_level;
  bool check, dump;
} parse_state;

static const struct argp_option options[] = {
    {"config", 'c', "FILE", 0, "cluster file (default " SYSTEM_CONFIG " when it exists, else built-in defaults)", 0},
    {"set", OPT_SET, "A.B=VALUE", 0, "override one field of the cluster file; may be repeated", 0},
    {"name", 'n', "NAME", 0, "name of this node (default: the cluster file's, else HOST-ROLE)", 0},
    {"check", OPT_CHECK, NULL, 0, "check the cluster file, report every mistake, and exit", 0},
    {"dump", OPT_DUMP, NULL, 0, "print the whole configuration in force, commented, and exit", 0},
    {"log-level", OPT_LOG_LEVEL, "LEVEL", 0, "debug, info, warning or error", 0},
    {"address-file", OPT_ADDRESS_FILE, "FILE", 0, "when ready, write the bound addresses there as JSON", 0},
    {NULL, 0, NULL, 0, NULL, 0},
};

static error_t parse_option(int key, char *arg, struct argp_state *state) {
  parse_state *p = state->input;
  switch (key) {
  case 'c':
    p->args->config_path = arg;
    return 0;
  case 'n':
    p->args->name = arg;
    return 0;
  case OPT_SET:
    if (p->n_overrides == OVERRIDES_MAX)
      argp_error(state, "more than %d --set options", OVERRIDES_MAX);
    p->overrides[p->n_overrides++] = arg;
    return 0;
  case OPT_CHECK:
    p->check = true;
    return 0;
  case OPT_DUMP:
    p->dump = true;
    return 0;
  case OPT_LOG_LEVEL:
    p->log_level = arg;
    return 0;
  case OPT_ADDRESS_FILE:
    p->args->address_file = arg;
    return 0;
  case ARGP_KEY_ARG:
    argp_error(state, "unexpected argument '%s'", arg);
    return EINVAL;
  default:
    return ARGP_ERR_UNKNOWN;
  }
}

const char *bl_version_string(void) {
  static char text[64];
  snprintf(text, sizeof text, "ballast %s (protocol %d)", PACKAGE_VERSION, BL_PROTOCOL_VERSION);
  return text;
}

static void print_version(FILE *out, struct argp_state *state) { fprintf(out, "%s\n", bl_version_string()); }

/* Reads the file and applies the overrides; prints every mistake. */
static bool read_conf(parse_state *p) {
  static bl_conf_errors errors;
  errors.n = 0;
  if (p->args->config_path == NULL && bl_file_exists(SYSTEM_CONFIG))
    p->args->config_path = SYSTEM_CONFIG;
  bl_status status =
      bl_cluster_conf_read(p->args->config_path, p->overrides, p->n_overrides, &p->args->conf, &errors);
  if (status == BL_OK)
    return true;
  bl_buf text = BL_BUF_INIT;
  bl_conf_errors_print(&errors, p->args->config_path != NULL ? p->args->config_path : "built-in defaults", &text);
  fputs(bl_buf_str(&text), stderr);
  bl_buf_fini(&text);
  return false;
}

static bool set_log_level(parse_state *p, const char *program) {
  bl_log_level level = BL_LOG_INFO;
  const char *text = p->log_level != NULL ? p->log_level : p->args->conf->log_level;
  if (text != NULL && bl_log_level_parse(text, &level) != BL_OK) {
    fprintf(stderr, "%s: --log-level '%s': debug, info, warning or error\n", program, text);
    return false;
  }
  bl_log_init(program, level);
  return true;
}

bool bl_daemon_parse(int argc, char **argv, const char *program, const char *doc, bl_daemon_args *args) {
  *args = (bl_daemon_args){.exit_code = BL_EXIT_USAGE};
  parse_state p = {.args = args};
  argp_program_version_hook = print_version;
  argp_err_exit_status = BL_EXIT_USAGE;
  const struct argp argp = {.options = options, .parser = parse_option, .doc = doc};
  if (argp_parse(&argp, argc, argv, 0, NULL, &p) != 0 || !read_conf(&p) || !set_log_level(&p, program))
    return false;
  if (p.dump) {
    bl_buf text = BL_BUF_INIT;
    bl_cluster_conf_dump(args->conf, &text);
    fputs(bl_buf_str(&text), stdout);
    bl_buf_fini(&text);
  }
  if (p.check && !p.dump)
    printf("%s: ok\n", args->config_path != NULL ? args->config_path : "built-in defaults");
  args->exit_code = BL_EXIT_OK;
  return !p.check && !p.dump;
}

void bl_daemon_args_fini(bl_daemon_args *args) {
  bl_cluster_conf_free(args->conf);
  args->conf = NULL;
}
