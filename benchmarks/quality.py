"""
Samples of digits: this package's models beside a variational autoencoder and a latent energy prior.

    python -m benchmarks.quality

All decoders have widths 81, 162, 784 and take the same number of updates of 100 digits by Adam, at
a step size of 1e-3 or, where a name says "falling", of one that rises to 3e-3 and falls to nothing.
The measure is the Fréchet distance between 4,000 samples and the 4,000 digits trained on, in the
features of a small classifier of them; held-out digits give its floor. The latent energy prior is
that of Pang et al. 2020 (arXiv:2006.08205); flow priors are zuko's. The log evidence of held-out
digits, by importance sampling from the encoder, compares contenders of the same noise only.
``--validate`` trains contenders with every setting of one grid (noise, step size, width of the
decoder) on 3,000 of the digits and compares samples with the other 1,000, in the same features; a
run with ``--resume`` takes the best ones for each number of updates; after long training, of those
whose samples are no copies. Each row is written when it is done, and ``--resume`` goes on after
those that the output already has.
"""

import importlib
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import pyro
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from benchmarks.timing import arguments, best_side_by_side, earlier, report
from pyro_tkam.datasets import mnist5k, split
from pyro_tkam.infer import ULA, ImportanceMLE, LangevinMLE
from pyro_tkam.metrics import (
    class_shares,
    classifier_features,
    copies,
    embed,
    extrapolate,
    frechet_distance,
    kernel_distance,
    train_classifier,
)
from pyro_tkam.models import TKAM, AmortizedGuide, LatentGenerator
from pyro_tkam.nn import KAN

NUM_DATA, BATCH, LATENTS, GRID, RATE = 4000, 100, 81, 8, 1e-3
UPDATES, HIGHEST_RATE, WIDTH = 2000, 3e-3, 2 * LATENTS
ENERGY_RATE = 2e-5  # of the latent energy prior, as published; at 1e-4 and above it diverges
Sampler = Callable[[int], Tensor]
Loss = Callable[[Tensor], Tensor]
VALIDATION, VALIDATION_SEED = 1000, 100
#: least distance of samples to the nearest training image, over that of other digits
NO_COPIES = 0.9
DRAWS = 100  # of each held-out digit's latents, for its evidence


@dataclass(frozen=True)
class Contender:
    """
    A model in training: one update of a batch, how to draw, what hears which rows come next, and
    importance weights of draws, ``(num, batch)``, from data and their number.
    """

    update: Callable[[Tensor], None]
    generate: Sampler
    choose: Callable[[Tensor], None] = lambda rows: None
    log_weights: Callable[[Tensor, int], Tensor] | None = None


def by_encoder(
    encode: Callable[[Tensor], Distribution],
    log_prior: Callable[[Tensor], Tensor],
    decode: Callable[[Tensor], Tensor],
    noise_scale: float,
) -> Callable[[Tensor, int], Tensor]:
    """Return importance weights of an encoder's draws, the first index, under a Gaussian model."""

    def log_weights(x: Tensor, num: int) -> Tensor:
        proposal = encode(x)
        z = proposal.sample((num,))
        data = Independent(Normal(decode(z), noise_scale), 1)
        return data.log_prob(x) + log_prior(z) - proposal.log_prob(z)

    return log_weights


def gaussian(outputs: Tensor) -> Distribution:
    """Return the Gaussian of an encoder's outputs, means beside logarithms of scales."""
    mean, log_scale = outputs.chunk(2, -1)
    return Independent(Normal(mean, log_scale.exp()), 1)


@torch.no_grad()
def held_out_evidence(contender: Contender, x: Tensor) -> dict[str, float]:
    """Return the mean log evidence, and the effective number of draws that it rests on."""
    if contender.log_weights is None:
        return {}
    found = torch.cat([contender.log_weights(part, DRAWS) for part in x.split(50)], 1)
    effective = (2 * found.logsumexp(0) - (2 * found).logsumexp(0)).exp()
    return {
        "held_out_log_evidence": float(found.logsumexp(0).mean()) - math.log(DRAWS),
        "held_out_effective_draws": float(effective.mean()),
    }


