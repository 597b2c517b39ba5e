"""Train a generator and a discriminator on pictures, and summarize them."""

from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader

from cpic.nn.generative import Discriminator, Generator
from cpic.options import Training
from cpic.options._pictures import AdversarialRun, AdversarialSteps, Adversaries, PictureSet
from cpic.train.loop._checkpoints import read_checkpoint
from cpic.train.loop._distributed import launched
from cpic.train.loop._resuming import load_weights
from cpic.train.loop._step_data import StepData
from cpic.train.tasks._classifier import compressed, count_numbers, load_pair
from cpic.train.tasks._folder import check_folder, check_wandb, usable
from cpic.train.tasks._images import train_on_images
from cpic.train.tasks._judge import FidelityJudge, Judge, fidelity_wanted, train_judge
from cpic.train.tasks._layers import Choice, chosen, give_layers
from cpic.train.tasks._outputs import Outputs
from cpic.train.tasks._pair import Adversarial, Pair
from cpic.train.tasks._watch import Watch, folder_of

if TYPE_CHECKING:
    from cpic.train.results._results import FoldResult


def train_adversaries(
    data: PictureSet, model: Adversaries, optimization: AdversarialSteps, run: AdversarialRun
) -> "list[FoldResult]":
    """Train one pair of networks.

    Args:
        data: Pictures and their side.
        model: Networks and their layers.
        optimization: Steps and optimizers.
        run: Where it runs, what it writes and how images are judged.

    Raises:
        ValueError: If an option is invalid.
    """
    choices = chosen(model, "g_"), chosen(model, "d_")
    _, n_processes = launched(run.num_nodes)
    if max(n_processes, run.ngpus) > 1:
        raise ValueError(
            f"cpic gan trains in one process on at most one GPU, got {n_processes} processes and "
            f"ngpus {run.ngpus}."
        )
    check_wandb(run.wandb)
    on_gpu = usable(run.ngpus) > 0
    fidelity = run.fidelity or {}
    by_inception = fidelity_wanted(run.metrics, fidelity)
    folder = folder_of(run, "gan")
    check_folder(folder, ["fold_0"], resume=run.resume)
    pair = load_pair(data, model.size)
    if model.conditional and len(pair[0].labels.unique()) < 2:
        raise ValueError(f"conditional needs labeled pictures, got {data.dataset} of one class.")
    real = pair[0 if run.reference == "train" else 1].pixels
    judge: Judge
    if by_inception:
        leading = run.leading_metric or "inception_score_mean"
        judge = FidelityJudge(real, fidelity, leading, on_gpu=on_gpu)
    else:
        leading = run.leading_metric or "distance"
        if run.metrics == "auto" and leading.startswith(("inception", "frechet", "kernel_i")):
            leading = "distance"
        judge = train_judge(
            pair, real, folder=folder / "features", seed=run.seed, resume=True, leading=leading
        )
    networks, facts = make_pair(model, choices, pair[0].shape[0], len(pair[0].classes), run.seed)
    watch = Watch(folder, run.log_every, run.spectra_every, run.top)
    outputs = Outputs(watch, run.sheets_every, run.interpolation, run.onnx, run.seed)
    task = Adversarial(
        networks,
        choices=choices,
        judge=judge,
        outputs=outputs,
        options=optimization,
        z_type=model.z_type,
        seed=run.seed,
    )
    batches = Judged(
        *pair,
        samples=run.num_samples,
        size=run.batch_size_inference,
        num_steps=optimization.num_steps,
        steps_per_epoch=run.evaluate_every,
        batch_size=optimization.batch_size * optimization.d_steps,
        seed=run.seed,
        num_workers=run.num_workers,
    )
    before = task.evaluate(batches.sizes)
    task.start = {f"{name}_start": before[name] for name in dict.fromkeys((judge.leading, "error"))}
    groups = {"data": data, "model": model, "optimization": optimization, "run": run}
    results = train_on_images(
        "gan",
        task,
        batches,
        optimization=Training(num_epochs=batches.num_epochs, clip=None, patience=None),
        run=run,
        code=True,
        config={"options": {name: group.plain() for name, group in groups.items()}},
        facts={**facts, **judge.facts, "data": pair[0].source, "samples": run.num_samples},
    )
    if run.onnx and results[0].best.exists():
        # A run that was killed after its best checkpoint was not exported.
        load_weights(networks, read_checkpoint(results[0].best), results[0].best)
        outputs.export(networks.evaluated)
    return results


class Judged(StepData):
    """Batches of a run whose validation generates images.

    Args:
        train: PictureSet to train on.
        validation: Test pictures.
        samples: Images to generate.
        size: Images generated at once.
        **options: As of `StepData`.
    """

    def __init__(self, train: Any, validation: Any, *, samples: int, size: int, **options: Any):
        super().__init__(train, validation, **options)
        self.samples, self.size = samples, size

    @property
    def sizes(self) -> list[int]:
        """Images generated at once, in each batch."""
        whole, rest = divmod(self.samples, self.size)
        return [self.size] * whole + [rest] * (rest > 0)

    def val_dataloader(self) -> DataLoader:
        """Numbers of images."""
        batches: Any = [{"n": n} for n in self.sizes]
        return DataLoader(batches, batch_size=None, generator=torch.Generator())


def make_pair(
    model: Adversaries, choices: tuple[Choice, Choice], channels: int, n_classes: int, seed: int
) -> tuple[Pair, dict[str, Any]]:
    """The networks with their layers, and facts on their compression."""
    classes = n_classes if model.conditional else None
    with torch.random.fork_rng(()):
        torch.manual_seed(seed)
        generator = Generator(
            model.size,
            in_channels=channels,
            width=model.g_width,
            n_latent=model.n_latent,
            n_classes=classes,
        )
        discriminator = Discriminator(
            model.size, in_channels=channels, width=model.d_width, n_classes=classes
        )
        before = count_numbers(generator), count_numbers(discriminator)
        give_layers(generator, choices[0])
        compensation = give_layers(discriminator, choices[1])
    facts = {
        "compression": {
            "generator": compressed(generator, before[0]),
            "discriminator": compressed(discriminator, before[1]),
        }
    }
    pair = Pair(generator, discriminator, compensation=compensation, momentum=model.ema)
    return pair, facts
