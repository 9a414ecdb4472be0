"""The report of a sweep: a page and a picture of its losses.

Public are `write.write`, `write.page_path` and `write.figure_path`. They stay in their module: it loads Plotly and
Matplotlib, which a command that only names the files of a report does not need.
"""
