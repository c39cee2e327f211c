/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/text.h"
#include "base/types.h"

static void terminals_obey_nothing_of_it(void **state)
{
    static const struct { const char *text, *wanted; } t[] = {
        { "", "" }, { "plain, ~!", "plain, ~!" },
        { "\x1b[2J\n\t\x7f", "?[2J???" },
        { "\xc2\x9b" "2J", "??2J" }, { "\xc2\x80\xc2\x9f", "????" },    /* C1 */
        { "\x9b" "2J", "?2J" },                                     /* ... of 8 bits */
        { "\xc2\xa0g\xc3\xa4ste \xe2\x82\xac \xf0\x9f\x90\xa7", /* no-break space, and others */
          "\xc2\xa0g\xc3\xa4ste \xe2\x82\xac \xf0\x9f\x90\xa7" },
        { "\xc3", "?" }, { "\xe2\x82", "??" }, { "\xe2\x82x", "??x" },
        { "\xf0\x9f\x90\x1b", "????" },
        { "\xc0\x9b", "??" }, { "\xff\xf5", "??" },
    };

    for (unsigned i = 0; i < array_size(t); i++) {
        char text[64];

        strcpy(text, t[i].text);
        text_make_harmless(text);
        assert_string_equal(text, t[i].wanted);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = { cmocka_unit_test(terminals_obey_nothing_of_it) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
