"""Batches: canvases of a split in; image, label and lesion of each batch, on the device, out.

`order` says which films make up each batch, `augment` how each is changed, both as pure functions
of seed, epoch and step; `batches` puts them together for the trainer and for evaluation.
"""
