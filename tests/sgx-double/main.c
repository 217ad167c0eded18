// SPDX-License-Identifier: GPL-2.0-only
/* Comes and goes: the pool, the counts, three devices. */
#include <linux/miscdevice.h>
#include <linux/module.h>

#include "sgx_double.h"

static unsigned int epc_pages = 1024;
module_param(epc_pages, uint, 0444);
MODULE_PARM_DESC(epc_pages, "pages in the pool");

static struct miscdevice devices[] = {
    {.minor = MISC_DYNAMIC_MINOR, .name = "sgx_double", .mode = 0600, .fops = &sgx_encl_fops},
    {.minor = MISC_DYNAMIC_MINOR, .name = "sgx_double_legacy", .mode = 0600, .fops = &sgx_legacy_fops},
    {.minor = MISC_DYNAMIC_MINOR, .name = "sgx_double_vepc", .mode = 0600, .fops = &sgx_vepc_fops},
};

static void unregister(int n)
{
	while (n--)
		misc_deregister(&devices[n]);
}

static int __init sgx_double_init(void)
{
	int err, n;

	err = sgx_epc_init(epc_pages);
	if (err)
		return err;
	err = sgx_debugfs_init();
	if (err)
		goto no_debugfs;
	for (n = 0; n < ARRAY_SIZE(devices); n++) {
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
	return err;
}

static void __exit sgx_double_exit(void)
{
	unregister(ARRAY_SIZE(devices));
	sgx_debugfs_exit();
	sgx_epc_exit();
}

module_init(sgx_double_init);
module_exit(sgx_double_exit);
MODULE_DESCRIPTION("Stands in for an SGX driver in trapline's tests");
MODULE_LICENSE("GPL");
