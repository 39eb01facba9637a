"""Prompt -> model: what a prompt asks for, and who should answer it. Pure of HTTP and of vLLM."""

from vllm_vlinders.routing.classification import CATEGORIES, Classification
from vllm_vlinders.routing.classifier import classify
from vllm_vlinders.routing.semantic_router import SemanticRouter

__all__ = ["CATEGORIES", "Classification", "SemanticRouter", "classify"]
