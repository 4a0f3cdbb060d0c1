"""The deferred program as frozen data: nodes, operations, the wire. Knows nothing of models."""
