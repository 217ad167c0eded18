// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Messages at steps: --log-step, --stall. */
#define RING    FAULTS_RING_STEPS
#define GROUP   FAULTS_GROUP_NONE
#define FILTERS TRAP_BY_ANY
#include "faults.bpf.h"
#include "faults_counted.bpf.h"
#include "faults_counters.bpf.h"
#include "faults_time.bpf.h"
#include "faults_life.bpf.h"
#include "faults_moves.bpf.h"
