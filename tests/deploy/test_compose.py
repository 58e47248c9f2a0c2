"""The compose file, and what it mounts into Prometheus and Grafana."""

import importlib.util
import json
import re
from urllib.parse import urlsplit

import pytest
import yaml

from serving.config import load_config

SERVICES = ("gateway", "retriever", "generator")


@pytest.fixture
def compose(deploy):
    return yaml.safe_load((deploy / "compose/compose.yaml").read_text())


@pytest.fixture
def configs(deploy, compose, config_classes):
    """What each service reads from the file that is mounted at the path its command names."""
    read = {}
    for name in SERVICES:
        module, flag, path = compose["services"][name]["command"]
        assert importlib.util.find_spec(f"{module}.__main__") is not None
        assert flag == "--config"
        (source,) = (v.split(":")[0] for v in compose["services"][name]["volumes"] if v.split(":")[1] == path)
        read[name] = load_config(config_classes[name], ["--config", str(deploy / "compose" / source)])
    return read


def test_every_mounted_file_exists_and_every_named_volume_is_declared(deploy, compose):
    used = set()
    for service in compose["services"].values():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (deploy / "compose" / source).exists(), source
                assert volume.endswith(":ro")
            else:
                used.add(source)
    assert used == compose["volumes"].keys()


def test_only_loopback_is_published(compose):
    published = [port for service in compose["services"].values() for port in service.get("ports", ())]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_the_published_port_is_the_gateways(compose, configs):
    assert compose["services"]["gateway"]["ports"] == [f"127.0.0.1:{configs['gateway'].port}:{configs['gateway'].port}"]


def test_the_backends_are_compose_services_at_their_ports(configs):
    for name in ("retriever", "generator"):
        assert getattr(configs["gateway"], name) == f"dns:///{name}:{configs[name].port}"


def test_health_is_asked_at_the_port_that_is_configured(deploy, compose, configs):
    dockerfile = (deploy / "docker/Dockerfile").read_text()
    for name in SERVICES:
        kind, program, script, port = compose["services"][name]["healthcheck"]["test"]
        assert (kind, program, int(port)) == ("CMD", "python", configs[name].port)
        assert f"COPY deploy/docker/healthcheck.py {script}" in dockerfile


def test_a_container_has_longer_to_stop_than_its_service_needs_to_drain(compose, configs):
    for name in SERVICES:
        seconds = int(re.fullmatch(r"(\d+)s", compose["services"][name]["stop_grace_period"])[1])
        assert seconds > configs[name].drain_seconds + configs[name].shutdown_grace_seconds


def test_the_services_run_one_image_that_compose_builds_and_kubernetes_names(compose, manifests):
    images = {compose["services"][name]["image"] for name in SERVICES}
    deployed = {
        manifest["spec"]["template"]["spec"]["containers"][0]["image"]
        for (kind, _), manifest in manifests.items()
        if kind == "Deployment"
    }
    assert images == deployed
    assert len(images) == 1
    assert [name for name in SERVICES if "build" in compose["services"][name]] == ["retriever"]


def test_other_images_are_pinned(compose):
    for service in compose["services"].values():
        assert re.search(r":v?\d+\.\d+\.\d+$", service["image"]), service["image"]


def test_what_a_service_writes_lies_on_a_volume(compose, configs):
    for name, path in (("gateway", configs["gateway"].feedback_path), ("retriever", configs["retriever"].data_dir)):
        assert f"{name}-data:/var/lib/rag" in compose["services"][name]["volumes"]
        assert path.is_relative_to("/var/lib/rag")
        assert compose["services"][name]["read_only"] is True
    for name in ("retriever", "generator"):
        assert configs[name].cache_dir.is_relative_to("/var/cache/rag")
        assert f"{name}-cache:/var/cache/rag" in compose["services"][name]["volumes"]


def test_grafana_is_given_the_dashboard_and_the_prometheus_of_this_file(deploy, compose):
    provisioning = deploy / "grafana/provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources/prometheus.yaml").read_text())["datasources"]
    (provider,) = yaml.safe_load((provisioning / "dashboards/dashboards.yaml").read_text())["providers"]
    address = urlsplit(source["url"])
    assert compose["services"][address.hostname]["ports"] == [f"127.0.0.1:{address.port}:{address.port}"]
    mounted = [volume.split(":")[1] for volume in compose["services"]["grafana"]["volumes"]]
    assert f"{provider['options']['path']}/rag-serving.json" in mounted
    assert "/etc/grafana/provisioning" in mounted
    dashboard = json.loads((deploy / "grafana/rag-serving.json").read_text())
    assert {panel["datasource"]["uid"] for panel in dashboard["panels"] if "datasource" in panel} == {source["uid"]}
