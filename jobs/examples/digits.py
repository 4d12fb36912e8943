"""The demo: handwritten digits, a small Keras model for them and a smaller one, and a look at what a job made of it.

`prepare` makes the models and the input of `digits.yaml`, `report` judges and draws the output of that job. Refuses
to know how the job is run: it only leaves files for it, and reads the files it left. Everything is seeded, so two
people who run it see the same digits misread.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.errors import DataError, InputError, ModelError, RunnerError, one_of

FILES = 8
ROW_GROUP_ROWS = 64  # several row groups in each file of about 225 rows
HELD_OUT_ROWS = 540  # 30 % of the 1,797 digits
SEED = 0
EPOCHS = 30  # about three seconds; by then every digit of the training part is read correctly
LEAST_ACCURACY = 0.9  # on digits not trained on; both models reach 0.98
WEIGHT_BITS = {"model": 32, "challenger": 4}  # folder -> of each weight of the model in it: an eighth of the size
GRID_ROWS, GRID_COLUMNS = 8, 12
MOST_MISREAD = GRID_ROWS * GRID_COLUMNS // 3
CELL = (1.14, 1.0)  # height, width: there is a line of text under each image
RED = "#d62728"
JOB_FILE = Path(__file__).with_name("digits.yaml")


@dataclass(frozen=True)
class Digits:
    """Images of handwritten digits, `held_out` where the model was not trained on them.

    images: (n, 8, 8) uint8, from 0 (paper) to 16 (ink). labels: (n,) int64. held_out: (n,) bool.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    held_out: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Answers:
    """The output of the job, in the order of ids: what the model said about each digit. All of shape (n,)."""

    ids: npt.NDArray[np.int64]
    said: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    held_out: npt.NDArray[np.bool_]

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        right: npt.NDArray[np.bool_] = self.said == self.labels
        return right

    @property
    def held_out_accuracy(self) -> float:
        return float(self.right[self.held_out].mean())


def prepare(folder: Path, force: bool = False) -> None:
    """Make `folder`/model/1, `folder`/challenger/1 and `folder`/input, each only if it is not there, or if `force`.

    raises: ModelError if a model is worse than LEAST_ACCURACY; ModuleNotFoundError without the extra `demo`.
    cost:   about ten seconds, nearly all of it importing TensorFlow; nothing if all is there.
    """
    inputs = [folder / "input" / f"digits-{number}.parquet" for number in range(FILES)]
    models = {bits: folder / name / "1" for name, bits in WEIGHT_BITS.items()}
    missing_input = force or not all(path.exists() for path in inputs)
    missing_models = {bits: path for bits, path in models.items() if force or not path.exists()}
    digits = load_digits() if missing_input or missing_models else None
    if digits is None or not missing_input:
        print(f"{inputs[0].parent}: there already, kept (--force makes it anew)")
    else:
        write_input(digits, inputs)
        held_out = int(digits.held_out.sum())
        print(f"{inputs[0].parent}: {len(digits.labels):,} digits in {FILES} files, {held_out} of them held out")
    accuracies = train(digits, missing_models) if digits is not None and missing_models else {}
    for bits, path in models.items():
        if digits is None or bits not in accuracies:
            print(f"{path}: there already, kept (--force makes it anew)")
        else:
            what = "SavedModel" if bits == max(models) else f"the same with weights of {bits} bits"
            trained_on = f"trained on {int((~digits.held_out).sum()):,} digits"
            print(f"{path}: {what}, {trained_on}; accuracy on the others: {accuracies[bits]:.3f}")


def load_digits() -> Digits:
    """The digits that ship with scikit-learn, split with a fixed seed, each digit having its share in both parts."""
    # Lazy: a second to import, not needed by `report`, and only in the extra `demo`.
    from sklearn import datasets, model_selection

    bunch = datasets.load_digits()
    labels = bunch.target.astype(np.int64)  # (n,)
    _, chosen = model_selection.train_test_split(
        np.arange(len(labels)), test_size=HELD_OUT_ROWS, stratify=labels, random_state=SEED
    )
    held_out = np.zeros(len(labels), np.bool_)  # (n,)
    held_out[chosen] = True
    return Digits(bunch.images.astype(np.uint8), labels, held_out)


