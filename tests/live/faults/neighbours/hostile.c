/*
 * hostile KIND FILE: does against a tracer what an ordinary user can do, until it is killed. FILE is an ELF file of its own.
 * Where a function is called from is forged: a chain of calls leads to any address that it likes.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096
#define CODE (PROT_READ | PROT_EXEC)

struct frame {
	void *next;
	uintptr_t back;
};

/* Writes to a page with this frame pointer. */
void touch_from(char *page, void *frame);
__asm__(".globl touch_from\n.type touch_from, @function\ntouch_from:\n"
	"push %rbp\nmov %rsi, %rbp\nmovb $1, (%rdi)\npop %rbp\nret\n.size touch_from, . - touch_from\n");

static void *mapped(size_t size, int prot, int flags, int fd)
{
	void *at = mmap(NULL, size, prot, flags, fd, 0);

	if (at == MAP_FAILED) {
		perror("mmap");
		_exit(1);
	}
	return at;
}

/* Faults from these places: innermost first. */
static void fault_from(const uintptr_t *places, int many)
{
	static char *fresh;
	static int used;
	struct frame frames[16];

	if (!fresh || used == 1024) {
		if (fresh)
			munmap(fresh, 1024 * PAGE);
		fresh = mapped(1024 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
		madvise(fresh, 1024 * PAGE, MADV_NOHUGEPAGE);
		used = 0;
	}
	for (int i = 0; i < many; i++) {
		frames[i].next = i + 1 < many ? &frames[i + 1] : NULL;
		frames[i].back = places[i];
	}
	touch_from(fresh + used++ * PAGE, many ? frames : NULL);
}

static void fault_in(void *at, size_t size)
{
	/* Many places of it, so that it is asked about again and again. */
	for (size_t offset = 0x1000; offset < size && offset < 0x8000; offset += 0x40) {
		uintptr_t place = (uintptr_t)at + offset;

		fault_from(&place, 1);
	}
}

static void pause_for(long ms)
{
	struct timespec time = {ms / 1000, ms % 1000 * 1000000};

	nanosleep(&time, NULL);
}

static int opened(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC, 0600);

	if (fd < 0) {
		perror(path);
		_exit(1);
	}
	return fd;
}

static size_t size_of(int fd)
{
	struct stat st;

	return fstat(fd, &st) ? 0 : st.st_size;
}

/* What is in a file that somebody has prepared. */
static void prepared(const char *path)
{
	int fd = opened(path, O_RDONLY);
	size_t size = size_of(fd);
	void *at = mapped(size, CODE, MAP_PRIVATE, fd);

	for (;; pause_for(20))
		fault_in(at, size);
}

static void lease(const char *path)
{
	int fd = opened(path, O_RDONLY);
	size_t size = size_of(fd);
	void *at = mapped(size, CODE, MAP_PRIVATE, fd);

	signal(SIGIO, SIG_IGN);
	for (;; pause_for(20)) {
		fcntl(fd, F_SETLEASE, F_WRLCK);
		fault_in(at, size);
	}
}

static void truncates(const char *path)
{
	int fd = opened(path, O_RDWR);
	size_t size = size_of(fd);
	void *copy = malloc(size), *at = mapped(size, CODE, MAP_PRIVATE, fd);

	if (!copy || pread(fd, copy, size, 0) != (ssize_t)size)
		_exit(1);
	for (;;) {
		fault_in(at, size);
		pause_for(5);
		if (ftruncate(fd, 0) || pwrite(fd, copy, size, 0) != (ssize_t)size)
			_exit(1);
	}
}

static void memfds(void)
{
	for (;;) {
		for (int i = 0; i < 500; i++) {
			int fd = memfd_create("hostile", MFD_CLOEXEC);
			void *at;

			if (fd < 0 || ftruncate(fd, 0x2000))
				_exit(1);
			at = mapped(0x2000, CODE, MAP_PRIVATE, fd);
			fault_in(at, 0x2000);
			close(fd);
			munmap(at, 0x2000);
		}
		pause_for(200);
	}
}

static char map_path[64];

static void *made(void)
{
	snprintf(map_path, sizeof(map_path), "/tmp/perf-%d.map", getpid());
	unlink(map_path);
	return mapped(16 * PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1);
}

static void device_for_a_map(void)
{
	void *at = made();

	if (symlink("/dev/ptmx", map_path))
		_exit(1);
	for (;; pause_for(20))
		fault_in(at, 16 * PAGE);
}

static void sparse_map(void)
{
	void *at = made();
	int fd = opened(map_path, O_RDWR | O_CREAT);

	for (off_t size = 127 << 20;; size ^= PAGE) {
		if (ftruncate(fd, size))
			_exit(1);
		fault_in(at, 16 * PAGE);
		pause_for(20);
	}
}

static void map_of_short_lines(void)
{
	static char text[1 << 20];
	void *at = made();
	int fd = opened(map_path, O_RDWR | O_CREAT);

	for (size_t i = 0; i + 6 <= sizeof(text); i += 6)
		memcpy(text + i, "1 1 a\n", 6);
	for (int round = 0;; round++) {
		if (round % 16 == 0 && ftruncate(fd, 0))
			_exit(1);
		if (pwrite(fd, text, sizeof(text), (off_t)(round % 16) * sizeof(text)) < 0)
			_exit(1);
		fault_in(at, 16 * PAGE);
		pause_for(20);
	}
}

static void stacks(void)
{
	uintptr_t places[8];
	uint64_t random = 88172645463325252;

	for (;;) {
		for (int i = 0; i < 8; i++) {
			random ^= random << 13;
			random ^= random >> 7;
			random ^= random << 17;
			places[i] = (uintptr_t)fault_from + random % 512;
		}
		fault_from(places, 8);
	}
}

static void programs(void)
{
	for (;;) {
		for (int i = 0; i < 4; i++) {
			pid_t pid = fork();

			if (!pid) {
				execl("/bin/true", "true", NULL);
				_exit(0);
			}
		}
		while (wait(NULL) > 0) {
		}
	}
}

static void burn(void)
{
	for (;;)
		__asm__ volatile("");
}

int main(int argc, char **argv)
{
	const char *kind;

	if (argc != 3)
		return 2;
	kind = argv[1];
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (!strcmp(kind, "prepared"))
		prepared(argv[2]);
	if (!strcmp(kind, "lease"))
		lease(argv[2]);
	if (!strcmp(kind, "truncates"))
		truncates(argv[2]);
	if (!strcmp(kind, "memfds"))
		memfds();
	if (!strcmp(kind, "device-for-a-map"))
		device_for_a_map();
	if (!strcmp(kind, "sparse-map"))
		sparse_map();
	if (!strcmp(kind, "map-of-short-lines"))
		map_of_short_lines();
	if (!strcmp(kind, "stacks"))
		stacks();
	if (!strcmp(kind, "programs"))
		programs();
	if (!strcmp(kind, "burn"))
		burn();
	return 2;
}
