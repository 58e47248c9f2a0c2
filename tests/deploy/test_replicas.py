"""The overlay with read replicas: valid, and its parts name each other."""

import shutil
import subprocess

import pytest
import yaml

from serving.config import load_config

kubernetes_validate = pytest.importorskip("kubernetes_validate")
pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")


@pytest.fixture(scope="module")
def rendered():
    argv = ["kubectl", "kustomize", "deploy/kustomize/overlays/replicas"]
    output = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    return {(one["kind"], one["metadata"]["name"]): one for one in yaml.safe_load_all(output)}


def pod_of(rendered, kind, name):
    return rendered[kind, name]["spec"]["template"]["spec"]


def config_of(rendered, config_classes, kind, name, tmp_path, monkeypatch, config):
    """What a service reads: its ConfigMap and its environment."""
    pod = pod_of(rendered, kind, name)
    (container,) = pod["containers"]
    (volume,) = (one for one in pod["volumes"] if one["name"] == "config")
    path = tmp_path / f"{config}.yaml"
    path.write_text(rendered["ConfigMap", volume["configMap"]["name"]]["data"][f"{config}.yaml"])
    with monkeypatch.context() as patch:
        for variable in container.get("env", ()):
            patch.setenv(variable["name"], variable["value"])
        return load_config(config_classes[config], ["--config", str(path)])


def test_every_manifest_satisfies_its_schema(rendered):
    for manifest in rendered.values():
        kubernetes_validate.validate(manifest, "1.33", strict=True)


def test_readers_follow_where_the_writer_publishes_and_everybody_knows_the_writer(
    rendered, config_classes, tmp_path, monkeypatch
):
    places = [("StatefulSet", "retriever-writer", "retriever"), ("Deployment", "retriever", "retriever")]
    writer, reader, gateway = (
        config_of(rendered, config_classes, kind, name, tmp_path, monkeypatch, config)
        for kind, name, config in [*places, ("Deployment", "gateway", "gateway")]
    )
    assert writer.publish_to == reader.follow != ""
    assert reader.publish_to == writer.follow == ""
    assert writer.writer_address == gateway.retriever_writer == "dns:///retriever-writer:50051"
    assert gateway.retriever == "dns:///retriever:50051"
    for kind, name, _ in places:
        spec = rendered["Service", name]["spec"]
        assert spec["clusterIP"] == "None"
        assert spec["selector"].items() <= rendered[kind, name]["spec"]["template"]["metadata"]["labels"].items()
        assert {port["port"] for port in spec["ports"]} >= {50051}


def test_the_writer_is_alone_with_its_claim_and_readers_scale_without_one(rendered):
    writer, readers = rendered["StatefulSet", "retriever-writer"]["spec"], rendered["Deployment", "retriever"]["spec"]
    assert writer["replicas"] == 1
    assert [claim["metadata"]["name"] for claim in writer["volumeClaimTemplates"]] == ["data"]
    assert ("PersistentVolumeClaim", "retriever-data") not in rendered
    assert not any("persistentVolumeClaim" in one for one in readers["template"]["spec"]["volumes"])
    assert "replicas" not in readers
    scaler = rendered["HorizontalPodAutoscaler", "retriever"]["spec"]
    assert scaler["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "retriever"}
    assert scaler["minReplicas"] >= 2
    assert readers["strategy"]["type"] == "RollingUpdate"


def test_the_writer_differs_from_a_reader_in_environment_and_volume_alone(rendered):
    writer, reader = pod_of(rendered, "StatefulSet", "retriever-writer"), pod_of(rendered, "Deployment", "retriever")
    for pod in (writer, reader):
        (container,) = pod["containers"]
        assert container.pop("env")
        assert container.pop("envFrom") == [{"secretRef": {"name": "replica-store"}}]
        pod["volumes"] = [one for one in pod["volumes"] if one["name"] != "data"]
        pod.pop("topologySpreadConstraints", None)
    assert writer == reader
