/* One function whose input names what it does to the sandbox that it runs in. What returns says what it has achieved. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

static uint32_t say(void *result, const char *text) {
	size_t n = strlen(text);
	memcpy(result, text, n);
	return (uint32_t)n;
}

static uint32_t forks(void *result) {
	(void)result;
	for (;;)
		if (fork() == 0) setsid();
}

static void *sleeper(void *p) {
	for (;;) pause();
	return p;
}

static uint32_t threads(void *result) {
	pthread_t t;
	int n = 0;
	while (pthread_create(&t, NULL, sleeper, NULL) == 0) n++;
	return say(result, n < 4096 ? "bounded" : "endless");
}

static uint32_t memory(void *result) {
	(void)result;
	for (;;) {
		char *p = malloc(1 << 20);
		if (p != NULL) memset(p, 1, 1 << 20);
	}
}

/* Memory that is in no process: what is written to it stays charged until the last descriptor goes. */
static uint32_t memfds(void *result) {
	static char block[1 << 20];
	(void)result;
	memset(block, 1, sizeof block);
	for (;;) {
		int fd = memfd_create("hoard", 0);
		for (int i = 0; i < 16; i++)
			if (write(fd, block, sizeof block) < 0) break;
	}
}

static uint32_t descriptors(void *result) {
	while (open("/dev/null", O_RDONLY) >= 0) continue;
	return say(result, errno == EMFILE ? "EMFILE" : strerror(errno));
}

static uint32_t disk(void *result) {
	static char block[1 << 16];
	const char *places[] = {"/tmp/fill", "/dev/shm/fill", "/run/gleaner/self/fill"};
	for (int i = 0; i < 3; i++) {
		int fd = open(places[i], O_CREAT | O_RDWR, 0600);
		while (fd >= 0 && write(fd, block, sizeof block) > 0) continue;
		if (fd >= 0 && errno != ENOSPC) return say(result, strerror(errno));
	}
	return say(result, "full");
}

static uint32_t inodes(void *result) {
	char path[64];
	for (int i = 0; i < 1000000; i++) {
		snprintf(path, sizeof path, "/tmp/%d", i);
		int fd = open(path, O_CREAT | O_RDWR, 0600);
		if (fd < 0) return say(result, "full");
		close(fd);
	}
	return say(result, "endless");
}

/* What would outlive the worker, so that nothing is left for the next. */
static uint32_t residue(void *result) {
	for (int i = 0; i < 100000; i++) {
		int id = shmget(IPC_PRIVATE, 1 << 20, IPC_CREAT | 0600);
		void *p = id < 0 ? (void *)-1 : shmat(id, NULL, 0);
		if (p == (void *)-1) return say(result, i == 0 ? "refused" : "bounded");
		memset(p, 1, 1 << 20);
		shmdt(p);
	}
	return say(result, "endless");
}

static uint32_t loop(void *result) {
	(void)result;
	for (;;) continue;
}

static uint32_t deaf(void *result) {
	sigset_t all;
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	for (int s = 1; s < 65; s++) signal(s, SIG_IGN);
	prctl(PR_SET_PDEATHSIG, 0);
	return loop(result);
}

static uint32_t stopped(void *result) {
	kill(getpid(), SIGSTOP);
	return say(result, "went on");
}

static volatile char *top;

static int deeper(int n) {
	volatile char frame[4096];
	frame[0] = (char)n;
	top = frame;
	return deeper(n + 1) + frame[0];
}

static uint32_t stack(void *result) { return say(result, deeper(0) != 0 ? "deep" : "flat"); }

static uint32_t closes(void *result) {
	for (int fd = 0; fd < 65536; fd++) close(fd);
	return say(result, "closed");
}

static uint32_t killall(void *result) {
	kill(-1, SIGKILL);
	return say(result, "alone");
}

