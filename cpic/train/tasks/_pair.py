"""One task for two networks: steps of a generator and a discriminator, images to judge."""

import time
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from cpic.nn import spectral
from cpic.nn.generative import (
    Discriminator,
    Generator,
    from_pixels,
    hinge_discriminator,
    hinge_generator,
    to_pixels,
)
from cpic.options._pictures import AdversarialSteps
from cpic.train.loop._checkpointing import Checkpointing
from cpic.train.loop._faults import Snapshot, check_finite
from cpic.train.loop._fold_data import Batch
from cpic.train.loop._splits import Table
from cpic.train.loop._task import SCHEDULES, Task
from cpic.train.tasks._judge import Judge
from cpic.train.tasks._layers import Choice, Compensated, penalty
from cpic.train.tasks._outputs import Outputs

_BETAS = (0.0, 0.9)


class Pair(nn.Module):
    """A generator, a discriminator, and what else of them changes in training.

    Args:
        generator: With its layers.
        discriminator: With its layers.
        compensation: Compensates the weights of the discriminator; None for nothing.
        momentum: Of a moving average of the generator; None for none.
    """

    def __init__(
        self,
        generator: Generator,
        discriminator: Discriminator,
        *,
        compensation: Compensated | None = None,
        momentum: float | None = None,
    ):
        super().__init__()
        self.generator, self.discriminator = generator, discriminator
        self.compensation = compensation
        self.average: AveragedModel | None = None
        if momentum is not None:
            average = get_ema_multi_avg_fn(momentum)
            self.average = AveragedModel(generator, multi_avg_fn=average, use_buffers=True)

    @property
    def evaluated(self) -> Generator:
        """The generator that is evaluated: the average, if there is one."""
        found: Any = self.generator if self.average is None else self.average.module
        return found


