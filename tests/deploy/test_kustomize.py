"""The Kubernetes manifests: valid each, and true of each other and of the services."""

import re
import shutil
import subprocess

import pytest
import yaml

from serving.config import load_config
from serving.health import LIVENESS, READINESS

KUBERNETES_VERSION = "1.33"
NAMES = ("gateway", "retriever", "generator")
kubernetes_validate = pytest.importorskip("kubernetes_validate")
needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")


def pod_of(manifests, name):
    return manifests["Deployment", name]["spec"]["template"]["spec"]


def container_of(manifests, name):
    (container,) = pod_of(manifests, name)["containers"]
    return container


def config_of(manifests, config_classes, name, tmp_path, *flags):
    """What the service reads: its arguments, with the mounted ConfigMap as a file."""
    container, pod = container_of(manifests, name), pod_of(manifests, name)
    _, flag, path = container["args"]
    assert flag == "--config"
    folder, file = path.rsplit("/", 1)
    (mount,) = (mount for mount in container["volumeMounts"] if mount["mountPath"] == folder)
    (volume,) = (volume for volume in pod["volumes"] if volume["name"] == mount["name"])
    content = tmp_path / file
    content.write_text(manifests["ConfigMap", volume["configMap"]["name"]]["data"][file])
    return load_config(config_classes[name], ["--config", str(content), *flags])


def validate(manifest):
    """Raises on what a schema refuses and on a kind that has no schema."""
    kubernetes_validate.validate(manifest, KUBERNETES_VERSION, strict=True)


def test_every_manifest_of_the_base_satisfies_its_schema(manifests):
    assert len(manifests) >= 12
    for manifest in manifests.values():
        validate(manifest)


def test_a_manifest_with_an_unknown_field_or_kind_is_refused(manifests):
    service = manifests["Service", "gateway"]
    with pytest.raises(kubernetes_validate.ValidationError):
        validate(service | {"spec": service["spec"] | {"portz": []}})
    with pytest.raises(kubernetes_validate.SchemaNotFoundError):
        validate(service | {"kind": "NoSuchKind"})


def test_there_are_three_deployments_each_behind_a_headless_service(manifests):
    assert {name for kind, name in manifests if kind == "Deployment"} == set(NAMES)
    for name in NAMES:
        assert manifests["Service", name]["spec"]["clusterIP"] == "None"


def test_every_selector_matches_the_labels_of_its_pods(manifests):
    for name in NAMES:
        deployment = manifests["Deployment", name]["spec"]
        labels = deployment["template"]["metadata"]["labels"].items()
        spreads = deployment["template"]["spec"].get("topologySpreadConstraints", [])
        selectors = [deployment["selector"]["matchLabels"], manifests["Service", name]["spec"]["selector"]]
        selectors += [spread["labelSelector"]["matchLabels"] for spread in spreads]
        for selector in selectors:
            assert selector
            assert selector.items() <= labels
        for other in set(NAMES) - {name}:
            other_labels = manifests["Deployment", other]["spec"]["template"]["metadata"]["labels"]
            assert not selectors[0].items() <= other_labels.items()


def test_disruption_budgets_select_a_deployment_and_let_a_node_be_drained(manifests):
    budgets = [manifest["spec"] for (kind, _), manifest in manifests.items() if kind == "PodDisruptionBudget"]
    assert budgets
    for budget in budgets:
        chosen = [
            manifests["Deployment", name]["spec"]
            for name in NAMES
            if budget["selector"]["matchLabels"].items()
            <= manifests["Deployment", name]["spec"]["template"]["metadata"]["labels"].items()
        ]
        assert len(chosen) == 1
        assert chosen[0]["replicas"] > 1
        assert budget["maxUnavailable"] >= 1


def test_ports_are_the_same_in_service_container_probe_and_configuration(manifests, config_classes, tmp_path):
    for name in NAMES:
        container, config = (
            container_of(manifests, name),
            config_of(manifests, config_classes, name, tmp_path),
        )
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert ports == {"grpc": config.port, "metrics": config.metrics_port}
        service_ports = {port["name"]: port for port in manifests["Service", name]["spec"]["ports"]}
        assert {port["targetPort"]: port["port"] for port in service_ports.values()} == ports
        annotations = manifests["Deployment", name]["spec"]["template"]["metadata"]["annotations"]
        assert annotations["prometheus.io/port"] == str(config.metrics_port)


def test_probes_ask_for_health_services_that_exist(manifests):
    expected = {"startupProbe": LIVENESS, "livenessProbe": LIVENESS, "readinessProbe": READINESS}
    for name in NAMES:
        container = container_of(manifests, name)
        (port,) = (port["containerPort"] for port in container["ports"] if port["name"] == "grpc")
        for probe, service in expected.items():
            assert container[probe]["grpc"] == {"port": port, "service": service}


