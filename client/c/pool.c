/* Which executor runs which call, and what becomes of a call after each run. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "inside.h"

void gleaner_enter(gleaner *g) { pthread_mutex_lock(&g->mu); }

/* post copies the arguments into the slot and sends them. The call may have ended, and be gone, when it returns. */
static void post(gleaner_call *call) {
	struct line *l = call->line;
	uint32_t slot = call->slot, size = call->size, room = call->room;
	uint8_t *request = gf_request(l->c, slot);
	int64_t timeout = call->g->lease.timeout_ns;

	if (size > 0 && call->args != request) memcpy(request, call->args, size);
	atomic_store(&call->state, CALL_FLYING);
	pool_rearm(l); /* before it is sent: afterwards the line may be gone */
	gf_submit(l->c, slot, size, room, timeout);
}

void gleaner_leave(gleaner *g) {
	gleaner_call *call = g->to_post;
	struct line *dead = g->dead;

	g->to_post = NULL;
	g->dead = NULL;
	pthread_mutex_unlock(&g->mu);
	while (call != NULL) {
		gleaner_call *next = call->behind;
		post(call);
		call = next;
	}
	while (dead != NULL) {
		struct line *next = dead->next_dead;
		gf_close(dead->c);
		free(dead);
		dead = next;
	}
}

/* pool_rearm makes sure that somebody waits for the replies of a line: its keeper, unless a thread polls, which calls this again
 * when it stops. Whoever submits counts its request before it looks at armed; the keeper clears armed before it looks at the counts. */
void pool_rearm(struct line *l) {
	if (atomic_load(&l->pollers) == 0 && atomic_load(&l->flying) > 0 && !atomic_load(&l->armed)) gf_kick(l->c);
}

int pool_reserve(struct line *l, uint64_t bytes, uint32_t *slot) {
	uint64_t small = ((uint64_t)1 << l->small) - 1, fit = l->free_slots;

	if (l->small == 64) small = UINT64_MAX;
	if (bytes > l->large_bytes && bytes > l->small_bytes) return -1;
	fit &= bytes <= l->small_bytes ? small : ~small;
	if (fit == 0) return -1;
	*slot = (uint32_t)__builtin_ctzll(fit);
	l->free_slots &= ~((uint64_t)1 << *slot);
	l->refs++;
	return 0;
}

void pool_put(struct line *l) {
	if (--l->refs > 0) return;
	l->next_dead = l->g->dead;
	l->g->dead = l;
}

void pool_release(struct line *l, uint32_t slot) {
	l->free_slots |= (uint64_t)1 << slot;
	pool_put(l);
}

void pool_queue(gleaner *g, gleaner_call *call, int front) {
	atomic_store(&call->state, CALL_QUEUED);
	if (front) {
		call->behind = g->first;
		g->first = call;
		if (g->last == NULL) g->last = call;
		return;
	}
	call->behind = NULL;
	if (g->last != NULL) {
		g->last->behind = call;
	} else {
		g->first = call;
	}
	g->last = call;
}

void pool_unqueue(gleaner *g, gleaner_call *call) {
	gleaner_call **at = &g->first, *before = NULL;

	while (*at != NULL && *at != call) {
		before = *at;
		at = &(*at)->behind;
	}
	if (*at == NULL) return;
	*at = call->behind;
	if (g->last == call) g->last = before;
}

/* place gives a call to the least loaded executor that has a slot for it. */
static int place(gleaner *g, gleaner_call *call) {
	uint64_t bytes = call->size > call->room ? call->size : call->room;
	struct line *best = NULL;
	int load = (int)g->depth;
	uint32_t slot;

	for (struct member *m = g->members; m != NULL; m = m->next) {
		struct line *l = m->line;
		if (l == NULL || !l->up || atomic_load(&l->flying) >= load || pool_reserve(l, bytes, &slot) != 0) continue;
		if (best != NULL) pool_release(best, call->slot);
		best = l;
		call->slot = slot;
		load = atomic_load(&l->flying);
		if (load == 0) break;
	}
	if (best == NULL) return -1;
	call->line = best;
	best->calls[call->slot] = call;
	atomic_fetch_add(&best->flying, 1);
	return 0;
}

