"""Agents: the file format, precedence of settings, choice of variants, and rendered prompts."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from pipeline.agents import Agent, fingerprint, load_agent, question, render, resolve, variant_for
from pipeline.config import AppConfig, OllamaConfig, ResolvedAgentConfig, VLLMConfig
from pipeline.config.json_schema import agent_schema
from pipeline.config.loading import load_config, load_yaml
from pipeline.documents.special_tokens import break_special_tokens
from pipeline.errors import ConfigError
from pipeline.records import Document

SCHEMA = "{type: object, properties: {s: {type: string}}, required: [s], additionalProperties: false}"
SCHEMA_TREE = {"type": "object", "required": ["s"], "additionalProperties": False}
SPLIT = "overflow: split\nsplit: {%s}"
MINIMAL = f'user_prompt: "$document"\nschema: {SCHEMA}\n'


def document(text: str = "hello", **metadata: Any) -> Document:
    """Return a document with this text and metadata."""
    return Document(id="a/b.txt", uri="file:a/b.txt", sha256="0" * 64, text=text, metadata=metadata)


def agent_of(folder: Path, text: str, *, name: str = "mine") -> Agent:
    """Return the agent of this file."""
    (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return load_agent(name, agents_dir=folder)


def resolved_of(folder: Path, text: str, *, variant: str = "default", **config: Any) -> ResolvedAgentConfig:
    """Return the agent of this file, resolved against a configuration."""
    return resolve(agent_of(folder, text), load_config(None, **{"environ": {}, **config}), variant=variant)


class TestLoading:
    @pytest.mark.parametrize("name", ["extractor", "event_classifier"])
    def test_built_in_agents_load(self, name: str) -> None:
        """Each is valid under the published schema."""
        agent = load_agent(name)
        assert "$document" in agent.user_prompt
        data = load_yaml(agent.path)
        assert [error.message for error in Draft202012Validator(agent_schema()).iter_errors(data)] == []

    def test_minimal_agent_file_loads(self, tmp_path: Path) -> None:
        """A prompt and a schema make an agent with a default variant."""
        agent = agent_of(tmp_path, MINIMAL)
        assert (agent.name, agent.system_prompt, list(agent.variants)) == ("mine", "", ["default"])
        assert agent.compiled.violation({"s": "x"}) is None
        assert agent.compiled.violation({}) is not None

    def test_own_agent_file_overrides_a_built_in_one(self, tmp_path: Path) -> None:
        """A user can change a built-in agent without changing the program."""
        assert agent_of(tmp_path, MINIMAL, name="extractor").path.parent == tmp_path

    def test_schema_file_is_relative_to_the_agent(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The current directory does not matter."""
        folder = tmp_path / "agents"
        folder.mkdir()
        (folder / "s.json").write_text('{"type": "object", "properties": {"n": {"type": "integer"}}}')
        monkeypatch.chdir(tmp_path)
        agent = agent_of(folder, 'user_prompt: "$document"\nschema: s.json')
        assert agent.schema["properties"] == {"n": {"type": "integer"}}

    @pytest.mark.parametrize(
        ("text", "place"),
        [
            (MINIMAL + "promt: x", "promt: unknown key"),
            (MINIMAL + "user_promt: x", "user_promt: unknown key, the nearest is user_prompt"),
            (f"schema: {SCHEMA}", "user_prompt: got nothing"),
            ('user_prompt: "$document"', "schema: got nothing"),
            (f"user_prompt: hello\nschema: {SCHEMA}", r"user_prompt: got no \$document"),
            (f'user_prompt: "$document $titel"\nschema: {SCHEMA}', r"line 1: got \$titel.*the nearest is \$title"),
            (f'user_prompt: "x\\n$document costs $5"\nschema: {SCHEMA}', r"line 2: got '\$5'.*\$\$ for a dollar"),
            (MINIMAL + 'system_prompt: "about $title"', r"system_prompt, line 1: got \$title, need static text"),
            (MINIMAL + "max_tokens: 0", "max_tokens: got 0, need a whole number of tokens >= 1"),
            (MINIMAL + "overflow: cut", "overflow: got 'cut', need one of fail, head, head_tail"),
            (MINIMAL + "overflow: splitt", "need one of fail, head, head_tail, split or null; the nearest is split"),
            (MINIMAL + SPLIT % "window_token: 900", r"split\.window_token: unknown key, the nearest is window_tokens"),
            (MINIMAL + SPLIT % "window_tokens: 10", r"split\.window_tokens: got 10, need .* of tokens >= 256 or null"),
            (MINIMAL + SPLIT % "window_tokens: 2000000", "tokens >= 256 and <= 1000000 or null"),
            (
                MINIMAL + SPLIT % "window_tokens: 900, overlap_tokens: 400",
                r"got 400, need at most a quarter .* \(225\)",
            ),
            (MINIMAL + SPLIT % "lead_chars: -1", r"split\.lead_chars: got -1, need a whole number of characters >= 0"),
            (
                MINIMAL + "overflow: head\nsplit: {lead_chars: 9}",
                "split: got settings beside overflow: head, need over",
            ),
            (MINIMAL + "split: {lead_chars: 9}", "split: got settings beside overflow: fail, need overflow: split"),
            (MINIMAL + "overflow: split\nsplit: 900", "split: got 900, need a mapping of settings"),
            (
                MINIMAL + "overflow: split\nvariants: {a: {split: {lead_char: 1}}}",
                r"variants\.a\.split\.lead_char: unknown key, the nearest is lead_chars",
            ),
            (
                MINIMAL + "overflow: split\nvariants: {a: {overflow: head, split: {lead_chars: 1}}}",
                r"variants\.a\.split: got settings beside overflow: head, need overflow: split",
            ),
            (MINIMAL + "variants: {a: {weigth: 1}}", r"variants\.a\.weigth: unknown key, the nearest is weight"),
            (MINIMAL + "variants: {a: 3}", r"variants\.a: got 3, need a mapping"),
            (MINIMAL + 'variants: {a: {user_prompt: "x"}}', r"variants\.a\.user_prompt: got no \$document"),
            ('user_prompt: "$document"\nschema: none.json', "schema: got 'none.json', which cannot be read"),
            ('user_prompt: "$document"\nschema: broken.json', r"broken\.json, line 2: not JSON"),
            ('user_prompt: "$document"\nschema: list.json', "holds a list"),
            ('user_prompt: "$document"\nschema: {type: objekt}', "schema"),
            ('user_prompt: "$document"\nschema: {type: array}', "schema"),
            ('user_prompt: "$document"\nschema: [1]', "schema: got"),
        ],
    )
    def test_agent_error_names_file_and_key(self, tmp_path: Path, text: str, place: str) -> None:
        """Each kind of mistake has a message with its place."""
        (tmp_path / "broken.json").write_text("{\n]")
        (tmp_path / "list.json").write_text("[]")
        with pytest.raises(ConfigError, match=place) as caught:
            agent_of(tmp_path, text)
        assert str(tmp_path / "mine.yaml") in str(caught.value)

    @pytest.mark.parametrize("name", ["extracter", "../mine", "sub/mine", "", "mine.yaml", "/etc/passwd"])
    def test_unknown_agent_lists_the_available_ones(self, tmp_path: Path, name: str) -> None:
        """A name is a plain file name, so no path leaves the folders."""
        agent_of(tmp_path, MINIMAL)
        with pytest.raises(ConfigError, match=r"agent: got .* need one of .*mine"):
            load_agent(name, agents_dir=tmp_path)

    def test_missing_agents_dir_is_named(self, tmp_path: Path) -> None:
        """Otherwise every agent would be reported as unknown."""
        with pytest.raises(ConfigError, match=r"agents_dir: got .*need a folder"):
            load_agent("mine", agents_dir=tmp_path / "none")