class Adversarial(Task):
    """Steps of one generator update, then several discriminator updates, each with fresh noise.

    Weights of spectral layers are functions of their parameters, so an update is seen by all that
    follows it. An update whose loss or gradient is not finite is skipped and counted.

    Args:
        model: The networks.
        choices: Their layers: generator, discriminator.
        judge: Compares generated with real images.
        outputs: Writes losses, spectra, sheets and the best generator.
        options: Steps and optimizers.
        z_type: Distribution of the latent vectors.
        num_samples: Images generated for an evaluation.
        seed: Seed of all noise.
    """

    def __init__(
        self,
        model: Pair,
        *,
        choices: tuple[Choice, Choice],
        judge: Judge,
        outputs: Outputs,
        options: AdversarialSteps,
        z_type: str,
        seed: int,
    ):
        super().__init__(model, lr=options.g_lr, by_step=True)
        self.pair, self.choices, self.judge, self.outputs = model, choices, judge, outputs
        self.options, self.z_type, self.seed = options, z_type, seed
        self.schedule = SCHEDULES[options.schedule]
        self.monitor, self.higher = judge.leading, judge.higher
        self.noise = torch.Generator().manual_seed(seed)
        self.fixed = torch.Generator()
        self.kept: list[Tensor] = []
        self.start: dict[str, float] = {}
        self.losses: dict[str, Tensor] = {}

    @property
    def done(self) -> int:
        """Steps so far."""
        before = self.current_epoch * self.trainer.datamodule.steps_per_epoch  # type: ignore[attr-defined]
        return before + int(self.sums["steps"])

    def set_rate(self) -> None:
        """Set the learning rates by the share of all steps that is done."""
        factor = self.schedule(self.done / self.options.num_steps)
        rates = (self.options.g_lr, self.options.d_lr)
        for optimizer, rate in zip(self.trainer.optimizers, rates, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * factor

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """One optimizer for each network."""
        found: list[torch.optim.Optimizer] = []
        for network, side in ((self.pair.generator, "g"), (self.pair.discriminator, "d")):
            name = getattr(self.options, f"{side}_optimizer")
            settings = getattr(self.options, f"{side}_optimizer_options") or {}
            lr = getattr(self.options, f"{side}_lr")
            if name == "adam":
                settings = {"betas": _BETAS, **settings}
                settings["betas"] = tuple(settings["betas"])
                found.append(torch.optim.Adam(network.parameters(), lr=lr, **settings))
            else:
                found.append(torch.optim.SGD(network.parameters(), lr=lr, **settings))
        return found

    def drawn(self, n: int, generator: torch.Generator) -> list[Tensor]:
        """Latent vectors `(n, k)`, and classes `(n,)` if the networks are conditional."""
        one = self.pair.generator
        draw = torch.randn if self.z_type == "normal" else torch.rand
        latent = draw(n, one.n_latent, generator=generator)
        if self.z_type == "uniform":
            latent = 2 * latent - 1
        found = [latent.to(self.device)]
        if one.n_classes is not None:
            labels = torch.randint(one.n_classes, (n,), generator=generator)
            found.append(labels.to(self.device))
        return found

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """One update of the generator, then several of the discriminator."""
        self.set_rate()
        start, causes = time.perf_counter(), []
        optimizers: Any = self.optimizers()
        n = self.options.batch_size
        causes.append(self._update(optimizers[0], self.pair.generator, lambda: self._g_loss(n)))
        pixels, labels = batch["images"].split(n), batch["target"].long().split(n)
        for images, classes in zip(pixels, labels, strict=True):
            loss = lambda x=images, y=classes: self._d_loss(x, y)  # noqa: E731
            causes.append(self._update(optimizers[1], self.pair.discriminator, loss))
            if self.pair.compensation is not None:
                self.pair.compensation.step()
        if self.pair.average is not None:
            self.pair.average.update_parameters(self.pair.generator)
        failed = [one for one in causes if one is not None]
        loss = float(self.losses["d"].detach()) if not failed else None
        self._count(loss, len(batch["target"]), (0, 0, 0), time.perf_counter() - start)
        for cause in failed:
            self.faults.add(cause, f"epoch {self.current_epoch}, step {batch_idx}")

    def _g_loss(self, n: int) -> Tensor:
        made = self.pair.generator(*(inputs := self.drawn(n, self.noise)))
        score = self.pair.discriminator(made, *inputs[1:])
        self.losses["g"] = hinge_generator(score)
        return self.losses["g"] + penalty(self.pair.generator, self.choices[0])

    def _d_loss(self, pixels: Tensor, labels: Tensor) -> Tensor:
        real = from_pixels(pixels, generator=self.noise)
        inputs = self.drawn(len(real), self.noise)
        with torch.no_grad():
            made = self.pair.generator(*inputs)
        conditions = [torch.cat([labels, one]) for one in inputs[1:]]
        # No layer looks at several images, so one pass is as good as two.
        scores = self.pair.discriminator(torch.cat([real, made]), *conditions)
        self.losses["d"] = hinge_discriminator(*scores.split(len(real)))
        return self.losses["d"] + penalty(self.pair.discriminator, self.choices[1])

    def _update(self, optimizer: Any, network: nn.Module, loss: Any) -> Exception | None:
        """One update of one network; what is not finite is undone, and returned."""
        snapshot, others = Snapshot(self.pair), self._others(network)

        def stage() -> None:
            found = loss()
            found.backward()
            gradients = [p.grad for p in network.parameters() if p.grad is not None]
            # One read by the host for both.
            check_finite(found.detach() + nn.utils.get_total_norm(gradients), "loss or gradient")

        optimizer.zero_grad()
        for one in others:
            one.requires_grad_(False)
        cause = self.faults.attempt([stage], self.device)
        for one in others:
            one.requires_grad_(True)
        if cause is None:
            optimizer.step()
        else:
            snapshot.restore()
        return cause

    def _others(self, network: nn.Module) -> list[nn.Parameter]:
        """Parameters of the other network."""
        pair = self.pair
        other = pair.generator if network is pair.discriminator else pair.discriminator
        return [one for one in other.parameters() if one.requires_grad]

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Log losses, spectra and sheets when they are due."""
        pair, done = self.pair, self.done
        values: dict[str, Any] = {
            f"batch/loss_{side}": lambda side=side: float(self.losses[side].detach())
            for side in "gd"
        }
        for side, optimizer in zip("gd", self.trainer.optimizers, strict=True):
            values[f"progress/lr_{side}"] = optimizer.param_groups[0]["lr"]
        for side, network, choice in zip(
            "gd", (pair.generator, pair.discriminator), self.choices, strict=True
        ):
            if choice.penalty != "none":
                values[f"batch/loss_{side}_spectral_penalty"] = (
                    lambda network=network, choice=choice: float(penalty(network, choice).detach())
                )
        self.outputs.watch.log(self, values, done=done, of=self.options.num_steps)
        spectra = {
            "generator": lambda: spectral.spectra(pair.generator),
            "discriminator": lambda: spectral.spectra(pair.discriminator),
        }
        self.outputs.watch.draw(self, spectra, done=done)
        self.outputs.draw_sheets(pair.evaluated, done=done)

    def on_validation_epoch_start(self) -> None:
        """Forget the images of the last evaluation; the same noise every time."""
        self.kept = []
        self.fixed.manual_seed(self.seed + 1)

    @torch.no_grad()
    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Generate images, and keep what the judge needs of them."""
        made = self.pair.evaluated(*self.drawn(batch["n"], self.fixed))
        self.kept.append(self.judge.read(to_pixels(made)))

    def on_validation_epoch_end(self) -> None:
        """Compare the images with real ones."""
        found = self.judge.compare(self.kept)
        self.kept = []
        spectra = spectral.spectra(self.pair.discriminator).values()
        ranks = torch.stack([spectral.stable_rank(one) for one in spectra])
        self.metrics = {**found, **self.start, "d_stable_rank": float(ranks.mean())}

    @torch.no_grad()
    def evaluate(self, sizes: list[int]) -> dict[str, float]:
        """Metrics of the networks as they are, of batches of these sizes."""
        self.pair.eval()
        self.fixed.manual_seed(self.seed + 1)
        made = (self.pair.evaluated(*self.drawn(n, self.fixed)) for n in sizes)
        found = self.judge.compare([self.judge.read(to_pixels(one)) for one in made])
        self.pair.train()
        return found

    def on_train_epoch_end(self) -> None:
        """Export the generator if it is the best so far; the checkpoint is already written."""
        saving = next(c for c in self.trainer.callbacks if isinstance(c, Checkpointing))  # type: ignore[attr-defined]
        if saving.run.best_epoch == saving.run.epoch - 1:
            self.outputs.export(self.pair.evaluated)

    def mean_error(self, train: Table, validation: Table) -> float:
        """Error of the untrained generator."""
        return self.start["error_start"]
