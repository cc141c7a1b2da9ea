"""Models of a real MLflow, the package itself with a file store, become versions."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.forked import Forking, forking
from tests.e2e.installed import Host, files_below

TRAINED = """
import json, pathlib, mlflow
mlflow.set_experiment("iris")
with mlflow.start_run() as run:
    mlflow.log_params({"lr": 0.1, "optimizer": "adam", "augment": True})
    mlflow.log_metric("accuracy", 0.9)
    mlflow.log_metric("accuracy", 0.93)
    mlflow.log_metric("loss", float("nan"))
    made = pathlib.Path("made")
    (made / "data").mkdir(parents=True)
    (made / "data/weights").write_bytes(b"w" * 100_000)
    mlflow.log_artifacts(str(made), "model")
    mlflow.log_artifact(str(made / "data/weights"), "alone")
client = mlflow.MlflowClient()
client.create_registered_model("iris_clf")
run_id = run.info.run_id
for _ in range(2):
    client.create_model_version("iris_clf", f"runs:/{run_id}/model", run_id)
client.set_registered_model_alias("iris_clf", "champion", "1")
client.create_registered_model("foreign")
client.create_model_version("foreign", str(made.resolve()))
print(json.dumps({"run_id": run_id}))
"""


@dataclass(frozen=True)
class Mlflow:
    variables: dict[str, str]
    run_id: str


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Mlflow:
    """Give a registry with a run and a model of two versions."""
    root = tmp_path_factory.mktemp("mlflow")
    variables = {
        "MLFLOW_TRACKING_URI": f"file://{root}/mlruns",
        "MLFLOW_ALLOW_FILE_STORE": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    done = subprocess.run(
        [sys.executable, "-c", TRAINED],
        cwd=root,
        env={"PATH": "/usr/bin:/bin", "HOME": str(root), **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Mlflow(variables, json.loads(done.stdout.splitlines()[-1])["run_id"])


@pytest.fixture(scope="module")
def with_mlflow(mlflow: Mlflow) -> Iterator[Forking]:
    """Load MLflow once: it takes seconds."""
    with forking("mlflow", environment=mlflow.variables) as process:
        yield process


@pytest.fixture
def host(host: Host, with_mlflow: Forking, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setattr(Host, "forking", with_mlflow)
    return host


@pytest.fixture
def store(tmp_path: Path) -> str:
    return f"file://{tmp_path}/store"


@pytest.mark.parametrize("uri", ["models:/iris_clf@champion", "runs:/RUN/model"])
def test_a_model_is_pushed_with_what_its_run_said(
    host: Host,
    mlflow: Mlflow,
    store: str,
    tmp_path: Path,
    uri: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if uri.startswith("models:"):
        # Once as it is installed: what MLflow says while it is loaded is no result of ours.
        monkeypatch.setattr(Host, "forking", None)
    host.variables.update(mlflow.variables)
    uri = uri.replace("RUN", mlflow.run_id)
    words = ("--store", store, "--metric", "f1=0.5", "--param", "lr=0.2", "--json")
    ran = host.snapctl("model", "add", "iris_clf@v0.3.0", "--from", uri, *words)
    assert ran.code == 0, ran.stderr
    added = ran.document
    assert added["metrics"] == {"accuracy": 0.93, "f1": 0.5}
    assert added["parameters"] == {"lr": 0.2, "optimizer": "adam", "augment": True}
    assert added["note"] == f"from {uri}, run {mlflow.run_id}"
    assert "not taken over: loss (1 values)" in ran.stderr
    dest = tmp_path / "out"
    pulled = host.snapctl("pull", "--standalone", "--id", "iris_clf@v0.3.0", "--store", store, dest)
    assert pulled.code == 0, pulled.stderr
    assert files_below(dest)["data/weights"] == b"w" * 100_000


def test_a_single_artifact_and_a_model_without_a_run(
    host: Host, mlflow: Mlflow, store: str, tmp_path: Path
) -> None:
    host.variables.update(mlflow.variables, SNAPSYNC_STORE=store, SNAPSYNC_ID="0" * 64)
    one = f"runs:/{mlflow.run_id}/alone/weights"
    ran = host.snapctl("model", "add", "one@v1.0.0", "--from", one, "--note", "mine", "--json")
    assert ran.code == 0, ran.stderr
    assert ran.document["note"] == "mine"
    listed = host.snapctl("manifest", "--id", "one@v1.0.0").stdout
    assert [line.split(" ", 4)[4] for line in listed.splitlines()] == ["./", "./weights"]
    ran = host.snapctl("model", "add", "foreign@v1.0.0", "--from", "models:/foreign/1", "--json")
    assert ran.code == 0, ran.stderr
    assert "metrics" not in ran.document or ran.document["metrics"] == {}
    assert "tells no run" in ran.stderr


def test_what_mlflow_has_not_or_the_registry_has_already(
    host: Host, mlflow: Mlflow, store: str, tmp_path: Path
) -> None:
    host.variables.update(mlflow.variables, SNAPSYNC_STORE=store)

    def refused(words: list[str], exit_code: int, word: str) -> None:
        ran = host.snapctl("model", "add", "iris@v1.0.0", *words, "--json")
        assert (ran.code, ran.stdout) == (exit_code, ""), ran.stderr
        assert word in ran.error["message"]
        assert ran.error["hint"]
        assert "Traceback" not in ran.stderr

    refused(["--from", "models:/nobody/1"], 1, "nobody not found")
    refused(["--from", f"runs:/{mlflow.run_id}/absent"], 1, "absent")
    refused(["--from", "s3://bucket/x"], 2, "s3://bucket/x")
    refused(["--from", "models:/iris_clf/1", "--id", "0" * 64], 2, "exclude")
    refused([], 2, "--from")
    assert not (tmp_path / "store/.manifests").exists()
    assert host.snapctl("model", "add", "iris@v1.0.0", "--from", "models:/iris_clf/1").code == 0
    refused(["--from", "models:/nobody/1"], 1, "v1.0.0")


def test_without_mlflow_it_says_what_to_do(store: str, tmp_path: Path) -> None:
    host = Host(tmp_path / "host")
    (tmp_path / "absent").mkdir()
    (tmp_path / "absent/mlflow.py").write_text("raise ImportError('there is none')\n")
    host.variables["PYTHONPATH"] = str(tmp_path / "absent")
    ran = host.snapctl("model", "add", "a@v1.0.0", "--from", "models:/a/1", "--store", store)
    assert ran.code == 1
    assert "needs MLflow" in ran.stderr
    assert "hint: Install mlflow-skinny" in ran.stderr