ASKING = MINIMAL + "max_tokens: 800\ntemperature: 0.5\nmodel: big\nvariants: {terse: {temperature: 0.2}}\n"


class TestPrecedence:
    def test_variant_overrides_agent_overrides_config_file(self, tmp_path: Path) -> None:
        """The config file has the lowest precedence."""
        config = tmp_path / "c.yaml"
        config.write_text("ollama: {max_tokens: 5, temperature: 0.9, model: small}")
        (tmp_path / "agents").mkdir()
        agent = agent_of(tmp_path / "agents", ASKING)
        resolved = resolve(agent, load_config(config, environ={}), variant="terse")
        assert (resolved.max_tokens, resolved.temperature, resolved.model) == (800, 0.2, "big")

    @pytest.mark.parametrize(
        "how",
        [
            {"environ": {"OLLAMA_MAX_TOKENS": "5", "OLLAMA_MODEL": "m", "OLLAMA_TEMPERATURE": "1"}},
            {"overrides": {"ollama.max_tokens": 5, "ollama.model": "m", "ollama.temperature": 1}},
        ],
    )
    def test_environment_and_flags_override_the_agent(self, tmp_path: Path, how: dict[str, Any]) -> None:
        """None means the provider's own value, which takes precedence here."""
        resolved = resolved_of(tmp_path, ASKING, variant="terse", **how)
        assert (resolved.max_tokens, resolved.model, resolved.temperature) == (None, None, None)
        assert resolved.settings_for("ollama") == {}

    def test_origin_of_a_named_provider_is_its_own_key(self, tmp_path: Path) -> None:
        """The origin of providers.big.max_tokens applies to provider big."""
        flags = {"provider": "big", "providers.big.type": "vllm", "providers.big.max_tokens": 7}
        resolved = resolved_of(tmp_path, ASKING, overrides=flags)
        assert (resolved.provider, resolved.max_tokens, resolved.temperature) == ("big", None, 0.5)

    def test_fallback_uses_its_own_model(self, tmp_path: Path) -> None:
        """The agent's model belongs to the first provider; its limits apply to all without their own."""
        text = ASKING + "fallback: [vllm, ollama]\n"
        resolved = resolved_of(tmp_path, text, environ={"VLLM_MAX_TOKENS": "9"})
        assert resolved.fallback == ("vllm",)
        assert resolved.settings_for("ollama") == {"model": "big", "max_tokens": 800, "temperature": 0.5}
        assert resolved.settings_for("vllm") == {"temperature": 0.5}

    def test_only_a_flag_overrides_the_agents_provider(self, tmp_path: Path) -> None:
        """The agent's model is then dropped too."""
        text = ASKING + "provider: vllm\n"
        config = tmp_path / "c.yaml"
        config.write_text("provider: ollama")
        agent = agent_of(tmp_path, text)
        by_file = resolve(agent, load_config(config, environ={}), variant="default")
        assert (by_file.provider, by_file.model) == ("vllm", "big")
        by_flag = resolve(agent, load_config(None, environ={"PIPELINE_PROVIDER": "ollama"}), variant="default")
        assert (by_flag.provider, by_flag.model) == ("ollama", None)

    def test_fallback_follows_the_agents_provider(self, tmp_path: Path) -> None:
        """Ollama, if configured, is the fallback of an agent whose provider is vllm."""
        resolved = resolved_of(tmp_path, MINIMAL + "provider: vllm", environ={"OLLAMA_MODEL": "m"})
        assert (resolved.provider, resolved.fallback) == ("vllm", ("ollama",))

    def test_unknown_provider_in_an_agent_names_the_agent_file(self, tmp_path: Path) -> None:
        """The message contains the place in the file."""
        with pytest.raises(ConfigError, match=r"mine\.yaml: provider: got 'vlm'.*nearest is vllm"):
            resolved_of(tmp_path, MINIMAL + "provider: vlm")

    def test_max_reasks_comes_from_flag_agent_or_file(self, tmp_path: Path) -> None:
        """The agent overrides the file, and a flag overrides both."""
        assert resolved_of(tmp_path, MINIMAL).max_reasks == 1
        assert resolved_of(tmp_path, MINIMAL + "max_reasks: 3").max_reasks == 3
        flags = {"runner.max_reasks": 0}
        assert resolved_of(tmp_path, MINIMAL + "max_reasks: 3", overrides=flags).max_reasks == 0


