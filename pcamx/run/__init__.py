"""A run's folder: whoever writes or reads something in it does so through here.

`paths` knows where everything lies, `folder` what is finished and the run's store; `weights`,
`checkpoints`, `history` and `report` are the files; `pretrained.from_pretrained` makes a network of
a run, or of an export, ready for films.
Training fills the folder; evaluation, explanations, exports, comparisons and marks read it.
"""