@dataclass(frozen=True)
class Setting:
    """What is chosen for each contender: noise, highest step size, hidden width of the decoder."""

    noise: float = 0.3
    rate: float = HIGHEST_RATE
    width: int = WIDTH

    def name(self, contender: str) -> str:
        """Return the name of a contender's row; what is usual goes without saying."""
        parts = (
            f", {field} {value:g}"
            for field, value in asdict(self).items()
            if value != getattr(usual(contender), field)
        )
        return f"{contender}{''.join(parts)}, falling"


def usual(contender: str) -> Setting:
    """Return the setting that goes without saying."""
    return Setting(0.5 if "mixture" in contender else 0.3)


CONSTANT = Setting(rate=RATE)


def decoder(width: int = WIDTH) -> nn.Module:
    """Return the perceptron of the baselines."""
    return nn.Sequential(nn.Linear(LATENTS, width), nn.SiLU(), nn.Linear(width, 784), nn.Sigmoid())


def kan_decoder(width: int = WIDTH) -> nn.Module:
    """Return the generator of this package's models as a decoder of the baselines."""
    return KAN([LATENTS, width, 784], basis="rbf", grid_size=GRID, output="sigmoid")


def descend(
    loss: Loss, *groups: tuple[Iterable[nn.Parameter], float], falls: int = 0
) -> Callable[[Tensor], None]:
    """
    Return an update of Adam; groups of parameters have step sizes of their own, which fall to
    nothing after ``falls`` updates, or with 0 stay.
    """
    optimizer = torch.optim.Adam(
        [{"params": list(parameters), "lr": rate} for parameters, rate in groups], fused=True
    )
    rates = [group["lr"] for group in optimizer.param_groups]
    cycle = (
        torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, falls + 1, pct_start=0.05)
        if falls
        else None
    )

    def update(x: Tensor) -> None:
        optimizer.zero_grad()
        loss(x).backward()
        optimizer.step()
        if cycle is not None:
            cycle.step()

    return update


def autoencoder(
    setting: Setting = CONSTANT,
    falls: int = 0,
    make_decoder: Callable[[int], nn.Module] = decoder,
) -> Contender:
    """A variational autoencoder with a standard normal prior (Kingma & Welling 2014)."""
    encoder = nn.Sequential(nn.Linear(784, 256), nn.SiLU(), nn.Linear(256, 2 * LATENTS))
    network = nn.ModuleList([encoder, make_decoder(setting.width)])

    def loss(x: Tensor) -> Tensor:
        mean, log_scale = encoder(x).chunk(2, -1)
        z = mean + log_scale.exp() * torch.randn_like(mean)
        divergence = (0.5 * (mean.square() + (2 * log_scale).exp() - 1) - log_scale).sum(-1)
        return ((x - network[1](z)).square().sum(-1) / (2 * setting.noise**2) + divergence).mean()

    def log_prior(z: Tensor) -> Tensor:
        return Normal(0.0, 1.0).log_prob(z).sum(-1)

    return Contender(
        descend(loss, (network.parameters(), setting.rate), falls=falls),
        torch.no_grad()(lambda num: network[1](torch.randn(num, LATENTS))),
        log_weights=by_encoder(
            lambda x: gaussian(encoder(x)), log_prior, network[1], setting.noise
        ),
    )


def with_prior(
    make_prior: Callable[[], nn.Module],
    setting: Setting,
    falls: int,
    make_decoder: Callable[[int], nn.Module] = decoder,
) -> Contender:
    """
    The variational autoencoder with a trained prior, a module that returns a distribution.

    The divergence from the prior is an average over the encoder's draws.
    """
    encoder = nn.Sequential(nn.Linear(784, 256), nn.SiLU(), nn.Linear(256, 2 * LATENTS))
    network = nn.ModuleList([encoder, make_decoder(setting.width), make_prior()])

    def loss(x: Tensor) -> Tensor:
        mean, log_scale = encoder(x).chunk(2, -1)
        z = mean + log_scale.exp() * torch.randn_like(mean)
        divergence = -network[2]().log_prob(z) - log_scale.sum(-1)
        return ((x - network[1](z)).square().sum(-1) / (2 * setting.noise**2) + divergence).mean()

    return Contender(
        descend(loss, (network.parameters(), setting.rate), falls=falls),
        torch.no_grad()(lambda num: network[1](network[2]().sample((num,)))),
        log_weights=by_encoder(
            lambda x: gaussian(encoder(x)),
            lambda z: network[2]().log_prob(z),
            network[1],
            setting.noise,
        ),
    )


