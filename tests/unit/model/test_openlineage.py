"""Events against the classes of OpenLineage's own client, which are made from its schemas."""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import replace
from typing import Any
from uuid import UUID

import attr
import openlineage.client.generated as generated
import pytest
from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, RunEvent, RunState
from openlineage.client.event_v2 import Run as LineageRun
from openlineage.client.serde import Serde

from snapd.model.ids import SnapshotId, digest_of
from snapd.model.openlineage import PRODUCER, events_of, run_uuid
from snapd.model.run_parts import Code, Environment, Use
from snapd.model.runs import Run

STORE = "s3://ml/store"
DATA, LABELS, MODEL = (SnapshotId(digest_of(each)) for each in (b"data", b"labels", b"model"))
RUN = Run(
    run_id="r7",
    at="2026-03-01T09:30:01.000Z",
    by="ann@host",
    change="1f",
    code=Code("693e354", dirty=False, repository="git@github.com:ml/iris.git", directory="src"),
    data=(Use(DATA, "dataset:imagenet@v1.2.0", "data"), Use(LABELS, store="file:///labels")),
    outputs=(Use(MODEL, path="out"),),
    parameters={"lr": 0.1, "layers": [1, 2]},
    metrics={"accuracy": 0.93},
    environment=Environment(python="3.11.9", lock_hash="sha256:00"),
    seed=7,
    command=("python", "-u", "train.py", "--lr", "0.1"),
    exit_status=0,
    started_at="2026-03-01T09:00:00.000Z",
    ended_at="2026-03-01T09:30:00.000Z",
)


def classes() -> dict[str, type]:
    """Find what the client has for each schema, by its URL."""
    found: dict[str, type] = {}
    for module in pkgutil.iter_modules(generated.__path__):
        for each in vars(importlib.import_module(f"{generated.__name__}.{module.name}")).values():
            if isinstance(each, type) and hasattr(each, "_get_schema"):
                found[each._get_schema()] = each
    return found


CLASSES = classes()


def revived(content: dict[str, Any]) -> Any:
    """Make the client's object of a facet; a class without fields of its own takes any."""
    kind = CLASSES[content["_schemaURL"]]
    names = {field.name: field for field in attr.fields(kind)}
    values = {key: value for key, value in content.items() if not key.startswith("_")}
    if set(names) <= {"_producer", "_schemaURL", "_deleted"}:
        made = kind(producer=content["_producer"])
        return made.with_additional_properties(**values)
    return kind(producer=content["_producer"], **values)


def with_facets(content: dict[str, Any]) -> dict[str, Any]:
    return {**content, "facets": {key: revived(each) for key, each in content["facets"].items()}}


def as_the_client_has_it(event: dict[str, Any]) -> RunEvent:
    return RunEvent(
        eventType=RunState[event["eventType"]],
        eventTime=event["eventTime"],
        producer=event["producer"],
        run=LineageRun(**with_facets(event["run"])),
        job=Job(**with_facets(event["job"])),
        inputs=[InputDataset(**with_facets(each)) for each in event["inputs"]],
        outputs=[OutputDataset(**with_facets(each)) for each in event["outputs"]],
    )


def filled(event: dict[str, Any]) -> dict[str, Any]:
    """Add what the client always writes."""
    return {
        **event,
        "inputs": [{**each, "inputFacets": {}} for each in event["inputs"]],
        "outputs": [{**each, "outputFacets": {}} for each in event["outputs"]],
    }


def without_nothing(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_nothing(each) for key, each in value.items() if each is not None}
    return [without_nothing(each) for each in value] if isinstance(value, list) else value


@pytest.mark.parametrize("exit_status", [0, 3, None])
def test_the_client_has_every_class_and_writes_the_same(exit_status: int | None) -> None:
    run = replace(RUN, exit_status=exit_status)
    for event in events_of(run, STORE):
        made = as_the_client_has_it(event)
        assert event["schemaURL"] == made.schemaURL
        assert without_nothing(Serde.to_dict(made)) == without_nothing(filled(event))


def test_a_run_starts_and_ends() -> None:
    start, end = events_of(RUN, STORE)
    assert (start["eventType"], start["eventTime"]) == ("START", RUN.started_at)
    assert (end["eventType"], end["eventTime"]) == ("COMPLETE", RUN.ended_at)
    assert start["run"]["runId"] == end["run"]["runId"] == run_uuid("r7", f"{STORE}/")
    assert start["outputs"] == []
    assert [(each["namespace"], each["name"]) for each in end["inputs"]] == [
        (STORE, "imagenet"),
        ("file:///labels", LABELS),
    ]
    [output] = end["outputs"]
    assert (output["name"], output["facets"]["version"]["datasetVersion"]) == (MODEL, MODEL)
    assert end["inputs"][0]["facets"]["version"]["datasetVersion"] == DATA
    assert end["job"]["name"] == "src/train.py"
    location = end["job"]["facets"]["sourceCodeLocation"]
    assert location["url"] == "ssh://git@github.com/ml/iris.git"
    assert (location["version"], location["path"]) == ("693e354", "src")
    assert end["run"]["facets"]["processing_engine"]["version"] == "3.11.9"
    own = end["run"]["facets"]["snapsync_run"]
    assert (own["metrics"], own["seed"], own["run_id"]) == ({"accuracy": 0.93}, 7, "r7")
    assert end["producer"] == PRODUCER


def test_a_failed_run_says_so() -> None:
    failed = Run(run_id="r8", at=RUN.at, by="a", change="1", exit_status=3, command=("./t.sh",))
    start, end = events_of(failed, STORE)
    assert end["eventType"] == "FAIL"
    assert "3" in end["run"]["facets"]["errorMessage"]["message"]
    assert "errorMessage" not in start["run"]["facets"]
    assert end["eventTime"] == start["eventTime"] == failed.at
    assert end["job"]["name"] == "t.sh"


@pytest.mark.parametrize(
    ("repository", "url"),
    [
        ("https://github.com/ml/iris.git", "https://github.com/ml/iris/tree/c1"),
        ("https://git.example.org/ml/iris/", "https://git.example.org/ml/iris/tree/c1"),
        ("ssh://git@host/ml/iris", "ssh://git@host/ml/iris"),
        ("host:ml/iris", "ssh://host/ml/iris"),
        ("/srv/git/my iris", "file:///srv/git/my%20iris"),
        ("../iris", None),
    ],
)
def test_where_the_code_is(repository: str, url: str | None) -> None:
    run = Run("r", "2026-03-01T09:30:01Z", "a", "1", code=Code("c1", repository=repository))
    facets = events_of(run, STORE)[0]["job"]["facets"]
    assert facets.get("sourceCodeLocation", {"url": None})["url"] == url


def test_an_id_that_is_a_uuid_stays_it() -> None:
    text = "5f0c1f1c2ad94e31ae0d1c7e6a9f3b12"
    assert run_uuid(text, STORE) == str(UUID(text))
    assert run_uuid("r7", STORE) != run_uuid("r7", "s3://other")
    assert UUID(run_uuid("r7", STORE)).version == 5


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ((), "run"),
        (("python3.11",), "python3.11"),
        (("/usr/bin/python3", "-m", "train"), "train"),
        (("/opt/bin/fit", "x"), "fit"),
        (("make", "model"), "make"),
    ],
)
def test_jobs_are_called_by_what_was_run(command: tuple[str, ...], name: str) -> None:
    run = Run("r", "2026-03-01T09:30:01Z", "a", "1", command=command)
    assert events_of(run, STORE)[0]["job"]["name"] == name
