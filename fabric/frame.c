#include "frame.h"

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

/* field reads a 16-bit length and so many bytes; more than the field holds is malformed. */
static uint32_t field(struct reader *r, void *to, size_t cap) {
	size_t n = number(r, 2);

	if (r->bad || n > r->left || n > cap) {
		r->bad = 1;
		return 0;
	}
	memcpy(to, r->p, n);
	r->p += n;
	r->left -= n;
	return (uint32_t)n;
}

static void text(struct reader *r, char *to, size_t cap) { to[field(r, to, cap - 1)] = 0; }

static void decode_accept(struct gf_frame *f, struct reader *r) {
	f->carrier = (uint32_t)number(r, 2);
	f->need_code = (uint32_t)number(r, 2);
	f->slots = (uint32_t)number(r, 4);
	f->connection = (uint32_t)number(r, 4);
	f->buffer_bytes = number(r, 8);
	f->cookie = number(r, 8);
	text(r, f->provider, sizeof f->provider);
	if ((f->carrier != GF_RING && f->carrier != GF_OFI) || f->slots < 1 || f->slots > GF_MAX_SLOTS) r->bad = 1;
}

static void decode_body(struct gf_frame *f, struct reader *r) {
	switch (f->type) {
	case GF_ACCEPT:
		decode_accept(f, r);
		break;
	case GF_FAILED:
	case GF_REFUSED:
		f->code = (uint32_t)number(r, 4);
		f->signal = (uint32_t)number(r, 4);
		text(r, f->text, sizeof f->text);
		break;
	case GF_ATTACHED:
		f->key = number(r, 8);
		f->base = number(r, 8);
		f->address_bytes = field(r, f->address, sizeof f->address);
		break;
	case GF_CRASHED_NOTICE:
		f->seq = number(r, 8);
		f->begun = number(r, 8);
		f->code = (uint32_t)number(r, 4);
		f->signal = (uint32_t)number(r, 4);
		text(r, f->text, sizeof f->text);
		break;
	case GF_REVOKED:
		f->begun = number(r, 8);
		text(r, f->text, sizeof f->text);
		break;
	case GF_GOODBYE:
		text(r, f->text, sizeof f->text);
		break;
	case GF_RESTARTED:
		break;
	default:
		r->bad = 1;
	}
}

long gf_frame_decode(struct gf_frame *f, const uint8_t *in, size_t n) {
	struct reader r = {.p = in, .left = n};
	uint64_t size;

	if (n < GF_FRAME_HEAD) return 0;
	memset(f, 0, sizeof *f);
	size = number(&r, 4);
	f->type = (uint32_t)number(&r, 2);
	if (size > GF_FRAME_MAX || number(&r, 2) != 0) return -1;
	if (r.left < size) return 0;
	r.left = size;
	decode_body(f, &r);
	return r.bad || r.left != 0 ? -1 : (long)(GF_FRAME_HEAD + size);
}

struct writer {
	uint8_t *p;
	size_t n, cap;
	int bad;
};

static void bytes(struct writer *w, const void *from, size_t n) {
	if (w->cap - w->n < n) {
		w->bad = 1;
		return;
	}
	if (n > 0) memcpy(w->p + w->n, from, n);
	w->n += n;
}

static void put(struct writer *w, uint64_t v, size_t count) {
	uint8_t b[8];

	for (size_t i = 0; i < count; i++) b[i] = (uint8_t)(v >> (8 * i));
	bytes(w, b, count);
}

static void put_field(struct writer *w, const void *from, size_t n) {
	if (n > UINT16_MAX) w->bad = 1;
	put(w, n, 2);
	bytes(w, from, n);
}

static struct writer begin(uint8_t *out, size_t n) {
	struct writer w = {.p = out, .cap = n};
	put(&w, 0, GF_FRAME_HEAD);
	return w;
}

static long finish(struct writer *w, uint32_t type) {
	struct writer head = {.p = w->p, .cap = GF_FRAME_HEAD};

	if (w->bad || w->n - GF_FRAME_HEAD > GF_FRAME_MAX) return -1;
	put(&head, w->n - GF_FRAME_HEAD, 4);
	put(&head, type, 2);
	put(&head, 0, 2);
	return (long)w->n;
}

long gf_frame_hello(uint8_t *out, size_t n, const struct gf_hello *h) {
	struct writer w = begin(out, n);

	if (h->token_bytes > GF_TOKEN_MAX || strlen(h->symbol) > GF_SYMBOL_MAX) return -1;
	put(&w, GF_FRAME_MAGIC, 4);
	put(&w, GF_VERSION, 2);
	put(&w, h->carriers, 2);
	put(&w, h->buffer_bytes, 8);
	put(&w, h->slots, 4);
	put(&w, (uint64_t)h->spin_ns, 8);
	bytes(&w, h->digest, 32);
	put_field(&w, h->token, h->token_bytes);
	put_field(&w, h->symbol, strlen(h->symbol));
	put_field(&w, h->provider, strlen(h->provider));
	return finish(&w, GF_HELLO);
}

long gf_frame_attach(uint8_t *out, size_t n, const uint8_t *address, uint32_t address_bytes, uint64_t key, uint64_t base) {
	struct writer w = begin(out, n);

	put(&w, key, 8);
	put(&w, base, 8);
	put_field(&w, address, address_bytes);
	return finish(&w, GF_ATTACH);
}

void gf_frame_code_head(uint8_t out[GF_FRAME_HEAD], uint32_t size) {
	struct writer w = {.p = out, .cap = GF_FRAME_HEAD};

	put(&w, size, 4);
	put(&w, GF_CODE, 2);
	put(&w, 0, 2);
}