WEIGHTED = MINIMAL + "variants: {a: {weight: 9}, b: {weight: 1}, c: {}, d: {weight: 0}}\n"


class TestVariants:
    def test_weights_distribute_the_documents(self, tmp_path: Path) -> None:
        """Nine in ten get the variant of weight nine; a variant without a weight gets none."""
        agent = agent_of(tmp_path, WEIGHTED)
        counts = Counter(variant_for(agent, f"doc-{n}", pinned=None) for n in range(5000))
        assert set(counts) == {"a", "b"}
        assert 0.08 < counts["b"] / 5000 < 0.12

    def test_variant_choice_depends_only_on_the_id(self, tmp_path: Path) -> None:
        """Order, process and other documents do not matter."""
        weighted = agent_of(tmp_path, WEIGHTED)
        other = agent_of(tmp_path, MINIMAL + "variants: {b: {weight: 1}, a: {weight: 9}}", name="other")
        ids = [f"doc-{n}" for n in range(200)] + ["\udcff"]
        assert [variant_for(weighted, i, pinned=None) for i in ids] == [variant_for(other, i, pinned=None) for i in ids]
        assert variant_for(weighted, "doc-10", pinned=None) == "b"

    def test_default_variant_without_weights(self, tmp_path: Path) -> None:
        """Other variants are used only on request."""
        agent = agent_of(tmp_path, MINIMAL + "variants: {a: {}, b: {}}")
        assert {variant_for(agent, f"{n}", pinned=None) for n in range(50)} == {"default"}
        assert variant_for(agent, "x", pinned="b") == "b"

    def test_unknown_variant_suggests_the_nearest(self, tmp_path: Path) -> None:
        """The run does not start with another one."""
        agent = agent_of(tmp_path, ASKING)
        with pytest.raises(ConfigError, match="variant: got 'ters', need one of default, terse; the nearest is terse"):
            variant_for(agent, "x", pinned="ters")


