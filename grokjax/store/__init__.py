"""What is on disk: files that appear whole, tables, checkpoints, snapshots, locks, recovery."""
