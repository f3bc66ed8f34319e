/*
 * Force: end everything harvested on a node without the agent's help, through the cgroup tree alone. It needs no memory of what
 * ran, works on cgroup v1, hybrid and v2, touches nothing outside <mount>/<cgroup>/<node>, and is bounded in time.
 */
#ifndef GLEANER_FORCE_H
#define GLEANER_FORCE_H

#include "settings.h"

#include <stdint.h>

struct gl_force {
	unsigned trees;   /* cgroup trees of this node that were found */
	unsigned signals; /* SIGKILLs sent to single processes; cgroup.kill counts none */
	unsigned left;    /* processes still there at the end, in the first hierarchy that has any */
	unsigned ms;      /* time taken */
};

/* Shuts the node: leaves the mark <cgroup>/<node>/shut.<job>, a cgroup without processes, which keeps the launcher from starting anything
 * before the agent knows of the job. Then kills everything below <cgroup>/<node> in each cgroup hierarchy of mountinfo
 * (/proc/self/mountinfo) and waits until it is gone, at most s->force_ms. Returns true when nothing is left. */
bool gl_force(const struct gl_settings *s, uint32_t job, const char *mountinfo, struct gl_force *result);

/* Says whether no process is harvested on this node; false when that cannot be seen. */
bool gl_force_nothing_left(const struct gl_settings *s, const char *mountinfo);

#endif
