"""Every command reports invalid flags in one line, with exit code 2."""

import pytest

from benchmarks import __main__ as benchmark
from train import (
    __main__,
    checkpoint,
    cli,
    evaluate,
    predict,
    prepare,
    report,
    serve_check,
)
from train.export import __main__ as export_command

LONG, HUGE = "-" * 100_000, f"0x{'f' * 5000}"
TRAIN = (__main__, "--recipe=digits", "--workdir=run")
NETWORK = (
    export_command,
    "--model=resnet20_an",
    "--weights=fashion_mnist",
    "--out=models",
)


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        *((TRAIN[0], (*TRAIN[1:], f"--seed={seed}")) for seed in (-1, 2**31, HUGE)),
        *((TRAIN[0], (*TRAIN[1:], f"--steps={n}")) for n in ("1e3", "0", LONG, HUGE)),
        *((TRAIN[0], (*TRAIN[1:], f"--logical_cpus={n}")) for n in (0, 10**9, "two")),
        *((TRAIN[0], (*TRAIN[1:], f"--set={text}")) for text in ("", "=", LONG, HUGE)),
        *((TRAIN[0], (*TRAIN[1:], f"--set=seed={text}")) for text in (LONG, HUGE)),
        *((TRAIN[0], (*TRAIN[1:], f"--data={name}")) for name in ("", LONG, "\udcff")),
        (TRAIN[0], (*TRAIN[1:], "--strategy=")),
        (TRAIN[0], (*TRAIN[1:], "--strategy=tpu", "--tpu=")),
        (TRAIN[0], (*TRAIN[1:], "--stderrthreshold=loud")),
        (TRAIN[0], (*TRAIN[1:], "--logger_levels=a:b")),
        (__main__, ("--recipe=\udcff", "--workdir=run")),
        (__main__, (f"--recipe={LONG}", "--workdir=run")),
        (evaluate, ("--workdir=run", "--batch_size=0")),
        (evaluate, ("--workdir=run", f"--batch_size={10**12}")),
        (evaluate, ("--workdir=run", "--split=")),
        *((NETWORK[0], (*NETWORK[1:], f"--version={n}")) for n in (-1, 2**63, HUGE)),
        *(
            (NETWORK[0], (*NETWORK[1:], f"--options={text}"))
            for text in ("", "{", "[]", "{[]:1}", "{1:2}", "{**{}}", LONG, HUGE, "\0")
        ),
        (export_command, ("--workdir=run", "--format=pdf")),
        (export_command, ("--workdir=run", "--format=onnx", "--quantize=int9")),
        (export_command, ("--workdir=run", "--fold=perhaps")),
        (prepare, ("--data=",)),
        (predict, ()),
        (predict, ("run",)),
        (serve_check, ()),
        (serve_check, ("a", "b")),
        (report, ()),
        (report, ("--svm=perhaps", "run")),
        (checkpoint, ("digest",)),
        (checkpoint, ("sha256", "run")),
        *(
            (benchmark, ("layer", f"--batches={n}"))
            for n in ("", "0", "1,", HUGE, "9" * 9)
        ),
        *((benchmark, ("layer", f"--networks={n}")) for n in ("", "resnet20,,")),
        *((benchmark, ("layer", f"--rounds={n}")) for n in ("0", "1e3", HUGE)),
        *((benchmark, ("layer", f"--plot={name}")) for name in ("plot", "plot.txt")),
    ],
)
def test_invalid_flags_are_usage_errors(
    call, module, arguments, tmp_path, monkeypatch, data_dir
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", str(data_dir))
    error = call(module, *arguments, expected=cli.USAGE).stderr
    assert error.startswith("usage error: ") and error.count("\n") == 1
    assert len(error) < 3000
    assert not list(tmp_path.iterdir())


INTERRUPTED = """
import os, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs ignore it
from train import cli

class Busy:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(100_000):
            pass

def main(arguments):
    del [Busy()][0]
    time.sleep(60)

cli.run(main, dict)
"""


def test_interrupt_of_a_destructor_is_not_lost(command):
    done = command("-c", INTERRUPTED, expected=1)
    assert done.stderr == ("interrupted: start the same command again to resume\n")
