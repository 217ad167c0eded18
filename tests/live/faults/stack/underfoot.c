/* Files that change while they are looked at.
 * jit append|trunc|rename|once: code made at run time that faults, and a perf map that is written anew: 50 faults in
 *     old_one, and then 70 in second, and 30 in new_one, which is where old_one was.
 * enter MODE: the same, after it has entered another mount namespace, with a /tmp of its own.
 * cut FILE: copies itself into FILE, runs a function there, truncates FILE, and runs no more of it.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <link.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

/* p[0] = 1, with a frame. */
static const unsigned char body[] = { 0x55, 0x48, 0x89, 0xe5, 0xc6, 0x07, 0x01, 0x5d, 0xc3 };
static unsigned char *code;
static char path[64], beside[80];

static char *fresh(int pages)
{
	char *p = mmap(0, pages * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	madvise(p, pages * 4096, MADV_NOHUGEPAGE);
	return p;
}

__attribute__((noinline)) void in_the_copy(char *p, long pages)
{
	for (long i = 0; i < pages; i++)
		p[i * 4096] = 1;
}

static void write_map(char mode, const char *one, const char *two)
{
	const char *to = mode == 'r' ? beside : path;
	FILE *map = fopen(to, mode == 'a' ? "a" : "w");

	for (int i = 0; i < 20; i++)
		fprintf(map, "%lx 10 filler_%s_%d\n", 0x10000L + i * 16, one, i);
	fprintf(map, "%lx 20 %s\n", (long)code, one);
	if (two)
		fprintf(map, "%lx 20 %s\n", (long)code + 64, two);
	fclose(map);
	if (mode == 'r')
		rename(beside, path);
}

__attribute__((noinline)) static void run(int at, int pages)
{
	char *p = fresh(pages);

	for (int i = 0; i < pages; i++)
		((void (*)(char *))(code + at))(p + i * 4096);
}

static int jit(const char *mode)
{
	snprintf(path, sizeof(path), "/tmp/perf-%d.map", getpid());
	snprintf(beside, sizeof(beside), "%s.new", path);
	code = mmap(0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memcpy(code, body, sizeof(body));
	memcpy(code + 64, body, sizeof(body));
	write_map('w', "old_one", 0);
	run(0, 50);
	if (*mode == 'o')
		return 0;
	/* Until the tracer has looked at the map: it does so twice a second. */
	usleep(2000000);
	write_map(*mode, "new_one", "second");
	usleep(2000000);
	run(64, 70);
	run(0, 30);
	return 0;
}

static int enter(const char *mode)
{
	if (unshare(CLONE_NEWNS) || mount(0, "/", 0, MS_REC | MS_PRIVATE, 0) || mount("tmpfs", "/tmp", "tmpfs", 0, 0))
		return 1;
	return jit(mode);
}

static int base_of(struct dl_phdr_info *info, size_t size, void *base)
{
	*(char **)base = (char *)info->dlpi_addr;
	return 1;
}

static int cut(const char *to)
{
	char *base, *copy, buffer[65536];
	int from = open("/proc/self/exe", O_RDONLY), fd = open(to, O_RDWR | O_CREAT | O_TRUNC, 0700);
	ssize_t n;
	off_t size = 0;

	for (; (n = read(from, buffer, sizeof(buffer))) > 0; size += n)
		if (write(fd, buffer, n) != n)
			return 1;
	dl_iterate_phdr(base_of, &base);
	copy = mmap(0, size, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_POPULATE, fd, 0);
	((void (*)(char *, long))(copy + ((char *)in_the_copy - base)))(fresh(60), 60);
	/* Until the tracer has named it. */
	usleep(2000000);
	((void (*)(char *, long))(copy + ((char *)in_the_copy - base)))(fresh(40), 40);
	if (ftruncate(fd, 0))
		return 1;
	in_the_copy(fresh(80), 80);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc < 3)
		return 1;
	return *argv[1] == 'j' ? jit(argv[2]) : *argv[1] == 'e' ? enter(argv[2]) : cut(argv[2]);
}
