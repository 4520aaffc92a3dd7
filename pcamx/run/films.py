"""The films of a run, as its network takes them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pcamx.config import Config, Model
from pcamx.data.store import Store, read_store
from pcamx.errors import PcamxError
from pcamx.model.timm_backbone import input_scale
from pcamx.run.folder import RunFolder
from pcamx.run.weights import Weights


def read_films(folder: Path, model: Model) -> Store:
    """Read a prepared store with the mean and deviation by which ``model`` standardises a film.

    The paper's layouts take the training films' own, a timm backbone what its weights expect.
    Raises PcamxError where the store cannot be read, or timm or its backbone is missing.
    """
    store = read_store(folder)
    if not model.timm:
        return store
    mean, std = input_scale(model.encoder)
    return replace(store, mean=mean, std=std)


def read_films_of(run: RunFolder, config: Config, weights: Sequence[Weights]) -> Store:
    """Read the store of a run by the mean and deviation that its ``weights`` were trained with.

    The timm that is installed may expect others. Raises PcamxError where the store cannot be read,
    or the weights were trained with several.
    """
    store = read_store(run.find_store(config))
    if not config.model.timm:
        return store
    found = {(w.mean, w.std): run.weights(w.stage) for w in weights}
    if len(found) > 1:
        one, other, *_ = found.values()
        raise PcamxError(
            f"{other}: trained by another mean and deviation of films than {one}; train one again"
        )
    (mean, std) = next(iter(found))
    assert mean is not None and std is not None  # kept since before there were timm's
    return replace(store, mean=mean, std=std)
