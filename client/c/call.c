/* Calls: making, starting, waiting. */
#define _GNU_SOURCE
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "inside.h"

enum { FIRST_LINES = 16, SPIN_ROUND_NS = 5000, SPIN_TURN_NS = 1000000 };

int64_t gleaner_now(void) {
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int usable(const gleaner *g) {
	if (g == NULL) return text_fail(GLEANER_INVALID, "no lease given");
	if (g->generation != lease_generation()) return text_fail(GLEANER_FORKED, "made before fork");
	return GLEANER_OK;
}

static int fits(const gleaner *g, const void *args, uint32_t size, const void *result, uint32_t room) {
	int rc = usable(g);

	if (rc != GLEANER_OK) return rc;
	if ((args == NULL && size > 0) || (result == NULL && room > 0)) return text_fail(GLEANER_INVALID, "no memory given for arguments or result");
	if (size <= g->lease.buffer_bytes && room <= g->lease.buffer_bytes) return GLEANER_OK;
	return text_fail(GLEANER_TOO_BIG, "%u bytes of arguments, room for %u; the lease's buffer holds %llu", size, room, (unsigned long long)g->lease.buffer_bytes);
}

static void prepare(gleaner *g, gleaner_call *call) {
	memset(call, 0, offsetof(gleaner_call, charges));
	call->g = g;
	call->waiter = NULL;
	call->held_until = 0;
	call->detail[0] = 0;
}

/* link_call puts a call into the handle's list; with mu held. */
static void link_call(gleaner *g, gleaner_call *call) {
	call->previous = NULL;
	call->next = g->calls;
	if (g->calls != NULL) g->calls->previous = call;
	g->calls = call;
}

static void unlink_call(gleaner *g, gleaner_call *call) {
	if (call->previous != NULL) {
		call->previous->next = call->next;
	} else {
		g->calls = call->next;
	}
	if (call->next != NULL) call->next->previous = call->previous;
}

/* begin queues a call, or ends it at once when nothing can run any more. */
static void begin(gleaner *g, gleaner_call *call) {
	call->failures = call->kills = call->charged = call->runs = 0;
	if (g->failure != 0) {
		pool_end(g, call, g->failure, 0, g->why);
		return;
	}
	pool_queue(g, call, 0);
	pool_pump(g);
}

int gleaner_invoke(gleaner *g, const void *args, uint32_t size, void *result, uint32_t room, gleaner_call **out) {
	gleaner_call *call;
	int rc = fits(g, args, size, result, room);

	if (out == NULL) return text_fail(GLEANER_INVALID, "no place for the call");
	*out = NULL;
	if (rc != GLEANER_OK) return rc;
	call = malloc(sizeof *call);
	if (call == NULL) return text_fail(GLEANER_NO_MEMORY, "a call");
	prepare(g, call);
	call->args = args;
	call->size = size;
	call->result = result;
	call->room = room;
	gleaner_enter(g);
	link_call(g, call);
	begin(g, call);
	gleaner_leave(g);
	*out = call;
	return GLEANER_OK;
}

/* keep_slot lends a slot to a zero-copy call; at most half of a line's, so that other calls always find one. */
static int keep_slot(gleaner *g, gleaner_call *call, uint64_t bytes) {
	struct line *best = NULL;

	for (struct member *m = g->members; m != NULL; m = m->next) {
		struct line *l = m->line;
		uint32_t is_large, most;
		if (l == NULL || !l->up) continue;
		is_large = bytes > l->small_bytes;
		most = is_large ? l->large / 2 : l->small / 2;
		if (l->held[is_large] >= most || (best != NULL && l->held[is_large] >= best->held[is_large])) continue;
		best = l;
	}
	if (best == NULL || pool_reserve(best, bytes, &call->slot) != 0) return -1;
	best->held[call->slot >= best->small]++;
	call->line = best;
	call->args = gf_request(best->c, call->slot);
	call->result = gf_result(best->c, call->slot);
	return 0;
}

static uint64_t heap_args_bytes(const gleaner_call *call) { return ((uint64_t)call->args_room + 63) / 64 * 64 + 64; }

int call_to_heap(gleaner_call *call) {
	uint64_t args_bytes = heap_args_bytes(call);
	uint8_t *heap = malloc(args_bytes + call->room + 1);

	if (heap == NULL) return -1;
	if (call->args != NULL) memcpy(heap, call->args, call->size);
	call->heap = heap;
	call->args = heap;
	call->result = heap + args_bytes;
	return 0;
}

int gleaner_alloc(gleaner *g, uint32_t args_bytes, uint32_t room, gleaner_call **out) {
	gleaner_call *call;
	int rc = fits(g, "", args_bytes, "", room);

	if (out == NULL) return text_fail(GLEANER_INVALID, "no place for the call");
	*out = NULL;
	if (rc != GLEANER_OK) return rc;
	call = malloc(sizeof *call);
	if (call == NULL) return text_fail(GLEANER_NO_MEMORY, "a call");
	prepare(g, call);
	call->owns = 1;
	call->args_room = args_bytes;
	call->room = room;
	gleaner_enter(g);
	rc = keep_slot(g, call, args_bytes > room ? args_bytes : room);
	link_call(g, call);
	gleaner_leave(g);
	if (rc != 0 && call_to_heap(call) != 0) {
		gleaner_free(call);
		return text_fail(GLEANER_NO_MEMORY, "buffers of a call");
	}
	*out = call;
	return GLEANER_OK;
}

void *gleaner_args(gleaner_call *call) { return call != NULL && call->owns ? (void *)(uintptr_t)call->args : NULL; }

const void *gleaner_result(gleaner_call *call) {
	return call != NULL && call->owns && atomic_load(&call->state) == CALL_DONE && call->status == GLEANER_OK ? call->result : NULL;
}

uint32_t gleaner_runs(const gleaner_call *call) { return call->runs; }

/* launch sends a call whose slot it keeps; -1 when that executor is gone. With mu held. */
static int launch(gleaner *g, gleaner_call *call) {
	struct line *l = call->line;

	if (!l->up) return -1;
	call->failures = call->kills = call->charged = 0;
	call->runs = 1;
	l->calls[call->slot] = call;
	atomic_fetch_add(&l->flying, 1);
	atomic_store(&call->state, CALL_POSTING);
	call->behind = g->to_post;
	g->to_post = call;
	return 0;
}

int gleaner_start(gleaner_call *call, uint32_t size) {
	gleaner *g;
	int state, rc = 0;

	if (call == NULL || !call->owns) return text_fail(GLEANER_INVALID, "not a call of gleaner_alloc");
	g = call->g;
	if ((rc = usable(g)) != GLEANER_OK) return rc;
	state = atomic_load(&call->state);
	if (state != CALL_IDLE && state != CALL_DONE) return text_fail(GLEANER_INVALID, "the call has not ended");
	if (size > call->args_room) return text_fail(GLEANER_INVALID, "%u bytes of arguments, made for %u", size, call->args_room);
	call->size = size;
	gleaner_enter(g);
	if (call->heap != NULL || g->failure != 0) {
		begin(g, call);
	} else if (launch(g, call) != 0) {
		rc = -1;
	}
	gleaner_leave(g);
	if (rc == 0) return GLEANER_OK;
	if (call_to_heap(call) != 0) return text_fail(GLEANER_NO_MEMORY, "buffers of a call");
	gleaner_enter(g);
	call->line->held[call->slot >= call->line->small]--;
	pool_release(call->line, call->slot);
	call->line = NULL;
	begin(g, call);
	gleaner_leave(g);
	return GLEANER_OK;
}

/* finish_with reports how an ended call ended. */
static int finish_with(gleaner_call *call, uint32_t *bytes) {
	if (bytes != NULL) *bytes = call->bytes;
	return call->status == GLEANER_OK ? GLEANER_OK : text_fail(call->status, "%s", call->detail);
}

static int ended(const gleaner_call *call) { return atomic_load_explicit(&call->state, memory_order_acquire) == CALL_DONE; }

static int any_ended(gleaner_call *const *calls, uint32_t n, uint32_t *which) {
	for (uint32_t i = 0; i < n; i++) {
		if (calls[i] == NULL || !ended(calls[i])) continue;
		*which = i;
		return 1;
	}
	return 0;
}

/* lines_of collects the lines on which calls fly, each once, with a reference; with mu held. */
static uint32_t lines_of(gleaner_call *const *calls, uint32_t n, struct line **lines) {
	uint32_t count = 0;

	for (uint32_t i = 0; i < n && count < FIRST_LINES; i++) {
		struct line *l = calls[i] != NULL && atomic_load(&calls[i]->state) == CALL_FLYING ? calls[i]->line : NULL;
		for (uint32_t k = 0; k < count && l != NULL; k++) {
			if (lines[k] == l) l = NULL;
		}
		if (l == NULL) continue;
		l->refs++;
		atomic_fetch_add(&l->pollers, 1);
		lines[count++] = l;
	}
	return count;
}

/* poll_own harvests for the caller's calls until then: 1 once one has ended, -1 when none is with an executor. */
static int poll_own(gleaner *g, gleaner_call *const *calls, uint32_t n, int64_t until, uint32_t *which) {
	struct line *lines[FIRST_LINES];
	uint32_t count;
	int found = 0;

	gleaner_enter(g);
	count = lines_of(calls, n, lines);
	gleaner_leave(g);
	while (count > 0) {
		for (uint32_t i = 0; i < count; i++) pool_harvest(lines[i], count == 1 ? SPIN_ROUND_NS : 0);
		if ((found = any_ended(calls, n, which)) || gleaner_now() >= until) break;
	}
	if (count == 0) return any_ended(calls, n, which) ? 1 : -1;
	for (uint32_t i = 0; i < count; i++) {
		atomic_fetch_sub(&lines[i]->pollers, 1);
		pool_rearm(lines[i]);
	}
	gleaner_enter(g);
	for (uint32_t i = 0; i < count; i++) pool_put(lines[i]);
	gleaner_leave(g);
	return found;
}

/* sleep_for waits until one of the calls has ended, or the deadline (0: none) is over. */
static int sleep_for(gleaner *g, gleaner_call *const *calls, uint32_t n, int64_t deadline, uint32_t *which) {
	struct waiter w;
	pthread_condattr_t attr;
	struct timespec t = {.tv_sec = deadline / 1000000000, .tv_nsec = deadline % 1000000000};
	int found;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&w.cond, &attr);
	pthread_condattr_destroy(&attr);
	gleaner_enter(g);
	for (uint32_t i = 0; i < n; i++) {
		if (calls[i] != NULL) calls[i]->waiter = &w;
	}
	while (!(found = any_ended(calls, n, which))) {
		if (deadline == 0) {
			pthread_cond_wait(&w.cond, &g->mu);
		} else if (pthread_cond_timedwait(&w.cond, &g->mu, &t) != 0 && !(found = any_ended(calls, n, which))) {
			break;
		}
	}
	for (uint32_t i = 0; i < n; i++) {
		if (calls[i] != NULL) calls[i]->waiter = NULL;
	}
	gleaner_leave(g);
	pthread_cond_destroy(&w.cond);
	return found;
}

