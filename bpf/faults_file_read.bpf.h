/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Reading the names of files, in objects that leave some. */
#ifndef TRAPLINE_FAULTS_FILE_READ_BPF_H
#define TRAPLINE_FAULTS_FILE_READ_BPF_H

#include "faults_file.bpf.h"

MAP_TAKER(names, struct faults_group_key, struct faults_name, value->flags &FAULTS_NAME_READY)

#endif
