"""A batch pipeline from documents, through a self-hosted language model, to validated JSON.

The public names for other programs are importable from here; the first use of a name imports its module.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.api import Extractor, classify_global_event, extract, read_results
    from pipeline.config import AppConfig, OllamaConfig, ResolvedAgentConfig, VLLMConfig
    from pipeline.config.loading import load_config
    from pipeline.llm.factory import build_config_from_resolved, build_llm_client
    from pipeline.llm.ollama import OllamaClient
    from pipeline.llm.protocol import LLMClient
    from pipeline.llm.vllm import VLLMClient, check_vllm_health
    from pipeline.output.current import Record
    from pipeline.records import ExtractionAttempt, ModelMetadata

__version__ = "0.2.0"

__all__ = [
    "AppConfig",
    "ExtractionAttempt",
    "Extractor",
    "LLMClient",
    "ModelMetadata",
    "OllamaClient",
    "OllamaConfig",
    "Record",
    "ResolvedAgentConfig",
    "VLLMClient",
    "VLLMConfig",
    "build_config_from_resolved",
    "build_llm_client",
    "check_vllm_health",
    "classify_global_event",
    "extract",
    "load_config",
    "read_results",
]

_HOMES = {
    "api": ("Extractor", "classify_global_event", "extract", "read_results"),
    "config": ("AppConfig", "OllamaConfig", "ResolvedAgentConfig", "VLLMConfig"),
    "llm.factory": ("build_config_from_resolved", "build_llm_client"),
    "llm.ollama": ("OllamaClient",),
    "llm.protocol": ("LLMClient",),
    "llm.vllm": ("VLLMClient", "check_vllm_health"),
    "output.current": ("Record",),
    "records": ("ExtractionAttempt", "ModelMetadata"),
    "config.loading": ("load_config",),
}


def __getattr__(name: str) -> object:
    """Import a name of `__all__` from its module."""
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"pipeline.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
