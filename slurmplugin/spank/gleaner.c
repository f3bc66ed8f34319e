/*
 * spank_gleaner.so: the gate and the options of the job. Slurm loads it into srun, sbatch, salloc, slurmd and slurmstepd. All but slurmd
 * learn the options; slurmstepd's context claims, and whatever happens there the answer is success. There is no job_prolog
 * callback: one that hangs or crashes would drain the node even when the plugin is optional.
 */
#include "context.h"

#include <slurm/slurm.h>

SPANK_PLUGIN(gleaner, 1)

#if SLURM_VERSION_NUMBER >= SLURM_VERSION_NUM(25, 5, 0)
/* Should the gate ever fail all the same, it is the job's failure and never the node's. */
int slurm_spank_init_failure_mode = ESPANK_JOB_FAILURE;
#endif

int slurm_spank_init(spank_t spank, int argc, char *argv[])
{
	(void)argc, (void)argv;
	switch (spank_context()) {
	case S_CTX_LOCAL:
	case S_CTX_ALLOCATOR:
	case S_CTX_REMOTE:
		gl_options_register(spank);
		break;
	default:
		break;
	}
	return ESPANK_SUCCESS;
}

/* slurmstepd calls it right after slurm_spank_init, once it knows the job's options. */
int slurm_spank_init_post_opt(spank_t spank, int argc, char *argv[])
{
	if (spank_context() == S_CTX_REMOTE) {
		gl_options_inherit(spank);
		gl_remote_claim(spank, argc, argv);
		gl_options_environment(spank);
	}
	return ESPANK_SUCCESS;
}
