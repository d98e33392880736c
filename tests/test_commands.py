"""No command of the documents is forgotten: a test runs it, or this file says why none does."""

import pytest

from tests.documents import ROOT, commands
from tests.test_docs import DOCS

CI = "CI runs it at every change"
SLOW = "a benchmark or a report for developers"
CLUSTER = "needs a cluster; tests/deploy builds and validates the same manifests, tests/container/test_pod.py runs them in podman"
COMPOSE = "builds images; tests/container runs the same compose files, and `make roll`"
GITHUB = "needs a repository at GitHub, and its login"
MLFLOW = "fixed ports; tests/training/test_tracking.py asks a tracking server of its own"
# page, how its commands begin, and the file in tests/ that runs them, or why none does; the first that fits counts
HOW = [
    ("README.md", "curl", "e2e/test_demo.py"),
    ("README.md", "make demo", "e2e/test_demo.py"),
    ("README.md", "make tour", "e2e/test_tour.py"),
    ("README.md", "make register", "e2e/test_own_photos.py"),
    ("README.md", "make mlflow", "MLflow's own page, on a fixed port"),
    ("README.md", "make setup", CI),
    ("README.md", "make test", CI),
    ("README.md", "make", "the commands of docs/your-own-photos.md, which e2e/test_own_photos.py runs"),
    ("CONTRIBUTING.md", "make coverage", SLOW),
    ("CONTRIBUTING.md", "make pages", "tests/scripts/test_tools.py and tests/tooling compare what it would write"),
    ("CONTRIBUTING.md", "make", CI),
    ("docs/api.md", "curl", "e2e/test_documented.py"),
    ("docs/bulk.md", "make setup-bulk", CI),
    ("docs/bulk.md", "make score-many", "calls the next command"),
    ("docs/bulk.md", ".venv/bin/petclf score_many photos", "e2e/test_documented.py"),
    ("docs/bulk.md", ".venv/bin/petclf score_many s3:", "needs a bucket; tests/bulk/test_source.py reads another file system through fsspec"),
    ("docs/bulk.md", ".venv/bin/petclf score_many list.csv", "needs a host of yours; tests/bulk/test_source.py reads such lists"),
    ("docs/bulk.md", "docker build", COMPOSE),
    ("docs/bulk.md", "kubectl", CLUSTER),
    ("docs/deployment.md", "docker images", "shows what tests/container/test_deploy.py compares"),
    ("docs/deployment.md", "gh", GITHUB),
    ("docs/deployment.md", "sha256sum", "tests/tooling/test_release.py runs it on a release of its own"),
    ("docs/drift.md", ".venv/bin/petclf drift", "scripts/test_drift.py"),
    ("docs/drift.md", "head", "makes a file that tests/scripts/test_drift.py makes itself"),
    ("docs/gateway.md", "curl", "e2e/test_documented.py"),
    ("docs/gateway.md", "python3", "e2e/test_documented.py"),
    ("docs/gateway.md", "GATEWAY_SHADOW", COMPOSE),
    ("docs/gateway.md", "docker compose restart", "e2e/test_documented.py starts its gateway after the first key"),
    ("docs/index.md", "", "the same as in README.md"),
    ("docs/kubernetes.md", "python3 scripts/make_key.py", "as in docs/gateway.md"),
    ("docs/kubernetes.md", "docker build", COMPOSE),
    ("docs/kubernetes.md", "", CLUSTER),
    ("docs/live-accuracy.md", ".venv/bin/petclf", "e2e/test_live_accuracy.py"),
    ("docs/operations.md", ".venv/bin/petclf models", "e2e/test_models.py"),
    ("docs/operations.md", "make retrain", "e2e/test_own_photos.py"),
    ("docs/operations.md", "make serve", "tests/e2e/test_own_photos.py runs it, with other ports"),
    ("docs/operations.md", "make smoke", "tests/scripts/test_smoke_test.py runs what it calls"),
    ("docs/operations.md", "curl -fsS 'http://127.0.0.1:8081/models/petclf?customized=true'", "e2e/test_documented.py"),
    ("docs/operations.md", "curl", "e2e/test_versions.py"),
    ("docs/operations.md", "export MLFLOW_TRACKING_URI", MLFLOW),
    ("docs/operations.md", "make train", MLFLOW),
    ("docs/operations.md", "make archive", MLFLOW),
    ("docs/operations.md", "make", COMPOSE),
    ("docs/security.md", "docker compose exec grafana", "tests/container has no Grafana; its image is not to be had everywhere"),
    ("docs/security.md", "docker compose", "container/test_stack.py"),
    ("docs/shadow.md", ".venv/bin/petclf models", "e2e/test_models.py"),
    ("docs/shadow.md", ".venv/bin/petclf shadow", "operate/test_shadow.py"),
    ("docs/shadow.md", "GATEWAY_SHADOW", COMPOSE),
    ("docs/your-own-photos.md", "", "e2e/test_own_photos.py"),
]  # fmt: skip
PAGES = [
    name for name in (str(path.relative_to(ROOT)) for path in DOCS) if name != "docs/tools.md"
]  # which holds golden help texts


def entry(page: str, command: str) -> tuple[str, str, str] | None:
    return next((one for one in HOW if one[0] == page and command.startswith(one[1])), None)


@pytest.mark.parametrize("page", PAGES)
def test_of_every_command_it_is_known_what_runs_it(page: str) -> None:
    assert [command for command in commands(page) if entry(page, command) is None] == []


def test_no_command_is_listed_that_no_page_has() -> None:
    used = {entry(page, command) for page in PAGES for command in commands(page)}
    assert [one for one in HOW if one not in used] == []


@pytest.mark.parametrize(("page", "begins", "test"), [one for one in HOW if one[2].endswith(".py")])
def test_what_runs_a_pages_commands_reads_them_there_or_is_about_them(page: str, begins: str, test: str) -> None:
    text = (ROOT / "tests" / test).read_text(encoding="utf-8")
    assert f'commands("{page}"' in text or f"`{begins}`" in text
