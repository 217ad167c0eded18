// SPDX-License-Identifier: GPL-2.0-only
/* Comes and goes: the pool, the counts, three devices. */
#include <linux/miscdevice.h>
#include <linux/module.h>

#include "sgx_double.h"

static unsigned int epc_pages = 1024;
module_param(epc_pages, uint, 0444);
MODULE_PARM_DESC(epc_pages, "pages in the pool");

static bool detour;
module_param(detour, bool, 0444);
MODULE_PARM_DESC(detour, "call the kernel's own functions of these names, which lead here (up to 6.3)");

static struct miscdevice devices[] = {
    {.minor = MISC_DYNAMIC_MINOR, .name = "sgx_double", .mode = 0600, .fops = &sgx_encl_fops},
    {.minor = MISC_DYNAMIC_MINOR, .name = "sgx_double_legacy", .mode = 0600, .fops = &sgx_legacy_fops},
    {.minor = MISC_DYNAMIC_MINOR, .name = "sgx_double_vepc", .mode = 0600, .fops = &sgx_vepc_fops},
    /* Only with a detour: the kernel's own driver seems to work. */
    {.minor = MISC_DYNAMIC_MINOR, .name = "sgx_enclave", .mode = 0600, .fops = &sgx_encl_fops},
};

static int devices_used(void)
{
	return ARRAY_SIZE(devices) - !detour;
}

static void unregister(int n)
{
	while (n--)
		misc_deregister(&devices[n]);
}

static int __init sgx_double_init(void)
{
	int err, n;

	err = detour ? sgx_detour_begin() : 0;
	if (err)
		return err;
	err = sgx_epc_init(epc_pages);
	if (err)
		goto no_pool;
	err = sgx_debugfs_init();
	if (err)
		goto no_debugfs;
	for (n = 0; n < devices_used(); n++) {
		err = misc_register(&devices[n]);
		if (err)
			goto no_device;
	}
	return 0;
no_device:
	unregister(n);
	sgx_debugfs_exit();
no_debugfs:
	sgx_epc_exit();
no_pool:
	sgx_detour_end();
	return err;
}

static void __exit sgx_double_exit(void)
{
	unregister(devices_used());
	sgx_debugfs_exit();
	sgx_epc_exit();
	/* Last: the reclaiming thread may have had an enclave to let go. */
	sgx_detour_end();
}

module_init(sgx_double_init);
module_exit(sgx_double_exit);
MODULE_DESCRIPTION("Stands in for an SGX driver in trapline's tests");
MODULE_LICENSE("GPL");
