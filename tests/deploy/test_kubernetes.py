"""Base, overlays and chart: valid, equal to each other, and no more privileged than said."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes_validate import validate

from snapd.model.config import SECTIONS, load_settings
from snapd.model.settings import FollowSettings
from tests.deploy.rendering import (
    CHART,
    EXAMPLES,
    HELM,
    KUBERNETES,
    OVERLAYS,
    VALUES,
    Resource,
    config_in,
    containers_of,
    kustomized,
    of_kind,
    pod_specs,
    ran,
    resources,
    templated,
)

VERSIONS = ["1.29", "1.33", "1.37"]
CONFINED = {
    "readOnlyRootFilesystem": True,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
}
BUILT = {"base": KUBERNETES / "base"} | {name: KUBERNETES / "overlays" / name for name in OVERLAYS}


@pytest.fixture(scope="module")
def built() -> dict[str, list[Resource]]:
    """Everything that kustomize builds, by name."""
    return {name: resources(kustomized(directory)) for name, directory in BUILT.items()}


@pytest.fixture(scope="module")
def charted() -> dict[str, list[Resource]]:
    """The chart with its own values and with each file of others, by its name."""
    found = {"defaults": resources(templated())}
    for path in VALUES:
        found[path.stem.removesuffix("-values")] = resources(templated("--values", path))
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_all_of_it_is_valid_by_the_schemas_of_kubernetes(
    version: str, built: dict[str, list[Resource]], charted: dict[str, list[Resource]]
) -> None:
    rendered = [*built.values(), *charted.values()]
    for found in [*rendered, *(resources(path.read_text()) for path in EXAMPLES)]:
        for resource in found:
            validate(resource, version, strict=True)


def test_a_misspelt_key_would_not_be_valid(built: dict[str, list[Resource]]) -> None:
    wrong = of_kind(resources(yaml.safe_dump_all(built["base"])), "DaemonSet")
    wrong["spec"]["template"]["spec"]["hostPid"] = True
    with pytest.raises(Exception, match="hostPid"):
        validate(wrong, VERSIONS[-1], strict=True)


def test_the_base_is_what_the_chart_gives() -> None:
    command = [sys.executable, str(KUBERNETES / "render_base.py"), str(HELM), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_and_the_chart_s_values_of_its_name_give_the_same(
    overlay: str, built: dict[str, list[Resource]], charted: dict[str, list[Resource]]
) -> None:
    ours = {each["kind"]: each for each in built[overlay] if each["kind"] != "Namespace"}
    theirs = {each["kind"]: each for each in charted[overlay]}
    assert ours.keys() == theirs.keys()
    for kind in ours:
        if kind == "ConfigMap":
            assert config_in([ours[kind]]) == config_in([theirs[kind]])
        else:
            assert _essence(ours[kind]) == _essence(theirs[kind]), kind


def _essence(resource: Resource) -> Resource:
    """What is left without what Helm and kustomize add, and without the order of mounts."""
    essence: Resource = yaml.safe_load(yaml.safe_dump(resource))
    template = essence.get("spec", {}).get("template")
    metadata = [essence["metadata"], *([template["metadata"]] if template else [])]
    for each in metadata:
        for label in ("instance", "version", "managed-by"):
            each["labels"].pop(f"app.kubernetes.io/{label}", None)
        each["labels"].pop("helm.sh/chart", None)
        each.get("annotations", {}).pop("checksum/config", None)
    if template:
        for volume in template["spec"]["volumes"]:
            if "configMap" in volume:
                volume["configMap"]["name"] = volume["configMap"]["name"].rpartition("-config")[0]
        template["spec"]["volumes"].sort(key=lambda volume: volume["name"])
        for container in containers_of(template["spec"]):
            container["volumeMounts"].sort(key=lambda mount: mount["mountPath"])
    return essence


def test_the_configurations_are_fit_for_the_daemon(
    built: dict[str, list[Resource]], charted: dict[str, list[Resource]]
) -> None:
    for found in [*built.values(), *charted.values()]:
        settings = load_settings(of_kind(found, "ConfigMap")["data"]["config.toml"])
        (spec,) = [spec for name, spec in pod_specs(found) if name == "DaemonSet/snapsync"]
        (snapd,) = spec["containers"]
        mounted = {mount["mountPath"] for mount in snapd["volumeMounts"]}
        assert settings.cache.directory in mounted
        assert str(Path(settings.daemon.socket).parent) in mounted
        assert str(Path(settings.daemon.listen_token_file).parent) in mounted
        (port,) = snapd["ports"]
        assert settings.daemon.listen == f"0.0.0.0:{port['containerPort']}"
        assert settings.daemon.grace_seconds < spec["terminationGracePeriodSeconds"] - 5


def test_values_become_the_configuration(charted: dict[str, list[Resource]]) -> None:
    settings = load_settings(of_kind(charted["plain"], "ConfigMap")["data"]["config.toml"])
    assert settings.transfer.attempts_max == 3
    assert settings.transfer.connect_timeout_seconds == 2.5
    assert settings.cache.kubelet_directory == "/var/lib/k0s/kubelet"
    hook = ("/bin/true",)
    assert settings.follows == (
        FollowSettings(
            "iris_clf@production", "/srv/models/iris_clf", "s3://ml/store", 5.0, hook=hook
        ),
    )
    (spec,) = [spec for name, spec in pod_specs(charted["plain"]) if name == "DaemonSet/snapsync"]
    assert {"name": "follow", "mountPath": "/srv/models"} in spec["containers"][0]["volumeMounts"]
    settings = load_settings(of_kind(charted["on-premises"], "ConfigMap")["data"]["config.toml"])
    assert settings.stores[0].endpoint_url == "https://s3.example.org:9000"
    assert settings.daemon.pulls_running_max == 8


def test_values_that_make_no_sense_are_refused() -> None:
    for words in (
        ["--set", "config.demon.stores={a}"],
        ["--set", "imgae.tag=x"],
        ["--set", "user=0"],
        ["--set", "image.digest=latest"],
        ["--set", "paths.state=relative"],
        ["--set", "follow[0].ref=iris@production"],
        ["--set", "follow[0].ref=iris@production,follow[0].dest=/srv/models/x,follow[0].pol=1"],
    ):
        done = ran(HELM, "template", "snapsync", CHART, *words)
        assert done.returncode != 0, words
        assert "values don't meet" in done.stderr
    outside = "follow[0].ref=iris@production,follow[0].dest=/srv/iris"
    done = ran(HELM, "template", "snapsync", CHART, "--set", outside)
    assert "does not lie below paths.follow" in done.stderr


def test_the_schema_of_the_values_knows_every_section_of_the_configuration() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert set(schema["properties"]["config"]["properties"]) == {*SECTIONS, "store"}


@pytest.mark.parametrize("values", [[], *(["--values", str(path)] for path in VALUES)])
def test_helm_has_nothing_against_the_chart(values: list[str]) -> None:
    done = ran(HELM, "lint", "--strict", CHART, *values)
    assert done.returncode == 0, done.stdout + done.stderr


def test_another_configuration_restarts_the_daemons(charted: dict[str, list[Resource]]) -> None:
    def checksum(found: list[Resource]) -> str:
        metadata = of_kind(found, "DaemonSet")["spec"]["template"]["metadata"]
        return str(metadata["annotations"]["checksum/config"])

    assert checksum(charted["defaults"]) != checksum(charted["eks"])


def test_the_daemon_has_no_privilege_but_those_that_were_asked_for(
    built: dict[str, list[Resource]],
) -> None:
    for name, found in built.items():
        spec = of_kind(found, "DaemonSet")["spec"]["template"]["spec"]
        trusted = name == "on-premises"
        assert spec.get("hostPID", False) is trusted
        assert "hostNetwork" not in spec
        assert not spec["automountServiceAccountToken"]
        pod = spec["securityContext"]
        assert pod["runAsNonRoot"]
        assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod.get("supplementalGroups", []) == ([0] if trusted else [])
        contexts = {each["name"]: each["securityContext"] for each in containers_of(spec)}
        root = contexts.pop("prepare")
        assert (root["runAsUser"], root["capabilities"]) == (0, {"drop": ["ALL"], "add": ["CHOWN"]})
        assert all(context == CONFINED for context in contexts.values())
        written = [
            volume["hostPath"]["path"]
            for volume in spec["volumes"]
            if "hostPath" in volume and not _read_only(spec, volume["name"])
        ]
        assert written == ["/var/lib/snapsync", "/run/snapsync"]


def _read_only(spec: dict[str, Any], volume: str) -> bool:
    return all(
        mount.get("readOnly", False)
        for container in containers_of(spec)
        for mount in container["volumeMounts"]
        if mount["name"] == volume
    )


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_examples_keep_to_what_they_show(path: Path) -> None:
    specs = list(pod_specs(resources(path.read_text())))
    assert specs
    for name, spec in specs:
        assert spec["securityContext"]["runAsNonRoot"], name
        assert spec["securityContext"]["runAsUser"] != 10001, "the daemon's user administers"
        assert 10001 in spec["securityContext"]["supplementalGroups"], name
        for container in containers_of(spec):
            context = container["securityContext"]
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            assert not context["allowPrivilegeEscalation"], name
        assert all(
            _read_only(spec, volume["name"]) for volume in spec["volumes"] if "hostPath" in volume
        )
        data = spec["initContainers"][0]
        assert data["args"][0] == "snapctl"
        names = {variable["name"] for variable in data.get("env", [])}
        assert "SNAPSYNC_TERMINATION_LOG" in names or "envFrom" in data


def test_the_examples_words_are_those_of_the_command_line() -> None:
    for path in EXAMPLES:
        for _, spec in pod_specs(resources(path.read_text())):
            command = spec["initContainers"][0]["args"]
            done = ran(Path(sys.executable).parent / command[0], *command[1:], "--help")
            assert done.returncode == 0, (path, done.stderr)
