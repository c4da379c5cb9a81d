"""The configuration: defaults, precedence, refused values and their messages, and that no secret is shown."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from pipeline.config import AppConfig, InputConfig, InputSource, OllamaConfig, VLLMConfig, mask_url
from pipeline.config.constraints import hints_of
from pipeline.config.differences import changed_settings
from pipeline.config.discovery import ConfigFile
from pipeline.config.json_schema import agent_schema, config_schema
from pipeline.config.keys import env_names, known_keys, sections
from pipeline.config.loading import describe, find_config, load_config, load_yaml, parse_set, read_api_key
from pipeline.config.split import SplitConfig
from pipeline.config.table import RULES
from pipeline.errors import ConfigError

DEFAULT = Path(__file__).parents[2] / "config" / "default.yaml"
SECRET = "hunter2-very-secret"


@pytest.fixture
def write(tmp_path: Path) -> Any:
    """Return a function that writes a config file and returns its path."""

    def _write(text: str, name: str = "config.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return _write


def complaint(path: Path | None = None, **how: Any) -> str:
    """Return the message of the ConfigError that loading must raise."""
    with pytest.raises(ConfigError) as caught:
        load_config(path, **{"environ": {}, **how})
    return str(caught.value)


def uncommented(text: str) -> str:
    """Return the file with its commented-out settings (a # and no single space) enabled."""
    lines = text.splitlines()
    return "\n".join(
        line[1:] if line.startswith("#") and (line[1:3] == "  " or line[1:2].isalpha()) else line for line in lines
    )


class TestDefaults:
    def test_empty_configuration_has_the_defaults(self) -> None:
        """Without file, environment and flags the configuration is AppConfig()."""
        assert load_config(None, environ={}) == AppConfig()

    def test_default_file_changes_no_default(self) -> None:
        """config/default.yaml does not enable a fallback either."""
        app = load_config(DEFAULT, environ={})
        assert app == AppConfig()
        assert app.fallback_names() == ()

    def test_the_default_file_names_every_setting(self, write: Any) -> None:
        """Each known key is in config/default.yaml with its default, ollama's as comments."""
        app = load_config(write(uncommented(DEFAULT.read_text("utf-8"))), environ={})
        assert app == AppConfig()
        assert set(app.origins) == set(known_keys())

    @pytest.mark.parametrize("cls", [VLLMConfig, OllamaConfig])
    def test_the_first_ten_fields_keep_their_order(self, cls: type) -> None:
        """The order of the fields is public: they may be given by position."""
        assert [f.name for f in fields(cls)][:10] == [
            "base_url",
            "model",
            "timeout",
            "max_retries",
            "retry_base_delay",
            "retry_max_delay",
            "retry_backoff_multiplier",
            "max_tokens",
            "temperature",
            "api_key",
        ]

    def test_every_rule_belongs_to_a_setting(self) -> None:
        """A renamed setting does not leave its old rule behind, and every rule has a description."""
        schemas = [config_schema(), agent_schema()]
        names = {name for cls in sections().values() for name in hints_of(cls)} | set(known_keys())
        names |= {name for schema in schemas for name in schema["properties"]} | {"weight"}
        names |= {f"split.{name}" for name in hints_of(SplitConfig)}
        assert set(RULES) <= names
        assert all(rule.doc for rule in RULES.values())


class TestDirectConstruction:
    @pytest.mark.parametrize("value", ["300", "10", "soon", "10 m", "m", "1d", "10m;", ""])
    def test_invalid_ollama_duration_is_refused(self, value: str) -> None:
        """Ollama would answer each request with a 400: `missing unit in duration`."""
        with pytest.raises(ConfigError, match="keep_alive"):
            OllamaConfig(keep_alive=value)

    @pytest.mark.parametrize("value", ["10m", "1h30m", "-1m", "1.5h", "300s", "250ms", "0", 300, -1, 0])
    def test_valid_ollama_duration_is_accepted(self, value: int | str) -> None:
        """Go's durations and whole seconds are valid."""
        assert OllamaConfig(keep_alive=value).keep_alive == value

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("timeout", 0),
            ("max_retries", -1),
            ("retry_base_delay", -0.1),
            ("retry_max_delay", 0.5),
            ("retry_backoff_multiplier", 0.9),
            ("max_tokens", 0),
            ("temperature", -1),
            ("timeout", float("nan")),
            ("timeout", True),
            ("timeout", 1e300),
            ("base_url", "localhost:8000"),
            ("base_url", ()),
            ("client_key", "key.pem"),
        ],
    )
    @pytest.mark.parametrize("cls", [VLLMConfig, OllamaConfig])
    def test_an_impossible_value_is_refused(self, cls: Any, name: str, value: object) -> None:
        """A client refuses invalid settings; the message names the setting."""
        with pytest.raises(ConfigError, match=name):
            cls(**{name: value})

    @pytest.mark.parametrize(
        ("given_url", "urls"),
        [
            ("http://a:1/", ("http://a:1",)),
            ("http://a:1/v1", ("http://a:1",)),
            ("http://a/llm/v1/", ("http://a/llm",)),
            (("http://a", "http://b/", "http://a/v1"), ("http://a", "http://b")),
        ],
    )
    def test_addresses_are_normalised(self, given_url: Any, urls: Any) -> None:
        """A trailing / or /v1 is removed, a path prefix is kept, and a repeated replica counts once."""
        assert VLLMConfig(base_url=given_url).base_urls == urls

    def test_a_secret_is_not_in_the_repr(self) -> None:
        """Keys, headers and the user name in an address stay out of logs."""
        config = VLLMConfig(
            base_url=f"http://u:{SECRET}@h", api_key=SECRET, headers={"X": SECRET}, metrics_url=f"http://{SECRET}@h"
        )
        assert SECRET not in repr(config)

    def test_source_names_are_unique(self) -> None:
        """Two inputs with the same name would share ids."""
        with pytest.raises(ConfigError, match="more than once"):
            InputConfig(uri=(InputSource("a", "x"), InputSource("b", "x")))

    @pytest.mark.parametrize("name", ["a/b", "..", "", ".x"])
    def test_a_source_name_is_one_path_part(self, name: str) -> None:
        """A name with a separator would look like a folder in ids."""
        with pytest.raises(ConfigError, match="need letters"):
            InputConfig(uri=(InputSource("a", name),))


