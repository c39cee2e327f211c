/* SPDX-License-Identifier: MIT */
/* UUIDs as text (RFC 4122, lower case) and at random. */
#ifndef XENOLITH_CTL_UUID_H
#define XENOLITH_CTL_UUID_H

#include "base/types.h"

#define UUID_TEXT_BYTES 37

void uuid_format(const uint8_t uuid[16], char text[UUID_TEXT_BYTES]);
/* 0 or -EINVAL */
int uuid_parse(const char *text, uint8_t uuid[16]);
/* Version 4.  0 or -errno. */
int uuid_random(uint8_t uuid[16]);

#endif