/* wait_one returns 1 when one of the calls has ended, in *which. */
static int wait_one(gleaner *g, gleaner_call *const *calls, uint32_t n, int64_t timeout_ms, uint32_t *which) {
	int64_t now, deadline, spins, until = 0;
	int found = 0;

	if (any_ended(calls, n, which)) return 1;
	now = gleaner_now();
	deadline = timeout_ms < 0 || timeout_ms > INT64_MAX / 2000000 ? 0 : now + timeout_ms * 1000000;
	spins = g->spin_ns > INT64_MAX - now ? INT64_MAX : now + g->spin_ns;
	if (deadline != 0 && spins > deadline) spins = deadline;
	/* In turns: a call that is interrupted goes to another line. */
	for (; found == 0 && until < spins; now = until) {
		until = spins - now > SPIN_TURN_NS ? now + SPIN_TURN_NS : spins;
		found = poll_own(g, calls, n, until, which);
	}
	if (found > 0) return 1;
	return timeout_ms == 0 ? 0 : sleep_for(g, calls, n, deadline, which);
}

int gleaner_wait(gleaner_call *call, int64_t timeout_ms, uint32_t *bytes) {
	uint32_t which;
	int rc;

	if (call == NULL) return text_fail(GLEANER_INVALID, "no call given");
	if ((rc = usable(call->g)) != GLEANER_OK) return rc;
	if (atomic_load(&call->state) == CALL_IDLE) return text_fail(GLEANER_INVALID, "the call has not been started");
	return wait_one(call->g, &call, 1, timeout_ms, &which) ? finish_with(call, bytes) : GLEANER_PENDING;
}

