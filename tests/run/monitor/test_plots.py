"""Pictures are drawn, from whatever a run left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from optimscheduler.errors import ConfigError
from optimscheduler.run.monitor import plots
from optimscheduler.run.monitor.plots import plot_curves, plot_lr
from optimscheduler.run.plan.lr_curves import curve_of_text
from tests.run.command import call, write

PNG = b"\x89PNG\r\n"


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures, as they are when they are saved."""
    figures: list[Figure] = []
    save = plots._save

    def noted(figure: Figure, path: Path) -> Path:
        figures.append(figure)
        return save(figure, path)

    monkeypatch.setattr(plots, "_save", noted)
    return figures


def window(real_step: int, **changed: Any) -> dict[str, Any]:
    return {"real_step": real_step, "loss": 2.0, "lr": 0.1, "grad_norm": 1.0, "skipped": False, **changed}


def leave(folder: Path, windows: list[dict[str, Any]], validation: list[dict[str, Any]] = []) -> Path:  # noqa: B006
    """A run folder with these lines."""
    for name, lines in {"metrics.jsonl": windows, "validation.jsonl": validation}.items():
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def xy(figure: Figure, panel: int, line: int = 0) -> list[list[float]]:
    """Points of a line."""
    drawn = figure.axes[panel].lines[line]
    return [list(drawn.get_xdata()), list(drawn.get_ydata())]


def test_loss_lr_and_norm_over_windows(tmp_path: Path, drawn: list[Figure]) -> None:
    windows = [window(1, loss=3.0), window(2, loss=2.0, lr=0.2, grad_norm=10.0)]
    path = plot_curves(leave(tmp_path, windows, [{"real_step": 2, "loss": 2.5}]))
    assert path == tmp_path / "curves.png"
    assert path.read_bytes().startswith(PNG)
    (figure,) = drawn
    assert xy(figure, 0) == [[1, 2], [3.0, 2.0]]
    assert xy(figure, 0, 1) == [[2], [2.5]]
    assert xy(figure, 1) == [[1, 2], [0.1, 0.2]]
    assert xy(figure, 2) == [[1, 2], [1.0, 10.0]]
    assert figure.axes[2].get_yscale() == "log"


def test_several_optimschedulers_have_a_line_each(tmp_path: Path, drawn: list[Figure]) -> None:
    windows = [window(1, member="a"), window(1, member="b", lr=0.5), window(2, member="b", lr=0.4)]
    plot_curves(leave(tmp_path, windows))
    (figure,) = drawn
    assert (xy(figure, 1), xy(figure, 1, 1)) == ([[1], [0.1]], [[1, 2], [0.5, 0.4]])
    legend = figure.axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["a, window mean", "b, window mean"]


def test_skipped_windows_are_marked_and_what_is_not_finite_is_a_gap(
    tmp_path: Path, drawn: list[Figure]
) -> None:
    plot_curves(leave(tmp_path, [window(1), window(2, grad_norm=None, loss=None, skipped=True), window(3)]))
    (figure,) = drawn
    assert xy(figure, 0) == [[1, 3], [2.0, 2.0]]
    assert [line.get_xdata()[0] for line in figure.axes[2].lines[1:]] == [2]
    legend = figure.axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["training, window mean", "skipped"]


@pytest.mark.parametrize(
    "windows",
    [
        [window(1)],
        [window(1, loss=None, grad_norm=None), window(2, loss=None, grad_norm=None)],
        [window(1, grad_norm=0.0, lr=0.0, loss=0.0)],
        [window(s, grad_norm=10.0**s) for s in range(-5, 6)],
    ],
)
def test_odd_runs_are_drawn_without_a_warning(tmp_path: Path, windows: list[dict[str, Any]]) -> None:
    path = plot_curves(leave(tmp_path, windows))
    assert path is not None
    assert path.read_bytes().startswith(PNG)


def test_nothing_is_drawn_of_a_run_without_windows(tmp_path: Path) -> None:
    assert plot_curves(tmp_path) is None
    assert plot_curves(leave(tmp_path, [])) is None
    assert not (tmp_path / "curves.png").exists()


def test_the_plot_command_draws_the_learning_rate(tmp_path: Path, drawn: list[Figure]) -> None:
    said = call("plot", write(tmp_path), "-o", tmp_path / "new" / "lr.png")
    assert said.code == 0
    assert said.out == f"written    {tmp_path / 'new' / 'lr.png'}\n"
    assert (tmp_path / "new" / "lr.png").read_bytes().startswith(PNG)
    (figure,) = drawn
    assert xy(figure, 0)[0] == list(range(1, 10))
    assert xy(figure, 0)[1][2] == pytest.approx(0.01, rel=1e-12)
    assert [text.get_text() for text in figure.axes[0].texts] == ["0.01 at 3"]


def test_several_curves_have_a_legend_and_an_empty_one_is_no_problem(
    tmp_path: Path, drawn: list[Figure]
) -> None:
    curves: dict[str, list[tuple[int, float]]] = {"a": [(1, 1.0), (2, 3.0)], "b": [(1, 2.0)], "c": []}
    plot_lr(curves, tmp_path / "lr.svg")
    (figure,) = drawn
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b", "c"]
    assert not figure.axes[0].texts, "they would lie over one another"


