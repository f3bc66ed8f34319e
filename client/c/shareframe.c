#include "shareframe.h"

#include <string.h>

struct reader {
	const uint8_t *p;
	size_t left;
	int bad;
};

static uint64_t number(struct reader *r, size_t bytes) {
	uint64_t v = 0;

	if (r->left < bytes) {
		r->bad = 1;
		return 0;
	}
	for (size_t i = 0; i < bytes; i++) v |= (uint64_t)r->p[i] << (8 * i);
	r->p += bytes;
	r->left -= bytes;
	return v;
}

static void raw(struct reader *r, void *to, size_t n) {
	if (r->left < n) {
		r->bad = 1;
		return;
	}
	memcpy(to, r->p, n);
	r->p += n;
	r->left -= n;
}

/* field reads a 16-bit length and so many bytes; more than cap is malformed. */
static uint32_t field(struct reader *r, void *to, size_t cap) {
	size_t n = number(r, 2);

	if (n > cap) r->bad = 1;
	if (r->bad) return 0;
	raw(r, to, n);
	return r->bad ? 0 : (uint32_t)n;
}

/* text reads a string; one with a zero byte inside is malformed. */
static void text(struct reader *r, char *to, size_t cap) {
	uint32_t n = field(r, to, cap - 1);

	to[n] = 0;
	if (strlen(to) != n) r->bad = 1;
}

static void lease(struct share_frame *f, struct reader *r) {
	if (number(r, 4) != SHARE_MAGIC || number(r, 2) != SHARE_VERSION || number(r, 2) != 0) r->bad = 1;
	f->lease = number(r, 8);
	f->buffer_bytes = number(r, 8);
	f->timeout_ns = (int64_t)number(r, 8);
	f->wanted = (uint32_t)number(r, 4);
	f->code_bytes = number(r, 8);
	raw(r, f->digest, sizeof f->digest);
	text(r, f->symbol, sizeof f->symbol);
	if (f->buffer_bytes < 1 || f->buffer_bytes > UINT32_MAX || f->timeout_ns < 0 || f->code_bytes < 1) r->bad = 1;
}

static void ready(struct share_frame *f, struct reader *r) {
	f->executor = number(r, 8);
	text(r, f->id, sizeof f->id);
	text(r, f->node, sizeof f->node);
	text(r, f->address, sizeof f->address);
	text(r, f->local, sizeof f->local);
	f->token_bytes = field(r, f->token, sizeof f->token);
}

long share_decode(struct share_frame *f, const uint8_t *in, size_t n) {
	struct reader r = {.p = in, .left = n};
	uint64_t size;

	if (n < SHARE_HEAD) return 0;
	memset(f, 0, sizeof *f);
	size = number(&r, 4);
	f->type = (uint32_t)number(&r, 2);
	if (size > SHARE_MAX || number(&r, 2) != 0) return -1;
	if (r.left < size) return 0;
	r.left = size;
	switch (f->type) {
	case SHARE_LEASE:
		lease(f, &r);
		break;
	case SHARE_READY:
		ready(f, &r);
		break;
	case SHARE_GONE:
		f->executor = number(&r, 8);
		f->blame = (uint32_t)number(&r, 4);
		text(&r, f->text, sizeof f->text);
		break;
	case SHARE_ENDED:
		f->reason = (uint32_t)number(&r, 4);
		text(&r, f->text, sizeof f->text);
		break;
	default:
		return -1;
	}
	return r.bad || r.left != 0 ? -1 : (long)(SHARE_HEAD + size);
}

struct writer {
	uint8_t *p;
	size_t n;
};

static void put(struct writer *w, uint64_t v, size_t count) {
	for (size_t i = 0; i < count; i++) w->p[w->n++] = (uint8_t)(v >> (8 * i));
}

static struct writer begin(uint8_t *out, uint32_t type, uint32_t size) {
	struct writer w = {.p = out};

	put(&w, size, 4);
	put(&w, type, 2);
	put(&w, 0, 2);
	return w;
}

size_t share_hello(uint8_t out[SHARE_OUT]) {
	struct writer w = begin(out, SHARE_HELLO, 8);

	put(&w, SHARE_MAGIC, 4);
	put(&w, SHARE_VERSION, 2);
	put(&w, 0, 2);
	return w.n;
}

size_t share_refresh(uint8_t out[SHARE_OUT], uint64_t executor) {
	struct writer w = begin(out, SHARE_REFRESH, 8);

	put(&w, executor, 8);
	return w.n;
}

size_t share_counts(uint8_t out[SHARE_OUT], uint64_t ok, uint64_t failed, uint64_t retried) {
	struct writer w = begin(out, SHARE_COUNTS, 24);

	put(&w, ok, 8);
	put(&w, failed, 8);
	put(&w, retried, 8);
	return w.n;
}
