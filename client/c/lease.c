/* The lease: joining and leaving it, and the thread that listens to gleaner run (frames: package documentation of client/share). */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "inside.h"

enum { REPORT_MS = 1000, STACK_BYTES = 1 << 20, DEPTH = 2 };

static atomic_uint generation = 1;
static pthread_once_t once = PTHREAD_ONCE_INIT, exits = PTHREAD_ONCE_INIT;
static pthread_mutex_t handles_mu = PTHREAD_MUTEX_INITIALIZER;
static gleaner *handles; /* that live, guarded by handles_mu */

static void forked(void) { atomic_fetch_add(&generation, 1); }
static void quiet_all(void);

static void begin(void) {
	pthread_atfork(NULL, NULL, forked);
	atexit(quiet_all); /* for a dial that is under way */
}

unsigned lease_generation(void) { return atomic_load_explicit(&generation, memory_order_relaxed); }

void lease_wake(gleaner *g) {
	uint64_t one = 1;
	if (write(g->wake, &one, sizeof one) < 0) return;
}

int lease_thread(pthread_t *t, void *(*run)(void *), void *arg) {
	pthread_attr_t attr;
	sigset_t all, before;
	int rc;

	sigfillset(&all);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_BYTES);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	rc = pthread_create(t, &attr, run, arg);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attr);
	return rc == 0 ? 0 : -1;
}

int lease_say(gleaner *g, const uint8_t *frame, size_t n) {
	return g->share >= 0 && send(g->share, frame, n, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)n ? 0 : -1;
}

static struct member *find(gleaner *g, uint64_t number) {
	struct member *m = g->members;

	while (m != NULL && m->number != number) m = m->next;
	return m;
}

/* ready brings an executor's token up to date, or starts a keeper for a new one. */
static void ready(gleaner *g, const struct share_frame *f) {
	struct member *m = find(g, f->executor);
	int fresh = m == NULL;

	if (fresh) m = calloc(1, sizeof *m);
	if (m == NULL || g->failure != 0) {
		if (fresh) free(m);
		return;
	}
	memcpy(m->address, f->address, sizeof m->address);
	memcpy(m->local, f->local, sizeof m->local);
	memcpy(m->node, f->node, sizeof m->node);
	memcpy(m->id, f->id, sizeof m->id);
	memcpy(m->token, f->token, sizeof m->token);
	m->token_bytes = f->token_bytes;
	if (!fresh) return;
	m->g = g;
	m->number = f->executor;
	if (keep_start(m) != 0) {
		free(m);
		return;
	}
	m->next = g->members;
	g->members = m;
}

static void depart(struct member *m, int blame) {
	m->gone = 1;
	m->blame = blame;
	if (m->line != NULL) m->line->up = 0;
	keep_wake(m);
}

static void apply(gleaner *g, const struct share_frame *f) {
	struct member *m;

	gleaner_enter(g);
	switch (f->type) {
	case SHARE_READY:
		ready(g, f);
		break;
	case SHARE_GONE:
		m = find(g, f->executor);
		if (m != NULL) depart(m, f->blame != 0);
		if (f->blame == 0) {
			pool_excuse(g, f->executor);
		} else if (++g->trouble >= MAX_TROUBLE) {
			pool_fail(g, GLEANER_LOST, f->text);
		}
		break;
	case SHARE_ENDED:
		pool_fail(g, GLEANER_ENDED, f->text);
		for (m = g->members; m != NULL; m = m->next) depart(m, 0);
		break;
	}
	pool_pump(g);
	gleaner_leave(g);
}

/* consume follows the frames that have come whole; -1 when they make no sense. */
static int consume(gleaner *g) {
	size_t used = 0;

	for (;;) {
		struct share_frame f;
		long n = share_decode(&f, g->in + used, g->in_bytes - used);
		if (n < 0) return -1;
		if (n == 0) break;
		used += (size_t)n;
		apply(g, &f);
	}
	memmove(g->in, g->in + used, g->in_bytes - used);
	g->in_bytes -= used;
	return 0;
}

/* deaf goes on without gleaner run, with what is connected. */
static void deaf(gleaner *g) {
	close(g->share);
	g->share = -1;
	gleaner_enter(g);
	g->orphan = 1;
	gleaner_leave(g);
}

/* hear reads what gleaner run says. */
static void hear(gleaner *g) {
	for (;;) {
		ssize_t n = recv(g->share, g->in + g->in_bytes, sizeof g->in - g->in_bytes, MSG_DONTWAIT);
		if (n < 0 && errno == EINTR) continue;
		if (n < 0 && errno == EAGAIN) return;
		if (n > 0) {
			g->in_bytes += (size_t)n;
			if (consume(g) == 0) continue;
		}
		break;
	}
	deaf(g);
}

