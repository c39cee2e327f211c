/* SPDX-License-Identifier: MIT */
#include "vm/config_keys.h"

#include <string.h>

#include "base/types.h"

static const char *const honoured[] = {
    "builder", "cmdline", "disk", "disk_backend", "extra", "kernel", "max_event_channels",
    "max_grant_frames", "max_grant_version", "max_queues", "maxmem", "maxvcpus", "memory",
    "name", "on_crash", "on_poweroff", "on_reboot", "on_soft_reset", "on_watchdog", "ramdisk",
    "ring", "root", "type", "uuid", "vcpus",
};

/* The rest of what xl of Xen 4.17 reads from a domain's file. */
static const char *const ignored[] = {
    "acpi", "acpi_firmware", "acpi_laptop_slate", "acpi_s3", "acpi_s4", "altp2m", "altp2mhvm",
    "apic", "bios", "bios_path_override", "boot", "bootloader", "bootloader_args", "budget", "cap",
    "channel", "cpu_weight", "cpuid", "cpus", "cpus_soft", "device_model", "device_model_args",
    "device_model_args_hvm", "device_model_args_pv", "device_model_override",
    "device_model_stubdomain_override", "device_model_stubdomain_seclabel", "device_model_user",
    "device_model_version", "device_tree", "display", "dm_restrict", "driver_domain", "dtdev",
    "e820_host", "extratime", "firmware", "firmware_override", "gfx_passthru", "gic_version", "hap",
    "hdtype", "hpet", "init_seclabel", "iomem", "ioports", "irqs", "keymap", "latency", "localtime",
    "max_maptrack_frames", "mca_caps", "mmio_hole", "ms_vm_genid",
    "msr_relaxed", "nestedhvm", "nographic", "nomigrate", "nx", "oos", "opengl", "p9", "pae",
    "passthrough", "pci", "pci_msitranslate", "pci_permissive", "pci_power_mgmt", "pci_seize",
    "period", "pool", "pvcalls", "pvshim", "pvshim_cmdline", "pvshim_extra", "pvshim_path", "rdm",
    "rdm_mem_boundary", "rtc_timeoffset", "sdl", "seclabel", "serial", "shadow_memory", "slice",
    "smbios_firmware", "soundhw", "spice", "spice_clipboard_sharing", "spice_image_compression",
    "spice_streaming_video", "spiceagent_mouse", "spicedisable_ticketing", "spicehost",
    "spicepasswd", "spiceport", "spicetls_port", "spiceusbredirection", "spicevdagent", "stdvga",
    "stubdomain_cmdline", "stubdomain_kernel", "stubdomain_memory", "stubdomain_ramdisk", "tee",
    "timer_mode", "tsc_mode", "usb", "usbctrl", "usbdev", "usbdevice", "usbversion", "vdispl",
    "vendor_device", "vfb", "vga", "videoram", "vif", "vif2", "viridian", "vkb", "vkb_device",
    "vmtrace_buf_kb", "vnc", "vncdisplay", "vnclisten", "vncpasswd", "vncunused", "vncviewer",
    "vnuma", "vpt_align", "vsnd", "vtpm", "vuart", "xauthority", "xen_platform_pci",
    "xend_suspend_evtchn_compat",
};

static bool has(const char *const *names, unsigned nr_names, const char *name)
{
    for (unsigned i = 0; i < nr_names; i++)
        if (!strcmp(names[i], name))
            return true;
    return false;
}

enum vm_config_key vm_config_key_find(const char *name)
{
    if (has(honoured, array_size(honoured), name))
        return VM_CONFIG_KEY_HONOURED;
    if (has(ignored, array_size(ignored), name))
        return VM_CONFIG_KEY_IGNORED;
    return VM_CONFIG_KEY_UNKNOWN;
}
