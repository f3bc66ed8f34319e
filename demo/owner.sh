# The owner's job. A line that names the witness as its interpreter stands above this one when it is submitted, so that the witness is its
# very first process; on its other nodes the witness is the first process of a step.
srun --ntasks-per-node=1 "$WITNESS" >/dev/null
srun --ntasks-per-node=1 bash -c 'cat "$0"/photographs/*.jpg | sha256sum >/dev/null' "$WORK"
