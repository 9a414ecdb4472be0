"""What writes the generated parts of README.md and docs/.

python -m tools.docs            # make them anew from the code, benchmarks/records and faults/records
python -m tools.docs --check    # exit status 1 if any is stale
"""
