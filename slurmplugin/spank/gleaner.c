/*
 * spank_gleaner.so: the gate. Slurm loads it into srun, sbatch, salloc, slurmd and slurmstepd; only slurmstepd's context does
 * anything, and whatever happens there the answer is success. There is no job_prolog callback: one that hangs or crashes would
 * drain the node even when the plugin is optional.
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
	if (spank_context() == S_CTX_REMOTE)
		gl_remote_init(spank, argc, argv);
	return ESPANK_SUCCESS;
}
