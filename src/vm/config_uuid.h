/* SPDX-License-Identifier: MIT */
/* The 128 bits that name a guest for ever: RFC 4122. */
#ifndef XENOLITH_VM_CONFIG_UUID_H
#define XENOLITH_VM_CONFIG_UUID_H

#include "base/types.h"

#define VM_UUID_BYTES 16
#define VM_UUID_TEXT_BYTES 37   /* with the final NUL */

/* xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx, hexadecimal in either case.  -EINVAL. */
int vm_uuid_parse(const char *text, uint8_t uuid[VM_UUID_BYTES]);
/* In small letters; returns buf. */
const char *vm_uuid_format(const uint8_t uuid[VM_UUID_BYTES], char buf[VM_UUID_TEXT_BYTES]);
/* A random one (version 4).  -errno when the kernel gives no random bytes. */
int vm_uuid_generate(uint8_t uuid[VM_UUID_BYTES]);

#endif
