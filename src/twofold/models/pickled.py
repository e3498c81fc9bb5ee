"""What a pickle would build, judged from its instructions, none of which is carried out.

    c module name     a class or a function that is fetched     allowed: what a file of weights consists of, ALLOWED
    ( .. t            a tuple; its size counts every part as often as it is reached                 size <= LARGEST

PyTorch's safe reader (weights_only) calls nothing but what it knows either, but knows more than weights need: a function that makes an
array of any length, kinds of tensors without a storage. And tuples within tuples take no room in the file, but as the keys of a dictionary
the time of 2^depth steps.

Python, Lib/pickletools.py (the instructions); torch/_weights_only_unpickler.py (those that PyTorch's safe reader follows)
"""

import pickletools
from typing import IO, Any

LARGEST = 10_000  # values in a tuple, counted with repetitions
_REBUILD = ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter")
_NUMBERS = ("float16", "bfloat16", "float32", "float64", "uint8", "int8", "int16", "int32", "int64", "bool")
_STORED = ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
ALLOWED = frozenset(
    (
        "collections.OrderedDict",
        "torch.Size",
        "torch.device",
        "torch.storage.TypedStorage",
        "torch.storage.UntypedStorage",
        *(f"torch._utils.{name}" for name in _REBUILD),
        *(f"torch.{name}" for name in _NUMBERS),
        *(f"torch{where}.{name}Storage" for name in _STORED for where in ("", ".cuda")),
    )
)
_MARK = -1  # on the stack, where a size is 1 or more
_POPS = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_PUT, _GET = ("PUT", "BINPUT", "LONG_BINPUT"), ("GET", "BINGET", "LONG_BINGET")
_TAKES = {"APPEND": 1, "SETITEM": 2, "BUILD": 1, "POP": 1}  # off the stack, and nothing put there
_TAKES_TO_MARK = ("APPENDS", "SETITEMS", "ADDITEMS")
_PLAIN = (
    *("NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING"),
    *("EMPTY_LIST", "EMPTY_DICT", "EMPTY_TUPLE"),
)


def judge(file: IO[bytes]) -> str:
    """Go through the next pickle of the file; why it is refused, in words, or "" where it is not.

    The file then stands behind the pickle. A list or a dictionary has the size 1: neither can be a part of a key.
    """
    stack: list[int] = []
    memory: dict[Any, int] = {}
    try:
        for code, given, _ in pickletools.genops(file):
            refused = _follow(code.name, given, stack, memory)
            if refused:
                return refused
    except (ValueError, IndexError, KeyError, UnicodeDecodeError, OverflowError) as error:
        return f"it is cut off or damaged ({str(error) or type(error).__name__})"
    return ""


def _follow(name: str, given: Any, stack: list[int], memory: dict[Any, int]) -> str:
    """What one instruction does to the sizes; the reason where it is refused."""
    if name in _PLAIN:
        stack.append(1)
    elif name == "MARK":
        stack.append(_MARK)
    elif name in _PUT:
        memory[given] = stack[-1]
    elif name in _GET:
        stack.append(memory[given])
    elif name == "TUPLE" or name in _POPS:
        parts = _to_mark(stack) if name == "TUPLE" else [stack.pop() for _ in range(_POPS[name])]
        stack.append(1 + sum(parts))
        if stack[-1] > LARGEST:
            return f"it holds a tuple of more than {LARGEST:,} values, as no file of weights does"
    elif name == "GLOBAL":
        fetched = str(given).replace(" ", ".")
        if fetched not in ALLOWED:
            return f"it holds {fetched}, which is no tensor"
        stack.append(1)
    elif name in ("REDUCE", "NEWOBJ"):
        stack[-2:] = [max(stack[-2:])]
    elif name in _TAKES:
        del stack[len(stack) - _TAKES[name] :]
    elif name in _TAKES_TO_MARK:
        _to_mark(stack)
    elif name == "BINPERSID":
        stack[-1] = 1
    elif name not in ("PROTO", "STOP"):
        return f"it has the instruction {name}, as no file of weights does"
    return ""


def _to_mark(stack: list[int]) -> list[int]:
    """Take off everything above the last mark, and the mark."""
    first = len(stack) - 1 - stack[::-1].index(_MARK)
    parts = stack[first + 1 :]
    del stack[first:]
    return parts
