"""Configuration: who overrides whom, and that mistakes are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from atmo.config import load
from atmo.errors import ConfigError
from atmo.node.offers import offers
from atmo.settings import all_settings
from tests.cluster import atmo


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"ATMO_HOME": str(tmp_path / "home"), "ATMO_RUNTIME": str(tmp_path / "run")}


def write(environ: dict[str, str], text: str) -> Path:
    file = Path(environ["ATMO_HOME"]) / "config.toml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def test_nothing_needs_to_be_configured(environ: dict[str, str]) -> None:
    config = load(environ=environ)
    assert config.transport.host == "127.0.0.1"
    assert [serve.model for serve in config.serve] == ["atmo-nano"]
    assert config.node_home == Path(environ["ATMO_HOME"]) / "nodes" / "default"


def test_flags_beat_the_environment_which_beats_the_file_which_beats_the_defaults(environ: dict[str, str]) -> None:
    write(environ, '[transport]\nport = 1\nhost = "0.0.0.0"\n[node]\nname = "filed"\n')
    environ |= {"ATMO_TRANSPORT_PORT": "2", "ATMO_NODE_NAME": "named"}
    config = load({"node.name": "flagged", "transport.port": None}, environ=environ)
    assert (config.transport.host, config.transport.port, config.node.name) == ("0.0.0.0", 2, "flagged")


def test_lists_and_tables_come_from_the_environment_too(environ: dict[str, str]) -> None:
    environ |= {
        "ATMO_NODE_LABELS": "residency=eu, tier=lab",
        "ATMO_DISCOVERY_SEEDS": "/ip4/127.0.0.1/tcp/1, /ip4/127.0.0.1/tcp/2",
        "ATMO_DISCOVERY_LAN": "false",
    }
    config = load(environ=environ)
    assert config.node.labels == {"residency": "eu", "tier": "lab"}
    assert len(config.discovery.seeds) == 2
    assert config.discovery.lan is False


def test_each_serve_table_is_a_capability(environ: dict[str, str]) -> None:
    write(environ, '[[serve]]\nmodel = "atmo-nano"\n[[serve]]\nmodel = "m.gguf"\ndescription = "Law"\nstrength = 0.5\n')
    config = load(environ=environ)
    assert [(s.model, s.description) for s in config.serve] == [("atmo-nano", ""), ("m.gguf", "Law")]
    assert [s.model for s in load({"serve": ["x"]}, environ=environ).serve] == ["x"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[transprt]\nport = 1", "Did you mean 'transport'"),
        ("[transport]\nprot = 1", "Did you mean 'port'"),
        ('[transport]\nport = "x"', "transport.port: expected `int`"),
        ("[transport]\nport = 70000", "70000 is not a port"),
        ('[node]\nmode = "particpant"', "Did you mean 'participant'"),
        ('[node]\nname = "../x"', "not a node name"),
        ('[[serve]]\nname = "x"', "missing required field `model`"),
        ("serve = 3", "must be a table"),
        ("[inference]\nslots = 0", "too small"),
        ("node = {", "not valid TOML"),
        ("[[runtimes]]\nurl = 3", "runtimes[0].url: expected `str`"),
        ("[[runtimes]]\nulr = 'x'", "Did you mean 'url'"),
        ("[[runtimes]]\nkind = 'olama'", "Did you mean 'ollama'"),
        ("[[runtimes]]\nkind = 'ollama'", "has no url"),
        ("[[runtimes]]\nkind = 'openai'", "names no models"),
        ("[[runtimes]]\nurl = 'localhost:8000'", "is not the address of a server"),
        ("[[runtimes]]\nurl = 'http://x'\nkey_env = 'A'\nkey_file = 'b'", "both key_env and key_file"),
        ("[inference]\nidle_unload_s = -1", "too small"),
        ("[transport]\nlane_port = 65534", "not the first of three ports"),
        ("[transport]\nport = 4601\nlane_port = 4600", "Use 4602 for lane_port"),
        ("[transport]\nport = 4603\nlane_port = 4600\n[models]\nplain_lane = true", "Use 4604 for lane_port"),
        ("[transport]\nlane_port = 65533\n[models]\nplain_lane = true", "not the first of four ports"),
        ("[transport]\nheartbeat_s = 0.01", "Use 0.1 to 30 seconds"),
        ('[mesh]\ntoken = "a"\ntoken_file = "b"', "both token and token_file"),
    ],
)
def test_a_mistake_in_the_file_is_named_with_its_remedy(environ: dict[str, str], text: str, says: str) -> None:
    write(environ, text)
    with pytest.raises(ConfigError) as caught:
        load(environ=environ)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("ATMO_TRANSPORT_PRT", "1", "Did you mean 'ATMO_TRANSPORT_PORT'"),
        ("ATMO_TRANSPORT_PORT", "abc", "cannot be 'abc': it is a whole number"),
        ("ATMO_NODE_LABELS", "eu", "not a label"),
        ("ATMO_CONFIG", "/nowhere/config.toml", "no configuration file"),
        ("ATMO_HSOT", "::", "Did you mean 'ATMO_HOST'"),
        ("ATMO_N_CTX", "long", "ATMO_N_CTX cannot be 'long': it is a whole number"),
    ],
)
def test_a_mistake_in_the_environment_is_named(environ: dict[str, str], variable: str, value: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load(environ=environ | {variable: value})


def test_what_a_container_sets_has_a_short_name(environ: dict[str, str]) -> None:
    environ |= {
        "ATMO_MODEL_PATH": "/models/a.gguf, atmo-tone",
        "ATMO_HOST": "0.0.0.0",
        "ATMO_PORT": "4700",
        "ATMO_NODE_ID": "box",
        "ATMO_BOOTSTRAP_NODES": "/dns4/a/tcp/4600,/dns4/b/tcp/4600",
        "ATMO_HEARTBEAT_INTERVAL": "2",
        "ATMO_N_CTX": "8192",
        "ATMO_N_BATCH": "256",
        "ATMO_N_GPU_LAYERS": "20",
    }
    config = load(environ=environ)
    assert [serve.model for serve in config.serve] == ["/models/a.gguf", "atmo-tone"]
    assert (config.transport.host, config.transport.port, config.transport.heartbeat_s) == ("0.0.0.0", 4700, 2.0)
    assert (config.node.name, config.discovery.seeds) == ("box", ("/dns4/a/tcp/4600", "/dns4/b/tcp/4600"))
    assert (config.inference.context, config.inference.batch, config.inference.gpu_layers) == (8192, 256, 20)


def test_what_a_container_says_of_a_model_reaches_its_engine(environ: dict[str, str]) -> None:
    said = {"MODEL_PATH": "atmo-nano", "N_CTX": "512", "N_BATCH": "64", "N_GPU_LAYERS": "3"}
    (offer,) = offers(load(environ=environ | {f"ATMO_{name}": value for name, value in said.items()}))
    assert (offer.spec.name, offer.spec.context, offer.spec.batch, offer.spec.gpu_layers) == ("atmo-nano", 512, 64, 3)


def test_two_names_of_one_setting_are_one_too_many(environ: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="ATMO_HOST and ATMO_TRANSPORT_HOST are two names of one setting"):
        load(environ=environ | {"ATMO_HOST": "::", "ATMO_TRANSPORT_HOST": "::1"})


def test_a_token_is_not_shown_with_the_rest(environ: dict[str, str]) -> None:
    config = load(environ=environ | {"ATMO_MESH_TOKEN": "atmo1-secret"})
    assert config.mesh.token == "atmo1-secret"
    assert "secret" not in repr(config)


def test_a_setting_says_by_which_of_its_names_it_was_set(environ: dict[str, str]) -> None:
    environ |= {"ATMO_HOST": "::1", "ATMO_TRANSPORT_PORT": "4700", "ATMO_MODEL_PATH": "atmo-tone"}
    sources = {setting.name: setting.source for setting in all_settings(environ=environ)}
    assert sources["transport.host"] == "ATMO_HOST"
    assert sources["transport.port"] == "ATMO_TRANSPORT_PORT"
    assert sources["serve"] == "ATMO_MODEL_PATH"


def test_a_list_of_settings_shows_no_password(environ: dict[str, str]) -> None:
    outcome = atmo("config", "--json", ATMO_MESH_TOKEN="atmo1-secret", **environ)
    (token,) = [setting for setting in outcome.json["settings"] if setting["name"] == "mesh.token"]
    assert (token["value"], token["source"]) == ("(hidden)", "ATMO_MESH_TOKEN")
    assert "secret" not in atmo("config", ATMO_MESH_TOKEN="atmo1-secret", **environ).out


def test_api_keys_can_be_kept_elsewhere(environ: dict[str, str]) -> None:
    assert load(environ=environ).api_keys == Path(environ["ATMO_HOME"]) / "api-keys.json"
    assert load(environ=environ | {"ATMO_GATEWAY_KEYS_FILE": "/secrets/keys"}).api_keys == Path("/secrets/keys")


def test_a_service_in_the_cloud_needs_a_name_only_and_has_its_key_in_the_usual_place(environ: dict[str, str]) -> None:
    write(
        environ,
        "[[runtimes]]\nkind = 'anthropic'\nmodels = ['m']\n"
        "[[runtimes]]\nurl = 'http://10.0.0.7:8000'\n"
        "[[runtimes]]\nkind = 'openai'\nmodels = ['m']\nkey_file = '~/key'\n",
    )
    anthropic, other, openai = load(environ=environ).runtimes
    assert (anthropic.address, anthropic.key) == ("https://api.anthropic.com/v1", "env:ANTHROPIC_API_KEY")
    assert (other.address, other.key, other.kind) == ("http://10.0.0.7:8000", "", "auto")
    assert (openai.address, openai.key) == ("https://api.openai.com/v1", "file:~/key")


def test_a_configuration_cannot_be_changed(environ: dict[str, str]) -> None:
    config = load(environ=environ)
    with pytest.raises(AttributeError):
        config.home = Path("/")  # type: ignore[misc]
