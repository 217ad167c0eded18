// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Messages at steps, and what caused most: with -v. */
#define RING    (FAULTS_RING_STEPS | FAULTS_RING_FAULTS)
#define GROUP   FAULTS_GROUP_NONE
#define FILTERS TRAP_BY_ID
#include "faults.bpf.h"
#include "faults_time.bpf.h"
#include "faults_life.bpf.h"
#include "faults_file_read.bpf.h"
