/*
 * A VMM whose handlers are slow in known places. Its guest is in real mode and writes to a port three times; each write
 * is handled by the next of sleeps(), spins() and is_quick().
 */
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <pthread.h>
#include <time.h>
#include <unistd.h>

#define APART __attribute__((noinline, noclone))

/* mov $0x10,%dx; out %al,(%dx), and again; hlt */
static const unsigned char GUEST[] = {0xba, 0x10, 0x00, 0xee, 0xee, 0xee, 0xf4};

static volatile unsigned long work;
static int vcpu;

static long now_ms(void)
{
	struct timespec time;

	syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

APART static void wait_for_disk(void)
{
	struct timespec time = {0, 60 * 1000 * 1000};

	syscall(SYS_nanosleep, &time, NULL);
	work++;
}

/* A frame that no frame pointer leads through. */
APART static void handle_write(int n)
{
	volatile char buffer[3000];

	memset((char *)buffer, n, sizeof(buffer));
	wait_for_disk();
	work += buffer[n];
}

APART static void sleeps(int n)
{
	/* Shorter than the other: not where it was longest. */
	struct timespec time = {0, 5 * 1000 * 1000};

	syscall(SYS_nanosleep, &time, NULL);
	handle_write(n);
	work++;
}

APART static void spins(void)
{
	long end = now_ms() + 61; /* whole milliseconds: it may be 60 */

	while (now_ms() < end)
		for (int i = 0; i < 10000; i++)
			work++;
	work++;
}

APART static void dispatch(int n)
{
	if (n == 0)
		sleeps(n);
	else if (n == 1)
		spins();
	work++;
}

APART static int enter_guest(void)
{
	int result = syscall(SYS_ioctl, vcpu, KVM_RUN, 0);

	work++;
	return result;
}

APART static void *run_vcpu(void *mapped)
{
	struct kvm_run *run = mapped;

	for (int n = 0;; n++) {
		if (enter_guest() || run->exit_reason != KVM_EXIT_IO)
			break;
		dispatch(n);
	}
	work++;
	return run->exit_reason == KVM_EXIT_HLT ? run : NULL;
}

int main(void)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	int vm = ioctl(kvm, KVM_CREATE_VM, 0);
	unsigned char *memory = mmap(NULL, 0x2000, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct kvm_userspace_memory_region region = {.memory_size = 0x2000, .userspace_addr = (unsigned long)memory};
	struct kvm_sregs sregs;
	struct kvm_regs regs = {.rip = 0x1000, .rflags = 2};
	pthread_t thread;
	void *run, *done;

	memcpy(memory + 0x1000, GUEST, sizeof(GUEST));
	if (ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region)) {
		perror("memory");
		return 1;
	}
	vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
	run = mmap(NULL, ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	ioctl(vcpu, KVM_GET_SREGS, &sregs);
	sregs.cs.base = sregs.cs.selector = 0;
	if (ioctl(vcpu, KVM_SET_SREGS, &sregs) || ioctl(vcpu, KVM_SET_REGS, &regs)) {
		perror("vCPU");
		return 1;
	}
	if (pthread_create(&thread, NULL, run_vcpu, run) || pthread_join(thread, &done) || !done) {
		fprintf(stderr, "the guest did not halt\n");
		return 1;
	}
	/* A VMM lives on after an exit; this one until what it has mapped was read. */
	sleep(1);
	return 0;
}
