/* One function per context that does anything; gleaner.c dispatches to them. None may fail a job. */
#ifndef GLEANER_CONTEXT_H
#define GLEANER_CONTEXT_H

#include <slurm/spank.h>

/* slurmstepd, as root, before any process of the user: claims the job's resources on this node. */
void gl_remote_init(spank_t spank, int argc, char *argv[]);

#endif
