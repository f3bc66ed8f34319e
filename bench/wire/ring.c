/* A bare ring: two flags and two buffers in shared memory, a request copied in, echoed in place by the other side, copied out. */
#define _GNU_SOURCE
#include "wire.h"

#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LARGEST = 1 << 20 };

struct flag {
	_Alignas(64) _Atomic uint32_t value;
};

struct shared {
	struct flag there, back;
	_Alignas(4096) uint8_t request[LARGEST], reply[LARGEST];
};

static void await(struct flag *f, uint32_t want, uint32_t mode) {
	uint32_t seen;

	while ((seen = atomic_load_explicit(&f->value, memory_order_acquire)) != want) {
		if (mode == MODE_BLOCK) {
			syscall(SYS_futex, &f->value, FUTEX_WAIT, seen, NULL, NULL, 0);
		} else {
			pause_cpu();
		}
	}
}

static void tell(struct flag *f, uint32_t value, uint32_t mode) {
	atomic_store_explicit(&f->value, value, memory_order_release);
	if (mode == MODE_BLOCK) syscall(SYS_futex, &f->value, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static void echo(struct shared *m, const struct job *j) {
	for (uint32_t i = 1; i <= j->rounds; i++) {
		await(&m->there, i, j->mode);
		memcpy(m->reply, m->request, j->size);
		tell(&m->back, i, j->mode);
	}
}

static void run(void *state, const struct job *j, struct samples *s) {
	static uint8_t input[LARGEST], output[LARGEST];
	struct shared *m = state;
	uint64_t begin, last;
	cpu_set_t all;
	pid_t other;

	if (j->size > LARGEST || j->mode > MODE_BLOCK) die("ring", "no such job");
	memset(m, 0, sizeof *m);
	memset(input, 7, sizeof input);
	sched_getaffinity(0, sizeof all, &all);
	other = fork();
	if (other < 0) die("ring", "fork");
	if (other == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		settle(1);
		echo(m, j);
		_exit(0);
	}
	settle(0);
	begin = last = ticks();
	for (uint32_t i = 1; i <= j->rounds; i++) {
		last = think(j->mode, last);
		memcpy(m->request, input, j->size);
		tell(&m->there, i, j->mode);
		await(&m->back, i, j->mode);
		memcpy(output, m->reply, j->size);
		uint64_t end = ticks();
		sample(s, end - last);
		last = end;
	}
	s->total_ns = ticks_ns(last - begin);
	waitpid(other, NULL, 0);
	sched_setaffinity(0, sizeof all, &all);
}

void bare_ring(void) {
	void *m = mmap(NULL, sizeof(struct shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (m == MAP_FAILED) die("ring", "no memory");
	serve(run, m);
}