def flow(name: str, transforms: int, **options: Any) -> nn.Module:
    """
    Return an autoregressive flow of zuko (``pip install zuko``); one affine transform is a chain of
    Gaussians, each given those before it.
    """
    zuko = importlib.import_module("zuko")
    made: nn.Module = getattr(zuko.flows, name)(
        LATENTS, transforms=transforms, hidden_features=(256, 256), **options
    )
    return made


def latent_energy(setting: Setting = CONSTANT, falls: int = 0) -> Contender:
    """
    Pang et al. 2020: a perceptron's energy over Gaussian latents, 60 prior and 20 posterior
    Langevin steps.
    """
    energy = nn.Sequential(
        nn.Linear(LATENTS, 200), nn.GELU(), nn.Linear(200, 200), nn.GELU(), nn.Linear(200, 1)
    )
    network = nn.ModuleList([energy, decoder(setting.width)])

    def log_prior(z: Tensor) -> Tensor:
        return energy(z).squeeze(-1) - 0.5 * z.square().sum(-1)

    def log_joint(z: Tensor, x: Tensor) -> Tensor:
        return log_prior(z) - (x - network[1](z)).square().sum(-1) / (2 * setting.noise**2)

    def langevin(
        log_density: Callable[[Tensor], Tensor], num: int, steps: int, step: float
    ) -> Tensor:
        z = torch.randn(num, LATENTS)
        for _ in range(steps):
            z = z.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(log_density(z).sum(), z)
            z = z + 0.5 * step**2 * gradient + step * torch.randn_like(z)
        return z.detach()

    def loss(x: Tensor) -> Tensor:
        negative = langevin(log_prior, len(x), 60, 0.4)
        positive = langevin(lambda z: log_joint(z, x), len(x), 20, 0.1)
        return (
            (energy(negative).mean() - energy(positive).mean())
            - log_joint(positive, x).mean()
            + log_prior(positive).mean()
        )

    return Contender(
        descend(
            loss,
            (energy.parameters(), ENERGY_RATE),
            (network[1].parameters(), setting.rate),
            falls=falls,
        ),
        lambda num: network[1](langevin(log_prior, num, 60, 0.4)).detach(),
    )


def by_importance(
    make: Callable[..., TKAM], latents: int, num_particles: int, **options: Any
) -> Contender:
    """A model trained by importance sampling from its prior."""
    model = make(784, latents, noise_scale=0.6, **options)
    objective = ImportanceMLE(num_particles)(model, None)
    return Contender(descend(objective, (model.parameters(), RATE)), model.generate)


def with_perceptron(model: TKAM) -> TKAM:
    """Give a model the decoder of the baselines in place of its KAN."""
    standard = model.generator
    assert isinstance(standard, LatentGenerator)
    model.generator = LatentGenerator(decoder(), (784,), mean=standard.mean, spread=standard.spread)
    return model


def amortized(setting: Setting, perceptron: bool = False, falls: int = 0) -> Contender:
    """Mixture prior with a guide network."""
    model = TKAM.mixture(
        784, LATENTS, grid_size=GRID, widths=(setting.width,), noise_scale=setting.noise
    )
    model = with_perceptron(model) if perceptron else model
    guide = AmortizedGuide(model)
    objective = pyro.infer.Trace_ELBO(max_plate_nesting=1)(model, guide)
    return Contender(
        descend(objective, (objective.parameters(), setting.rate), falls=falls), model.generate
    )


def autoregressive(blocks: int, setting: Setting, updates: int) -> Contender:
    """The autoregressive tilted prior with a guide network."""
    model = TKAM.autoregressive(
        784, LATENTS, blocks, grid_size=GRID, widths=(setting.width,), noise_scale=setting.noise
    )
    guide = AmortizedGuide(model)
    objective = pyro.infer.Trace_ELBO(max_plate_nesting=1)(model, guide)
    return Contender(
        descend(objective, (objective.parameters(), setting.rate), falls=updates),
        model.generate,
        log_weights=by_encoder(
            guide.posterior, lambda z: model.prior().log_prob(z), model.generator, setting.noise
        ),
    )


