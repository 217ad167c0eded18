// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Counts and times of threads, of all or of some processes, and no more: see ASKED() and FILTERS. */
#define FAULTS_BARE
#define FILTERS (TRAP_BY_PID | TRAP_BY_TID | TRAP_BY_TREE)
#include "faults.bpf.c"
