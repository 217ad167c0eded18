// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* --by cause */
#define RING      FAULTS_RING_NONE
#define GROUP     FAULTS_GROUP_CAUSE
#define GROUP_KEY u64
#define FILTERS   TRAP_BY_ID
#include "faults.bpf.h"
#include "faults_failed.bpf.h"
#include "faults_time.bpf.h"
#include "faults_life.bpf.h"
#include "faults_group_read.bpf.h"
