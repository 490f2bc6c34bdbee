#!/bin/sh
# Print a Python >= 3.12 that can make virtual environments, or nothing. A name on PATH may be a
# version manager's shim that runs nothing, so every candidate is run, and managers' own folders
# are looked at too.
for candidate in python3.12 python3.13 python3.14 python3 \
    "${PYENV_ROOT:-$HOME/.pyenv}"/versions/*/bin/python3 \
    "${ASDF_DATA_DIR:-$HOME/.asdf}"/installs/python/*/bin/python3 \
    "${XDG_DATA_HOME:-$HOME/.local/share}"/uv/python/*/bin/python3 \
    /opt/*/bin/python3; do
    if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 12))' 2>/dev/null
    then
        command -v "$candidate"
        exit
    fi
done
