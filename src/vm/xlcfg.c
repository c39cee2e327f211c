/* SPDX-License-Identifier: MIT */
/* The grammar, as xl's own parser accepts it:
 *
 *   file:       { assignment ends | ends } [ assignment ]
 *   ends:       newline | ";"
 *   assignment: NAME ( "=" | "+=" ) value
 *   value:      STRING | NUMBER | "[" nl [ value nl { "," nl value nl } [ "," nl ] ] "]"
 *   nl:         { newline }
 *
 * Recursive descent with one word of look-ahead, recursion bounded by
 * XLCFG_DEPTH_MAX.  An array has room for its count rounded up to a power of two,
 * and text for the power of two above its bytes, so that appending takes
 * amortised constant time without a capacity to keep. */
#include "vm/xlcfg.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vm/xlcfg_lex.h"

#define TOKEN_SHOWN_MAX 40      /* bytes of a word that a message repeats */

struct parser {
    struct xlcfg *x;
    struct xlcfg_lex lex;
    struct xlcfg_token token;   /* the look-ahead */
    const char *source;
    bool numbered;
    unsigned depth;
    struct err *e;
};

static unsigned line_of(const struct parser *p, const struct xlcfg_token *t)
{
    return p->numbered ? t->line : 0;
}

static int out_of_memory(struct parser *p)
{
    return err_set(p->e, ENOMEM, "out of memory");
}

static void advance(struct parser *p)
{
    xlcfg_lex_next(&p->lex, &p->token);
}

/* A hint for a file of xend's time, when configuration was Python. */
static const char *hint_for(const struct xlcfg_token *t)
{
    bool python = t->kind == XLCFG_TOKEN_BAD && t->at[0] && strchr("+-.():", t->at[0]);

    return python ? "; Python code is not supported in configuration files" : "";
}

/* The look-ahead does not fit: says so in xl's words. */
static int fail_near(struct parser *p, int code, const char *what)
{
    const struct xlcfg_token *t = &p->token;

    err_at(p->e, p->source, line_of(p, t), NULL);
    if (t->kind == XLCFG_TOKEN_END)
        return err_set(p->e, code, "config parsing error at the end: %s", what);
    if (t->kind == XLCFG_TOKEN_NEWLINE)
        return err_set(p->e, code, "config parsing error near <newline>: %s", what);
    return err_set(p->e, code, "config parsing error near `%.*s': %s%s",
                   (int)min_of(t->len, (size_t)TOKEN_SHOWN_MAX), t->at, what, hint_for(t));
}

static void value_free(struct xlcfg_value *v)
{
    for (unsigned i = 0; i < v->nr_items; i++)
        value_free(&v->items[i]);
    free(v->items);
    free(v->text);
}

/* Room for one more element in an array of nr; NULL: no memory, array is kept. */
static void *array_grow(void *array, size_t nr, size_t element_bytes)
{
    if (nr & (nr - 1))          /* not 0 and no power of two: room is left */
        return array;
    return reallocarray(array, nr ? nr * 2 : 1, element_bytes);
}

/* Moves *item to the end of list; on failure *item stays the caller's. */
static int list_append(struct xlcfg_value *list, struct xlcfg_value *item)
{
    struct xlcfg_value *items = array_grow(list->items, list->nr_items, sizeof(*items));

    if (!items)
        return -ENOMEM;
    list->items = items;
    items[list->nr_items++] = *item;
    *item = (struct xlcfg_value){ .kind = XLCFG_ATOM };
    return 0;
}

static size_t power_of_two_above(size_t n)
{
    size_t power = 1;

    while (power <= n)
        power *= 2;
    return power;
}

static int atom_append(struct xlcfg_value *atom, const struct xlcfg_value *tail)
{
    size_t bytes = atom->text_bytes + tail->text_bytes;
    char *text = atom->text;

    if (!tail->text_bytes)
        return 0;
    if (power_of_two_above(bytes) != power_of_two_above(atom->text_bytes))
        text = realloc(text, power_of_two_above(bytes));
    if (!text)
        return -ENOMEM;
    memcpy(text + atom->text_bytes, tail->text, tail->text_bytes + 1);
    atom->text = text;
    atom->text_bytes = bytes;
    return 0;
}

