"""Render the kustomize base from the Helm chart: `render_base.py [HELM]`; `--check` only compares.

The chart is the one source. The base has its resources as they are with the chart's own values, one
file each, and the configuration as a file, so that kustomize names its ConfigMap by its content.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

HERE = Path(__file__).resolve().parent
CHART = HERE.parent / "helm" / "snapsync"
BASE = HERE / "base"
HEADING = "# Made from deploy/helm/snapsync by `make manifests`: change it there.\n"
_SOURCE = re.compile(r"# Source: snapsync/templates/([a-z]+\.yaml)\n")
_CONFIG = re.compile(r"  config\.toml: \|\n((?:    .*\n|\n)*)")


def rendered(helm: str) -> dict[str, str]:
    """Render the files of the base that are made, by name."""
    command = [helm, "template", "snapsync", str(CHART), "--namespace", "snapsync"]
    command += ["--set", "helmMetadata=false"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    files = {}
    for part in text.split("---\n"):
        found = _SOURCE.match(part)
        if found is None:
            continue
        name, body = found.group(1), part[found.end() :]
        if name == "configmap.yaml":
            files["config.toml"] = HEADING + _config_of(body)
        else:
            files[name] = HEADING + body.strip("\n") + "\n"
    return files


def _config_of(configmap: str) -> str:
    found = _CONFIG.search(configmap)
    if found is None:
        raise ValueError("the chart's ConfigMap has no config.toml")
    return textwrap.dedent(found.group(1)).strip("\n") + "\n"


def differing(files: Mapping[str, str], base: Path) -> list[str]:
    """Name the files of `base` that are not as they should be."""
    return [
        name
        for name, text in sorted(files.items())
        if not (base / name).is_file() or (base / name).read_text(encoding="utf-8") != text
    ]


def main() -> int:
    """Write the base, or with `--check` compare it; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("helm", nargs="?", default=shutil.which("helm") or "helm")
    parser.add_argument("--check", action="store_true", help="compare and write nothing")
    words = parser.parse_args()
    files = rendered(words.helm)
    different = differing(files, BASE)
    if words.check:
        for name in different:
            sys.stderr.write(f"{BASE / name} is not what the chart gives: run `make manifests`\n")
        return int(bool(different))
    for name in different:
        (BASE / name).write_text(files[name], encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