class TestPrecedence:
    def test_flag_overrides_environment_overrides_file(self, write: Any) -> None:
        """`origins` names the source of each key."""
        path = write("vllm: {model: file, timeout: 1, max_tokens: 1}")
        environ = {"VLLM_MODEL": "env", "VLLM_TIMEOUT": "2"}
        app = load_config(path, environ=environ, overrides={"vllm.model": "flag"})
        assert (app.vllm.model, app.vllm.timeout, app.vllm.max_tokens) == ("flag", 2.0, 1)
        assert app.origins == {"vllm.model": "flag", "vllm.timeout": "env", "vllm.max_tokens": "file"}

    def test_vllm_is_configured_by_its_variables(self) -> None:
        """All ten variables reach VLLMConfig, each in its type."""
        values = {
            "base_url": "http://gpu:8000",
            "model": "123",
            "timeout": "5.5",
            "max_retries": "7",
            "retry_base_delay": "0.1",
            "retry_max_delay": "9",
            "retry_backoff_multiplier": "1.5",
            "max_tokens": "99",
            "temperature": "0.7",
            "api_key": "0123",
        }
        app = load_config(None, environ={f"VLLM_{k.upper()}": v for k, v in values.items()})
        assert app.vllm == VLLMConfig("http://gpu:8000", "123", 5.5, 7, 0.1, 9.0, 1.5, 99, 0.7, "0123")

    def test_pipeline_variables_reach_every_key(self) -> None:
        """The names are derived from the known keys, so none is ambiguous and none is missing."""
        environ = {
            "PIPELINE_INPUT_URI": "a,b.txt",
            "PIPELINE_RUNNER_MAX_IN_FLIGHT_BYTES": "1e6",
            "PIPELINE_INPUT_EXCLUDE": "x/*, y/*",
            "PIPELINE_VLLM_EXTRA_BODY": "{top_k: 5}",
            "PIPELINE_FALLBACK": "vllm",
        }
        app = load_config(None, environ=environ)
        assert app.input.uri == (InputSource("a,b.txt"),)
        assert app.runner.max_in_flight_bytes == 1_000_000
        assert app.input.exclude == ("x/*", "y/*")
        assert app.vllm.extra_body == {"top_k": 5}
        assert app.fallback == ("vllm",)
        names = [name for name in env_names() if name.startswith("PIPELINE_")]
        assert len(names) == len(known_keys())

    def test_foreign_and_empty_variables_are_ignored(self) -> None:
        """Kubernetes injects VLLM_PORT; an empty variable counts as unset."""
        environ = {"VLLM_PORT": "tcp://10.0.0.1:80", "VLLM_MODEL": "", "OLLAMA_MODELS": "x", "PIPELINE_CONFIG": "y"}
        app = load_config(None, environ=environ)
        assert app == AppConfig()
        assert app.origins == {}

    def test_replicas_in_the_environment_are_separated_by_commas(self) -> None:
        """Several addresses fit in one variable."""
        app = load_config(None, environ={"OLLAMA_BASE_URL": "http://a:1, http://b:2"})
        assert app.ollama.base_urls == ("http://a:1", "http://b:2")

    def test_a_key_in_the_environment_replaces_a_key_file_in_the_file(self, write: Any) -> None:
        """Otherwise a source of higher precedence would lose to another name of the same setting."""
        app = load_config(write("vllm: {api_key_file: old}"), environ={"VLLM_API_KEY": "new"})
        assert read_api_key(app.vllm) == "new"

    def test_set_reads_values_as_the_key_needs_them(self) -> None:
        """A text stays a text; a number and a list are converted."""
        texts = ("vllm.model=007", "runner.grace_s=1.5", "variant=null", "input.include=[a, b]")
        app = load_config(None, environ={"PIPELINE_VARIANT": "x"}, overrides=dict(map(parse_set, texts)))
        assert (app.vllm.model, app.runner.grace_s, app.variant) == ("007", 1.5, None)
        assert app.input.include == ("a", "b")
        with pytest.raises(ConfigError, match="need dotted"):
            parse_set("runner.grace_s")

    def test_pipeline_config_variable_names_the_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Then come config/default.yaml, pipeline.yaml, and no file."""
        monkeypatch.chdir(tmp_path)
        assert find_config({}) is None
        (tmp_path / "pipeline.yaml").touch()
        assert find_config({}) == ConfigFile(Path("pipeline.yaml"))
        (tmp_path / "config").mkdir()
        (tmp_path / "config" / "default.yaml").touch()
        assert find_config({}) == ConfigFile(Path("config/default.yaml"))
        assert find_config({"PIPELINE_CONFIG": "mine.yaml"}) == ConfigFile(Path("mine.yaml"))

    def test_nearest_config_file_above_is_used(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Git finds its root the same way; paths in the file are relative to the folder it was found for."""
        project, below = tmp_path / "project", tmp_path / "project" / "inbox" / "2026"
        below.mkdir(parents=True)
        settings = {
            "agents_dir": "agents",
            "input": {"uri": ["inbox", {"uri": "/data/news", "name": "news"}, "s3://bucket/x"]},
            "output": {"uri": "out"},
            "vllm": {"base_url": "http://127.0.0.1:8000", "ca_file": "tls/ca.pem"},
        }
        (project / "pipeline.yaml").write_text(json.dumps(settings), encoding="utf-8")
        (tmp_path / "pipeline.yaml").write_text("agent: other", encoding="utf-8")
        monkeypatch.chdir(below)
        file = find_config({})
        assert file == ConfigFile(Path("../../pipeline.yaml"), Path("../.."))
        app = load_config(file, environ={}, overrides={"eval.gold": "gold.jsonl"})
        assert [source.uri for source in app.input.uri] == ["../../inbox", "/data/news", "s3://bucket/x"]
        assert (app.agents_dir, app.output.uri, app.eval.gold) == ("../../agents", "../../out", "gold.jsonl")
        assert app.vllm.ca_file == "../../tls/ca.pem"
        assert load_config("../../pipeline.yaml", environ={}).output.uri == "out"


