"""Square canvases: films of a store in, uint8 [N, 1, H, W] on the device out.

`placement` says where a film lands; `graph` is the DALI graph of that, `decode` runs it over files
and `decode_pixels` over pixels; `cache` keeps decoded splits on disk and `provider` hands them to
the feed. `lesion_mask` and `side_markers` put marks and letters in the same place.
"""
