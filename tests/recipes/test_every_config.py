"""Every config is built, what it changes arrives, and its model learns and detects."""

from pathlib import Path

import numpy as np
import pytest
import torch

CONFIGS = sorted(p.name for p in (Path(__file__).parents[2] / "configs").glob("*.py"))
# Configs whose model is the main one's and whose prepared slabs differ.
PREP_VARIANTS = {
    "lung_deform_detr_clahe_after.py",
    "lung_deform_detr_clahe_off.py",
    "lung_deform_detr_mask_off.py",
    "lung_deform_detr_mip0.py",
    "lung_deform_detr_mip10.py",
    "lung_deform_detr_mip15.py",
    "lung_deform_detr_mip5.py",
}
# Configs whose model and slabs are the main one's; other tests look at what they do change.
SAME_MODEL = {
    "lung_deform_detr_coco.py",
    "lung_deform_detr_ema.py",
    "lung_deform_detr_fp32.py",
    "lung_deform_detr_mlflow.py",
    "lung_deform_detr_wandb.py",
    *(f"lung_deform_detr_rate{rate}.py" for rate in ("03", "05", "12", "25", "50")),
}


def a_dataset(config, part):
    from mmdet.registry import DATASETS

    return DATASETS.build(config[f"{part}_dataloader"].dataset)


def a_batch(config, part, indices):
    from mmengine.dataset import pseudo_collate

    dataset = a_dataset(config, part)
    return pseudo_collate([dataset[i] for i in indices]), dataset


def windows_of_a_slab(config):
    """Make windows as large as the slabs: untrained queries could all look beyond smaller ones."""
    steps = config.train_dataloader.dataset.pipeline
    (window,) = (step for step in steps if step.type == "RandomSlabWindow")
    enlarged = config.model.window_px // window.size_px
    window.size_px = 64
    config.model.update(window_px=64 * enlarged, overlap_px=32)


@pytest.mark.parametrize("name", [n for n in CONFIGS if n not in PREP_VARIANTS | SAME_MODEL])
def test_it_trains_a_step_and_detects(read_tiny, name):
    from mmdet.registry import MODELS
    from mmengine.evaluator import Evaluator
    from mmengine.optim import build_optim_wrapper

    from lungdet_mmdet.engine.run_setup import fall_back_from_amp

    config = read_tiny(name)
    if "window_px" in config.model:
        windows_of_a_slab(config)
    fall_back_from_amp(config)
    config.optim_wrapper.accumulative_counts = 1
    torch.manual_seed(0)
    model = MODELS.build(config.model)
    model.init_weights()
    model.train()
    wrapper = build_optim_wrapper(model, config.optim_wrapper)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    batch, _ = a_batch(config, "train", [0, 1])
    losses = model.train_step(batch, optim_wrapper=wrapper)
    assert losses["loss"].isfinite()
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    last_stage = config.model.backbone.get("num_stages", 4)
    assert any(n.startswith(f"backbone.layer{last_stage}") for n in changed)
    assert any("bbox_head" in n for n in changed)

    model.eval()
    batch, dataset = a_batch(config, "val", [0, 1])
    with torch.no_grad():
        results = model.test_step(batch)
    assert max(len(r.pred_instances) for r in results) > 0
    for result in results:
        assert result.pred_instances.scores.isfinite().all()
        assert (result.pred_instances.bboxes <= 64.01).all()  # slab pixels, after any resizing
    evaluator = Evaluator(config.val_evaluator)
    evaluator.dataset_meta = dataset.metainfo
    evaluator.process(results, batch)
    assert evaluator.evaluate(len(results))["lung/n_slabs"] == 2


@pytest.mark.parametrize("name", sorted(SAME_MODEL | PREP_VARIANTS))
def test_it_leaves_the_model_alone(read_tiny, name):
    config, main = read_tiny(name), read_tiny("lung_deform_detr.py")
    assert config.model.to_dict() == main.model.to_dict()
    assert (config.prep_pipeline == main.prep_pipeline) == (name in SAME_MODEL)


def types(config):
    return [step["type"] for step in config.prep_pipeline]


@pytest.mark.parametrize(("name", "thickness"), [("0", 0), ("5", 5), ("10", 10), ("15", 15)])
def test_slab_ablations_change_the_thickness_alone(read_tiny, name, thickness):
    config, main = read_tiny(f"lung_deform_detr_mip{name}.py"), read_tiny("lung_deform_detr.py")
    assert config.prep_pipeline[-1] == {"type": "MIPSlabs", "thickness_mm": thickness}
    assert config.prep_pipeline[:-1] == main.prep_pipeline[:-1]


def test_clahe_and_mask_ablations(read_tiny):
    main = types(read_tiny("lung_deform_detr.py"))
    assert main[-2:] == ["CLAHE", "MIPSlabs"]
    assert types(read_tiny("lung_deform_detr_clahe_after.py")) == [*main[:-2], "MIPSlabs", "CLAHE"]
    assert types(read_tiny("lung_deform_detr_clahe_off.py")) == [*main[:-2], "MIPSlabs"]
    no_mask = read_tiny("lung_deform_detr_mask_off.py")
    assert types(no_mask) == main
    assert next(s for s in no_mask.prep_pipeline if s.type == "WindowHU").apply_mask is False


