"""A deployment as CI makes it: through sshd to a host, from a registry; and what its clients notice of it."""

import base64
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.container.registry import SERVE, Registry, commit_of
from tests.container.stack import MISSING, ROOT, Load, Stack, docker
from tests.e2e.conftest import free_port, wait_until

if MISSING:
    pytest.skip(MISSING, allow_module_level=True)
SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
if SSHD is None or os.geteuid() != 0:
    pytest.skip("no sshd here that may be started; install openssh-server, and run as root", allow_module_level=True)

pytestmark = [pytest.mark.container, pytest.mark.slow]

PROJECT = "petclfdeploy"
SERVER = "petclf-deploytest:live"
NETWORK = "172.30.222"
IN_PLACE = f"any(word == '{NETWORK}.10' for word in sys.argv)"
BROKEN = {
    "does not start": ["python", "-c", "raise SystemExit('no such model')"],
    "does not pass the smoke test": [*SERVE, "--config", "small.properties"],
    "does not start where the server was": ["python", "-c", f"import os, sys; {IN_PLACE} and sys.exit('not here'); os.execvp('python', {SERVE} + sys.argv[1:])"],
    "does not pass the smoke test through the gateway":
        ["python", "-c", f"import os, sys; os.execvp('python', {SERVE} + sys.argv[1:] + ['--config', 'small.properties'] * ({IN_PLACE}))"],
}  # fmt: skip


def asking(host: "Host") -> Load:
    """A client of the gateway, all the time; not as fast as it can, or nothing else would get anywhere here."""
    return Load(host.stack, threads=2, pause=0.1)


@dataclass
class Host:
    """A compose host: a folder, an sshd of its own on loopback, and this machine's engine."""

    folder: Path
    stack: Stack
    registry: Registry
    access: dict[str, str]

    def deploy(self, commit: str, **changes: str) -> subprocess.CompletedProcess[str]:
        settings = {
            **os.environ, **self.access, "DEPLOY_TO": "compose", "REGISTRY": f"{self.registry.address}/petclf", "TAG": commit,
            "REGISTRY_USER": "ci", "REGISTRY_TOKEN": "secret", **changes,
        }  # fmt: skip
        return subprocess.run(
            ["make", "deploy"], cwd=ROOT, env=settings, capture_output=True, text=True, check=False, timeout=1500
        )

    def live(self) -> str:
        """Return the commit of what runs, by the container's own image, and see that nothing else runs."""
        assert self.services() == {"torchserve", "gateway"}
        return docker(
            "inspect", "-f", '{{index .Config.Labels "org.opencontainers.image.revision"}}', self.container("torchserve")
        )

    def started(self) -> dict[str, str]:
        """Return since when each service runs."""
        return {name: docker("inspect", "-f", "{{.State.StartedAt}}", self.container(name)) for name in sorted(self.services())}

    def healthy(self, service: str) -> bool:
        found = self.container(service)
        return bool(found) and docker("inspect", "-f", "{{.State.Health.Status}}", found, check=False) == "healthy"

    def moment(self, before: str) -> str:
        """Say where a deployment is, by what runs."""
        form = '{{.Label "com.docker.compose.service"}} {{.Label "org.opencontainers.image.revision"}} {{.Status}}'
        project = f"label=com.docker.compose.project={PROJECT}"
        running = {line.split()[0]: line for line in docker("ps", "--filter", project, "--format", form).splitlines()}
        server, spare = running.get("torchserve", ""), running.get("spare", "")
        if not server:
            return "the server is being replaced"
        if before not in server:
            return "the new server is tested" if "(healthy)" in server else "the server is being replaced"
        if not spare:
            return "nothing has begun"
        return "the spare is tested" if "(healthy)" in spare else "the spare is being started"

    def container(self, service: str) -> str:
        return self.stack.compose("--profile", "roll", "ps", "-q", service)

    def passed(self) -> str:
        return docker(
            "image", "inspect", "-f", '{{index .Config.Labels "org.opencontainers.image.revision"}}', f"{SERVER}-passed"
        )

    def services(self) -> set[str]:
        label = '{{.Label "com.docker.compose.service"}}'
        return set(docker("ps", "--filter", f"label=com.docker.compose.project={PROJECT}", "--format", label).split())