def write_input(digits: Digits, paths: Sequence[Path]) -> None:
    """Write the digits into `paths` in the order of their ids, about as many into each."""
    table = pa.table(
        {
            "id": np.arange(len(digits.labels), dtype=np.int64),
            "image": pa.FixedShapeTensorArray.from_numpy_ndarray(digits.images),  # (n, 8, 8)
            "label": digits.labels,
            "held_out": digits.held_out,
        }
    )
    cuts = np.linspace(0, len(digits.labels), len(paths) + 1).astype(int).tolist()  # (files + 1,)
    for path, start, stop in zip(paths, cuts[:-1], cuts[1:], strict=True):
        with _complete_or_absent(path) as draft:
            pq.write_table(table.slice(start, stop - start), draft, row_group_size=ROW_GROUP_ROWS)


def train(digits: Digits, paths: Mapping[int, Path]) -> dict[int, float]:
    """Train a small network on what is not held out, and export it as a SavedModel for each number of bits.

    paths:  bits of a weight -> where to export the network with its weights rounded to so many.
    The signature takes `image` (n, 8, 8) uint8 and answers `digit` (n,) int64 and `probabilities` (n, 10) float32:
    casting and scaling are inside the model, so a caller feeds pixels as they are stored.
    returns: accuracy on the digits held out.
    raises:  ModelError, and writes nothing more, if that is below LEAST_ACCURACY.
    """
    # Before the import, or it is too late: the level is read once.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with _quiet_stderr():
        # Lazy: several seconds and 600 MB, and neither `report` nor a second `prepare` needs it.
        import keras

        keras.utils.set_random_seed(SEED)
        image = keras.Input((8, 8), dtype="uint8", name="image")
        hidden = keras.layers.Flatten()(keras.layers.Rescaling(1 / 16)(image))
        hidden = keras.layers.Dense(128, activation="relu")(hidden)
        probabilities = keras.layers.Dense(10, activation="softmax")(hidden)
        model = keras.Model(image, probabilities)
        # Compiling such a small model with XLA takes longer than training it.
        optimizer = keras.optimizers.Adam(5e-3)
        model.compile(optimizer=optimizer, loss="sparse_categorical_crossentropy", jit_compile=False)
        seen = ~digits.held_out
        model.fit(digits.images[seen], digits.labels[seen], batch_size=64, epochs=EPOCHS, verbose=0)
        digit = keras.ops.cast(keras.ops.argmax(probabilities, axis=-1), "int64")
        served = keras.Model(image, {"digit": digit, "probabilities": probabilities})
        trained, accuracies = model.get_weights(), {}
        for bits, path in paths.items():
            model.set_weights([_rounded(weights, bits) for weights in trained])
            said = model.predict(digits.images[digits.held_out], verbose=0).argmax(axis=-1)  # (held out,)
            accuracies[bits] = _checked(float((said == digits.labels[digits.held_out]).mean()), path)
            with _complete_or_absent(path) as draft:
                served.export(str(draft), verbose=False)
    return accuracies


def _rounded(weights: npt.NDArray[np.float32], bits: int) -> npt.NDArray[np.float32]:
    """weights: of a layer, rounded to whole multiples of one number, as many as `bits` can tell apart."""
    if bits >= 32 or weights.ndim < 2:  # biases are few
        return weights
    step = np.abs(weights).max() / (2 ** (bits - 1) - 1)
    rounded: npt.NDArray[np.float32] = np.round(weights / step) * step
    return rounded


def _checked(accuracy: float, path: Path) -> float:
    if accuracy < LEAST_ACCURACY:
        raise ModelError(
            f"cannot export model '{path}': accuracy on digits not trained on is {accuracy:.2f}; "
            f"expected at least {LEAST_ACCURACY}"
        )
    return accuracy


