/*
 * Asking the agent: one frame to its socket, at most two back, every wait bounded by the monotonic clock. It neither kills nor
 * logs: the caller decides by the verdict.
 */
#ifndef GLEANER_ASK_H
#define GLEANER_ASK_H

#include "frame.h"
#include "settings.h"

enum gl_verdict {
	GL_OK,       /* acknowledged or done, as asked for */
	GL_NO_AGENT, /* no socket, or nobody behind it */
	GL_NO_ACK,   /* nobody answered within ack */
	GL_NO_DONE,  /* acknowledged, but not done within deadline */
	GL_REFUSED,  /* the agent says that it could not free everything */
	GL_GARBAGE,  /* the answer is no frame, or the connection broke */
	GL_STRANGER, /* who listens is neither root nor the owner of the socket's folder, or others can write to that folder */
	GL_EMPTY,    /* the agent confirms nothing, but it has heard, is starting nothing, and nothing is left */
};

/* Says whether nothing harvested is left on the node. */
typedef bool gl_empty(const struct gl_settings *s);

const char *gl_verdict_text(enum gl_verdict v);

/* Sends f and waits for until, which is GL_ACK or GL_DONE. Done counts as Ack too. evicted may be NULL. empty, unless NULL, is asked
 * while Done is late after an Ack that says that nothing is being started: an agent that cannot confirm (its launcher hangs, say)
 * costs a job that comes after force was used a few milliseconds, not another deadline for each of its steps. */
enum gl_verdict gl_ask(const struct gl_settings *s, const struct gl_frame *f, enum gl_kind until, gl_empty *empty, uint32_t *evicted);

/* Nanoseconds of the clock that frames carry, and milliseconds of the one that deadlines use. */
uint64_t gl_realtime_ns(void);
int64_t gl_monotonic_ms(void);

#endif
