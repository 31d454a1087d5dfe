"""Experiments: schedules, losses and norms of the paper, by name in Model Garden."""

import pytest
from official.core import exp_factory

from model_zoo import published
from train.detection import (
    __main__ as command,
)
from train.detection import (
    experiments,
    rows,
)

EVERY = pytest.mark.parametrize("name", rows.EXPERIMENTS)


@EVERY
def test_experiments_are_registered_and_valid(name):
    experiment = exp_factory.get_exp_config(name)
    experiment.validate()
    row, task = rows.EXPERIMENTS[name], experiment.task
    assert task.model.backbone.get().name == row.network
    assert task.model.norms.box_head == row.heads
    assert task.model.norms.pyramid == ("gn" if row.heads == "an_gn" else "none")
    assert task.losses.l2_weight_decay == 1e-4
    trainer = experiment.trainer
    assert trainer.summary_interval % trainer.steps_per_loop == 0


@pytest.mark.parametrize("name", rows.COCO)
def test_schedules_are_those_of_the_paper(name):
    experiment, row = exp_factory.get_exp_config(name), rows.COCO[name]
    epoch = 118_287 // 16
    epochs, drops = (20, (16, 19)) if row.is_cascade else (24, (16, 22))
    trainer = experiment.trainer
    assert trainer.train_steps == epochs * epoch
    sgd = trainer.optimizer_config.optimizer.get()
    assert (sgd.momentum, sgd.nesterov, sgd.global_clipnorm) == (0.9, False, 35)
    rates = trainer.optimizer_config.learning_rate.get()
    assert rates.boundaries == [drop * epoch for drop in drops]
    assert rates.values == pytest.approx([0.02, 0.002, 0.0002])
    warmup = trainer.optimizer_config.warmup.get()
    assert warmup.warmup_steps == 500
    assert warmup.warmup_learning_rate == pytest.approx(0.02 / 3)
    assert experiment.task.train_data.global_batch_size == 16
    assert experiment.task.train_data.parser.aug_rand_hflip
    zoo = experiment.task.model.backbone.zoo
    assert (zoo.frozen_level, zoo.norms_in_inference) == (2, True)


@pytest.mark.parametrize("name", rows.COCO)
def test_cascades_have_three_weighted_stages(name):
    experiment, row = exp_factory.get_exp_config(name), rows.COCO[name]
    model, task = experiment.task.model, experiment.task
    head = model.detection_head
    if row.is_cascade:
        assert model.roi_sampler.cascade_iou_thresholds == [0.6, 0.7]
        assert task.stage_weights == [1, 0.5, 0.25]
        assert (head.num_convs, head.num_fcs) == (0, 2)
        assert head.class_agnostic_bbox_pred
    else:
        assert model.roi_sampler.cascade_iou_thresholds is None
        assert task.stage_weights == [1]
        assert (head.num_convs, head.num_fcs) == (4, 1)


def test_published_results_are_those_of_the_zoo():
    expected = {}
    for network, values in published.COCO.items():
        expected[network, "none"] = values[:2]
        if len(values) > 2:
            expected[network, "an_gn"] = values[2:]
    received = {
        (row.network, row.heads): (row.box_ap, row.mask_ap)
        for row in rows.TABLE
        if row.box_ap and not row.is_cascade
    }
    assert received == expected


def test_experiments_do_not_share_settings():
    name = rows.TABLE[0].name
    exp_factory.get_exp_config(name).override(
        {"task": {"model": {"norms": {"pyramid": "gn"}}}}
    )
    assert exp_factory.get_exp_config(name).task.model.norms.pyramid == "none"


def test_all_experiments_are_listed(call):
    printed = call(command, "--experiments").stdout
    assert all(f" {name} " in printed for name in rows.EXPERIMENTS)


def test_scenes_train_from_scratch():
    zoo = experiments.create_scenes().task.model.backbone.zoo
    assert (zoo.frozen_level, zoo.norms_in_inference) == (0, False)
