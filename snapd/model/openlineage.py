"""A recorded run as OpenLineage events, for whoever collects lineage of other tools too.

The events are those of https://openlineage.io/spec/2-0-2/OpenLineage.json: START, then COMPLETE or
FAIL. What no facet of the standard carries is in one of our own, `snapsync_run`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote
from uuid import NAMESPACE_URL, UUID, uuid5

from snapd import __version__
from snapd.model.run_parts import Code, Use
from snapd.model.runs import Run

PRODUCER = f"urn:snapsync:{__version__}"
_SPEC = "https://openlineage.io/spec"
_CORE = f"{_SPEC}/2-0-2/OpenLineage.json#/$defs"
_SCP_ADDRESS = re.compile(r"(?:([\w.-]+@)?([\w.-]+)):(?!//)/*(.+)")
_SAFE = "/:@?&=+,;%~!$'()*[]"
_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


def events_of(run: Run, store: str) -> list[dict[str, Any]]:
    """Give the events of a run that is recorded in a store: its start and its end, as far as known.

    The same run gives the same events, so sending them twice changes nothing.
    """
    ended_well = run.exit_status in (None, 0)
    started_at = run.started_at or run.ended_at or run.at
    return [
        _event("START", started_at, run, store),
        _event("COMPLETE" if ended_well else "FAIL", run.ended_at or run.at, run, store),
    ]


def _event(kind: str, moment: str, run: Run, store: str) -> dict[str, Any]:
    facets = _run_facets(run)
    if kind != "FAIL":
        facets.pop("errorMessage", None)
    return {
        "eventType": kind,
        "eventTime": moment,
        "run": {"runId": run_uuid(run.run_id, store), "facets": facets},
        "job": {"namespace": store, "name": _job_name(run), "facets": _job_facets(run)},
        "inputs": [_dataset(each, store) for each in _distinct(run.data)],
        "outputs": [] if kind == "START" else [_dataset(each, store) for each in run.outputs],
        "producer": PRODUCER,
        "schemaURL": f"{_CORE}/RunEvent",
    }


def run_uuid(run_id: str, store: str) -> str:
    """Give a run the UUID that OpenLineage wants: its own ID if that is one, else always the same.

    It is of version 5, of the record's place: `s3://ml/store/registry/runs/r7`.
    """
    try:
        return str(UUID(run_id))
    except ValueError:
        return str(uuid5(NAMESPACE_URL, f"{store.rstrip('/')}/registry/runs/{run_id}"))


def _distinct(uses: Iterable[Use]) -> list[Use]:
    return list({(each.snapshot_id, each.reference): each for each in uses}.values())


def _dataset(use: Use, store: str) -> dict[str, Any]:
    """Name a snapshot: by its dataset, so that its versions are one, else by its ID."""
    where = use.store or store
    named = re.sub(r"^(?:dataset|model):", "", use.reference or "")
    name = named.partition("@")[0] or use.snapshot_id
    facets = {
        "version": _facet(
            "DatasetVersionDatasetFacet", "1-0-1", {"datasetVersion": use.snapshot_id}
        ),
        "dataSource": _facet("DatasourceDatasetFacet", "1-0-1", {"name": where, "uri": where}),
        "snapsync_snapshot": _own_facet("DatasetFacet", use.to_json()),
    }
    return {"namespace": where, "name": name, "facets": facets}


def _run_facets(run: Run) -> dict[str, Any]:
    facets = {
        "snapsync_run": _own_facet(
            "RunFacet",
            {
                "run_id": run.run_id,
                "by": run.by,
                "note": run.note,
                "code": run.code.to_json() if run.code else None,
                "environment": run.environment.to_json(),
                "metrics": dict(run.metrics),
                "parameters": dict(run.parameters),
                "seed": run.seed,
                "host": run.host,
                "command": list(run.command),
                "exit_status": run.exit_status,
            },
        )
    }
    if run.environment.python:
        facets["processing_engine"] = _facet(
            "ProcessingEngineRunFacet",
            "1-1-1",
            {"name": "Python", "version": run.environment.python},
        )
    if run.parameters:
        facets["executionParameters"] = _facet(
            "ExecutionParametersRunFacet",
            "1-0-0",
            {
                "parameters": [
                    {"key": key, "value": str(value)} for key, value in run.parameters.items()
                ]
            },
        )
    if run.exit_status:
        facets["errorMessage"] = _facet(
            "ErrorMessageRunFacet",
            "1-0-1",
            {
                "message": f"the command ended with {run.exit_status}",
                "programmingLanguage": "PYTHON" if run.environment.python else "UNKNOWN",
            },
        )
    return facets


def _job_name(run: Run) -> str:
    """Name what was run: `train/train.py` of `python -u train.py --lr 0.1` run in `train`."""
    words = [word for word in run.command if word and not word.startswith("-")]
    is_interpreter = bool(words) and re.match(r"(python|bash|sh$|env$)", _last(words[0]))
    program = words[1] if is_interpreter and len(words) > 1 else words[0] if words else "run"
    directory = (run.code.directory if run.code else None) or "."
    if program.startswith("/"):
        return _last(program)
    return str(PurePosixPath(directory, program))


def _last(path: str) -> str:
    return PurePosixPath(path).name


def _job_facets(run: Run) -> dict[str, Any]:
    facets = {
        "jobType": _facet(
            "JobTypeJobFacet",
            "2-0-4",
            {"processingType": "BATCH", "integration": "SNAPSYNC", "jobType": "COMMAND"},
        )
    }
    address = _as_url(run.code.repository or "") if run.code else None
    if run.code is not None and address is not None:
        facets["sourceCodeLocation"] = _facet(
            "SourceCodeLocationJobFacet", "1-1-0", _location(run.code, address)
        )
    return facets


def _location(code: Code, address: str) -> dict[str, Any]:
    url = address
    if address.startswith(("https://", "http://")):
        # The pages of GitHub, GitLab, Gitea and others are all found so.
        url = f"{address.removesuffix('/').removesuffix('.git')}/tree/{code.commit}"
    location = {"type": "git", "url": url, "repoUrl": address, "version": code.commit}
    return {**location, "path": code.directory} if code.directory else location


def _as_url(repository: str) -> str | None:
    """Make a URL of what git takes: `git@host:team/repo.git` -> `ssh://git@host/team/repo.git`.

    None for what means something on one machine only, as `../iris`.
    """
    if _URL.match(repository):
        return quote(repository, safe=_SAFE)
    if repository.startswith("/"):
        return f"file://{quote(repository, safe=_SAFE)}"
    found = _SCP_ADDRESS.fullmatch(repository)
    return found and f"ssh://{found[1] or ''}{found[2]}/{quote(found[3], safe=_SAFE)}"


def _facet(name: str, version: str, content: dict[str, Any]) -> dict[str, Any]:
    schema = f"{_SPEC}/facets/{version}/{name}.json#/$defs/{name}"
    return {"_producer": PRODUCER, "_schemaURL": schema, **content}


def _own_facet(base: str, content: dict[str, Any]) -> dict[str, Any]:
    """Make a facet of our own, which the standard's schema of all such facets describes."""
    known = {key: value for key, value in content.items() if value not in (None, "", [], {})}
    return {"_producer": PRODUCER, "_schemaURL": f"{_CORE}/{base}", **known}
