"""A faithful, fault-injecting fake of an Ollama and a vLLM server, for tests and for offline trials of agents."""

from fake_llm.faults import Fault as Fault
from fake_llm.received import ReceivedRequest as ReceivedRequest
from fake_llm.server import FakeLLM as FakeLLM
