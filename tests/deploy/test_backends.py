"""Compose files and overlays of the engines that hold collections: valid, and true of what the retriever reads."""

import re
import shutil
import subprocess
from urllib.parse import urlsplit

import pytest
import yaml

from serving.config import load_config

kubernetes_validate = pytest.importorskip("kubernetes_validate")
BACKENDS = {"elasticsearch": 9200, "milvus": 19530}


@pytest.fixture(params=BACKENDS)
def backend(request):
    return request.param


@pytest.fixture
def compose(deploy, backend):
    return yaml.safe_load((deploy / f"compose/{backend}.yaml").read_text())


@pytest.fixture
def overlay(deploy, backend):
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    argv = ["kubectl", "kustomize", str(deploy / "kustomize/overlays" / backend)]
    rendered = yaml.safe_load_all(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
    return {(manifest["kind"], manifest["metadata"]["name"]): manifest for manifest in rendered}


def retriever_config(config_classes, monkeypatch, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return load_config(config_classes["retriever"], [])


def container_of(manifest):
    (container,) = manifest["spec"]["template"]["spec"]["containers"]
    return container


def test_compose_tells_the_retriever_of_the_engine_beside_it(compose, config_classes, monkeypatch, backend):
    variables = compose["services"]["retriever"]["environment"]
    config = retriever_config(config_classes, monkeypatch, variables)
    url = urlsplit(getattr(config, backend).url)
    assert config.backend == backend
    assert (url.hostname, url.port) == (backend, BACKENDS[backend])
    assert compose["services"].keys() == {"retriever", backend}
    assert compose["services"]["retriever"]["depends_on"] == {backend: {"condition": "service_healthy"}}


def test_compose_publishes_nothing_and_pins_images_and_keeps_data(deploy, compose, backend):
    engine = compose["services"][backend]
    assert "ports" not in engine
    assert re.search(r":v?\d+\.\d+\.\d+$", engine["image"])
    sources = {volume.split(":")[0] for volume in engine["volumes"]}
    assert compose["volumes"].keys() <= sources
    for source in sources - compose["volumes"].keys():
        assert (deploy / "compose" / source).exists()


def test_every_manifest_of_the_overlay_satisfies_its_schema(overlay):
    for manifest in overlay.values():
        kubernetes_validate.validate(manifest, "1.33", strict=True)


def test_the_overlays_retriever_reaches_the_engines_service(overlay, config_classes, monkeypatch, backend):
    variables = {
        one["name"]: one.get("value", "secret") for one in container_of(overlay["Deployment", "retriever"])["env"]
    }
    config = retriever_config(config_classes, monkeypatch, variables)
    url = urlsplit(getattr(config, backend).url)
    service, engine = overlay["Service", backend]["spec"], overlay["StatefulSet", backend]
    assert config.backend == backend
    assert url.hostname == backend
    assert url.port in [port["port"] for port in service["ports"]]
    assert service["selector"].items() <= engine["spec"]["template"]["metadata"]["labels"].items()
    names = {port["name"]: port["containerPort"] for port in container_of(engine)["ports"]}
    assert names[service["ports"][0]["targetPort"]] == url.port


def test_retrievers_keep_nothing_and_only_those_that_may_be_are_several(overlay, backend):
    deployment = overlay["Deployment", "retriever"]["spec"]
    assert ("PersistentVolumeClaim", "retriever-data") not in overlay
    assert not any("persistentVolumeClaim" in volume for volume in deployment["template"]["spec"]["volumes"])
    assert (deployment["replicas"] > 1) == (backend == "elasticsearch")  # Milvus has one writer.


def test_passwords_come_from_secrets(overlay):
    for manifest in overlay.values():
        if manifest["kind"] in ("Deployment", "StatefulSet"):
            for variable in container_of(manifest).get("env", ()):
                if re.search("PASSWORD|TOKEN|KEY$", variable["name"]):
                    assert variable["valueFrom"]["secretKeyRef"]["name"]


def test_the_image_is_built_with_the_clients_that_are_named(deploy):
    dockerfile = (deploy / "docker/Dockerfile").read_text()
    assert 'ARG EXTRAS="cpu"' in dockerfile
