"""The console script: refuses to run on a package `daemon` that is not ours, then starts `daemon.cli`.

PyPI's python-daemon installs a package of the same name, and in a shared environment either may win.
"""

import sys


def main() -> None:
    """Runs the `runnerd` command."""
    import daemon

    if not getattr(daemon, "IS_RUNNERD", False):
        where = getattr(daemon, "__file__", None) or "an unknown place"
        sys.exit(
            f"runnerd: the package `daemon` at {where} is another project's (python-daemon?). "
            "Install runnerd in an environment of its own: `pipx install runnerd` or `uv tool install runnerd`."
        )
    from daemon.cli import main as cli

    cli()


if __name__ == "__main__":
    main()
