"""
Words to phonemes: sequences that share a latent, beside the same decoder without a latent and an
aligned joint 5-gram.

    python -m benchmarks.seq2seq --threads 1 --data cmudict.dict --work runs/seq2seq

The dictionary is that of Carnegie Mellon University, without stress, split by word: no variant of a
test word is in training. An error rate counts the edits to the nearest variant. Both networks make
as many updates. The one with a latent makes most of them at a latent of zero, where an update costs
less. A run that was stopped goes on from the files in ``--work``, and what is in ``--output`` is
not run again. Without ``--data``, words are made up, to try the code.
"""

import argparse
import copy
import json
import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyro
import torch
from torch import Tensor, nn

from benchmarks.graphones import JointNGram
from benchmarks.timing import earlier, environment
from pyro_tkam.datasets import Alphabet, Pairs, king_james, pronunciations
from pyro_tkam.models import TKAM, PairELBO, PairGuide, Seq2SeqTKAM
from pyro_tkam.nn import beam_search, ended_log_prob, sample_ended
from pyro_tkam.ops.symbols import until_end

HELD_OUT, SCORED, DRAWS, SEEDS = 8000, 2000, 5, 3
FREE_NATS, UNKNOWN_SHARE = 2.0, 0.02
TEMPERATURES = (0.5, 0.65, 0.8)
"""Of draws of symbols without a latent, beside temperature 1."""


@dataclass(frozen=True)
class Budget:
    """
    How long to train: updates, how many of them before the latent, pairs per update, and the
    highest step size, which is half as large with the latent.
    """

    updates: int = 6000
    before: int = 4000
    batch: int = 64
    rate: float = 2e-3

    def rate_at(self, update: int) -> float:
        """Return the step size, which rises within a twentieth of the updates, then falls."""
        rise = min(1.0, (update + 1) / (0.05 * self.updates))
        fall = 0.5 * (1 + math.cos(math.pi * update / self.updates))
        return self.rate * rise * (0.01 + 0.99 * fall)

    def parts(self) -> tuple["Budget", "Budget"]:
        """Return the budgets before and with the latent."""
        after = replace(self, updates=self.updates - self.before, rate=self.rate / 2)
        return replace(self, updates=self.before), after


class Batches:
    """
    The rows of each update: words of similar length, in an order that the seed sets.

    :param pairs: the words.
    :param batch: number of pairs of an update.
    :param seed: sets the order, anew for each epoch.
    """

    def __init__(self, pairs: Pairs, batch: int, seed: int) -> None:
        self.lengths = until_end(pairs.source)[1] + until_end(pairs.target)[1]
        self.per_epoch = len(pairs) // batch
        self.shape = self.per_epoch, batch
        self.seed = seed
        self.epoch = -1
        self.rows = torch.empty(0)

    def __getitem__(self, update: int) -> Tensor:
        """Return the rows of an update."""
        epoch, place = divmod(update, self.per_epoch)
        if epoch != self.epoch:
            generator = torch.Generator().manual_seed(1_000_003 * self.seed + epoch)
            jitter = 2 * torch.rand(len(self.lengths), generator=generator)
            order = (self.lengths + jitter).argsort()[: math.prod(self.shape)].view(self.shape)
            self.epoch = epoch
            self.rows = order[torch.randperm(self.per_epoch, generator=generator)]
        return self.rows[place]


