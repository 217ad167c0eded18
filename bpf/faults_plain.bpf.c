// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Page faults of threads, without what is about the place of each: see ASKED(). */
#define FAULTS_PLAIN
#include "faults.bpf.c"
