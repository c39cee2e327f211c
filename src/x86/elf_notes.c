/* SPDX-License-Identifier: MIT */
#include "x86/elf_notes.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <xen/elfnote.h>
#include <xen/features.h>

struct span {
    const uint8_t *data;
    size_t bytes;
};

/* false when the range is not in the image */
static bool elf_span(const uint8_t *elf, size_t elf_bytes, uint64_t offset, uint64_t bytes,
                     struct span *out)
{
    if (offset > elf_bytes || bytes > elf_bytes - offset)
        return false;
    *out = (struct span){ elf + offset, bytes };
    return true;
}

/* XENFEAT_* number by the name without that prefix; -1: unknown */
static int xen_feature_number(const char *name, size_t len)
{
    static const char *const names[] = {
        [XENFEAT_writable_page_tables] = "writable_page_tables",
        [XENFEAT_writable_descriptor_tables] = "writable_descriptor_tables",
        [XENFEAT_auto_translated_physmap] = "auto_translated_physmap",
        [XENFEAT_supervisor_mode_kernel] = "supervisor_mode_kernel",
        [XENFEAT_pae_pgdir_above_4gb] = "pae_pgdir_above_4gb",
        [XENFEAT_mmu_pt_update_preserve_ad] = "mmu_pt_update_preserve_ad",
        [XENFEAT_highmem_assist] = "highmem_assist",
        [XENFEAT_gnttab_map_avail_bits] = "gnttab_map_avail_bits",
        [XENFEAT_hvm_callback_vector] = "hvm_callback_vector",
        [XENFEAT_hvm_safe_pvclock] = "hvm_safe_pvclock",
        [XENFEAT_hvm_pirqs] = "hvm_pirqs",
        [XENFEAT_dom0] = "dom0",
        [XENFEAT_memory_op_vnode_supported] = "memory_op_vnode_supported",
    };

    for (unsigned i = 0; i < array_size(names); i++) {
        if (names[i] && strlen(names[i]) == len && !memcmp(names[i], name, len))
            return (int)i;
    }
    return -1;
}

/* "a|!b|c": all are supported, those after '!' required.  As Xen does, an
 * unknown name is passed over unless it is required. */
static int xen_features_parse(struct xen_notes *out, struct err *e)
{
    const char *p = out->features;

    while (*p) {
        size_t len = strcspn(p, "|");
        bool required = *p == '!';
        int nr = xen_feature_number(p + required, len - required);

        if (nr >= 0) {
            out->features_supported |= 1ull << nr;
            out->features_required |= (uint64_t)required << nr;
        } else if (required) {
            return err_set(e, ENOTSUP, "kernel requires the unknown Xen feature \"%.*s\"",
                           (int)len - 1, p + 1);
        }
        p += len;
        p += *p == '|';
    }
    return 0;
}

static int xen_note_number(unsigned type, struct span desc, uint64_t *out, struct err *e)
{
    uint32_t v32;

    if (desc.bytes == sizeof(v32)) {
        memcpy(&v32, desc.data, sizeof(v32));
        *out = v32;
        return 0;
    }
    if (desc.bytes == sizeof(*out)) {
        memcpy(out, desc.data, sizeof(*out));
        return 0;
    }
    return err_set(e, ENOEXEC, "Xen ELF note %u has %zu bytes, expected a number of 4 or 8",
                   type, desc.bytes);
}

/* desc need not be 0-terminated; what does not fit is an error. */
static int xen_note_string(unsigned type, struct span desc, char *out, size_t size, struct err *e)
{
    size_t len = strnlen((const char *)desc.data, desc.bytes);

    if (len >= size)
        return err_set(e, ENOEXEC, "Xen ELF note %u has a string of %zu bytes, expected at most "
                       "%zu", type, len, size - 1);
    memcpy(out, desc.data, len);
    out[len] = 0;
    return 0;
}