def test_the_services_accept_their_configuration_and_listen_on_every_interface(manifests, config_classes, tmp_path):
    for name in NAMES:
        assert config_of(manifests, config_classes, name, tmp_path).host == "0.0.0.0"


def test_a_misspelt_setting_in_a_config_map_would_be_noticed(manifests, config_classes, tmp_path, capsys):
    manifests["ConfigMap", "gateway-config"]["data"]["gateway.yaml"] += "\ndrain_secs: 3\n"
    with pytest.raises(SystemExit):
        config_of(manifests, config_classes, "gateway", tmp_path)
    assert "drain_secs" in capsys.readouterr().err


def test_the_gateway_looks_for_its_backends_at_their_services(manifests, config_classes, tmp_path):
    config = config_of(manifests, config_classes, "gateway", tmp_path)
    for name, target in (("retriever", config.retriever), ("generator", config.generator)):
        (port,) = (p["port"] for p in manifests["Service", name]["spec"]["ports"] if p["name"] == "grpc")
        assert target == f"dns:///{name}:{port}"


def test_a_pod_has_longer_to_end_than_its_service_needs_to_drain(manifests, config_classes, tmp_path):
    for name in NAMES:
        config = config_of(manifests, config_classes, name, tmp_path)
        needed = config.drain_seconds + config.shutdown_grace_seconds
        assert pod_of(manifests, name)["terminationGracePeriodSeconds"] > needed


def test_pods_run_without_privileges_on_a_read_only_root(manifests):
    for name in NAMES:
        pod, container = pod_of(manifests, name), container_of(manifests, name)
        assert pod["enableServiceLinks"] is False
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"].keys() == {"requests", "limits"}


def test_what_must_last_is_on_a_claim_and_what_is_cached_on_an_empty_dir(manifests, config_classes, tmp_path):
    expected = [
        ("gateway", "feedback_path", "data"),
        ("retriever", "data_dir", "data"),
        ("retriever", "cache_dir", "cache"),
        ("generator", "cache_dir", "cache"),
    ]
    for name, setting, volume_name in expected:
        volumes = {volume["name"]: volume for volume in pod_of(manifests, name)["volumes"]}
        mounts = {m["mountPath"]: volumes[m["name"]] for m in container_of(manifests, name)["volumeMounts"]}
        written = getattr(config_of(manifests, config_classes, name, tmp_path), setting)
        (volume,) = (volume for path, volume in mounts.items() if written.is_relative_to(path))
        assert volume["name"] == volume_name
        if volume_name == "data":
            claim = manifests["PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]]
            assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
        for scratch in ("/tmp", "/var/cache/rag"):
            assert "emptyDir" in mounts[scratch]


def test_what_one_process_must_own_never_has_two(manifests):
    for (kind, name), manifest in manifests.items():
        if kind == "Deployment" and any("persistentVolumeClaim" in v for v in pod_of(manifests, name)["volumes"]):
            assert manifest["spec"]["replicas"] == 1
            assert manifest["spec"]["strategy"] == {"type": "Recreate"}


@needs_kubectl
def test_kubectl_renders_the_base_as_these_tests_do(deploy, manifests):
    rendered = [(manifest["kind"], unhashed(manifest["metadata"]["name"])) for manifest in kustomize(deploy, "base")]
    assert sorted(rendered) == sorted(manifests)


@needs_kubectl
def test_the_local_overlay_is_valid_and_sets_only_what_the_services_know(deploy, config_classes, monkeypatch):
    rendered = kustomize(deploy, "overlays/local")
    for manifest in rendered:
        validate(manifest)
    deployments = [manifest for manifest in rendered if manifest["kind"] == "Deployment"]
    assert len(deployments) == len(NAMES)
    for deployment in deployments:
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        assert container["image"] == "rag-serving:dev"
        assert deployment["spec"]["replicas"] == 1
        for variable in container.get("env", ()):
            monkeypatch.setenv(variable["name"], variable["value"])
    for config_class in config_classes.values():
        load_config(config_class, [])
    assert load_config(config_classes["gateway"], []).log_level == "debug"


def kustomize(deploy, folder):
    argv = ["kubectl", "kustomize", str(deploy / "kustomize" / folder)]
    return list(yaml.safe_load_all(subprocess.run(argv, capture_output=True, text=True, check=True).stdout))


def unhashed(name):
    """Without the hash of its content that kustomize appends to a ConfigMap's name."""
    return re.sub(r"-[0-9a-z]{10}$", "", name)
