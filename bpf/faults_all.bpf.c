// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * What no other object does together, such as lines and groups, or groups of threads of one name. It has all the
 * code, so what is asked of it is a number, and it starts last.
 */
#define RING    config.ring
#define GROUP   (config.group & (FAULTS_GROUP_FILE | FAULTS_GROUP_CAUSE | FAULTS_GROUP_STACK))
#define UNWINDS config.unwinds
#define FILTERS TRAP_BY_ANY
#include "faults.bpf.h"
#include "faults_failed.bpf.h"
#include "faults_time.bpf.h"
#include "faults_life.bpf.h"
#include "faults_moves.bpf.h"
#include "faults_group_read.bpf.h"
#include "faults_file_read.bpf.h"
