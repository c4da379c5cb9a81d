"""The local page for judging answers: choose documents, read them again, show them, save judgements as gold.

Only cli may import it. It must not call a model or write to an output.
"""
