"""Registers the experiments with Model Garden: import this to use them there.

The training is that of the paper: 24 epochs (Cascade: 20), 16 images in a step, SGD
from 0.02 with two steps, weight decay 1e-4 of everything that is trained, gradients
clipped at a norm of 35. Data, losses and RoIs are Model Garden's; docs/detection.md
says where they differ from the paper's.
"""

import functools

from official.core import config_definitions as cfg
from official.core import exp_factory
from official.modeling import optimization
from official.vision.configs import common, maskrcnn

from train.detection import tasks  # noqa: F401  registers the task
from train.detection.configs import Backbone, MaskRCNN, MaskRCNNTask, Norms, Zoo
from train.detection.rows import COCO, SCENES, Row

TRAINING_IMAGES = 118_287
BATCH = 16
STEPS_PER_EPOCH = TRAINING_IMAGES // BATCH
STEPS_PER_LOOP = 500
CLASSES = 81  # 80 and the background
RATE = 0.02
# Epochs of the training, and those after which the learning rate is divided by ten.
SCHEDULES = {False: (24, (16, 22)), True: (20, (16, 19))}
HEADS = {  # of one stage, and of a cascade
    False: {},
    True: {
        "num_convs": 0,
        "num_fcs": 2,
        "class_agnostic_bbox_pred": True,
        "cascade_class_ensemble": True,
    },
}
NORMS = {
    "none": Norms(),
    "an_gn": Norms(pyramid="gn", box_head="an_gn", mask_head="gn"),
}


def create_experiment(row: Row) -> cfg.ExperimentConfig:
    """Returns the experiment of a row, on records in `coco/`."""
    epochs, drops = SCHEDULES[row.is_cascade]
    task = MaskRCNNTask(
        model=MaskRCNN(
            num_classes=CLASSES,
            input_size=[1024, 1024, 3],
            backbone=Backbone(zoo=Zoo(name=row.network)),
            norms=NORMS[row.heads],
            roi_generator=maskrcnn.ROIGenerator(num_proposals=2000),
            roi_sampler=maskrcnn.ROISampler(
                cascade_iou_thresholds=[0.6, 0.7] if row.is_cascade else None
            ),
            norm_activation=common.NormActivation(use_sync_bn=False),  # not used
            detection_head=maskrcnn.DetectionHead(**HEADS[row.is_cascade]),
        ),
        stage_weights=[1.0, 0.5, 0.25] if row.is_cascade else [1.0],
        losses=maskrcnn.Losses(l2_weight_decay=1e-4),
        train_data=maskrcnn.DataConfig(
            input_path="coco/train2017-*",
            is_training=True,
            global_batch_size=BATCH,
            dtype="float32",
            parser=maskrcnn.Parser(aug_rand_hflip=True),
        ),
        validation_data=maskrcnn.DataConfig(
            input_path="coco/val2017-*",
            is_training=False,
            global_batch_size=8,
            drop_remainder=False,
            dtype="float32",
        ),
        annotation_file="coco/instances_val2017.json",
    )
    rates = {
        "boundaries": [epoch * STEPS_PER_EPOCH for epoch in drops],
        "values": [RATE, RATE / 10, RATE / 100],
    }
    warmup = {"warmup_steps": 500, "warmup_learning_rate": RATE / 3}
    sgd = {"momentum": 0.9, "global_clipnorm": 35.0}
    trainer = cfg.TrainerConfig(
        train_steps=epochs * STEPS_PER_EPOCH,
        validation_steps=-1,
        validation_interval=STEPS_PER_EPOCH,
        steps_per_loop=STEPS_PER_LOOP,
        summary_interval=STEPS_PER_LOOP,
        checkpoint_interval=STEPS_PER_LOOP,
        optimizer_config=optimization.OptimizationConfig(
            {
                "optimizer": {"type": "sgd", "sgd": sgd},
                "learning_rate": {"type": "stepwise", "stepwise": rates},
                "warmup": {"type": "linear", "linear": warmup},
            }
        ),
    )
    runtime = cfg.RuntimeConfig(
        distribution_strategy="one_device", mixed_precision_dtype="float32"
    )
    return cfg.ExperimentConfig(
        runtime=runtime,
        task=task,
        trainer=trainer,
        restrictions=[
            "task.train_data.is_training != None",
            "task.validation_data.is_training != None",
        ],
    )


def create_scenes() -> cfg.ExperimentConfig:
    """Returns a small detector for scenes, which trains from scratch with AdamW.

    Scenes of 128 pixels are enlarged, so that their items cover more of the maps.
    """
    experiment = create_experiment(Row("resnet14_w16_an", "an_gn"))
    records = "runs/detection/records"
    filters = {"num_filters": 64}
    proposals = {"pre_nms_top_k": 200, "num_proposals": 64}
    experiment.override(
        {
            "task": {
                "annotation_file": f"{records}/instances_val2017.json",
                "model": {
                    "num_classes": 6,
                    "input_size": [192, 192, 3],
                    "backbone": {
                        "zoo": {"frozen_level": 0, "norms_in_inference": False}
                    },
                    "norms": {"num_components": [10, 10, 10, 10]},
                    "decoder": {"fpn": filters},
                    "rpn_head": filters,
                    "mask_head": filters,
                    "detection_head": {**filters, "fc_dims": 128},
                    "roi_generator": {
                        **proposals,
                        **{f"test_{name}": value for name, value in proposals.items()},
                    },
                    "roi_sampler": {"num_sampled_rois": 32},
                    "mask_sampler": {"num_sampled_masks": 8},
                    "detection_generator": {"max_num_detections": 20},
                },
                "train_data": {
                    "input_path": f"{records}/train2017-*",
                    "global_batch_size": 8,
                    "shuffle_buffer_size": 2000,
                },
                "validation_data": {"input_path": f"{records}/val2017-*"},
            },
            "trainer": {
                "train_steps": 3000,
                "validation_interval": 500,
                "steps_per_loop": 100,
                "summary_interval": 100,
                "checkpoint_interval": 100,
                "optimizer_config": {
                    "optimizer": {
                        "type": "adamw_experimental",
                        "adamw_experimental": {"weight_decay": 0.01},
                    },
                    "learning_rate": {
                        "type": "cosine",
                        "cosine": {"initial_learning_rate": 0.002, "decay_steps": 3000},
                    },
                    "warmup": {
                        "linear": {"warmup_steps": 200, "warmup_learning_rate": 1e-4}
                    },
                },
            },
        }
    )
    return experiment


exp_factory.register_config_factory(SCENES)(create_scenes)
for _name, _row in COCO.items():
    exp_factory.register_config_factory(_name)(
        functools.partial(create_experiment, _row)
    )
