/* SPDX-License-Identifier: MIT */
/* Usage: test_config_corpus DIR          runs every DIR/NAME.cfg as a test
 *        test_config_corpus DIR NAME     prints what NAME gives, to review */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "stderr_capture.h"
#include "vm/config.h"
#include "vm/config_disk.h"
#include "vm/config_uuid.h"

#define WORDS_MAX 16

struct corpus_case { const char *dir; char name[128]; };

/* NULL when there is no such file; the caller frees. */
static char *slurp(const struct corpus_case *t, const char *suffix, size_t *len)
{
    char path[1024], *text = NULL;
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s%s", t->dir, t->name, suffix);
    f = fopen(path, "r");
    if (!f)
        return NULL;
    fseek(f, 0, SEEK_END);
    *len = (size_t)ftell(f);
    rewind(f);
    text = calloc(1, *len + 1);
    if (!text || fread(text, 1, *len, f) != *len)
        abort();
    fclose(f);
    return text;
}

static void print_disk(FILE *out, const struct vm_config *c, const struct vm_disk *d)
{
    fprintf(out, "disk %s=%#x line=%u driver=%s target=%s", d->vdev, d->vdev_number, d->line,
            d->driver, d->target);
    if (d->size_bytes)
        fprintf(out, " size=%llu", (unsigned long long)d->size_bytes);
    if (d->quota_bytes)
        fprintf(out, " quota=%llu", (unsigned long long)d->quota_bytes);
    if (d->pool_bytes)
        fprintf(out, " pool=%llu", (unsigned long long)d->pool_bytes);
    if (vm_config_disk_image_format(d))
        fprintf(out, " format=%s", vm_config_disk_image_format(d));
    if (d->reconnect_s != 30)
        fprintf(out, " reconnect=%u", d->reconnect_s);
    if (d->filters)
        fprintf(out, " filters=%s", d->filters);
    fprintf(out, "%s%s%s%s%s%s%s\n", d->readonly ? " readonly" : "",
            d->shared_write ? " shared" : "", d->cdrom ? " cdrom" : "",
            d->discard ? " discard" : "", d->direct_io_safe ? " direct-io-safe" : "",
            d->persistent_grants ? " persistent-grants" : "",
            vm_config_disk_apart(c, d) ? " apart" : "");
}

static void print_config(FILE *out, const struct vm_config *c)
{
    static const char *const actions[] = {
        "destroy", "restart", "rename-restart", "preserve", "coredump-destroy",
        "coredump-restart", "soft-reset",
    };
    static const char *const rings[] = { "auto", "1", "3" };
    char uuid[VM_UUID_TEXT_BYTES];

    vm_uuid_format(c->uuid, uuid);
    if (uuid[14] == '4')        /* files give no uuid of version 4 */
        strcpy(uuid, "random");
    fprintf(out, "file=%s name=%s type=%d uuid=%s\n", c->file, c->name, (int)c->type, uuid);
    fprintf(out, "kernel=%s ramdisk=%s\n", c->kernel, c->ramdisk ? c->ramdisk : "(none)");
    fprintf(out, "cmdline=%s\n", c->cmdline);
    fprintf(out, "memory=%llu maxmem=%llu vcpus=%u maxvcpus=%u event_channels=%u "
            "grant_frames=%u grant_version=%u ring=%s max_queues=%u\n",
            (unsigned long long)(c->memory_bytes / MIB),
            (unsigned long long)(c->maxmem_bytes / MIB), c->vcpus, c->maxvcpus,
            c->max_event_channels, c->max_grant_frames, c->max_grant_version, rings[c->ring],
            c->max_queues);
    fprintf(out, "on: poweroff=%s reboot=%s watchdog=%s crash=%s soft_reset=%s\n",
            actions[c->on_poweroff], actions[c->on_reboot], actions[c->on_watchdog],
            actions[c->on_crash], actions[c->on_soft_reset]);
    for (unsigned i = 0; i < c->nr_disks; i++)
        print_disk(out, c, &c->disks[i]);
}

/* Warnings, then the error or the configuration; the caller frees. */
static char *result_of(const struct corpus_case *t)
{
    struct stderr_capture capture;
    struct vm_config *c = NULL;
    struct err e = { .code = 0 };
    char name[160], line[sizeof(struct err)], *words[WORDS_MAX], *result = NULL, *warnings;
    size_t len = 0, words_len = 0, result_len;
    char *text = slurp(t, ".cfg", &len), *words_text = slurp(t, ".words", &words_len);
    unsigned nr_words = 0;
    FILE *out = open_memstream(&result, &result_len);
    int rc;

    if (!text || !out)
        abort();
    if (words_text)
        for (char *w = strtok(words_text, "\n"); w && nr_words < WORDS_MAX; w = strtok(NULL, "\n"))
            words[nr_words++] = w;
    snprintf(name, sizeof(name), "%s.cfg", t->name);
    stderr_capture_start(&capture);
    rc = vm_config_parse(text, len, name, words, nr_words, &c, &e);
    warnings = stderr_capture_stop(&capture);
    fputs(warnings, out);
    if (rc)
        fprintf(out, "error %s: %s\n", strerrorname_np(-rc), err_str(&e, line, sizeof(line)));
    else
        print_config(out, c);
    fclose(out);
    vm_config_free(c);
    free(warnings);
    free(words_text);
    free(text);
    return result;
}

static void config_gives_what_out_file_says(void **state)
{
    const struct corpus_case *t = *state;
    size_t len;
    char *expected = slurp(t, ".out", &len), *result = result_of(t);

    assert_non_null(expected);
    assert_string_equal(result, expected);
    free(expected);
    free(result);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct corpus_case *)a)->name, ((const struct corpus_case *)b)->name);
}

static unsigned list_cases(const char *dir, struct corpus_case *cases, unsigned max)
{
    unsigned nr = 0;
    struct dirent *d;
    DIR *open_dir = opendir(dir);

    while (open_dir && (d = readdir(open_dir))) {
        size_t len = strlen(d->d_name);

        if (len <= 4 || len >= sizeof(cases->name) || strcmp(d->d_name + len - 4, ".cfg"))
            continue;
        if (nr == max)
            abort();
        cases[nr].dir = dir;
        memcpy(cases[nr].name, d->d_name, len - 4);
        cases[nr++].name[len - 4] = 0;
    }
    if (open_dir)
        closedir(open_dir);
    qsort(cases, nr, sizeof(*cases), by_name);
    return nr;
}

int main(int argc, char **argv)
{
    static struct corpus_case cases[256];
    static struct CMUnitTest tests[256];
    unsigned nr;

    if (argc == 3) {
        char *result;

        snprintf(cases[0].name, sizeof(cases[0].name), "%s", argv[2]);
        cases[0].dir = argv[1];
        result = result_of(&cases[0]);
        fputs(result, stdout);
        free(result);
        return 0;
    }
    nr = argc == 2 ? list_cases(argv[1], cases, array_size(cases)) : 0;
    if (!nr) {
        fprintf(stderr, "usage: %s DIR [NAME]; DIR must hold NAME.cfg files\n", argv[0]);
        return 1;
    }
    for (unsigned i = 0; i < nr; i++)
        tests[i] = (struct CMUnitTest){
            .name = cases[i].name, .test_func = config_gives_what_out_file_says,
            .initial_state = &cases[i],
        };
    return _cmocka_run_group_tests("config_corpus", tests, nr, NULL, NULL);
}