void pool_pump(gleaner *g) {
	while (g->first != NULL) {
		gleaner_call *call = g->first;
		if (place(g, call) != 0) return;
		g->first = call->behind;
		if (g->first == NULL) g->last = NULL;
		atomic_store(&call->state, CALL_POSTING);
		call->runs++;
		call->behind = g->to_post;
		g->to_post = call;
	}
}

void pool_end(gleaner *g, gleaner_call *call, int status, uint32_t bytes, const char *detail) {
	call->status = status;
	call->bytes = bytes;
	snprintf(call->detail, sizeof call->detail, "%s", detail);
	if (status == GLEANER_OK) {
		g->ok++;
		g->trouble = 0;
	} else if (status != GLEANER_ENDED) {
		g->failed++;
	}
	atomic_store(&call->state, CALL_DONE);
	if (call->waiter != NULL) pthread_cond_signal(&call->waiter->cond);
}

void pool_fail(gleaner *g, int status, const char *why) {
	if (g->failure != 0) return;
	g->failure = status;
	snprintf(g->why, sizeof g->why, "%s", why);
	for (gleaner_call *call = g->calls; call != NULL; call = call->next) {
		int state = atomic_load(&call->state);
		if (state == CALL_QUEUED || state == CALL_HELD) pool_end(g, call, status, 0, why);
	}
	g->first = g->last = NULL;
	g->helds = 0;
	pthread_cond_broadcast(&g->joined);
}

static void again(gleaner *g, gleaner_call *call) {
	if (g->failure != 0) {
		pool_end(g, call, g->failure, 0, g->why);
	} else {
		pool_queue(g, call, 1);
	}
}

/* charge holds the loss of an executor, or the kill of the function, against a call. */
static void charge(gleaner *g, gleaner_call *call, uint64_t executor, int killed, const char *detail) {
	uint32_t count = killed ? ++call->kills : ++call->failures;

	if (call->charged < sizeof call->charges / sizeof *call->charges)
		call->charges[call->charged++] = (struct charge){.executor = executor, .killed = killed};
	if (count < (killed ? (uint32_t)MAX_KILLS : (uint32_t)MAX_FAILURES)) {
		g->retried++;
		again(g, call);
	} else if (!killed) {
		char text[192];
		snprintf(text, sizeof text, "in each of %u runs, the last time: %.120s", call->runs, detail);
		pool_end(g, call, GLEANER_LOST, 0, text);
	} else {
		snprintf(call->detail, sizeof call->detail, "%s", detail);
		call->held_until = gleaner_now() + (int64_t)GRACE_MS * 1000000;
		atomic_store(&call->state, CALL_HELD);
		g->helds++;
		lease_wake(g);
	}
}

void pool_excuse(gleaner *g, uint64_t executor) {
	for (gleaner_call *call = g->calls; call != NULL; call = call->next) {
		uint32_t kept = 0;
		for (uint32_t i = 0; i < call->charged; i++) {
			if (call->charges[i].executor != executor) {
				call->charges[kept++] = call->charges[i];
			} else if (call->charges[i].killed) {
				call->kills--;
			} else {
				call->failures--;
			}
		}
		call->charged = kept;
		if (atomic_load(&call->state) == CALL_HELD && call->kills < MAX_KILLS) {
			g->helds--;
			again(g, call);
		}
	}
}

int64_t pool_judge_held(gleaner *g) {
	int64_t now = gleaner_now(), next = 0;

	for (gleaner_call *call = g->calls; call != NULL && g->helds > 0; call = call->next) {
		if (atomic_load(&call->state) != CALL_HELD) continue;
		if (call->held_until <= now) {
			char detail[sizeof call->detail];
			memcpy(detail, call->detail, sizeof detail);
			g->helds--;
			pool_end(g, call, GLEANER_CRASHED, 0, detail);
		} else if (next == 0 || call->held_until < next) {
			next = call->held_until;
		}
	}
	return next;
}

