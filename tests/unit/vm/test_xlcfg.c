/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "vm/xlcfg.h"
#include "vm/xlcfg_get.h"

struct parsed { struct xlcfg x; struct err e; int rc; };

static struct parsed parse_bytes(const char *text, size_t len)
{
    struct parsed p = { .rc = 0 };

    p.rc = xlcfg_parse(&p.x, text, len, "f", true, &p.e);
    return p;
}

static struct parsed parse(const char *text)
{
    return parse_bytes(text, strlen(text));
}

/* A value as text: atoms in <>, lists in []. */
static void show(FILE *out, const struct xlcfg_value *v)
{
    if (v->kind == XLCFG_ATOM) {
        fprintf(out, "<%s>", v->text);
        assert_int_equal(v->text_bytes, strlen(v->text));
        return;
    }
    fputc('[', out);
    for (unsigned i = 0; i < v->nr_items; i++)
        show(out, &v->items[i]);
    fputc(']', out);
}

static void assert_value_of_a(const char *text, const char *expected)
{
    struct parsed p = parse(text);
    const struct xlcfg_setting *a = xlcfg_find(&p.x, "a");
    char *shown = NULL;
    size_t len;
    FILE *out = open_memstream(&shown, &len);

    if (p.rc)
        print_error("%s: %s\n", text, p.e.text);
    assert_int_equal(p.rc, 0);
    assert_non_null(a);
    show(out, &a->value);
    fclose(out);
    assert_string_equal(shown, expected);
    free(shown);
    xlcfg_free(&p.x);
}

static void assert_refused(const char *text, int code, unsigned line, const char *part)
{
    struct parsed p = parse(text);

    if (!strstr(p.e.text, part))
        print_error("%s: got `%s', wanted `%s'\n", text, p.e.text, part);
    assert_int_equal(p.rc, -code);
    assert_int_equal(p.e.code, code);
    assert_int_equal(p.e.line, line);
    assert_string_equal(p.e.file, "f");
    assert_non_null(strstr(p.e.text, part));
    xlcfg_free(&p.x);
}

static void atoms_are_strings_and_numbers(void **state)
{
    assert_value_of_a("a=1", "<1>");
    assert_value_of_a("a=0x1F\n", "<0x1F>");
    assert_value_of_a("a = -12", "<-12>");
    assert_value_of_a("a=\"\"", "<>");
    assert_value_of_a("a='say \"x\"'", "<say \"x\">");
    assert_value_of_a("a=\"it's # no comment; nor [list]\"", "<it's # no comment; nor [list]>");
    assert_value_of_a("a='\xc3\xa9'", "<\xc3\xa9>");
}

static void escapes_give_their_bytes(void **state)
{
    assert_value_of_a("a='\\a\\b\\f\\n\\r\\t\\v'", "<\a\b\f\n\r\t\v>");
    assert_value_of_a("a=\"\\\\ \\' \\\"\"", "<\\ ' \">");
    assert_value_of_a("a='\\x41\\x7a'", "<Az>");
    assert_value_of_a("a='\\101\\60\\7z'", "<A0\007z>");
    assert_value_of_a("a='\\1010'", "<A0>");
}

static void wrong_escapes_are_refused(void **state)
{
    assert_refused("a='\\q'", EINVAL, 1, "invalid character after backslash");
    assert_refused("a='\\xg0'", EINVAL, 1, "invalid digits");
    assert_refused("a='\\x4'", EINVAL, 1, "invalid digits");
    assert_refused("a='\\777'", EINVAL, 1, "invalid digits");
    assert_refused("a='\\x00'", EINVAL, 1, "NUL");
    assert_refused("a='\\0'", EINVAL, 1, "NUL");
    assert_refused("a='\\'", EINVAL, 1, "not closed");
}

static void lists_nest_and_span_lines(void **state)
{
    assert_value_of_a("a=[]", "[]");
    assert_value_of_a("a=[1,'b',]", "[<1><b>]");
    assert_value_of_a("a=[[1,[2]],[],3]", "[[<1>[<2>]][]<3>]");
    assert_value_of_a("a=[\n\n# none\n]", "[]");
    assert_value_of_a("a=[1 # one\n,2\n,\n] # end", "[<1><2>]");
}

static void statements_end_with_newline_semicolon_or_the_end(void **state)
{
    assert_value_of_a("b=1;a=2;", "<2>");
    assert_value_of_a(";;\n;a=2\n;\n\n", "<2>");
    assert_value_of_a("a=2#", "<2>");
    assert_value_of_a("# a=1\na=2", "<2>");
    assert_value_of_a("a.b_1=1;a=2", "<2>");
}

static void carriage_returns_before_newlines_do_not_count(void **state)
{
    assert_value_of_a("b=1\r\na=[1,\r\n2] # c\r\n\r\n", "[<1><2>]");
    assert_refused("b=1\r\na=\r\n", EINVAL, 2, "<newline>");
    assert_refused("a=1\r2", EINVAL, 1, "new line");
}