static void report(gleaner *g, int now) {
	uint8_t frame[SHARE_OUT];
	uint64_t ok, failed, retried;

	if (!now && gleaner_now() - g->reported < (int64_t)REPORT_MS * 1000000) return;
	gleaner_enter(g);
	ok = g->ok;
	failed = g->failed;
	retried = g->retried;
	gleaner_leave(g);
	g->reported = gleaner_now();
	if (ok + failed + retried == 0 || lease_say(g, frame, share_counts(frame, ok, failed, retried)) != 0) return;
	gleaner_enter(g);
	g->ok -= ok;
	g->failed -= failed;
	g->retried -= retried;
	gleaner_leave(g);
}

/* reap joins keepers that have returned. */
static void reap(gleaner *g) {
	struct member *ended = NULL;

	gleaner_enter(g);
	for (struct member **at = &g->members; *at != NULL;) {
		struct member *m = *at;
		if (!m->ended) {
			at = &m->next;
			continue;
		}
		*at = m->next;
		m->next = ended;
		ended = m;
	}
	if (g->orphan && g->members == NULL) pool_fail(g, GLEANER_ENDED, "gleaner run is gone, and its executors with it");
	gleaner_leave(g);
	while (ended != NULL) {
		struct member *next = ended->next;
		pthread_join(ended->keeper, NULL);
		close(ended->wake);
		free(ended);
		ended = next;
	}
}

/* refresh asks for tokens; one at a time is enough, the rest in the next round. */
static void refresh(gleaner *g) {
	uint8_t frame[SHARE_OUT];
	uint64_t number = 0;
	int wanted = 0;

	gleaner_enter(g);
	for (struct member *m = g->members; m != NULL && !wanted; m = m->next) {
		wanted = m->refresh;
		number = m->number;
		m->refresh = 0;
	}
	gleaner_leave(g);
	if (wanted && lease_say(g, frame, share_refresh(frame, number)) == 0) lease_wake(g);
}

static void *listen_to(void *arg) {
	gleaner *g = arg;
	int stopping = 0;

	if (consume(g) != 0) deaf(g); /* what came with the lease */
	while (!stopping) {
		struct pollfd p[2] = {{.fd = g->share, .events = POLLIN}, {.fd = g->wake, .events = POLLIN}};
		int64_t next, left = REPORT_MS;
		uint64_t count;

		gleaner_enter(g);
		next = pool_judge_held(g);
		stopping = g->stopping;
		gleaner_leave(g);
		if (next != 0 && (next - gleaner_now()) / 1000000 < left) left = (next - gleaner_now()) / 1000000 + 1;
		if (!stopping && poll(p, 2, left < 1 ? 1 : (int)left) > 0) {
			if (p[1].revents != 0 && read(g->wake, &count, sizeof count) < 0) continue;
			if (p[0].revents != 0) hear(g);
		}
		refresh(g);
		reap(g);
		report(g, stopping);
	}
	return NULL;
}

static void discard(gleaner *g) {
	if (g->share >= 0) close(g->share);
	if (g->wake >= 0) close(g->wake);
	if (g->code != NULL) munmap((void *)(uintptr_t)g->code, g->lease.code_bytes);
	pthread_cond_destroy(&g->joined);
	pthread_mutex_destroy(&g->mu);
	free(g);
}

static gleaner *make(const struct gleaner_options *o) {
	gleaner *g = calloc(1, sizeof *g);
	pthread_condattr_t attr;

	if (g == NULL) return NULL;
	pthread_mutex_init(&g->mu, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&g->joined, &attr);
	pthread_condattr_destroy(&attr);
	g->generation = lease_generation();
	g->share = -1;
	g->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	g->depth = o->depth == 0 ? DEPTH : o->depth > SLOTS ? SLOTS : o->depth;
	g->spin_ns = o->spin_ns;
	snprintf(g->carrier, sizeof g->carrier, "%s", o->carrier != NULL ? o->carrier : "");
	snprintf(g->provider, sizeof g->provider, "%s", o->provider != NULL ? o->provider : "");
	return g;
}

/* quiet ends the handle's threads, and with them all that is in flight; it may be repeated. */
static void quiet(gleaner *g) {
	if (g->quiet) return;
	g->quiet = 1;
	gleaner_enter(g);
	pool_fail(g, GLEANER_ENDED, "the program has left the lease");
	g->stopping = 1;
	for (struct member *m = g->members; m != NULL; m = m->next) keep_wake(m);
	gleaner_leave(g);
	lease_wake(g);
	pthread_join(g->thread, NULL);
	while (g->members != NULL) {
		struct member *m = g->members;
		pthread_join(m->keeper, NULL);
		g->members = m->next;
		close(m->wake);
		free(m);
	}
}

