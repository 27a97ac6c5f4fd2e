"""`interactive --chat`: a session that is a conversation."""

from __future__ import annotations

from pathlib import Path

from gpt2.commands.flags import Values
from gpt2.commands.interactive import HELP, Session
from gpt2.commands.streams import check_output
from gpt2.commands.terminal import notice
from gpt2.data import templates
from gpt2.data.templates import SavedTemplate, Template
from gpt2.errors import UserError
from gpt2.generation.chat import Chat
from gpt2.generation.language_model import LanguageModel

COMMANDS = """\
  /reset            begin a new conversation
  /system TEXT      change the system message"""
OWN = "own"  # the value of --chat without a value: the template of the model


def find_template(chat: str, folder: Path) -> SavedTemplate:
    """Return the template that `--chat` stands for.

    Raises:
        UserError: it is invalid, or the model in the folder has none of its own.
    """
    if chat != OWN:
        return SavedTemplate(Template(chat).text, conversations=True)
    found = templates.load(folder)
    if found is None:
        raise UserError(
            f"{folder} has no template, since the model was not trained on pairs or conversations. "
            r"Give one, for example --chat 'Q: {question}\nA: {answer}'."
        )
    return found


class ChatSession(Session):
    """Reads messages and prints replies until the input ends."""

    prompt_shown = "You >>> "

    def __init__(self, values: Values, model: LanguageModel, template: SavedTemplate):
        super().__init__(values, model)
        # A model of pairs has seen each of them alone, and does not know what came before.
        history = template.conversations
        self.chat = Chat(
            Template(template.text), model.tokenizer, model.hparams.n_ctx, history=history
        )
        self.chat.set_system(values.system)
        self.commands |= {"/reset": self.reset, "/system": self.system}
        self.with_argument = self.with_argument | {"/system"}
        self.commands["/help"] = lambda rest: print(HELP, COMMANDS, sep="\n")

    def prompt_tokens(self) -> list[int]:
        """Return the tokens of the conversation and the last message."""
        known = self.chat.dropped
        tokens = self.chat.prompt(self.prompt, self.values.length)
        if self.chat.dropped and not known:
            notice(
                f"Context window is {self.model.hparams.n_ctx} tokens; the oldest messages are "
                "dropped. /reset begins a new conversation."
            )
        return tokens

    def show_start(self, number: int) -> None:
        """Print nothing above a reply, unless nobody gets it; see `check_output`."""
        check_output()

    def show_end(self) -> None:
        """Print an empty line below a reply."""
        print()

    def answer(self) -> None:
        """Print the reply to a message, and add both to the history."""
        values = self.values
        self.values = Values(**vars(values) | {"stop": (*values.stop, *self.chat.stop)})
        try:
            super().answer()
        finally:
            self.values = values
        reply = self.samples[-1]
        self.chat.add(self.prompt, reply.removeprefix(self.prompt * values.include_prefix))

    def again(self, rest: str) -> None:
        """Generate another reply to the last message."""
        if self.chat.exchanges:
            self.chat.exchanges.pop()
        super().again(rest)

    def reset(self, rest: str) -> None:
        """Begin a new conversation."""
        self.chat.reset()
        print("The history is empty.")

    def system(self, rest: str) -> None:
        """Change the system message; without a text, remove it."""
        self.chat.set_system(rest)
