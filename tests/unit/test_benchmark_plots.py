"""The plots of the benchmark."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from benchmarks import report
from benchmarks.plots import MEMORY, THROUGHPUT, TIME, Point, alt_text, draw, drawable
from benchmarks.report import Result

POINTS = [
    Point("throughput", "snapferry", 8, 140.0, "CPU 60% busy"),
    Point("throughput", "snapferry", 1, 20.0, "CPU 9% busy"),
    Point("throughput", "linear", 1, 20.0),
    Point("throughput", "linear", 8, 160.0),
    Point("time", "snapferry, file to file", 10, 0.4),
    Point("time", "snapferry, file to file", 200_000, 9.5),
    Point("time", "snapdir, file to file", 10, 0.06),
    Point("time", "snapdir, file to file", 200_000, 8.0),
    Point("memory", "snapferry, file to S3", 100, 80.0),
]

SVG = "{http://www.w3.org/2000/svg}"


def test_a_plot_is_drawn_where_a_line_has_two_places():
    assert drawable(POINTS) == [THROUGHPUT, TIME]
    assert drawable([*POINTS, Point("memory", "snapferry, file to S3", 1000, 90.0)]) == [
        THROUGHPUT, MEMORY, TIME
    ]  # fmt: skip


def test_the_alternative_text_says_what_is_measured_in_order():
    assert alt_text(THROUGHPUT, POINTS) == (
        "Throughput against workers. worker processes → objects per second. snapferry: 1 → 20, 8 → 140."
    )


@pytest.mark.parametrize("plot", [THROUGHPUT, TIME], ids=lambda plot: plot.name)
def test_a_plot_is_a_small_svg_with_its_axes_named(tmp_path, plot):
    pytest.importorskip("matplotlib", reason="the plots need matplotlib: .ci/setup bench")
    draw(plot, POINTS, tmp_path / "one" / "plot.svg")
    draw(plot, POINTS, tmp_path / "other" / "plot.svg")

    text = (tmp_path / "one" / "plot.svg").read_text()
    root = ET.fromstring(text)
    words = {"".join(element.itertext()).strip() for element in root.iter(f"{SVG}text")}
    assert root.tag == f"{SVG}svg"
    assert {plot.title, plot.x, plot.y} <= words
    assert len(text) < 60_000
    assert text == (tmp_path / "other" / "plot.svg").read_text()


def test_the_page_shows_the_plots_with_their_words(tmp_path):
    pytest.importorskip("matplotlib", reason="the plots need matplotlib: .ci/setup bench")
    page, folder = tmp_path / "benchmarks.md", tmp_path / "benchmarks"
    page.write_text(f"{report.BEGIN}\n{report.END}\n")

    report.write_page([Result("w", "s", (1.0,), points=tuple(POINTS))], "a machine", page, folder)

    text = page.read_text()
    assert sorted(path.name for path in folder.iterdir()) == ["throughput.svg", "time.svg"]
    assert f"![{alt_text(THROUGHPUT, POINTS)}](benchmarks/throughput.svg)\n" in text
    assert f"![{alt_text(TIME, POINTS)}](benchmarks/time.svg)\n" in text
