/*
 * What a site may tell gate and hook: key=value words in plugstack.conf, on the hook's command line or in hook.conf. A word that
 * makes no sense is reported and leaves the default in place; nothing here fails a job.
 *
 *   socket=PATH   the agent's socket                                  /run/gleaner/agent.sock
 *   cgroup=NAME   parent of the executors' cgroups                    gleaner
 *   ack=MS        how long the agent has to say that it heard, 1-1000   50
 *   deadline=MS   how long it has to free a job's resources, 1-60000    1000
 *   force=MS      how long killing without the agent may take, 1-60000  2000
 *   mode=MODE     hook only: warn beside the gate, blunt without it     warn
 *
 * %n in socket and cgroup stands for the node's name, %% for a per cent sign.
 */
#ifndef GLEANER_SETTINGS_H
#define GLEANER_SETTINGS_H

#include <stdbool.h>
#include <stddef.h>

struct gl_settings {
	char socket[256];
	char cgroup[256];
	char node[256];
	unsigned ack_ms;
	unsigned done_ms;
	unsigned force_ms;
	bool blunt;
};

void gl_settings_defaults(struct gl_settings *s);

/* Applies one key=value word. Returns false, with the reason in why, when it makes no sense. */
bool gl_settings_word(struct gl_settings *s, const char *word, char *why, size_t why_size);

/* Settles on the node's name and replaces %n. slurmd's SLURMD_NODENAME comes first, then the short host name; a job's own
 * environment is never asked, since users write it. Returns false, with the reason in why, when no usable path comes out. */
bool gl_settings_node(struct gl_settings *s, const char *slurmd_nodename, char *why, size_t why_size);

#endif
