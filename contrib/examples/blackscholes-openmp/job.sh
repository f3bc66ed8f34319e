#!/bin/bash
# gleaner sbatch job.sh: two cores of the job's own, four executors on leftovers.
#SBATCH -J blackscholes -n 1 -c 2 --mem=500M -t 10:00
#GLEANER --function=/usr/local/lib/gleaner/functions/blackscholes.so --executors=4 --mem-per-executor=256M
export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-2}
gleaner run -- ./blackscholes 4000000
