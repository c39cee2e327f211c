/* SPDX-License-Identifier: MIT */
/* HYPERVISOR_xen_version (public/version.h): which Xen this looks like. */
#include "shim/shim.h"

#include <xen/features.h>
#include <xen/version.h>

#define XEN_MAJOR 4
#define XEN_MINOR 17

static int64_t text_write(uint64_t arg_va, const char *text, uint64_t size)
{
    char buf[XEN_CAPABILITIES_INFO_LEN] = "";
    uint64_t n = 0;

    while (text[n] && n + 1 < size) {
        buf[n] = text[n];
        n++;
    }
    return guest_write(arg_va, buf, size);
}

static int64_t compile_info(uint64_t arg_va)
{
    struct xen_compile_info info = {
        .compiler = __VERSION__, .compile_by = "xenolith", .compile_domain = "xenolith",
        .compile_date = "",
    };

    return guest_write(arg_va, &info, sizeof(info));
}

static int64_t features(uint64_t arg_va)
{
    struct xen_feature_info info;

    if (guest_read(&info, arg_va, sizeof(info)))
        return -XEN_EFAULT;
    if (info.submap_idx)
        return -XEN_EINVAL;
    info.submap = 1u << XENFEAT_mmu_pt_update_preserve_ad | 1u << XENFEAT_highmem_assist |
                  1u << XENFEAT_gnttab_map_avail_bits | 1u << XENFEAT_direct_mapped |
                  1u << XENFEAT_memory_op_vnode_supported;
    if (load_relaxed(&shim_domain.vm_assist) >> VMASST_TYPE_pae_extended_cr3 & 1)
        info.submap |= 1u << XENFEAT_pae_pgdir_above_4gb;
    return guest_write(arg_va, &info, sizeof(info));
}

int64_t xen_version(uint64_t cmd, uint64_t arg_va)
{
    static const char denied[] = "<denied>";
    uint64_t virt_start = HYPERVISOR_VIRT_START;

    switch (cmd) {
    case XENVER_version:
        return XEN_MAJOR << 16 | XEN_MINOR;
    case XENVER_extraversion:
        return text_write(arg_va, ".0-xenolith", sizeof(xen_extraversion_t));
    case XENVER_compile_info:
        return compile_info(arg_va);
    case XENVER_capabilities:
        return text_write(arg_va, "xen-3.0-x86_64", sizeof(xen_capabilities_info_t));
    case XENVER_changeset:
        return text_write(arg_va, "unavailable", sizeof(xen_changeset_info_t));
    case XENVER_platform_parameters:
        return guest_write(arg_va, &virt_start, sizeof(virt_start));
    case XENVER_get_features:
        return features(arg_va);
    case XENVER_pagesize:
        return arg_va ? -XEN_EINVAL : (int64_t)PAGE_SIZE;
    case XENVER_guest_handle:
        return guest_write(arg_va, shim_domain.boot->uuid, sizeof(shim_domain.boot->uuid));
    case XENVER_commandline:
        return guest_write(arg_va, denied, sizeof(denied));
    case XENVER_build_id:       /* for who may control the machine, as the line above */
        return -XEN_EPERM;
    default:
        return -XEN_ENOSYS;
    }
}
