"""Training runs as data: what the two presets of PathSegmentor may be told, with their defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self

from pydantic import Field, field_validator, model_validator

from tissuetalk.models.datasets.archive import data_folder
from tissuetalk.models.datasets.example import Example
from tissuetalk.models.datasets.sources import SOURCES
from tissuetalk.models.recipe import Recipe, RecipePath
from tissuetalk.models.segmentation.pathsegmentor.card import TARGET_MPP

if TYPE_CHECKING:
    from tissuetalk.models.segmentation.pathsegmentor.base import BaseConfig


def with_tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    """Lists of a YAML file as tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


GroupGradient = Literal["weights", "weights_raw", "none", "softmax"]


class RunRecipe(Recipe):
    """What every run of the shared loop is told."""

    name: str
    """Names the run folder and what is written."""
    seed: int = 7
    checkpoint_seconds: float = Field(default=45.0, ge=0)
    """A kill loses at most about as much work."""
    threads: int = Field(default=2, ge=1)
    tensorboard: bool = False
    """Also write the log to ``tensorboard/`` in the run folder, for which that package must be installed."""


class TrainingRecipe(RunRecipe):
    """Everything that decides a run of a PathSegmentor, except the machine."""

    batch: int = Field(default=12, ge=1)
    learning_rate: float
    encoder_rate: float = 1.0
    """Factor on the learning rate of the image encoder."""
    weight_decay: float
    warm_up_steps: int
    clip_norm: float = 5.0
    start_from: RecipePath | None = None
    """Weights to continue from instead of a random start."""
    model: Mapping[str, Any] = {}
    """Sizes that differ from the preset's."""

    @property
    def rates(self) -> Mapping[str, float]:
        """Part of the network to its factor on the learning rate; other parts learn at 1."""
        return {"image_encoder": self.encoder_rate}

    @property
    def sizes(self) -> dict[str, Any]:
        """``model`` with tuples, as the networks' configurations want them."""
        return with_tuples(self.model)


MOST_TEACHER_WEIGHTS: Final = 60_000_000


class TeacherRecipe(Recipe):
    """A larger network of the same family, which is trained first, teaches, and is removed."""

    model: Mapping[str, Any]
    """Sizes that differ from the preset's; the sentences come from the same text tower."""
    imagenet: bool = False
    """Start the image encoder from ImageNet, where it is one that has such weights."""
    steps: int = Field(default=6000, ge=1)
    minutes: float | None = Field(default=None, gt=0)
    """Its part of the minutes of the run."""
    learning_rate: float = Field(default=1.5e-3, gt=0)
    encoder_rate: float = Field(default=1.0, ge=0)
    head_rate: float = Field(default=1.0, ge=0)

    @field_validator("model")
    @classmethod
    def _trainable(cls, model: Mapping[str, Any]) -> Mapping[str, Any]:
        import torch

        from tissuetalk.models.segmentation.pathsegmentor.mini import MiniConfig, MiniPathSegmentor

        sizes = with_tuples(model)
        known = {entry.name for entry in fields(MiniConfig)} - {"text_width"}
        if set(sizes) - known:
            raise ValueError(f"a teacher's sizes are {', '.join(sorted(known))}; it says {dict(model)}")
        try:
            with torch.device("meta"):  # counted, not allocated
                count = sum(weight.numel() for weight in MiniPathSegmentor(MiniConfig(**sizes)).parameters())
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"no network can be built with {dict(model)} ({error})") from error
        if count > MOST_TEACHER_WEIGHTS:
            raise ValueError(
                f"the teacher would have {count / 1e6:.1f} million weights, more than {MOST_TEACHER_WEIGHTS // 10**6} million; "
                "choose smaller widths or depths"
            )
        return model


class DistilRecipe(Recipe):
    """How a student learns what a teacher says of a crop, where the teacher agrees with itself on it mirrored and stained anew."""

    weight: float = Field(default=1.0, ge=0)
    """Of what the teacher says, beside the truth."""
    temperature: float = Field(default=2.0, gt=0)
    """Logits are divided by it: above 1 the student also learns how sure the teacher is."""
    agreement: float = Field(default=0.8, ge=0, le=1)
    """Least Dice of the two looks' masks at which a question is taught at all."""
    tolerance: float = Field(default=0.25, ge=0, le=1)
    """Largest difference of the two looks' probabilities at which a pixel is taught."""
    unasked: float = Field(default=0.5, ge=0, le=1)
    """Share of crops whose last question is of a target that nobody annotated there, of about the same scale."""
    unlabelled_share: float = Field(default=0.15, ge=0, lt=1)
    """Share of crops of ``unlabelled`` images whose scale is told by ``unlabelled_mpp``."""