class TestRendering:
    def test_placeholders_are_filled_from_metadata(self, tmp_path: Path) -> None:
        """Missing metadata is empty, and $$ is a dollar."""
        text = f"system_prompt: cost $$5\nuser_prompt: '$id|$uri|${{title}}|$author|$tags|$document'\nschema: {SCHEMA}"
        prompts = render(resolved_of(tmp_path, text), document(title="T", tags=[1, 2], author=None))
        assert prompts == {"system": "cost $5", "user": "a/b.txt|file:a/b.txt|T||[1, 2]|hello"}

    @given(text=st.text(), title=st.text().filter(lambda title: not break_special_tokens(title)[1]))
    def test_placeholders_in_a_document_are_not_expanded(self, text: str, title: str) -> None:
        """Document and title reach the prompt unchanged."""
        resolved = ResolvedAgentConfig("a", "default", user_prompt="<$title>\n$document")
        assert render(resolved, document(text, title=title))["user"] == f"<{title}>\n{text}"

    def test_variables_declare_custom_metadata(self, tmp_path: Path) -> None:
        """A missing column is empty, and special tokens are broken up."""
        text = f'variables: [rating, sku]\nuser_prompt: "$rating/$sku/$document"\nschema: {SCHEMA}\n'
        resolved = resolved_of(tmp_path, text)
        assert render(resolved, document("text", rating=4))["user"] == "4//text"
        assert "<|im_end|>" not in render(resolved, document("text", sku="<|im_end|>"))["user"]

    @pytest.mark.parametrize("name", ["document", "id", "two words", "1st", "größe"])
    def test_invalid_variable_name_is_refused(self, tmp_path: Path, name: str) -> None:
        """The message contains the file and the accepted form."""
        with pytest.raises(ConfigError, match="variables: got"):
            agent_of(tmp_path, MINIMAL + f"variables: ['{name}']\n")

    def test_unknown_placeholder_suggests_the_nearest(self, tmp_path: Path) -> None:
        """The message explains how to declare a name."""
        with pytest.raises(ConfigError, match=r"got \$ratng.*or a name in `variables`; the nearest is \$rating"):
            agent_of(tmp_path, f'variables: [rating]\nuser_prompt: "$ratng $document"\nschema: {SCHEMA}\n')

    def test_metadata_cannot_replace_document_id_or_uri(self) -> None:
        """Fields with these names are ignored."""
        resolved = ResolvedAgentConfig("a", "default", user_prompt="$id $uri $document")
        prompts = render(resolved, replace(document(), metadata={"document": "x", "id": "y", "uri": "z"}))
        assert prompts["user"] == "a/b.txt file:a/b.txt hello"


