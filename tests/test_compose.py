"""What docker-compose.yml promises without a Docker engine; tests/container shows that it is so."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCUMENT = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_is_read_only_without_capabilities_and_with_a_limit_of_memory(service: str) -> None:
    settings = SERVICES[service]
    assert settings["read_only"] is True
    assert settings["cap_drop"] == ["ALL"]
    assert settings["security_opt"] == ["no-new-privileges:true"]
    assert "mem_limit" in settings


def test_only_predictions_are_published_to_the_world_and_only_by_ipv4() -> None:
    published = [port for settings in SERVICES.values() for port in settings.get("ports", [])]
    assert [port for port in published if not port.startswith("127.0.0.1:")] == ["0.0.0.0:${PETCLF_PORT:-8080}:8080"]


def test_the_documents_have_every_network_with_the_services_that_are_on_it() -> None:
    on_it: dict[str, set[str]] = {network: set() for network in COMPOSE["networks"]}
    for name, settings in SERVICES.items():
        for network in settings["networks"]:
            on_it[network].add(name)
    rows = re.findall(r"^\| `(\w+)` \| ([\w, ]+?)(?:: [^|]+)? \| [^|]+ \|$", DOCUMENT, re.MULTILINE)
    assert {network: set(services.split(", ")) for network, services in rows} == on_it


def test_what_holds_pager_and_figures_shares_no_network_with_what_strangers_reach() -> None:
    listening = {name: set(SERVICES[name]["networks"]) for name in ("alertmanager", "grafana")}
    exposed = {network for name in ("gateway", "torchserve", "spare", "probe") for network in SERVICES[name]["networks"]}
    assert {name: networks & exposed for name, networks in listening.items()} == {"alertmanager": set(), "grafana": set()}


def test_prometheus_and_alertmanager_listen_on_one_network_and_take_no_orders() -> None:
    options = {name: [option for option in SERVICES[name]["command"] if "--web." in option or "--cluster." in option]
               for name in ("prometheus", "alertmanager")}  # fmt: skip
    address = {
        "prometheus": SERVICES["prometheus"]["networks"]["monitoring"]["ipv4_address"],
        "alertmanager": SERVICES["alertmanager"]["networks"]["alerting"]["ipv4_address"],
    }
    assert options == {
        "prometheus": [f"--web.listen-address={address['prometheus']}:9090"],
        "alertmanager": [
            f"--web.listen-address={address['alertmanager']}:9093", "--web.listen-address=127.0.0.1:9093", "--cluster.listen-address=",
        ],
    }  # fmt: skip


@pytest.mark.parametrize("service", ["torchserve", "spare"])
def test_predictions_and_management_are_not_where_prometheus_reads(service: str) -> None:
    command, networks = SERVICES[service]["command"], SERVICES[service]["networks"]
    listens = dict(zip(command[::2], command[1::2], strict=True))
    inner, scraping = networks["inner"]["ipv4_address"], networks["scraping"]["ipv4_address"]
    assert listens == {"--host": inner, "--management-host": inner, "--metrics-host": scraping}


def test_the_gateways_limits_are_those_that_it_has_by_itself() -> None:
    """A default here would otherwise win over one that was changed there."""
    start = (ROOT / "deploy" / "gateway" / "start").read_text(encoding="utf-8")
    offered = dict(re.findall(r"(GATEWAY_\w+): \$\{\1:-(\w+)\}", (ROOT / "docker-compose.yml").read_text(encoding="utf-8")))
    own = dict(re.findall(r"\$\{(GATEWAY_\w+):-(\w+)\}", start))
    assert set(offered) == {f"GATEWAY_{name}" for name in ("RATE", "BURST", "CONNECTIONS", "DEAR", "SHADOW_SHARE")}
    assert offered == {name: own[name] for name in offered}


def test_grafana_lets_nobody_in_without_a_password_of_its_own() -> None:
    settings = SERVICES["grafana"]["environment"]
    assert settings["GF_SECURITY_ADMIN_PASSWORD"] == "$$__file{/run/petclf/admin_password}"  # a missing file is an error
    assert (settings["GF_AUTH_ANONYMOUS_ENABLED"], settings["GF_USERS_ALLOW_SIGN_UP"]) == ("false", "false")


def test_no_setting_is_offered_that_cannot_work_here() -> None:
    """Fetching needs a way out, which torchserve has not."""
    assert COMPOSE["networks"]["inner"]["internal"] is True
    assert "PETCLF_URL_HOSTS" not in SERVICES["torchserve"]["environment"]


def test_a_store_of_ones_own_is_mounted_read_only_where_archives_are_read() -> None:
    store = yaml.safe_load((ROOT / "docker-compose.store.yml").read_text(encoding="utf-8"))["services"]
    mount = "${PETCLF_STORE:?the folder with the archives}:/opt/petclf/model_store:ro"
    assert store == {name: {"volumes": [mount]} for name in ("torchserve", "spare")}