class TestProviders:
    def test_a_named_provider_has_the_defaults_of_its_type(self, write: Any) -> None:
        """Nothing is inherited from the vllm section."""
        app = load_config(
            write("vllm: {timeout: 9}\nproviders: {big: {type: openai, model: m}, l: {type: ollama}}"), environ={}
        )
        assert app.provider_config("big") == VLLMConfig(model="m", type="openai")
        assert app.provider_config("l") == OllamaConfig()
        assert app.provider_config("") is app.ollama

    def test_an_unknown_provider_names_the_nearest(self, write: Any) -> None:
        """The error about an unknown provider names the file that set it."""
        assert "provider: got 'vlm', need one of ollama, vllm; the nearest is vllm" in complaint(write("provider: vlm"))
        assert "fallback: got 'x'" in complaint(overrides={"fallback": ["x"]})

    @pytest.mark.parametrize(
        "text", ["providers: {big: {}}", "providers: {big: {type: gpt}}", "providers: {vllm: {type: vllm}}"]
    )
    def test_a_provider_without_type_or_with_a_taken_name_is_refused(self, write: Any, text: str) -> None:
        """The name is that of a section, or the type is missing."""
        assert complaint(write(text)).startswith("providers.")

    @pytest.mark.parametrize(
        ("text", "environ", "names"),
        [
            ("", {}, ()),
            ("provider: vllm", {}, ()),
            ("provider: vllm\nollama: {model: m}", {}, ("ollama",)),
            ("provider: vllm", {"OLLAMA_MODEL": "m"}, ("ollama",)),
            ("ollama: {model: m}", {}, ()),
            ("provider: vllm\nollama: {model: m}\nfallback: []", {}, ()),
            ("fallback: [vllm, '', vllm, ollama]", {}, ("vllm",)),
        ],
    )
    def test_ollama_is_the_fallback_if_configured(
        self, write: Any, text: str, environ: dict[str, str], names: tuple[str, ...]
    ) -> None:
        """Any of its settings suffices; the first provider never is its own fallback."""
        assert load_config(write(text), environ=environ).fallback_names() == names


