/* SPDX-License-Identifier: MIT */
#include "kvm/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "kvm/internal.h"

/* Room for the first processor of /proc/cpuinfo, twice over. */
#define CPUINFO_BYTES (16 * KIB)

static const struct {
    int number;
    const char *name;
} required_capabilities[] = {
    { KVM_CAP_USER_MEMORY,          "KVM_CAP_USER_MEMORY" },
    { KVM_CAP_SYNC_MMU,             "KVM_CAP_SYNC_MMU" },
    { KVM_CAP_READONLY_MEM,         "KVM_CAP_READONLY_MEM" },
    { KVM_CAP_IRQCHIP,              "KVM_CAP_IRQCHIP" },
    { KVM_CAP_IRQ_ROUTING,          "KVM_CAP_IRQ_ROUTING" },
    { KVM_CAP_IRQFD,                "KVM_CAP_IRQFD" },
    { KVM_CAP_IOEVENTFD,            "KVM_CAP_IOEVENTFD" },
    { KVM_CAP_SET_TSS_ADDR,         "KVM_CAP_SET_TSS_ADDR" },
    { KVM_CAP_SET_IDENTITY_MAP_ADDR, "KVM_CAP_SET_IDENTITY_MAP_ADDR" },
    { KVM_CAP_EXT_CPUID,            "KVM_CAP_EXT_CPUID" },
    { KVM_CAP_MP_STATE,             "KVM_CAP_MP_STATE" },
    { KVM_CAP_GET_TSC_KHZ,          "KVM_CAP_GET_TSC_KHZ" },
    { KVM_CAP_TSC_DEADLINE_TIMER,   "KVM_CAP_TSC_DEADLINE_TIMER" },
    { KVM_CAP_IMMEDIATE_EXIT,       "KVM_CAP_IMMEDIATE_EXIT" },
};

_Static_assert(array_size(required_capabilities) <= KVM_PROBE_MISSING_MAX,
               "struct kvm_probe has room for all");

unsigned kvm_capabilities_missing(int kvm_fd, const char *missing[], unsigned max)
{
    unsigned nr = 0;

    for (unsigned i = 0; i < array_size(required_capabilities) && nr < max; i++)
        if (ioctl(kvm_fd, KVM_CHECK_EXTENSION, required_capabilities[i].number) <= 0)
            missing[nr++] = required_capabilities[i].name;
    return nr;
}

/* The word at *pos, up to a space or the end of the line; moves *pos behind it. */
static size_t next_word(const char **pos, const char *end, const char **word)
{
    while (*pos < end && (**pos == ' ' || **pos == '\t'))
        (*pos)++;
    *word = *pos;
    while (*pos < end && **pos != ' ' && **pos != '\t')
        (*pos)++;
    return (size_t)(*pos - *word);
}

static bool word_is(const char *word, size_t len, const char *what)
{
    return len == strlen(what) && !memcmp(word, what, len);
}

static void parse_flags(const char *pos, const char *end, struct kvm_cpuinfo *out)
{
    const char *word;
    size_t len;

    while ((len = next_word(&pos, end, &word))) {
        out->vmx |= word_is(word, len, "vmx");
        out->svm |= word_is(word, len, "svm");
        out->hypervisor |= word_is(word, len, "hypervisor");
    }
}

void kvm_cpuinfo_parse(const char *text, size_t len, struct kvm_cpuinfo *out)
{
    const char *line = text, *end = text + len;

    memset(out, 0, sizeof(*out));
    /* An empty line ends the first processor. */
    while (line < end && *line != '\n') {
        const char *eol = memchr(line, '\n', (size_t)(end - line));
        const char *colon, *word;
        size_t key_len, word_len;

        if (!eol)
            eol = end;
        colon = memchr(line, ':', (size_t)(eol - line));
        if (colon) {
            const char *value = colon + 1;

            key_len = (size_t)(colon - line);
            while (key_len && (line[key_len - 1] == ' ' || line[key_len - 1] == '\t'))
                key_len--;
            if (word_is(line, key_len, "vendor_id")) {
                word_len = min_of(next_word(&value, eol, &word), sizeof(out->vendor) - 1);
                memcpy(out->vendor, word, word_len);
                out->vendor[word_len] = '\0';
            } else if (word_is(line, key_len, "flags")) {
                parse_flags(value, eol, out);
            }
        }
        line = eol < end ? eol + 1 : end;
    }
}

