/* What becomes of a call after each run, with an executor and a connection played by the test. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "../../../fabric/ctest/tap.h"
#include "../inside.h"

static uint8_t request[8][64], result[8][64];
static struct gf_completion next;
static const char *words = "";
static int sent, kicks, closed;
static int64_t now;

uint8_t *gf_request(struct gf_conn *c, uint32_t slot) { return (void)c, request[slot]; }
uint8_t *gf_result(struct gf_conn *c, uint32_t slot) { return (void)c, result[slot]; }
void gf_submit(struct gf_conn *c, uint32_t slot, uint32_t size, uint32_t cap, int64_t timeout_ns) {
	(void)c, (void)cap, (void)timeout_ns;
	sent++;
	next.slot = slot;
	next.size = size;
}
int gf_progress(struct gf_conn *c, int64_t spin_ns, struct gf_completion *out, int max) {
	(void)c, (void)spin_ns, (void)max;
	*out = next;
	return 1;
}
void gf_kick(struct gf_conn *c) { (void)c, kicks++; }
void gf_close(struct gf_conn *c) { (void)c, closed++; }
void gf_reason(struct gf_conn *c, char *out, int n) { (void)c, snprintf(out, (size_t)n, "%s", words); }
void gf_detail(struct gf_conn *c, uint32_t slot, char *out, int n) { (void)c, (void)slot, snprintf(out, (size_t)n, "%s", words); }
void lease_wake(gleaner *g) { (void)g; }
int64_t gleaner_now(void) { return now; }
int call_to_heap(gleaner_call *call) { return (void)call, -1; }

static gleaner g;
static struct member members[64];
static int member_count;
static gleaner_call call;

/* arrive connects an executor. */
static struct line *arrive(void) {
	struct member *m = &members[member_count++];
	struct line *l = calloc(1, sizeof *l);

	*m = (struct member){.g = &g, .number = (uint64_t)member_count, .line = l, .next = g.members};
	*l = (struct line){.g = &g, .member = m, .refs = 1, .up = 1, .small = 4, .small_bytes = 64, .free_slots = 15};
	atomic_flag_clear(&l->harvesting);
	gleaner_enter(&g);
	g.members = m;
	pool_pump(&g);
	gleaner_leave(&g);
	return l;
}

/* ends ends the request in flight, and the connection when that is gone. */
static void ends(struct line *l, uint32_t status, uint32_t signal, const char *why) {
	struct member *m = l->member;

	next.status = status;
	next.signal = signal;
	words = why;
	pool_harvest(l, 0);
	if (status < GF_GONE) return;
	gleaner_enter(&g);
	m->line = NULL;
	pool_put(l);
	gleaner_leave(&g);
}

static void begin(void) {
	static uint8_t args[4] = "abc", out[4];

	memset(&g, 0, sizeof g);
	pthread_mutex_init(&g.mu, NULL);
	pthread_cond_init(&g.joined, NULL);
	g.depth = 2;
	member_count = sent = closed = 0;
	call = (gleaner_call){.g = &g, .args = args, .size = 4, .result = out, .room = 4};
	g.calls = &call;
	gleaner_enter(&g);
	pool_queue(&g, &call, 0);
	pool_pump(&g);
	gleaner_leave(&g);
}

static int is(int state) { return atomic_load(&call.state) == state; }

/* over ends what is left of a story. */
static void over(void) {
	for (struct member *m = g.members; m != NULL; m = m->next) {
		if (m->line == NULL) continue;
		gleaner_enter(&g);
		pool_put(m->line);
		gleaner_leave(&g);
	}
	ok(closed == member_count, "  every connection is closed");
}

static void succeeds(void) {
	begin();
	ok(is(CALL_QUEUED), "a call waits for an executor");
	struct line *l = arrive();
	ok(is(CALL_FLYING) && sent == 1 && memcmp(request[0], "abc", 4) == 0, "and is sent when one comes");
	memcpy(result[0], "xyz", 4);
	ends(l, GF_OK, 0, "");
	ok(is(CALL_DONE) && call.status == GLEANER_OK && memcmp(call.result, "xyz", 4) == 0 && call.runs == 1 && g.ok == 1, "its result is the caller's");
	ok(l->free_slots == 15 && atomic_load(&l->flying) == 0 && l->refs == 1, "the slot is free again");
	over();
}

static void evictions_are_free(void) {
	begin();
	for (int i = 0; i < 50; i++) ends(arrive(), GF_GONE_BEGAN, 0, "evicted: job 12 needed cores 0-3");
	ok(is(CALL_QUEUED) && call.runs == 50 && call.failures == 0, "fifty evictions, and it still waits");
	ends(arrive(), GF_GONE, 0, "");
	ok(is(CALL_QUEUED) && call.runs == 50, "what never began is no run");
	over();
}