class TestComplaints:
    def test_the_contract_example(self, write: Any) -> None:
        """A message contains the key, the value, the accepted values and the source, in this order."""
        path = write("runner: {grace_s: -3}")
        assert complaint(path) == f"runner.grace_s: got -3, need a number of seconds >= 0 ({path})"

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("runner: {grace: 3}", "runner.grace: unknown key, the nearest is runner.grace_s"),
            ("grace_s: 3", "grace_s: unknown key, the nearest is runner.grace_s"),
            ("ruhner: {a: 1}", "ruhner: unknown key, the nearest is runner; got a mapping, need one of provider, fall"),
            (
                "overflow: head",
                "overflow: is a setting of agents, not of the configuration: set it in extractor.yaml in",
            ),
            ("{overflow: head, agents_dir: my, agent: a}", "set it in my/a.yaml ("),
            ("ovrflow: head", "ovrflow: unknown key, the nearest is overflow, which is a setting of agents: set it in"),
            ("split: {window_tokens: 9}", "split: is a setting of agents, not of the configuration: set it in"),
            ("lead_chars: 9", "lead_chars: unknown key, the nearest is split.lead_chars, which is a setting of agents"),
            ("promtp: x", "promtp: unknown key, "),
            ("varaint: a", "varaint: unknown key, the nearest is variant; got 'a', need one of"),
            ("cost: {perhour: 3}", "cost.perhour: unknown key, the nearest is cost.per_hour; got 3, need one of per_h"),
            ("vllm: {modle: m1}", "vllm.modle: unknown key, the nearest is vllm.model; got 'm1', need one of base_url"),
            ("vllm: {apikey: sk-1}", "vllm.apikey: unknown key, the nearest is vllm.api_key; got a text"),
            ("vllm: {qqq: sk-1}", "got a text (hidden, as it may be a secret), need one of base_url"),
            ("cost: {per_hour: -1}", "cost.per_hour: got -1, need a number >= 0"),
            ("runner: 5", "runner: got a number, need a mapping"),
            ("runner: []", "runner: got a list, need a mapping"),
            ("providers: {vllm: {type: vllm}}", "need letters, digits, - and _, and a name other than ollama and vllm"),
            ("vllm: {base_url: 'http://h:99999'}", "no port over 65535"),
            ("runner.grace_s: 5", "a key with a dot"),
            ("runner: {fail_fast: true}", "runner.fail_fast: got true, need a whole number >= 0"),
            ("runner: {fail_fast: 1.5}", "runner.fail_fast: got 1.5"),
            ("runner: {grace_s: .inf}", "runner.grace_s: got inf"),
            ("runner: {max_error_rate: 1.5}", "need a number >= 0 and <= 1"),
            ("vllm: {temperature: 3}", "vllm.temperature: got 3, need a number >= 0 and <= 2"),
            ("runner: {concurrency: 0}", "runner.concurrency: got 0, need auto or a whole number >= 1"),
            ("answers: {repair: ful}", "need one of off, basic, full; the nearest is full"),
            ("vllm: {stream: yes}", "vllm.stream: got 'yes', need true or false"),
            ("vllm: {retry_max_delay: 0.5}", "vllm.retry_max_delay: got 0.5, need at least retry_base_delay (1)"),
            ("input: {uri: []}", "input.uri: got an empty one"),
            ("input: {uri: [{uri: a, nam: b}]}", "input.uri: got"),
            ("ollama: {model: null}", "ollama.model: got null, need a model's name"),
        ],
    )
    def test_each_mistake_names_key_and_file(self, write: Any, text: str, expected: str) -> None:
        """There is a case for each kind of mistake."""
        path = write(text)
        message = complaint(path)
        assert expected in message
        assert str(path) in message

    def test_invalid_variable_is_named(self) -> None:
        """The message names the variable, not the file."""
        assert complaint(environ={"VLLM_TIMEOUT": "soon"}) == (
            "vllm.timeout: got 'soon', need a number of seconds > 0 (environment variable VLLM_TIMEOUT)"
        )

    def test_up_to_twenty_mistakes_are_reported_at_once(self, write: Any) -> None:
        """The limit is for a file of another program."""
        lines = complaint(write("\n".join(f"wrong{n}: 1" for n in range(30)))).splitlines()
        assert len(lines) == 21
        assert lines[-1] == "and 10 more"

    @pytest.mark.parametrize(
        "text",
        [
            f"vllm: {{api_key: [{SECRET}]}}",
            f"vllm: {{headers: {{X: [{SECRET}]}}}}",
            f"vllm: {{base_url: 'ftp://u:{SECRET}@host'}}",
            f"vllm: {{base_url: 'http://host?token={SECRET}'}}",
            f"output: {{storage: [{SECRET}]}}",
            f"vllm: {SECRET}",
            f'vllm: {{api_key: "{SECRET}\\n"}}',
        ],
    )
    def test_a_secret_is_not_quoted(self, write: Any, text: str) -> None:
        """The message about a wrong secret does not show it."""
        assert SECRET not in complaint(write(text))