def report(folder: Path, picture: Path) -> None:
    """Print how well the job did, and draw digits that the model had not seen, the misread ones first.

    raises: DataError if an id is missing, unknown or doubled, or accuracy on the digits held out is too low;
            InputError if input or output are not there.
    """
    inputs = _read(folder / "input", "digits-*.parquet", ["id", "image"], "prepare the demo first")
    outputs = _read(
        folder / "output", "part-*.parquet", ["id", "digit", "label", "held_out"], f"run '{_shown(JOB_FILE)}' first"
    )
    _check_ids(inputs["id"].to_numpy(), outputs["id"].to_numpy(), folder / "output")
    # Both in the order of ids: a job may write its parts in any order.
    outputs, inputs = outputs.sort_by("id"), inputs.take(pa.array(np.argsort(inputs["id"].to_numpy())))
    answers = Answers(*(outputs[name].to_numpy() for name in ("id", "digit", "label", "held_out")))
    print(f"every one of {len(answers.ids):,} ids is there once")
    print(f"accuracy on all {len(answers.ids):,} digits: {answers.right.mean():.3f}")
    print(f"accuracy on {answers.held_out.sum()} digits the model has not seen: {answers.held_out_accuracy:.3f}")
    print(f"commonest mix-ups among them: {'; '.join(mix_ups(answers)) or 'none'}")
    draw(_images(inputs["image"]), answers, picture)
    print(f"{picture}: some of these digits, with what the model said")
    if not answers.held_out_accuracy >= LEAST_ACCURACY:  # so put, because it is NaN where nothing is held out
        raise DataError(
            f"output '{folder / 'output'}' is not good enough: accuracy on digits not trained on is "
            f"{answers.held_out_accuracy:.2f}; expected at least {LEAST_ACCURACY}"
        )


def mix_ups(answers: Answers, most: int = 3) -> list[str]:
    """The digits held out that were most often taken for another: `8 taken for 1 (3 times)`, commonest first."""
    wrong = answers.held_out & ~answers.right
    pairs = zip(answers.labels[wrong].tolist(), answers.said[wrong].tolist(), strict=True)
    # Sorted before they are counted: the counter keeps that order among equals.
    counts = Counter(sorted(pairs)).most_common(most)
    return [f"{label} taken for {said} ({'once' if n == 1 else f'{n} times'})" for (label, said), n in counts]


def draw(images: npt.NDArray[np.uint8], answers: Answers, path: Path) -> None:
    """Draw a grid of digits held out, each with what the model said. images: (n, 8, 8), in the order of `answers`."""
    # Lazy: a second to import, not needed by `prepare`, and only in the extra `demo`.
    from matplotlib import figure, patches

    # 1,800 pixels wide, for screens that show 900 of them at twice the density; type is sized for that.
    canvas = figure.Figure(figsize=(9, 7.3), dpi=200, facecolor="white")
    axes = canvas.add_axes((0.015, 0.005, 0.97, 0.91))
    for place, row in enumerate(_chosen(answers).tolist()):
        top, left = (n * cell for n, cell in zip(divmod(place, GRID_COLUMNS), CELL, strict=True))
        said, label = answers.said[row], answers.labels[row]
        text, color, weight, edge, line = f"{said}", "#444444", "normal", "#c8c8c8", 0.6
        if said != label:
            text, color, weight, edge, line = f"said {said}, is {label}", RED, "bold", RED, 2.2
        box = (left + 0.14, left + 0.86, top + 0.76, top + 0.04)  # left, right, bottom, top: a square
        axes.imshow(images[row], cmap="gray_r", vmin=0, vmax=16, extent=box, interpolation="nearest")
        axes.add_patch(patches.Rectangle(box[::3], 0.72, 0.72, fill=False, edgecolor=edge, linewidth=line))
        axes.text(left + 0.5, top + 0.91, text, ha="center", va="center", fontsize=7.5, color=color, weight=weight)
    # Only now, because each image moves the limits to itself. Upside down: row 0 is on top.
    axes.set(xlim=(0, GRID_COLUMNS * CELL[1]), ylim=(GRID_ROWS * CELL[0], 0))
    axes.axis("off")
    title, subtitle = _titles(answers)
    canvas.text(0.5, 0.966, title, ha="center", va="center", fontsize=13, color="#222222", weight="bold")
    canvas.text(0.5, 0.935, subtitle, ha="center", va="center", fontsize=9, color="#444444")
    path.parent.mkdir(parents=True, exist_ok=True)
    # Without the version of the library, so that the same answers give the same file.
    canvas.savefig(path, format="png", metadata={"Software": None})


def _titles(answers: Answers) -> tuple[str, str]:
    misread = int((answers.held_out & ~answers.right).sum())
    shown = "all" if misread <= MOST_MISREAD else f"{MOST_MISREAD} of the"
    title = f"{answers.held_out.sum()} digits the model has not seen: {answers.held_out_accuracy:.1%} read correctly"
    return title, f"{shown} {misread} misread ones in red, then some of the others" if misread else "some of them"


