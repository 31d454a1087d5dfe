"""Checkpoints: their contents, and when they are restored."""

import dataclasses
import os
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

import an_keras
from tests.train.engine.test_run_directory import SPEC
from train import config
from train.cli import RunError
from train.engine import checkpoint, checkpoint_files, optimizers, run_directory

KERNEL = "variables/model.Sconv.Skernel/.ATTRIBUTES/VARIABLE_VALUE"
BEST = "variables/state.Sbest_digest/.ATTRIBUTES/VARIABLE_VALUE"


def build(norm=an_keras.AttentiveNormalization, step=0):
    """Builds a small network, its optimizer and the state of a run."""
    image = keras.Input((8, 8, 1))
    x = norm(name="norm")(keras.layers.Conv2D(8, 3, name="conv")(image))
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(image, keras.layers.Dense(2, name="classifier")(x))
    optimizer = optimizers.PublishedSGD(0.1)
    optimizer.build(model.trainable_variables)
    state = checkpoint.new_state(SPEC.digest())
    state["step"].assign(step)
    return model, optimizer, state


def test_checkpoint_restores_every_variable(tmp_path):
    model, optimizer, state = build(step=7)
    rng = np.random.default_rng(0)
    variables = [*model.variables, *optimizer.variables]
    for variable in variables:
        if "float" in variable.dtype:
            variable.assign(rng.normal(size=variable.shape))
    checkpoint.Checkpoints(tmp_path, model, optimizer, state).save()
    again_model, again_optimizer, again_state = build()
    again = checkpoint.Checkpoints(tmp_path, again_model, again_optimizer, again_state)
    assert again.restore_last()
    assert int(again_state["step"]) == 7
    restored = [*again_model.variables, *again_optimizer.variables]
    for one, other in zip(variables, restored, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


def test_options_that_json_changes_still_match_the_run(tmp_path):
    options = {"num_components": (4, 4, 8), "norm_options": {1: 2}}
    model = config.Model("resnet20_an", options)
    recipe = dataclasses.replace(SPEC.recipe, model=model)
    spec = dataclasses.replace(SPEC, recipe=recipe)
    run_directory.claim(tmp_path, spec)
    run_directory.claim(tmp_path, spec)


@pytest.mark.parametrize("size", [0, 100])
@pytest.mark.parametrize("part", ["index", "data-00000-of-00001"])
def test_damaged_checkpoint_falls_back_to_the_previous_one(
    tmp_path, caplog, part, size
):
    model, optimizer, state = build()
    saved = checkpoint.Checkpoints(tmp_path, model, optimizer, state)
    for step in (3, 6, 9):
        state["step"].assign(step)
        model.trainable_variables[0].assign_add(
            np.ones(model.trainable_variables[0].shape)
        )
        saved.save()
    (tmp_path / "checkpoints" / "checkpoint").write_text("damaged too")
    for step, expected in ((9, 6), (6, 3)):
        damaged = tmp_path / "checkpoints" / f"ckpt-{step}.{part}"
        damaged.write_bytes(damaged.read_bytes()[:size])
        *others, again = build()
        assert checkpoint.Checkpoints(tmp_path, *others, again).restore_last()
        assert int(again["step"]) == expected
        assert f"ckpt-{step} is a damaged checkpoint" in caplog.text
    damaged = tmp_path / "checkpoints" / f"ckpt-3.{part}"
    damaged.write_bytes(damaged.read_bytes()[:size])
    with pytest.raises(RunError, match="no readable checkpoint.*ckpt-9, ckpt-6"):
        checkpoint.Checkpoints(tmp_path, *build()).restore_last()


def test_digest_changes_with_every_variable(tmp_path):
    run_directory.claim(tmp_path, SPEC)
    with pytest.raises(RunError, match="holds no checkpoint"):
        checkpoint.digest(tmp_path)
    model, optimizer, state = build(step=4)
    saved = checkpoint.Checkpoints(tmp_path, model, optimizer, state)
    saved.save()
    digests = {checkpoint.digest(tmp_path)}
    saved.save()
    assert {checkpoint.digest(tmp_path)} == digests
    for variable in (model.variables[-1], optimizer.variables[-1]):
        variable.assign(variable + 1e-6)
        saved.save()
        digests.add(checkpoint.digest(tmp_path))
    assert len(digests) == 3
    assert {step for step, _ in digests} == {4}


def test_run_with_lost_checkpoints_does_not_start_afresh(tmp_path):
    checkpoint.Checkpoints(tmp_path, *build(step=3)).save(best=True)
    with pytest.raises(RunError, match="holds no checkpoint, but the run has been"):
        checkpoint.Checkpoints(tmp_path, *build()).restore_last()


def test_new_run_without_a_checkpoint_is_accepted(tmp_path):
    assert not checkpoint.Checkpoints(tmp_path, *build()).restore_last()


def test_checkpoint_of_another_model_is_refused_and_changes_nothing(tmp_path):
    checkpoint.Checkpoints(tmp_path, *build(an_keras.BatchNormalization)).save()
    model, optimizer, state = build()
    before = model.get_weights()
    with pytest.raises(RunError, match="is a checkpoint of another model. Expected"):
        checkpoint.Checkpoints(tmp_path, model, optimizer, state).restore_last()
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_dropout_seeds_are_restored_into_another_model_of_the_process(tmp_path):
    def with_dropout():
        model = keras.Sequential(
            [keras.Input((3,)), *(keras.layers.Dropout(0.5) for _ in range(2))]
        )
        return model, optimizers.PublishedSGD(0.1), checkpoint.new_state()

    model, optimizer, state = with_dropout()
    for i, seed in enumerate(model.variables):
        seed.assign([i, 7])
    checkpoint.Checkpoints(tmp_path, model, optimizer, state).save()
    other, *rest = with_dropout()
    assert checkpoint.Checkpoints(tmp_path, other, *rest).restore_last()
    assert [v.numpy().tolist() for v in other.variables] == [[0, 7], [1, 7]]


def test_best_checkpoint_is_separate_and_keeps_its_step(tmp_path):
    run_directory.claim(tmp_path, SPEC)
    model, optimizer, state = build(step=5)
    saved = checkpoint.Checkpoints(tmp_path, model, optimizer, state)
    with pytest.raises(RunError, match="holds no checkpoint"):
        checkpoint.best_checkpoint(tmp_path)
    saved.save(best=True)
    path, step = checkpoint.best_checkpoint(tmp_path)
    assert step == 5
    other, *_ = build()
    checkpoint.restore_model(path, other)
    for one, two in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


def test_checkpoint_that_lost_a_file_is_damaged_and_an_unfinished_one_is_ignored(
    tmp_path, caplog
):
    model, optimizer, state = build()
    saved = checkpoint.Checkpoints(tmp_path, model, optimizer, state)
    for step in (1, 2):
        state["step"].assign(step)
        saved.save()
    directory = tmp_path / "checkpoints"
    cut = directory / "ckpt-3.data-00000-of-00001"  # killed before its index
    cut.write_bytes(next(directory.glob("ckpt-2.data*")).read_bytes())
    assert checkpoint.Checkpoints(tmp_path, model, optimizer, state).restore_last()
    assert int(state["step"].numpy()) == 2 and not caplog.text
    (directory / "ckpt-2.index").unlink()
    assert checkpoint.Checkpoints(tmp_path, model, optimizer, state).restore_last()
    assert int(state["step"].numpy()) == 1
    assert "ckpt-2 is a damaged checkpoint" in caplog.text
    (directory / "ckpt-1.index").unlink()
    assert checkpoint.has_checkpoint(tmp_path)
    with pytest.raises(RunError, match="holds no readable checkpoint"):
        checkpoint.Checkpoints(tmp_path, model, optimizer, state).restore_last()


def test_corrupt_tensorflow_list_is_ignored(tmp_path, caplog):
    model, optimizer, state = build(step=4)
    checkpoint.Checkpoints(tmp_path, model, optimizer, state).save()
    (tmp_path / "checkpoints" / "checkpoint").write_bytes(b"\xff\xfe\x00noise")
    saved = checkpoint.Checkpoints(tmp_path, model, optimizer, state)
    assert "is damaged and ignored" in caplog.text
    assert saved.restore_last()


@pytest.fixture
def evaluated(tmp_path):
    """A run of 9 steps with averages that was best at step 6, and its checkpoints."""
    run_directory.claim(tmp_path, SPEC)
    model, _, state = build()
    optimizer = optimizers.PublishedSGD(0.1, average=0.9)
    optimizer.build(model.trainable_variables)
    saved = checkpoint.Checkpoints(tmp_path, model, optimizer, state)
    for step in (3, 6, 9):
        state["step"].assign(step)
        state["evaluated"].assign(step)
        model.trainable_variables[0].assign_add(
            np.full(model.trainable_variables[0].shape, step / 10)
        )
        for average in optimizer.averages:
            average.assign_add(np.full(average.shape, step / 100))
        if step == 6:
            state["best_top1"].assign(0.5)
            with averaged(model, optimizer):
                saved.save(best=True)
        saved.save()
    return tmp_path, model, optimizer, state, saved


def averaged(model, optimizer):
    return optimizers.averaged(optimizer, model.trainable_variables)


def flip_a_bit(path):
    reader = tf.train.load_checkpoint(str(path.parent))
    kernel = reader.get_tensor(KERNEL).tobytes()
    content = bytearray(path.read_bytes())
    content[content.index(kernel)] ^= 1
    path.write_bytes(content)


def test_best_checkpoint_with_a_flipped_bit_is_recreated(evaluated, caplog):
    run, model, optimizer, state, saved = evaluated
    before = saved.digest()
    best = tf.train.load_checkpoint(str(run / "best")).get_tensor(BEST)
    saved.require_best(averaged(model, optimizer))
    assert not caplog.text
    (data,) = (run / "best").glob("*.data*")
    flip_a_bit(data)
    with pytest.raises(RunError, match="damaged checkpoint"):
        checkpoint.best_checkpoint(run)
    saved.require_best(averaged(model, optimizer))
    assert "Recreated from" in caplog.text and "ckpt-6" in caplog.text
    assert checkpoint.best_checkpoint(run)[1] == 6
    assert tf.train.load_checkpoint(str(run / "best")).get_tensor(BEST) == best
    assert saved.digest() == before and float(state["best_top1"].numpy()) == 0.5


def test_best_checkpoint_without_a_copy_is_replaced_by_the_next_evaluation(
    evaluated, caplog
):
    run, model, optimizer, state, saved = evaluated
    for path in (*run.glob("best/ckpt*"), *run.glob("checkpoints/ckpt-6*")):
        path.unlink()
    saved.require_best(averaged(model, optimizer))
    assert "The next evaluation will replace it" in caplog.text
    assert float(state["best_top1"].numpy()) == -1
    assert int(state["evaluated"].numpy()) == 8


def test_lost_best_weights_of_a_reported_run_are_an_error(evaluated):
    run, model, optimizer, _, saved = evaluated
    (run / "results.json").write_text("{}")
    for path in (*run.glob("best/ckpt*"), *run.glob("checkpoints/ckpt-6*")):
        path.unlink()
    with pytest.raises(RunError, match="those of step 6.*Delete results.json and exp"):
        saved.require_best(averaged(model, optimizer))


def test_best_checkpoint_of_another_run_is_refused(evaluated, tmp_path_factory):
    run, *_ = evaluated
    other = tmp_path_factory.mktemp("other")
    recipe = dataclasses.replace(SPEC.recipe, seed=1)
    run_directory.claim(other, dataclasses.replace(SPEC, recipe=recipe))
    shutil.copytree(run / "best", other / "best")
    with pytest.raises(RunError, match="is a checkpoint of another run"):
        checkpoint.best_checkpoint(other)
    shutil.copytree(run / "checkpoints", other / "checkpoints")
    model, optimizer, _ = build()
    state = checkpoint.new_state(run_directory.read_spec(other).identity)
    with pytest.raises(RunError, match="another"):
        checkpoint.Checkpoints(other, model, optimizer, state).restore_last()


def test_older_best_checkpoint_of_the_same_run_is_refused(evaluated, tmp_path_factory):
    run, model, optimizer, _, saved = evaluated
    older = tmp_path_factory.mktemp("older") / "best"
    shutil.copytree(run / "best", older)
    with averaged(model, optimizer):
        saved.save(best=True)
    saved.save()
    assert checkpoint.best_checkpoint(run)[1] == 9
    shutil.rmtree(run / "best")
    shutil.copytree(older, run / "best")
    with pytest.raises(RunError, match="not hold the best weights.* step 9"):
        checkpoint.best_checkpoint(run)


def test_newer_best_checkpoint_of_a_run_killed_between_two_saves_is_accepted(evaluated):
    run, model, optimizer, state, saved = evaluated
    state["step"].assign(12)
    with averaged(model, optimizer):
        saved.save(best=True)
    assert checkpoint.best_checkpoint(run)[1] == 12


@pytest.mark.parametrize("name", ["ckpt-3 (copy)", "ckpt-3-backup", "copy", "ckpt-x"])
def test_copies_of_a_checkpoint_are_ignored(tmp_path, name):
    model, optimizer, state = build(step=3)
    checkpoint.Checkpoints(tmp_path, model, optimizer, state).save()
    directory = tmp_path / "checkpoints"
    for file in directory.glob("ckpt-3.*"):
        shutil.copy(file, directory / f"{name}{file.suffix}")
    (directory / "checkpoint").write_text(f'model_checkpoint_path: "{name}"')
    assert checkpoint_files.saved(directory) == [str(directory / "ckpt-3")]


@pytest.mark.parametrize("suffix", [".index", ".data-00000-of-00001"])
def test_pipe_instead_of_a_checkpoint_is_not_read(tmp_path, suffix):
    os.mkfifo(tmp_path / f"ckpt-3{suffix}")
    with pytest.raises(RunError, match="regular file. Received: a pipe or a device"):
        checkpoint_files.saved(tmp_path)
