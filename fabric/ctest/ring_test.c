/* Two threads over both rings, with sleeping and waking; meant for the thread sanitizer. */
#define _GNU_SOURCE
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "../ring.h"
#include "tap.h"

enum { ROUNDS = 200000, WINDOW = 16 };

static struct gf_shared shared;
static uint32_t payload[WINDOW];
static int worker_wake, client_wake;

static void wake(_Atomic uint32_t *asleep, int fd) {
	uint64_t one = 1;
	if (gf_ring_must_wake(asleep) && write(fd, &one, sizeof one) < 0) abort();
}

/* wait_for sleeps now and then, so that both ways are taken. */
static void wait_for(_Atomic uint32_t *asleep, struct gf_ring *r, int fd) {
	struct pollfd p = {.fd = fd, .events = POLLIN};
	uint64_t count;

	for (int i = 0; i < 100; i++) {
		if (gf_ring_ready(r)) return;
	}
	if (!gf_ring_sleep(asleep, r)) return;
	if (poll(&p, 1, 5000) <= 0) abort(); /* a lost wake-up */
	if (read(fd, &count, sizeof count) < 0) abort();
	atomic_store(asleep, 0);
}

static void *serve(void *unused) {
	struct gf_ring in = {.entries = shared.request}, out = {.entries = shared.reply};
	struct gf_desc d;

	for (int done = 0; done < ROUNDS;) {
		if (!gf_ring_pop(&in, &d)) {
			wait_for(&shared.worker_sleeps, &in, worker_wake);
			continue;
		}
		payload[d.slot]++;
		gf_ring_push(&out, &d);
		wake(&shared.client_sleeps, client_wake);
		done++;
	}
	return unused;
}

int main(void) {
	struct gf_ring out = {.entries = shared.request}, in = {.entries = shared.reply};
	int sent = 0, received = 0, good = 1, in_flight = 0;
	struct gf_desc d = {0};
	pthread_t t;

	worker_wake = eventfd(0, EFD_CLOEXEC);
	client_wake = eventfd(0, EFD_CLOEXEC);
	ok(pthread_create(&t, NULL, serve, NULL) == 0, "thread");
	while (received < ROUNDS) {
		for (; in_flight < WINDOW && sent < ROUNDS; in_flight++, sent++) {
			payload[sent % WINDOW] = (uint32_t)sent;
			d = (struct gf_desc){.seq = (uint64_t)sent, .slot = (uint32_t)(sent % WINDOW)};
			gf_ring_push(&out, &d);
			wake(&shared.worker_sleeps, worker_wake);
		}
		if (!gf_ring_pop(&in, &d)) {
			wait_for(&shared.client_sleeps, &in, client_wake);
			continue;
		}
		good &= d.seq == (uint64_t)received && payload[d.slot] == (uint32_t)received + 1;
		received++;
		in_flight--;
	}
	pthread_join(t, NULL);
	ok(good, "every request is answered once, in order, with its payload");
	return tap_end();
}