@pytest.mark.parametrize("name", ["mip_channels", "neighbours"])
def test_three_pictures_are_not_normalised_as_colours(read_tiny, name):
    preprocessor = read_tiny(f"lung_deform_detr_{name}.py").model.data_preprocessor
    assert len(set(preprocessor.mean)) == len(set(preprocessor.std)) == 1
    assert not preprocessor.bgr_to_rgb


@pytest.mark.parametrize(
    ("name", "channels"), [("mip_channels", 3), ("neighbours", 3), ("mip15", 1)]
)
def test_the_slab_steps_run(read_tiny, name, channels):
    from lungdet_mmdet.ct.geometry import ScanGeometry
    from lungdet_mmdet.preparation.prep_pipeline import build_prep_pipeline, prep_steps

    steps = prep_steps(read_tiny(f"lung_deform_detr_{name}.py"), source=name)
    first = [s["type"] for s in steps].index("MIPSlabs")
    volume = np.random.default_rng(0).integers(0, 255, (24, 8, 8), dtype=np.uint8)
    results = build_prep_pipeline(steps[first:])(
        {"volume": volume, "geometry": ScanGeometry((24, 8, 8), (1.25, 1.0, 1.0), (0, 0, 0))}
    )
    slabs = results["slabs"]
    # 24 slices of 1.25 mm: four slabs of 7.5 mm, or two of 15 mm.
    assert slabs.shape == ((4, 8, 8, 3) if channels == 3 else (2, 8, 8))
    assert len(results["slab_geometries"]) == len(slabs)


@pytest.mark.parametrize(
    ("name", "rate"), [("03", 0.03), ("05", 0.05), ("12", 0.127), ("25", 0.25), ("50", 0.5)]
)
def test_positive_rates_reach_the_training_set_alone(read_tiny, name, rate):
    config = read_tiny(f"lung_deform_detr_rate{name}.py")
    assert config.train_dataloader.dataset.positive_rate == rate
    assert "positive_rate" not in config.val_dataloader.dataset
    assert "positive_rate" not in config.test_dataloader.dataset


def test_a_positive_rate_draws_the_slabs(read_tiny):
    # Seven training series of one positive and two healthy slabs: 7 and 14.
    half = a_dataset(read_tiny("lung_deform_detr_rate50.py"), "train")
    assert len(half) == 14
    quarter = a_dataset(read_tiny("lung_deform_detr_rate25.py"), "train")
    assert len(quarter) == 19  # 14 healthy and round(14 / 3) = 5 positive ones


@pytest.mark.parametrize(("name", "size"), [("050", 32), ("150", 96), ("200", 128)])
def test_image_sizes_arrive_in_all_pipelines(read_tiny, name, size):
    config = read_tiny(f"lung_deform_detr_size{name}.py")
    for part in ("train", "val", "test"):
        batch, _ = a_batch(config, part, [1])
        assert batch["inputs"][0].shape == (3, size, size)
        sample = batch["data_samples"][0]
        if part == "train":
            assert sample.gt_instances.bboxes.tensor.max() <= size


def test_grey_slabs_come_as_three_equal_channels(read_tiny):
    batch, _ = a_batch(read_tiny("lung_deform_detr.py"), "train", [0])
    image = batch["inputs"][0]
    assert torch.equal(image[0], image[1])
    assert torch.equal(image[0], image[2])


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_logging_backends_are_mmengines_own(read_tiny, name):
    from mmengine.registry import VISBACKENDS

    config = read_tiny(f"lung_deform_detr_{name}.py")
    first, second = config.visualizer.vis_backends
    assert first.type == "LocalVisBackend"
    assert VISBACKENDS.get(second.type) is not None


def test_the_ema_config_keeps_the_other_hooks(read_tiny):
    hooks = [h.type for h in read_tiny("lung_deform_detr_ema.py").custom_hooks]
    main = [h.type for h in read_tiny("lung_deform_detr.py").custom_hooks]
    assert hooks == [*main, "EMAHook"]


def test_the_fp32_config_is_the_recipe_without_amp(read_tiny):
    from lungdet_mmdet.engine.run_setup import fall_back_from_amp

    main = read_tiny("lung_deform_detr.py")
    wrapper = main.optim_wrapper
    wrapper.type = "AmpOptimWrapper"
    if not torch.cuda.is_available():
        fall_back_from_amp(main)
        assert read_tiny("lung_deform_detr_fp32.py").optim_wrapper == main.optim_wrapper


def test_the_table_in_the_readme_names_every_config(repository):
    text = (repository / "configs" / "README.md").read_text(encoding="utf-8")
    names = [*CONFIGS, *(f"phantom/{p.name}" for p in repository.glob("configs/phantom/*.py"))]
    missing = [name for name in names if f"`{name}`" not in text]
    assert not missing


@pytest.mark.parametrize("name", [*CONFIGS, "phantom/main.py"])
def test_the_learning_rate_is_that_of_the_configs_own_batch(repository, name):
    from mmengine.config import Config

    config = Config.fromfile(repository / "configs" / name)
    assert config.auto_scale_lr.base_batch_size == config.train_dataloader.batch_size
