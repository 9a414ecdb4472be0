"""Trained models looked into: checkpoints of any origin, measures, replays, circuits."""
