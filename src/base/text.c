/* SPDX-License-Identifier: MIT */
#include "base/text.h"

#include "base/types.h"

/* The bytes of the UTF-8 character that s begins with; 0: it is none. */
static unsigned character_bytes(const unsigned char *s)
{
    unsigned bytes = *s < 0x80 ? 1 : *s < 0xc2 ? 0 : *s < 0xe0 ? 2 : *s < 0xf0 ? 3 :
                     *s < 0xf5 ? 4 : 0;

    for (unsigned i = 1; i < bytes; i++)    /* the end of the text is no continuation either */
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    return bytes;
}

/* C0, DEL, and C1, among which is a one-character form of ESC [. */
static bool is_control(const unsigned char *s, unsigned bytes)
{
    return bytes == 1 ? *s < ' ' || *s == 0x7f : bytes == 2 && s[0] == 0xc2 && s[1] < 0xa0;
}

void text_make_harmless(char *text)
{
    unsigned char *at = (unsigned char *)text;

    while (*at) {
        unsigned bytes = character_bytes(at);
        bool keep = bytes && !is_control(at, bytes);

        for (unsigned n = max_of(bytes, 1u); n; n--, at++)
            if (!keep)
                *at = '?';
    }
}
