"""Recipes: everything that makes a run repeatable. Strict: an unknown key is an error. (Files: recipe_files.)"""

from typing import Literal, NamedTuple, Self

from pydantic import Field, model_validator

from cxrmine.method_keys import AttentionMining, HierarchicalAttention, OrganWeighted, Section, SeverityCurriculum

SMALL_RESNET, UNET = "small-resnet", "unet"
ROUNDS = ("am", "agcl")  # methods that learn in rounds


class Data(Section):
    findings: tuple[str, ...] = Field((), description="Findings to learn, in this order; empty: all of the dataset.")
    size: int = Field(512, ge=32, le=4096, description="Side of the network's input in pixels.")
    fit: Literal["stretch", "pad", "crop"] = Field(
        "stretch", description="How a film becomes the square input; crop: stretched to 8/7 of it, and its middle."
    )
    uncertain: Literal["ignore", "ones", "zeros"] = Field("ignore", description="What an uncertain label counts as.")
    unmentioned: Literal["zeros", "ignore"] = Field("zeros", description="What a finding nobody mentioned counts as.")
    severity: str = Field(
        "", description="A file of how severe findings are; empty: severity.parquet or .csv of the dataset, if there."
    )
    max_unreadable: float = Field(0.01, ge=0, le=1, description="Share of unreadable images above which to stop.")

    @model_validator(mode="after")
    def _findings_differ(self) -> Self:
        if len(set(self.findings)) < len(self.findings):
            raise ValueError("data.findings names a finding twice")
        return self


class Network(Section):
    backbone: str = Field("resnet50", description=f"A timm model, {SMALL_RESNET}, or {UNET} for organs.")
    layers: tuple[int, int, int, int] = Field((1, 1, 1, 1), description=f"{SMALL_RESNET}: residual blocks a stage.")
    channels: tuple[int, int, int, int] = Field(
        (32, 64, 96, 128), description=f"{SMALL_RESNET}, {UNET}: channels a stage."
    )
    stride: Literal[8, 16, 32] = Field(32, description="Input pixels a cell of the last feature map.")
    pool: Literal["gap", "lse"] = Field("gap", description="Global average, or log-sum-exp, pooling.")
    lse_r: float = Field(6.0, gt=0, description="Sharpness of log-sum-exp pooling.")
    weights: str = Field("imagenet", description="imagenet, none, or a safetensors file of the backbone.")
    input_channels: Literal[1, 3] = Field(3, description="1: the gray film; 3: the film three times.")

    @model_validator(mode="after")
    def _ours_are_whole(self) -> Self:
        if self.backbone in (SMALL_RESNET, UNET) and self.weights == "imagenet":
            raise ValueError(f'network.backbone = "{self.backbone}" has no network.weights = "imagenet"; say "none"')
        return self


class Augment(Section):
    flip: float = Field(0.5, ge=0, le=1, description="Chance of a left-right flip.")
    shift: float = Field(0.0, ge=0, le=0.5, description="Largest shift, as a share of the side.")
    zoom: float = Field(0.0, ge=0, lt=1, description="Largest change of scale: 0.1 is 0.9 to 1.1.")
    rotate: float = Field(0.0, ge=0, le=180, description="Largest rotation in degrees.")
    contrast: float = Field(0.0, ge=0, lt=1, description="Largest change of contrast: 0.2 is 0.8 to 1.2.")


class Phase(Section):
    name: str = Field(description="Shown in logs.")
    kind: Literal["plain", "base", "finding", "round"] = Field(
        "plain",
        description="base: before the rounds of am and agcl; round: run mine.rounds or agcl.iterations times; finding: "
        "agcl's networks of one finding each, before every round.",
    )
    severity: Literal["", "mild", "moderate", "severe"] = Field(
        "", description="Findings that are present count only from this severity on; where it is unknown, not at all."
    )
    epochs: int = Field(ge=1, description="Epochs; with until = level, the most there may be.")
    until: Literal["epochs", "level"] = Field("epochs", description="level: stop when validation loss levels off.")
    patience: int = Field(3, ge=1, description="Epochs without a lower validation loss that count as level.")
    lr: float = Field(gt=0, description="Learning rate.")
    schedule: Literal["constant", "step", "cosine"] = Field("constant", description="How the rate changes.")
    step_epochs: int = Field(10, ge=1, description="schedule = step: divide by 10 every so many epochs.")
    warmup: float = Field(0.0, ge=0, lt=1, description="Share of the phase in which the rate rises from 0.")
    frozen: tuple[str, ...] = Field((), description="Parts that do not learn, by the start of their names.")

    @model_validator(mode="after")
    def _level_has_no_fixed_end(self) -> Self:
        if self.until == "level" and self.schedule == "cosine":
            raise ValueError('until = "level" has no fixed end, which schedule = "cosine" needs')
        return self