static int xen_note_take(uint32_t type, struct span desc, struct xen_notes *out, struct err *e)
{
    uint64_t number = 0;
    int rc;

    switch (type) {
    case XEN_ELFNOTE_ENTRY:
        rc = xen_note_number(type, desc, &out->entry, e);
        break;
    case XEN_ELFNOTE_HYPERCALL_PAGE:
        rc = xen_note_number(type, desc, &out->hypercall_page, e);
        break;
    case XEN_ELFNOTE_VIRT_BASE:
        rc = xen_note_number(type, desc, &out->virt_base, e);
        break;
    case XEN_ELFNOTE_PADDR_OFFSET:
        rc = xen_note_number(type, desc, &out->paddr_offset, e);
        break;
    case XEN_ELFNOTE_HV_START_LOW:
        rc = xen_note_number(type, desc, &out->hv_start_low, e);
        break;
    case XEN_ELFNOTE_SUSPEND_CANCEL:
        rc = xen_note_number(type, desc, &out->suspend_cancel, e);
        break;
    case XEN_ELFNOTE_INIT_P2M:
        rc = xen_note_number(type, desc, &out->init_p2m, e);
        break;
    case XEN_ELFNOTE_MOD_START_PFN:
        rc = xen_note_number(type, desc, &out->mod_start_pfn, e);
        break;
    case XEN_ELFNOTE_PHYS32_ENTRY:
        rc = xen_note_number(type, desc, &out->phys32_entry, e);
        break;
    case XEN_ELFNOTE_SUPPORTED_FEATURES:
        rc = xen_note_number(type, desc, &number, e);
        out->features_supported |= number;
        break;
    case XEN_ELFNOTE_L1_MFN_VALID:
        if (desc.bytes < sizeof(out->l1_mfn_valid))
            return err_set(e, ENOEXEC, "Xen ELF note %u has %zu bytes, expected pairs of 8-byte "
                           "numbers", type, desc.bytes);
        memcpy(&out->l1_mfn_valid, desc.data, sizeof(out->l1_mfn_valid));
        rc = 0;
        break;
    case XEN_ELFNOTE_GUEST_OS:
        rc = xen_note_string(type, desc, out->guest_os, sizeof(out->guest_os), e);
        break;
    case XEN_ELFNOTE_GUEST_VERSION:
        rc = xen_note_string(type, desc, out->guest_version, sizeof(out->guest_version), e);
        break;
    case XEN_ELFNOTE_XEN_VERSION:
        rc = xen_note_string(type, desc, out->xen_version, sizeof(out->xen_version), e);
        break;
    case XEN_ELFNOTE_LOADER:
        rc = xen_note_string(type, desc, out->loader, sizeof(out->loader), e);
        break;
    case XEN_ELFNOTE_FEATURES:
        rc = xen_note_string(type, desc, out->features, sizeof(out->features), e);
        if (!rc)
            rc = xen_features_parse(out, e);
        break;
    case XEN_ELFNOTE_INFO:
    case XEN_ELFNOTE_PAE_MODE:      /* 32-bit kernels */
    case XEN_ELFNOTE_BSD_SYMTAB:    /* symbols are for the guest's own debugger */
        rc = 0;
        break;
    default:                        /* newer than us: not needed to boot */
        return 0;
    }
    if (!rc)
        out->present |= 1ull << type;
    return rc;
}

/* Names and descriptors are padded to 4 bytes, whatever alignment their segment
 * claims: so does Xen, and GRUB's images rely on it. */
static int elf_notes_walk(struct span s, struct xen_notes *out, struct err *e)
{
    uint64_t at = 0;

    while (s.bytes - at >= sizeof(Elf64_Nhdr)) {
        Elf64_Nhdr h;
        uint64_t name, desc, end;

        memcpy(&h, s.data + at, sizeof(h));
        name = at + sizeof(h);
        desc = align_up(name + h.n_namesz, (uint64_t)4);
        end = desc + h.n_descsz;
        if (end > s.bytes)
            return err_set(e, ENOEXEC, "ELF note of type %" PRIu32 " ends %" PRIu64 " bytes past "
                           "its segment: truncated or corrupt", h.n_type, end - s.bytes);
        if (h.n_namesz == 4 && !memcmp(s.data + name, "Xen", 4)) {
            int rc = xen_note_take(h.n_type, (struct span){ s.data + desc, h.n_descsz }, out, e);

            if (rc)
                return rc;
        }
        at = min_of(align_up(end, (uint64_t)4), (uint64_t)s.bytes);
    }
    return 0;
}

static bool xen_guest_key(const char *item, size_t len, const char *key, const char **value)
{
    size_t n = strlen(key);

    if (len <= n || memcmp(item, key, n) || item[n] != '=')
        return false;
    *value = item + n + 1;
    return true;
}

