#!/bin/bash
# Slurm epilog (Epilog= in slurm.conf): lets a job's snapshots go. Whatever no other job holds may then
# be evicted when room is needed; until then the next job finds it there.
#
# A failing epilog drains the node, so this never fails: a link that stays is gone after a reboot.
export PATH=/usr/bin:/bin
[[ ${SLURM_JOB_ID-} =~ ^[0-9]+$ ]] || exit 0
rm -rf -- "${SNAPSYNC_JOBS_DIR:-/run/snapsync-jobs}/$SLURM_JOB_ID"
exit 0
