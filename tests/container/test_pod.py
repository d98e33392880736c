"""The pod of deploy/k8s/overlays/prod, run by podman: ready, asked, closed, and ended under load without a lost request.

podman runs what a Deployment, its ConfigMap and its Secret say of the pod. It runs no preStop hook; this file plays the kubelet's
part there: each container's hook from the manifest, then the stop signal of its image, then SIGKILL when the time is over.
"""

import contextlib
import http.client
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from scripts.make_key import add
from tests.container.stack import engine_is_missing
from tests.deploy.kubernetes import K8S, ROOT, container, kubectl, rendered, the, with_archive
from tests.drawing import draw_photo, encoded
from tests.e2e.conftest import free_port, wait_until

pytestmark = [pytest.mark.container, pytest.mark.slow]

PHOTO = encoded(draw_photo("cat", 1, (320, 240)), quality=95)
IMAGES = ("petclf:local", "petclf-gateway:local")
PORTS = [22, 80, 443, 7070, 7071, *range(8080, 8090), *range(9080, 9090)]
SEEN_AFTER = 3.0  # seconds until the last of those who choose a pod has heard that one leaves; the gateway's hook waits for 8


@pytest.fixture(scope="module")
def engine(images: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:  # noqa: ARG001
    """podman, with settings of its own for a machine without systemd, and the images that Docker has built."""
    config = tmp_path_factory.mktemp("podman") / "containers.conf"
    runtime = 'runtime = "runc"\n' if shutil.which("runc") else ""
    config.write_text(
        f'[containers]\ndefault_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]\n[engine]\n{runtime}cgroup_manager = "cgroupfs"\n',
        encoding="utf-8",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONTAINERS_CONF", os.environ.get("CONTAINERS_CONF", str(config)))
        with subprocess.Popen(["docker", "save", *IMAGES], stdout=subprocess.PIPE) as saved:
            subprocess.run(["podman", "load", "-q"], stdin=saved.stdout, check=True, capture_output=True)
        assert saved.returncode == 0
        yield


def podman(*arguments: str, check: bool = True, timeout: float = 300) -> str:
    result = subprocess.run(["podman", *arguments], capture_output=True, text=True, check=False, timeout=timeout)
    assert not check or result.returncode == 0, f"podman {' '.join(arguments)}: {result.stdout}{result.stderr}"
    return result.stdout.strip()


def what_is_missing() -> str:
    if shutil.which("podman") is None:
        return "no podman here; Debian: apt-get install podman runc catatonit containernetworking-plugins"
    if shutil.which("catatonit") is None and not Path("/usr/libexec/podman/catatonit").exists():
        return "podman needs catatonit for a pod; Debian: apt-get install catatonit"
    return engine_is_missing()


if MISSING := what_is_missing():
    pytest.skip(MISSING, allow_module_level=True)
kubectl()  # skips, if it is not here


@dataclass
class Pod:
    """One pod of the prod Deployment; what is changed is its name, and that this machine's loopback reaches its ports."""

    name: str
    folder: Path
    source: list[dict[str, Any]]
    port: int = field(default_factory=free_port)
    management_port: int = field(default_factory=free_port)
    metrics_port: int = field(default_factory=free_port)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def file(self) -> Path:
        return self.folder / f"{self.name}.yaml"

    def manifest(self) -> list[dict[str, Any]]:
        deployment = json.loads(json.dumps(the(self.source, "Deployment")))
        # podman removes an init container of its usual type when it has ended, and fails if that takes a moment
        deployment["metadata"] = {"name": self.name, "annotations": {"io.podman.annotations.init.container.type": "always"}}
        self.spec: dict[str, Any] = deployment["spec"]["template"]["spec"]
        ports = container(self.spec, "gateway")["ports"]
        for port, published in zip(ports, (self.port, self.management_port, self.metrics_port), strict=True):
            port |= {"hostPort": published, "hostIP": "127.0.0.1"}  # podman publishes a port to everybody if it is not told so
        for volume in self.spec["volumes"]:
            if "secret" in volume:
                volume["secret"]["secretName"] = self.name
        add(self.folder / f"{self.name}.htpasswd", "operator")
        keys = (self.folder / f"{self.name}.htpasswd").read_text(encoding="utf-8")
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": self.name},
            "stringData": {"management.htpasswd": keys},
        }
        return [secret, *(found for found in self.source if found["kind"] == "ConfigMap"), deployment]

    def play(self, seconds: float = 120) -> subprocess.CompletedProcess[str]:
        self.file.write_text(yaml.safe_dump_all(self.manifest()), encoding="utf-8")
        return subprocess.run(
            ["podman", "kube", "play", str(self.file)], capture_output=True, text=True, check=False, timeout=seconds
        )

    def up(self) -> None:
        result = self.play()
        assert result.returncode == 0, result.stderr
        wait_until(self.is_ready, 400)  # a busy machine may need several starts

    def is_ready(self) -> bool:
        """Ask as the kubelet does, by the readiness probe of the gateway."""
        probe = container(self.spec, "gateway")["readinessProbe"]["httpGet"]
        assert probe["port"] == "metrics"
        try:
            return requests.get(f"http://127.0.0.1:{self.metrics_port}{probe['path']}", timeout=5).status_code == 200
        except requests.RequestException:
            return False

    def container(self, name: str) -> str:
        names = podman("ps", "-a", "--format", "{{.Names}}").split()
        [found] = [one for one in names if one.startswith(f"{self.name}-pod") and one.endswith(f"-{name}")]
        return found

    def inspected(self, name: str) -> dict[str, Any]:
        [found] = json.loads(podman("inspect", self.container(name)))
        return dict(found)

    def inside(self, program: str) -> str:
        return podman("exec", self.container("torchserve"), "python", "-c", program)

    def down(self) -> None:
        podman("kube", "play", "--down", str(self.file), check=False)
        podman("secret", "rm", self.name, check=False)
        podman("volume", "rm", "--force", self.name, check=False)  # podman keeps what it mounted of the secret

    def delete(self) -> dict[str, int]:
        """End it as the kubelet does; returns the containers' exit codes."""
        end = time.monotonic() + self.spec["terminationGracePeriodSeconds"]

        def finish(each: dict[str, Any]) -> None:
            name = self.container(each["name"])
            podman("exec", name, *each["lifecycle"]["preStop"]["exec"]["command"])
            podman("stop", "--time", str(max(1, int(end - time.monotonic()))), name)

        with ThreadPoolExecutor() as pool:
            list(pool.map(finish, self.spec["containers"]))
        return {each["name"]: self.inspected(each["name"])["State"]["ExitCode"] for each in self.spec["containers"]}


@pytest.fixture(scope="module")
def pod(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:  # noqa: ARG001
    running = Pod("petclf-a", tmp_path_factory.mktemp("pod"), of_the_server(rendered(K8S / "overlays" / "prod")))
    running.down()
    try:
        running.up()
        yield running
    finally:
        running.down()


def of_the_server(resources: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what podman runs of an overlay: its Deployment and the ConfigMaps that this one names."""
    deployment = the(resources, "Deployment")
    named = json.dumps(deployment)
    return [deployment, *(one for one in resources if one["kind"] == "ConfigMap" and f'"{one["metadata"]["name"]}"' in named)]


def test_the_pod_is_ready_and_answers_through_its_gateway(pod: Pod) -> None:
    result = subprocess.run(
        [sys.executable, "scripts/smoke_test.py", pod.url], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["ok"] * 6


def test_its_containers_have_no_rights_and_their_roots_are_read_only(pod: Pod) -> None:
    for name, memory in (("torchserve", 3 * 2**30), ("gateway", 384 * 2**20)):
        found = pod.inspected(name)
        assert (found["HostConfig"]["ReadonlyRootfs"], found["Config"]["User"], found["EffectiveCaps"] or []) == (
            True,
            "10001:10001",
            [],
        )
        assert found["HostConfig"]["Memory"] == memory
    status = pod.inside("print(open('/proc/self/status').read())")
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    assert {name: fields[name].strip() for name in ("CapEff", "CapBnd", "NoNewPrivs", "Seccomp")} == {
        "CapEff": "0" * 16, "CapBnd": "0" * 16, "NoNewPrivs": "1", "Seccomp": "2",
    }  # fmt: skip


def test_from_outside_the_pod_nothing_but_the_gateway_answers(pod: Pod) -> None:
    """As in a cluster without NetworkPolicies; from inside, TorchServe does answer, so the same program can see it."""
    program = (
        "import socket, sys\n"
        "def answers(port):\n"
        "    with socket.socket() as one:\n"
        "        one.settimeout(2)\n"
        "        return one.connect_ex((sys.argv[1], port)) == 0\n"
        f"print(*(port for port in {PORTS} if answers(port)))"
    )
    [network] = pod.inspected("torchserve")["NetworkSettings"]["Networks"] or json.loads(
        podman(
            "pod",
            "inspect",
            pod.container("torchserve").removesuffix("-torchserve"),
            "--format",
            "{{json .InfraConfig.Networks}}",
        )
    )
    infra = json.loads(
        podman(
            "inspect",
            podman(
                "pod", "inspect", pod.container("torchserve").removesuffix("-torchserve"), "--format", "{{.InfraContainerID}}"
            ),
        )
    )
    address = infra[0]["NetworkSettings"]["Networks"][network]["IPAddress"]
    stranger = podman(
        "run", "--rm", "--network", network, "--entrypoint", "python", "localhost/petclf:local", "-c", program, address
    )
    assert stranger == "8080 8081 8084"
    within = podman("exec", pod.container("torchserve"), "python", "-c", program, "127.0.0.1").split()
    assert {"9080", "9081", "9082", "9083"} <= set(within)


def test_prometheus_reads_all_three_of_the_pod_and_may_change_nothing(pod: Pod) -> None:
    url = f"http://127.0.0.1:{pod.metrics_port}"
    for path, metric in (
        ("/metrics/torchserve", "ts_inference_requests_total"), ("/metrics/supervisor", 'petclf_server_state{state="ready"} 1'),
        ("/metrics", "petclf_gateway_requests_total"),
    ):  # fmt: skip
        assert metric in requests.get(url + path, timeout=10).text
    assert requests.post(f"{url}/models?url=petclf-2.0.0.mar", timeout=10).status_code == 404
    assert requests.get(f"{url}/models", timeout=10).status_code == 404


def test_the_liveness_of_the_server_is_seen_in_its_container(pod: Pod) -> None:
    command = container(pod.spec, "torchserve")["livenessProbe"]["exec"]["command"]
    podman("exec", pod.container("torchserve"), *command)
    missing = [part.replace("9083", "9089") for part in command]
    with pytest.raises(AssertionError, match="Connection refused"):
        podman("exec", pod.container("torchserve"), *missing)


@dataclass
class Service:
    """Chooses a pod for each connection, as a Service of Kubernetes does; nothing is asked twice."""

    pods: list[Pod]
    statuses: Counter[str] = field(default_factory=Counter)
    over: threading.Event = field(default_factory=threading.Event)
    asked: int = 0

    def ask(self) -> str:
        self.asked += 1
        chosen = self.pods[self.asked % len(self.pods)]
        connection = http.client.HTTPConnection("127.0.0.1", chosen.port, timeout=20)
        try:
            connection.request("POST", "/predict", PHOTO, {"Connection": "close"})
            response = connection.getresponse()
            return str(response.status) if b'"label"' in response.read() else f"{response.status}, no answer"
        except (OSError, http.client.HTTPException) as error:
            return f"{chosen.name}: {error!r}"
        finally:
            connection.close()

    def load(self) -> None:
        while not self.over.is_set():
            self.statuses[self.ask()] += 1
            time.sleep(0.1)


def upload_slowly(pod: Pod, seconds: float) -> str:
    """Send a photo in pieces; returns the status of the answer."""
    body = PHOTO + bytes(900_000)  # what follows a JPEG's end is not read
    pieces = int(seconds * 2)
    connection = http.client.HTTPConnection("127.0.0.1", pod.port, timeout=30)
    connection.putrequest("POST", "/predict")
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders()
    step = -(-len(body) // pieces)
    for start in range(0, len(body), step):
        connection.send(body[start : start + step])
        time.sleep(0.5)
    return str(connection.getresponse().status)


def test_a_pod_is_replaced_under_load_and_no_request_is_lost(pod: Pod, tmp_path: Path) -> None:
    """The new pod is ready first; the old one ends while it is asked, and while a slow upload is on its way to it."""
    new = Pod("petclf-b", tmp_path, pod.source)
    new.down()
    service = Service([pod])
    clients: list[Future[None]] = []
    with ThreadPoolExecutor(6) as pool:
        try:
            new.up()
            service.pods = [pod, new]
            clients = [pool.submit(service.load) for _ in range(4)]
            wait_until(lambda: service.statuses["200"] > 50, 60)
            upload = pool.submit(upload_slowly, pod, 14)
            time.sleep(1)
            threading.Timer(SEEN_AFTER, lambda: setattr(service, "pods", [new])).start()
            started = time.monotonic()
            codes = pod.delete()
            took = time.monotonic() - started
            uploaded = upload.result()
            time.sleep(1)
        finally:
            service.over.set()
            for client in clients:
                client.result()
            new.down()
    assert codes == {"gateway": 0, "torchserve": 0}
    assert uploaded == "200"
    assert set(service.statuses) == {"200"}, service.statuses
    assert service.statuses["200"] > 100
    assert took < pod.spec["terminationGracePeriodSeconds"]
    words = podman("logs", pod.container("torchserve"))
    assert "draining for up to 20 s" in words
    assert '"stopped"' in words


@pytest.fixture
def archives(engine: None) -> Iterator[str]:  # noqa: ARG001
    """A volume with the archive that the image has, too."""
    name = "petclf-test-archives"
    podman("volume", "rm", "-f", name, check=False)
    podman("volume", "create", name)
    copy = "import glob, shutil; [shutil.copy(path, '/archives') for path in glob.glob('/opt/petclf/model_store/*.mar')]"
    podman(
        "run", "--rm", "--user", "0", "-v", f"{name}:/archives", "--entrypoint", "python", "localhost/petclf:local", "-c", copy
    )
    yield name
    podman("volume", "rm", "-f", name, check=False)


@pytest.mark.parametrize("right", [True, False])
def test_a_pod_starts_with_the_archive_of_that_digest_and_with_no_other(archives: str, tmp_path: Path, right: bool) -> None:
    [digest] = podman(
        "run", "--rm", "--entrypoint", "python", "localhost/petclf:local", "-c",
        "import glob, hashlib; [print(hashlib.sha256(open(path, 'rb').read()).hexdigest()) for path in glob.glob('/opt/petclf/model_store/*.mar')]",
    ).split()  # fmt: skip
    source = of_the_server(rendered(with_archive(tmp_path / "overlay", digest if right else "0" * 64)))
    [volume] = [one for one in the(source, "Deployment")["spec"]["template"]["spec"]["volumes"] if one["name"] == "archives"]
    volume["persistentVolumeClaim"]["claimName"] = archives
    pod = Pod("petclf-c", tmp_path, source)
    pod.down()
    try:
        if right:
            pod.up()
            assert pod.inside("import os; print(*os.listdir('/var/lib/petclf'))") == "petclf-2.0.0.mar"
        else:
            # the container ends and is started again and again, as in a cluster; podman may miss the moments between, and then waits on
            with contextlib.suppress(subprocess.TimeoutExpired):
                assert pod.play(30).returncode != 0
            wait_until(lambda: podman("inspect", "-f", "{{.State.ExitCode}}", pod.container("archive")) == "2", 30)
            assert "is not what was asked for: its sha256 is" in podman("logs", pod.container("archive"))
            assert not pod.is_ready()
    finally:
        pod.down()
