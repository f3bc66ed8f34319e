#define _GNU_SOURCE
#include "context.h"

#include "../gate.h"

#include <slurm/slurm.h>
#include <stdlib.h>

/* Fills the claim from what slurmstepd knows. What it does not know is left unknown, which claims everything. False when there is
 * not even a job. GPU ids stay empty: slurmstepd tells them to the job's environment alone, which users write; the Prolog has them. */
static bool job_of(spank_t spank, struct gl_frame *claim)
{
	uint32_t job = 0, step = GL_STEP_NONE;
	uid_t uid = (uid_t)-1;
	uint64_t mib = 0;
	char *cores = NULL;

	if (spank_get_item(spank, S_JOB_ID, &job) != ESPANK_SUCCESS)
		return false;
	(void)spank_get_item(spank, S_JOB_STEPID, &step);
	(void)spank_get_item(spank, S_JOB_UID, &uid);
	if (spank_get_item(spank, S_JOB_ALLOC_MEM, &mib) != ESPANK_SUCCESS || mib == 0)
		mib = GL_MEMORY_UNKNOWN; /* 0 means that Slurm does not limit it */
	if (spank_get_item(spank, S_JOB_ALLOC_CORES, &cores) != ESPANK_SUCCESS)
		cores = NULL;
	*claim = (struct gl_frame){
		.kind = GL_CLAIM,
		.flags = gl_options_flags(),
		.job = job,
		.step = step,
		.uid = uid,
		.mib = mib,
		.nanos = gl_realtime_ns(),
		.cores = gl_text(cores),
	};
	if (claim->cores.len > GL_FRAME_MAX / 2)
		claim->cores = gl_text(NULL);
	return true;
}

void gl_remote_claim(spank_t spank, int argc, char *argv[])
{
	struct gl_settings settings;
	struct gl_frame claim;
	char text[512];

	gl_settings_defaults(&settings);
	for (int i = 0; i < argc; i++) {
		if (!gl_settings_word(&settings, argv[i], text, sizeof text))
			slurm_error("gleaner: plugstack.conf: %s", text);
	}
	if (!gl_settings_node(&settings, getenv("SLURMD_NODENAME"), text, sizeof text)) {
		slurm_error("gleaner: %s", text);
		return;
	}
	if (!job_of(spank, &claim))
		return;
	claim.node = gl_text(settings.node);

	struct gl_outcome outcome = gl_gate(&settings, &claim);
	gl_outcome_text(&outcome, text, sizeof text);
	if (text[0] != '\0')
		slurm_info("%s", text);
	slurm_debug("gleaner: job %u cores %s: %s, %u evicted", claim.job, claim.cores.len ? claim.cores.at : "unknown",
		    gl_verdict_text(outcome.verdict), outcome.evicted);
}
