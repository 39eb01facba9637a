"""Which vLLM releases the patches fit: read from their sources (`scan`), proven by running them (`prove`).

Nothing here imports vLLM; the sources of a scanned release are parsed and never run.
"""
