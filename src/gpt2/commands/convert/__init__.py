"""`convert`: models from and to other programs' formats; one file per subcommand."""

import importlib

# One name per line, in the order of `convert --help`; each is a module with COMMAND.
_NAMES = (
    "to_hf",
    "from_hf",
    "to_peft",
    "from_peft",
    "from_tf1",
    "to_gguf",
    "from_gguf",
    "to_savedmodel",
    "to_litert",
    "info",
    "compare",
)

COMMANDS = {name: importlib.import_module(f"{__name__}.{name}").COMMAND for name in _NAMES}
