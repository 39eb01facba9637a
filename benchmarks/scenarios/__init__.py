"""Scheduling scenarios on the real engine, stock vLLM and ours in turns: ``make scenarios``."""
