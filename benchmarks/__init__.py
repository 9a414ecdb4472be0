"""What is claimed about speed, as commands; each prints its figures and can keep them for docs/performance.md.

python -m benchmarks.run        a training step beside PyTorch's, the floor, start-up, memory, a small sweep
python -m benchmarks.host       what writing, transfer and display cost, and a trace of it
python -m benchmarks.layouts    what a CPU gains from which layout, in C++ and by XLA
python -m benchmarks.scaling    seconds per run-step against width, P, d_model and devices
python -m benchmarks.sweep      any sweep wall to wall
python -m benchmarks.refill     refilled slots against fixed batches
python -m benchmarks.measures   what evaluating each group of measures costs
python -m benchmarks.tables     files of a large sweep: written, read back, checked
python -m benchmarks.precision  what the precision of products does to grokking
python -m benchmarks.page       how large the report's page is and how fast it opens
python -m benchmarks.report     docs/performance.md from what the others kept
"""
