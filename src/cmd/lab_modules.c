/* SPDX-License-Identifier: MIT */
#include "cmd/lab_modules.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

static int append(struct lab_modules *list, const char *name, size_t length,
                  struct err *err)
{
    char *slot;
    unsigned i;

    for (i = 0; i < list->nr_names; i++)
        if (strlen(list->names[i]) == length && memcmp(list->names[i], name, length) == 0)
            return 0;
    if (list->nr_names == LAB_MAX_MODULES || length >= LAB_MODULE_NAME_BYTES)
        return err_set(err, E2BIG, "modules.dep: no room for '%.*s'",
                       (int)min_of(length, (size_t)80), name);
    slot = list->names[list->nr_names];
    memcpy(slot, name, length);
    slot[length] = '\0';
    list->nr_names++;
    return 0;
}

/* Behind name and colon in its line of modules.dep; NULL when it has none. */
static const char *dependencies_find(const char *dep, const char *name)
{
    size_t n = strlen(name);

    while (*dep) {
        if (strncmp(dep, name, n) == 0 && dep[n] == ':')
            return dep + n + 1;
        dep += strcspn(dep, "\n");
        dep += *dep == '\n';
    }
    return NULL;
}

static bool builtin_has(const char *builtin, const char *name)
{
    size_t n = strlen(name);

    while (*builtin) {
        size_t line = strcspn(builtin, "\n");

        if (line == n && memcmp(builtin, name, n) == 0)
            return true;
        builtin += line;
        builtin += *builtin == '\n';
    }
    return false;
}

int lab_modules_resolve(const char *dep, const char *builtin, const char *const *wanted,
                        size_t nr_wanted, struct lab_modules *list, struct err *err)
{
    size_t i;

    list->nr_names = 0;
    for (i = 0; i < nr_wanted; i++) {
        const char *word = dependencies_find(dep, wanted[i]);
        int r = 0;

        if (!word && builtin_has(builtin, wanted[i]))
            continue;
        if (!word)
            return err_set(err, ENOENT, "the kernel has no module '%s'", wanted[i]);
        for (word += strspn(word, " "); r == 0 && *word != '\n' && *word;
             word += strspn(word, " ")) {
            size_t length = strcspn(word, " \n");

            r = append(list, word, length, err);
            word += length;
        }
        if (r == 0)
            r = append(list, wanted[i], strlen(wanted[i]), err);
        if (r < 0)
            return r;
    }
    return 0;
}

size_t lab_modules_unsigned_bytes(const void *module, size_t size_bytes)
{
    static const char marker[] = "~Module signature appended~\n";
    struct {
        uint8_t algorithm, hash, id_type, signer_bytes, key_id_bytes, pad[3];
        uint32_t signature_bytes;       /* big-endian */
    } trailer;
    const size_t marker_bytes = sizeof(marker) - 1;
    const uint8_t *end = (const uint8_t *)module + size_bytes;
    size_t signed_bytes;

    if (size_bytes < marker_bytes + sizeof(trailer) ||
        memcmp(end - marker_bytes, marker, marker_bytes) != 0)
        return size_bytes;
    memcpy(&trailer, end - marker_bytes - sizeof(trailer), sizeof(trailer));
    signed_bytes = size_bytes - marker_bytes - sizeof(trailer);
    if (ntohl(trailer.signature_bytes) > signed_bytes)
        return size_bytes;
    return signed_bytes - ntohl(trailer.signature_bytes);
}
