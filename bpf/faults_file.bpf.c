// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* --by file */
#define RING      FAULTS_RING_NONE
#define GROUP     FAULTS_GROUP_FILE
#define GROUP_KEY struct faults_group_key
#define FILTERS   TRAP_BY_ID
#include "faults.bpf.h"
#include "faults_time.bpf.h"
#include "faults_life.bpf.h"
#include "faults_group_read.bpf.h"
#include "faults_file_read.bpf.h"
