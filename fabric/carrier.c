/* The client's two carriers: posting requests and harvesting replies. */
#include "conn.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void gf_complete(struct gf_conn *c, uint32_t slot, uint32_t size, uint32_t status, uint32_t signal) {
	struct slot *s = &c->slots[slot];

	if (s->stage == STAGE_FREE) return;
	if (s->stage != STAGE_SENT && c->unsent > 0) c->unsent--;
	s->stage = STAGE_FREE;
	c->done[c->done_count++] = (struct gf_completion){.seq = s->seq, .slot = slot, .size = size, .status = status, .signal = signal};
}

static void post_ring(struct gf_conn *c, uint32_t slot) {
	struct slot *s = &c->slots[slot];
	struct gf_desc d = {.seq = s->seq, .slot = slot, .size = s->size, .cap = s->cap, .timeout = s->timeout};
	uint64_t one = 1;

	gf_ring_push(&c->requests, &d);
	s->stage = STAGE_SENT;
	if (gf_ring_must_wake(&c->shared->worker_sleeps) && write(c->worker_wake, &one, sizeof one) < 0) return;
}

/* note remembers the first error of the carrier; the executor's notice about it, if any, comes on the control connection. */
static void note(struct gf_conn *c) {
	if (c->failed_at == 0) c->failed_at = gf_now();
}

/* send_ofi sends what lies in the slot, its message before it: as one write with a doorbell, or as a message with a write before it
 * when the payload is large. */
static int send_ofi(struct gf_conn *c, uint32_t slot, const struct gf_message *m) {
	struct slot *s = &c->slots[slot];
	uint64_t place = gf_layout_place(&c->layout, slot).request, head = place - sizeof *m;
	struct gf_ofi_piece all = {.from = &c->memory, .offset = head, .bytes = sizeof *m + s->size, .to = c->peer_base + head, .key = c->peer_key};
	struct gf_ofi_piece bulk = {.from = &c->memory, .offset = place, .bytes = s->size, .to = c->peer_base + place, .key = c->peer_key};
	int is_inline = (m->flags & GF_MESSAGE_INLINE) != 0, rc;

	if ((m->flags & GF_MESSAGE_BELL) != 0 && s->stage == STAGE_PENDING && s->size <= GF_BELL_BYTES) return gf_ofi_ring(c->ofi, c->peer, &all, gf_bell_pack(c->connection, slot, c->cookie));
	if (s->stage == STAGE_PENDING && !is_inline) {
		rc = gf_ofi_write(c->ofi, c->peer, &bulk);
		if (rc != 0) return rc;
		s->stage = STAGE_WRITTEN;
	}
	return gf_ofi_send(c->ofi, c->peer, &c->memory, head, sizeof *m + (is_inline ? s->size : 0));
}

static void post_ofi(struct gf_conn *c, uint32_t slot) {
	struct slot *s = &c->slots[slot];
	struct gf_message m = {.cookie = c->cookie, .seq = s->seq, .connection = c->connection, .slot = slot, .size = s->size,
		.cap = s->cap, .flags = s->size <= GF_INLINE_BYTES ? GF_MESSAGE_INLINE : 0, .timeout = s->timeout};
	int rc;

	if (c->bells) m.flags |= GF_MESSAGE_BELL;
	memcpy(gf_request(c, slot) - sizeof m, &m, sizeof m);
	rc = send_ofi(c, slot, &m);
	if (rc < 0) note(c);
	if (rc == 0) s->stage = STAGE_SENT;
}

void gf_carrier_post(struct gf_conn *c, uint32_t slot) {
	struct slot *s = &c->slots[slot];

	if (c->carrier == GF_RING) {
		post_ring(c, slot);
	} else {
		post_ofi(c, slot);
	}
	if (s->stage == STAGE_SENT) c->unsent--;
}

/* resend posts what is waiting, oldest first, and stops at the first that the carrier cannot take. */
void gf_carrier_resend(struct gf_conn *c) {
	while (c->up && c->unsent > 0) {
		int oldest = -1;
		for (uint32_t i = 0; i < gf_layout_total(&c->layout); i++) {
			struct slot *s = &c->slots[i];
			if (s->stage != STAGE_PENDING && s->stage != STAGE_WRITTEN) continue;
			if (oldest < 0 || s->seq < c->slots[oldest].seq) oldest = (int)i;
		}
		if (oldest < 0) return;
		gf_carrier_post(c, (uint32_t)oldest);
		if (c->slots[oldest].stage != STAGE_SENT) return;
	}
}

/* expected says whether a reply belongs to a request in flight; what it claims is checked against what was asked. */
static int expected(struct gf_conn *c, uint32_t slot, uint64_t seq) {
	return slot < gf_layout_total(&c->layout) && c->slots[slot].stage == STAGE_SENT && c->slots[slot].seq == seq;
}

static void reply(struct gf_conn *c, uint32_t slot, uint32_t size, uint32_t status) {
	struct slot *s = &c->slots[slot];

	s->detail[0] = 0;
	if (status == GF_OK && size > s->cap) status = GF_TOO_LARGE;
	if (status == GF_TOO_LARGE) snprintf(s->detail, sizeof s->detail, "%u bytes returned, room for %u", size, s->cap);
	gf_complete(c, slot, size, status, 0);
}

static void poll_ring(struct gf_conn *c) {
	struct gf_desc d;

	while (gf_ring_pop(&c->replies, &d)) {
		if (expected(c, d.slot, d.seq)) reply(c, d.slot, d.size, d.status);
	}
}

