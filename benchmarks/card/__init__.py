"""What half an hour on an accelerator should answer, in order of worth.

    python -m benchmarks.card errors speed        # those parts
    python -m benchmarks.card all --seconds=480   # every part, in this order, until the time is up
    python -m benchmarks.card all --dry           # a tiny problem, for a machine without an accelerator

Each part leaves a JSON file in --out, after every figure, and goes on from what it finds there. A figure is found in a
process of its own, so that one that fails, hangs or runs out of memory costs no other.
"""
