/* SPDX-License-Identifier: Apache-2.0
 *
 * A YAML document as a bounded tree of nodes that know their lines.
 *
 * One document per text; scalars stay text (what they mean is the schema's business, conf/schema.h).
 * Refused with a line: syntax errors, anchors and aliases, tags, duplicate keys, keys that are not plain
 * words, control characters and line breaks inside values, and anything over the limits below. Parsing is a
 * loop over libyaml's events, without recursion. One thread at a time; nodes live as long as their document.
 */
#ifndef BL_CONF_DOC_H
#define BL_CONF_DOC_H

#include "base/arena.h"
#include "conf/errors.h"

#include <stdbool.h>

#define BL_DOC_BYTES_MAX (1u << 20)
#define BL_DOC_DEPTH_MAX 32
#define BL_DOC_NODES_MAX 100000
#define BL_DOC_KEYS_MAX 256 /* per mapping */

typedef enum bl_node_kind { BL_NODE_SCALAR = 1, BL_NODE_LIST, BL_NODE_MAP } bl_node_kind;

typedef struct bl_node bl_node;
struct bl_node {
  bl_node_kind kind;
  unsigned line;        /* from 1 */
  const char *override; /* "optimizer.adam.lr" when --set put the node here, else NULL */
  const char *key;      /* members of a mapping */
  size_t index;         /* items of a list */
  const char *text;     /* scalars */
  bool is_null;         /* nothing, ~ or null without quotes: as if the field were not there */
  bl_node *parent, *first, *last, *next;
  size_t n_children;
};

typedef struct bl_doc {
  bl_arena arena;
  bl_node *root; /* a mapping; empty for an empty text */
  size_t n_nodes;
} bl_doc;

/* *ret_doc is owned by the caller. Mistakes that leave the rest readable (a field given twice, a control
 * character) are only added to *errors, so that the schema can find the others: the caller looks at errors->n.
 * BL_EINVAL: there is no document; *errors says why. */
BL_MUST_CHECK bl_status bl_doc_parse(const char *text, size_t size, bl_doc **ret_doc, bl_conf_errors *errors);
void bl_doc_free(bl_doc *doc);

/* Applies "a.b.0=value" strings in order: mappings on the way are made, digits choose items of a list, the
 * value is read as YAML. All mistakes go to *errors; BL_EINVAL when there was one. */
BL_MUST_CHECK bl_status bl_doc_override(bl_doc *doc, const char *const *overrides, size_t n,
                                        bl_conf_errors *errors);

/* Member of a mapping that is present and not null; NULL otherwise, and for nodes that are no mapping. */
const bl_node *bl_node_get(const bl_node *map, const char *key);
/* The same along "a.b.c". */
const bl_node *bl_node_find(const bl_node *map, const char *path);

/* "model.layers[2].dense" of a node, cut to size. Returns out. */
const char *bl_node_path(const bl_node *node, char *out, size_t size);
/* "a mapping", "a list", "'12'": what stands there, for messages. */
const char *bl_node_describe(const bl_node *node, char *out, size_t size);

/* Adds a mistake at a node: its line, or "--set x: " in front when the node came from an override. node NULL:
 * the whole file. Beyond BL_CONF_ERRORS_MAX the last entry says that there are more. errors may be NULL. */
void bl_conf_errors_add(bl_conf_errors *errors, const bl_node *node, const char *fmt, ...) BL_PRINTF(3, 4);
/* "field 'a.b': ..." in front. */
void bl_conf_errors_add_field(bl_conf_errors *errors, const bl_node *node, const char *fmt, ...)
    BL_PRINTF(3, 4);
void bl_conf_errors_add_line(bl_conf_errors *errors, unsigned line, const char *fmt, ...) BL_PRINTF(3, 4);
/* By line, stable. */
void bl_conf_errors_sort(bl_conf_errors *errors);

#endif
