/* A member's keeper: dials the executor, follows it until it is gone, and again as long as gleaner run says that it lives. */
#define _GNU_SOURCE
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "inside.h"

enum { REFUSED_EXPIRED = 4, REFUSED_EPOCH = 6, STEADY_MS = 5000 };

void keep_wake(struct member *m) {
	uint64_t one = 1;

	if (write(m->wake, &one, sizeof one) < 0) return;
	if (m->line != NULL) gf_kick(m->line->c);
}

/* over says whether the keeper is to end. */
static int over(struct member *m) {
	int yes;

	gleaner_enter(m->g);
	yes = m->gone || m->g->stopping;
	gleaner_leave(m->g);
	return yes;
}

static int dial(struct member *m, struct gf_conn **c, struct gf_error *e) {
	gleaner *g = m->g;
	char address[SHARE_PATH], local[SHARE_PATH];
	uint8_t token[SHARE_TOKEN];
	struct gf_dial_options o = {.address = address, .local = local, .symbol = g->lease.symbol, .carrier = g->carrier, .provider = g->provider,
		.host = "", .token = token, .digest = g->lease.digest, .code = g->code, .code_bytes = g->lease.code_bytes,
		.buffer_bytes = g->lease.buffer_bytes, .slots = SLOTS, .spin_ns = spin_on_the_wire(g->spin_ns), .timeout_ns = (int64_t)DIAL_TIMEOUT_MS * 1000000,
		.cancel_fd = m->wake};

	gleaner_enter(g);
	memcpy(address, m->address, sizeof address);
	memcpy(local, m->local, sizeof local);
	memcpy(token, m->token, sizeof token);
	o.token_bytes = m->token_bytes;
	gleaner_leave(g);
	return gf_dial(c, &o, e);
}

/* join makes the connection's slots available. */
static struct line *join(struct member *m, struct gf_conn *c) {
	const struct gf_layout *layout = gf_conn_layout(c);
	struct line *l = calloc(1, sizeof *l);

	if (l == NULL) return NULL;
	l->c = c;
	l->g = m->g;
	l->member = m;
	l->refs = 1;
	l->up = 1;
	l->small = layout->slots;
	l->large = layout->large;
	l->small_bytes = layout->small_bytes;
	l->large_bytes = layout->large_bytes;
	l->free_slots = ((uint64_t)1 << gf_layout_total(layout)) - 1;
	atomic_flag_clear(&l->harvesting);
	gleaner_enter(m->g);
	m->line = l;
	m->g->connected++;
	pthread_cond_broadcast(&m->g->joined);
	pool_pump(m->g);
	gleaner_leave(m->g);
	return l;
}

static void part(struct member *m, struct line *l) {
	gleaner_enter(m->g);
	l->up = 0;
	m->line = NULL;
	m->g->connected--;
	pool_put(l);
	gleaner_leave(m->g);
}

static void close_down(struct line *l) {
	gleaner_enter(l->g);
	l->up = 0;
	gleaner_leave(l->g);
}

/* follow returns once the executor is gone and all that was in flight has been delivered. */
static void follow(struct member *m, struct line *l) {
	int gone = 0;

	for (;;) {
		int armed, woke;
		while (pool_harvest(l, 0) > 0) continue;
		if (!gone && over(m)) {
			close_down(l);
			gf_abort(l->c);
			gone = 1;
			continue;
		}
		if (gone && atomic_load(&l->flying) == 0) return;
		atomic_store(&l->armed, 0);
		armed = atomic_load(&l->flying) > 0 && atomic_load(&l->pollers) == 0;
		if (armed) atomic_store(&l->armed, 1);
		woke = gf_sleep(l->c, armed, -1);
		if (!gone && (woke == 0 || (woke & GF_WOKE_CONTROL) != 0) && gf_control(l->c)) {
			gone = 1;
			close_down(l);
		}
	}
}

/* judge takes note of a dial that failed; 1 when there is no point in another. */
static int judge(struct member *m, const struct gf_error *e, int failures) {
	gleaner *g = m->g;
	char why[SHARE_TEXT];
	int useless = 0;

	if (e->kind == GF_DIAL_CANCELLED) return 0;
	gleaner_enter(g);
	if (e->kind == GF_DIAL_FUNCTION && e->signal != SIGKILL) {
		pool_fail(g, -(int)e->code, e->text); /* no executor will do better */
		useless = 1;
	} else if (e->kind == GF_DIAL_REFUSED && (e->code == REFUSED_EXPIRED || e->code == REFUSED_EPOCH)) {
		m->refresh = 1;
		lease_wake(g);
	}
	if (!useless && failures % PATIENCE == PATIENCE - 1) {
		useless = g->orphan;
		if (++g->trouble >= MAX_TROUBLE) {
			snprintf(why, sizeof why, "connect to executor %.64s on %.64s: %.300s", m->id, m->node, e->text);
			pool_fail(g, GLEANER_LOST, why);
		}
	}
	gleaner_leave(g);
	return useless;
}

static void rest(struct member *m, int failures) {
	struct pollfd p = {.fd = m->wake, .events = POLLIN};
	uint64_t count;
	int ms = failures > 5 ? 2000 : 50 << failures;

	poll(&p, 1, ms);
	if (read(m->wake, &count, sizeof count) < 0) return;
}

/* serve connects once and stays for as long as that lasts; 1 when there is no point in another time. */
static int serve(struct member *m, int *failures) {
	struct gf_conn *c = NULL;
	struct gf_error e = {0};
	int64_t began = gleaner_now();
	struct line *l;

	if (dial(m, &c, &e) != 0) return judge(m, &e, (*failures)++);
	if (gf_carrier(c) == GF_OFI) lease_libfabric_is_loaded();
	l = join(m, c);
	if (l == NULL) {
		gf_close(c);
		(*failures)++;
		return 0;
	}
	follow(m, l);
	part(m, l);
	*failures = gleaner_now() - began > (int64_t)STEADY_MS * 1000000 ? 0 : *failures + 1;
	return 0;
}

static void *keep(void *arg) {
	struct member *m = arg;
	gleaner *g = m->g;
	int failures = 0;

	while (!over(m) && !serve(m, &failures)) {
		if (!over(m)) rest(m, failures);
	}
	gleaner_enter(g);
	m->ended = 1;
	lease_wake(g);
	gleaner_leave(g);
	return NULL;
}

int keep_start(struct member *m) {
	m->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (m->wake < 0) return -1;
	if (lease_thread(&m->keeper, keep, m) == 0) return 0;
	close(m->wake);
	return -1;
}
