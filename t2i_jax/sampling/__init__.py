"""Samplers over a function tokens -> logits; no model is imported here."""