/* "GUEST_OS=linux,XEN_VER=xen-3.0,VIRT_BASE=0xffffffff80000000,..." */
static int xen_guest_parse(struct span s, struct xen_notes *out, struct err *e)
{
    static const struct {
        const char *key;
        unsigned type;
        bool number;
    } keys[] = {
        { "GUEST_OS", XEN_ELFNOTE_GUEST_OS, false },
        { "GUEST_VER", XEN_ELFNOTE_GUEST_VERSION, false },
        { "XEN_VER", XEN_ELFNOTE_XEN_VERSION, false },
        { "LOADER", XEN_ELFNOTE_LOADER, false },
        { "FEATURES", XEN_ELFNOTE_FEATURES, false },
        { "VIRT_BASE", XEN_ELFNOTE_VIRT_BASE, true },
        { "VIRT_ENTRY", XEN_ELFNOTE_ENTRY, true },
        { "HYPERCALL_PAGE", XEN_ELFNOTE_HYPERCALL_PAGE, true },
        { "ELF_PADDR_OFFSET", XEN_ELFNOTE_PADDR_OFFSET, true },
    };
    size_t at = 0, end = strnlen((const char *)s.data, s.bytes);

    while (at < end) {
        const char *item = (const char *)s.data + at, *value;
        const char *comma = memchr(item, ',', end - at);
        size_t len = comma ? (size_t)(comma - item) : end - at;

        for (unsigned i = 0; i < array_size(keys); i++) {
            char digits[24];
            uint64_t number;
            struct span desc;
            char *stop;
            int rc;

            if (!xen_guest_key(item, len, keys[i].key, &value))
                continue;
            desc = (struct span){ (const uint8_t *)value, len - (size_t)(value - item) };
            if (keys[i].number) {
                rc = xen_note_string(keys[i].type, desc, digits, sizeof(digits), e);
                if (rc)
                    return rc;
                errno = 0;
                number = strtoull(digits, &stop, 0);
                if (errno || *stop || stop == digits)
                    return err_set(e, ENOEXEC, "__xen_guest says %s=%s, expected a number",
                                   keys[i].key, digits);
                desc = (struct span){ (const uint8_t *)&number, sizeof(number) };
            }
            rc = xen_note_take(keys[i].type, desc, out, e);
            if (rc)
                return rc;
        }
        at += len + 1;
    }
    /* The legacy form counts the hypercall page in pages from the base and
     * takes the base for the offset unless told otherwise. */
    out->legacy = true;
    if (!xen_notes_have(out, XEN_ELFNOTE_PADDR_OFFSET))
        out->paddr_offset = out->virt_base;
    out->hypercall_page = out->virt_base + (out->hypercall_page << PAGE_SHIFT);
    return 0;
}

static bool section_is_named(const uint8_t *elf, size_t bytes, const Elf64_Ehdr *eh,
                             const Elf64_Shdr *sh, const char *name)
{
    Elf64_Shdr names;
    struct span s;

    if (eh->e_shstrndx >= eh->e_shnum)
        return false;
    memcpy(&names, elf + eh->e_shoff + eh->e_shstrndx * sizeof(names), sizeof(names));
    return elf_span(elf, bytes, names.sh_offset, names.sh_size, &s) && sh->sh_name < s.bytes &&
           s.bytes - sh->sh_name > strlen(name) &&
           !memcmp(s.data + sh->sh_name, name, strlen(name) + 1);
}

int elf_notes_read(const Elf64_Ehdr *eh, const uint8_t *elf, size_t bytes, struct xen_notes *out,
                   struct err *e)
{
    struct span s, guest = { 0 };
    int rc = 0;

    *out = (struct xen_notes){ 0 };
    for (unsigned i = 0; !rc && i < eh->e_phnum; i++) {
        Elf64_Phdr ph;

        memcpy(&ph, elf + eh->e_phoff + i * sizeof(ph), sizeof(ph));
        if (ph.p_type != PT_NOTE)
            continue;
        if (!elf_span(elf, bytes, ph.p_offset, ph.p_filesz, &s))
            return err_set(e, ENOEXEC, "ELF note segment lies beyond the %zu bytes of the kernel: "
                           "truncated", bytes);
        rc = elf_notes_walk(s, out, e);
    }
    if (rc || out->present)
        return rc;

    for (unsigned i = 0; !rc && i < eh->e_shnum; i++) {
        Elf64_Shdr sh;

        memcpy(&sh, elf + eh->e_shoff + i * sizeof(sh), sizeof(sh));
        if (sh.sh_type == SHT_NOBITS || !elf_span(elf, bytes, sh.sh_offset, sh.sh_size, &s))
            continue;
        if (sh.sh_type == SHT_NOTE)
            rc = elf_notes_walk(s, out, e);
        else if (section_is_named(elf, bytes, eh, &sh, "__xen_guest"))
            guest = s;
    }
    if (!rc && !out->present && guest.data)
        rc = xen_guest_parse(guest, out, e);
    if (!rc && !out->present)
        rc = err_set(e, ENOEXEC, "kernel has no Xen ELF notes: expected one built to run as a Xen "
                     "PV guest (Linux: CONFIG_XEN_PV)");
    return rc;
}
