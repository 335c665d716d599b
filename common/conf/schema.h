/* SPDX-License-Identifier: Apache-2.0
 *
 * Tables of fields: from a YAML document to a checked struct and back.
 *
 * One row per field: name, type, place in the struct, default, limits, sentence of documentation. The same
 * table fills the struct, finds every mistake (unknown field with the nearest right name, wrong type with what
 * is allowed, value out of range with its limits), writes the file with its comments, and lists the fields for
 * the documentation. What a row cannot say is a BL_FIELD_CUSTOM with functions of its own.
 *
 * Texts and lists live in the reader's arena. Depth of recursion is that of the tables, never of the input.
 */
#ifndef BL_CONF_SCHEMA_H
#define BL_CONF_SCHEMA_H

#include "conf/doc.h"

#include <stdint.h>

typedef enum bl_field_type {
  BL_FIELD_BOOL = 1,
  BL_FIELD_U16,
  BL_FIELD_U32,
  BL_FIELD_U64,
  BL_FIELD_DOUBLE,
  BL_FIELD_FRACTION, /* double: "10 %" or 0.1 */
  BL_FIELD_BYTES,    /* uint64_t: "8 GiB" */
  BL_FIELD_NS,       /* uint64_t: "30 s" */
  BL_FIELD_TEXT,     /* const char *; no default: NULL */
  BL_FIELD_CHAR,     /* char: one byte, "tab" for the tabulator */
  BL_FIELD_ENUM,     /* an enum (as wide as int): one of the words */
  BL_FIELD_LIST,     /* of texts: const char *const * and size_t; a single text counts as a list of one */
  BL_FIELD_SECTION,  /* a mapping with fields of its own in the same struct */
  BL_FIELD_CUSTOM,
  BL_FIELD_COUNT
} bl_field_type;

typedef struct bl_word {
  const char *name;
  int value;
} bl_word;

/* What a reading needs to know. */
typedef struct bl_conf_reader {
  bl_arena *arena; /* takes what is read */
  bl_conf_errors *errors;
  void *base;     /* the struct */
  bool no_memory; /* set once an allocation failed; the result is worthless then */
} bl_conf_reader;

typedef struct bl_field bl_field;
struct bl_field {
  const char *name;
  bl_field_type type;
  size_t offset;       /* of the value in the struct */
  size_t count_offset; /* lists: of the size_t; BL_FIELD_U32 and BYTES with auto: of the bool */
  bool has_auto;       /* the word "auto" is allowed (and the default): the bool says so */
  bool required;
  const char *default_text;  /* as written in a file; NULL: zero, NULL, empty */
  const char *example;       /* written behind "# " in a dump when there is no value */
  uint64_t min, max;         /* integers, bytes, ns, list length, text length; max 0: the type's own */
  double real_min, real_max; /* DOUBLE, FRACTION; both 0: none */
  bool real_max_open;        /* real_max itself is not allowed */
  uint64_t multiple_of;      /* 0: any */
  /* Version that brought the field; 0 or 1: the first. Of a later one, a dump without comments leaves the field out
   * at its default, so that programs that do not know it can read the rest. */
  unsigned since;
  const bl_word *words;      /* ENUM */
  size_t n_words;
  const bl_field *fields; /* SECTION; CUSTOM with a mapping form, for documentation */
  size_t n_fields;
  bl_status (*check)(const char *text); /* TEXT, LIST items: BL_EINVAL refuses with allowed_text */
  const char *allowed_text;             /* "small letters, digits, '-' and '_'" */
  void (*read)(bl_conf_reader *r, const bl_field *field, const bl_node *node); /* CUSTOM */
  /* CUSTOM: everything behind "name:", with the line's end; items on own lines are indented by `indent` + 2. */
  void (*write)(const bl_field *field, const void *base, unsigned indent, bl_buf *out);
  const char *doc; /* one or more sentences, a '\n' between lines of at most about 100 bytes */
};

#define BL_FIELDS(table) .fields = (table), .n_fields = BL_COUNT_OF(table)
#define BL_WORDS(table) .words = (table), .n_words = BL_COUNT_OF(table)

/* Fills r->base: defaults first, then what the mapping gives. Mistakes are collected in r->errors; the caller
 * looks at errors->n and r->no_memory at the end. */
void bl_schema_read(bl_conf_reader *r, const bl_field *fields, size_t n, const bl_node *map);
void bl_schema_defaults(bl_conf_reader *r, const bl_field *fields, size_t n);
/* Only what is given: the rest of the struct stays. Required fields are still missed. */
void bl_schema_read_given(bl_conf_reader *r, const bl_field *fields, size_t n, const bl_node *map);
/* One value by its row, as bl_schema_read does. */
void bl_schema_read_value(bl_conf_reader *r, const bl_field *field, const bl_node *node);

/* Every field with its value, in the order of the table; with its comments or without. */
void bl_schema_dump(const bl_field *fields, size_t n, const void *base, unsigned indent, bool comments,
                    bl_buf *out);
/* "{a: 1, b: x}" on one line, for small mappings. Fields without a value are left out. */
void bl_schema_dump_flow(const bl_field *fields, size_t n, const void *base, bl_buf *out);

/* Whether the field says what its default says. A CUSTOM one must write that as its default_text has it (none: "null");
 * a section does when all its fields do. */
bool bl_schema_is_default(const bl_field *f, const void *base);
/* The newest field that is not at its default: its version in *since where that is higher. NULL: none higher. */
const bl_field *bl_schema_newest(const bl_field *fields, size_t n, const void *base, unsigned *since);

/* Name of a word's value; "?" when there is none. */
const char *bl_word_name(const bl_word *words, size_t n, int value);
/* "a, b, c", cut to size. Returns out. */
const char *bl_word_list(const bl_word *words, size_t n, char *out, size_t size);
/* "; did you mean 'x'?" or "". Returns out. */
const char *bl_conf_nearest(const char *word, const char *const *names, size_t n, char *out, size_t size);
/* Reports a member that no row knows. */
void bl_schema_unknown(bl_conf_reader *r, const bl_field *fields, size_t n, const bl_node *node);

/* A text as a YAML scalar, quoted where it must be. */
void bl_yaml_add_text(bl_buf *out, const char *text);
/* Shortest decimal that reads back as the same double. */
void bl_yaml_add_double(bl_buf *out, double v);
/* "[a, b]". */
void bl_yaml_add_list(bl_buf *out, const char *const *items, size_t n);
/* Scalar at the node as a number; otherwise the mistake is recorded. */
bool bl_node_to_double(bl_conf_reader *r, const bl_node *node, double *ret_value);
bool bl_node_to_u64(bl_conf_reader *r, const bl_node *node, uint64_t *ret_value);
/* A text, or a list of texts, copied into the arena. */
bool bl_node_to_list(bl_conf_reader *r, const bl_node *node, const char *const **ret_items, size_t *ret_n);
/* Copy in the reader's arena; "" and no_memory set when memory is short. */
const char *bl_conf_text(bl_conf_reader *r, const char *text);

#endif
