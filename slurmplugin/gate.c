#include "gate.h"

#include <stdio.h>

static const char mounts[] = "/proc/self/mountinfo";

static bool nothing_left(const struct gl_settings *s)
{
	return gl_force_nothing_left(s, mounts);
}

struct gl_outcome gl_gate(const struct gl_settings *s, const struct gl_frame *claim)
{
	struct gl_outcome o = {.evicted = 0};
	o.verdict = gl_ask(s, claim, GL_DONE, nothing_left, &o.evicted);
	o.freed = o.verdict == GL_OK || o.verdict == GL_EMPTY;
	if (!o.freed) {
		o.forced = true;
		o.freed = gl_force(s, claim->job, mounts, &o.force);
	}
	return o;
}

void gl_outcome_text(const struct gl_outcome *o, char *text, size_t size)
{
	text[0] = '\0';
	if (!o->forced || (o->force.trees == 0 && o->verdict == GL_NO_AGENT))
		return; /* a node without agent and without anything harvested is no event */
	snprintf(text, size, "gleaner: %s: ended everything harvested on this node by force in %u ms, %u processes left",
		 gl_verdict_text(o->verdict), o->force.ms, o->force.left);
}
