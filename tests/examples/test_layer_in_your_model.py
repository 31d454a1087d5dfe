"""The example that trains the layer in a model of your own."""

import csv
import re

import keras

from examples import layer_in_your_model as example


def test_model_trains_shows_its_attention_and_is_saved(tmp_path, capsys):
    example.main(["--epochs=1", f"--out={tmp_path}"])
    printed = capsys.readouterr().out
    accuracy = float(
        re.search(r"^test accuracy (\S+) \(297 images\)$", printed, re.M)[1]
    )
    assert accuracy > 0.3  # 0.1 is chance
    assert re.findall(r"^attention of (\S+)$", printed, re.M) == [
        "norm0",
        "norm1",
        "norm2",
    ]
    rows = re.findall(r"^  a scan of \d:((?: [01]\.\d\d)+)$", printed, re.M)
    assert len(rows) == 9 and {len(row.split()) for row in rows} == {5}
    assert float(re.search(r"largest difference (.*)", printed)[1]) == 0

    (logged,) = csv.DictReader((tmp_path / "log.csv").read_text().splitlines())
    assert {"accuracy", "val_loss", "learning_rate"} < logged.keys()
    model = keras.models.load_model(tmp_path / "digits.keras")
    assert model.output_shape == (None, 10)