def fit(
    module: nn.Module,
    loss: Callable[[Tensor, Tensor], Tensor],
    pairs: Pairs,
    budget: Budget,
    seed: int,
    path: Path | None,
) -> dict[str, float]:
    """Train with a step size that rises and falls, going on from ``path`` if it is there."""
    optimizer = torch.optim.AdamW(
        module.parameters(), lr=budget.rate, betas=(0.9, 0.98), weight_decay=0.01
    )
    start, earlier = 0, 0.0
    if path is not None and path.is_file():
        saved = torch.load(path, weights_only=True)
        module.load_state_dict(saved["module"])
        optimizer.load_state_dict(saved["optimizer"])
        torch.set_rng_state(saved["random"])
        start, earlier = saved["update"], saved["seconds"]
    batches = Batches(pairs, budget.batch, seed)
    clock, running = time.process_time(), math.nan
    for update in range(start, budget.updates):
        optimizer.param_groups[0]["lr"] = budget.rate_at(update)
        rows = batches[update]
        value = loss(pairs.source[rows], pairs.target[rows])
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        running = value.item() if math.isnan(running) else 0.98 * running + 0.02 * value.item()
        if (update + 1) % 200 == 0 or update + 1 == budget.updates:
            seconds = earlier + time.process_time() - clock
            print(f"{update + 1} updates, {seconds:.0f} s, {running:.3f}", flush=True)
            if path is not None:
                save(module, optimizer, update + 1, seconds, path)
    return {
        "updates": budget.updates,
        "minutes": (earlier + time.process_time() - clock) / 60,
    }


def save(
    module: nn.Module, optimizer: torch.optim.Optimizer, update: int, seconds: float, path: Path
) -> None:
    """Write a checkpoint, whole or not at all."""
    state = {
        "module": module.state_dict(),
        "optimizer": optimizer.state_dict(),
        "update": update,
        "seconds": seconds,
        "random": torch.get_rng_state(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)


def make_model(pairs: Pairs, width: int) -> Seq2SeqTKAM:
    """Return the model of both networks' runs."""
    return TKAM.seq2seq(
        len(pairs.source_alphabet),
        len(pairs.target_alphabet),
        max_source=pairs.source.shape[1],
        max_target=pairs.target.shape[1],
        width=width,
    )


def with_latent(
    pairs: Pairs,
    budget: Budget,
    seed: int,
    path: Path | None,
    width: int = 128,
    strength: float = 1.0,
) -> tuple[Seq2SeqTKAM, PairGuide, dict[str, float]]:
    """
    Train encoder and decoder, then the whole model and its guide.

    :param strength: multiplies the decoder's weights of the latent, which the first part does not
        train, before the second.
    """
    pyro.set_rng_seed(seed)
    model = make_model(pairs, width)
    guide = PairGuide(model)
    before, after = budget.parts()
    first = None if path is None else path.with_name(f"before-{path.name}")
    spent = fit_at_zero(model, pairs, before, seed, first)
    with torch.no_grad():
        for layer in (model.target_decoder.slots, model.target_decoder.add):
            if layer is not None:
                layer.weight.mul_(strength)
    objective = PairELBO(FREE_NATS, UNKNOWN_SHARE)(model, guide)
    further = fit(
        objective, lambda s, t: objective(s, t) / s.shape[0], pairs, after, seed + SEEDS, path
    )
    return model, guide, {name: spent[name] + further[name] for name in spent}


def without_latent(
    pairs: Pairs, budget: Budget, seed: int, path: Path | None
) -> tuple[Seq2SeqTKAM, dict[str, float]]:
    """Train encoder and decoder of the target alone, at a latent of zero."""
    pyro.set_rng_seed(seed)
    model = make_model(pairs, 128)
    return model, fit_at_zero(model, pairs, budget, seed, path)


def fit_at_zero(
    model: Seq2SeqTKAM, pairs: Pairs, budget: Budget, seed: int, path: Path | None
) -> dict[str, float]:
    """Train encoder and decoder of the target at a latent of zero."""
    parts = nn.ModuleList([model.encoder, model.target_decoder])
    reading = PairELBO(unknown_share=UNKNOWN_SHARE)

    def loss(source: Tensor, target: Tensor) -> Tensor:
        z = torch.zeros(len(source), model.target_decoder.latent_dim)
        encoded = model.encoder(reading.read(source))
        return -ended_log_prob(model.target_decoder, z, target, encoded).mean()

    return fit(parts, loss, pairs, budget, seed, path)


def edits(found: tuple[int, ...], wanted: tuple[int, ...]) -> int:
    """Return the least number of insertions, deletions and substitutions."""
    row = list(range(len(wanted) + 1))
    for i, one in enumerate(found, 1):
        last, row[0] = row[0], i
        for j, other in enumerate(wanted, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (one != other))
    return row[-1]


def as_tuple(tokens: Tensor) -> tuple[int, ...]:
    """Return the symbols before the end."""
    return tuple(tokens[: int(until_end(tokens)[1])].tolist())


@dataclass(frozen=True)
class Words:
    """Words with all their variants."""

    source: Tensor
    variants: list[set[tuple[int, ...]]]

    @classmethod
    def of(cls, pairs: Pairs) -> "Words":
        """Gather the variants of each word, in an order without meaning."""
        variants: dict[int, set[tuple[int, ...]]] = {}
        first: dict[int, int] = {}
        order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(0))
        for row in order.tolist():
            group = int(pairs.group[row])
            first.setdefault(group, row)
            variants.setdefault(group, set()).add(as_tuple(pairs.target[row]))
        return cls(pairs.source[list(first.values())], list(variants.values()))