class TestYaml:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("a: 1\nb: 2\na: 3", "line 3: 'a' is on line 1 already"),
            ("a: [1", "line 1"),
            ("a: 1\nb: {c: 1,\n c: 2}", "line 3"),
            ("- a", "line 1: got list, need a mapping"),
            ("a: 1\n2: 3", "line 2: a key that is not a text"),
            ("a: &a [*a]", "an alias that contains itself"),
            ("a: !!python/object/apply:os.getcwd []", "line 1: not YAML"),
            ("a: !!timestamp x", "not YAML"),
            ("a: " + "[" * 3000, "not YAML|nested too deeply"),
        ],
    )
    def test_config_file_must_be_a_plain_mapping(self, write: Any, text: str, expected: str) -> None:
        """File and line are named, and no YAML tag is executed."""
        path = write(text)
        with pytest.raises(ConfigError, match=expected) as caught:
            load_yaml(path)
        assert str(path) in str(caught.value)

    def test_aliases_of_aliases_are_refused(self, write: Any) -> None:
        """A short file cannot expand to more than fits in memory."""
        lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
        lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
        with pytest.raises(ConfigError, match="need fewer aliases"):
            load_yaml(write("\n".join(lines)))

    def test_words_and_dates_are_texts(self, write: Any) -> None:
        """`off` is a setting's value and `no` a country; only true and false are booleans."""
        text = "a: off\nb: no\nc: 2024-01-01\nd: 10:30\ne: 010\nf: 1e3\ng: true\nh: ~\non: -7"
        assert load_yaml(write(text)) == {
            "a": "off",
            "b": "no",
            "c": "2024-01-01",
            "d": "10:30",
            "e": "010",
            "f": 1000.0,
            "g": True,
            "h": None,
            "on": -7,
        }

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        """The message contains the system's reason."""
        with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read \(No such file"):
            load_yaml(tmp_path / "none.yaml")

    def test_an_empty_file_is_an_empty_mapping(self, write: Any) -> None:
        """A file of comments alone changes nothing."""
        assert load_yaml(write("# nothing\n")) == {}

    @settings(max_examples=300, deadline=None)
    @given(data=st.one_of(st.binary(max_size=200), st.text("{}[]:,&*!-#|>'\"\n ab01.~<", max_size=60).map(str.encode)))
    def test_any_file_bytes_give_a_configuration_or_config_error(self, tmp_path_factory: Any, data: bytes) -> None:
        """No other exception is raised."""
        path = tmp_path_factory.mktemp("yaml") / "c.yaml"
        path.write_bytes(data)
        try:
            assert isinstance(load_config(path, environ={}), AppConfig)
        except ConfigError as error:
            assert str(path) in str(error)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=400, deadline=None)
