#define _GNU_SOURCE
#include "context.h"

#include "../frame.h"
#include "../options.h"

#include <slurm/slurm.h>
#include <stdlib.h>
#include <string.h>

/* What was said for this job; "" for nothing. slurmstepd and srun each serve one job only. */
static char given[GL_OPTIONS][32];

/* remote is true in slurmstepd, where a bad value must not fail the job: a user may have forged what travels there. */
static int take(int option, const char *value, int remote)
{
	char why[256];
	if (!gl_option_check((enum gl_option)option, value, why, sizeof why)) {
		if (remote)
			return ESPANK_SUCCESS;
		slurm_error("gleaner: %s", why);
		return ESPANK_BAD_ARG;
	}
	memcpy(given[option], value, strlen(value) + 1); /* checked values are short */
	if (!remote)
		setenv(gl_option_texts[option].variable, value, 1); /* for salloc's command, and for what srun and sbatch pass on */
	return ESPANK_SUCCESS;
}

void gl_options_register(spank_t spank)
{
	for (int i = 0; i < GL_OPTIONS; i++) {
		const struct gl_option_text *text = &gl_option_texts[i];
		struct spank_option option = {
			.name = (char *)text->name, .arginfo = (char *)text->form, .usage = (char *)text->usage,
			.has_arg = 1, .val = i, .cb = take,
		};
		if (spank_option_register(spank, &option) != ESPANK_SUCCESS)
			slurm_error("gleaner: cannot register --%s", text->name);
	}
}

uint16_t gl_options_flags(void)
{
	const char *share = given[GL_OPTION_SHARE];
	if (share[0] == '\0')
		return 0;
	return share[0] == 'y' ? GL_FLAG_SHARE_YES : GL_FLAG_SHARE_NO;
}

/* srun hands options to slurmstepd. Those of sbatch and salloc travel in the job's environment, under a name that Slurm's own reader
 * misses where --export keeps the rest of the environment away. */
void gl_options_inherit(spank_t spank)
{
	static const char *const variables[GL_OPTIONS] = {
		"SLURM_SPANK__SLURM_SPANK_OPTION_gleaner_gleaner",
		"SLURM_SPANK__SLURM_SPANK_OPTION_gleaner_gleaner_executors",
		"SLURM_SPANK__SLURM_SPANK_OPTION_gleaner_gleaner_mem",
	};
	char value[64];
	for (int i = 0; i < GL_OPTIONS; i++) {
		if (given[i][0] == '\0' && spank_getenv(spank, variables[i], value, sizeof value) == ESPANK_SUCCESS)
			(void)take(i, value, 1);
	}
}

void gl_options_environment(spank_t spank)
{
	for (int i = 0; i < GL_OPTIONS; i++) {
		if (given[i][0] != '\0')
			(void)spank_setenv(spank, gl_option_texts[i].variable, given[i], 1);
	}
}
