/* SPDX-License-Identifier: MIT */
/* The NBD protocol as far as this client speaks it: the fixed newstyle handshake with
 * NBD_OPT_GO, then commands and simple replies.  All numbers are big-endian.
 * https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md */
#ifndef XENOLITH_BLK_NBD_WIRE_H
#define XENOLITH_BLK_NBD_WIRE_H

#include "base/types.h"

#define NBD_PORT 10809u
#define NBD_STRING_MAX 4096u        /* bytes of an export's name, or of a message */

/* ---- handshake ---- */

#define NBD_INIT_MAGIC          0x4e42444d41474943ull
#define NBD_OPTION_MAGIC        0x49484156454f5054ull
#define NBD_OLDSTYLE_MAGIC      0x0000420281861253ull
#define NBD_OPTION_REPLY_MAGIC  0x0003e889045565a9ull

#define NBD_FLAG_FIXED_NEWSTYLE (1u << 0)   /* the client's have the same numbers */
#define NBD_FLAG_NO_ZEROES      (1u << 1)

#define NBD_OPT_GO 7u

#define NBD_REP_ACK  1u
#define NBD_REP_INFO 3u
#define NBD_REP_IS_ERROR            (1u << 31)
#define NBD_REP_ERR_UNSUP           (NBD_REP_IS_ERROR | 1)
#define NBD_REP_ERR_POLICY          (NBD_REP_IS_ERROR | 2)
#define NBD_REP_ERR_TLS_REQD        (NBD_REP_IS_ERROR | 5)
#define NBD_REP_ERR_UNKNOWN         (NBD_REP_IS_ERROR | 6)
#define NBD_REP_ERR_SHUTDOWN        (NBD_REP_IS_ERROR | 7)
#define NBD_REP_ERR_BLOCK_SIZE_REQD (NBD_REP_IS_ERROR | 8)

#define NBD_INFO_EXPORT     0u
#define NBD_INFO_BLOCK_SIZE 3u

struct nbd_greeting {
    uint64_t init_magic;
    uint64_t option_magic;
    uint16_t flags;
} __attribute__((packed));

struct nbd_option {
    uint64_t magic;
    uint32_t option;
    uint32_t length_bytes;
} __attribute__((packed));

struct nbd_option_reply {
    uint64_t magic;
    uint32_t option;
    uint32_t type;
    uint32_t length_bytes;
} __attribute__((packed));

struct nbd_info_export {
    uint16_t type;
    uint64_t size_bytes;
    uint16_t flags;
} __attribute__((packed));

struct nbd_info_block_size {
    uint16_t type;
    uint32_t min_bytes;
    uint32_t preferred_bytes;
    uint32_t max_bytes;             /* of the payload of one command */
} __attribute__((packed));

/* ---- the export's flags ---- */

#define NBD_FLAG_READ_ONLY         (1u << 1)
#define NBD_FLAG_SEND_FLUSH        (1u << 2)
#define NBD_FLAG_SEND_FUA          (1u << 3)
#define NBD_FLAG_SEND_TRIM         (1u << 5)
#define NBD_FLAG_SEND_WRITE_ZEROES (1u << 6)
#define NBD_FLAG_CAN_MULTI_CONN    (1u << 8)

/* What a server that says nothing takes in one command. */
#define NBD_PAYLOAD_DEFAULT_BYTES (32u * 1024 * 1024)

/* ---- commands ---- */

#define NBD_REQUEST_MAGIC      0x25609513u
#define NBD_SIMPLE_REPLY_MAGIC 0x67446698u

#define NBD_CMD_READ         0u
#define NBD_CMD_WRITE        1u
#define NBD_CMD_DISC         2u
#define NBD_CMD_FLUSH        3u
#define NBD_CMD_TRIM         4u
#define NBD_CMD_WRITE_ZEROES 6u
#define NBD_CMD_FLAG_FUA     (1u << 0)

struct nbd_request {
    uint32_t magic;
    uint16_t flags;
    uint16_t type;
    uint64_t cookie;                /* comes back in the reply, as it is */
    uint64_t offset_bytes;
    uint32_t length_bytes;
} __attribute__((packed));

struct nbd_simple_reply {
    uint32_t magic;
    uint32_t error;
    uint64_t cookie;
} __attribute__((packed));

/* The protocol's own error numbers, which happen to be Linux's. */
#define NBD_EPERM     1u
#define NBD_EIO       5u
#define NBD_ENOMEM    12u
#define NBD_EINVAL    22u
#define NBD_ENOSPC    28u
#define NBD_EOVERFLOW 75u
#define NBD_ENOTSUP   95u
#define NBD_ESHUTDOWN 108u

_Static_assert(sizeof(struct nbd_greeting) == 18, "wire format");
_Static_assert(sizeof(struct nbd_option) == 16, "wire format");
_Static_assert(sizeof(struct nbd_option_reply) == 20, "wire format");
_Static_assert(sizeof(struct nbd_info_export) == 12, "wire format");
_Static_assert(sizeof(struct nbd_info_block_size) == 14, "wire format");
_Static_assert(sizeof(struct nbd_request) == 28, "wire format");
_Static_assert(sizeof(struct nbd_simple_reply) == 16, "wire format");

#endif
