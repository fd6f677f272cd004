#!/usr/bin/env bash
# Build benchmarks/.peers/neural-tangents: a frozen environment for the oracle, apart from the package's own.
#
# neural-tangents 0.6.5 (its last release) does not import with a current JAX, so JAX is pinned to 0.4.25.
# Its only use of TensorFlow (a 2 GB install, through tf2jax) is the `experimental` subpackage, which the
# scripts here replace by an empty module before the import; so it is installed without its dependencies
# and the few that matter are named.
set -euo pipefail

PYTHON="${PYTHON:-python3.11}"
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
env_dir="${1:-$here/../../.peers/neural-tangents}"

"$PYTHON" -m venv "$env_dir"
"$env_dir/bin/python" -m pip install --quiet \
  jax==0.4.25 jaxlib==0.4.25 numpy==1.26.4 scipy==1.12.0 ml_dtypes==0.5.4 opt_einsum==3.4.0 \
  frozendict==2.5.1 typing_extensions==4.16.0
"$env_dir/bin/python" -m pip install --quiet --no-deps neural-tangents==0.6.5
"$env_dir/bin/python" - <<'PY'
import sys, types
sys.modules["neural_tangents.experimental"] = types.ModuleType("neural_tangents.experimental")
import neural_tangents, jax
print("neural-tangents", neural_tangents.__version__, "with jax", jax.__version__)
PY
