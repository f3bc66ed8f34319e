/*
 * What a job may ask for on the command lines of sbatch, srun and salloc:
 *
 *   --gleaner=yes|no        may memory that the job leaves unused be lent; without it the site decides
 *   --gleaner-executors=N   executors of the job's gleaner map and invoke, 1-4096
 *   --gleaner-mem=M         memory of each, in Slurm's units (a bare number is MiB)
 *
 * Values are checked where they are given, with a message for the user, and never again: on a node whatever makes no sense is as if
 * it had not been said. They reach the job as GLEANER_SHARE, GLEANER_EXECUTORS and GLEANER_MEM_PER_EXECUTOR.
 */
#ifndef GLEANER_OPTIONS_H
#define GLEANER_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>

enum gl_option { GL_OPTION_SHARE, GL_OPTION_EXECUTORS, GL_OPTION_MEMORY, GL_OPTIONS };

/* Name of the option without dashes, its variable in the job's environment, the form of its value. */
struct gl_option_text {
	const char *name;
	const char *variable;
	const char *form;
	const char *usage;
};

extern const struct gl_option_text gl_option_texts[GL_OPTIONS];

/* Says whether value makes sense for the option; otherwise why has a message for the user. */
bool gl_option_check(enum gl_option option, const char *value, char *why, size_t why_size);

#endif
