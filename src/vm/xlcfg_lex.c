/* SPDX-License-Identifier: MIT */
/* The words xl's own scanner knows, and three kindnesses it lacks: a carriage
 * return before a newline, a comment on a last line without newline, and a
 * backslash that continues a line. */
#include "vm/xlcfg_lex.h"

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static int hex_value(char c)
{
    if (is_digit(c))
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

static bool is_name_start(char c)
{
    return c >= 'a' && c <= 'z';
}

static bool is_name(char c)
{
    return is_name_start(c) || is_digit(c) || c == '_' || c == '.';
}

static bool is_number(char c)
{
    return hex_value(c) >= 0 || c == 'x' || c == 'X';
}

/* The length of a line's end at p: 1 for LF, 2 for CR LF, 0 for none. */
static size_t newline_len(const char *p, const char *end)
{
    if (p < end && *p == '\n')
        return 1;
    return end - p >= 2 && p[0] == '\r' && p[1] == '\n' ? 2 : 0;
}

/* Moves over blanks, continued lines and a comment, but not over the newline. */
static void skip_blanks(struct xlcfg_lex *l)
{
    while (l->at < l->end) {
        size_t skip;

        if (*l->at == ' ' || *l->at == '\t') {
            l->at++;
        } else if (*l->at == '\\' && (skip = newline_len(l->at + 1, l->end))) {
            l->at += 1 + skip;
            l->line++;
        } else if (*l->at == '#') {
            while (l->at < l->end && !newline_len(l->at, l->end))
                l->at++;
        } else {
            return;
        }
    }
}

static size_t string_len(const char *at, const char *end, bool *closed)
{
    const char *p = at + 1;

    *closed = false;
    while (p < end && *p != '\n' && !*closed) {
        if (*p == '\\' && end - p >= 2 && p[1] != '\n')
            p++;
        else
            *closed = *p == *at;
        p++;
    }
    return (size_t)(p - at);
}

static size_t run_len(const char *at, const char *end, bool (*belongs)(char c))
{
    const char *p = at;

    while (p < end && belongs(*p))
        p++;
    return (size_t)(p - at);
}

static bool is_word(char c)
{
    return c != ' ' && c != '\t' && c != '\n' && c != '\r';
}

void xlcfg_lex_next(struct xlcfg_lex *l, struct xlcfg_token *t)
{
    size_t left, newline;
    bool closed;

    skip_blanks(l);
    left = (size_t)(l->end - l->at);
    *t = (struct xlcfg_token){ .at = l->at, .len = 1, .line = l->line };
    newline = newline_len(l->at, l->end);
    if (!left) {
        t->kind = XLCFG_TOKEN_END;
        t->len = 0;
    } else if (newline) {
        t->kind = XLCFG_TOKEN_NEWLINE;
        t->len = newline;
        l->line++;
    } else if (is_name_start(*l->at)) {
        t->kind = XLCFG_TOKEN_NAME;
        t->len = run_len(l->at, l->end, is_name);
    } else if (is_digit(*l->at)) {
        t->kind = XLCFG_TOKEN_NUMBER;
        t->len = run_len(l->at, l->end, is_number);
    } else if (*l->at == '-' && left >= 2 && is_digit(l->at[1])) {
        t->kind = XLCFG_TOKEN_NUMBER;
        t->len = 1 + run_len(l->at + 1, l->end, is_number);
    } else if (*l->at == '"' || *l->at == '\'') {
        t->len = string_len(l->at, l->end, &closed);
        t->kind = closed ? XLCFG_TOKEN_STRING : XLCFG_TOKEN_OPEN_STRING;
    } else if (*l->at == '+' && left >= 2 && l->at[1] == '=') {
        t->kind = XLCFG_TOKEN_APPEND;
        t->len = 2;
    } else if (*l->at == '=') {
        t->kind = XLCFG_TOKEN_ASSIGN;
    } else if (*l->at == ',') {
        t->kind = XLCFG_TOKEN_COMMA;
    } else if (*l->at == ';') {
        t->kind = XLCFG_TOKEN_SEMICOLON;
    } else if (*l->at == '[') {
        t->kind = XLCFG_TOKEN_OPEN;
    } else if (*l->at == ']') {
        t->kind = XLCFG_TOKEN_CLOSE;
    } else {
        t->kind = XLCFG_TOKEN_BAD;
        t->len = max_of(run_len(l->at, l->end, is_word), (size_t)1);
    }
    l->at += t->len;
}

/* One escape after its backslash; p moves past it.  -1: unknown, -2: bad digits. */
static int unescape(const char **p, const char *end)
{
    static const char letters[] = "abfnrtv\"'\\";
    static const char bytes[] = "\a\b\f\n\r\t\v\"'\\";
    char c = *(*p)++;
    int value = 0;

    for (unsigned i = 0; i < sizeof(letters) - 1; i++)
        if (c == letters[i])
            return bytes[i];
    if (c == 'x') {
        for (unsigned i = 0; i < 2; i++, (*p)++) {
            if (*p == end || hex_value(**p) < 0)
                return -2;
            value = value * 16 + hex_value(**p);
        }
        return value;
    }
    if (c < '0' || c > '7')
        return -1;
    value = c - '0';
    for (unsigned i = 0; i < 2 && *p < end && **p >= '0' && **p <= '7'; i++, (*p)++)
        value = value * 8 + (**p - '0');
    return value > 255 ? -2 : value;
}

const char *xlcfg_lex_unquote(const struct xlcfg_token *t, char *out, size_t *out_bytes)
{
    const char *p = t->at + 1, *end = t->at + t->len - 1;
    size_t n = 0;

    while (p < end) {
        int c = (unsigned char)*p++;

        if (c == '\\') {
            c = unescape(&p, end);
            if (c == -1)
                return "invalid character after backslash in quoted string";
            if (c == -2)
                return "invalid digits after backslash in quoted string,"
                       " expected \\xHH or \\OOO";
        }
        if (c == 0)
            return "a quoted string may not hold a NUL character";
        out[n++] = (char)c;
    }
    out[n] = 0;
    *out_bytes = n;
    return NULL;
}
