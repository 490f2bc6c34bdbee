"""The README's examples run as they stand."""

import re
from pathlib import Path

import pyro

README = Path(__file__).parents[1] / "README.md"


def test_the_examples_of_the_readme_run():
    example, training = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    assert len(example.splitlines()) <= 12
    pyro.set_rng_seed(0)
    pyro.clear_param_store()
    names: dict[str, object] = {}
    exec(compile(example + training, str(README), "exec"), names)
    losses = names["losses"]
    assert sum(losses[-10:]) < sum(losses[:10])
    two_modes = names["prior"]().log_prob(names["torch"].tensor([[-2.0], [0.0], [2.0]])).exp()
    assert (two_modes[0] > two_modes[1]).all()
    assert (two_modes[2] > two_modes[1]).all()
    pyro.clear_param_store()


def test_what_the_readme_points_to_is_there():
    links = re.findall(r"\]\(((?!http)[^)]+)\)", README.read_text())
    assert links
    for link in links:
        assert (README.parent / link).is_file()
    assert (README.parent / "docs" / "images" / "demo.png").stat().st_size < 300_000
