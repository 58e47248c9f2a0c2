"""Prometheus' configuration, its rules and the dashboard against the metrics that the code registers."""

import json
import re
import shutil
import subprocess
import sys

import pytest
import yaml
from prometheus_client import REGISTRY

from gateway.metrics import gateway_metrics
from generator_service.metrics import generator_metrics
from retriever_service.metrics import retriever_metrics
from serving.metrics import rpc_metrics

SUFFIXES = {
    "counter": ("_total",),
    "gauge": ("",),
    "histogram": ("_bucket", "_sum", "_count"),
    "info": ("_info",),
}
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")


@pytest.fixture(scope="module")
def registered() -> set[str]:
    """Every series name that the three services export of their own."""
    for service in ("gateway", "retriever", "generator"):
        rpc_metrics(service)
    gateway_metrics(), retriever_metrics(), generator_metrics()
    families = [family for family in REGISTRY.collect() if family.name.startswith("rag_")]
    return {family.name + suffix for family in families for suffix in SUFFIXES[family.type]}


@pytest.fixture
def dashboard(deploy):
    return json.loads((deploy / "grafana/rag-serving.json").read_text())


def expressions(dashboard) -> list[str]:
    return [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]


def metric_names(expression: str) -> set[str]:
    return set(re.findall(r"(?<![\w:])rag_\w+", expression))


def test_the_dashboard_file_is_what_its_program_writes(deploy, dashboard):
    argv = [sys.executable, "-m", "deploy.grafana.dashboard"]
    written = subprocess.run(argv, cwd=deploy.parent, capture_output=True, text=True, check=True).stdout
    assert json.loads(written) == dashboard, "run: python -m deploy.grafana.dashboard > deploy/grafana/rag-serving.json"


def test_the_dashboard_has_its_rows_and_no_panel_overlaps_another(dashboard):
    rows = [panel["title"] for panel in dashboard["panels"] if panel["type"] == "row"]
    assert [row.split()[0] for row in rows] == ["Overview", "Answers", "Stages", "Retriever", "Generator", "Admission"]
    cells = [
        (x, y)
        for panel in dashboard["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_every_panel_asks_only_for_metrics_that_the_services_export(dashboard, registered):
    assert len(expressions(dashboard)) > 30
    for expression in expressions(dashboard):
        names = metric_names(expression)
        assert names or "process_" in expression
        assert names <= registered, expression


def test_every_rule_asks_only_for_metrics_that_the_services_export(deploy, registered):
    groups = yaml.safe_load((deploy / "prometheus/rules.yaml").read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert any("alert" in rule for rule in rules)
    recorded = {rule["record"] for rule in rules if "record" in rule}
    for rule in rules:
        names = metric_names(rule["expr"])
        assert names <= registered
        assert names or recorded & {rule["expr"].split()[0]} or "up{" in rule["expr"]


def test_every_alert_is_tested(deploy):
    groups = yaml.safe_load((deploy / "prometheus/rules.yaml").read_text())["groups"]
    alerts = {rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule}
    tests = yaml.safe_load((deploy / "prometheus/rules_test.yaml").read_text())["tests"]
    raised = {each["alertname"] for test in tests for each in test["alert_rule_test"] if each.get("exp_alerts")}
    assert raised == alerts


def test_prometheus_scrapes_every_service_at_its_metrics_port(deploy, config_classes, manifests):
    scraped = yaml.safe_load((deploy / "prometheus/prometheus.yaml").read_text())["scrape_configs"]
    assert {job["job_name"] for job in scraped} == config_classes.keys()
    for job in scraped:
        (discovery,) = job["dns_sd_configs"]
        name = job["job_name"]
        assert (discovery["names"], discovery["port"]) == ([name], config_classes[name]().metrics_port)
        ports = {port["name"]: port["port"] for port in manifests["Service", name]["spec"]["ports"]}
        assert ports["metrics"] == discovery["port"]


@needs_promtool
@pytest.mark.parametrize(
    "arguments",
    [("check", "config", "prometheus.yaml"), ("check", "rules", "rules.yaml"), ("test", "rules", "rules_test.yaml")],
)
def test_promtool_agrees(deploy, arguments):
    result = subprocess.run(
        ["promtool", *arguments], cwd=deploy / "prometheus", capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