class RememberedChains:
    """
    Langevin objective whose chains of each datum go on where they ended when it was last in a
    batch.
    """

    def __init__(self, model: TKAM, objective: LangevinMLE) -> None:
        self.model, self.objective = model, objective
        self.positions = torch.full((1, NUM_DATA, LATENTS), torch.nan)
        self.rows = torch.empty(0, dtype=torch.int64)

    def choose(self, rows: Tensor) -> None:
        """Hear which data come next."""
        self.rows = rows

    def __call__(self, x: Tensor) -> Tensor:
        """Return the loss."""
        chains = self.positions[:, self.rows]
        state = self.objective.state_dict()
        self.objective.load_state_dict(state | {"chains": None if chains.isnan().any() else chains})
        loss: Tensor = self.objective.differentiable_loss(self.model, None, x)
        self.positions[:, self.rows] = self.objective.state_dict()["chains"]
        return loss


def refined(setting: Setting, updates: int, perceptron: bool = False) -> Contender:
    """
    Mixture prior over Gaussian references, with chains at the posterior that start at a guide's
    draws.
    """
    model = TKAM.mixture(
        784,
        LATENTS,
        10,
        reference="gaussian",
        grid_size=GRID,
        widths=(setting.width,),
        noise_scale=setting.noise,
    )
    model = with_perceptron(model) if perceptron else model
    objective = LangevinMLE(ULA, num_steps=1, step_size=0.005)(model, AmortizedGuide(model))
    return Contender(
        descend(objective, (objective.parameters(), setting.rate), falls=updates), model.generate
    )


def langevin(num_steps: int, noise_scale: float = 0.5) -> Contender:
    """Mixture prior with persistent chains at the posterior; its own draws need no chain."""
    model = TKAM.mixture(784, LATENTS, grid_size=GRID, noise_scale=noise_scale)
    chains = LangevinMLE(ULA, num_steps=num_steps, step_size=0.005, persistent=True)
    objective = RememberedChains(model, chains)
    return Contender(
        descend(objective, (model.parameters(), RATE)), model.generate, objective.choose
    )


TUNED: dict[str, Callable[[Setting, int], Contender]] = {
    "autoregressive, 81 blocks": partial(autoregressive, 81),
    "vae": autoencoder,
    "vae, KAN decoder": partial(autoencoder, make_decoder=kan_decoder),
    "flow prior, MAF": partial(with_prior, partial(flow, "MAF", 3)),
    "gaussian chain prior": partial(with_prior, partial(flow, "MAF", 1)),
    "autoregressive, 9 blocks": partial(autoregressive, 9),
    "flow prior, splines": partial(with_prior, partial(flow, "NSF", 3, bins=8)),
    "latent energy": latent_energy,
    "refined mixture": refined,
    "amortized mixture": lambda setting, updates: amortized(setting, falls=updates),
}
"""Those whose setting is chosen, all from the same few."""
SETTINGS = [
    Setting(*each)
    for each in itertools.product((0.3, 0.4, 0.5), (HIGHEST_RATE, RATE), (WIDTH, 2 * WIDTH))
]
UNTUNED: dict[str, Callable[[int], Contender]] = {
    "vae": lambda updates: autoencoder(),
    "vae, noise 0.5": lambda updates: autoencoder(Setting(0.5, RATE)),
    "latent energy": lambda updates: latent_energy(),
    "amortized mixture": lambda updates: amortized(Setting(0.5, RATE)),
    "amortized mixture, perceptron": lambda updates: amortized(Setting(0.5, RATE), perceptron=True),
    "mixture, 100 draws": lambda updates: by_importance(TKAM.mixture, LATENTS, 100, grid_size=GRID),
    "shared, 100 draws": lambda updates: by_importance(TKAM.kart, 40, 100, coupling="shared"),
    "Langevin mixture": lambda updates: langevin(5),
    "refined mixture, perceptron, falling": partial(refined, Setting(0.5), perceptron=True),
    "deep, 100 draws": lambda updates: by_importance(TKAM.deep, LATENTS, 100, grid_size=GRID),
    "shared, 400 draws": lambda updates: by_importance(TKAM.kart, 40, 400, coupling="shared"),
}
LONG = ("autoregressive, 81 blocks", "vae")
LONG_UNTUNED = ("vae", "vae, noise 0.5", "amortized mixture")
"""Those that are also trained four times as long."""
TIMED: dict[str, Callable[[int], Contender]] = {
    "vae, noise 0.4, falling": partial(autoencoder, Setting(0.4)),
    "refined mixture, falling": partial(refined, Setting(0.5)),
    "amortized mixture, falling": partial(TUNED["amortized mixture"], Setting(0.5)),
    "latent energy, falling": partial(latent_energy, Setting()),
    **{
        name: UNTUNED[name]
        for name in ("refined mixture, perceptron, falling", "shared, 100 draws", "deep, 100 draws")
    },
}
"""Those whose generation is timed side by side."""


