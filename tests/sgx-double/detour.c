// SPDX-License-Identifier: GPL-2.0-only
/*
 * Up to 6.3 no trampoline can be attached to a function of a module if the kernel has one of that name. So probes are
 * given what they would have on a machine with SGX: the kernel's own functions, with the kernel's own types. Without
 * SGX nobody else calls them. Here they are called, and each is led back, before its first instruction, to the function
 * of its name in this module, as live patches do it.
 */
#include <linux/ftrace.h>
#include <linux/kprobes.h>

#include "sgx_double.h"

struct sgx_calls sgx_calls = {
    .vma_fault = sgx_vma_fault,
    .vepc_fault = sgx_vepc_fault,
    .eldu = sgx_encl_eldu,
    .ewb = sgx_encl_ewb,
    .load_page = __sgx_encl_load_page,
    .page_alloc = sgx_encl_page_alloc,
    .alloc_epc = sgx_alloc_epc_page,
    .release = sgx_encl_release,
};

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 4, 0)

struct detour {
	const char *name;
	unsigned long to;
	unsigned long *call; /* the member of sgx_calls that is to hold the kernel's address */
	struct kprobe probe;
};

static int lead_here(struct kprobe *probe, struct pt_regs *regs)
{
	instruction_pointer_set(regs, container_of(probe, struct detour, probe)->to);
	return 1;
}

/* With such a handler the probe is not made a jump, which would come back. */
static void not_a_jump(struct kprobe *probe, struct pt_regs *regs, unsigned long flags)
{
}

#define DETOUR(function, member)                                                                                       \
	{                                                                                                              \
	    .name = #function,                                                                                         \
	    .to = (unsigned long)function,                                                                             \
	    .call = (unsigned long *)&sgx_calls.member,                                                                \
	    .probe = {.pre_handler = lead_here, .post_handler = not_a_jump},                                           \
	}

static struct detour detours[] = {
    DETOUR(sgx_vma_fault, vma_fault),
    DETOUR(sgx_vepc_fault, vepc_fault),
    DETOUR(sgx_encl_eldu, eldu),
    DETOUR(sgx_encl_ewb, ewb),
    DETOUR(__sgx_encl_load_page, load_page),
    DETOUR(sgx_encl_page_alloc, page_alloc),
    DETOUR(sgx_alloc_epc_page, alloc_epc),
    DETOUR(sgx_encl_release, release),
};
static int begun;

/* Only a probe is told where a function is, and it is told of the kernel's own first. */
static unsigned long address_of(const char *name)
{
	struct kprobe probe = {.symbol_name = name};
	unsigned long address;

	if (register_kprobe(&probe))
		return 0;
	address = (unsigned long)probe.addr;
	unregister_kprobe(&probe);
	return address;
}

static int begin(struct detour *detour)
{
	unsigned long from = address_of(detour->name);
	int err;

	if (!from || from == detour->to)
		return -ENOENT;
	detour->probe.addr = (kprobe_opcode_t *)(from + MCOUNT_INSN_SIZE);
	err = register_kprobe(&detour->probe);
	if (!err)
		*detour->call = from;
	return err;
}

int sgx_detour_begin(void)
{
	int err;

	for (begun = 0; begun < ARRAY_SIZE(detours); begun++) {
		err = begin(&detours[begun]);
		if (err) {
			pr_err("sgx_double: no detour by the kernel's %s: %d\n", detours[begun].name, err);
			sgx_detour_end();
			return err;
		}
	}
	sgx_vm_ops.fault = sgx_calls.vma_fault;
	sgx_vepc_vm_ops.fault = sgx_calls.vepc_fault;
	return 0;
}

/* No enclave is left by now, and nobody calls them any more. */
void sgx_detour_end(void)
{
	while (begun--)
		unregister_kprobe(&detours[begun].probe);
	begun = 0;
}

#else

int sgx_detour_begin(void)
{
	return -EOPNOTSUPP;
}

void sgx_detour_end(void)
{
}

#endif
