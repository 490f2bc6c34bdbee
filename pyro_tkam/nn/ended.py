"""Sequences of variable length from a decoder: scoring, sampling and beam search."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_tkam.nn import _checks
from pyro_tkam.nn.attention import Encoded
from pyro_tkam.nn.sequence import SequenceGenerator
from pyro_tkam.ops._concrete import is_concrete
from pyro_tkam.ops._precision import at_least_single
from pyro_tkam.ops.symbols import END, check_symbols, padded, until_end


def ended_log_prob(
    decoder: SequenceGenerator, z: Tensor, tokens: Tensor, encoded: Encoded | None = None
) -> Tensor:
    r"""
    Return the log probability of sequences that end before their first 0.

    .. math:: \log p(x | z) = \sum_{t \le n} \log p(x_t | x_{<t}, z) + \log p(0 | x, z)

    A sequence of ``max_length`` symbols ends with certainty, so the probabilities of all sequences
    of at most ``max_length`` symbols sum to one. Padding changes nothing.

    :param decoder: the decoder.
    :param z: latents, shape ``(*batch_z, Q)``.
    :param tokens: integers, shape ``(*batch_tokens, length)``; the batches broadcast against each
        other.
    :param encoded: another sequence to attend to; its batch broadcasts too.
    :return: in nats, of the broadcast batch shape.
    :raises ValueError: for sequences of more than ``max_length`` symbols, and symbols outside the
        alphabet.
    :raises TypeError: for tokens that are not integers.
    """
    tokens, scored = _with_end(decoder, tokens)
    log_probs = at_least_single(decoder(z, tokens, encoded)).log_softmax(-1)
    index = tokens.expand(log_probs.shape[:-1]).unsqueeze(-1)
    return torch.where(scored, log_probs.gather(-1, index).squeeze(-1), 0.0).sum(-1)


def ended_excess(
    decoder: SequenceGenerator, z: Tensor, tokens: Tensor, encoded: Encoded | None = None
) -> Tensor:
    r"""
    Return how often each symbol occurs, minus how often the decoder expects it.

    .. math:: \sum_{t \le n} \bigl(1[x_t = v] - p(v | x_{<t}, z)\bigr) = \partial \log p(x | z) /
        \partial b_v

    This is the gradient of the log probability with respect to a bias of the logits. It shows what
    a latent would have to add to what the decoder already knows.

    :param decoder: the decoder.
    :param z: latents, shape ``(*batch_z, Q)``.
    :param tokens: integers, shape ``(*batch_tokens, length)``.
    :param encoded: another sequence to attend to.
    :return: shape ``(*broadcast, num_classes)``.
    :raises ValueError: as in :func:`ended_log_prob`.
    """
    tokens, scored = _with_end(decoder, tokens)
    predicted = at_least_single(decoder(z, tokens, encoded)).softmax(-1)
    found = torch.nn.functional.one_hot(tokens, decoder.num_classes)
    return ((found - predicted) * scored.unsqueeze(-1)).sum(-2)


def _with_end(decoder: SequenceGenerator, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Trim sequences to the end of the longest one; return them and which positions are scored."""
    _check_decoder(decoder)
    check_symbols("tokens", tokens, decoder.num_classes)
    if tokens.dim() == 0:
        raise ValueError("tokens must have shape (*batch, length), got ()")
    tokens, lengths = until_end(tokens)
    concrete = is_concrete(lengths) and lengths.numel()
    longest = int(lengths.max()) if concrete else tokens.shape[-1]
    if longest > decoder.max_length:
        raise ValueError(
            f"tokens must have at most max_length={decoder.max_length} symbols, got {longest}"
        )
    size = min(longest + 1, decoder.max_length)
    return padded(tokens, size), torch.arange(size, device=tokens.device) <= lengths.unsqueeze(-1)


def _check_decoder(decoder: SequenceGenerator) -> None:
    if not isinstance(decoder, SequenceGenerator):
        raise TypeError(f"decoder must be a SequenceGenerator, got {type(decoder).__name__}")