def grid(updates: int) -> Iterator[tuple[str, int, Setting]]:
    """
    Yield contenders, numbers of updates and settings to be compared; training that is four times as
    long takes the higher step size.
    """
    for name, setting in itertools.product(TUNED, SETTINGS):
        yield name, updates, setting
    for name, setting in itertools.product(LONG, SETTINGS):
        if setting.rate == HIGHEST_RATE:
            yield name, 4 * updates, setting


def best(rows: list[dict[str, Any]], name: str, updates: int) -> Setting:
    """
    Return a contender's best setting of those compared whose samples are no copies, where that was
    measured; without any the usual one.
    """
    own = [row for row in rows if (row["name"], row["updates"]) == (name, updates)]
    own = [row for row in own if row.get("nearest_training", math.inf) >= NO_COPIES]
    if not own:
        return usual(name)
    row = min(own, key=lambda row: row["frechet"])
    return Setting(row["noise"], row["rate"], row["width"])


def wanted(
    rows: list[dict[str, Any]], updates: int
) -> Iterator[tuple[str, int, Callable[[int], Contender]]]:
    """Yield names of all rows, numbers of updates and what to train, given a validation."""
    for times, names in ((1, tuple(TUNED)), (4, LONG)):
        for name in names:
            setting = best(rows, name, times * updates)
            yield setting.name(name), times * updates, partial(TUNED[name], setting)
    for times, names in ((1, tuple(UNTUNED)), (4, LONG_UNTUNED)):
        for name in names:
            yield name, times * updates, UNTUNED[name]


def batches(num: int, updates: int) -> Iterator[Tensor]:
    """Yield the rows of shuffled mini-batches."""
    count = 0
    while True:
        for rows in torch.randperm(num).split(BATCH):
            if count == updates:
                return
            count += 1
            yield rows


def trained(make: Callable[[int], Contender], seed: int, updates: int, x: Tensor) -> Contender:
    """Train one contender."""
    pyro.set_rng_seed(seed)
    pyro.clear_param_store()
    contender = make(updates)
    for rows in batches(len(x), updates):
        contender.choose(rows)
        contender.update(x[rows])
    return contender


@dataclass(frozen=True)
class Judges:
    """What judges samples: features, a classifier, and the digits trained on and held out."""

    features: nn.Module
    classifier: nn.Module
    training: Tensor
    held_out: Tensor

    def measures(self, samples: Tensor) -> dict[str, float]:
        """
        Measure ``sum(SAMPLE_SIZES)`` samples in random order, shape ``(N, 28, 28)``.

        :return: distances of as many samples as digits, their extrapolations, the median distance
            to the nearest training image beside that of held-out digits, and the share of samples
            that clearly are of a class.
        """
        num = len(self.training)
        embedded = embed(self.features, samples)
        found: dict[str, float] = {}
        for suffix, images in (("", self.training), ("_to_held_out", self.held_out)):
            real = embed(self.features, images)
            for name, distance in (("frechet", frechet_distance), ("kernel", kernel_distance)):
                found[name + suffix] = distance(real, embedded[:num])
                far = extrapolate(partial(distance, real), embedded)
                found[f"{name}{suffix}_extrapolated"] = far.value
        near, usual = (
            float(copies(each, self.training, self.held_out).distance.median())
            for each in (samples[:1000], self.held_out)
        )
        return found | {
            "nearest_training": near,
            "nearest_training_of_held_out": usual,
            "confident": class_shares(self.classifier, samples[:1000]).confident,
        }


