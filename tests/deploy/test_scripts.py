"""What the deployment's scripts refuse before they touch anything, and how Kubernetes is asked; tests/container deploys for real."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.tooling.standin import StandIns

ROOT = Path(__file__).parents[2]
DIGESTS = {"petclf": "sha256:" + "a" * 64, "petclf-gateway": "sha256:" + "b" * 64}
COMMIT = "0123456789" * 4
IMAGES = {"IMAGE": f"ghcr.io/o/petclf:{COMMIT}", "GATEWAY_IMAGE": f"ghcr.io/o/petclf-gateway:{COMMIT}", "COMMIT": COMMIT}
USED = "".join(f"        image: ghcr.io/o/{name}@{digest}\n" for name, digest in DIGESTS.items())
PASSED, REVISION = "petclf\\.example\\.org/passed-revision", "deployment\\.kubernetes\\.io/revision"


def run(script: str, folder: Path, path: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": path, "HOME": str(folder), **settings}
    command = ["bash", str(ROOT / "deploy" / script)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({}, "IMAGE is not set; docs/deployment.md says what it is"),
        ({"IMAGE": "a:b"}, "DEPLOY_HOST is not set; docs/deployment.md says what it is"),
        ({"IMAGE": "a:b", "DEPLOY_HOST": "u@h"}, "DEPLOY_KNOWN_HOSTS is not set; docs/deployment.md says what it is"),
        ({"IMAGE": "a:b'; reboot #", "DEPLOY_HOST": "u@h", "DEPLOY_KNOWN_HOSTS": "h k"},
         "'a:b'; reboot #' has a character that no image, commit, folder or user has"),
        ({"IMAGE": "a:b", "DEPLOY_HOST": "u@h", "DEPLOY_KNOWN_HOSTS": "h k", "DEPLOY_FOLDER": "$(id)"},
         "'$(id)' has a character that no image, commit, folder or user has"),
    ],
)  # fmt: skip
def test_a_compose_host_is_not_asked_what_is_not_clear(tmp_path: Path, settings: dict[str, str], reason: str) -> None:
    commands = StandIns(tmp_path / "bin", "ssh")
    result = run("to-compose-host", tmp_path, commands.path(), **settings)
    assert (result.returncode, result.stderr) == (2, f"to-compose-host: error: {reason}\n")
    assert commands.calls() == []


@pytest.mark.parametrize(
    ("arguments", "settings", "reason"),
    [
        ([], {}, "name the image: compose-host IMAGE [GATEWAY_IMAGE]"),
        (["a:b"], {}, "no docker-compose.yml in"),
        (["a:b"], {"PETCLF_IMAGE": "r/petclf@sha256:12"}, "must be names with a tag, such as petclf:live; this moves the tag"),
    ],
)
def test_a_host_refuses_a_wrong_command(tmp_path: Path, arguments: list[str], settings: dict[str, str], reason: str) -> None:
    commands = StandIns(tmp_path / "bin", "docker")
    if settings:
        (tmp_path / "docker-compose.yml").touch()
    result = subprocess.run(
        ["bash", str(ROOT / "deploy" / "compose-host"), *arguments], cwd=tmp_path, env={"PATH": commands.path(), **settings},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 2
    assert result.stderr.startswith("compose-host: error: ")
    assert reason in result.stderr
    assert [call for call in commands.calls() if call[:3] != ["docker", "compose", "version"]] == []


def test_a_deployment_says_where_to() -> None:
    result = subprocess.run(["make", "deploy", "DEPLOY_TO=moon"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr.startswith("error: DEPLOY_TO is 'moon'; write compose or kubernetes\n")


class Cluster:
    """A project with an overlay, a cluster that answers as told, and a smoke test that passes or not."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.commands = StandIns(folder / "bin", "kubectl", "docker")
        overlay = folder / "deploy" / "k8s" / "overlays" / "prod"
        overlay.mkdir(parents=True)
        (overlay / "kustomization.yaml").write_text("namespace: pets # of ours\nresources: [../../base]\n", encoding="utf-8")
        (folder / "scripts").mkdir()

    def deploy(
        self, *answers: tuple[str, dict[str, object]], revisions: list[str], passed: str = "", smoke: int = 0
    ) -> tuple[int, str]:
        self.commands.answer(
            *answers,
            (PASSED, {"out": passed}),
            (REVISION, {"out": revisions}),
            ("kubectl kustomize", {"out": USED}),
            ("port-forward", {"out": "Forwarding from 127.0.0.1:40123 -> 8080", "seconds": 60}),
            *((f'.RepoDigests "\\n"}}}} ghcr.io/o/{name}:', {"out": f"other/{name}@sha256:c\nghcr.io/o/{name}@{digest}"}) for name, digest in DIGESTS.items()),
            ("org.opencontainers.image.revision", {"out": COMMIT}),
        )  # fmt: skip
        (self.folder / "scripts" / "smoke_test.py").write_text(
            f"import sys; print(sys.argv[1:]); sys.exit({smoke})", encoding="utf-8"
        )
        result = run("to-kubernetes", self.folder, self.commands.path(), **IMAGES)
        return result.returncode, result.stderr

    def done(self) -> list[str]:
        """Return what the cluster was told to do, in order."""
        told = [" ".join(call[1:]) for call in self.commands.calls() if call[0] == "kubectl"]
        return [
            line
            for line in told
            if any(f" {word} " in f" {line} " for word in ("apply", "status", "undo", "annotate", "port-forward"))
        ]


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path)


