/* SPDX-License-Identifier: Apache-2.0
 *
 * libyaml's events become nodes. A builder holds the innermost open container and, inside a mapping, the key
 * that waits for its value; its depth is bounded, so libyaml's own bookkeeping is too.
 */
#include "conf/doc.h"

#include "base/alloc.h"
#include "base/str.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <yaml.h>

/* Nodes, keys and texts of the largest allowed document fit well below this. */
#define DOC_ARENA_BYTES_MAX ((size_t)64 << 20)

typedef struct builder {
  bl_doc *doc;
  bl_conf_errors *errors;
  bl_node *root;
  bl_node *open;        /* innermost container that has not ended; NULL outside */
  const char *key;      /* key that waits for its value */
  const char *override; /* set on every node that is made */
  unsigned depth;
  bool has_key;
  bool skip_value; /* the key was wrong: its value is read and dropped */
  bl_status status;
} builder;

/* Records a mistake after which reading can go on. */
static void note_at(builder *b, unsigned line, const char *text) {
  if (b->override != NULL)
    bl_conf_errors_add_line(b->errors, 0, "--set %.140s: %s", b->override, text);
  else
    bl_conf_errors_add_line(b->errors, line, "%s", text);
}

static bl_status fail_at(builder *b, unsigned line, const char *text) {
  note_at(b, line, text);
  return b->status = BL_EINVAL;
}

static bl_status no_memory(builder *b) {
  return b->status = BL_ENOMEM;
}

/* Plain words for "nothing". */
static bool is_null_text(const char *s) {
  return s[0] == '\0' || strcmp(s, "~") == 0 || strcmp(s, "null") == 0;
}

/* NULL when the text is fine. libyaml has checked the UTF-8; escapes can still bring in what no field of ours
 * may hold: control characters and the line breaks of Unicode. */
static const char *bad_text(const unsigned char *s, size_t n) {
  for (size_t i = 0; i < n; i++) {
    if ((s[i] < 0x20 && s[i] != '\t') || s[i] == 0x7f)
      return s[i] == '\n' ? "a value must stand on one line" : "a value contains a control character";
    bool c1 = s[i] == 0xc2 && i + 1 < n && s[i + 1] < 0xa0;
    bool separator = s[i] == 0xe2 && i + 2 < n && s[i + 1] == 0x80 && (s[i + 2] == 0xa8 || s[i + 2] == 0xa9);
    bool nonchar = s[i] == 0xef && i + 2 < n &&
                   ((s[i + 1] == 0xbb && s[i + 2] == 0xbf) || (s[i + 1] == 0xbf && s[i + 2] >= 0xbe));
    if (c1 || separator || nonchar)
      return "a value contains a control character";
  }
  return NULL;
}

static bl_node *child_by_key(const bl_node *map, const char *key) {
  for (bl_node *c = map->first; c != NULL; c = c->next) {
    if (strcmp(c->key, key) == 0)
      return c;
  }
  return NULL;
}

static void attach(bl_node *parent, bl_node *child) {
  child->parent = parent;
  child->index = parent->n_children++;
  if (parent->last != NULL)
    parent->last->next = child;
  else
    parent->first = child;
  parent->last = child;
}

/* NULL: b->status says why. */
static bl_node *new_node(builder *b, bl_node_kind kind, unsigned line) {
  if (b->doc->n_nodes >= BL_DOC_NODES_MAX) {
    fail_at(b, line, "the file has more than 100000 values");
    return NULL;
  }
  bl_node *node = bl_arena_alloc(&b->doc->arena, sizeof *node);
  if (node == NULL) {
    no_memory(b);
    return NULL;
  }
  b->doc->n_nodes++;
  node->kind = kind;
  node->line = line;
  node->override = b->override;
  return node;
}

/* Puts a node where the builder stands. A value whose key was refused stays outside of the tree. */
static void place(builder *b, bl_node *node) {
  if (b->open == NULL) {
    b->root = node;
    return;
  }
  if (b->open->kind == BL_NODE_MAP) {
    node->key = b->key;
    b->has_key = false;
    if (b->skip_value) {
      node->parent = b->open;
      b->skip_value = false;
      return;
    }
  }
  attach(b->open, node);
}

