"""
Words to phonemes without a network: joint chunks of letters and phonemes, aligned by expectation
maximization, under an interpolated Kneser-Ney 5-gram, and a beam (Bisani & Ney 2008,
doi:10.1016/j.specom.2008.01.002).
"""

import math
from collections import defaultdict

import torch
from torch import Tensor

from benchmarks.text import KneserNey
from pyro_tkam.datasets import Pairs
from pyro_tkam.ops.symbols import until_end

#: numbers of letters and phonemes of a chunk
CHUNKS = ((1, 0), (1, 1), (1, 2), (2, 1))
ORDER, BEAM, DISCOUNT = 5, 10, 0.8
Chunk = tuple[tuple[int, ...], tuple[int, ...]]


class Alignment:
    """
    Probabilities of chunks, and the best cut of each pair into chunks.

    :param pairs: training pairs.
    :param rounds: of expectation maximization.
    """

    def __init__(self, pairs: Pairs, rounds: int = 6) -> None:
        self.bases = len(pairs.source_alphabet), len(pairs.target_alphabet)
        self.source, self.n = until_end(pairs.source)
        self.target, self.m = until_end(pairs.target)
        sizes = [self.bases[0] ** a * self.bases[1] ** b for a, b in CHUNKS]
        tables = [torch.full((size,), -math.log(sum(sizes)), dtype=torch.float64) for size in sizes]
        order = self.n.argsort()
        for _ in range(rounds):
            counts = [torch.zeros_like(table) for table in tables]
            for rows in order.split(8192):
                self.expect(rows, tables, counts)
            total = sum(float(count.sum()) for count in counts)
            tables = [(count / total).clamp_min(1e-12).log() for count in counts]
        self.tables = tables

    def chunk(self, rows: Tensor, kind: int, i: int, j: int) -> Tensor:
        """Return the number of the chunk that begins at letter ``i`` and phoneme ``j``."""
        letters, sounds = CHUNKS[kind]
        index = torch.zeros(len(rows), dtype=torch.int64)
        for k in range(letters):
            index = index * self.bases[0] + self.source[rows, i + k]
        for k in range(sounds):
            index = index * self.bases[1] + self.target[rows, j + k]
        return index

    def _steps(self, rows: Tensor) -> list[tuple[int, int, int, Tensor]]:
        """Return all steps (kind, letter, phoneme, chunk numbers) in the order of cells."""
        n, m = int(self.n[rows].max()), int(self.m[rows].max())
        return [
            (kind, i, j, self.chunk(rows, kind, i, j))
            for i in range(n)
            for j in range(m + 1)
            for kind, (a, b) in enumerate(CHUNKS)
            if i + a <= n and j + b <= m
        ]

    def _inside(self, rows: Tensor, i: int, j: int) -> Tensor:
        return (i <= self.n[rows]) & (j <= self.m[rows])

    def expect(self, rows: Tensor, tables: list[Tensor], counts: list[Tensor]) -> None:
        """Add the expected counts of chunks: forward and backward sums over all cuts."""
        steps = self._steps(rows)
        shape = int(self.n[rows].max()) + 1, int(self.m[rows].max()) + 1, len(rows)
        ahead = torch.full(shape, -math.inf, dtype=torch.float64)
        behind = ahead.clone()
        ahead[0, 0] = 0.0
        behind[self.n[rows], self.m[rows], torch.arange(len(rows))] = 0.0
        for kind, i, j, chunk in steps:
            a, b = CHUNKS[kind]
            into = ahead[i + a, j + b]
            torch.logaddexp(into, ahead[i, j] + tables[kind][chunk], out=into)
        for kind, i, j, chunk in reversed(steps):
            a, b = CHUNKS[kind]
            into = behind[i, j]
            torch.logaddexp(into, behind[i + a, j + b] + tables[kind][chunk], out=into)
        whole = behind[0, 0]
        known = whole.isfinite()  # some pairs have too many phonemes to be cut
        for kind, i, j, chunk in steps:
            a, b = CHUNKS[kind]
            share = ahead[i, j] + tables[kind][chunk] + behind[i + a, j + b] - whole
            counts[kind].index_add_(0, chunk[known], share[known].exp())

    def best(self) -> list[list[Chunk]]:
        """Return the most probable cut of every pair that can be cut."""
        found: list[list[Chunk]] = []
        for rows in self.n.argsort().split(8192):
            steps = self._steps(rows)
            shape = int(self.n[rows].max()) + 1, int(self.m[rows].max()) + 1, len(rows)
            score = torch.full(shape, -math.inf, dtype=torch.float64)
            score[0, 0] = 0.0
            came = torch.full(shape, -1)
            for kind, i, j, chunk in steps:
                a, b = CHUNKS[kind]
                new = score[i, j] + self.tables[kind][chunk]
                better = new > score[i + a, j + b]
                score[i + a, j + b] = torch.where(better, new, score[i + a, j + b])
                came[i + a, j + b] = torch.where(better, kind, came[i + a, j + b])
            for place, row in enumerate(rows.tolist()):
                i, j = int(self.n[row]), int(self.m[row])
                if score[i, j, place].isfinite():
                    found.append(self._traced(came[:, :, place].tolist(), row, i, j))
        return found

    def _traced(self, came: list[list[int]], row: int, i: int, j: int) -> list[Chunk]:
        source, target = self.source[row].tolist(), self.target[row].tolist()
        cut: list[Chunk] = []
        while i > 0:
            a, b = CHUNKS[came[i][j]]
            cut.append((tuple(source[i - a : i]), tuple(target[j - b : j])))
            i, j = i - a, j - b
        return cut[::-1]


class JointNGram:
    """
    The 5-gram of chunks, and its decoder.

    :param pairs: training pairs.
    """

    def __init__(self, pairs: Pairs) -> None:
        cuts = Alignment(pairs).best()
        names = {chunk: i + 2 for i, chunk in enumerate(sorted({c for cut in cuts for c in cut}))}
        self.by_letters: dict[tuple[int, ...], list[tuple[int, tuple[int, ...]]]] = defaultdict(
            list
        )
        for (letters, sounds), number in names.items():
            self.by_letters[letters].append((number, sounds))
        stream: list[int] = []  # 0 before a word, 1 after it
        for cut in cuts:
            stream += [0] * (ORDER - 1) + [names[chunk] for chunk in cut] + [1]
        self.grams = KneserNey(stream, len(names) + 2, ORDER)

    def decode(self, source: list[int]) -> list[int]:
        """
        Return the most probable phonemes that the beam finds.

        :param source: the letters of a word, without its end.
        """
        size, start = len(source), ((0,) * (ORDER - 1), ())
        # by the letters that are read: history and phonemes, and their score
        heaps: list[dict[tuple[tuple[int, ...], tuple[int, ...]], float]] = [
            {} for _ in range(size + 1)
        ]
        heaps[0][start] = 0.0
        for i in range(size):
            kept = sorted(heaps[i].items(), key=lambda item: -item[1])[:BEAM]
            for (history, sounds), score in kept:
                for a in (1, 2):
                    letters = tuple(source[i : i + a])
                    if len(letters) < a:
                        continue
                    for number, more in self.by_letters.get(letters, ()):
                        p = self.grams.probability(history, number, DISCOUNT)
                        key = ((*history[1:], number), sounds + more)
                        new = score + math.log(p)
                        if new > heaps[i + a].get(key, -math.inf):
                            heaps[i + a][key] = new
        ends = [
            (score + math.log(self.grams.probability(history, 1, DISCOUNT)), sounds)
            for (history, sounds), score in heaps[size].items()
        ]
        return list(max(ends)[1]) if ends else []