@given(key=st.sampled_from(known_keys()), value=VALUES)
@example(key="ollama.retry_base_delay", value=31)
def test_any_value_of_any_key_is_accepted_or_refused_by_name(key: str, value: object) -> None:
    """It gives a configuration, or a message that names the key."""
    try:
        assert isinstance(load_config(None, environ={}, overrides={key: value}), AppConfig)
    except ConfigError as error:
        # a value that contradicts another key is reported under that key
        assert key.rpartition(".")[2] in str(error)


@settings(max_examples=300, deadline=None)
@given(name=st.sampled_from(sorted(env_names())), text=st.text(min_size=1, max_size=20))
def test_any_text_in_a_variable_is_accepted_or_refused(name: str, text: str) -> None:
    """It gives a configuration or a message."""
    try:
        assert env_names()[name] in load_config(None, environ={name: text}).origins
    except ConfigError as error:
        assert str(error)


class TestSecrets:
    def test_describe_masks_every_secret(self, write: Any) -> None:
        """The printed configuration is plain JSON without secrets, with provider and fallback resolved."""
        path = write(
            f"provider: vllm\n"
            f"vllm: {{base_url: ['http://u:{SECRET}@a/v1'], api_key: {SECRET}, headers: {{Authorization: {SECRET}}},"
            f" extra_body: {{auth_token: {SECRET}, top_k: 3}}, metrics_url: 'http://{SECRET}@m/metrics'}}\n"
            f"input: {{uri: 'https://h/c?sv=1&sig={SECRET}', storage: {{secret_access_key: {SECRET}, region: eu}}}}\n"
            f"providers: {{tokens: {{type: vllm, api_key: {SECRET}}}}}\nollama: {{model: m}}\n"
        )
        description = describe(load_config(path, environ={}))
        assert SECRET not in json.dumps(description, allow_nan=False)
        assert description["vllm"]["api_key"] == "***"
        assert description["vllm"]["base_url"] == ["http://***@a/v1"]
        assert description["vllm"]["extra_body"] == {"auth_token": "***", "top_k": 3}
        assert description["input"]["storage"] == {"secret_access_key": "***", "region": "eu"}
        assert description["providers"]["tokens"]["type"] == "vllm"
        assert description["fallback"] == ["ollama"]

    @pytest.mark.parametrize(
        ("url", "masked"),
        [
            ("http://u:p@h:1/a@b", "http://***@h:1/a@b"),
            ("https://h/p?sv=1&sig=abc&x=2", "https://h/p?sv=1&sig=***&x=2"),
            ("https://h/p?X-Amz-Signature=abc", "https://h/p?X-Amz-Signature=***"),
            ("data/doc?.txt", "data/doc?.txt"),
            ("s3://bucket/a@b", "s3://bucket/a@b"),
        ],
    )
    def test_addresses_are_masked_and_stay_readable(self, url: str, masked: str) -> None:
        """User names and signatures are masked; hosts, paths and globs are kept."""
        assert mask_url(url) == masked

    def test_a_key_is_read_from_its_file(self, tmp_path: Path) -> None:
        """The file wins over the setting, and its line end is not part of the key."""
        (tmp_path / "key").write_text("abc\n")
        assert read_api_key(VLLMConfig(api_key="x", api_key_file=str(tmp_path / "key"))) == "abc"
        assert read_api_key(VLLMConfig(api_key="x")) == "x"

    @pytest.mark.parametrize("content", [None, b"", b"a\nhunter2\n", b"\xff\xfe"])
    def test_a_key_file_without_a_key_is_refused(self, tmp_path: Path, content: bytes | None) -> None:
        """The path is named, the content is not."""
        if content is not None:
            (tmp_path / "key").write_bytes(content)
        with pytest.raises(ConfigError, match="api_key_file") as caught:
            read_api_key(OllamaConfig(api_key_file=str(tmp_path / "key")))
        assert "hunter2" not in str(caught.value)


