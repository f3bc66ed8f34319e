#include "shareframe.h"

#include "../../fabric/fields.h"

static void lease(struct share_frame *f, struct gf_reader *r) {
	if (gf_read_number(r, 4) != SHARE_MAGIC || gf_read_number(r, 2) != SHARE_VERSION || gf_read_number(r, 2) != 0) r->bad = 1;
	f->lease = gf_read_number(r, 8);
	f->buffer_bytes = gf_read_number(r, 8);
	f->timeout_ns = (int64_t)gf_read_number(r, 8);
	f->wanted = (uint32_t)gf_read_number(r, 4);
	f->code_bytes = gf_read_number(r, 8);
	gf_read_bytes(r, f->digest, sizeof f->digest);
	gf_read_text(r, f->symbol, sizeof f->symbol);
	if (f->buffer_bytes < 1 || f->buffer_bytes > UINT32_MAX || f->timeout_ns < 0 || f->code_bytes < 1) r->bad = 1;
}

static void ready(struct share_frame *f, struct gf_reader *r) {
	f->executor = gf_read_number(r, 8);
	gf_read_text(r, f->id, sizeof f->id);
	gf_read_text(r, f->node, sizeof f->node);
	gf_read_text(r, f->address, sizeof f->address);
	gf_read_text(r, f->local, sizeof f->local);
	f->token_bytes = gf_read_field(r, f->token, sizeof f->token);
}

long share_decode(struct share_frame *f, const uint8_t *in, size_t n) {
	struct gf_reader r;
	uint32_t type = 0;
	long whole = gf_read_head(&r, &type, in, n, SHARE_MAX);

	if (whole <= 0) return whole;
	memset(f, 0, sizeof *f);
	f->type = type;
	switch (f->type) {
	case SHARE_LEASE:
		lease(f, &r);
		break;
	case SHARE_READY:
		ready(f, &r);
		break;
	case SHARE_GONE:
		f->executor = gf_read_number(&r, 8);
		f->blame = (uint32_t)gf_read_number(&r, 4);
		gf_read_text(&r, f->text, sizeof f->text);
		break;
	case SHARE_ENDED:
		f->reason = (uint32_t)gf_read_number(&r, 4);
		gf_read_text(&r, f->text, sizeof f->text);
		break;
	default:
		return -1;
	}
	return r.bad || r.left != 0 ? -1 : whole;
}

static struct gf_writer begin(uint8_t *out, uint32_t type, uint32_t size) {
	struct gf_writer w = {.p = out, .cap = SHARE_OUT};

	gf_write_head(&w, type, size);
	return w;
}

size_t share_hello(uint8_t out[SHARE_OUT]) {
	struct gf_writer w = begin(out, SHARE_HELLO, 8);

	gf_write_number(&w, SHARE_MAGIC, 4);
	gf_write_number(&w, SHARE_VERSION, 2);
	gf_write_number(&w, 0, 2);
	return w.n;
}

size_t share_refresh(uint8_t out[SHARE_OUT], uint64_t executor) {
	struct gf_writer w = begin(out, SHARE_REFRESH, 8);

	gf_write_number(&w, executor, 8);
	return w.n;
}

size_t share_counts(uint8_t out[SHARE_OUT], uint64_t ok, uint64_t failed, uint64_t retried) {
	struct gf_writer w = begin(out, SHARE_COUNTS, 24);

	gf_write_number(&w, ok, 8);
	gf_write_number(&w, failed, 8);
	gf_write_number(&w, retried, 8);
	return w.n;
}
