"""Labels, modalities and texts through the one trainer: they train, and resume to the bit."""

import pyro
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from pyro_tkam.infer import ImportanceMLE, ImportanceWeightedELBO, LangevinMLE
from pyro_tkam.models import TKAM, AmortizedGuide, MixturePrior, SequenceLikelihood, TiltedPrior
from pyro_tkam.nn import SequenceGenerator
from pyro_tkam.train import ELBOTraining, RunFolder, fit
from pyro_tkam.train.checkpoints import read_checkpoint
from tests.models import small
from tests.train.test_trainer import Crash

ROWS = 24


def labeled():
    model = small.labeled(4)
    return ELBOTraining(
        model, ImportanceWeightedELBO(2), AmortizedGuide(model, hidden=(8,)), size=ROWS
    )


def multimodal():
    return ELBOTraining(small.multimodal(4), ImportanceMLE(8), size=ROWS)


def sequence(chains=False):
    decoder = SequenceGenerator(2, num_classes=5, max_length=6, width=8, num_heads=2, num_layers=1)
    model = TKAM(
        MixturePrior(TiltedPrior((2, 2), grid_size=5)), nn.Identity(), SequenceLikelihood(decoder)
    )
    if chains:
        return ELBOTraining(model, LangevinMLE(num_steps=2), size=ROWS)
    encoder = nn.Sequential(nn.Embedding(5, 3), nn.Flatten(), nn.Linear(18, 4))
    return ELBOTraining(
        model, ImportanceWeightedELBO(2), AmortizedGuide(model, encoder=encoder), size=ROWS
    )


def rows():
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(ROWS, 4, generator=generator)
    label = torch.randint(3, (ROWS,), generator=generator)
    text = torch.randint(5, (ROWS, 6), generator=generator)
    return image, label, text, label > 0


IMAGE, LABEL, TEXT, MASK = rows()
CASES = {
    "pair": (labeled, (IMAGE, torch.where(MASK, LABEL, -1))),
    "dataset of pairs": (labeled, TensorDataset(IMAGE, LABEL)),
    "no label": (labeled, IMAGE),
    "dictionary": (multimodal, {"image": IMAGE, "label": LABEL}),
    "dictionary and masks": (multimodal, ({"image": IMAGE, "label": LABEL}, {"label": MASK})),
    "text": (sequence, TEXT),
    "text, by chains": (lambda: sequence(chains=True), TEXT.numpy()),
}


def run(folder, case, crash=None, updates=5):
    pyro.set_rng_seed(1)
    make, data = CASES[case]
    module = make()
    before = {name: value.clone() for name, value in module.named_parameters()}
    callbacks = () if crash is None else (Crash(crash),)
    fit(
        module,
        data,
        folder,
        updates=updates,
        batch_size=6,
        checkpoint_every=2,
        progress=False,
        callbacks=callbacks,
    )
    return [name for name, value in module.named_parameters() if torch.equal(value, before[name])]


@pytest.mark.parametrize("case", CASES)
def test_it_trains_and_resumes_to_the_bit(case, tmp_path):
    assert run(tmp_path / "whole", case) == []
    with pytest.raises(RuntimeError, match="crash"):
        run(tmp_path / "broken", case, crash=3)
    run(tmp_path / "broken", case)
    one, other = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "broken")
    assert one.metrics.read_bytes() == other.metrics.read_bytes()
    first, second = (read_checkpoint(files.checkpoint)["state_dict"] for files in (one, other))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("case", [("pair", "no label"), ("dictionary", "dictionary and masks")])
def test_labels_and_masks_reach_the_model(case, tmp_path):
    """The same images and draws give another loss with what stands beside them."""
    for name in case:
        run(tmp_path / name, name, updates=1)
    one, other = (RunFolder(tmp_path / name).read_metrics()["loss"] for name in case)
    assert abs(one[0] - other[0]) > 0.1


def test_data_that_do_not_fit_are_named_before_anything_is_written(tmp_path):
    options = {"updates": 1, "batch_size": 6, "progress": False}
    with pytest.raises(TypeError, match=r"data must have the dtype of the.*, got torch\.float64"):
        fit(multimodal(), {"image": IMAGE.double(), "label": LABEL}, tmp_path / "run", **options)
    with pytest.raises(ValueError, match="label must hold classes from 0 to 2, got 9"):
        fit(labeled(), (IMAGE, torch.full_like(LABEL, 9)), tmp_path / "run", **options)
    with pytest.raises(ValueError, match=r"data must be at least one tensor,.*, got \{'data\[0\]'"):
        fit(labeled(), (IMAGE, LABEL[1:]), tmp_path / "run", **options)
    with pytest.raises(TypeError, match=r"data must hold floating point.*, got torch\.uint8"):
        fit(labeled(), IMAGE.byte(), tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()
