/* Frames of the control connection between client and executor (layout: package documentation of fabric). Pure. */
#ifndef GLEANER_FRAME_H
#define GLEANER_FRAME_H

#include <stddef.h>
#include <stdint.h>

#include "wire.h"

enum gf_frame_type {
	GF_HELLO = 1,
	GF_ACCEPT = 2,
	GF_REFUSED = 3,
	GF_CODE = 4,
	GF_ATTACH = 5,
	GF_ATTACHED = 6,
	GF_CRASHED_NOTICE = 7,
	GF_RESTARTED = 8,
	GF_REVOKED = 9,
	GF_GOODBYE = 10,
	GF_FAILED = 11
};

enum {
	GF_VERSION = 2,
	GF_FRAME_MAGIC = 0x524e4c47, /* "GLNR" */
	GF_FRAME_HEAD = 8,
	GF_FRAME_MAX = 4096, /* body of every frame but GF_CODE */
	GF_TOKEN_MAX = 512,
	GF_SYMBOL_MAX = 255
};

/* What an executor says, decoded. Strings are cut to their fields and end in 0. */
struct gf_frame {
	uint32_t type;
	uint32_t carrier, need_code, slots, connection; /* ACCEPT */
	uint64_t buffer_bytes, cookie;                  /* ACCEPT */
	char provider[64];                              /* ACCEPT */
	uint32_t code;                                  /* REFUSED: refusal; FAILED and CRASHED: enum gf_status */
	uint32_t signal;                                /* CRASHED, FAILED */
	uint64_t seq, begun;                            /* CRASHED, REVOKED */
	uint64_t key, base;                             /* ATTACHED */
	uint32_t address_bytes;                         /* ATTACHED */
	uint8_t address[GF_ADDRESS_BYTES];
	char text[GF_TEXT_BYTES];
};

struct gf_hello {
	uint32_t carriers; /* bit set of enum gf_carrier */
	uint64_t buffer_bytes;
	uint32_t slots;
	int64_t spin_ns;
	const uint8_t *token;
	uint32_t token_bytes;
	const uint8_t *digest; /* 32 bytes */
	const char *symbol;
	const char *provider;
};

/* gf_frame_decode reads one frame from the n bytes at in: its length with head when whole, 0 when more bytes are needed, -1 when malformed. */
long gf_frame_decode(struct gf_frame *f, const uint8_t *in, size_t n);

/* The encoders return the frame's length with head, or -1 when it does not fit. */
long gf_frame_hello(uint8_t *out, size_t n, const struct gf_hello *h);
long gf_frame_attach(uint8_t *out, size_t n, const uint8_t *address, uint32_t address_bytes, uint64_t key, uint64_t base);
void gf_frame_code_head(uint8_t out[GF_FRAME_HEAD], uint32_t bytes);

#endif
