#!/bin/bash
# Slurm prolog (Prolog= in slurm.conf): brings a job's snapshots to this node before the job starts.
#
# A job names what it needs in its comment, and may go on with other words there:
#   sbatch --comment 'snapsync:data=ID@s3://datasets/imagenet,model=ID@s3://models/llama' job.sh
# The job finds them, read-only, as links: /run/snapsync-jobs/$SLURM_JOB_ID/data and .../model; as long
# as a link is there, its snapshot is not evicted. epilog.sh removes the links. /run is empty after a
# crash of the node, so that nothing holds a snapshot for ever.
#
# Slurm drains a node whose prolog fails and requeues the job. That is right when the node is to blame
# (no daemon, disk full, store unreachable from here), and wrong when the job is (a mistyped ID): then
# this exits 0 and leaves the reason in $JOB/failed, and task_prolog.sh ends the job with it.
set -uo pipefail
export PATH=${SNAPSYNC_PATH:-/usr/local/bin:/usr/bin:/bin}
: "${SLURM_JOB_ID:?not started by Slurm}"

JOBS=${SNAPSYNC_JOBS_DIR:-/run/snapsync-jobs}
JOB=$JOBS/$SLURM_JOB_ID
TIMEOUT=${SNAPSYNC_PROLOG_TIMEOUT:-30m} # less than PrologTimeout or BatchStartTimeout of Slurm

say() { printf 'snapsync prolog, job %s: %s\n' "$SLURM_JOB_ID" "$*" >&2; }
job_is_to_blame() { # REASON
    say "$1"
    printf '%s\n' "$1" >"$JOB/failed"
    exit 0
}

comment=${SLURM_JOB_COMMENT-}
if [ -z "$comment" ] && command -v scontrol >/dev/null; then
    # Older versions of Slurm do not tell the prolog.
    comment=$(scontrol show job "$SLURM_JOB_ID" -o 2>/dev/null | sed -n 's/.* Comment=\(.*\) WorkDir=.*/\1/p')
fi
[[ $comment =~ (^|[[:space:]])snapsync:([^[:space:]]+) ]] || exit 0
IFS=, read -r -a wanted <<<"${BASH_REMATCH[2]}"

umask 022
mkdir -p "$JOBS" && rm -rf -- "$JOB" && mkdir "$JOB" || exit 1

for each in "${wanted[@]}"; do
    [[ $each =~ ^([A-Za-z0-9][A-Za-z0-9_.-]{0,63})=([0-9a-fA-F]{64})@([a-z0-9]+://[^[:space:]]+)$ ]] ||
        job_is_to_blame "can't read '$each' in the job's comment; write name=ID@store"
    name=${BASH_REMATCH[1]} id=${BASH_REMATCH[2]} store=${BASH_REMATCH[3]}
    said=$(snapctl pull --id "$id" --store "$store" --mode symlink --timeout "$TIMEOUT" \
        "$JOB/$name" 2>&1 >/dev/null)
    code=$?
    said=$(grep -Ev '^(pull|checkout) ' <<<"$said" | tr '\n' ' ')
    case $code in
        0) [ -z "${said// /}" ] || say "$name: $said" ;;
        2 | 10 | 12 | 15 | 17) job_is_to_blame "$name: $said" ;;
        *) # 11 no space, 13 store unreachable, 14 no daemon, 16 timed out: the node, or passing
            say "$name: $said"
            exit 1
            ;;
    esac
done
