/* SPDX-License-Identifier: MIT */
/* A guest's configuration together with the text it was read from, so that the
 * same guest can be made again when the file is gone or has changed. */
#ifndef XENOLITH_CTL_GUEST_CONFIG_H
#define XENOLITH_CTL_GUEST_CONFIG_H

#include "base/err.h"

#define GUEST_CONFIG_BYTES_MAX (1 * MIB)

struct vm_config;

struct guest_config {
    struct vm_config *config;
    char *text;
    size_t text_bytes;
    char *const *words;         /* "key=value", the caller's */
    unsigned nr_words;
};

enum guest_config_fault { GUEST_CONFIG_UNREADABLE, GUEST_CONFIG_MALFORMED };

/* file NULL: words only.  Warnings go to stderr.  On failure *fault says which
 * kind, since xl's exit status differs. */
int guest_config_read(const char *file, char *const words[], unsigned nr_words,
                      struct guest_config *out, enum guest_config_fault *fault,
                      struct err *e);
void guest_config_free(struct guest_config *g);

const char *guest_config_name(const struct guest_config *g);

/* One disk from the words of a command line, which are the parts of one line of disk=[...]: to
 * be freed, judged as it will be when the guest gets it.  NULL with e set. */
char *guest_config_disk_spec(char *const words[], unsigned nr_words, struct err *e);
/* The JSON of such a disk, to be freed; NULL with e set. */
char *guest_config_disk_dump(const char *spec, struct err *e);

/* What `xl create -n` prints, to be freed; NULL: out of memory. */
char *guest_config_dump(const struct guest_config *g);

#endif
