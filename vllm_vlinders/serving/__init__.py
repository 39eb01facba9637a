"""The HTTP request path: one ASGI pipeline, and the management endpoints."""