static int parse_atom(struct parser *p, struct xlcfg_value *out)
{
    const struct xlcfg_token *t = &p->token;
    const char *wrong = NULL;

    out->kind = XLCFG_ATOM;
    out->text = malloc(power_of_two_above(t->len));
    if (!out->text)
        return out_of_memory(p);
    if (t->kind == XLCFG_TOKEN_STRING) {
        wrong = xlcfg_lex_unquote(t, out->text, &out->text_bytes);
    } else {
        memcpy(out->text, t->at, t->len);
        out->text[t->len] = 0;
        out->text_bytes = t->len;
    }
    if (wrong)
        return fail_near(p, EINVAL, wrong);
    advance(p);
    return 0;
}

static void skip_newlines(struct parser *p)
{
    while (p->token.kind == XLCFG_TOKEN_NEWLINE)
        advance(p);
}

static int parse_value(struct parser *p, struct xlcfg_value *out);

static int parse_list_items(struct parser *p, struct xlcfg_value *list)
{
    skip_newlines(p);
    while (p->token.kind != XLCFG_TOKEN_CLOSE) {
        struct xlcfg_value item;
        int rc = parse_value(p, &item);

        if (!rc && list_append(list, &item))
            rc = out_of_memory(p);
        if (rc) {
            value_free(&item);
            return rc;
        }
        skip_newlines(p);
        if (p->token.kind == XLCFG_TOKEN_COMMA) {
            advance(p);
            skip_newlines(p);
        } else if (p->token.kind != XLCFG_TOKEN_CLOSE) {
            return fail_near(p, EINVAL, "expected `,' or `]' in a list");
        }
    }
    advance(p);
    return 0;
}

/* *out is to be freed by the caller, on failure too. */
static int parse_value(struct parser *p, struct xlcfg_value *out)
{
    int rc;

    *out = (struct xlcfg_value){ .source = p->source, .line = line_of(p, &p->token) };
    switch (p->token.kind) {
    case XLCFG_TOKEN_STRING:
    case XLCFG_TOKEN_NUMBER:
        return parse_atom(p, out);
    case XLCFG_TOKEN_OPEN:
        out->kind = XLCFG_LIST;
        if (p->depth == XLCFG_DEPTH_MAX)
            return fail_near(p, E2BIG, "lists are nested too deeply");
        p->depth++;
        advance(p);
        rc = parse_list_items(p, out);
        p->depth--;
        return rc;
    case XLCFG_TOKEN_OPEN_STRING:
        return fail_near(p, EINVAL, "the string is not closed on its line");
    default:
        return fail_near(p, EINVAL, p->depth
                         ? "expected a quoted string, a number, a list or `]'"
                         : "expected a quoted string, a number or a list");
    }
}

static struct xlcfg_setting *find(const struct xlcfg *x, const char *name, size_t len)
{
    for (unsigned i = 0; i < x->nr_settings; i++) {
        struct xlcfg_setting *s = &x->settings[i];

        if (!strncmp(s->name, name, len) && !s->name[len])
            return s;
    }
    return NULL;
}

const struct xlcfg_setting *xlcfg_find(const struct xlcfg *x, const char *name)
{
    return find(x, name, strlen(name));
}

/* Adds *tail, which is emptied, to what s holds. */
static int setting_append(struct parser *p, struct xlcfg_setting *s, struct xlcfg_value *tail)
{
    int rc = 0;

    if (s->value.kind != tail->kind) {
        err_at(p->e, p->source, tail->line, NULL);
        return err_set(p->e, EINVAL, "can't add [list] to \"string\" or vice versa");
    }
    if (tail->kind == XLCFG_ATOM)
        rc = atom_append(&s->value, tail);
    for (unsigned i = 0; !rc && i < tail->nr_items; i++)
        rc = list_append(&s->value, &tail->items[i]);
    if (rc)
        return out_of_memory(p);
    s->value.source = tail->source;
    s->value.line = tail->line;
    return 0;
}

static int setting_add(struct parser *p, const struct xlcfg_token *name,
                       struct xlcfg_setting **out)
{
    struct xlcfg *x = p->x;
    struct xlcfg_setting *settings;
    char *copy;

