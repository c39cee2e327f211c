/* SPDX-License-Identifier: MIT */
#include "xen/store_path.h"

#include <string.h>

#include "xen/xs_proto.h"

bool store_path_char_ok(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           c == '-' || c == '/' || c == '_' || c == '@';
}

bool store_path_ok(const char *path)
{
    size_t len = strlen(path);

    if (path[0] != '/' || len > XENSTORE_ABS_PATH_MAX)
        return false;
    if (len > 1 && path[len - 1] == '/')
        return false;
    for (size_t i = 0; i < len; i++) {
        if (!store_path_char_ok(path[i]) || (path[i] == '/' && path[i + 1] == '/'))
            return false;
    }
    return true;
}
