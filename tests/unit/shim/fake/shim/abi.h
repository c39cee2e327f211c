/* SPDX-License-Identifier: MIT */
/* The shim's contract, with its map of all memory where the test has put it. */
#ifndef TESTS_UNIT_SHIM_FAKE_ABI_H
#define TESTS_UNIT_SHIM_FAKE_ABI_H

#include_next "shim/abi.h"

extern uint8_t *fake_memory;
#undef SHIM_DM_VA
#define SHIM_DM_VA ((uintptr_t)fake_memory)

#endif
