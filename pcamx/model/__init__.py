"""The network: standardised images [B, 1, H, W] in; logits, feature maps and a lesion map out.

`encoder` (the paper's 23 layers), `head` (pooled linear, with attention), `decoder`; `network` puts
them together, `maps` takes every map from one forward. Stages train it; evaluation,
explanations and exports run it.
"""
