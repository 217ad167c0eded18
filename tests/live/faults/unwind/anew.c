/* A program whose functions have more room on their stacks with -DROOM=…: where the callers are, differs. */
#include <sys/mman.h>

#define PAGES 32

__attribute__((noinline)) static void touch_all(volatile char *memory)
{
	for (int i = 0; i < PAGES; i++)
		memory[i * 4096L] = 1;
}

__attribute__((noinline)) static int middle(volatile char *memory)
{
	volatile char room[ROOM];

	room[0] = room[ROOM - 1] = 1;
	touch_all(memory);
	return room[0] + room[ROOM - 1];
}

int main(void)
{
	char *memory = mmap(0, PAGES * 4096L, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	madvise(memory, PAGES * 4096L, MADV_NOHUGEPAGE);
	return middle(memory) != 2;
}
