/* A dialled connection: submitting, harvesting, sleeping, and following the executor's notices. */
#define _GNU_SOURCE
#include "conn.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CARRIER_PATIENCE_MS = 2000, YIELD_EVERY = 128 };

int64_t gf_now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static inline void pause_cpu(void) {
#if defined(__x86_64__)
	__builtin_ia32_pause();
#endif
}

void gf_lock(struct gf_conn *c) {
	for (int i = 0; atomic_flag_test_and_set_explicit(&c->lock, memory_order_acquire); i++) {
		if (i % 64 == 63) sched_yield();
		pause_cpu();
	}
}

void gf_unlock(struct gf_conn *c) {
	int quiet = c->carrier == GF_RING && c->done_count == 0 && c->unsent == 0;

	atomic_store_explicit(&c->awaited, quiet ? c->replies.position + 1 : 0, memory_order_relaxed);
	atomic_flag_clear_explicit(&c->lock, memory_order_release);
}

int gf_carrier(const struct gf_conn *c) { return c->carrier; }

int gf_bells(struct gf_conn *c) {
	int bells;

	gf_lock(c);
	bells = c->bells;
	gf_unlock(c);
	return bells;
}

const struct gf_layout *gf_conn_layout(const struct gf_conn *c) { return &c->layout; }
uint8_t *gf_request(struct gf_conn *c, uint32_t slot) { return c->arena + gf_layout_place(&c->layout, slot).request; }
uint8_t *gf_result(struct gf_conn *c, uint32_t slot) { return c->arena + gf_layout_place(&c->layout, slot).result; }

/* touch writes to the pages of a result before the worker can: the kernel charges shared pages to whoever writes first, and
 * what is charged to an executor must be free when it is evicted. */
static void touch(struct gf_conn *c, uint32_t slot, uint32_t cap) {
	volatile uint8_t *result = gf_result(c, slot);

	for (uint64_t at = c->slots[slot].touched / GF_PAGE * GF_PAGE; at < cap; at += GF_PAGE) result[at] = 0;
	c->slots[slot].touched = cap;
}

void gf_submit(struct gf_conn *c, uint32_t slot, uint32_t size, uint32_t cap, int64_t timeout_ns) {
	struct slot *s = &c->slots[slot];
	int gone;

	if (c->carrier == GF_RING && cap > s->touched) touch(c, slot, cap);
	gf_lock(c);
	s->seq = ++c->next_seq;
	s->size = size;
	s->cap = cap;
	s->timeout = timeout_ns;
	s->stage = STAGE_PENDING;
	s->detail[0] = 0;
	c->unsent++;
	gone = c->gone;
	if (gone) {
		gf_complete(c, slot, 0, GF_GONE, 0);
	} else if (c->up) {
		if (c->unsent > 1) {
			gf_carrier_resend(c);
		} else {
			gf_carrier_post(c, slot);
		}
	}
	gf_unlock(c);
	if (gone) gf_kick(c); /* no carrier wakes whoever harvests */
}

/* idle says, without the lock, that harvest would find nothing; while the carrier is made anew it may err, and is asked again. */
static inline int idle(struct gf_conn *c) {
	uint64_t stamp = atomic_load_explicit(&c->awaited, memory_order_relaxed);

	return stamp != 0 && atomic_load_explicit(&c->shared->reply[(stamp - 1) & (GF_RING_ENTRIES - 1)].stamp, memory_order_acquire) != stamp;
}

/* harvest takes what is there; with the lock held only so long. */
static int harvest(struct gf_conn *c, struct gf_completion *out, int max) {
	int n;

	if (idle(c)) return 0;
	gf_lock(c);
	if (c->done_count == 0) gf_carrier_poll(c);
	n = (int)c->done_count < max ? (int)c->done_count : max;
	if (n > 0) {
		memcpy(out, c->done, (size_t)n * sizeof *out);
		memmove(c->done, c->done + n, (c->done_count - (uint32_t)n) * sizeof *out);
		c->done_count -= (uint32_t)n;
	}
	gf_unlock(c);
	return n;
}

int gf_progress(struct gf_conn *c, int64_t spin_ns, struct gf_completion *out, int max) {
	int64_t until = 0;

	for (uint32_t i = 0;; i++) {
		int n = harvest(c, out, max);
		if (n > 0 || spin_ns <= 0) return n;
		if (i % 32 == 31) {
			int64_t now = gf_now();
			if (until == 0) until = now + spin_ns;
			if (now >= until) return 0;
		}
		if (i % YIELD_EVERY == YIELD_EVERY - 1) sched_yield(); /* to the worker, if it has no other processor */
		if (c->carrier == GF_RING) pause_cpu(); /* libfabric's polls are slow as they are */
	}
}

int gf_call(struct gf_conn *c, uint32_t slot, uint32_t size, uint32_t cap, int64_t timeout_ns, int64_t spin_ns, struct gf_completion *out, int max) {
	gf_submit(c, slot, size, cap, timeout_ns);
	return gf_progress(c, spin_ns, out, max);
}

