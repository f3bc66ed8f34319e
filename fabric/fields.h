/* Reading and writing the frames of both protocols in C: little-endian numbers, and fields with a length of 16 bits before them.
 * A frame is u32 size of body, u16 type, u16 zero, and the body. Nothing is read behind what has come, and nothing written
 * behind what there is room for: then bad is set, and stays. Pure. */
#ifndef GLEANER_FIELDS_H
#define GLEANER_FIELDS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { GF_FIELDS_HEAD = 8 };

struct gf_reader {
	const uint8_t *p;
	size_t left;
	int bad;
};

static inline uint64_t gf_read_number(struct gf_reader *r, size_t bytes) {
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

static inline void gf_read_bytes(struct gf_reader *r, void *to, size_t n) {
	if (r->bad || r->left < n) {
		r->bad = 1;
		return;
	}
	if (n > 0) memcpy(to, r->p, n);
	r->p += n;
	r->left -= n;
}

/* gf_read_field returns the field's length; more than cap is bad. */
static inline uint32_t gf_read_field(struct gf_reader *r, void *to, size_t cap) {
	size_t n = gf_read_number(r, 2);

	if (n > cap) r->bad = 1;
	gf_read_bytes(r, to, n);
	return r->bad ? 0 : (uint32_t)n;
}

/* gf_read_text reads a field that ends in 0 afterwards; one with a zero inside is bad. */
static inline void gf_read_text(struct gf_reader *r, char *to, size_t cap) {
	uint32_t n = gf_read_field(r, to, cap - 1);

	to[n] = 0;
	if (strlen(to) != n) r->bad = 1;
}

/* gf_read_head finds the frame at the beginning of n bytes and puts its type and its body, alone, into type and r: its length with
 * head, 0 when more bytes are needed, -1 when it is malformed or its body larger than max. */
static inline long gf_read_head(struct gf_reader *r, uint32_t *type, const uint8_t *in, size_t n, size_t max) {
	uint64_t size;

	*r = (struct gf_reader){.p = in, .left = n};
	if (n < GF_FIELDS_HEAD) return 0;
	size = gf_read_number(r, 4);
	*type = (uint32_t)gf_read_number(r, 2);
	if (size > max || gf_read_number(r, 2) != 0) return -1;
	if (r->left < size) return 0;
	r->left = size;
	return (long)(GF_FIELDS_HEAD + size);
}

struct gf_writer {
	uint8_t *p;
	size_t n, cap;
	int bad;
};

static inline void gf_write_bytes(struct gf_writer *w, const void *from, size_t n) {
	if (w->cap - w->n < n) {
		w->bad = 1;
		return;
	}
	if (n > 0) memcpy(w->p + w->n, from, n);
	w->n += n;
}

static inline void gf_write_number(struct gf_writer *w, uint64_t v, size_t count) {
	uint8_t b[8];

	for (size_t i = 0; i < count; i++) b[i] = (uint8_t)(v >> (8 * i));
	gf_write_bytes(w, b, count);
}

static inline void gf_write_field(struct gf_writer *w, const void *from, size_t n) {
	if (n > UINT16_MAX) w->bad = 1;
	gf_write_number(w, n, 2);
	gf_write_bytes(w, from, n);
}

static inline void gf_write_head(struct gf_writer *w, uint32_t type, uint64_t size) {
	gf_write_number(w, size, 4);
	gf_write_number(w, type, 2);
	gf_write_number(w, 0, 2);
}

#endif