static uint32_t signals(void *result) {
	for (int i = 0; i < 100 * 64; i++) { /* again and again: what a signal does depends on what the threads do just now */
		kill(1, i % 64 + 1);
		syscall(SYS_tgkill, 1, 1, i % 64 + 1);
	}
	usleep(100 * 1000);
	return say(result, getppid() == 1 ? "parent 1" : "orphan");
}

static uint32_t daemonize(void *result) {
	if (fork() == 0) {
		setsid();
		signal(SIGTERM, SIG_IGN);
		loop(result);
	}
	return say(result, "left one");
}

static uint32_t becomes(void *result) {
	execl("/bin/sleep", "sleep", "600", (char *)NULL);
	return say(result, strerror(errno));
}

/* Calls with arguments that the kernel would look at: what is not refused by the filter gives another errno than EPERM and ENOSYS. */
static uint32_t calls(void *result) {
	static const struct {
		const char *name;
		long number;
	} list[] = {
		{"ptrace", SYS_ptrace}, {"mount", SYS_mount}, {"umount2", SYS_umount2}, {"pivot_root", SYS_pivot_root}, {"chroot", SYS_chroot},
		{"unshare", SYS_unshare}, {"setns", SYS_setns}, {"bpf", SYS_bpf}, {"keyctl", SYS_keyctl}, {"add_key", SYS_add_key},
		{"request_key", SYS_request_key}, {"userfaultfd", SYS_userfaultfd}, {"io_uring_setup", SYS_io_uring_setup},
		{"perf_event_open", SYS_perf_event_open}, {"init_module", SYS_init_module}, {"finit_module", SYS_finit_module},
		{"delete_module", SYS_delete_module}, {"kexec_load", SYS_kexec_load}, {"reboot", SYS_reboot}, {"swapon", SYS_swapon},
		{"open_by_handle_at", SYS_open_by_handle_at}, {"name_to_handle_at", SYS_name_to_handle_at}, {"settimeofday", SYS_settimeofday},
		{"process_vm_readv", SYS_process_vm_readv}, {"process_vm_writev", SYS_process_vm_writev}, {"pidfd_getfd", SYS_pidfd_getfd},
		{"kcmp", SYS_kcmp}, {"syslog", SYS_syslog}, {"acct", SYS_acct}, {"quotactl", SYS_quotactl}, {"move_pages", SYS_move_pages},
		{"open_tree", 428}, {"move_mount", 429}, {"fsopen", 430}, {"clone3", 435}, {"mount_setattr", 442}, {"memfd_secret", 447},
	};
	char *out = result;
	size_t n = 0;
	for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
		long rc = syscall(list[i].number, 0, 0, 0, 0, 0, 0);
		if (rc != -1 || (errno != EPERM && errno != ENOSYS)) n += (size_t)sprintf(out + n, "%s ", list[i].name);
	}
	return n > 0 ? (uint32_t)n : say(result, "refused");
}

/* The 32-bit world has its own numbers: 20 is getpid there and writev here. */
static uint32_t int80(void *result) {
#if defined(__x86_64__)
	long rc = 20;
	__asm__ volatile("int $0x80" : "+a"(rc) : : "memory");
	return say(result, rc == getpid() ? "answered" : "refused");
#else
	return say(result, "refused");
#endif
}

static uint32_t x32(void *result) {
#if defined(__x86_64__)
	long rc = syscall(0x40000000 + SYS_getpid);
	return say(result, rc == getpid() ? "answered" : "refused");
#else
	return say(result, "refused");
#endif
}

static uint32_t namespaces(void *result) {
	int flags[] = {CLONE_NEWUSER, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWNET, CLONE_NEWIPC, CLONE_NEWUTS, CLONE_NEWCGROUP};
	for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
		long pid = syscall(SYS_clone, flags[i] | SIGCHLD, 0, 0, 0, 0);
		if (pid == 0) _exit(0);
		if (pid > 0) return say(result, "made");
	}
	return say(result, "refused");
}

