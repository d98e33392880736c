"""TorchServe ignores what it does not know; we do not."""

import itertools
import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import yaml

from handler import limits
from handler.model_file import Archive, ModelFile
from scripts import serve
from serving.command import configuration

ROOT = Path(__file__).parents[1]

# TorchServe 0.12: ConfigManager.java
KNOWN = {
    "async_logging",
    "allowed_urls",
    "blacklist_env_vars",
    "certificate_file",
    "cors_allowed_headers",
    "cors_allowed_methods",
    "cors_allowed_origin",
    "cpu_launcher_args",
    "cpu_launcher_enable",
    "decode_input_request",
    "default_response_timeout",
    "default_service_handler",
    "default_startup_timeout",
    "default_workers_per_model",
    "disable_system_metrics",
    "disable_token_authorization",
    "enable_envvars_config",
    "enable_grpc_ssl",
    "enable_metrics_api",
    "enable_model_api",
    "grpc_inference_address",
    "grpc_inference_max_connection_age_grace_ms",
    "grpc_inference_max_connection_age_ms",
    "grpc_inference_port",
    "grpc_management_address",
    "grpc_management_max_connection_age_grace_ms",
    "grpc_management_max_connection_age_ms",
    "grpc_management_port",
    "inference_address",
    "initial_worker_port",
    "install_py_dep_per_model",
    "io_ratio",
    "job_queue_size",
    "keystore",
    "keystore_pass",
    "keystore_type",
    "limit_max_image_pixels",
    "load_models",
    "management_address",
    "max_request_size",
    "max_response_size",
    "metric_time_interval",
    "metrics_address",
    "metrics_config",
    "metrics_mode",
    "model_metrics_auto_detect",
    "model_snapshot",
    "model_store",
    "models",
    "netty_client_threads",
    "number_of_gpu",
    "number_of_netty_threads",
    "plugins_path",
    "prefer_direct_buffer",
    "private_key_file",
    "service_envelope",
    "system_metrics_cmd",
    "token_expiration_min",
    "unregister_model_timeout",
    "use_env_allowed_urls",
    "use_native_io",
    "vmargs",
    "workflow_store",
}
# TorchServe 0.12: ModelConfig.java, with the types that it takes
MODEL_KEYS = {
    **dict.fromkeys(
        ("minWorkers", "maxWorkers", "batchSize", "maxBatchDelay", "responseTimeout", "startupTimeout", "maxRetryTimeoutInSec",
         "jobQueueSize", "clientTimeoutInMills", "parallelLevel"), int,
    ),
    **dict.fromkeys(("useJobTicket", "useVenv", "continuousBatching", "sequenceBatching", "asyncCommunication"), bool),
    "deviceType": str, "parallelType": str, "deviceIds": list,
}  # fmt: skip


def properties(text: str) -> dict[str, str]:
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def test_every_setting_is_one_that_torchserve_knows() -> None:
    assert set(properties((ROOT / "config.properties").read_text(encoding="utf-8"))) - KNOWN == set()


def test_every_setting_has_its_reason() -> None:
    lines = (ROOT / "config.properties").read_text(encoding="utf-8").splitlines()
    bare = [line for before, line in itertools.pairwise(lines) if "=" in line and line[0] != "#" and not before.startswith("#")]
    assert bare == []


def test_what_serve_adds_is_known_and_comes_last_so_that_it_wins(tmp_path: Path) -> None:
    args = serve.parse(["--model-store", str(tmp_path), "--workers", "2"])
    archives = [Archive(tmp_path / f"{name}.mar", "p", version, ModelFile({}, b"")) for name, version in (("b", "2"), ("a", "1"))]

    added = configuration(args, archives).removeprefix((ROOT / "config.properties").read_text(encoding="utf-8"))

    assert set(properties(added)) - KNOWN == set()
    assert (
        properties(added)["load_models"] == "b.mar,a.mar"
    )  # TorchServe does not trim a space, and takes the first for the default
    assert properties(added)["inference_address"] == "http://127.0.0.1:8080"
    assert {properties(added)[f"grpc_{name}_address"] for name in ("inference", "management")} == {"127.0.0.1"}


def test_the_models_settings_are_known_of_the_right_type_and_have_reasons() -> None:
    text = (ROOT / "handler" / "model-config.yaml").read_text(encoding="utf-8")
    settings = yaml.safe_load(text)
    assert {key: type(value) for key, value in settings.items()} == {key: MODEL_KEYS.get(key) for key in settings}
    assert {"responseTimeout", "startupTimeout"} <= set(settings)
    assert [line for line in text.splitlines() if line[0] != "#" and "#" not in line] == []


def test_every_metric_has_the_units_and_labels_that_torchserve_can_read() -> None:
    content = yaml.safe_load((ROOT / "metrics.yaml").read_text(encoding="utf-8"))
    items = [item for part in ("ts_metrics", "model_metrics") for kind in content[part].values() for item in kind]
    names = [item["name"] for item in items]
    assert len(names) == len(set(names))
    assert [item for item in items if not re.fullmatch(r"\w+", item["name"]) or not re.fullmatch(r"[\w ]+", item["unit"])] == []
    assert all(content["model_metrics"].values())