/* quiet_all keeps threads from working inside libfabric while a process that exits takes that apart. */
static void quiet_all(void) {
	if (pthread_mutex_trylock(&handles_mu) != 0) return;
	for (gleaner *g = handles; g != NULL; g = g->next_handle) {
		if (g->generation == lease_generation()) quiet(g);
	}
	pthread_mutex_unlock(&handles_mu);
}

static void at_exit(void) { atexit(quiet_all); }

/* Libraries behind libfabric have exit handlers of their own. The latest that is registered runs first: ours comes after theirs. */
void lease_libfabric_is_loaded(void) { pthread_once(&exits, at_exit); }

static void list(gleaner *g) {
	pthread_mutex_lock(&handles_mu);
	g->next_handle = handles;
	handles = g;
	pthread_mutex_unlock(&handles_mu);
}

static void unlist(gleaner *g) {
	pthread_mutex_lock(&handles_mu);
	for (gleaner **at = &handles; *at != NULL; at = &(*at)->next_handle) {
		if (*at != g) continue;
		*at = g->next_handle;
		break;
	}
	pthread_mutex_unlock(&handles_mu);
}

int gleaner_init(gleaner **out, const struct gleaner_options *options) {
	struct gleaner_options o = {0};
	gleaner *g;
	int rc;

	if (out == NULL) return text_fail(GLEANER_INVALID, "no place for the lease");
	*out = NULL;
	if (options != NULL) memcpy(&o, options, options->bytes < sizeof o ? options->bytes : sizeof o);
	if (options != NULL && options->bytes < 8) return text_fail(GLEANER_INVALID, "options.bytes is not sizeof(struct gleaner_options)");
	if (o.lease == NULL) o.lease = getenv("GLEANER_LEASE");
	if (o.lease == NULL || o.lease[0] == 0) return text_fail(GLEANER_NO_LEASE, "GLEANER_LEASE is not set");
	if (o.carrier != NULL && strcmp(o.carrier, "ring") != 0 && strcmp(o.carrier, "ofi") != 0 && o.carrier[0] != 0)
		return text_fail(GLEANER_INVALID, "carrier \"%.40s\": want ring or ofi", o.carrier);
	if ((rc = spin_budget(o.spin_ns, &o.spin_ns)) != GLEANER_OK) return rc;
	pthread_once(&once, begin);
	g = make(&o);
	if (g == NULL) return text_fail(GLEANER_NO_MEMORY, "a lease");
	rc = g->wake >= 0 ? lease_join(g, o.lease) : text_fail(GLEANER_NO_MEMORY, "eventfd: %s", strerror(errno));
	if (rc == GLEANER_OK && lease_thread(&g->thread, listen_to, g) != 0) rc = text_fail(GLEANER_NO_MEMORY, "a thread");
	if (rc == GLEANER_OK) {
		list(g);
		*out = g;
	} else {
		discard(g);
	}
	return rc;
}

void gleaner_finish(gleaner *g) {
	if (g == NULL || g->generation != lease_generation()) return;
	unlist(g);
	quiet(g);
	while (g->calls != NULL) gleaner_free(g->calls);
	discard(g);
}

uint64_t gleaner_lease(const gleaner *g) { return g->lease.lease; }
uint64_t gleaner_buffer_bytes(const gleaner *g) { return g->lease.buffer_bytes; }
int gleaner_wanted(const gleaner *g) { return (int)g->lease.wanted; }

int gleaner_executors(gleaner *g) {
	int n;

	if (g->generation != lease_generation()) return text_fail(GLEANER_FORKED, "made before fork");
	gleaner_enter(g);
	n = g->failure != 0 ? text_fail(g->failure, "%s", g->why) : g->connected;
	gleaner_leave(g);
	return n;
}

int gleaner_await(gleaner *g, int executors, int64_t timeout_ms) {
	int64_t deadline = gleaner_now() + (timeout_ms < 0 || timeout_ms > 1000000000 ? 1000000000 : timeout_ms) * 1000000;
	struct timespec t = {.tv_sec = deadline / 1000000000, .tv_nsec = deadline % 1000000000};
	int rc = GLEANER_PENDING;

	if (g->generation != lease_generation()) return text_fail(GLEANER_FORKED, "made before fork");
	gleaner_enter(g);
	while (g->connected < executors && g->failure == 0) {
		if (pthread_cond_timedwait(&g->joined, &g->mu, &t) != 0) break;
	}
	if (g->failure != 0) {
		rc = text_fail(g->failure, "%s", g->why);
	} else if (g->connected >= executors) {
		rc = GLEANER_OK;
	}
	gleaner_leave(g);
	return rc;
}
