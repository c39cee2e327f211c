/* SPDX-License-Identifier: MIT */
/* Words of an xl configuration file; used by xlcfg.c alone. */
#ifndef XENOLITH_VM_XLCFG_LEX_H
#define XENOLITH_VM_XLCFG_LEX_H

#include "base/types.h"

enum xlcfg_token_kind {
    XLCFG_TOKEN_END, XLCFG_TOKEN_NEWLINE, XLCFG_TOKEN_NAME, XLCFG_TOKEN_NUMBER,
    XLCFG_TOKEN_STRING,         /* with its quotes */
    XLCFG_TOKEN_ASSIGN, XLCFG_TOKEN_APPEND, XLCFG_TOKEN_COMMA, XLCFG_TOKEN_SEMICOLON,
    XLCFG_TOKEN_OPEN, XLCFG_TOKEN_CLOSE,
    XLCFG_TOKEN_OPEN_STRING,    /* a string that its line does not close */
    XLCFG_TOKEN_BAD,
};

struct xlcfg_token {
    enum xlcfg_token_kind kind;
    const char *at;
    size_t len;
    unsigned line;              /* from 1 */
};

struct xlcfg_lex {
    const char *at, *end;
    unsigned line;              /* of at; starts at 1 */
};

void xlcfg_lex_next(struct xlcfg_lex *l, struct xlcfg_token *t);

/* Resolves the escapes of a string token into out, which has room for t->len
 * bytes.  NULL, or what is wrong with the string. */
const char *xlcfg_lex_unquote(const struct xlcfg_token *t, char *out, size_t *out_bytes);

#endif
