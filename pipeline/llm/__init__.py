"""Who answers. A dialect is a client class with `call_llm`, `small`, `adopt` and `close`, and a line in factory.py.

protocol   what a client is                http        one endpoint: deadlines, limits, keys
connection a socket with a deadline        addresses   replicas behind one host name
vllm       the OpenAI protocol             ollama      Ollama's own protocol
retry      how often, how long             replicas    one provider: several servers, asked side by side
replica    one server: does it live?       facts       what a server says of itself
failover   providers in order              preflight   what a server is fit for
factory    from configuration to clients   wire_texts  what servers say in nothing but text
sse        streams, put together           truncation  was the prompt cut?
reloads    is the model loaded over again? enforcement what of a schema is not enforced
"""
