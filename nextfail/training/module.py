"""The single LightningModule for any task, backbone and objective."""

from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from nextfail.errors import UserError
from nextfail.models.backbone import Backbone
from nextfail.objectives.base import Objective
from nextfail.seeding import derive
from nextfail.tasks.base import Batch, Task
from nextfail.training.graphed import Measured, Step, graphed
from nextfail.training.metrics import AnswerMetrics, flat
from nextfail.training.optim import schedule

OptimizerFactory = Callable[[torch.nn.Module], Optimizer]
SchedulerFactory = Callable[..., LRScheduler]


class TaskModule(L.LightningModule):
    """Trains `backbone` with `objective` and evaluates the answers it decodes.

    Args:
        task: task of the problems.
        backbone: the model.
        objective: the training objective; attached to task and backbone here.
        optimizer: creates an optimizer from a module; None for evaluation only.
        scheduler: creates a schedule from `optimizer` and `max_steps`; stepped after every optimizer step.
        seed: the run's seed; randomness in step k is a pure function of it and k.
        cuda_graphs: whether to replay training steps as CUDA graphs; no effect without a CUDA GPU.
    """

    def __init__(
        self,
        task: Task,
        backbone: Backbone,
        objective: Objective,
        optimizer: OptimizerFactory | None = None,
        scheduler: SchedulerFactory | None = None,
        seed: int = 0,
        cuda_graphs: bool = False,
    ) -> None:
        super().__init__()
        if task.answer_length < 2:
            raise UserError(f"{task} has answers of {task.answer_length} token: an objective needs at least 2")
        backbone.name_tokens(task.vocab.texts)
        if task.vocab.pairs is not None:
            backbone.join_pairs(task.vocab.pairs)
        objective.attach(task, backbone)
        self.task, self.backbone, self.objective = task, backbone, objective
        self.make_optimizer, self.make_scheduler, self.seed = optimizer, scheduler, seed
        self.cuda_graphs = cuda_graphs
        self._steps: list[Callable[..., Measured]] = []  # in a list, so that it is not registered as a submodule
        self.metrics = AnswerMetrics(task)
        self.window = Window()
        self.results: dict[str, Any] = {}
        """Metrics of the last validation or test, with counts and intervals."""

    def forward(self, prompts: Tensor) -> Tensor:
        """Greedy answers (B, L) to prompts (B, P) of any integer type, first token first."""
        answers: Tensor = self.objective.generate(self.backbone, prompts.long(), self.task.answer_length)
        return answers

    def adapt(self, device: str) -> None:
        """See `Backbone.adapt`; for every backbone, also those of the objective."""
        for each in self.modules():
            if isinstance(each, Backbone):
                each.adapt(device)

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self(batch.prompts)

    def configure_optimizers(self) -> Any:
        assert self.make_optimizer is not None and self.make_scheduler is not None, "made for evaluation alone"
        try:
            optimizer = self.make_optimizer(self)
            scheduler = schedule(self.make_scheduler, optimizer, self.trainer.max_steps)
        except (TypeError, ValueError) as error:
            hint = ": an optimizer is made from the module" if "TaskModule" in str(error) else ""
            raise UserError(f"optimizer and scheduler cannot be built: {error}{hint}") from error
        if isinstance(scheduler, ReduceLROnPlateau):
            raise UserError("scheduler: ReduceLROnPlateau follows a metric, and schedules here follow the step: choose "
                            "another one")  # fmt: skip
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip by norm in every precision.

        Lightning refuses this under bf16-mixed, as fused optimizers unscale gradients themselves; but only fp16 scales
        gradients.
        """
        if getattr(self.trainer.precision_plugin, "scaler", None) is not None:
            raise UserError(f"trainer.precision={self.trainer.precision} scales gradients, which is not supported: "
                            "choose bf16-mixed or 32-true")  # fmt: skip
        if gradient_clip_val:  # in the optimizer's order, as in Lightning: the order affects rounding
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            torch.nn.utils.clip_grad_norm_(parameters, gradient_clip_val)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        part = batch_idx % self.trainer.accumulate_grad_batches  # index of the batch within a step
        torch.manual_seed(derive("step", self.seed, self.global_step, *([part] if part else [])))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        if not self._steps:
            step = Step(self.objective, self.backbone)
            wanted = self.cuda_graphs and self.device.type == "cuda"
            self._steps.append(graphed(step, batch, self.seed) if wanted else step)
        values = self._steps[0](*batch)
        self.window.add(values)
        return values["loss"]

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.metrics.update(self.objective.predict(self.backbone, batch), batch)

    test_step = validation_step

    def on_validation_epoch_end(self) -> None:
        self._report("train", self.window.mean())
        self.window.clear()
        self._report_metrics("validation")

    def on_test_epoch_end(self) -> None:
        self._report_metrics("test")

    def _report_metrics(self, split: str) -> None:
        self.results = self.metrics.compute()
        self.metrics.reset()
        self._report(split, flat(self.results))

    def _report(self, split: str, values: dict[str, float]) -> None:
        self.log_dict({f"{split}/{key}": value for key, value in values.items()} | {"step": float(self.global_step)})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["window"] = self.window.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.window = Window(**checkpoint["window"])


def widest(device: torch.device) -> torch.dtype:
    """The most precise type for sums; Apple GPUs have no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


class Window:
    """Sums of losses since the last validation; saved in checkpoints, so that a resumed run reports the same values."""

    def __init__(self, sums: dict[str, Tensor] | None = None, steps: int = 0) -> None:
        self.sums, self.steps = dict(sums or {}), steps

    def add(self, values: Measured) -> None:
        """Add one step; stays on the device, so that nothing waits."""
        for name, value in values.items():
            value = value.detach().to(widest(value.device))
            self.sums[name] = self.sums[name].to(value) + value if name in self.sums else value.clone()
        self.steps += 1

    def mean(self) -> dict[str, float]:
        """Means over the steps; empty before the first step."""
        return {name: float(total) / self.steps for name, total in self.sums.items()}

    def clear(self) -> None:
        """Start a new window."""
        self.sums, self.steps = {}, 0

    def state(self) -> dict[str, Any]:
        """State to restore with `Window(**state)`."""
        return {"sums": dict(self.sums), "steps": self.steps}
