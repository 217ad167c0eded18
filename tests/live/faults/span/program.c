/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Functions that fault a known number of times, called in known ways: what the tests of spans compare with. Around each
 * call it asks the kernel how often it faulted, and prints the sums in the end. Everything else is in memory from the
 * beginning, so that only what the functions do on purpose is a fault, and what the probes themselves cause.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../../../include/trapline.h"

#define PAGE 4096
#define SPAN __attribute__((noinline, noclone, noipa)) void

struct sums {
	const char *span;
	long calls, major, minor;
};

static struct sums works = {"work", 0, 0, 0}, outers = {"outer", 0, 0, 0}, marks = {"marked", 0, 0, 0};
static jmp_buf back;
static long minor_inside;

static void usage(long *major, long *minor)
{
	struct rusage usage;

	getrusage(RUSAGE_THREAD, &usage);
	*major = usage.ru_majflt;
	*minor = usage.ru_minflt;
}

/* Counts what a statement does as so many calls. */
#define COUNT(sums, n, statement)                                                                                      \
	do {                                                                                                           \
		long major, minor, major_after, minor_after;                                                           \
		usage(&major, &minor);                                                                                 \
		statement;                                                                                             \
		usage(&major_after, &minor_after);                                                                     \
		__atomic_add_fetch(&(sums)->calls, n, __ATOMIC_RELAXED);                                               \
		__atomic_add_fetch(&(sums)->major, major_after - major, __ATOMIC_RELAXED);                             \
		__atomic_add_fetch(&(sums)->minor, minor_after - minor, __ATOMIC_RELAXED);                             \
	} while (0)

static void tell(struct sums *sums)
{
	printf("{\"type\":\"truth\",\"span\":\"%s\",\"calls\":%ld,\"major\":%ld,\"minor\":%ld}\n", sums->span,
	       sums->calls, sums->major, sums->minor);
}

static void touch(int pages)
{
	char *at = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	madvise(at, pages * PAGE, MADV_NOHUGEPAGE);
	for (int i = 0; i < pages; i++)
		((volatile char *)at)[i * PAGE] = 1;
	munmap(at, pages * PAGE);
}

/* ---- the functions that are spans ---- */

SPAN work(int pages)
{
	touch(pages);
}

SPAN outer(int pages)
{
	touch(pages);
	COUNT(&works, 1, work(2));
	COUNT(&works, 1, work(3));
	touch(1);
}

SPAN recurse(int depth)
{
	touch(1);
	if (depth > 1)
		recurse(depth - 1);
	__asm__ volatile("");
}

SPAN jumps(int far)
{
	touch(2);
	if (far)
		longjmp(back, 1);
	touch(1);
}

SPAN jumps_from_below(void)
{
	touch(1);
	jumps(1);
	touch(1);
}

SPAN ends(void *how)
{
	touch(1);
	if (how)
		pthread_exit(NULL);
	syscall(SYS_exit, 0);
}

SPAN execs(const char *own)
{
	touch(1);
	execl(own, own, "plain", "5", (char *)NULL);
}

static volatile int child;

/* After a fork pages are written for the first time once more, some whenever the kernel likes: so what is within the
 * call is told beside what is around it.
 */
SPAN forks(void)
{
	long major, minor, minor_after;

	usage(&major, &minor);
	touch(1);
	child = fork();
	touch(1);
	usage(&major, &minor_after);
	minor_inside = minor_after - minor;
}

SPAN tail_last(int pages)
{
	touch(pages);
}

/* Jumps to the other with its own return address. */
SPAN tail_first(int pages);
__asm__(".pushsection .text\n.type tail_first,@function\ntail_first: jmp tail_last\n.size tail_first, .-tail_first\n"
	".popsection\n");

SPAN reads(const char *at, int page)
{
	(void)*(volatile const char *)(at + (long)page * PAGE);
}

/* ---- the ways to call them ---- */

static void plain(int n)
{
	for (int i = 0; i < n; i++)
		COUNT(&works, 1, work(i % 7));
}

static void nested(int n)
{
	for (int i = 0; i < n; i++)
		COUNT(&outers, 1, outer(4));
}

static void recursive(int depth)
{
	struct sums sums = {"recurse", 0, 0, 0};

	COUNT(&sums, depth, recurse(depth));
	tell(&sums);
}

