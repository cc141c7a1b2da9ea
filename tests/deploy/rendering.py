"""Charts, kustomizations and examples as the API server would get them."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy" / "helm" / "snapsync"
KUBERNETES = ROOT / "deploy" / "kubernetes"
OVERLAYS = sorted(path.name for path in (KUBERNETES / "overlays").iterdir())
VALUES = sorted((CHART / "ci").glob("*-values.yaml"))
EXAMPLES = sorted((KUBERNETES / "examples").glob("*.yaml"))

BIN = Path(sys.executable).parent
HELM, KUBECTL = BIN / "helm", BIN / "kubectl"

Resource = dict[str, Any]


def ran(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a tool to its end."""
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=60, check=False
    )


def text_of(*command: str | Path) -> str:
    """Run a tool that must succeed; give what it printed."""
    done = ran(*command)
    assert done.returncode == 0, done.stderr
    return done.stdout


def templated(*words: str | Path) -> str:
    """Render the chart."""
    return text_of(HELM, "template", "snapsync", CHART, "--namespace", "snapsync", *words)


def kustomized(directory: Path) -> str:
    """Build a kustomization."""
    return text_of(KUBECTL, "kustomize", directory)


def resources(text: str) -> list[Resource]:
    """Read a stream of documents."""
    return [document for document in yaml.safe_load_all(text) if document]


def of_kind(found: list[Resource], kind: str) -> Resource:
    """Give the one resource of a kind."""
    (only,) = [resource for resource in found if resource["kind"] == kind]
    return only


def config_in(found: list[Resource]) -> dict[str, Any]:
    """Read the daemon's configuration."""
    return tomllib.loads(of_kind(found, "ConfigMap")["data"]["config.toml"])


def pod_specs(found: list[Resource]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Find every pod that the resources make, with a name for messages."""
    for resource in found:
        name = f"{resource['kind']}/{resource['metadata']['name']}"
        if resource["kind"] == "Pod":
            yield name, resource["spec"]
        elif "template" in resource.get("spec", {}):
            yield name, resource["spec"]["template"]["spec"]


def containers_of(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """List the init containers and the containers of a pod."""
    return [*spec.get("initContainers", []), *spec["containers"]]
