#!/bin/sh
# From a tag to a model in staging: the data is proven, the model trained, the run recorded, the version added.
# Every step fails the job; a version is added only at the end, and never points elsewhere afterwards.
set -eu

: "${VERSION:?the tag, as v1.2.0}" "${SNAPSYNC_STORE:?the store, as s3://ml/store}"
MODEL=${MODEL:-iris_clf}
RUN=${RUN:-$MODEL-$VERSION}          # of this attempt: a job that is repeated records a run of its own
NOTE=${NOTE:-}                       # where the job can be read, for the history
DATA=$(cat data.ref)                 # `iris@v1.0.0`: the tag pins the data too, as it pins the code

snapctl verify --id "$DATA"          # reads and hashes every object in the store
snapctl pull --standalone=auto --id "$DATA" data

# Commit, lock file, times and outputs are found out; --strict: what can not be recorded has failed.
snapctl run --strict --run-id "$RUN" --data "data=$DATA" --output model --save run.json --note "$NOTE" \
  -- python train.py --data data --model model
snapctl run verify "$RUN" --only data --only outputs --only code

SNAPSHOT=$(python -c 'import json
print(*(made["snapshot_id"] for made in json.load(open("run.json"))["outputs"] if made.get("path") == "model"))')
METRICS=$(python -c 'import json        # those that are numbers: a loss of NaN stays in the record of the run
for name, value in json.load(open("run.json")).get("metrics", {}).items():
    if type(value) in (int, float) and len(name.split()) == 1: print("--metric", f"{name}={value}")')

field() { snapctl model show "$MODEL@$VERSION" --json | python -c 'import json, sys
print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }

# A repeated job may find the version that it added itself; another one's is never passed over.
# shellcheck disable=SC2086 # one word for each option and value
snapctl model add "$MODEL@$VERSION" --id "$SNAPSHOT" --run "$RUN" $METRICS --note "$NOTE" ||
  [ "$(field snapshot_id)" = "$SNAPSHOT" ]
[ "$(field stage)" != dev ] || snapctl model promote "$MODEL@$VERSION" --to staging --note "$NOTE"