/* conclude decides what becomes of a call after a run. */
static void conclude(gleaner *g, gleaner_call *call, struct member *m, const struct gf_completion *d, const char *text) {
	int killed = d->status == GF_CRASHED && d->signal == SIGKILL;
	int evicted = (m->gone && !m->blame) || strncmp(text, "evicted", 7) == 0;
	char detail[192];

	if (d->status == GF_OK) {
		pool_end(g, call, GLEANER_OK, d->size, "");
	} else if (d->status == GF_GONE) {
		call->runs--; /* it never began */
		again(g, call);
	} else if (evicted && (killed || d->status == GF_GONE_BEGAN)) {
		g->retried++;
		again(g, call);
	} else if (killed || d->status == GF_GONE_BEGAN) {
		charge(g, call, m->number, killed, killed && text[0] == 0 ? "signal 9, Killed" : text);
	} else {
		if (d->signal != 0) {
			snprintf(detail, sizeof detail, "signal %u, %s%s%.100s", d->signal, strsignal((int)d->signal), text[0] != 0 ? ": " : "", text);
			text = detail;
		}
		pool_end(g, call, -(int)d->status, 0, text);
	}
}

/* fetch gets the result, or the arguments for another run, out of the slot before that is given back. */
static void fetch(gleaner_call *call, struct line *l, struct gf_completion *d) {
	if (call->owns && call->heap == NULL) {
		if (d->status != GF_OK && call_to_heap(call) != 0) d->status = GF_BAD_REQUEST;
	} else if (d->status == GF_OK && d->size > 0) {
		memcpy(call->result, gf_result(l->c, d->slot), d->size);
	}
}

/* settle gives the slot back, unless a zero-copy call keeps it for its result. */
static void settle(struct line *l, uint32_t slot, gleaner_call *call, int kept) {
	atomic_fetch_sub(&l->flying, 1);
	if (call != NULL && kept && call->heap == NULL) return;
	if (kept) l->held[slot >= l->small]--;
	if (call != NULL) call->line = NULL;
	pool_release(l, slot);
}

static void deliver(struct line *l, struct gf_completion *d) {
	gleaner *g = l->g;
	char text[GF_TEXT_BYTES] = "";
	gleaner_call *call;
	int lost = d->status == GF_GONE || d->status == GF_GONE_BEGAN, kept;

	if (lost) {
		gf_reason(l->c, text, sizeof text);
	} else if (d->status != GF_OK) {
		gf_detail(l->c, d->slot, text, sizeof text);
	}
	gleaner_enter(g);
	if (lost) l->up = 0;
	call = l->calls[d->slot];
	l->calls[d->slot] = NULL;
	kept = call != NULL && call->owns && call->heap == NULL;
	if (call != NULL && (d->size > SMALL_COPY || d->status != GF_OK)) {
		atomic_store(&call->state, CALL_DELIVERING);
		gleaner_leave(g);
		fetch(call, l, d);
		gleaner_enter(g);
	} else if (call != NULL) {
		fetch(call, l, d);
	}
	settle(l, d->slot, call, kept);
	if (call != NULL) conclude(g, call, l->member, d, text);
	pool_pump(g);
	gleaner_leave(g);
	if (lost) gf_kick(l->c); /* its keeper may have nothing left to wait for */
}

/* pool_harvest delivers what has come on a line, and says how much. Only one thread at a time does; the others get 0. */
int pool_harvest(struct line *l, int64_t spin_ns) {
	struct gf_completion done[GF_MAX_TOTAL];
	int n;

	if (atomic_flag_test_and_set(&l->harvesting)) return 0;
	n = gf_progress(l->c, spin_ns, done, GF_MAX_TOTAL);
	atomic_flag_clear(&l->harvesting);
	for (int i = 0; i < n; i++) deliver(l, &done[i]);
	return n;
}
