"""`python -m cogkit COMMAND`: each command is a module with `main(arguments) -> exit status`."""

import importlib
import sys

COMMANDS = {"convert": "cogkit.data.convert", "doctor": "cogkit.doctor", "validate": "cogkit.data.validate"}


def main(arguments: list[str] | None = None) -> int:
    """Run one command; exit status 2 for a name that is none."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] not in COMMANDS:
        print(f"usage: python -m cogkit {{{','.join(COMMANDS)}}} ...", file=sys.stderr)
        return 2
    return importlib.import_module(COMMANDS[arguments[0]]).main(arguments[1:])


if __name__ == "__main__":
    sys.exit(main())
