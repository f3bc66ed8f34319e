/* One function per context that does anything; gleaner.c dispatches to them. None may fail a job. */
#ifndef GLEANER_CONTEXT_H
#define GLEANER_CONTEXT_H

#include <slurm/spank.h>
#include <stdint.h>

/* slurmstepd, as root, before any process of the user: claims the job's resources on this node. */
void gl_remote_claim(spank_t spank, int argc, char *argv[]);

/* Declares the options of settings that users give; see ../options.h. */
void gl_options_register(spank_t spank);

/* slurmstepd: what was said, as flags of a claim and in the environment of the job's processes. */
void gl_options_inherit(spank_t spank);
uint16_t gl_options_flags(void);
void gl_options_environment(spank_t spank);

#endif