@torch.no_grad()
def sample_ended(decoder: SequenceGenerator, z: Tensor, encoded: Encoded | None = None) -> Tensor:
    """
    Draw sequences that end before their first 0, all rows at once.

    :param decoder: the decoder.
    :param z: latents, shape ``(*batch, Q)``.
    :param encoded: another sequence to attend to; its batch broadcasts.
    :return: integers of shape ``(*batch, max_length)``, padded with 0.
    """
    _check_decoder(decoder)
    cache = decoder.start(z, encoded)
    ended = torch.zeros(cache.tokens.shape[:-1], dtype=torch.bool, device=z.device)
    for _ in range(decoder.max_length):
        logits, cache = decoder.step(cache)
        drawn = torch.distributions.Categorical(
            logits=at_least_single(logits), validate_args=False
        ).sample()
        drawn = torch.where(ended, END, drawn)
        cache = decoder.append(cache, drawn)
        ended = ended | (drawn == END)
        if is_concrete(ended) and bool(ended.all()):
            break
    return padded(cache.tokens, decoder.max_length)


class Beams(NamedTuple):
    """
    The most probable sequences that a search found, best first.

    :param tokens: integers, shape ``(*batch, beams, max_length)``, padded with 0.
    :param log_prob: their log probabilities in nats, shape ``(*batch, beams)``; ``-inf`` where
        there are fewer sequences than beams.
    """

    tokens: Tensor
    log_prob: Tensor


@torch.no_grad()
def beam_search(
    decoder: SequenceGenerator, z: Tensor, encoded: Encoded | None = None, num_beams: int = 5
) -> Beams:
    r"""
    Search for the sequences that are most probable on average over draws of the latent.

    .. math:: \hat p(x) = \frac1S \sum_s p(x | z_s)

    All rows, beams and draws advance together, one symbol at a time, and each step keeps the best
    ``num_beams`` prefixes. If there are as many beams as sequences of at most ``max_length``
    symbols, the result is exact.

    :param decoder: the decoder.
    :param z: draws of the latent, shape ``(*batch, S, Q)``; one draw (``S = 1``) decodes given a
        latent.
    :param encoded: another sequence to attend to, of batch shape ``batch``.
    :param num_beams: number of prefixes that each step keeps.
    :raises ValueError: for fewer than one beam or draw.
    """
    _check_decoder(decoder)
    _checks.integer("num_beams", num_beams, 1)
    _checks.last_dimension("z", z, decoder.latent_dim)
    if z.dim() < 2 or z.shape[-2] < 1:
        raise ValueError(f"z must have shape (*batch, S, Q) with S >= 1, got {tuple(z.shape)}")
    batch = z.shape[:-2]
    draws = z.shape[-2]
    rows = z.reshape(-1, 1, draws, z.shape[-1])
    cache = decoder.start(rows, None if encoded is None else _beside(encoded, batch))
    totals = rows.new_zeros(len(rows), 1, draws)  # log probability under each draw
    ended = torch.zeros(len(rows), 1, dtype=torch.bool, device=z.device)
    best = rows.new_zeros(len(rows), 1)
    for _ in range(decoder.max_length):
        logits, cache = decoder.step(cache)
        following = at_least_single(logits).log_softmax(-1)
        closed = torch.full_like(following[0, 0, 0], -math.inf)
        closed[END] = 0.0  # only padding follows the end
        following = torch.where(ended[..., None, None], closed, following)
        following = totals.unsqueeze(-1) + following
        scores = (following.logsumexp(2) - math.log(draws)).flatten(1)
        best, place = scores.topk(min(num_beams, scores.shape[-1]))
        parent = place // following.shape[-1]
        token = place % following.shape[-1]
        totals = following.take_along_dim(parent[..., None, None], 1)
        totals = totals.take_along_dim(token[..., None, None], -1).squeeze(-1)
        ended = ended.take_along_dim(parent, 1) | (token == END)
        cache = decoder.append(cache.rows(parent), token.unsqueeze(-1).expand(-1, -1, draws))
        if bool((ended | best.isneginf()).all()):
            break
    tokens = padded(cache.tokens[:, :, 0], decoder.max_length)
    return Beams(tokens.reshape(*batch, *tokens.shape[1:]), best.reshape(*batch, -1))


def _beside(encoded: Encoded, batch: torch.Size) -> Encoded:
    """Reshape an encoded sequence so that all beams and draws of a row of the batch share it."""
    if not isinstance(encoded, Encoded):
        raise TypeError(f"encoded must be an Encoded or None, got {encoded!r}")
    features = encoded.features.expand(*batch, -1, -1).flatten(0, -3)
    mask = encoded.mask.expand(*batch, -1).flatten(0, -2)
    return Encoded(features[:, None, None], mask[:, None, None])
