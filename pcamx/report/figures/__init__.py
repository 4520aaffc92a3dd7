"""Pictures for the pages and beside them: films under their maps, contact sheets, a run's curves.

Films and maps come in as arrays; PNG, SVG and what templates paint go out. `pcamx.report`'s pages,
`pcamx evaluate`, `explain`, `compare` and `marks` call them.
"""
