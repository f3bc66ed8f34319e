#!/bin/bash
#SBATCH --job-name=thumbnails --ntasks=1 --mem=1G
# The function job: small in Slurm's eyes, since its functions run on leftovers. How many executors it wants stands in #GLEANER lines.
#GLEANER --executors=8 --mem-per-executor=256M
set -eu
exec gleaner map "$FUNCTION" "$WORK"/inputs/*.jpg --out "$WORK/thumbnails/{name}" --summary "$WORK/map.json"
