"""Ordering of waiting requests: pure Python, no vLLM import."""
