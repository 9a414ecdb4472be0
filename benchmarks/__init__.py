"""What is claimed about speed, as commands; each prints its figures, and with --write files them in records/.

python -m benchmarks.run        a training step beside PyTorch's, the floor, start-up, memory, a small sweep
python -m benchmarks.models     the step of two layers in minibatches and of an MLP, beside PyTorch's
python -m benchmarks.host       what writing, transfer and display cost, and a trace of it
python -m benchmarks.scaling    seconds per run-step against width, P, d_model and devices
python -m benchmarks.sweep      any sweep wall to wall
python -m benchmarks.card       what an accelerator should answer: errors, bits, speed, a profile, whole sweeps
python -m benchmarks.measures   what evaluating each group of measures costs
python -m benchmarks.ahead      the programs for TPUs and GPUs, compiled without one: memory, bytes, bounds

`python -m tools.docs` makes docs/performance.md from the records.
"""
