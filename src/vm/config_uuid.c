/* SPDX-License-Identifier: MIT */
#include "vm/config_uuid.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

static const char hex[] = "0123456789abcdef";

static bool dash_before_byte(unsigned i)
{
    return i == 4 || i == 6 || i == 8 || i == 10;
}

static int nibble(char c)
{
    const char *at = memchr(hex, c >= 'A' && c <= 'F' ? c - 'A' + 'a' : c, 16);

    return at ? (int)(at - hex) : -1;
}

int vm_uuid_parse(const char *text, uint8_t uuid[VM_UUID_BYTES])
{
    uint8_t bytes[VM_UUID_BYTES];

    for (unsigned i = 0; i < VM_UUID_BYTES; i++) {
        int high, low;

        if (dash_before_byte(i) && *text++ != '-')
            return -EINVAL;
        high = nibble(*text);
        if (high < 0)
            return -EINVAL;
        low = nibble(text[1]);
        if (low < 0)
            return -EINVAL;
        bytes[i] = (uint8_t)(high << 4 | low);
        text += 2;
    }
    if (*text)
        return -EINVAL;
    memcpy(uuid, bytes, sizeof(bytes));
    return 0;
}

const char *vm_uuid_format(const uint8_t uuid[VM_UUID_BYTES], char buf[VM_UUID_TEXT_BYTES])
{
    char *p = buf;

    for (unsigned i = 0; i < VM_UUID_BYTES; i++) {
        if (dash_before_byte(i))
            *p++ = '-';
        *p++ = hex[uuid[i] >> 4];
        *p++ = hex[uuid[i] & 15];
    }
    *p = 0;
    return buf;
}

int vm_uuid_generate(uint8_t uuid[VM_UUID_BYTES])
{
    /* so few bytes come whole or not at all */
    if (getrandom(uuid, VM_UUID_BYTES, 0) != VM_UUID_BYTES)
        return -errno;
    uuid[6] = (uint8_t)((uuid[6] & 0x0f) | 0x40);   /* version 4 */
    uuid[8] = (uint8_t)((uuid[8] & 0x3f) | 0x80);   /* variant of RFC 4122 */
    return 0;
}
