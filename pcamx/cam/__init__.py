"""PositiveCAM on anybody's classifier: a model and images in, class activation maps out.

`pooled_head` finds the layer whose averaged maps feed the classifier; `positive_cam` hooks it for
one forward. Somebody's own code calls it, as `pcamx.PositiveCAM`; no command does.
"""
