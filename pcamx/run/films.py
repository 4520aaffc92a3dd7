"""The films of a run, as its network takes them."""

from dataclasses import replace
from pathlib import Path

from pcamx.config import Model
from pcamx.data.store import Store, read_store
from pcamx.model.timm_backbone import input_scale


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
