/* SPDX-License-Identifier: MIT */
/* Decompression of kernel payloads.  Every format a bzImage uses tells the size
 * of what it holds (gzip in its trailer, the others in four bytes that the
 * kernel build appends), so output goes straight to where the caller has
 * that much room and anything else is a corrupt payload. */
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

/* How many bytes data (format GZIP, XZ, LZMA, LZ4 or ZSTD, with its trailing size) says
 * that it expands to: 1 to max_bytes.  0 or -errno with e->text filled. */
int payload_size(enum payload_format f, const uint8_t *data, size_t bytes, uint64_t max_bytes,
                 size_t *size_bytes, struct err *e);

/* The first bytes of what data expands to, up to out_bytes; how many came.  Less than
 * the format promises is no fault here: payload_expand() tells. */
size_t payload_peek(enum payload_format f, const uint8_t *data, size_t bytes,
                    void *out, size_t out_bytes);

/* Expands data to out, which has room for the size_bytes that payload_size() told and
 * nothing more.  0 or -errno with e->text filled; then out holds anything. */
int payload_expand(enum payload_format f, const uint8_t *data, size_t bytes,
                   void *out, size_t size_bytes, struct err *e);

#endif
