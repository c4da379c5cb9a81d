"""A faithful, fault-injecting fake of an Ollama and a vLLM server, for tests and for trying agents offline."""

from fake_llm.faults import Fault as Fault
from fake_llm.server import FakeLLM as FakeLLM
from fake_llm.server import Seen as Seen
