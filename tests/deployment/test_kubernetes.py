"""docker/kubernetes: what kustomize makes of it, held against the API's schemas and against itself."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes_validate import SchemaNotFoundError, validate

from image_variables import state_is_writable
from vllm_vlinders.settings import load_settings

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docker" / "kubernetes"
OVERLAYS = ("one-gpu", "data-parallel", "replicas", "kuberay")
ALL = ("base", *(f"overlays/{name}" for name in OVERLAYS))
RELEASES = ("1.31", "1.34", "1.37")
UNKNOWN_TO_THE_API = {"ServiceMonitor", "InferencePool", "HTTPRoute", "RayJob"}
"""Custom resources: no schema of theirs is at hand."""


@cache
def build(folder: str) -> list[dict[str, Any]]:
    """Return what kustomize makes of a folder."""
    found = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "kubectl.py")], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    command = [found.stdout.strip(), "kustomize", str(FOLDER / folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "deprecated" not in done.stderr
    return [dict(document) for document in yaml.safe_load_all(done.stdout)]


def of_kind(folder: str, kind: str, name: str = "vlinders") -> dict[str, Any]:
    (found,) = (one for one in build(folder) if (one["kind"], one["metadata"]["name"]) == (kind, name))
    return found


def pod_templates(folder: str) -> list[dict[str, Any]]:
    """Return every template of a Pod, wherever it stands."""
    found: list[dict[str, Any]] = []

    def walk(value: object) -> None:
        if isinstance(value, dict):
            if "containers" in value.get("spec", {}):
                found.append(value)
            for inner in value.values():
                walk(inner)
        elif isinstance(value, list):
            for inner in value:
                walk(inner)

    walk(build(folder))
    return found


def servers(folder: str) -> list[dict[str, Any]]:
    """Return the containers of our image."""
    containers = [one for template in pod_templates(folder) for one in template["spec"]["containers"]]
    found = [one for one in containers if one["image"].startswith("vllm-vlinders:")]
    assert found
    return found


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("folder", ALL)
def test_the_api_accepts_it(folder: str, release: str) -> None:
    for resource in build(folder):
        try:
            validate(resource, release, strict=True)
        except SchemaNotFoundError:
            assert resource["kind"] in UNKNOWN_TO_THE_API


@pytest.mark.parametrize("folder", ALL)
def test_all_is_in_one_namespace_and_every_reference_is_to_something(folder: str) -> None:
    resources = build(folder)
    names = {(one["kind"], one["metadata"]["name"]) for one in resources}

    assert {one["metadata"].get("namespace", "vlinders") for one in resources} == {"vlinders"}
    for template in pod_templates(folder):
        spec = template["spec"]
        for volume in spec["volumes"]:
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in names
            if "persistentVolumeClaim" in volume:
                assert ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]) in names
        if "serviceAccountName" in spec:
            assert ("ServiceAccount", spec["serviceAccountName"]) in names
        for container in spec["containers"]:
            mounted = {mount["name"] for mount in container["volumeMounts"]}
            assert mounted == {volume["name"] for volume in spec["volumes"]}


@pytest.mark.parametrize("folder", ALL)
def test_selectors_find_the_pods(folder: str) -> None:
    labels = [template["metadata"]["labels"] for template in pod_templates(folder)]
    labels += [one | {"ray.io/node-type": "head"} for one in labels]  # as KubeRay labels them

    def finds(selector: dict[str, str]) -> bool:
        return any(selector.items() <= one.items() for one in labels)

    for resource in build(folder):
        spec = resource.get("spec", {})
        selector = spec.get("podSelector") or spec.get("selector")
        if selector and resource["kind"] != "ServiceMonitor":
            assert finds(selector.get("matchLabels", selector)), resource["kind"]


@pytest.mark.parametrize("folder", ALL)
def test_a_disruption_budget_is_for_a_controller_that_kubernetes_can_count(folder: str) -> None:
    """With maxUnavailable, Pods of one without the scale subresource can never be evicted."""
    deployments = [one for one in build(folder) if one["kind"] == "Deployment"]
    labels = [one["spec"]["template"]["metadata"]["labels"] for one in deployments]
    budgets = [one["spec"] for one in build(folder) if one["kind"] == "PodDisruptionBudget"]

    assert len(budgets) == len([one for one in deployments if one["metadata"]["name"] == "vlinders"])
    for budget in budgets:
        assert budget["maxUnavailable"] == 1
        assert any(budget["selector"]["matchLabels"].items() <= one.items() for one in labels)


@pytest.mark.parametrize("folder", ALL)
def test_pods_are_restricted(folder: str) -> None:
    for template in pod_templates(folder):
        labels = template["metadata"]["labels"]
        assert (
            labels["app.kubernetes.io/component"] == "gateway" or not template["spec"]["enableServiceLinks"]
        )
        assert template["spec"]["securityContext"]["runAsNonRoot"] is True
        assert template["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in template["spec"]["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert "limits" in container["resources"]
            for variable in container["env"]:  # secrets are named, never written
                assert "value" not in variable or not variable["name"].startswith(("KEYS", "QUOTAS", "HF"))


@pytest.mark.parametrize("folder", ALL)
def test_settings_are_settings(folder: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (data,) = (one["data"] for one in build(folder) if "vlinders.yaml" in one.get("data", {}))
    (tmp_path / "vlinders.yaml").write_text(data["vlinders.yaml"])
    monkeypatch.setenv("VLINDERS_CONFIG", str(tmp_path / "vlinders.yaml"))

    settings = load_settings()

    assert settings.auth is not None
    open_paths = {"/health", "/ping"} | ({"/metrics"} if folder == "overlays/replicas" else set())
    assert set(settings.auth.open_paths) == open_paths
    assert settings.auth.keys is not None
    keys = settings.auth.keys
    references = {keys.store, keys.pepper, settings.quotas.backend, settings.usage.store}
    for container in servers(folder):
        assert references <= {f"env:{variable['name']}" for variable in container["env"]}


@pytest.mark.parametrize("folder", ALL)
def test_usage_can_be_kept(folder: str) -> None:
    for container in servers(folder):
        given = {one["name"]: one["value"] for one in container["env"] if "value" in one}
        mounts = container["volumeMounts"]
        writable = {mount["mountPath"] for mount in mounts if not mount.get("readOnly")}
        assert state_is_writable(given, writable)


@pytest.mark.parametrize(
    "folder", ["base", "overlays/one-gpu", "overlays/data-parallel", "overlays/replicas"]
)
def test_there_is_time_to_drain(folder: str) -> None:
    spec = of_kind(folder, "Deployment")["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    (data,) = (one["data"] for one in build(folder) if "vllm.yaml" in one.get("data", {}))
    drain = yaml.safe_load(data["vllm.yaml"])["shutdown-timeout"]
    leave = int(container["lifecycle"]["preStop"]["exec"]["command"][1])

    assert spec["terminationGracePeriodSeconds"] >= leave + drain + 15
    assert drain >= 60


def test_probes_are_those_of_the_docs() -> None:
    (container,) = of_kind("base", "Deployment")["spec"]["template"]["spec"]["containers"]

    assert container["startupProbe"]["exec"]["command"] == ["vlinders", "verify", "http://127.0.0.1:8000"]
    for name in ("livenessProbe", "readinessProbe"):
        assert container[name]["httpGet"] == {"path": "/health", "port": "http"}


def test_gpus() -> None:
    def gpus(folder: str) -> str:
        (container,) = of_kind(folder, "Deployment")["spec"]["template"]["spec"]["containers"]
        return str(container["resources"]["limits"]["nvidia.com/gpu"])

    assert (gpus("overlays/one-gpu"), gpus("overlays/data-parallel"), gpus("overlays/replicas")) == (
        "1",
        "4",
        "1",
    )
    (container,) = of_kind("overlays/data-parallel", "Deployment")["spec"]["template"]["spec"]["containers"]
    assert "--data-parallel-size=4" in container["args"]
    assert container["args"][:2] == ["Qwen/Qwen2.5-0.5B-Instruct", "--config=/etc/vlinders/vllm.yaml"]


def test_the_autoscaler_goes_by_what_people_wait_for() -> None:
    scaler = of_kind("overlays/replicas", "HorizontalPodAutoscaler")["spec"]
    values = yaml.safe_load((FOLDER / "components/autoscaling/adapter-values.yaml").read_text())
    served = {rule["name"]["as"] for rule in values["rules"]["custom"]}

    assert {metric["type"] for metric in scaler["metrics"]} == {"Pods"}
    assert {metric["pods"]["metric"]["name"] for metric in scaler["metrics"]} == served
    assert "replicas" not in of_kind("overlays/replicas", "Deployment")["spec"]


def test_what_the_adapter_asks_prometheus_is_promql(tmp_path: Path) -> None:
    values = yaml.safe_load((FOLDER / "components/autoscaling/adapter-values.yaml").read_text())
    filled = {"GroupBy": "pod", "LabelMatchers": 'namespace="vlinders",pod=~"a|b"'}
    rules = []
    for rule in values["rules"]["custom"]:
        query = rule["metricsQuery"]
        for name, text in {**filled, "Series": rule["seriesQuery"].partition("{")[0]}.items():
            query = query.replace(f"<<.{name}>>", text)
        assert "<<" not in query
        rules.append({"record": rule["name"]["as"], "expr": query})
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "adapter", "rules": rules}]}))

    done = subprocess.run(
        ["promtool", "check", "rules", str(path)], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("folder", ["overlays/one-gpu", "overlays/replicas"])
def test_the_rules_ask_for_the_job_that_the_monitor_names(folder: str) -> None:
    """Without a name of its own a job is called as the Service is."""
    asked = set(re.findall(r'job="(\w+)"', (ROOT / "docker" / "prometheus" / "rules.yml").read_text()))
    endpoints = of_kind(folder, "ServiceMonitor")["spec"]["endpoints"]

    assert len(asked) == 1
    for endpoint in endpoints:
        changes = {one["targetLabel"]: one["replacement"] for one in endpoint.get("relabelings", ())}
        assert {changes.get("job")} == asked


def test_ray_s_nodes_have_our_image_and_settings() -> None:
    cluster = of_kind("overlays/kuberay", "RayJob")["spec"]["rayClusterSpec"]
    templates = [cluster["headGroupSpec"]["template"], cluster["workerGroupSpecs"][0]["template"]]

    images = {container["image"] for one in templates for container in one["spec"]["containers"]}
    assert images == {"vllm-vlinders:0.1.0-vllm0.32.0"}
    assert not any(one["kind"] == "Deployment" for one in build("overlays/kuberay"))
