/* SPDX-License-Identifier: MIT */
#include "ctl/uuid.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

static bool dash_before(unsigned byte)
{
    return byte == 4 || byte == 6 || byte == 8 || byte == 10;
}

void uuid_format(const uint8_t uuid[16], char text[UUID_TEXT_BYTES])
{
    for (unsigned i = 0; i < 16; i++)
        text += sprintf(text, "%s%02x", dash_before(i) ? "-" : "", uuid[i]);
}

static int hex_digit(char c)
{
    const char *digits = "0123456789abcdef";
    const char *at = c ? strchr(digits, tolower((unsigned char)c)) : NULL;

    return at ? (int)(at - digits) : -1;
}

int uuid_parse(const char *text, uint8_t uuid[16])
{
    for (unsigned i = 0; i < 16; i++) {
        int high, low;

        if (dash_before(i) && *text++ != '-')
            return -EINVAL;
        high = hex_digit(text[0]);
        low = high < 0 ? -1 : hex_digit(text[1]);
        if (low < 0)
            return -EINVAL;
        uuid[i] = (uint8_t)(high << 4 | low);
        text += 2;
    }
    return *text ? -EINVAL : 0;
}

int uuid_random(uint8_t uuid[16])
{
    if (getrandom(uuid, 16, 0) != 16)
        return -errno;
    uuid[6] = (uuid[6] & 0x0f) | 0x40;
    uuid[8] = (uuid[8] & 0x3f) | 0x80;
    return 0;
}