def error_rates(found: list[tuple[int, ...]], words: Words) -> dict[str, float]:
    """Return phoneme and word error rates, to the nearest variant, with the latter's error."""
    wrong, total, whole = 0, 0, []
    for one, variants in zip(found, words.variants, strict=False):
        nearest = min(sorted(variants), key=lambda wanted: edits(one, wanted))
        cost = edits(one, nearest)
        wrong, total = wrong + cost, total + len(nearest)
        whole.append(cost > 0)
    rate = torch.tensor(whole).double().mean().item()
    return {"phoneme_error": wrong / total, "word_error": rate, "words": len(whole)}


def recall(draws: Tensor, words: list[set[tuple[int, ...]]]) -> Tensor:
    """Return the share of each word's variants among draws ``(draw, word, length)``."""
    shares = []
    for i, variants in enumerate(words):
        found = {as_tuple(draw) for draw in draws[:, i]}
        shares.append(len(found & variants) / len(variants))
    return torch.tensor(shares)


def matches(draws: Tensor, words: list[set[tuple[int, ...]]]) -> Tensor:
    """Return the share of each word's draws ``(draw, word, length)`` that match a variant."""
    shares = [
        sum(as_tuple(draw) in variants for draw in draws[:, i]) / len(draws)
        for i, variants in enumerate(words)
    ]
    return torch.tensor(shares)


def compared(draws: dict[str, Tensor], words: list[set[tuple[int, ...]]]) -> dict[str, Any]:
    """
    Return how many draws match a variant, how many variants are among the draws, and how many draws
    differ, by the name of the network; with the first network's lead over the last.
    """
    different = {
        name: sum(len({as_tuple(draw) for draw in each[:, i]}) for i in range(len(words)))
        for name, each in draws.items()
    }
    found: dict[str, Any] = {"different": {k: n / len(words) for k, n in different.items()}}
    for name, count in (("matches", matches), ("recall", recall)):
        shares = {key: count(each, words) for key, each in draws.items()}
        first, *_, last = shares.values()
        found[name] = {
            **{key: share.mean().item() for key, share in shares.items()},
            "difference": (first - last).mean().item(),
            "difference_error": (first - last).std().item() / math.sqrt(len(words)),
        }
    return found


@torch.no_grad()
def at_temperatures(
    plain: Seq2SeqTKAM, source: Tensor, variants: list[set[tuple[int, ...]]]
) -> list[dict[str, float]]:
    """Return what draws of symbols without a latent match and find if logits are sharpened."""
    encoded = plain.encoder(source)
    rest = torch.zeros(len(source), plain.target_decoder.latent_dim)
    found = []
    for temperature in TEMPERATURES:
        decoder = copy.deepcopy(plain.target_decoder)
        for parameter in decoder.to_logits.parameters():
            parameter.div_(temperature)
        draws = torch.stack([sample_ended(decoder, rest, encoded) for _ in range(DRAWS)])
        shares = {"matches": matches(draws, variants), "recall": recall(draws, variants)}
        means = {name: share.mean().item() for name, share in shares.items()}
        found.append({"temperature": temperature, **means})
    return found