@pytest.fixture(scope="module")
def access(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """An sshd that lets one key in; yields what CI's secrets say of it."""
    folder = tmp_path_factory.mktemp("sshd")
    for name in ("host", "client"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    shutil.copy(folder / "client.pub", folder / "authorized")
    Path("/run/sshd").mkdir(exist_ok=True)
    port = free_port()
    lines = [
        f"Port {port}", "ListenAddress 127.0.0.1", f"HostKey {folder / 'host'}", f"AuthorizedKeysFile {folder / 'authorized'}", f"PidFile {folder / 'pid'}",
        "StrictModes no", "UsePAM no", "PasswordAuthentication no", "PermitRootLogin prohibit-password",
    ]  # fmt: skip
    (folder / "config").write_text("\n".join(lines) + "\n", encoding="utf-8")
    with (folder / "log").open("w", encoding="utf-8") as log:
        server = subprocess.Popen([str(SSHD), "-D", "-e", "-f", str(folder / "config")], stderr=log)
    yield {
        "DEPLOY_HOST": "root@127.0.0.1",
        "DEPLOY_PORT": str(port),
        "DEPLOY_SSH_KEY": (folder / "client").read_text(encoding="utf-8"),
        "DEPLOY_KNOWN_HOSTS": f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text(encoding='utf-8').strip()}",
    }
    server.terminate()
    server.wait(30)


@pytest.fixture(scope="module")
def host(registry: Registry, access: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """The host after its first deployment; its settings are in .env, as an operator's are."""
    folder = tmp_path_factory.mktemp("host")
    port, management_port = free_port(), free_port()
    settings = {
        "COMPOSE_PROJECT_NAME": PROJECT, "PETCLF_IMAGE": SERVER, "PETCLF_GATEWAY_IMAGE": "petclf-deploytest-gateway:live", "PETCLF_NET": NETWORK,
        "PETCLF_PORT": str(port), "PETCLF_MANAGEMENT_PORT": str(management_port), "GATEWAY_RATE": "2000", "PETCLF_DEPLOY_WAIT": "400", "GATEWAY_BURST": "2000",
    }  # fmt: skip
    (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in settings.items()), encoding="utf-8")
    docker("tag", "petclf-gateway:local", settings["PETCLF_GATEWAY_IMAGE"])
    stack = Stack(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{management_port}", ("", ""), settings)
    made = Host(folder, stack, registry, {**access, "DEPLOY_FOLDER": str(folder)})
    try:
        first = made.deploy(registry.push("first"))
        assert first.returncode == 0, first.stdout + first.stderr
        yield made
    finally:
        stack.compose("--profile", "roll", "down", "-v", check=False)
        for name in ("petclf-deploytest", "petclf-deploytest-gateway"):
            for image in docker("images", name, "--format", "{{.Repository}}:{{.Tag}}").split():
                docker("rmi", image, check=False)


def test_a_good_image_goes_live_and_no_request_is_lost(host: Host) -> None:
    commit = host.registry.push("good")
    with asking(host) as load:
        done = host.deploy(commit)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (host.live(), host.passed()) == (commit, commit)
    assert (set(load.statuses), load.odd) == ({200}, [])


@pytest.mark.parametrize("why", BROKEN)
def test_a_broken_image_goes_back_to_what_was_live_and_no_request_is_lost(host: Host, why: str) -> None:
    before = host.live()
    commit = host.registry.push(why, BROKEN[why])
    with asking(host) as load:
        done = host.deploy(commit)
    assert done.returncode != 0
    assert f"petclf:{commit} {why}\n" in done.stderr
    assert "what was live before answers" in done.stderr
    assert (host.live(), host.passed()) == (before, before)
    assert (set(load.statuses), load.odd) == ({200}, [])


def test_an_image_of_another_commit_is_refused_before_anything_is_touched(host: Host) -> None:
    before, started = host.live(), host.started()
    commit = host.registry.push("named wrongly", label=commit_of("another"))
    done = host.deploy(commit)
    assert done.returncode != 0
    assert f"was built from commit {commit_of('another')}, not from {commit}\n" in done.stderr
    assert (host.live(), host.started()) == (before, started)


def test_a_host_that_is_not_known_is_not_trusted(host: Host) -> None:
    before, started = host.live(), host.started()
    done = host.deploy(before, DEPLOY_KNOWN_HOSTS=f"[127.0.0.1]:1 {host.access['DEPLOY_KNOWN_HOSTS'].split(' ', 1)[1]}")
    assert done.returncode != 0
    assert "does not let us in" in done.stderr
    assert (host.live(), host.started()) == (before, started)


def test_no_key_and_no_login_is_left_on_the_host(host: Host) -> None:
    assert sorted(path.name for path in host.folder.iterdir()) == [
        ".env",
        "deploy",
        "docker-compose.store.yml",
        "docker-compose.yml",
        "scripts",
    ]
    secrets = [host.access["DEPLOY_SSH_KEY"].splitlines()[2], base64.b64encode(b"ci:secret").decode()]
    found = [
        path for path in host.folder.rglob("*") if path.is_file() and any(one.encode() in path.read_bytes() for one in secrets)
    ]
    assert found == []
    assert (
        not Path("~/.docker/config.json").expanduser().exists()
        or host.registry.address not in Path("~/.docker/config.json").expanduser().read_text()
    )


@pytest.mark.parametrize(
    "moment", ["the spare is being started", "the spare is tested", "the server is being replaced", "the new server is tested"]
)
def test_killed_anywhere_it_loses_no_request_and_run_again_it_ends_well(host: Host, moment: str) -> None:
    """SIGKILL to it and everything that it has started, as a power cut of the host's shell would be."""
    before = host.live()
    commit = host.registry.push(f"killed while {moment}")
    image = f"{host.registry.address}/petclf:{commit}"
    with host.registry.login() as private:  # here it runs without ssh, so the image is brought first
        docker("pull", "-q", image, environment=private)
    with asking(host) as load:
        cut = subprocess.Popen(["deploy/compose-host", image], cwd=host.folder, stderr=subprocess.PIPE, start_new_session=True)
        wait_until(lambda: host.moment(before) == moment, seconds=400)
        os.killpg(cut.pid, signal.SIGKILL)
        cut.communicate()
        assert host.passed() == before
        again = subprocess.run(["deploy/compose-host", image], cwd=host.folder, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert (host.live(), host.passed()) == (commit, commit)
    assert (set(load.statuses), load.odd) == ({200}, [])


@pytest.mark.parametrize("killed", ["torchserve", "spare"])
def test_of_two_servers_one_may_be_killed_and_the_other_replaced_without_a_failed_request(host: Host, killed: str) -> None:
    host.stack.compose("--profile", "roll", "up", "-d", "--no-deps", "spare")
    wait_until(lambda: host.healthy("spare"), seconds=300)
    other = {"torchserve": "spare", "spare": "torchserve"}[killed]
    with asking(host) as load:
        os.kill(int(docker("inspect", "-f", "{{.State.Pid}}", host.container(killed))), signal.SIGKILL)
        wait_until(lambda: host.healthy(killed), seconds=300)  # Docker starts it again
        host.stack.compose("--profile", "roll", "up", "-d", "--no-deps", "--force-recreate", other)
        wait_until(lambda: host.healthy(other), seconds=300)
    host.stack.compose("--profile", "roll", "rm", "-s", "-f", "spare")
    assert (set(load.statuses), load.odd) == ({200}, [])
    assert load.statuses[200] > 100