    if (x->nr_settings == XLCFG_SETTINGS_MAX) {
        err_at(p->e, p->source, line_of(p, name), NULL);
        return err_set(p->e, E2BIG, "more than %u different settings", XLCFG_SETTINGS_MAX);
    }
    settings = array_grow(x->settings, x->nr_settings, sizeof(*settings));
    if (!settings)
        return out_of_memory(p);
    x->settings = settings;
    copy = strndup(name->at, name->len);
    if (!copy)
        return out_of_memory(p);
    *out = &settings[x->nr_settings++];
    **out = (struct xlcfg_setting){ .name = copy };
    return 0;
}

/* Moves *value into the setting called name. */
static int store(struct parser *p, const struct xlcfg_token *name, bool append,
                 struct xlcfg_value *value)
{
    struct xlcfg_setting *s = find(p->x, name->at, name->len);
    int rc = 0;

    if (s && append) {
        rc = setting_append(p, s, value);
    } else {
        if (s)
            value_free(&s->value);
        else
            rc = setting_add(p, name, &s);
        if (!rc) {
            s->value = *value;
            *value = (struct xlcfg_value){ .kind = XLCFG_ATOM };
        }
    }
    if (!rc)
        s->appended = append;
    return rc;
}

static int parse_assignment(struct parser *p)
{
    struct xlcfg_token name = p->token;
    struct xlcfg_value value;
    char field[64];
    bool append;
    int rc;

    if (name.kind != XLCFG_TOKEN_NAME)
        return fail_near(p, EINVAL, "expected the name of a setting, which starts with a small"
                                    " letter");
    memcpy(field, name.at, min_of(name.len, sizeof(field) - 1));
    field[min_of(name.len, sizeof(field) - 1)] = 0;
    advance(p);
    append = p->token.kind == XLCFG_TOKEN_APPEND;
    if (!append && p->token.kind != XLCFG_TOKEN_ASSIGN) {
        err_at(p->e, NULL, 0, field);
        return fail_near(p, EINVAL, "expected `=' or `+='");
    }
    advance(p);
    rc = parse_value(p, &value);
    if (!rc)
        rc = store(p, &name, append, &value);
    value_free(&value);
    if (rc)
        err_at(p->e, NULL, 0, field);
    return rc;
}

static int parse_file(struct parser *p)
{
    for (;;) {
        int rc;

        while (p->token.kind == XLCFG_TOKEN_NEWLINE || p->token.kind == XLCFG_TOKEN_SEMICOLON)
            advance(p);
        if (p->token.kind == XLCFG_TOKEN_END)
            return 0;
        rc = parse_assignment(p);
        if (rc)
            return rc;
        if (p->token.kind != XLCFG_TOKEN_NEWLINE && p->token.kind != XLCFG_TOKEN_SEMICOLON &&
            p->token.kind != XLCFG_TOKEN_END)
            return fail_near(p, EINVAL, "expected a new line or `;' after a setting");
    }
}

static int source_add(struct xlcfg *x, const char *source, const char **out)
{
    char **sources = array_grow(x->sources, x->nr_sources, sizeof(*sources));
    char *copy;

    if (!sources)
        return -ENOMEM;
    x->sources = sources;
    copy = strdup(source);
    if (!copy)
        return -ENOMEM;
    sources[x->nr_sources++] = copy;
    *out = copy;
    return 0;
}

int xlcfg_parse(struct xlcfg *x, const char *text, size_t len, const char *source,
                bool numbered, struct err *e)
{
    struct parser p = {
        .x = x, .numbered = numbered, .e = e,
        .lex = { .at = text, .end = text + len, .line = 1 },
    };

    if (len > XLCFG_TEXT_MAX_BYTES) {
        err_at(e, source, 0, NULL);
        return err_set(e, E2BIG, "larger than %llu KiB, which no configuration is",
                       (unsigned long long)(XLCFG_TEXT_MAX_BYTES / KIB));
    }
    if (source_add(x, source, &p.source))
        return out_of_memory(&p);
    advance(&p);
    return parse_file(&p);
}

void xlcfg_free(struct xlcfg *x)
{
    for (unsigned i = 0; i < x->nr_settings; i++) {
        free(x->settings[i].name);
        value_free(&x->settings[i].value);
    }
    free(x->settings);
    for (unsigned i = 0; i < x->nr_sources; i++)
        free(x->sources[i]);
    free(x->sources);
    *x = (struct xlcfg){ .nr_settings = 0 };
}
