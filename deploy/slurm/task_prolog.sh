#!/bin/bash
# Slurm task prolog (TaskProlog= in slurm.conf), as the job's user: tells each task where its snapshots
# are, as $SNAPSYNC_<NAME>, or ends it with the reason why they are not there.
JOB=${SNAPSYNC_JOBS_DIR:-/run/snapsync-jobs}/$SLURM_JOB_ID
[ -d "$JOB" ] || exit 0
if [ -e "$JOB/failed" ]; then
    sed 's/^/print snapsync: /' "$JOB/failed"
    exit 1
fi
for link in "$JOB"/*; do
    [ -L "$link" ] || continue
    name=${link##*/}
    name=${name^^}
    echo "export SNAPSYNC_${name//[^A-Z0-9]/_}=$link"
done
