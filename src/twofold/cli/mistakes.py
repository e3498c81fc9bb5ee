"""A mistake on the command line, in one sentence: what was expected, what came, and where to look."""

from cyclopts import CoercionError, CycloptsError, MissingArgumentError, RepeatArgumentError, UnusedCliTokensError
from pydantic import ValidationError

KINDS = {int: "a whole number", float: "a number", bool: "true or false"}


def spoken(error: CycloptsError) -> str:
    """The sentence for what the parser found."""
    if isinstance(error.__cause__, ValidationError):  # the settings say it better
        from twofold.train.settings import spoken as told

        return told(error.__cause__)
    chain = " ".join(error.command_chain or ())
    who, where = (f"{chain}: ", f"See: twofold {chain} --help") if chain else ("", "See: twofold --help")
    if isinstance(error, UnusedCliTokensError):
        left = ", ".join(repr(word) for word in error.unused_tokens or ())
        return f"{who}there is no place for {left}. A name with spaces goes in quotes. {where}"
    if isinstance(error, MissingArgumentError) and type(error) is MissingArgumentError and error.argument is not None:
        if error.keyword is not None or any(token.keyword for token in error.argument.tokens):
            return f"{who}{error.keyword or error.argument.name} needs a value. {where}"
        return f"{who}{error.argument.name.lstrip('-').upper()} is missing. {where}"
    if isinstance(error, RepeatArgumentError):
        return f"{who}{error.token.keyword} is given twice. Give it once"
    if isinstance(error, CoercionError) and error.token is not None and error.target_type in KINDS:
        name = error.token.keyword or (error.argument.name.lstrip("-").upper() if error.argument is not None else "a value")
        return f"{who}expected {name} to be {KINDS[error.target_type]}, got {error.token.value!r}. {where}"
    return " ".join(str(error).split())