class Train(Section):
    seed: int = Field(0, ge=0, lt=2**31, description="Seeds the weights, the order, the augmentation and dropout.")
    start: str = Field("", description="A finished run whose weights to begin with, in place of phases of kind base.")
    include: tuple[Literal["boxed"], ...] = Field(
        (), description="Splits trained on beside train, by their labels; am: in its rounds only."
    )
    share: float = Field(1.0, gt=0, le=1, description="Share of the training patients that are trained on.")
    batch_size: int = Field(64, ge=2, description="Images a step, over all processes.")
    optimizer: Literal["sgd", "adam", "adamw"] = Field("sgd", description="Which optimizer.")
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of sgd.")
    weight_decay: float = Field(1e-4, ge=0, description="Weight decay.")
    balance: Literal["none", "batch"] = Field(
        "none", description="batch: positives and negatives of a batch weigh by their rarity (Wang 2017)."
    )
    clip: float = Field(0.0, ge=0, description="Largest gradient norm; 0: no limit.")
    save_every: int = Field(200, ge=1, description="Steps from one resume mark to the next.")
    phases: tuple[Phase, ...] = Field(min_length=1, description="Run one after another.")


class Boxes(Section):
    source: str = Field(
        description="Boxes to learn from: dataset, or a file (mined, exported and corrected, or truth)."
    )
    annotated: float = Field(1.0, gt=0, le=1, description="Share of the patients whose boxes are used.")
    listed: str = Field("", description="A file of image names, whose patients join training: see docs/methods.md.")
    ranks: tuple[int, ...] = Field((1,), description="Ranks that are used; empty: all.")
    min_score: float = Field(0.0, ge=0, le=1, description="Boxes with a lower score are not used.")
    masks: Literal["boxes", "regions"] = Field(
        "boxes", description="What of them is learned; regions: where a box has none, the box."
    )


OrganName = Literal["left_lung", "right_lung", "heart", "lungs"]


class Mine(Section):
    rounds: int = Field(1, ge=1, le=20, description="Rounds of erasure, T; 1: the plain map.")
    fixed_weights: bool = Field(False, description="Erase with the final weights in every round: any run can.")
    top: int = Field(3, ge=1, description="Most boxes a pair.")
    way: str = Field("components", description="How boxes are cut from a map: see docs/methods.md.")
    cuts: tuple[float, ...] = Field((), description="Intensities to cut at, 0 to 1; empty: the way's own.")
    cuts_of: dict[str, tuple[float, ...]] = Field({}, description="Other cuts for some findings, by name.")
    align: Literal["centres", "resize"] = Field("centres", description="Where a map's cells lie on the film.")
    organ_way: Literal["gate", "drop", "mark"] = Field(
        "gate", description="With --organs: maps are 0 outside them; boxes go by their share outside; it is only noted."
    )
    outside: float = Field(0.5, ge=0, lt=1, description="organ_way = drop: the largest share of a box outside.")
    organs_of: dict[str, tuple[OrganName, ...]] = Field(
        {}, description="Organs where some findings lie, by name; of others lungs and heart."
    )
    margin: float = Field(0.0, ge=0, le=0.25, description="How far beyond them, as a share of the film's side.")
    margin_of: dict[str, float] = Field({}, description="Other margins for some findings, by name.")

    @model_validator(mode="after")
    def _cuts_are_intensities(self) -> Self:
        for key, cuts in {"cuts": self.cuts, **{f"cuts_of.{name}": own for name, own in self.cuts_of.items()}}.items():
            if any(not 0 < cut < 1 for cut in cuts):
                raise ValueError(f"mine.{key} must lie between 0 and 1")
        return self

    @model_validator(mode="after")
    def _organs_are_there(self) -> Self:
        for finding, organs in self.organs_of.items():
            if not organs:
                raise ValueError(f"mine.organs_of.{finding} names no organ")
        for finding, margin in self.margin_of.items():
            if not 0 <= margin <= 0.25:
                raise ValueError(f"mine.margin_of.{finding} must lie between 0 and 0.25")
        return self


