"""What a stage is trained by: eq. (3) and (4) of the paper, and what marks may teach beside them.

`paper` has the three terms and lambda; `guidance` adds those `on_map` and on films whose lesion is
erased (`erasing`). `pcamx.training.stages` calls both.
"""
