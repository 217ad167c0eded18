// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* VM exits, with the VMM's stack at those that are slow: kvm slower --stacks. */
#define STACKS 1
#include "kvm.bpf.c"