static void a_backslash_continues_a_line(void **state)
{
    assert_value_of_a("a \\\n = \\\r\n 1", "<1>");
    assert_refused("a = \\\n\\\n =", EINVAL, 3, "near `='");
    assert_refused("a = \\ 1", EINVAL, 1, "near `\\'");
}

static void the_last_assignment_wins(void **state)
{
    assert_value_of_a("a=1\na=[2]\na=3", "<3>");
    assert_value_of_a("a=1\na+='x'\na='y'", "<y>");
}

static void append_joins_strings_and_lists(void **state)
{
    assert_value_of_a("a+='x'", "<x>");
    assert_value_of_a("a='x';a+='';a+='yz';a+=1", "<xyz1>");
    assert_value_of_a("a='';a+='y'", "<y>");
    assert_value_of_a("a=[1];a+=[2,[3]];a+=[];a+=[4]", "[<1><2>[<3>]<4>]");
    assert_refused("a=[1]\na+='x'", EINVAL, 2, "can't add [list]");
    assert_refused("a='x'\n\na+=[1]", EINVAL, 3, "can't add [list]");
}

static void many_appends_keep_every_byte_and_item(void **state)
{
    char text[16384] = "", expected[2048];
    struct parsed p;

    for (unsigned i = 0; i < 600; i++)
        strcat(text, i % 2 ? "s+='ab'\n" : "l+=[1]\n");
    p = parse(text);
    assert_int_equal(p.rc, 0);
    for (unsigned i = 0; i < 300; i++)
        memcpy(expected + 2 * i, "ab", 3);
    assert_string_equal(xlcfg_find(&p.x, "s")->value.text, expected);
    assert_int_equal(xlcfg_find(&p.x, "l")->value.nr_items, 300);
    xlcfg_free(&p.x);
}

static void values_know_their_lines(void **state)
{
    struct parsed p = parse("\na = [ 1,\n\n 2 ]\nb = 'x'\nb += 'y'");
    const struct xlcfg_value *a = &xlcfg_find(&p.x, "a")->value;

    assert_int_equal(a->line, 2);
    assert_int_equal(a->items[0].line, 2);
    assert_int_equal(a->items[1].line, 4);
    assert_int_equal(xlcfg_find(&p.x, "b")->value.line, 6);
    assert_true(xlcfg_find(&p.x, "b")->appended);
    xlcfg_free(&p.x);
}

static void later_sources_override_earlier_ones(void **state)
{
    struct xlcfg x = { .nr_settings = 0 };
    struct err e = { .code = 0 };

    assert_int_equal(xlcfg_parse(&x, "a=1\nb=1", 7, "file", true, &e), 0);
    assert_int_equal(xlcfg_parse(&x, "a=2", 3, "words", false, &e), 0);
    assert_string_equal(xlcfg_find(&x, "a")->value.text, "2");
    assert_string_equal(xlcfg_find(&x, "a")->value.source, "words");
    assert_int_equal(xlcfg_find(&x, "a")->value.line, 0);
    assert_string_equal(xlcfg_find(&x, "b")->value.source, "file");
    xlcfg_free(&x);
}

static void syntax_errors_name_line_word_and_expectation(void **state)
{
    assert_refused("a", EINVAL, 1, "at the end: expected `=' or `+='");
    assert_refused("a 1", EINVAL, 1, "near `1': expected `='");
    assert_refused("a==1", EINVAL, 1, "near `=': expected a quoted string");
    assert_refused("a=1 b=2", EINVAL, 1, "near `b': expected a new line");
    assert_refused("a=[1 2]", EINVAL, 1, "near `2': expected `,' or `]'");
    assert_refused("a=[,]", EINVAL, 1, "near `,'");
    assert_refused("a=[1,,2]", EINVAL, 1, "near `,'");
    assert_refused("a=[1;2]", EINVAL, 1, "near `;'");
    assert_refused("a=[1\n\n", EINVAL, 3, "at the end");
    assert_refused("a=1]", EINVAL, 1, "near `]'");
    assert_refused("=1", EINVAL, 1, "expected the name");
    assert_refused("'a'=1", EINVAL, 1, "expected the name");
    assert_refused("_a=1", EINVAL, 1, "expected the name");
    assert_refused("a-b=1", EINVAL, 1, "near `-b=1': expected `='");
    assert_refused("a='x\n'", EINVAL, 1, "not closed");
    assert_refused("a=True", EINVAL, 1, "near `True'");
    assert_refused("\n\na=f(x)", EINVAL, 3, "near `f'");
    assert_refused("a=1+2", EINVAL, 1, "Python");
}

static void a_nul_in_the_text_is_refused(void **state)
{
    static const char outside[] = "a=1\0b=2", inside[] = "a='x\0y'";
    struct parsed p = parse_bytes(outside, sizeof(outside) - 1);

    assert_int_equal(p.rc, -EINVAL);
    assert_null(strstr(p.e.text, "Python"));
    xlcfg_free(&p.x);
    p = parse_bytes(inside, sizeof(inside) - 1);
    assert_int_equal(p.rc, -EINVAL);
    assert_non_null(strstr(p.e.text, "NUL"));
    xlcfg_free(&p.x);
}

