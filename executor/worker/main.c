/* worker HOST PROVIDER, with descriptors 3 (socket to the supervisor) and 4 (state page). It waits for the library to come. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "worker.h"

enum { FD_COMMAND = 3, FD_STATE = 4, YIELD_EVERY = 128, COUNT_NS = 1000000 };

static struct worker self;

static inline void pause_cpu(void) {
#if defined(__x86_64__)
	__builtin_ia32_pause();
#endif
}

/* serve_round takes at most one request of each ring and one message, so that nobody starves. */
static int serve_round(struct worker *w) {
	int served = 0;

	for (uint32_t i = 0; i < w->ring_count; i++) served += serve_ring(w, w->rings[i]);
	return served + serve_ofi(w);
}

/* arm fills p with what to wait for and returns how many, or 0 when something has come meanwhile. */
static nfds_t arm(struct worker *w, struct pollfd *p, int lower_only) {
	nfds_t n = 0;
	int ready = 0, fd;

	p[n++] = (struct pollfd){.fd = w->command, .events = POLLIN};
	for (uint32_t i = 0; i < w->ring_count; i++) {
		struct connection *c = w->rings[i];
		if (lower_only) {
			atomic_store(&c->view.shared->worker_sleeps, 0);
			continue;
		}
		if (!gf_ring_sleep(&c->view.shared->worker_sleeps, &c->requests)) ready = 1;
		p[n++] = (struct pollfd){.fd = c->worker_wake, .events = POLLIN};
	}
	if (w->ofi != NULL && !lower_only) {
		fd = gf_ofi_sleep(w->ofi);
		if (fd < 0) ready = 1;
		p[n++] = (struct pollfd){.fd = fd, .events = POLLIN};
	}
	return ready ? 0 : n;
}

static void rest(struct worker *w) {
	struct pollfd p[GF_MAX_CONNECTIONS + 2];
	nfds_t n = arm(w, p, 0);
	uint64_t count;

	if (n > 0) {
		worker_spun(w, worker_now());
		poll(p, n, -1);
		for (nfds_t i = 1; i < n; i++) {
			/* A libfabric descriptor is never an eventfd of ours; it is last and left to libfabric. */
			if (p[i].revents == 0 || (w->ofi != NULL && i == n - 1)) continue;
			if (read(p[i].fd, &count, sizeof count) < 0) continue;
		}
		w->mark = w->counted = worker_now();
		if (p[0].revents != 0) worker_commands(w);
	}
	arm(w, p, 1);
}

/* linger polls on while the budget lasts. Who polls without end is counted on the way. */
static void linger(struct worker *w) {
	int64_t now = worker_now();

	if (w->spin_ns == 0 || now - w->mark - w->bulk_ns > w->spin_ns) {
		rest(w);
	} else if (now - w->counted > COUNT_NS) {
		worker_spun(w, now);
	}
}

static void loop(struct worker *w) {
	int idle = 0;

	for (;;) {
		if (serve_round(w) > 0) {
			idle = 0;
			continue;
		}
		if (atomic_load_explicit(&w->state->commands, memory_order_relaxed) != w->seen_commands) worker_commands(w);
		if (++idle % 32 == 0) linger(w);
		if (idle % YIELD_EVERY == 0) sched_yield(); /* to the client, if it has no other processor */
		if (w->ofi == NULL) pause_cpu(); /* libfabric's polls are slow as they are */
	}
}

/* go_first has the kernel end this process and no other when memory is short: memory that is in none, as a memfd's, would be laid at
 * the door of the larger, which is the supervisor. */
static void go_first(void) {
	int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	if (fd < 0) return;
	if (write(fd, "1000", 4) != 4) perror("worker: oom_score_adj");
	close(fd);
}

int main(int argc, char **argv) {
	struct worker *w = &self;
	void *m;

	if (argc != 3) return 2;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	go_first();
	m = mmap(NULL, sizeof *w->state, PROT_READ | PROT_WRITE, MAP_SHARED, FD_STATE, 0);
	if (m == MAP_FAILED) return 2;
	for (int fd = FD_COMMAND; fd <= FD_STATE; fd++) fcntl(fd, F_SETFD, FD_CLOEXEC);
	w->state = m;
	w->command = FD_COMMAND;
	w->host = argv[1];
	w->provider = argv[2];
	worker_catch_faults(w);
	while (w->run == NULL) {
		struct pollfd p = {.fd = w->command, .events = POLLIN};
		poll(&p, 1, -1);
		worker_commands(w);
	}
	worker_start_clock(w);
	loop(w);
}
