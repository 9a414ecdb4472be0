"""Studies: what sweeps found, kept as a small table per study and told on a page of docs/studies.

python -m studies.record laws results/laws     # a row for each run that is in; again as more runs end
python -m tools.docs                           # the pages, from studies/records/*.csv alone
"""
