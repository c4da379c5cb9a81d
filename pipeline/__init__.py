"""A batch pipeline from documents, through a self-hosted language model, to JSON that can be trusted."""

__version__ = "0.1.0"
