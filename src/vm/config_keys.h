/* SPDX-License-Identifier: MIT */
/* The names xl.cfg(5) knows, and what becomes of them here. */
#ifndef XENOLITH_VM_CONFIG_KEYS_H
#define XENOLITH_VM_CONFIG_KEYS_H

enum vm_config_key {
    VM_CONFIG_KEY_HONOURED,     /* read by config.c */
    VM_CONFIG_KEY_IGNORED,      /* xl honours it, Xenolith does not yet */
    VM_CONFIG_KEY_UNKNOWN,      /* nor does xl */
};

enum vm_config_key vm_config_key_find(const char *name);

#endif
