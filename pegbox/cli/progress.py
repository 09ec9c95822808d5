"""Progress bars: bytes on their way, stages of a pull, rows asked, a job that trains.

Bars are drawn only where somebody looks at them.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Self

from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from pegbox.cli import screen
from pegbox.cli.metrics import Point

_LINE_SECONDS = 15.0


def _bar(*columns: ProgressColumn, on_results: bool = False) -> Progress:
    """A bar on the error stream, or on standard output where lines are printed above it."""
    console = screen.out if on_results else screen.err
    label = TextColumn("{task.description}", markup=False)
    return Progress(SpinnerColumn(), label, BarColumn(), *columns, console=console, disable=not console.is_terminal)


@contextmanager
def reading(path: Path) -> Iterator[BinaryIO]:
    """A local file, opened; the bar moves as it is read."""
    with (
        _bar(DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()) as bar,
        path.open("rb") as file,
        bar.wrap_file(file, total=path.stat().st_size, description=screen.one_line(path.name)) as watched,
    ):
        yield watched


@contextmanager
def bytes_of(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Call with the number of bytes that came."""
    with _bar(DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()) as bar:
        task = bar.add_task(screen.one_line(what), total=total)
        yield lambda n: bar.advance(task, n)


@contextmanager
def through_files() -> Iterator[Callable[[str, int, int], None]]:
    """Call with a file's name, how many of its bytes are done, and how many there are. No bar for a short while."""
    with _bar(DownloadColumn(), TimeRemainingColumn()) as bar:
        tasks: dict[str, TaskID] = {}

        def tell(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(screen.one_line(name), total=total)
            bar.update(tasks[name], completed=done)

        yield tell


@contextmanager
def counting(what: str, total: int) -> Iterator[Callable[[], None]]:
    """Call after each of `total` things."""
    with _bar(TextColumn("{task.completed}/{task.total}"), TimeRemainingColumn()) as bar:
        task = bar.add_task(screen.one_line(what), total=total)
        yield lambda: bar.advance(task)


@contextmanager
def stages(name: str) -> Iterator[Callable[[str, float], None]]:
    """Call with what is being done and the share of all that is done, as `pegbox.catalog.pull` does."""
    with _bar(TimeElapsedColumn()) as bar:
        task = bar.add_task(screen.one_line(name), total=1.0)

        def tell(what: str, share: float) -> None:
            bar.update(task, description=f"{screen.one_line(name)}: {what}", completed=share)
            if bar.disable:
                screen.note(f"{name}: {what}")
            elif what == "downloading":
                bar.stop()  # pip and the hub draw bars of their own
                screen.note(f"{name}: downloading")
            else:
                bar.start()

        yield tell


class TrainingBar:
    """Step, loss, token accuracy and time left of one job, below the lines that it prints."""

    def __init__(self) -> None:
        self._told = time.monotonic()
        figures = TextColumn("{task.fields[figures]}", markup=False)
        left = TextColumn("{task.fields[left]}", markup=False, style="cyan")
        self._bar = _bar(figures, left, on_results=True)
        self._task: TaskID = self._bar.add_task("waiting", total=None, figures="", left="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def line(self, text: str) -> None:
        self._bar.console.print(screen.clean(text), soft_wrap=True)

    def status(self, status: str, estimated_finish: int | None) -> None:
        left = "" if estimated_finish is None else f"{_clock(estimated_finish - time.time())} left"
        self._bar.update(self._task, description=screen.one_line(status).replace("_", " "), left=left)

    def at(self, point: Point) -> None:
        """Move on to a step. In a log, which shows no bar, a line now and then says how it goes."""
        self._bar.update(self._task, completed=point.step, total=point.total_steps, figures=figures(point))
        if self._bar.disable and time.monotonic() - self._told > _LINE_SECONDS:
            self._told = time.monotonic()
            self.line(f"    {figures(point)}")


def figures(point: Point) -> str:
    """`step 12/90  loss 0.231  accuracy 93 %`, as far as they are known; of a dpo job, reward accuracy."""
    shown = [f"step {point.step}/{point.total_steps}" if point.total_steps else f"step {point.step}"]
    if point.train_loss is not None:
        shown.append(f"loss {point.train_loss:.3f}")
    if point.train_reward_accuracy is not None:
        shown.append(f"reward accuracy {point.train_reward_accuracy:.0%}")
    elif point.train_mean_token_accuracy is not None:
        shown.append(f"accuracy {point.train_mean_token_accuracy:.0%}")
    return "  ".join(shown)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
