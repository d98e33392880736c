"""What deploy/k8s renders to: valid where it is applied, closed where it should be, and the same as compose where it can be."""

import importlib.util
import json
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.kubernetes import (
    BY_DIGEST,
    CUSTOM,
    K8S,
    KSERVE,
    MINORS,
    OVERLAYS,
    ROOT,
    TOOLS,
    KServe,
    as_deployment,
    container,
    containers,
    mistakes_in_custom,
    mistakes_in_kubernetes_own,
    of,
    pods,
    run,
    selects,
    the,
)
from tests.test_monitoring import declared, labels_in, names_in

COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
DOCUMENT = ROOT / "docs" / "kubernetes.md"
EVERY = [*OVERLAYS, BY_DIGEST]
SERVING = ["overlays/dev", "overlays/prod", "overlays/gpu", "overlays/canary"]


@pytest.fixture(params=EVERY)
def resources(request: pytest.FixtureRequest, tmp_path: Path) -> list[dict[str, Any]]:
    return of(request.param, tmp_path)


@pytest.fixture
def prod(tmp_path: Path) -> list[dict[str, Any]]:
    return of("overlays/prod", tmp_path)


def own(resources: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [one for one in resources if not one["apiVersion"].startswith((*CUSTOM, KSERVE))]


# --- valid


def test_every_folder_is_rendered_by_these_tests() -> None:
    with_server = {str(path.parent.relative_to(K8S)) for path in K8S.rglob("kustomization.yaml")}
    parts = {name for name in with_server if name.startswith(("base", "components")) or name.endswith(("/server", "/runtime"))}
    assert with_server - parts == set(OVERLAYS)


def test_no_two_resources_have_one_name(resources: list[dict[str, Any]]) -> None:
    names = Counter((one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"]) for one in resources)
    assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.parametrize("minor", MINORS)
def test_kubernetes_own_schemas_take_everything(minor: str, tmp_path: Path) -> None:
    resources = [one for name in EVERY for one in own(of(name, tmp_path))]
    assert mistakes_in_kubernetes_own(resources, minor) == []


def test_kubernetes_own_schemas_know_a_misspelled_field(prod: list[dict[str, Any]]) -> None:
    [broken] = json.loads(json.dumps([the(prod, "Deployment")]))
    broken["spec"]["template"]["spec"]["terminationGracePeriod"] = 90
    [mistake] = mistakes_in_kubernetes_own([broken], MINORS[-1])
    assert "terminationGracePeriod" in mistake


@pytest.mark.parametrize("name", ["overlays/prod", "overlays/gpu", "overlays/canary"])
def test_the_custom_resources_own_schemas_take_everything(name: str, tmp_path: Path) -> None:
    custom = [one for one in of(name, tmp_path) if one["apiVersion"].startswith(CUSTOM)]
    assert custom
    assert mistakes_in_custom(custom) == []


def test_the_custom_resources_schemas_know_a_misspelled_field_and_a_wrong_value(prod: list[dict[str, Any]]) -> None:
    [monitor, route] = json.loads(json.dumps([the(prod, "PodMonitor"), the(prod, "HTTPRoute")]))
    monitor["spec"]["podMetricsEndpoints"][0]["intervall"] = "10s"
    route["spec"]["rules"][0]["timeouts"]["request"] = "a minute"
    told = "\n".join(mistakes_in_custom([monitor, route]))
    assert "\"intervall\"' does not exist in type 'IPodMetricsEndpoint'" in told
    assert "HTTPRoute petclf: data/spec/rules/0/timeouts/request must match pattern" in told


def test_kserves_resources_have_fields_that_kserve_knows(tmp_path: Path) -> None:
    kserve = KServe()
    found = [one for one in of("kserve", tmp_path) if one["apiVersion"].startswith(KSERVE)]
    types = {"ServingRuntime": "V1alpha1ServingRuntimeSpec", "InferenceService": "V1beta1InferenceServiceSpec"}
    assert {one["kind"] for one in found} == set(types)
    assert [told for one in found for told in kserve.mistakes(one["spec"], types[one["kind"]], one["kind"])] == []
    assert mistakes_in_kubernetes_own([as_deployment(one) for one in found], MINORS[-1]) == []
    assert kserve.mistakes({"predictor": {"minReplica": 1}}, "V1beta1InferenceServiceSpec", "x") == [
        "x.predictor.minReplica is not known"
    ]


CHECKOV_LEFT_OUT = {
    "CKV_K8S_43": "images by digest: a release sets them (docs/kubernetes.md)",
    "CKV_K8S_15": "pull always: a digest names one image",
    "CKV_K8S_9": "readiness of torchserve is asked through its gateway, and a Job has none",
    "CKV_K8S_8": "the same of liveness: an init container and a Job end by themselves",
    "CKV_K8S_35": "the probe's key from the environment: serving.probe also reads a file, which nothing mounts by default",
}


@pytest.mark.slow
def test_checkov_finds_nothing_but_what_has_a_reason(tmp_path: Path) -> None:
    checkov = TOOLS / "k8s" / "bin" / "checkov"
    if not checkov.exists():
        pytest.skip("no checkov here; `make kubernetes-tools` brings it")
    folder = tmp_path / "rendered"
    folder.mkdir()
    for name in EVERY:
        (folder / f"{name.replace('/', '-')}.yaml").write_text(yaml.safe_dump_all(of(name, tmp_path)), encoding="utf-8")
    options = ["--framework", "kubernetes", "--output", "json", "--quiet", "--compact", "--skip-download"]
    result = run(checkov, "--directory", folder, *options, "--skip-check", ",".join(CHECKOV_LEFT_OUT))
    told = json.loads(result.stdout)
    failed = [(one["check_id"], one["check_name"], one["file_path"], one["resource"]) for one in told["results"]["failed_checks"]]
    assert failed == []
    assert told["summary"]["passed"] > 400


# --- closed


def test_every_pod_is_restricted_and_has_no_token(resources: list[dict[str, Any]]) -> None:
    accounts = [found for found in resources if found["kind"] == "ServiceAccount"]
    assert [found["automountServiceAccountToken"] for found in accounts] == [False] * len(accounts)
    for name, (_, spec) in pods(resources).items():
        context = spec["securityContext"]
        assert (context["runAsNonRoot"], context["runAsUser"], context["seccompProfile"]) == (
            True,
            10001,
            {"type": "RuntimeDefault"},
        ), name
        assert (spec["automountServiceAccountToken"], spec["enableServiceLinks"]) == (False, False), name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys(), name
        assert [volume for volume in spec.get("volumes", []) if "hostPath" in volume] == []
        for each in containers(spec):
            assert each["securityContext"] == {
                "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
            }, f"{name} {each['name']}"  # fmt: skip
            assert {"cpu", "memory"} == each["resources"]["requests"].keys(), f"{name} {each['name']}"
            assert {"cpu", "memory"} <= each["resources"]["limits"].keys(), f"{name} {each['name']}"


def test_every_namespace_enforces_the_restricted_standard(resources: list[dict[str, Any]]) -> None:
    for namespace in (one for one in resources if one["kind"] == "Namespace"):
        assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_no_secret_is_in_a_file(resources: list[dict[str, Any]]) -> None:
    assert [one["metadata"]["name"] for one in resources if one["kind"] == "Secret"] == []
    values = json.dumps(
        [one.get("data") for one in resources if one["kind"] == "ConfigMap" and "dashboard" not in one["metadata"]["name"]]
    )
    assert re.findall(r"(?i)password|secret|SSHA|PRIVATE KEY", values) == []


@pytest.mark.parametrize("name", SERVING)
def test_torchserve_listens_on_loopback_and_on_no_port_of_the_gateways(name: str, tmp_path: Path) -> None:
    resources = of(name, tmp_path)
    [spec] = [spec for key, (_, spec) in pods(resources).items() if "probe" not in key]
    server, gateway = container(spec, "torchserve"), container(spec, "gateway")
    options = dict(zip(server["args"][::2], server["args"][1::2], strict=True))
    assert server["command"] == ["python", "-m", "scripts.serve"]  # the image's own listens everywhere
    assert [option for option in options if option.endswith("host")] == []  # scripts.serve's default is loopback
    assert "ports" not in server
    [settings] = [one["data"] for one in resources if one["kind"] == "ConfigMap" and "gateway" in one["metadata"]["name"]]
    ports = {"INFERENCE": "--port", "MANAGEMENT": "--management-port", "METRICS": "--metrics-port", "READY": "--ready-port"}
    assert {name: settings[f"PETCLF_{name}_PORT"] for name in ports} == {name: options[option] for name, option in ports.items()}
    taken = {port["containerPort"] for port in gateway["ports"]}
    assert taken == {8080, 8081, 8084}
    assert taken & {int(options[option]) for option in ports.values()} == set()
    assert settings["PETCLF_SERVER"] == "127.0.0.1"


def policies(resources: list[dict[str, Any]], labels: dict[str, str], direction: str) -> dict[str, list[dict[str, Any]]]:
    """Return the rules that hold for a pod, by the policy's name."""
    return {
        one["metadata"]["name"]: one["spec"].get(direction.lower(), [])
        for one in resources
        if one["kind"] == "NetworkPolicy"
        and direction in one["spec"]["policyTypes"]
        and selects(one["spec"]["podSelector"], labels)
    }


@pytest.mark.parametrize("pod", ["server", "canary"])
def test_a_server_is_reached_as_the_documents_say_and_reaches_nobody(prod: list[dict[str, Any]], pod: str) -> None:
    labels = {"app.kubernetes.io/name": "petclf", "app.kubernetes.io/component": pod}
    assert policies(prod, labels, "Egress") == {"default-deny": []}
    monitoring = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}},
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "prometheus"}},
    }
    operator = {"podSelector": {"matchLabels": {"app.kubernetes.io/component": "operator"}}}
    assert policies(prod, labels, "Ingress") == {
        "default-deny": [],
        "petclf-public": [{"ports": [{"port": "http"}]}],
        "petclf-metrics": [{"from": [monitoring], "ports": [{"port": "metrics"}]}],
        "petclf-management": [{"from": [operator], "ports": [{"port": "management"}]}],
    }


