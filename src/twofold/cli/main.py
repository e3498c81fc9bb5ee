"""The door: the commands by name, and what a user sees of a mistake. Nothing heavy is imported before a command is chosen.

A mistake of the user prints one clear paragraph and exits 2; `--debug` shows where it came from.
"""

import io
import os
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError

from twofold import __version__

COMMANDS = {
    "train": ("twofold.cli.training:train", "Train a model on a named source, a folder of pictures, or a text."),
    "runs": ("twofold.cli.runs:runs", "List and compare the runs beneath a folder."),
    "evaluate": ("twofold.cli.using:evaluate", "Score a trained model on its test split, or on another source."),
    "predict": ("twofold.cli.predicting:predict", "Name the class of pictures, or of whole folders."),
    "calibrate": ("twofold.cli.judging:calibrate", "Fit a temperature, so that confidence says how often a classifier is right."),
    "sample": ("twofold.cli.using:sample", "Let a language model write."),
    "recipes": ("twofold.cli.looking:recipes", "List the recipes: settings that were tried on a kind of data."),
    "models": (
        "twofold.cli.looking:models",
        "List the architectures; `models get NAME` downloads published weights; `models convert` writes weights by torchvision's names.",
    ),
    "data": (
        "twofold.cli.looking:data",
        "List the sources; `data check PATH` says what lies there; `data get NAME` downloads a published set; `data preview` varies it.",
    ),
    "summary": ("twofold.cli.looking:summary", "Show the layers, shapes and weights of a model."),
    "explain": ("twofold.cli.explain:explain", "Work out the arithmetic of a layer, number by number."),
    "see": ("twofold.cli.see:see", "Draw what layers do, as PNG pictures."),
    "doctor": ("twofold.cli.looking:doctor", "Say what this installation can do, and what it lacks."),
}


def build_app() -> App:
    """The command line, its commands loaded when they are called."""
    app = App(
        name="twofold",
        help="Convolutional and recurrent networks that you can read, run fast, train, see and ship.",
        version=__version__,
        result_action="return_value",
        suppress_keyboard_interrupt=False,
        help_format="plaintext",
        help_epilogue="Any command takes --json for machine-readable output on stdout, and --debug to see where an error came from.",
    )
    for name, (place, line) in COMMANDS.items():
        app.command(place, name=name, help=line)
    return app


def main(arguments: list[str] | None = None) -> int:
    """Run one command line and return its exit code.

    0 done, 1 our own fault, 2 the user's mistake, 130 interrupted, 141 whoever read our output has gone.
    """
    _print_anything()
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        build_app()(words, exit_on_error=False, print_error=False)
        sys.stdout.flush()  # a reader that has gone is noticed here, not at the interpreter's end
    except CycloptsError as error:
        from twofold.cli.mistakes import spoken

        return _say(spoken(error), 2, debug)
    except ValueError as error:
        return _say(str(error), 2, debug, getattr(error, "__notes__", ()))
    except KeyboardInterrupt as error:
        return _say(str(error) or "interrupted", getattr(error, "exit_code", 130), debug)
    except BrokenPipeError:
        return _leave_quietly()
    except OSError as error:
        return _say(f"the system refuses: {error.strerror or error}{f': {error.filename}' if error.filename else ''}", 2, debug)
    except Exception as error:
        if _beyond_memory(error):
            return _say("there is not enough memory for this. Take smaller sizes, fewer data or a smaller batch.", 2, debug)
        return _say(f"this should not have happened: {type(error).__name__}: {error} (run again with --debug and tell us)", 1, debug)
    return 0


def _say(message: str, code: int, debug: bool, notes: Sequence[str] = ()) -> int:
    """Print the message, and beneath it the lines of the notes: a text, and a caret beneath the character that is wrong."""
    if debug:
        raise  # the exception that main is handling
    ended = message if message.endswith((".", "?", "!", ")")) else f"{message}."
    from twofold.cli.output import visible

    print(f"twofold: {visible(ended)}", file=sys.stderr)
    for line in (line for note in notes for line in note.split("\n")):
        print(visible(line), file=sys.stderr)
    return code


def _print_anything() -> None:
    """What the terminal's encoding lacks is written out; it is no reason to stop."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _leave_quietly() -> int:
    """Send what is still to be flushed nowhere, and end as a tool does that the signal of a closed pipe has killed."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())
    return 141


def _beyond_memory(error: Exception) -> bool:
    """Whether Python's memory has run out, or torch's, which raises a plain RuntimeError."""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)


if __name__ == "__main__":
    sys.exit(main())