APPLY = "apply --kustomize build/deploy-kubernetes"
STATUS = "--namespace pets rollout status deployment/petclf --timeout=10m"
FORWARD = "--namespace pets port-forward service/petclf :8080"


def undo(revision: str) -> str:
    return f"--namespace pets rollout undo deployment/petclf --to-revision={revision}"


def remember(revision: str) -> str:
    return f"--namespace pets annotate deployment petclf --overwrite petclf.example.org/passed-revision={revision}"


def test_images_go_live_by_their_digests_and_what_passed_is_remembered(cluster: Cluster) -> None:
    code, said = cluster.deploy(revisions=["3", "4"], passed="3")
    assert code == 0, said
    assert cluster.done() == [APPLY, STATUS, FORWARD, remember("4")]
    assert "['http://127.0.0.1:40123', '--wait', '60']" in said
    assert (cluster.folder / "build" / "deploy-kubernetes" / "kustomization.yaml").read_text(encoding="utf-8").splitlines()[
        2:
    ] == [
        "resources: [../../deploy/k8s/overlays/prod]",
        "images:",
        *(f'  - {{name: {name}, newName: "ghcr.io/o/{name}", digest: "{digest}"}}' for name, digest in DIGESTS.items()),
    ]


def test_what_fails_the_smoke_test_is_undone(cluster: Cluster) -> None:
    code, said = cluster.deploy(revisions=["3", "4", "5"], passed="3", smoke=1)
    assert code == 1
    assert said.endswith(f"error: ghcr.io/o/petclf:{COMMIT} is not live; what was live before is\n")
    assert cluster.done() == [APPLY, STATUS, FORWARD, undo("3"), STATUS, remember("5")]


def test_after_a_deployment_that_was_killed_it_goes_back_to_what_had_passed(cluster: Cluster) -> None:
    code, _ = cluster.deploy(revisions=["4", "5", "6"], passed="3", smoke=1)
    assert code == 1
    assert cluster.done() == [APPLY, STATUS, FORWARD, undo("3"), STATUS, remember("6")]


def test_a_rollout_that_does_not_end_is_undone(cluster: Cluster) -> None:
    ended = {"out": "", "code": 1, "err": "error: timed out waiting for the condition"}
    code, said = cluster.deploy(("rollout status", ended), revisions=["3", "4"], passed="3")
    assert code == 3  # here the old one does not come up either
    assert "revision 3 does not come up again" in said
    assert cluster.done() == [APPLY, STATUS, undo("3"), STATUS]


def test_the_first_deployment_has_nothing_to_go_back_to(cluster: Cluster) -> None:
    code, said = cluster.deploy(revisions=["", "1"], smoke=1)
    assert (code, said.splitlines()[-1]) == (
        1,
        f"to-kubernetes: error: ghcr.io/o/petclf:{COMMIT} did not pass, and nothing was live before",
    )
    assert cluster.done() == [APPLY, STATUS, FORWARD]


def test_an_image_of_another_commit_is_not_deployed(cluster: Cluster) -> None:
    code, said = cluster.deploy(("org.opencontainers.image.revision", {"out": "f" * 40}), revisions=["3"])
    assert code == 2
    assert said.endswith(f"error: ghcr.io/o/petclf:{COMMIT} was built from commit {'f' * 40}, not from {COMMIT}\n")
    assert cluster.done() == []


def test_an_overlay_that_would_run_other_images_is_not_deployed(cluster: Cluster) -> None:
    code, said = cluster.deploy(("kubectl kustomize", {"out": "image: petclf:local"}), revisions=["3"])
    assert code == 2
    assert "its images must be named petclf and petclf-gateway" in said
    assert cluster.done() == []


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl here; install kubernetes-client (Debian) or kubectl")
@pytest.mark.parametrize(
    "overlay", [path.name for path in sorted((ROOT / "deploy" / "k8s" / "overlays").glob("*")) if path.name == "prod"]
)
def test_the_overlay_for_production_takes_both_images_by_digest(tmp_path: Path, overlay: str) -> None:
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy")  # the overlay takes dashboards and rules from beside it
    kept = tmp_path / "build" / "deploy-kubernetes"
    kept.mkdir(parents=True)
    images = "".join(
        f'  - {{name: {name}, newName: "ghcr.io/o/{name}", digest: "{digest}"}}\n' for name, digest in DIGESTS.items()
    )
    (kept / "kustomization.yaml").write_text(
        f"resources: [../../deploy/k8s/overlays/{overlay}]\nimages:\n{images}", encoding="utf-8"
    )
    shown = subprocess.run(
        ["kubectl", "kustomize", str(kept)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HOME": str(tmp_path)},
    )
    assert shown.returncode == 0, shown.stderr
    assert [name for name, digest in DIGESTS.items() if f"image: ghcr.io/o/{name}@{digest}" not in shown.stdout] == []
