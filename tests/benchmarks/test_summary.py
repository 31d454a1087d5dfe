"""Tables and pictures of benchmarks whose exports have odd names."""

import pytest

from benchmarks import summary


def benchmark_rows():
    rows = []
    for variant in ("_AN [a]", "$x_AN$"):
        for case in ("[/case]", "$\\frac$ [b]"):
            ratios = {"ratio": 1.0, "ratio_min": 0.5, "ratio_max": 2.0}
            about = {"phase": "p[50]", "unit": "ms", "reference": "_AN [a]"}
            rows.append(
                {"case": case, "variant": variant, "value": 1, **about} | ratios
            )
    return rows


@pytest.mark.parametrize("show", [summary.show, summary.show_cases])
def test_benchmarks_of_odd_names_are_shown(show, capsys):
    show(benchmark_rows())
    text = capsys.readouterr().out
    for name in ("_AN [a]", "$x_AN$", "[/case]", "$\\frac$ [b]", "p[50], ms"):
        assert name in text


def test_pictures_of_odd_names_show_them(tmp_path):
    path = tmp_path / "a.svg"
    summary.plot(benchmark_rows(), path)
    text = path.read_text()
    for name in ("_AN [a]", "$x_AN$", "[/case]", "$\\frac$ [b]"):
        assert f"<!-- {name} -->" in text
