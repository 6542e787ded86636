"""Plain loops over a model's own layers: encode, prefill, decode, and what they cost."""
