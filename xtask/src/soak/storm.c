/*
 * storm SECONDS DIRECTORY: processes that come and go. Each maps new files that it deletes again, faults in threads, from
 * many stacks and from code that it has made and described in a perf map; many become another program. At the end it
 * prints what the kernel counted: major and minor faults of itself and of all its descendants.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096

static const char *directory;

static char *fresh(int pages, int prot)
{
	char *at = mmap(NULL, (size_t)pages * PAGE, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (at == MAP_FAILED)
		_exit(101);
	return at;
}

static void *thread(void *arg)
{
	char *at = fresh(8, PROT_READ | PROT_WRITE);

	for (int i = 0; i < 8; i++)
		at[i * PAGE] = 1;
	munmap(at, 8 * PAGE);
	return arg;
}

static void file(unsigned int number, int deleted)
{
	char name[4096], page[PAGE] = {1};
	int fd;
	char *at;

	snprintf(name, sizeof(name), "%s/file-%u", directory, number);
	fd = open(name, O_RDWR | O_CREAT | O_EXCL, 0600);
	if (fd < 0)
		_exit(102);
	if (deleted)
		unlink(name);
	for (int i = 0; i < 4; i++)
		if (write(fd, page, PAGE) != PAGE)
			_exit(103);
	at = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (at == MAP_FAILED)
		_exit(104);
	for (int i = 0; i < 4; i++)
		at[i * PAGE] = 2;
	munmap(at, 4 * PAGE);
	close(fd);
	if (!deleted)
		unlink(name);
}

static char *stack_page;

static __attribute__((noinline)) void right(unsigned int bits, int depth);

static __attribute__((noinline)) void left(unsigned int bits, int depth)
{
	if (!depth)
		*stack_page = 1;
	else if (bits & 1)
		right(bits >> 1, depth - 1);
	else
		left(bits >> 1, depth - 1);
	__asm__ volatile("" ::: "memory");
}

static __attribute__((noinline)) void right(unsigned int bits, int depth)
{
	if (!depth)
		*stack_page = 1;
	else if (bits & 1)
		right(bits >> 1, depth - 1);
	else
		left(bits >> 1, depth - 1);
	__asm__ volatile("" ::: "memory");
}

static void stacks(unsigned int number, int many)
{
	char *at = fresh(many, PROT_READ | PROT_WRITE);

	for (int i = 0; i < many; i++) {
		stack_page = at + i * PAGE;
		left(number * 2654435761u + i, 12);
	}
	munmap(at, (size_t)many * PAGE);
}

/* mov byte ptr [rdi], 1; ret */
static void made(unsigned int number)
{
	static const unsigned char code[] = {0xc6, 0x07, 0x01, 0xc3};
	char *at = fresh(1, PROT_READ | PROT_WRITE | PROT_EXEC), *page = fresh(1, PROT_READ | PROT_WRITE);
	char name[64];
	FILE *map;

	memcpy(at, code, sizeof(code));
	snprintf(name, sizeof(name), "/tmp/perf-%d.map", getpid());
	map = fopen(name, "w");
	if (map) {
		fprintf(map, "%lx %x made_%u\n", (unsigned long)at, PAGE, number);
		fclose(map);
	}
	((void (*)(char *))at)(page);
	unlink(name);
}

static void child(unsigned int number)
{
	pthread_t threads[2];

	file(number, number & 1);
	stacks(number, 16);
	for (int i = 0; i < 2; i++)
		if (pthread_create(&threads[i], NULL, thread, NULL))
			_exit(105);
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	if (!(number & 7))
		made(number);
	if (!(number & 3))
		execl("/bin/true", "true", NULL);
	_exit(0);
}

static void tell(int fd)
{
	static char text[64];
	struct rusage own, children;
	int length;

	getrusage(RUSAGE_SELF, &own);
	getrusage(RUSAGE_CHILDREN, &children);
	length = snprintf(text, sizeof(text), "%ld %ld\n", own.ru_majflt + children.ru_majflt,
			  own.ru_minflt + children.ru_minflt);
	if (write(fd, text, length) != length)
		_exit(106);
}

int main(int argc, char **argv)
{
	int devnull = open("/dev/null", O_WRONLY), status;
	unsigned int number = 0;
	struct timespec now;
	time_t end;

	if (argc != 3)
		return 2;
	directory = argv[2];
	clock_gettime(CLOCK_MONOTONIC, &now);
	end = now.tv_sec + atoi(argv[1]);
	while (now.tv_sec < end) {
		for (int i = 0; i < 16; i++) {
			pid_t pid = fork();

			if (!pid)
				child(number + i);
			if (pid < 0)
				return 3;
		}
		number += 16;
		while (wait(&status) > 0)
			if (status)
				return 4;
		clock_gettime(CLOCK_MONOTONIC, &now);
	}
	/* What this takes is there the second time. */
	tell(devnull);
	tell(STDOUT_FILENO);
	_exit(0);
}