static void depth_is_limited(void **state)
{
    char text[128] = "a=";

    memset(text + 2, '[', XLCFG_DEPTH_MAX);
    memset(text + 2 + XLCFG_DEPTH_MAX, ']', XLCFG_DEPTH_MAX);
    struct parsed p = parse(text);
    assert_int_equal(p.rc, 0);
    xlcfg_free(&p.x);

    memset(text + 2, '[', XLCFG_DEPTH_MAX + 1);
    text[3 + XLCFG_DEPTH_MAX] = 0;
    assert_refused(text, E2BIG, 1, "nested too deeply");
}

static void size_is_limited(void **state)
{
    size_t len = XLCFG_TEXT_MAX_BYTES;
    char *text = malloc(len + 1);
    struct parsed p;

    memset(text, '#', len + 1);
    p = parse_bytes(text, len);
    assert_int_equal(p.rc, 0);
    xlcfg_free(&p.x);
    p = parse_bytes(text, len + 1);
    assert_int_equal(p.rc, -E2BIG);
    xlcfg_free(&p.x);
    free(text);
}

static void the_number_of_settings_is_limited(void **state)
{
    char *text = calloc(XLCFG_SETTINGS_MAX + 1, 16);
    char *at = text;
    struct parsed p;

    for (unsigned i = 0; i < XLCFG_SETTINGS_MAX; i++)
        at += sprintf(at, "k%u=1\n", i);
    p = parse(text);
    assert_int_equal(p.rc, 0);
    assert_int_equal(p.x.nr_settings, XLCFG_SETTINGS_MAX);
    xlcfg_free(&p.x);
    sprintf(at, "one_more=1");
    assert_refused(text, E2BIG, XLCFG_SETTINGS_MAX + 1, "different settings");
    free(text);
}

static void numbers_are_read_in_three_bases(void **state)
{
    static const struct { const char *text; int64_t n; } good[] = {
        { "a=10", 10 }, { "a=0x10", 16 }, { "a=010", 8 }, { "a=-3", -3 }, { "a='7'", 7 },
        { "a=0", 0 },
    };

    for (unsigned i = 0; i < array_size(good); i++) {
        struct parsed p = parse(good[i].text);
        int64_t n = 99;

        assert_int_equal(xlcfg_get_number(&p.x, "a", -100, 100, &n, &p.e), 0);
        assert_int_equal(n, good[i].n);
        assert_int_equal(xlcfg_get_number(&p.x, "absent", -100, 100, &n, &p.e), 0);
        assert_int_equal(n, good[i].n);
        xlcfg_free(&p.x);
    }
}

static void what_is_no_number_in_bounds_is_refused(void **state)
{
    static const struct { const char *text; int code; } bad[] = {
        { "a=101", ERANGE }, { "a=-101", ERANGE }, { "a=''", EINVAL }, { "a='x'", EINVAL },
        { "a='1x'", EINVAL }, { "a=09", EINVAL }, { "a=99999999999999999999", ERANGE },
        { "a=[1]", EINVAL }, { "a=1;a+=1", EINVAL },
    };

    for (unsigned i = 0; i < array_size(bad); i++) {
        struct parsed p = parse(bad[i].text);
        int64_t n = 99;

        assert_int_equal(xlcfg_get_number(&p.x, "a", -100, 100, &n, &p.e), -bad[i].code);
        assert_int_equal(n, 99);
        assert_string_equal(p.e.field, "a");
        assert_int_equal(p.e.line, 1);
        xlcfg_free(&p.x);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(atoms_are_strings_and_numbers),
        cmocka_unit_test(escapes_give_their_bytes),
        cmocka_unit_test(wrong_escapes_are_refused),
        cmocka_unit_test(lists_nest_and_span_lines),
        cmocka_unit_test(statements_end_with_newline_semicolon_or_the_end),
        cmocka_unit_test(carriage_returns_before_newlines_do_not_count),
        cmocka_unit_test(a_backslash_continues_a_line),
        cmocka_unit_test(the_last_assignment_wins),
        cmocka_unit_test(append_joins_strings_and_lists),
        cmocka_unit_test(many_appends_keep_every_byte_and_item),
        cmocka_unit_test(values_know_their_lines),
        cmocka_unit_test(later_sources_override_earlier_ones),
        cmocka_unit_test(syntax_errors_name_line_word_and_expectation),
        cmocka_unit_test(a_nul_in_the_text_is_refused),
        cmocka_unit_test(depth_is_limited),
        cmocka_unit_test(size_is_limited),
        cmocka_unit_test(the_number_of_settings_is_limited),
        cmocka_unit_test(numbers_are_read_in_three_bases),
        cmocka_unit_test(what_is_no_number_in_bounds_is_refused),
    };

    return cmocka_run_group_tests_name("xlcfg", tests, NULL, NULL);
}