class Step(NamedTuple):
    """One phase as it is run: 0, or the round of mining that it trains."""

    phase: Phase
    round: int


class Recipe(Section):
    name: str = Field(description="Short name; recorded in every box table.")
    method: Literal["cam", "am", "ham", "irnet", "agcl", "organs"] = Field(
        description="The file of methods/ that learns."
    )
    data: Data = Data()
    network: Network = Network()
    augment: Augment = Augment()
    train: Train
    am: AttentionMining | None = None
    ham: HierarchicalAttention | None = None
    irnet: OrganWeighted | None = None
    agcl: SeverityCurriculum | None = None
    boxes: Boxes | None = None
    mine: Mine = Mine()

    @property
    def schedule(self) -> list[Step]:
        """The phases as they are run: a round's as often as there are rounds, none of kind base after a start, and
        none of kind finding, which other networks learn in."""
        steps = []
        rounds = self.agcl.iterations if self.agcl else self.mine.rounds
        for phase in self.train.phases:
            if phase.kind == "finding" or (phase.kind == "base" and self.train.start):
                continue
            if phase.kind != "round":
                steps.append(Step(phase, 0))
            else:
                named = (phase.model_copy(update={"name": f"{phase.name} {t}"}) for t in range(1, rounds + 1))
                steps += [Step(phase, t) for t, phase in enumerate(named, start=1)]
        return steps

    @property
    def trained_rounds(self) -> int:
        """Rounds of mining whose weights a run of this recipe keeps; 0: it has none."""
        return self.schedule[-1].round if self.method == "am" else 0

    @model_validator(mode="after")
    def _method_has_its_section(self) -> Self:
        sections = [(name, getattr(self, name), name) for name in ("am", "ham", "irnet", "agcl")]
        for name, section, of in (*sections, ("boxes", self.boxes, "ham")):
            if section is not None and self.method != of:
                raise ValueError(f'the section {name} is for method = "{of}", and this is "{self.method}"')
            if section is None and self.method == name:
                raise ValueError(f'method = "{name}" needs the section {name}')
        return self

    @model_validator(mode="after")
    def _phases_fit_the_method(self) -> Self:
        kinds = [phase.kind for phase in self.train.phases]
        if self.method not in ROUNDS and set(kinds) != {"plain"}:
            raise ValueError(
                f'train.phases: kind = "base" and "round" are for method = "am" and "agcl", and this is "{self.method}"'
            )
        if "finding" in kinds and self.method != "agcl":
            raise ValueError(f'train.phases: kind = "finding" is for method = "agcl", and this is "{self.method}"')
        if set(kinds) == {"base"} and self.train.start:
            raise ValueError('train.phases: after train.start nothing is left to train but phases of kind = "base"')
        if self.method == "am" and self.train.include and "round" not in kinds:
            raise ValueError('train.include is for the rounds of method = "am": train.phases has no kind = "round"')
        if self.method == "agcl" and kinds[-1] != "round":
            raise ValueError('method = "agcl" needs a last phase of kind = "round"')
        if "round" in kinds[:-1]:
            raise ValueError('train.phases: a phase of kind = "round" is the last one')
        return self

    @model_validator(mode="after")
    def _organs_have_their_network(self) -> Self:
        if (self.method == "organs") != (self.network.backbone == UNET):
            raise ValueError(f'network.backbone = "{UNET}" and method = "organs" need each other')
        if self.method == "organs" and self.augment.flip:
            raise ValueError('method = "organs" needs augment.flip = 0: a flip makes a left lung of a right one')
        if self.method == "organs" and self.train.start:
            raise ValueError('method = "organs" takes no train.start')
        return self

    @model_validator(mode="after")
    def _some_findings_are_findings(self) -> Self:
        known = ", ".join(self.data.findings)
        for key in ("cuts_of", "organs_of", "margin_of") if known else ():
            if unknown := set(getattr(self.mine, key)) - set(self.data.findings):
                raise ValueError(f"mine.{key} names {', '.join(sorted(unknown))}, and the findings are {known}")
        return self

    @model_validator(mode="after")
    def _rounds_are_trained(self) -> Self:
        if self.mine.rounds > 1 and not self.trained_rounds and not self.mine.fixed_weights:
            raise ValueError(
                f'mine.rounds = {self.mine.rounds}, but no phase of train.phases has kind = "round"; with '
                "mine.fixed_weights = true every round uses the final weights"
            )
        return self
