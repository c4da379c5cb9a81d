"""Clients of language-model servers. A dialect is a class with `call_llm`, `short_client`, `adopt` and `close`.

protocol       the interface of clients         transport/      HTTP: deadlines, limits, keys, connections
vllm, ollama   the two dialects                 preflight/      checks before a server gets documents
factory        clients from the configuration   capabilities    facts that a server reports
failover       providers in order               prompt_length/  verification that prompts are read whole
provider       the replicas of one model        error_patterns  error messages and their reasons
replica        one server: is it available?     endings         finish reasons of answers
retry          how often, after which delay     sharing         an Ollama that other clients use, too
"""
