/* SPDX-License-Identifier: MIT */
#include "base/num.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static int parse_prefix(const char *s, int base, uint64_t *out, char **end)
{
    if (!isdigit((unsigned char)s[0]))   /* no sign, no blank */
        return -EINVAL;
    errno = 0;
    *out = strtoull(s, end, base);
    if (*end == s)
        return -EINVAL;
    return errno ? -ERANGE : 0;
}

int num_parse_u64(const char *s, uint64_t min, uint64_t max, uint64_t *out)
{
    char *end;
    uint64_t v;
    int rc = parse_prefix(s, 0, &v, &end);

    if (rc)
        return rc;
    if (*end)
        return -EINVAL;
    if (v < min || v > max)
        return -ERANGE;
    *out = v;
    return 0;
}

int num_parse_bytes(const char *s, uint64_t *bytes)
{
    static const char suffixes[] = "kmgt";
    char *end;
    uint64_t v;
    int rc = parse_prefix(s, 10, &v, &end);

    if (rc)
        return rc;
    if (*end) {
        const char *at = strchr(suffixes, tolower((unsigned char)*end));

        if (!at)
            return -EINVAL;
        end++;
        if (*end && strcasecmp(end, "b") && strcasecmp(end, "ib"))
            return -EINVAL;
        if (num_mul_overflows(v, (uint64_t)1 << (10 * (at - suffixes + 1)), &v))
            return -ERANGE;
    }
    *bytes = v;
    return 0;
}
