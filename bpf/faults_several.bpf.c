// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Several groupings at once, such as --by process,file: which ones is a number. */
#define RING    FAULTS_RING_NONE
#define GROUP   (config.group & ~FAULTS_GROUP_STACK)
#define FILTERS TRAP_BY_ANY
#include "faults.bpf.h"
#include "faults_failed.bpf.h"
#include "faults_time.bpf.h"
#include "faults_life.bpf.h"
#include "faults_moves.bpf.h"
#include "faults_group_read.bpf.h"
#include "faults_file_read.bpf.h"