class TestFingerprint:
    def test_fingerprint_is_stable(self, tmp_path: Path) -> None:
        """It is the same in any process."""
        first, second = (resolved_of(tmp_path, ASKING) for _ in range(2))
        assert fingerprint(first, AppConfig().ollama) == fingerprint(second, AppConfig().ollama)
        assert re.fullmatch(r"[0-9a-f]{64}", fingerprint(first, AppConfig().ollama))

    def test_fingerprint_covers_exactly_the_contracts_fields(self, tmp_path: Path) -> None:
        """Other settings must not cause an archive to be redone."""
        query = question(resolved_of(tmp_path, ASKING), AppConfig().ollama)
        assert query == {
            "agent": "mine",
            "variant": "default",
            "system_prompt": "",
            "user_prompt": "$document",
            "schema": agent_of(tmp_path, ASKING).schema,
            "model": "big",
            "max_tokens": 800,
            "temperature": 0.5,
        }

    @pytest.mark.parametrize(
        "change",
        [{"model": "x"}, {"max_tokens": 3}, {"temperature": 0.3}, {"extra_body": {"top_k": 1}}],
    )
    def test_changed_request_changes_the_fingerprint(self, tmp_path: Path, change: dict[str, Any]) -> None:
        """The provider's values count where the agent sets none."""
        resolved = resolved_of(tmp_path, MINIMAL, overrides={"provider": "vllm"})
        assert fingerprint(resolved, VLLMConfig()) != fingerprint(resolved, VLLMConfig(**change))

    def test_same_model_on_another_server_keeps_the_fingerprint(self, tmp_path: Path) -> None:
        """Provider, context size and dialect do not count, and parameters have one name in both dialects."""
        ollama = OllamaConfig(model="big", num_ctx=4096, keep_alive="1h", stream=True)
        in_vllm = resolved_of(tmp_path, MINIMAL, overrides={"provider": "vllm"})
        in_ollama = resolved_of(tmp_path, MINIMAL, overrides={"provider": "ollama"})
        ollama_fingerprint = fingerprint(in_ollama, ollama)
        assert ollama_fingerprint == fingerprint(
            in_vllm, VLLMConfig(model="big", extra_body={"stream_options": {}, "priority": 3})
        )
        assert ollama_fingerprint == fingerprint(in_vllm, VLLMConfig(model="org/big-fp8", model_id="big"))
        assert ollama_fingerprint != fingerprint(in_vllm, VLLMConfig(model="org/big-fp8"))
        seeded = VLLMConfig(model="big", extra_body={"seed": 7})
        assert ollama_fingerprint != fingerprint(in_vllm, seeded)
        as_request = fingerprint(replace(in_vllm, request={"seed": 7}), VLLMConfig(model="big"))
        in_options = fingerprint(in_ollama, OllamaConfig(model="big", options={"seed": 7, "num_thread": 4}))
        assert fingerprint(in_vllm, seeded) == as_request == in_options
        assert as_request == fingerprint(in_vllm, VLLMConfig(model="big", extra_body={"options": {"seed": 7}}))

    def test_agents_model_id_overrides_the_providers(self, tmp_path: Path) -> None:
        """A variant may set another model id than the agent."""
        text = MINIMAL + "model_id: big\nvariants: {default: {}, small: {model_id: small}}\n"
        for variant, name in (("default", "big"), ("small", "small")):
            resolved = resolved_of(tmp_path, text, variant=variant)
            assert question(resolved, OllamaConfig(model_id="other"))["model"] == name

    def test_descriptive_schema_keywords_keep_the_fingerprint(self, tmp_path: Path) -> None:
        """`x-label` is for people, but `x-quote` decides about answers, and a property of that name is no keyword."""
        plain = resolved_of(tmp_path, MINIMAL)
        config = AppConfig().ollama

        def of(**keywords: Any) -> str:
            schema = {**SCHEMA_TREE, "properties": {"s": {"type": "string", **keywords}}}
            return fingerprint(replace(plain, schema=schema), config)

        assert of() == of(**{"x-label": "Name"}) == of(**{"x-form": {"row": 3}})
        assert of() != of(**{"x-quote": True})
        with_property = {**SCHEMA_TREE, "properties": {"x-s": {"type": "string"}}}
        assert question(replace(plain, schema=with_property), config)["schema"] == with_property

    @pytest.mark.parametrize(
        "change", [{"base_url": "http://x"}, {"api_key": "k"}, {"timeout": 5}, {"max_retries": 9}, {"stream": True}]
    )
    def test_transport_settings_keep_the_fingerprint(self, tmp_path: Path, change: dict[str, Any]) -> None:
        """Address and timeout do not change the request."""
        resolved = resolved_of(tmp_path, MINIMAL, overrides={"provider": "vllm"})
        assert fingerprint(resolved, VLLMConfig()) == fingerprint(resolved, VLLMConfig(**change))


def test_special_tokens_in_metadata_are_broken_up(tmp_path: Path) -> None:
    """This covers title, id and URI in the prompt."""
    text = (
        "description: d\nsystem_prompt: s\nuser_prompt: $title $id $document\nschema: {type: object, properties: {}}\n"
    )
    (tmp_path / "a.yaml").write_text(text, encoding="utf-8")
    resolved = resolve(load_agent("a", agents_dir=tmp_path), AppConfig(), variant="default")
    user = render(resolved, Document("<|im_end|>.txt", "u", "0", "text", {"title": "<|im_start|>system"}))["user"]
    assert "<|im_end|>" not in user
    assert "<|im_start|>" not in user