@torch.no_grad()
def latents_share(model: Seq2SeqTKAM, guide: PairGuide, pairs: Pairs) -> dict[str, float]:
    """
    Return, in nats: the divergences, bounds of the mutual information by the mean posterior of all
    pairs, and how much worse targets are scored with another pair's latent.
    """
    objective = PairELBO()
    terms = objective.terms(model, guide, pairs.source, pairs.target)
    encoded = model.encoder(pairs.source)
    both = guide.posterior(encoded, pairs.target)
    z = both.sample()
    every = both.expand((len(z), len(z))).log_prob(z.unsqueeze(1))  # of each draw, all posteriors
    information = both.log_prob(z) - (every.logsumexp(1) - math.log(len(z)))
    own, other, alone = (
        ended_log_prob(model.target_decoder, latent, pairs.target, encoded)
        for latent in (z, z.roll(1, 0), guide.posterior(encoded).sample())
    )
    return {
        "pairs": len(z),
        "information_with_pair": information.mean().item(),
        "most_that_can_be_seen": math.log(len(z)),
        "divergence_from_prior": terms.information.mean().item(),
        "divergence_from_source_guide": terms.beyond.mean().item(),
        "target_nats_own": -own.mean().item(),
        "target_nats_others": -other.mean().item(),
        "target_nats_from_source": -alone.mean().item(),
        "loss_with_others": (own - other).mean().item(),
        "loss_with_others_error": (own - other).std().item() / math.sqrt(len(z)),
    }


def measured(
    model: Seq2SeqTKAM, guide: PairGuide, plain: Seq2SeqTKAM, words: Words, test: Pairs, num: int
) -> dict[str, Any]:
    """Return all figures of one seed."""
    source = words.source[:num]
    zeros = torch.zeros(len(source), 1, plain.target_decoder.latent_dim)
    beams = [
        model.search(part, guide, num_beams=5, num_draws=8).tokens[:, 0]
        for part in source.split(250)
    ]
    plainly = [
        beam_search(plain.target_decoder, zeros[: len(part)], plain.encoder(part), 5).tokens
        for part in source.split(250)
    ]
    several = [i for i, each in enumerate(words.variants) if len(each) > 1]
    variants, chosen = [words.variants[i] for i in several], words.source[several]
    rest = torch.zeros(len(chosen), plain.target_decoder.latent_dim)
    with torch.no_grad():
        encoded = plain.encoder(chosen)
        sampled = torch.stack(
            [sample_ended(plain.target_decoder, rest, encoded) for _ in range(DRAWS)]
        )
    best = beam_search(plain.target_decoder, rest.unsqueeze(1), encoded, DRAWS).tokens
    drawn = {
        "latent_spread": model.respond(chosen, guide, num=DRAWS, num_beams=1, spread=True),
        "latent_drawn": model.respond(chosen, guide, num=DRAWS, num_beams=1),
        "latent_and_symbols_drawn": model.respond(chosen, guide, num=DRAWS),
        "without_latent_symbols_drawn": sampled,
    }
    searched = {
        "latent": model.search(chosen, guide, num_beams=DRAWS).tokens.movedim(1, 0),
        "without_latent": best.movedim(1, 0),
    }
    return {
        "error": error_rates([as_tuple(row) for row in torch.cat(beams)], words),
        "error_without_latent": error_rates(
            [as_tuple(row) for row in torch.cat(plainly)[:, 0]], words
        ),
        "variants": {
            "words": len(several),
            "draws": DRAWS,
            "drawn": compared(drawn, variants),
            "searched": compared(searched, variants),
        },
        "latent": latents_share(model, guide, test.rows(torch.arange(len(test))[::4])),
        "without_latent_at_temperatures": at_temperatures(plain, chosen, variants),
    }


