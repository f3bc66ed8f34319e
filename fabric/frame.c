#include "frame.h"

#include "fields.h"

static void decode_accept(struct gf_frame *f, struct gf_reader *r) {
	f->carrier = (uint32_t)gf_read_number(r, 2);
	f->need_code = (uint32_t)gf_read_number(r, 2);
	f->slots = (uint32_t)gf_read_number(r, 4);
	f->connection = (uint32_t)gf_read_number(r, 4);
	f->buffer_bytes = gf_read_number(r, 8);
	f->cookie = gf_read_number(r, 8);
	gf_read_text(r, f->provider, sizeof f->provider);
	if ((f->carrier != GF_RING && f->carrier != GF_OFI) || f->slots < 1 || f->slots > GF_MAX_SLOTS) r->bad = 1;
}

static void decode_body(struct gf_frame *f, struct gf_reader *r) {
	switch (f->type) {
	case GF_ACCEPT:
		decode_accept(f, r);
		break;
	case GF_FAILED:
	case GF_REFUSED:
		f->code = (uint32_t)gf_read_number(r, 4);
		f->signal = (uint32_t)gf_read_number(r, 4);
		gf_read_text(r, f->text, sizeof f->text);
		break;
	case GF_ATTACHED:
		f->key = gf_read_number(r, 8);
		f->base = gf_read_number(r, 8);
		f->address_bytes = gf_read_field(r, f->address, sizeof f->address);
		break;
	case GF_CRASHED_NOTICE:
		f->seq = gf_read_number(r, 8);
		f->begun = gf_read_number(r, 8);
		f->code = (uint32_t)gf_read_number(r, 4);
		f->signal = (uint32_t)gf_read_number(r, 4);
		gf_read_text(r, f->text, sizeof f->text);
		break;
	case GF_REVOKED:
		f->begun = gf_read_number(r, 8);
		gf_read_text(r, f->text, sizeof f->text);
		break;
	case GF_GOODBYE:
		gf_read_text(r, f->text, sizeof f->text);
		break;
	case GF_RESTARTED:
		break;
	default:
		r->bad = 1;
	}
}

long gf_frame_decode(struct gf_frame *f, const uint8_t *in, size_t n) {
	struct gf_reader r;
	uint32_t type = 0;
	long whole = gf_read_head(&r, &type, in, n, GF_FRAME_MAX);

	if (whole <= 0) return whole;
	memset(f, 0, sizeof *f);
	f->type = type;
	decode_body(f, &r);
	return r.bad || r.left != 0 ? -1 : whole;
}

static struct gf_writer begin(uint8_t *out, size_t n) {
	struct gf_writer w = {.p = out, .cap = n};
	gf_write_head(&w, 0, 0);
	return w;
}

static long finish(struct gf_writer *w, uint32_t type) {
	struct gf_writer head = {.p = w->p, .cap = GF_FRAME_HEAD};

	if (w->bad || w->n - GF_FRAME_HEAD > GF_FRAME_MAX) return -1;
	gf_write_head(&head, type, w->n - GF_FRAME_HEAD);
	return (long)w->n;
}

long gf_frame_hello(uint8_t *out, size_t n, const struct gf_hello *h) {
	struct gf_writer w = begin(out, n);

	if (h->token_bytes > GF_TOKEN_MAX || strlen(h->symbol) > GF_SYMBOL_MAX) return -1;
	gf_write_number(&w, GF_FRAME_MAGIC, 4);
	gf_write_number(&w, GF_VERSION, 2);
	gf_write_number(&w, h->carriers, 2);
	gf_write_number(&w, h->buffer_bytes, 8);
	gf_write_number(&w, h->slots, 4);
	gf_write_number(&w, (uint64_t)h->spin_ns, 8);
	gf_write_bytes(&w, h->digest, 32);
	gf_write_field(&w, h->token, h->token_bytes);
	gf_write_field(&w, h->symbol, strlen(h->symbol));
	gf_write_field(&w, h->provider, strlen(h->provider));
	return finish(&w, GF_HELLO);
}

long gf_frame_attach(uint8_t *out, size_t n, const uint8_t *address, uint32_t address_bytes, uint64_t key, uint64_t base) {
	struct gf_writer w = begin(out, n);

	gf_write_number(&w, key, 8);
	gf_write_number(&w, base, 8);
	gf_write_field(&w, address, address_bytes);
	return finish(&w, GF_ATTACH);
}

void gf_frame_code_head(uint8_t out[GF_FRAME_HEAD], uint32_t size) {
	struct gf_writer w = {.p = out, .cap = GF_FRAME_HEAD};

	gf_write_head(&w, GF_CODE, size);
}
