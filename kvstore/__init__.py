"""A feature store and SQL warehouse for the visual key-value vectors inside multimodal language models."""

__version__ = "0.1.0"
