"""Models a user opens: any module, a language model, the demo models."""
