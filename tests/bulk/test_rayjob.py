"""The manifest for KubeRay says what the command and the pins say."""

import re
import shlex
from pathlib import Path
from typing import Any

import yaml

from scripts import score_many

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "k8s" / "bulk"
JOB: dict[str, Any] = yaml.safe_load((FOLDER / "rayjob.yaml").read_text(encoding="utf-8"))
CLUSTER = JOB["spec"]["rayClusterSpec"]
PODS = [CLUSTER["headGroupSpec"]["template"]["spec"], *(group["template"]["spec"] for group in CLUSTER["workerGroupSpecs"])]
SUBMITTER = JOB["spec"]["submitterPodTemplate"]["spec"]


def test_its_command_is_one_that_the_script_takes() -> None:
    words = shlex.split(JOB["spec"]["entrypoint"])
    assert words[:3] == ["python", "-m", "scripts.score_many"]
    args = score_many.parse(words[3:])
    assert (args.address, args.workers) == ("auto", None)
    mounted = {mount["mountPath"] for pod in PODS for mount in pod["containers"][0]["volumeMounts"]}
    assert {f"/{args.photos.split('/')[1]}", f"/{args.output.split('/')[1]}"} <= mounted
    assert f"COPY model_store/${{ARCHIVE}} {args.archive.relative_to('/opt/petclf')}" in (FOLDER / "Dockerfile").read_text(
        encoding="utf-8"
    )


def test_its_ray_is_the_pinned_one() -> None:
    [pinned] = re.findall(r"^ray\[data\]==(.*)$", (ROOT / "requirements-bulk.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert CLUSTER["rayVersion"] == pinned


def test_every_node_sees_photos_and_answers_and_has_no_rights() -> None:
    for pod in (*PODS, SUBMITTER):
        [container] = pod["containers"]
        assert container["image"] == "petclf-bulk:local"
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        assert {"requests", "limits"} == set(container["resources"])
        assert (pod["securityContext"]["runAsNonRoot"], pod["automountServiceAccountToken"]) == (True, False)
    volumes = [{volume["name"] for volume in pod["volumes"]} for pod in PODS]
    assert volumes == [{"photos", "answers", "memory"}] * len(PODS)


def test_the_image_holds_every_package_that_the_command_imports() -> None:
    ignored = (FOLDER / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    copied = set(re.findall(r"^COPY (\w+) \1$", (FOLDER / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE))
    assert copied == {"handler", "bulk", "operate", "serving"}
    assert {f"!{name}" for name in copied} <= set(ignored)