static void take_message(struct gf_conn *c, const struct gf_ofi_received *r) {
	const struct gf_message *m = &r->message;
	int bulk = (m->flags & GF_MESSAGE_INLINE) == 0;

	if (m->cookie != c->cookie || !expected(c, m->slot, m->seq) || (!bulk && m->status == GF_OK && m->size != r->payload_bytes)) return;
	if (!bulk && m->status == GF_OK && m->size <= c->slots[m->slot].cap) memcpy(gf_result(c, m->slot), r->payload, m->size);
	reply(c, m->slot, m->size, m->status);
}

/* take_bell believes a copy of the message that has been written, not the doorbell. */
static void take_bell(struct gf_conn *c, uint32_t data) {
	struct gf_bell b = gf_bell_unpack(data);
	struct gf_message m;

	if (b.tag != gf_bell_tag(c->cookie)) return;
	if (b.slot == GF_BELL_TRIAL) {
		memcpy(&m, c->arena + sizeof m, sizeof m);
		if (m.cookie == c->cookie && gf_ofi_rings(c->ofi)) c->bells = 1;
	}
	if (b.slot >= gf_layout_total(&c->layout)) return;
	memcpy(&m, gf_result(c, b.slot) - sizeof m, sizeof m);
	if (m.cookie == c->cookie && m.slot == b.slot && expected(c, m.slot, m.seq)) reply(c, m.slot, m.size, m.status);
}

static void poll_ofi(struct gf_conn *c) {
	struct gf_ofi_received r;
	int rc;

	/* Progress is made once: with most providers it is a system call, which would delay what has come. */
	for (rc = gf_ofi_poll(c->ofi, &r); rc == 1; rc = gf_ofi_waiting(c->ofi) ? gf_ofi_poll(c->ofi, &r) : 0) {
		if (r.is_bell) {
			take_bell(c, r.bell);
		} else {
			take_message(c, &r);
		}
		gf_ofi_done(c->ofi, &r);
	}
	if (rc < 0) note(c);
}

/* ring_trial repeats itself with each poll until the carrier, which may be connecting still, takes or refuses the doorbell. */
static void ring_trial(struct gf_conn *c) {
	struct gf_ofi_piece p = {.from = &c->memory, .bytes = sizeof(struct gf_message), .to = c->peer_base, .key = c->peer_key};

	if (c->untried) c->untried = gf_ofi_ring(c->ofi, c->peer, &p, gf_bell_pack(c->connection, GF_BELL_TRIAL, c->cookie)) == 1;
}

/* Until the answer comes, messages do. A provider that refuses outright or delivers nothing keeps to them. */
void gf_carrier_try(struct gf_conn *c) {
	const char *forced = getenv("GLEANER_DOORBELL");
	struct gf_message m = {.cookie = c->cookie, .connection = c->connection, .slot = GF_BELL_TRIAL};

	c->bells = c->untried = 0;
	if (c->carrier != GF_OFI || (forced != NULL && strcmp(forced, "message") == 0)) return;
	if (forced != NULL && strcmp(forced, "write") == 0) {
		c->bells = 1;
		return;
	}
	memcpy(c->arena, &m, sizeof m);
	memset(c->arena + sizeof m, 0, sizeof m);
	c->untried = gf_ofi_rings(c->ofi);
	ring_trial(c);
}

void gf_carrier_poll(struct gf_conn *c) {
	if (!c->up) return;
	if (c->carrier == GF_RING) {
		poll_ring(c);
	} else {
		poll_ofi(c);
		if (c->untried) ring_trial(c);
	}
	if (c->unsent > 0) gf_carrier_resend(c);
}

static int open_ofi(struct gf_conn *c, uint8_t *address, uint32_t *address_bytes, char *why, size_t n) {
	struct gf_ofi_options o = {.provider = c->provider, .host = c->host, .depth = 2 * gf_layout_total(&c->layout), .bells = gf_layout_total(&c->layout) + 1};

	if (gf_ofi_open(&c->ofi, &o, why, n) != 0) return -1;
	if (gf_ofi_register(c->ofi, &c->memory, c->arena, gf_layout_bytes(&c->layout), why, n) != 0) return -1;
	return gf_ofi_name(c->ofi, address, address_bytes, why, n);
}

/* clear makes a ring's memory new; not by memset, as idle reads in it without the lock. What else an entry holds is written before its
 * stamp, and read after it. */
static void clear(struct gf_shared *s) {
	atomic_store(&s->worker_sleeps, 0);
	atomic_store(&s->client_sleeps, 0);
	atomic_store(&s->begun, 0);
	for (int i = 0; i < GF_RING_ENTRIES; i++) {
		atomic_store_explicit(&s->request[i].stamp, 0, memory_order_relaxed);
		atomic_store_explicit(&s->reply[i].stamp, 0, memory_order_relaxed);
	}
}

int gf_carrier_open(struct gf_conn *c, uint8_t *address, uint32_t *address_bytes, char *why, size_t n) {
	*address_bytes = 0;
	c->failed_at = 0;
	if (c->carrier == GF_OFI) return open_ofi(c, address, address_bytes, why, n);
	clear(c->shared);
	c->requests = (struct gf_ring){.entries = c->shared->request};
	c->replies = (struct gf_ring){.entries = c->shared->reply};
	return 0;
}

void gf_carrier_close(struct gf_conn *c) {
	if (c->ofi == NULL) return;
	gf_ofi_shut(c->ofi); /* first: with a dead peer there are operations under way, which use the memory until then */
	gf_ofi_unregister(&c->memory);
	gf_ofi_close(c->ofi);
	c->ofi = NULL;
}
