"""What the benchmarks compare with must itself be right."""

import json

import torch

from benchmarks import __main__ as runner
from benchmarks.text import KneserNey
from benchmarks.timing import environment


def test_five_grams_are_a_distribution_after_seen_and_unseen_contexts():
    torch.manual_seed(0)
    symbols = torch.multinomial(torch.tensor([0.6, 0.2, 0.1, 0.1]), 500, replacement=True).tolist()
    model = KneserNey(symbols, num_classes=5, order=5)  # the last symbol is never seen
    for context in [tuple(symbols[10:14]), (3, 3, 3, 3), (4, 4, 4, 4), (0, 0, 4, 0)]:
        p = torch.tensor(
            [model.probability(context, symbol, 0.75) for symbol in range(5)], dtype=torch.float64
        )
        torch.testing.assert_close(p.sum(), torch.ones((), dtype=torch.float64))
        assert (p > 0).all()


def test_all_scripts_are_run_and_their_seconds_kept(tmp_path, monkeypatch):
    commands = []
    monkeypatch.setattr(runner, "HERE", tmp_path)
    (tmp_path / "results").mkdir()
    for name in ("gradient_variance", "timing"):
        (tmp_path / f"{name}.py").touch()
    monkeypatch.setattr(runner.sys, "argv", ["benchmarks"])
    monkeypatch.setattr(
        runner.subprocess, "run", lambda command, **options: commands.append(command)
    )
    runner.main()
    assert [command[2] for command in commands] == ["benchmarks.gradient_variance"]
    assert list(json.loads((tmp_path / "results" / "seconds.json").read_text())) == [
        "gradient_variance"
    ]


def test_results_say_on_which_processor_they_were_made():
    assert environment()["processor"]