static bl_status take_key(builder *b, const yaml_event_t *e, unsigned line) {
  const char *text = (const char *)e->data.scalar.value;
  char message[200];
  b->has_key = true;
  b->key = bl_arena_strndup(&b->doc->arena, text, e->data.scalar.length);
  if (b->key == NULL)
    return no_memory(b);
  const char *bad = bad_text(e->data.scalar.value, e->data.scalar.length);
  const bl_node *twin = bad == NULL ? child_by_key(b->open, b->key) : NULL;
  if (bad == NULL && twin == NULL && b->open->n_children < BL_DOC_KEYS_MAX)
    return BL_OK;
  if (bad != NULL)
    snprintf(message, sizeof message, "a field name contains a control character");
  else if (twin != NULL)
    snprintf(message, sizeof message, "field '%.80s' stands here again; it was first given in line %u", b->key,
             twin->line);
  else
    snprintf(message, sizeof message, "a mapping has more than %d fields", BL_DOC_KEYS_MAX);
  b->skip_value = true;
  note_at(b, line, message);
  return BL_OK;
}

static bl_status take_scalar(builder *b, const yaml_event_t *e, unsigned line) {
  if (e->data.scalar.anchor != NULL)
    return fail_at(b, line, "anchors ('&name') are not supported: write the value out");
  if (e->data.scalar.tag != NULL)
    return fail_at(b, line, "tags ('!name') are not supported");
  if (b->open != NULL && b->open->kind == BL_NODE_MAP && !b->has_key)
    return take_key(b, e, line);
  const char *bad = bad_text(e->data.scalar.value, e->data.scalar.length);
  if (bad != NULL)
    note_at(b, line, bad);
  bl_node *node = new_node(b, BL_NODE_SCALAR, line);
  if (node == NULL)
    return b->status;
  node->text = bl_arena_strndup(&b->doc->arena, (const char *)e->data.scalar.value, e->data.scalar.length);
  if (node->text == NULL)
    return no_memory(b);
  node->is_null = e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE && is_null_text(node->text);
  place(b, node);
  return BL_OK;
}

static bl_status take_start(builder *b, bl_node_kind kind, bool anchored, bool tagged, unsigned line) {
  if (anchored)
    return fail_at(b, line, "anchors ('&name') are not supported: write the value out");
  if (tagged)
    return fail_at(b, line, "tags ('!name') are not supported");
  if (b->open != NULL && b->open->kind == BL_NODE_MAP && !b->has_key)
    return fail_at(b, line, "a field name must be a word, not a list or a mapping");
  if (b->depth == BL_DOC_DEPTH_MAX)
    return fail_at(b, line, "lists and mappings are nested deeper than 32 levels");
  bl_node *node = new_node(b, kind, line);
  if (node == NULL)
    return b->status;
  place(b, node);
  node->parent = b->open;
  b->open = node;
  b->depth++;
  return BL_OK;
}

static bl_status take_event(builder *b, const yaml_event_t *e) {
  unsigned line = (unsigned)e->start_mark.line + 1;
  switch (e->type) {
  case YAML_SCALAR_EVENT:
    return take_scalar(b, e, line);
  case YAML_SEQUENCE_START_EVENT:
    return take_start(b, BL_NODE_LIST, e->data.sequence_start.anchor != NULL,
                      e->data.sequence_start.tag != NULL, line);
  case YAML_MAPPING_START_EVENT:
    return take_start(b, BL_NODE_MAP, e->data.mapping_start.anchor != NULL, e->data.mapping_start.tag != NULL,
                      line);
  case YAML_SEQUENCE_END_EVENT:
  case YAML_MAPPING_END_EVENT:
    b->open = b->open->parent;
    b->depth--;
    return BL_OK;
  case YAML_ALIAS_EVENT:
    return fail_at(b, line, "aliases ('*name') are not supported: write the value out");
  case YAML_DOCUMENT_START_EVENT:
    if (b->root != NULL)
      return fail_at(b, line, "the file holds a second document: '---' may stand only at the top");
    return BL_OK;
  default:
    return BL_OK;
  }
}

static bl_status fail_syntax(builder *b, const yaml_parser_t *parser) {
  if (parser->error == YAML_MEMORY_ERROR)
    return no_memory(b);
  char text[240];
  snprintf(text, sizeof text, "not valid YAML: %s%s%s",
           parser->problem != NULL ? parser->problem : "unknown problem", parser->context != NULL ? " " : "",
           parser->context != NULL ? parser->context : "");
  return fail_at(b, (unsigned)parser->problem_mark.line + 1, text);
}