class TestSchema:
    @pytest.mark.parametrize("schema", [config_schema(), agent_schema()])
    def test_published_schemas_are_valid(self, schema: dict[str, Any]) -> None:
        """They are JSON Schemas of draft 2020-12 and refuse unknown keys."""
        Draft202012Validator.check_schema(json.loads(json.dumps(schema, allow_nan=False)))
        assert schema["additionalProperties"] is False

    def test_default_file_matches_the_schema(self, write: Any) -> None:
        """It does so with all commented-out settings enabled, too."""
        data = load_yaml(write(uncommented(DEFAULT.read_text("utf-8"))))
        assert [error.message for error in Draft202012Validator(config_schema()).iter_errors(data)] == []
        assert set(data) == set(config_schema()["properties"])

    @settings(max_examples=300, deadline=None)
    @given(key=st.sampled_from(known_keys()), value=VALUES)
    def test_schema_accepts_all_valid_values(self, key: str, value: object) -> None:
        """An editor does not mark values that the program accepts."""
        try:
            load_config(None, environ={}, overrides={key: value if not isinstance(value, str) else [value]})
        except ConfigError:
            return
        given_value = [value] if isinstance(value, str) else value
        section, _, name = key.rpartition(".")
        data = {section: {name: given_value}} if section else {name: given_value}
        assert list(Draft202012Validator(config_schema()).iter_errors(data)) == []