def test_every_metric_that_the_handler_sends_is_declared() -> None:
    declared = yaml.safe_load((ROOT / "metrics.yaml").read_text(encoding="utf-8"))["model_metrics"]
    names = {item["name"] for kind in declared.values() for item in kind}
    sent = set(
        re.findall(r'"(petclf_\w+)"', "".join(path.read_text(encoding="utf-8") for path in (ROOT / "handler").glob("*.py")))
    )
    sent -= {"petclf_handler"}
    assert sent == {name for name in names if name.startswith("petclf_")}


def test_the_log_is_one_json_object_a_line_and_has_no_line_a_request() -> None:
    tree = ElementTree.parse(ROOT / "log4j2.xml").getroot()
    [layout] = tree.findall(".//PatternLayout")
    levels = {logger.get("name"): logger.get("level") for logger in tree.findall(".//Logger")}
    assert layout.get("pattern", "").startswith('{"time":')
    assert "%enc{%m %ex{short}}{JSON}" in layout.get("pattern", "")
    assert levels["ACCESS_LOG"] == "off"


def test_every_file_that_repeats_a_limit_says_what_the_handler_says() -> None:
    """handler/limits.py is the home of each; TorchServe, nginx, the page and the documents cannot read it there."""

    def number(path: str, pattern: str) -> set[str]:
        found = re.findall(pattern, (ROOT / path).read_text(encoding="utf-8"))
        assert found, f"{path} has no {pattern}"
        return {one.replace(",", "") for one in found}

    model = yaml.safe_load((ROOT / "handler" / "model-config.yaml").read_text(encoding="utf-8"))
    assert number("config.properties", r"max_request_size=(\d+)") == {str(limits.MAX_BODY)}
    assert number("deploy/gateway/nginx.conf", r"client_max_body_size (1\d+);") == {str(limits.MAX_BODY)}
    assert number("web/page.js", r"MOST_BYTES = (\d+)") == {str(limits.MAX_BODY)}
    assert number("docs/api.md", r"([\d,]+) bytes per request") == {str(limits.MAX_BODY)}
    assert number("docs/gateway.md", r"\| body \| ([\d,]+) bytes") == {str(limits.MAX_BODY)}
    assert number("docs/api.md", r"([\d,]+) pixels per photo") == {str(limits.MAX_PIXELS)}
    assert number("docs/api.md", r"up to (\d+) of these objects") == {str(limits.MAX_INSTANCES)}
    assert (model["jobQueueSize"], model["responseTimeout"]) == (limits.QUEUE, limits.RESPONSE_SECONDS)
    assert number("deploy/gateway/start", r"GATEWAY_IN_FLIGHT:-(\d+)") == {str(limits.QUEUE)}


def test_the_times_add_up_to_an_answer_within_fifteen_seconds() -> None:
    # the last photo may begin just before the time for reading ends
    assert limits.FETCH_SECONDS + limits.READ_SECONDS + limits.MOST_SECONDS < limits.RESPONSE_SECONDS
    assert limits.WAIT_SECONDS + limits.RESPONSE_SECONDS < 15


def test_the_gateways_limits_are_the_same_wherever_they_stand() -> None:
    gateway = ROOT / "deploy" / "gateway"
    lua, docs = (gateway / "gateway.lua").read_text(), (ROOT / "docs" / "gateway.md").read_text()
    constants = {name: int(value) for name, value in re.findall(r"^local ([A-Z_]+) = (\d+)", lua, re.MULTILINE)}
    assert f"limit_conn everybody {constants['EVERYBODY']};" in (gateway / "predictions.conf").read_text()
    assert f"| {constants['EVERYBODY']:,} | 503 |" in docs
    assert f"| {constants['SLOWEST'] // 1024} KB a second on average | 408 |" in docs
    assert f"once {constants['GRACE']} seconds are over" in docs
    per_address = re.search(r"GATEWAY_CONNECTIONS:-(\d+)", (gateway / "start").read_text())
    assert per_address
    assert f"| {per_address[1]} | 429 |" in docs
    assert f"{constants['EVERYBODY'] // int(per_address[1])} addresses fill the gateway" in docs


def test_what_the_candidate_is_asked_at_once_is_the_same_wherever_it_stands() -> None:
    lua, docs = ((ROOT / name).read_text() for name in ("deploy/gateway/gateway.lua", "docs/gateway.md"))
    constants = {name: int(value) for name, value in re.findall(r"^local ([A-Z_]+) = (\d+)", lua, re.MULTILINE)}
    assert (
        f"| requests to the candidate | {constants['SMALL_AT_ONCE']} together, and {constants['LARGE_AT_ONCE']} above a megabyte |"
        in docs
    )


def test_the_api_describes_every_refusal_of_the_gateway() -> None:
    """But for those of requests that are no HTTP, which the description of an API cannot cause."""
    gateway = ROOT / "deploy" / "gateway"
    refusals = dict(re.findall(r"\[(\d+)\] = \{ \"(\w+)\"", (gateway / "gateway.lua").read_text()))
    described = json.loads((gateway / "docs" / "openapi.json").read_text())
    texts = {name: response["description"] for name, response in described["components"]["responses"].items()}
    operation = described["paths"]["/predict"]["post"]["responses"]
    for status, code in refusals.items():
        if status not in ("411", "414", "431", "501", "505"):
            assert code in texts[operation[status]["$ref"].rpartition("/")[2]], status
