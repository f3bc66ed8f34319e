/* Frames between libgleaner and gleaner run (layout: package documentation of client/share). Pure. */
#ifndef GLEANER_SHAREFRAME_H
#define GLEANER_SHAREFRAME_H

#include <stddef.h>
#include <stdint.h>

enum share_type {
	SHARE_LEASE = 1,
	SHARE_READY = 2,
	SHARE_GONE = 3,
	SHARE_ENDED = 4,
	SHARE_HELLO = 16,
	SHARE_REFRESH = 17,
	SHARE_COUNTS = 18
};

enum {
	SHARE_VERSION = 1,
	SHARE_MAGIC = 0x48534c47, /* "GLSH" */
	SHARE_HEAD = 8,
	SHARE_MAX = 4096, /* body */
	SHARE_TEXT = 512,
	SHARE_TOKEN = 512,
	SHARE_PATH = 256
};

/* What gleaner run says, decoded. Strings are whole and end in 0. */
struct share_frame {
	uint32_t type;
	uint64_t lease, buffer_bytes, code_bytes; /* LEASE */
	int64_t timeout_ns;                       /* LEASE */
	uint32_t wanted;                          /* LEASE */
	uint8_t digest[32];                       /* LEASE */
	char symbol[SHARE_PATH];                  /* LEASE */
	uint64_t executor;                        /* READY, GONE */
	uint32_t blame;                           /* GONE: the executor itself failed */
	uint32_t reason;                          /* ENDED */
	uint32_t token_bytes;                     /* READY */
	uint8_t token[SHARE_TOKEN];
	char address[SHARE_PATH], local[SHARE_PATH], node[SHARE_PATH], id[SHARE_PATH]; /* READY */
	char text[SHARE_TEXT];                                                         /* GONE, ENDED */
};

/* share_decode reads one frame from n bytes: its length with head, 0 when more bytes are needed, -1 when malformed. */
long share_decode(struct share_frame *f, const uint8_t *in, size_t n);

/* The encoders fill out and return the frame's length. */
enum { SHARE_OUT = 64 };
size_t share_hello(uint8_t out[SHARE_OUT]);
size_t share_refresh(uint8_t out[SHARE_OUT], uint64_t executor);
size_t share_counts(uint8_t out[SHARE_OUT], uint64_t ok, uint64_t failed, uint64_t retried);

#endif
