#define _GNU_SOURCE
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "worker.h"

enum { REPLY_PATIENCE_MS = 1000, BULK_BUDGETS = 20 };

int64_t worker_now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* ticks is a counter that every processor has and that costs less to read than the clock. */
static inline uint64_t ticks(void) {
#if defined(__x86_64__)
	return __builtin_ia32_rdtsc();
#else
	uint64_t t;
	__asm__ volatile("mrs %0, cntvct_el0" : "=r"(t));
	return t;
#endif
}

void worker_start_clock(struct worker *w) {
	w->origin_ticks = ticks();
	w->mark = w->counted = w->origin_ns = worker_now();
}

void worker_spun(struct worker *w, int64_t now) {
	_Atomic uint64_t *sum = &w->state->spin_ns;

	atomic_store_explicit(sum, atomic_load_explicit(sum, memory_order_relaxed) + (uint64_t)(now - w->counted), memory_order_relaxed);
	w->counted = now;
}

/* begin makes the request visible to the supervisor before the function runs. */
static void begin(struct worker *w, struct connection *c, const struct request *r) {
	struct gf_state *s = w->state;
	uint64_t run = w->generation | GF_RUNNING;

	atomic_store_explicit(&s->connection, c->id, memory_order_relaxed);
	atomic_store_explicit(&s->seq, r->seq, memory_order_relaxed);
	atomic_store_explicit(&s->deadline, r->timeout > 0 ? worker_now() + r->timeout : 0, memory_order_relaxed);
	atomic_store_explicit(&s->begun[c->id], r->seq, memory_order_relaxed);
	if (c->carrier == GF_RING) atomic_store_explicit(&c->view.shared->begun, r->seq, memory_order_relaxed);
	if (r->timeout <= 0) {
		atomic_store_explicit(&s->run, run, memory_order_release);
		return;
	}
	atomic_store(&s->run, run); /* sequentially consistent: the supervisor looks for it after it has raised its flag */
	if (atomic_exchange(&s->wake_asleep, 0) != 0) {
		struct gf_command wake = {.op = GF_OP_WAKE};
		worker_tell(w, &wake);
	}
}

/* end takes the run back; a request that the supervisor has condemned meanwhile never ends here. Anything else in its place is the
 * function's writing. */
static void end(struct worker *w) {
	uint64_t running = w->generation | GF_RUNNING;

	if (!atomic_compare_exchange_strong(&w->state->run, &running, w->generation + GF_GENERATION)) {
		if (running != (w->generation | GF_RUNNING | GF_CONDEMNED)) {
			atomic_store(&w->state->fault_guard, GF_FAULT_STATE);
			_exit(1);
		}
		for (;;) pause();
	}
	w->generation += GF_GENERATION;
}

/* execute runs the function on what the client has asked for, if that is sound. account has to follow. */
static uint32_t execute(struct worker *w, struct connection *c, const struct request *r, uint32_t *size) {
	uint64_t bytes = gf_layout_place(&c->view.layout, r->slot).bytes;

	*size = 0;
	w->began = 0;
	if (r->size > bytes || r->cap > bytes) return GF_BAD_REQUEST;
	w->began = ticks();
	begin(w, c, r);
	*size = w->run(r->args, r->size, c->view.result[r->slot]);
	end(w);
	return *size > r->cap ? GF_TOO_LARGE : GF_OK;
}

/* began_ns is when execute began, on the clock that says now: a tick is as long as it was on average since the worker started. */
static int64_t began_ns(struct worker *w, int64_t now) {
	uint64_t t = ticks();
	int64_t began = now - (int64_t)((double)(t - w->began) * (double)(now - w->origin_ns) / (double)(t - w->origin_ticks));

	return began < w->counted ? w->counted : began > now ? now : began;
}

/* account counts what execute has begun, if anything: after the reply, which somebody waits for, and with it. */
static void account(struct worker *w) {
	struct gf_state *s = w->state;
	int64_t began, stop;

	if (w->began == 0) return;
	stop = worker_now();
	began = began_ns(w, stop);
	worker_spun(w, began);
	atomic_store_explicit(&s->busy_ns, atomic_load_explicit(&s->busy_ns, memory_order_relaxed) + (uint64_t)(stop - began), memory_order_relaxed);
	atomic_store_explicit(&s->invocations, atomic_load_explicit(&s->invocations, memory_order_relaxed) + 1, memory_order_relaxed);
	w->mark = w->counted = stop;
}

int serve_ring(struct worker *w, struct connection *c) {
	struct gf_desc d;
	uint64_t one = 1;

	if (!gf_ring_pop(&c->requests, &d)) return 0;
	if (d.slot < gf_layout_total(&c->view.layout)) {
		struct request r = {.seq = d.seq, .slot = d.slot, .size = d.size, .cap = d.cap, .timeout = d.timeout, .args = c->view.request[d.slot]};
		d.status = execute(w, c, &r, &d.size);
	} else {
		d.size = 0;
		d.status = GF_BAD_REQUEST;
		w->began = 0;
	}
	gf_ring_push(&c->replies, &d);
	if (gf_ring_must_wake(&c->view.shared->client_sleeps)) (void)!write(c->client_wake, &one, sizeof one);
	account(w);
	return 1;
}

/* patient repeats what the carrier could not take, for so long as a live client needs at most. */
static int patient(struct worker *w, int64_t *until) {
	int64_t now = worker_now();

	if (*until == 0) *until = now + (int64_t)REPLY_PATIENCE_MS * 1000000;
	gf_ofi_advance(w->ofi);
	return now < *until;
}

