"""Scores: what a tokenizer and a translator are worth."""
