/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Reading what sgx counted, where the kernel allows programs that go through maps: crates/probe/src/elements.rs. */
#ifndef TRAPLINE_SGX_READ_BPF_H
#define TRAPLINE_SGX_READ_BPF_H

#include "sgx_enclave.bpf.h"

MAP_READER(enclaves, u64, struct sgx_enclave)
MAP_TAKER(ended, u64, struct sgx_enclave, true)

#endif