/* arm returns a descriptor that becomes readable with the next reply, -1 when there is something already, -2 without carrier. */
static int arm(struct gf_conn *c) {
	int fd = -2;

	gf_lock(c);
	if (c->done_count > 0 || (c->up && c->unsent > 0 && c->failed_at == 0)) {
		fd = -1;
	} else if (c->up && c->carrier == GF_RING) {
		fd = gf_ring_sleep(&c->shared->client_sleeps, &c->replies) ? c->client_wake : -1;
	} else if (c->up && c->failed_at == 0) {
		fd = gf_ofi_sleep(c->ofi);
	}
	gf_unlock(c);
	return fd;
}

static void drain(int fd) {
	uint64_t count;
	if (read(fd, &count, sizeof count) < 0) return;
}

/* A carrier that fails without a notice on the control connection means that the executor cannot be reached. */
static int overdue(struct gf_conn *c) {
	int64_t since;

	gf_lock(c);
	since = c->up ? c->failed_at : 0;
	gf_unlock(c);
	if (since == 0 || gf_now() - since < (int64_t)CARRIER_PATIENCE_MS * 1000000) return since != 0;
	gf_lost(c, c->ofi != NULL ? gf_ofi_error(c->ofi) : "carrier failed", 0, 0);
	return 1;
}

int gf_sleep(struct gf_conn *c, int armed, int timeout_ms) {
	struct pollfd p[3] = {{.fd = c->control, .events = POLLIN | POLLRDHUP}, {.fd = c->kick, .events = POLLIN}, {.fd = -1, .events = POLLIN}};
	int woke = 0;

	if (c->gone) p[0].fd = -1;
	if (overdue(c) && (timeout_ms < 0 || timeout_ms > 100)) timeout_ms = 100;
	if (armed) {
		int fd = arm(c);
		if (fd == -1) { /* a carrier that is never quiet must not hide the executor's end */
			woke = GF_WOKE_CARRIER;
			timeout_ms = 0;
		}
		p[2].fd = fd;
	}
	if (poll(p, 3, timeout_ms) > 0) {
		if (p[0].revents != 0) woke |= GF_WOKE_CONTROL;
		if (p[1].revents != 0) woke |= GF_WOKE_KICK;
		if (p[2].revents != 0) woke |= GF_WOKE_CARRIER;
	}
	if ((woke & GF_WOKE_KICK) != 0) drain(c->kick);
	if (armed && c->carrier == GF_RING) {
		if (p[2].revents != 0) drain(c->client_wake);
		atomic_store(&c->shared->client_sleeps, 0);
	}
	return woke;
}

void gf_kick(struct gf_conn *c) {
	uint64_t one = 1;
	if (write(c->kick, &one, sizeof one) < 0) return;
}

/* gf_lost completes everything in flight. exact says that begun is the newest request that the executor has begun. */
void gf_lost(struct gf_conn *c, const char *reason, uint64_t begun, int exact) {
	gf_lock(c);
	if (!c->gone) {
		c->gone = 1;
		snprintf(c->reason, sizeof c->reason, "%s", reason);
		if (c->up) gf_carrier_poll(c); /* replies that arrived before the end count */
		c->up = 0;
		if (!exact && c->carrier == GF_RING && c->shared != NULL) {
			begun = atomic_load(&c->shared->begun);
			exact = 1;
		}
		for (uint32_t i = 0; c->arena != NULL && i < gf_layout_total(&c->layout); i++) {
			struct slot *s = &c->slots[i];
			int began = s->stage == STAGE_SENT && (!exact || s->seq <= begun);
			if (s->stage != STAGE_FREE) gf_complete(c, i, 0, began ? GF_GONE_BEGAN : GF_GONE, 0);
		}
	}
	gf_unlock(c);
}

void gf_reason(struct gf_conn *c, char *out, int n) {
	gf_lock(c);
	snprintf(out, (size_t)n, "%s", c->reason);
	gf_unlock(c);
}

void gf_detail(struct gf_conn *c, uint32_t slot, char *out, int n) {
	gf_lock(c);
	snprintf(out, (size_t)n, "%s", c->slots[slot].detail);
	gf_unlock(c);
}

void gf_abort(struct gf_conn *c) { gf_lost(c, "connection closed", 0, 0); }

void gf_close(struct gf_conn *c) {
	if (c == NULL) return;
	gf_lost(c, "connection closed", 0, 0);
	if (c->control >= 0) close(c->control);
	gf_carrier_close(c);
	if (c->arena != NULL) munmap(c->arena, gf_layout_bytes(&c->layout));
	int fds[] = {c->arena_fd, c->worker_wake, c->client_wake, c->kick};
	for (size_t i = 0; i < sizeof fds / sizeof *fds; i++) {
		if (fds[i] >= 0) close(fds[i]);
	}
	free(c);
}
