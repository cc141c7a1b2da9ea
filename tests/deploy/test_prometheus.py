"""Rules, dashboard, scrape configurations and runbooks: they fit together and to the metrics."""

from __future__ import annotations

import json
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import yaml

from snapctl.app import app
from tests.deploy.rendering import kustomized, of_kind, resources
from tests.servers.prometheus import promtool
from tests.unit.runtime.test_metrics import every_kind, exported

PROJECT = Path(__file__).parents[2]
HERE = PROJECT / "deploy" / "prometheus"
RULES = HERE / "rules.yml"
RUNBOOKS = PROJECT / "docs" / "runbooks"
SUFFIXES = r"(?:_bucket|_sum|_count)?"
ALERTS_ASKED_FOR = {
    "SnapsyncVerificationFailure",
    "SnapsyncDiskNearlyFull",
    "SnapsyncStoreFailing",
    "SnapsyncNoProgress",
    "SnapsyncCredentialsExpiring",
    "SnapsyncDaemonDown",
    "SnapsyncScrubOverdue",
}


def panels() -> list[dict[str, Any]]:
    document = json.loads((HERE / "grafana-dashboard.json").read_text(encoding="utf-8"))
    return [panel for panel in document["panels"] if panel["type"] != "row"]


def expressions() -> Iterator[str]:
    """Give what the dashboard asks, with its variables filled in."""
    for panel in panels():
        for target in panel["targets"]:
            filled = target["expr"].replace("$instance", ".*").replace("$__rate_interval", "1m")
            assert "$" not in filled
            yield filled


def named_in(text: str) -> set[str]:
    """Find the metrics of the daemon that PromQL names, as their families are called."""
    names = set(re.findall(r"(?<![:\w])(?:snapd|process)_[a-z_]+", text))
    return {re.sub(r"(?<=_seconds)_(bucket|sum|count)$", "", name) for name in names}


def recorded() -> set[str]:
    return set(re.findall(r"record: (\S+)", RULES.read_text(encoding="utf-8")))


def alerts() -> dict[str, str]:
    """Name -> runbook."""
    text = RULES.read_text(encoding="utf-8")
    found = re.findall(r"- alert: (\w+)\n.*?runbook_url: (\S+)", text, re.DOTALL)
    assert len(found) == text.count("- alert: ")
    return dict(found)


def test_the_rules_are_valid_and_do_what_they_should() -> None:
    assert "rules found" in promtool("check", "rules", RULES)
    assert "SUCCESS" in promtool("test", "rules", HERE / "rules_test.yml")


def test_every_alert_and_every_record_is_tested() -> None:
    tests = (HERE / "rules_test.yml").read_text(encoding="utf-8")
    fired = set(re.findall(r'ALERTS\{alertname="(\w+)", alertstate="firing", ', tests))
    assert fired == set(alerts())
    assert {name for name in recorded() if f"expr: '{name}" in tests} == recorded()


def test_the_alerts_that_were_asked_for_are_there() -> None:
    assert set(alerts()) >= ALERTS_ASKED_FOR


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    for alert, runbook in alerts().items():
        assert alert in (PROJECT / runbook).read_text(encoding="utf-8").splitlines()[0]
    books = {path.name for path in RUNBOOKS.glob("*.md")} - {"README.md"}
    assert books == {Path(runbook).name for runbook in alerts().values()}
    listed = re.findall(r"\]\((\S+)\)", (RUNBOOKS / "README.md").read_text(encoding="utf-8"))
    assert set(listed) == books


def test_runbooks_name_commands_that_exist() -> None:
    context = click.Context(app)
    known = {name: app.get_command(context, name) for name in app.list_commands(context)}
    for book in RUNBOOKS.glob("*.md"):
        text = book.read_text(encoding="utf-8")
        for name, word in re.findall(r"`snapctl (\w+)(?: (\w+))?", text):
            assert name in known, f"{book.name}: snapctl {name}"
            command = known[name]
            if isinstance(command, click.Group) and word:
                assert command.get_command(context, word), f"{book.name}: snapctl {name} {word}"


def test_rules_and_dashboard_ask_for_metrics_that_exist() -> None:
    text = RULES.read_text(encoding="utf-8") + "\n".join(expressions())
    known = set(exported()) | set(recorded()) | {"process_"}
    unknown = {name for name in named_in(text) if name not in known}
    assert {name for name in unknown if not name.startswith("process_")} == set()
    assert set(re.findall(r"\w+:snapd_[a-z_]+:?\w*", text)) <= recorded()


