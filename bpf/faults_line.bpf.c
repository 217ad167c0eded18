// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* A line for each fault: -v. */
#define RING    (FAULTS_RING_FAULTS | FAULTS_RING_CAUSES)
#define GROUP   FAULTS_GROUP_NONE
#define FILTERS TRAP_BY_ANY
#include "faults.bpf.h"
#include "faults_counters.bpf.h"
#include "faults_failed.bpf.h"
#include "faults_time.bpf.h"
#include "faults_life.bpf.h"
#include "faults_moves.bpf.h"
#include "faults_file_read.bpf.h"
