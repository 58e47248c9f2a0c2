"""The manifests, rendered from the kustomize base without kubectl."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.config import GatewayConfig
from generator_service.config import GeneratorConfig
from retriever_service.config import RetrieverConfig

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
CONFIG_CLASSES = {"gateway": GatewayConfig, "retriever": RetrieverConfig, "generator": GeneratorConfig}

Manifest = dict[str, Any]


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch):
    for name in os.environ:
        if name.startswith("RAG_"):
            monkeypatch.delenv(name)


@pytest.fixture
def deploy() -> Path:
    return DEPLOY


@pytest.fixture
def config_classes():
    return CONFIG_CLASSES


@pytest.fixture
def manifests() -> dict[tuple[str, str], Manifest]:
    """By kind and name."""
    return {(m["kind"], m["metadata"]["name"]): m for m in render(DEPLOY / "kustomize/base")}


def render(folder: Path) -> list[Manifest]:
    """What `kubectl kustomize` makes of a base, but for patches, common labels and the hashes of ConfigMap names."""
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    rendered: list[Manifest] = []
    for resource in kustomization.get("resources", ()):
        path = (folder / resource).resolve()
        rendered += render(path) if path.is_dir() else list(yaml.safe_load_all(path.read_text()))
    for generator in kustomization.get("configMapGenerator", ()):
        data = {name: (folder / name).read_text() for name in generator["files"]}
        metadata = {"name": generator["name"]}
        rendered.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})
    tags = {image["name"]: image["newTag"] for image in kustomization.get("images", ())}
    for manifest in rendered:
        if manifest["kind"] == "Deployment":
            for container in manifest["spec"]["template"]["spec"]["containers"]:
                tag = tags.get(container["image"])
                container["image"] += f":{tag}" if tag else ""
    return rendered