class MiniRecipe(TrainingRecipe):
    """A run of the ``mini`` preset, the shipped default."""

    preset: Literal["mini"] = "mini"
    data_root: RecipePath
    """Folder of the data sets, or an archive of it that ``tissuetalk train RECIPE --pack`` wrote."""
    mix: Mapping[str, float]
    """``data set/target`` to its share of crops; shares are normalised."""
    steps: int = 6000
    """Length of the run and of the learning-rate schedule."""
    minutes: float | None = None
    """If set, the run also ends here and the schedule follows whichever is further along. A teacher's are part of them."""
    loaders: int = Field(default=1, ge=1, le=64)
    """Threads that draw crops, so that a GPU need not wait for them; the batches are the same."""
    crop_px: int = 256
    learning_rate: float = 1.5e-3
    head_rate: float = 1.0
    """Factor on the learning rate of the prompt head."""
    imagenet: bool = False
    """Start the image encoder from ImageNet instead of at random."""
    weight_decay: float = 0.03
    warm_up_steps: int = 100
    average: float = 0.998
    """Decay of the running average of the weights, which is what is kept."""
    zoom: float = 0.45
    """Crops are enlarged or reduced by up to e to this power."""
    group_size: int = 2
    """Sentences per crop and target (K)."""
    group_gradient: GroupGradient = "weights"
    group_strength: float = 1.0
    """lambda of the quality-guided group loss; 0 turns it off."""
    consistency: float = 0.1
    """beta of the stop-gradient consistency loss; 0 turns it off."""
    absent_weight: float = 1.0
    """Factor on the mask loss of a target that is not there; presence is learned in full."""
    distance_weight: float = 1.0
    presence_weight: float = 0.2
    image_weight: float = 0.05
    image_batches: int = 130
    """Batches on whose features the image head is refitted at the end."""
    counter_share: float = 0.03
    """Share of crops that are no tissue at all."""
    sentences: int = 400
    """Largest number of sentences of the bank that are used for each target and level."""
    text_noise: float = 0.01
    """Gaussian noise on each component of a sentence vector of length 1."""
    aimed: Mapping[str, float] = {"mitosis": 0.85, "non-tumour nuclei": 0.85}
    """Target to the share of its crops that are aimed at one; 0.4 for all others."""
    stain_spread: float = Field(default=0.0, ge=0, le=1)
    """Share of crops that take on the staining of an image of another source."""
    unlabelled: tuple[str, ...] = ()
    """Patterns of images below data_root that nobody annotated: they lend their staining, and a teacher may teach on them."""
    unlabelled_mpp: Mapping[str, Annotated[float, Field(gt=0)]] = {}
    """Folder of unlabelled images to their µm per pixel, about; images without are not learned from."""
    teacher: TeacherRecipe | None = None
    """Trained first, on the same mix."""
    distil: DistilRecipe | None = None
    """Learn from the teacher, or from the weights of start_from, too."""
    artefacts: float = Field(default=0.0, ge=0, le=1)
    """Share of crops with pen, a fold or dirt."""
    style_mixing: float = Field(default=0.0, ge=0, le=1)
    """Share of steps in which channel statistics of early maps are mixed between crops (MixStyle, Zhou et al. 2021)."""
    wide_scales: Mapping[str, tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]] = {}
    """Target to the finest and coarsest µm per pixel at which ``wide_share`` of its crops are seen."""
    wide_share: float = Field(default=0.2, ge=0, le=1)
    norm_momentum: float | None = None
    """Of the batch norms; None for torch's own."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Constant after the warm-up: any step of the running average may be kept."""
    keep_every: int | None = Field(default=None, ge=1)
    """Write the averaged weights every so many steps as ``stepN.safetensors``."""
    start_share: float = Field(default=0.0, ge=0, lt=1)
    """Share of the starting weights in what is kept (WiSE-FT, Wortsman et al. 2022); needs start_from."""
    leave_out: tuple[str, ...] = ()
    """``data set`` or ``data set:group`` not trained on, to validate on a case never seen."""
    take_back: tuple[str, ...] = ()
    """The same for held-out groups that are trained on, so that another can be left out."""
    full_data: bool = False
    """Train on the held-out groups too. Never for weights whose scores are reported."""

    @field_validator("mix")
    @classmethod
    def _known(cls, mix: Mapping[str, float]) -> Mapping[str, float]:
        for entry in mix:
            dataset, _, target = entry.partition("/")
            if dataset not in SOURCES or target not in TARGET_MPP:
                raise ValueError(
                    f"{entry!r} is not data set/target; sets: {', '.join(SOURCES)}; targets: {', '.join(TARGET_MPP)}"
                )
        return mix

    @model_validator(mode="after")
    def _starts(self) -> Self:
        if self.start_share and self.start_from is None:
            raise ValueError("start_share is a share of start_from, which is not given")
        return self

    @model_validator(mode="after")
    def _taught(self) -> Self:
        if self.distil is None:
            if self.teacher is not None or self.unlabelled_mpp:
                raise ValueError(
                    "a teacher, and unlabelled_mpp, are of use only with distil; add it (`distil: {}`)"
                )
            return self
        if self.teacher is None:
            if self.start_from is None:
                raise ValueError("distil needs somebody who teaches: teacher, or the weights of start_from")
            return self
        theirs = self.teacher.minutes
        if (self.minutes is None) != (theirs is None):
            raise ValueError("give minutes of the whole run and of the teacher, or steps alone")
        if self.minutes is not None and theirs is not None and theirs >= self.minutes:
            raise ValueError(
                f"the teacher takes {theirs:g} of {self.minutes:g} minutes; leave the student some"
            )
        return self

    @property
    def data(self) -> Path:
        """The folder of the data sets. Raises InvalidArgumentError for an archive that is none."""
        return data_folder(self.data_root)

    @property
    def own_minutes(self) -> float | None:
        """Those of the network that is kept."""
        theirs = self.teacher.minutes if self.teacher is not None else None
        return self.minutes if self.minutes is None or theirs is None else self.minutes - theirs

    def for_teacher(self, told: TeacherRecipe) -> MiniRecipe:
        """The run of the teacher: what it is told itself, all else as in this recipe."""
        changes = dict(told)  # its fields have the names that they have here
        changes |= {
            "name": f"{self.name}-teacher",
            "start_from": None,
            "start_share": 0.0,
            "keep_every": None,
        }
        changes |= {"schedule": "cosine", "norm_momentum": None, "teacher": None, "distil": None}
        return self.model_copy(update=changes)

    @property
    def rates(self) -> Mapping[str, float]:
        return {"image_encoder": self.encoder_rate, "prompt_head": self.head_rate}

    def trains_on(self, example: Example) -> bool:
        """Whether an example may be learned from."""
        names = {example.dataset, f"{example.dataset}:{example.group}"}
        if names & set(self.leave_out):
            return False
        return self.full_data or not example.held_out or bool(names & set(self.take_back))


