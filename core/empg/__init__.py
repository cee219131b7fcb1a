"""EMPG: train language models to reason with EM Policy Gradient (arXiv 2504.18587)."""

__version__ = "0.1.0"