int gleaner_test(gleaner_call *call, uint32_t *bytes) { return gleaner_wait(call, 0, bytes); }

int gleaner_wait_any(gleaner_call *const *calls, uint32_t n, int64_t timeout_ms, uint32_t *which) {
	gleaner *g = NULL;
	int rc;

	if (which == NULL) return text_fail(GLEANER_INVALID, "no place for the answer");
	for (uint32_t i = 0; calls != NULL && i < n; i++) {
		if (calls[i] == NULL) continue;
		if (g != NULL && calls[i]->g != g) return text_fail(GLEANER_INVALID, "calls of different leases");
		if (atomic_load(&calls[i]->state) == CALL_IDLE) return text_fail(GLEANER_INVALID, "call %u has not been started", i);
		g = calls[i]->g;
	}
	if (g == NULL) return text_fail(GLEANER_INVALID, "no calls given");
	if ((rc = usable(g)) != GLEANER_OK) return rc;
	return wait_one(g, calls, n, timeout_ms, which) ? GLEANER_OK : GLEANER_PENDING;
}

/* take_back makes a call the caller's again, wherever it is. */
static void take_back(gleaner *g, gleaner_call *call) {
	for (;;) {
		int state;
		gleaner_enter(g);
		state = atomic_load(&call->state);
		if (state != CALL_POSTING && state != CALL_DELIVERING) break;
		gleaner_leave(g);
		sched_yield(); /* a copy is being made */
	}
	switch (atomic_load(&call->state)) {
	case CALL_QUEUED:
		pool_unqueue(g, call);
		break;
	case CALL_HELD:
		g->helds--;
		break;
	case CALL_FLYING: /* the slot is given back with its completion */
		call->line->calls[call->slot] = NULL;
		if (call->owns && call->heap == NULL) call->line->held[call->slot >= call->line->small]--;
		call->line = NULL;
		break;
	}
	if (call->line != NULL) { /* kept */
		call->line->held[call->slot >= call->line->small]--;
		pool_release(call->line, call->slot);
	}
	unlink_call(g, call);
	gleaner_leave(g);
}

void gleaner_free(gleaner_call *call) {
	if (call == NULL || call->g->generation != lease_generation()) return;
	take_back(call->g, call);
	free(call->heap);
	free(call);
}

int gleaner_run(gleaner *g, const void *args, uint32_t size, void *result, uint32_t room, uint32_t *bytes) {
	gleaner_call call, *one = &call;
	uint32_t which;
	int rc = fits(g, args, size, result, room);

	if (rc != GLEANER_OK) return rc;
	prepare(g, &call);
	call.args = args;
	call.size = size;
	call.result = result;
	call.room = room;
	gleaner_enter(g);
	link_call(g, &call);
	begin(g, &call);
	gleaner_leave(g);
	wait_one(g, &one, 1, -1, &which);
	gleaner_enter(g);
	unlink_call(g, &call);
	gleaner_leave(g);
	return finish_with(&call, bytes);
}
