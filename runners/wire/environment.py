"""What a vendor's CLI may see of our environment, and where it is found.

A vendor key that happens to be exported silently bills, and a base URL that points at the daemon loops: both pass
only when the entry names them.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from runners.errors import NotInstalledError

_USER = {"HOME", "USER", "LOGNAME", "LANG", "TZ", "TMPDIR", "DBUS_SESSION_BUS_ADDRESS"}
_PROXY = {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy"}
_CA = {"SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"}
_ALLOWED = _USER | _PROXY | _CA
_ALLOWED_PREFIXES = ("LC_", "XDG_")


def child_environment(ours: Mapping[str, str], *, env: Mapping[str, str], env_pass: Sequence[str]) -> dict[str, str]:
    """The environment of a CLI: the allowed part of `ours`, what `env_pass` names, then `env` on top."""
    child = {
        name: value
        for name, value in ours.items()
        if name in _ALLOWED or name.startswith(_ALLOWED_PREFIXES) or name in env_pass
    }
    path = [entry for entry in ours.get("PATH", os.defpath).split(os.pathsep) if Path(entry).is_absolute()]
    return child | {"PATH": os.pathsep.join(path)} | dict(env)


def find_binary(binary: str, environment: Mapping[str, str], *, hint: str) -> str:
    """The absolute path of a CLI, looked up on its own PATH; NotInstalledError with `hint` when there is none."""
    expanded = os.path.expanduser(binary)  # noqa: PTH111 a Path makes `./x` into `x`, which is looked up on PATH
    found = shutil.which(expanded, path=environment["PATH"])
    if found is None:
        looked = "is not an executable file" if os.sep in expanded else "was not found on PATH"
        raise NotInstalledError(f"{binary} {looked}", hint=hint)
    return str(Path(found).absolute())
