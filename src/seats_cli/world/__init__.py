"""A small synthetic world: things are seen, sounds are heard, answers to questions about them are known."""