static void losses_count(void) {
	begin();
	for (int i = 0; i < MAX_FAILURES - 1; i++) ends(arrive(), GF_GONE_BEGAN, 0, "connection lost");
	ok(is(CALL_QUEUED) && call.failures == MAX_FAILURES - 1, "losses are held against a call");
	gleaner_enter(&g);
	for (uint64_t n = 1; n < 10; n++) pool_excuse(&g, n);
	gleaner_leave(&g);
	ok(call.failures == MAX_FAILURES - 10 && call.charged == call.failures, "but not those that turn out to be evictions");
	for (int i = 0; i < 10; i++) ends(arrive(), GF_GONE_BEGAN, 0, "connection lost");
	ok(is(CALL_DONE) && call.status == GLEANER_LOST && strstr(call.detail, "connection lost") != NULL, "twenty are too many");
	over();
}

static void kills_are_held(void) {
	begin();
	struct line *l = arrive();
	ends(l, GF_CRASHED, SIGKILL, "");
	ends(l, GF_CRASHED, SIGKILL, "");
	ok(is(CALL_FLYING) && sent == 3, "a killed function runs again");
	ends(l, GF_CRASHED, SIGKILL, "");
	ok(is(CALL_HELD) && g.helds == 1, "the third kill waits for an explanation");
	gleaner_enter(&g);
	now = call.held_until - 1;
	ok(pool_judge_held(&g) == call.held_until && is(CALL_HELD), "as long as it may");
	pool_excuse(&g, l->member->number);
	pool_pump(&g);
	gleaner_leave(&g);
	ok(is(CALL_FLYING) && g.helds == 0 && call.kills == 0, "an eviction explains all three");
	for (int i = 0; i < 3; i++) ends(l, GF_CRASHED, SIGKILL, "");
	now = call.held_until;
	gleaner_enter(&g);
	ok(pool_judge_held(&g) == 0 && is(CALL_DONE) && call.status == GLEANER_CRASHED, "without one the function is to blame");
	gleaner_leave(&g);
	over();
}

static void functions_fail_at_once(void) {
	begin();
	ends(arrive(), GF_CRASHED, SIGSEGV, "at address 8");
	ok(is(CALL_DONE) && call.status == GLEANER_CRASHED && strstr(call.detail, "signal 11") != NULL && strstr(call.detail, "address 8") != NULL, "a crash is final");
	over();
	begin();
	struct line *l = arrive();
	gleaner_enter(&g);
	pool_fail(&g, GLEANER_ENDED, "job ended");
	gleaner_leave(&g);
	ok(is(CALL_FLYING), "the lease's end leaves what runs alone");
	ends(l, GF_GONE_BEGAN, 0, "evicted: over");
	ok(is(CALL_DONE) && call.status == GLEANER_ENDED && strcmp(call.detail, "job ended") == 0, "until it is interrupted");
	over();
}

static void depth_and_choice(void) {
	gleaner_call more[5];
	static uint8_t out[5][4];

	begin();
	struct line *first = arrive(), *second = arrive();
	for (int i = 0; i < 5; i++) {
		more[i] = (gleaner_call){.g = &g, .args = call.args, .size = 4, .result = out[i], .room = 4};
		gleaner_enter(&g);
		pool_queue(&g, &more[i], 0);
		pool_pump(&g);
		gleaner_leave(&g);
	}
	ok(sent == 4 && atomic_load(&first->flying) == 2 && atomic_load(&second->flying) == 2, "calls go to the least loaded, two at a time");
	ok(g.first == &more[3] && g.last == &more[4], "the others wait in their order");
	gleaner_enter(&g);
	pool_unqueue(&g, &more[4]);
	ok(g.first == &more[3] && g.last == &more[3], "one that is given up leaves the queue");
	gleaner_leave(&g);
	for (int i = 0; i < 5; i++) {
		struct line *l = atomic_load(&first->flying) > 0 ? first : second;
		for (uint32_t s = 0; s < 4; s++) {
			if (l->calls[s] != NULL) next = (struct gf_completion){.slot = s, .size = 4};
		}
		ends(l, GF_OK, 0, "");
	}
	ok(g.ok == 5 && g.first == NULL, "and all end");
	over();
}

int main(void) {
	succeeds();
	evictions_are_free();
	losses_count();
	kills_are_held();
	functions_fail_at_once();
	depth_and_choice();
	return tap_end();
}
