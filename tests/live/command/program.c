/* A command that says what it was started with, and what it gets of signals. In C: a runtime would change both. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

extern char **environ;
static FILE *out;

/* Lines of /proc/self/status: not those of ids, of memory and of how often it waited. */
static const char *const LINES[] = {
	"Name:", "Umask:", "Uid:", "Gid:", "Groups:", "SigPnd:", "ShdPnd:", "SigBlk:", "SigIgn:", "SigCgt:", "CapInh:", "CapPrm:",
	"CapEff:", "CapBnd:", "CapAmb:", "NoNewPrivs:", "Seccomp:", "Seccomp_filters:", "Speculation_Store_Bypass:",
	"SpeculationIndirectBranch:", "THP_enabled:", "Threads:", "Cpus_allowed:", "Mems_allowed:",
};

static void lines_of(const char *path)
{
	char line[4096];
	FILE *file = fopen(path, "re");
	while (file && fgets(line, sizeof(line), file)) {
		int wanted = strcmp(path, "/proc/self/status") != 0;
		for (size_t i = 0; i < sizeof(LINES) / sizeof(*LINES); i++)
			wanted |= !strncmp(line, LINES[i], strlen(LINES[i]));
		if (wanted)
			fprintf(out, "%s: %s", path, line);
	}
	if (file)
		fclose(file);
}

static void links(const char *dir, int are_ours)
{
	char path[300], to[4096];
	DIR *entries = opendir(dir);
	for (struct dirent *entry; entries && (entry = readdir(entries));) {
		snprintf(path, sizeof(path), "%s/%s", dir, entry->d_name);
		ssize_t n = readlink(path, to, sizeof(to) - 1);
		int fd = atoi(entry->d_name);
		if (n < 0 || (are_ours && (fd == dirfd(entries) || fd == fileno(out))))
			continue;
		to[n] = 0;
		fprintf(out, "%s -> %s", path, to);
		if (are_ours)
			fprintf(out, " flags %#x %#x", fcntl(fd, F_GETFD), fcntl(fd, F_GETFL));
		fputc('\n', out);
	}
	closedir(entries);
}

static void attributes(char **argv)
{
	for (char **word = argv; *word; word++)
		fprintf(out, "argument: %s\n", *word);
	for (char **word = environ; *word; word++)
		fprintf(out, "environment: %s\n", *word);
	lines_of("/proc/self/status");
	lines_of("/proc/self/oom_score_adj");
	lines_of("/proc/self/cgroup");
	lines_of("/proc/self/loginuid");
	lines_of("/proc/self/timerslack_ns");
	lines_of("/proc/self/coredump_filter");
	links("/proc/self/fd", 1);
	links("/proc/self/ns", 0);
	char cwd[4096];
	fprintf(out, "directory: %s\n", getcwd(cwd, sizeof(cwd)));
	fprintf(out, "group %d, session %d\n", getpgrp(), getsid(0));
	int terminal = open("/dev/tty", O_RDWR | O_CLOEXEC);
	fprintf(out, "terminal: %d\n", terminal < 0 ? -errno : tcgetpgrp(terminal));
	close(terminal);
	struct sched_param how = {0};
	sched_getparam(0, &how);
	fprintf(out, "nice %d, policy %d, priority %d, io %ld\n", getpriority(PRIO_PROCESS, 0), sched_getscheduler(0),
		how.sched_priority, syscall(SYS_ioprio_get, 1, 0));
	int at_parents_death = 0, reaper = 0;
	prctl(PR_GET_PDEATHSIG, &at_parents_death);
	prctl(PR_GET_CHILD_SUBREAPER, &reaper);
	fprintf(out, "dumpable %d, securebits %#x, slack %d, at the parent's death %d, reaper %d, thp %d, personality %#x\n",
		prctl(PR_GET_DUMPABLE), prctl(PR_GET_SECUREBITS), prctl(PR_GET_TIMERSLACK), at_parents_death, reaper,
		prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0), personality(0xffffffff));
	for (int resource = 0; resource < RLIM_NLIMITS; resource++) {
		struct rlimit limit;
		getrlimit(resource, &limit);
		fprintf(out, "limit %d: %lu %lu\n", resource, (unsigned long)limit.rlim_cur, (unsigned long)limit.rlim_max);
	}
	for (int timer = ITIMER_REAL; timer <= ITIMER_PROF; timer++) {
		struct itimerval left;
		getitimer(timer, &left);
		fprintf(out, "timer %d: %ld\n", timer, left.it_value.tv_sec);
	}
}

static sigjmp_buf back;
static volatile sig_atomic_t alarmed;

static void jump(int signal)
{
	siglongjmp(back, signal);
}

static void note(int signal)
{
	alarmed = signal;
}

/* Guard pages, and a timer: what programs use handlers for. */
static void handlers(void)
{
	volatile int hits = 0;
	volatile char *page = mmap(0, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	signal(SIGSEGV, jump);
	for (volatile int i = 0; i < 40; i++) {
		if (!sigsetjmp(back, 1))
			*page = 1;
		else
			hits++;
	}
	fprintf(out, "hit %d times\n", hits);
	sigset_t blocked;
	sigprocmask(SIG_BLOCK, 0, &blocked);
	signal(SIGALRM, note);
	struct itimerval soon = {.it_value.tv_usec = 10000, .it_interval.tv_usec = 10000};
	setitimer(ITIMER_REAL, &soon, 0);
	while (!sigismember(&blocked, SIGALRM) && !alarmed)
		pause();
	fprintf(out, "alarmed by %d\n", alarmed);
}

static void say(const char *what)
{
	/* What cannot be said to somebody who has gone is not needed. */
	if (write(1, what, strlen(what)) < 0)
		_exit(9);
}

static int is_stubborn;

static void came(int signal)
{
	char line[64];
	snprintf(line, sizeof(line), "%s\n", sigabbrev_np(signal));
	say(line);
	if (signal == SIGTERM && !is_stubborn)
		_exit(5);
}

/* Says each signal that comes, and ends at the end of its input; also at a SIGTERM, unless it is stubborn. */
static void listen_to(int deaf)
{
	static const int ALL[] = {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGALRM, SIGCONT};
	for (size_t i = 0; i < sizeof(ALL) / sizeof(*ALL); i++) {
		struct sigaction action = {.sa_handler = deaf ? SIG_IGN : came, .sa_flags = SA_RESTART};
		sigaction(ALL[i], &action, 0);
	}
	char line[64];
	snprintf(line, sizeof(line), "ready %d %d\n", getppid(), getpid());
	say(line);
	while (read(0, line, 1) > 0)
		;
}

int main(int argc, char **argv)
{
	if (argc < 2)
		return 2;
	is_stubborn = !strcmp(argv[1], "stubborn");
	if (is_stubborn || !strcmp(argv[1], "listen") || !strcmp(argv[1], "deaf")) {
		struct rlimit none = {0};
		setrlimit(RLIMIT_CORE, &none);
		listen_to(argv[1][0] == 'd');
		return 0;
	}
	out = fopen(argv[1], "we");
	if (!out)
		return 3;
	attributes(argv);
	handlers();
	return fclose(out) ? 4 : 0;
}
