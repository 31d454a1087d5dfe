"""python -m model_zoo list | info | table | convert ...: the zoo on the command line.

Exit codes: 0 success, 2 usage error, 1 any other error.
"""

import argparse
import ast
import hashlib
import os
import pathlib
import sys
import warnings

import model_zoo
from model_zoo import listing, published, weight_sets  # no Keras: `list` must be quick


class UsageError(ValueError):
    """The command line is invalid."""


def main(argv: list[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    try:
        for line in arguments.run(arguments):
            print(line)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader closed the pipe, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ValueError, TypeError, ImportError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    return 0


def _parser():
    parser = argparse.ArgumentParser(
        "python -m model_zoo", description="The model zoo."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    table = commands.add_parser("list", help="print a table of the networks")
    table.add_argument("pattern", nargs="?", default="*", help="such as 'resnet*_an'")
    table.add_argument(
        "--pretrained", action="store_true", help="only those with weights in the zoo"
    )
    table.set_defaults(run=list_table)
    info = commands.add_parser("info", help="print what is known about a network")
    info.add_argument("name")
    info.add_argument(
        "--draw",
        metavar="FILE",
        type=os.path.expanduser,
        help="also draw the And-Or graphs of an AOGNet, as .png, .svg or .pdf",
    )
    info.set_defaults(run=info_table)
    table = commands.add_parser(
        "table", help="build networks and print their sizes and published results"
    )
    table.add_argument("pattern", nargs="?", default="*", help="such as 'resnet*_an'")
    table.add_argument(
        "--csv", metavar="FILE", type=os.path.expanduser, help="write all columns here"
    )
    table.set_defaults(run=network_table)
    conversion = commands.add_parser(
        "convert", help="convert a PyTorch checkpoint of the authors to a weights file"
    )
    path = os.path.expanduser
    conversion.add_argument(
        "checkpoint", metavar="CKPT", type=path, help=".pth or .pth.tar file"
    )
    conversion.add_argument("--model", required=True, help="name of the network")
    conversion.add_argument(
        "--out", required=True, type=path, help="file to write, *.weights.h5"
    )
    conversion.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="argument of create_model, such as position=all or width_multiplier=0.5",
    )
    conversion.set_defaults(run=convert_checkpoint)
    return parser


def _assignment(text):
    name, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"Expected --set=NAME=VALUE. Received: {text!r}.")
    try:
        with warnings.catch_warnings(action="ignore"):  # from Python's own parser
            return name, ast.literal_eval(value)
    except (MemoryError, RecursionError, SyntaxError, TypeError, ValueError):
        return name, value


def _info(name):
    try:
        return model_zoo.model_info(name)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _count(parameters):
    return "not counted" if parameters is None else f"{parameters:,}"


def list_table(arguments):
    """Yields the lines of the table."""
    try:
        yield from listing.lines(arguments.pattern, arguments.pretrained)
    except ValueError as error:
        raise UsageError(str(error)) from error


def info_table(arguments):
    """Yields one line for each fact."""
    from model_zoo.preprocessing import preprocessing

    info = _info(arguments.name)
    if arguments.draw is not None:
        from model_zoo.aog_plot import draw

        spec = model_zoo.aognet.SPECS.get(info.name.rpartition("_")[0])
        if not spec:
            raise UsageError(
                "--draw needs a network with And-Or graphs, an AOGNet. "
                f"Received: {info.name}."
            )
        draw(map(spec.graph, range(len(spec.depths))), arguments.draw)

    def accuracy(top1, top5):
        return "not published" if top1 is None else f"{top1} / {top5}"

    facts = {
        "name": info.name,
        "family": info.family,
        "lineage": info.lineage,
        "parameters": _count(info.parameters),
        "input": " x ".join(map(str, info.input_shape)),
        "classes": info.classes,
        "images": preprocessing(info.name).description(),
        "ImageNet top-1 / top-5, percent": accuracy(info.top1, info.top5),
        "the same, from the paper's code": accuracy(info.paper_top1, info.paper_top5),
        "recipe of the authors": info.recipe or "not published",
    }
    if longer := published.LONGER.get(info.name):
        facts |= {
            "200 epochs, smoothing, mixup": accuracy(*longer[:2]),
            "200 epochs, from the paper's code": accuracy(*longer[2:]),
        }
    if average_precision := published.COCO.get(info.name):
        facts["COCO box / mask AP"] = accuracy(*average_precision[:2])
        if average_precision[2:]:
            facts["the same with AN in the heads"] = accuracy(*average_precision[2:])
    facts["weights"] = ", ".join(info.weights) or "none"
    for tag in weight_sets.tags(info.name):
        record = weight_sets.weight_set(info.name, tag)
        metrics = ", ".join(f"{name} {value}" for name, value in record.metrics.items())
        facts |= {
            f"weights {tag}": metrics,
            "  images": preprocessing(f"{info.name}.{tag}").description(),
            "  made by": record.recipe,
            "  sha256": record.sha256,
            "  licence": record.licence,
        }
    for name, value in facts.items():
        yield f"{name:34}{value}"


def network_table(arguments):
    """Yields the lines of a Markdown table, and writes a CSV file if asked to."""
    from model_zoo.network_table import markdown, rows, write_csv

    if not model_zoo.list_models(arguments.pattern):
        raise UsageError(f"No network matches {arguments.pattern!r}.")
    if arguments.csv is not None:  # now, because the networks take minutes
        parent, name = os.path.split(arguments.csv)
        is_directory = not name or os.path.isdir(arguments.csv)
        if is_directory or not os.path.isdir(parent or "."):
            raise UsageError(
                "Expected --csv to be a file in an existing directory. "
                f"Received: {arguments.csv!r}."
            )
    table = list(rows(arguments.pattern))
    if arguments.csv is not None:
        write_csv(table, arguments.csv)
    yield from markdown(table)


def convert_checkpoint(arguments):
    """Converts a checkpoint and yields one line for each result of the check."""
    from model_zoo.convert import convert

    options = dict(map(_assignment, arguments.set))
    _info(arguments.model)
    result = convert(arguments.checkpoint, arguments.model, arguments.out, **options)
    digest = hashlib.sha256(pathlib.Path(arguments.out).read_bytes()).hexdigest()
    loaded, skipped = len(result.report.loaded), len(result.report.skipped)
    yield f"{arguments.out}: {arguments.model} with {result.classes} classes"
    yield f"arrays    {loaded} loaded, {skipped} counters skipped, 0 left over"
    yield f"numbers   {result.parameters:,}"
    yield (
        f"layers    {result.layers} compared with PyTorch on equal input, largest "
        f"difference {result.layer_difference:.1e} of the largest output "
        f"({result.layer})"
    )
    yield (
        f"outputs   largest difference of a logit after reading the file back "
        f"{result.file_difference:.1e}; standard deviation of the logits "
        f"{result.logits_std:.2g}"
    )
    yield f"sha256    {digest}"


if __name__ == "__main__":
    sys.exit(main())
