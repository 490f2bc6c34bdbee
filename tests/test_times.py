"""The check of the tutorials' times reads what sphinx-gallery writes."""

import importlib.util
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / ".ci" / "check_times.py"
spec = importlib.util.spec_from_file_location("check_times", SCRIPT)
check_times = importlib.util.module_from_spec(spec)
spec.loader.exec_module(check_times)

TEXT = """\
   * - :ref:`sphx_glr_tutorials_01_a.py` (``01_a.py``)
     - 00:12.500
     - 0.0
   * - :ref:`sphx_glr_tutorials_02_b.py` (``02_b.py``)
     - 05:01.000
     - 0.0
"""


def test_times_are_read_and_a_slow_tutorial_fails(tmp_path):
    assert check_times.seconds(TEXT) == {"01_a.py": 12.5, "02_b.py": 301.0}
    (tmp_path / "times.rst").write_text(TEXT)
    for most, code in (("300", 1), ("302", 0)):
        done = subprocess.run(
            [sys.executable, str(SCRIPT), str(tmp_path / "times.rst"), most], capture_output=True
        )
        assert done.returncode == code
        assert b"02_b.py: 301 s" in done.stdout
