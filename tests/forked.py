"""Command lines in processes of their own, each forked from one that has loaded everything and trained once: so they begin at once.

    python forked.py        reads lines of JSON from stdin and answers each with one

    {"arguments": ["train", ...], "folder": F, "ignored": [2], "largest": 9, "user": 7, "told": false}      {"process": 4711}
    {"await": 4711}                                                                   {"code": -9, "out": "...", "err": "..."}

folder: where it works; ignored: signals; largest: bytes of a file; user: as whom; told: whether a run ends with its report (which takes
longer than the training). code: -9 after signal 9, as in Python's subprocess.
"""

import gc
import json
import os
import resource
import selectors
import signal
import sys
import tempfile
import threading
from pathlib import Path

WARM = [
    ["train", "digits", "--config", "stages=8 M 8 M", "--epochs", "1", "--augment", "light", "--mixup", "0.2"],
    ["train", "text.txt", "--config", "units=8", "embedding=4", "--epochs", "1", "--batch-size", "4", "--window", "16"],
]


def warm_up():
    """Load what a training loads. It may start no thread that stays: a forked process would lack it."""
    import torch

    from twofold.cli.main import main

    torch.set_num_threads(1)
    home = Path.cwd()
    with tempfile.TemporaryDirectory() as place, open(os.devnull, "w") as nowhere:
        os.chdir(place)
        Path("text.txt").write_text("The cat sat on the mat. The dog ate the log.\n" * 100)
        out, err, sys.stdout, sys.stderr = sys.stdout, sys.stderr, nowhere, nowhere
        assert [main([*words, "--out", str(number)]) for number, words in enumerate(WARM)] == [0, 0]
        sys.stdout, sys.stderr = out, err
        os.chdir(home)
    gc.freeze()  # what is loaded is not looked through again, so not copied
    assert len(os.listdir("/proc/self/task")) == 1 or sys.platform != "linux"


def become(arguments, folder, ends, ignored=(), largest=None, user=None, told=True):
    """In the new process: the command line, with everything as a shell would have it."""
    from twofold import fitting
    from twofold.cli.main import main

    for end, number in zip((os.open(os.devnull, os.O_RDONLY), *ends), (0, 1, 2), strict=True):
        os.dup2(end, number)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w", buffering=1)  # noqa: SIM115 (open to the end)
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN if each in ignored else signal.default_int_handler if each == signal.SIGINT else signal.SIG_DFL)
    os.chdir(folder)
    if largest is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, resource.RLIM_INFINITY))
    if user is not None:
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
    if not told:
        fitting.tell = lambda *_: None
    code = main(arguments)
    for thread in set(threading.enumerate()) - {threading.current_thread()}:
        if not thread.daemon:
            thread.join()
    sys.stdout.flush()
    os._exit(code)  # to take down all that was loaded takes longer than the training


def heard(ends):
    """What comes out of these pipes until all are closed."""
    texts = dict.fromkeys(ends, b"")
    with selectors.DefaultSelector() as ready:
        for end in ends:
            ready.register(end, selectors.EVENT_READ)
        while ready.get_map():
            for key, _ in ready.select():
                piece = os.read(key.fd, 1 << 16)
                texts[key.fd] += piece
                if not piece:
                    ready.unregister(key.fd)
                    os.close(key.fd)
    return [text.decode() for text in texts.values()]


def serve():
    running = {}
    for line in sys.stdin:
        asked = json.loads(line)
        if "await" in asked:
            out, err = heard(running.pop(asked["await"]))
            answer = {"code": os.waitstatus_to_exitcode(os.waitpid(asked["await"], 0)[1]), "out": out, "err": err}
        else:
            pipes = [os.pipe(), os.pipe()]
            process = os.fork()
            if not process:
                become(**asked, ends=[writing for _, writing in pipes])
            for _, writing in pipes:
                os.close(writing)
            running[process] = [reading for reading, _ in pipes]
            answer = {"process": process}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    warm_up()
    print(json.dumps({"ready": True}), flush=True)
    serve()
