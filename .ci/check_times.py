"""Print how long each tutorial of a built site took, and fail where one took longer than it may.

python .ci/check_times.py docs/tutorials/sg_execution_times.rst 300
"""

import re
import sys
from pathlib import Path


def seconds(text: str) -> dict[str, float]:
    """Read the times of files, in seconds, from what sphinx-gallery writes."""
    rows = re.findall(r"\(``([\w.]+)``\)\s+- (?:(\d+):)?(\d+):([\d.]+)", text)
    return {
        name: 3600 * float(hours or 0) + 60 * float(minutes) + float(rest)
        for name, hours, minutes, rest in rows
    }


if __name__ == "__main__":
    times, most = seconds(Path(sys.argv[1]).read_text(encoding="utf-8")), float(sys.argv[2])
    for name, each in sorted(times.items()):
        print(f"{name}: {each:.0f} s{f', more than {most:.0f} s' if each > most else ''}")
    sys.exit(not times or max(times.values()) > most)