/* Runs libyaml over a text. Syntax errors end it; mistakes in keys and values are collected. */
static bl_status build(builder *b, const char *text, size_t size) {
  yaml_parser_t parser;
  if (!yaml_parser_initialize(&parser))
    return BL_ENOMEM;
  yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
  yaml_parser_set_input_string(&parser, (const unsigned char *)text, size);
  bl_status status = BL_OK;
  for (bool done = false; !done && status == BL_OK;) {
    yaml_event_t event;
    if (!yaml_parser_parse(&parser, &event)) {
      status = fail_syntax(b, &parser);
      break;
    }
    done = event.type == YAML_STREAM_END_EVENT;
    status = take_event(b, &event);
    yaml_event_delete(&event);
  }
  yaml_parser_delete(&parser);
  return status != BL_OK ? status : b->status;
}

bl_status bl_doc_parse(const char *text, size_t size, bl_doc **ret_doc, bl_conf_errors *errors) {
  if (size > BL_DOC_BYTES_MAX) {
    bl_conf_errors_add_line(errors, 0, "the file has %zu bytes; at most %u are read", size, BL_DOC_BYTES_MAX);
    return BL_EINVAL;
  }
  bl_doc *doc = bl_calloc(1, sizeof *doc);
  if (doc == NULL)
    return BL_ENOMEM;
  bl_arena_init(&doc->arena, DOC_ARENA_BYTES_MAX);
  builder b = {.doc = doc, .errors = errors};
  bl_status status = build(&b, text, size);
  if (status != BL_OK)
    goto fail;
  if (b.root == NULL || b.root->is_null)
    b.root = new_node(&b, BL_NODE_MAP, 1);
  status = b.status;
  if (status != BL_OK)
    goto fail;
  if (b.root->kind != BL_NODE_MAP) {
    status = fail_at(&b, b.root->line, "the file must hold fields ('name: value')");
    goto fail;
  }
  doc->root = b.root;
  *ret_doc = doc;
  return BL_OK;
fail:
  bl_doc_free(doc);
  return status;
}

void bl_doc_free(bl_doc *doc) {
  if (doc == NULL)
    return;
  bl_arena_fini(&doc->arena);
  bl_free(doc);
}

const bl_node *bl_node_get(const bl_node *map, const char *key) {
  if (map == NULL || map->kind != BL_NODE_MAP)
    return NULL;
  const bl_node *child = child_by_key(map, key);
  return child != NULL && !child->is_null ? child : NULL;
}

const bl_node *bl_node_find(const bl_node *map, const char *path) {
  char key[64];
  while (map != NULL && *path != '\0') {
    size_t n = strcspn(path, ".");
    if (n >= sizeof key)
      return NULL;
    memcpy(key, path, n);
    key[n] = '\0';
    map = bl_node_get(map, key);
    path += n + (path[n] == '.');
  }
  return map;
}

/* ---- overrides: a path is walked to its last step, whose node is replaced ---- */

static bl_node *add_null_member(builder *b, bl_node *map, const char *key) {
  bl_node *child = new_node(b, BL_NODE_SCALAR, 0);
  if (child == NULL)
    return NULL;
  child->key = bl_arena_strdup(&b->doc->arena, key);
  child->text = "";
  child->is_null = true;
  if (child->key == NULL) {
    no_memory(b);
    return NULL;
  }
  attach(map, child);
  return child;
}

/* One step down. Makes the mapping member when it is missing; NULL with the mistake recorded otherwise.
 * A word that is the step itself ("optimizer: adam" and optimizer.adam.lr) becomes a mapping of it. */