/* post sends a reply that lies in the result's place. */
static int post(struct worker *w, struct connection *c, const struct gf_message *m, uint64_t place) {
	uint64_t head = place - sizeof *m, payload = m->status == GF_OK ? m->size : 0;
	struct gf_ofi_piece all = {.from = &c->memory, .offset = head, .bytes = sizeof *m + payload, .to = c->peer_base + head, .key = c->peer_key};
	struct gf_ofi_piece bulk = {.from = &c->memory, .offset = place, .bytes = payload, .to = c->peer_base + place, .key = c->peer_key};
	int is_inline = (m->flags & GF_MESSAGE_INLINE) != 0, rc = 0;
	int64_t until = 0;

	if ((m->flags & GF_MESSAGE_BELL) != 0 && payload <= GF_BELL_BYTES) {
		uint32_t bell = gf_bell_pack(c->id, m->slot, c->cookie);
		while ((rc = gf_ofi_ring(w->ofi, c->peer, &all, bell)) == 1 && patient(w, &until)) continue;
		return rc;
	}
	if (!is_inline) {
		while ((rc = gf_ofi_write(w->ofi, c->peer, &bulk)) == 1 && patient(w, &until)) continue;
	}
	if (rc == 0) {
		while ((rc = gf_ofi_send(w->ofi, c->peer, &c->memory, head, sizeof *m + (is_inline ? payload : 0))) == 1 && patient(w, &until)) continue;
	}
	return rc;
}

static void reply_ofi(struct worker *w, struct connection *c, struct gf_message *m, uint32_t status) {
	uint64_t place = (uint64_t)(c->view.result[m->slot] - c->view.base);

	m->status = status;
	m->flags &= GF_MESSAGE_BELL;
	if (status != GF_OK || m->size <= GF_INLINE_BYTES) m->flags |= GF_MESSAGE_INLINE;
	memcpy(c->view.base + place - sizeof *m, m, sizeof *m);
	if (post(w, c, m, place) != 0) c->dead = 1;
}

/* expect_bulk lets the worker poll while a payload like the last arrives, at 1 GB/s: whoever sleeps meanwhile is woken for every piece
 * of it. Short budgets stay short. */
static void expect_bulk(struct worker *w, uint32_t bytes) {
	int64_t most = BULK_BUDGETS * (w->spin_ns < INT64_MAX ? w->spin_ns : 0);

	w->bulk_ns = bytes <= GF_BELL_BYTES ? 0 : bytes < most ? bytes : most;
}

/* serve_request serves what is known to be the connection's own. */
static void serve_request(struct worker *w, struct connection *c, struct gf_message *m, void *args) {
	struct request q = {.seq = m->seq, .slot = m->slot, .size = m->size, .cap = m->cap, .timeout = m->timeout, .args = args};
	uint32_t asked = m->size, status = execute(w, c, &q, &m->size);

	reply_ofi(w, c, m, status);
	account(w);
	expect_bulk(w, asked);
}

static struct connection *of(struct worker *w, uint32_t id) {
	struct connection *c = id < GF_MAX_CONNECTIONS ? &w->connections[id] : NULL;

	return c != NULL && c->used && !c->dead && c->carrier == GF_OFI ? c : NULL;
}

static void serve_message(struct worker *w, struct gf_ofi_received *r) {
	struct gf_message m = r->message;
	struct connection *c = of(w, m.connection);
	int is_inline = (m.flags & GF_MESSAGE_INLINE) != 0;

	if (c == NULL || m.cookie != c->cookie || m.slot >= gf_layout_total(&c->view.layout) || (is_inline && m.size != r->payload_bytes)) return;
	serve_request(w, c, &m, is_inline ? r->payload : c->view.request[m.slot]);
}

/* answer_trial shows the client that doorbells come through in both directions. */
static void answer_trial(struct worker *w, struct connection *c) {
	struct gf_message *m = (struct gf_message *)c->view.base;
	struct gf_ofi_piece p = {.from = &c->memory, .offset = sizeof *m, .bytes = sizeof *m, .to = c->peer_base + sizeof *m, .key = c->peer_key};
	int64_t until = 0;

	if (m->cookie != c->cookie) return;
	m[1] = *m;
	while (gf_ofi_ring(w->ofi, c->peer, &p, gf_bell_pack(c->id, GF_BELL_TRIAL, c->cookie)) == 1 && patient(w, &until)) continue;
}

/* serve_bell believes the message that has been written, not the doorbell: a copy of it, which the client no longer changes. */
static void serve_bell(struct worker *w, uint32_t data) {
	struct gf_bell b = gf_bell_unpack(data);
	struct connection *c = of(w, b.connection);
	struct gf_message m;

	if (c == NULL || b.tag != gf_bell_tag(c->cookie)) return;
	if (b.slot == GF_BELL_TRIAL) answer_trial(w, c);
	if (b.slot >= gf_layout_total(&c->view.layout)) return;
	memcpy(&m, c->view.request[b.slot] - sizeof m, sizeof m);
	if (m.cookie != c->cookie || m.connection != b.connection || m.slot != b.slot || m.seq <= c->heard[b.slot]) return;
	c->heard[b.slot] = m.seq;
	serve_request(w, c, &m, c->view.request[b.slot]);
}

int serve_ofi(struct worker *w) {
	struct gf_ofi_received r;

	if (w->ofi == NULL || gf_ofi_poll(w->ofi, &r) != 1) return 0;
	if (r.is_bell) {
		serve_bell(w, r.bell);
	} else {
		serve_message(w, &r);
	}
	gf_ofi_done(w->ofi, &r); /* after the reply, which somebody waits for */
	return 1;
}
