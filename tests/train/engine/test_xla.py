"""The whole train step as one XLA program, as a TPU needs it; tested without a TPU."""

import re

import numpy as np
import pytest
import tensorflow as tf

from train import config
from train.engine import models, optimizers, run_directory
from train.engine.trainer import Trainer
from train.input import dataset, order

SIZE, BATCH = 64, 8
HOST = ("infeed", "outfeed", "send", "recv", "custom-call", "rng", "rng-bit-generator")


def train_step(name, precision):
    """Returns a compiled train step with all recipe options, its batch and model."""
    recipe = config.Recipe(
        config.Model(name),
        config.Data("noise", SIZE, (0.5,), (0.25,), mixup=0.2),
        config.Optimizer(32.0, warmup_epochs=0.0, clip_norm=1.0, average=0.9),
        batch_size=BATCH,
        label_smoothing=0.1,
        accumulation=2,
        precision=precision,
    )
    pixels = np.random.default_rng(0).integers(0, 256, (20, SIZE, SIZE, 3))
    encoded = [tf.io.encode_png(image) for image in pixels.astype(np.uint8)]
    train = order.IndexedSplit(tf.stack(encoded), np.arange(20) % 10)
    names = tuple("0123456789")
    images = dataset.ImageData((SIZE, SIZE, 3), names, {"train": train}, recipe.data)
    spec = run_directory.RunSpec(recipe, 1, images.shape, names, {"train": 20}, "")
    model = models.create_model(spec)
    schedule = optimizers.create_schedule(recipe.optimizer, BATCH, 2.5, 10)
    trainer = Trainer(
        tf.distribute.get_strategy(),
        model,
        optimizers.create_optimizer(recipe, schedule, model),
        schedule,
        tf.Variable(0, dtype=tf.int64, trainable=False),
        images,
        recipe,
        steps=10,
    )
    step = tf.function(trainer._replica_step, jit_compile=True)
    return step, next(iter(trainer.train_dataset)), model


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        pytest.param("resnet8_an", "mixed_bfloat16", marks=pytest.mark.slow),
        pytest.param("resnet50_an", "float32", marks=pytest.mark.long),
        pytest.param("mobilenetv2_an", "mixed_bfloat16", marks=pytest.mark.long),
    ],
)
def test_train_step_compiles_without_dynamic_shapes_and_host_calls(name, precision):
    step, batch, model = train_step(name, precision)
    program = step.experimental_get_compiler_ir(*batch)
    given = program(stage="hlo")
    operations = set(re.findall(r" = \S+ ([a-z-]+)\(", given))
    assert {"convolution", "dot", "reduce"} <= operations
    assert not operations & {*HOST, "call-start", "while"}
    assert not {word for word in operations if word.startswith("dynamic")}
    compiled = program(stage="optimized_hlo")
    for text in (given, compiled):
        assert not re.search(r"\[[^\]]*<=", text)  # bounded dynamic dimension
    assert "set-dimension-size" not in compiled
    before = {v.path: v.numpy() for v in model.trainable_variables}
    step(*batch)
    for variable in model.trainable_variables:
        old, new = before[variable.path], variable.numpy()
        assert np.isfinite(new).all(), variable.path
        # ResNet blocks start as identities: their shifts stay 0 for one step
        assert not np.array_equal(old, new) or not old.any(), variable.path


@pytest.mark.long
def test_jit_compiled_run_has_the_same_losses(tmp_path, data_dir, command):
    losses = {}
    for compiled in (False, True):
        workdir = tmp_path / str(compiled)
        command(
            *("-m", "train", "--recipe=digits", "--steps=8"),
            *("--set=steps_per_loop=1", "--set=precision=float64"),
            f"--set=jit_compile={compiled}",
            *(f"--workdir={workdir}", f"--data_dir={data_dir}"),
        )
        rows = (workdir / "metrics.csv").read_text().splitlines()
        losses[compiled] = [float(r.split(",")[3]) for r in rows if ",train," in r]
    assert len(losses[True]) == 8
    np.testing.assert_allclose(losses[True], losses[False], rtol=1e-6)


@pytest.mark.slow
def test_jit_compile_is_rejected_for_several_replicas(tmp_path, command):
    done = command(
        *("-m", "train", "--recipe=digits", "--set=jit_compile=True"),
        *("--strategy=mirrored", "--logical_cpus=2", f"--workdir={tmp_path / 'run'}"),
        expected=2,
    )
    assert "usage error: Recipe field jit_compile is for one replica" in done.stderr
    assert not (tmp_path / "run").exists()