static void read_cpuinfo(struct kvm_cpuinfo *out)
{
    char text[CPUINFO_BYTES];
    size_t len = 0;
    int fd = open("/proc/cpuinfo", O_RDONLY | O_CLOEXEC);

    while (fd >= 0 && len < sizeof(text)) {
        ssize_t n = read(fd, text + len, sizeof(text) - len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        len += (size_t)n;
    }
    if (fd >= 0)
        close(fd);
    kvm_cpuinfo_parse(text, len, out);
}

void kvm_probe(struct kvm_probe *out)
{
    int fd;

    memset(out, 0, sizeof(*out));
    out->kind = KVM_KIND_NONE;
    read_cpuinfo(&out->cpu);

    fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        out->open_errno = errno;
        return;
    }
    out->api_version = max_of(ioctl(fd, KVM_GET_API_VERSION, 0), 0);
    if (out->api_version == KVM_API_VERSION) {
        out->nr_missing = kvm_capabilities_missing(fd, out->missing, KVM_PROBE_MISSING_MAX);
        if (!out->nr_missing)
            out->kind = out->cpu.vmx || out->cpu.svm ? KVM_KIND_HARDWARE : KVM_KIND_SOFTWARE;
    }
    close(fd);
}

const char *kvm_kind_name(enum kvm_kind kind)
{
    switch (kind) {
    case KVM_KIND_HARDWARE:
        return "hardware";
    case KVM_KIND_SOFTWARE:
        return "software";
    case KVM_KIND_NONE:
        break;
    }
    return "none";
}

/* /dev/kvm does not exist or has no driver behind it. */
static void advise_no_device(const struct kvm_cpuinfo *cpu, char *buf, size_t size)
{
    if (cpu->vmx || cpu->svm)
        snprintf(buf, size,
                 "no /dev/kvm, though the processor has %s: load the module (modprobe %s), "
                 "or use 'xenolith lab'",
                 cpu->vmx ? "VMX" : "SVM", cpu->vmx ? "kvm_intel" : "kvm_amd");
    else if (cpu->hypervisor)
        snprintf(buf, size,
                 "no /dev/kvm: this machine is a virtual one without nested virtualization; "
                 "enable that in its hypervisor, or use 'xenolith lab'");
    else
        snprintf(buf, size,
                 "no /dev/kvm: enable virtualization (VT-x or AMD-V) in the firmware, "
                 "or use 'xenolith lab'");
}

const char *kvm_probe_advice(const struct kvm_probe *p, char *buf, size_t size)
{
    size_t len;

    snprintf(buf, size, "%s", "");
    if (p->kind == KVM_KIND_HARDWARE)
        return buf;
    if (p->kind == KVM_KIND_SOFTWARE) {
        snprintf(buf, size,
                 "/dev/kvm works without hardware virtualization: guests run, but slowly; "
                 "'xenolith lab' is the better place");
    } else if (p->open_errno == ENOENT || p->open_errno == ENODEV || p->open_errno == ENXIO) {
        advise_no_device(&p->cpu, buf, size);
    } else if (p->open_errno == EACCES || p->open_errno == EPERM) {
        snprintf(buf, size,
                 "no permission to open /dev/kvm: become a member of group kvm "
                 "(usermod -aG kvm USER, then log in again), or use 'xenolith lab'");
    } else if (p->open_errno) {
        snprintf(buf, size, "cannot open /dev/kvm (%s): repair that, or use 'xenolith lab'",
                 strerror(p->open_errno));
    } else if (p->api_version != KVM_API_VERSION) {
        snprintf(buf, size,
                 "/dev/kvm speaks version %d of its interface instead of %d: use 'xenolith lab'",
                 p->api_version, KVM_API_VERSION);
    } else {
        snprintf(buf, size, "this host's KVM is too old; use a newer kernel or 'xenolith lab'; "
                 "missing:");
        for (unsigned i = 0; i < p->nr_missing; i++) {
            len = strlen(buf);
            snprintf(buf + len, size - len, " %s", p->missing[i]);
        }
    }
    return buf;
}
