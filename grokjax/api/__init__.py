"""The Python front door: what the commands do, as functions."""
