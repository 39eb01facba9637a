"""Metric definitions of vllm-vlinders, exposed on vLLM's own ``/metrics``."""