static void *in_thread(void *n)
{
	for (long i = 0; i < (long)n; i++)
		COUNT(&outers, 1, outer(2));
	return NULL;
}

static void threads(int threads, long n)
{
	pthread_t ids[64];

	for (int i = 0; i < threads; i++)
		pthread_create(&ids[i], NULL, in_thread, (void *)n);
	for (int i = 0; i < threads; i++)
		pthread_join(ids[i], NULL);
}

/* Every other call is left by longjmp, from several depths; and calls of other functions come in between. */
static void jumping(int n)
{
	struct sums sums = {"jumps", 0, 0, 0};
	static int i;

	for (i = 0; i < n; i++) {
		if (setjmp(back))
			continue;
		if (i % 2 == 0)
			COUNT(&sums, 1, jumps(0));
		else if (i % 4 == 1)
			jumps(1);
		else
			jumps_from_below();
	}
	tell(&sums);
}

static void *ending(void *how)
{
	ends(how);
	return NULL;
}

static void endings(int n)
{
	pthread_t id;

	for (int i = 0; i < n; i++) {
		pthread_create(&id, NULL, ending, i % 2 ? (void *)1 : NULL);
		pthread_join(id, NULL);
	}
}

static void forking(void)
{
	struct sums sums = {"forks", 0, 0, 0};

	COUNT(&sums, 1, forks());
	if (!child)
		_exit(0);
	waitpid(child, NULL, 0);
	tell(&sums);
	printf("{\"type\":\"truth\",\"span\":\"inside forks\",\"minor\":%ld}\n", minor_inside);
}

static void tails(int n)
{
	struct sums first = {"tail_first", 0, 0, 0}, last = {"tail_last", 0, 0, 0};

	for (int i = 0; i < n; i++)
		COUNT(&first, 1, tail_first(2));
	last.calls = first.calls;
	last.major = first.major;
	last.minor = first.minor;
	tell(&first);
	tell(&last);
}

static void cold(const char *path, int pages)
{
	struct sums sums = {"reads", 0, 0, 0};
	int fd = open(path, O_RDONLY);
	char *at;

	fsync(fd);
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	at = mmap(NULL, pages * PAGE, PROT_READ, MAP_SHARED, fd, 0);
	madvise(at, pages * PAGE, MADV_RANDOM);
	for (int i = 0; i < pages; i++)
		COUNT(&sums, 1, reads(at, i));
	tell(&sums);
}

/* Marks within marks; every fifth is left by longjmp before its end. */
static __attribute__((noinline)) void marked(int pages, int inner)
{
	TRAPLINE_BEGIN(marked);
	touch(pages);
	if (inner)
		marked(1, 0);
	if (pages == 5)
		longjmp(back, 1);
	TRAPLINE_END(marked);
}

static void marking(int n)
{
	static int i;

	for (i = 0; i < n; i++) {
		if (setjmp(back))
			continue;
		if (i % 5 == 4)
			marked(5, 0);
		else
			COUNT(&marks, i % 5 == 1 ? 2 : 1, marked(2, i % 5 == 1));
	}
	tell(&marks);
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	int n = argc > 2 ? atoi(argv[2]) : 0;
	long warm;

	setvbuf(stdout, NULL, _IOLBF, 0);
	mlockall(MCL_CURRENT);
	usage(&warm, &warm);
	if (!strcmp(what, "calls")) {
		plain(70);
		nested(20);
		threads(8, 50);
		tails(20);
	} else if (!strcmp(what, "plain"))
		plain(n);
	else if (!strcmp(what, "recursive"))
		recursive(n);
	else if (!strcmp(what, "jumping"))
		jumping(n);
	else if (!strcmp(what, "endings"))
		endings(n);
	else if (!strcmp(what, "exec"))
		execs(argv[0]);
	else if (!strcmp(what, "forking"))
		forking();
	else if (!strcmp(what, "cold"))
		cold(argv[3], n);
	else if (!strcmp(what, "marking"))
		marking(n);
	else
		return 2;
	/* Of all that went before. */
	if (works.calls)
		tell(&works);
	if (outers.calls)
		tell(&outers);
	return 0;
}
