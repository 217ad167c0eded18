/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Reading groups, in objects that have them. */
#ifndef TRAPLINE_FAULTS_GROUP_READ_BPF_H
#define TRAPLINE_FAULTS_GROUP_READ_BPF_H

#include "faults_group.bpf.h"

MAP_READER(groups, GROUP_KEY, struct faults_group)

#endif
