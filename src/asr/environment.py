"""What a process that we start may know of our environment: where things are, and no secret.

Those who pass on everything pass on every key in it, to be read in `/proc` and in core dumps.
"""

from __future__ import annotations

import os
from collections.abc import Container, Mapping

_NAMES = frozenset(
    {
        *("PATH", "HOME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TEMP", "TMP", "VIRTUAL_ENV", "SYSTEMROOT"),
        *("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "POCKETSPHINX_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR"),
        *("GRPC_VERBOSITY", "GRPC_ENABLE_FORK_SUPPORT"),
    }
)
_PREFIXES = ("LC_", "PYTHON", "OMP_", "OPENBLAS_", "MKL_", "MALLOC_")


def plain_environment(env: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables that a process of ours needs; None: of this process's own environment.

    >>> plain_environment({"PATH": "/bin", "RIVA_API_KEY": "k", "AWS_SECRET_ACCESS_KEY": "s", "LC_ALL": "C"})
    {'PATH': '/bin', 'LC_ALL': 'C'}
    """
    given = os.environ if env is None else env
    return {key: value for key, value in given.items() if key in _NAMES or key.startswith(_PREFIXES)}


def others_environment(keys: Container[str], env: Mapping[str, str] | None = None) -> dict[str, str]:
    """All variables but those, for a program that is not ours and brings needs of its own.

    >>> others_environment({"RIVA_API_KEY"}, {"PATH": "/bin", "riva_api_key": "k", "CUDA_HOME": "/cuda"})
    {'PATH': '/bin', 'CUDA_HOME': '/cuda'}
    """
    given = os.environ if env is None else env
    return {key: value for key, value in given.items() if key.upper() not in keys}