class BaseRecipe(TrainingRecipe):
    """A run of the full-size ``base`` preset (pathsegmentor.md, sections 6 and 7). The defaults are the paper's."""

    preset: Literal["base"] = "base"
    manifests: Annotated[tuple[RecipePath, ...], Field(min_length=1)]
    """Annotated images, as `tissuetalk data prepare` writes them; rows of the test split are left out."""
    epochs: float = 20
    steps: int | None = None
    """If set, the length of the run instead of epochs."""
    batch: int = Field(default=32, ge=1)
    accumulate: int = Field(default=1, ge=1)
    """Parts in which a batch goes through the network, one after the other, where it does not fit into memory at once."""
    side_px: int = Field(default=1024, gt=0, multiple_of=32)
    """Images are brought to about this side, then cropped or padded to it."""
    rescale: tuple[float, float] = (0.9, 1.1)
    learning_rate: float = 8e-4
    """The paper's; far above the released base configuration's 1e-5, so watch the loss."""
    encoder_rate: float = 0.1
    text_rate: float = 0.1
    """Factors on the learning rate of the image encoder and the text tower."""
    weight_decay: float = 0.05
    warm_up_steps: int = 10
    drops: tuple[float, ...] = (0.889, 0.963)
    """Shares of the run after which the learning rate falls to a tenth."""
    bce_weight: float = 1.0
    dice_weight: float = 1.0
    similarity_weight: float = 0.8
    """Weight of the cross-entropy that ties the right query to the sentence (0.4 times 2)."""
    points: int = 12544
    """Points per mask on which losses are computed."""
    full_image_loss: bool = False
    """Every pixel instead of points."""
    absent_share: float = 0.0
    """Share of tiles asked for a label that the manifest says is absent: the query most like it must paint nothing.
    The paper trains no absent targets; without them something is painted for nearly every question."""
    vocabulary: RecipePath | None = None
    """vocab.txt of the text tower; default: uncased BERT's, which MiniLM ships with. For the clip tower the folder of its
    tokenizer, which must be given."""

    @property
    def rates(self) -> Mapping[str, float]:
        return {"image_encoder": self.encoder_rate, "text_encoder": self.text_rate}

    @model_validator(mode="after")
    def _buildable(self) -> Self:
        if self.config.text_tower == "clip" and self.vocabulary is None:
            raise ValueError("the clip tower has a tokenizer of its own; give its folder as vocabulary")
        return self

    @property
    def config(self) -> BaseConfig:
        """The network's sizes; ``size: tiny`` in ``model`` starts from the small configuration. Raises ValueError."""
        from tissuetalk.models.segmentation.pathsegmentor.base import BaseConfig

        changes = self.sizes
        size = changes.pop("size", "paper")
        known = {entry.name for entry in fields(BaseConfig)}
        if size not in ("paper", "tiny") or set(changes) - known:
            raise ValueError(
                f"model knows size (paper or tiny) and {', '.join(sorted(known))}; it says {dict(self.model)}"
            )
        clip = changes.get("text_tower") == "clip"
        start = BaseConfig.tiny() if size == "tiny" else BaseConfig.released_clip() if clip else BaseConfig()
        return BaseConfig(**{**{name: getattr(start, name) for name in known}, **changes})
