"""The command line: parse, check, call, render, exit. One file per command."""