/* digs names the files that can be read or written and may not be. */
static uint32_t digs(void *result) {
	static const char *reads[] = {
		"/proc/1/mem", "/proc/1/environ", "/proc/1/maps", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sched_debug", "/dev/mem", "/dev/kmsg",
		"/dev/sda", "/dev/fuse", "/dev/kvm", "/etc/shadow", "/etc/munge/munge.key", "/etc/slurm/slurm.conf", "/root/.bashrc", "/sys/kernel/debug/tracing",
		"/sys/fs/cgroup/cgroup.procs", "/sys/firmware/dmi/tables/DMI", "/run/gleaner/launch.sock", "/run/munge/munge.socket.2", "/var/lib", "/home",
	};
	static const char *writes[] = {
		"/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname", "/proc/sys/vm/drop_caches", "/proc/sysrq-trigger",
		"/proc/1/oom_score_adj", "/proc/irq/0/smp_affinity", "/sys/kernel/mm/transparent_hugepage/enabled", "/sys/devices/system/cpu/cpu0/online",
	};
	char *out = result;
	size_t n = 0;
	for (size_t i = 0; i < sizeof reads / sizeof *reads; i++) {
		char byte;
		int fd = open(reads[i], O_RDONLY | O_NONBLOCK);
		if (fd >= 0 && (read(fd, &byte, 1) > 0 || errno == EISDIR)) n += (size_t)sprintf(out + n, "read %s ", reads[i]);
		if (fd >= 0) close(fd);
	}
	for (size_t i = 0; i < sizeof writes / sizeof *writes; i++) {
		int fd = open(writes[i], O_WRONLY | O_NONBLOCK);
		if (fd >= 0) n += (size_t)sprintf(out + n, "write %s ", writes[i]);
		if (fd >= 0) close(fd);
	}
	int map = open("/proc/self/uid_map", O_WRONLY);
	if (map >= 0 && write(map, "0 0 1", 5) > 0) n += (size_t)sprintf(out + n, "map root ");
	return n > 0 ? (uint32_t)n : say(result, "nothing");
}

/* writes names the folders of the root in which a file can be made. */
static uint32_t writes(void *result) {
	static const char *dirs[] = {"/", "/usr", "/usr/lib", "/etc", "/bin", "/gleaner", "/run", "/run/gleaner", "/run/gleaner/agent", "/dev", "/proc", "/sys", "/var"};
	char path[128], *out = result;
	size_t n = 0;
	for (size_t i = 0; i < sizeof dirs / sizeof *dirs; i++) {
		snprintf(path, sizeof path, "%s/hostile", dirs[i]);
		int fd = open(path, O_CREAT | O_WRONLY, 0600);
		if (fd >= 0) n += (size_t)sprintf(out + n, "%s ", dirs[i]);
	}
	if (open("/gleaner/executor", O_WRONLY) >= 0) n += (size_t)sprintf(out + n, "executor ");
	return n > 0 ? (uint32_t)n : say(result, "nothing");
}

/* strangers looks for what belongs to others: where is the host's path of another's socket. */
static uint32_t strangers(const char *where, void *result) {
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	char *out = result;
	size_t n = 0;
	DIR *tmp = opendir("/tmp"), *proc = opendir("/proc");
	int processes = 0;
	for (struct dirent *e; tmp != NULL && (e = readdir(tmp)) != NULL;)
		if (e->d_name[0] != '.') n += (size_t)sprintf(out + n, "file %.32s ", e->d_name);
	for (struct dirent *e; proc != NULL && (e = readdir(proc)) != NULL;) processes += e->d_name[0] >= '1' && e->d_name[0] <= '9';
	if (processes != 2) n += (size_t)sprintf(out + n, "%d processes ", processes);
	snprintf(to.sun_path, sizeof to.sun_path, "%s", where);
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof to) == 0) n += (size_t)sprintf(out + n, "socket ");
	return n > 0 ? (uint32_t)n : say(result, "nobody");
}

