/*
 * The frame that gate and hook exchange with the agent: the C side of Go's package api/gate, which documents the layout. Both are
 * held to the byte vectors in api/gate/testdata.
 */
#ifndef GLEANER_FRAME_H
#define GLEANER_FRAME_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
	GL_FRAME_HEADER = 52,
	GL_FRAME_MAX = 8192,
};

enum gl_kind {
	GL_CLAIM = 1,
	GL_WARN = 2,
	GL_RELEASE = 3,
	GL_PING = 4,
	GL_ACK = 16,
	GL_DONE = 17,
	GL_FAILED = 18,
};

enum {
	GL_FLAG_BLUNT = 4,
	GL_FLAG_SHARE_YES = 8,
	GL_FLAG_SHARE_NO = 16,
	GL_FLAG_QUIET = 32,
};

#define GL_MEMORY_UNKNOWN UINT64_MAX
#define GL_STEP_NONE 0xfffffffeU /* Prolog and Epilog belong to no step */

/* A list of a frame: bytes without terminator, borrowed from whoever made it. */
struct gl_text {
	const char *at;
	size_t len;
};

struct gl_frame {
	uint16_t kind;
	uint16_t flags;
	uint32_t job;
	uint32_t step;
	uint32_t uid;
	uint64_t mib;
	uint64_t nanos;
	uint32_t evicted;
	struct gl_text cores;
	struct gl_text gpus;
	struct gl_text node;
};

/* A gl_text of a C string, which has to outlive it; NULL is the empty list. */
struct gl_text gl_text(const char *s);

/* Writes f into buf and returns its length, or 0 when it does not fit into cap or into GL_FRAME_MAX. */
size_t gl_frame_encode(const struct gl_frame *f, uint8_t *buf, size_t cap);

/* Reads the frame at the start of buf. Returns its length, 0 when more bytes are needed, -1 when it is malformed.
 * The lists of f point into buf. */
ssize_t gl_frame_decode(const uint8_t *buf, size_t len, struct gl_frame *f);

#endif
