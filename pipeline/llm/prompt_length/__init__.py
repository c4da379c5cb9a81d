"""Verification that a server reads a prompt to its end, and the search for its limit, from token counts alone.

Some servers truncate a prompt that exceeds their context length and still answer with status 200. The reading order of
the modules: repetition (how one server is verified), limit_search and halves (once it has a limit), verifier (which
request is needed when; one per server), verification (its connection with a client).
"""