def test_every_metric_is_on_the_dashboard() -> None:
    asked = "\n".join(expressions())
    behind = "\n".join(
        line for line in RULES.read_text(encoding="utf-8").splitlines() if "alert" not in line
    )
    assert set(exported()) - named_in(asked + behind) == set()


def test_the_dashboard_is_valid_promql(tmp_path: Path) -> None:
    rules = "".join(
        f"    - {{record: panel, labels: {{number: '{number}'}}, expr: {json.dumps(expression)}}}\n"
        for number, expression in enumerate(expressions())
    )
    file = tmp_path / "panels.yml"
    file.write_text(f"groups:\n- name: panels\n  rules:\n{rules}", encoding="utf-8")
    assert "rules found" in promtool("check", "rules", "--lint=none", file)


def test_the_dashboard_is_in_order() -> None:
    document = json.loads((HERE / "grafana-dashboard.json").read_text(encoding="utf-8"))
    numbers = [panel["id"] for panel in document["panels"]]
    assert len(numbers) == len(set(numbers))
    taken: set[tuple[int, int]] = set()
    for panel in document["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, f"{panel['title']} lies on another panel"
        taken |= cells
    for panel in panels():
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert all(target["legendFormat"] for target in panel["targets"])


def test_the_operators_rule_is_the_same_as_the_rules() -> None:
    rendered = runpy.run_path(str(HERE / "render_rule.py"))["rendered"]()
    current = (HERE / "prometheusrule.yaml").read_text(encoding="utf-8")
    assert current == rendered, "run python deploy/prometheus/render_rule.py"


def test_the_scrape_configurations_are_valid(tmp_path: Path) -> None:
    promtool("check", "config", HERE / "prometheus.yml")
    # Debian's build knows no Kubernetes, so the pods come from a file here.
    text = (HERE / "prometheus-kubernetes.yml").read_text(encoding="utf-8")
    discovery = re.search(r" +kubernetes_sd_configs:\n(?: {6,}\S.*\n)+", text)
    assert discovery is not None
    plain = text.replace(discovery[0], "    file_sd_configs: [{files: [pods.yml]}]\n")
    (tmp_path / "prometheus.yml").write_text(plain, encoding="utf-8")
    promtool("check", "config", "--syntax-only", tmp_path / "prometheus.yml")


def test_what_the_daemon_shows_is_clean() -> None:
    body, _ = every_kind().render()
    assert promtool("check", "metrics", given=body.decode()) == ""


def test_the_kustomization_meets_the_daemonset() -> None:
    built = resources(kustomized(HERE))
    daemons = resources(kustomized(PROJECT / "deploy" / "kubernetes" / "base"))
    template = of_kind(daemons, "DaemonSet")["spec"]["template"]
    monitor = of_kind(built, "PodMonitor")["spec"]
    wanted = monitor["selector"]["matchLabels"]
    assert template["metadata"]["labels"].items() >= wanted.items()
    (endpoint,) = monitor["podMetricsEndpoints"]
    ports = [port["name"] for port in template["spec"]["containers"][0]["ports"]]
    assert endpoint["port"] in ports
    volumes = [volume.get("secret", {}) for volume in template["spec"]["volumes"]]
    secret = endpoint["authorization"]["credentials"]
    assert secret["name"] in [volume.get("secretName") for volume in volumes]
    rule = of_kind(built, "PrometheusRule")["spec"]
    named = [
        each["alert"] for group in rule["groups"] for each in group["rules"] if "alert" in each
    ]
    assert named == list(alerts())
    dashboard = of_kind(built, "ConfigMap")
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(dashboard["data"]["grafana-dashboard.json"])["title"] == "snapsync"


def test_scraping_without_the_operator_meets_the_daemonset() -> None:
    text = (HERE / "prometheus-kubernetes.yml").read_text(encoding="utf-8")
    (scrape,) = yaml.safe_load(text)["scrape_configs"]
    assert scrape["job_name"] == "snapd"
    kept = scrape["relabel_configs"][0]
    assert kept["regex"] == "snapsync;metrics"
    daemons = resources(kustomized(PROJECT / "deploy" / "kubernetes" / "base"))
    template = of_kind(daemons, "DaemonSet")["spec"]["template"]
    assert template["metadata"]["labels"]["app.kubernetes.io/name"] == "snapsync"