static bl_node *step_down(builder *b, bl_node *at, const char *step) {
  char text[300], what[80];
  if (at->kind == BL_NODE_SCALAR && (at->is_null || strcmp(at->text, step) == 0)) {
    at->kind = BL_NODE_MAP;
    at->is_null = false;
  }
  if (at->kind == BL_NODE_LIST) {
    uint64_t index;
    if (bl_str_to_u64(step, &index) != BL_OK || index >= at->n_children) {
      snprintf(text, sizeof text,
               "'%.60s' is not the number of one of the %zu items of the list, counted from 0", step,
               at->n_children);
      fail_at(b, 0, text);
      return NULL;
    }
    bl_node *item = at->first;
    while (index-- > 0)
      item = item->next;
    return item;
  }
  if (at->kind != BL_NODE_MAP) {
    snprintf(text, sizeof text, "'%.60s' cannot be set inside of %s (line %u)", step,
             bl_node_describe(at, what, sizeof what), at->line);
    fail_at(b, 0, text);
    return NULL;
  }
  bl_node *child = child_by_key(at, step);
  if (child != NULL)
    return child;
  if (at->n_children >= BL_DOC_KEYS_MAX) {
    fail_at(b, 0, "the mapping has too many fields");
    return NULL;
  }
  return add_null_member(b, at, step);
}

/* The node takes over what the value's root holds; its place and name stay. */
static void replace_node(bl_node *node, const bl_node *value) {
  node->kind = value->kind;
  node->line = 0;
  node->override = value->override;
  node->text = value->text;
  node->is_null = value->is_null;
  node->first = value->first;
  node->last = value->last;
  node->n_children = value->n_children;
  for (bl_node *c = node->first; c != NULL; c = c->next)
    c->parent = node;
}

static bl_status apply_override(bl_doc *doc, const char *text, bl_conf_errors *errors) {
  const char *equals = strchr(text, '=');
  if (equals == NULL || equals == text) {
    bl_conf_errors_add_line(errors, 0, "--set %.140s: write it as field.subfield=value", text);
    return BL_EINVAL;
  }
  char *path = bl_arena_strndup(&doc->arena, text, (size_t)(equals - text));
  const char *name = bl_arena_strndup(&doc->arena, text, (size_t)(equals - text));
  if (path == NULL || name == NULL)
    return BL_ENOMEM;
  builder b = {.doc = doc, .errors = errors, .override = name};
  const char *value = equals + 1;
  if (strlen(text) > BL_DOC_BYTES_MAX)
    return fail_at(&b, 0, "the value is too long");
  unsigned depth = 1; /* of the root */
  bl_node *node = doc->root;
  for (char *step = path, *end; step != NULL; step = end) {
    end = strchr(step, '.');
    if (end != NULL)
      *end++ = '\0';
    if (*step == '\0' || ++depth > BL_DOC_DEPTH_MAX)
      return fail_at(&b, 0, "write the field as name.name.name");
    node = step_down(&b, node, step);
    if (node == NULL)
      return b.status;
  }
  b.depth = depth - 1;
  bl_status status = build(&b, value, strlen(value));
  if (status != BL_OK)
    return status;
  bl_node nothing = {.kind = BL_NODE_SCALAR, .text = "", .is_null = true, .override = name};
  replace_node(node, b.root != NULL ? b.root : &nothing);
  return BL_OK;
}

bl_status bl_doc_override(bl_doc *doc, const char *const *overrides, size_t n, bl_conf_errors *errors) {
  bl_status result = BL_OK;
  for (size_t i = 0; i < n; i++) {
    bl_status status = apply_override(doc, overrides[i], errors);
    if (status == BL_ENOMEM)
      return status;
    if (status != BL_OK)
      result = status;
  }
  return result;
}

/* ---- messages ---- */

const char *bl_node_path(const bl_node *node, char *out, size_t size) {
  const bl_node *chain[BL_DOC_DEPTH_MAX + 2];
  size_t n = 0;
  for (const bl_node *at = node; at != NULL && at->parent != NULL && n < BL_COUNT_OF(chain); at = at->parent)
    chain[n++] = at;
  size_t used = 0;
  out[0] = '\0';
  while (n-- > 0 && used < size) {
    const bl_node *at = chain[n];
    int w = at->parent->kind == BL_NODE_LIST
                ? snprintf(out + used, size - used, "[%zu]", at->index)
                : snprintf(out + used, size - used, "%s%s", used > 0 ? "." : "", at->key);
    used += w > 0 ? (size_t)w : 0;
  }
  return out;
}

const char *bl_node_describe(const bl_node *node, char *out, size_t size) {
  if (node->kind == BL_NODE_MAP)
    bl_str_copy(out, size, "a mapping");
  else if (node->kind == BL_NODE_LIST)
    bl_str_copy(out, size, "a list");
  else
    snprintf(out, size, "'%.60s'", node->text);
  return out;
}
