"""Reference lines: what a score means, by what known samples earn under the same protocol."""

import torch
from jaxtyping import Float
from torch import Tensor

from cgan_core.configs.mlp import MLPConfig
from cgan_core.evaluation import Evaluator
from cgan_core.member import Member
from cgan_core.samples import Samples
from cgan_core.scores import Scores
from cgan_core.streams import stream

KMEANS_ITERATIONS = 10
BLOCK_ROWS = 1_000


def reference_lines(
    evaluator: Evaluator, winner: Samples | None = None, *, kmeans: bool = True
) -> dict[str, float | None]:
    """Scores the reference samples on the test split, bandwidth from validation, in nats.

    - `real_data`: N training images, evenly of each class: what a perfect generator would earn.
    - `kmeans`: N centroids of the training images: above real data, for it is smoother.
    - `class_means`: one mean image a class: what a generator without variety earns.
    - `untrained`: the paper's generator before its first step.
    - `label_shuffled`: the winner's *conditional* score with its labels permuted.
    """
    samples = {
        "real_data": real_images(evaluator),
        "kmeans": centroids(evaluator) if kmeans else None,
        "class_means": class_means(evaluator),
        "untrained": untrained(evaluator),
    }
    lines: dict[str, float | None] = {
        name: None if one is None else _test_scores(evaluator, one).log_likelihood
        for name, one in samples.items()
    }
    lines["label_shuffled"] = None
    if winner is not None and winner.conditions is not None:
        shuffled = Samples(winner.images, _shuffled(evaluator, winner.conditions))
        lines["label_shuffled"] = _test_scores(evaluator, shuffled).conditional_log_likelihood
    return lines


def validation_line(evaluator: Evaluator, samples: Samples) -> float:
    """Returns the validation log-likelihood of reference samples, in nats."""
    return evaluator.validation(samples).log_likelihood


def _test_scores(evaluator: Evaluator, samples: Samples) -> Scores:
    return evaluator.test(samples, evaluator.bandwidth(samples))


def _shuffled(evaluator: Evaluator, conditions: Tensor) -> Tensor:
    rng = stream(evaluator.protocol.seed, "label shuffle")
    return conditions[torch.from_numpy(rng.permutation(len(conditions)))]


def real_images(evaluator: Evaluator) -> Samples:
    """Draws N training images without replacement, as many of each class as the protocol has."""
    train = evaluator.examples
    order = torch.from_numpy(stream(evaluator.protocol.seed, "real data").permutation(len(train)))
    count = evaluator.protocol.num_samples
    if evaluator.protocol.num_classes is not None and train.conditions is not None:
        each = count // evaluator.protocol.num_classes
        labels = train.conditions[order]
        order = torch.cat(
            [order[labels == label][:each] for label in range(evaluator.protocol.num_classes)]
        )
    images, conditions = train.batch(order[:count])
    return Samples(images, conditions)


def class_means(evaluator: Evaluator) -> Samples | None:
    """Returns the mean training image of each class, or None without labels."""
    train, classes = evaluator.examples, evaluator.protocol.num_classes
    if classes is None or train.conditions is None:
        return None
    means = [
        train.images[train.conditions == label].double().mean(0) / 255 for label in range(classes)
    ]
    return Samples(torch.stack(means).float(), torch.arange(classes))


def untrained(evaluator: Evaluator) -> Samples:
    """Draws N samples of the paper's generator as it is initialised."""
    config = MLPConfig.paper(batch_size=1)
    member = Member(config, evaluator.examples, evaluator.protocol.seed)
    generator = member.generator.to(evaluator.device)
    return evaluator.draw(generator, config)


def centroids(evaluator: Evaluator) -> Samples:
    """Clusters the training images into N groups by Lloyd's algorithm (k-means, 10 rounds)."""
    images = evaluator.examples.images.float().div_(255)
    count = min(evaluator.protocol.num_samples, len(images))
    start = stream(evaluator.protocol.seed, "k-means").permutation(len(images))[:count]
    centers = images[torch.from_numpy(start)]
    for _ in range(KMEANS_ITERATIONS):
        centers = _lloyd(images, centers)
    return Samples(centers.clamp_(0, 1), None)


def _lloyd(
    images: Float[Tensor, "n pixels"], centers: Float[Tensor, "k pixels"]
) -> Float[Tensor, "k pixels"]:
    squares = (centers**2).sum(1)
    assigned = torch.cat(
        [
            torch.addmm(squares, rows, centers.T, alpha=-2).argmin(1)
            for rows in images.split(BLOCK_ROWS)
        ]
    )
    sizes = torch.bincount(assigned, minlength=len(centers)).clamp_(min=1)
    sums = torch.zeros_like(centers).index_add_(0, assigned, images)
    moved = sums / sizes.unsqueeze(1)
    empty = torch.bincount(assigned, minlength=len(centers)) == 0
    moved[empty] = centers[empty]  # a centre that lost all its images stays
    return moved
