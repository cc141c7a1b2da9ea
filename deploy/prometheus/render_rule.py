"""Write prometheusrule.yaml: rules.yml as the Prometheus operator wants it.

python deploy/prometheus/render_rule.py
"""

from __future__ import annotations

from pathlib import Path
from textwrap import indent

HERE = Path(__file__).parent
HEAD = """\
# Written by render_rule.py from rules.yml; change that.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: snapsync
  namespace: snapsync
  labels:
    app.kubernetes.io/name: snapsync
spec:
"""


def rendered() -> str:
    """Put the groups of the rules, comments and all, below `spec`."""
    text = (HERE / "rules.yml").read_text(encoding="utf-8")
    return HEAD + indent(text[text.index("groups:") :], "  ")


if __name__ == "__main__":
    (HERE / "prometheusrule.yaml").write_text(rendered(), encoding="utf-8")
