/* SPDX-License-Identifier: MIT */
#include "x86/payload.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include <lz4.h>
#include <lzma.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

/* The kernel build uses dictionaries of at most 32 MiB (xz, lzma); a hostile
 * header may not make the decoder allocate much more. */
#define PAYLOAD_LZMA_MEMORY_BYTES (160 * MIB)

/* The legacy frame of lz4: this word, then blocks, each a length word and that
 * many bytes, which expand to at most 8 MiB. */
#define LZ4_LEGACY_MAGIC       0x184c2102u
#define LZ4_LEGACY_BLOCK_BYTES (8 * MIB)

/* What a decoder did; PAYLOAD_OK says that the stream ended as its format
 * demands, the caller compares the number of bytes. */
enum payload_end {
    PAYLOAD_OK, PAYLOAD_CORRUPT, PAYLOAD_TRUNCATED, PAYLOAD_TOO_LONG, PAYLOAD_NO_MEMORY,
};

struct payload_buf {
    const uint8_t *in;
    size_t in_bytes;
    uint8_t *out;
    size_t out_bytes;       /* room, then what was written */
};

static uint32_t le32(const uint8_t *p)
{
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

enum payload_format payload_format_of(const uint8_t *data, size_t bytes)
{
    static const struct {
        enum payload_format format;
        unsigned len;
        uint8_t magic[6];
    } known[] = {
        { PAYLOAD_ELF,   4, { 0x7f, 'E', 'L', 'F' } },
        { PAYLOAD_GZIP,  2, { 0x1f, 0x8b } },
        { PAYLOAD_XZ,    6, { 0xfd, '7', 'z', 'X', 'Z', 0 } },
        { PAYLOAD_LZMA,  3, { 0x5d, 0, 0 } },
        { PAYLOAD_LZ4,   4, { 0x02, 0x21, 0x4c, 0x18 } },
        { PAYLOAD_ZSTD,  4, { 0x28, 0xb5, 0x2f, 0xfd } },
        { PAYLOAD_BZIP2, 3, { 'B', 'Z', 'h' } },
        { PAYLOAD_LZO,   4, { 0x89, 'L', 'Z', 'O' } },
    };

    for (unsigned i = 0; i < array_size(known); i++) {
        if (bytes >= known[i].len && !memcmp(data, known[i].magic, known[i].len))
            return known[i].format;
    }
    return PAYLOAD_UNKNOWN;
}

const char *payload_format_name(enum payload_format f)
{
    switch (f) {
    case PAYLOAD_ELF:   return "uncompressed";
    case PAYLOAD_GZIP:  return "gzip";
    case PAYLOAD_XZ:    return "xz";
    case PAYLOAD_LZMA:  return "lzma";
    case PAYLOAD_LZ4:   return "lz4";
    case PAYLOAD_ZSTD:  return "zstd";
    case PAYLOAD_BZIP2: return "bzip2";
    case PAYLOAD_LZO:   return "lzo";
    case PAYLOAD_UNKNOWN: break;
    }
    return "unknown";
}

static enum payload_end payload_gunzip(struct payload_buf *b)
{
    z_stream z = {
        .next_in = (uint8_t *)b->in, .avail_in = (uInt)b->in_bytes,
        .next_out = b->out, .avail_out = (uInt)b->out_bytes,
    };
    int rc;

    if (inflateInit2(&z, 16 + MAX_WBITS) != Z_OK)
        return PAYLOAD_NO_MEMORY;
    rc = inflate(&z, Z_FINISH);
    b->out_bytes = z.total_out;
    inflateEnd(&z);
    switch (rc) {
    case Z_STREAM_END:
        return PAYLOAD_OK;
    case Z_OK:
    case Z_BUF_ERROR:
        return z.avail_out ? PAYLOAD_TRUNCATED : PAYLOAD_TOO_LONG;
    case Z_MEM_ERROR:
        return PAYLOAD_NO_MEMORY;
    default:
        return PAYLOAD_CORRUPT;
    }
}

/* xz and lzma */
static enum payload_end payload_unlzma(struct payload_buf *b, bool xz)
{
    lzma_stream s = LZMA_STREAM_INIT;
    uint8_t beyond;
    lzma_ret rc;

    rc = xz ? lzma_stream_decoder(&s, PAYLOAD_LZMA_MEMORY_BYTES, LZMA_TELL_UNSUPPORTED_CHECK)
            : lzma_alone_decoder(&s, PAYLOAD_LZMA_MEMORY_BYTES);
    if (rc != LZMA_OK)
        return PAYLOAD_NO_MEMORY;
    s.next_in = b->in;
    s.avail_in = b->in_bytes;
    s.next_out = b->out;
    s.avail_out = b->out_bytes;
    rc = lzma_code(&s, LZMA_FINISH);
    if (rc == LZMA_OK && !s.avail_out) {
        /* All of the output may be there and only the end of the stream be
         * unread; a byte more than declared tells the two apart. */
        s.next_out = &beyond;
        s.avail_out = 1;
        rc = lzma_code(&s, LZMA_FINISH);
    }
    b->out_bytes = s.total_out;
    lzma_end(&s);
    switch (rc) {
    case LZMA_STREAM_END:
        return PAYLOAD_OK;
    case LZMA_OK:
    case LZMA_BUF_ERROR:
        return s.avail_out ? PAYLOAD_TRUNCATED : PAYLOAD_TOO_LONG;
    case LZMA_MEM_ERROR:
    case LZMA_MEMLIMIT_ERROR:
        return PAYLOAD_NO_MEMORY;
    default:
        return PAYLOAD_CORRUPT;
    }
}

static enum payload_end payload_unlz4(struct payload_buf *b)
{
    size_t in = 4, out = 0;

    while (in < b->in_bytes) {
        uint32_t block;
        size_t room;
        int n;

        if (b->in_bytes - in < 4)
            return PAYLOAD_TRUNCATED;
        block = le32(b->in + in);
        in += 4;
        if (block == LZ4_LEGACY_MAGIC)      /* frames may follow each other */
            continue;
        if (block > LZ4_COMPRESSBOUND(LZ4_LEGACY_BLOCK_BYTES))
            return PAYLOAD_CORRUPT;
        if (block > b->in_bytes - in)
            return PAYLOAD_TRUNCATED;
        room = min_of(b->out_bytes - out, (size_t)LZ4_LEGACY_BLOCK_BYTES);
        n = LZ4_decompress_safe((const char *)b->in + in, (char *)b->out + out,
                                (int)block, (int)room);
        if (n < 0)
            return room < LZ4_LEGACY_BLOCK_BYTES ? PAYLOAD_TOO_LONG : PAYLOAD_CORRUPT;
        in += block;
        out += (size_t)n;
    }
    b->out_bytes = out;
    return PAYLOAD_OK;
}

/* All at once, so that no window is allocated beside the output. */
static enum payload_end payload_unzstd(struct payload_buf *b)
{
    /* The kernel's decoder, too, takes one frame and ignores what follows. */
    size_t frame = ZSTD_findFrameCompressedSize(b->in, b->in_bytes);
    size_t n;

    if (ZSTD_isError(frame))
        return PAYLOAD_TRUNCATED;
    n = ZSTD_decompress(b->out, b->out_bytes, b->in, frame);
    if (!ZSTD_isError(n)) {
        b->out_bytes = n;
        return PAYLOAD_OK;
    }
    return ZSTD_getErrorCode(n) == ZSTD_error_dstSize_tooSmall ? PAYLOAD_TOO_LONG
                                                               : PAYLOAD_CORRUPT;
}

int payload_size(enum payload_format f, const uint8_t *data, size_t bytes, uint64_t max_bytes,
                 size_t *size_bytes, struct err *e)
{
    const char *name = payload_format_name(f);
    uint32_t declared;

    if (bytes < 8)
        return err_set(e, ENOEXEC, "%s payload of %zu bytes: truncated", name, bytes);
    declared = le32(data + bytes - 4);
    if (!declared || declared > max_bytes)
        return err_set(e, ENOEXEC, "%s payload says that it expands to %" PRIu32 " bytes, expected "
                       "1 to %" PRIu64 ": truncated or corrupt", name, declared, max_bytes);
    *size_bytes = declared;
    return 0;
}

static size_t peek_gzip(z_stream *z, size_t out_bytes)
{
    if (inflateInit2(z, 16 + MAX_WBITS) != Z_OK)
        return 0;
    inflate(z, Z_SYNC_FLUSH);
    inflateEnd(z);
    return out_bytes - z->avail_out;
}

static size_t peek_lzma(lzma_stream *s, bool xz, size_t out_bytes)
{
    lzma_ret rc = xz ? lzma_stream_decoder(s, PAYLOAD_LZMA_MEMORY_BYTES, 0)
                     : lzma_alone_decoder(s, PAYLOAD_LZMA_MEMORY_BYTES);

    if (rc != LZMA_OK)
        return 0;
    rc = lzma_code(s, LZMA_RUN);
    lzma_end(s);
    return rc == LZMA_OK || rc == LZMA_STREAM_END ? out_bytes - s->avail_out : 0;
}

static size_t peek_lz4(const uint8_t *data, size_t bytes, void *out, size_t out_bytes)
{
    uint32_t block = bytes < 8 ? 0 : le32(data + 4);
    int n;

    if (bytes < 8 || block > LZ4_COMPRESSBOUND(LZ4_LEGACY_BLOCK_BYTES) || block > bytes - 8)
        return 0;
    n = LZ4_decompress_safe_partial((const char *)data + 8, out, (int)block, (int)out_bytes,
                                    (int)out_bytes);
    return n < 0 ? 0 : (size_t)n;
}

static size_t peek_zstd(const uint8_t *data, size_t bytes, void *out, size_t out_bytes)
{
    ZSTD_DStream *s = ZSTD_createDStream();
    ZSTD_inBuffer from = { .src = data, .size = bytes };
    ZSTD_outBuffer to = { .dst = out, .size = out_bytes };
    size_t before;

    if (!s)
        return 0;
    do
        before = from.pos + to.pos;
    while (!ZSTD_isError(ZSTD_decompressStream(s, &to, &from)) && to.pos < to.size &&
           from.pos + to.pos > before);
    ZSTD_freeDStream(s);
    return to.pos;
}

size_t payload_peek(enum payload_format f, const uint8_t *data, size_t bytes,
                    void *out, size_t out_bytes)
{
    z_stream z = { .next_in = (uint8_t *)data, .avail_in = (uInt)bytes,
                   .next_out = out, .avail_out = (uInt)out_bytes };
    lzma_stream s = LZMA_STREAM_INIT;

    s.next_in = data;
    s.avail_in = bytes;
    s.next_out = out;
    s.avail_out = out_bytes;
    switch (f) {
    case PAYLOAD_GZIP: return peek_gzip(&z, out_bytes);
    case PAYLOAD_XZ:   return peek_lzma(&s, true, out_bytes);
    case PAYLOAD_LZMA: return peek_lzma(&s, false, out_bytes);
    case PAYLOAD_LZ4:  return peek_lz4(data, bytes, out, out_bytes);
    case PAYLOAD_ZSTD: return peek_zstd(data, bytes, out, out_bytes);
    default:           return 0;
    }
}

int payload_expand(enum payload_format f, const uint8_t *data, size_t bytes,
                   void *out, size_t size_bytes, struct err *e)
{
    const char *name = payload_format_name(f);
    struct payload_buf b = {
        .in = data, .in_bytes = f == PAYLOAD_GZIP ? bytes : bytes - 4,
        .out = out, .out_bytes = size_bytes,
    };
    enum payload_end end;

    switch (f) {
    case PAYLOAD_GZIP: end = payload_gunzip(&b); break;
    case PAYLOAD_XZ:   end = payload_unlzma(&b, true); break;
    case PAYLOAD_LZMA: end = payload_unlzma(&b, false); break;
    case PAYLOAD_LZ4:  end = payload_unlz4(&b); break;
    case PAYLOAD_ZSTD: end = payload_unzstd(&b); break;
    default:
        return err_set(e, ENOTSUP, "%s payload: expected gzip, xz, lzma, lz4 or zstd", name);
    }
    if (end == PAYLOAD_OK && b.out_bytes == size_bytes)
        return 0;
    switch (end) {
    case PAYLOAD_TRUNCATED:
        return err_set(e, ENOEXEC, "%s payload ends before its data does: truncated or corrupt",
                       name);
    case PAYLOAD_TOO_LONG:
        return err_set(e, ENOEXEC, "%s payload expands beyond the %zu bytes it says: "
                       "truncated or corrupt", name, size_bytes);
    case PAYLOAD_NO_MEMORY:
        return err_set(e, ENOMEM, "no memory to expand the %s payload", name);
    case PAYLOAD_OK:
        return err_set(e, ENOEXEC, "%s payload expands to %zu bytes, expected the %zu it says: "
                       "truncated or corrupt", name, b.out_bytes, size_bytes);
    case PAYLOAD_CORRUPT:
        break;
    }
    return err_set(e, ENOEXEC, "%s payload is corrupt", name);
}
