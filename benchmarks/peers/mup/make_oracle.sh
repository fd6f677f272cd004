#!/usr/bin/env bash
# Write tests/scaling/oracles/mup.json: the factors that microsoft/mup 1.0.0 gives on the cases of tests/scaling/mup_cases.py.
#
# mup is installed alone, into a folder of its own (benchmarks/.peers/mup), beside the PyTorch of the interpreter given.
# With its dependencies it would bring torchvision and seaborn, which it needs only for its plots.
set -euo pipefail

PYTHON="${PYTHON:-.venv/bin/python}"
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
root="$(cd "$here/../../.." && pwd)"
folder="$root/benchmarks/.peers/mup"

cd "$root"
"$PYTHON" -m pip install --quiet --no-deps --upgrade --target "$folder" mup==1.0.0 pyyaml==6.0.3
PYTHONPATH="$folder:$root" "$PYTHON" "$here/oracle_values.py" "$root/tests/scaling/oracles/mup.json"
