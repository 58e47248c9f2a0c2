"""The Dockerfile and its build context."""

import fnmatch
import importlib.util
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENTRY_POINTS = ("retriever_service", "generator_service", "gateway", "cli")


@pytest.fixture
def dockerfile(deploy) -> str:
    """Without comments, one instruction a line."""
    lines = [line for line in (deploy / "docker/Dockerfile").read_text().splitlines() if not line.startswith("#")]
    return "\n".join(lines).replace("\\\n", "")


@pytest.fixture
def context() -> list[str]:
    """What .dockerignore lets through, by its top-level or nested name."""
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert rules[0] == "*"
    return [rule[1:] for rule in rules if rule.startswith("!")]


def instructions(dockerfile: str, name: str) -> list[str]:
    return [line.split(None, 1)[1] for line in dockerfile.splitlines() if line.startswith(f"{name} ")]


def test_everything_copied_from_the_context_exists_and_is_let_through(dockerfile, context):
    sources = [
        source for copy in instructions(dockerfile, "COPY") if "--from" not in copy for source in copy.split()[:-1]
    ]
    assert {"pyproject.toml", "constraints.txt", "."} <= set(sources)
    for source in sources:
        assert (ROOT / source).exists()
        assert source == "." or source in context
    for name in context:
        assert (ROOT / name).exists(), f".dockerignore names {name}"


def test_the_context_holds_all_that_the_distribution_is_built_from(context):
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = pyproject["tool"]["setuptools"]["packages"]["find"]["include"]
    for pattern in patterns:
        assert fnmatch.filter(context, pattern), f"{pattern} is not in the build context"
    assert pyproject["project"]["readme"] in context
    for licence in pyproject["project"]["license-files"]:
        assert any(licence == name or licence.startswith(f"{name}/") for name in context)


def test_the_entry_points_are_modules_of_the_context(dockerfile, context):
    assert instructions(dockerfile, "ENTRYPOINT") == ['["python", "-m"]']
    for module in ENTRY_POINTS:
        assert module in context
        assert importlib.util.find_spec(f"{module}.__main__") is not None


def test_the_image_runs_as_the_user_that_the_manifests_name_and_keeps_their_paths(dockerfile, manifests):
    user = instructions(dockerfile, "USER")[-1]
    volumes = set(re.findall(r'"([^"]+)"', instructions(dockerfile, "VOLUME")[0]))
    for (kind, _), manifest in manifests.items():
        if kind == "Deployment":
            pod = manifest["spec"]["template"]["spec"]
            context = pod["securityContext"]
            assert f"{context['runAsUser']}:{context['runAsGroup']}" == user
            mounted = {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
            assert mounted <= volumes | {"/tmp", "/etc/rag"}


def test_the_image_exposes_the_default_ports(dockerfile, config_classes):
    exposed = {int(port) for port in instructions(dockerfile, "EXPOSE")[0].split()}
    defaults = [config_class() for config_class in config_classes.values()]
    assert exposed == {port for config in defaults for port in (config.port, config.metrics_port)}


def test_the_image_names_no_package_index_and_sets_no_offline_mode(dockerfile):
    assert 'ARG TORCH_INDEX_URL=""' in dockerfile
    assert "://" not in dockerfile
    assert "HF_HUB_OFFLINE" not in dockerfile
    assert "OMP_WAIT_POLICY=PASSIVE" in dockerfile


def test_the_image_is_tagged_with_the_version_of_the_distribution(manifests):
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    deployments = [manifest for (kind, _), manifest in manifests.items() if kind == "Deployment"]
    images = {each["spec"]["template"]["spec"]["containers"][0]["image"] for each in deployments}
    assert images == {f"rag-serving:{version}"}
