/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Reading what kvm counted, where the kernel allows programs that go through maps: crates/probe/src/elements.rs. */
#ifndef TRAPLINE_KVM_READ_BPF_H
#define TRAPLINE_KVM_READ_BPF_H

#include "kvm_slot.bpf.h"

MAP_READER(vcpu_threads, u32, struct kvm_thread)
MAP_READER(exits, struct kvm_key, struct kvm_exits)

#endif