def test_flag_sets_a_key_inside_a_mapping(tmp_path: Path) -> None:
    """It adds one store option, header or request field to those in the file."""
    path = tmp_path / "c.yaml"
    path.write_text("input: {storage: {region: a}}\nproviders: {big: {type: vllm}}\n", encoding="utf-8")
    texts = (
        *("input.storage.endpoint=http://127.0.0.1:1", "input.storage.allow_http=true", "vllm.headers.X-Id=5"),
        *("vllm.headers.X.Y=z", "providers.big.extra_body.chat.deep=1", "providers.big.extra_body.seed=2"),
        'vllm.extra_body.user="5"',
    )
    app = load_config(path, environ={}, overrides=dict(map(parse_set, texts)))
    assert app.input.storage == {"region": "a", "endpoint": "http://127.0.0.1:1", "allow_http": True}
    assert app.vllm.headers == {"X-Id": "5", "X.Y": "z"}
    assert app.vllm.extra_body == {"user": "5"}
    big = app.providers["big"]
    assert isinstance(big, VLLMConfig)
    assert big.extra_body == {"chat": {"deep": 1}, "seed": 2}


def test_flag_for_an_agents_nested_setting_names_the_agent() -> None:
    """`--set split.window_tokens=900` is not reported as a misspelt setting of the configuration."""
    expected = r"split\.window_tokens: is a setting of agents, not of the configuration: set it in extractor\.yaml"
    with pytest.raises(ConfigError, match=expected):
        load_config(None, environ={}, overrides={"split.window_tokens": "900"})


def test_key_below_a_plain_setting_is_unknown() -> None:
    """It is reported like a misspelt key."""
    with pytest.raises(ConfigError, match=r"runner\.refresh\.now: .*unknown key"):
        load_config(None, environ={}, overrides={"runner.refresh.now": "1"})


class TestLimits:
    def test_wrong_limit_names_its_own_source(self, write: Any) -> None:
        """A wrong `--set input.limits.X` is the command line's, a wrong limit of the file beside it the file's."""
        path = write("input: {limits: {columns: 5}}")
        flags = {"input.limits.members": "-3", "input.limits.ratio": "9"}
        assert complaint(path, overrides=flags).endswith("(command line)")
        path = write("input: {limits: {members: -3}}")
        assert complaint(path, overrides={"input.limits.ratio": "9"}).endswith(f"({path})")

    def test_wrong_csv_option_names_its_source(self, write: Any) -> None:
        """An error that is found only when the section is built names the source of its setting."""
        text = complaint(write("agent: extractor"), overrides={"input.csv.delimiter": "abc"})
        assert text.endswith("(command line)")

    def test_whole_limits_are_shown_as_integers(self, write: Any) -> None:
        """A number is shown as it was typed, also in the message about a wrong one."""
        app = load_config(write("input: {limits: {members: 7, cpu_s: 30, ratio: 1.5}}"), environ={})
        assert json.dumps(describe(app)["input"]["limits"]) == '{"cpu_s": 30, "members": 7, "ratio": 1.5}'
        assert "got -3," in complaint(None, overrides={"input.limits.members": "-3"})

    def test_default_limits_are_no_changed_setting(self, write: Any) -> None:
        """A limit that is set to its default does not differ from the defaults."""
        app = load_config(write("input: {limits: {cpu_s: 20, members: 10000000}}"), environ={})
        assert changed_settings(app) == []
