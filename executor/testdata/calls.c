/* Tries what a function may not do, from its own thread and from one that it had its constructor start, and tells how each went. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static const struct {
	const char *name;
	long call, a, b, c;
} calls[] = {
	{"socket", SYS_socket, AF_INET, SOCK_STREAM, 0}, {"local", SYS_socket, AF_UNIX, SOCK_STREAM, 0}, {"netlink", SYS_socket, AF_NETLINK, SOCK_RAW, 0},
	{"connect", SYS_connect, -1, 0, 0}, {"bind", SYS_bind, -1, 0, 0}, {"listen", SYS_listen, -1, 0, 0}, {"ptrace", SYS_ptrace, 0, 0, 0},
	{"process_vm_readv", SYS_process_vm_readv, 1, 0, 0}, {"mount", SYS_mount, 0, 0, 0}, {"umount2", SYS_umount2, 0, 0, 0},
	{"unshare", SYS_unshare, CLONE_NEWUSER, 0, 0}, {"setns", SYS_setns, -1, 0, 0}, {"keyctl", SYS_keyctl, 0, 0, 0}, {"bpf", SYS_bpf, -1, 0, 0},
	{"userfaultfd", SYS_userfaultfd, 1, 0, 0}, {"io_uring_setup", SYS_io_uring_setup, 1, 0, 0}, {"perf_event_open", SYS_perf_event_open, 0, 0, 0},
	{"init_module", SYS_init_module, 0, 0, 0}, {"finit_module", SYS_finit_module, -1, 0, 0}, {"open_by_handle_at", SYS_open_by_handle_at, -1, 0, 0},
	{"kexec_load", SYS_kexec_load, 0, 0, 0}, {"pidfd_getfd", SYS_pidfd_getfd, -1, -1, 0},
};

static pthread_barrier_t asked, answered;
static long early;

static void *thread(void *arg) {
	(void)arg;
	pthread_barrier_wait(&asked);
	early = syscall(SYS_socket, AF_INET, SOCK_STREAM, 0) < 0 ? errno : 0;
	pthread_barrier_wait(&answered);
	return NULL;
}

__attribute__((constructor)) static void begin(void) {
	pthread_t t;
	pthread_barrier_init(&asked, NULL, 2);
	pthread_barrier_init(&answered, NULL, 2);
	pthread_create(&t, NULL, thread, NULL);
	pthread_detach(t);
}

uint32_t run(void *args, uint32_t size, void *result) {
	char *out = result;
	int pair[2];

	(void)args, (void)size;
	for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
		long rc = syscall(calls[i].call, calls[i].a, calls[i].b, calls[i].c, 0, 0);
		out += sprintf(out, "%s=%d\n", calls[i].name, rc < 0 ? errno : 0);
	}
	out += sprintf(out, "socketpair=%d\n", socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0 ? errno : 0);
	pthread_barrier_wait(&asked);
	pthread_barrier_wait(&answered);
	out += sprintf(out, "thread=%ld\n", early);
	return (uint32_t)(out - (char *)result);
}
