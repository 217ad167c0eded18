// Faults while an exception is thrown and caught: in a destructor of a frame that is unwound, and in the exception's own.
#include <sys/mman.h>

extern "C" void touch_here_pages(volatile char *first, unsigned long pages);
asm(".text\n"
    ".globl touch_here_pages\n"
    ".type touch_here_pages, @function\n"
    "touch_here_pages:\n"
    ".cfi_startproc\n"
    ".globl touch_here\n"
    "touch_here:\n"
    "	movb $1, (%rdi)\n"
    "	add $4096, %rdi\n"
    "	dec %rsi\n"
    "	jnz touch_here\n"
    "	ret\n"
    ".cfi_endproc\n"
    ".size touch_here_pages, . - touch_here_pages\n");

static const unsigned long PAGES = 32;
static volatile char *pages;
static volatile int sink;

struct Thrown {
	int value;
	__attribute__((noinline)) ~Thrown()
	{
		touch_here_pages(pages, PAGES);
		sink = sink + 1;
	}
};

__attribute__((noinline)) static void thrower(int depth)
{
	if (depth == 0)
		throw Thrown{1};
	thrower(depth - 1);
	sink = sink + depth;
}

int main()
{
	pages = static_cast<volatile char *>(
	    mmap(nullptr, PAGES * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	madvise(const_cast<char *>(pages), PAGES * 4096, MADV_NOHUGEPAGE);
	try {
		thrower(4);
	} catch (const Thrown &thrown) {
		sink = sink + thrown.value;
	}
	return 0;
}
