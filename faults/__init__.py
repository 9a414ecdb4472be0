"""What is claimed about faults, as commands; each prints what happened, and with --write files it in records/.

python -m faults.kills       a sweep killed at random moments and inside writes, resumed, held against a whole one
python -m faults.fuzz        damaged files of every kind, read by every command
python -m faults.endurance   the memory of a process that trains one run after another, by the hour

`python -m tools.docs` makes docs/reliability.md from the records.
"""
