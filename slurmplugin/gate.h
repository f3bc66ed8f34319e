/*
 * Owner first: ask the agent for a job's resources and, whatever goes wrong with that, take them by force. The one decision that
 * gate and blunt Prolog share.
 */
#ifndef GLEANER_GATE_H
#define GLEANER_GATE_H

#include "ask.h"
#include "force.h"

struct gl_outcome {
	enum gl_verdict verdict;
	uint32_t evicted;      /* by the agent */
	bool forced;           /* the agent failed and force was used */
	bool freed;            /* nothing harvested is left on what was claimed, as far as we know */
	struct gl_force force; /* when forced */
};

/* Returns when the claim's resources are free, or when both deadlines have passed. */
struct gl_outcome gl_gate(const struct gl_settings *s, const struct gl_frame *claim);

/* A line for a log about what happened; empty when there is nothing worth a line. */
void gl_outcome_text(const struct gl_outcome *o, char *text, size_t size);

#endif
