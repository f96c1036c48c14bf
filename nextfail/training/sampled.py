"""Accuracy of sampled answers, beside that of greedy decoding."""

from collections.abc import Iterable
from itertools import islice
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from nextfail.config import AtLeast0, AtLeast1, Positive
from nextfail.seeding import derive
from nextfail.tasks.base import Batch
from nextfail.tasks.data import fixed_loader
from nextfail.training.metrics import flat, proportion
from nextfail.training.module import TaskModule


@torch.no_grad()
def sampled(module: TaskModule, batches: Iterable[Batch], count: int, temperature: float, seed: int) -> dict[str, Any]:
    """Sample several answers to each problem.

    Args:
        module: in evaluation mode.
        batches: problems.
        count: samples per problem.
        temperature: divides the logits, above 0.
        seed: of the samples.

    Returns:
        `sampled_exact_match`: the share of samples that are right; `best_of_samples`: the share of problems of which at
        least one sample is. Intervals are over problems, as if all samples of one agreed: never too narrow.

    Raises:
        UserError: the objective cannot be sampled.
    """
    generator = torch.Generator(module.device).manual_seed(derive("sampled", seed))
    right: list[torch.Tensor] = []
    for batch in batches:
        here = batch.long().to(module.device)
        answers = []
        with module.objective.sampling(temperature, generator):
            for _ in range(count):
                generated = module.objective.generate(module.backbone, here.prompts, here.answers.shape[1])
                answers.append(module.task.score(generated, here)["exact_match"].right.bool())
        right.append(torch.stack(answers, 1).cpu())  # (B, count)
    hits = torch.cat(right)
    total = int(hits.sum())
    low, high = (proportion(problems, len(hits)) for problems in (total // count, -(-total // count)))
    return {
        "sampled_exact_match": low | {"value": total / hits.numel(), "high": high["high"]},
        "best_of_samples": proportion(int(hits.any(1).sum()), len(hits)),
        "samples": count,
        "temperature": temperature,
    }


class Sampled(Callback):
    """Samples answers to the validation problems at each validation, as split `sampled`. It does not affect the run.

    Args:
        samples: per problem.
        temperature: divides the logits; 1 samples from the model's own distribution.
        seed: of the samples.
    """

    def __init__(self, samples: AtLeast1 = 1, temperature: Positive = 1.0, seed: AtLeast0 = 0) -> None:
        self.samples, self.temperature, self.seed = samples, temperature, seed

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, TaskModule)
        data = trainer.datamodule  # type: ignore[attr-defined]
        batches = islice(fixed_loader(data.validation, data.eval_batch_size), int(trainer.num_val_batches[0]))
        with trainer.precision_plugin.val_step_context():
            values = sampled(pl_module, batches, self.samples, self.temperature, self.seed)
        logged = {f"sampled/{key.removeprefix('sampled_')}": value for key, value in flat(values).items()}
        pl_module.log_dict(logged)
