/* SPDX-License-Identifier: MIT */
/* Decompression of kernel payloads.  Every format a bzImage uses tells the size
 * of what it holds (gzip in its trailer, the others in four bytes that the
 * kernel build appends), so output goes straight into memory of exactly that
 * size and anything else is a corrupt payload. */
#ifndef XENOLITH_X86_PAYLOAD_H
#define XENOLITH_X86_PAYLOAD_H

#include "base/err.h"
#include "base/types.h"

enum payload_format {
    PAYLOAD_UNKNOWN, PAYLOAD_ELF, PAYLOAD_GZIP, PAYLOAD_XZ, PAYLOAD_LZMA,
    PAYLOAD_LZ4, PAYLOAD_ZSTD, PAYLOAD_BZIP2, PAYLOAD_LZO,
};

/* By the magic number at the start. */
enum payload_format payload_format_of(const uint8_t *data, size_t bytes);
const char *payload_format_name(enum payload_format f);

/* Expands data (format GZIP, XZ, LZMA, LZ4 or ZSTD, with its trailing size) to
 * anonymous memory, at most max_bytes, which the caller unmaps: *map,
 * *map_bytes.  0 or -errno with e->text filled. */
int payload_expand(enum payload_format f, const uint8_t *data, size_t bytes,
                   uint64_t max_bytes, void **map, size_t *map_bytes, struct err *e);

#endif
