/* Chains of calls without frame pointers: `chains MODE` touches new pages at the end of one. */
#define _GNU_SOURCE
#include <alloca.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGES 32

static volatile char *pages;
static volatile unsigned long sink;

/* Its instruction that faults is where the debugger stops, too. Written out, so that it has no frame and no loop of
 * others around it. */
__asm__(".text\n"
	".globl touch_pages\n"
	".type touch_pages, @function\n"
	"touch_pages:\n"
	".cfi_startproc\n"
	"	push %rbx\n"
	".cfi_adjust_cfa_offset 8\n"
	".cfi_rel_offset rbx, 0\n"
	"	xor %ebp, %ebp\n" /* its caller's: a walk by frame pointers ends here */
	".cfi_undefined rbp\n"
	".globl touch_here\n"
	"touch_here:\n"
	"	movb $1, (%rdi)\n"
	"	add $4096, %rdi\n"
	"	dec %rsi\n"
	"	jnz touch_here\n"
	"	pop %rbx\n"
	".cfi_adjust_cfa_offset -8\n"
	"	ret\n"
	".cfi_endproc\n"
	".size touch_pages, . - touch_pages\n"
	/* A frame in which rsp is aligned, and the old one kept on the stack. */
	".globl aligned_call\n"
	".type aligned_call, @function\n"
	"aligned_call:\n"
	".cfi_startproc\n"
	"	mov %rsp, %rax\n"
	".cfi_def_cfa_register rax\n"
	"	sub $64, %rsp\n"
	"	and $-64, %rsp\n"
	"	mov %rax, 24(%rsp)\n"
	".cfi_escape 0x0f, 0x05, 0x77, 0x18, 0x06, 0x23, 0x08\n" /* *(rsp + 24) + 8 */
	"	call safe_touch\n"
	"	mov 24(%rsp), %rsp\n"
	".cfi_def_cfa rsp, 8\n"
	"	ret\n"
	".cfi_endproc\n"
	".size aligned_call, . - aligned_call\n");

void touch_pages(volatile char *first, unsigned long pages);
void aligned_call(volatile char *first, unsigned long pages);

/* rbp is ours to keep. */
__attribute__((noinline)) void safe_touch(volatile char *first, unsigned long count)
{
	touch_pages(first, count);
	__asm__ volatile("" ::: "rbp", "memory");
}

__attribute__((noinline)) static void leaf(unsigned long n)
{
	char space[72];

	memset(space, n, sizeof(space));
	sink += space[n & 63];
	safe_touch(pages, PAGES);
	sink += n;
}

__attribute__((noinline)) static unsigned long recursion(unsigned long left)
{
	volatile unsigned long kept[7] = {left, left + 1};

	if (!left)
		leaf(left);
	else
		kept[2] = recursion(left - 1);
	return kept[1] + kept[2];
}

__attribute__((noinline)) static void with_alloca(unsigned long bytes)
{
	volatile char *space = alloca(bytes);

	space[0] = 1;
	leaf(bytes);
	sink += space[0];
}

static void handler(int number)
{
	leaf(number);
	sink++;
}

__attribute__((noinline)) static void with_signal(void)
{
	/* Not raise(): the debugger shows the functions that end in a jump, which are on no stack. */
	syscall(SYS_tgkill, getpid(), gettid(), SIGUSR1);
	sink++;
}

static int compare(const void *a, const void *b)
{
	static int done;

	if (!done++)
		leaf(3);
	return *(const int *)a - *(const int *)b;
}

static void *thread(void *data)
{
	recursion((unsigned long)data);
	sink++;
	return NULL;
}

int main(int argc, char **argv)
{
	const char *mode = argc > 1 ? argv[1] : "plain";
	int numbers[4] = {4, 3, 2, 1};
	pthread_t other;

	pages = mmap(NULL, PAGES * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	madvise((void *)pages, PAGES * 4096, MADV_NOHUGEPAGE);
	signal(SIGUSR1, handler);
	if (!strcmp(mode, "recursion"))
		recursion(100);
	else if (!strcmp(mode, "alloca"))
		with_alloca(1000 + argc);
	else if (!strcmp(mode, "signal"))
		with_signal();
	else if (!strcmp(mode, "library"))
		qsort(numbers, 4, sizeof(numbers[0]), compare);
	else if (!strcmp(mode, "aligned"))
		aligned_call(pages, PAGES);
	else if (!strcmp(mode, "thread")) {
		pthread_create(&other, NULL, thread, (void *)5);
		pthread_join(other, NULL);
	} else
		leaf(1);
	return sink == 12345;
}
