"""What deploy/k8s renders to, and the tools that judge it; `make kubernetes-tools` brings them into build/tools."""

import ast
import functools
import json
import os
import shutil
import subprocess
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
K8S = ROOT / "deploy" / "k8s"
TOOLS = ROOT / "build" / "tools"
HOW = "`make kubernetes-tools` brings it"
OVERLAYS = ["overlays/dev", "overlays/prod", "overlays/gpu", "overlays/canary", "kserve", "training"]
BY_DIGEST = "by digest"  # prod with components/model-by-digest, as docs/kubernetes.md describes it
ARCHIVE_SHA256 = "6dee15717aa3afd85a598b2a64d1905e89c219abe5d3ca815145cd3ad8adf987"
MINORS = ["1.33", "1.34", "1.35"]
CUSTOM = ("gateway.networking.k8s.io/", "keda.sh/", "monitoring.coreos.com/")
KSERVE = "serving.kserve.io/"

Resource = dict[str, Any]


def kubectl() -> str:
    own = TOOLS / "kubectl"
    found = str(own) if own.exists() else shutil.which("kubectl")
    if found is None:
        pytest.skip(f"no kubectl here; {HOW}", allow_module_level=True)
    return found


def run(*command: str | Path, given: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*map(str, command)], input=given, capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )


@functools.cache
def rendered(folder: Path) -> list[Resource]:
    """Return what `kubectl apply -k` would send."""
    result = run(kubectl(), "kustomize", folder)
    assert result.returncode == 0, result.stderr
    return [document for document in yaml.safe_load_all(result.stdout) if document]


def of(name: str, scratch: Path) -> list[Resource]:
    """Return what an overlay renders to, or prod with its archive by digest; `scratch` is a folder for that one."""
    return rendered(K8S / name) if name != BY_DIGEST else rendered(with_archive(scratch, ARCHIVE_SHA256))


def with_archive(folder: Path, digest: str) -> Path:
    """Write an operator's own overlay: prod, with the archive that has this sha256."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "namespace": "petclf",
        "resources": [os.path.relpath(K8S / "overlays" / "prod", folder)],
        "components": [os.path.relpath(K8S / "components" / "model-by-digest", folder)],
        "configMapGenerator": [{"name": "petclf-model", "literals": ["PETCLF_ARCHIVE=/archives/petclf-2.0.0.mar", f"PETCLF_ARCHIVE_SHA256={digest}"]}],
    }  # fmt: skip
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return folder


def the(resources: Iterable[Resource], kind: str, name: str = "petclf") -> Resource:
    [found] = [resource for resource in resources if (resource["kind"], resource["metadata"]["name"]) == (kind, name)]
    return found


def pods(resources: Iterable[Resource]) -> dict[str, tuple[dict[str, str], dict[str, Any]]]:
    """Return the labels and the specification of every pod that these resources lead to, by kind and name."""
    found = {}
    for resource in resources:
        if template := resource.get("spec", {}).get("template"):
            found[f"{resource['kind']} {resource['metadata']['name']}"] = (template["metadata"]["labels"], template["spec"])
    return found


def containers(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return [*spec.get("initContainers", []), *spec["containers"]]


def container(spec: dict[str, Any], name: str) -> dict[str, Any]:
    [found] = [one for one in containers(spec) if one["name"] == name]
    return found


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """Return whether a label selector of Kubernetes takes a pod with these labels; only `In` is known here."""
    assert {rule["operator"] for rule in selector.get("matchExpressions", [])} <= {"In"}
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items()) and all(
        labels.get(rule["key"]) in rule["values"] for rule in selector.get("matchExpressions", [])
    )


# --- judges

VALIDATE = """
import json, sys
import kubernetes_validate
for resource in json.load(sys.stdin):
    try:
        kubernetes_validate.validate(resource, sys.argv[1], strict=True)
    except Exception as error:
        print(resource["kind"], resource["metadata"]["name"], "".join(f"{part}." for part in getattr(error, "path", [])), getattr(error, "message", error))
"""


def mistakes_in_kubernetes_own(resources: list[Resource], minor: str) -> list[str]:
    """Ask the schemas of a Kubernetes release, in which an unknown field is a mistake."""
    python = TOOLS / "k8s" / "bin" / "python"
    if not python.exists():
        pytest.skip(f"no kubernetes-validate here; {HOW}")
    return answered(run(python, "-c", VALIDATE, minor, given=json.dumps(resources)))


def mistakes_in_custom(resources: list[Resource]) -> list[str]:
    """Ask the schemas of the custom resources' own projects."""
    script = TOOLS / "crds" / "check.mjs"
    if not script.exists() or shutil.which("node") is None:
        pytest.skip(f"no schemas of custom resources here; {HOW}")
    if int(run("node", "--version").stdout.lstrip("v").partition(".")[0]) < 20:
        pytest.skip("the schemas of custom resources need Node.js 20 or newer")
    return answered(run("node", script, given=json.dumps(resources)))


def answered(result: subprocess.CompletedProcess[str]) -> list[str]:
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


class KServe:
    """KServe's resources as its Python package describes them: which fields there are, and of which type."""

    def __init__(self) -> None:
        wheels = sorted((TOOLS / "kserve").glob("*.whl"))
        if not wheels:
            pytest.skip(f"no description of KServe's resources here; {HOW}")
        self.models: dict[str, dict[str, str]] = {}
        with zipfile.ZipFile(wheels[-1]) as wheel:
            for name in wheel.namelist():
                if name.startswith("kserve/models/v1"):
                    self.read(ast.parse(wheel.read(name)))

    def read(self, module: ast.Module) -> None:
        for model in (node for node in module.body if isinstance(node, ast.ClassDef)):
            tables = {
                node.targets[0].id: ast.literal_eval(node.value)
                for node in model.body
                if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and isinstance(node.value, ast.Dict)
            }
            types, names = tables["openapi_types"], tables["attribute_map"]
            self.models[model.name] = {names[key]: kind for key, kind in types.items()}

    def mistakes(self, value: Any, kind: str, path: str) -> list[str]:
        """Return what is wrong; types that are Kubernetes's own are left to `kubernetes_types`."""
        if kind.startswith("list["):
            if not isinstance(value, list):
                return [f"{path} is no list"]
            return [found for index, item in enumerate(value) for found in self.mistakes(item, kind[5:-1], f"{path}[{index}]")]
        if kind in self.models:
            known = self.models[kind]
            unknown = [f"{path}.{key} is not known" for key in value if key not in known]
            return unknown + [
                found for key in value if key in known for found in self.mistakes(value[key], known[key], f"{path}.{key}")
            ]
        plain = {"str": str, "int": int, "bool": bool, "dict(str, str)": dict}.get(kind)
        return [f"{path} is no {kind}"] if plain and not isinstance(value, plain) else []


def as_deployment(resource: Resource) -> Resource:
    """Return a Deployment of the pod that a KServe resource describes, for Kubernetes's own schemas to judge its parts."""
    spec = resource["spec"].get("predictor", resource["spec"])
    pod = {"containers", "volumes", "securityContext", "terminationGracePeriodSeconds", "serviceAccountName", "enableServiceLinks",
           "automountServiceAccountToken"}  # fmt: skip
    labels = {"a": "b"}
    template = {
        "metadata": {"labels": labels},
        "spec": {"containers": [{"name": "none"}], **{key: spec[key] for key in pod & spec.keys()}},
    }
    return {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": resource["metadata"]["name"]},
        "spec": {"selector": {"matchLabels": labels}, "template": template},
    }  # fmt: skip