@pytest.mark.parametrize("name", ["overlays/dev", "overlays/prod", "overlays/gpu", "kserve"])
def test_a_pod_that_no_policy_names_reaches_nobody_and_is_reached_by_nobody(name: str, tmp_path: Path) -> None:
    resources = of(name, tmp_path)
    assert {direction: policies(resources, {"app": "other"}, direction) for direction in ("Ingress", "Egress")} == {
        "Ingress": {"default-deny": []}, "Egress": {"default-deny": []},
    }  # fmt: skip


# --- always there


@pytest.mark.parametrize("name", SERVING)
def test_a_rollout_never_takes_a_pod_before_another_is_ready(name: str, tmp_path: Path) -> None:
    [deployment] = [one for one in of(name, tmp_path) if one["kind"] == "Deployment" and "probe" not in one["metadata"]["name"]]
    assert deployment["spec"]["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}


def test_readiness_is_the_supervisors_and_liveness_is_not(prod: list[dict[str, Any]]) -> None:
    _, spec = pods(prod)["Deployment petclf"]
    gateway, server = container(spec, "gateway"), container(spec, "torchserve")
    assert gateway["readinessProbe"]["httpGet"] == {"path": "/ready", "port": "metrics"}
    assert gateway["livenessProbe"]["httpGet"] == {"path": "/metrics", "port": "metrics"}  # nginx answers it by itself
    assert "/ready" not in str(server["livenessProbe"])
    for each in (gateway, server):  # a busy server has a minute at least
        assert each["livenessProbe"]["periodSeconds"] * each["livenessProbe"]["failureThreshold"] >= 60


def test_the_time_to_end_is_enough_for_everything_that_happens_in_it(prod: list[dict[str, Any]]) -> None:
    _, spec = pods(prod)["Deployment petclf"]
    gateway, server = container(spec, "gateway"), container(spec, "torchserve")
    leaves = int(gateway["lifecycle"]["preStop"]["exec"]["command"][-1])
    nginx = (ROOT / "deploy" / "gateway" / "nginx.conf").read_text(encoding="utf-8")
    finishes = int(re.findall(r"worker_shutdown_timeout (\d+)s;", nginx)[0])
    outlasts = int(server["lifecycle"]["preStop"]["exec"]["command"][-1])
    drains = int(server["args"][server["args"].index("--drain-seconds") + 1])
    ends = int(re.findall(r"process\.wait\((\d+)\)", (ROOT / "serving" / "supervise.py").read_text(encoding="utf-8"))[0])
    assert outlasts >= leaves + finishes
    assert spec["terminationGracePeriodSeconds"] >= outlasts + drains + ends
    assert server["lifecycle"]["preStop"]["exec"]["command"][:4] == ["python", "-m", "serving.outlast", "/run/gateway/nginx.pid"]
    assert "pid @WORK@/nginx.pid;" in nginx


def test_pods_are_spread_and_nodes_are_emptied_one_by_one(prod: list[dict[str, Any]]) -> None:
    labels, spec = pods(prod)["Deployment petclf"]
    budget = the(prod, "PodDisruptionBudget")["spec"]
    assert budget["maxUnavailable"] == 1
    assert selects(budget["selector"], labels)
    assert [one["topologyKey"] for one in spec["topologySpreadConstraints"]] == [
        "kubernetes.io/hostname",
        "topology.kubernetes.io/zone",
    ]
    assert all(selects(one["labelSelector"], labels) for one in spec["topologySpreadConstraints"])


@pytest.mark.parametrize(("name", "kind"), [("overlays/prod", "HorizontalPodAutoscaler"), ("overlays/gpu", "ScaledObject")])
def test_one_autoscaler_looks_after_the_replicas_and_nothing_else_sets_them(name: str, kind: str, tmp_path: Path) -> None:
    resources = of(name, tmp_path)
    scalers = [one for one in resources if one["kind"] in ("HorizontalPodAutoscaler", "ScaledObject")]
    assert [one["kind"] for one in scalers] == [kind]
    assert scalers[0]["spec"]["scaleTargetRef"]["name"] == "petclf"
    assert "replicas" not in the(resources, "Deployment")["spec"]


def test_the_autoscaler_asks_for_metrics_that_exist_and_for_rates_of_counters(tmp_path: Path) -> None:
    triggers = the(of("overlays/gpu", tmp_path), "ScaledObject")["spec"]["triggers"]
    queries = [trigger["metadata"]["query"] for trigger in triggers]
    metrics = declared()
    for query in queries:
        assert names_in(query) <= metrics.keys(), query
        assert labels_in(query) <= set().union(*metrics.values()) | {"namespace"}, query  # the operator adds that label
        for counter in re.findall(r"\w+(?:_total|_microseconds)\b", query):
            assert re.search(rf"rate\({counter}\b", query), counter


# --- the same as elsewhere


def test_the_limits_of_memory_are_composes(prod: list[dict[str, Any]]) -> None:
    _, spec = pods(prod)["Deployment petclf"]
    assert COMPOSE["torchserve"]["mem_limit"] == "3g"
    assert container(spec, "torchserve")["resources"]["limits"]["memory"] == "3Gi"
    assert COMPOSE["gateway"]["mem_limit"] == "384m"
    assert container(spec, "gateway")["resources"]["limits"]["memory"] == "384Mi"
    sizes = {volume["name"]: volume["emptyDir"].get("sizeLimit") for volume in spec["volumes"] if "emptyDir" in volume}
    assert COMPOSE["torchserve"]["tmpfs"] == ["/tmp:size=512m,mode=1777"]
    assert sizes == {"tmp": "512Mi", "predictions": "512Mi", "gateway": "64Mi", "bodies": "11Gi"}


def test_strangers_cannot_fill_the_volume_of_bodies() -> None:
    """A pod whose volume is fuller than its limit is evicted."""
    lua = (ROOT / "deploy" / "gateway" / "gateway.lua").read_text(encoding="utf-8")
    everybody = int(re.findall(r"EVERYBODY = (\d+)", lua)[0])
    body = int(
        re.findall(r"client_max_body_size (1\d+);", (ROOT / "deploy" / "gateway" / "nginx.conf").read_text(encoding="utf-8"))[0]
    )
    assert everybody * body < 11 * 2**30


def test_the_gateway_knows_every_setting_that_it_gets(prod: list[dict[str, Any]], tmp_path: Path) -> None:
    start = (ROOT / "deploy" / "gateway" / "start").read_text(encoding="utf-8")
    known = set(re.findall(r"\$\{((?:GATEWAY|PETCLF)_\w+)[:-]", start))
    for resources in (prod, of("overlays/canary", tmp_path), of("overlays/dev", tmp_path)):
        [settings] = [
            one["data"]
            for one in resources
            if one["kind"] == "ConfigMap" and one["metadata"]["name"].startswith("petclf-gateway")
        ]
        assert settings.keys() - known == set()
        assert settings["GATEWAY_TRUSTED"] == "10.0.0.0/8 172.16.0.0/12 192.168.0.0/16"


def test_the_rules_are_those_that_composes_prometheus_reads(prod: list[dict[str, Any]], tmp_path: Path) -> None:
    groups = the(prod, "PrometheusRule")["spec"]["groups"]
    files = [
        yaml.safe_load((ROOT / "deploy" / "prometheus" / name).read_text(encoding="utf-8"))["groups"]
        for name in ("rules.yml", "alerts.yml")
    ]
    assert [group["rules"] for group in groups] == [group["rules"] for found in files for group in found], (
        "run `make kubernetes-rules`"
    )
    assert len({group["name"] for group in groups}) == len(groups)  # the operator refuses two of one name
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool here; Debian: apt-get install prometheus")
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": groups}), encoding="utf-8")
    assert "SUCCESS" in run(promtool, "check", "rules", file).stdout


def test_the_monitors_have_the_jobs_of_composes_prometheus(prod: list[dict[str, Any]]) -> None:
    config = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
    wanted = {
        job["job_name"]: job.get("metric_relabel_configs") for job in config["scrape_configs"] if job["job_name"] != "prometheus"
    }
    endpoints = [end for one in prod if one["kind"] == "PodMonitor" for end in one["spec"]["podMetricsEndpoints"]]
    found = {end["relabelings"][0]["replacement"]: end.get("metricRelabelings") for end in endpoints}
    assert found == wanted
    assert {end["relabelings"][0]["targetLabel"] for end in endpoints} == {"job"}
    assert {end["interval"] for end in endpoints} == {config["global"]["scrape_interval"]}


def test_each_monitor_finds_its_pods_and_their_port(prod: list[dict[str, Any]]) -> None:
    for monitor, name in (("petclf", "Deployment petclf"), ("petclf-probe", "Deployment petclf-probe")):
        labels, spec = pods(prod)[name]
        ports = {port["name"] for each in spec["containers"] for port in each.get("ports", [])}
        found = the(prod, "PodMonitor", monitor)["spec"]
        assert selects(found["selector"], labels)
        assert {end["port"] for end in found["podMetricsEndpoints"]} <= ports


def test_the_dashboard_is_composes(prod: list[dict[str, Any]]) -> None:
    file = ROOT / "deploy" / "grafana" / "dashboards" / "petclf.json"
    assert the(prod, "ConfigMap", "petclf-dashboard")["data"] == {"petclf.json": file.read_text(encoding="utf-8")}


# --- canary, KServe, training, archive by digest


def test_the_canary_gets_a_tenth_and_nothing_by_prods_service(prod: list[dict[str, Any]], tmp_path: Path) -> None:
    canary = of("overlays/canary", tmp_path)
    labels, spec = pods(canary)["Deployment petclf-canary"]
    [rule] = the(canary, "HTTPRoute")["spec"]["rules"]
    assert {end["name"]: end["weight"] for end in rule["backendRefs"]} == {"petclf": 9, "petclf-canary": 1}
    assert [
        one["metadata"]["name"]
        for one in [*prod, *canary]
        if one["kind"] == "Service" and selects({"matchLabels": one["spec"]["selector"]}, labels)
    ] == ["petclf-canary"]
    assert not selects(the(prod, "PodDisruptionBudget")["spec"]["selector"], labels)
    assert selects(the(prod, "PodMonitor")["spec"]["selector"], labels)
    assert [each["image"] for each in spec["containers"]] == ["petclf-gateway:local", "petclf:canary"]
    shared = {(one["kind"], one["metadata"]["name"]) for one in prod} & {(one["kind"], one["metadata"]["name"]) for one in canary}
    assert shared == {("HTTPRoute", "petclf")}  # applying prod again ends the canary's share


def test_kserve_runs_the_pod_that_the_overlays_run(prod: list[dict[str, Any]], tmp_path: Path) -> None:
    resources = of("kserve", tmp_path)
    _, spec = pods(prod)["Deployment petclf"]
    runtime, predictor = the(resources, "ServingRuntime")["spec"], the(resources, "InferenceService")["spec"]["predictor"]
    [settings] = [one["metadata"]["name"] for one in resources if one["kind"] == "ConfigMap"]
    theirs = json.loads(json.dumps(runtime["containers"]))
    assert theirs[0].pop("name") == "kserve-container"
    assert theirs[0].pop("envFrom") == [{"configMapRef": {"name": settings}}]
    ours = json.loads(json.dumps(spec["containers"]))
    assert (ours[0].pop("name"), ours[0].pop("envFrom") != []) == ("gateway", True)
    assert theirs == ours
    assert runtime["volumes"] == spec["volumes"]
    for key in (
        "securityContext",
        "terminationGracePeriodSeconds",
        "automountServiceAccountToken",
        "enableServiceLinks",
        "serviceAccountName",
    ):
        assert predictor[key] == spec[key], key
    assert {one["kind"] for one in resources} & {"Deployment", "Service"} == set()


def test_a_training_goes_on_in_a_new_pod_and_never_in_two(tmp_path: Path) -> None:
    job = the(of("training", tmp_path), "Job", "petclf-training")["spec"]
    [training] = job["template"]["spec"]["containers"]
    assert training["command"] == [
        "python",
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        "-m",
        "training.train",
    ]
    assert all(importlib.util.find_spec(name) for name in ("torch.distributed.run", "training.train", "training.manifest"))
    assert (job["backoffLimit"], job["podReplacementPolicy"], job["template"]["spec"]["restartPolicy"]) == (6, "Failed", "Never")
    assert job["podFailurePolicy"]["rules"][0] == {
        "action": "Ignore",
        "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
    }


def test_an_archive_by_digest_replaces_the_images_own(tmp_path: Path) -> None:
    resources = of(BY_DIGEST, tmp_path)
    _, spec = pods(resources)["Deployment petclf"]
    brings, server = container(spec, "archive"), container(spec, "torchserve")
    assert brings["command"] == ["python", "-m", "serving.bring_archive", "/var/lib/petclf"]
    assert server["args"][-2:] == ["--model-store", "/var/lib/petclf"]
    assert brings["image"] == server["image"]
    store = {"name": "model-store", "mountPath": "/var/lib/petclf"}
    assert store in brings["volumeMounts"]
    assert {**store, "readOnly": True} in server["volumeMounts"]
    [name] = [
        one["metadata"]["name"]
        for one in resources
        if one["kind"] == "ConfigMap" and one["metadata"]["name"].startswith("petclf-model-")
    ]
    assert brings["envFrom"] == [{"configMapRef": {"name": name}}]


# --- documents


def test_the_document_names_every_overlay_component_and_secret(tmp_path: Path) -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    parts = [path.parent.relative_to(K8S) for path in K8S.rglob("kustomization.yaml")]
    named = {str(part) for part in parts if part.parts[0] in ("overlays", "components") and len(part.parts) == 2} | {
        "kserve",
        "training",
    }
    assert [name for name in named if f"`{name}`" not in text] == []
    secrets = set(
        re.findall(
            r"secret(?:Name|KeyRef)['\"]?: (?:\{['\"]name['\"]: )?['\"]([\w-]+)", str([of(name, tmp_path) for name in SERVING])
        )
    )
    assert secrets >= {"petclf-gateway"}
    assert [name for name in secrets if f"`{name}`" not in text] == []
    assert [minor for minor in MINORS if minor not in text] == []


def test_every_image_is_one_that_the_project_builds(resources: list[dict[str, Any]]) -> None:
    images = {each["image"].split(":")[0] for _, spec in pods(resources).values() for each in containers(spec)}
    assert images <= {"petclf", "petclf-gateway", "petclf-training"}