def _chosen(answers: Answers) -> npt.NDArray[np.intp]:
    """Rows to draw: misread digits, up to a third of the grid, then others evenly spread over the rest."""
    wrong = np.flatnonzero(answers.held_out & ~answers.right)[:MOST_MISREAD]
    right = np.flatnonzero(answers.held_out & answers.right)
    shown = min(GRID_ROWS * GRID_COLUMNS - len(wrong), len(right))
    spread = np.linspace(0, len(right) - 1, shown).round().astype(np.intp) if shown else np.arange(0)
    return np.concatenate([wrong, right[spread]])


def _read(folder: Path, pattern: str, columns: list[str], remedy: str) -> pa.Table:
    paths = sorted(folder.glob(pattern))
    if not paths:
        raise InputError(f"no '{pattern}' in '{folder}': there is nothing to report on; {remedy}")
    # File by file, because a folder is read as a data set whose names may hold columns.
    table = pa.concat_tables([pq.ParquetFile(path).read(columns=columns) for path in paths])
    absent = [name for name in columns if name not in table.column_names]
    if absent:
        raise InputError(f"no column {one_of(absent)} in '{folder}': this is not what the demo makes; {remedy}")
    return table


def _images(column: pa.ChunkedArray) -> npt.NDArray[np.uint8]:
    return np.concatenate([chunk.to_numpy_ndarray() for chunk in column.chunks])  # (n, 8, 8)


def _check_ids(wanted: npt.NDArray[np.int64], scored: npt.NDArray[np.int64], output: Path) -> None:
    ids, counts = np.unique(scored, return_counts=True)
    doubled, missing, unknown = ids[counts > 1], np.setdiff1d(wanted, ids), np.setdiff1d(ids, wanted)
    kinds = (("more than once", doubled), ("not there", missing), ("not in the input", unknown))
    problems = [f"{len(group):,} {kind}, the first is {group[0]}" for kind, group in kinds if len(group)]
    if problems:
        raise DataError(f"wrong ids in '{output}': {'; '.join(problems)}; expected each of {len(wanted):,} ids once")


@contextmanager
def _complete_or_absent(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to, moved into its place at the end: an interrupted run leaves no half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".draft-", dir=path.parent) as scratch:
        draft = Path(scratch) / path.name
        yield draft
        if path.is_dir():
            shutil.rmtree(path)
        draft.replace(path)


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Keep stderr off the terminal, that of C++ too, and show it after all if something goes wrong.

    TensorFlow writes some lines before it looks at any setting, so only the file descriptor can hold them back.
    """
    sys.stderr.flush()
    with tempfile.TemporaryFile() as kept:
        terminal = os.dup(2)
        os.dup2(kept.fileno(), 2)
        try:
            yield
        except BaseException:
            sys.stderr.flush()
            kept.seek(0)
            os.write(terminal, kept.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)


def _shown(path: Path) -> Path:
    """`path` as a user would type it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _next_commands(folder: Path) -> tuple[str, str]:
    """How to run the job and to look at what it did. Its file names the folder `demo`, any other has to be set."""
    urls = {"model": "model", "input": "input/*.parquet", "output": "output"}
    settings = [f"--set '{section}.url={folder / place}'" for section, place in urls.items()]
    elsewhere = folder != Path("demo")
    run = ["next: runner run", str(_shown(JOB_FILE)), *(settings if elsewhere else [])]
    look = ["then: python -m jobs.examples.digits report", *([f"--folder '{folder}'"] if elsewhere else [])]
    return " ".join(run), " ".join(look)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m jobs.examples.digits", description="The digits demo.")
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("prepare", help="train the model and write the input of the job")
    make.add_argument("--force", action="store_true", help="make model and input anew")
    judge = commands.add_parser("report", help="print the accuracy of the job's output and draw some of it")
    judge.add_argument("--picture", type=Path, metavar="PNG", help="where to draw (default: digits.png in the folder)")
    for command in (make, judge):
        command.add_argument(
            "--folder", type=Path, default=Path("demo"), help="of model, input and output (default: demo)"
        )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _arguments(argv)
    try:
        if arguments.command == "prepare":
            prepare(arguments.folder, arguments.force)
            print(*_next_commands(arguments.folder), sep="\n")
        else:
            report(arguments.folder, arguments.picture or arguments.folder / "digits.png")
    except RunnerError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except ModuleNotFoundError as error:
        print(
            f"error: cannot {arguments.command} the demo: no module '{error.name}'; "
            "install it with: pip install 'savedmodel-runner[demo]'",
            file=sys.stderr,
        )
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