def test_marks_are_in_the_legend_of_several_curves_and_in_the_picture_of_one(
    tmp_path: Path, drawn: list[Figure]
) -> None:
    one, other = [(1, 1.0), (2, 3.0), (3, 2.0)], [(1, 2.0), (3, 2.0)]
    plot_lr({"a": one, "b": other}, tmp_path / "lr.png", {"a": [(2, 3.0), (3, 2.0)], "b": [(2, 2.0)]})
    plot_lr({"a": one}, tmp_path / "lr.png", {"a": [(3, 2.0)]})
    labels = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert labels == ["a   3 at 2   2 at 3", "b   2 at 2"]
    assert not drawn[0].axes[0].texts
    assert [text.get_text() for text in drawn[1].axes[0].texts] == ["2 at 3"]


def test_plot_draws_schedules_and_configurations_over_one_another(
    tmp_path: Path, drawn: list[Figure]
) -> None:
    config, out = write(tmp_path), tmp_path / "lr.png"
    said = call("plot", config, "num_epochs=2", "Cosine(steps=4)", "--lr", "0.5", "--at", 3, "-o", out)
    assert said.code == 0, said.err
    assert said.out.splitlines() == [
        "0.01 at 3   tiny",
        "0.25 at 3   Cosine(steps=4)",  # half of 0.5, half way
        f"written    {out}",
    ]
    (figure,) = drawn
    assert xy(figure, 0)[0] == list(range(1, 7)), "two epochs of three windows"
    assert xy(figure, 0, 3)[0] == list(range(1, 6)), "until nothing changes any more"


def test_plot_draws_on_the_screen_where_no_picture_is_asked_for() -> None:
    said = call("plot", "Linear(steps=4)", "--steps", 4)
    # 1, 3/4, 1/2, 1/4 of six rows: 6, 4.5, 3, 1.5
    assert [line.rstrip() for line in said.out.splitlines()] == [
        "Linear(steps=4)",
        "  █    1",
        "  █▄",
        "  ██",
        "  ███",
        "  ███▄",
        "  ████",
        "  1  4",
    ]


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (["Cosin(steps=3)"], "schedule: there is no Schedule or FeedbackSchedule 'Cosin'"),
        (["nothing"], "'nothing' is neither a YAML file nor a schedule like"),
        (["a.yaml"], "a.yaml: cannot be read: No such file or directory"),
        (["num_epochs=3", "Cosine(steps=3)"], "'num_epochs=3': settings can be changed where there is one"),
    ],
)
def test_what_cannot_be_plotted_is_said(what: list[str], message: str) -> None:
    said = call("plot", *what)
    assert said.code == 2
    assert said.err.startswith(f"error: {message}")


SPANS = {
    "Warmup(steps=500, then=Cosine(steps=9500))": 10_000,
    "WarmupStableDecay(warmup=10, stable=80, decay=10)": 100,
    "Sequence([(Constant(), 5)], Linear(steps=4))": 10,
    "PerEpoch(inner=Linear(steps=4), steps_per_epoch=10)": 40,
    "Shift(Linear(steps=4), 2)": 3,
    "Product(Linear(steps=4), Cosine(steps=7))": 8,
    "Clamp(inner=Polynomial(steps=4, power=2), low=0.1, high=1)": 5,
    "CosineRestarts(first=4, mult=2, cycles=2)": 13,
    "Cyclic(up=2, down=4)": 19,
    "MultiStep(at=[10, 100], gamma=0.5)": 126,
    "Step(every=10, gamma=0.5)": 50,
    "Piecewise([(1, 0), (100, 1)])": 110,
    "OneCycle(steps=30)": 30,
    "Noam(warmup_steps=10)": 100,
    "CoolDown(steps=9)": 10,
    "Constant()": 1000,
    'Linear(steps="10%")': 101,
    "Warmup(steps=3, then=ReduceOnPlateau())": 5,
}


@pytest.mark.parametrize(("text", "end"), SPANS.items())
def test_a_schedule_is_drawn_as_far_as_it_changes(text: str, end: int) -> None:
    curve = curve_of_text(text, None, 2.0)
    assert (curve.points[0][0], curve.points[-1][0]) == (1, end)
    assert all(curve.value(step) == value for step, value in curve.points)
    assert curve_of_text(text, 7, 2.0).points[-1][0] == 7


@pytest.mark.parametrize(
    ("name", "says"), [("lr.txt", "is not supported"), ("file/x/lr.png", "Not a directory")]
)
def test_a_picture_that_cannot_be_written_is_told(name: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=f"{name} cannot be written: .*{says}"):
        plot_lr({"a": [(1, 1.0)]}, tmp_path / name)


def test_pictures_do_not_touch_what_others_draw(tmp_path: Path) -> None:
    mine = Figure()
    canvas = FigureCanvasAgg(mine)
    plot_lr({"a": [(1, 1.0)]}, tmp_path / "lr.pdf")
    assert mine.canvas is canvas
