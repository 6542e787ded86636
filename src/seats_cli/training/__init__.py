"""How the model that ships with the package was trained, from random weights. ``python -m seats_cli.training``."""