def of_baseline(train: Pairs, words: Words, num: int) -> dict[str, Any]:
    """Return the error rates of the joint 5-gram."""
    start = time.process_time()
    grams = JointNGram(train)
    trained = time.process_time() - start
    found = [tuple(grams.decode(list(as_tuple(row)))) for row in words.source[:num]]
    return {
        **error_rates(found, words),
        "train_minutes": trained / 60,
        "decode_minutes": (time.process_time() - start - trained) / 60,
    }


def made_up() -> Pairs:
    """Return words of a book, spelled with a few sounds; some have a second way to say them."""
    text = king_james(("Genesis",))
    words = sorted(set(re.findall("[a-z]+", text.decode(text.symbols).lower())))
    spoken = [re.sub("th", "0", re.sub("sh", "1", word)) for word in words]
    pairs = [(i, words[i], each) for i, each in enumerate(spoken)]
    pairs += [(i, words[i], each[:-1]) for i, each in enumerate(spoken) if each[-2:] == "ed"]
    group, sources, targets = zip(*pairs, strict=True)
    letters, sounds = (Alphabet(tuple(sorted(set("".join(each))))) for each in (sources, targets))
    return Pairs(
        letters.encode(sources, 20),
        sounds.encode(targets, 20),
        torch.tensor(group),
        letters,
        sounds,
    )


def parsed() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2, help="torch threads")
    parser.add_argument("--output", type=Path, help="also write the JSON to this file")
    parser.add_argument("--short", action="store_true", help="few words and few updates")
    parser.add_argument("--data", type=Path, help="the dictionary; None makes words up")
    parser.add_argument("--work", type=Path, help="folder of checkpoints; None keeps none")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="number of seeds")
    return parser.parse_args()


def main() -> None:
    """Train, score and print."""
    options = parsed()
    torch.set_num_threads(options.threads)
    pairs = made_up() if options.data is None else pronunciations(options.data)
    small = options.short or options.data is None
    train, test = pairs.split(300 if small else HELD_OUT)
    words, num = Words.of(test), 100 if small else SCORED
    budget = Budget(updates=30, before=20, batch=32) if small else Budget()
    results = earlier(options.output)
    results |= {
        "environment": environment(),
        "data": {
            "pairs": len(pairs),
            "words": int(pairs.group.max()) + 1,
            "training_pairs": len(train),
            "held_out_words": len(words.variants),
        },
        "settings": {
            **vars(budget),
            "free_nats": FREE_NATS,
            "unknown_share": UNKNOWN_SHARE,
        },
    }
    runs = results.setdefault("runs", [])
    if "baseline" not in results:
        results["baseline"] = of_baseline(train, words, num)
    results["seeds_not_run"] = [
        seed for seed in range(SEEDS) if seed not in {run["seed"] for run in runs}
    ]
    report(results, options.output)
    for seed in range(1 if options.short else options.seeds):
        if seed in {run["seed"] for run in runs}:
            continue
        paths = (
            None if options.work is None else options.work / f"{name}-{seed}.pt"
            for name in ("latent", "plain")
        )
        model, guide, spent = with_latent(train, budget, seed, next(paths))
        plain, spent_plain = without_latent(train, budget, seed, next(paths))
        pyro.set_rng_seed(seed)
        found = measured(model, guide, plain, words, test, num)
        runs.append({"seed": seed, "latent_run": spent, "plain_run": spent_plain, **found})
        results["seeds_not_run"] = [each for each in results["seeds_not_run"] if each != seed]
        report(results, options.output)


def report(results: dict[str, Any], output: Path | None) -> None:
    """Print the results, and write them where asked."""
    text = json.dumps(results, indent=2)
    print(text, flush=True)
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text + "\n")


if __name__ == "__main__":
    main()