def measure(
    name: str,
    make: Callable[[int], Contender],
    seed: int,
    updates: int,
    x: Tensor,
    judges: Judges,
) -> dict[str, Any]:
    """Train one contender and judge its samples."""
    start = time.process_time()
    contender = trained(make, seed, updates, x)
    seconds = time.process_time() - start
    start = time.process_time()
    samples = torch.cat([contender.generate(5500).detach() for _ in range(4)])
    drawing = time.process_time() - start
    return {
        "name": name,
        "seed": seed,
        "updates": updates,
        **judges.measures(samples.reshape(-1, 28, 28)),
        **held_out_evidence(contender, judges.held_out.flatten(1)),
        "cpu_seconds_per_update": seconds / updates,
        "cpu_seconds_for_10000": drawing * 10_000 / len(samples),
    }


def validate(
    name: str, setting: Setting, updates: int, x: Tensor, judges: Judges
) -> dict[str, float]:
    """
    Train one contender with one setting on the first digits of the training data.

    :return: the Fréchet distance of its samples to the other digits, and the median distance of
        samples to the nearest training image over that of the others.
    """
    contender = trained(partial(TUNED[name], setting), VALIDATION_SEED, updates, x[:-VALIDATION])
    samples = torch.cat([contender.generate(1000).detach() for _ in range(4)])
    seen, others, drawn = (
        images.reshape(-1, 28, 28) for images in (x[:-VALIDATION], x[-VALIDATION:], samples)
    )
    near, usual = (
        float(copies(each, seen, others).distance.median()) for each in (drawn[:1000], others)
    )
    real, embedded = (embed(judges.features, each) for each in (others, drawn))
    return {"frechet": frechet_distance(real, embedded), "nearest_training": near / usual}


def choose(
    rows: list[dict[str, Any]],
    updates: int,
    x: Tensor,
    judges: Judges,
    keep: Callable[[], None],
) -> None:
    """Append a row for each contender and setting that has none yet, and keep each at once."""
    done = {
        (row["name"], row["updates"], Setting(row["noise"], row["rate"], row["width"]))
        for row in rows
    }
    for name, length, setting in grid(updates):
        if (name, length, setting) not in done:
            found = validate(name, setting, length, x, judges)
            rows.append({"name": name, "updates": length, **asdict(setting), **found})
            keep()


def generation(x: Tensor, updates: int, repeats: int) -> dict[str, float]:
    """
    Train for a while, then return the processor seconds for 10,000 digits, the best of some in
    turns.
    """

    def draw(contender: Contender) -> None:
        pyro.clear_param_store()  # contenders have parameters of the same names
        contender.generate(10_000)

    calls = {name: partial(draw, trained(make, 0, updates, x)) for name, make in TIMED.items()}
    return best_side_by_side(calls, repeats, time.process_time)


def main() -> None:
    """Train every contender with every seed."""
    options = arguments(__doc__, ("--resume", "--validate"))
    seeds, updates, repeats = (range(1), 100, 1) if options.short else (range(3), UPDATES, 5)
    data = mnist5k()
    rows, held_out = split(len(data.images), 1000, seed=0)
    images, x = data.images[rows], data.images[rows].flatten(1)
    torch.manual_seed(0)
    judges = Judges(
        classifier_features(images, data.labels[rows]),
        train_classifier(images, data.labels[rows]),
        images,
        data.images[held_out],
    )
    real, other = (embed(judges.features, each) for each in (images, judges.held_out))
    results = earlier(options.output) if options.resume else {}
    results = {"held_out_frechet": frechet_distance(real, other), **results}
    validation = results.setdefault("validation", [])
    if options.validate:
        choose(validation, updates, x, judges, partial(report, results, options.output))
        return
    runs = results.setdefault("runs", [])
    done = {(run["name"], run["seed"], run["updates"]) for run in runs}
    for seed in seeds:
        for name, length, make in wanted(validation, updates):
            if (name, seed, length) not in done:
                runs.append(measure(name, make, seed, length, x, judges))
                report(results, options.output)
    if "generation_seconds" not in results:
        results["generation_seconds"] = generation(x, updates // 10, repeats)
        report(results, options.output)


if __name__ == "__main__":
    main()
