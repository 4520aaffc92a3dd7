"""Batch norm whose statistics may be those of all ranks' films together.

Shapes: B this rank's films, K channels, h w a map; R the ranks.
"""

import torch
from torch import Tensor, nn

from pcamx.distributed import rank_count, total_over_ranks
from pcamx.errors import PcamxError


class BatchNorm(nn.BatchNorm2d):
    """torch's batch norm by the batch of all ranks; on one rank, and in evaluation, torch's own.

    torch's SyncBatchNorm does that on GPUs alone. Each rank waits for all in every forward and
    backward that normalises by the batch, so all must make the same ones.
    """

    counted = True
    """Whether this rank's films enter the statistics (`pcamx.model.network.batch_norm_by`)."""

    def forward(self, x_BKhw: Tensor) -> Tensor:
        """Normalise each channel; in the dtype of ``x_BKhw``, computed in float32 at least."""
        if not self.training or rank_count() == 1:
            return super().forward(x_BKhw)
        dtype = torch.promote_types(x_BKhw.dtype, torch.float32)
        with torch.autocast(x_BKhw.device.type, enabled=False):
            wide_BKhw = x_BKhw.to(dtype)
            mean_K, var_K, count = _moments(wide_BKhw, counted=self.counted)
            if self.track_running_stats:
                self._track(mean_K.detach(), var_K.detach(), count)
            mean_K, var_K = mean_K.to(dtype), var_K.to(dtype)
            scale_K = self.weight * torch.rsqrt(var_K + self.eps)
            centred_BKhw = wide_BKhw - mean_K[:, None, None]
            y_BKhw = centred_BKhw * scale_K[:, None, None] + self.bias[:, None, None]
        return y_BKhw.to(x_BKhw.dtype)

    @torch.no_grad()
    def _track(self, mean_K: Tensor, var_K: Tensor, count: Tensor) -> None:
        """Move the running statistics, as torch does: the variance without bias."""
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None and self.momentum is not None
        self.num_batches_tracked += 1
        unbiased_K = var_K * (count / (count - 1))
        self.running_mean.lerp_(mean_K.to(self.running_mean.dtype), self.momentum)
        self.running_var.lerp_(unbiased_K.to(self.running_var.dtype), self.momentum)


def _moments(x_BKhw: Tensor, *, counted: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and biased variance of each channel over all ranks, float64 [K], and of how many values.

    What is not ``counted`` is none of them. One differentiable sum over the ranks. In float64,
    since the mean's square is taken off again.
    """
    own_var_K, own_mean_K = torch.var_mean(x_BKhw, dim=(0, 2, 3), correction=0)
    own_var_K, own_mean_K = own_var_K.double(), own_mean_K.double()
    count = x_BKhw.numel() // x_BKhw.shape[1] * counted
    own = [own_mean_K, own_var_K + own_mean_K.square(), own_mean_K.new_ones(1)]
    sums = total_over_ranks(torch.cat(own) * count)
    K, total = len(own_mean_K), sums[-1]
    mean_K = sums[:K] / total
    return mean_K, sums[K:-1] / total - mean_K.square(), total


def join_ranks(module: nn.Module) -> None:
    """Have every batch norm inside take its statistics of all ranks' films; names stay.

    One that is frozen keeps its own.

    Raises PcamxError where there is a batch norm of another kind, as some of timm's encoders have.
    """
    for name, child in module.named_children():
        if not isinstance(child, nn.modules.batchnorm._BatchNorm):
            join_ranks(child)
        elif not _frozen(child):
            setattr(module, name, _joined(child))


def _frozen(norm: nn.Module) -> bool:
    gains = list(norm.parameters())
    return bool(gains) and not any(gain.requires_grad for gain in gains)


def _joined(norm: nn.Module) -> BatchNorm:
    kind = type(norm)
    if not isinstance(norm, nn.BatchNorm2d) or kind is not nn.BatchNorm2d or not norm.affine:
        raise PcamxError(
            f"runtime.sync_batch_norm: this encoder has batch norms of the kind {kind.__name__}, "
            "which cannot be joined; set it to false"
        )
    joined = BatchNorm(norm.num_features, norm.eps, norm.momentum)
    joined.load_state_dict(norm.state_dict())
    return joined.train(norm.training)