static uint32_t secret(void *result) {
	int fd = open("/tmp/secret", O_CREAT | O_WRONLY, 0666);
	return say(result, fd >= 0 && write(fd, "secret", 6) == 6 ? "kept" : "not kept");
}

/* sockets names the families of which a socket can be had. */
static uint32_t sockets(void *result) {
	static const struct {
		const char *name;
		int family, type;
	} list[] = {
		{"inet", AF_INET, SOCK_STREAM}, {"udp", AF_INET, SOCK_DGRAM}, {"inet6", AF_INET6, SOCK_STREAM}, {"raw", AF_INET, SOCK_RAW},
		{"packet", AF_PACKET, SOCK_RAW}, {"netlink", AF_NETLINK, SOCK_RAW}, {"vsock", 40, SOCK_STREAM}, {"alg", 38, SOCK_SEQPACKET},
		{"unix", AF_UNIX, SOCK_STREAM},
	};
	char *out = result;
	size_t n = 0;
	for (size_t i = 0; i < sizeof list / sizeof *list; i++)
		if (socket(list[i].family, list[i].type, 0) >= 0) n += (size_t)sprintf(out + n, "%s ", list[i].name);
	return n > 0 ? (uint32_t)n : say(result, "refused");
}

/* scribble fills every page of its own that is shared under that name. */
static uint32_t scribble(const char *name, void *result) {
	FILE *maps = fopen("/proc/self/maps", "r");
	char line[512], rights[8];
	unsigned long from, to;
	while (maps != NULL && fgets(line, sizeof line, maps) != NULL)
		if (strstr(line, name) != NULL && sscanf(line, "%lx-%lx %7s", &from, &to, rights) == 3 && rights[1] == 'w') memset((void *)from, 0xff, to - from);
	if (maps != NULL) fclose(maps);
	return say(result, "done");
}

static uint32_t score(void *result) {
	int fd = open("/proc/self/oom_score_adj", O_RDONLY);
	ssize_t n = fd < 0 ? -1 : read(fd, result, 64);
	return n > 0 ? (uint32_t)n - 1 : say(result, "unknown");
}

static uint32_t gigantic(void *result) {
	(void)result;
	return UINT32_MAX;
}

uint32_t run(void *args, uint32_t size, void *result) {
	static const struct {
		const char *name;
		uint32_t (*act)(void *result);
	} acts[] = {
		{"forks", forks}, {"threads", threads}, {"memory", memory}, {"memfds", memfds}, {"descriptors", descriptors}, {"disk", disk}, {"inodes", inodes},
		{"residue", residue}, {"loop", loop}, {"deaf", deaf}, {"stopped", stopped}, {"stack", stack}, {"closes", closes}, {"killall", killall},
		{"signals", signals}, {"daemonize", daemonize}, {"becomes", becomes}, {"calls", calls}, {"int80", int80}, {"x32", x32}, {"namespaces", namespaces},
		{"digs", digs}, {"writes", writes}, {"secret", secret}, {"sockets", sockets}, {"gigantic", gigantic}, {"score", score},
	};
	char what[256] = {0}, *more;

	memcpy(what, args, size < sizeof what ? size : sizeof what - 1);
	more = strchr(what, ' ');
	if (more != NULL) *more++ = 0;
	if (strcmp(what, "echo") == 0) {
		memcpy(result, args, size);
		return size;
	}
	if (strcmp(what, "segv") == 0) *(volatile int *)16 = 1;
	if (strcmp(what, "abort") == 0) abort();
	if (strcmp(what, "exit") == 0) exit(0);
	if (strcmp(what, "strangers") == 0) return strangers(more, result);
	if (strcmp(what, "scribble") == 0) return scribble(more, result);
	for (size_t i = 0; i < sizeof acts / sizeof *acts; i++)
		if (strcmp(what, acts[i].name) == 0) return acts[i].act(result);
	return say(result, "unknown");
}
